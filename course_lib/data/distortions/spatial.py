"""Spatial distortions: pixels move; what comes in from outside is mirrored."""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.data.distortions import draws
from course_lib.data.distortions.interface import distortion, pixel_numbers


@distortion
def shift(images, s, generator):
    """Move the image in a random direction by up to 1/8 of its size."""
    return _resample(images, 0.25 * s * draws.direction(images, generator))


@distortion
def affine(images, s, generator):
    """Rotate, scale and shear around the centre: a random matrix, up to 0.3 from the identity."""
    a, b, c, d = (0.3 * s * draws.uniform(images, (4, 1, 1), generator)).split(1, dim=1)
    x, y = _positions(images)
    return _resample(images, torch.cat([a * x + b * y, c * x + d * y], 1))


@distortion
def homography(images, s, generator):
    """See the image as a plane tilted in a random direction, up to 35 % nearer on one side than at the centre."""
    tilt_x, tilt_y = (0.35 * s * draws.direction(images, generator)).split(1, dim=1)
    x, y = _positions(images)
    nearness = 1 + tilt_x * x + tilt_y * y
    return _resample(images, torch.cat([x / nearness - x, y / nearness - y], 1))


@distortion
def warp(images, s, generator):
    """Move the pixels along a smooth random field, by 4 % of the image's size on average."""
    knots = draws.normal(images, (2, 5, 5), generator)
    field = F.interpolate(knots, images.shape[2:], mode="bicubic", align_corners=True)
    return _resample(images, 0.08 * s * field)


@distortion
def corner_shift(images, s, generator):
    """Pull one corner inward or outward by up to 1/4 of the size; the rest follows, the opposite sides stay."""
    x, y = _positions(images)
    corner = draws.sign(images, (2, 1, 1), generator)
    pull = (1 + corner[:, :1] * x) * (1 + corner[:, 1:] * y) / 4
    return _resample(images, 0.5 * s * draws.direction(images, generator) * pull)


@distortion
def chromatic_aberration(images, s, generator):
    """Magnify red and shrink blue around a random point by up to 8 %, as a cheap lens does."""
    away = torch.cat([axis.expand_as(images[:, :1]) for axis in _positions(images)], 1)
    away = 0.08 * s * (away - draws.uniform(images, (2, 1, 1), generator))
    red, green, blue = images.split(1, dim=1)
    return torch.cat([_resample(red, -away), green, _resample(blue, away)], 1)


@distortion
def ghosting(images, s, generator):
    """Lay a copy, shifted by 1/20 to 1/8 of the size, over the image with up to 50 % opacity."""
    distance = 0.1 + 0.15 * draws.uniform(images, (1, 1, 1), generator).abs()
    ghost = _resample(images, distance * draws.direction(images, generator))
    return images + 0.5 * s * (ghost - images)


def _positions(images: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical positions of the pixel centres; the image's borders are at -1 and 1."""
    rows, columns = pixel_numbers(images)
    return (2 * columns + 1) / images.shape[3] - 1, (2 * rows + 1) / images.shape[2] - 1


def _resample(images: Tensor, flow: Tensor) -> Tensor:
    """Let every pixel show what was at its own position plus `flow` (n, 2, h or 1, w or 1)."""
    x, y = _positions(images)
    source = torch.stack(torch.broadcast_tensors(x + flow[:, :1], y + flow[:, 1:]), -1)
    return F.grid_sample(images, source[:, 0], mode="bicubic", padding_mode="reflection", align_corners=False)
