"""Checks of chapter 10's exercises: certificates, norms from below and above, layers that cannot move fast."""

from course_lib.checks.lipschitz.classifying import certified_radius, classifier, fit, radii
from course_lib.checks.lipschitz.layers import aol, group_sort, sll
from course_lib.checks.lipschitz.network import network_bound
from course_lib.checks.lipschitz.norms import conv_norm, power_iteration

__all__ = [
    "aol",
    "certified_radius",
    "classifier",
    "conv_norm",
    "fit",
    "group_sort",
    "network_bound",
    "power_iteration",
    "radii",
    "sll",
]
