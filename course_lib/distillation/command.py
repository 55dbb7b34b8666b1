"""``python -m course_lib distill``: from names to a student, and the table of its scores."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from course_lib.data import triplets
from course_lib.distillation.exam import Exam
from course_lib.distillation.images import embedded, open_images
from course_lib.distillation.learning import Distilled, distill, new_student
from course_lib.distillation.parallel import process_group
from course_lib.distillation.recipe import RECIPES, Recipe
from course_lib.distillation.teachers import load_teacher
from course_lib.judgments import write_tables
from course_lib.lipschitz import LipSimNet
from course_lib.training import is_first


def changed(name: str | None, dataset: str, changes: Mapping[str, Any]) -> Recipe:
    """A recipe by name, by default "laptop" for embedded images and else "published", with changes that are not None.

    Raises:
        ValueError: for an unknown name, or changes that make no sense.
    """
    name = name or ("laptop" if dataset == "embedded" else "published")
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; choose {' or '.join(RECIPES)}")
    return replace(RECIPES[name], **{key: value for key, value in changes.items() if value is not None})


def run(
    dataset: str,
    data_dir: Path | None,
    teacher: str,
    student: str,
    recipe: Recipe,
    *,
    dim: int | None = None,
    folder: Path | None = None,
    resize: int | None = None,
    limit: int | None = None,
    exam_limit: int = 400,
    workers: int = 0,
    checkpoint_steps: int = 500,
    device: str = "cpu",
) -> Distilled:
    """Distil, in as many processes as torchrun has started, and print what came out.

    Writes ``student.pt``, ``results.json``, ``metrics.jsonl`` and checkpoints to `folder`, by default
    ``runs/STUDENT-TEACHER-DATASET``.

    Raises:
        ValueError, OSError: as :func:`~course_lib.distillation.distill`, and for names of data, teachers, students.
    """
    with torch.device("meta"):
        size = LipSimNet.preset(student, 1).image_size
    folder = folder or Path("runs", f"{student}-{teacher.replace(':', '.')}-{dataset}")
    data = open_images(dataset, data_dir, "train", size=size, resize=resize, limit=limit)
    if dataset in ("imagenet", "tiny-imagenet"):
        held_out = open_images(dataset, data_dir, "val", size=size, resize=resize, limit=exam_limit)
    else:
        held_out = embedded("val", exam_limit, size)
    master = load_teacher(teacher, dim, device=device)
    exam = Exam(master, held_out, triplets.simulated("val"), limit=exam_limit, device=device)
    with process_group(device):
        if is_first():
            print(f"{master.name} teaches {student} on {len(data)} images, {data.name}: {recipe}", file=sys.stderr)
        done = distill(
            student, master, data, recipe, exam=exam, folder=folder, device=device, workers=workers,
            checkpoint_steps=checkpoint_steps, progress=True,
        )  # fmt: skip
        if is_first():
            _report(done, exam, student, folder)
    return done


def _report(done: Distilled, exam: Exam, student: str, folder: Path) -> None:
    for record in done.history:
        print(" ".join(f"{key} {value:.4g}" for key, value in record.items()))
    untrained = new_student(student, exam.teacher.dim, done.recipe.seed).to(exam.device).eval()
    table = exam.table({"untrained student": untrained, "student": done.student})
    print(f"\nheld out: {exam.data}; judgments: {exam.judged}")
    print(table.to_string(float_format="{:.3f}".format))
    about = {"data": done.data, "held_out": exam.data, "judgments": exam.judged, "teacher": done.teacher}
    write_tables(folder / "results.json", table.reset_index(names="embedding"), about)
    print(f"the student is in {folder / 'student.pt'}", file=sys.stderr)
