"""cnnlab: train, study and compare convolutional networks in JAX and Flax NNX.

>>> import cnnlab
>>> run = cnnlab.fit("lenet", "digits", "thesis", out="runs/digits")  # doctest: +SKIP
>>> cnnlab.predict(run.best, ["seven.png"], top_k=3)  # doctest: +SKIP

This file is the public face. Everything on it is fetched from its room when it is first asked for, so that
``import cnnlab`` costs nothing. A name stands once in the first branch, for type checkers and editors, and
once in ``_HOMES``, for the interpreter; ``tests/test_import.py`` holds the two together.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import data as data
    from . import evaluation as evaluation
    from . import layers as layers
    from . import models as models
    from . import report as report
    from . import training as training
    from .data import Dataset as Dataset
    from .data import DatasetError as DatasetError
    from .data import Split as Split
    from .data import dataset_from_arrays as dataset_from_arrays
    from .data import list_datasets as list_datasets
    from .data import load_dataset as load_dataset
    from .evaluation import Evaluation as Evaluation
    from .evaluation import evaluate as evaluate
    from .evaluation import predict as predict
    from .experiment import Run as Run
    from .experiment import find_learning_rate as find_learning_rate
    from .experiment import fit as fit
    from .experiment import load as load
    from .experiment import resume as resume
    from .models import create_model as create_model
    from .models import feature_maps as feature_maps
    from .models import list_models as list_models
    from .models import load_weights as load_weights
    from .models import model_info as model_info
    from .models import register_model as register_model
    from .models import replace_head as replace_head
    from .models import save_weights as save_weights
    from .models import summarize as summarize
    from .report import write_report as write_report
    from .training import Plateau as Plateau
    from .training import Recipe as Recipe
    from .training import TrainState as TrainState
    from .training import get_recipe as get_recipe
    from .training import list_recipes as list_recipes
    from .training import make_eval_step as make_eval_step
    from .training import make_optimizer as make_optimizer
    from .training import make_train_step as make_train_step
else:
    import sys
    from importlib import import_module

    _ROOMS = ("data", "evaluation", "layers", "models", "report", "training")
    _HOMES = {
        "data": "Dataset DatasetError Split dataset_from_arrays list_datasets load_dataset",
        "evaluation": "Evaluation evaluate predict",
        "experiment": "Run find_learning_rate fit load resume",
        "models": "create_model feature_maps list_models load_weights model_info register_model replace_head "
        "save_weights summarize",
        "report": "write_report",
        "training": "Plateau Recipe TrainState get_recipe list_recipes make_eval_step make_optimizer make_train_step",
    }
    _HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
    __all__ = [*sorted(_HOME_OF), *_ROOMS]

    def __getattr__(name: str) -> object:
        """Import the room of a public name when the name is first used (PEP 562)."""
        if name in _ROOMS:
            return import_module(f"{__name__}.{name}")
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
        value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        globals()[name] = value  # the next look-up does not come here
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
