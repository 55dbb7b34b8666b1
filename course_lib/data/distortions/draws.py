"""Random numbers for distortions, drawn for every image of a batch.

They are drawn where the generator lives: a CPU generator gives the same pixels whatever device the images are on.
"""

import math

import torch
from torch import Tensor


def device(generator: torch.Generator | None) -> torch.device | None:
    """Where to draw."""
    return None if generator is None else generator.device


def normal(images: Tensor, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers (n, *shape)."""
    return torch.randn(len(images), *shape, generator=generator, device=device(generator)).to(images)


def uniform(images: Tensor, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Uniform numbers (n, *shape) between -1 and 1."""
    return 2 * torch.rand(len(images), *shape, generator=generator, device=device(generator)).to(images) - 1


def sign(images: Tensor, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """-1 or 1, (n, *shape)."""
    return torch.where(uniform(images, shape, generator) < 0, -1.0, 1.0).to(images)


def direction(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Unit vectors (n, 2, 1, 1)."""
    angle = math.pi * uniform(images, (1, 1, 1), generator)
    return torch.cat([angle.cos(), angle.sin()], 1)
