"""Networks that were trained for longer than a notebook should take, stored in half precision."""

import io
from pathlib import Path

import torch
from torch import nn

from course_lib.paths import write_atomically
from course_lib.restoration.compression import Codec
from course_lib.restoration.networks import UNet
from course_lib.training import load_checkpoint

FOLDER = Path(__file__).parent / "checkpoints"
COMMAND = "make bench-restoration"
KINDS: dict[str, type] = {"UNet": UNet, "Codec": Codec}


def save_network(network: UNet | Codec, path: str | Path) -> None:
    """Write settings and weights to `path`, floating-point weights as 16-bit numbers."""
    weights = {name: w.half() if w.is_floating_point() else w for name, w in network.state_dict().items()}
    content = io.BytesIO()
    torch.save({"kind": type(network).__name__, "settings": network.settings, "weights": weights}, content)
    write_atomically(path, content.getvalue())


def load_network(name: str | Path) -> nn.Module:
    """A trained network in evaluation mode: the name of one that the course ships, or the path of a file.

    Raises:
        FileNotFoundError: if there is none, naming those that are there and the command that makes them.
        ValueError: if the file is damaged or not one of :func:`save_network`.
    """
    path = FOLDER / f"{name}.pt" if (FOLDER / f"{name}.pt").is_file() else Path(name)
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in FOLDER.glob("*.pt"))) or "none"
        raise FileNotFoundError(f"there is no trained network {name}; there are: {there} (made by: {COMMAND})")
    stored = load_checkpoint(path)
    if stored.get("kind") not in KINDS:
        raise ValueError(f"{path} is not a restoration network of this course; make one with: {COMMAND}")
    network = KINDS[stored["kind"]](**stored["settings"])
    network.load_state_dict(stored["weights"])
    return network.eval()
