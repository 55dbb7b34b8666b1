"""Where the course keeps what it computes, and how it writes files that are never half written."""

import os
import tempfile
from pathlib import Path


def repo_root() -> Path:
    """Folder that holds ``course_lib/`` (the checkout, when the course was installed from one)."""
    return Path(__file__).resolve().parent.parent


def cache_dir() -> Path:
    """Folder for downloads and computed data: ``$COURSE_CACHE``, else ``.cache/course`` in the checkout.

    The folder is created. It can be deleted at any time; everything in it is made again.
    """
    folder = Path(os.environ.get("COURSE_CACHE") or repo_root() / ".cache" / "course")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the whole new one, never a part.

    Raises:
        OSError: if the folder cannot be written; the old file is then untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
