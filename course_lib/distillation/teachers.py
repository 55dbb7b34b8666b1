"""Teachers: networks whose embedding a student is to imitate, all behind one interface.

A teacher takes images in [0, 1] of any size; resizing, range and normalisation are its own business. Its distance is
the Euclidean one between embeddings, because that is what a 1-Lipschitz student can promise something about. For
``st-alex`` and ``st-vgg`` it is the square root of LPIPS, which ranks pairs alike; for DreamSim about sqrt(2 x cosine
distance), because its embeddings have length 1 before it subtracts the mean of their numbers.
"""

import contextlib
import hashlib
import importlib
import inspect
import sys
import urllib.error
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.distillation.efficientnet import EfficientNetLite0
from course_lib.distillation.reduced import Reduced, fitted_reduction
from course_lib.lpips import LPIPS
from course_lib.paths import cache_dir
from course_lib.validation import check_images, check_pair

DREAMSIM = ("ensemble", "dino_vitb16", "clip_vitb32", "open_clip_vitb32")
TEACHERS = ("st-alex", "st-vgg", "efficientnet-lite0", "ensemble", *(f"dreamsim-{kind}" for kind in DREAMSIM))
ENSEMBLE = "st-alex+efficientnet-lite0"  # one taught by what people said of distortions, one by what things are
LPIPS_NETS, LPIPS_SIZE, LPIPS_DIM = ("st-alex", "st-vgg"), 64, 512
INSTALL_DREAMSIM = "pip install dreamsim==0.2.1"


class Teacher(nn.Module):
    """A frozen embedding of images.

    Args:
        name: for tables.
        network: (n, 3, h, w) in [0, 1] -> (n, dim).
        size: images are resized to size x size (bilinear, antialiased); None: taken as they are.
        dim: numbers in an embedding; None: found out by embedding a grey image.
        state: what decides the embedding besides weights and buffers, such as the source code of a function.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        size: int | None = None,
        dim: int | None = None,
        state: bytes = b"",
    ):
        super().__init__()
        self.name, self.size, self.network, self.state = name, size, network, state
        self.eval().requires_grad_(False)
        self.dim = self.embed(torch.full((1, 3, size or 64, size or 64), 0.5)).shape[1] if dim is None else dim

    @torch.no_grad()
    def embed(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n dim"]:
        """Embedding of every image, float32, without gradients.

        Raises:
            TypeError, ValueError: if `images` is not a batch of images in [0, 1], or the embedding is not (n, dim).
        """
        check_images(images)
        if self.size is not None and images.shape[2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        embedding = self.network(images)
        if not isinstance(embedding, Tensor) or embedding.ndim != 2 or len(embedding) != len(images):
            found = tuple(embedding.shape) if isinstance(embedding, Tensor) else type(embedding).__name__
            raise ValueError(f"teacher {self.name!r} gave {found} for {len(images)} images; it must give (n, dim)")
        return embedding.float()

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n dim"]:
        """As :meth:`embed`."""
        return self.embed(images)

    def distance(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
        """Euclidean distance between the embeddings of every x and its y. Raises as :meth:`embed`."""
        check_pair(x, y)
        return (self.embed(x) - self.embed(y)).norm(dim=1)

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode: a teacher does not learn, whatever model it has become a part of."""
        return super().train(False)

    def fingerprint(self) -> str:
        """Changes with whatever decides the embedding: name, size, dim, weights, and buffers such as a PCA's."""
        digest = hashlib.sha256(f"{self.name} {self.size} {self.dim} ".encode() + self.state)
        for key, tensor in self.state_dict().items():
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


class Ensemble(nn.Module):
    """Unit embeddings of several teachers side by side, the whole again of length 1: (n, sum of dims).

    Without the normalisation whoever has the larger numbers would outvote the others. The squared distance is the
    mean of the members' squared distances between unit vectors. DreamSim joins its three networks alike, except that
    it normalises the whole only (and then subtracts the mean of its numbers).

    Source: Fu et al., DreamSim, NeurIPS 2023, section 4.
    """

    def __init__(self, members: Sequence[Teacher]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n dim"]:
        """Embed with every member, each at its own size."""
        units = [F.normalize(member(images)) for member in self.members]
        return torch.cat(units, 1) / len(units) ** 0.5


def load_teacher(
    name: str,
    dim: int | None = None,
    *,
    size: int | None = None,
    centred: bool = False,
    photographs: str | Sequence[str] = "train",
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Teacher:
    """A teacher by name.

    Args:
        name: one of :data:`TEACHERS` ("dreamsim" is short for "dreamsim-ensemble"); several joined by "+", which make
            an :class:`Ensemble` ("ensemble" is short for "st-alex+efficientnet-lite0"); or "module:callable", which
            maps images in [0, 1], (n, 3, h, w), to (n, dim).
        dim: reduce the embedding to so many numbers by PCA, after a sketch where it is long. None: 512 for st-alex
            and st-vgg, whose own 158,144 and 529,792 at 64 x 64 are too many; all that the others have.
        size: side in pixels to which images are resized. None: 64 for st-alex and st-vgg, 224 for efficientnet-lite0
            and DreamSim, not at all for "module:callable".
        centred: subtract the mean embedding where PCA is used: distances stay, angles and lengths become those of what
            is particular to an image. See :class:`~course_lib.distillation.sketch.Reduction`.
        photographs: whose crops PCA is fitted to; see :func:`course_lib.data.photos.names`.
        seed: of the sketch and of those crops.
        device: where the teacher goes.

    Raises:
        ValueError: for an unknown teacher, or one that cannot be imported.
        FileNotFoundError: if a pip package that ships weights is missing.
        ImportError: if DreamSim is asked for and not installed; the message says what to install.
        ConnectionError: if DreamSim's weights must be downloaded and there is no network.
    """
    names = (ENSEMBLE if name == "ensemble" else name).split("+")
    if len(names) > 1:
        options: dict[str, Any] = {"size": size, "centred": centred, "photographs": photographs, "seed": seed}
        members = [load_teacher(member, **options, device=device) for member in names]
        teacher = Teacher(name, Ensemble(members), state=b"".join(member.state for member in members))
    else:
        teacher = whole_teacher(name, size=size, device=device)
        dim = LPIPS_DIM if dim is None and name in LPIPS_NETS else dim
    if dim is not None:
        crop_size = teacher.size or LPIPS_SIZE
        reduction = fitted_reduction(teacher, dim, crop_size, centred=centred, photographs=photographs, seed=seed)
        state = teacher.state + b" centred" * centred
        teacher = Teacher(name, Reduced(teacher.network, reduction), teacher.size, dim, state)
    return teacher.to(device)


def whole_teacher(name: str, *, size: int | None = None, device: str | torch.device = "cpu") -> Teacher:
    """A single teacher with all the numbers of its embedding: what reductions are measured against.

    Arguments and errors as :func:`load_teacher`, but no ensembles.
    """
    if name in LPIPS_NETS:
        teacher = Teacher(name, _LPIPSEmbedding(LPIPS(name)), size or LPIPS_SIZE)
    elif name == "efficientnet-lite0":
        teacher = Teacher(name, EfficientNetLite0(), size or 224)
    elif name == "dreamsim" or name.removeprefix("dreamsim-") in DREAMSIM:
        kind = name.removeprefix("dreamsim").removeprefix("-") or "ensemble"
        teacher = Teacher(f"dreamsim-{kind}", _DreamSim(kind, device), size or 224)
    elif ":" in name:
        function = _imported(name)
        network = function if isinstance(function, nn.Module) else _Function(function)
        teacher = Teacher(name, network, size, state=_source(function))
    else:
        raise ValueError(
            f"unknown teacher {name!r}; choose {', '.join(TEACHERS)}, some joined by +, or module:callable"
        )
    return teacher.to(device)


class _LPIPSEmbedding(nn.Module):
    """LPIPS as a network of one image: |e(x) - e(y)|^2 is its distance."""

    def __init__(self, metric: LPIPS):
        super().__init__()
        self.metric = metric

    def forward(self, images: Tensor) -> Tensor:
        return self.metric.network.embed(images)


class _DreamSim(nn.Module):
    """One of DreamSim's networks, from its own package. Embeddings have mean 0 and a length of about 1."""

    def __init__(self, kind: str, device: str | torch.device):
        super().__init__()
        try:
            package = importlib.import_module("dreamsim")
        except ImportError as error:
            needs = f"teacher 'dreamsim-{kind}' needs the package dreamsim ({error})"
            raise ImportError(f"{needs}; run: {INSTALL_DREAMSIM}") from None
        folder = cache_dir() / "dreamsim"
        folder.mkdir(exist_ok=True)
        try:
            # one process downloads; the package prints what it does, which is no result of ours
            with FileLock(folder / ".lock"), contextlib.redirect_stdout(sys.stderr):
                self.model, _ = package.dreamsim(
                    pretrained=True,
                    device=str(device),
                    cache_dir=str(folder),
                    normalize_embeds=True,
                    dreamsim_type=kind,
                )
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise ConnectionError(
                f"no weights for 'dreamsim-{kind}': they cannot be downloaded ({error}). Unzip the checkpoint from "
                f"github.com/ssundaram21/dreamsim/releases into {folder}, or use st-alex, which works offline"
            ) from None

    def forward(self, images: Tensor) -> Tensor:
        return self.model.embed(images).reshape(len(images), -1)  # the package drops the axis of a lone image


class _Function(nn.Module):
    """A function as a network without weights."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


def _imported(name: str) -> Callable[[Tensor], Tensor]:
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"teacher {name!r} cannot be imported ({error}); name it as module:callable") from None
    if not callable(function) or inspect.isclass(function):
        kind = "class" if inspect.isclass(function) else type(function).__name__
        raise ValueError(f"teacher {name!r} is a {kind}; name a function, or a network, of a batch of images")
    return function


def _source(function: Callable) -> bytes:
    """The file that a function or a network's class is written in, so that a changed one is not taken for the old."""
    try:
        return Path(inspect.getfile(function if inspect.isroutine(function) else type(function))).read_bytes()
    except (TypeError, OSError):
        return b""
