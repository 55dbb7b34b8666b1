"""Calls a learner's function on embeddings, and looks at what comes back."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.checks import Mistake, expect_shape
from course_lib.checks.autoencoders.calling import call


def embeddings(random: torch.Generator, n: int, d: int, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Of ref, p0 and p1, (n, d) in float64: p0 and p1 around ref, lengths from about a third to three times `scale`."""
    ref, off_0, off_1 = torch.randn(3, n, d, generator=random, dtype=torch.float64)
    lengths = scale * 3 ** (2 * torch.rand(3, n, 1, generator=random, dtype=torch.float64) - 1)
    around = (ref, ref + off_0, ref + off_1)
    ref, p0, p1 = (e / e.norm(dim=1, keepdim=True) * length for e, length in zip(around, lengths, strict=True))
    return ref, p0, p1


def one_per_row(attempt: Callable, *given: Any, n: int) -> Tensor:
    """The (n,) numbers that `attempt` makes of copies of what is given."""
    found = call(attempt, *given)
    if isinstance(found, Tensor) and found.shape != (n,):
        if found.shape == (n, 1):
            raise Mistake("the result has shape (n, 1); (n,) is asked for: sum over dim=1 without keepdim")
        if n > 1 and found.shape == (n, n):
            raise Mistake("the result is (n, n): every row met every other, as (n, 1) with (n,) does; each has its own")
        if found.numel() == 1:
            raise Mistake("you returned one number; every triplet has its own: shape (n,)")
    expect_shape(found, (n,))
    return found


def expect_exact(found: Tensor, expected: Tensor, said: str = "") -> None:
    """Raise :class:`Mistake` unless float64 went in and came out, without loss on the way."""
    if found.dtype != torch.float64:
        raise Mistake(f"right in float32, but float64 goes in and {found.dtype} comes out; keep the dtype you get")
    worst = (found.detach() - expected).abs() / (1 + expected.abs())
    if not worst.max() < 1e-9:
        raise Mistake(
            f"right in float32, but off by {worst.max():.1g} in float64{said}; is something converted on the way, or a "
            "constant added that is too large?"
        )
