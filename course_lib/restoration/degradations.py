"""What happens to pictures, as operators whose ground truth we keep: noise, holes, too few pixels.

Every operator takes clean images and a generator, and returns a :class:`Degraded`; the clean images are the truth
that a restoration is compared with.
"""

import string
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from course_lib.validation import check_images, check_pair

HOLE = 0.5  # what a missing pixel shows


class Degraded(NamedTuple):
    """What a restorer is given.

    Attributes:
        images: (n, 3, h / factor, w / factor), in [0, 1].
        mask: (n, 1, h, w), True where a pixel is *missing*; None where nothing is masked.
        factor: how many times smaller the images are than the truth.
    """

    images: Tensor
    mask: Tensor | None = None
    factor: int = 1

    def network_input(self) -> Tensor:
        """A first guess at full size, (n, 3, h, w): enlarged; or filled, with the mask as a fourth channel."""
        if self.mask is None:
            return bicubic(self)
        return torch.cat([smooth_fill(self), self.mask.to(self.images)], 1)

    def paste_known(self, restored: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """`restored`, but with the pixels that were never missing as they were given."""
        return restored if self.mask is None else torch.where(self.mask, restored, self.images)


Degrade = Callable[[Tensor, torch.Generator], Degraded]


def gaussian_noise(images: Float[Tensor, "n 3 h w"], generator: torch.Generator, sigma: float | int = 0.1) -> Degraded:
    """Add independent Gaussian noise of standard deviation `sigma`; what leaves [0, 1] is clipped, as a camera does.

    Raises:
        TypeError, ValueError: for images that are not in [0, 1], or a sigma that is not positive.
    """
    check_images(images)
    _check_positive("sigma", sigma)
    return Degraded((images + sigma * _randn(images, generator)).clamp(0, 1))


def poisson_noise(images: Float[Tensor, "n 3 h w"], generator: torch.Generator, photons: float | int = 40) -> Degraded:
    """Count photons: white is `photons` of them on average, so noise has variance image / photons; clipped at 1.

    Raises:
        TypeError, ValueError: for images that are not in [0, 1], or if photons is not positive.
    """
    check_images(images)
    _check_positive("photons", photons)
    counts = torch.poisson((images.clamp_min(0) * photons).to(generator.device), generator=generator)
    return Degraded((counts.to(images) / photons).clamp(0, 1))


def downsample(images: Float[Tensor, "n 3 h w"], generator: torch.Generator | None = None, factor: int = 2) -> Degraded:
    """Shrink by `factor` with an antialiased bicubic filter: what has no room is averaged, not skipped.

    Raises:
        TypeError, ValueError: for images that are not in [0, 1], or whose sides `factor` does not divide.
    """
    check_images(images)
    height, width = images.shape[2:]
    if factor < 2 or height % factor or width % factor:
        raise ValueError(f"cannot shrink {height} x {width} pixels by {factor}; crop to a multiple of a factor >= 2")
    size = (height // factor, width // factor)
    small = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
    return Degraded(small.clamp(0, 1), factor=factor)


def bicubic(degraded: Degraded) -> Float[Tensor, "n 3 h w"]:
    """The images enlarged to the truth's size by bicubic interpolation; unchanged if they have it."""
    if degraded.factor == 1:
        return degraded.images
    factor = degraded.factor
    large = F.interpolate(degraded.images, scale_factor=factor, mode="bicubic", align_corners=False)
    return large.clamp(0, 1)


def push_pull(degraded: Degraded) -> Float[Tensor, "n 3 h w"]:
    """Holes filled with averages of the nearest known pixels: from the picture at half its size, filled likewise.

    Source: Gortler, Grzeszczuk, Szeliski, Cohen, The lumigraph, SIGGRAPH 1996, section 3.4.
    """
    images = degraded.images
    if degraded.mask is None or not degraded.mask.any():
        return images
    known = (~degraded.mask).to(images)
    if images.shape[2:] == (1, 1):  # nothing is known at all
        return images
    share = F.avg_pool2d(known, 2, ceil_mode=True)
    half = F.avg_pool2d(images * known, 2, ceil_mode=True) / share.clamp_min(1e-6)
    coarse = push_pull(Degraded(half, share == 0))
    smooth = F.interpolate(coarse, images.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(degraded.mask, smooth, images)


def smooth_fill(degraded: Degraded, steps: int = 20) -> Float[Tensor, "n 3 h w"]:
    """Holes filled with the smoothest surface: of all fillings, the one whose Laplacian has the smallest square.

    Conjugate gradients from `push_pull` on, all images at once. 20 steps settle holes of a few pixels; larger ones
    are filled less smoothly. Clipped to [0, 1].

    Source: Damelin and Hoang, On surface completion and image inpainting by biharmonic functions, 2018; Hestenes and
    Stiefel, Methods of conjugate gradients for solving linear systems, 1952.
    """
    surface = push_pull(degraded)
    if degraded.mask is None:
        return surface
    missing = degraded.mask.to(surface)
    residual = -missing * _laplacian(_laplacian(surface))
    direction, length = residual, residual.square().sum((1, 2, 3), keepdim=True)
    for _ in range(steps):
        bent = missing * _laplacian(_laplacian(direction))
        step = length / (direction * bent).sum((1, 2, 3), keepdim=True).clamp_min(1e-20)
        surface, residual = surface + step * direction, residual - step * bent
        before, length = length, residual.square().sum((1, 2, 3), keepdim=True)
        direction = residual + length / before.clamp_min(1e-20) * direction
    return surface.clamp(0, 1)


def hide(images: Float[Tensor, "n 3 h w"], mask: Bool[Tensor, "n 1 h w"]) -> Degraded:
    """Make the pixels where `mask` is True grey.

    Raises:
        TypeError, ValueError: for images that are not in [0, 1].
    """
    check_images(images)
    return Degraded(images.masked_fill(mask, HOLE), mask)


def random_mask(
    images: Float[Tensor, "n 3 h w"], generator: torch.Generator, fraction: float | int = 0.5
) -> Bool[Tensor, "n 1 h w"]:
    """Every pixel is missing with probability `fraction`, whatever its neighbours are."""
    n, _, height, width = images.shape
    return (torch.rand(n, 1, height, width, generator=generator, device=generator.device) < fraction).to(images.device)


def block_mask(images: Float[Tensor, "n 3 h w"], generator: torch.Generator) -> Bool[Tensor, "n 1 h w"]:
    """One rectangle per image is missing, each side a fifth to two fifths of the image's."""
    n, _, height, width = images.shape
    inside = []
    for length in (height, width):
        side = length * (0.2 + 0.2 * torch.rand(n, 1, generator=generator, device=generator.device))
        start = (length - side) * torch.rand(n, 1, generator=generator, device=generator.device)
        place = torch.arange(length, device=generator.device) + 0.5
        inside.append((start <= place) & (place < start + side.clamp_min(1)))
    rows, columns = inside
    return (rows[:, None, :, None] & columns[:, None, None, :]).to(images.device)


def text_mask(images: Float[Tensor, "n 3 h w"], generator: torch.Generator, size: int = 14) -> Bool[Tensor, "n 1 h w"]:
    """Lines of random letters, `size` pixels high, are written over each image."""
    n, _, height, width = images.shape
    font = ImageFont.load_default(size)
    masks = []
    for _ in range(n):
        page = Image.new("1", (width, height))
        pen = ImageDraw.Draw(page)
        for top in range(int(torch.randint(-size // 2, 1, (1,), generator=generator)), height, round(1.4 * size)):
            letters = torch.randint(len(string.ascii_letters), (width // 4 + 8,), generator=generator).tolist()
            pen.text((-size // 2, top), "".join(string.ascii_letters[i] for i in letters), fill=1, font=font)
        masks.append(torch.frombuffer(bytearray(page.convert("L").tobytes()), dtype=torch.uint8).view(1, height, width))
    return torch.stack(masks).to(images.device) > 0


MASKS = {"random": random_mask, "block": block_mask, "text": text_mask}


def inpainting(images: Float[Tensor, "n 3 h w"], generator: torch.Generator, mask: str = "random") -> Degraded:
    """Hide pixels: "random", "block", "text", or "any": each image gets one of the three, in turn.

    Raises:
        TypeError, ValueError: for images that are not in [0, 1], or an unknown mask.
    """
    check_images(images)
    if mask != "any" and mask not in MASKS:
        raise ValueError(f"unknown mask {mask!r}; choose {', '.join(MASKS)} or any")
    if mask != "any":
        return hide(images, MASKS[mask](images, generator))
    missing = torch.empty_like(images[:, :1], dtype=torch.bool)
    for i, kind in enumerate(MASKS.values()):
        if len(images) > i:
            missing[i :: len(MASKS)] = kind(images[i :: len(MASKS)], generator)
    return hide(images, missing)


TASKS: dict[str, Degrade] = {
    "gaussian": gaussian_noise,
    "poisson": poisson_noise,
    **{f"inpainting-{kind}": partial(inpainting, mask=kind) for kind in (*MASKS, "any")},
    "sr2": partial(downsample, factor=2),
    "sr4": partial(downsample, factor=4),
}


def psnr(restored: Float[Tensor, "n 3 h w"], truth: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
    """Peak signal-to-noise ratio in decibels, 10 log10(peak² / MSE). Our images' peak is 1; equal images have inf.

    Raises:
        TypeError, ValueError: if either is not in [0, 1] (then the peak would not be 1), or the shapes differ.
    """
    check_pair(restored, truth, ("restored", "truth"))
    return -10 * (restored - truth).square().mean((1, 2, 3)).log10()


def psnr_by_mask(
    restored: Float[Tensor, "n 3 h w"], truth: Float[Tensor, "n 3 h w"], mask: Bool[Tensor, "n 1 h w"]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """PSNR of the pixels that were missing, and of those that were not. Their average would hide a bad hole.

    Raises:
        TypeError, ValueError: as :func:`psnr`, and if all or none of an image's pixels are missing.
    """
    check_pair(restored, truth, ("restored", "truth"))
    missing = mask.float().mean((1, 2, 3))
    if ((missing == 0) | (missing == 1)).any():
        raise ValueError("an image has no missing or no known pixel; use psnr for images that are not masked")
    error = (restored - truth).square().mean(1, keepdim=True)
    inside, outside = ((error * part).mean((1, 2, 3)) for part in (mask, ~mask))
    return -10 * (inside / missing).log10(), -10 * (outside / (1 - missing)).log10()


def _randn(images: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers, drawn where the generator lives: the same on every device."""
    return torch.randn(images.shape, generator=generator, device=generator.device).to(images)


def _check_positive(name: str, value: float | int) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value}; it must be a positive number")


def _laplacian(images: Tensor) -> Tensor:
    """Sum of the four neighbours minus four times the pixel; beyond the border stands the border."""
    x = F.pad(images, (1, 1, 1, 1), mode="replicate")
    return x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:] - 4 * images
