"""Pretrained weights are the files they should be, or the message says what to do."""

import dataclasses
import urllib.error

import pytest
import torch

from course_lib import weights
from course_lib.lpips import LPIPS
from course_lib.trunks import Trunk

locate = weights.locate.__wrapped__  # without the memory of what was found before


@pytest.mark.parametrize("name", weights.FILES)
def test_every_weight_file_is_found_and_holds_finite_tensors(name):
    assert locate(name).is_file()
    stored = weights.load(name)
    assert stored and all(value.isfinite().all() for value in stored.values())


def change(monkeypatch, **fields):
    monkeypatch.setitem(weights.FILES, "alex-0.1", dataclasses.replace(weights.FILES["alex-0.1"], **fields))


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"sha256": "0" * 64}, ValueError, "alex.pth has the wrong SHA-256 .*; run: pip install --force-.* lpips$"),
        ({"path": "lpips/none.pth"}, FileNotFoundError, "none.pth is missing, .*; run: pip install"),
        ({"package": "no-such-package"}, FileNotFoundError, "part of no-such-package, not installed; run: pip install"),
    ],
)
def test_wrong_or_missing_file_is_named_with_the_fix(monkeypatch, fields, error, message):
    change(monkeypatch, **fields)
    with pytest.raises(error, match=f"^weights 'alex-0.1': .*{message}") as caught:
        locate("alex-0.1")
    assert "\n" not in str(caught.value)


def test_describe_reports_the_damaged_file_and_no_other(monkeypatch):
    change(monkeypatch, sha256="0" * 64)
    monkeypatch.setattr(weights, "locate", locate)
    problems = {name: problem for name, _, _, problem in weights.describe()}
    assert set(problems) == set(weights.FILES)
    assert [name for name, problem in problems.items() if problem] == ["alex-0.1"]


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown weights 'resnet'"):
        weights.load("resnet")
    with pytest.raises(ValueError, match="unknown torchvision trunk 'resnet'; choose one of alex, vgg, squeeze"):
        weights.torchvision_trunk("resnet")


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    return tmp_path / "torchvision"


@pytest.mark.parametrize(
    "reason", [urllib.error.URLError("no route"), TimeoutError("slow"), ConnectionResetError("gone")]
)
def test_without_a_network_the_offline_nets_are_named(monkeypatch, own_cache, reason):
    def unreachable(*args, **kwargs):
        raise reason

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(ConnectionError, match=r"Offline, use net='st-alex' or .*put alexnet-\S+\.pth into"):
        LPIPS("alex")


def put_alexnet(folder, content=None):
    """Store random AlexNet features where the download would be; the trunk they are from."""
    trunk = Trunk("alex", weights=None)
    folder.mkdir()
    path = folder / weights.TORCHVISION["alex"].url.rsplit("/", 1)[1]
    torch.save({f"features.{key}": value for key, value in trunk.features.state_dict().items()}, path)
    return trunk, path


def test_downloaded_file_is_used_without_a_network(monkeypatch, own_cache):
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    trunk, _ = put_alexnet(own_cache)
    loaded = Trunk("alex").features.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in trunk.features.state_dict().items())


def test_half_a_downloaded_file_is_named(own_cache):
    _, path = put_alexnet(own_cache)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"alexnet-\S+ is damaged; delete it"):
        weights.torchvision_trunk("alex")
