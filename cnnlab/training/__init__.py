"""Recipe, state, step, plateau rule, loop, checkpoints."""

from .callbacks import Callback as Callback
from .checkpoint import CheckpointError as CheckpointError
from .checkpoint import CheckpointStore as CheckpointStore
from .environment import describe_environment as describe_environment
from .find_rate import RateSearch as RateSearch
from .loop import Outcome as Outcome
from .loop import Trainer as Trainer
from .loop import TrainingDiverged as TrainingDiverged
from .optimizer import make_optimizer as make_optimizer
from .plateau import Plateau as Plateau
from .position import Position as Position
from .recipe import Recipe as Recipe
from .recipe import RecipeError as RecipeError
from .recipes import get_recipe as get_recipe
from .recipes import list_recipes as list_recipes
from .run_folder import RunFolder as RunFolder
from .run_folder import RunFolderError as RunFolderError
from .state import TrainState as TrainState
from .step import Metrics as Metrics
from .step import cross_entropy as cross_entropy
from .step import make_eval_step as make_eval_step
from .step import make_train_step as make_train_step
