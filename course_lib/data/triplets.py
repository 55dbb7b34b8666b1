"""Triplets: a reference, two distorted versions of it, and how often people chose the second as the closer one.

:class:`Triplets` holds judgments from anywhere. :func:`simulated` gives the ones that come with the course. They are
*simulated*: no person ever saw them. Five simulated observers voted on each triplet, and they see through
shift-tolerant LPIPS-VGG. So metrics of the LPIPS family win on them by construction: use them to learn, to train and
to compare students, never to say what people prefer.

The votes are shipped (``simulated_votes.npz``, made by ``tools/simulate_judgments.py``, provenance beside it); the
patches they belong to are made again from seeds on first use and kept in the cache.
"""

import contextlib
import functools
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import PIL
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from course_lib.data import SPLITS, check_split, distortions, photos
from course_lib.data.judged import Judged
from course_lib.paths import cache_dir, write_atomically

SIZES = {"train": 8000, "val": 1000, "test": 2000}
PART = 500  # triplets made from one seed, and kept in one cache file
OBSERVERS = 5
VOTES = Path(__file__).with_name("simulated_votes.npz")
PROVENANCE = Path(__file__).with_name("simulated_votes.json")


class Triplet(NamedTuple):
    """One triplet, or a batch of them: images float32 in [0, 1], judge = fraction of votes for p1 being closer."""

    ref: Float[Tensor, "*n 3 h w"]
    p0: Float[Tensor, "*n 3 h w"]
    p1: Float[Tensor, "*n 3 h w"]
    judge: Float[Tensor, "*n"]


@dataclass
class Triplets(Judged):
    """Two-alternative forced-choice (2AFC) judgments, as a torch Dataset of :class:`Triplet` items.

    ``data[3]`` is one triplet, ``data[:8]`` a batch, ``data.select(mask)`` a part of the data, and
    ``data.batches(size, generator)`` goes through all of them.

    Attributes:
        name: what to call the data in tables; simulated judgments say so here.
        ref, p0, p1: images, uint8 (n, 3, h, w): a quarter of the memory of floats, which exist one batch at a time.
        judge: (n,) fraction of votes for p1 being closer to ref than p0, in [0, 1].
        photo: (n,) index into `photographs` of the photograph that ref was cut from; confidence intervals resample
            photographs, because triplets of one photograph are not independent. Optional.
        photographs: their names.
        distortion: for each triplet, what was done to make p0 and p1. Optional.
        subset: for each triplet, the part of the data set that it belongs to, such as "traditional". Optional.

    Raises:
        ValueError: if the parts do not fit together, or a judgment is outside [0, 1].
    """

    name: str
    ref: UInt8[Tensor, "n 3 h w"]
    p0: UInt8[Tensor, "n 3 h w"]
    p1: UInt8[Tensor, "n 3 h w"]
    judge: Float32[Tensor, "n"]
    photo: Int64[Tensor, "n"] | None = None
    photographs: tuple[str, ...] = ()
    distortion: list[tuple[str, str]] | None = None
    subset: list[str] | None = None

    pictures: ClassVar[tuple[str, ...]] = ("ref", "p0", "p1")
    votes: ClassVar[str] = "judge"

    def __post_init__(self):
        self._check_in_memory("triplets")

    def __getitem__(self, index: int | slice | Tensor) -> Triplet:
        """One triplet for an integer; a batch of them for a slice or a tensor of indices."""
        ref, p0, p1 = (images[index].float() / 255 for images in (self.ref, self.p0, self.p1))
        return Triplet(ref, p0, p1, self.judge[index])


class Part(NamedTuple):
    """`PART` triplets that nobody has judged yet; the fields are those of :class:`Triplets`."""

    ref: UInt8[Tensor, "n 3 h w"]
    p0: UInt8[Tensor, "n 3 h w"]
    p1: UInt8[Tensor, "n 3 h w"]
    photo: Int64[Tensor, "n"]
    distortion: list[tuple[str, str]]


def simulated(split: str) -> Triplets:
    """*Simulated* judgments: 8,000 triplets of 64 x 64 for "train", 1,000 for "val", 2,000 for "test"; or "all".

    References are crops of the photographs of the split, so no photograph is in two splits. p0 and p1 are the
    reference after one or two distortions at random strengths. LPIPS-like metrics win here by construction.

    The first call makes the images, which takes about 15 seconds for all splits (more when other programs keep the
    processor busy); later calls read them from the cache (400 MB), damaged files are made again.

    Raises:
        ValueError: for an unknown split.
        RuntimeError: if this machine makes other images than those that the shipped votes belong to.
    """
    check_split(split, (*SPLITS, "all"))
    wanted = SPLITS if split == "all" else (split,)
    parts = [_cached_part(name, number) for name in wanted for number in range(SIZES[name] // PART)]
    ref, p0, p1, photo = (torch.cat(images) for images in list(zip(*parts, strict=True))[:4])
    judge = torch.cat([_shipped(name, "votes") for name in wanted]).float() / OBSERVERS
    how = [pair for part in parts for pair in part.distortion]
    return Triplets(f"simulated ({split})", ref, p0, p1, judge, photo, photos.PHOTOGRAPHS, how)


def simulated_distances(split: str) -> tuple[Float32[Tensor, "n"], Float32[Tensor, "n"]]:
    """The distances (d0, d1) that the simulated observers saw, from shift-tolerant LPIPS-VGG, as shipped.

    Raises:
        ValueError: for an unknown split.
    """
    check_split(split, (*SPLITS, "all"))
    wanted = SPLITS if split == "all" else (split,)
    d0, d1 = (torch.cat([_shipped(name, key) for name in wanted]) for key in ("d0", "d1"))
    return d0, d1


def provenance() -> dict:
    """How the simulated votes were made: command, tau, seeds, weights, versions, measured agreement."""
    return json.loads(PROVENANCE.read_text())


def make_part(split: str, number: int) -> Part:
    """Make part `number` of a split from its seed. References are crops, p0 and p1 each a random distortion of them."""
    seed = _seed(split, number)
    generator = torch.Generator().manual_seed(seed + 1)
    with _one_thread():
        crops = photos.crops(split, PART, seed=seed)
        reference = crops.images.float() / 255
        (p0, how0), (p1, how1) = (distortions.random_sequence(reference, generator) for _ in range(2))
    p0, p1 = ((p * 255).round().byte() for p in (p0, p1))
    return Part(crops.images, p0, p1, crops.photo, list(zip(how0, how1, strict=True)))


def fingerprint(part: Part) -> list[float]:
    """Mean pixel value of ref, p0 and p1, from 0 to 255: tells other images from the same ones rounded differently."""
    return [round(images.float().mean().item(), 2) for images in part[:3]]


def simulate_votes(
    d0: Float[Tensor, "n"], d1: Float[Tensor, "n"], tau: float, generator: torch.Generator
) -> UInt8[Tensor, "n"]:
    """Let 5 simulated observers vote on each triplet; return how many chose p1.

    Each chooses p1 with probability sigmoid((d0 - d1) / tau): p1 has the smaller distance, p1 is likelier. A larger
    tau means observers who agree less. One generator state gives the same draws whatever tau is.
    """
    draws = torch.rand(len(d0), OBSERVERS, generator=generator, dtype=torch.float64)
    probability = torch.sigmoid((d0.double() - d1.double()) / tau)
    return (draws < probability[:, None]).sum(1).byte()


def vote_generator(split: str) -> torch.Generator:
    """Random numbers of the simulated observers of a split."""
    return torch.Generator().manual_seed(_seed(split, 0) + 2)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Many small operations: threads that wait for one another on a busy machine make them 8 times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seed(split: str, number: int) -> int:
    return 1_000_000 * (1 + SPLITS.index(split)) + 10 * number


def _shipped(split: str, key: str) -> Tensor:
    with np.load(VOTES, allow_pickle=False) as arrays:
        return torch.from_numpy(arrays[f"{split}_{key}"])


@functools.cache
def _images_version() -> str:
    """Changes with everything that decides the pixels, so that an outdated cache file is never found."""
    here = Path(__file__).parent
    files = [here / "triplets.py", here / "photos.py", *sorted((here / "distortions").glob("*.py"))]
    code = b"".join(file.read_bytes() for file in files)
    photographs = "".join(source.sha256 for source in photos.SOURCES.values())
    versions = f"{torch.__version__} {PIL.__version__}"
    return hashlib.sha256(code + photographs.encode() + versions.encode()).hexdigest()[:12]


def _cached_part(split: str, number: int) -> Part:
    stem = f"simulated-{split}-{number:02d}"
    path = cache_dir() / f"{stem}-{_images_version()}.npz"
    stored = _read_part(path)
    if stored is not None:
        return stored
    part = make_part(split, number)
    expected, found = provenance()["fingerprints"][split][number], fingerprint(part)
    if max(abs(a - b) for a, b in zip(expected, found, strict=True)) > 0.5:
        raise RuntimeError(
            f"part {number} of the simulated {split} triplets came out differently here (mean levels {found}, expected "
            f"{expected}), so the shipped votes do not belong to it; use another torch than {torch.__version__}"
        )
    content = io.BytesIO()
    ref, p0, p1, photo = (tensor.numpy() for tensor in part[:4])
    np.savez(content, ref=ref, p0=p0, p1=p1, photo=photo, distortion=np.array(part.distortion))
    write_atomically(path, content.getvalue())
    for outdated in set(path.parent.glob(f"{stem}-*.npz")) - {path}:
        outdated.unlink(missing_ok=True)
    return part


def _read_part(path: Path) -> Part | None:
    """The part in a cache file, or None where there is none or it is damaged: the file carries checksums."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ref, p0, p1, photo = (torch.from_numpy(arrays[name]) for name in ("ref", "p0", "p1", "photo"))
            return Part(ref, p0, p1, photo, [(a, b) for a, b in arrays["distortion"].tolist()])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
