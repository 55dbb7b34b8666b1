"""Chapter 00: equal MSE is exact, the map and the ledger are consistent, the doctor finds what is wrong."""

import dataclasses
import importlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import urllib.request
from collections import namedtuple

import psutil
import pytest
import torch

from course_lib import cli, weights
from course_lib.data import distortions, photos
from course_lib.paths import repo_root
from course_lib.start_here import CHAPTERS, LEDGER, Chapter, Claim, Finding, at_equal_mse

doctor = importlib.import_module("course_lib.start_here.doctor")


@pytest.fixture(scope="module")
def patches():
    return photos.crops("test", 3, seed=1).images.float() / 255


def seeded(name):
    """A distortion of the course as at_equal_mse wants it: the same random choices on every call."""

    def distort(images, strength):
        return distortions.DISTORTIONS[name](images, strength, torch.Generator().manual_seed(5))

    return distort


def whole_shift(images, strength):
    return images.roll(round(6 * strength), dims=3)


def posterised(images, strength):
    return torch.round(images * 8 * (1 - strength)).div(max(8 * (1 - strength), 1e-3)).clamp(0, 1)


@pytest.mark.parametrize("mse", [0.0005, 0.002])
@pytest.mark.parametrize("name", ["gaussian_blur", "white_noise", "lightness", "jpeg", "warp"])
def test_every_image_has_exactly_the_target_mse(patches, name, mse):
    (result,) = at_equal_mse(patches, seeded(name), mse=mse)
    errors = (result.double() - patches.double()).square().mean((1, 2, 3))
    assert (errors / mse - 1).abs().max() < 1e-5
    assert result.min() >= 0 and result.max() <= 1 and result.dtype == torch.float32


def test_jump_in_the_mse_is_bridged_by_a_mixture_of_its_two_sides():
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64).clone()
    at_one, at_two = ((ramp.roll(k, 3) - ramp).square().mean().item() for k in (1, 2))
    target = (at_one + at_two) / 2
    shifted, mixed = at_equal_mse(ramp, whole_shift, lambda x, s: x.lerp(x.flip(3), s), mse=target)
    assert torch.allclose((shifted - ramp).double().square().mean(), torch.tensor(target).double(), rtol=1e-6)
    # between a shift by one and by two pixels: each pixel lies between the two neighbours
    low = torch.minimum(ramp.roll(1, 3), ramp.roll(2, 3))
    high = torch.maximum(ramp.roll(1, 3), ramp.roll(2, 3))
    assert ((low - 1e-6 <= shifted) & (shifted <= high + 1e-6)).all()
    assert not torch.equal(shifted, mixed)


def test_batch_gives_what_its_images_give_alone(patches):
    (together,) = at_equal_mse(patches, seeded("gaussian_blur"), mse=0.001)
    alone = [at_equal_mse(patch[None], seeded("gaussian_blur"), mse=0.001)[0] for patch in patches]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize(
    ("mse", "says"), [(0.9, "at full strength, not 0.9; choose a smaller mse"), (0.0, "positive"), (-1.0, "positive")]
)
def test_unreachable_target_is_refused(patches, mse, says):
    with pytest.raises(ValueError, match=says):
        at_equal_mse(patches, seeded("gaussian_blur"), mse=mse)


def test_integer_images_are_refused(patches, unchecked):
    with pytest.raises(TypeError, match="255"):
        at_equal_mse((patches * 255).byte(), seeded("gaussian_blur"), mse=0.01)


def test_chapters_are_numbered_in_order_and_named_once():
    assert [chapter.number for chapter in CHAPTERS] == [f"{i:02d}" for i in range(len(CHAPTERS))]
    assert len({chapter.name for chapter in CHAPTERS}) == len(CHAPTERS)


def test_chapter_exists_only_with_its_notebook():
    assert not Chapter("99", "nowhere", "", "").exists
    for chapter in CHAPTERS:
        assert chapter.exists == (repo_root() / "notebooks" / f"{chapter.number}_{chapter.name}.ipynb").is_file()


def test_ledger_starts_with_the_eight_claims_and_judges_only_what_exists():
    assert len(LEDGER) >= 8 and len({claim.claim for claim in LEDGER}) == len(LEDGER)
    exists = {chapter.number: chapter.exists for chapter in CHAPTERS}
    for claim in LEDGER:
        assert exists[claim.chapter] or claim.verdict == "not yet measured"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"verdict": "wrong"}, "a verdict needs a measurement"),
        ({"measured": "3 of 4"}, "a measurement a verdict"),
        ({"chapter": "77"}, "no chapter '77'"),
    ],
)
def test_claim_without_evidence_cannot_be_written(fields, says, unchecked):
    with pytest.raises(ValueError, match=says):
        Claim(**({"claim": "c", "seed": "s", "chapter": "07", "where": "w"} | fields))


def test_doctor_finds_nothing_wrong_here():
    findings = doctor.doctor()
    assert [str(finding) for finding in findings if finding.status == "FAIL"] == []
    topics = {finding.topic for finding in findings}
    expected = {"Python", "torch", "disk", "memory", "CPU", "GPU", "downloads", "weights st-alex", "photo chelsea"}
    assert expected <= topics


def test_old_python_fails(monkeypatch):
    monkeypatch.setattr(doctor, "MIN_PYTHON", (99, 0))
    assert failure(doctor.python()).fix.startswith("install Python")


def test_missing_and_old_packages_fail(monkeypatch):
    def version(name):
        if name == "mlxtend":
            raise importlib.metadata.PackageNotFoundError
        return "0.0.1" if name == "torch" else real(name)

    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", version)
    failed = {finding.topic: finding for finding in doctor.packages() if finding.status == "FAIL"}
    assert failed.keys() == {"mlxtend", "torch"}
    assert failed["torch"].detail.startswith("0.0.1, needed >=")
    assert failed["mlxtend"].fix.startswith("pip install 'mlxtend>=")


def test_full_disk_fails(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 3 * 10**8))
    assert failure(doctor.disk()).detail == "0.3 GB free"


@pytest.mark.parametrize(
    ("available", "total", "status"), [(1e9, 2e9, "FAIL"), (1e9, 16e9, "INFO"), (9e9, 16e9, "OK")]
)
def test_memory_is_judged_by_what_the_machine_has(monkeypatch, available, total, status):
    found = namedtuple("found", "available total")(available, total)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: found)
    (finding,) = doctor.memory()
    assert finding.status == status


def test_damaged_weights_fail_with_the_command_that_repairs_them(monkeypatch):
    weights.locate.cache_clear()
    damaged = dataclasses.replace(weights.FILES["st-alex"], sha256="0" * 64)
    monkeypatch.setitem(weights.FILES, "st-alex", damaged)
    finding = failure(doctor.pretrained())
    weights.locate.cache_clear()
    assert finding.topic == "weights st-alex" and "wrong SHA-256" in finding.detail
    assert finding.fix == "pip install --force-reinstall --no-deps stlpips-pytorch"


def test_damaged_photograph_fails(monkeypatch):
    monkeypatch.setitem(photos.SOURCES, "chelsea", dataclasses.replace(photos.SOURCES["chelsea"], sha256="0" * 64))
    assert failure(doctor.photographs()).topic == "photo chelsea"


def test_no_network_is_no_failure(monkeypatch):
    def refused(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refused)
    (finding,) = doctor.downloads()
    assert finding.status == "INFO" and "st-alex" in finding.detail


def test_broken_check_does_not_hide_the_others(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: 1 / 0)
    findings = {finding.topic: finding for finding in doctor.doctor()}
    assert findings["memory"].status == "FAIL" and "ZeroDivisionError" in findings["memory"].detail
    assert "downloads" in findings


@pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "--json"]])
@pytest.mark.parametrize("status", ["OK", "FAIL"])
def test_doctor_command_exits_with_1_only_on_a_failure(arguments, status, monkeypatch, capsys):
    monkeypatch.setattr("course_lib.start_here.doctor", lambda: [Finding(status, "disk", "full", "make room")])
    monkeypatch.setattr(sys, "argv", ["course_lib", *arguments])
    with pytest.raises(SystemExit) as exit_code:
        cli.main()
    assert exit_code.value.code == (1 if status == "FAIL" else 0)
    out, err = capsys.readouterr()
    assert err == ("error: 1 of 1 checks failed\n" if status == "FAIL" else "")
    if "--json" in arguments:
        assert json.loads(out) == [{"status": status, "topic": "disk", "detail": "full", "fix": "make room"}]
    else:
        assert out.startswith(status) and out.endswith("full; fix: make room\n")


@pytest.mark.parametrize("error", [ValueError, TypeError, OSError])
def test_expected_error_of_a_command_is_one_line(error, monkeypatch, capsys):
    def broken():
        raise error("bad\ninput")

    monkeypatch.setattr("course_lib.start_here.doctor", broken)
    monkeypatch.setattr(sys, "argv", ["course_lib", "doctor"])
    with pytest.raises(SystemExit) as exit_code:
        cli.main()
    assert exit_code.value.code == 1
    assert capsys.readouterr().err == "error: bad input\n"
    monkeypatch.setenv("COURSE_TRACEBACK", "1")
    with pytest.raises(error):
        cli.main()


COMMANDS = [command.name or command.callback.__name__.replace("_", "-") for command in cli.app.registered_commands]


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_is_fast_and_shows_a_working_example(command):
    run = [sys.executable, "-X", "importtime", "-m", "course_lib", *command, "--help"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=repo_root(), timeout=60)
    assert done.returncode == 0
    assert "python -m course_lib" in done.stdout
    if command:
        assert "Example" in done.stdout
    assert not any(line.split("|")[-1].strip() == "torch" for line in done.stderr.splitlines()), "--help imports torch"


def failure(findings):
    """The only FAIL among the findings."""
    (finding,) = [finding for finding in findings if finding.status == "FAIL"]
    return finding
