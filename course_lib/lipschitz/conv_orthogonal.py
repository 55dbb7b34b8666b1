"""Orthogonal convolutions: 1-Lipschitz, and norms of images and gradients are kept.

With more inputs than outputs the map is a projection instead (norms of gradients are kept), with fewer an embedding
(norms of images are kept). To halve the resolution put `nn.PixelUnshuffle(2)` in front.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.lipschitz.base import LipschitzLayer, check_channels, check_sizes, uniform_bias, wide
from course_lib.lipschitz.conv import PADDINGS, fast_layout, frozen_conv, padded_conv, transposed
from course_lib.lipschitz.dense import CAYLEY_CAP, capped, cayley
from course_lib.lipschitz.norms import conv_bound, matrix_norm, transfer


class CayleyConv2d(LipschitzLayer):
    """Cayley transform of the convolution's matrix at every frequency; circular padding, any image size.

    Exactly orthogonal in circular padding, on the image's own torus, because a convolution is there one matrix for each
    frequency. The result is a convolution with a kernel as large as the image, so the layer multiplies in frequency
    space. The kernel is first scaled down where its norm exceeds 4, so that what is inverted is well conditioned.

    Source: Trockman, Kolter, Orthogonalizing convolutional layers with the Cayley transform, ICLR 2021, algorithm 1.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__()
        check_sizes(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight = nn.Parameter(
            nn.init.xavier_normal_(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        )
        self.bias = uniform_bias(out_channels, self.weight[0].numel())
        self.image_size = (8, 8)  # of the last image seen, which `plain` and `upper_bound` are about

    def _rescale(self) -> dict[str, Tensor]:
        weight = wide(self.weight)
        return {"weight": weight * (CAYLEY_CAP / conv_bound(weight).clamp_min(CAYLEY_CAP))}

    def _matrices(self) -> Tensor:
        """(frequencies, out, in), orthonormal; kept for one image size beside the tensors they are made from."""
        tensors, (height, width) = self.rescaled(), self.image_size
        if self.training or torch.compiler.is_compiling():
            return cayley(transfer(wide(tensors["weight"]), height, width))
        name = f"{height} x {width}"
        if name not in tensors:
            for other in set(tensors) - {"weight"}:
                del tensors[other]
            with torch.inference_mode(False), torch.no_grad():
                tensors[name] = cayley(transfer(wide(tensors["weight"]), height, width))
        return tensors[name]

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h w"]:
        """Each frequency of x times its orthogonal matrix, plus the bias; half precision is computed in float32."""
        check_channels(x, self.in_channels, spatial=True)
        self.image_size = height, width = x.shape[2], x.shape[3]
        spectrum = torch.fft.rfft2(wide(x)).permute(2, 3, 1, 0).flatten(0, 1)
        result = (self._matrices() @ spectrum).unflatten(0, (height, -1)).permute(3, 2, 0, 1)
        y = torch.fft.irfft2(result, s=(height, width)) + wide(self.bias)[:, None, None]
        return y.to(x.dtype)

    def upper_bound(self) -> float:
        """Largest norm over the frequencies of the last image size, by SVD; at others it differs by rounding only."""
        matrices = self._matrices().detach().to(torch.complex128)
        return torch.linalg.matrix_norm(matrices, 2).max().item()

    def plain(self) -> nn.Conv2d:
        """A `nn.Conv2d` with circular padding and a kernel as large as the last image, for images of this size."""
        height, width = self.image_size
        spectrum = self._matrices().detach().unflatten(0, (height, -1)).permute(2, 3, 0, 1)
        kernel = torch.fft.irfft2(spectrum.conj(), s=(height, width))
        kernel = kernel.roll(((height - 1) // 2, (width - 1) // 2), (2, 3)).to(self.bias.dtype)
        return frozen_conv(kernel, self.bias, padding_mode="circular")


class SOCConv2d(LipschitzLayer):
    """Skew orthogonal convolution: exp(L) x = x + L x + L^2 x / 2! + ..., L a convolution with L^T = -L.

    L is the kernel minus its own transpose (flipped in space), so it stays skew with zero padding, and exp(L) is
    orthogonal there too, at the image's border as well. L is scaled down where its norm exceeds 1.
    The series stops after `terms`. L has eigenvalues i t, |t| <= 1, where the series differs from exp(i t) by at most
    1 / (terms + 1)!; the output is divided by 1 plus that, 3e-6 for 8 terms, so the constant is at most 1.
    If channel counts differ, zeros are appended before or channels dropped after.

    Source: Singla, Feizi, Skew orthogonal convolutions, ICML 2021. Their code estimates the norm of L by power
    iteration on reshaped kernels and takes 5 terms after x to train, 12 to evaluate.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, terms: int = 8):
        super().__init__()
        check_sizes(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, terms=terms)
        self.in_channels, self.out_channels, self.terms = in_channels, out_channels, terms
        size = max(in_channels, out_channels)
        self.weight = nn.Parameter(torch.randn(size, size, kernel_size, kernel_size) / (size * kernel_size) ** 0.5)
        self.bias = uniform_bias(out_channels, self.weight[0].numel())
        self.gain = 1 / (1 + 1 / math.factorial(terms + 1))

    def _rescale(self) -> dict[str, Tensor]:
        weight = wide(self.weight)
        skew = weight - transposed(weight)
        return {"weight": skew / conv_bound(skew).clamp_min(1)}

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h w"]:
        """The series, by Horner's rule: x + L (x + L (x + ...) / 2) / 1."""
        check_channels(x, self.in_channels, spatial=True)
        return self._series(x, self.rescaled()["weight"]) + self.bias[:, None, None]

    def _series(self, x: Tensor, skew: Tensor) -> Tensor:
        size = skew.shape[0]
        x = F.pad(x, (0, 0, 0, 0, 0, size - self.in_channels)) if size > self.in_channels else x
        result = x = fast_layout(x)
        for term in range(self.terms, 0, -1):
            result = x + F.conv2d(result, skew / term, padding=skew.shape[-1] // 2)
        return result[:, : self.out_channels] * self.gain

    def upper_bound(self) -> float:
        """(1 + |L|^(terms + 1) / (terms + 1)!) times the factor that the output is multiplied by."""
        norm = conv_bound(self._in_float64()["weight"]).item()
        return self.gain * (1 + norm ** (self.terms + 1) / math.factorial(self.terms + 1))

    def plain(self) -> nn.Module:
        """The series with one frozen `nn.Conv2d` for each term, the factors 1 / term and the gain folded in."""
        return _PlainSeries(self.rescaled()["weight"], self.bias, self.terms, self.in_channels, self.gain)


class _PlainSeries(nn.Module):
    def __init__(self, skew: Tensor, bias: Tensor, terms: int, in_channels: int, gain: float):
        super().__init__()
        self.missing, self.gain = skew.shape[0] - in_channels, gain
        self.terms = nn.ModuleList(frozen_conv(skew / term, None) for term in range(terms, 1, -1))
        self.last = frozen_conv(gain * skew[: len(bias)], bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, 0, 0, self.missing))
        result = x
        for term in self.terms:
            result = x + term(result)
        return self.gain * x[:, : self.last.out_channels] + self.last(result)


class BCOPConv2d(LipschitzLayer):
    """Block convolution orthogonal parameterisation: an orthogonal matrix, then steps to a neighbouring pixel.

    A step is P z^0 + (I - P) z^1, P a projection onto half of the channels: these stay, the others move by one pixel,
    so norms are kept, and so are those of a product of steps. k - 1 steps in each direction make a k x k kernel.
    Orthogonal with circular padding (the default); with zeros it is a submatrix, 1-Lipschitz, not orthogonal at the
    border. Projections are Q Q^T, Q with orthonormal columns from the Cayley transform, exact up to rounding, where the
    paper uses Björck's iteration. Alternate steps swap P and I - P, which centres the kernel.

    Source: Li, Haque, Anil, Lucas, Grosse, Jacobsen, Preventing gradient attenuation in Lipschitz constrained
    convolutional networks, NeurIPS 2019, with the steps of Xiao et al., ICML 2018.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, padding_mode: str = "circular"):
        super().__init__()
        check_sizes(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
        if padding_mode not in PADDINGS:
            raise ValueError(f"padding_mode is {padding_mode!r}; use one of {', '.join(PADDINGS)}")
        self.in_channels, self.out_channels, self.padding_mode = in_channels, out_channels, padding_mode
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(out_channels, in_channels)))
        rank = max(1, in_channels // 2)
        self.steps = nn.Parameter(torch.randn(2 * (kernel_size - 1), in_channels, rank) / in_channels**0.5)
        self.bias = uniform_bias(out_channels, in_channels)

    def _rescale(self) -> dict[str, Tensor]:
        return {"weight": _bcop_kernel(*self._factors(wide(self.weight), wide(self.steps)))}

    @staticmethod
    def _factors(weight: Tensor, steps: Tensor) -> tuple[Tensor, list[Tensor]]:
        columns = [cayley(capped(step, CAYLEY_CAP)) for step in steps]
        return cayley(capped(weight, CAYLEY_CAP)), [q @ q.T for q in columns]

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h w"]:
        """The convolution with the orthogonal kernel, plus the bias."""
        check_channels(x, self.in_channels, spatial=True)
        return padded_conv(x, self.rescaled()["weight"], self.bias, 1, self.padding_mode)

    def upper_bound(self) -> float:
        """Product over the factors, and the difference of the kernel that is used from their product.

        |P + (I - P) z|^2 <= 1 + 4 |P^2 - P| for a symmetric P and |z| = 1.
        """
        matrix, projections = self._factors(wide(self.weight.detach()), wide(self.steps.detach()))
        matrix, projections = matrix.double(), [p.double() for p in projections]
        steps = [1 + 4 * matrix_norm(p @ p - p) for p in projections]
        rounding = conv_bound(self._in_float64()["weight"] - _bcop_kernel(matrix, projections)).item()
        return matrix_norm(matrix) * math.prod(steps) ** 0.5 + rounding

    def plain(self) -> nn.Conv2d:
        """A `nn.Conv2d` with the orthogonal kernel."""
        return frozen_conv(self.rescaled()["weight"], self.bias, 1, self.padding_mode)


def _bcop_kernel(matrix: Float[Tensor, "o i"], projections: list[Tensor]) -> Float[Tensor, "o i k k"]:
    """Kernel of `matrix` times one step after the other, by turns along height and width."""
    kernel = matrix[None, None]
    for number, projection in enumerate(projections):
        stay, move = kernel @ projection, kernel - kernel @ projection
        if number // 2 % 2:
            stay, move = move, stay
        axis = number % 2
        border = torch.zeros_like(kernel.narrow(axis, 0, 1))
        kernel = torch.cat((stay, border), axis) + torch.cat((border, move), axis)
    return kernel.permute(2, 3, 0, 1).contiguous()
