"""How weights start: four good and two bad ways, and what each does to a deep network's signals and gradients."""

import math
from collections.abc import Callable

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from course_lib.autoencoders.models import ACTIVATIONS, Autoencoder, Transposed
from course_lib.autoencoders.regularisers import squared_error

Draw = Callable[[int, int, torch.Generator | None], Tensor]


def xavier(n_out: int, n_in: int, generator: torch.Generator | None = None) -> Float[Tensor, "n_out n_in"]:
    """Uniform in +-sqrt(6 / (n_in + n_out)): variance 2 / (n_in + n_out), for units that are linear around 0.

    Source: Glorot and Bengio, AISTATS 2010, equation (16).
    """
    limit = math.sqrt(6 / (n_in + n_out))
    return limit * (2 * torch.rand(n_out, n_in, generator=generator) - 1)


def he(n_out: int, n_in: int, generator: torch.Generator | None = None) -> Float[Tensor, "n_out n_in"]:
    """Normal with variance 2 / n_in: ReLU lets half of the signal through, the 2 makes up for it.

    Source: He et al., ICCV 2015, equation (10).
    """
    return math.sqrt(2 / n_in) * torch.randn(n_out, n_in, generator=generator)


def orthogonal(n_out: int, n_in: int, generator: torch.Generator | None = None) -> Float[Tensor, "n_out n_in"]:
    """Uniform among matrices with orthonormal rows, or columns where there are fewer of them.

    Source: Saxe et al., ICLR 2014; the signs as in Mezzadri, Notices of the AMS 54, 2007.
    """
    q, r = torch.linalg.qr(torch.randn(max(n_out, n_in), min(n_out, n_in), generator=generator))
    q = q * r.diagonal().sign()
    return q if n_out >= n_in else q.T


def too_small(n_out: int, n_in: int, generator: torch.Generator | None = None) -> Float[Tensor, "n_out n_in"]:
    """Normal with standard deviation 0.01, whatever the width: signals fade."""
    return 0.01 * torch.randn(n_out, n_in, generator=generator)


def too_large(n_out: int, n_in: int, generator: torch.Generator | None = None) -> Float[Tensor, "n_out n_in"]:
    """Normal with standard deviation 1, whatever the width: signals explode, or saturate."""
    return torch.randn(n_out, n_in, generator=generator)


INITIALISATIONS: dict[str, Draw] = {
    "xavier": xavier,
    "he": he,
    "orthogonal": orthogonal,
    "too small": too_small,
    "too large": too_large,
}


@torch.no_grad()
def initialise(model: nn.Module, name: str, generator: torch.Generator | None = None) -> None:
    """Draw the weights of every layer anew, in place; biases become 0, batch normalisation as if new.

    A convolution is drawn as the matrix that makes a pixel of its patch: n_in is channels times kernel pixels, and for
    a transposed one, where only every `stride`-th of them meets a given pixel, that divided by the stride squared.
    PyTorch's own start is uniform with variance 1 / (3 n_in): smaller than all of the good ones.

    Raises:
        ValueError: if `name` is not in INITIALISATIONS, or a transposed convolution's kernel no multiple of its stride.
    """
    if name not in INITIALISATIONS:
        raise ValueError(f"unknown initialisation {name!r}; choose one of {', '.join(INITIALISATIONS)}")
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            n_out, n_in = layer.weight.flatten(1).shape
            if isinstance(layer, nn.ConvTranspose2d):
                if any(k % s for k, s in zip(layer.kernel_size, layer.stride, strict=True)):
                    raise ValueError(f"a kernel of {layer.kernel_size} is no multiple of the stride {layer.stride}")
                n_out = layer.out_channels * math.prod(layer.stride)
                n_in = layer.weight.numel() // n_out
            layer.weight.copy_(INITIALISATIONS[name](n_out, n_in, generator).reshape(layer.weight.shape))
        elif isinstance(layer, _BatchNorm):
            layer.reset_parameters()
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, Transposed)) and layer.bias is not None:
            layer.bias.zero_()


def depth_statistics(model: Autoencoder, images: Float[Tensor, "n c h w"]) -> pd.DataFrame:
    """What arrives at each depth, forward and backward, for one batch. One row per activation but linear ones.

    Columns: layer (from 1), width (units), activation_std (over all units and images), signal_std (over images, root
    mean square of the units: what tells images apart), dead (share of units that are the same for every image: ReLUs
    that are never on, or saturated units) and gradient_std (of the squared error's gradient, over units and images).
    """
    units: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        output.retain_grad()
        units.append(output)

    shown = tuple(kind for name, kind in ACTIVATIONS.items() if name != "linear")
    hooks = [module.register_forward_hook(keep) for module in model.modules() if isinstance(module, shown)]
    try:
        with torch.enable_grad():
            torch.autograd.backward(squared_error(model(images), images), inputs=units)
    finally:
        for hook in hooks:
            hook.remove()
    rows = []
    for layer, h in enumerate(units, 1):
        assert h.grad is not None
        flat = h.detach().flatten(1)
        dead = (flat.amax(0) == flat.amin(0)).float().mean().item()
        signal = flat.var(0).mean().sqrt().item()
        rows.append((layer, flat.shape[1], flat.std().item(), signal, dead, h.grad.std().item()))
    return pd.DataFrame(rows, columns=["layer", "width", "activation_std", "signal_std", "dead", "gradient_std"])
