"""Distillation itself, and the student that comes out of it."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from course_lib.distillation import parallel
from course_lib.distillation.exam import Exam
from course_lib.distillation.losses import distillation_loss
from course_lib.distillation.recipe import PUBLISHED, Recipe
from course_lib.distillation.targets import ImageData, Targets, cached_targets, to_float
from course_lib.distillation.teachers import Teacher
from course_lib.distillation.views import Views, apply_views, draw_views
from course_lib.lipschitz import LipSimNet
from course_lib.paths import write_atomically
from course_lib.training import is_first, load_checkpoint, rank_and_world, train


@dataclass
class Distilled:
    """A student, and how it became one.

    Attributes:
        student: in evaluation mode.
        preset: name of its architecture; None for one of your own.
        teacher, data: names.
        recipe: how it was trained.
        history: a record for each epoch: loss, learning_rate, and the scores of the exam.
    """

    student: nn.Module
    preset: str | None
    teacher: str
    data: str
    recipe: Recipe
    history: list[dict[str, Any]] = field(default_factory=list)

    def save(self, path: str | Path) -> None:
        """Write the student to a file that :func:`load_student` reads, atomically."""
        student, content = self.student, io.BytesIO()
        about = {"teacher": self.teacher, "data": self.data, **asdict(self.recipe), "history": self.history}
        state = {key: value.cpu() for key, value in student.state_dict().items()}
        torch.save(
            {"preset": self.preset, "out_features": student.out_features, "student": state, "about": about}, content
        )
        write_atomically(path, content.getvalue())


def load_student(path: str | Path, student: nn.Module | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """The student that :meth:`Distilled.save` wrote, in evaluation mode, and what is known about it.

    Args:
        path: of the file.
        student: a network to put the weights into; needed only if the student was no preset.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, it is damaged, or holds another network.
    """
    stored = load_checkpoint(path)
    if not {"preset", "out_features", "student", "about"} <= stored.keys():
        raise ValueError(f"{path} holds no distilled student but {', '.join(map(str, stored))}; name a student.pt")
    if student is None:
        if stored["preset"] is None:
            raise ValueError(f"{path} holds a student of an architecture of your own; give it as student=")
        student = LipSimNet.preset(stored["preset"], stored["out_features"])
    try:
        student.load_state_dict(stored["student"])
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise ValueError(f"{path} holds another network than the one that was given: {first}") from None
    return student.eval(), stored["about"]


def new_student(preset: str, out_features: int, seed: int = 0) -> LipSimNet:
    """An untrained student: the seed decides its weights, and nothing random that came before.

    Raises:
        ValueError: for an unknown preset, or more features than it has.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LipSimNet.preset(preset, out_features)


def distill(
    student: str | nn.Module,
    teacher: Teacher,
    data: ImageData,
    recipe: Recipe = PUBLISHED,
    *,
    exam: Exam | None = None,
    folder: str | Path | None = None,
    device: str | torch.device = "cpu",
    workers: int = 0,
    checkpoint_steps: int = 500,
    progress: bool = False,
) -> Distilled:
    """Teach a 1-Lipschitz student a teacher's embedding.

    The teacher embeds all images once (:func:`~course_lib.distillation.cached_targets`); then the student learns from
    these. In several processes (:func:`~course_lib.distillation.parallel.process_group`) each calls this alike; the
    result is the same up to rounding. What is left over when the images are divided into batches changes with every
    epoch.

    Args:
        student: name of a :meth:`LipSimNet.preset <course_lib.lipschitz.LipSimNet.preset>`, which is given as many
            features as the teacher has; or a network, which is trained in place.
        teacher: what to imitate.
        data: images, of the size that the student takes.
        recipe: how; :data:`PUBLISHED` or :data:`LAPTOP`, or `dataclasses.replace` of one of them.
        exam: scores the student after every epoch.
        folder: for checkpoints, metrics and ``student.pt``; a run that is there is continued, exactly.
        device: where to compute.
        workers: processes that read images, for each training process; for data in files.
        checkpoint_steps: steps between checkpoints; there is one after every epoch, too.
        progress: show progress bars, on a terminal.

    Raises:
        ValueError: for an unknown student, images of a size that it does not take, embeddings of another length than
            the teacher's, fewer images than a batch, or a batch that the processes cannot divide.
        TargetsError, TrainingError: as the caching of targets and the training loop do.
    """
    preset = student if isinstance(student, str) else None
    world = rank_and_world()[1]
    if len(data) < recipe.batch_size:
        raise ValueError(
            f"{data.name} has {len(data)} images, a batch is {recipe.batch_size}; use a smaller batch_size"
        )
    if recipe.batch_size % world:
        raise ValueError(f"a batch of {recipe.batch_size} cannot be divided among {world} processes")
    device = parallel.own_device(device)
    network = new_student(student, teacher.dim, recipe.seed) if isinstance(student, str) else student
    _check_sizes(network, teacher, data, recipe)
    targets = cached_targets(
        teacher, data, flip=recipe.mirrored_targets and recipe.views != "plain", scale=recipe.scale, workers=workers,
        device=device, progress=progress,
    )  # fmt: skip
    teacher.to("cpu")  # its memory is the student's now
    network.to(device)
    model = parallel.distributed_model(network, device)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate, betas=recipe.betas)
    steps = recipe.epochs * (len(data) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: recipe.rate(step, steps))

    def loss(batch: Batch) -> Tensor:
        views = apply_views(to_float(batch.images), batch.views)
        different = views if recipe.views == "published" else views[:1]
        embeddings = model(torch.cat(different)).float()  # in one pass, because every pass rescales the weights
        parts = [parallel.gathered(part) for part in embeddings.chunk(len(different))]
        return distillation_loss(parts[0], parts[-1], parallel.gathered(batch.target), recipe.loss)

    def load(plans: Iterable[Plan]) -> Iterable[Batch]:
        source: Any = _Reader(data, targets)
        pin = device.type == "cuda"
        # a generator of its own, so that the loader does not draw from the one that a checkpoint holds
        return DataLoader(
            source, batch_size=None, sampler=plans, num_workers=workers, pin_memory=pin, generator=torch.Generator()
        )

    settings = {"student": preset or type(network).__name__, "teacher": teacher.name, "data": data.name}
    settings |= {"targets": targets.path.stem, **asdict(recipe)}
    history = train(
        network, loss, lambda generator: plans(len(data), recipe, generator), optimizer, epochs=recipe.epochs,
        schedule=schedule, load=load, clip=recipe.clip, validate=(lambda: exam.scores(network)) if exam else None,
        folder=folder, settings=settings, checkpoint_steps=checkpoint_steps, seed=recipe.seed, device=device,
        precision=recipe.precision, progress="distilling" if progress else None,
    )  # fmt: skip
    distilled = Distilled(network.eval(), preset, teacher.name, data.name, recipe, history)
    if folder and is_first():
        distilled.save(Path(folder) / "student.pt")
    return distilled


class Plan(NamedTuple):
    """Which images a step shows to this process, and in which views."""

    items: Tensor
    views: Views


class Batch(NamedTuple):
    """What a step needs: images (n, 3, s, s), the teacher's embeddings of their first views, and the views."""

    images: Tensor
    target: Tensor
    views: Views


def plans(n: int, recipe: Recipe, generator: torch.Generator) -> Iterator[Plan]:
    """This process's share of every step of an epoch over `n` images. Together they see no image twice.

    Order and views are drawn for the whole batch in every process, from the same generator.
    """
    order = torch.randperm(n, generator=generator)
    for step in range(n // recipe.batch_size):
        views = draw_views(recipe.batch_size, generator, recipe.views)
        mine = parallel.share(torch.arange(recipe.batch_size))
        yield Plan(order[step * recipe.batch_size + mine], views.select(mine))


class _Reader(Dataset):
    """Turns a plan into a batch; worker processes get a copy."""

    def __init__(self, data: ImageData, targets: Targets):
        self.data, self.targets = data, targets

    def __getitem__(self, plan: Plan) -> Batch:
        target = self.targets.of(plan.items, plan.views.flip[:, 0])
        return Batch(self.data[plan.items], target, plan.views)


def _check_sizes(network: nn.Module, teacher: Teacher, data: ImageData, recipe: Recipe) -> None:
    size, expected = tuple(data[torch.tensor([0])].shape[2:]), getattr(network, "image_size", None)
    if expected is not None and size != (expected, expected):
        found = f"{size[0]} x {size[1]}"
        raise ValueError(f"{data.name} has images of {found} pixels; the student takes {expected} x {expected}")
    features = getattr(network, "out_features", teacher.dim)
    if recipe.loss != "relational" and features != teacher.dim:
        raise ValueError(
            f"the student gives {features} numbers, teacher {teacher.name!r} {teacher.dim}; give the student "
            f"out_features={teacher.dim}, reduce the teacher, or use the relational loss"
        )
