"""How strong and how fast the attacks of chapter 09 are, beside foolbox, torchattacks and pyautoattack.

All attack the 2AFC decisions of one metric (LPIPS st-alex) on 64 simulated test triplets of 64 x 64 that it decides
as the simulated majority does; only the reference is changed. Everybody gets the same number of gradients per image,
few enough for 2 cores: STEPS inside a ball, NEAREST for the smallest change, QUERIES for Square without gradients.
Images are judged at the end by the metric itself, and count only inside the ball. Times are processor times of one
thread, so that other programs do not change them.

Working example: ``python -m tests.benchmarks.bench_attacks`` (three quarters of an hour); ``--parts linf``
measures one part again and keeps the others; ``--images 4 --output quick.json`` is a trial. The result goes to
attacks.json beside this file.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from course_lib.attacks import Ball, apgd, attack_2afc, flip, harden, named, sizes
from course_lib.data import triplets
from course_lib.judgments import Metric, load
from course_lib.lpips import LPIPS
from course_lib.paths import write_atomically
from tests.benchmarks import attack_peers as peers

RESULT = Path(__file__).with_name("attacks.json")
RADII = {"l2": (0.5, 1.0, 2.0), "linf": (2 / 255, 4 / 255, 8 / 255)}
STEPS, NEAREST, QUERIES = 30, 60, 300
OURS = {"apgd-margin": {"steps": STEPS}, "pgd": {"steps": STEPS}, "worst-case": {"steps": STEPS, "queries": 50}}
OURS_NEAREST = {
    "fab": {"steps": NEAREST},
    "ddn": {"steps": NEAREST},
    "carlini-wagner": {"steps": NEAREST // 4, "search_steps": 4, "learning_rate": 0.02},
    "deepfool": {"steps": NEAREST},
}
FOOLBOX_DEFAULT = 0.025  # step of foolbox's PGD as a share of eps; the peers' rows have 2.5 eps / STEPS


@dataclass
class Task:
    """Triplets that the metric decides as the majority does."""

    metric: Metric
    ref: Tensor
    p0: Tensor
    p1: Tensor
    label: Tensor

    @classmethod
    def choose(cls, metric: Metric, data, n: int) -> "Task":
        """The first n that are decided rightly of 2 n, spread evenly over the data."""
        ref, p0, p1, judge = data[torch.arange(2 * n) * len(data) // (2 * n)]
        with torch.no_grad():
            d0, d1 = metric(ref, p0), metric(ref, p1)
        right = (((d1 < d0) == (judge > 0.5)) & (d0 != d1) & (judge != 0.5)).nonzero()[:n, 0]
        if len(right) < n:
            raise ValueError(f"only {len(right)} of {2 * n} triplets are decided as the majority does; ask for fewer")
        return cls(metric, *(part[right] for part in (ref, p0, p1)), label=(judge[right] > 0.5).long())

    @torch.no_grad()
    def standing(self, images: Tensor) -> Tensor:
        """Where the metric itself still gives the right answer, or images left [0, 1]; (n,) bool."""
        inside = (images.flatten(1).amin(1) >= -1e-6) & (images.flatten(1).amax(1) <= 1 + 1e-6)
        images = images.nan_to_num().clamp(0, 1)
        gap = self.metric(images, self.p0) - self.metric(images, self.p1)
        return (torch.where(self.label == 1, gap, -gap) > 0) | ~inside

    def measure(self, norm: str, work: Callable[[], tuple[Tensor, float, float]]) -> dict:
        """Processor time and passes per image of an attack, and the sizes of its changes (infinite where it failed)."""
        start = time.process_time()
        images, forwards, backwards = work()
        seconds = time.process_time() - start
        size = sizes(images.double() - self.ref.double(), norm)
        size = torch.where(self.standing(images), torch.inf, size)
        n = len(self.ref)
        return {"size": size, "ms": 1000 * seconds / n, "forwards": forwards / n, "backwards": backwards / n}

    def ours(self, name: str, norm: str, eps: float, options: dict) -> dict:
        """One of our attacks by name."""

        def work():
            objective = flip(self.metric, self.ref, self.p0, self.p1, label=self.label)
            found = named(name, norm).run(objective, eps, torch.Generator().manual_seed(0), **options)
            return found.images, found.forwards.sum().item(), found.backwards.sum().item()

        return self.measure(norm, work)

    def peer(self, attack: peers.Peer, norm: str, *arguments) -> dict:
        """One of a library's attacks."""

        def work():
            decision = peers.Decision(self.metric, self.ref, self.p0, self.p1)
            return attack(decision, self.label, norm, *arguments), decision.forwards, decision.backwards

        return self.measure(norm, work)


def report(name: str, measured: dict, eps: float | None = None) -> dict:
    """A row for the table and the file; an attack inside a ball is measured by how many decisions stand."""
    size = measured.pop("size")
    numbers = {key: round(value, 1) for key, value in measured.items()}
    if eps is None:
        numbers = {"median": float(f"{size.quantile(0.5).item():.4g}"), "failed": int(size.isinf().sum()), **numbers}
    else:  # a thousandth of room for libraries that project with rounding errors
        numbers = {"standing": int((size > eps * 1.001).sum()), **numbers}
    print(f"  {name:34}", *(f"{key} {value:<8}" for key, value in numbers.items()), flush=True)
    return numbers


def in_the_ball(task: Task, norm: str) -> dict:
    """How many decisions stand at each radius, at STEPS gradients per image."""
    rows = {}
    for eps in RADII[norm]:
        print(f"{norm} {eps:.4g}: decisions of {len(task.ref)} that stand; per image ms and passes")
        row = rows[f"{eps:.4g}"] = {}
        for name, options in OURS.items():
            row[name] = report(name, task.ours(name, norm, eps, options), eps)
        for name, attack in peers.IN_THE_BALL.items():
            row[name] = report(name, task.peer(attack, norm, eps, STEPS), eps)
        if norm == "l2":  # a known trap
            measured = task.peer(peers.foolbox_pgd, norm, eps, 50, FOOLBOX_DEFAULT)
            row["foolbox PGD, default step, 50 steps"] = report("foolbox PGD, default step, 50 steps", measured, eps)
        best = min(row[name]["standing"] for name in peers.IN_THE_BALL)
        met = row["apgd-margin"]["standing"] <= best + 1
        print(f"  apgd-margin: {row['apgd-margin']['standing']}, best peer: {best}, {'met' if met else 'MISSED'}")
    return rows


def nearest(task: Task, norm: str) -> dict:
    """Median size of the smallest changes, at NEAREST gradients per image."""
    print(f"smallest change, {norm}: median; per image ms and passes")
    rows = {}
    for name, options in OURS_NEAREST.items():
        if norm in named(name).norms:
            rows[name] = report(name, task.ours(name, norm, 1.0, options))
    for name, attack in peers.NEAREST.items():
        if norm in peers.NORMS_OF.get(name, (norm,)):
            if name == "foolbox Brendel-Bethge":  # compile it outside the measurement
                task.peer(attack, norm, 2)
            rows[name] = report(name, task.peer(attack, norm, NEAREST))
    ours = min(row["median"] for name, row in rows.items() if name in OURS_NEAREST)
    best = min(row["median"] for name, row in rows.items() if name in peers.NEAREST)
    met = ours <= 1.02 * best
    print(f"  our smallest median {ours}, the best peer {best}: {'met' if met else 'MISSED'}")
    return rows


def black_box(task: Task) -> dict:
    """Square with QUERIES queries, at the largest radius of each norm."""
    rows = {}
    for norm, radii in RADII.items():
        eps = radii[-1]
        print(f"Square, {norm} {eps:.4g}: decisions of {len(task.ref)} that stand")
        row = rows[norm] = {"square": report("square", task.ours("square", norm, eps, {"queries": QUERIES}), eps)}
        for name, attack in peers.BLACK_BOX.items():
            row[name] = report(name, task.peer(attack, norm, eps, QUERIES), eps)
    return rows


def hardening(task: Task) -> dict:
    """What adversarial training of the trunk gains over training on clean images, in 100 steps of 16 triplets."""
    data = triplets.simulated("train")
    data = data.select(torch.arange(1600) * len(data) // 1600)
    rows: dict[str, dict] = {"recipe": {"triplets": 1600, "eps": 0.5, "learning_rate": 3e-4, "attack_steps": 3}}
    ball = Ball("l2", rows["recipe"]["eps"])
    metrics = {"as published": LPIPS("st-alex")}
    for name, steps in (("trained on clean images", 0), ("hardened", rows["recipe"]["attack_steps"])):
        metrics[name], _ = harden(metrics["as published"], data, ball, attack_steps=steps, learning_rate=3e-4)
    ref, p0, p1, judge = triplets.simulated("test")[torch.arange(len(task.ref)) * 2000 // len(task.ref)]
    print(f"hardening: decisions of {len(ref)} as the majority's that stand, APGD of {STEPS} steps, by L2 eps")
    for name, metric in metrics.items():
        objective = flip(Metric(name, metric), ref, p0, p1, label=(judge > 0.5).long())
        stand = {"0": int((objective.value(ref) < 0).sum())}
        for eps in (0.25, 0.5, 1.0, 2.0):
            stand[f"{eps:g}"] = int((~apgd(objective, Ball("l2", eps), steps=STEPS).success).sum())
        rows[name] = stand
        print(f"  {name:34}", stand, flush=True)
    return rows


def metrics(task: Task) -> dict:
    """2AFC scores under attack of four metrics, on twice as many triplets, all that were drawn: right or wrong."""
    data, n = triplets.simulated("test"), 2 * len(task.ref)
    data = data.select(torch.arange(n) * len(data) // n)
    rows: dict[str, dict] = {"recipe": {"triplets": n, "attack": "ddn", "steps": 20}}
    print(f"metrics: 2AFC score of {n} triplets, DDN of 20 steps, by L2 eps")
    for name in ("l2", "ssim", "lpips-st-alex", "lpips-st-vgg"):
        table = attack_2afc(name, data, eps=[0.1, 0.25, 0.5, 1.0, 2.0, 4.0], attack="ddn", steps=20).table()
        rows[name] = {
            f"{row.eps:g}": [round(v, 4) for v in (row.score, row.score_low, row.score_high)]
            for row in table.itertuples()
        }
        print(f"  {name:34}", {eps: values[0] for eps, values in rows[name].items()}, flush=True)
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Measure and write, part by part."""
    parts: dict[str, Callable[[Task], dict]] = {
        "l2": lambda task: in_the_ball(task, "l2"),
        "linf": lambda task: in_the_ball(task, "linf"),
        "nearest l2": lambda task: nearest(task, "l2"),
        "nearest linf": lambda task: nearest(task, "linf"),
        "square": black_box,
        "metrics": metrics,
        "hardening": hardening,
    }
    parser = argparse.ArgumentParser(description=(__doc__ or "").replace("``", ""))
    parser.add_argument("--parts", nargs="+", choices=list(parts), default=list(parts))
    parser.add_argument("--metric", default="lpips-st-alex", help="as the command attack takes it")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--output", type=Path, default=RESULT)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data = triplets.simulated("test")
    task = Task.choose(load(given.metric), data, given.images)
    for part in given.parts:
        measured = parts[part](task)
        result = json.loads(given.output.read_text()) if given.output.exists() else {}
        about = {
            "command": "python -m tests.benchmarks.bench_attacks", "metric": given.metric, "data": data.name,
            "images": len(task.ref), "steps": STEPS, "nearest_steps": NEAREST, "queries": QUERIES,
        }  # fmt: skip
        if any(result.get(key, value) != value for key, value in about.items()):
            raise ValueError(f"{given.output} was measured with other settings; name another --output")
        result |= about | {"torch": torch.__version__.split("+")[0], "threads": torch.get_num_threads(), part: measured}
        write_atomically(given.output, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
