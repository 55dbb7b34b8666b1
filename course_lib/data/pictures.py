"""Picture files: the one place that turns a file into RGB, and says in one line why it cannot."""

import io
import struct
import zlib
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def read_image(path: str | PathLike[str]) -> Float[Tensor, "3 h w"]:
    """RGB in [0, 1] of a picture file, turned as its EXIF orientation says.

    Grey and palette pictures become RGB; 16-bit grey keeps its precision, 16-bit colour is read with 8 bits (by
    Pillow); an alpha channel is dropped where everything is opaque; colour profiles are ignored.

    Raises:
        ValueError: one line that names the file: damaged, not a picture, animated, partly transparent, or of a kind
            whose conversion to RGB is ambiguous (CMYK, floating point, 32 bits).
    """
    picture = _open(path)
    if picture.mode.startswith("I;16"):
        grey = torch.from_numpy(np.array(picture).astype(np.float32) / 65535)
        return grey.expand(3, -1, -1)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def read_pixels(
    path: str | PathLike[str], size: int | None = None, resample: str = "bicubic"
) -> UInt8[Tensor, "3 h w"]:
    """RGB with 8 bits, 0 to 255, of a picture file, squeezed to `size` x `size` pixels; None: as stored.

    The resizing is Pillow's, which torchvision's ``Resize`` uses for pictures too: when it shrinks, the kernel is
    widened by the same factor (antialiasing), and the result is rounded to 8 bits. 16-bit grey is rounded first.

    Args:
        path: of the file.
        size: height and width of the result. A picture that is not square is squeezed, not cropped.
        resample: "bicubic" (a = -0.5) or "bilinear".

    Raises:
        ValueError: as :func:`read_image`.
    """
    picture = _open(path)
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.array(picture) / 257).round().astype(np.uint8)).convert("RGB")
    if size is not None:
        picture = picture.resize((size, size), RESAMPLE[resample])
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def _open(path: str | PathLike[str]) -> Image.Image:
    """The decoded picture in mode RGB, or in I;16 where that is what the file holds."""
    try:
        with Image.open(io.BytesIO(Path(path).read_bytes())) as image:
            frames = getattr(image, "n_frames", 1)
            image.load()
            turned = ImageOps.exif_transpose(image)
    except Image.UnidentifiedImageError:
        raise ValueError(f"{path} is not a picture, or in a format that Pillow does not know") from None
    except DAMAGED as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if frames > 1:
        raise ValueError(f"{path} has {frames} frames; save the one to compare as a picture of its own")
    if turned.mode.startswith("I;16"):
        return turned
    if turned.has_transparency_data:
        turned = turned.convert("RGBA")
        if np.asarray(turned)[..., 3].min() < 255:
            raise ValueError(f"{path} is partly transparent; put it on a background first (Image.alpha_composite)")
    if turned.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"):
        raise ValueError(f"{path} has colour mode {turned.mode}, whose RGB values are ambiguous; save it as RGB")
    return turned.convert("RGB")
