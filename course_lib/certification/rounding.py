"""What floating-point numbers do to a certificate, and the margin that makes up for it.

A proof is about real numbers, a network computes with 24 bits (float32). Each layer rounds values that are at most as
long as its input, and no later layer makes the error longer, so the error of an embedding grows with the length of the
image and the unit of rounding. How many units it comes to is measured, not proven: tests compare float32 with float64,
where it stays below one, and the margin is four.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

UNITS = 4.0


def exactly(e: Tensor, images: Tensor, lipschitz: float) -> tuple[Tensor, Tensor]:
    """Embeddings in float64, and how far each, (n,), may be from what real numbers would give.

    The bound is 4 u (L |x| + |e|), u the rounding unit of the coarser of the two dtypes.
    """
    unit = max(torch.finfo(e.dtype).eps, torch.finfo(images.dtype).eps)
    length = torch.linalg.vector_norm(images.flatten(1), dim=1)
    if e.device.type == "mps":  # which has no float64
        e, length = e.cpu(), length.cpu()
    e = e.double()
    return e, UNITS * unit * (lipschitz * length.to(e) + torch.linalg.vector_norm(e, dim=1))


def rounded(values: Tensor, dtype: torch.dtype, towards: float) -> Tensor:
    """float64 values in another dtype, never further from `towards` than they were."""
    values = values.to(dtype)
    return torch.nextafter(values, torch.full_like(values, towards))


@contextlib.contextmanager
def full_precision(device: str) -> Iterator[None]:
    """Neither autocast nor TF32, whose errors are far above the margin for float32."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    known = torch.amp.is_autocast_available(device)
    try:
        if device == "cuda":
            convolutions.allow_tf32 = products.allow_tf32 = False
        with torch.autocast(device, enabled=False) if known else contextlib.nullcontext():
            yield
    finally:
        if device == "cuda":
            convolutions.allow_tf32, products.allow_tf32 = before
