"""The small changes that an adversary may make: an L2 or L-infinity ball around every image, pixels in [0, 1]."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

NORMS = ("l2", "linf")
IMAGE = (-3, -2, -1)  # the dimensions of one image, also in batches (n, k, 3, h, w) of several images each


def per_example(values: Float[Tensor, "n"], like: Float[Tensor, "n *parts c h w"]) -> Tensor:
    """`values` with as many dimensions as `like`, so that they multiply or choose whole examples."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def lengths(delta: Float[Tensor, "n *parts c h w"], norm: str) -> Float[Tensor, "n *parts 1 1 1"]:
    """L2 or L-infinity norm of every image, in the dtype of `delta`; safe where squares would underflow.

    Raises:
        ValueError: if `norm` is neither "l2" nor "linf".
    """
    check_norm(norm)
    peak = delta.abs().amax(IMAGE, keepdim=True)
    if norm == "linf":
        return peak
    scale = torch.where(peak > 0, peak, 1)
    return torch.linalg.vector_norm(delta / scale, dim=IMAGE, keepdim=True) * peak


def sizes(delta: Float[Tensor, "n *parts c h w"], norm: str) -> Float[Tensor, "n"]:
    """Norm of every example's change, computed in float64; with several images each, that of the largest."""
    return lengths(delta.double(), norm).flatten(1).amax(1)


def direction(gradient: Float[Tensor, "n *parts c h w"], norm: str) -> Float[Tensor, "n *parts c h w"]:
    """The change of norm 1 along which a linear function rises fastest; 0 where the gradient is 0.

    L2: g / |g|. L-infinity: sign(g).
    """
    if norm == "linf":
        return gradient.sign()
    length = lengths(gradient, norm)
    return gradient / torch.where(length > 0, length, 1)


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
            raise ValueError(f"eps is {self.eps}; it has to be a positive number of pixel units, such as 0.5 or 8 / 255")

    def project(
        self, images: Float[Tensor, "n *parts c h w"], center: Float[Tensor, "n *parts c h w"]
    ) -> Float[Tensor, "n *parts c h w"]:
        """Bring images back: shrink the change to the ball, then cut pixels off at 0 and 1, which only shrinks it.

        What is returned is inside exactly: its distance from `center`, computed in float64, is at most eps. (For L2
        it is not always the nearest such point, because of the cut.)
        """
        if self.norm == "linf":
            low, high = (center.double() - self.eps).clamp(0), (center.double() + self.eps).clamp(max=1)
            inside = images.double().clamp(low, high).to(images.dtype)
            return self._round_inwards(inside, low, high)
        delta = images.double() - center.double()
        length = lengths(delta, "l2")
        scale = torch.where(length > self.eps, self.eps / length, 1)
        inside = (center.double() + scale * delta).clamp(0, 1).to(images.dtype)
        while (outside := lengths(inside.double() - center.double(), "l2") > self.eps).any():  # by rounding
            scale = torch.where(outside, scale * (1 - 1e-6), scale)
            inside = (center.double() + scale * delta).clamp(0, 1).to(images.dtype)
        return inside

    @staticmethod
    def _round_inwards(inside: Tensor, low: Tensor, high: Tensor) -> Tensor:
        up, down = (torch.nextafter(inside, torch.full_like(inside, end)) for end in (1, 0))
        return torch.where(inside.double() > high, down, torch.where(inside.double() < low, up, inside))

    def random(
        self, center: Float[Tensor, "n *parts c h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "n *parts c h w"]:
        """Uniformly drawn from the ball, then cut off at 0 and 1."""
        device = generator.device if generator is not None else center.device
        options = {"generator": generator, "device": device, "dtype": center.dtype}
        if self.norm == "linf":
            delta = torch.rand(center.shape, **options).to(center.device) * 2 - 1
        else:
            delta = direction(torch.randn(center.shape, **options).to(center.device), "l2")
            radius = torch.rand(lengths(center, "l2").shape, **options).to(center.device)
            delta = delta * radius ** (1 / center.shape[-3:].numel())
        return self.project(center + self.eps * delta, center)


def check_norm(norm: str) -> None:
    """Raise ValueError unless the norm is "l2" or "linf"."""
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}; choose {' or '.join(NORMS)}")
