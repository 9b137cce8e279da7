"""Turns a run folder into figures, CSV tables and one self-contained `report.html`.

`write_report(folder)` does everything; the `plot_*` functions are its figures, for use in research code.
Nothing here touches global matplotlib state, and matplotlib is imported by the first figure, not before.
"""

from .confusion import confused_pairs as confused_pairs
from .confusion import plot_confusion_matrix as plot_confusion_matrix
from .curves import plot_learning_curves as plot_learning_curves
from .errors import ReportError as ReportError
from .examples import Example as Example
from .examples import plot_examples as plot_examples
from .filters import plot_filters as plot_filters
from .per_class import plot_per_class as plot_per_class
from .style import save_figure as save_figure
from .write import write_report as write_report
