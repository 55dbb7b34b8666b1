"""Noise: what is added does not depend on the image."""

import torch
from torch import Tensor

from course_lib.data.distortions import draws
from course_lib.data.distortions.interface import distortion, pixel_numbers


@distortion
def uniform_noise(images, s, generator):
    """Add uniform white noise in up to ± 0.25."""
    return images + 0.25 * s * draws.uniform(images, images.shape[1:], generator)


@distortion
def white_noise(images, s, generator):
    """Add Gaussian white noise of standard deviation up to 0.15."""
    return images + 0.15 * s * draws.normal(images, images.shape[1:], generator)


@distortion
def pink_noise(images, s, generator):
    """Add Gaussian noise with equal power in every octave: amplitude falls as 1/frequency, deviation up to 0.15."""
    return images + 0.15 * s * _coloured(draws.normal(images, images.shape[1:], generator), -1)


@distortion
def blue_noise(images, s, generator):
    """Add Gaussian noise whose amplitude grows with the frequency, deviation up to 0.15."""
    return images + 0.15 * s * _coloured(draws.normal(images, images.shape[1:], generator), 1)


@distortion
def checkerboard(images, s, generator):
    """Add a checkerboard of up to ± 0.15 with squares of 1, 2 or 3 pixels, as badly chosen up-sampling does."""
    cell = torch.floor(draws.uniform(images, (1, 1, 1), generator).abs().clamp(max=0.999) * 3) + 1
    rows, columns = pixel_numbers(images)
    parity = (torch.floor(rows / cell) + torch.floor(columns / cell)) % 2
    return images + 0.15 * s * draws.sign(images, (1, 1, 1), generator) * (1 - 2 * parity)


def _coloured(white: Tensor, exponent: int) -> Tensor:
    """Weigh the spectrum of white noise by frequency ** exponent; the standard deviation is 1 again."""
    h, w = white.shape[2:]
    frequency = torch.hypot(torch.fft.fftfreq(h)[:, None], torch.fft.rfftfreq(w)[None]).to(white)
    gain = torch.where(frequency > 0, frequency.clamp_min(1e-9) ** exponent, 0)
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * gain, s=(h, w))
    return noise / noise.std((1, 2, 3), keepdim=True).clamp_min(1e-9)
