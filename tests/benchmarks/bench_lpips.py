"""Time and memory of LPIPS: this course against the lpips package and torchmetrics, with one trunk for all.

Working example: ``make bench``, or ``python tests/benchmarks/bench_lpips.py --quick`` for tiny images and one round,
which only shows that it works. The trunk is random, because the original weights need a network; that changes neither
the time nor the memory. The implementations take turns, so that a slow moment of the machine hits all of them.
"""

import argparse
import importlib.metadata
import itertools
import json
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import lpips as peer_package
import psutil
import torch
import torchvision
from torch import Tensor, nn
from torchmetrics.functional.image import lpips as torchmetrics_lpips

from course_lib.data import distortions, photos
from course_lib.lpips import LPIPS
from course_lib.paths import write_atomically
from course_lib.trunks import Trunk

RESULTS = Path(__file__).with_suffix(".json")
IMPLEMENTATIONS = ("lpips", "torchmetrics", "course fp32", "course bf16")
OTHERS = IMPLEMENTATIONS[1:]
OPERATIONS = ("forward", "forward and backward", "triplets")
NETS = ("alex", "vgg")
# relative errors by (bf16, gradient): other rounding flips a few ReLUs and pooling maxima, and gradients jump there
TOLERANCE = {(False, False): 1e-5, (False, True): 2e-3, (True, False): 1e-2, (True, True): 0.5}
FULL = {"images": ((50, 64), (8, 256)), "rounds": {"alex": 15, "vgg": 3}, "memory": ("forward", "forward and backward")}
QUICK = {"images": ((2, 32), (1, 48)), "rounds": {"alex": 1, "vgg": 1}, "memory": ()}


def shared_trunk(net: str) -> nn.Sequential:
    """A random trunk whose activations neither vanish nor explode, the same on every call."""
    features = Trunk(net, weights=None).features
    generator = torch.Generator().manual_seed(0)
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
    return features


def build(implementation: str, net: str, features: nn.Sequential) -> nn.Module:
    """One implementation, calibrated heads over the given trunk, as ``metric(x, y)`` on images in [0, 1]."""
    if implementation.startswith("course"):
        metric = LPIPS(net, weights=None, precision=implementation.removeprefix("course "))
        metric.load_trunk({f"features.{key}": value for key, value in features.state_dict().items()})
        return metric
    # the peers build torchvision's whole network and keep its features; its classifier would spoil the peak memory
    copy = Trunk(net, weights=None).features.to(memory_format=torch.contiguous_format)
    copy.load_state_dict(features.state_dict())
    name = {"alex": "alexnet", "vgg": "vgg16"}[net]
    with mock.patch.object(torchvision.models, name, lambda **_: SimpleNamespace(features=copy)):
        if implementation == "lpips":
            return peer_package.LPIPS(net=net, pnet_rand=True, verbose=False)
        return torchmetrics_lpips._LPIPS(net=net, pnet_rand=True)


def call(implementation: str, metric: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Distances (n,), the way each library's users get them, with its own checks of the input."""
    if implementation.startswith("course"):
        return metric(x, y)
    if implementation == "lpips":
        return metric(x, y, normalize=True).flatten()
    return torchmetrics_lpips._lpips_update(x, y, metric, normalize=True).view(-1)


def work(implementation: str, metric: nn.Module, operation: str, ref: Tensor, p0: Tensor, p1: Tensor) -> Tensor:
    """Do `operation` once; what is returned must be the same for every implementation."""
    if operation == "forward and backward":
        leaf = ref.clone().requires_grad_()
        return torch.autograd.grad(call(implementation, metric, leaf, p0).sum(), leaf)[0]
    with torch.no_grad():
        if operation == "forward":
            return call(implementation, metric, ref, p0)
        if implementation.startswith("course"):
            return torch.cat(metric.triplet_distances(ref, p0, p1))
        return torch.cat([call(implementation, metric, ref, p) for p in (p0, p1)])


def triplets(n: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Crops of photographs and two distortions of each, (n, 3, size, size) in [0, 1]."""
    ref = photos.crops("test", n, size=size, seed=0).images.float() / 255
    generator = torch.Generator().manual_seed(0)
    return ref, *(distortions.random_sequence(ref, generator)[0] for _ in range(2))


def error(found: Tensor, expected: Tensor) -> float:
    """Difference relative to the expected values: their total, because single gradients may be 0."""
    return ((found - expected).abs().sum() / expected.abs().sum()).item()


def measure_speed(net: str, n: int, size: int, operation: str, rounds: int) -> dict:
    """Median and least milliseconds of every implementation, in interleaved rounds, and that the values agree."""
    images = triplets(n, size)
    features = shared_trunk(net)
    metrics = {name: build(name, net, features) for name in IMPLEMENTATIONS}
    runs: dict[str, Callable] = {
        name: lambda name=name: work(name, metrics[name], operation, *images) for name in metrics
    }
    values = {name: run() for name, run in runs.items()}  # also the warm-up
    errors = {name: error(value, values["lpips"]) for name, value in values.items()}
    for name, found in errors.items():
        allowed = TOLERANCE[name == "course bf16", operation == "forward and backward"]
        if not found <= allowed:
            raise ValueError(f"{name} differs from lpips by {found:.2g} ({net}, {n} x {size}, {operation})")
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            before = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - before))
    return {
        "net": net, "images": f"{n} x {size}²", "operation": operation, "rounds": rounds,
        "median_ms": {name: round(statistics.median(t), 1) for name, t in times.items()},
        "min_ms": {name: round(min(t), 1) for name, t in times.items()},
        "relative_error": {name: float(f"{found:.2g}") for name, found in errors.items()},
    }  # fmt: skip


def memory_of_one(implementation: str, net: str, n: int, size: int, operation: str) -> float:
    """Megabytes that `operation` needs on top of libraries, weights and images; for a fresh process.

    A thread looks every millisecond, because the process's own record may be from before, when it imported PyTorch.
    """
    images = triplets(n, size)
    features = shared_trunk(net)
    metric = build(implementation, net, features)
    process, done = psutil.Process(), threading.Event()
    seen = [process.memory_info().rss]

    def watch() -> None:
        while not done.wait(0.001):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work(implementation, metric, operation, *images)
    done.set()
    watcher.join()
    return (max(seen) - seen[0]) / 2**20


def measure_memory(net: str, n: int, size: int, operation: str, names: tuple[str, ...] = IMPLEMENTATIONS) -> dict:
    """Peak memory of the implementations, each in a process of its own."""
    peaks = {}
    for name in names:
        command = [sys.executable, __file__, "--memory", name, net, str(n), str(size), operation]
        peaks[name] = round(float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))
    return {"net": net, "images": f"{n} x {size}²", "operation": operation, "peak_mb": peaks}


def machine() -> dict:
    """Processor, threads and versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    packages = ("torch", "torchvision", "lpips", "torchmetrics")
    return {
        "cpu": named[0] if named else platform.processor(),
        "bf16_instructions": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags],
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def table(results: dict) -> str:
    """The results in Markdown: medians, and in brackets how many times as fast as the lpips package."""
    versions = results["machine"]["versions"]
    heads = [f"{name} {versions[name]}" if name in versions else name for name in IMPLEMENTATIONS]
    rows = [f"| net | images | | {' | '.join(heads)} |", "|---|---|---|" + "---:|" * len(heads)]
    for row in results["speed"]:
        times = row["median_ms"]
        cells = [f"{t:.0f} ms ({times['lpips'] / t:.2f} ×)" for t in times.values()]
        rows.append(f"| {row['net']} | {row['images']} | {row['operation']} | {' | '.join(cells)} |")
    for row in results["memory"]:
        cells = [f"{megabytes} MB" for megabytes in row["peak_mb"].values()]
        rows.append(f"| {row['net']} | {row['images']} | {row['operation']}, peak memory | {' | '.join(cells)} |")
    errors = [f"{name} {largest_error(results, name, False)} ({largest_error(results, name, True)})" for name in OTHERS]
    rows += ["", f"Largest relative difference to lpips of distances (of gradients): {', '.join(errors)}."]
    return "\n".join(rows)


def largest_error(results: dict, implementation: str, gradient: bool) -> str:
    """Over all rows about distances, or about gradients."""
    rows = [row for row in results["speed"] if ("backward" in row["operation"]) == gradient]
    return f"{max(row['relative_error'][implementation] for row in rows):.1g}"


def run(images: tuple[tuple[int, int], ...], rounds: dict[str, int], memory: tuple[str, ...]) -> dict:
    """Speed of all nets, images and operations; memory of some operations with the last images."""
    results: dict = {"machine": machine(), "speed": [], "memory": []}
    for cell in itertools.product(NETS, images, OPERATIONS):
        net, (n, size), operation = cell
        print("speed:", net, f"{n} x {size}²", operation, file=sys.stderr)
        results["speed"].append(measure_speed(net, n, size, operation, rounds[net]))
    for net, operation in itertools.product(NETS, memory):
        print("memory:", net, operation, file=sys.stderr)
        results["memory"].append(measure_memory(net, *images[-1], operation))
    return results


def main(arguments: list[str] | None = None) -> None:
    """Measure, write the JSON file and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").replace("``", ""))
    parser.add_argument("--quick", action="store_true", help="tiny images, one round: only shows that it works")
    parser.add_argument("--output", type=Path, help=f"default: {RESULTS.name} beside this file; none with --quick")
    parser.add_argument("--memory", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.memory:
        name, net, n, size, operation = options.memory
        print(memory_of_one(name, net, int(n), int(size), operation))
        return
    results = run(**(QUICK if options.quick else FULL))
    output = options.output or (None if options.quick else RESULTS)
    if output:
        write_atomically(output, (json.dumps(results, indent=1, ensure_ascii=False) + "\n").encode())
    print(table(results))


if __name__ == "__main__":
    main()
