"""The benchmark of distillation: its scores are those of the course, and its file holds what chapter 11 reads."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_lib.data import triplets
from course_lib.distillation import Ensemble, Exam, Teacher, embedded, pixels, relational
from tests.benchmarks import bench_distillation as bench


class Projection(nn.Module):
    """Images, shrunk, onto 512 random directions."""

    def forward(self, images):
        directions = torch.randn(192, 512, generator=torch.Generator().manual_seed(0))
        return F.adaptive_avg_pool2d(images, 8).flatten(1) @ directions / 20


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Teachers that answer at once, and no judgments of people."""
    monkeypatch.setattr(bench, "load_teacher", lambda name: Teacher(name, Projection(), 64))
    monkeypatch.setattr(bench, "PEOPLE", tmp_path / "nobody")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    some = triplets.Triplets("few", *torch.randint(256, (3, 8, 3, 64, 64), dtype=torch.uint8), torch.rand(8))
    monkeypatch.setattr(bench.triplets, "simulated", lambda split: some)


def test_quick_students_are_measured_row_by_row_and_the_others_are_kept(stand_in, tmp_path, capsys):
    output = tmp_path / "results.json"
    bench.main(["--quick", "--parts", "students", "--only", "pixel L2", "own mean", "--output", str(output)])
    printed = capsys.readouterr()
    assert "no judgments of real people" in printed.err and "| own mean |" in printed.out
    first = json.loads(output.read_text())["students"]["rows"]
    assert list(first) == ["pixel L2", "own mean", "pixel L2, efficientnet-lite0", "pixel L2, ensemble"]
    assert first["own mean"]["steps"] == 2 and 0.5 < first["own mean"]["bound"] <= 1.0001
    assert all("people" not in row for row in first.values())
    bench.main(["--quick", "--parts", "students", "--only", "teacher st", "--output", str(output)])
    second = json.loads(output.read_text())["students"]["rows"]
    assert list(second) == ["pixel L2", "teacher st-alex", *list(first)[1:]]
    assert {name: second[name] for name in first} == first
    teacher = second["teacher st-alex"]
    assert teacher["spearman"] == teacher["same_decision"] == 1 and teacher["certified"] is None


def test_rows_measured_in_another_way_are_not_mixed(stand_in, tmp_path):
    output = tmp_path / "results.json"
    output.write_text(json.dumps({"students": {"about": {}, "rows": {}}}))
    with pytest.raises(ValueError, match="students measured in another way"):
        bench.main(["--quick", "--parts", "students", "--only", "pixel", "--output", str(output)])


def test_quick_longer_run_keeps_a_history(stand_in, tmp_path):
    output = tmp_path / "results.json"
    bench.main(["--quick", "--parts", "longer", "--output", str(output)])
    longer = json.loads(output.read_text())["longer"]
    assert [record["epoch"] for record in longer["history"]] == [1, 2]
    last = longer["history"][-1]
    assert {"loss", "spearman", "certified 36", "median_radius"} <= last.keys()
    assert last["spearman"] == longer["row"]["spearman"]


def test_scores_are_those_of_the_exam(stand_in):
    sheet, student = bench.Sheet(6, 8), bench.untrained()
    teacher = bench.load_teacher("st-alex")
    expected = Exam(teacher, embedded("val", 6), triplets.simulated("val")).scores(student)
    found = sheet.scores(sheet.answers(student), sheet.answers(teacher.embed))
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-3)


def test_radius_is_the_distance_to_the_plane_where_both_images_are_as_near():
    points = torch.randn(3, 20, 5, generator=torch.Generator().manual_seed(0))
    radius = bench.Answers(points[0], list(points), {}).radius()
    ref, p0, p1 = points.double()
    away = F.normalize(p1 - p0, dim=1)
    moved = ref + radius[:, None] * away
    torch.testing.assert_close((moved - p0).norm(dim=1), (moved - p1).norm(dim=1))
    assert ((radius > 0) == ((ref - p0).norm(dim=1) < (ref - p1).norm(dim=1))).all()


def test_certified_are_right_decisions_with_a_large_radius_only(stand_in):
    sheet = bench.Sheet(6, 8)
    teacher = sheet.answers(pixels)
    wrong = bench.Answers(teacher.far, [teacher.near[0], teacher.near[2], teacher.near[1]], {})
    assert sheet.scores(teacher, teacher)["certified"]["36"] == (teacher.radius().abs() > 36 / 255).double().mean()
    assert sheet.scores(wrong, teacher)["certified"] == {"36": 0, "108": 0}


def test_only_the_loss_that_fails_does_not_see_the_scale():
    embedding, target = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    tiny = 1e-3 * embedding
    torch.testing.assert_close(bench.own_mean(embedding, target), bench.own_mean(tiny, target))
    assert relational(tiny, target) > relational(target, target) + 0.9


def test_joined_embeddings_are_those_of_an_ensemble():
    members = [Teacher("a", nn.Flatten(), 4), Teacher("b", Projection(), 16)]
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    a, b = (member.embed(images) for member in members)
    torch.testing.assert_close(bench.joined(a, b), Ensemble(members)(images))


def test_quick_throughput_compares_equal_networks(monkeypatch):
    monkeypatch.setattr(bench, "peak_memory", bench.memory_of_one)
    row = bench.measure_throughput("tiny", **bench.QUICK["throughput"]["tiny"])
    assert row["relative_error"] < 1e-5
    assert tuple(row["images_per_second"]) == tuple(row["peak_mb"]) == bench.VARIANTS
    assert min(row["images_per_second"].values()) > 0


def test_another_network_than_the_published_one_is_an_error(monkeypatch):
    networks = bench.networks("tiny")
    monkeypatch.setattr(bench, "networks", lambda _: networks | {"published": bench.untrained()})
    monkeypatch.setattr(networks["course"], "forward", lambda images: bench.untrained()(images) * 1.01)
    with pytest.raises(ValueError, match=r"tiny differs from the published layers by 0\.01"):
        bench.measure_throughput("tiny", 2, 1)


@pytest.mark.skipif(not bench.PEOPLE.is_dir(), reason="needs the human judgments of materials")
def test_pixel_l2_sides_with_the_majority_of_people_as_often_as_was_measured_elsewhere():
    sheet = bench.Sheet(4, 4)
    people = sheet.scores(sheet.answers(pixels), sheet.answers(pixels))["people"]
    assert people == pytest.approx({"ennis": 0.642, "stpeters": 0.734}, abs=0.025)


def test_shipped_file_was_measured_with_the_settings_that_are_here():
    results = json.loads(bench.RESULTS.read_text("utf-8"))
    assert {"command", "throughput", "teachers", "students"} <= set(results) <= {"command", *bench.PARTS}
    for part, settings in bench.FULL.items():
        if part in results:
            assert results[part]["about"]["settings"] == bench.provenance(settings)["settings"], part


def test_shipped_file_holds_what_the_chapter_reads():
    results = json.loads(bench.RESULTS.read_text("utf-8"))
    for network in results["throughput"]["networks"].values():
        assert network["images_per_second"].keys() == network["peak_mb"].keys() == {*bench.VARIANTS}
    assert results["throughput"]["networks"].keys() == {"small", "tiny"}
    for net in ("st-alex", "st-vgg"):
        for kind in ("distortions", "crops"):
            rows = results["teachers"]["reduction"][net][kind]
            assert [row["dim"] for row in rows] == [64, 128, 256, 512, 1024]
            assert all(row.keys() == {"dim", "ratio", "error", "worst", "spearman"} for row in rows)
    names = {"pixel L2", "st-alex", "efficientnet-lite0", "ensemble", "side by side"}
    assert results["teachers"]["two_afc"].keys() == names
    rows = results["students"]["rows"]
    trained = [f"{loss} {scale}" for loss in ("relational", "published") for scale in (1, 5, 20)]
    trained += ["cosine", "own mean"]
    for name in ("pixel L2", "untrained", "teacher st-alex", *trained, *rows):
        assert {"spearman", "same_decision", "agreement", "distance", "norm", "people"} <= rows[name].keys()
        assert rows[name]["people"].keys() == {"ennis", "stpeters"}
        assert name.startswith("teacher") or 0 <= rows[name]["certified"]["108"] <= rows[name]["certified"]["36"]
    for name in [*trained, *(name for name in rows if name.startswith("relational, "))]:
        assert rows[name]["bound"] <= 1.0001 and len(rows[name]["losses"]) == bench.SHORT.epochs
    if "longer" in results:
        history = results["longer"]["history"]
        assert len(history) == bench.FULL["longer"]["recipe"].epochs
        assert {"people ennis", "people stpeters", "spearman", "median_radius"} <= history[-1].keys()
