"""Reductions of teachers' embeddings, fitted once to crops of photographs and kept in the cache."""

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.data import distortions, photos
from course_lib.distillation.sketch import CountSketch, Reduction, fit_reduction
from course_lib.paths import cache_dir, write_atomically

CROPS = 1600  # that a reduction is fitted to
KEPT = 1024  # components that are stored, so that another `dim` needs no other fit
SKETCH = 4096
BATCH = 32  # long embeddings in memory at a time: 20 MB for st-alex, 68 MB for st-vgg


@runtime_checkable
class Embedder(Protocol):
    """What is asked of a teacher here."""

    name: str
    dim: int

    def embed(self, images: Tensor) -> Tensor: ...  # noqa: D102
    def fingerprint(self) -> str: ...  # noqa: D102


class Reduced(nn.Module):
    """A network followed by a reduction of its embedding, a few images at a time because long embeddings are large."""

    def __init__(self, network: nn.Module, reduction: Reduction):
        super().__init__()
        self.network, self.reduction = network, reduction

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n dim"]:
        """Embed and reduce."""
        return torch.cat([self.reduction(self.network(few)) for few in images.split(BATCH)])


def fitted_reduction(
    teacher: Embedder,
    dim: int,
    size: int = 64,
    *,
    centred: bool = False,
    photographs: str | Sequence[str] = "train",
    crops: int = CROPS,
    seed: int = 0,
) -> Reduction:
    """Reduction of a teacher's embedding to `dim` numbers: the stored one, or a new one, which is then stored.

    It is fitted to crops of photographs, every second one distorted: on unseen photographs that keeps more of the
    distances than crops alone do. Fitting st-alex takes about 20 seconds on one core, st-vgg a minute. The same seed
    gives the same reduction.

    Args:
        teacher: with its whole embedding.
        dim: numbers to keep.
        size: of the crops, in pixels.
        centred: subtract the mean.
        photographs: a split, or names of photographs; see :func:`course_lib.data.photos.names`.
        crops: how many.
        seed: of crops and sketch.

    Raises:
        ValueError: if `dim` is larger than the teacher's embedding, or not below `crops`.
    """
    if not 1 <= dim <= min(teacher.dim, SKETCH, crops - 1):
        most = min(teacher.dim, SKETCH, crops - 1)
        raise ValueError(f"dim is {dim}; teacher {teacher.name!r} can be reduced to 1 to {most} numbers")
    kept = max(dim, min(KEPT, teacher.dim, crops - 1))
    names = photos.names(photographs)
    told = [teacher.fingerprint(), size, *names, crops, seed, kept, SKETCH, torch.__version__]
    key = hashlib.sha256(" ".join(map(str, told)).encode()).hexdigest()[:16]
    path = cache_dir() / "reductions" / f"{file_stem(teacher.name)}-{key}.npz"
    path.parent.mkdir(exist_ok=True)
    with FileLock(f"{path}.lock"):  # several processes may start at once: one fits, the others read
        reduction = _stored(path, teacher.dim, seed)
        if reduction is None:
            images = photos.crops(names, crops, size, seed).images.float() / 255
            images[1::2] = distortions.random_sequence(images[1::2], torch.Generator().manual_seed(seed))[0]
            reduction = fit_reduction(map(teacher.embed, images.split(BATCH)), kept, sketch_size=SKETCH, seed=seed)
            content = io.BytesIO()
            np.savez(content, mean=reduction.mean.numpy(), components=reduction.components.numpy())
            write_atomically(path, content.getvalue())
    reduction.centred = centred
    return reduction.first(dim)


def file_stem(name: str) -> str:
    """A teacher's or data set's name as a part of a file's, such as "my.module_embed" for "my.module:embed"."""
    return re.sub(r"[^\w.+-]+", "_", name)


def _stored(path: Path, long: int, seed: int) -> Reduction | None:
    """The reduction in a file, or None where there is none or it is damaged: the file carries checksums."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            mean, components = (torch.from_numpy(arrays[name]) for name in ("mean", "components"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return Reduction(nn.Identity() if long <= SKETCH else CountSketch(long, SKETCH, seed), mean, components)
