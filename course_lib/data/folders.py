"""Your own judgments: a folder of pictures and votes, or a CSV file that lists them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from course_lib.data.files import PairFiles, TripletFiles, refuse
from course_lib.data.listings import Listing, read_folder, read_number, read_table


def triplets(path: str | Path, size: int | None = None) -> TripletFiles:
    """Triplets of a folder or of a CSV file.

    A folder holds ``ref/``, ``p0/`` and ``p1/`` with pictures, and ``judge/*.npy`` with one number each, or
    ``judge.csv`` with columns ``name,judge``. What belongs together has one name, up to the extension.

    A CSV file has columns ``ref,p0,p1,judge`` and, if you like, ``subset``. Paths are relative to the folder of the
    CSV file. They may be absolute or lead out of that folder: all that is ever done with them is to read a picture.

    Args:
        path: of the folder or file.
        size: height and width to which pictures are resized (bicubic, antialiased). None: as stored, all of one size.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        ValueError: one line that counts the problems and shows the first ones.
    """
    name, columns = _read(path, TripletFiles.pictures, TripletFiles.votes)
    return TripletFiles(name, **columns, size=size)


def pairs(path: str | Path, size: int | None = None) -> PairFiles:
    """Pairs of a folder (``p0/``, ``p1/``, ``same/*.npy`` or ``same.csv``) or CSV file (``p0,p1,same[,subset]``).

    Otherwise as :func:`triplets`.

    Raises:
        FileNotFoundError, ValueError: as :func:`triplets`.
    """
    name, columns = _read(path, PairFiles.pictures, PairFiles.votes)
    return PairFiles(name, **columns, size=size)


def _read(path: str | Path, pictures: Sequence[str], votes: str) -> tuple[str, dict[str, Any]]:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; name a folder or a CSV file")
    if path.is_dir():
        subset = None
        listing = read_folder(path, pictures, votes)
    else:
        listing, subset = _read_csv(path, pictures, votes)
    name = path.resolve().stem
    refuse(str(path), listing.problems, "mend or remove these")
    return name, {**listing.paths, votes: torch.tensor(listing.votes), "subset": subset}


def _read_csv(path: Path, pictures: Sequence[str], votes: str) -> tuple[Listing, list[str] | None]:
    listing = Listing({name: [] for name in pictures}, [], [])
    rows = read_table(path, (*pictures, votes))
    for place, row in rows:
        vote = read_number(row[votes])
        if not 0 <= vote <= 1:
            listing.problems.append(f"{place}: {votes} is {row[votes]!r}, not a fraction of votes from 0 to 1")
        listing.problems.extend(f"{place}: {name} is empty" for name in pictures if not row[name])
        listing.votes.append(vote)
        for name in pictures:
            listing.paths[name].append(os.path.join(path.parent, row[name]))
    subset = [row["subset"] for _, row in rows] if rows and "subset" in rows[0][1] else None
    return listing, subset
