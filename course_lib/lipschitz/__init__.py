"""Chapter 10: networks that are 1-Lipschitz in L2 by construction."""

from course_lib.lipschitz.activations import MaxMin
from course_lib.lipschitz.base import LipschitzLayer
from course_lib.lipschitz.conv import AOLConv2d, SLLConv2d
from course_lib.lipschitz.dense import AOLLinear, SLLLinear
from course_lib.lipschitz.pooling import L2AvgPool2d, PadChannels

__all__ = [
    "AOLConv2d", "AOLLinear", "L2AvgPool2d", "LipschitzLayer", "MaxMin", "PadChannels", "SLLConv2d", "SLLLinear",
]  # fmt: skip
