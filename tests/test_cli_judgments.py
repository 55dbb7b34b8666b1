"""``python -m course_lib evaluate`` and ``train-lpips``: they score, train, go on, and name what is wrong."""

import json
import re
import shlex

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from course_lib import cli
from course_lib.data import triplets
from course_lib.judgments import l2, two_afc_score
from course_lib.lpips import LPIPS


def run(*arguments, fails=False):
    """Output and errors of a command in this process; an expected error is raised as main() would report it."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == int(fails), result.output
    return result.stdout, result.stderr


@pytest.fixture
def folder(tmp_path):
    """Twelve triplets of noise, p0 always the nearer one, and everybody sees that."""
    random = np.random.default_rng(0)
    for i in range(12):
        ref = random.integers(60, 190, (32, 32, 3))
        for name, strength in (("ref", 0), ("p0", 5), ("p1", 50)):
            pixels = (ref + random.integers(-strength, strength + 1, ref.shape)).astype(np.uint8)
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
        (tmp_path / "data" / "judge").mkdir(exist_ok=True)
        np.save(tmp_path / "data" / "judge" / f"{i}.npy", np.zeros(1, np.float32))
    return tmp_path / "data"


def test_metrics_are_scored_on_the_simulated_triplets_unless_told_otherwise(tmp_path):
    out, err = run("evaluate", "--metric", "l2", "--metric", "lpips-alex-random", "--limit", 60,
                   "--output", tmp_path / "scores.json")  # fmt: skip
    assert "simulated (test): 60 triplets" in err
    stored = json.loads((tmp_path / "scores.json").read_text())
    assert (stored["kind"], stored["data"]) == ("2afc", "simulated (test)")
    assert [row["metric"] for row in stored["rows"]] == ["l2", "lpips-alex-random"]
    batch = triplets.simulated("test")[torch.arange(60) * 2000 // 60]
    expected = two_afc_score(l2(batch.ref, batch.p0), l2(batch.ref, batch.p1), batch.judge)
    assert stored["rows"][0]["score"] == pytest.approx(expected)
    assert f"{expected:.3f}" in out


def test_examples_in_the_help_are_commands_that_exist():
    for command in ("evaluate", "train-lpips"):
        text = CliRunner().invoke(cli.app, [command, "--help"], terminal_width=200).stdout
        example = shlex.split(re.search(rf"python -m course_lib ({command} .*)", text)[1])
        options = {word for word in example if word.startswith("--")}
        assert options and all(option in text.split("Options:")[1] for option in options)


def test_the_first_example_runs(tmp_path):
    text = CliRunner().invoke(cli.app, ["evaluate", "--help"], terminal_width=200).stdout
    example = shlex.split(re.search(r"python -m course_lib (evaluate .*)", text)[1])
    out, _ = run(*example[:-1], 20)
    assert "lpips-st-alex" in out


def test_a_function_and_a_folder_of_ones_own(folder, tmp_path, monkeypatch):
    (tmp_path / "my_metrics.py").write_text("def far(x, y):\n    return -(x - y).square().mean((1, 2, 3))\n")
    monkeypatch.syspath_prepend(tmp_path)
    run("evaluate", "--metric", "l2", "--metric", "my_metrics:far", "--dataset", "folder", "--data-dir", folder,
        "--output", tmp_path / "scores.csv")  # fmt: skip
    table = pd.read_csv(tmp_path / "scores.csv")
    assert table["score"].tolist() == [1.0, 0.0]
    assert table["human"].tolist() == [1.0, 1.0]


def test_jnd_is_scored_on_pairs(tmp_path):
    run("evaluate", "--jnd", "--metric", "l2", "--limit", 40, "--output", tmp_path / "jnd.json")
    stored = json.loads((tmp_path / "jnd.json").read_text())
    assert stored["kind"] == "jnd" and "human" not in stored["rows"][0]
    assert 0 < stored["rows"][0]["score"] < 1 and "simulated" in stored["data"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "vmaf"], r"unknown metric 'vmaf'; choose l2, psnr"),
        (["--metric", "no_such_module:f"], r"cannot be imported .*no_such_module"),
        (["--metric", "missing.pt"], r"there is no checkpoint missing\.pt"),
        (["--dataset", "kadid"], r"unknown data set 'kadid'"),
        (["--dataset", "bapps"], r"data.dir"),
        (["--dataset", "nights", "--data-dir", "no such folder"], r"no such folder"),
        (["--split", "holdout"], r"holdout"),
        (["--output", "scores.txt"], r"scores\.txt ends in neither \.json nor \.csv"),
        (["--device", "tpu9"], r"device 'tpu9' cannot be used here .*; use cpu"),
        (["--metric", "ms-ssim", "--limit", "4"], r"MS-SSIM need at least 161"),
    ],
)
def test_wrong_arguments_of_evaluate_are_one_clear_line(arguments, message):
    with pytest.raises((ValueError, OSError), match=message) as caught:
        run("evaluate", *arguments)
    assert "\n" not in str(caught.value)


def test_training_makes_a_metric_that_evaluate_reads_and_a_second_call_adds_nothing(folder, tmp_path):
    options = ("train-lpips", tmp_path / "run", "--dataset", "folder", "--data-dir", folder, "--batch-size", 4,
               "--learning-rate", 0.01, "--epochs", 2, "--decay-epochs", 1)  # fmt: skip
    out, _ = run(*options)
    assert len(out.splitlines()) == 3 and out.startswith("epoch 1 loss")
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 3
    again, _ = run(*options)
    assert again == out
    made = (tmp_path / "run" / "metric.pt").read_bytes()
    table, _ = run("evaluate", "--metric", tmp_path / "run" / "metric.pt", "--dataset", "folder", "--data-dir", folder)
    assert "1.000" in table
    heads = torch.load(tmp_path / "run" / "metric.pt", weights_only=True)["heads"]
    assert all((head >= 0).all() for head in heads)
    assert not torch.equal(torch.cat(heads), torch.cat(list(LPIPS("st-alex").network.heads)).detach())
    with pytest.raises(ValueError, match=r"holds a run with other settings \(seed: 0 there, 1 now\)"):
        run(*options, "--seed", 1)
    assert (tmp_path / "run" / "metric.pt").read_bytes() == made


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode", "linear"], "unknown mode 'linear'; choose one of lin, tune, scratch"),
        (["--net", "resnet"], "unknown net 'resnet'; choose one of"),
        (["--ranking", "hinge"], "unknown ranking 'hinge'; choose one of sigmoid, network"),
        (["--dropout", "half"], "unknown dropout 'half'; choose one of"),
        (["--learning-rate", "-1"], r"learning rates are \(-1.0, None\), batch_size 50; all of them are positive"),
        (["--epochs", "0", "--decay-epochs", "0"], "epochs is 0, decay_epochs 0; train for at least one epoch"),
    ],
)
def test_wrong_arguments_of_training_are_one_clear_line_and_leave_nothing_behind(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run("train-lpips", tmp_path / "run", "--limit", 8, *arguments)
    assert not (tmp_path / "run").exists()
