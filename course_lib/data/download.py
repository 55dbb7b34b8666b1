"""Downloads that survive dropped connections, and never mix two versions of a file."""

import hashlib
import http.client
import json
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from course_lib.paths import write_atomically

PAUSES = (1, 2, 4, 8, 16, 30)  # seconds before each further attempt; real progress starts the list again
TIMEOUT = 60  # seconds without a byte until a connection counts as dropped
CHUNK = 2**20


@dataclass(frozen=True)
class _Version:
    """Which version of the file the first bytes on disk belong to.

    Attributes:
        url: where they came from.
        validator: strong ETag or Last-Modified of that version; None if the server sends neither.
        size: of the whole file, in bytes.
    """

    url: str
    validator: str | None
    size: int


class PartialFile:
    """A download in progress: NAME.part holds its first bytes, NAME.part.json says of which version."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._note = path.with_name(f"{path.name}.json")

    def held(self) -> tuple[int, _Version | None]:
        """How many bytes are here, and of which version; (0, None) if they cannot be relied on."""
        try:
            version = _Version(**json.loads(self._note.read_text("utf-8")))
            count = self.path.stat().st_size
        except (FileNotFoundError, ValueError, TypeError):
            return 0, None
        return (count, version) if count <= version.size else (0, None)

    def start(self, version: _Version) -> None:
        """Forget what is here and expect `version`."""
        self.remove()  # before the note: an interruption in between must not leave old bytes under a new note
        write_atomically(self._note, json.dumps(asdict(version)).encode())

    def remove(self) -> None:
        """Delete the bytes and the note."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def set_aside(self) -> Path:
        """Move the bytes to NAME.bad, where no later download looks, and return that path."""
        bad = self.path.with_suffix(".bad")
        self.path.replace(bad)
        self._note.unlink()
        return bad


def download(url: str, partial: PartialFile, spare: float = 0.0) -> None:
    """Fetch the rest of `url` into `partial`; nothing is asked for if all of it is there already.

    A dropped connection is tried again (`PAUSES`), asking for the missing bytes only, on the condition that the
    server's file is still the same (If-Range with its ETag or Last-Modified). A server that has another version, or
    cannot resume, sends the file from the start, and what was here is replaced.

    Args:
        url: http or https.
        partial: what is here already.
        spare: free disk space to leave after the download, as a multiple of the file's size.

    Raises:
        ConnectionError: no network, or dropped too often. What arrived is kept for the next call.
        FileNotFoundError, PermissionError: the server has no such file, or refuses to send it.
        ValueError: the server does not say how long the file is, so that a cut could not be noticed.
        OSError: too little free disk space.
    """
    failures, reached = 0, False
    while True:
        before = partial.held()[0]
        try:
            _attempt(url, partial, spare)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # Range Not Satisfiable: the file has become shorter
                partial.remove()
            elif error.code not in (408, 429) and error.code < 500:
                kind = PermissionError if error.code in (401, 403) else FileNotFoundError
                raise kind(f"{url}: the server says {error.code} {error.reason}; check the address") from None
            problem, reached = f"the server says {error.code} {error.reason}", True
        except urllib.error.URLError as error:
            if not reached:
                raise ConnectionError(f"{url} cannot be reached ({error.reason}); is there a network?") from None
            problem = str(error.reason)
        except http.client.InvalidURL as error:
            raise ValueError(f"{url} is no address: {error}") from None
        except (ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException) as error:
            problem, reached = str(error) or type(error).__name__, True
        held, version = partial.held()
        failures = 0 if version and held - before > version.size / 100 else failures + 1
        if failures > len(PAUSES):
            kept = f"{held} bytes are kept in {partial.path}; the same command goes on from there"
            raise ConnectionError(f"{url}: {problem}, {failures} times; {kept}")
        time.sleep(PAUSES[max(failures, 1) - 1])


def _attempt(url: str, partial: PartialFile, spare: float) -> None:
    held, version = partial.held()
    if version and version.url == url and held == version.size:
        return
    request = urllib.request.Request(url)
    if version and version.url == url and version.validator and held:
        request.add_header("Range", f"bytes={held}-")
        request.add_header("If-Range", version.validator)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if response.status == 206:
            start, size = _content_range(response)
            validator = _validator(response) or (version.validator if version else None)
            if (start, _Version(url, validator, size)) != (held, version):  # servers may ignore If-Range
                partial.remove()
                raise ConnectionError("the file changed on the server during the download")
        else:
            if not (response.headers["Content-Length"] or "").isdigit():
                raise ValueError(f"{url}: the server sends no Content-Length, so a cut file could not be noticed")
            held, size = 0, int(response.headers["Content-Length"])
            partial.start(_Version(url, _validator(response), size))
        check_space(partial.path.parent, size - held + spare * size)
        bar = tqdm(
            desc=partial.path.stem, total=size, initial=held, unit="B", unit_scale=True, mininterval=0.5, disable=None
        )
        with bar, partial.path.open("ab") as file:
            while chunk := response.read1(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if (held := partial.path.stat().st_size) != size:
        raise ConnectionError(f"the connection ended after {held} of {size} bytes")


def _validator(response: http.client.HTTPResponse) -> str | None:
    etag = response.headers["ETag"]
    return etag if etag and not etag.startswith("W/") else response.headers["Last-Modified"]


def _content_range(response: http.client.HTTPResponse) -> tuple[int, int]:
    """First byte of a partial response, and the size of the whole file; (-1, -1) if it does not say."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers["Content-Range"] or "")
    return (int(match[1]), int(match[2])) if match else (-1, -1)


def check_space(folder: Path, needed: float) -> None:
    """Raise unless `needed` bytes are free on the disk of `folder`.

    Raises:
        OSError: otherwise.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"{needed / 1e9:.3g} GB are needed in {folder}, but {free / 1e9:.3g} GB are free")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal, with a progress bar on a terminal."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as file, tqdm(desc="SHA-256", total=size, unit="B", unit_scale=True, disable=None) as bar:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()
