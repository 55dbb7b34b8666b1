"""The benchmark runs, its implementations agree, and the README quotes what it measured."""

import json

import pytest
import torch

from course_lib.paths import repo_root
from tests.benchmarks import bench_lpips


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
