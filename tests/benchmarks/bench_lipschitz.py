"""Time of 1-Lipschitz layers: this course against deel-torchlip, orthogonium and the published SLL and CPL formulas.

Working example: ``make bench``, or ``python tests/benchmarks/bench_lipschitz.py --only SLL LipSimNet`` to measure the
layers with these names again and keep the rest, or ``--quick`` for tiny sizes, which only shows that it works.
The implementations take turns in an order that changes from round to round, so that a slow moment of the machine hits
all of them; every ratio is one of medians of the same rounds. On a busy machine ``--cpu-time`` counts the processor
time of one thread instead, without the waiting for other programs. Same layer does not mean same guarantee: the
libraries divide by power iteration (from below), stop series early (orthogonium's SOC is tested to 1.08), or both.
The course's convolutions change to channels_last by themselves on a CPU. In the columns "channels_last" input and
weights come in that layout, and the published formulas get it, too.
"""

import argparse
import contextlib
import copy
import importlib.metadata
import json
import platform
import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
from deel import torchlip
from orthogonium.layers import MaxMin as PeerMaxMin
from orthogonium.layers import OrthoLinear
from orthogonium.layers.conv.adaptiveSOC import AdaptiveSOCConv2d
from orthogonium.layers.conv.AOC import AdaptiveOrthoConv2d
from orthogonium.layers.conv.AOL import AOLConv2D
from orthogonium.layers.conv.SLL import SDPBasedLipschitzDense, SDPBasedLipschitzResBlock
from orthogonium.legacy.block_ortho_conv import BCOP as LegacyBCOP
from orthogonium.legacy.cayley_ortho_conv import Cayley as LegacyCayley
from orthogonium.legacy.cayley_ortho_conv import CayleyLinear as LegacyCayleyLinear
from orthogonium.legacy.skew_ortho_conv import SOC as LegacySOC
from orthogonium.reparametrizers import EXP_ORTHO_PARAMS
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from course_lib import lipschitz
from course_lib.lipschitz.lipsim import LipSimNet
from course_lib.paths import write_atomically

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python tests/benchmarks/bench_lipschitz.py"
MODES = ("forward", "forward and backward", "eval")
COURSE = ("course", "course channels_last", "course compiled")
PUBLISHED = ("published", "published channels_last")
LIBRARIES = ("deel-torchlip", "orthogonium", "orthogonium legacy")
FULL = {"conv": ((16, 64, 32), (16, 128, 16)), "dense": (128, 1024), "lipsim": (8, 224, 45, 20, 7, 1024, 1792)}
QUICK = {"conv": ((2, 4, 6),), "dense": (3, 8), "lipsim": (1, 32, 4, 2, 1, 8, 5)}
SECONDS, MOST_ROUNDS = 2.5, 40  # of measuring per layer, shape and mode, but at least LEAST_ROUNDS
LEAST_ROUNDS = 5
TOLERANCE = 1e-4  # relative, between the course and the published formulas
Clock = Callable[[], float]
Builder = Callable[[int], nn.Module]


def inverse_or_zero(values: Tensor) -> Tensor:
    """1 / values, and 0 where they are 0, as published."""
    mask = values == 0
    inverse = values**-1
    inverse[mask] = 0
    return inverse


class PublishedSLLConv(nn.Module):
    """SLL of the paper's and LipSim's code: q and 1/q cancel, as there."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.kernel = nn.Parameter(nn.init.xavier_normal_(torch.empty(hidden, channels, 3, 3)))
        self.bias = nn.Parameter(torch.empty(1, hidden, 1, 1).uniform_(-1, 1) / (9 * channels) ** 0.5)
        self.q = nn.Parameter(torch.randn(hidden))

    def forward(self, x: Tensor) -> Tensor:
        overlap = F.conv2d(self.kernel, self.kernel, padding=2).abs()
        q, q_inverse = self.q.exp().reshape(-1, 1, 1, 1), (-self.q).exp().reshape(-1, 1, 1, 1)
        t = inverse_or_zero((q_inverse * overlap * q).sum((1, 2, 3))).reshape(1, -1, 1, 1)
        hidden = t * (F.conv2d(x, self.kernel, padding=1) + self.bias).relu()
        return x - 2 * F.conv_transpose2d(hidden, self.kernel, padding=1)


class PublishedSLLLinear(nn.Module):
    """SLL for vectors of the paper's and LipSim's code."""

    def __init__(self, features: int, hidden: int):
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(hidden, features)))
        self.bias = nn.Parameter(torch.empty(1, hidden).uniform_(-1, 1) / features**0.5)
        self.q = nn.Parameter(torch.randn(hidden))

    def forward(self, x: Tensor) -> Tensor:
        q, q_inverse = self.q.exp(), (-self.q).exp()
        t = torch.einsum("i,ik,kj,j -> ij", q_inverse, self.weight, self.weight.T, q).abs().sum(1)
        hidden = inverse_or_zero(t) * (F.linear(x, self.weight) + self.bias).relu()
        return x - 2 * F.linear(hidden, self.weight.T)


class PublishedCPL(nn.Module):
    """CPL of its paper's code, for images or vectors: x - 2 / h^2 W^T relu(W x + b), h by power iteration.

    One step of it per forward pass in training, 100 at the first one in evaluation; h approaches the norm from below.
    """

    def __init__(self, channels: int, hidden: int, size: int | None = None):
        super().__init__()
        shape, start = ((hidden, channels), (1, channels)) if size is None else (
            (hidden, channels, 3, 3), (1, channels, size, size)
        )  # fmt: skip
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(shape)))
        self.bias = nn.Parameter(torch.empty(hidden).uniform_(-1, 1) / self.weight[0].numel() ** 0.5)
        self.register_buffer("u", F.normalize(torch.randn(start), dim=tuple(range(len(start)))))
        self.eval_norm: Tensor | None = None

    def there(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, self.weight, bias, padding=1) if x.ndim == 4 else F.linear(x, self.weight, bias)

    def back(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight, padding=1) if x.ndim == 4 else F.linear(x, self.weight.T)

    def norm(self, steps: int) -> Tensor:
        with torch.no_grad():
            for _ in range(steps):
                v = self.there(self.u)
                v = v / v.norm()
                self.u = self.back(v)
                self.u = self.u / self.u.norm()
        return (self.there(self.u) * v).sum()

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.eval_norm, norm = None, self.norm(1)
        else:
            norm = self.eval_norm = self.norm(100) if self.eval_norm is None else self.eval_norm
        return x - 2 / norm**2 * self.back(self.there(x, self.bias).relu())


class PublishedLipSim(nn.Module):
    """LipSim's "small" network, or the widths given, on square images whose side is a multiple of 16."""

    def __init__(self, size: int, channels: int, depth: int, dense_depth: int, dense_hidden: int, out_features: int):
        super().__init__()
        self.channels, self.out_features = channels, out_features
        pools = [nn.AvgPool2d(4, divisor_override=4) for _ in range(2)]
        self.convs = nn.Sequential(*[PublishedSLLConv(channels, 5) for _ in range(depth)], *pools)
        dense = [PublishedSLLLinear(channels * (size // 16) ** 2, dense_hidden) for _ in range(dense_depth)]
        self.linear = nn.Sequential(nn.Flatten(), *dense)
        self.base = nn.Sequential(nn.Identity(), self.convs, self.linear)  # why checkpoints hold everything twice

    def forward(self, x: Tensor) -> Tensor:
        padded = torch.zeros(len(x), self.channels, *x.shape[2:])
        padded[:, :3] = x
        return self.linear(self.convs(padded))[:, : self.out_features]


@contextlib.contextmanager
def without_cuda() -> Iterator[None]:
    """Keep parameters on the CPU: orthogonium's legacy layers put theirs on a GPU."""
    randn = torch.randn
    with (
        mock.patch.object(torch.Tensor, "cuda", lambda self: self),
        mock.patch.object(torch, "randn", lambda *shape, device=None, **kwargs: randn(*shape, **kwargs)),
    ):
        yield


class Case(NamedTuple):
    """One layer: how the course and its peers build it for c channels or features (peers: name -> builder)."""

    course: Builder
    peers: dict[str, Builder]
    same_values: bool = False  # as `published`, given its parameters


def spectral_conv(eps_bjorck: float | None) -> Builder:
    """deel-torchlip's convolution; its SpectralConv2d orthogonalises the reshaped kernel unless eps_bjorck is None."""
    return lambda c: torchlip.SpectralConv2d(c, c, 3, padding=1, eps_bjorck=eps_bjorck)


def conv_cases(size: int) -> dict[str, Case]:
    """Convolutions c -> c with 3 x 3 kernels, residual ones with c hidden channels, and layers without weights."""
    return {
        "SLLConv2d": Case(
            lambda c: lipschitz.SLLConv2d(c, c),
            {
                "published": lambda c: PublishedSLLConv(c, c),
                "orthogonium": lambda c: SDPBasedLipschitzResBlock(c, 1.0),
            },
            same_values=True,
        ),
        "CPLConv2d": Case(lambda c: lipschitz.CPLConv2d(c, c), {"published": lambda c: PublishedCPL(c, c, size)}),
        "SpectralConv2d": Case(lambda c: lipschitz.SpectralConv2d(c, c, 3), {"deel-torchlip": spectral_conv(None)}),
        "AOLConv2d": Case(
            lambda c: lipschitz.AOLConv2d(c, c, 3), {"orthogonium": lambda c: AOLConv2D(c, c, 3, padding=1)}
        ),
        "CayleyConv2d": Case(
            lambda c: lipschitz.CayleyConv2d(c, c, 3), {"orthogonium legacy": lambda c: LegacyCayley(c, c, 3)}
        ),
        "SOCConv2d": Case(
            lambda c: lipschitz.SOCConv2d(c, c, 3),
            {
                "orthogonium": lambda c: AdaptiveSOCConv2d(c, c, 3, padding_mode="zeros"),
                "orthogonium legacy": lambda c: LegacySOC(c, c, 3),
            },
        ),
        "BCOPConv2d": Case(
            lambda c: lipschitz.BCOPConv2d(c, c, 3),
            {
                "orthogonium": lambda c: AdaptiveOrthoConv2d(c, c, 3),
                "orthogonium legacy": lambda c: LegacyBCOP(c, c, 3),
            },
        ),
        "MaxMin": Case(
            lambda c: lipschitz.MaxMin(),
            {"deel-torchlip": lambda c: torchlip.GroupSort2(), "orthogonium": lambda c: PeerMaxMin()},
        ),
        "GroupSort": Case(lambda c: lipschitz.GroupSort(4), {"deel-torchlip": lambda c: torchlip.GroupSort(4)}),
        "Householder": Case(
            lambda c: lipschitz.Householder(c), {"deel-torchlip": lambda c: torchlip.HouseHolder(c)}
        ),
        "L2AvgPool2d": Case(
            lambda c: lipschitz.L2AvgPool2d(2), {"deel-torchlip": lambda c: torchlip.ScaledAvgPool2d(2)}
        ),
    }  # fmt: skip


DENSE_CASES = {
    "SLLLinear": Case(
        lambda c: lipschitz.SLLLinear(c, c),
        {
            "published": lambda c: PublishedSLLLinear(c, c),
            "orthogonium": lambda c: SDPBasedLipschitzDense(c, c, c),
        },
        same_values=True,
    ),
    "CPLLinear": Case(lambda c: lipschitz.CPLLinear(c, c), {"published": lambda c: PublishedCPL(c, c)}),
    "SpectralLinear": Case(
        lambda c: lipschitz.SpectralLinear(c, c),
        {"deel-torchlip": lambda c: torchlip.SpectralLinear(c, c, eps_bjorck=None)},
    ),
    "BjorckLinear": Case(
        lambda c: lipschitz.BjorckLinear(c, c),
        {"deel-torchlip": lambda c: torchlip.SpectralLinear(c, c), "orthogonium": lambda c: OrthoLinear(c, c)},
    ),
    "CayleyLinear": Case(
        lambda c: lipschitz.CayleyLinear(c, c), {"orthogonium legacy": lambda c: LegacyCayleyLinear(c, c)}
    ),
    "OrthogonalLinear": Case(
        lambda c: lipschitz.OrthogonalLinear(c, c),
        {"orthogonium": lambda c: OrthoLinear(c, c, ortho_params=EXP_ORTHO_PARAMS)},
    ),
}


def lipsim_case(size: int, channels: int, depth: int, dense_depth: int, hidden: int, out_features: int) -> Case:
    """LipSim's network with the published layers, whose weights ours loads."""
    return Case(
        lambda c: LipSimNet.published(channels, depth, dense_depth, hidden, image_size=size, out_features=out_features),
        {"published": lambda c: PublishedLipSim(size, channels, depth, dense_depth, hidden, out_features)},
        same_values=True,
    )


def all_cases(sizes: dict) -> dict[tuple[str, str], tuple[Case, tuple[int, ...]]]:
    """(layer, shape) -> how to build it and the shape of its input."""
    found = {}
    for n, channels, size in sizes["conv"]:
        for layer, case in conv_cases(size).items():
            found[layer, f"{n} x {channels} x {size}²"] = case, (n, channels, size, size)
    for layer, case in DENSE_CASES.items():
        found[layer, "{} x {}".format(*sizes["dense"])] = case, sizes["dense"]
    n, size, *rest = sizes["lipsim"]
    found["LipSimNet", f"{n} x 3 x {size}²"] = lipsim_case(size, *rest), (n, 3, size, size)
    return found


def build(case: Case, channels: int, images: bool, compiled: bool) -> dict[str, nn.Module]:
    """Every implementation by name, the published formulas with the course's parameters where both compute the same."""
    torch.manual_seed(0)
    with without_cuda():
        models = {"course": case.course(channels)} | {name: peer(channels) for name, peer in case.peers.items()}
    if case.same_values:
        share(models["course"], models["published"])
    if images:
        for name in {"course", "published"} & models.keys():
            models[f"{name} channels_last"] = copy.deepcopy(models[name]).to(memory_format=torch.channels_last)
    if compiled:
        models["course compiled"] = torch.compile(copy.deepcopy(models["course"]))
    return models


def share(course: nn.Module, published: nn.Module) -> None:
    """Give both the same parameters; q = 1 in a single layer, where the published code makes q cancel."""
    if isinstance(course, LipSimNet):
        course.load_official({f"model.{key}": tensor for key, tensor in published.state_dict().items()})
        return
    weight = "kernel" if isinstance(course, lipschitz.SLLConv2d) else "weight"
    with torch.no_grad():
        published.q.zero_()
        course.log_q.zero_()
        course.bias.copy_(published.bias.flatten())
        getattr(course, weight).copy_(getattr(published, weight))


def work(model: nn.Module, mode: str, x: Tensor) -> list[Tensor]:
    """Do `mode` once and return the output, then the gradient of x."""
    if mode == "eval":
        with torch.no_grad():
            return [model(x)]
    y = model(x)
    if mode == "forward":
        return [y.detach()]
    leaves = [x, *(p for p in model.parameters() if p.requires_grad)]
    return [y.detach(), torch.autograd.grad(y.square().sum(), leaves, allow_unused=True)[0]]


def measure(
    layer: str, shape: str, case: Case, size: tuple[int, ...], mode: str, seconds: float, compiled: bool, clock: Clock
) -> dict:
    """Median and least milliseconds of all implementations in interleaved rounds."""
    models = build(case, size[1], len(size) == 4, compiled)
    x = torch.rand(size, generator=torch.Generator().manual_seed(0))
    inputs = {name: x.clone() for name in models}
    for name, model in models.items():
        model.train(mode != "eval")
        if "channels_last" in name:
            inputs[name] = inputs[name].contiguous(memory_format=torch.channels_last)
        inputs[name].requires_grad_(mode == "forward and backward")
    runs = {name: partial(work, model, mode, inputs[name]) for name, model in models.items()}
    values = {name: run() for name, run in runs.items()}  # also the warm-up, and where caches are filled
    row: dict = {"layer": layer, "shape": shape, "mode": mode}
    if case.same_values:
        row["relative_error"] = check_values(row, values)
    del values
    times: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffle, end = list(runs), random.Random(0), clock() + seconds
    while len(times["course"]) < LEAST_ROUNDS or (
        clock() < end and len(times["course"]) < MOST_ROUNDS
    ):  # fmt: skip
        shuffle.shuffle(order)
        for name in order:
            before = clock()
            runs[name]()
            times[name].append(1000 * (clock() - before))
    row["rounds"] = len(times["course"])
    row["median_ms"] = {name: float(f"{statistics.median(t):.4g}") for name, t in times.items()}
    row["min_ms"] = {name: float(f"{min(t):.4g}") for name, t in times.items()}
    return row


def check_values(row: dict, values: dict[str, list[Tensor]]) -> float:
    """Largest relative difference to the published formulas; an error if it is more than rounding."""
    worst = 0.0
    for name in values.keys() & {*COURSE, *PUBLISHED}:
        for found, expected in zip(values[name], values["published"], strict=True):
            worst = max(worst, ((found - expected).norm() / expected.norm()).item())
    if not worst <= TOLERANCE:
        raise ValueError(f"{row['layer']} ({row['shape']}, {row['mode']}) differs from published by {worst:.2g}")
    return float(f"{worst:.2g}")


def ratio(row: dict, peer: str, ours: str = "course") -> float:
    """How many times as fast as a peer."""
    return row["median_ms"][peer] / row["median_ms"][ours]


def label(row: dict) -> str:
    """Where a number was measured."""
    return f"{row['layer']}, {row['shape']}, {row['mode']}"


def targets(rows: list[dict]) -> list[dict]:
    """What the course wants to reach, and what the rows say: the least of the ratios that a target is about."""
    wanted = []
    for ours, peer in zip(COURSE, PUBLISHED, strict=False):  # each with the other of its layout
        reached = {label(row): ratio(row, peer, ours) for row in rows if row["layer"] == "SLLConv2d"}
        at_64 = {key: value for key, value in reached.items() if "64 x 32²" in key}
        wanted += [(f"{ours} SLLConv2d / {peer}, 64 x 32²", 1.2, at_64)]
        wanted += [(f"{ours} SLLConv2d / {peer}, every shape", 1.0, reached)]
    lipsim = {label(row): ratio(row, "published") for row in rows if row["layer"] == "LipSimNet"}
    wanted += [("course LipSimNet / published", 5.0, lipsim)]
    slower = {
        label(row): max(ratio(row, name) for name in LIBRARIES if name in row["median_ms"])
        for row in rows
        if row["median_ms"].keys() & {*LIBRARIES}
    }
    wanted += [("course / slower library, every layer", 1.0, slower)]
    return [
        {"times as fast": name, "wanted": least, "reached": round(min(reached.values()), 2),
         "at": min(reached, key=lambda key: reached[key]), "missed": sorted(k for k, v in reached.items() if v < least)}
        for name, least, reached in wanted if reached
    ]  # fmt: skip


def machine(clock: Clock) -> dict:
    """Processor, threads, what is measured, and versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": named[0] if named else platform.processor(),
        "threads": torch.get_num_threads(),
        "milliseconds": "of the clock" if clock is time.perf_counter else "of processor time",
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "deel-torchlip", "orthogonium")},
    }


def table(results: dict) -> str:
    """The results in Markdown: medians, and in brackets how many times as fast as each the course is."""
    names = [
        name for name in (*COURSE, *PUBLISHED, *LIBRARIES) if any(name in row["median_ms"] for row in results["speed"])
    ]
    lines = [f"| layer | shape | | {' | '.join(names)} |", "|---|---|---|" + "---:|" * len(names)]
    for row in results["speed"]:
        times = row["median_ms"]
        cells = [f"{times[name]:.3g} ms ({ratio(row, name):.2f} ×)" if name in times else "" for name in names]
        lines.append(f"| {row['layer']} | {row['shape']} | {row['mode']} | {' | '.join(cells)} |")
    lines += ["", "Times in brackets: this time divided by that of `course`."]
    for target in results["targets"]:
        lines.append(f"{target['times as fast']}: {target['reached']}, wanted {target['wanted']}; at {target['at']}")
    return "\n".join(lines)


def kept(output: Path | None, only: list[str], here: dict) -> list[dict]:
    """Earlier rows that `only` leaves alone."""
    if not only or output is None or not output.exists():
        return []
    earlier = json.loads(output.read_text("utf-8"))
    if earlier["machine"] != here:
        raise ValueError(f"{output.name} was measured with {earlier['machine']}, now {here}; measure everything again")
    return [row for row in earlier["speed"] if not chosen(row["layer"], only)]


def modes(layer: str) -> tuple[str, ...]:
    """What is measured: the published network trains on clusters, so of it only evaluation."""
    return ("eval",) if layer == "LipSimNet" else MODES


def chosen(layer: str, only: list[str]) -> bool:
    """Whether `only` names this layer; it names all of them if it is empty."""
    return not only or any(word in layer for word in only)


def main(arguments: list[str] | None = None) -> None:
    """Measure, write the JSON file and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").replace("``", ""))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, few rounds: only shows that it works")
    parser.add_argument(
        "--only", nargs="+", default=[], help="parts of layers' names; what was measured before is kept"
    )
    parser.add_argument("--compile", nargs="*", default=[], help="layers to measure with torch.compile, too")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of measuring per layer, shape and mode")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread, for a busy machine")
    parser.add_argument("--output", type=Path, help=f"default: {RESULTS.name} beside this file; none with --quick")
    options = parser.parse_args(arguments)
    output = options.output or (None if options.quick else RESULTS)
    clock: Clock = time.perf_counter
    if options.cpu_time:
        torch.set_num_threads(1)
        clock = time.process_time
    sizes, seconds = (QUICK, 0.0) if options.quick else (FULL, options.seconds)
    every = all_cases(sizes)
    cells = [(*key, mode) for key in every if chosen(key[0], options.only) for mode in modes(key[0])]
    if not cells:
        raise SystemExit(
            f"error: no layer is called {' or '.join(options.only)}; there are {', '.join(k[0] for k in every)}"
        )
    here = machine(clock)
    rows = kept(output, options.only, here)
    places = {(*key, mode): place for place, (key, mode) in enumerate((key, mode) for key in every for mode in MODES)}
    bar = tqdm(cells, unit="row")
    for layer, shape, mode in bar:
        bar.set_description(f"{layer} {mode}")
        case, size = every[layer, shape]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries
            rows.append(measure(layer, shape, case, size, mode, seconds, layer in options.compile, clock))
        rows.sort(key=lambda row: places[row["layer"], row["shape"], row["mode"]])
        command = COMMAND + " --cpu-time" * options.cpu_time
        results = {"command": command, "machine": here, "speed": rows, "targets": targets(rows)}
        if output:
            write_atomically(output, (json.dumps(results, indent=1, ensure_ascii=False) + "\n").encode())
    print(table(results))


if __name__ == "__main__":
    main()
