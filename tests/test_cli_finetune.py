"""``python -m course_lib finetune``: a certified metric with its card, continued exactly, and clear errors."""

import json
import re
import shlex

import pytest
import torch
from typer.testing import CliRunner

from course_lib import cli
from course_lib.certification import CertifiedMetric, tuning_command
from course_lib.data import photos, sources, triplets
from course_lib.data.triplets import Triplets


def run(*arguments):
    result = CliRunner().invoke(cli.app, ["finetune", *map(str, arguments)])
    if result.exception:
        raise result.exception
    return result.stdout


@pytest.fixture(autouse=True)
def few_triplets(monkeypatch):
    """24 triplets to learn from and to score on; the whole sets are those of other tests."""
    data = triplets.simulated("val").select(torch.arange(24))
    monkeypatch.setattr(sources, "open_triplets", lambda name, data_dir, split: data)
    return data


QUICK = ("--epochs", 2, "--batch-size", 12, "--margin", 0.5, "--margin", 2, "--average", 0.5)


def test_it_writes_a_metric_whose_card_says_how_it_was_made(tmp_path):
    printed = run("--folder", tmp_path, *QUICK)
    assert printed.count("epoch") == 2 and "before" in printed
    metric = CertifiedMetric.load(tmp_path / "metric.safetensors")
    card = metric.card
    assert card["recipe"]["margins"] == [0.5, 2.0] and card["network"]["architecture"] == "scattering"
    assert len(card["history"]) == 2 and card["scores"] == {
        key: card["history"][1][key] for key in card["scores"]
    }  # the average of the weights was scored, and kept
    table = json.loads((tmp_path / "results.json").read_text())
    assert table["rows"][0]["after"] == pytest.approx(card["scores"]["natural"], abs=1e-3)


def test_the_same_command_gives_the_same_weights_anew_and_in_the_folder_of_a_finished_run(tmp_path):
    folders = (tmp_path / "whole", tmp_path / "again", tmp_path / "again")
    hashes = set()
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        run("--folder", folder, "--network", "tiny", *QUICK)
        hashes.add(CertifiedMetric.load(folder / "metric.safetensors").card["sha256"])
    assert len(hashes) == 1


def test_a_metric_can_be_tuned_further_by_the_published_loss(tmp_path):
    run("--folder", tmp_path / "a", "--network", "tiny", *QUICK)
    start = tmp_path / "a" / "metric.safetensors"
    printed = run("--folder", tmp_path / "b", "--network", start, "--recipe", "published", "--epochs", 1)
    assert "certified by the cosine radius" in printed
    assert CertifiedMetric.load(tmp_path / "b" / "metric.json").kind == "cosine"


def test_decisions_of_a_metric_are_learnt_with_fresh_triplets(tmp_path, monkeypatch, few_triplets):
    small = Triplets("simulated (train)", *few_triplets[:][:0], **{
        name: getattr(few_triplets, name) for name in ("ref", "p0", "p1", "judge", "photo")
    }, photographs=photos.PHOTOGRAPHS)  # fmt: skip
    monkeypatch.setattr(triplets, "PART", 8)
    data = tuning_command.learnt(small, "l2", 2, "cpu")
    assert len(data) == 24 + 16 and "16 fresh triplets (parts 0 to 1) decided by l2" in data.name
    d0, d1 = ((data.ref.float() - p.float()).flatten(1).norm(dim=1) for p in (data.p0, data.p1))
    assert torch.equal(data.judge, (d0 > d1).float())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("--recipe", "best"), ValueError, "unknown recipe 'best'; choose radius or published"),
        (("--network", "resnet"), ValueError, "no preset 'resnet'"),
        (("--network", "gone.pt"), FileNotFoundError, "gone.pt"),
        (("--margin", -1), ValueError, "margin is -1.0; it has to be positive"),
        (("--fresh", 2), ValueError, "use it with --labels METRIC"),
        (("--labels", "nobody"), ValueError, "unknown metric 'nobody'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, error, message, tmp_path, unchecked):
    with pytest.raises(error, match=message) as caught:
        run("--folder", tmp_path, *arguments)
    assert "\n" not in str(caught.value)


def test_examples_in_the_help_are_options_that_exist():
    text = CliRunner().invoke(cli.app, ["finetune", "--help"], terminal_width=200).stdout
    examples = re.findall(r"-m course_lib (finetune .*)", text)
    assert len(examples) == 2
    for option in re.findall(r"--[a-z-]+", " ".join(map(shlex.quote, examples))):
        assert f" {option}" in text, option
