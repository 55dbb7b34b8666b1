"""Convolutions whose L2 Lipschitz constant is at most 1 whatever their parameters are, at every image size.

All keep height and width at stride 1. Zero padding and stride: on a torus of at least (h + k - 1) x (w + k - 1)
nothing wraps around, so a zero-padded convolution is the circular one restricted to images that are 0 on the added
border, and with only some outputs kept: a submatrix, whose norm is never larger. Hence one bound over all frequencies
serves every size, zero and circular padding, and every stride.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.lipschitz.base import LipschitzLayer, check_channels, check_sizes, inverse_or_zero, uniform_bias, wide
from course_lib.lipschitz.dense import PlainResidual, sll_scale
from course_lib.lipschitz.norms import conv_bound, gram_kernel

PADDINGS = ("zeros", "circular")
FEW_CHANNELS = 8 if "AVX512" in torch.backends.cpu.get_cpu_capability() else 4  # half of a vector register


class _Conv(LipschitzLayer):
    """Free parameters `weight` (out_channels, in_channels, k, k) and `bias`; a subclass rescales the weight."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding_mode: str = "zeros"
    ):
        super().__init__()
        check_sizes(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, stride=stride)
        if padding_mode not in PADDINGS:
            raise ValueError(f"padding_mode is {padding_mode!r}; use one of {', '.join(PADDINGS)}")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding_mode = stride, padding_mode
        weight = torch.zeros(out_channels, in_channels, kernel_size, kernel_size)
        nn.init.orthogonal_(weight[:, :, kernel_size // 2, kernel_size // 2])
        self.weight = nn.Parameter(weight + 0.1 * torch.randn_like(weight) / weight[0].numel() ** 0.5)
        self.bias = uniform_bias(out_channels, weight[0].numel())

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        """The convolution with the rescaled kernel, plus the bias; h2 = ceil(h / stride)."""
        check_channels(x, self.in_channels, spatial=True)
        return padded_conv(x, self.rescaled()["weight"], self.bias, self.stride, self.padding_mode)

    def plain(self) -> nn.Conv2d:
        """A `nn.Conv2d` with the rescaled kernel."""
        return frozen_conv(self.rescaled()["weight"], self.bias, self.stride, self.padding_mode)


class SpectralConv2d(_Conv):
    """Spectral normalisation: the kernel divided by a bound from above on the norm of the *convolution*.

    The trap: `torch.nn.utils.spectral_norm` and the paper's code normalise the kernel reshaped to
    (out_channels, in_channels k k). That is another matrix; the convolution's norm is up to k times its norm, for an
    all-ones kernel nearly exactly k. Here the bound comes from all frequencies.

    Source: Miyato, Kataoka, Koyama, Yoshida, Spectral normalization for generative adversarial networks, ICLR 2018;
    bound by Delattre, Barthelemy, Araujo, Allauzen, ICML 2023.
    """

    def _kernel(self) -> Tensor:
        return wide(self.weight)

    def _rescale(self) -> dict[str, Tensor]:
        kernel = self._kernel()
        return {"weight": kernel * inverse_or_zero(conv_bound(kernel))}

    def upper_bound(self) -> float:
        """Gram iteration over a grid of frequencies, for all image sizes."""
        return conv_bound(self._in_float64()["weight"]).item()


class LinearResidualConv2d(SpectralConv2d):
    """Linear residual block: y = (x + K x) / s + b without activation inside, s a bound from above on |I + K|.

    x + K x is itself a convolution, with 1 added to the middle of the kernel, so its norm is as easy to bound as any.
    Of a residual block with an activation inside one knows in general only the bound 1 + |branch|. The paper does not
    divide: its code estimates the norm by power iteration, and the loss takes it into the margin that is certified.

    Source: Hu, Zou, Wang, Leino, Fredrikson, Unlocking deterministic robustness certification on ImageNet, NeurIPS
    2023 (LiResNet).
    """

    def __init__(self, channels: int, kernel_size: int = 3, padding_mode: str = "zeros"):
        super().__init__(channels, channels, kernel_size, 1, padding_mode)
        with torch.no_grad():
            self.weight.normal_(std=0.1 / self.weight[0].numel() ** 0.5)

    def _kernel(self) -> Tensor:
        return nn.init.dirac_(torch.empty_like(wide(self.weight))) + wide(self.weight)


class AOLConv2d(_Conv):
    """Almost-orthogonal convolution: kernel * D, D_jj = (sum over k and shifts of |K^T K|_jk)^-1/2 for input j.

    If there are more inputs than outputs, the outputs are rescaled instead, with K K^T. It starts close to an
    orthogonal 1 x 1 convolution, where little has to be divided.

    Source: Prach, Lampert, Almost-orthogonal layers for efficient general-purpose Lipschitz networks, ECCV 2022,
    lemma 2.
    """

    def _rescale(self) -> dict[str, Tensor]:
        weight = wide(self.weight)
        kernel = weight if self._rows() else transposed(weight)
        scale = inverse_or_zero(gram_kernel(kernel).abs().sum((1, 2, 3))).sqrt()
        return {"weight": weight * (scale[:, None, None, None] if self._rows() else scale[:, None, None])}

    def _rows(self) -> bool:
        return self.in_channels > self.out_channels

    def upper_bound(self) -> float:
        """The smaller of Gram iteration over all frequencies and Gershgorin's circles, scaled with 1 / D."""
        weight = self._in_float64()["weight"]
        kernel, free = (t if self._rows() else transposed(t) for t in (weight, self.weight.detach().double()))
        scale = inverse_or_zero(gram_kernel(free).abs().sum((1, 2, 3))).sqrt()
        circles = scale * (gram_kernel(kernel).abs().sum((2, 3)) @ inverse_or_zero(scale))
        return min(conv_bound(weight).item(), circles.max().item() ** 0.5)


class _ResidualConv(LipschitzLayer):
    """x - 2 K^T S relu(K x + b), K the zero-padded convolution with `kernel` (hidden, channels, k, k), S diagonal.

    S is such that K^T S K <= I, and the constant is max(1, 2 lambda - 1) as in the dense layers. K^T, the transposed
    convolution, is computed as a convolution with the kernel flipped in space and transposed in channels, into
    which -2 S is folded: one pass less over the activations, and a faster operation on most machines.
    Few hidden channels leave most of a processor's vector registers empty; in evaluation mode they are computed for
    two neighbouring pixels at a time then, as twice as many channels of a convolution with stride 2.
    """

    def __init__(self, channels: int, hidden: int, kernel_size: int = 3):
        super().__init__()
        check_sizes(channels=channels, hidden=hidden, kernel_size=kernel_size)
        self.channels, self.hidden, self.kernel_size = channels, hidden, kernel_size
        self.kernel = nn.Parameter(nn.init.xavier_normal_(torch.empty(hidden, channels, kernel_size, kernel_size)))
        self.bias = uniform_bias(hidden, self.kernel[0].numel())

    def _scale(self, kernel: Float[Tensor, "o i k k"]) -> Float[Tensor, "o"]:
        """The diagonal of S."""
        raise NotImplementedError

    def _rescale(self) -> dict[str, Tensor]:
        kernel = wide(self.kernel)
        scale = self._scale(kernel)
        tensors = {"scale": scale, "back": transposed(kernel * (-2 * scale)[:, None, None, None]).contiguous()}
        if not self.training and self.hidden <= FEW_CHANNELS and self.kernel.dtype == torch.float32:
            tensors["pair"] = torch.cat((F.pad(kernel, (0, 1)), F.pad(kernel, (1, 0))))
        return tensors

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The residual step."""
        check_channels(x, self.channels, spatial=True)
        x, tensors, padding = fast_layout(x), self.rescaled(), self.kernel_size // 2
        if "pair" in tensors and x.device.type == "cpu" and x.shape[3] % 2 == 0:
            pairs = F.conv2d(x, tensors["pair"], self.bias.repeat(2), (1, 2), padding).relu_()
            hidden = pairs.permute(0, 2, 3, 1).unflatten(3, (2, -1)).flatten(2, 3).permute(0, 3, 1, 2)
        else:
            hidden = F.conv2d(x, self.kernel, self.bias, padding=padding).relu_()
        step = F.conv2d(hidden, tensors["back"], padding=padding)
        return step.add_(x) if step.dtype == x.dtype else x + step  # of two dtypes under autocast

    def plain(self) -> nn.Module:
        """The residual step with two `nn.Conv2d`."""
        return PlainResidual(frozen_conv(self.kernel, self.bias), frozen_conv(self.rescaled()["back"], None))


class SLLConv2d(_ResidualConv):
    """SDP-based Lipschitz layer: x - 2 K^T T^-1 relu(K x + b), T_ii = sum over j, shifts of |K K^T|_ij q_j / q_i.

    The free parameter is log q, clamped to +-20. The published code multiplies by q_i / q_i instead of q_j / q_i, so
    that q cancels; `cancelled_q=True` reproduces this, which is 1-Lipschitz too: it is q = 1. Then `log_q` is a buffer,
    kept only for loading and saving.

    Source: Araujo, Havens, Delattre, Allauzen, Hu, A unified algebraic perspective on Lipschitz neural networks,
    ICLR 2023; for convolutions, their published code.
    """

    log_q: Tensor

    def __init__(self, channels: int, hidden: int, kernel_size: int = 3, *, cancelled_q: bool = False):
        super().__init__(channels, hidden, kernel_size)
        self.cancelled_q = cancelled_q
        log_q = torch.randn(hidden)
        if cancelled_q:
            self.register_buffer("log_q", log_q)
        else:
            self.log_q = nn.Parameter(log_q)

    def _log_q(self) -> Tensor:
        return torch.zeros_like(self.log_q) if self.cancelled_q else self.log_q

    def _scale(self, kernel: Float[Tensor, "o i k k"]) -> Float[Tensor, "o"]:
        return sll_scale(gram_kernel(kernel).abs().sum((2, 3)), wide(self._log_q()))

    def upper_bound(self) -> float:
        """max(1, 2 lambda - 1), lambda by Gershgorin's circles scaled with q, which hold for every image size."""
        overlap = gram_kernel(self.kernel.detach().double()).abs().sum((2, 3))
        exact = sll_scale(overlap, self._log_q().detach().double())
        ratio = self._in_float64()["scale"] * inverse_or_zero(exact)
        return max(1.0, 2 * ratio.max().item() - 1)


class CPLConv2d(_ResidualConv):
    """Convex potential layer: x - (2 / |K|^2) K^T relu(K x + b), |K| bounded from above over all frequencies.

    The published version estimates |K| by power iteration, from below.

    Source: Meunier, Delattre, Araujo, Allauzen, A dynamical system perspective for Lipschitz neural networks, ICML
    2022, section on convex potential layers.
    """

    def _scale(self, kernel: Float[Tensor, "o i k k"]) -> Float[Tensor, "o"]:
        return inverse_or_zero(conv_bound(kernel).square()).expand(self.hidden)

    def upper_bound(self) -> float:
        """max(1, 2 lambda - 1), lambda by Gram iteration over a grid of frequencies, for all image sizes."""
        norm = conv_bound(self.kernel.detach().double()).item()
        return max(1.0, 2 * norm**2 * self._in_float64()["scale"].max().item() - 1)


def transposed(kernel: Float[Tensor, "o i k k"]) -> Float[Tensor, "i o k k"]:
    """Kernel of the transposed convolution, flipped in space and transposed in channels."""
    return kernel.flip(2, 3).transpose(0, 1)


def fast_layout(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """On a CPU with the channels last in memory, where a convolution takes 0.75 to 0.95 of the time.

    Like `x.contiguous(memory_format=torch.channels_last)`, which `torch.func.vmap` does not know.
    """
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) if x.device.type == "cpu" else x


def padded_conv(x: Tensor, kernel: Tensor, bias: Tensor | None, stride: int, padding_mode: str) -> Tensor:
    """Convolution that keeps the image size up to stride."""
    padding = kernel.shape[-1] // 2
    if padding_mode == "circular" and padding:
        if min(x.shape[2:]) < padding:
            raise ValueError(f"x has shape {tuple(x.shape)}; circular padding by {padding} needs as many pixels")
        x, padding = F.pad(x, (padding,) * 4, mode="circular"), 0
    return F.conv2d(fast_layout(x), kernel, bias, stride, padding)


def frozen_conv(kernel: Tensor, bias: Tensor | None, stride: int = 1, padding_mode: str = "zeros") -> nn.Conv2d:
    """A `nn.Conv2d` that owns copies of the given tensors and does not train."""
    padding: Any = "same" if stride == 1 else kernel.shape[-1] // 2  # "same" also serves even kernels
    options: dict[str, Any] = {"padding_mode": padding_mode, "device": "meta", "dtype": kernel.dtype}
    out_channels, in_channels, height, width = kernel.shape
    layer = nn.Conv2d(in_channels, out_channels, (height, width), stride, padding, bias=bias is not None, **options)
    layer.weight = nn.Parameter(kernel.detach().clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer
