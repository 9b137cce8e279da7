"""How good a network is, and what it says of images it has not seen."""

from .augmented import TestTimeAugmented as TestTimeAugmented
from .evaluate import evaluate as evaluate
from .metrics import ClassMetrics as ClassMetrics
from .metrics import Evaluation as Evaluation
from .metrics import evaluation_from_predictions as evaluation_from_predictions
from .predict import Prediction as Prediction
from .predict import predict as predict
