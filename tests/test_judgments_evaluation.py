"""Evaluation: every metric by its name, scores and tables by hand, one batch in memory, and clear refusals."""

import json
import math
import os
import urllib.error
import weakref

import pandas as pd
import pytest
import torch

from course_lib import perceptual_losses
from course_lib.data.pairs import Pairs
from course_lib.data.triplets import Triplet, Triplets
from course_lib.judgments import (
    METRICS,
    Evaluation,
    Metric,
    Recipe,
    bootstrap_interval,
    evaluate,
    jnd_map,
    l2,
    load,
    train_lpips,
    two_afc_score,
    write_tables,
)
from course_lib.lpips import LPIPS
from tests.small_judgments import small_triplets

PIXELS = {
    "l2": lambda x, y: (x - y).double().square().sum((1, 2, 3)).sqrt(),
    "psnr": lambda x, y: 10 * (x - y).double().square().mean((1, 2, 3)).log10(),
    "ssim": lambda x, y: 1 - perceptual_losses.ssim(x, y),
    "ms-ssim": lambda x, y: 1 - perceptual_losses.ms_ssim(x, y),
}


def mean_difference(x, y):
    """A metric that tests name as module:function."""
    return (x - y).abs().mean((1, 2, 3))


def small_pairs(n=24):
    data = small_triplets(n)
    same = torch.randint(0, 4, (n,), generator=torch.Generator().manual_seed(3)) / 3
    return Pairs("made-up pairs", data.ref, data.p0, same, data.photo, subset=["even", "odd"] * (n // 2))


@pytest.fixture
def no_network(monkeypatch):
    """Weights that are in the cache are used; none are downloaded."""

    def unreachable(*_, **__):
        raise urllib.error.URLError("no downloads in tests")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)


# Metrics by name


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_loads_by_its_name_and_tells_an_image_from_its_distortion(name, no_network):
    try:
        metric = load(name)
    except ConnectionError as error:
        assert name.removesuffix("-uncalibrated") in ("lpips-alex", "lpips-vgg", "lpips-squeeze")
        pytest.skip(str(error))
    x = small_triplets(2, 176 if name == "ms-ssim" else 32)[:].ref
    d = metric(x, 1 - x)
    assert metric.name == name and d.shape == (2,)
    assert (d > metric(x, x)).all()


def test_all_names_are_offered():
    nets = ("st-alex", "st-vgg", "alex", "vgg", "squeeze")
    kinds = ("", "-uncalibrated", "-random")
    assert set(METRICS) == {*PIXELS, *(f"lpips-{net}{kind}" for net in nets for kind in kinds)}


@pytest.mark.parametrize("name", PIXELS)
def test_pixel_metrics_are_their_formulas(name):
    x, y, *_ = small_triplets(2, 176)[:]
    d = load(name)(x, y)
    assert d.isfinite().all()
    torch.testing.assert_close(d, PIXELS[name](x, y).float(), atol=1e-4, rtol=1e-4)


def test_l2_has_no_gradient_where_images_are_equal_instead_of_nan():
    x = torch.rand(1, 3, 8, 8)
    y = x.clone().requires_grad_()
    l2(x, y).sum().backward()
    assert torch.equal(y.grad, torch.zeros_like(y))


def test_kinds_of_lpips_are_calibrated_uncalibrated_and_random():
    ref, p0, *_ = small_triplets()[:4]
    assert torch.equal(load("lpips-st-alex")(ref, p0), LPIPS()(ref, p0))
    assert torch.equal(load("lpips-st-alex-uncalibrated")(ref, p0), LPIPS(calibrated=False)(ref, p0))
    one, again, other = (load("lpips-st-alex-random", seed=seed)(ref, p0) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.allclose(one, other, rtol=1e-3)
    heads = load("lpips-st-alex-random").distance.network.heads
    assert all((head == 1).all() for head in heads)


def test_functions_callables_and_trained_files_are_metrics(tmp_path):
    recipe = Recipe(epochs=1, decay_epochs=0)
    trained = train_lpips("lin", small_triplets(), net="alex", weights=None, recipe=recipe, folder=tmp_path)
    data, path = small_triplets(), tmp_path / "metric.pt"
    ref, p0, *_ = data[:]
    for given, name, expected in [
        (f"{__name__}:mean_difference", f"{__name__}:mean_difference", mean_difference(ref, p0)),
        (mean_difference, "mean_difference", mean_difference(ref, p0)),
        (trained.metric, "LPIPS", trained.metric(ref, p0)),
        (path, str(path), trained.metric(ref, p0)),
        (str(path), str(path), trained.metric(ref, p0)),
        (Metric("mine", mean_difference), "mine", mean_difference(ref, p0)),
    ]:
        result = evaluate(given, data)
        assert (result.metric, result.data, result.kind) == (name, data.name, "2afc")
        torch.testing.assert_close(result.distances[0], expected)


UNKNOWN = {
    "lpips": "unknown metric 'lpips'; choose l2, psnr, .*, a metric.pt, or module:function",
    "lpips-resnet": "unknown metric 'lpips-resnet'; choose .*lpips-st-alex-random",
    "no_such_module:f": r"'no_such_module:f' cannot be imported \(No module named 'no_such_module'\); name a function",
    "math:no_such": r"'math:no_such' cannot be imported \(module 'math' has no attribute 'no_such'\)",
    ":f": r"':f' cannot be imported \(.*\); name a function as module:function",
    "math:pi": "metric 'math:pi' is a float; name a function of two batches of images",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_metric_is_refused_in_one_line_with_the_choices(name):
    with pytest.raises(ValueError, match=UNKNOWN[name]) as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_a_missing_metric_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*metric\.pt"):
        load(tmp_path / "metric.pt")


class InOneGo:
    """A metric with triplet_distances of its own, wrong for p1."""

    def __call__(self, x, y):
        return mean_difference(x, y)

    def triplet_distances(self, ref, p0, p1):
        return self(ref, p0), self(ref, p1) * math.nan


WRONG = {
    r"metric 'one' returned \(\) for 10 pairs; return a tensor \(10,\)": lambda x, y: (x - y).abs().mean(),
    r"metric 'one' returned \(10, 1\) for 10 pairs": lambda x, y: mean_difference(x, y)[:, None],
    "metric 'one' returned list for 10 pairs": lambda x, y: mean_difference(x, y).tolist(),
    "metric 'one' returned NaN for pair 0 of a batch of 10": lambda x, y: mean_difference(x, y) * math.nan,
    "metric 'one' returned NaN for pair 0 .*; it has no distance": InOneGo(),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_metric_that_returns_something_else_than_distances_is_named(message, unchecked):
    with pytest.raises(ValueError, match=message) as caught:
        evaluate(Metric("one", WRONG[message]), small_triplets(), batch_size=10)
    assert "\n" not in str(caught.value)


def test_ms_ssim_says_what_to_do_about_small_images():
    with pytest.raises(
        ValueError, match=r"32 x 32 pixels; .* MS-SSIM need at least 161 x 161: use larger images, or ssim"
    ):
        evaluate("ms-ssim", small_triplets())


def test_empty_data_are_refused():
    with pytest.raises(ValueError, match="made up 0 is empty; there is nothing to score"):
        evaluate("l2", small_triplets().select(torch.zeros(24, dtype=torch.bool)))


# Scores and tables


def test_scores_are_those_of_distances_computed_one_by_one():
    data, pairs = small_triplets(), small_pairs()
    d0, d1 = (torch.cat([l2(data[i : i + 1].ref, data[i : i + 1][side]) for i in range(24)]) for side in (1, 2))
    result = evaluate("l2", data, batch_size=10)
    assert result.score == pytest.approx(two_afc_score(d0, d1, data.judge))
    judged = evaluate("l2", pairs, batch_size=10)
    assert judged.kind == "jnd" and torch.equal(judged.votes, pairs.same)
    torch.testing.assert_close(judged.distances, (d0,))
    assert judged.score == pytest.approx(jnd_map(d0, pairs.same))
    by_photo = bootstrap_interval(lambda i: two_afc_score(d0[i], d1[i], data.judge[i]), 24, data.photo)
    assert result.interval() == pytest.approx(by_photo)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_the_batch_size_changes_no_distance(batch_size):
    ours, whole = (evaluate("lpips-st-alex", small_triplets(), batch_size=n).distances for n in (batch_size, 24))
    torch.testing.assert_close(ours, whole, atol=1e-6, rtol=1e-4)


class Lazy:
    """Triplets that exist while somebody holds them, and how many did at most."""

    name, judge, subset, photo = "lazy", torch.zeros(200), None, None

    def __init__(self):
        self.alive, self.most = weakref.WeakSet(), 0

    def __len__(self):
        return len(self.judge)

    def batches(self, size):
        for votes in self.judge.split(size):
            batch = [torch.rand(len(votes), 3, 8, 8) for _ in range(3)]
            for images in batch:
                self.alive.add(images)
            self.most = max(self.most, len(self.alive))
            yield Triplet(*batch, votes)
            del batch


def test_memory_holds_two_batches_however_many_there_are():
    data = Lazy()
    assert len(evaluate("l2", data, batch_size=5).distances[0]) == 200
    assert data.most <= 6  # three pictures each of the batch at hand and of the one just made


def by_hand():
    judge = torch.tensor([0.0, 0.2, 1.0, 0.6])
    d0, d1 = torch.tensor([0.1, 0.3, 0.5, 0.5]), torch.tensor([0.2, 0.1, 0.1, 0.5])
    return Evaluation("m", "d", "2afc", (d0, d1), judge, ["a", "b", "b", "b"])


def test_table_has_a_row_for_each_subset_for_all_and_the_macro_average():
    table = by_hand().table(resamples=200).set_index("subset")
    b = (0.2 + 1 + 0.5) / 3
    assert list(table.index) == ["a", "b", "all", "macro average"]
    assert table["n"].tolist() == [1, 3, 4, 4]
    assert table["score"].tolist() == pytest.approx([1, b, (1 + 3 * b) / 4, (1 + b) / 2])
    assert table.loc["b", "human"] == pytest.approx((0.68 + 1 + 0.52) / 3)
    assert table.loc["b", "majority"] == pytest.approx((0.8 + 1 + 0.6) / 3)
    assert table.loc["macro average", "human"] == pytest.approx((1 + (0.68 + 1 + 0.52) / 3) / 2)
    assert table.loc["b", "low"] == pytest.approx(0.2) and table.loc["b", "high"] == pytest.approx(1)
    assert table.loc["macro average", ["low", "high"]].isna().all()
    assert set(table["metric"]) == {"m"} and set(table["data"]) == {"d"}


def test_one_subset_or_none_gives_one_row():
    for subset in (None, ["a"] * 4):
        result = by_hand()
        result.subset = subset
        assert result.table(resamples=10)["subset"].tolist() == ["all"]


def test_jnd_table_has_no_voters_ceiling_and_survives_resamples_where_nobody_said_same():
    pairs = small_pairs()
    pairs.same = torch.zeros(24)
    pairs.same[:2] = 1.0  # one pair of each subset
    pairs.photo = None
    table = evaluate("l2", pairs).table(resamples=100).set_index("subset")
    assert list(table.index) == ["even", "odd", "all", "macro average"]
    assert "human" not in table and "majority" not in table
    chosen = torch.arange(0, 24, 2)
    expected = jnd_map(l2(pairs[chosen].p0, pairs[chosen].p1), pairs.same[chosen])
    assert table.loc["even", "score"] == pytest.approx(expected)
    assert (table["low"] <= table["score"]).sum() == 3


# Files


def test_tables_are_written_as_json_and_csv(tmp_path):
    table = by_hand().table(resamples=10)
    write_tables(tmp_path / "t.json", table, {"seed": 3})
    write_tables(str(tmp_path / "t.csv"), table, {"seed": 3})
    stored = json.loads((tmp_path / "t.json").read_text())
    assert stored["seed"] == 3 and [row["subset"] for row in stored["rows"]] == table["subset"].tolist()
    assert [row["score"] for row in stored["rows"]] == pytest.approx(table["score"].tolist())
    assert stored["rows"][-1]["low"] is None  # NaN is no JSON
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.csv"), table)


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    path = tmp_path / "t.json"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        write_tables(path, by_hand().table(resamples=10), {})
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["t.txt", "t"])
def test_another_extension_is_refused_and_nothing_written(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name} ends in neither \.json nor \.csv; rename it"):
        write_tables(tmp_path / name, by_hand().table(resamples=10), {})
    assert not list(tmp_path.iterdir())


def test_evaluating_moves_no_random_numbers_and_keeps_no_gradients():
    expected = torch.rand(1, generator=torch.Generator().manual_seed(0))
    result = evaluate("lpips-st-alex-random", small_triplets())
    assert torch.equal(torch.rand(1), expected) and not result.distances[0].requires_grad


def test_data_in_memory_are_not_changed():
    data = small_triplets()
    before = [data.ref.clone(), data.p0.clone(), data.judge.clone()]
    evaluate("lpips-st-alex", data)
    assert isinstance(data, Triplets)
    assert all(torch.equal(a, b) for a, b in zip(before, (data.ref, data.p0, data.judge), strict=True))
