"""How data sets of judgments are laid out on a disk: folders of files that share a name, tables, one vote a file.

These functions read everything but the pictures. They return what is wrong as a list of problems, so that a reader
can report them all at once.
"""

import csv
import io
import math
import os
import tokenize
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from course_lib.data.files import read_many, refuse

_NOT_AN_ARRAY = (OSError, ValueError, EOFError, SyntaxError, TypeError, MemoryError, OverflowError, tokenize.TokenError)


class Listing(NamedTuple):
    """Paths of the pictures, column by column, the votes beside them, and one line for every problem."""

    paths: dict[str, list[str]]
    votes: list[float]
    problems: list[str]


def read_folder(folder: Path, pictures: Sequence[str], votes: str) -> Listing:
    """Match the files of ``folder/ref``, ``folder/p0`` … with ``folder/judge/*.npy`` or the lines of ``judge.csv``.

    Files belong together when their names without extension are equal, as in ``ref/000012.png`` and
    ``judge/000012.npy``; items are ordered by name. Hidden files are left out. ``judge.csv`` has the columns ``name``
    (without extension) and ``judge``; it counts where there is no folder of that name.

    Args:
        folder: what holds them all.
        pictures: folders of pictures, such as ("ref", "p0", "p1").
        votes: what the votes are called, such as "judge".
    """
    listing = Listing({name: [] for name in pictures}, [], [])
    table = folder / f"{votes}.csv"
    in_table = table.is_file() and not (folder / votes).is_dir()
    absent = [name for name in (*pictures, *([] if in_table else [votes])) if not (folder / name).is_dir()]
    if absent:
        listing.problems.append(f"{folder} has no folder {', '.join(absent)}")
        return listing
    columns = {name: _by_stem(folder / name, listing.problems) for name in (*pictures, *([] if in_table else [votes]))}
    if in_table:
        columns[votes] = {row["name"]: row[votes] for _, row in read_table(table, ("name", votes))}
    answers = []
    for stem in sorted(set().union(*columns.values())):
        absent = [name for name, found in columns.items() if stem not in found]
        if absent:
            listing.problems.append(f"{folder}: {stem} is not in {', '.join(absent)}")
            continue
        for name in pictures:
            listing.paths[name].append(columns[name][stem])
        answers.append(columns[votes][stem])
    if in_table:
        found = [_fraction(text, f"{votes} of {table}") for text in answers]
    else:
        found = list(read_many(read_vote, answers, f"reading {folder / votes}"))
    listing.votes.extend(vote for vote in found if not isinstance(vote, str))
    listing.problems.extend(problem for problem in found if isinstance(problem, str))
    return listing


def read_vote(path: str) -> float | str:
    """The one number from 0 to 1 in a NumPy file; or a line that says why there is none. Nothing is unpickled."""
    try:
        array = np.lib.format.read_array(io.BytesIO(Path(path).read_bytes()), allow_pickle=False)
    except _NOT_AN_ARRAY as error:
        return f"{path} cannot be read: {' '.join(str(error).split())[:100]}"
    if array.size != 1 or array.dtype.kind not in "biuf":
        return f"{path} holds {array.dtype} of shape {array.shape}, not one number"
    return _fraction(float(array.item()), path)


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Rows of a CSV file with a header: where each is ("data.csv line 7"), and its values by column.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not such a table, a column is missing, or a row has too few or too many values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            rows = [(f"{path.name} line {reader.line_num}", row) for row in reader]
            header = reader.fieldnames or []
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV table in UTF-8: {error}") from None
    absent = [name for name in columns if name not in header]
    if absent:
        raise ValueError(f"{path} has no column {', '.join(absent)}; it has {', '.join(header) or 'none'}")
    ragged = [f"{place} does not have {len(header)} values" for place, row in rows if None in (*row, *row.values())]
    refuse(str(path), ragged, "put names that contain a comma in quotes")
    return rows


def read_number(text: str) -> float:
    """The finite number that a text is; NaN for anything else."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _fraction(value: str | float, place: str) -> float | str:
    number = read_number(value) if isinstance(value, str) else value
    return number if 0 <= number <= 1 else f"{place} is {value!r}, not a fraction of votes from 0 to 1"


def _by_stem(folder: Path, problems: list[str]) -> dict[str, str]:
    """Paths of a folder's files by their names without extension; two files of one name are a problem."""
    found: dict[str, str] = {}
    for file in sorted(os.listdir(folder)):
        stem = os.path.splitext(file)[0]
        if file.startswith("."):
            continue
        if stem in found:
            problems.append(f"{folder / file} has the name of {os.path.basename(found[stem])}")
        found[stem] = os.path.join(folder, file)
    return found
