"""Judgments by name, as the command line's ``--dataset`` and ``--data-dir`` give it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_lib.data import bapps, folders, materials, nights, pairs, triplets
from course_lib.data.files import PairFiles, TripletFiles
from course_lib.data.pairs import Pairs
from course_lib.data.triplets import Triplets


@dataclass(frozen=True)
class _Source:
    """How to open a data set: `splits` begins with the default; `where` tells how to come by the data."""

    splits: tuple[str, ...]
    triplets: Callable
    pairs: Callable | None = None
    where: str = ""


_SOURCES = {
    "simulated": _Source(("test", "train", "val", "all"), triplets.simulated, pairs.simulated),
    "bapps": _Source(
        ("val", "train"),
        bapps.triplets,
        bapps.pairs,
        "to download: python -m course_lib fetch bapps-val --data-dir DIR",
    ),
    "nights": _Source(
        ("test", *(split for split in nights.SPLITS if split != "test")),
        nights.triplets,
        where="to download: python -m course_lib fetch nights --data-dir DIR",
    ),
    "materials": _Source(
        tuple(materials.LIGHTINGS), materials.triplets, where="from github.com/mlagunas/material-appearance-similarity"
    ),
    "folder": _Source((), folders.triplets, folders.pairs, "a folder with ref/ p0/ p1/ judge/, or a CSV file"),
}
NAMES = tuple(_SOURCES)


def open_triplets(
    dataset: str = "simulated", data_dir: str | Path | None = None, split: str | None = None
) -> Triplets | TripletFiles:
    """2AFC judgments of a data set.

    Args:
        dataset: "simulated" (made by the course, needs nothing), "bapps", "nights", "materials" or "folder".
        data_dir: where the data lies; for "folder" this may be a CSV file. Not for "simulated".
        split: None: "test" for simulated and nights, "val" for bapps. For materials: the lighting, "ennis" unless told.
            Not for "folder".

    Raises:
        FileNotFoundError: if the data is not in `data_dir`.
        ValueError: for an unknown data set or split, a missing or superfluous `data_dir`, or data that cannot be used.
    """
    return _open(_known(dataset).triplets, dataset, data_dir, split)


def open_pairs(
    dataset: str = "simulated", data_dir: str | Path | None = None, split: str | None = None
) -> Pairs | PairFiles:
    """Same-or-different judgments of a data set: "simulated", "bapps" or "folder". Otherwise as :func:`open_triplets`.

    Raises:
        FileNotFoundError, ValueError: as :func:`open_triplets`; ValueError also if the data set has no such judgments.
    """
    reader = _known(dataset).pairs
    if reader is None:
        having = ", ".join(name for name, source in _SOURCES.items() if source.pairs)
        raise ValueError(f"{dataset} has no same-or-different judgments of pairs; use one of {having}")
    return _open(reader, dataset, data_dir, split)


def _known(dataset: str) -> _Source:
    if dataset not in _SOURCES:
        raise ValueError(f"unknown data set {dataset!r}; use one of {', '.join(_SOURCES)}")
    return _SOURCES[dataset]


def _open(reader: Callable, dataset: str, data_dir: str | Path | None, split: str | None) -> Any:
    source = _SOURCES[dataset]
    if source.where and data_dir is None:
        raise ValueError(f"{dataset} needs --data-dir, the place where its files lie ({source.where})")
    if not source.where and data_dir is not None:
        raise ValueError(f"{dataset} judgments come with the course; leave --data-dir out or name another --dataset")
    if split is not None and not source.splits:
        raise ValueError(f"{dataset} has no splits; leave --split out")
    arguments = ([] if data_dir is None else [data_dir]) + ([split or source.splits[0]] if source.splits else [])
    return reader(*arguments)
