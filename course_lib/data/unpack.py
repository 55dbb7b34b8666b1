"""Archives unpacked without trusting them: every member is checked, then written by this code."""

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

MAX_MEMBERS = 2_000_000  # three times as many as the largest archive of the course has
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)
Member = tuple[str, int, IO[bytes] | None]  # name, size and, unless it is a folder, content


class BadArchiveError(ValueError):
    """An archive that is damaged, or has a member that an honest archive has not."""


def unpack(archive: Path, target: Path, max_bytes: float, check: Callable[[Path], None] = lambda folder: None) -> None:
    """Create the folder `target` from the folder of that name in a zip or tar archive, compressed or not.

    `target` appears complete or not at all: its files are written to a hidden folder beside it, which is renamed at
    the end. Only regular files are accepted, so there is nothing to follow out of that folder. (The filters of
    `tarfile` would let links within the folder pass, and had holes there: CVE-2025-4517.)

    Args:
        archive: file to read. What lies in it outside the folder is checked too, but not written.
        target: folder that does not exist.
        max_bytes: the archive is refused once its files are larger than this together.
        check: called with the complete folder before it is renamed; raises to refuse it.

    Raises:
        BadArchiveError: damaged; or a member is a link or device, has an absolute path, leads out of the archive's
            folder, occurs twice; or all are too large or too many.
        ValueError: the archive has no such folder, or `check` says so.
        FileExistsError: if `target` exists.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists already; nothing was changed")
    hidden = target.with_name(f".{target.name}.unpacking")
    if hidden.exists():
        shutil.rmtree(hidden)  # of a run that was killed
    hidden.mkdir(parents=True)
    try:
        tops = _write(archive, hidden, target.name, max_bytes)
        if not (hidden / target.name).is_dir():
            found = ", ".join(sorted(tops)[:5]) or "nothing"
            raise ValueError(f"{archive} has no folder {target.name}/ but {found}; it is kept: unpack it by hand")
        check(hidden / target.name)
        (hidden / target.name).rename(target)
    finally:
        shutil.rmtree(hidden)


def _write(archive: Path, hidden: Path, top: str, max_bytes: float) -> set[str]:
    """Write what lies in the folder `top`; return what the archive has at its top."""
    total, tops = 0, set()
    try:
        for count, (name, size, source) in enumerate(tqdm(_members(archive), unit=" files", disable=None)):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or set(name) & set("\\:\0"):
                raise BadArchiveError(f"{archive} was not unpacked: its member {name!r} leads out of the folder")
            tops.add(next(iter(path.parts), "."))
            total += abs(size)
            if total > max_bytes or count >= MAX_MEMBERS:
                limit = f"{max_bytes / 1e9:.3g} GB or {MAX_MEMBERS} files"
                raise BadArchiveError(f"{archive} was not unpacked: it holds more than {limit}, not what was announced")
            if source is None or path.parts[:1] != (top,):
                continue
            try:
                (hidden / path).parent.mkdir(parents=True, exist_ok=True)
                with (hidden / path).open("xb") as file:
                    shutil.copyfileobj(source, file)
            except (FileExistsError, NotADirectoryError):
                raise BadArchiveError(f"{archive} was not unpacked: it has the member {name!r} twice") from None
    except DAMAGE as error:
        raise BadArchiveError(f"{archive} is damaged, or no archive ({' '.join(str(error).split())})") from None
    return tops


def _members(archive: Path) -> Iterator[Member]:
    with archive.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    return _zip_members(archive) if is_zip else _tar_members(archive)


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise BadArchiveError(f"{archive} was not unpacked: its member {info.filename!r} is a link or device")
            if info.is_dir():
                yield info.filename, 0, None
            else:
                with file.open(info) as source:
                    yield info.filename, info.file_size, source


def _tar_members(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive, "r:*") as file:
        while info := file.next():
            if not (info.isreg() or info.isdir()):
                raise BadArchiveError(f"{archive} was not unpacked: its member {info.name!r} is a link or device")
            yield info.name, info.size, file.extractfile(info)
            file.members = []  # type: ignore[attr-defined]  # else it keeps every member in memory
        # tarfile takes a cut or a damaged header for the end. The true end is zeros, of which it has read the first
        # 512; reading the rest also lets gzip compare its checksum.
        assert file.fileobj is not None
        end = file.fileobj.read(2**20)
        if any(end) or not 512 <= len(end) < 2**20:
            raise tarfile.ReadError("its end is not where it should be")
