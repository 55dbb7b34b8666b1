"""Exercise 2.3: an error between absolute and square."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_close
from course_lib.checks.autoencoders.calling import call, expect_gradient, gradient


def _error(restored: Tensor, truth: Tensor, eps: float) -> Tensor:
    return (((restored - truth).square() + eps**2).sqrt() - eps).mean((1, 2, 3))


@exercise("2.3")
def charbonnier(attempt: Callable, random: torch.Generator) -> None:
    """Mean of sqrt(difference^2 + eps^2) - eps over the pixels of every image, (n,)."""
    n, eps = int(torch.randint(3, 6, (), generator=random)), 0.13
    shape = (n, 3, 6, 8)
    truth = torch.rand(shape, generator=random)
    restored = truth + torch.linspace(0.1, 0.5, n)[:, None, None, None] * torch.randn(shape, generator=random)
    difference = restored - truth
    square = difference.square()
    mean = partial(torch.mean, dim=(1, 2, 3))
    each = (square + eps**2).sqrt() - eps
    true = mean(each)
    expect_close(
        call(attempt, restored, truth, eps),
        true,
        {
            "equal images should cost 0: subtract eps": true + eps,
            "subtract eps itself, not its square: equal images should cost 0": true + eps - eps**2,
            "eps is squared inside the root: difference^2 + eps^2": [
                mean((square + eps).sqrt()) - shift for shift in (0, eps, eps**0.5)
            ],
            "eps is outside the root; difference^2 + eps^2 come under it together": [
                mean(difference.abs()) + eps,
                mean(difference.abs()) + eps**2,
                mean(difference.abs()) - eps,
            ],
            "eps is missing: that is L1": mean(difference.abs()),
            "the root is missing: that is L2": [mean(square), mean(square) + eps**2, mean(square) + eps**2 - eps],
            "you took the root of the mean; take it of every pixel, then the mean": [
                (mean(square) + eps**2).sqrt() - eps,
                (mean(square) + eps**2).sqrt(),
                mean(square).sqrt(),
            ],
            "the difference is not squared": mean((difference + eps**2).abs().sqrt() - eps),
            "you squared eps only: the *square* of the difference stands under the root, too": (
                mean((difference.abs() + eps**2).sqrt() - eps)
            ),
            "every colour has a root of its own; you added up the colours under one": [
                (colours(square, dim=1) + eps**2).sqrt().mean((1, 2)) - eps for colours in (torch.sum, torch.mean)
            ],
            "eps is ignored: it is not always 0.001": mean((square + 1e-6).sqrt()) - 1e-3,
            "restored was clamped; a loss has to see by how much a pixel leaves [0, 1]": _error(
                restored.clamp(0, 1), truth, eps
            ),
            "eps was added before squaring; difference^2 + eps^2 is not (difference + eps)^2": [
                mean((difference + eps).abs()),
                mean((difference + eps).abs()) - eps,
            ],
            "that is the smooth L1 (Huber) error; the chapter's is sqrt(difference^2 + eps^2) - eps": [
                mean(torch.nn.functional.smooth_l1_loss(restored, truth, reduction="none", beta=eps)),
                mean(torch.nn.functional.huber_loss(restored, truth, reduction="none", delta=eps)),
                mean(torch.nn.functional.smooth_l1_loss(restored, truth, reduction="none")),
            ],
            "that is the pseudo-Huber error, which is this one divided by eps, or multiplied by it": [
                true * eps,
                true / eps,
            ],
            "you summed over the pixels; average over them": [
                each.sum((1, 2, 3)),
                each.mean(1).sum((1, 2)),
            ],
            "you summed over the colours; average over them, too": each.sum(1).mean((1, 2)),
            "the sign is wrong": -true,
            "one number for every image, (n,); you averaged over the images, too": [true.mean(), true.sum()],
            "one number for every pixel; average over channels, rows and columns: .mean((1, 2, 3))": each,
            "one number for every channel; average over the channels, too": each.mean((2, 3)),
            "you averaged over the images; average over channels, rows and columns: .mean((1, 2, 3))": [
                each.mean(0),
                each.mean((0, 2, 3)),
            ],
            "NaN, the root of a negative number: the difference is not squared": lambda found: bool(
                torch.as_tensor(found).isnan().any()
            ),
        },
        atol=1e-6,
    )
    for inputs in ((restored, truth, 0.01), (truth, truth, eps)):
        expect_close(call(attempt, *inputs), _error(*inputs), atol=1e-6)
        slope = gradient(attempt, inputs, 0)
        if slope.isnan().any():
            raise Mistake("right, but its gradient is NaN where the images are equal; keep eps^2 under the root")
        expect_gradient(slope, gradient(_error, inputs, 0), what="restored image")
