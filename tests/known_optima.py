"""Tiny images and objectives whose best attack is known in closed form."""

import torch

from course_lib.attacks import Objective


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n, *, parts=(), size=5, seed=0, low=0.0, high=1.0):
    return low + (high - low) * torch.rand((n, *parts, 3, size, size), generator=generator(seed))


def middling(n, **options):
    """Far from the limits of pixels."""
    return pictures(n, low=0.4, high=0.6, **options)


def linear(start, slope, threshold=torch.inf):
    """The value is <slope, images>, with a slope for each example."""

    def value(images, slope):
        return (images * slope).flatten(1).sum(1)

    return Objective(start, value, (slope,), torch.full((len(start),), float(threshold)))


def steepest(slope, norm):
    """How much a change of norm 1 can raise the value: the dual norm, per image."""
    flat = slope.double().flatten(-3)
    return flat.norm(dim=-1) if norm == "l2" else flat.abs().sum(-1)


def bowl(start, top):
    """The value is -|images - top|^2."""

    def value(images, top):
        return -(images - top).square().flatten(1).sum(1)

    return Objective(start, value, (top,), torch.full((len(start),), torch.inf))
