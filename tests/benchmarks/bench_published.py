"""What the published LPIPS-AlexNet (ImageNet trunk) says where the notebooks use the shift-tolerant network.

Working example, with a network: ``python tests/benchmarks/bench_published.py``. Without one, give AlexNet's weights:
``python tests/benchmarks/bench_published.py --trunk alexnet.npz`` (torchvision's names, ``features.N.weight``).
The result goes to published_alex.json beside this file; notebook 07 and the ledger quote it.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from course_lib.data import photos
from course_lib.data.distortions import DISTORTIONS
from course_lib.lpips import LPIPS
from course_lib.paths import write_atomically

RESULT = Path(__file__).with_name("published_alex.json")
SHIFTS = range(9)


def windows() -> list[torch.Tensor]:
    """64 x 64 windows of 32 test crops, moved right by 0 to 8 pixels."""
    wide = photos.crops("test", 32, size=80, seed=3).images.float() / 255
    return [wide[:, :, 8:72, 8 + k : 72 + k] for k in SHIFTS]


def noise_like_a_shift(base: torch.Tensor, shifted: torch.Tensor) -> torch.Tensor:
    """`base` with white noise that has, before clamping, the MSE of the shift."""
    size = (base - shifted).square().mean((1, 2, 3), keepdim=True).sqrt()
    return (base + size * torch.randn(base.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


@torch.no_grad()
def measure(metric: LPIPS) -> dict:
    """Mean LPIPS at each shift and of the noise, and the layers' shares for every distortion at half strength."""
    moved = windows()
    crops = photos.crops("test", 16, seed=7).images[:8].float() / 255
    shares = {}
    for name, distort in DISTORTIONS.items():
        layers = metric.per_layer(crops, distort(crops, 0.5, torch.Generator().manual_seed(0))).mean(0)
        shares[name] = [round(share, 3) for share in (layers / layers.sum()).tolist()]
    return {
        "shift": [round(metric(moved[0], window).mean().item(), 5) for window in moved],
        "noise": round(metric(moved[0], noise_like_a_shift(moved[0], moved[1])).mean().item(), 5),
        "layer_shares": shares,
    }


def published_alex(trunk: Path | None) -> LPIPS:
    """LPIPS-AlexNet 0.1 with ImageNet weights from a file, or downloaded by torchvision."""
    if trunk is None:
        return LPIPS("alex")
    metric = LPIPS("alex", weights=None)
    metric.load_trunk({key: torch.from_numpy(value) for key, value in np.load(trunk).items()})
    return metric


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").replace("``", ""))
    parser.add_argument("--trunk", type=Path, help="npz file with AlexNet's ImageNet weights")
    metrics = {"alex": published_alex(parser.parse_args().trunk), "st-alex": LPIPS("st-alex")}
    result = {"command": "python tests/benchmarks/bench_published.py"}
    result |= {name: measure(metric) for name, metric in metrics.items()}
    write_atomically(RESULT, (json.dumps(result, indent=1) + "\n").encode())
    for name in metrics:
        kinds = {kind: result[name]["layer_shares"][kind] for kind in ("colour_shift", "gaussian_blur", "white_noise")}
        print(name, result[name]["shift"], result[name]["noise"], kinds)


if __name__ == "__main__":
    main()
