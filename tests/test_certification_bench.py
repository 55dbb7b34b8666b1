"""The benchmark of certification: its attacks find what is there, and its file holds what chapter 12 reads."""

import json

import pytest
import torch

from course_lib.certification import CertifiedMetric, certify, pixel_l2, published_2afc_radius
from course_lib.data.triplets import Triplets
from tests import small_certified as small
from tests.benchmarks import bench_certification as bench


def few(n=24, contrast=0.08):
    """Triplets of 8 x 8 whose references are far from black and white, so that attacks have room."""
    pictures = ((255 * images).round().byte() for images in small.images(n, contrast=contrast))
    judge = (torch.rand(n, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    return Triplets("few", *pictures, judge)


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Triplets that need not be loaded, and no judgments of people."""
    monkeypatch.setattr(bench, "PEOPLE", tmp_path / "nobody")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    some = Triplets("few", *torch.randint(256, (3, 8, 3, 64, 64), dtype=torch.uint8), torch.tensor([0.0, 1.0] * 4))
    for source in (bench.triplets, bench.labels):
        monkeypatch.setattr(source, "simulated", lambda split: some)


def test_the_attack_uses_the_whole_budget_of_each_image_and_no_more():
    start = torch.full((5, 3, 8, 8), 0.5)
    slope = torch.randn(start.shape, generator=torch.Generator().manual_seed(1))
    budget = torch.tensor([1e-4, 0.01, 0.1, 0.5, 1.0])
    changed, value = bench.pushed(lambda x, which: (slope[which] * x).flatten(1).sum(1), start, budget, 8)
    best = (slope * start).flatten(1).sum(1) + budget * slope.flatten(1).norm(dim=1)
    assert value == pytest.approx(best, rel=1e-5)
    size = (changed.double() - start.double()).flatten(1).norm(dim=1)
    assert (size <= budget).all() and size == pytest.approx(budget.double(), rel=5e-3)  # float32 pixels


def test_pixels_stay_between_black_and_white():
    changed, _ = bench.pushed(lambda x, _: x.flatten(1).sum(1), torch.full((2, 3, 8, 8), 0.99), torch.ones(2), 4)
    assert changed.max() == 1


@pytest.mark.parametrize("kind", ["euclidean", "cosine"])
def test_nothing_flips_inside_a_radius_that_is_exact_and_everything_flips_just_outside(kind):
    metric, data = CertifiedMetric(small.isometry(), kind).eval(), few()
    inside = bench.attack_decisions(metric, data, 10, "x")
    assert inside == {"attacked": 24, "flipped": 0, "uncertified": 0}
    assert bench.attack_decisions(metric, data, 10, "x", times=1.02)["flipped"] == 24
    size = bench.smallest_changes(metric, data, 40)
    radius = metric.radius(*data[:][:3]).abs().double()
    assert (size > radius).all() and (size / radius).median() < 1.03


def test_the_published_formula_breaks_where_embeddings_are_short():
    metric, data = CertifiedMetric(small.isometry(), "cosine").eval(), few()
    assert metric.assess(*data[:][:3]).norm.max() < 1
    assert bench.attack_decisions(metric, data, 10, "x", formula="published")["flipped"] > 12


def test_pairs_without_a_promise_are_not_attacked_but_counted():
    data = few(4)
    same = Triplets("same", data.ref, data.p0, data.p0, data.judge)
    assert bench.attack_decisions(pixel_l2(), same, 2, "x") == {"attacked": 0, "flipped": 0, "uncertified": 4}


def test_intervals_hold_and_those_of_a_wrong_bound_do_not():
    data = few()
    right = bench.attack_intervals(CertifiedMetric(small.isometry()).eval(), data, 0.05, 12)
    assert right["attacked"] == 24 and right["escaped"] == 0
    assert min(right["used"].values()) > 0.95
    wrong = CertifiedMetric(small.isometry(), lipschitz=0.5).eval()
    assert bench.attack_intervals(wrong, data, 0.05, 12)["escaped"] == 24


def test_claims_are_those_of_the_published_formula_whatever_bound_is_known():
    metric, data = CertifiedMetric(small.isometry(), "cosine", lipschitz=2.0), few()
    claims = bench.published(certify(metric, data), metric)
    expected = published_2afc_radius(*(metric.embed(images) for images in data[:][:3]))
    assert claims.radius == pytest.approx(expected.detach(), rel=1e-2, abs=1e-3)  # rounded towards 0


def test_over_claimed_decisions_are_counted_and_attacked(stand_in, monkeypatch):
    sheet, metric = bench.Sheet(8), CertifiedMetric(small.isometry(), "cosine").eval()
    sheet.data = few()
    exact = certify(metric, sheet.data)
    claims = bench.published(exact, metric)
    eps = exact.radius.abs().quantile(0.8).item()
    monkeypatch.setattr(bench, "EPS", {"eps": eps, "far": 50.0})
    expected = exact.natural() & (claims.radius.abs() > eps) & (exact.radius.abs() <= eps)
    found = sheet.over_claimed(metric, exact, claims, {"attacked": 5, "attack_steps": 30})
    assert found["eps"] == "eps" and found["n"] == expected.sum() and found["attacked"] == 5
    # the radius of this network is exact, so all of them are flipped
    assert found["inside_eps"] == found["inside_claim"] == 5


def test_an_appended_one_moves_no_distance_and_no_embedding_is_shorter():
    inner = small.student()
    images = small.images(3)[0]
    assert bench.Appended(inner).upper_bound() == bench.upper_bound(inner)
    appended = bench.Appended(inner)(images)
    assert torch.equal(appended[:, :-1], inner(images)) and (appended[:, -1] == 1).all()
    metric = bench.Run("tiny", bench.Recipe(loss="hinge", kind="cosine", appended=True)).metric(inner)
    assert metric.kind == "cosine" and metric.assess(*small.images(3)).norm.min() >= 1


def test_quick_rows_are_measured_one_by_one_and_the_others_are_kept(stand_in, tmp_path, capsys):
    output = tmp_path / "results.json"
    bench.main(["--quick", "--parts", "losses", "--only", "pixel", "scattering, h", "--output", str(output)])
    printed = capsys.readouterr()
    assert "no judgments of real people" in printed.err and "| scattering, hinge 0.2 |" in printed.out
    first = json.loads(output.read_text())["losses"]["rows"]
    assert list(first) == ["pixel L2", "scattering, hinge 0.2", "scattering, hinge 0.5"]
    row = first["scattering, hinge 0.2"]
    assert row["steps"] == 2 and row["kind"] == "cosine" and 0.5 < row["bound"] <= 1.0001
    assert set(row["scores"]["votes"]) == {"natural", *bench.EPS} and set(row["claimed"]) == set(bench.EPS)
    assert "people" not in row and "claimed" not in first["pixel L2"]
    bench.main(["--quick", "--parts", "losses", "--only", "scattering, r", "--output", str(output)])
    second = json.loads(output.read_text())["losses"]
    assert list(second["rows"])[:3] == ["pixel L2", "scattering, radius 1", "scattering, hinge 0.2"]
    assert {name: second["rows"][name] for name in first} == first
    assert second["about"]["settings"]["training"]["recipe"]["precision"] == "bf16"


def test_a_trained_network_is_taken_from_the_cache_unless_asked_otherwise(stand_in, monkeypatch):
    shop = bench.Workshop(bench.QUICK_TRAINING)
    run = shop.runs()["scattering, radius 1"]
    first, about = shop.trained(run)
    monkeypatch.setattr(bench, "finetune", lambda *_, **__: pytest.fail("trained again"))
    again, the_same = shop.trained(run)
    weights = zip(first.network.parameters(), again.network.parameters(), strict=True)
    assert about == the_same and all(torch.equal(a, b) for a, b in weights)
    assert not torch.equal(next(bench.untrained("scattering").parameters()), next(first.network.parameters()))
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        bench.Workshop(bench.QUICK_TRAINING, anew=True).trained(run)


def test_rows_measured_in_another_way_are_not_mixed(stand_in, tmp_path):
    output = tmp_path / "results.json"
    about = {"about": {"settings": {}, "versions": {}}, "rows": {}}
    output.write_text(json.dumps({"margins": about}))
    with pytest.raises(ValueError, match="margins measured in another way"):
        bench.main(["--quick", "--parts", "margins", "--only", "pixel", "--output", str(output)])


def test_quick_shipped_metric_stands_beside_what_it_has_to_beat(stand_in, tmp_path):
    torch.manual_seed(0)
    CertifiedMetric(bench.LipSimNet.scattering()).save(tmp_path / "metric.safetensors")
    output = tmp_path / "results.json"
    arguments = ["--quick", "--parts", "shipped", "--checkpoint", str(tmp_path / "metric.safetensors")]
    bench.main([*arguments, "--output", str(output)])
    rows = json.loads(output.read_text())["shipped"]["rows"]
    assert list(rows) == ["shipped", "untrained", "pixel L2", "st-alex"]
    assert rows["shipped"]["scores"] == rows["untrained"]["scores"]  # it was not trained
    for row in rows.values():
        first, *others = row["scores"]["st-alex"]
        assert first["eps"] == 0 and [one["eps"] for one in others] == pytest.approx(list(bench.EPS.values()), 1e-3)
        assert all(one["share"] <= first["share"] for one in others)
        certified = row["attacked"].get("certified", {})
        assert all(row["attacked"][key] >= share for key, share in certified.items())
    assert all(one["share"] == 0 for one in rows["st-alex"]["scores"]["votes"][1:])


def test_people_are_asked_through_a_table_of_all_distances(stand_in):
    sheet = bench.Sheet(8)
    generator = torch.Generator().manual_seed(0)
    images, shown = torch.rand(6, 3, 8, 8, generator=generator), torch.randint(6, (3, 40), generator=generator)
    for_p1 = torch.rand(40, generator=generator) > 0.5
    sheet.people = {"ennis": (images, list(shown), for_p1)}
    d0, d1 = ((images[shown[0]] - images[p]).flatten(1).norm(dim=1) for p in shown[1:])
    expected = ((d1 < d0) == for_p1).double().mean().item()
    plain = bench.Metric("l2", lambda x, y: (x - y).flatten(1).norm(dim=1))
    for metric in (pixel_l2(), plain):
        assert sheet.by_people(metric) == {"people": {"ennis": pytest.approx(expected, abs=0.03)}}


def test_cost_compares_the_certificate_with_the_forward_pass(stand_in, monkeypatch):
    monkeypatch.delitem(bench.NETWORKS, "tiny")
    last = list(bench.cost(bench.QUICK["cost"], None, dict))[-1]
    assert last["peak_mb"] == {}
    row = last["scattering, euclidean"]
    assert row["ratio"] == pytest.approx(row["certify"] / row["forward"], rel=1e-2) and row["triplets"] == 4
