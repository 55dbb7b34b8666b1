"""How fast can a network move? Its Lipschitz constant in L2, bounded from below and from above.

From below: any pair of points and any Jacobian gives a rate that really occurs, so the constant is at least that.
From above: a product over the layers, each bounded in float64 for every input. The truth lies between the two.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn

from course_lib.lipschitz.bounds_below import jacobian_norm, lower_bound
from course_lib.lipschitz.norms import grid_correction, matrix_norm
from course_lib.plots import ACCENT, COLOURS, INK, MUTED
from course_lib.trunks import BlurPool

__all__ = ["conv_upper_bound", "jacobian_norm", "lower_bound", "sandwich_plot", "upper_bound"]

Size = tuple[int, int] | None
OVERSAMPLING = 16  # grid points per degree of the symbol: costs at most 0.5 % per axis
LARGEST_TORUS = 64  # pixels; above it, the bound for images of every size is cheaper and almost equal
ROUNDING = 1 + 1e-12  # of float64 eigenvalues, so that "from above" survives it
CHUNK = 2**21  # complex numbers held at a time


def conv_upper_bound(
    kernel: Float[Tensor, "c_out c_in_per_group kh kw"],
    image_size: int | tuple[int, int] | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> float:
    """Bound a zero-padded convolution's L2 norm from above, whatever the padding is.

    Zero padding and cropping make the convolution a submatrix of the one on a torus of at least n + k - 1 pixels,
    where nothing wraps around, and the Fourier transform splits that one into one small matrix per frequency. A
    submatrix never has a larger norm. (On the image's own grid of n pixels it can: that grid is exact for
    circular padding only.) A stride is the same after the pixels of each stride x stride block became channels.

    Without `image_size` the bound holds for every size: a finite grid of frequencies and
    :func:`~course_lib.lipschitz.norms.grid_correction` for what may rise between them.

    Args:
        kernel: as in nn.Conv2d.
        image_size: side, or (height, width), of the input in pixels; None for every size.
        stride: as in nn.Conv2d.
        dilation: as in nn.Conv2d.
        groups: as in nn.Conv2d.

    Source: Sedghi, Gupta and Long, The Singular Values of Convolutional Layers, ICLR 2019, theorem 6.
    """
    stride, dilation = _pair(stride), _pair(dilation)
    kernel = kernel.detach().double()
    if image_size is not None or stride != (1, 1):  # for every size, dilation only permutes the frequencies
        kernel = _dilated(kernel, dilation)
    kernel = _blocks_to_channels(kernel, stride)
    grid, rise = [], 1.0
    for axis, taps in enumerate(kernel.shape[2:]):
        least = 0
        if image_size is not None:
            least = -(-(_pair(image_size)[axis] + stride[axis] - 1) // stride[axis]) + taps - 1
        if 0 < least <= LARGEST_TORUS:
            grid.append(least)
        else:
            grid.append(max(1, OVERSAMPLING * (taps - 1)))
            rise *= grid_correction(taps, grid[-1])
    return rise * ROUNDING * _largest_over_frequencies(kernel.unflatten(0, (groups, -1)), grid[0], grid[1])


def upper_bound(f: nn.Module, image_size: int | tuple[int, int] | None = None) -> float:
    """Bound a network's L2 Lipschitz constant from above: the product over its layers, in float64, for all inputs.

    A module with its own `upper_bound()` (all layers of this chapter, among them the residual ones, whose constant
    the product rule would overestimate) is asked for it. Ordinary layers: nn.Linear by its norm, nn.Conv2d and
    nn.ConvTranspose2d by :func:`conv_upper_bound`, nn.MaxPool2d by how many windows share a pixel, average pools,
    blur pools, batch norm and dropout in eval mode, activations, nn.Flatten, nn.PixelUnshuffle, nn.Sequential.

    Args:
        f: the network.
        image_size: side, or (height, width), of its input in pixels, for a slightly smaller bound.

    Raises:
        TypeError: for a module that is none of these; the message names it.
        ValueError: for a known module in a form that is not bounded here, such as reflecting padding.
    """
    return _bound(f, "the network", None if image_size is None else _pair(image_size))[0]


def sandwich_plot(bounds: Mapping[str, Sequence[float | int | None]], *, title: str = "") -> Figure:
    """Draw lower <= true <= upper for several networks on one logarithmic axis.

    Args:
        bounds: name -> (lower, upper) or (lower, true, upper); None where the truth is not known.
        title: above the figure.

    Raises:
        ValueError: if there is nothing to draw, a bound is not positive and finite, or the order is violated.
    """
    if not bounds:
        raise ValueError("nothing to draw; give at least one name -> (lower, true, upper)")
    figure, axis = plt.subplots(figsize=(7, 0.8 + 0.5 * len(bounds)), layout="constrained")
    for row, (name, values) in enumerate(bounds.items()):
        if len(values) not in (2, 3) or None in (values[0], values[-1]):
            raise ValueError(f"{name}: give (lower, upper) or (lower, true, upper), not {tuple(values)}")
        known = [float(value) for value in values if value is not None]
        if not all(0 < value < math.inf for value in known):
            raise ValueError(f"{name}: bounds {known} on a logarithmic axis must be positive and finite")
        if any(low > high * (1 + 1e-5) for low, high in pairwise(known)):
            raise ValueError(f"{name}: {known} is not in the order lower <= true <= upper")
        axis.plot([known[0], known[-1]], [row, row], color=MUTED, lw=4, solid_capstyle="butt", zorder=1)
        labels = ["lower bound", "true", "upper bound"] if len(known) == 3 else ["lower bound", "upper bound"]
        looks = {"lower bound": (COLOURS[0], ">"), "true": (INK, "|"), "upper bound": (ACCENT, "<")}
        for label, value in zip(labels, known, strict=True):
            axis.scatter(value, row, 90, color=looks[label][0], marker=looks[label][1], label=label, zorder=2)
        text = " ≤ ".join(f"{value:.3g}" for value in known)
        axis.annotate(text, (known[-1], row), (8, 0), textcoords="offset points", va="center", fontsize=8, color=INK)
    axis.set_xscale("log")
    axis.set_yticks(range(len(bounds)), list(bounds))
    axis.invert_yaxis()
    axis.margins(x=0.35, y=0.25)
    axis.set_xlabel("Lipschitz constant in L2")
    axis.set_title(title, fontsize=10, color=INK)
    axis.spines[["top", "right"]].set_visible(False)
    entries = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _largest_over_frequencies(kernel: Tensor, rows: int, columns: int) -> float:
    """Largest singular value of all symbols of a (groups, out, in, kh, kw) kernel on a rows x columns torus."""
    spectrum = torch.fft.rfft(kernel, columns)  # the other half is conjugate: same singular values
    angles = torch.outer(torch.arange(rows), torch.arange(kernel.shape[3])).to(kernel) * (-2 * math.pi / rows)
    waves = torch.polar(torch.ones_like(angles), angles)
    largest = 0.0
    for wave in waves.split(max(1, CHUNK // (kernel.shape[:3].numel() * spectrum.shape[-1]))):
        symbols = torch.einsum("rk,goikc->rcgoi", wave, spectrum)
        gram = symbols @ symbols.mH if symbols.shape[-2] <= symbols.shape[-1] else symbols.mH @ symbols
        largest = max(largest, torch.linalg.eigvalsh(gram).amax().item())
    return math.sqrt(largest)


def _dilated(kernel: Tensor, dilation: tuple[int, int]) -> Tensor:
    sides = [step * (taps - 1) + 1 for step, taps in zip(dilation, kernel.shape[2:], strict=True)]
    spread = kernel.new_zeros(*kernel.shape[:2], *sides)
    spread[:, :, :: dilation[0], :: dilation[1]] = kernel
    return spread


def _blocks_to_channels(kernel: Tensor, stride: tuple[int, int]) -> Tensor:
    """Kernel of the same convolution once every stride x stride block of pixels has become channels."""
    down, right = stride
    kernel = nn.functional.pad(kernel, (0, -kernel.shape[3] % right, 0, -kernel.shape[2] % down))
    blocks = kernel.unflatten(3, (-1, right)).unflatten(2, (-1, down))
    return blocks.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


def _bound(module: nn.Module, name: str, size: Size) -> tuple[float, Size]:
    """Bound one module, and the size of its output where it can be told."""
    if module._forward_hooks or module._forward_pre_hooks:
        raise ValueError(f"{name} ({type(module).__name__}) has forward hooks, whose effect is unknown; remove them")
    if callable(getattr(module, "upper_bound", None)):
        return float(module.upper_bound()), None  # type: ignore[operator]
    rule = RULES.get(type(module).forward)
    if rule is None:
        fix = "use nn.Sequential of known layers, or give the module a method upper_bound()"
        raise TypeError(f"upper_bound does not know the module {name} ({type(module).__name__}); {fix}")
    return rule(module, name, size)


def _sequential(module: Any, name: str, size: Size) -> tuple[float, Size]:
    product = 1.0
    for key, child in module._modules.items():  # named_children() would skip a layer that occurs a second time
        bound, size = _bound(child, key if name == "the network" else f"{name}.{key}", size)
        product *= bound
    return product, size


def _conv(module: Any, name: str, size: Size) -> tuple[float, Size]:
    if module.padding_mode != "zeros":
        raise ValueError(f"{name}: padding_mode={module.padding_mode!r} is not bounded here; use 'zeros'")
    options = {"stride": module.stride, "dilation": module.dilation, "groups": module.groups}
    bound = conv_upper_bound(module.weight, size, **options)
    if module.padding == "same":
        return bound, size
    padding = (0, 0) if module.padding == "valid" else module.padding
    return bound, _windows(size, module.kernel_size, module.stride, padding, module.dilation)


def _conv_transpose(module: Any, name: str, size: Size) -> tuple[float, Size]:
    """Bound the adjoint convolution; two matrices that are each other's transpose have one norm."""
    options = {"stride": module.stride, "dilation": module.dilation, "groups": module.groups}
    return conv_upper_bound(module.weight, **options), None


def _linear(module: Any, name: str, size: Size) -> tuple[float, Size]:
    return matrix_norm(module.weight), None


def _max_pool(module: Any, name: str, size: Size) -> tuple[float, Size]:
    """A pixel can be the maximum of every window it lies in, and its gradient counts once in each."""
    options = [_pair(value) for value in (module.kernel_size, module.stride, module.dilation)]
    after = None if module.ceil_mode else _windows(size, options[0], options[1], _pair(module.padding), options[2])
    return math.sqrt(_overlap(*options)), after


def _average_pool(module: Any, name: str, size: Size) -> tuple[float, Size]:
    """|A|^2 <= largest row sum times largest column sum, for the non-negative matrix A (Schur)."""
    if module.ceil_mode or (_pair(module.padding) != (0, 0) and not module.count_include_pad):
        raise ValueError(f"{name}: ceil_mode and count_include_pad=False are not bounded here; use the defaults")
    kernel, stride = _pair(module.kernel_size), _pair(module.stride)
    divisor = module.divisor_override or math.prod(kernel)
    bound = math.sqrt(math.prod(kernel) * _overlap(kernel, stride, (1, 1))) / divisor
    return bound, _windows(size, kernel, stride, _pair(module.padding), (1, 1))


def _global_average_pool(module: Any, name: str, size: Size) -> tuple[float, Size]:
    if module.output_size not in (1, (1, 1)):
        raise ValueError(f"{name}: only the output size 1 is bounded here, not {module.output_size}")
    return (1.0 if size is None else 1 / math.sqrt(math.prod(size))), (1, 1)


def _blur_pool(module: Any, name: str, size: Size) -> tuple[float, Size]:
    """The blur acts on rows and columns apart; without a size, row sums 1 and column sums at most 1.5 (Schur)."""
    if size is None:
        return 1.5, None
    bound = 1.0
    for side in size:
        stripes = torch.eye(side, dtype=module.kernel.dtype, device=module.kernel.device)
        rows = module(stripes[:, None, None, :].expand(-1, -1, 3, -1))[:, 0, 0]
        bound *= matrix_norm(rows)
    return bound, ((size[0] + 3) // 2, (size[1] + 3) // 2)


def _batch_norm(module: Any, name: str, size: Size) -> tuple[float, Size]:
    if module.training or module.running_var is None:
        raise ValueError(f"{name}: batch norm mixes the images of a batch in training; call eval() first")
    scale = (module.running_var.double() + module.eps).rsqrt()
    return (scale if module.weight is None else scale * module.weight.detach().double().abs()).max().item(), size


def _dropout(module: Any, name: str, size: Size) -> tuple[float, Size]:
    if module.training and module.p > 0:
        raise ValueError(f"{name}: dropout is random in training; call eval() first")
    return 1.0, size


def _steepest(slope: Callable[[Any], float]) -> Callable[[Any, str, Size], tuple[float, Size]]:
    return lambda module, name, size: (slope(module), size)


def _flatten(module: Any, name: str, size: Size) -> tuple[float, Size]:
    return 1.0, None


RULES: dict[Any, Callable[[Any, str, Size], tuple[float, Size]]] = {
    nn.Sequential.forward: _sequential,
    nn.Conv2d.forward: _conv,
    nn.ConvTranspose2d.forward: _conv_transpose,
    nn.Linear.forward: _linear,
    nn.MaxPool2d.forward: _max_pool,
    nn.AvgPool2d.forward: _average_pool,
    nn.AdaptiveAvgPool2d.forward: _global_average_pool,
    BlurPool.forward: _blur_pool,
    nn.BatchNorm2d.forward: _batch_norm,  # shared by nn.BatchNorm1d
    nn.Dropout.forward: _dropout,
    nn.Dropout2d.forward: _dropout,
    nn.Flatten.forward: _flatten,
    nn.PixelUnshuffle.forward: _flatten,
    nn.Identity.forward: _steepest(lambda module: 1.0),
    nn.ReLU.forward: _steepest(lambda module: 1.0),
    nn.Tanh.forward: _steepest(lambda module: 1.0),
    nn.Sigmoid.forward: _steepest(lambda module: 0.25),
    nn.LeakyReLU.forward: _steepest(lambda module: max(1.0, abs(module.negative_slope))),
}


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _overlap(kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> int:
    """Most windows that one pixel lies in."""
    return math.prod(
        max(sum(step * tap % hop == rest for tap in range(taps)) for rest in range(hop))
        for taps, hop, step in zip(kernel, stride, dilation, strict=True)
    )


def _windows(size: Size, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Size:
    if size is None:
        return None
    sides = [
        (side + 2 * pad - step * (taps - 1) - 1) // hop + 1
        for side, taps, hop, pad, step in zip(size, kernel, stride, padding, dilation, strict=True)
    ]
    return sides[0], sides[1]
