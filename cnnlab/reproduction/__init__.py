"""The tables and figures of the papers, each from one command, with a verdict on what the paper claims.

    cnnlab reproduce figure8 --quick

A study (`Study`) says what is trained and how it is judged; `reproduce` does it, going on where an earlier call
stopped; `publish` puts what was found into the documentation.
"""

from .page import publish as publish
from .registry import get_study as get_study
from .registry import list_studies as list_studies
from .reproduce import reproduce as reproduce
from .results import Results as Results
from .results import RowResults as RowResults
from .study import Row as Row
from .study import Study as Study
from .study import Verdict as Verdict
