"""Two views of every image, as LipSim was distilled: the picture, and the picture with its colours jittered.

Published, each view is mirrored by a coin of its own, so that every second jittered view is the mirror image of the
picture whose embedding is its target: the student is taught to overlook mirroring as well.

Everything happens on the images' device, for a whole batch at once, and yet every image has its own parameters. These
are drawn on the CPU, so that one seed gives the same views on every device and with any number of processes.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.2, 0.1
JITTERED, GREY = 0.8, 0.2  # share of the images
GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # torchvision's, which the recipe uses
KINDS = ("published", "flip", "plain")


class Views(NamedTuple):
    """Parameters of the two views of n images; see :func:`draw_views`.

    Attributes:
        flip: whether the first view is mirrored, and whether the second is.
        order: of the four changes of colour, by index into `factor`: brightness, contrast, saturation, hue.
        factor: what brightness, contrast and saturation are multiplied by, and how far hue is turned, in turns.
        jitter: whether these changes are made at all.
        grey: whether the second view becomes grey in the end.
    """

    flip: Bool[Tensor, "n 2"]
    order: Int64[Tensor, "n 4"]
    factor: Float[Tensor, "n 4"]
    jitter: Bool[Tensor, "n"]
    grey: Bool[Tensor, "n"]

    def select(self, rows: Tensor | slice) -> "Views":
        """The parameters of some of the images."""
        return Views(*(part[rows] for part in self))


def draw_views(n: int, generator: torch.Generator, kind: str = "published") -> Views:
    """Draw parameters for `n` images.

    Args:
        n: how many.
        generator: on the CPU.
        kind: "published": both views mirrored with probability ½, each by its own coin; the second with brightness and
            contrast times 0.6 to 1.4, saturation times 0.8 to 1.2 and hue turned by up to a tenth, in random order,
            all this with probability 0.8, and grey with probability 0.2. "flip": both mirrored alike, nothing else.
            "plain": no change.

    Raises:
        ValueError: for another kind.

    Source: the code of Ghazanfari et al., LipSim, ICLR 2024; the jitter is that of DINO (Caron et al., ICCV 2021).
    """
    if kind not in KINDS:
        raise ValueError(f"unknown views {kind!r}; choose {', '.join(KINDS)}")
    spread = torch.tensor([BRIGHTNESS, CONTRAST, SATURATION, HUE])
    # everything is drawn whatever the kind, so that kinds can be compared on the same order of images
    flip = torch.rand(n, 2, generator=generator) < 0.5
    order = torch.rand(n, 4, generator=generator).argsort(1)
    factor = torch.tensor([1.0, 1.0, 1.0, 0.0]) + spread * (2 * torch.rand(n, 4, generator=generator) - 1)
    jitter, grey = (torch.rand(n, generator=generator) < share for share in (JITTERED, GREY))
    if kind != "published":
        flip = flip[:, :1].expand(-1, 2) & (kind == "flip")
        jitter, grey = torch.zeros_like(jitter), torch.zeros_like(grey)
    return Views(flip, order, factor, jitter, grey)


def apply_views(
    images: Float[Tensor, "n 3 h w"], views: Views
) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"]]:
    """Both views of every image, in [0, 1]: the plain one and the jittered one."""
    views = Views(*(part.to(images.device) for part in views))
    plain, second = (mirror(images, flip) for flip in views.flip.unbind(1))
    return plain, make_grey(jitter(second, views), views.grey)


def mirror(images: Float[Tensor, "n 3 h w"], which: Bool[Tensor, "n"]) -> Float[Tensor, "n 3 h w"]:
    """Exchange left and right in some of the images."""
    return torch.where(which[:, None, None, None], images.flip(3), images)


def jitter(images: Float[Tensor, "n 3 h w"], views: Views) -> Float[Tensor, "n 3 h w"]:
    """Change the colours of the images that `views.jitter` names, each in its own order and by its own factors."""
    images = images.clone()
    for place in range(4):
        for which, change in enumerate((brightness, contrast, saturation, hue)):
            rows = (views.jitter & (views.order[:, place] == which)).nonzero().flatten()
            images[rows] = change(images[rows], views.factor[rows, which])
    return images


def make_grey(images: Float[Tensor, "n 3 h w"], which: Bool[Tensor, "n"]) -> Float[Tensor, "n 3 h w"]:
    """Replace some of the images by their luma, three times."""
    return torch.where(which[:, None, None, None], luma(images), images)


def luma(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Weighted sum of red, green and blue."""
    # no matrix product, which autocast would compute in half precision
    return (images * images.new_tensor(GREY_WEIGHTS)[:, None, None]).sum(1, keepdim=True)


def brightness(images: Float[Tensor, "n 3 h w"], factor: Float[Tensor, "n"]) -> Float[Tensor, "n 3 h w"]:
    """Blend with black; a factor of 1 changes nothing, one above 1 goes away from black."""
    return _blend(images, torch.zeros_like(images[:, :1]), factor)


def contrast(images: Float[Tensor, "n 3 h w"], factor: Float[Tensor, "n"]) -> Float[Tensor, "n 3 h w"]:
    """Blend with the image's mean luma."""
    return _blend(images, luma(images).mean((1, 2, 3), keepdim=True), factor)


def saturation(images: Float[Tensor, "n 3 h w"], factor: Float[Tensor, "n"]) -> Float[Tensor, "n 3 h w"]:
    """Blend with the grey image."""
    return _blend(images, luma(images), factor)


def hue(images: Float[Tensor, "n 3 h w"], turn: Float[Tensor, "n"]) -> Float[Tensor, "n 3 h w"]:
    """Turn the hue by so many turns, keeping value and saturation (of HSV)."""
    red, green, blue = images.unbind(1)
    value = images.amax(1)
    chroma = value - images.amin(1)
    divisor = torch.where(chroma > 0, chroma, 1)
    sixth = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    k = (images.new_tensor([5, 3, 1])[:, None, None] + (sixth + 6 * turn[:, None, None])[:, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def _blend(images: Tensor, with_: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(with_.expand_as(images), images, factor[:, None, None, None]).clamp(0, 1)
