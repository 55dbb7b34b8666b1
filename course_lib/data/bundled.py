"""Files of data or weights that pip packages ship: found without importing the package, verified by SHA-256."""

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BundledFile:
    """A file inside an installed package.

    Attributes:
        package: name on PyPI, for example ``scikit-image``.
        path: where the file lies among the installed packages.
        sha256: of the content that the course was written for.
    """

    package: str
    path: str
    sha256: str

    def locate(self) -> Path:
        """Path of the file, once its SHA-256 has been found right.

        Raises:
            FileNotFoundError: if the package or the file is missing.
            ValueError: if the content is not what the course was written for.
        """
        fix = f"run: pip install --force-reinstall --no-deps {self.package}"
        try:
            path = Path(str(importlib.metadata.distribution(self.package).locate_file(self.path)))
        except importlib.metadata.PackageNotFoundError:
            raise FileNotFoundError(f"{self.path} is part of {self.package}, not installed; {fix}") from None
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing, though {self.package} is installed; {fix}")
        if hashlib.sha256(path.read_bytes()).hexdigest() != self.sha256:
            raise ValueError(f"{path} has the wrong SHA-256 (damaged, or another version); {fix}")
        return path

    def read(self) -> bytes:
        """Content of the file. Raises as :meth:`locate`."""
        return self.locate().read_bytes()

    def problem(self) -> str | None:
        """What keeps the file from being read, with the fix, or None when all is well."""
        try:
            self.read()
        except (OSError, ValueError) as error:
            return str(error)
        return None
