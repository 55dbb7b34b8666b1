"""Where the data sets of human judgments come from, and how to get them: ``python -m course_lib fetch``.

What the authors' own scripts download: ``scripts/download_dataset.sh`` and ``download_dataset_valonly.sh`` of
github.com/richzhang/PerceptualSimilarity, ``dataset/download_dataset.sh`` of github.com/ssundaram21/dreamsim.
They publish no checksums, so SHA-256s are printed, for the user to compare and record.
"""

import errno
import hashlib
import re
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from course_lib.data.download import PartialFile, check_space, download, sha256_of
from course_lib.data.unpack import BadArchiveError, unpack

UNPACKED = 1.5  # disk space of the files, in sizes of the archive: small files fill whole disk blocks
LPIPS = "the README of github.com/richzhang/PerceptualSimilarity"
DREAMSIM = "dataset/README.md of github.com/ssundaram21/dreamsim"


@dataclass(frozen=True)
class Archive:
    """One file to download, and the folder it becomes.

    Attributes:
        url: where the authors publish it.
        folder: what it becomes, inside the data folder; the archive has a folder of that last name.
        size: of the archive in bytes, as the authors round it.
        counts: files that must be there: pattern inside `folder` -> published number.
        rounding: by how much a published number may differ from the true one.
        source: who publishes those numbers.
        sha256: the authors' checksum; None where they publish none.
    """

    url: str
    folder: str
    size: float
    counts: dict[str, int]
    rounding: int
    source: str
    sha256: str | None = None

    @property
    def name(self) -> str:
        """File name of the archive."""
        return self.url.rpartition("/")[2]


def _bapps(file: str, folder: str, size: float, parts: Iterable[str], judgments: dict[str, float]) -> Archive:
    counts = {f"{subset}/{part}": round(1000 * n) for subset, n in judgments.items() for part in parts}
    url = f"https://perceptual-similarity.s3.us-west-2.amazonaws.com/dataset/{file}"
    return Archive(url, folder, size, counts, rounding=50, source=LPIPS)


_2AFC, _JND = ("ref/*.png", "p0/*.png", "p1/*.png", "judge/*.npy"), ("p0/*.png", "p1/*.png", "same/*.npy")
BAPPS_JND = _bapps("jnd.tar.gz", "jnd", 0.2e9, _JND, {"val/traditional": 4.8, "val/cnn": 4.8})
BAPPS_VAL = _bapps("twoafc_val.tar.gz", "2afc/val", 1.1e9, _2AFC,
                   {"traditional": 4.7, "cnn": 4.7, "superres": 10.9, "deblur": 9.4, "color": 4.7, "frameinterp": 1.9})
BAPPS_TRAIN = _bapps("twoafc_train.tar.gz", "2afc/train", 5.3e9, _2AFC, {"traditional": 56.6, "cnn": 38.1, "mix": 56.6})
NIGHTS = Archive("https://data.csail.mit.edu/nights/nights.zip", "nights", 58e9,
                 {"data.csv": 1, "ref/*/*.png": 20_019, "distort/*/*.png": 40_038}, 0, DREAMSIM)  # fmt: skip

DATASETS = {
    "bapps": (BAPPS_JND, BAPPS_VAL, BAPPS_TRAIN),
    "bapps-val": (BAPPS_JND, BAPPS_VAL),  # what the authors' download_dataset_valonly.sh fetches
    "bapps-jnd": (BAPPS_JND,),
    "nights": (NIGHTS,),
}


def fetch(
    dataset: str, data_dir: Path, *, url: str | None = None, sha256: Iterable[str] = (), any_count: bool = False,
    say: Callable[[str], None] = print,
) -> None:  # fmt: skip
    """Download and unpack a data set into `data_dir`; parts that are there already are left alone.

    Afterwards `data_dir` holds ``2afc/{train,val}/…`` and ``jnd/val/…`` (BAPPS) or ``nights/…``. A download that was
    interrupted is continued, an unpacking that was interrupted is started again.

    Args:
        dataset: ``bapps``, ``bapps-val``, ``bapps-jnd`` or ``nights``.
        data_dir: is created.
        url: an archive elsewhere, or a folder of archives under their published names: an address (a folder's ends
            with a slash) or a path on this machine. Local archives are only read.
        sha256: each archive must have one of these; none: the SHA-256 is only reported.
        any_count: accept another number of files than the authors publish.
        say: is called with each line of report.

    Raises:
        ValueError: unknown data set; wrong SHA-256; damaged or malicious archive; unexpected number of files.
        OSError: no network, no such file, disk full, or another fetch at work in `data_dir`.
    """
    if dataset not in DATASETS:
        raise ValueError(f"unknown data set {dataset!r}; choose one of {', '.join(DATASETS)}")
    wanted = {text.lower() for text in sha256}
    for text in wanted:
        if not re.fullmatch("[0-9a-f]{64}", text):
            raise ValueError(f"{text!r} is no SHA-256: those have 64 hexadecimal digits")
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(data_dir / ".fetch.lock", timeout=0):  # two writers would spoil each other's files
            for archive in DATASETS[dataset]:
                _fetch_one(archive, data_dir, _place(archive, url, len(DATASETS[dataset])), wanted, any_count, say)
    except Timeout:
        raise OSError(f"another fetch is at work in {data_dir}; wait for it") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(f"the disk of {data_dir} is full; make space and repeat the command to go on") from None
        raise


def _place(archive: Archive, url: str | None, archives: int) -> str | Path:
    """Address or local path of an archive."""
    if url is None:
        return archive.url
    local = None if re.match("https?://", url) else _local(url)
    if local is not None and local.is_dir():
        return local / archive.name
    if local is None and url.endswith("/"):
        return url + archive.name
    if archives > 1:
        raise ValueError(f"this data set has {archives} archives; --url must be a folder of them (addresses end in /)")
    return url if local is None else local


def _local(url: str) -> Path:
    if url.startswith("file://"):
        url = urllib.request.url2pathname(urllib.parse.urlsplit(url).path)
    elif "://" in url:
        raise ValueError(f"{url} is neither an http nor a file address")
    if not Path(url).exists():
        raise FileNotFoundError(f"{url} does not exist")
    return Path(url)


def _fetch_one(
    archive: Archive, data_dir: Path, place: str | Path, wanted: set[str], any_count: bool, say: Callable[[str], None]
) -> None:
    target = data_dir / archive.folder
    check = partial(_check_counts, archive, any_count)
    if target.exists():
        try:
            check(target)
        except ValueError as error:
            raise ValueError(f"{target} exists, but {error}; move it away to fetch it again") from None
        say(f"{target} is complete already; nothing was downloaded (move it away to fetch it again)")
        return
    mirror = "" if place == archive.url else f".{hashlib.sha256(str(place).encode()).hexdigest()[:8]}"
    unfinished = PartialFile(data_dir / f"{archive.name}{mirror}.part")
    if isinstance(place, str):
        say(f"{place} ({archive.size / 1e9:.3g} GB) -> {target}")
        download(place, unfinished, spare=UNPACKED)
    path = unfinished.path if isinstance(place, str) else place
    check_space(data_dir, UNPACKED * path.stat().st_size)
    expected = wanted or ({archive.sha256} if archive.sha256 else set())
    if (digest := sha256_of(path)) not in expected and expected:
        kept = unfinished.set_aside() if path == unfinished.path else path
        raise ValueError(f"{kept} has the wrong SHA-256 {digest}; expected {' or '.join(sorted(expected))}")
    say(f"SHA-256 of {archive.name}: {digest} ({'as expected' if expected else 'the authors publish none; note it'})")
    try:
        unpack(path, target, 2 * archive.size, check)
    except BadArchiveError:
        if path == unfinished.path:
            unfinished.remove()
        raise
    if path == unfinished.path:
        unfinished.remove()
    say(f"{target} is complete" + ("" if any_count else f": as many files as {archive.source} says"))


def _check_counts(archive: Archive, any_count: bool, folder: Path) -> None:
    for pattern, published in archive.counts.items() if not any_count else ():
        found = sum(1 for _ in folder.glob(pattern))
        if abs(found - published) > archive.rounding:
            about = "about " * (archive.rounding > 0)
            says = f"{archive.source} says {about}{published}"
            raise ValueError(f"{archive.folder} has {found} files {pattern}, {says} (--any-count accepts this)")
