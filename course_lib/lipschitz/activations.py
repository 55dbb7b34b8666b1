"""Activations that are 1-Lipschitz, and most of them gradient-norm preserving.

ReLU and every other elementwise function with slopes in [-1, 1] is 1-Lipschitz too: `torch.nn.ReLU` needs no version
of its own. But ReLU sets half of the gradient to 0; the activations here have orthogonal Jacobians.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.lipschitz.base import check_sizes


def _check_groups(x: Tensor, group: int, name: str) -> None:
    if x.ndim < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; {name} needs a batch: (n, channels) or (n, channels, h, w)")
    if x.shape[1] % group:
        raise ValueError(
            f"x has {x.shape[1]} channels, shape {tuple(x.shape)}; {name} needs a multiple of {group}: PadChannels adds"
        )


class MaxMin(nn.Module):
    """Pairs channel i with channel i + c/2: the first half becomes the larger values, the second the smaller.

    (n, c, ...) -> (n, c, ...), over axis 1 in dense and convolutional networks alike. Where the two differ, the
    Jacobian is a permutation, so the map is 1-Lipschitz and keeps gradient norms.

    Source: Chernodub, Nowicki, Norm-preserving Orthogonal Permutation Linear Unit activation functions (OPLU),
    arXiv 1604.02313, 2016; Anil, Lucas, Grosse, Sorting out Lipschitz function approximation, ICML 2019.
    """

    def forward(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n c *space"]:
        """Raises ValueError for an odd number of channels."""
        _check_groups(x, 2, "MaxMin")
        first, second = x.chunk(2, dim=1)
        return torch.cat((torch.maximum(first, second), torch.minimum(first, second)), dim=1)

    def upper_bound(self) -> float:
        """1: sorting two numbers is a permutation."""
        return 1.0


class GroupSort(nn.Module):
    """Sorts every group of neighbouring channels, ascending: (n, c, ...) -> (n, c, ...), over axis 1.

    Where all values of a group differ, the Jacobian is a permutation: 1-Lipschitz, and gradient norms are kept.
    `GroupSort(2)` is MaxMin with other pairs and the smaller value first, and `GroupSort(c)` sorts everything.

    Source: Anil, Lucas, Grosse, Sorting out Lipschitz function approximation, ICML 2019.
    """

    def __init__(self, group: int):
        super().__init__()
        check_sizes(group=group)
        self.group = group

    def forward(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n c *space"]:
        """Raises ValueError if the number of channels is no multiple of the group."""
        _check_groups(x, self.group, f"GroupSort({self.group})")
        groups = x.unflatten(1, (-1, self.group))
        if self.group == 2:
            first, second = groups.unbind(2)
            return torch.stack((torch.minimum(first, second), torch.maximum(first, second)), dim=2).flatten(1, 2)
        return groups.sort(dim=2).values.flatten(1, 2)

    def upper_bound(self) -> float:
        """1: sorting is a permutation."""
        return 1.0


class Abs(nn.Module):
    """Absolute value: slopes -1 and 1, so 1-Lipschitz and gradient-norm preserving; the gradient at 0 is 0.

    Args:
        keep: the first so many channels stay as they are.
    """

    def __init__(self, keep: int = 0):
        super().__init__()
        self.keep = keep

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Elementwise, any shape; (n, c, ...) if some channels are kept."""
        return torch.cat([x[:, : self.keep], x[:, self.keep :].abs()], 1) if self.keep else x.abs()

    def upper_bound(self) -> float:
        """1: slopes -1 and 1."""
        return 1.0


class Householder(nn.Module):
    """Reflects the pair (channel i, channel i + c/2) at a learned line where it lies on the line's negative side.

    z -> z if v^T z > 0 else (I - 2 v v^T) z with v = (sin(t/2), -cos(t/2)) for a learned angle t per pair. Both pieces
    are orthogonal and agree on the line v^T z = 0, so the map is continuous and 1-Lipschitz. t = pi/2, the start,
    is MaxMin.

    Source: Singla, Singla, Feizi, Improved deterministic l2 robustness on CIFAR-10 and CIFAR-100, ICLR 2022, section
    on Householder activation functions.
    """

    def __init__(self, channels: int):
        super().__init__()
        check_sizes(channels=channels)
        if channels % 2:
            raise ValueError(f"channels is {channels}; Householder works on pairs: use {channels + 1}")
        self.angle = nn.Parameter(torch.full((channels // 2,), math.pi / 2))

    def forward(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n c *space"]:
        """Raises ValueError for another number of channels."""
        channels = 2 * len(self.angle)
        if x.ndim < 2 or x.shape[1] != channels:
            raise ValueError(f"x has shape {tuple(x.shape)}; this layer takes (n, {channels}, ...)")
        half = (self.angle / 2).view(-1, *[1] * (x.ndim - 2))
        v1, v2 = half.sin(), -half.cos()
        first, second = x.chunk(2, dim=1)
        negative = (v1 * first + v2 * second).clamp_max(0)
        return torch.cat((first - 2 * negative * v1, second - 2 * negative * v2), dim=1)

    def upper_bound(self) -> float:
        """1: identity or a reflection."""
        return 1.0
