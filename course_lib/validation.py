"""One place that says what an image is in this course, and explains what to do when it is not one.

The course's convention: RGB, float32, shape (n, 3, h, w), values in [0, 1].
"""

import torch
from torch import Tensor

TOLERANCE = 1e-6


def check_images(images: Tensor, name: str = "images", *, min_size: int = 1) -> None:
    """Raise unless `images` follows the course's convention.

    Args:
        images: what should be (n, 3, h, w) floating point in [0, 1], up to 1e-6.
        name: how the caller calls it, for the message.
        min_size: the smallest height and width that the caller can use, in pixels.

    Raises:
        TypeError: if it is not a floating-point tensor.
        ValueError: for a wrong shape, channel count, size or range, or NaN. One line, with the fix.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"{name} is a {type(images).__name__}, not a torch.Tensor; use torch.as_tensor(...)")
    if not images.is_floating_point():
        raise TypeError(f"{name} has dtype {images.dtype}; if it holds 0-255: {name}.float() / 255")
    shape = tuple(images.shape)
    if images.ndim == 3:
        raise ValueError(f"{name} has shape {shape}; add the batch axis: {name}[None]")
    if images.ndim != 4:
        raise ValueError(f"{name} has shape {shape}; expected (n, 3, h, w)")
    if shape[1] == 1:
        raise ValueError(f"{name} is grey, shape {shape}; repeat it to RGB: {name}.expand(-1, 3, -1, -1)")
    if shape[1] != 3:
        hint = f"; move the channels first: {name}.permute(0, 3, 1, 2)" if shape[3] == 3 else ""
        raise ValueError(f"{name} has {shape[1]} channels, shape {shape}; expected (n, 3, h, w){hint}")
    if shape[0] == 0:
        raise ValueError(f"{name} is an empty batch, shape {shape}; pass at least one image")
    if min(shape[2:]) < min_size:
        least = f"{min_size} x {min_size}"
        raise ValueError(f"{name} is {shape[2]} x {shape[3]} pixels; at least {least} is needed")
    low, high = (value.item() for value in torch.aminmax(images.detach()))
    if low != low or high != high:
        raise ValueError(f"{name} contains NaN; look for a division by zero or log(0) before this call")
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        fix = _range_fix(name, low, high)
        raise ValueError(f"{name} has values in [{low:.3g}, {high:.3g}], expected [0, 1]; {fix}")


def check_pair(x: Tensor, y: Tensor, names: tuple[str, str] = ("x", "y"), *, min_size: int = 1) -> None:
    """Raise unless `x` and `y` are image batches of one shape, as :func:`check_images` defines them.

    Raises:
        TypeError, ValueError: as :func:`check_images`; ValueError also if the shapes differ.
    """
    check_images(x, names[0], min_size=min_size)
    check_images(y, names[1], min_size=min_size)
    if x.shape != y.shape:
        same_size = x.shape[1:] == y.shape[1:]
        fix = "give both the same number of images" if same_size else "resize or crop one of them"
        raise ValueError(f"{names[0]} is {tuple(x.shape)} but {names[1]} is {tuple(y.shape)}; {fix}")


def _range_fix(name: str, low: float, high: float) -> str:
    if low >= 0 and 2 < high <= 255:
        return f"this looks like 0-255: {name} / 255"
    if low >= -1 - TOLERANCE and high <= 1 + TOLERANCE:
        return f"this looks like [-1, 1]: ({name} + 1) / 2"
    return f"if only rounding put them there: {name}.clamp(0, 1)"
