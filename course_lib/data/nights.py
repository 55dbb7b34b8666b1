"""NIGHTS: which of two generated pictures is closer to a third? 20,019 triplets with people's votes.

``data.csv`` has the columns id, left_vote, right_vote, votes, ref_path, left_path, right_path, split, is_imagenet;
paths are relative to its folder. Download: ``python -m course_lib fetch nights --data-dir ...``.

Source: Fu, Tamir, Sundaram, Chai, Zhang, Dekel and Isola, "DreamSim: Learning New Dimensions of Human Visual
Similarity using Synthetic Data", NeurIPS 2023; ``dataset/dataset.py`` of github.com/ssundaram21/dreamsim.
"""

from pathlib import Path
from typing import Any

import torch

from course_lib.data import check_split
from course_lib.data.files import TripletFiles, refuse
from course_lib.data.listings import read_number, read_table

SPLITS = ("train", "val", "test", "test_imagenet", "test_no_imagenet")
COLUMNS = ("left_vote", "right_vote", "votes", "ref_path", "left_path", "right_path", "split", "is_imagenet")


def triplets(data_dir: str | Path, split: str = "test", min_votes: int = 6, size: int | None = 224) -> TripletFiles:
    """Triplets of NIGHTS: p0 is the left picture, p1 the right one, judge = right_vote / (left_vote + right_vote).

    Pictures are resized as the authors' code does it: Pillow's bicubic with antialiasing, in 8
    bits, to a square. `subset` tells "imagenet" (the category is one of ImageNet's) from "no_imagenet".

    Args:
        data_dir: the folder that holds ``data.csv``, or the one above, where ``nights/data.csv`` lies.
        split: "train", "val", "test", or one of its halves "test_imagenet" and "test_no_imagenet".
        min_votes: only triplets with at least so many votes; the authors take 6.
        size: height and width, in pixels. None: as stored.

    Raises:
        FileNotFoundError: if there is no ``data.csv``.
        ValueError: for an unknown split, missing columns, a split without triplets, and one line with the first
            problems if there are unusable numbers, missing files or damaged pictures.
    """
    check_split(split, SPLITS)
    root = next((root for root in (Path(data_dir), Path(data_dir, "nights")) if (root / "data.csv").is_file()), None)
    fetch = f"python -m course_lib fetch nights --data-dir {data_dir}"
    if root is None:
        raise FileNotFoundError(f"{data_dir} holds neither data.csv nor nights/data.csv; to download it: {fetch}")

    columns: dict[str, Any] = {name: [] for name in ("ref", "p0", "p1", "judge", "subset")}
    problems, wanted = [], 0
    half = {"test_imagenet": "true", "test_no_imagenet": "false"}.get(split)
    for place, row in read_table(root / "data.csv", COLUMNS):
        imagenet = row["is_imagenet"].strip().lower()
        other_half = half is not None and imagenet in ("true", "false") and imagenet != half
        if row["split"] != split.partition("_")[0] or other_half:
            continue
        wanted += 1
        left, right, votes = (read_number(row[name]) for name in COLUMNS[:3])
        if not (left >= 0 and right >= 0 and left + right > 0 and votes >= 0):
            listed = ", ".join(f"{name} {row[name]!r}" for name in COLUMNS[:3])
            problems.append(f"{place} has {listed}, not numbers of votes")
        elif imagenet not in ("true", "false"):
            problems.append(f"{place} has is_imagenet {row['is_imagenet']!r}, neither True nor False")
        elif votes >= min_votes:
            for name, column in zip(("ref", "p0", "p1"), COLUMNS[3:6], strict=True):
                columns[name].append(str(root / row[column]))
            columns["judge"].append(right / (left + right))
            columns["subset"].append("imagenet" if imagenet == "true" else "no_imagenet")
    refuse(f"NIGHTS ({split})", problems, f"restore data.csv ({fetch})")
    if not columns["ref"]:
        why = f"{wanted} triplets, none with {min_votes} votes or more; use a lower min_votes" if wanted else "no rows"
        raise ValueError(f"{root / 'data.csv'}: the split {split!r} has {why}")
    judge = torch.tensor(columns.pop("judge"))
    return TripletFiles(f"NIGHTS ({split})", judge=judge, size=size, **columns)
