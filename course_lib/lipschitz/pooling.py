"""Changing resolution and channel count without expanding distances.

`torch.nn.PixelUnshuffle(r)` moves pixels to channels, (n, c, h, w) -> (n, c r^2, h/r, w/r): a permutation, so all
distances stay as they are. It needs no version of its own.
"""


from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.lipschitz.base import check_sizes


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


def _check_window(x: Tensor, size: int) -> None:
    if min(x.shape[2:]) < size:
        raise ValueError(f"x has shape {tuple(x.shape)}; no {size} x {size} window fits: use a smaller one")
