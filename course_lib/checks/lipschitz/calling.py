"""Reads the number that a learner's function returned, and compares it."""

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from course_lib.checks import Mistake, expect_shape


def one_number(actual: Any) -> float:
    """The number that an attempt returned, as a float or as a tensor or array of one element."""
    if actual is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if isinstance(actual, Tensor):
        expect_shape(actual, () if actual.numel() != 1 else tuple(actual.shape), "return one number")
        if actual.is_complex():
            raise Mistake("your function returns a complex number; a norm is real: take .abs()")
        return actual.item()
    if not isinstance(actual, Real):
        raise Mistake(f"your function returns a {type(actual).__name__}; one number was expected")
    return float(actual)


def near(value: float, other: float | Tensor, tolerance: float = 1e-4) -> bool:
    """Whether two numbers agree to a relative tolerance."""
    return math.isclose(value, float(other), rel_tol=tolerance, abs_tol=1e-9)


def spectral_norm(matrix: Tensor) -> float:
    """Largest singular value, by a full SVD in float64."""
    return torch.linalg.svdvals(matrix.double())[0].item()
