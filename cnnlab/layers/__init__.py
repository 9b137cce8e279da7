"""What networks are made of: convolution, pooling, normalisation, residual blocks, neurons; in NHWC.

Every function and module takes images as `[batch, height, width, channels]`.
"""

from .activations import get_activation as get_activation
from .activations import initializer_for as initializer_for
from .convolution import Conv as Conv
from .convolution import conv_general_dilated as conv_general_dilated
from .convolution import conv_max_pool as conv_max_pool
from .dropout import Dropout as Dropout
from .initializers import fan_in_uniform as fan_in_uniform
from .initializers import identity_filters as identity_filters
from .local_response_norm import local_response_norm as local_response_norm
from .neurons import FeedForward as FeedForward
from .neurons import Perceptron as Perceptron
from .neurons import SigmoidNeuron as SigmoidNeuron
from .neurons import perceptron_update as perceptron_update
from .normalization import BatchNorm as BatchNorm
from .pooling import adaptive_avg_pool as adaptive_avg_pool
from .pooling import avg_pool as avg_pool
from .pooling import global_avg_pool as global_avg_pool
from .pooling import global_max_pool as global_max_pool
from .pooling import max_pool as max_pool
from .pooling import min_pool as min_pool
from .residual import BasicBlock as BasicBlock
from .residual import Bottleneck as Bottleneck
from .residual import ResidualBlock as ResidualBlock
from .residual import identity_shortcut as identity_shortcut
from .squeeze_excite import SqueezeExcite as SqueezeExcite
from .standardize import Standardized as Standardized
from .stochastic_depth import StochasticDepth as StochasticDepth
from .whitening import patch_whitening_filters as patch_whitening_filters
