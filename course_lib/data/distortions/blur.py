"""Blur: detail is lost."""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.data.distortions.interface import distortion


@distortion
def gaussian_blur(images, s, generator):
    """Blur with a Gaussian of standard deviation up to 3 pixels."""
    sigma = (3 * s).clamp_min(1e-3).flatten()[:, None]
    offsets = torch.arange(-9, 10).to(images)
    kernels = torch.exp(-0.5 * (offsets / sigma).square())
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(3, dim=0)[:, None]
    stack = F.pad(images.flatten(0, 1)[None], (9, 9, 9, 9), mode="replicate")
    stack = F.conv2d(stack, kernels[:, :, None, :], groups=len(kernels))
    stack = F.conv2d(stack, kernels[:, :, :, None], groups=len(kernels))
    return stack.view_as(images)


@distortion
def bilateral_blur(images, s, generator):
    """Average each pixel with the neighbours of similar colour: smooths texture, keeps edges.

    Spatial standard deviation 2 pixels, colour standard deviation up to 0.4.
    """
    parts = zip(images.split(64), s.split(64), strict=True)  # larger temporaries make it 8 times slower
    return torch.cat([_bilateral(some, 0.4 * strength) for some, strength in parts])


def _bilateral(images: Tensor, colour_sigma: Tensor) -> Tensor:
    h, w = images.shape[2:]
    padded = F.pad(images, (4, 4, 4, 4), mode="replicate")
    scale = -0.5 / colour_sigma.clamp_min(1e-3).square()
    total, weights = torch.zeros_like(images), torch.zeros_like(images[:, :1])
    for dy in range(-4, 5):
        for dx in range(-4, 5):
            neighbour = padded[:, :, 4 + dy : 4 + dy + h, 4 + dx : 4 + dx + w]
            difference = (neighbour - images).square().sum(1, keepdim=True)
            weight = torch.exp(scale * difference - (dx * dx + dy * dy) / 8)
            total += weight * neighbour
            weights += weight
    return total / weights
