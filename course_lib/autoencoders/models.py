"""Autoencoders: an encoder that turns images into codes, and a decoder that turns codes back into images.

Images are (n, c, h, w), digits (n, 1, 28, 28) in [0, 1]; a code is a row of k numbers. An autoencoder with k smaller
than the number of pixels is undercomplete, any other is overcomplete: it has room enough to copy its input.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "linear": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
}
DIGIT = (1, 28, 28)


class Autoencoder(nn.Module):
    """Any encoder and decoder that fit together.

    Args:
        encoder: (n, c, h, w) to (n, k).
        decoder: (n, k) to (n, c, h, w).
        code_size: k.
        shape: (c, h, w) of an image.
    """

    def __init__(
        self, encoder: nn.Sequential, decoder: nn.Sequential, code_size: int, shape: tuple[int, int, int] = DIGIT
    ):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.code_size, self.shape = code_size, shape

    @property
    def overcomplete(self) -> bool:
        """Whether the code has at least as many numbers as the image."""
        return self.code_size >= math.prod(self.shape)

    def encode(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Codes of images.

        Raises:
            TypeError: if the images are not floating point.
            ValueError: if they have another shape than this autoencoder's.
        """
        if not images.is_floating_point():
            raise TypeError(f"images has dtype {images.dtype}; if it holds 0-255: images.float() / 255")
        if tuple(images.shape[1:]) != self.shape:
            expected = ", ".join(map(str, self.shape))
            raise ValueError(f"images has shape {tuple(images.shape)}; this autoencoder takes (n, {expected})")
        return self.encoder(images)

    def decode(self, code: Float[Tensor, "n k"]) -> Float[Tensor, "n c h w"]:
        """Images of codes.

        Raises:
            ValueError: if a code does not have `code_size` numbers.
        """
        if code.ndim != 2 or code.shape[1] != self.code_size:
            raise ValueError(f"code has shape {tuple(code.shape)}; this autoencoder takes (n, {self.code_size})")
        return self.decoder(code)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Reconstructions of images."""
        return self.decode(self.encode(images))


class Transposed(nn.Module):
    """A linear layer backwards: its weight transposed, and a bias of its own."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.layer, self.bias = layer, nn.Parameter(torch.zeros(layer.in_features))

    def forward(self, code: Float[Tensor, "n k"]) -> Float[Tensor, "n d"]:
        """Through the layer from its output to its input."""
        return F.linear(code, self.layer.weight.T, self.bias)


class Dense(Autoencoder):
    """One hidden layer: code h = s(W x + b), reconstruction o(V h + c).

    Sigmoids on both sides are the form in which the regularisers were published, not the one that learns fastest: 400
    steps of :func:`fit` leave it near the mean digit. ``Dense(32, "tanh", output="linear")``, Xavier's start and a
    learning rate of 0.01 explain 70 % of the variance in the same time.

    Args:
        code_size: units of the hidden layer.
        activation: s; one of ACTIVATIONS.
        output: o.
        tied: V is W transposed, not a matrix of its own.
        dropout: share of the code's units that are set to 0 on their way to the decoder, in training.
        shape: (c, h, w) of an image.

    Raises:
        ValueError: for an unknown activation or a code without units.
    """

    def __init__(
        self, code_size: int, activation: str = "sigmoid", *, output: str = "sigmoid", tied: bool = False,
        dropout: float = 0.0, shape: tuple[int, int, int] = DIGIT,
    ):  # fmt: skip
        check_widths([code_size])
        pixels = math.prod(shape)
        into = nn.Linear(pixels, code_size)
        out = Transposed(into) if tied else nn.Linear(code_size, pixels)
        encoder = nn.Sequential(nn.Flatten(), into, activation_named(activation))
        decoder = nn.Sequential(nn.Dropout(dropout), out, activation_named(output), nn.Unflatten(1, shape))
        super().__init__(encoder, decoder, code_size, shape)
        self.activation, self.tied = activation, tied

    @property
    def weight(self) -> Float[Tensor, "k d"]:
        """W: row j is what unit j looks for."""
        return self.into.weight

    @property
    def into(self) -> nn.Linear:
        """The layer with W and b."""
        return cast(nn.Linear, self.encoder[1])

    @property
    def out(self) -> nn.Linear | Transposed:
        """The layer with V and c."""
        return cast(nn.Linear | Transposed, self.decoder[1])

    @property
    def columns(self) -> Float[Tensor, "d k"]:
        """V: column j is what unit j paints."""
        return self.out.layer.weight.T if isinstance(self.out, Transposed) else self.out.weight


class DeepDense(Autoencoder):
    """Dense layers down to the code and, mirrored, up again. The code itself is linear.

    Args:
        widths: units of the encoder's layers; the last is the code.
        activation: of the layers between.
        output: of the last layer.
        batch_norm: normalise every layer between over the batch, before its activation.
        dropout: share of the units between that are set to 0 in training.
        shape: (c, h, w) of an image.

    Raises:
        ValueError: for an unknown activation, no widths, or a layer without units.
    """

    def __init__(
        self, widths: Sequence[int] = (512, 256, 32), activation: str = "relu", *, output: str = "sigmoid",
        batch_norm: bool = False, dropout: float = 0.0, shape: tuple[int, int, int] = DIGIT,
    ):  # fmt: skip
        check_widths(widths)
        sizes = [math.prod(shape), *widths]

        def layers(sizes: Sequence[int]) -> list[nn.Module]:
            between: list[nn.Module] = []
            for a, b in pairwise(sizes[:-1]):
                between += [nn.Linear(a, b), *([nn.BatchNorm1d(b)] if batch_norm else []), activation_named(activation)]
                between += [nn.Dropout(dropout)] if dropout else []
            return [*between, nn.Linear(sizes[-2], sizes[-1])]

        encoder = nn.Sequential(nn.Flatten(), *layers(sizes))
        decoder = nn.Sequential(*layers(sizes[::-1]), activation_named(output), nn.Unflatten(1, shape))
        super().__init__(encoder, decoder, widths[-1], shape)


class Convolutional(Autoencoder):
    """Convolutions that halve the image, a linear code, and transposed convolutions that double it again.

    Args:
        code_size: numbers in the code.
        channels: of the convolutions; each halves height and width.
        activation: of the layers between.
        output: of the last layer.
        batch_norm: normalise every convolution of the encoder, and all but the last of the decoder.
        shape: (c, h, w) of an image.

    Raises:
        ValueError: for an unknown activation, a layer without units, or an image that cannot be halved so often.
    """

    def __init__(
        self, code_size: int = 32, channels: Sequence[int] = (16, 32), activation: str = "relu", *,
        output: str = "sigmoid", batch_norm: bool = False, shape: tuple[int, int, int] = DIGIT,
    ):  # fmt: skip
        check_widths([code_size, *channels])
        colours, height, width = shape
        shrink = 2 ** len(channels)
        if height % shrink or width % shrink:
            raise ValueError(f"{height} x {width} pixels cannot be halved {len(channels)} times; use fewer channels")
        smallest = (channels[-1], height // shrink, width // shrink)

        def rest(n: int) -> list[nn.Module]:
            return [*([nn.BatchNorm2d(n)] if batch_norm else []), activation_named(activation)]

        down: list[nn.Module] = []
        for a, b in pairwise([colours, *channels]):
            down += [nn.Conv2d(a, b, 3, stride=2, padding=1), *rest(b)]
        up: list[nn.Module] = []
        for a, b in pairwise(channels[::-1]):
            up += [nn.ConvTranspose2d(a, b, 4, stride=2, padding=1), *rest(b)]
        up += [nn.ConvTranspose2d(channels[0], colours, 4, stride=2, padding=1), activation_named(output)]
        features = math.prod(smallest)
        encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(features, code_size))
        decoder = nn.Sequential(
            nn.Linear(code_size, features), nn.Unflatten(1, smallest), activation_named(activation), *up
        )
        super().__init__(encoder, decoder, code_size, shape)


def activation_named(name: str) -> nn.Module:
    """A new activation.

    Raises:
        ValueError: if `name` is not in ACTIVATIONS.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def check_widths(widths: Sequence[int]) -> None:
    """Raise ValueError unless there are widths and all are positive."""
    if not widths or min(widths) < 1:
        raise ValueError(f"layers of {tuple(widths)} units cannot be built; every layer needs at least one unit")


def parameter_count(model: nn.Module) -> int:
    """Trained numbers in a model; tied weights count once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
