"""Ways to damage an image: the *traditional* distortions of BAPPS, each with a strength from 0 to 1.

Every distortion is ``f(images, strength, generator)``: images (n, 3, h, w) in [0, 1], one strength for all or one per
image. Strength 0 returns the very same pixels; strength 1 is severe, though one can mostly still tell what is shown.
Random choices (directions, signs, noise) come from `generator`, never from the strength, so that sweeping the
strength with one seed moves along one path. `DISTORTIONS` maps names to functions, `FAMILIES` groups the names.

Lengths are in pixels and made for 64 x 64 patches, except in the spatial family, where they are parts of the image.

All raise TypeError or ValueError for images outside the course's convention or a strength outside [0, 1].

Source: the list is that of Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric
(2018), table 2, with quantisation and corner shift added; the formulas and ranges are this course's.
"""

import io
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from course_lib.data import LUMA
from course_lib.validation import check_images

DISTORTIONS: dict[str, Callable] = {}
FAMILIES: dict[str, list[str]] = {}


def distortion(family: str) -> Callable:
    """Turn a formula into a public distortion of `family`: check inputs, clamp to [0, 1], keep strength 0 exact.

    The formula gets the strength as (n, 1, 1, 1).
    """

    def register(formula: Callable) -> Callable:
        def distort(
            images: Float[Tensor, "n 3 h w"],
            strength: float | int | Float[Tensor, "n"],
            generator: torch.Generator | None = None,
        ) -> Float[Tensor, "n 3 h w"]:
            check_images(images)
            s = _per_image(strength, images)
            return torch.where(s == 0, images, formula(images, s, generator).clamp(0, 1))

        # not functools.wraps: help() must show the public signature, not the formula's
        distort.__name__ = distort.__qualname__ = formula.__name__
        distort.__doc__ = formula.__doc__
        DISTORTIONS[formula.__name__] = distort
        FAMILIES.setdefault(family, []).append(formula.__name__)
        return distort

    return register


# Photometric: every pixel changes, nothing moves


@distortion("photometric")
def lightness(images, s, generator):
    """Lighten or darken by up to 0.35."""
    return images + 0.35 * s * _sign(images, (1, 1, 1), generator)


@distortion("photometric")
def colour_shift(images, s, generator):
    """Add a random colour of zero luma, of length up to 0.4 in RGB space."""
    colour = _normal(images, (3, 1, 1), generator)
    colour = colour - _luma(colour)
    return images + 0.4 * s * colour / colour.norm(dim=1, keepdim=True)


@distortion("photometric")
def contrast(images, s, generator):
    """Multiply the difference to the mean colour by up to 3, or divide it by up to 4."""
    gain = torch.where(_sign(images, (1, 1, 1), generator) > 0, 2 * s, -0.75 * s)
    return images + gain * (images - images.mean((2, 3), keepdim=True))


@distortion("photometric")
def saturation(images, s, generator):
    """Multiply the difference to grey by up to 4, or take it away."""
    gain = torch.where(_sign(images, (1, 1, 1), generator) > 0, 3 * s, -s)
    return images + gain * (images - _luma(images))


# Noise: independent of the image


@distortion("noise")
def uniform_noise(images, s, generator):
    """Add uniform white noise in up to ± 0.25."""
    return images + 0.25 * s * _uniform(images, images.shape[1:], generator)


@distortion("noise")
def white_noise(images, s, generator):
    """Add Gaussian white noise of standard deviation up to 0.15."""
    return images + 0.15 * s * _normal(images, images.shape[1:], generator)


@distortion("noise")
def pink_noise(images, s, generator):
    """Add Gaussian noise with equal power in every octave: amplitude falls as 1/frequency, deviation up to 0.15."""
    return images + 0.15 * s * _coloured(_normal(images, images.shape[1:], generator), -1)


@distortion("noise")
def blue_noise(images, s, generator):
    """Add Gaussian noise whose amplitude grows with the frequency, deviation up to 0.15."""
    return images + 0.15 * s * _coloured(_normal(images, images.shape[1:], generator), 1)


@distortion("noise")
def checkerboard(images, s, generator):
    """Add a checkerboard of up to ± 0.15 with squares of 1, 2 or 3 pixels, as badly chosen up-sampling does."""
    cell = torch.floor(_uniform(images, (1, 1, 1), generator).abs().clamp(max=0.999) * 3) + 1
    rows, columns = _pixel_numbers(images)
    parity = (torch.floor(rows / cell) + torch.floor(columns / cell)) % 2
    return images + 0.15 * s * _sign(images, (1, 1, 1), generator) * (1 - 2 * parity)


# Blur: detail is lost


@distortion("blur")
def gaussian_blur(images, s, generator):
    """Blur with a Gaussian of standard deviation up to 3 pixels."""
    sigma = (3 * s).clamp_min(1e-3).flatten()[:, None]
    offsets = torch.arange(-9, 10).to(images)
    kernels = torch.exp(-0.5 * (offsets / sigma).square())
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(3, dim=0)[:, None]
    stack = F.pad(images.flatten(0, 1)[None], (9, 9, 9, 9), mode="replicate")
    stack = F.conv2d(stack, kernels[:, :, None, :], groups=len(kernels))
    stack = F.conv2d(stack, kernels[:, :, :, None], groups=len(kernels))
    return stack.view_as(images)


@distortion("blur")
def bilateral_blur(images, s, generator):
    """Average each pixel with the neighbours of similar colour: smooths texture, keeps edges.

    Spatial standard deviation 2 pixels, colour standard deviation up to 0.4.
    """
    h, w = images.shape[2:]
    padded = F.pad(images, (4, 4, 4, 4), mode="replicate")
    scale = -0.5 / (0.4 * s).clamp_min(1e-3).square()
    total, weights = torch.zeros_like(images), torch.zeros_like(images[:, :1])
    for dy in range(-4, 5):
        for dx in range(-4, 5):
            neighbour = padded[:, :, 4 + dy : 4 + dy + h, 4 + dx : 4 + dx + w]
            difference = (neighbour - images).square().sum(1, keepdim=True)
            weight = torch.exp(scale * difference - (dx * dx + dy * dy) / 8)
            total += weight * neighbour
            weights += weight
    return total / weights


# Spatial: pixels move; what comes in from outside is mirrored


@distortion("spatial")
def shift(images, s, generator):
    """Move the image in a random direction by up to 1/8 of its size."""
    return _resample(images, 0.25 * s * _direction(images, generator))


@distortion("spatial")
def affine(images, s, generator):
    """Rotate, scale and shear around the centre: a random matrix, up to 0.3 from the identity."""
    a, b, c, d = (0.3 * s * _uniform(images, (4, 1, 1), generator)).split(1, dim=1)
    x, y = _positions(images)
    return _resample(images, torch.cat([a * x + b * y, c * x + d * y], 1))


@distortion("spatial")
def homography(images, s, generator):
    """See the image as a plane tilted in a random direction, up to 35 % nearer on one side than at the centre."""
    tilt_x, tilt_y = (0.35 * s * _direction(images, generator)).split(1, dim=1)
    x, y = _positions(images)
    nearness = 1 + tilt_x * x + tilt_y * y
    return _resample(images, torch.cat([x / nearness - x, y / nearness - y], 1))


@distortion("spatial")
def warp(images, s, generator):
    """Move the pixels along a smooth random field, by 4 % of the image's size on average."""
    field = F.interpolate(_normal(images, (2, 5, 5), generator), images.shape[2:], mode="bicubic", align_corners=True)
    return _resample(images, 0.08 * s * field)


@distortion("spatial")
def corner_shift(images, s, generator):
    """Pull one corner inward or outward by up to 1/4 of the size; the rest follows, the opposite sides stay."""
    x, y = _positions(images)
    corner = _sign(images, (2, 1, 1), generator)
    pull = (1 + corner[:, :1] * x) * (1 + corner[:, 1:] * y) / 4
    return _resample(images, 0.5 * s * _direction(images, generator) * pull)


@distortion("spatial")
def chromatic_aberration(images, s, generator):
    """Magnify red and shrink blue around a random point by up to 8 %, as a cheap lens does."""
    away = torch.cat([axis.expand_as(images[:, :1]) for axis in _positions(images)], 1)
    away = 0.08 * s * (away - _uniform(images, (2, 1, 1), generator))
    red, green, blue = images.split(1, dim=1)
    return torch.cat([_resample(red, -away), green, _resample(blue, away)], 1)


@distortion("spatial")
def ghosting(images, s, generator):
    """Lay a copy, shifted by 1/20 to 1/8 of the size, over the image with up to 50 % opacity."""
    distance = 0.1 + 0.15 * _uniform(images, (1, 1, 1), generator).abs()
    ghost = _resample(images, distance * _direction(images, generator))
    return images + 0.5 * s * (ghost - images)


# Compression: detail is coded away


@distortion("compression")
def jpeg(images, s, generator):
    """Encode as JPEG with a quality from 95 down to 4, in equal ratios, and decode again."""
    quality = (95 * (4 / 95) ** s.flatten()).round().int().tolist()
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    coded = [_through_jpeg(image, q) for image, q in zip(pixels, quality, strict=True)]
    return torch.from_numpy(np.stack(coded)).permute(0, 3, 1, 2).to(images) / 255


@distortion("compression")
def quantisation(images, s, generator):
    """Round every channel to steps of up to 0.4, counted from mid-grey."""
    step = (0.4 * s).clamp_min(1e-3)
    return 0.5 + step * torch.round((images - 0.5) / step)


def random_sequence(
    images: Float[Tensor, "n 3 h w"], generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "n 3 h w"], list[str]]:
    """Distort every image by one distortion or by two different ones in a row, drawn at random with their strengths.

    Returns:
        The distorted images, and for each what was done, such as ``"jpeg(0.43) + lightness(0.91)"``.

    Raises:
        TypeError, ValueError: as :func:`course_lib.validation.check_images`.
    """
    check_images(images)
    n, kinds = len(images), list(DISTORTIONS)
    device = _device(generator)
    first = torch.randint(len(kinds), (n,), generator=generator, device=device)
    second = (first + torch.randint(1, len(kinds), (n,), generator=generator, device=device)) % len(kinds)
    again = torch.rand(n, generator=generator, device=device) < 0.5
    strengths = torch.rand(2, n, generator=generator, device=device).to(images)
    images = images.clone()
    steps: list[list[str]] = [[] for _ in range(n)]
    for chosen, strength in ((first, strengths[0]), (torch.where(again, second, -1), strengths[1])):
        for kind, name in enumerate(kinds):
            at = (chosen == kind).nonzero().flatten()
            if len(at):
                images[at] = DISTORTIONS[name](images[at], strength[at], generator)
            for i in at.tolist():
                steps[i].append(f"{name}({strength[i]:.2f})")
    return images, [" + ".join(step) for step in steps]


def _per_image(strength: float | int | Tensor, images: Tensor) -> Tensor:
    s = torch.as_tensor(strength).to(images)
    if s.ndim > 1 or (s.ndim == 1 and len(s) != len(images)):
        raise ValueError(f"strength has shape {tuple(s.shape)}; give one number, or {len(images)}: one per image")
    if not ((s >= 0) & (s <= 1)).all():
        raise ValueError(f"strength is {s.min():.3g} to {s.max():.3g}; it must be between 0 (none) and 1 (severe)")
    return s.expand(len(images)).view(-1, 1, 1, 1)


def _device(generator: torch.Generator | None) -> torch.device | None:
    """Where to draw, so that a CPU generator gives the same pixels whatever device the images are on."""
    return None if generator is None else generator.device


def _normal(images: Tensor, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    return torch.randn(len(images), *shape, generator=generator, device=_device(generator)).to(images)


def _uniform(images: Tensor, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    draws = torch.rand(len(images), *shape, generator=generator, device=_device(generator))
    return 2 * draws.to(images) - 1


def _sign(images: Tensor, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    return torch.where(_uniform(images, shape, generator) < 0, -1.0, 1.0).to(images)


def _direction(images: Tensor, generator: torch.Generator | None) -> Tensor:
    angle = math.pi * _uniform(images, (1, 1, 1), generator)
    return torch.cat([angle.cos(), angle.sin()], 1)


def _luma(images: Tensor) -> Tensor:
    return (images * torch.tensor(LUMA).to(images).view(3, 1, 1)).sum(1, keepdim=True)


def _coloured(white: Tensor, exponent: int) -> Tensor:
    """Weigh the spectrum of white noise by frequency ** exponent; the standard deviation is 1 again."""
    h, w = white.shape[2:]
    frequency = torch.hypot(torch.fft.fftfreq(h)[:, None], torch.fft.rfftfreq(w)[None]).to(white)
    gain = torch.where(frequency > 0, frequency.clamp_min(1e-9) ** exponent, 0)
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * gain, s=(h, w))
    return noise / noise.std((1, 2, 3), keepdim=True).clamp_min(1e-9)


def _through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _pixel_numbers(images: Tensor) -> tuple[Tensor, Tensor]:
    h, w = images.shape[2:]
    return torch.arange(h).to(images).view(1, 1, h, 1), torch.arange(w).to(images).view(1, 1, 1, w)


def _positions(images: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical positions of the pixel centres; the image's borders are at -1 and 1."""
    rows, columns = _pixel_numbers(images)
    return (2 * columns + 1) / images.shape[3] - 1, (2 * rows + 1) / images.shape[2] - 1


def _resample(images: Tensor, flow: Tensor) -> Tensor:
    """Let every pixel show what was at its own position plus `flow` (n, 2, h or 1, w or 1)."""
    x, y = _positions(images)
    source = torch.stack(torch.broadcast_tensors(x + flow[:, :1], y + flow[:, 1:]), -1)
    return F.grid_sample(images, source[:, 0], mode="bicubic", padding_mode="reflection", align_corners=False)
