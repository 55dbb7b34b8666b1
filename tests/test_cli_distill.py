"""``python -m course_lib distill``: it teaches, scores, goes on where it stopped, and names what is wrong."""

import json
import re
import shlex

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from course_lib import cli
from course_lib.distillation import command, load_student
from course_lib.paths import repo_root

SMALL = ("distill", "--limit", 24, "--exam-limit", 6, "--batch-size", 8, "--epochs", 2, "--teacher", "colours:embed")


def run(*arguments):
    """Output and errors of a command in this process; an expected error is raised as main() would report it."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


@pytest.fixture(autouse=True)
def colours(tmp_path, monkeypatch):
    """A quick teacher: the mean colours of quarters of an image."""
    text = "from torch.nn.functional import adaptive_avg_pool2d\n\n\n"
    text += "def embed(images):\n    return adaptive_avg_pool2d(images, 2).flatten(1)\n"
    (tmp_path / "colours.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_student_is_taught_scored_beside_others_kept_and_not_taught_again(tmp_path):
    out, err = run(*SMALL, "--folder", tmp_path / "run")
    assert "colours:embed teaches tiny on 24 images, embedded (train, 64)" in err
    assert out.startswith("epoch 1 loss") and "simulated (val)" in out
    stored = json.loads((tmp_path / "run" / "results.json").read_text())
    rows = {row["embedding"]: row for row in stored["rows"]}
    assert list(rows) == ["pixel L2", "untrained student", "student", "teacher colours:embed"]
    assert rows["teacher colours:embed"]["spearman"] == 1
    assert rows["untrained student"] != rows["student"]
    student, about = load_student(tmp_path / "run" / "student.pt")
    assert (student.out_features, student.image_size, about["batch_size"]) == (12, 64, 8)
    last = (tmp_path / "run" / "last.pt").read_bytes()
    assert run(*SMALL, "--folder", tmp_path / "run")[0] == out
    assert (tmp_path / "run" / "last.pt").read_bytes() == last
    with pytest.raises(ValueError, match=r"holds a run with other settings \(seed: 0 there, 1 now\)"):
        run(*SMALL, "--folder", tmp_path / "run", "--seed", 1)


def test_a_folder_of_pictures_is_taught_with_the_published_recipe(tmp_path, monkeypatch):
    (tmp_path / "pictures").mkdir()
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 256, (70, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    _, err = run(*SMALL, "--dataset", "folder", "--data-dir", tmp_path / "pictures", "--views", "flip")
    assert "loss='published'" in err and "betas=(0.5, 0.9)" in err and "views='flip'" in err
    assert (tmp_path / "runs" / "tiny-colours.embed-folder" / "student.pt").exists()


def test_batch_size_is_that_of_each_process(monkeypatch):
    seen = []
    monkeypatch.setattr(command, "run", lambda *arguments, **options: seen.append(arguments[4]))
    monkeypatch.setenv("WORLD_SIZE", "16")
    arguments = ["--dataset", "imagenet", "--data-dir", "d", "--teacher", "dreamsim-ensemble", "--student", "small"]
    run("distill", *arguments, "--epochs", 40, "--batch-size", 32)
    assert (seen[0].batch_size, seen[0].epochs, seen[0].loss, seen[0].learning_rate) == (512, 40, "published", 0.01)
    run("distill", *arguments)
    assert seen[1] == command.changed("published", "imagenet", {})


def test_the_help_has_examples_whose_options_exist_and_the_first_one_runs(tmp_path, monkeypatch):
    text = CliRunner().invoke(cli.app, ["distill", "--help"], terminal_width=200).stdout
    examples = re.findall(r"-m course_lib (distill (?:[^\n]*\n)  (?:--[^\n]*)?)", text)
    assert len(examples) == 2
    for example in examples:
        options = {word for word in shlex.split(example) if word.startswith("--")}
        assert options and all(option in text.split("Options:")[1] for option in options)
    first = shlex.split(examples[0])
    monkeypatch.chdir(tmp_path)
    run(*first, "--limit", 8, "--batch-size", 4, "--epochs", 1, "--exam-limit", 4, "--dim", 16)
    student, about = load_student(tmp_path / "runs" / "tiny-st-alex-embedded" / "student.pt")
    assert about["teacher"] == "st-alex" and student(torch.rand(1, 3, 64, 64)).shape == (1, 16)


@pytest.mark.parametrize("file", ["README.md", "docs/distill.slurm"])
def test_commands_in_the_documentation_have_options_that_exist(file):
    known = CliRunner().invoke(cli.app, ["distill", "--help"], terminal_width=200).stdout.split("Options:")[1]
    text = (repo_root() / file).read_text().replace("\\\n", " ")
    commands = re.findall(r"-m course_lib distill ([^#\n]*)", text)
    assert commands
    for words in map(shlex.split, commands):
        assert all(f"{word} <" in known for word in words if word.startswith("--"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--student", "huge"], "no preset 'huge'; choose tiny, scattering"),
        (["--teacher", "vgg"], "unknown teacher 'vgg'; choose st-alex"),
        (["--dataset", "cifar"], "unknown data set 'cifar'; choose embedded"),
        (["--dataset", "imagenet"], "imagenet needs --data-dir"),
        (["--dataset", "imagenet", "--data-dir", "nowhere"], "nowhere is not a folder"),
        (["--recipe", "quick"], "unknown recipe 'quick'; choose published or laptop"),
        (["--loss", "l1"], "unknown loss 'l1'; choose published, cosine, relational"),
        (["--precision", "fp8"], "unknown precision 'fp8'"),
        (["--scale", "-2"], r"scale is -2\.0; it has to be positive"),
        (["--batch-size", "64"], r"has 24 images, a batch is 64; use a smaller batch_size"),
        (["--device", "tpu9"], r"device 'tpu9' cannot be used here .*; use cpu"),
        (["--resize", "80"], "leave --data-dir and --resize out"),
    ],
)
def test_wrong_arguments_are_one_clear_line_and_leave_nothing_behind(tmp_path, arguments, message):
    with pytest.raises((ValueError, OSError), match=message) as caught:
        run(*SMALL, "--folder", tmp_path / "run", *arguments)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
