"""Images that are damaged in different ways to exactly the same mean squared error."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.validation import check_images

Distortion = Callable[[Tensor, float], Tensor]
BISECTIONS = 20  # to a millionth of the strength; the mixture does the rest


def at_equal_mse(
    images: Float[Tensor, "n 3 h w"], *distortions: Distortion, mse: float
) -> tuple[Float[Tensor, "n 3 h w"], ...]:
    """Distort `images` in several ways, each just so strongly that every result has the same MSE to its original.

    For each image, bisection finds two strengths next to each other whose MSEs enclose the target. The result is
    the mixture of those two images that has the target MSE: a mixture stays in [0, 1], and its MSE is continuous
    even where the distortion jumps (whole pixels of a shift, JPEG's quality steps). For a shift by whole pixels
    the mixture is a shift by a fraction of a pixel.

    Args:
        images: in [0, 1].
        distortions: each ``f(images, strength)``, strength a float from 0 (nothing) to 1. Called with one image at
            a time. The same arguments have to give the same pixels, so a random one seeds its generator itself.
        mse: target, mean over pixels and channels on the [0, 1] scale.

    Returns:
        One batch per distortion, with MSE equal to the target up to a relative 1e-5, the rounding of float32.

    Raises:
        ValueError: if the target is not positive, or not reached at full strength.

    Source: Wang and Bovik, Mean squared error: love it or leave it? (2009), figure 2, shows such images.
    """
    check_images(images)
    if not mse > 0:
        raise ValueError(f"mse={mse}; give a positive target, for example mse=0.004")
    return tuple(torch.cat([_one(image[None], distort, mse) for image in images]) for distort in distortions)


def _one(image: Tensor, distort: Distortion, target: float) -> Tensor:
    weakest, strongest = distort(image, 0.0), distort(image, 1.0)
    reached = _mse(image, strongest)
    if _mse(image, weakest) > target or reached < target:
        name = getattr(distort, "__name__", type(distort).__name__)
        raise ValueError(f"{name} reaches MSE {reached:.3g} at full strength, not {target:.3g}; choose a smaller mse")
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        between = distort(image, middle)
        if _mse(image, between) < target:
            low, weakest = middle, between
        else:
            high, strongest = middle, between
    return _mixture(image, weakest, strongest, target)


def _mixture(image: Tensor, weakest: Tensor, strongest: Tensor, target: float) -> Tensor:
    """The point of the segment from `weakest` to `strongest` that has the target MSE, in closed form."""
    start, step = (weakest - image).double(), (strongest - weakest).double()
    # |start + a step|^2 = size * target, the root with a >= 0
    a, b = step.square().sum(), 2 * (start * step).sum()
    c = start.square().sum() - target * start.numel()
    if a == 0:
        return strongest
    share = (-b + (b.square() - 4 * a * c).clamp_min(0).sqrt()) / (2 * a)
    return torch.lerp(weakest.double(), strongest.double(), share.clamp(0, 1)).to(image.dtype)


def _mse(x: Tensor, y: Tensor) -> float:
    return (x.double() - y.double()).square().mean().item()
