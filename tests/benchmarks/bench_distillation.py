"""What distillation costs and what a student has learnt: throughput, teachers, losses, real people.

Working example: ``make bench-distillation`` (an hour on one core), or
``python -m tests.benchmarks.bench_distillation --parts students --only relational`` to measure some rows of a part
again and keep the rest, or ``--quick`` for tiny sizes, which only shows that it works. The result goes to
distillation.json beside this file. One thread; times are processor times, so that other programs do not change them.
Every student is a *single run* with seed 0: differences of a point or two between rows are within chance.

throughput: ``networks``, for student "small" at 224² and "tiny" at 64²: ``images_per_second`` and ``peak_mb`` of
    "course fp32", "published fp32", "course bf16" and "published bf16": forward and backward pass in training mode,
    in which every step rescales the weights, without the optimiser. "published" are the plain formulas of
    bench_lipschitz.py (tiny's last layer, AOL, is ours in both). Under autocast the published formulas compute the
    rescaling itself in bf16, where nothing is guaranteed; ours stays in fp32. Memory comes on top of libraries, weights
    and images, in a process of its own.
teachers: ``reduction``, for st-alex and st-vgg: a row of DistanceError for each PCA dimension, for references and their
    "distortions" and for different "crops" of held-out photographs; ``two_afc``: 2AFC score on simulated votes.
students: ``rows``, by name: "pixel L2", "untrained", "teacher st-alex", "LOSS SCALE" ("published 5"), "cosine",
    "own mean" (the relational loss of which each side is divided by its own mean distance: nothing pins the scale),
    "relational, TEACHER" for other teachers, with "teacher TEACHER" and "pixel L2, TEACHER" to compare. Each row has
    ``teacher``, ``loss`` and ``scale`` (None if untrained); ``spearman``, ``spearman_near``, ``same_decision`` with its
    own teacher, ``agreement`` with *simulated* votes, ``distance`` and ``norm``, all as in
    :class:`~course_lib.distillation.Exam`; ``median_radius`` of |radius|, the L2 change of the reference's pixels that
    the Euclidean decision provably survives, and ``certified``: share of the triplets where the decision is the
    teacher's and the radius larger than 36 and 108 of 255 (None for teachers: they are not 1-Lipschitz);
    ``people``: share of 21,406 triplets of materials where it sides with the majority of *real people*, for the
    renderings "ennis" and "stpeters" (absent without the data); if trained: ``steps``, ``seconds``, ``losses`` (a mean
    for each epoch) and ``bound``, of the Lipschitz constant from above.
longer: one longer run: ``row``, as above, and ``history``: after each epoch ``epoch``, ``loss`` and the scores, with
    "certified 36", "certified 108", "people ennis" and "people stpeters".
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from course_lib import distillation, lipschitz
from course_lib.data import materials, triplets
from course_lib.data.pictures import read_pixels
from course_lib.distillation import LAPTOP, LOSSES, Recipe, Teacher, cached_targets, load_teacher, new_student, pixels
from course_lib.judgments import spearman, two_afc_score
from course_lib.lipschitz.lipsim import PUBLISHED, LipSimNet
from course_lib.paths import repo_root, write_atomically

RESULTS = Path(__file__).with_name("distillation.json")
COMMAND = "python -m tests.benchmarks.bench_distillation"
PEOPLE = repo_root().parent / "shared" / "data" / "material_similarity"
RADII = (36, 108)  # / 255, L2, pixels in [0, 1]
MAIN = "st-alex"
OTHERS = ("efficientnet-lite0", "ensemble")
SCALES = (1.0, 5.0, 20.0)
VARIANTS = tuple(f"{whose} {precision}" for precision in ("fp32", "bf16") for whose in ("course", "published"))
SHORT = replace(LAPTOP, epochs=10, precision="bf16")
FULL: dict[str, Any] = {
    "throughput": {"small": {"batch": 4, "rounds": 3}, "tiny": {"batch": 64, "rounds": 9}},
    "teachers": {"nets": ("st-alex", "st-vgg"), "dims": (64, 128, 256, 512, 1024), "pairs": 160, "triplets": 400},
    "students": {"crops": 3200, "images": 300, "triplets": 500, "recipe": SHORT},
    "longer": {
        "crops": 12800, "images": 300, "triplets": 500, "teacher": MAIN,
        "recipe": replace(SHORT, loss="relational", epochs=5),
    },
}  # fmt: skip
QUICK: dict[str, Any] = {
    "throughput": {"tiny": {"batch": 2, "rounds": 1}},
    "teachers": {"nets": ("st-alex",), "dims": (8, 16), "pairs": 4, "triplets": 4},
    "students": {"crops": 8, "images": 4, "triplets": 4, "recipe": replace(SHORT, epochs=1, batch_size=4)},
    "longer": {
        "crops": 8, "images": 4, "triplets": 4, "teacher": MAIN, "recipe": replace(SHORT, epochs=2, batch_size=4),
    },
}  # fmt: skip
Embed = Callable[[Tensor], Tensor]


# --- throughput


def networks(student: str) -> dict[str, nn.Module]:
    """A student of the course, and the same network of plain published layers with its weights."""
    from tests.benchmarks import bench_lipschitz as peers  # imports other libraries

    torch.manual_seed(0)
    if student == "small":
        course = LipSimNet.preset("small")
        published: nn.Module = peers.PublishedLipSim(224, *PUBLISHED["small"], course.out_features)
        peers.share(course, published)
        return {"course": course, "published": published}
    course = LipSimNet.preset("tiny")
    before, after = ([peers.PublishedSLLConv(64, 64) for _ in range(4)] for _ in range(2))
    published = nn.Sequential(
        nn.PixelUnshuffle(4), nn.ZeroPad3d((0, 0, 0, 0, 0, 16)), *before, nn.AvgPool2d(2, divisor_override=2), *after,
        nn.Flatten(), peers.PublishedSLLLinear(4096, 256), lipschitz.AOLLinear(4096, course.out_features),
    )  # fmt: skip
    kinds = (lipschitz.SLLConv2d, lipschitz.SLLLinear, lipschitz.AOLLinear)
    ours = [layer for layer in course.modules() if isinstance(layer, kinds)]
    theirs = [layer for layer in published if next(layer.parameters(), None) is not None]
    for layer, peer in zip(ours, theirs, strict=True):
        if isinstance(layer, lipschitz.AOLLinear):
            peer.load_state_dict(layer.state_dict())
        else:
            peers.share(layer, peer)
    return {"course": course, "published": published}


def training_step(network: nn.Module, images: Tensor, precision: str) -> tuple[Tensor, ...]:
    """Forward and backward pass; the gradients."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = network(images).float().square().mean()
    return torch.autograd.grad(loss, [p for p in network.parameters() if p.requires_grad], allow_unused=True)


def random_images(student: str, n: int) -> Tensor:
    """Images (n, 3, s, s) of a student's size."""
    size = 64 if student == "tiny" else 224
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def measure_throughput(student: str, batch: int, rounds: int) -> dict:
    """Images per second of all variants, from medians of interleaved rounds; their peak memory; that they agree."""
    models, images = networks(student), random_images(student, batch)
    with torch.no_grad():
        course, published = (models[name].train()(images) for name in ("course", "published"))
    error = ((course - published).norm() / published.norm()).item()
    if not error <= 1e-4:
        raise ValueError(f"{student} differs from the published layers by {error:.2g}")
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for turn in range(1 + rounds):  # the first is the warm-up
        for name in VARIANTS if turn % 2 else VARIANTS[::-1]:
            whose, precision = name.split()
            before = time.process_time()
            training_step(models[whose], images, precision)
            times[name].append(time.process_time() - before)
    return {
        "image_size": images.shape[2], "batch": batch, "rounds": rounds, "relative_error": round_off(error),
        "images_per_second": {name: round_off(batch / statistics.median(t[1:])) for name, t in times.items()},
        "peak_mb": {name: peak_memory(student, name, batch) for name in VARIANTS},
    }  # fmt: skip


def peak_memory(student: str, variant: str, batch: int) -> int:
    """Peak of one variant, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_distillation", "--memory", student, variant, str(batch)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=repo_root())
    return round(float(done.stdout))


def memory_of_one(student: str, variant: str, batch: int) -> float:
    """Megabytes that a training step needs on top of libraries, weights and images; for a fresh process."""
    whose, precision = variant.split()
    model, images = networks(student)[whose].train(), random_images(student, batch)
    process, done = psutil.Process(), threading.Event()
    seen = [process.memory_info().rss]

    def watch() -> None:  # the process's own record may be from before
        while not done.wait(0.001):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    training_step(model, images, precision)
    done.set()
    watcher.join()
    return (max(seen) - seen[0]) / 2**20


def throughput(settings: dict, only: list[str], earlier: dict) -> Iterator[dict]:
    """All students."""
    rows = earlier.get("networks", {})
    for student, numbers in settings.items():
        if wanted(student, only):
            rows[student] = measure_throughput(student, **numbers)
            yield {"networks": rows}


# --- teachers


def spread_out(data, n: int):
    """`n` triplets, spread evenly over the data."""
    return data[torch.arange(n) * len(data) // n]


def teachers(settings: dict, only: list[str], earlier: dict) -> Iterator[dict]:
    """What PCA does to distances, and how teachers decide simulated triplets."""
    measured = {"reduction": earlier.get("reduction", {}), "two_afc": earlier.get("two_afc", {})}
    ref, p0, *_ = spread_out(triplets.simulated("val"), settings["pairs"])
    pairs = {"distortions": (ref, p0), "crops": (ref, ref.roll(1, 0))}
    for net in settings["nets"]:
        if wanted(net, only):
            whole = distillation.whole_teacher(net)
            reduction = distillation.fitted_reduction(whole, max(settings["dims"]))
            measured["reduction"][net] = {
                kind: [
                    rounded(error._asdict())
                    for error in distillation.distance_errors(
                        zip(x.split(32), y.split(32), strict=True), whole.embed, reduction, settings["dims"]
                    )
                ]
                for kind, (x, y) in pairs.items()
            }
            yield measured
    if wanted("two_afc", only):
        ref, p0, p1, judge = spread_out(triplets.simulated("val"), settings["triplets"])
        first, second = load_teacher(MAIN), load_teacher(OTHERS[0])
        columns: dict[str, list[Tensor]] = {"pixel L2": [], MAIN: [], OTHERS[0]: [], "ensemble": [], "side by side": []}
        for images in (ref, p0, p1):
            a, b = (in_parts(teacher.embed, images) for teacher in (first, second))
            values = (pixels(images), a, b, joined(a, b), torch.cat([a, b], 1))
            for name, embedding in zip(columns, values, strict=True):
                columns[name].append(embedding)
        measured["two_afc"] = {
            name: round_off(two_afc_score((e - e0).norm(dim=1), (e - e1).norm(dim=1), judge))
            for name, (e, e0, e1) in columns.items()
        }
        yield measured


def joined(a: Tensor, b: Tensor) -> Tensor:
    """What the teacher "ensemble" makes of its members' embeddings."""
    return torch.cat([F.normalize(a), F.normalize(b)], 1) / 2**0.5


# --- students


def in_parts(embed: Embed, images: Tensor, size: int = 50) -> Tensor:
    """Embeddings of many images."""
    with torch.no_grad():
        return torch.cat([embed(part).float() for part in images.split(size)])


@dataclass
class Answers:
    """Embeddings of everything that an embedding is examined on."""

    far: Tensor  # held-out images
    near: list[Tensor]  # ref, p0, p1 of the triplets
    people: dict[str, Tensor]  # renderings of 100 materials, by lighting

    def distances(self) -> tuple[Tensor, Tensor]:
        """Of every reference to p0 and to p1."""
        ref, p0, p1 = self.near
        return (ref - p0).norm(dim=1), (ref - p1).norm(dim=1)

    def radius(self) -> Tensor:
        """Signed distance of every reference from the plane between p0 and p1; positive where p0 is closer."""
        ref, p0, p1 = (part.double() for part in self.near)
        apart = (p0 - p1).norm(dim=1)
        return ((ref - p1).square().sum(1) - (ref - p0).square().sum(1)) / (2 * apart.clamp_min(1e-30))


class Sheet:
    """Held-out images, simulated triplets and, where the data is there, materials that real people judged."""

    def __init__(self, images: int, n: int):
        self.images = distillation.embedded("val", images).images.float() / 255
        self.triplets = spread_out(triplets.simulated("val"), n)
        self.people: dict[str, tuple[Tensor, list[Tensor], Tensor]] = {}
        for lighting in materials.LIGHTINGS if PEOPLE.is_dir() else ():
            data = materials.triplets(PEOPLE, lighting)
            columns = [[str(path) for path in column] for column in (data.ref, data.p0, data.p1)]
            names = sorted({name for column in columns for name in column})
            place = {name: i for i, name in enumerate(names)}
            shown = [torch.tensor([place[name] for name in column]) for column in columns]
            images_64 = torch.stack([read_pixels(name, 64) for name in names]).float() / 255
            self.people[lighting] = images_64, shown, (data.judge > 0.5).float()

    def answers(self, embed: Embed) -> Answers:
        """Show everything to an embedding."""
        people = {lighting: in_parts(embed, images) for lighting, (images, *_) in self.people.items()}
        return Answers(in_parts(embed, self.images), [in_parts(embed, part) for part in self.triplets[:3]], people)

    def scores(self, own: Answers, teacher: Answers, certified: bool = True) -> dict[str, Any]:
        """How well `own` answers are those of the teacher, of simulated observers and of people."""
        far, (d0, d1) = torch.pdist(own.far), own.distances()
        t0, t1 = teacher.distances()
        right = (t1 < t0).float()
        radius = own.radius() * torch.where(t0 < t1, 1, -1)
        scores: dict[str, Any] = {
            "spearman": spearman(far, torch.pdist(teacher.far)),
            "spearman_near": spearman(torch.cat([d0, d1]), torch.cat([t0, t1])),
            "same_decision": two_afc_score(d0, d1, right),
            "agreement": two_afc_score(d0, d1, self.triplets.judge),
            "distance": far.mean().item(), "norm": own.far.norm(dim=1).mean().item(),
            "median_radius": radius.abs().median().item() if certified else None,
            "certified": {str(r): (radius > r / 255).double().mean().item() for r in RADII} if certified else None,
        }  # fmt: skip
        if self.people:
            scores["people"] = {lighting: self._majority(own.people[lighting], lighting) for lighting in self.people}
        return rounded(scores)

    def _majority(self, points: Tensor, lighting: str) -> float:
        (ref, p0, p1), votes = self.people[lighting][1:]
        distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        return two_afc_score(distance[ref, p0], distance[ref, p1], votes)


def own_mean(embedding: Tensor, target: Tensor) -> Tensor:
    """The relational loss that fails: distances divided by their own mean, so that any scale is as good."""
    found, aim = (apart / apart.mean().clamp_min(1e-12) for apart in map(torch.pdist, (embedding, target)))
    return torch.linalg.vector_norm(found - aim) / torch.linalg.vector_norm(aim)


def train_student(teacher: Teacher, data: Any, recipe: Recipe, exam: Any = None) -> tuple[nn.Module, dict, list[dict]]:
    """A tiny student of 512 numbers, what a row says about its training, and its history."""
    cached_targets(teacher, data)  # not counted below
    with mock.patch.dict(LOSSES, {"own mean": own_mean}):
        before = time.process_time()
        done = distillation.distill(new_student("tiny", 512, recipe.seed), teacher, data, recipe, exam=exam)
        seconds = time.process_time() - before
    about = {
        "loss": recipe.loss, "scale": round_off(recipe.scale),
        "steps": recipe.epochs * (len(data) // recipe.batch_size), "seconds": round(seconds),
        "losses": [round_off(record["loss"]) for record in done.history], "bound": upper_bound(done.student),
    }  # fmt: skip
    return done.student, about, done.history


def upper_bound(student: nn.Module) -> float:
    """Of the Lipschitz constant, with all its digits."""
    return student.upper_bound()  # type: ignore[operator]


def untrained() -> nn.Module:
    """What every student was at the start."""
    return new_student("tiny", 512, SHORT.seed).eval()


class Teaching:
    """Teachers, loaded and asked when they are needed."""

    def __init__(self, sheet: Sheet):
        self.sheet = sheet
        self._answers: dict[str, Answers] = {}

    def answers(self, name: str) -> Answers:
        """What a teacher says to everything on the sheet; the ensemble repeats its members."""
        if name not in self._answers and name == "ensemble":
            a, b = (self.answers(member) for member in (MAIN, OTHERS[0]))
            people = {lighting: joined(a.people[lighting], b.people[lighting]) for lighting in a.people}
            near = [joined(*pair) for pair in zip(a.near, b.near, strict=True)]
            self._answers[name] = Answers(joined(a.far, b.far), near, people)
        if name not in self._answers:
            self._answers[name] = self.sheet.answers(load_teacher(name).embed)
        return self._answers[name]

    def row(self, embed: Embed, teacher: str, **about) -> dict[str, Any]:
        """Scores of an embedding against a teacher."""
        scores = self.sheet.scores(self.sheet.answers(embed), self.answers(teacher))
        return {"teacher": teacher, "loss": None, "scale": None} | about | scores

    def own_row(self, teacher: str) -> dict[str, Any]:
        """A teacher against itself: what its students could reach."""
        scores = self.sheet.scores(self.answers(teacher), self.answers(teacher), certified=False)
        return {"teacher": teacher, "loss": None, "scale": None} | scores


def students(settings: dict, only: list[str], earlier: dict) -> Iterator[dict]:
    """Every loss at every scale with one teacher, one loss with every teacher."""
    teaching = Teaching(Sheet(settings["images"], settings["triplets"]))
    data = distillation.embedded("train", settings["crops"])

    def trained(teacher: str, loss: str, scale: float | None = None) -> dict[str, Any]:
        master = load_teacher(teacher)
        if scale is None:  # as far apart as the main teacher's
            scale = cached_targets(load_teacher(MAIN), data).spread() / cached_targets(master, data).spread()
        student, about, _ = train_student(master, data, replace(settings["recipe"], loss=loss, scale=scale))
        return teaching.row(student, teacher, **about)

    jobs: dict[str, Callable[[], dict]] = {
        "pixel L2": lambda: teaching.row(pixels, MAIN),
        "untrained": lambda: teaching.row(untrained(), MAIN),
        f"teacher {MAIN}": lambda: teaching.own_row(MAIN),
    }
    with mock.patch.dict(LOSSES, {"own mean": own_mean}):  # a recipe asks whether there is such a loss
        for loss in ("relational", "published"):
            for scale in SCALES:
                jobs[f"{loss} {scale:g}"] = partial(trained, MAIN, loss, scale)
        for loss in ("cosine", "own mean"):
            jobs[loss] = partial(trained, MAIN, loss, 1.0)
        for name in OTHERS:
            jobs[f"pixel L2, {name}"] = partial(teaching.row, pixels, name)
            jobs[f"teacher {name}"] = partial(teaching.own_row, name)
            jobs[f"relational, {name}"] = partial(trained, name, "relational")
        rows = earlier.get("rows", {})
        for name in (bar := tqdm([job for job in jobs if wanted(job, only)], unit="row")):
            bar.set_description(name)
            rows[name] = jobs[name]()
            yield {"rows": {job: rows[job] for job in jobs if job in rows}}


class Examiner(distillation.Exam):
    """An exam for the history of a run that asks everything that is on the sheet."""

    def __init__(self, teaching: Teaching, teacher: str):
        self.teaching, self.asked = teaching, teacher  # all that `scores` needs

    def scores(self, embed: Embed) -> dict[str, Any]:
        """The numbers of a row, all on one level."""
        row = self.teaching.row(embed, self.asked)
        nested = {"certified": row.pop("certified"), "people": row.pop("people", {})}
        flat = {f"{key} {part}": value for key, values in nested.items() for part, value in values.items()}
        return {key: value for key, value in (row | flat).items() if isinstance(value, float)}


def longer(settings: dict, only: list[str], earlier: dict) -> Iterator[dict]:
    """One run that is longer."""
    teaching = Teaching(Sheet(settings["images"], settings["triplets"]))
    data, teacher = distillation.embedded("train", settings["crops"]), settings["teacher"]
    exam = Examiner(teaching, teacher)
    student, about, history = train_student(load_teacher(teacher), data, settings["recipe"], exam)
    yield {"row": teaching.row(student, teacher, **about), "history": rounded(history)}


# --- all of it

PARTS = {"throughput": throughput, "teachers": teachers, "students": students, "longer": longer}


def wanted(name: str, only: list[str]) -> bool:
    """Whether a row is to be measured."""
    return not only or any(word in name for word in only)


def round_off(value: float) -> float:
    """Four digits."""
    return float(f"{value:.4g}")


def rounded(value: Any) -> Any:
    """Floats with four digits, wherever they are."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round_off(value) if isinstance(value, float) else value


def machine() -> dict[str, Any]:
    """Processor, threads and versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    return {
        "cpu": named[0] if named else platform.processor(),
        "bf16_instructions": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags.split()],
        "threads": 1, "seconds": "of processor time",
        "versions": {"torch": importlib.metadata.version("torch")},
    }  # fmt: skip


def provenance(settings: dict) -> dict[str, Any]:
    """Where a part was measured, and how."""
    plain = {key: asdict(value) if isinstance(value, Recipe) else value for key, value in settings.items()}
    return json.loads(json.dumps({"machine": machine(), "settings": plain}))


def main(arguments: list[str] | None = None) -> None:
    """Measure part by part, write the JSON file and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").replace("``", ""))
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--only", nargs="+", default=[], help="parts of rows' names; the others are kept")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only shows that it works")
    parser.add_argument("--output", type=Path, help=f"default: {RESULTS.name} beside this file; none with --quick")
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.memory:
        student, variant, batch = options.memory
        print(memory_of_one(student, variant, int(batch)))
        return
    output = options.output or (None if options.quick else RESULTS)
    if {"students", "longer"} & {*options.parts} and not PEOPLE.is_dir():
        print(f"no judgments of real people in {os.path.relpath(PEOPLE)}: rows go without them", file=sys.stderr)
    everything = QUICK if options.quick else FULL
    for part in options.parts:
        about = provenance(everything[part])
        measured: dict = {}
        earlier = stored(output).get(part, {}) if options.only else {}
        if earlier and earlier["about"] != about:
            raise ValueError(f"{output} has {part} measured in another way; measure all of it again")
        for measured in PARTS[part](everything[part], options.only, earlier):
            if output:  # read again, for another part may be measured at the same time
                results = {"command": COMMAND} | stored(output) | {part: {"about": about, **measured}}
                ordered = {key: results[key] for key in ("command", *PARTS) if key in results}
                write_atomically(output, (json.dumps(ordered, indent=1, ensure_ascii=False) + "\n").encode())
        print(table(measured) if part == "students" else json.dumps(measured, indent=1, ensure_ascii=False))


def stored(output: Path | None) -> dict[str, Any]:
    """What was measured before."""
    return json.loads(output.read_text("utf-8")) if output and output.exists() else {}


def table(part: dict) -> str:
    """Rows of students in Markdown."""
    heads = ["spearman", "same_decision", "agreement", "distance", "norm", "median_radius"]
    titles = ["student", *heads, *(f"{r}/255" for r in RADII), *materials.LIGHTINGS, "seconds"]
    lines = [f"| {' | '.join(titles)} |", "|---|" + "---:|" * (len(titles) - 1)]
    for name, row in part["rows"].items():
        cells = [row[head] for head in heads] + [(row["certified"] or {}).get(str(r)) for r in RADII]
        cells += [row.get("people", {}).get(lighting) for lighting in materials.LIGHTINGS] + [row.get("seconds")]
        lines.append(f"| {name} | {' | '.join('' if cell is None else f'{cell:.3g}' for cell in cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
