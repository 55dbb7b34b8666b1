"""What memory layout, bfloat16 and torch.compile do to the time and to the values of LPIPS (st-alex).

Working example: ``python tests/benchmarks/bench_precision.py``, part of ``make bench``. torch.compile needs a C++
compiler. The variants take turns. The result goes to precision.json beside this file; notebook 07 quotes it.
"""

import copy
import json
import statistics
import time
from pathlib import Path

import torch

from course_lib.data import photos
from course_lib.data.distortions import random_sequence
from course_lib.lpips import LPIPS
from course_lib.paths import write_atomically

RESULT = Path(__file__).with_name("precision.json")
IMAGES, ROUNDS, NOTICEABLE = 50, 9, 0.05


def main() -> None:
    """Measure and write."""
    torch.set_grad_enabled(False)
    x = photos.crops("test", IMAGES, seed=0).images.float() / 255
    y, _ = random_sequence(x, torch.Generator().manual_seed(0))
    plain = LPIPS("st-alex").network
    channels_first = copy.deepcopy(plain)
    channels_first.trunk.features.to(memory_format=torch.contiguous_format)
    variants = {
        "fp32, channels first": channels_first,
        "fp32, channels last": plain,
        "fp32, channels last, compiled": torch.compile(copy.deepcopy(plain)),
        "bf16, channels last": LPIPS("st-alex", precision="bf16").network,
    }
    expected = channels_first(x, y)
    first_call, errors = {}, {}
    for name, variant in variants.items():
        started = time.perf_counter()
        values = variant(x, y)
        first_call[name] = round(time.perf_counter() - started, 2)
        relative = ((values - expected).abs() / expected)[expected > NOTICEABLE]
        errors[name] = float(f"{relative.max():.1g}")
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, variant in variants.items():
            started = time.perf_counter()
            variant(x, y)
            times[name].append((time.perf_counter() - started) / IMAGES * 1e3)
    rows = {
        name: {
            "ms_per_pair": float(f"{statistics.median(values):.2g}"),
            "first_call_s": first_call[name],
            f"largest_relative_error_above_{NOTICEABLE}": errors[name],
        }
        for name, values in times.items()
    }
    result = {
        "command": "python tests/benchmarks/bench_precision.py",
        "what": f"st-alex, {IMAGES} pairs of 64 x 64, {torch.get_num_threads()} threads, median of {ROUNDS} rounds",
        "variants": rows,
    }
    write_atomically(RESULT, (json.dumps(result, indent=2) + "\n").encode())
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
