"""BAPPS: what people said about patches. 2AFC judgments of triplets, and same-or-different judgments of pairs.

The files are those that the authors offer (``python -m course_lib fetch bapps-val --data-dir ...``)::

    2afc/{train,val}/SUBSET/{ref,p0,p1}/*.png  judge/*.npy   fraction of people who found p1 closer, shape (1,)
    jnd/val/SUBSET/{p0,p1}/*.png               same/*.npy    fraction of people who saw no difference, shape (1,)

Two people judged a training triplet, five a validation triplet, three a pair. The patches, 64 x 64 when people saw
them, are stored as 256 x 256 pixels. The authors' code shrinks them to 64 x 64 again with torchvision's ``Resize``
(bilinear, antialiased), so that is the default here; published scores belong to that size.

Source: Zhang, Isola, Efros, Shechtman and Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric", CVPR 2018; data loaders of github.com/richzhang/PerceptualSimilarity.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from course_lib.data import check_split
from course_lib.data.files import PairFiles, TripletFiles, refuse
from course_lib.data.listings import read_folder

SUBSETS: dict[str, dict[str, tuple[str, ...]]] = {
    "2afc": {
        "train": ("traditional", "cnn", "mix"),
        "val": ("traditional", "cnn", "superres", "deblur", "color", "frameinterp"),
    },
    "jnd": {"val": ("traditional", "cnn")},
}


def triplets(
    data_dir: str | Path, split: str = "val", subsets: Sequence[str] | None = None, size: int | None = 64
) -> TripletFiles:
    """2AFC judgments of BAPPS: about 36,300 triplets in "val", 151,400 in "train".

    Opening reads every vote and, the first time, decodes every picture once to find damaged ones.

    Args:
        data_dir: the folder that holds ``2afc/``, or the one above, where ``dataset/2afc/`` lies.
        split: "train" or "val".
        subsets: some of ``SUBSETS["2afc"][split]``; None: all of them.
        size: height and width, in pixels, to which pictures are resized. None: as stored.

    Raises:
        FileNotFoundError: if `data_dir` is not there or does not hold 2AFC data.
        ValueError: for an unknown split or subset, and one line with the first problems if folders, pictures or votes
            are missing, do not match, are damaged, or votes lie outside [0, 1].
    """
    columns = _read(Path(data_dir), "2afc", split, subsets, TripletFiles.pictures, TripletFiles.votes)
    return TripletFiles(**columns, size=size, resample="bilinear")


def pairs(
    data_dir: str | Path, split: str = "val", subsets: Sequence[str] | None = None, size: int | None = 64
) -> PairFiles:
    """Same-or-different (JND) judgments of BAPPS: about 9,600 pairs. There is no training split.

    Args:
        data_dir: the folder that holds ``jnd/``, or the one above, where ``dataset/jnd/`` lies.
        split: "val".
        subsets: some of "traditional", "cnn"; None: both.
        size: as for :func:`triplets`.

    Raises:
        FileNotFoundError, ValueError: as :func:`triplets`.
    """
    columns = _read(Path(data_dir), "jnd", split, subsets, PairFiles.pictures, PairFiles.votes)
    return PairFiles(**columns, size=size, resample="bilinear")


def _read(
    data_dir: Path, kind: str, split: str, subsets: Sequence[str] | None, pictures: Sequence[str], votes: str
) -> dict[str, Any]:
    check_split(split, tuple(SUBSETS[kind]))
    known = SUBSETS[kind][split]
    chosen = known if subsets is None else tuple(dict.fromkeys([subsets] if isinstance(subsets, str) else subsets))
    if unknown := [subset for subset in chosen if subset not in known]:
        raise ValueError(f"unknown subset {unknown[0]!r} of {kind}/{split}; use some of {', '.join(known)}")
    if not chosen:
        raise ValueError(f"no subset was named; use some of {', '.join(known)}, or None for all")
    archive = "bapps" if split == "train" else "bapps-jnd" if kind == "jnd" else "bapps-val"
    fetch = f"python -m course_lib fetch {archive} --data-dir {data_dir}"
    root = next((root for root in (data_dir / kind, data_dir / "dataset" / kind) if root.is_dir()), None)
    if root is None:
        raise FileNotFoundError(f"{data_dir} holds neither {kind} nor dataset/{kind}; to download it: {fetch}")
    name = f"BAPPS {kind.upper()} ({', '.join([split, *(() if subsets is None else chosen)])})"
    there = [subset for subset in chosen if (root / split / subset).is_dir()]
    absent = [f"{root / split / subset} is missing" for subset in chosen if subset not in there]
    refuse(name, absent, f"download it ({fetch}) or choose the subsets that you have")

    columns: dict[str, list] = {column: [] for column in (*pictures, votes, "subset")}
    problems: list[str] = []
    for subset in there:
        listing = read_folder(root / split / subset, pictures, votes)
        problems += listing.problems or ([] if listing.votes else [f"{root / split / subset} is empty"])
        for column in pictures:
            columns[column] += listing.paths[column]
        columns[votes] += listing.votes
        columns["subset"] += [subset] * len(listing.votes)
    refuse(name, problems, f"unpack the archive again ({fetch})")
    return {**columns, votes: torch.tensor(columns[votes]), "name": name}
