"""Photometric distortions: every pixel changes, nothing moves."""

import torch
from torch import Tensor

from course_lib.data import LUMA
from course_lib.data.distortions import draws
from course_lib.data.distortions.interface import distortion


@distortion
def lightness(images, s, generator):
    """Lighten or darken by up to 0.35."""
    return images + 0.35 * s * draws.sign(images, (1, 1, 1), generator)


@distortion
def colour_shift(images, s, generator):
    """Add a random colour of zero luma, of length up to 0.4 in RGB space."""
    colour = draws.normal(images, (3, 1, 1), generator)
    colour = colour - luma(colour)
    return images + 0.4 * s * colour / colour.norm(dim=1, keepdim=True)


@distortion
def contrast(images, s, generator):
    """Multiply the difference to the mean colour by up to 3, or divide it by up to 4."""
    gain = torch.where(draws.sign(images, (1, 1, 1), generator) > 0, 2 * s, -0.75 * s)
    return images + gain * (images - images.mean((2, 3), keepdim=True))


@distortion
def saturation(images, s, generator):
    """Multiply the difference to grey by up to 4, or take it away."""
    gain = torch.where(draws.sign(images, (1, 1, 1), generator) > 0, 3 * s, -s)
    return images + gain * (images - luma(images))


def luma(images: Tensor) -> Tensor:
    """Brightness (n, 1, h, w) of RGB images."""
    return (images * torch.tensor(LUMA).to(images).view(3, 1, 1)).sum(1, keepdim=True)
