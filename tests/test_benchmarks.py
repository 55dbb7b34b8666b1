"""The benchmark runs, its implementations agree, and the README quotes what it measured."""

import json
import math
import time
from collections import Counter

import pytest
import torch
from torch import nn

from course_lib.paths import repo_root
from tests.benchmarks import bench_certified, bench_lipschitz, bench_lpips


def test_quick_benchmark_measures_every_implementation_and_they_agree(tmp_path, capsys):
    bench_lpips.main(["--quick", "--output", str(tmp_path / "bench.json")])
    results = json.loads((tmp_path / "bench.json").read_text())
    assert len(results["speed"]) == 12
    for row in results["speed"]:
        assert tuple(row["median_ms"]) == bench_lpips.IMPLEMENTATIONS
        assert all(row["median_ms"][name] >= row["min_ms"][name] > 0 for name in row["median_ms"])
        assert row["relative_error"]["lpips"] == 0
        assert row["relative_error"]["course fp32"] < 1e-5 < row["relative_error"]["course bf16"]
    assert bench_lpips.table(results) in capsys.readouterr().out


def test_disagreement_is_an_error(monkeypatch):
    work = bench_lpips.work

    def too_large(implementation, *arguments):
        value = work(implementation, *arguments)
        return value * 1.01 if implementation == "course fp32" else value

    monkeypatch.setattr(bench_lpips, "work", too_large)
    with pytest.raises(ValueError, match=r"course fp32 differs from lpips by 0\.01"):
        bench_lpips.measure_speed("alex", 1, 32, "forward", 1)


def test_memory_of_more_images_is_larger():
    few, many = (bench_lpips.measure_memory("alex", n, 128, "forward", ("course fp32",)) for n in (1, 24))
    assert many["peak_mb"]["course fp32"] > few["peak_mb"]["course fp32"] + 10


@pytest.mark.skipif(not bench_lpips.RESULTS.exists(), reason="not measured yet: make bench")
def test_readme_quotes_the_measured_table():
    results = json.loads(bench_lpips.RESULTS.read_text("utf-8"))
    assert bench_lpips.table(results) in (repo_root() / "README.md").read_text("utf-8")


def test_all_implementations_share_one_trunk():
    features = bench_lpips.shared_trunk("vgg")
    for name in bench_lpips.IMPLEMENTATIONS[:3]:
        weights = bench_lpips.build(name, "vgg", features).state_dict()
        convolutions = [value for value in weights.values() if value.ndim == 4 and value.shape[1] == 512]
        expected = [value for value in features.state_dict().values() if value.ndim == 4 and value.shape[1] == 512]
        assert all(any(torch.equal(value, other) for other in convolutions) for value in expected)


def assert_lipschitz_rows_are_whole(rows, sizes):
    expected = [(*key, mode) for key in bench_lipschitz.all_cases(sizes) for mode in bench_lipschitz.modes(key[0])]
    assert Counter((row["layer"], row["shape"], row["mode"]) for row in rows) == Counter(expected)
    for row in rows:
        assert len(row["median_ms"]) >= 2, f"{bench_lipschitz.label(row)} has no peer"
        assert all(row["median_ms"][name] >= row["min_ms"][name] > 0 for name in row["median_ms"])
        if row["layer"] in ("SLLConv2d", "SLLLinear", "LipSimNet"):
            assert row["relative_error"] <= bench_lipschitz.TOLERANCE


@pytest.fixture(scope="module")
def quick_lipschitz(tmp_path_factory):
    output = tmp_path_factory.mktemp("bench") / "bench.json"
    bench_lipschitz.main(["--quick", "--output", str(output)])
    return output


def test_quick_lipschitz_benchmark_measures_every_layer_against_a_peer(quick_lipschitz):
    results = json.loads(quick_lipschitz.read_text("utf-8"))
    assert_lipschitz_rows_are_whole(results["speed"], bench_lipschitz.QUICK)


def test_only_measures_the_named_layers_again_and_keeps_the_others(quick_lipschitz, tmp_path):
    before = json.loads(quick_lipschitz.read_text("utf-8"))["speed"]
    output = tmp_path / "bench.json"
    output.write_text(quick_lipschitz.read_text("utf-8"), "utf-8")
    bench_lipschitz.main(["--quick", "--only", "MaxMin", "--output", str(output)])
    after = json.loads(output.read_text("utf-8"))["speed"]
    assert [row for row in after if row["layer"] != "MaxMin"] == [row for row in before if row["layer"] != "MaxMin"]
    assert [row["mode"] for row in after if row["layer"] == "MaxMin"] == list(bench_lipschitz.MODES)
    assert after != before


def test_only_refuses_results_of_another_machine(quick_lipschitz, tmp_path):
    results = json.loads(quick_lipschitz.read_text("utf-8"))
    results["machine"]["threads"] += 1
    output = tmp_path / "bench.json"
    output.write_text(json.dumps(results), "utf-8")
    with pytest.raises(ValueError, match="measure everything again"):
        bench_lipschitz.main(["--quick", "--only", "MaxMin", "--output", str(output)])
    assert json.loads(output.read_text("utf-8")) == results


def test_lipschitz_layer_that_differs_from_the_published_formula_is_an_error(monkeypatch):
    monkeypatch.setattr(bench_lipschitz, "share", lambda course, published: None)
    case, size = bench_lipschitz.all_cases(bench_lipschitz.QUICK)["SLLLinear", "3 x 8"]
    with pytest.raises(ValueError, match=r"SLLLinear .* differs from published"):
        bench_lipschitz.measure("SLLLinear", "3 x 8", case, size, "eval", 0, False, time.perf_counter)


def test_lipschitz_targets_name_what_is_missed():
    def row(layer, mode, **times):
        return {"layer": layer, "shape": "16 x 64 x 32²", "mode": mode, "median_ms": times}

    rows = [
        row("SLLConv2d", "eval", course=2.0, published=3.0),
        row("SLLConv2d", "forward", course=2.0, published=2.2),
        row("BjorckLinear", "eval", **{"course": 4.0, "deel-torchlip": 2.0, "orthogonium": 5.0}),
    ]
    rows[0]["median_ms"] |= {"course channels_last": 1.0, "published channels_last": 3.0}
    rows[1]["median_ms"] |= {"course channels_last": 1.0, "published channels_last": 3.0}
    found = {target["times as fast"]: target for target in bench_lipschitz.targets(rows)}
    ours = found["course SLLConv2d / published, 64 x 32²"]
    assert (ours["reached"], ours["missed"]) == (1.1, ["SLLConv2d, 16 x 64 x 32², forward"])
    assert found["course SLLConv2d / published, every shape"]["missed"] == []
    assert found["course channels_last SLLConv2d / published channels_last, 64 x 32²"]["reached"] == 3
    assert found["course / slower library, every layer"]["reached"] == 1.25


@pytest.mark.skipif(not bench_lipschitz.RESULTS.exists(), reason="not measured yet: make bench")
def test_committed_lipschitz_speed_is_whole_and_its_targets_follow_from_it():
    results = json.loads(bench_lipschitz.RESULTS.read_text("utf-8"))
    assert (repo_root() / results["command"].split()[1]).samefile(bench_lipschitz.__file__)
    assert_lipschitz_rows_are_whole(results["speed"], bench_lipschitz.FULL)
    assert results["targets"] == bench_lipschitz.targets(results["speed"])


def test_certified_share_is_exact_for_a_linear_network():
    # rows e_0 to e_9: the boundary between classes i and j lies (x_i - x_j) / sqrt(2) away from x
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(10, 784))
    images = torch.zeros(4, 784, dtype=torch.float64)
    for image, radius in zip(images, (-5, 30, 40, 109), strict=True):
        image[3] = radius / 255 * math.sqrt(2)
    images[0, 5] = 1e-9
    labels = torch.tensor([3, 3, 3, 3])
    row = bench_certified.score(model, (images.view(4, 1, 28, 28), labels))
    assert row["natural"] == 0.75
    assert row["certified"] == {"36": 0.5, "72": 0.25, "108": 0.25}
    assert row["upper_bound"] == pytest.approx(1)
    with torch.no_grad():
        model[1].weight.mul_(7)  # scaling all logits changes no distance
    assert bench_certified.score(model, (images.view(4, 1, 28, 28), labels))["certified"] == row["certified"]


def test_quick_certified_benchmark_trains_the_named_families_and_keeps_the_others(tmp_path, capsys):
    output = tmp_path / "certified.json"
    for name in ("AOL dense", "sandwich"):
        bench_certified.main(["--quick", "--only", name, "--output", str(output)])
    networks = json.loads(output.read_text("utf-8"))["networks"]
    assert list(networks) == ["AOL dense", "sandwich dense"]
    assert all(1 >= row["natural"] >= row["certified"]["36"] for row in networks.values())
    assert "sandwich dense" in capsys.readouterr().out


@pytest.mark.parametrize("name", bench_certified.NETWORKS)
def test_every_network_of_the_certified_benchmark_is_bounded(name):
    torch.manual_seed(0)
    model = bench_certified.NETWORKS[name][1]()
    data = bench_certified.load("val")
    bound = bench_certified.score(model.eval(), (data[0][:2], data[1][:2]))["upper_bound"]
    assert (bound > 1.01) == (name == bench_certified.ORDINARY)


@pytest.mark.skipif(not bench_certified.RESULTS.exists(), reason="not measured yet: make bench-certified")
def test_committed_certified_accuracies_are_whole_and_fall_with_the_radius():
    results = json.loads(bench_certified.RESULTS.read_text("utf-8"))
    assert (repo_root() / results["command"].split()[-1]).samefile(bench_certified.__file__)
    assert list(results["networks"]) == list(bench_certified.NETWORKS)
    for name, row in results["networks"].items():
        shares = [row["natural"], *row["certified"].values()]
        assert list(row["certified"]) == ["36", "72", "108"]
        assert shares == sorted(shares, reverse=True)
        assert all(share * 500 == pytest.approx(round(share * 500)) for share in shares)  # of 500 test digits
        assert (row["steps"], row["seconds"] > 0) == (results["steps"], True)
        if name == bench_certified.ORDINARY:
            assert row["upper_bound"] > 2 and row["certified"]["108"] == 0 < 0.9 < row["natural"]
        else:
            assert row["upper_bound"] < 1 + 1e-4 and row["certified"]["36"] > 0.5
