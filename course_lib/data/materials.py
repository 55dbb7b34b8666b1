"""Real human judgments of how alike two materials look: 100 materials, rendered on one shape under two lightings.

They are about *materials*, not about distortions: a metric that was made for distortions need not agree with them.
Nothing of this data (GPL-2) comes with the course: get it from github.com/mlagunas/material-appearance-similarity.

Source: Lagunas, Malpica, Serrano, Garces, Gutierrez and Masia, "A Similarity Measure for Material Appearance",
SIGGRAPH 2019.
"""

import json
from pathlib import Path

import torch

from course_lib.data.files import TripletFiles, refuse

LIGHTINGS = {"ennis": "havran1_ennis_298x298_LDR", "stpeters": "havran1_stpeters_256x256_LDR"}
ANSWERS = "answers_processed_train.json"
SEED = 8


def triplets(data_dir: str | Path, lighting: str = "ennis", size: int | None = 64) -> TripletFiles:
    """21,406 triplets of materials, with 88,238 votes: of the published training answers, those with a majority.

    The 1,395 triplets on which people were evenly split are not among them, so people seem to agree more than they do:
    both ceilings are too high. Most triplets have 3 to 5 votes, 1,000 have a single one.

    In the file, the material that most people chose comes first. Here a seeded coin decides whether it becomes p0 or
    p1, so that no metric gains from preferring one side. `photo` is the reference's material: triplets of one
    reference are not independent. The 100 pictures stay in memory once they are read.

    Args:
        data_dir: the folder that holds ``answers_processed_train.json`` and the two folders of pictures.
        lighting: "ennis" or "stpeters": which renderings to show the metric.
        size: height and width, in pixels (bicubic, antialiased). None: as stored, 298 or 256.

    Raises:
        FileNotFoundError: if the data is not there.
        ValueError: for an unknown lighting, or answers or pictures that cannot be used.
    """
    if lighting not in LIGHTINGS:
        raise ValueError(f"unknown lighting {lighting!r}; use one of {', '.join(map(repr, LIGHTINGS))}")
    folder, file = Path(data_dir, LIGHTINGS[lighting]), Path(data_dir, ANSWERS)
    if not file.is_file() or not folder.is_dir():
        where = "get it from github.com/mlagunas/material-appearance-similarity"
        raise FileNotFoundError(f"{data_dir} does not hold {ANSWERS} and {LIGHTINGS[lighting]}; {where}")
    # the answers' indices count in this order
    pictures = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    try:
        stored = json.loads(file.read_bytes())
        shown = torch.tensor(stored["answers_diff"]).reshape(-1, 3)
        votes = torch.tensor(stored["agreement_diff"]).reshape(-1, 2)
        if shown.is_floating_point() or votes.is_floating_point() or len(shown) != len(votes):
            raise ValueError(
                f"{len(shown)} triplets and {len(votes)} votes, which should be as many, all whole numbers"
            )
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{file} does not hold answers_diff and agreement_diff as expected: {error}") from None
    outside = ((shown < 0) | (shown >= len(pictures))).any(1)
    useless = (votes < 0).any(1) | (votes.sum(1) == 0)
    problems = [f"answer {i} names {shown[i].tolist()}" for i in outside.nonzero().flatten().tolist()]
    problems += [f"answer {i} has votes {votes[i].tolist()}" for i in useless.nonzero().flatten().tolist()]
    refuse(str(file), problems, f"indices go from 0 to {len(pictures) - 1}, votes are counts")

    chosen_first = torch.rand(len(shown), generator=torch.Generator().manual_seed(SEED)) < 0.5
    p0, p1 = (torch.where(first, shown[:, 1], shown[:, 2]).tolist() for first in (chosen_first, ~chosen_first))
    for_chosen, for_other = votes.unbind(1)
    judge = torch.where(chosen_first, for_other, for_chosen) / votes.sum(1)
    ref = shown[:, 0]
    paths = [[str(pictures[i]) for i in column] for column in (ref.tolist(), p0, p1)]
    return TripletFiles(
        f"materials ({lighting})",
        paths[0],
        paths[1],
        paths[2],
        judge,
        photo=ref,
        photographs=tuple(picture.stem for picture in pictures),
        size=size,
        keep=True,
    )
