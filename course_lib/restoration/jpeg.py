"""JPEG from Pillow, measured as files are: with header, tables and padding."""

import io

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from course_lib.validation import check_images


def encode_jpeg(
    image: Float[Tensor, "1 3 h w"], quality: int = 75, subsampling: str = "4:2:0", optimize: bool = True
) -> bytes:
    """A JPEG file of one picture; `optimize` fits the Huffman tables to it, which makes the file smaller.

    Raises:
        TypeError, ValueError: if it is not one image in [0, 1], or quality is not 1 to 95.
    """
    check_images(image, "image")
    if len(image) != 1 or not 1 <= quality <= 95:
        raise ValueError(f"{len(image)} images at quality {quality}; give one image and a quality from 1 to 95")
    pixels = (image[0] * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=subsampling, optimize=optimize)
    return file.getvalue()


def decode_jpeg(data: bytes) -> Float[Tensor, "1 3 h w"]:
    """The picture in a JPEG file, in [0, 1]."""
    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def jpeg_header_size(data: bytes) -> int:
    """Bytes of a JPEG file before the first coded pixel: markers, quantisation and Huffman tables.

    Raises:
        ValueError: if it is not a JPEG file.
    """
    position = 2
    while data[:2] == b"\xff\xd8" and position + 4 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        position += 2 + length
        if marker == 0xDA:  # start of scan
            return position
    raise ValueError("this is not a JPEG file, or it ends within its header")
