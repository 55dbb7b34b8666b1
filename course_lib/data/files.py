"""Judgments whose pictures stay in their files until they are needed, so that memory does not grow with the data.

:class:`TripletFiles` and :class:`PairFiles` are used as :class:`~course_lib.data.triplets.Triplets` and
:class:`~course_lib.data.pairs.Pairs` are. Everything is checked when one is made: a file that cannot be read shows
up then, not in the third hour of training. The check is remembered until a file changes.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import Any, ClassVar

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from tqdm import tqdm

from course_lib.data.judged import Judged
from course_lib.data.pairs import Pair, Pairs
from course_lib.data.pictures import RESAMPLE, read_pixels
from course_lib.data.triplets import Triplet, Triplets
from course_lib.paths import cache_dir, write_atomically

SHOWN = 4  # problems that an error lists
MANY = 500  # files from which on reading them shows a progress bar
Paths = Sequence[str | os.PathLike[str]]


class JudgedFiles(Judged):
    """What :class:`TripletFiles` and :class:`PairFiles` have in common."""

    size: int | None
    resample: str
    keep: bool
    _kept: dict[str, Tensor]
    _shape: tuple[int, int]

    def __post_init__(self):
        if self.size is not None and self.size < 1:
            raise ValueError(f"size is {self.size}; it is a height and width in pixels, or None: as stored")
        if self.resample not in RESAMPLE:
            raise ValueError(f"unknown resample {self.resample!r}; use one of {', '.join(map(repr, RESAMPLE))}")
        for column in self.pictures:
            setattr(self, column, [os.fspath(path) for path in getattr(self, column)])
        if len(self) == 0:
            raise ValueError(f"{self.name} is empty; it needs at least one item")
        self._check_lengths("items")
        named = zip(getattr(self, self.pictures[0]), getattr(self, self.votes).tolist(), strict=True)
        wrong = [f"{self.votes} of {path} is {vote:.3g}" for path, vote in named if not 0 <= vote <= 1]
        refuse(self.name, wrong, "give fractions of votes, from 0 to 1")
        self._kept = {}
        self._shape = self._checked_shape()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self)} items of {_pixels(self._shape)} pixels)"

    def _checked_shape(self) -> tuple[int, int]:
        """Height and width of what is read, after every file was decoded once, now or at an earlier time."""
        paths = list(dict.fromkeys(path for column in self.pictures for path in getattr(self, column)))
        sizes = "any" if self.size else "one"
        stamp = cache_dir() / f"checked-{_fingerprint(self.name, paths)}-{sizes}-size.json"
        shape = _read_stamp(stamp)
        if shape is None:
            found = list(read_many(_shape_or_problem, paths, f"checking {self.name}"))
            common = Counter(shape for shape in found if not isinstance(shape, str)).most_common(1)
            shape = common[0][0] if common else (0, 0)
            problems = []
            for path, here in zip(paths, found, strict=True):
                if isinstance(here, str):
                    problems.append(here)
                elif here != shape and self.size is None:
                    problems.append(f"{path} is {_pixels(here)} pixels, most are {_pixels(shape)}")
            refuse(self.name, problems, "replace or remove these files (size=64 makes every picture 64 x 64 pixels)")
            write_atomically(stamp, json.dumps({"name": self.name, "files": len(paths), "shape": shape}).encode())
        return (self.size, self.size) if self.size else shape

    def _read(self, path: str) -> UInt8[Tensor, "3 h w"]:
        pixels = self._kept.get(path)
        if pixels is None:
            pixels = read_pixels(path, self.size, self.resample)
            if pixels.shape[1:] != self._shape:
                changed = f"is {_pixels(pixels.shape[1:])} pixels, but was {_pixels(self._shape)} when it was checked"
                raise ValueError(f"{path} {changed}; open the data again")
            if self.keep:
                self._kept[path] = pixels
        return pixels

    def _images(self, column: str, index: int | slice | Tensor) -> Float32[Tensor, "*n 3 h w"]:
        paths = getattr(self, column)
        rows = torch.tensor(index) if isinstance(index, int) else torch.arange(len(self))[index]
        if rows.ndim == 0:
            return self._read(paths[rows]).float() / 255
        images = torch.empty(len(rows), 3, *self._shape)
        for image, row in zip(images, rows.tolist(), strict=True):
            image.copy_(self._read(paths[row]))
        return images / 255

    def _loaded(self, column: str) -> UInt8[Tensor, "n 3 h w"]:
        paths = getattr(self, column)
        images = torch.empty(len(paths), 3, *self._shape, dtype=torch.uint8)
        for image, pixels in zip(images, read_many(self._read, paths, f"loading {column}"), strict=True):
            image.copy_(pixels)
        return images


@dataclass(repr=False)
class TripletFiles(JudgedFiles):
    """2AFC judgments of picture files, as a torch Dataset of :class:`~course_lib.data.triplets.Triplet` items.

    Indexing, ``select`` and ``batches`` are those of :class:`~course_lib.data.triplets.Triplets`; only the pictures
    that an index names are read. A DataLoader may read with several processes.

    Attributes:
        name: what to call the data in tables.
        ref, p0, p1: paths of the pictures, one for each triplet.
        judge: (n,) fraction of votes for p1 being closer to ref than p0, in [0, 1].
        subset: for each triplet, the part of the data set that it belongs to. Optional.
        photo: (n,) index into `photographs` of what ref shows; confidence intervals resample these. Optional.
        photographs: their names.
        size: height and width to which pictures are brought, in pixels, as
            :func:`~course_lib.data.pictures.read_pixels` does it. None: as stored, and then all must have one size.
        resample: "bicubic" or "bilinear", when they are resized; both with antialiasing.
        keep: keep every picture in memory once it is read: for few pictures that make many triplets.

    Raises:
        ValueError: one line with the number of problems and the first of them: a file that is missing or cannot be
            decoded, a size that differs (with ``size=None``), votes outside [0, 1], columns of different lengths,
            nothing at all. A picture that breaks later is named when it is read.
    """

    name: str
    ref: Paths
    p0: Paths
    p1: Paths
    judge: Float32[Tensor, "n"]
    subset: list[str] | None = None
    photo: Int64[Tensor, "n"] | None = None
    photographs: tuple[str, ...] = ()
    size: int | None = None
    resample: str = "bicubic"
    keep: bool = False

    pictures: ClassVar[tuple[str, ...]] = ("ref", "p0", "p1")
    votes: ClassVar[str] = "judge"

    def __getitem__(self, index: int | slice | Tensor) -> Triplet:
        """One triplet for an integer; a batch of them for a slice or a tensor of indices. Float32 in [0, 1]."""
        ref, p0, p1 = (self._images(column, index) for column in self.pictures)
        return Triplet(ref, p0, p1, self.judge[index])

    def load(self) -> Triplets:
        """The same triplets with all pictures in memory, as uint8: 9 bytes for each pixel of a triplet."""
        ref, p0, p1 = (self._loaded(column) for column in self.pictures)
        return Triplets(
            self.name, ref, p0, p1, self.judge, photo=self.photo, photographs=self.photographs, subset=self.subset
        )


@dataclass(repr=False)
class PairFiles(JudgedFiles):
    """Same-or-different judgments of picture files, as a torch Dataset of :class:`~course_lib.data.pairs.Pair` items.

    Attributes:
        name: what to call the data in tables.
        p0, p1: paths of the pictures, one for each pair.
        same: (n,) fraction of people who could not tell p0 and p1 apart, in [0, 1].
        subset, photo, photographs, size, resample, keep: as for :class:`TripletFiles`.

    Raises:
        ValueError: as :class:`TripletFiles`.
    """

    name: str
    p0: Paths
    p1: Paths
    same: Float32[Tensor, "n"]
    subset: list[str] | None = None
    photo: Int64[Tensor, "n"] | None = None
    photographs: tuple[str, ...] = ()
    size: int | None = None
    resample: str = "bicubic"
    keep: bool = False

    pictures: ClassVar[tuple[str, ...]] = ("p0", "p1")
    votes: ClassVar[str] = "same"

    def __getitem__(self, index: int | slice | Tensor) -> Pair:
        """One pair for an integer; a batch of them for a slice or a tensor of indices. Float32 in [0, 1]."""
        p0, p1 = (self._images(column, index) for column in self.pictures)
        return Pair(p0, p1, self.same[index])

    def load(self) -> Pairs:
        """The same pairs with all pictures in memory, as uint8: 6 bytes for each pixel of a pair."""
        p0, p1 = (self._loaded(column) for column in self.pictures)
        return Pairs(self.name, p0, p1, self.same, self.photo, self.photographs, self.subset)


def refuse(name: str, problems: Sequence[str], fix: str) -> None:
    """Do nothing without problems; else raise one line: how many there are, the first of them, and what to do.

    Raises:
        ValueError: if there is a problem.
    """
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        shown = [*problems[:SHOWN], *([f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else [])]
        raise ValueError(f"{name} has {count}: {'; '.join(shown)}; {fix}")


def read_many(read: Callable[[str], Any], paths: Sequence, what: str) -> Iterator[Any]:
    """Yield ``read(path)`` for every path, in order: read by several threads, with a bar on a terminal when many."""
    quiet = None if len(paths) > MANY else True  # None: tqdm shows the bar on a terminal only
    with ThreadPool(min(8, os.cpu_count() or 1)) as pool:
        yield from tqdm(pool.imap(read, paths, 16), what, len(paths), unit=" files", leave=False, disable=quiet)


def _shape_or_problem(path: str) -> tuple[int, int] | str:
    try:
        height, width = read_pixels(path).shape[1:]
    except ValueError as error:
        return str(error)
    return height, width


def _fingerprint(name: str, paths: Sequence[str]) -> str:
    """Changes when a file is replaced. Missing files are refused here, before anything is decoded."""
    digest, missing = hashlib.sha256(), []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            missing.append(f"{path} is missing ({error.strerror})")
        else:
            line = f"{os.path.abspath(path)}\n{status.st_size} {status.st_mtime_ns}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    refuse(name, missing, "restore these files")
    return digest.hexdigest()[:32]


def _read_stamp(stamp: os.PathLike[str]) -> tuple[int, int] | None:
    """Height and width that the files had when they were checked; None if they never were."""
    try:
        with open(stamp, "rb") as file:
            height, width = json.load(file)["shape"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return height, width


def _pixels(shape: Sequence[int]) -> str:
    return f"{shape[1]} x {shape[0]}"
