"""How far LPIPS moves when a photograph shifts by whole pixels: published AlexNet and shift-tolerant AlexNet.

Working example, with a network: ``python tests/benchmarks/bench_shift.py``. Without one, give AlexNet's weights:
``python tests/benchmarks/bench_shift.py --trunk alexnet.npz`` (torchvision's names, ``features.N.weight``).
The result goes to shift_tolerance.json beside this file; notebook 07 draws it.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from course_lib.data import photos
from course_lib.lpips import LPIPS
from course_lib.paths import write_atomically

RESULT = Path(__file__).with_name("shift_tolerance.json")
CROPS, SEED, SHIFTS = 32, 3, range(9)


def mean_distances(metric: LPIPS) -> list[float]:
    """Mean LPIPS between 64 x 64 windows of the test photographs and the windows k pixels to the right."""
    wide = photos.crops("test", CROPS, size=80, seed=SEED).images.float() / 255
    windows = [wide[:, :, 8:72, 8 + k : 72 + k] for k in SHIFTS]
    with torch.no_grad():
        return [round(metric(windows[0], window).mean().item(), 5) for window in windows]


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
    result = {
        "command": "python tests/benchmarks/bench_shift.py",
        "what": f"mean LPIPS of {CROPS} test crops (seed {SEED}) and themselves, shifted 0 to {SHIFTS[-1]} pixels",
        "mean_lpips": {name: mean_distances(metric) for name, metric in metrics.items()},
    }
    write_atomically(RESULT, (json.dumps(result, indent=2) + "\n").encode())
    print(json.dumps(result["mean_lpips"]))


if __name__ == "__main__":
    main()
