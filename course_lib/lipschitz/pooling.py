"""Changing resolution and channel count without expanding distances.

`torch.nn.PixelUnshuffle(r)` moves pixels to channels, (n, c, h, w) -> (n, c r^2, h/r, w/r): a permutation, so all
distances stay as they are. It needs no version of its own.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.lipschitz.base import check_channels, check_sizes
from course_lib.lipschitz.norms import matrix_norm


class L2AvgPool2d(nn.Module):
    """Sum of every k x k window divided by k: the average times k. Linear, not the root mean square.

    (n, c, h, w) -> (n, c, h // k, w // k); a remainder at the right and lower border is dropped. Each row of its matrix
    has k^2 entries 1/k, so unit norm, and windows do not overlap: the rows are orthonormal, the norm is 1. The plain
    average has norm 1/k.
    """

    def __init__(self, kernel_size: int):
        super().__init__()
        if not isinstance(kernel_size, int) or kernel_size < 1:
            raise ValueError(f"kernel_size is {kernel_size}; it has to be a positive integer")
        self.kernel_size = kernel_size

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        """Raises ValueError for images smaller than one window."""
        _check_window(x, self.kernel_size)
        return F.avg_pool2d(x, self.kernel_size, divisor_override=self.kernel_size)

    def upper_bound(self) -> float:
        """1: orthonormal rows."""
        return 1.0


class MaxPool2d(nn.Module):
    """Largest value of every window; 1-Lipschitz only if windows do not overlap, so stride >= kernel_size is required.

    (n, c, h, w) -> (n, c, (h - k) // stride + 1, (w - k) // stride + 1). max is 1-Lipschitz in its window's values,
    and each pixel is in one window only. With overlap one pixel can be the largest of ceil(k / stride)^2 windows, and
    the constant is ceil(k / stride): 2 for the common 3 x 3 windows with stride 2.
    """

    def __init__(self, kernel_size: int, stride: int | None = None):
        super().__init__()
        stride = kernel_size if stride is None else stride
        for name, size in (("kernel_size", kernel_size), ("stride", stride)):
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} is {size}; it has to be a positive integer")
        if stride < kernel_size:
            raise ValueError(
                f"stride {stride} is less than kernel_size {kernel_size}: windows overlap and the Lipschitz constant "
                f"is {math.ceil(kernel_size / stride)}; use stride={kernel_size}"
            )
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        """Raises ValueError for images smaller than one window."""
        _check_window(x, self.kernel_size)
        return F.max_pool2d(x, self.kernel_size, self.stride)

    def upper_bound(self) -> float:
        """1: windows do not overlap."""
        return 1.0


class GlobalL2Pool(nn.Module):
    """Sum over all positions divided by sqrt(h w): (n, c, h, w) -> (n, c). Linear with orthonormal rows."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c"]:
        """Any image size."""
        if x.ndim != 4:
            raise ValueError(f"x has shape {tuple(x.shape)}; GlobalL2Pool takes (n, c, h, w)")
        return x.sum((2, 3)) / math.sqrt(x.shape[2] * x.shape[3])

    def upper_bound(self) -> float:
        """1: orthonormal rows."""
        return 1.0


class PadChannels(nn.Module):
    """Adds channels of zeros behind the given ones: (n, c, ...) -> (n, channels, ...). Keeps all distances."""

    def __init__(self, channels: int):
        super().__init__()
        check_sizes(channels=channels)
        self.channels = channels

    def forward(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n c2 *space"]:
        """Raises ValueError if x has more channels than the result should have."""
        missing = self.channels - x.shape[1]
        if missing < 0:
            raise ValueError(f"x has {x.shape[1]} channels, more than {self.channels}; TruncateChannels removes some")
        return F.pad(x, (0, 0) * (x.ndim - 2) + (0, missing))

    def upper_bound(self) -> float:
        """1: an embedding."""
        return 1.0


class TruncateChannels(nn.Module):
    """Keeps the first channels: (n, c, ...) -> (n, channels, ...). An orthogonal projection, so 1-Lipschitz."""

    def __init__(self, channels: int):
        super().__init__()
        check_sizes(channels=channels)
        self.channels = channels

    def forward(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n c2 *space"]:
        """Raises ValueError if x has fewer channels."""
        if x.shape[1] < self.channels:
            raise ValueError(f"x has {x.shape[1]} channels, fewer than {self.channels}; PadChannels adds some")
        return x[:, : self.channels]

    def upper_bound(self) -> float:
        """1: a projection."""
        return 1.0


class OrthonormalProjection(nn.Module):
    """A fixed random matrix with orthonormal rows (or columns, if out_features is larger), drawn from `seed`.

    (..., in_features) -> (..., out_features). On average it keeps out / in of the squared norm of every direction
    alike, where TruncateChannels keeps everything or nothing. The matrix is stored with the weights.
    """

    matrix: Tensor

    def __init__(self, in_features: int, out_features: int, seed: int = 0):
        super().__init__()
        check_sizes(in_features=in_features, out_features=out_features)
        tall = torch.empty(max(in_features, out_features), min(in_features, out_features), dtype=torch.float64)
        basis = torch.linalg.qr(tall.normal_(generator=torch.Generator().manual_seed(seed))).Q
        matrix = basis if out_features > in_features else basis.T
        self.register_buffer("matrix", matrix.to(torch.get_default_dtype()).contiguous())

    def forward(self, x: Float[Tensor, "*batch i"]) -> Float[Tensor, "*batch o"]:
        """Raises ValueError for a wrong number of features."""
        check_channels(x, self.matrix.shape[1], spatial=False)
        return F.linear(x, self.matrix)

    def upper_bound(self) -> float:
        """Norm of the stored matrix: 1 up to rounding."""
        return matrix_norm(self.matrix)


class ResidualAverage(nn.Module):
    """(x + f(x)) / 2, which is 1-Lipschitz if f is; the plain sum x + f(x) has constant up to 2.

    f has to keep the shape of its input and to have `upper_bound()`.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        if not callable(getattr(module, "upper_bound", None)):
            raise ValueError(f"{type(module).__name__} has no upper_bound(); use one of this chapter's layers")
        self.module = module

    def forward(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        """The mean of x and f(x)."""
        return (x + self.module(x)) / 2

    def upper_bound(self) -> float:
        """(1 + the bound of f) / 2."""
        return (1 + self.module.upper_bound()) / 2  # type: ignore[operator]


def _check_window(x: Tensor, size: int) -> None:
    if min(x.shape[2:]) < size:
        raise ValueError(f"x has shape {tuple(x.shape)}; no {size} x {size} window fits: use a smaller one")
