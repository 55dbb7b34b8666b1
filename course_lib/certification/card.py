"""A certified metric in two files: weights as safetensors, and a JSON card that says what they are."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensors_to_bytes
from torch import nn

from course_lib import __version__
from course_lib.lipschitz import Haar2d, LipSimNet, SLLConv2d
from course_lib.paths import write_atomically

OURS = ("tiny", "scattering")
PRESETS = (*OURS, "small", "medium", "large", "xlarge")
OWN = ("kind", "lipschitz", "network", "sha256", "versions")


def write(
    path: str | Path,
    network: nn.Module,
    architecture: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    about: Mapping[str, Any],
) -> None:
    """Write weights and card; see :meth:`CertifiedMetric.save`."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} does not end in .safetensors; rename it, and the card gets the same name with .json")
    if taken := set(OWN) & set(about):
        raise ValueError(f"the card has an entry {min(taken)!r} of its own; use another name")
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    if architecture is None:
        architecture = _recognised(network)
    elif _shapes(_built(architecture, "meta").state_dict()) != _shapes(tensors):
        raise ValueError(
            f"the network is not {json.dumps(dict(architecture))}; give the architecture it was built with"
        )
    weights = tensors_to_bytes(tensors)
    versions = {"torch": str(torch.__version__), "course": __version__}
    known = {**settings, "network": architecture, "sha256": hashlib.sha256(weights).hexdigest(), "versions": versions}
    try:
        text = json.dumps({**known, **about}, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"the card cannot be written as JSON ({error}); give numbers, strings, lists, dicts") from None
    write_atomically(path, weights)
    write_atomically(path.with_suffix(".json"), text.encode())


def read(path: str | Path, network: nn.Module | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Network and card; see :meth:`CertifiedMetric.load`."""
    path = Path(path)
    if path.suffix not in (".safetensors", ".json"):
        raise ValueError(f"{path} is no certified metric; name the .safetensors file or its card, .json")
    weights_path, card_path = path.with_suffix(".safetensors"), path.with_suffix(".json")
    for file in (weights_path, card_path):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing; a certified metric is a .safetensors file and its .json card")
    known, weights = _card(card_path), weights_path.read_bytes()
    if hashlib.sha256(weights).hexdigest() != known["sha256"]:
        what = "the file is cut off or changed, or the card is that of other weights"
        raise ValueError(f"{weights_path} ({len(weights)} bytes) does not fit the SHA-256 on its card: {what}")
    tensors = read_tensors(weights)
    if network is None:
        if known["network"] is None:
            raise ValueError(f"{card_path}: the network is of an architecture of your own; give it as network=")
        try:
            expected = _shapes(_built(known["network"], "meta").state_dict())
        except ValueError as error:
            raise ValueError(f"{card_path}: {error}") from None
        if expected != _shapes(tensors):
            raise ValueError(f"{card_path}: the weights are not those of {json.dumps(known['network'])}")
        network = _built(known["network"], "cpu")
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise ValueError(f"{weights_path} holds another network than the one that was given: {first}") from None
    return network, known


def _card(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged, no JSON ({error}); take the one that belongs to the weights") from None
    if not isinstance(known, dict) or not set(OWN) <= known.keys():
        missing = [key for key in OWN if not isinstance(known, dict) or key not in known]
        raise ValueError(f"{path} is not the card of a certified metric: it has no {', '.join(missing)}")
    return known


def _built(architecture: Any, device: str) -> LipSimNet:
    """An untrained network; on "meta" it takes no memory. It moves no random numbers.

    Raises:
        ValueError: for an unknown architecture, or arguments that it does not take.
    """
    arguments = dict(architecture) if isinstance(architecture, Mapping) else {}
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    name = arguments.pop("architecture", None)
    if name not in PRESETS:
        raise ValueError(f"unknown architecture {name!r}; known are {', '.join(PRESETS)}")
    try:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            return getattr(LipSimNet, name)(**arguments) if name in OURS else LipSimNet.preset(name, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"architecture {name!r} cannot be built with {json.dumps(arguments)}: {first}") from None


def _recognised(network: nn.Module) -> dict[str, Any] | None:
    """A preset with the tensors of this network, if there is one."""
    features = getattr(network, "out_features", None)
    shapes = _shapes(network.state_dict())
    if not isinstance(network, LipSimNet):
        return None
    candidates: list[dict[str, Any]] = [{"architecture": name, "out_features": features} for name in PRESETS]
    candidates[1] = _scattering(network)
    for architecture in candidates[: len(OURS)] if network.image_size == 64 else candidates[len(OURS) :]:
        try:
            if _shapes(_built(architecture, "meta").state_dict()) == shapes:
                return architecture
        except ValueError:  # so many features it does not have
            continue
    return None


def _scattering(network: LipSimNet) -> dict[str, Any]:
    """What :meth:`LipSimNet.scattering` would have to be given for this network."""
    hidden, level = [0, 0], 0
    for layer in network.convs:
        if isinstance(layer, SLLConv2d) and level < len(hidden):
            hidden[level] = layer.hidden
        level += isinstance(layer, Haar2d)
    return {"architecture": "scattering", "hidden": hidden, "stride": getattr(network.first, "stride", 8)}


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[Any, ...]]:
    return {key: (tuple(tensor.shape), tensor.dtype) for key, tensor in tensors.items()}
