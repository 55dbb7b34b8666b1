"""``python -m course_lib certify``: it certifies, checks itself by attack, and says what is wrong."""

import json
import re
import shlex
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from course_lib import cli
from course_lib.certification import CertifiedMetric, certify, command, pixel_l2, shipped
from course_lib.data import triplets
from course_lib.distillation import Distilled, Recipe
from course_lib.lipschitz import LipSimNet
from course_lib.paths import repo_root
from tests.small_certified import isometry


def run(*arguments):
    """Output and errors of a command in this process; an expected error is raised as main() would report it."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An untrained network whose embeddings are short, as a cosine metric."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LipSimNet.tiny(16)
    path = tmp_path_factory.mktemp("checkpoint") / "short.safetensors"
    CertifiedMetric(network, "cosine").save(path, command="none")
    return path


def test_a_checkpoint_is_certified_on_the_simulated_test_triplets(checkpoint, tmp_path):
    output = tmp_path / "certified.json"
    out, err = run("certify", "--checkpoint", checkpoint, "--limit", 20, "--eps", "36/255", 0.01, "--output", output)
    data = triplets.simulated("test").select(torch.arange(20) * 2000 // 20)
    expected = certify(CertifiedMetric.load(checkpoint), data, [36 / 255, 0.01])
    stored = json.loads(output.read_text())
    assert [row["certified"] for row in stored["rows"]] == pytest.approx(expected.table(10).certified.tolist())
    assert [row["eps"] for row in stored["rows"]] == pytest.approx([0, 0.01, 36 / 255])
    assert stored["median_norm"] == pytest.approx(expected.norm.median().item())
    assert stored["card"]["command"] == "none" and stored["labels"] == "votes"
    assert "simulated (test): 20 triplets; right answers: votes" in err and "cosine, Lipschitz bound 1.00000" in err
    assert f"{expected.norm.median():.3g}" in out and "undecided" in out


def test_pixel_l2_is_right_about_its_own_decisions_and_stands_against_the_attack(tmp_path):
    output = tmp_path / "certified.csv"
    arguments = ("--labels", "l2", "--attack", "--steps", 3, "--queries", 5, "--limit", 4, "--eps", "36/255")
    out, _ = run("certify", "--checkpoint", "l2", *arguments, "--output", output)
    natural = output.read_text().splitlines()[1].split(",")
    assert float(natural[output.read_text().splitlines()[0].split(",").index("certified")]) == 1
    assert "attacked" in out


def test_a_claim_that_an_attack_refutes_ends_the_command_with_the_triplet_and_exit_code_1(
    tmp_path, monkeypatch, capsys
):
    class Boastful(CertifiedMetric):
        def assess(self, ref, p0, p1, *, formula="exact"):
            found = super().assess(ref, p0, p1, formula=formula)
            return found._replace(radius=found.radius * 30)

    monkeypatch.setattr(command, "open_metric", lambda checkpoint, kind: Boastful(torch.nn.Flatten()))
    arguments = ["certify", "--checkpoint", "l2", "--labels", "l2", "--attack", "--steps", "5", "--queries", "5"]
    arguments += ["--limit", "3", "--eps", "4"]
    monkeypatch.setattr(sys, "argv", ["course_lib", *arguments, "--output", str(tmp_path / "never.json")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.match(
        r"error: triplet \d of simulated \(test\).* is certified at eps 4, radius .* worst-case overturned", error
    )
    assert not (tmp_path / "never.json").exists()


def test_the_published_formula_claims_more_where_embeddings_are_short_and_says_so(monkeypatch):
    monkeypatch.setattr(command, "open_metric", lambda *arguments: CertifiedMetric(isometry(size=64), "cosine"))
    claims = {}
    for formula in ("exact", "published"):
        out, err = run("certify", "--formula", formula, "--limit", 30, "--eps", 0.2)
        claims[formula] = float(out.splitlines()[2].split()[3])
        short = float(re.search(r"below 1: (\S+) %", out)[1])
    assert claims["published"] > claims["exact"] and short > 10
    assert "the published formula is no certificate for these" in err


def test_a_student_of_distill_is_certified_as_it_is(tmp_path):
    student = LipSimNet.tiny(8).eval()
    Distilled(student, "tiny", "teacher", "data", Recipe()).save(tmp_path / "student.pt")
    for kind in ("euclidean", "cosine"):
        metric = command.open_metric(tmp_path / "student.pt", kind)
        assert metric.kind == kind and torch.equal(metric.network.convs[0].kernel, student.convs[0].kernel)
    assert command.open_metric(tmp_path / "student.pt").kind == "euclidean"


def test_evaluate_and_attack_take_a_certified_metric_too(checkpoint):
    out, _ = run("evaluate", "--metric", checkpoint, "--limit", 12)
    assert "short.safetensors" in out
    data = triplets.simulated("test").select(torch.arange(12) * 2000 // 12)
    assert f"{certify(CertifiedMetric.load(checkpoint), data).score():.3f}" in out
    card = checkpoint.with_suffix(".json")
    _, err = run("attack", "--metric", card, "--attack", "pgd", "--steps", 2, "--eps", 0.5, "--limit", 3)
    assert "Lipschitz bound 1.00000" in err


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (("--checkpoint", "nowhere.safetensors"), FileNotFoundError, r"nowhere\.safetensors is missing"),
        (("--checkpoint", "metric.onnx"), ValueError, r"metric\.onnx is no certified metric"),
        (("--checkpoint", "l2", "--kind", "cosine"), ValueError, "l2 is a euclidean metric; leave --kind out"),
        (("--checkpoint", "l2", "--formula", "published", "--limit", 2), ValueError, "no formula 'published' for kind"),
        (("--checkpoint", "l2", "--eps", "many"), ValueError, "--eps many is not a number"),
        (("--checkpoint", "l2", "--output", "table.xlsx"), ValueError, "ends in neither .json nor .csv"),
        (("--checkpoint", "l2", "--dataset", "nights"), ValueError, "nights needs --data-dir"),
        (("--checkpoint", "l2", "--labels", "nobody", "--limit", 2), ValueError, "unknown metric 'nobody'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, error, message, unchecked):
    with pytest.raises(error, match=message) as caught:
        run("certify", *arguments)
    assert "\n" not in str(caught.value)


def test_without_the_shipped_checkpoint_the_error_says_what_to_name_instead(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "shipped.safetensors")
    with pytest.raises(FileNotFoundError, match=r"shipped\.safetensors is missing: .*--checkpoint"):
        run("certify")


def test_examples_in_the_help_are_commands_that_exist_and_the_first_one_runs():
    text = CliRunner().invoke(cli.app, ["certify", "--help"], terminal_width=200).stdout
    examples = re.findall(r"-m course_lib (certify .*)", text)
    assert len(examples) == 3
    for example in examples:
        for option in re.findall(r"--[a-z-]+", example):
            assert f" {option}" in text, option
    out, _ = run(*shlex.split(examples[0]))
    assert len(out.splitlines()) == 7
    assert pixel_l2().kind == "euclidean"


def test_the_help_answers_without_importing_torch():
    code = "import sys; from course_lib import cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=repo_root())
