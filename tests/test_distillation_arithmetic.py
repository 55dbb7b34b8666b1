"""The cost of distillation on a cluster: shapes counted by hand, and numbers that follow from a measured throughput."""

import pytest
import torch

from course_lib.distillation import arithmetic, budget, measured_throughput
from course_lib.distillation.budget import training_flops
from course_lib.lipschitz import LipSimNet


def test_operations_of_a_network_are_those_counted_by_hand():
    channels, hidden, side, dense = 6, 5, 16, 8
    network = LipSimNet.published(channels, 1, 1, dense, out_features=6, image_size=side)
    conv, linear = 2 * 9 * channels * hidden * side**2, 2 * 6 * dense
    # a residual layer multiplies by its weight and by its transpose; backward each of these costs one product for its
    # input (but the image needs no gradient) and one for the weight
    assert training_flops(network, 3) - training_flops(network, 2) == (2 + 3) * conv + (2 + 4) * linear


def test_nothing_is_computed_for_the_count():
    with torch.device("meta"):
        network = LipSimNet.preset("tiny", 32)
    real = LipSimNet.preset("tiny", 32)
    assert training_flops(network, 2) == training_flops(real, 2) > 1e8


def test_the_published_run_on_paper():
    page = arithmetic("small", 100.0, teacher_throughput=1000.0)
    assert page.steps == 40 * 2502 and page.processes == 16
    assert page.hours == pytest.approx(40 * 2502 * 512 / 1600 / 3600)
    assert page.gpu_hours == pytest.approx(16 * page.hours)
    assert page.target_bytes == 2 * 1_281_167 * 1792 * 2 == pytest.approx(2 * 4.6e9, rel=0.01)
    assert page.teacher_hours == pytest.approx(2 * 1_281_167 / 1000 / 3600)
    assert page.parameters == pytest.approx(7 * 8820 * 1024, rel=0.01)  # its dense layers, 0.25 GB
    assert page.state_bytes == 16 * page.parameters
    convolutions = 2 * 3 * 20 * 2 * 2 * 9 * 45 * 5 * 224**2  # two views, forward and twice backward
    assert page.flops_per_image == pytest.approx(convolutions, rel=0.05)
    assert page.flops == pytest.approx(page.flops_per_second * page.gpu_hours * 3600)
    assert page.exchanged_bytes > 2 * 15 / 16 * 4 * page.parameters
    assert any(line.startswith("student ") and "on 16 GPUs" in line for line in page.lines())
    assert sum(line.startswith("teacher ") for line in page.lines()) == 1


def test_twice_the_throughput_takes_half_the_time_and_reads_twice_as_fast():
    slow, fast = (arithmetic("tiny", rate, dim=64) for rate in (50.0, 100.0))
    assert slow.hours == pytest.approx(2 * fast.hours) and slow.flops == fast.flops
    assert 2 * slow.read_bytes_per_second == pytest.approx(fast.read_bytes_per_second)
    assert slow.teacher_hours is None and not any(line.startswith("teacher ") for line in slow.lines())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_throughput_counts_images_and_leaves_warming_up_out(monkeypatch, precision):
    passes, clock = [], iter([100.0, 104.0])
    monkeypatch.setattr(budget.time, "perf_counter", lambda: passes.append("clock") or next(clock))
    original = LipSimNet.forward
    monkeypatch.setattr(LipSimNet, "forward", lambda self, x: passes.append(len(x)) or original(self, x))
    rate = measured_throughput("tiny", 3, steps=2, warmup=1, dim=16, precision=precision)
    assert passes == [6, "clock", 6, 6, "clock"] and rate == 2 * 3 / 4


@pytest.mark.parametrize("change", [{"throughput": 0.0}, {"images": -1}, {"orientations": 3}])
def test_impossible_numbers_are_refused(change):
    with pytest.raises(ValueError, match="all are positive, orientations 1 or 2"):
        arithmetic(**({"student": "tiny", "throughput": 1.0, "dim": 16} | change))
