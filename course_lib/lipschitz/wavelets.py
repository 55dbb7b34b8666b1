"""Orthonormal changes of basis that sort an image by frequency, and gains that turn down what does not matter."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.lipschitz.base import check_channels, check_sizes
from course_lib.lipschitz.norms import matrix_norm

OPPONENT = ((1, 1, 1), (1, 0, -1), (1, -2, 1))  # brightness, red against blue, green against both


class BlockCosines(nn.Module):
    """Discrete cosine transform of blocks of size x size pixels; of blocks side by side, as JPEG takes it.

    (n, 3, h, w) -> (n, 3 size^2, h / stride, w / stride): frequencies in order (vertical, then horizontal), each for
    brightness and two differences of colours. Fixed: nothing is learned. Blocks side by side (stride = size) are an
    orthonormal change of basis, which keeps all distances. Blocks that overlap see every pixel (size / stride)^2 times
    and are weighed down by as much, so that inside the image distances stay too; at its border, padded with zeros,
    some is lost.

    Args:
        size: of a block, even.
        stride: from one block to the next, a divisor of `size`; None: `size`.
    """

    filters: Tensor

    def __init__(self, size: int = 8, stride: int | None = None):
        super().__init__()
        stride = size if stride is None else stride
        check_sizes(size=size, stride=stride)
        if size % stride or (size - stride) % 2:
            raise ValueError(f"stride is {stride}, size {size}; stride has to divide size, and both be even or odd")
        self.size, self.stride = size, stride
        k = torch.arange(size, dtype=torch.float64)
        cosines = torch.cos(math.pi * k[:, None] * (k + 0.5) / size)
        cosines = cosines / cosines.norm(dim=1, keepdim=True)
        colours = torch.tensor(OPPONENT, dtype=torch.float64)
        colours = colours / colours.norm(dim=1, keepdim=True)
        filters = torch.einsum("ui,vj,oc->uvocij", cosines, cosines, colours).reshape(-1, 3, size, size)
        filters = filters * (stride / size)
        self.register_buffer("filters", filters.to(torch.get_default_dtype()), persistent=False)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h2 w2"]:
        """Raises ValueError if height or width is no multiple of the stride, or smaller than a block."""
        if x.ndim != 4 or x.shape[1] != 3 or any(side % self.stride or side < self.size for side in x.shape[2:]):
            raise ValueError(
                f"x has shape {tuple(x.shape)}; BlockCosines takes (n, 3, h, w), h and w multiples of {self.stride} "
                f"and at least {self.size}"
            )
        with torch.autocast(x.device.type, enabled=False):  # half precision would round away small differences
            return F.conv2d(x, self.filters, stride=self.stride, padding=(self.size - self.stride) // 2)

    def upper_bound(self) -> float:
        """Norm of the filters times size / stride: the blocks are (size / stride)^2 sets that do not overlap."""
        return matrix_norm(self.filters.flatten(1)) * self.size / self.stride


class Haar2d(nn.Module):
    """Haar wavelet step: of every 2 x 2 window the sum / 2 and three differences / 2. Keeps all distances.

    (n, c, h, w) -> (n, 4 c, h / 2, w / 2). Channel 4 i is what :class:`L2AvgPool2d` makes of channel i; 4 i + 1 (right
    minus left, negated), 4 i + 2 (lower minus upper, negated) and 4 i + 3 (diagonal) are what it forgets. The four
    rows are orthonormal.
    """

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c4 h2 w2"]:
        """Raises ValueError for an odd height or width."""
        if x.ndim != 4 or x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"x has shape {tuple(x.shape)}; Haar2d takes (n, c, h, w) with even h and w")
        a, b, c, d = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4)).unbind(2)
        top, bottom, left, right = a + b, c + d, a - b, c - d
        return torch.stack([top + bottom, left + right, top - bottom, left - right], 2).flatten(1, 2) / 2

    def upper_bound(self) -> float:
        """1: an orthonormal change of basis."""
        return 1.0


class AbsDetails(nn.Module):
    """Absolute values of what the last :class:`Haar2d` has split off the averages: (n, c, h, w) -> the same shape.

    After `level` Haar steps, channel i is made of the steps' parts i // 4^(level-1) % 4, ..., i % 4, where 0 is the
    average. Details of averages lose their sign here; what is made of details, and of averages only, stays.

    Args:
        level: how many Haar steps came before.
    """

    def __init__(self, level: int):
        super().__init__()
        check_sizes(level=level)
        self.level = level

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Raises ValueError if the channels are not those of so many Haar steps."""
        check_levels(x.shape[1], self.level)
        parts = x.unflatten(1, (-1, 4**self.level))
        return torch.cat([parts[:, :, :1], parts[:, :, 1:4].abs(), parts[:, :, 4:]], 2).flatten(1, 2)

    def upper_bound(self) -> float:
        """1: slopes -1 and 1."""
        return 1.0


def check_levels(channels: int, level: int) -> None:
    """Raise ValueError unless `channels` is a multiple of 4^level."""
    if channels % 4**level:
        raise ValueError(f"{channels} channels are not those of {level} Haar steps; they come in groups of {4**level}")


class Gains(nn.Module):
    """Multiplies every feature by a learned number in (0, 1): (n, d) -> (n, d), what does not matter is turned down.

    The gain of feature i is sigmoid(50 (own[i] + shared[group[i]])); the 50 lets gains learn
    faster than weights do at the same rate.

    Args:
        group: (d,) for each feature the number of its group, from 0; a group shares one of the two parameters.
        groups: how many there are.
        start: of the shared parameters; 0.02 is a gain of 0.73.
    """

    group: Tensor

    def __init__(self, group: Int64[Tensor, "d"], groups: int, start: float = 0.02):
        super().__init__()
        self.register_buffer("group", group, persistent=False)
        self.own = nn.Parameter(torch.zeros(len(group)))
        self.shared = nn.Parameter(torch.full((groups,), start))

    @classmethod
    def for_wavelets(cls, channels: int, levels: int) -> "Gains":
        """For channels after so many :class:`Haar2d`, down to one pixel.

        The groups of a channel: its average; and for each size of detail the average of it, and the rest of it.
        """
        at = torch.arange(4**levels)
        size = sum((at >= 4**level).long() for level in range(levels))  # 0: the average; then from coarse to fine
        rest = at % 4 ** (size - 1).clamp(min=0) > 0
        kind = torch.maximum(2 * size - 2 + rest, size.clamp(max=1))
        return cls((torch.arange(channels)[:, None] * 2 * levels + kind).flatten(), channels * 2 * levels)

    def gains(self) -> Float[Tensor, "d"]:
        """The numbers in (0, 1)."""
        return torch.sigmoid(50 * (self.own + self.shared[self.group]))

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Raises ValueError for another number of features."""
        check_channels(x, len(self.own), spatial=False)
        return x * self.gains()

    def upper_bound(self) -> float:
        """The largest gain: a diagonal matrix."""
        return self.gains().max().item()
