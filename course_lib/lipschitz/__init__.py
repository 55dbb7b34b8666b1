"""Chapter 10: networks that are 1-Lipschitz in L2 by construction."""

from course_lib.lipschitz.activations import Abs, GroupSort, Householder, MaxMin
from course_lib.lipschitz.base import LipschitzLayer
from course_lib.lipschitz.bounds import conv_upper_bound, jacobian_norm, lower_bound, sandwich_plot, upper_bound
from course_lib.lipschitz.conv import AOLConv2d, CPLConv2d, LinearResidualConv2d, SLLConv2d, SpectralConv2d
from course_lib.lipschitz.conv_orthogonal import BCOPConv2d, CayleyConv2d, SOCConv2d
from course_lib.lipschitz.dense import (
    AOLLinear,
    BjorckLinear,
    CayleyLinear,
    CPLLinear,
    OrthogonalLinear,
    SandwichLinear,
    SLLLinear,
    SpectralLinear,
)
from course_lib.lipschitz.lipsim import LipSimNet
from course_lib.lipschitz.norms import conv_bound, gram_bound, torus_norm
from course_lib.lipschitz.pooling import (
    GlobalL2Pool,
    L2AvgPool2d,
    MaxPool2d,
    OrthonormalProjection,
    PadChannels,
    ResidualAverage,
    TruncateChannels,
)
from course_lib.lipschitz.wavelets import AbsDetails, BlockCosines, Gains, Haar2d

__all__ = [
    "AOLConv2d", "AOLLinear", "Abs", "AbsDetails", "BCOPConv2d", "BjorckLinear", "BlockCosines", "CPLConv2d",
    "CPLLinear", "CayleyConv2d", "CayleyLinear", "Gains", "GlobalL2Pool", "GroupSort", "Haar2d", "Householder",
    "L2AvgPool2d", "LinearResidualConv2d", "LipSimNet", "LipschitzLayer", "MaxMin", "MaxPool2d", "OrthogonalLinear",
    "OrthonormalProjection", "PadChannels", "ResidualAverage", "SLLConv2d", "SLLLinear", "SOCConv2d",
    "SandwichLinear", "SpectralConv2d", "SpectralLinear", "TruncateChannels", "conv_bound", "conv_upper_bound",
    "gram_bound", "jacobian_norm", "lower_bound", "sandwich_plot", "torus_norm", "upper_bound",
]  # fmt: skip
