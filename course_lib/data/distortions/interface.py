"""What all distortions share: their signature, their checks, and that strength 0 changes nothing."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.validation import check_images


def distortion(formula: Callable) -> Callable:
    """Turn a formula into a public distortion: check inputs, clamp to [0, 1], keep strength 0 exact.

    The formula is called with images (n, 3, h, w), strengths (n, 1, 1, 1) and the generator.
    """

    def distort(
        images: Float[Tensor, "n 3 h w"],
        strength: float | int | Float[Tensor, "n"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n 3 h w"]:
        check_images(images)
        s = _per_image(strength, images)
        return torch.where(s == 0, images, formula(images, s, generator).clamp(0, 1))

    # not functools.wraps: help() must show the public signature, not the formula's
    distort.__name__ = distort.__qualname__ = formula.__name__
    distort.__module__, distort.__doc__ = formula.__module__, formula.__doc__
    return distort


def pixel_numbers(images: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers (1, 1, h, 1) and column numbers (1, 1, 1, w)."""
    h, w = images.shape[2:]
    return torch.arange(h).to(images).view(1, 1, h, 1), torch.arange(w).to(images).view(1, 1, 1, w)


def _per_image(strength: float | int | Tensor, images: Tensor) -> Tensor:
    s = torch.as_tensor(strength).to(images)
    if s.ndim > 1 or (s.ndim == 1 and len(s) != len(images)):
        raise ValueError(f"strength has shape {tuple(s.shape)}; give one number, or {len(images)}: one per image")
    if not ((s >= 0) & (s <= 1)).all():
        raise ValueError(f"strength is {s.min():.3g} to {s.max():.3g}; it must be between 0 (none) and 1 (severe)")
    return s.expand(len(images)).view(-1, 1, 1, 1)
