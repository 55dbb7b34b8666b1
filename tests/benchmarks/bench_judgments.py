"""Chapter 08's long measurements: what metrics score on the simulated judgments, how many LPIPS needs, the fast path.

Working example: ``python tests/benchmarks/bench_judgments.py`` (one hour on 2 cores, with AlexNet's ImageNet weights
from the network), or ``... --trunk alexnet.npz`` with a file of them (torchvision's names, ``features.N.weight``).
``--parts fast`` measures one part again and keeps the others. The result goes to judgments.json beside this file;
notebook 08 and the README quote it. All judgments are simulated: by construction they favour the LPIPS family.
"""

import argparse
import dataclasses
import functools
import json
import time
from pathlib import Path

import lpips
import numpy as np
import torch

from course_lib.data import triplets
from course_lib.judgments import (
    CachedDifferences,
    Evaluation,
    Recipe,
    cache_differences,
    evaluate,
    held_out_distances,
    human_ceiling,
    majority_ceiling,
    train_heads,
    train_lpips,
    two_afc_score,
)
from course_lib.lpips import LPIPS
from course_lib.paths import write_atomically
from course_lib.weights import torchvision_trunk

RESULT = Path(__file__).with_name("judgments.json")
STEPS = 800  # of every training here, as near as whole epochs allow: 640 with 8,000 triplets
SIZES = (50, 100, 200, 500, 1000, 2000, 4000, 8000)
TRUNKS = ("scratch 8000", "scratch 1000", "tune 8000")


def recipe(n: int, learning_rate: float, **options) -> Recipe:
    """About STEPS steps of 50 triplets, half of them at a falling rate."""
    epochs = round(STEPS / -(-n // 50) / 2)
    return Recipe(learning_rate=learning_rate, epochs=epochs, decay_epochs=epochs, **options)


def steps(n: int) -> int:
    """Steps that the recipe for n triplets takes."""
    how = recipe(n, 1e-2)
    return (how.epochs + how.decay_epochs) * -(-n // how.batch_size)


def subset(data, n: int):
    """`n` triplets, spread evenly over the data set and so over its photographs."""
    return data.select(torch.arange(n) * len(data) // n)


def scored(name: str, data, d0, d1) -> dict:
    """Score on everything with an interval over photographs, and on the test photographs alone."""
    evaluation = Evaluation(name, data.name, "2afc", (d0, d1), data.judge, None, data.photo)
    low, high = evaluation.interval()
    test = slice(len(data) - triplets.SIZES["test"], None)
    on_test = two_afc_score(d0[test], d1[test], data.judge[test])
    row = {"score": evaluation.score, "low": low, "high": high, "test": on_test}
    print(f"{name:32}", {key: round(value, 3) for key, value in row.items()}, flush=True)
    return {key: round(value, 4) for key, value in row.items()}


def heads_scores(name: str, data, differences: CachedDifferences, metric: LPIPS) -> dict:
    """Uncalibrated heads, the calibrated ones, and heads that never saw the photograph that they are scored on."""
    rows = {}
    heads = {
        "uncalibrated": torch.ones_like(differences.d0[0]),
        "calibrated on BAPPS": torch.cat(list(metric.network.heads)),
    }
    for kind, weight in heads.items():
        rows[f"{name} {kind}"] = scored(f"{name} {kind}", data, differences.d0 @ weight, differences.d1 @ weight)
    d0, d1 = held_out_distances(differences, recipe(len(data), 1e-2))
    rows[f"{name} lin, held-out photographs"] = scored(f"{name} lin", data, d0, d1)
    return rows


def measure_scores(everything, trunk) -> dict:
    """2AFC of metrics that need no training, and of heads."""
    rows = {}
    for name in ("l2", "ssim", "lpips-alex-random", "lpips-st-alex-random"):
        rows[name] = scored(name, everything, *evaluate(name, everything).distances)
    rows["lpips-st-vgg (the observers' own)"] = scored("st-vgg", everything, *triplets.simulated_distances("all"))
    for name, metric in (("lpips-st-alex", LPIPS("st-alex")), ("lpips-alex (ImageNet)", alex(trunk))):
        rows |= heads_scores(name, everything, cache_differences(metric, everything, progress=True), metric)
    random = alex(None)
    d0, d1 = held_out_distances(cache_differences(random, everything), recipe(len(everything), 1e-2))
    rows["lpips-alex random trunk, lin, held-out photographs"] = scored("random lin", everything, d0, d1)
    return rows


def alex(trunk: dict | None) -> LPIPS:
    """LPIPS-AlexNet with this trunk, or a random one."""
    torch.manual_seed(0)
    metric = LPIPS("alex", weights=None)
    if trunk:
        metric.load_trunk(trunk)
    return metric


def measure_curves(train, test, trunk) -> dict:
    """2AFC on the test photographs of heads after about STEPS steps on n triplets, on AlexNet and on st-alex."""
    metric = alex(trunk)
    cached, cached_test = cache_differences(metric, train), cache_differences(metric, test)
    curves: dict[str, dict] = {"lin": {}, "lin, st-alex": {}}
    st_alex = [cache_differences(LPIPS("st-alex"), part) for part in (train, test)]
    for n in SIZES:
        for name, (learn, check) in {"lin": (cached, cached_test), "lin, st-alex": st_alex}.items():
            heads, _ = train_heads(subset(learn, n), recipe=recipe(n, 1e-2))
            with torch.no_grad():
                curves[name][n] = round(two_afc_score(heads(check.d0), heads(check.d1), check.judge), 4)
        print(n, {name: curve[n] for name, curve in curves.items()}, flush=True)
    return curves


def measure_trunk(mode: str, n: int, train, test, trunk) -> dict:
    """2AFC of AlexNet trained as a whole on n triplets: on the test photographs, and on what it learned from."""
    start = None if mode == "scratch" else trunk
    how = recipe(n, 1e-2, trunk_learning_rate=1e-4)
    trained = train_lpips(mode, subset(train, n), net="alex", trunk=start, recipe=how)
    on_test = evaluate(trained.metric, test).score
    learned = evaluate(trained.metric, subset(train, min(n, 1000))).score
    row = {"test": round(on_test, 4), "what it learned from": round(learned, 4)}
    print(mode, n, row, flush=True)
    return row


def seconds_of(work) -> tuple[float, object]:
    """Seconds that a function takes, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def published_training(data) -> None:
    """10 epochs of "lin" by the lpips package's own trainer: AlexNet, four trunk passes per triplet and step."""
    trainer = lpips.Trainer()
    trainer.initialize(net="alex", use_gpu=False, is_train=True, pnet_rand=True)
    for epoch in range(10):
        for batch in data.batches(50, torch.Generator().manual_seed(epoch)):
            ref, p0, p1 = (2 * images - 1 for images in batch[:3])
            trainer.set_input({"ref": ref, "p0": p0, "p1": p1, "judge": batch.judge[:, None, None, None]})
            trainer.optimize_parameters()


def heads_of(trained) -> torch.Tensor:
    """Weights of all heads."""
    return torch.cat([head.detach() for head in trained.metric.network.heads])


def measure_fast(train, trunk) -> dict:
    """Seconds of 10 epochs of "lin", slow ways and fast ones; how far the heads are apart without dropout."""
    rows, data = {}, subset(train, 400)
    exact, published = Recipe(learning_rate=1e-3, dropout="none"), Recipe(learning_rate=1e-3, dropout="element")
    for net, weights in (("st-alex", "pretrained"), ("alex", None)):

        def bf16(net=net, weights=weights):
            torch.manual_seed(0)
            metric = LPIPS(net, weights=weights, calibrated=False, precision="bf16")
            return train_heads(cache_differences(metric, data), recipe=exact)[0].weight.detach()

        lin = functools.partial(train_lpips, "lin", data, net=net, weights=weights)
        cache_differences(LPIPS(net, weights=weights), subset(train, 50))  # warm up
        seconds, results = {}, {}
        ways = {
            "fast": lambda lin=lin: heads_of(lin(recipe=exact)),
            "fast, bf16 trunk": bf16,
            "slow": lambda lin=lin: heads_of(lin(recipe=exact, fast=False)),
            "slow, element-wise dropout": lambda lin=lin: lin(recipe=published, fast=False),
        }
        if net == "alex":
            ways["lpips.Trainer"] = lambda: published_training(data)
        for way, work in ways.items():
            seconds[way], results[way] = seconds_of(work)
        rows[net] = {
            "triplets": len(data), "epochs": 10, "seconds": {way: round(value, 2) for way, value in seconds.items()},
            "fast_is_faster_by": {way: round(seconds[way] / seconds["fast"], 1) for way in ways},
            "bf16_is_faster_by": {way: round(seconds[way] / seconds["fast, bf16 trunk"], 1) for way in ways},
            "largest_head": gap(results["slow"]), "largest_gap": gap(results["slow"] - results["fast"]),
            "largest_gap_bf16": gap(results["slow"] - results["fast, bf16 trunk"]),
        }  # fmt: skip
        print(net, rows[net], flush=True)
    return rows


def gap(values: torch.Tensor) -> float:
    """Largest absolute value, to two digits."""
    return float(f"{values.abs().max().item():.2g}")


def measure_dropout(train, test) -> dict:
    """2AFC of "lin" on 1,000 triplets with the published element-wise dropout, channel-wise dropout, and none."""
    data, rows = subset(train, 1000), {}
    for kind in ("element", "channel", "none"):
        options = Recipe(learning_rate=1e-3, dropout=kind)
        trained = train_lpips("lin", data, net="alex", weights=None, recipe=options, fast=kind != "element")
        rows[kind] = round(evaluate(trained.metric, test).score, 4)
        print("dropout", kind, rows[kind], flush=True)
    return rows


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").replace("``", ""))
    parser.add_argument("--trunk", type=Path, help="npz file with AlexNet's ImageNet weights")
    parser.add_argument("--parts", nargs="+", default=["scores", "curves", *TRUNKS, "dropout", "fast"])
    arguments = parser.parse_args()
    if arguments.trunk:
        trunk = {key: torch.from_numpy(value) for key, value in np.load(arguments.trunk).items()}
    else:
        trunk = torchvision_trunk("alex")
    everything, train, test = (triplets.simulated(split) for split in ("all", "train", "test"))
    parts = {
        "scores": lambda: measure_scores(everything, trunk),
        "curves": lambda: measure_curves(train, test, trunk),
        "dropout": lambda: measure_dropout(train, test),
        "fast": lambda: measure_fast(train, trunk),
    }
    for name in TRUNKS:
        mode, n = name.split()
        parts[name] = functools.partial(measure_trunk, mode, int(n), train, test, trunk)
    for part in arguments.parts:
        measured = parts[part]()
        result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        result |= {
            "command": "python tests/benchmarks/bench_judgments.py", "judgments": "simulated",
            "steps": {n: steps(n) for n in SIZES},
            "torch": torch.__version__.split("+")[0], "recipe": dataclasses.asdict(recipe(8000, 1e-2)),
            "human_ceiling": round(human_ceiling(everything.judge), 4),
            "majority_ceiling": round(majority_ceiling(everything.judge), 4),
        }  # fmt: skip
        result[part] = measured
        write_atomically(RESULT, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
