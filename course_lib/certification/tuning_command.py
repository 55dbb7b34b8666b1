"""``python -m course_lib finetune``: from names to a certified metric, its card and its scores."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from course_lib import judgments
from course_lib.certification import labels as decided_labels
from course_lib.certification.command import open_metric
from course_lib.certification.evaluation import EPS, Certified, certify
from course_lib.certification.finetuning import Finetuned, Recipe, finetune
from course_lib.certification.metric import CertifiedMetric
from course_lib.lipschitz import LipSimNet

RADII = (*EPS, 0.5, 1.0, 2.0)
RECIPES = {
    "radius": Recipe(),
    "published": Recipe(loss="hinge", kind="cosine", margins=(0.2,), learning_rate=1e-4, batch_size=32, epochs=1),
}


def start_network(name: str, seed: int) -> nn.Module:
    """An untrained preset by name, or the network of a student.pt or of a certified metric.

    Raises:
        ValueError, FileNotFoundError: for an unknown name, or a file that is not there or holds none.
    """
    if Path(name).suffix in (".pt", ".safetensors", ".json"):
        return open_metric(name).network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LipSimNet.preset(name)


def learnt(data: Any, labels: str, fresh: int, device: str) -> Any:
    """Triplets to learn from, with the right answers that `labels` names.

    Raises:
        ValueError: for fresh triplets without a metric that decides them, or of other photographs than the course's.
    """
    if fresh and (labels == "votes" or not data.name.startswith("simulated")):
        raise ValueError("--fresh makes more of the embedded triplets; use it with --labels METRIC and no --dataset")
    if labels != "votes":
        data = decided_labels.decided(data, judgments.load(labels, device), device=device, progress=True)
    if fresh:
        more = decided_labels.fresh(range(fresh), judgments.load(labels), progress=True)
        data = decided_labels.joined(f"{data.name}, and {more.name}", [data, more])
    return data


def run(
    network: str,
    data: Any,
    val: Any,
    recipe: Recipe,
    *,
    labels: str = "votes",
    fresh: int = 0,
    folder: Path,
    checkpoint_steps: int = 500,
    device: str = "cpu",
) -> Finetuned:
    """Fine-tune, and print the certified accuracy before and after.

    Writes ``metric.safetensors`` with its card, ``results.json``, ``metrics.jsonl`` and checkpoints to `folder`.

    Args:
        network: as :func:`start_network` takes it.
        data: triplets to learn from.
        val: triplets to score on.
        recipe: how.
        labels: "votes", or a metric whose decisions are learnt, and are the right answers of the scores.
        fresh: so many parts of 500 more triplets, made from the embedded photographs.
        folder: receives the results; a run that is there is continued.
        checkpoint_steps: steps between checkpoints.
        device: where to compute.

    Raises:
        ValueError, OSError: as :func:`start_network`, :func:`learnt` and :func:`~course_lib.certification.finetune`.
    """
    start = start_network(network, recipe.seed).to(device)
    data = learnt(data, labels, fresh, device)
    if labels != "votes":
        val = decided_labels.decided(val, judgments.load(labels, device), device=device, progress=True)

    def examined(net: nn.Module) -> Certified:
        return certify(CertifiedMetric(net, recipe.kind), val, RADII, name=network, device=device)

    before = examined(start)
    print(f"{network}: {recipe}", file=sys.stderr)
    print(f"{len(data)} triplets, {data.name}; scored on {val.name}", file=sys.stderr)
    done = finetune(
        start, data, recipe, val=lambda net: _scores(examined(net)), folder=folder, device=device,
        checkpoint_steps=checkpoint_steps, progress=True,
    )  # fmt: skip
    after = examined(done.network)
    for record in done.history:
        print(" ".join(f"{key} {value:.4g}" for key, value in record.items()))
    table = before.table()[["eps", "certified"]].rename(columns={"certified": "before"})
    table["after"] = after.table()["certified"]
    print(f"\n{val.name}, right answers: {labels}; certified by the {recipe.kind} radius (eps 0: right)")
    print(table.to_string(index=False, float_format="{:.3f}".format))
    about = {"name": network, "data": data.name, "labels": labels, "command": _command(), "recipe": asdict(recipe)}
    about |= {"seed": recipe.seed, "scored_on": val.name, "scores": _scores(after), "history": done.history}
    metric = CertifiedMetric(done.network.cpu(), recipe.kind)
    metric.save(folder / "metric.safetensors", **about)
    judgments.write_tables(folder / "results.json", table, about)
    print(f"the metric is in {folder / 'metric.safetensors'}", file=sys.stderr)
    return done


def splits(dataset: str) -> tuple[str | None, str | None]:
    """Names of the parts of a data set to learn from and to score on; the same one where it has a single part."""
    return {"simulated": ("train", "val"), "nights": ("train", "val"), "bapps": ("train", "val")}.get(
        dataset, (None, None)
    )


def changed(name: str, changes: Mapping[str, Any]) -> Recipe:
    """A recipe by name, with changes that are not None.

    Raises:
        ValueError: for an unknown name, or changes that make no sense.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; choose {' or '.join(RECIPES)}")
    return replace(RECIPES[name], **{key: value for key, value in changes.items() if value is not None})


def _scores(found: Certified) -> dict[str, float]:
    scores = {"natural": round(found.accuracy(), 4)}
    return scores | {f"certified {eps:.3g}": round(found.accuracy(eps), 4) for eps in found.eps}


def _command() -> str:
    """The command line that is running, without the path of this machine's Python."""
    return shlex.join(["python", "-m", "course_lib", *sys.argv[1:]])


