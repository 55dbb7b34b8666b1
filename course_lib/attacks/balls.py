"""The small changes that an adversary may make: an L2 or L-infinity ball around every image, pixels in [0, 1]."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

NORMS = ("l2", "linf")
IMAGE = (-3, -2, -1)  # the dimensions of one image, also in batches (n, k, 3, h, w) of several images each


def per_example(values: Shaped[Tensor, "n"], like: Shaped[Tensor, "n *parts c h w"]) -> Tensor:
    """`values` with as many dimensions as `like`, so that they multiply or choose whole examples."""
    return values.reshape(len(values), *[1] * (like.ndim - 1))


def lengths(delta: Float[Tensor, "n *parts c h w"], norm: str) -> Float[Tensor, "n *parts 1 1 1"]:
    """L2 or L-infinity norm of every image, in the dtype of `delta`; safe where squares would underflow.

    Raises:
        ValueError: if `norm` is neither "l2" nor "linf".
    """
    check_norm(norm)
    peak = delta.abs().amax(IMAGE, keepdim=True)
    return peak if norm == "linf" else _euclidean(delta / _positive(peak)) * peak


def sizes(delta: Float[Tensor, "n *parts c h w"], norm: str) -> Float[Tensor, "n"]:
    """Norm of every example's change, in float64; with several images each, that of the largest.

    To measure exactly, subtract in float64 too: ``sizes(images.double() - start.double(), norm)``.
    """
    return lengths(delta.double(), norm).flatten(1).amax(1)


def direction(gradient: Float[Tensor, "n *parts c h w"], norm: str) -> Float[Tensor, "n *parts c h w"]:
    """The change of norm 1 along which a linear function rises fastest; 0 where the gradient is 0.

    L2: g / |g|, however small g is. L-infinity: sign(g).

    Raises:
        ValueError: if `norm` is neither "l2" nor "linf".
    """
    check_norm(norm)
    if norm == "linf":
        return gradient.sign()
    scaled = gradient / _positive(gradient.abs().amax(IMAGE, keepdim=True))
    return scaled / _positive(_euclidean(scaled))


@dataclass(frozen=True)
class Ball:
    """All images within `eps` of a given one, on the [0, 1] scale, whose pixels stay in [0, 1].

    An example may be several images, (n, k, 3, h, w): then each has a ball of its own.

    Attributes:
        norm: "l2" or "linf".
        eps: radius, in the units of pixel values; L2 sums over all pixels and channels.

    Raises:
        ValueError: for an unknown norm, or a radius that is not a positive number.
    """

    norm: str
    eps: float

    def __post_init__(self):
        check_norm(self.norm)
        if not 0 < self.eps < float("inf"):
            raise ValueError(
                f"eps is {self.eps}; it has to be a positive number of pixel units, such as 0.5 or 8 / 255"
            )

    def project(
        self, images: Float[Tensor, "n *parts c h w"], center: Float[Tensor, "n *parts c h w"]
    ) -> Float[Tensor, "n *parts c h w"]:
        """Bring images back: shrink the change to the ball, then cut pixels off at 0 and 1, which only shrinks it.

        What is returned is inside exactly: its distance from `center`, computed in float64, is at most eps, and its
        dtype is that of `center`, whose pixels have to be in [0, 1]. (For L2 it is not always the nearest such point,
        because of the cut.)
        """
        middle = center.double()
        change = images.detach().double() - middle
        if self.norm == "linf":
            change.clamp_(-self.eps, self.eps)
        else:  # a little less than eps, so that the order in which a norm is added up does not matter
            change *= (self.eps * (1 - 1e-12) / _positive(_euclidean(change))).clamp(max=1)
        inside = (middle + change).to(center.dtype)
        outwards = (inside.double() - middle).abs_() > change.abs_()  # rounded away from the centre
        return torch.where(outwards, torch.nextafter(inside, center), inside).clamp(0, 1)

    def random(
        self, center: Float[Tensor, "n *parts c h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "n *parts c h w"]:
        """Uniformly drawn from the ball, then cut off at 0 and 1. In high dimension nearly all of it is the border."""
        device = generator.device if generator is not None else center.device
        options: dict[str, Any] = {"generator": generator, "device": device, "dtype": torch.float64}
        if self.norm == "linf":
            change = torch.rand(center.shape, **options) * 2 - 1
        else:
            radius = torch.rand((*center.shape[:-3], 1, 1, 1), **options) ** (1 / center.shape[-3:].numel())
            change = direction(torch.randn(center.shape, **options), "l2") * radius
        return self.project(center.double() + self.eps * change.to(center.device), center)


def check_norm(norm: str) -> None:
    """Raise ValueError unless the norm is "l2" or "linf"."""
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}; choose {' or '.join(NORMS)}")


def _euclidean(delta: Tensor) -> Tensor:
    return torch.linalg.vector_norm(delta, dim=IMAGE, keepdim=True)


def _positive(length: Tensor) -> Tensor:
    """With 1 in place of 0, to divide by."""
    return torch.where(length > 0, length, 1)
