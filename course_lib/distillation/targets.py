"""What the teacher says about every training image, computed once and kept in a memory-mapped file.

A teacher costs more than a student, and it says the same every epoch. For ImageNet (1.28 million images) and
DreamSim's ensemble (1,792 numbers) in half precision the file has 4.6 GB, for each orientation of the images.

The published recipe flips images at random. ``flip=True`` stores embeddings of the mirrored images as well, at twice
the time and space, so that the plain view has its own target (the jittered view has the plain one's, as published).
Without it the student sees flipped images with targets of unflipped ones, and is thereby taught that flipping changes
nothing. For LPIPS, which compares place by place, that is wrong: for st-alex the way to a mirrored crop is about seven
tenths of that to another one.
"""

import hashlib
import json
import time
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from course_lib.distillation.reduced import file_stem
from course_lib.distillation.teachers import Teacher
from course_lib.paths import cache_dir, write_atomically

DTYPES = {"fp16": np.float16, "fp32": np.float32}
PROGRESS_SECONDS = 30  # of work that a killed process loses at most
AGREEMENT = 0.02  # relative difference between a stored and a recomputed embedding; half precision and GPUs stay below


@runtime_checkable
class ImageData(Protocol):
    """Images to distil on: TensorImages, or any class with the same four.

    Attributes:
        name: what to call the data.
    """

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> Tensor:
        """Images of an index (n,), without augmentation: uint8, or float in [0, 1]; (n, 3, h, w)."""

    def fingerprint(self) -> str:
        """Changes with the images and with how they are resized and cropped."""


class TensorImages(Dataset):
    """Images in memory, as :class:`ImageData`.

    Args:
        name: what to call them.
        images: uint8 (n, 3, h, w).
    """

    def __init__(self, name: str, images: UInt8[Tensor, "n 3 h w"]):
        self.name, self.images = name, images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Int64[Tensor, "n"]) -> UInt8[Tensor, "n 3 h w"]:
        return self.images[index]

    def fingerprint(self) -> str:
        """SHA-256 of shape and pixels."""
        digest = hashlib.sha256(str(tuple(self.images.shape)).encode())
        digest.update(self.images.cpu().contiguous().numpy().data)
        return digest.hexdigest()


class TargetsError(ValueError):
    """A file of targets is damaged, or does not hold what it should."""


class Targets:
    """Teacher embeddings of a data set, read from a memory-mapped file: only what is asked for is in memory.

    Many processes may read one file. ``targets[index]`` is what the student should give for these images.

    Attributes:
        path: of the .npy file, (orientations, items, dim).
        dim: numbers in an embedding.
        scale: what embeddings are multiplied by when they are read.
    """

    def __init__(self, path: str | Path, scale: float = 1.0):
        self.path, self.scale = Path(path), scale
        progress = _progress(self.path)
        if progress is None or progress["done"] < progress["items"]:
            done = "nothing" if progress is None else f"{progress['done']} of {progress['items']} images"
            raise TargetsError(f"{self.path} is not finished ({done}); call cached_targets again, which goes on")
        self._rows = _mapped(self.path, progress)
        self.dim = self._rows.shape[2]

    def __len__(self) -> int:
        return self._rows.shape[1]

    @property
    def flips(self) -> bool:
        """Whether there are targets for mirrored images."""
        return len(self._rows) == 2

    def __getitem__(self, index: int | slice | Tensor) -> Float[Tensor, "*n dim"]:
        """Targets of images that are not mirrored; float32 on the CPU."""
        rows = index.cpu().numpy() if isinstance(index, Tensor) else index
        return self._floats(self._rows[0, rows])

    def of(self, index: Int64[Tensor, "n"], flipped: Bool[Tensor, "n"]) -> Float[Tensor, "n dim"]:
        """Targets of images, each mirrored or not. Without stored ones, a mirrored image has the other's target."""
        which = flipped.cpu().long().numpy() * self.flips
        return self._floats(self._rows[which, index.cpu().numpy()])

    def _floats(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(rows, dtype=np.float32)) * self.scale

    def spread(self, sample: int = 4096, seed: int = 0) -> float:
        """Root of the mean squared distance between two of them, times `scale`; estimated from a sample.

        The natural unit of `scale`: for crops of 64 x 64 this is 0.7 with st-alex, while their pixels are 43 apart, and
        a 1-Lipschitz student can stretch no pair beyond its distance in pixels.
        """
        generator = torch.Generator().manual_seed(seed)
        rows = self[torch.randperm(len(self), generator=generator)[:sample].sort().values]
        return (2 * rows.double().var(0).sum()).sqrt().item()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "scale": self.scale}  # DataLoader workers map the file themselves

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def cached_targets(
    teacher: Teacher,
    data: ImageData,
    *,
    flip: bool = False,
    dtype: str = "fp16",
    scale: float = 1.0,
    batch_size: int = 64,
    workers: int = 0,
    device: str | torch.device = "cpu",
    folder: str | Path | None = None,
    progress: bool = False,
) -> Targets:
    """Embeddings of all of `data` by `teacher`: those in the cache, or new ones, which are then in the cache.

    The file's name says teacher and data, and a hash of teacher, data, sizes, `flip` and `dtype`. A run that was
    killed goes on where it was, up to half a minute earlier. Of several processes that call this at once, one
    computes and the others wait; a killed one's lock is free at once.

    Args:
        teacher: what embeds.
        data: images as the student gets them, before augmentation.
        flip: embed the mirrored images as well.
        dtype: "fp16" (error 0.05 % of each number) or "fp32".
        scale: see :class:`Targets`; not a part of the file.
        batch_size: images at a time.
        workers: processes that read the images; for data in files.
        device: where to compute.
        folder: instead of ``targets`` in the course's cache.
        progress: show a progress bar, on a terminal.

    Raises:
        ValueError: for an unknown dtype, empty data, or an embedding that is not finite in it.
        TargetsError: if a file has the right name but not the right content; the message says which to delete.
    """
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; choose {' or '.join(DTYPES)}")
    if len(data) == 0:
        raise ValueError(f"{data.name} is empty; there is nothing to embed")
    shape = tuple(data[torch.tensor([0])].shape[1:])
    about = {"teacher": teacher.fingerprint(), "data": data.fingerprint(), "image": shape, "flip": flip, "dtype": dtype}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    names = f"{file_stem(data.name)}-{file_stem(teacher.name)}"
    path = (Path(folder) if folder else cache_dir() / "targets") / f"{names}-{key}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        state = _progress(path)
        if state is None:
            state = {"done": 0, "items": len(data), "dim": teacher.dim, "orientations": 1 + flip, "dtype": dtype}
            new = np.lib.format.open_memmap(path, "w+", DTYPES[dtype], (1 + flip, len(data), teacher.dim))
            new.flush()
            _write(path, state)
        teacher = teacher.to(device)
        _check_first(path, state, teacher, data)
        _fill(path, state, teacher, data, batch_size, workers, device, progress)
    return Targets(path, scale)


def _fill(
    path: Path,
    state: dict[str, Any],
    teacher: Teacher,
    data: ImageData,
    batch_size: int,
    workers: int,
    device: str | torch.device,
    progress: bool,
) -> None:
    """Embed what has not been embedded, and note from time to time how far that is."""
    if state["done"] == len(data):
        return
    rows = _mapped(path, state, "r+")
    indices = torch.arange(state["done"], len(data)).split(batch_size)
    source: Any = data
    loader: DataLoader = DataLoader(source, batch_size=None, sampler=indices, num_workers=workers)
    bar = tqdm(total=len(data), initial=state["done"], unit="image", disable=None if progress else True)
    written = time.monotonic()
    for index, images in zip(indices, loader, strict=True):
        images = to_float(images.to(device))
        for orientation in range(len(rows)):
            exact = teacher.embed(images.flip(3) if orientation else images).cpu().numpy()
            with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused below
                embedding = exact.astype(rows.dtype)
            if not np.isfinite(embedding).all():
                at = int(index[np.flatnonzero(~np.isfinite(embedding).all(1))[0]])
                raise ValueError(f"the embedding of image {at} of {data.name} is not finite in {state['dtype']}")
            rows[orientation, index[0] : index[-1] + 1] = embedding
        bar.update(len(index))
        state["done"] = int(index[-1]) + 1
        if time.monotonic() - written > PROGRESS_SECONDS or state["done"] == len(data):
            rows.flush()  # first the rows, then the claim that they are there
            _write(path, state)
            written = time.monotonic()
    bar.close()


def to_float(images: Tensor) -> Float[Tensor, "n 3 h w"]:
    """Images in [0, 1]: uint8 divided by 255, floats as they are."""
    return images if images.is_floating_point() else images.float() / 255


def _check_first(path: Path, state: dict[str, Any], teacher: Teacher, data: ImageData) -> None:
    """Embed the first image again: whatever changed without a trace in the fingerprints shows here."""
    if state["done"] == 0:
        return
    device = next((p.device for p in (*teacher.parameters(), *teacher.buffers())), torch.device("cpu"))
    expected = teacher.embed(to_float(data[torch.tensor([0])].to(device)))[0].cpu()
    found = torch.from_numpy(np.array(_mapped(path, state)[0, 0], dtype=np.float32))
    if found.shape != expected.shape or (found - expected).norm() > AGREEMENT * expected.norm():
        raise TargetsError(f"{path} holds other embeddings than {teacher.name!r} gives for {data.name}; delete it")


def _mapped(path: Path, state: dict[str, Any], mode: Any = "r") -> np.memmap:
    expected = (state["orientations"], state["items"], state["dim"])
    try:
        rows = np.lib.format.open_memmap(path, mode)
    except (OSError, ValueError) as error:
        raise TargetsError(f"{path} cannot be read ({' '.join(str(error).split())}); delete it") from None
    if rows.shape != expected or rows.dtype != DTYPES[state["dtype"]]:
        found = f"{rows.dtype} {rows.shape}"
        raise TargetsError(f"{path} holds {found}, expected {state['dtype']} {expected}; delete it")
    return rows


def _progress(path: Path) -> dict[str, Any] | None:
    """How far the file is; None where nothing is known of it, and it has to be begun."""
    try:
        state = json.loads(path.with_suffix(".json").read_text())
        return state if path.exists() else None
    except (OSError, ValueError):
        return None


def _write(path: Path, state: dict[str, Any]) -> None:
    write_atomically(path.with_suffix(".json"), json.dumps(state).encode())
