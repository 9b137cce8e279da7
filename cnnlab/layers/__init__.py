"""What networks are made of: convolution and pooling, in NHWC, each with a lowering per platform.

Every function and module takes images as `[batch, height, width, channels]`.
"""

from .convolution import Conv as Conv
from .convolution import conv_general_dilated as conv_general_dilated
from .convolution import conv_max_pool as conv_max_pool
from .pooling import avg_pool as avg_pool
from .pooling import max_pool as max_pool
from .pooling import min_pool as min_pool
from .standardize import Standardized as Standardized
