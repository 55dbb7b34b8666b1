"""Exercises 9.1 and 9.2: back into the ball, and the steepest way up."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.checks import exercise, expect_close
from course_lib.checks.judgments.calling import call

ALL = (0, 1, 2, 3)
IMAGE = (1, 2, 3)
PARTS: dict[str, Any] = {"channel": (2, 3), "pixel": 1, "row": 3}


@exercise("9.1")
def project(attempt: Callable, random: torch.Generator) -> None:
    """Every change shrunk to an L2 length of at most eps, then pixels cut off at 0 and 1."""
    height, width = torch.randint(5, 9, (2,), generator=random).tolist()
    center = torch.rand(7, 3, height, width, generator=random)
    center[5:] = center[5:].round()  # black and white: half of what is added goes beyond 0 or 1
    change = torch.randn(center.shape, generator=random) ** 3
    lengths = torch.tensor([0.1, 0.0, 0.6, 9.0, 1.2, 2.0, 0.2])[:, None, None, None]
    change = change * lengths / _length(change)
    images, eps = center + change, 0.3 + 0.2 * torch.rand((), generator=random).item()
    expected = torch.stack([_inside(x, c, eps) for x, c in zip(images, center, strict=True)])
    change = images - center
    cut = images.clamp(0, 1) - center

    def shrunk(length: Tensor, change: Tensor = change) -> Tensor:
        return (center + change * (eps / length.clamp_min(1e-12)).clamp(max=1)).clamp(0, 1)

    everywhere = (center + eps * change / _length(change).clamp_min(1e-12)).clamp(0, 1)
    length = _length(change).clamp_min(1e-12)
    small = (eps / length).clamp(max=1)
    expect_close(
        call(attempt, images, center, eps),
        expected,
        {
            "NaN where nothing was changed: that is 0 / 0; divide by length.clamp_min(1e-12)": (
                lambda found: bool(found.isnan().any())
            ),
            "you returned the change; add the center again": [
                change * small,
                (change * small).clamp(0, 1),
                expected - center,
            ],
            "pixels left [0, 1]; cut them off at the end, with .clamp(0, 1)": center + change * small,
            "pixels of an image inside the ball left [0, 1]; the cut is for all, not only for what you shrank": (
                torch.where(_length(change) > eps, shrunk(length), images)
            ),
            "one length for the whole batch, so that images change one another; each needs its own: dim=(1, 2, 3)": (
                shrunk(_length(change, ALL))
            ),
            **{
                f"one length per {part}; an image has a single one: the root of the sum over all its numbers": (
                    shrunk(_length(change, axes))
                )
                for part, axes in PARTS.items()
            },
            "images inside the ball were moved to its border; shrink what is too long: (eps / length).clamp(max=1)": [
                everywhere,
                torch.where(change.abs().sum(IMAGE, keepdim=True) == 0, center, everywhere),
            ],
            "you cut off at 0 and 1 before you shrank; that is inside as well, but rounding in the last step can leave "
            "[0, 1] again: shrink first, cut off last": [
                center + cut * (eps / _length(cut).clamp_min(1e-12)).clamp(max=1),
                shrunk(_length(cut), cut),
            ],
            "each pixel was limited by itself, to eps: that is the L-infinity ball": [
                center + change.clamp(-eps, eps),
                (center + change.clamp(-eps, eps)).clamp(0, 1),
            ],
            "you divided by the squared length; take the root": shrunk(length.square()),
            "you shrank the images, not their change: first subtract the center": [
                (images * (eps / _length(images)).clamp(max=1)).clamp(0, 1),
                images * (eps / _length(images)).clamp(max=1),
            ],
            "you cut off the *change* at 0 and 1, so that no pixel gets darker; cut off the images": [
                center + (change * small).clamp(0, 1),
                (center + (change * small).clamp(0, 1)).clamp(0, 1),
            ],
            "that is a mean instead of a sum: an L2 length is the root of the *sum* of squares": [
                shrunk(change.square().mean(IMAGE, keepdim=True).sqrt())
            ],
            "that is the L1 length, the sum of absolute values; L2 is the root of the sum of squares": [
                shrunk(change.abs().sum(IMAGE, keepdim=True))
            ],
            "you only cut off at 0 and 1; the change is still longer than eps": images.clamp(0, 1),
        },
    )


def _length(x: Tensor, axes: Any = IMAGE) -> Tensor:
    return x.square().sum(axes, keepdim=True).sqrt()


def _inside(image: Tensor, center: Tensor, eps: float) -> Tensor:
    """One image, number by number."""
    pairs = list(zip(image.flatten().tolist(), center.flatten().tolist(), strict=True))
    length = sum((x - c) ** 2 for x, c in pairs) ** 0.5
    share = eps / length if length > eps else 1
    return torch.tensor([min(max(c + share * (x - c), 0), 1) for x, c in pairs]).view(image.shape)


@exercise("9.2")
def steepest(attempt: Callable, random: torch.Generator) -> None:
    """The change of L2 or L-infinity norm 1 along which a linear function rises fastest; 0 for no gradient."""
    height, width = torch.randint(4, 8, (2,), generator=random).tolist()
    gradient = torch.randn(5, 3, height, width, generator=random) ** 3
    gradient[1] *= 100
    gradient[2, :, 1] = 0
    gradient[3] = 0
    size = 3 * height * width
    euclid = gradient / _length(gradient).clamp_min(1e-12)
    signs = torch.where(gradient > 0, 1.0, torch.where(gradient < 0, -1.0, 0.0))
    anyway = torch.where(gradient >= 0, 1.0, -1.0)
    peak = gradient.abs().amax(IMAGE, keepdim=True)
    total = gradient.abs().sum(IMAGE, keepdim=True)
    both = {
        "you returned the gradient itself; a direction has norm 1, however steep it is there": gradient,
        "NaN where the gradient is 0: guard against 0 / 0, as with .clamp_min(1e-12)": (
            lambda found: bool(found.isnan().any())
        ),
        "one number for the whole batch; every example has its own: dim=(1, 2, 3), keepdim=True": [
            gradient / _length(gradient, ALL),
            gradient / gradient.abs().max(),
        ],
    }
    expect_close(
        call(attempt, gradient, "l2"),
        euclid,
        {
            **both,
            "L2: you took the sign, which is the steepest in L-infinity; the change of L2 length 1 is g / |g|": [
                signs,
                anyway,
            ],
            "L2: the sign, scaled to length 1, spends on all pixels alike; g / |g| spends where it counts": [
                signs / size**0.5,
                signs / _length(signs).clamp_min(1e-12),
                anyway / size**0.5,
            ],
            "L2: you go down; the gradient points up": -euclid,
            "L2: you divided by the *squared* length; take the root": (
                gradient / _length(gradient).square().clamp_min(1e-12)
            ),
            "L2: you divided by the mean or the sum of |g|; the L2 length is the root of the sum of squares": [
                gradient / (total / size).clamp_min(1e-12),
                gradient / total.clamp_min(1e-12),
            ],
            "L2: you divided by the largest entry; the L2 length is the root of the sum of squares": (
                gradient / peak.clamp_min(1e-12)
            ),
            "L2: you took the root of the *mean* of squares; length 1 wants that of the sum": (euclid * size**0.5),
            **{
                f"L2: one length per {part}; an image has a single one: dim=(1, 2, 3)": (
                    gradient / _length(gradient, axes).clamp_min(1e-12)
                )
                for part, axes in PARTS.items()
            },
        },
    )
    faint = 1e-8 * gradient / 100
    found = call(attempt, faint, "l2")
    expect_close(
        found,
        euclid,
        {
            "L2: where the gradient is small the step got shorter than 1; what guards against 0 / 0 has to be tiny, "
            "such as 1e-12, or only there where the length is 0": (
                lambda found: bool((_length(found) < 0.99 * _length(euclid)).any())
            )
        },
        atol=1e-3,
    )
    expect_close(
        call(attempt, gradient, "linf"),
        signs,
        {
            **both,
            "L-infinity: you divided by the largest entry: norm 1, but only one pixel goes as far as it may; take the "
            "sign": gradient / peak.clamp_min(1e-12),
            "L-infinity: that is the direction for L2; here every pixel may change by 1, so take the sign": euclid,
            "L-infinity: you go down; the gradient points up": -signs,
            "L-infinity: pixels without gradient were changed as well; .sign() leaves them at 0": [
                anyway,
                torch.where(gradient > 0, 1.0, -1.0),
            ],
        },
    )
