"""The benchmark of attacks: on a metric where the answers are known, its numbers are right."""

import json

import pytest
import torch

from course_lib.paths import repo_root
from tests.benchmarks import attack_peers as peers
from tests.benchmarks import bench_attacks
from tests.small_attacks import BENT, SQUARED, random_triplets, triplets_at


@pytest.fixture
def linear():
    """Decisions that are overturned at these L2 distances."""
    ref, p0, p1 = triplets_at([0.4, 0.6, 0.9, 1.1, 1.9])
    return bench_attacks.Task(SQUARED, ref, p0, p1, torch.zeros(5, dtype=torch.long))


def test_what_stands_at_each_radius_is_counted_for_ours_and_for_every_peer(linear, capsys):
    rows = bench_attacks.in_the_ball(linear, "l2")
    names = {*bench_attacks.OURS, *peers.IN_THE_BALL}
    for eps, standing in (("0.5", 4), ("1", 2), ("2", 0)):
        assert {name: rows[eps][name]["standing"] for name in names} == dict.fromkeys(names, standing)
        assert all(rows[eps][name]["backwards"] <= bench_attacks.STEPS for name in names - {"worst-case"})
    assert capsys.readouterr().out.count("met") == 3


def test_medians_of_smallest_changes_are_those_of_the_linear_decision(linear, monkeypatch):
    monkeypatch.delitem(peers.NEAREST, "foolbox Brendel-Bethge")  # takes 20 s to compile
    rows = bench_attacks.nearest(linear, "l2")
    for name in ("fab", "ddn", "deepfool", "foolbox DDN", "pyautoattack FAB", "foolbox DeepFool"):
        assert rows[name]["median"] == pytest.approx(0.9, rel=0.06) and rows[name]["failed"] == 0
        assert rows[name]["median"] > 0.9 * 0.999


def test_what_lies_outside_the_ball_or_fools_nobody_stands(linear):
    away = linear.ref + (linear.p1 - linear.p0) * 0.49  # changed far enough, but further than the ball reaches
    for images, stands in ((away, 5), (linear.ref, 5)):
        measured = linear.measure("l2", lambda images=images: (images, 1, 1))
        assert bench_attacks.report("x", measured, 0.3)["standing"] == stands


def test_parts_are_written_one_by_one_and_other_settings_do_not_mix(tmp_path, monkeypatch):
    ref, p0, p1, judge = random_triplets(3)[:]
    task = bench_attacks.Task(BENT, ref, p0, p1, (judge > 0.5).long())
    monkeypatch.setattr(bench_attacks.Task, "choose", lambda *_: task)
    monkeypatch.setattr(bench_attacks, "QUERIES", 5)
    monkeypatch.setattr(bench_attacks, "RADII", {"l2": (0.3,), "linf": (0.02,)})
    output = tmp_path / "attacks.json"
    for _ in range(2):
        bench_attacks.main(["--parts", "square", "--metric", "l2", "--output", str(output)])
    stored = json.loads(output.read_text())
    assert stored["images"] == 3 and set(stored["square"]["linf"]) == {"square", *peers.BLACK_BOX}
    monkeypatch.setattr(bench_attacks, "QUERIES", 6)
    with pytest.raises(ValueError, match="was measured with other settings"):
        bench_attacks.main(["--parts", "square", "--metric", "l2", "--output", str(output)])


def test_readme_quotes_what_was_measured():
    result, quoted = json.loads(bench_attacks.RESULT.read_text()), []
    for norm in ("l2", "linf"):
        rows = result[norm].values()
        ours = [row["apgd-margin"]["standing"] for row in rows]
        others = [min(row[name]["standing"] for name in peers.IN_THE_BALL) for row in rows]
        quoted += ["{}, {} and {}".format(*standing) for standing in (ours, others)]
    text = " ".join((repo_root() / "README.md").read_text("utf-8").split())
    l2 = "{} stand at L2 0.5, 1 and 2 (the strongest other: {})".format(*quoted[:2])
    assert f"{l2}, and " + "{} at L-infinity 2, 4 and 8 of 255 ({})".format(*quoted[2:]) in text
