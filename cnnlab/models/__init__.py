"""The registry of architectures and one file per family."""

from .lenet import LeNet as LeNet
from .lenet import lenet as lenet
from .registry import ModelInfo as ModelInfo
from .registry import create_model as create_model
from .registry import list_models as list_models
from .registry import model_info as model_info
from .registry import register_model as register_model
