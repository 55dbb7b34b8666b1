"""Activations that are 1-Lipschitz, and most of them gradient-norm preserving.

ReLU and every other elementwise function with slopes in [-1, 1] is 1-Lipschitz too: `torch.nn.ReLU` needs no version
of its own. But ReLU sets half of the gradient to 0; the activations here have orthogonal Jacobians.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


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
    arXiv 1604.02313, 2016; Anil, Lucas, Grosse, Sorting out Lipschitz function approximation, ICML 2019, section 4.
    """

    def forward(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n c *space"]:
        """Raises ValueError for an odd number of channels."""
        _check_groups(x, 2, "MaxMin")
        first, second = x.chunk(2, dim=1)
        return torch.cat((torch.maximum(first, second), torch.minimum(first, second)), dim=1)

    def upper_bound(self) -> float:
        """1: sorting two numbers is a permutation."""
        return 1.0
