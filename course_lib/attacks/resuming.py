"""Long attacks that can be interrupted: finished batches are kept in a folder, and the same call goes on."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from course_lib.paths import write_atomically

Arrays = dict[str, np.ndarray]


class Store:
    """Finished batches of a long computation, in a folder or nowhere.

    Args:
        folder: where they are kept; None keeps none.
        asked: the settings, for JSON. A folder holds the batches of one set of settings only.
        probe: what the metric says of a batch as it is. It is stored beside each batch, so that batches made with
            another metric or other images of the same names are recognised.

    Raises:
        ValueError: if the folder holds batches of other settings.
    """

    def __init__(self, folder: str | Path | None, asked: dict[str, Any], probe: Callable[[Any], Tensor]):
        self.folder, self.probe = Path(folder) if folder else None, probe
        if self.folder is None:
            return
        settings = self.folder / "attack.json"
        asked = json.loads(json.dumps(asked))
        if not settings.exists():
            write_atomically(settings, (json.dumps(asked, indent=1) + "\n").encode())
        held = json.loads(settings.read_text("utf-8"))
        for key in {**asked, **held}:
            if asked.get(key) != held.get(key):
                there, here = (f"{key} {x[key]}" if key in x else f"no {key}" for x in (held, asked))
                raise ValueError(f"{folder} holds an attack with {there}, this one has {here}; name another folder")

    def run(
        self, batches: Any, n: int, batch_size: int, seed: int,
        work: Callable[[Any, torch.Generator], Arrays], progress: bool,
    ) -> list[Arrays]:  # fmt: skip
        """What `work` returns for every batch, from the folder where it is there already.

        Every batch has random numbers of its own, so it does not matter which ones are there.

        Raises:
            ValueError: for a stored batch that belongs to another metric or other images, or a batch size below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it starts at 1")
        parts = []
        bar = tqdm(batches, total=-(-n // batch_size), desc="attack", unit="batch", disable=None if progress else True)
        for number, batch in enumerate(bar):
            path = self.folder / f"batch-{number:05}.npz" if self.folder else None
            part = self._read(path, batch) if path else None
            if part is None:
                part = work(batch, torch.Generator().manual_seed(100_000 * seed + number))
                if path:
                    content = io.BytesIO()
                    held: dict[str, Any] = {"probe": self.probe(batch).cpu().numpy(), **part}
                    np.savez(content, **held)
                    write_atomically(path, content.getvalue())
            parts.append(part)
        return parts

    def _read(self, path: Path, batch: Any) -> Arrays | None:
        """A finished batch; None where there is none, or the file is damaged."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                part = dict(arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        if not np.allclose(part.pop("probe"), self.probe(batch).cpu().numpy(), rtol=1e-3, atol=1e-6):
            raise ValueError(f"{path} was made with another metric or other images of these names; name another folder")
        return part
