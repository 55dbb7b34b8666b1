"""What makes a metric certifiable: losses and margins at equal cost, the shipped metric, attacks on the proof, cost.

Working example: ``make bench-certification`` (half an hour of one core), or
``python -m tests.benchmarks.bench_certification --parts losses --only pixel hinge`` to measure some rows of a part
again and keep the rest, or ``--quick`` for tiny sizes, which only shows that it works. The result goes to
certification.json beside this file. One thread; seconds are of processor time, so that other programs do not change
them. Networks that were trained stay in the cache, so that what was stopped goes on; ``--anew`` trains them again.
Every network is a *single run* with seed 0: differences of a point or two between rows are within chance.

Right answers are of two kinds: "st-alex", the shipped decisions of shift-tolerant LPIPS-AlexNet, and "votes", the
majority of *simulated* observers. Radii are L2 of pixels in [0, 1]; their keys are "36/255", ..., "2".

losses: ``rows``, by name. "pixel L2"; then for each network, "scattering" (without SLL layers) and "tiny" (like the
    published one), "NETWORK, untrained" and "NETWORK, LOSS": "radius 1", "radius 1 and 5" (margins), "radius 1, votes"
    (learnt from simulated votes instead), "hinge 0.2", "hinge 0.5" (the published loss), "distilled, hinge 0.2" and
    "distilled, hinge 0.2, appended" (a constant 1). Each row has ``kind``, ``loss``, ``margins``; ``scores``: for both
    kinds of right answers "natural", and what the *sound* certificate certifies at each radius; ``norm``, median
    |f(ref)|, and ``below_1``, share of references below 1; ``median_radius``; ``people``: share of 21,406 triplets of
    materials where it sides with the majority of *real people*, for the renderings "ennis" and "stpeters" (absent
    without the data); if trained: ``steps``, ``seconds`` (with those of distillation), ``bound``, of the Lipschitz
    constant from above. Cosine rows also have ``claimed``: what the published formula claims (right answers: st-alex);
    and ``over_claimed``: at ``eps``, where most of it is wrong, for ``n`` right decisions it claims eps and the sound
    radius is smaller; of ``attacked`` ones, an attack overturns ``inside_eps`` and ``inside_claim``, with changes
    smaller than eps, and smaller than the radius claimed for the triplet.
margins: ``rows``: "pixel L2", and "0.5", "1", ... for a radius hinge with this margin; as above.
shipped: ``rows``: "shipped", "untrained", "pixel L2" and "st-alex", each with ``kind``, ``norm``, ``people``, and
    ``scores``: for both kinds of right answers a list of {eps, share, low, high}, natural at eps 0, certified above it,
    with 95 % bootstrap intervals over photographs (certified is 0 for st-alex, which is not Lipschitz); ``attacked``:
    {n, natural, "36/255", ...}: share of n triplets still right by st-alex under an attack (``ddn``), with "certified"
    on the same ones; ``card`` of the shipped one: its SHA-256 and command.
soundness: ``decisions``, by metric: ``attacked`` triplets, each inside its own radius, of which ``flipped`` changed;
    ``uncertified`` were not attacked, having radius 0. "published formula" attacks the radii that it claims for the
    network "tiny, hinge 0.2": there the same attack has to succeed. ``intervals``, by metric: ``attacked`` pairs, each
    pushed up and down, of which ``escaped``; and ``used``: median share of the interval's upper and lower half that was
    reached. ``strength``, by metric: ``ratio``: median of the smallest change found, over the radius, ``found`` of how
    many; and ``further``: share that the attack of ``decisions`` overturns at multiples of the radius.
cost: by network ``ratio``, certify over the plain forward pass of the same triplets, and seconds of both; ``peak_mb``
    of certify on top of libraries, network and data, for different numbers of triplets.
"""

import argparse
import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from tqdm import tqdm

from course_lib import distillation, judgments
from course_lib.attacks import attack_2afc, ddn, flip, sizes
from course_lib.certification import (
    Certified,
    CertifiedMetric,
    Recipe,
    append_one,
    certify,
    finetune,
    labels,
    pixel_l2,
    radii,
)
from course_lib.certification.command import open_metric
from course_lib.data import materials, triplets
from course_lib.data.pictures import read_pixels
from course_lib.data.triplets import Triplets
from course_lib.judgments import Metric
from course_lib.lipschitz import LipSimNet, upper_bound
from course_lib.paths import cache_dir, repo_root, write_atomically

RESULTS = Path(__file__).with_name("certification.json")
PROGRAM = "python -m tests.benchmarks.bench_certification"
PEOPLE = repo_root().parent / "shared" / "data" / "material_similarity"
EPS = {"36/255": 36 / 255, "72/255": 72 / 255, "108/255": 108 / 255, "0.5": 0.5, "1": 1.0, "2": 2.0}
TEACHER = "st-alex"
Earlier = Callable[[], dict[str, Any]]
NETWORKS: dict[str, Callable[[], LipSimNet]] = {
    "scattering": lambda: LipSimNet.scattering((0, 0)),
    "tiny": LipSimNet.tiny,
}
MARGINS = (0.5, 1.0, 2.0, 4.0, 8.0)
TRAINING: dict[str, Any] = {
    "triplets": 6400, "crops": 3200,
    "recipe": Recipe(epochs=3, precision="bf16"),
    "distilling": replace(distillation.LAPTOP, epochs=3, precision="bf16"),
}  # fmt: skip
QUICK_TRAINING: dict[str, Any] = {
    "triplets": 8, "crops": 8,
    "recipe": replace(TRAINING["recipe"], epochs=1, batch_size=4),
    "distilling": replace(TRAINING["distilling"], epochs=1, batch_size=4),
}  # fmt: skip
FULL: dict[str, Any] = {
    "losses": {"training": TRAINING, "test": 2000, "attacked": 64, "attack_steps": 40},
    "margins": {"training": TRAINING, "test": 2000, "attacked": 64, "attack_steps": 40},
    "shipped": {"test": 2000, "attacked": 100, "attack_steps": 30, "resamples": 1000},
    "soundness": {
        "training": TRAINING, "split": "all", "triplets": 10_500, "fewer": 1000, "steps": 10, "eps": 0.5,
        "strength": 100, "strength_steps": 40, "further": (1.25, 1.5, 2.0, 3.0),
    },
    "cost": {"triplets": 192, "rounds": 5, "memory": (500, 5000)},
}  # fmt: skip
QUICK: dict[str, Any] = {
    "losses": {"training": QUICK_TRAINING, "test": 8, "attacked": 2, "attack_steps": 3},
    "margins": {"training": QUICK_TRAINING, "test": 8, "attacked": 2, "attack_steps": 3},
    "shipped": {"test": 8, "attacked": 2, "attack_steps": 3, "resamples": 10},
    "soundness": {
        "training": QUICK_TRAINING, "split": "val", "triplets": 12, "fewer": 6, "steps": 2, "eps": 0.5,
        "strength": 3, "strength_steps": 5, "further": (2.0,),
    },
    "cost": {"triplets": 4, "rounds": 1, "memory": ()},
}  # fmt: skip


# --- networks


class Appended(nn.Module):
    """A network whose embeddings get a constant 1 at the end, which makes no distance longer."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings that are nowhere shorter than 1."""
        return append_one(self.network(images))

    def upper_bound(self) -> float:
        """That of the network."""
        return upper_bound(self.network)


@dataclass(frozen=True)
class Run:
    """How a network comes to be trained."""

    network: str
    recipe: Recipe
    votes: bool = False
    distilled: bool = False

    def metric(self, network: nn.Module) -> CertifiedMetric:
        """The metric that the loss was about."""
        kind = "cosine" if self.recipe.loss == "hinge" else self.recipe.kind
        return CertifiedMetric(Appended(network) if self.recipe.appended else network, kind).eval()


def untrained(name: str) -> LipSimNet:
    """A network with the weights of seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NETWORKS[name]().eval()


class Workshop:
    """Trains networks, and keeps them.

    Args:
        settings: data and recipes.
        anew: train also what is in the cache.
    """

    def __init__(self, settings: dict[str, Any], anew: bool = False):
        self.settings, self.anew = settings, anew

    @functools.cached_property
    def data(self) -> Triplets:
        """Simulated triplets to learn from, decided by the teacher."""
        return spread_out(labels.simulated("train"), self.settings["triplets"])

    def runs(self) -> dict[str, Run]:
        """The rows of part losses that are trained, by what follows the network's name."""
        radius = self.settings["recipe"]
        hinge = replace(radius, loss="hinge", kind="cosine", margins=(0.2,))
        recipes: dict[str, tuple[Recipe, dict]] = {
            "radius 1": (radius, {}),
            "hinge 0.2": (hinge, {}),
            "distilled, hinge 0.2": (hinge, {"distilled": True}),
            "distilled, hinge 0.2, appended": (replace(hinge, appended=True), {"distilled": True}),
            "hinge 0.5": (replace(hinge, margins=(0.5,)), {}),
            "radius 1 and 5": (replace(radius, margins=(1.0, 5.0)), {}),
            "radius 1, votes": (radius, {"votes": True}),
        }
        return {
            f"{name}, {loss}": Run(name, recipe, **options)
            for name in NETWORKS
            for loss, (recipe, options) in recipes.items()
        }

    def trained(self, run: Run) -> tuple[CertifiedMetric, dict[str, Any]]:
        """A metric, from the cache if it was trained before, and what is to be said of its training."""
        network = untrained(run.network)
        seconds = self._distil(network, run.network) if run.distilled else 0.0
        data = self.data
        if run.votes:
            data = spread_out(triplets.simulated("train"), self.settings["triplets"])
        own = self._cached(
            {**asdict(run), "triplets": self.settings["triplets"]}, network,
            lambda: finetune(network, data, run.recipe, progress=True), run.distilled,
        )  # fmt: skip
        steps = run.recipe.epochs * -(-len(data) // run.recipe.batch_size)
        about = {"network": run.network, "loss": run.recipe.loss, "margins": list(run.recipe.margins)}
        about |= {"learnt": "votes" if run.votes else TEACHER, "appended": run.recipe.appended}
        about |= {"distilled": run.distilled, "steps": steps, "seconds": round(seconds + own, 1)}
        return run.metric(network.eval()), about

    def _distil(self, network: nn.Module, name: str) -> float:
        data = distillation.embedded("train", self.settings["crops"])
        recipe = self.settings["distilling"]
        return self._cached(
            {"network": name, "crops": self.settings["crops"], **asdict(recipe)}, network,
            lambda: distillation.distill(network, distillation.load_teacher(TEACHER), data, recipe, progress=True),
        )  # fmt: skip

    def _cached(self, settings: dict, network: nn.Module, learn: Callable[[], object], after: bool = False) -> float:
        """Train in place, or take the weights that the same settings gave before; processor seconds of training."""
        if after:
            settings = settings | {"before": asdict(self.settings["distilling"]), "crops": self.settings["crops"]}
        with torch.no_grad():  # another network, even if it has the same name and weights of the same shape
            grey = untrained(settings["network"])(torch.linspace(0, 1, 12288).reshape(1, 3, 64, 64))
        known = json.dumps([settings, torch.__version__, f"{grey.norm():.5g} {grey.std():.5g}"], sort_keys=True)
        key = hashlib.sha256(known.encode()).hexdigest()[:16]
        path = cache_dir() / "bench-certification" / f"{settings['network']}-{key}.safetensors"
        if path.is_file() and not self.anew:
            return CertifiedMetric.load(path, network).card["seconds"]
        start = time.process_time()
        learn()
        seconds = time.process_time() - start
        path.parent.mkdir(parents=True, exist_ok=True)
        CertifiedMetric(network.eval()).save(path, seconds=seconds)
        return seconds


# --- questions


def spread_out(data: Triplets, n: int) -> Triplets:
    """`n` triplets, spread evenly over the data."""
    return data if n >= len(data) else data.select(torch.arange(n) * len(data) // n)


class Sheet:
    """Simulated test triplets with two kinds of right answers and, where the data is there, materials."""

    def __init__(self, n: int):
        self.data = spread_out(labels.simulated("test"), n)
        self.answers = {TEACHER: self.data.judge, "votes": spread_out(triplets.simulated("test"), n).judge}
        self.people: dict[str, tuple[Tensor, list[Tensor], Tensor]] = {}
        for lighting in materials.LIGHTINGS if PEOPLE.is_dir() else ():
            data = materials.triplets(PEOPLE, lighting)
            columns = [[str(path) for path in column] for column in (data.ref, data.p0, data.p1)]
            names = sorted({name for column in columns for name in column})
            place = {name: i for i, name in enumerate(names)}
            images = torch.stack([read_pixels(name, 64) for name in names]).float() / 255
            shown = [torch.tensor([place[name] for name in column]) for column in columns]
            self.people[lighting] = images, shown, data.judge > 0.5

    def certify(self, metric: CertifiedMetric, name: str) -> Certified:
        """Decisions and radii; right answers: the teacher's."""
        return certify(metric, self.data, tuple(EPS.values()), name=name)

    def by_people(self, metric: Any) -> dict[str, float]:
        """Share of triplets where a metric sides with most people."""
        shares = {}
        for lighting, (images, (ref, p0, p1), for_p1) in self.people.items():
            with torch.no_grad():
                if isinstance(metric, CertifiedMetric):
                    e = metric.embed(images)
                    rows = [metric.between(one.expand_as(e), e) for one in e.split(1)]
                else:
                    rows = [metric(one.expand_as(images), images) for one in images.split(1)]
            d = torch.stack(rows)
            shares[lighting] = ((d[ref, p1] < d[ref, p0]) == for_p1).double().mean().item()
        return {"people": shares} if shares else {}

    def row(self, metric: CertifiedMetric, name: str, settings: dict) -> dict[str, Any]:
        """Everything that part losses says of a metric, without its training."""
        found = self.certify(metric, name)
        scores = {}
        for whose, right in self.answers.items():
            one = replace(found, labels=right)
            scores[whose] = {"natural": one.accuracy()} | {key: one.accuracy(eps) for key, eps in EPS.items()}
        row = {
            "kind": metric.kind, "scores": scores, "norm": found.norm.median().item(),
            "below_1": (found.norm < 1).double().mean().item(),
            "median_radius": found.radius.abs().median().item(), "bound": metric.lipschitz,
        }  # fmt: skip
        if metric.kind == "cosine":
            claims = published(found, metric)
            row["claimed"] = {key: claims.accuracy(eps) for key, eps in EPS.items()}
            row["over_claimed"] = self.over_claimed(metric, found, claims, settings)
        return row | self.by_people(metric)

    def over_claimed(self, metric: CertifiedMetric, found: Certified, claims: Certified, settings: dict) -> dict:
        """How many decisions the published formula calls safe wrongly, and how many of these an attack overturns."""
        wrong = {key: claims.certified(eps) & ~found.certified(eps) for key, eps in EPS.items()}
        key = max(wrong, key=lambda one: int(wrong[one].sum()))
        chosen = wrong[key].nonzero()[:, 0]
        result = {"eps": key, "n": len(chosen)}
        if len(chosen):
            chosen = chosen[torch.arange(settings["attacked"]) * len(chosen) // settings["attacked"]].unique()
            size = smallest_changes(metric, self.data.select(chosen), settings["attack_steps"])
            result |= {
                "attacked": len(chosen), "inside_eps": int((size < EPS[key]).sum()),
                "inside_claim": int((size < claims.radius[chosen].double().abs()).sum()),
            }  # fmt: skip
        return result


def published(found: Certified, metric: CertifiedMetric) -> Certified:
    """What the published formula claims for the same decisions. It knows no bound but 1."""
    return replace(found, formula="published", radius=found.radius * metric.lipschitz / found.norm)


def smallest_changes(metric: CertifiedMetric, data: Triplets, steps: int) -> Tensor:
    """Size of the smallest change of each reference that an attack finds to overturn the decision, (n,) float64."""
    parts = []
    for ref, p0, p1, _ in data.batches(32):
        objective = flip(Metric("attacked", metric), ref, p0, p1)
        parts.append(ddn(objective, steps=steps).sizes(objective, "l2"))
    return torch.cat(parts)


# --- losses and margins


def losses(settings: dict, options: argparse.Namespace, earlier: Earlier) -> Iterator[dict]:
    """All losses, for both networks."""
    workshop, sheet = Workshop(settings["training"], options.anew), Sheet(settings["test"])
    yield from rows(jobs_of(workshop, sheet, settings), options.only, earlier)


def jobs_of(workshop: Workshop, sheet: Sheet, settings: dict) -> dict[str, Callable[[], dict]]:
    """What measures each row of part losses."""

    def trained(name: str, run: Run) -> dict:
        metric, about = workshop.trained(run)
        return about | sheet.row(metric, name, settings)

    jobs: dict[str, Callable[[], dict]] = {"pixel L2": lambda: sheet.row(pixel_l2(), "pixel L2", settings)}
    for network in NETWORKS:
        name = f"{network}, untrained"
        jobs[name] = lambda name=name, network=network: sheet.row(CertifiedMetric(untrained(network)), name, settings)
        for name, run in workshop.runs().items():
            if run.network == network:
                jobs[name] = functools.partial(trained, name, run)
    return jobs


def margins(settings: dict, options: argparse.Namespace, earlier: Earlier) -> Iterator[dict]:
    """One network, larger and larger margins."""
    workshop, sheet = Workshop(settings["training"], options.anew), Sheet(settings["test"])

    def trained(margin: float) -> dict:
        run = Run("scattering", replace(settings["training"]["recipe"], margins=(margin,)))
        metric, about = workshop.trained(run)
        return about | sheet.row(metric, f"margin {margin:g}", settings)

    jobs: dict[str, Callable[[], dict]] = {"pixel L2": lambda: sheet.row(pixel_l2(), "pixel L2", settings)}
    jobs |= {f"{margin:g}": functools.partial(trained, margin) for margin in MARGINS}
    yield from rows(jobs, options.only, earlier)


def rows(jobs: Mapping[str, Callable[[], dict]], only: Sequence[str], earlier: Earlier) -> Iterator[dict]:
    """Measure row by row, in the order of the jobs, and keep the others."""
    measured = {}
    for name in (bar := tqdm([job for job in jobs if wanted(job, only)], unit="row")):
        bar.set_description(name)
        measured[name] = rounded(jobs[name]())
        known = earlier().get("rows", {}) | measured
        yield {"rows": {job: known[job] for job in jobs if job in known}}


# --- the shipped metric


def shipped(settings: dict, options: argparse.Namespace, earlier: Earlier) -> Iterator[dict]:
    """The metric that comes with the course, beside what it has to beat."""
    sheet = Sheet(settings["test"])
    metric = open_metric(options.checkpoint)

    def row(metric: CertifiedMetric, name: str) -> dict:
        found = sheet.certify(metric, name)
        scores = {whose: shares(replace(found, labels=right), settings) for whose, right in sheet.answers.items()}
        return {
            "kind": metric.kind, "bound": metric.lipschitz, "norm": found.norm.median().item(), "scores": scores,
            "attacked": attacked(Metric(name, metric), found), **sheet.by_people(metric),
        }  # fmt: skip

    def attacked(metric: Metric, found: Certified | None) -> dict:
        some = spread_out(sheet.data, settings["attacked"])
        result = attack_2afc(
            metric, some, eps=tuple(EPS.values()), attack="ddn", steps=settings["attack_steps"], batch_size=25
        )
        standing = dict(zip(("natural", *EPS), result.standing().double().mean(1).tolist(), strict=True))
        result = {"n": len(some), **standing}
        if found is not None:
            on = torch.arange(len(some)) * len(sheet.data) // len(some)
            result["certified"] = {key: found.certified(eps)[on].double().mean().item() for key, eps in EPS.items()}
        return result

    def of_shipped() -> dict:
        card = {key: metric.card.get(key) for key in ("sha256", "network", "command", "data")}
        parameters = sum(p.numel() for p in metric.network.parameters())
        return {"card": card, "parameters": parameters} | row(metric, "shipped")

    def start() -> CertifiedMetric:
        given = dict(metric.card["network"])
        build = getattr(LipSimNet, given.pop("architecture"))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})
        return CertifiedMetric(network.eval(), metric.kind)

    def of_teacher() -> dict:
        teacher = judgments.load(labels.TEACHER)
        with torch.no_grad():
            d0, d1 = (
                torch.cat(part)
                for part in zip(*(teacher.triplet_distances(*b[:3]) for b in sheet.data.batches(50)), strict=True)
            )
        decision = torch.where(d0 < d1, 0, torch.where(d1 < d0, 1, -1))
        nothing = torch.zeros(len(decision))  # there is no bound, so nothing is certified
        found = Certified(TEACHER, sheet.data.name, "none", tuple(EPS.values()), decision, nothing, nothing,
                          sheet.data.judge, sheet.data.photo)  # fmt: skip
        scores = {whose: shares(replace(found, labels=right), settings) for whose, right in sheet.answers.items()}
        return {"kind": "LPIPS", "scores": scores, "attacked": attacked(teacher, None), **sheet.by_people(teacher)}

    jobs = {
        "shipped": of_shipped,
        "untrained": lambda: row(start(), "untrained"),
        "pixel L2": lambda: row(pixel_l2(), "pixel L2"),
        TEACHER: of_teacher,
    }
    yield from rows(jobs, options.only, earlier)


def shares(found: Certified, settings: dict) -> list[dict[str, float]]:
    """Natural accuracy, and certified at every radius, with intervals."""
    table = found.table(settings["resamples"])
    return [{"eps": row.eps, "share": row.certified, "low": row.low, "high": row.high} for row in table.itertuples()]


# --- soundness


def pushed(value: Callable[[Tensor, Tensor], Tensor], start: Tensor, budget: Tensor, steps: int, seed: int = 0):
    """Make a value large by changing each image by at most its own budget: projected gradient from a random start.

    Args:
        value: (images, their numbers) -> (m,), differentiable.
        start: (n, 3, h, w) in [0, 1].
        budget: (n,) L2.
        steps: gradients; the step shrinks from twice the budget, where it goes through the whole ball, to nothing.
        seed: of the start.

    Returns:
        The images with the largest value, all inside in exact arithmetic, and that value, (n,).
    """
    everything = torch.arange(len(start))
    room = (budget.double() * (1 - 1e-9))[:, None, None, None]

    def inside(images: Tensor) -> Tensor:
        change = images.double() - start.double()
        length = change.flatten(1).norm(dim=1)[:, None, None, None].clamp_min(1e-30)
        whole = start.double() + change * (room / length).clamp(max=1)
        single = whole.float().clamp(0, 1)
        outwards = (single.double() - start.double()).abs() > (whole - start.double()).abs()
        return torch.where(outwards, torch.nextafter(single, start), single)

    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(seed))
    images = inside(start + noise / noise[0].numel() ** 0.5 * 0.1 * room.float())
    best, largest = start, torch.full((len(start),), -torch.inf, dtype=torch.float64)
    for step in range(steps + 1):
        images = images.detach().requires_grad_(step < steps)
        with torch.set_grad_enabled(step < steps):
            now = value(images, everything)
        better = now.detach() > largest
        best = torch.where(better[:, None, None, None], images.detach(), best)
        largest = torch.where(better, now.detach().double(), largest)
        if step < steps:
            (slope,) = torch.autograd.grad(now.sum(), images)
            slope = slope / slope.flatten(1).norm(dim=1)[:, None, None, None].clamp_min(1e-30)
            images = inside(images.detach() + slope * (2 * room * (1 - step / steps)).float())
    if (sizes(best.double() - start.double(), "l2") > budget).any():
        raise AssertionError("an attacked image is outside its ball")
    return best, largest


def overturned(metric: CertifiedMetric, batch: Sequence[Tensor], budget: Tensor, steps: int) -> Tensor:
    """Where an attack with a budget for each reference changes its decision, (n,) bool."""
    ref, p0, p1 = batch
    signed = radii.euclidean_2afc_radius if metric.kind == "euclidean" else radii.cosine_2afc_radius
    with torch.no_grad():
        e, e0, e1 = (metric.embed(images).double() for images in (ref, p0, p1))
        sign = signed(e, e0, e1).sign()
    changed, _ = pushed(
        lambda images, which: -sign[which] * signed(metric.embed(images).double(), e0[which], e1[which]),
        ref, budget, steps,
    )  # fmt: skip
    return metric.decide(changed, p0, p1) != metric.decide(ref, p0, p1)


def attack_decisions(
    metric: CertifiedMetric, data: Triplets, steps: int, name: str, formula: str = "exact", times: float = 1.0
) -> dict[str, int]:
    """Attack every decision just inside its radius, or some times as far."""
    counts = {"attacked": 0, "flipped": 0, "uncertified": 0}
    for ref, p0, p1, _ in tqdm(data.batches(64), total=-(-len(data) // 64), desc=f"{name} x {times:g}"):
        radius = metric.assess(ref, p0, p1, formula=formula).radius.double().abs() * times
        if formula == "published":  # which knows no bound but 1
            radius *= metric.lipschitz
        promised = radius > 0
        counts["attacked"] += int(promised.sum())
        counts["uncertified"] += int((~promised).sum())
        if promised.any():
            some = [images[promised] for images in (ref, p0, p1)]
            counts["flipped"] += int(overturned(metric, some, radius[promised], steps).sum())
    return counts


def attack_intervals(metric: CertifiedMetric, data: Triplets, eps: float, steps: int) -> dict[str, Any]:
    """Push every distance of ref and p0 up and down by changing ref."""
    counts: dict[str, Any] = {"attacked": 0, "escaped": 0, "eps": eps}
    used: dict[str, list[Tensor]] = {"up": [], "down": []}
    for ref, p0, _, _ in tqdm(data.batches(64), total=-(-len(data) // 64), desc="intervals"):
        low, high = metric.interval(ref, p0, eps)
        with torch.no_grad():
            fixed, before = metric.embed(p0), metric(ref, p0)
        escaped = torch.zeros(len(ref), dtype=torch.bool)
        for way, sign in (("up", 1), ("down", -1)):
            changed, _ = pushed(
                lambda images, which, sign=sign, fixed=fixed: sign * metric.between(metric.embed(images), fixed[which]),
                ref, torch.full((len(ref),), eps), steps,
            )  # fmt: skip
            with torch.no_grad():
                after = metric(changed, p0)
            escaped |= (after > high) | (after < low)
            limit = high if sign > 0 else low
            used[way].append((after - before) / (limit - before))
        counts["attacked"] += len(ref)
        counts["escaped"] += int(escaped.sum())
    counts["used"] = {way: torch.cat(parts).nanmedian().item() for way, parts in used.items()}
    return counts


def soundness(settings: dict, options: argparse.Namespace, earlier: Earlier) -> Iterator[dict]:
    """Attacks on what was proven, and on a formula that was not."""
    data = spread_out(triplets.simulated(settings["split"]), settings["triplets"])
    fewer = spread_out(data, settings["fewer"])
    workshop = Workshop(settings["training"], options.anew)
    metric = open_metric(options.checkpoint)
    rival, _ = workshop.trained(workshop.runs()["tiny, hinge 0.2"])
    metrics = {"shipped": metric, "shipped, cosine": CertifiedMetric(metric.network, "cosine").eval()}
    metrics |= {"pixel L2": pixel_l2().eval(), "tiny, hinge 0.2": rival}
    steps = settings["steps"]
    parts: dict[str, dict[str, Any]] = {key: {} for key in ("decisions", "intervals", "strength")}

    def jobs() -> Iterator[tuple[str, str, Callable[[], dict]]]:
        for name, one in metrics.items():
            if name != "pixel L2":
                yield "intervals", name, lambda one=one: attack_intervals(one, fewer, settings["eps"], steps)
            if name != "shipped, cosine":
                yield "strength", name, lambda one=one, name=name: strength(one, name)
        for name, one in metrics.items():
            amount = data if name == "shipped" else fewer
            attack = functools.partial(attack_decisions, one, amount, steps, name=name)
            yield "decisions", name, attack
        name = "published formula"
        yield "decisions", name, functools.partial(attack_decisions, rival, fewer, steps, name, formula="published")

    def strength(one: CertifiedMetric, name: str) -> dict:
        some = spread_out(data, settings["strength"])
        radius = torch.cat([one.radius(*b[:3]) for b in some.batches(64)]).double().abs()
        size = smallest_changes(one, some, settings["strength_steps"])
        ratio = (size / radius)[size.isfinite() & (radius > 0)]
        further = {}
        for times in settings["further"]:
            found = attack_decisions(one, some, steps, times=times, name=name)
            further[f"{times:g}"] = found["flipped"] / max(1, found["attacked"])
        result = {"n": len(some), "found": len(ratio), "further": further}
        if len(ratio):
            result |= {"ratio": ratio.median().item(), "smallest_ratio": ratio.min().item()}
        return result

    for part, name, job in jobs():
        if wanted(f"{part} {name}", options.only):
            parts[part][name] = rounded(job())
            before = earlier()
            yield {key: before.get(key, {}) | values for key, values in parts.items()}


# --- cost


def cost(settings: dict, options: argparse.Namespace, earlier: Earlier) -> Iterator[dict]:
    """What a certificate costs on top of a decision."""
    data = spread_out(labels.simulated("val"), settings["triplets"])
    result: dict[str, Any] = {}
    for name in NETWORKS:
        network = untrained(name)
        for kind in radii.KINDS:
            metric = CertifiedMetric(network, kind).eval()
            times: dict[str, list[float]] = {"forward": [], "certify": []}
            for turn in range(1 + settings["rounds"]):  # the first is the warm-up
                for what in times if turn % 2 else reversed(times):
                    before = time.process_time()
                    if what == "forward":
                        with torch.no_grad():
                            for ref, p0, p1, _ in data.batches(64):
                                metric.triplet_distances(ref, p0, p1)
                    else:
                        certify(metric, data, tuple(EPS.values()))
                    times[what].append(time.process_time() - before)
            middle = {what: statistics.median(seconds[1:]) for what, seconds in times.items()}
            row = {"ratio": middle["certify"] / middle["forward"], **middle, "triplets": len(data)}
            result[f"{name}, {kind}"] = rounded(row)
            yield result
    result["peak_mb"] = {str(n): peak_memory(n) for n in settings["memory"]}
    yield result


def peak_memory(n: int) -> int:
    """Peak of certifying n triplets, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_certification", "--memory", str(n)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=repo_root())
    return round(float(done.stdout))


def memory_of(n: int) -> float:
    """Megabytes that certifying n triplets needs on top of libraries, network and data; for a fresh process."""
    data = labels.simulated("train").select(torch.arange(n))
    metric = CertifiedMetric(untrained("scattering")).eval()
    certify(metric, data.select(torch.arange(8)))  # what is allocated once
    process, done = psutil.Process(), threading.Event()
    seen = [process.memory_info().rss]

    def watch() -> None:
        while not done.wait(0.001):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    certify(metric, data)
    done.set()
    watcher.join()
    return (max(seen) - seen[0]) / 2**20


# --- all of it

PARTS = {"losses": losses, "margins": margins, "shipped": shipped, "soundness": soundness, "cost": cost}


def wanted(name: str, only: Sequence[str]) -> bool:
    """Whether a row is to be measured."""
    return not only or any(word in name for word in only)


def rounded(value: Any) -> Any:
    """Floats with four digits, wherever they are."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def provenance(part: str, settings: dict, options: argparse.Namespace) -> dict[str, Any]:
    """How a part was measured; `settings` and `versions` are what rows must share."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    words = ["--parts", part, *(["--only", *options.only] if options.only else [])]
    words += ["--quick"] if options.quick else []
    about = {
        "command": f"{PROGRAM} {shlex.join(words)}", "date": datetime.date.today().isoformat(), "seed": 0,
        "cpu": named[0] if named else platform.processor(), "threads": 1, "settings": settings,
        "versions": {"torch": importlib.metadata.version("torch")},
    }  # fmt: skip
    return json.loads(json.dumps(about, default=asdict))


def stored(output: Path | None) -> dict[str, Any]:
    """What was measured before."""
    return json.loads(output.read_text("utf-8")) if output and output.exists() else {}


def table(part: dict) -> str:
    """Rows of losses, margins or the shipped metric in Markdown; right answers: st-alex, natural also by votes."""
    titles = ["", "natural", *EPS, "votes", "norm", *materials.LIGHTINGS, "seconds"]
    lines = [f"| {' | '.join(titles)} |", "|---|" + "---:|" * (len(titles) - 1)]
    for name, row in part["rows"].items():
        shares_of = {whose: scores_of(row, whose) for whose in row["scores"]}
        cells = [100 * share for share in shares_of[TEACHER]] + [100 * shares_of["votes"][0], row.get("norm")]
        cells += [row.get("people", {}).get(lighting) for lighting in materials.LIGHTINGS] + [row.get("seconds")]
        lines.append(f"| {name} | {' | '.join('' if cell is None else f'{cell:.3g}' for cell in cells)} |")
    return "\n".join(lines)


def scores_of(row: dict, whose: str = TEACHER) -> list[float]:
    """Natural accuracy and what is certified at each of EPS, of a row of any part."""
    scores = row["scores"][whose]
    return [one["share"] for one in scores] if isinstance(scores, list) else [scores[key] for key in ("natural", *EPS)]


def main(arguments: list[str] | None = None) -> None:
    """Measure part by part, write the JSON file and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").replace("``", "").replace("%", "%%"))
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--only", nargs="+", default=[], help="parts of rows' names; the others are kept")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only shows that it works")
    parser.add_argument("--anew", action="store_true", help="train also networks that are in the cache")
    parser.add_argument("--checkpoint", help="for shipped and soundness; default: the one that comes with the course")
    parser.add_argument("--output", type=Path, help=f"default: {RESULTS.name} beside this file; none with --quick")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.memory:
        print(memory_of(options.memory))
        return
    output = options.output or (None if options.quick else RESULTS)
    if {"losses", "margins", "shipped"} & {*options.parts} and not PEOPLE.is_dir():
        print(f"no judgments of real people in {os.path.relpath(PEOPLE)}: rows go without them", file=sys.stderr)
    everything = QUICK if options.quick else FULL
    for part in options.parts:
        about = provenance(part, everything[part], options)
        measured: dict = {}

        def earlier(part: str = part) -> dict[str, Any]:  # read again, for more may have been measured at the same time
            return stored(output).get(part, {}) if options.only else {}

        before = earlier().get("about", about)
        if any(before[key] != about[key] for key in ("settings", "versions")):
            raise ValueError(f"{output} has {part} measured in another way; measure all of it again")
        for measured in PARTS[part](everything[part], options, earlier):
            if output:
                results = {"command": PROGRAM} | stored(output) | {part: {"about": about, **measured}}
                ordered = {key: results[key] for key in ("command", *PARTS) if key in results}
                write_atomically(output, (json.dumps(ordered, indent=1, ensure_ascii=False) + "\n").encode())
        print(table(measured) if "rows" in measured else json.dumps(measured, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
