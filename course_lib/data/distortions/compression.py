"""Compression: detail is coded away."""

import io

import numpy as np
import torch
from PIL import Image

from course_lib.data.distortions.interface import distortion


@distortion
def jpeg(images, s, generator):
    """Encode as JPEG with a quality from 95 down to 4, in equal ratios, and decode again."""
    quality = (95 * (4 / 95) ** s.flatten()).round().int().tolist()
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    coded = [_through_jpeg(image, q) for image, q in zip(pixels, quality, strict=True)]
    return torch.from_numpy(np.stack(coded)).permute(0, 3, 1, 2).to(images) / 255


@distortion
def quantisation(images, s, generator):
    """Round every channel to steps of up to 0.4, counted from mid-grey."""
    step = (0.4 * s).clamp_min(1e-3)
    return 0.5 + step * torch.round((images - 0.5) / step)


def _through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))
