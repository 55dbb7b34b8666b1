"""What judgments.json says of chapter 08 is complete, consistent, and the same when a part is measured again."""

import json

import pytest
import torch

from course_lib.data import triplets
from course_lib.judgments import evaluate, two_afc_score
from tests.benchmarks import bench_judgments

RESULT = json.loads(bench_judgments.RESULT.read_text("utf-8"))


def test_every_part_was_measured():
    assert {"scores", "curves", "dropout", "fast"} <= RESULT.keys()
    for training in bench_judgments.TRUNKS:
        assert 0.5 < RESULT[training]["test"] < RESULT[training]["what it learned from"] < 1
    assert set(RESULT["curves"]["lin"]) == {str(n) for n in bench_judgments.SIZES}


def test_scores_lie_in_their_intervals_and_no_metric_beats_the_majority():
    for row in RESULT["scores"].values():
        assert row["low"] <= row["score"] <= row["high"] < RESULT["majority_ceiling"]
    assert RESULT["human_ceiling"] < RESULT["majority_ceiling"]


def test_pixel_and_observers_scores_come_out_again():
    test = triplets.simulated("test")
    assert evaluate("l2", test).score == pytest.approx(RESULT["scores"]["l2"]["test"], abs=2e-4)
    observers = two_afc_score(*triplets.simulated_distances("test"), test.judge)
    assert observers == pytest.approx(RESULT["scores"]["lpips-st-vgg (the observers' own)"]["test"], abs=2e-4)


def test_the_fast_path_gives_the_heads_of_the_slow_one_and_is_faster_by_the_stated_ratio():
    for row in RESULT["fast"].values():
        assert row["largest_gap"] < 1e-4 * row["largest_head"]
        for way, ratio in row["fast_is_faster_by"].items():
            assert ratio == pytest.approx(row["seconds"][way] / row["seconds"]["fast"], rel=0.05, abs=0.1)


def test_every_training_takes_about_the_same_number_of_steps():
    for n in bench_judgments.SIZES:
        steps = bench_judgments.steps(n)
        assert RESULT["steps"][str(n)] == steps == pytest.approx(bench_judgments.STEPS, rel=0.2)


def test_a_subset_is_spread_over_all_photographs():
    data = triplets.simulated("val")
    chosen = bench_judgments.subset(data, 50)
    assert len(chosen) == 50
    assert torch.equal(chosen.photo.unique(), data.photo.unique())
