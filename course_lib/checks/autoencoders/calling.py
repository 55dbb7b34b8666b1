"""Calls a learner's function and looks at the gradients of what comes back."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from course_lib.checks import Mistake


def call(attempt: Callable, *inputs: Any) -> Any:
    """What `attempt` makes of copies of the inputs, whose tensors it may not change."""
    copies = [value.clone() if isinstance(value, Tensor) else value for value in inputs]
    result = attempt(*copies)
    for value, copy in zip(inputs, copies, strict=True):
        if isinstance(value, Tensor) and not torch.equal(value, copy):
            raise Mistake("you changed an input in place, and the caller still needs it; work on a copy: .clone()")
    return result


def gradient(function: Callable[..., Any], inputs: Sequence[Any], at: int) -> Tensor:
    """Gradient of the sum of `function` by its input number `at`, zeros where there is none.

    Raises:
        Mistake: if the result does not depend on any input, as far as autograd can see.
    """
    leaves = [value.detach().clone() if isinstance(value, Tensor) else value for value in inputs]
    leaves[at].requires_grad_()
    result = function(*leaves)
    if not isinstance(result, Tensor) or not result.requires_grad:
        raise Mistake("right, but without a gradient, so nothing can be trained: no .detach(), .item() or no_grad()")
    (slope,) = torch.autograd.grad(result.sum(), leaves[at], allow_unused=True)
    return torch.zeros_like(leaves[at]) if slope is None else slope


def expect_gradient(
    actual: Tensor, expected: Tensor, mistakes: dict[str, Tensor | None] | None = None, what: str = "weight"
) -> None:
    """Raise :class:`Mistake` unless two gradients agree; `mistakes` are gradients of which a part was cut off."""
    for message, wrong in (mistakes or {}).items():
        if wrong is not None and torch.allclose(actual, wrong.to(actual), rtol=1e-3, atol=1e-5):
            raise Mistake(message)
    if not torch.allclose(actual, expected.to(actual), rtol=1e-3, atol=1e-5):
        raise Mistake(f"right, but the gradient by the {what} is not; is a part of it detached?")
