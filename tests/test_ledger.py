"""The numbers that the ledger quotes are measured again here."""

import json

import pytest
import torch

from course_lib.data import photos
from course_lib.data.distortions import DISTORTIONS
from course_lib.lpips import LPIPS, load_heads
from course_lib.paths import repo_root
from course_lib.start_here import LEDGER


def measured(words: str) -> str:
    """What the ledger says came out for the one claim that contains `words`."""
    (claim,) = [claim for claim in LEDGER if words in claim.claim]
    return claim.measured


@pytest.fixture(scope="module")
def metric():
    return LPIPS("st-alex")


def test_ledger_counts_the_heads_right():
    counts = [sum(head.numel() for head in load_heads(net)) for net in ("alex", "vgg", "squeeze")]
    assert "{:,}, {:,} and {:,} weights".format(*counts) == measured("adds 1.6 M parameters")


def test_ledger_quotes_one_pair_at_two_sizes_right(metric):
    pair = torch.cat(photos.lpips_example()[:2])
    values = []
    for size in (64, 256):
        x, y = torch.nn.functional.interpolate(pair, size=size, mode="bilinear").chunk(2)
        values.append(metric(x, y).item())
    assert "reads {:.2f} at 64 x 64 and {:.2f} at 256 x 256".format(*values) in measured("fixed ranges")


def test_ledger_quotes_a_shift_by_one_pixel_right(metric):
    wide = photos.crops("test", 32, size=80, seed=3).images.float() / 255
    base, shifted = wide[:, :, 8:72, 8:72], wide[:, :, 8:72, 9:73]
    size = (base - shifted).square().mean((1, 2, 3), keepdim=True).sqrt()
    noisy = (base + size * torch.randn(base.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    by_shift, by_noise = metric(base, shifted).mean().item(), metric(base, noisy).mean().item()
    results = json.loads((repo_root() / "tests/benchmarks/shift_tolerance.json").read_text())["mean_lpips"]
    assert results["st-alex"][1] == pytest.approx(by_shift, rel=1e-2)
    said = measured("pixel shifts")
    assert f"({by_shift:.3f} and {by_noise:.2f})" in said and f"one pixel costs {results['alex'][1]:.3f}" in said


def test_ledger_counts_the_broken_triangles_right(metric):
    crops = photos.crops("test", 16, seed=7).images.float() / 255
    step, far = (DISTORTIONS["gaussian_blur"](crops, strength) for strength in (0.25, 0.5))
    a, b, direct = metric(crops, step), metric(step, far), metric(crops, far)
    broken = int((direct > a + b).sum())
    assert f"fails for {broken} of 16 photographs" in measured("L2 distance")
    assert (direct.sqrt() <= a.sqrt() + b.sqrt() + 1e-6).all()
