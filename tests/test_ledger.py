"""The numbers that the ledger quotes are measured again here."""

import json

import pytest
import torch

from course_lib.data import photos
from course_lib.data.distortions import DISTORTIONS
from course_lib.lpips import LPIPS, load_heads
from course_lib.start_here import LEDGER
from tests.benchmarks import bench_published


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


@pytest.fixture(scope="module")
def published():
    return json.loads(bench_published.RESULT.read_text())


def test_published_results_are_those_that_the_command_measures(metric, published):
    again, stored = bench_published.measure(metric), published["st-alex"]
    assert again["shift"] == pytest.approx(stored["shift"], rel=1e-2)
    assert again["noise"] == pytest.approx(stored["noise"], rel=1e-2)
    for kind, shares in again["layer_shares"].items():
        assert shares == pytest.approx(stored["layer_shares"][kind], abs=0.01)


def test_ledger_quotes_a_shift_by_one_pixel_right(published):
    quoted = [(published[net]["shift"][1], published[net]["noise"]) for net in ("st-alex", "alex")]
    (a, b), (c, d) = quoted
    assert f"{a:.3f} and noise of no more MSE {b:.2f} (st-alex), {c:.3f} and {d:.2f} (published" in measured(
        "pixel shifts"
    )


def test_ledger_names_the_layers_that_see_a_blur_right(published):
    blur = [published[net]["layer_shares"]["gaussian_blur"] for net in ("st-alex", "alex")]
    last, second = (shares.index(max(shares)) + 1 for shares in blur)
    assert f"layer {last} (st-alex) or in layer {second} (published" in measured("Early layers")


def test_ledger_counts_the_broken_triangles_right(metric):
    crops = photos.crops("test", 16, seed=7).images.float() / 255
    step, far = (DISTORTIONS["gaussian_blur"](crops, strength) for strength in (0.25, 0.5))
    a, b, direct = metric(crops, step), metric(step, far), metric(crops, far)
    broken = int((direct > a + b).sum())
    assert f"fails for {broken} of 16 crops" in measured("L2 distance")
    assert (direct.sqrt() <= a.sqrt() + b.sqrt() + 1e-6).all()
