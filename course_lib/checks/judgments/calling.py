"""Calls a learner's function and looks at what comes back, before its values are compared."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.checks import Mistake


def call(attempt: Callable, *given: Any) -> Any:
    """What `attempt` makes of copies of tensors and lists of them; NumPy's numbers and arrays become tensors.

    Raises:
        Mistake: if `attempt` changes what it is given. Other things, such as modules, it may change.
    """
    copies = [_copy(x) for x in given]
    found = attempt(*copies)
    if not all(_equal(x, copy) for x, copy in zip(given, copies, strict=True)):
        raise Mistake("your function changes what it is given; work on a copy: x.clone()")
    return _as_tensor(found)


def several(found: Any, names: str) -> list[Any]:
    """The numbers that `names` lists, such as "low, high".

    Raises:
        Mistake: if `found` is something else than so many numbers.
    """
    wanted = len(names.split(", "))
    if found is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if not (isinstance(found, tuple | list) or (isinstance(found, Tensor) and found.ndim > 0)) or len(found) != wanted:
        raise Mistake(f"return {wanted} numbers: {names}")
    numbers = [_as_tensor(x) for x in found]
    for x in numbers:
        if isinstance(x, Tensor) and x.ndim > 0:
            raise Mistake(f"one of the numbers has shape {tuple(x.shape)}; return {wanted} numbers: {names}")
        if not isinstance(x, Tensor | float | int):
            raise Mistake(f"one of the numbers is a {type(x).__name__}; return {wanted} numbers: {names}")
    return numbers


def random_votes(n: int, voters: int, random: torch.Generator) -> Tensor:
    """Fractions (n,) of so many voters."""
    return torch.randint(voters + 1, (n,), generator=random) / voters


def _as_tensor(x: Any) -> Any:
    return torch.as_tensor(x) if isinstance(x, np.generic | np.ndarray) else x


def _copy(x: Any) -> Any:
    return x.clone() if isinstance(x, Tensor) else [y.clone() for y in x] if isinstance(x, list) else x


def _equal(x: Any, y: Any) -> bool:
    if isinstance(x, list):
        return len(x) == len(y) and all(map(torch.equal, x, y))
    return not isinstance(x, Tensor) or torch.equal(x, y)
