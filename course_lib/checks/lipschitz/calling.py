"""Calls a learner's function, reads the number that comes back, and compares it."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from course_lib.checks import Mistake, expect_shape


def call(attempt: Callable, *inputs: Any) -> Any:
    """What `attempt` makes of copies of the inputs, which it may not change."""
    copies = [value.clone() if isinstance(value, Tensor) else value for value in inputs]
    result = attempt(*copies)
    for value, copy in zip(inputs, copies, strict=True):
        if isinstance(value, Tensor) and not torch.equal(value, copy):
            raise Mistake("you changed an input in place, and the caller still needs it; work on a copy: .clone()")
    return result


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
