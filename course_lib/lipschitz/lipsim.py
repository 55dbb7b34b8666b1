"""LipSim's network: image -> embedding that never moves faster than the image. The published one, and a tiny one."""

import copy
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.lipschitz.activations import Abs
from course_lib.lipschitz.base import LipschitzLayer, check_sizes
from course_lib.lipschitz.bounds import upper_bound
from course_lib.lipschitz.conv import SLLConv2d
from course_lib.lipschitz.dense import AOLLinear, SLLLinear
from course_lib.lipschitz.pooling import L2AvgPool2d, PadChannels, TruncateChannels
from course_lib.lipschitz.wavelets import AbsDetails, BlockCosines, Gains, Haar2d
from course_lib.validation import check_images

PUBLISHED = {  # channels, convolutions, dense layers, their hidden units
    "small": (45, 20, 7, 1024),
    "medium": (60, 30, 10, 2048),
    "large": (90, 50, 10, 2048),
    "xlarge": (120, 70, 15, 2048),
}
SCATTERING = {"scattering": (0, 0), "scattering-sll": (96, 96)}  # hidden channels of SLL layers
CACHED = 2**22  # numbers in a layer's activations; more leaves the processor's cache and takes twice the time
OFFICIAL_KEY = re.compile(r"((?:module\.|backbone\.)*(?:model\.)?)(?:convs|linear|base)\.\d")


class LipSimNet(nn.Module):
    """Embed RGB images, (n, 3, s, s) in [0, 1] -> (n, out_features), 1-Lipschitz in L2 by construction.

    The input is raw pixels: no mean, no standard deviation, no resizing, any of which would rescale the distances
    that the constant speaks about. The embedding is not normalised.

    Args:
        first: what turns images into channels, 1-Lipschitz.
        convs: layers from channels to features, each 1-Lipschitz.
        linear: layers from features to the embedding, each 1-Lipschitz, beginning with nn.Flatten.
        image_size: s, height and width of the images in pixels.
        out_features: only the first so many numbers of the embedding are kept.

    Source: Ghazanfari, Araujo, Krishnamurthy, Khorrami and Garg, LipSim: A Provably Robust Perceptual Similarity
    Metric, ICLR 2024; layers of Araujo et al., ICLR 2023 (SLL).
    """

    def __init__(
        self, first: nn.Module, convs: nn.Sequential, linear: nn.Sequential, *, image_size: int, out_features: int
    ):
        super().__init__()
        check_sizes(image_size=image_size, out_features=out_features)
        self.first, self.convs, self.linear, self.last = first, convs, linear, TruncateChannels(out_features)
        self.image_size, self.out_features = image_size, out_features

    @classmethod
    def preset(cls, name: str, out_features: int | None = None) -> "LipSimNet":
        """Build a network with random weights, drawn from torch's global generator.

        Args:
            name: "small", "medium", "large" or "xlarge" for the published network at 224 x 224 pixels, whose dense
                layers hold 0.25, 0.96, 1.4 and 2.9 GB; "tiny", "scattering" and "scattering-sll" for our own at
                64 x 64, trained in minutes on a CPU.
            out_features: numbers in an embedding; by default 1792 (that of DreamSim's ensemble), for "tiny" 256;
                the scattering networks always have 12,288.

        Raises:
            ValueError: for another name, or more out_features than the network has.
        """
        if name == "tiny":
            return cls.tiny(256 if out_features is None else out_features)
        if name in SCATTERING:
            if out_features not in (None, 12288):
                raise ValueError(f"out_features is {out_features}; the network {name} has 12288")
            return cls.scattering(SCATTERING[name])
        if name not in PUBLISHED:
            raise ValueError(f"no preset {name!r}; choose tiny, {', '.join((*SCATTERING, *PUBLISHED))}")
        return cls.published(*PUBLISHED[name], out_features=1792 if out_features is None else out_features)

    @classmethod
    def published(
        cls,
        channels: int,
        convs: int,
        dense: int,
        hidden: int,
        *,
        out_features: int = 1792,
        image_size: int = 224,
        conv_hidden: int = 5,
        cancelled_q: bool = False,
    ) -> "LipSimNet":
        """Build the published architecture in any size.

        Args:
            channels: the image is padded to so many with zeros.
            convs: convolutional SLL, 3 x 3, all at full resolution; then two 4 x 4 poolings (sum / 4) follow.
            dense: dense SLL.
            hidden: hidden units of each dense SLL.
            out_features: numbers kept of the last layer's output, the first ones.
            image_size: height and width in pixels.
            conv_hidden: hidden channels of each convolutional SLL.
            cancelled_q: compute the convolutions as they were published, where q is multiplied by 1/q and so has no
                effect. They are 1-Lipschitz either way; :meth:`load_official` sets this.

        Raises:
            ValueError: if an image of `image_size` gives fewer than `out_features` numbers.
        """
        features = channels * (image_size // 16) ** 2
        if not 1 <= out_features <= features:
            raise ValueError(f"out_features is {out_features}; this network has 1 to {features}")
        sll = [SLLConv2d(channels, conv_hidden, cancelled_q=cancelled_q) for _ in range(convs)]
        return cls(
            PadChannels(channels),
            nn.Sequential(*sll, L2AvgPool2d(4), L2AvgPool2d(4)),
            nn.Sequential(nn.Flatten(), *(SLLLinear(features, hidden) for _ in range(dense))),
            image_size=image_size,
            out_features=out_features,
        )

    @classmethod
    def tiny(cls, out_features: int = 256, channels: int = 64, depth: int = 4, hidden: int = 256) -> "LipSimNet":
        """Build our own network for 64 x 64 pixels: 48 channels at 16 x 16, padded, then 8 x 8, then dense.

        Args:
            out_features: numbers in an embedding.
            channels: of the convolutions, at least 48.
            depth: convolutional SLL at 16 x 16, and as many again at 8 x 8.
            hidden: hidden units of the dense SLL.

        Raises:
            ValueError: for fewer than 48 channels, or anything below 1.
        """
        check_sizes(channels=channels, depth=depth, hidden=hidden)
        if channels < 48:
            raise ValueError(f"channels is {channels}; an image at 16 x 16 has 48 already: use at least 48")
        before, after = ([SLLConv2d(channels, channels) for _ in range(depth)] for _ in range(2))
        features = channels * 64
        return cls(
            nn.Sequential(nn.PixelUnshuffle(4), PadChannels(channels)),
            nn.Sequential(*before, L2AvgPool2d(2), *after),
            nn.Sequential(nn.Flatten(), SLLLinear(features, hidden), AOLLinear(features, out_features)),
            image_size=64,
            out_features=out_features,
        )

    @classmethod
    def scattering(cls, hidden: tuple[int, int] = (0, 0), stride: int = 8) -> "LipSimNet":
        """Build our own network for 64 x 64 pixels that forgets nothing but signs until training tells it to.

        Block by block, 8 x 8 pixels become the strengths of frequencies (cosines, then absolute values, which move
        little when texture shifts). Three Haar steps sort how these vary across the image by the size of detail,
        and details lose their sign, too. In the end every number has a learned gain. An embedding has as many numbers
        as an image, 12,288, and all but the SLL layers, if there are any, only turns and folds.

        Args:
            hidden: hidden channels of SLL layers before the first and the second Haar step; 0 leaves one out.
            stride: from block to block, 8 or 4; blocks that overlap give four times as many numbers.

        Raises:
            ValueError: if `hidden` is not two numbers from 0, or the stride is another one.

        Source: this course; after the scattering transform, Bruna and Mallat, Invariant scattering convolution
        networks, TPAMI 2013.
        """
        if len(hidden) != 2 or min(hidden) < 0 or stride not in (4, 8):
            raise ValueError(f"hidden is {hidden}, stride {stride}; give two numbers from 0, and 4 or 8")
        channels, levels = 3 * 8 * 8, 3 if stride == 8 else 4
        layers: list[nn.Module] = [Abs(keep=3)]  # the three are mean colours
        for level in range(levels):
            if width := (*hidden, 0, 0)[level]:
                residual = SLLConv2d(channels * 4**level, width)
                with torch.no_grad():
                    residual.bias.sub_(0.3)  # few units are active at first, so little is lost
                layers.append(residual)
            layers += [Haar2d(), AbsDetails(level + 1)]
        head = nn.Sequential(nn.Flatten(), Gains.for_wavelets(channels, levels))
        features = channels * 4**levels
        return cls(BlockCosines(8, stride), nn.Sequential(*layers), head, image_size=64, out_features=features)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Embed images.

        Args:
            images: (n, 3, image_size, image_size) in [0, 1], of the network's dtype.

        Returns:
            Embeddings (n, out_features), not normalised: |f(x) - f(y)| <= |x - y|.

        Raises:
            TypeError, ValueError: if the images break the course's convention, have another size or another dtype.
        """
        check_images(images)
        size, dtype = self.image_size, next(self.parameters()).dtype
        if tuple(images.shape[2:]) != (size, size):
            found = f"{images.shape[2]} x {images.shape[3]}"
            raise ValueError(f"images are {found} pixels; this network takes {size} x {size}: crop or resize them")
        if images.dtype != dtype:
            raise TypeError(f"images are {images.dtype} but the network is {dtype}; convert one: images.to({dtype})")
        if self.training or images.device.type != "cpu":
            features = self._features(images)
        else:
            at_once = max(1, CACHED // self.first(images[:1]).numel())
            features = torch.cat([self._features(some) for some in images.split(at_once)])
        return self.last(self.linear(features))

    def _features(self, images: Tensor) -> Tensor:
        return self.convs(self.first(images).contiguous(memory_format=torch.channels_last))

    def upper_bound(self) -> float:
        """Bound from above on the L2 Lipschitz constant, the product over the layers in float64: 1 up to rounding."""
        return math.prod(map(upper_bound, self.children()))

    def export(self) -> nn.Sequential:
        """Copy into a plain network in eval mode: standard layers, frozen weights, no check of the input.

        It has the same outputs, needs none of this course's code to be saved by torch.export or run elsewhere, and
        holds the dense weights twice, once for each direction of a residual layer.
        """
        return nn.Sequential(*map(_plain, self.children())).eval()

    @property
    def cancelled_q(self) -> bool:
        """Whether q has no effect in the convolutions, as published. It travels with the state_dict."""
        return any(layer.cancelled_q for layer in self.convs if isinstance(layer, SLLConv2d))

    @cancelled_q.setter
    def cancelled_q(self, cancelled: bool) -> None:
        for layer in self.convs:
            if isinstance(layer, SLLConv2d):
                layer.cancelled_q = cancelled
                layer.drop_cache()

    def get_extra_state(self) -> Tensor:
        """What the state_dict has to hold besides parameters, so that reloading gives the same function."""
        return torch.tensor(self.cancelled_q, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Restore :attr:`cancelled_q`."""
        self.cancelled_q = bool(state)

    def official_shapes(self) -> dict[str, tuple[int, ...]]:
        """Key -> shape of every tensor in a published checkpoint of this architecture, prefixes left out.

        Raises:
            ValueError: if this is not the published architecture.
        """
        if not isinstance(self.first, PadChannels):
            raise ValueError("only the published architecture has official weights: small, medium, large, xlarge")
        first: dict[str, tuple[int, ...]] = {}
        second: dict[str, tuple[int, ...]] = {}
        for name, part, position in (("convs", self.convs, 1), ("linear", self.linear, 2)):
            for index, layer in enumerate(part):
                for key, tensor in _official_tensors(layer).items():
                    shape = tuple(tensor.shape)
                    if key == "bias":
                        shape = (1, *shape, 1, 1) if name == "convs" else (1, *shape)
                    first[f"{name}.{index}.{key}"] = second[f"base.{position}.{index}.{key}"] = shape
        return first | second

    def load_official(self, state_dict: Mapping[str, Any]) -> None:
        """Load a checkpoint with the published key names, and compute what the published network computes.

        Sets :attr:`cancelled_q`. Changes nothing if there is an error.

        Args:
            state_dict: what torch.load(path, weights_only=True) gives: keys `model.convs.I.{kernel,bias,q}` and
                `model.linear.J.{weight,bias,q}`, and each tensor again under `model.base.1.I.*` or
                `model.base.2.J.*`; with or without a prefix `module.` or `module.backbone.`; also inside
                {"model_state_dict": ...}.

        Raises:
            ValueError: naming the first key that is missing, not expected or of another shape, or whose second copy
                differs; or if this is not the published architecture.
        """
        shapes = self.official_shapes()
        tensors = state_dict.get("model_state_dict", state_dict)
        prefix = next((match[1] for key in tensors if (match := OFFICIAL_KEY.match(str(key)))), "model.")
        _check_official(tensors, shapes, prefix)
        with torch.no_grad():
            for name, part in (("convs", self.convs), ("linear", self.linear)):
                for index, layer in enumerate(part):
                    for key, tensor in _official_tensors(layer).items():
                        tensor.copy_(tensors[f"{prefix}{name}.{index}.{key}"].reshape(tensor.shape))
        self.cancelled_q = True


def _plain(module: nn.Module) -> nn.Module:
    if isinstance(module, LipschitzLayer):
        return module.plain()
    if isinstance(module, nn.Sequential):
        return nn.Sequential(*map(_plain, module))
    return copy.deepcopy(module)


def _official_tensors(layer: nn.Module) -> dict[str, Tensor]:
    """Our tensors under their published names. What is published as q is used as exp(q), so it is our log q."""
    if isinstance(layer, SLLConv2d):
        return {"kernel": layer.kernel, "bias": layer.bias, "q": layer.log_q}
    if isinstance(layer, SLLLinear):
        return {"weight": layer.weight, "bias": layer.bias, "q": layer.log_q}
    return {}


def _check_official(tensors: Mapping[str, Any], shapes: dict[str, tuple[int, ...]], prefix: str) -> None:
    """Raise ValueError at the first key that is missing, unexpected or mis-shaped, or whose copies differ."""
    missing = [key for key in shapes if prefix + key not in tensors]
    if missing:
        raise ValueError(f"the checkpoint has no {prefix}{missing[0]} ({len(missing)} of {len(shapes)} keys missing)")
    extra = [key for key in tensors if key.removeprefix(prefix) not in shapes or not key.startswith(prefix)]
    if extra:
        raise ValueError(f"the checkpoint has {extra[0]}, which this network has not ({len(extra)} extra keys)")
    for key, shape in shapes.items():
        found = getattr(tensors[prefix + key], "shape", None)
        if found != shape:
            found = type(tensors[prefix + key]).__name__ if found is None else tuple(found)
            raise ValueError(f"{prefix}{key} is {found} in the checkpoint; this network has {shape}")
    for key in shapes:
        part, _, rest = key.partition(".")
        if part != "base":
            second = f"base.{1 if part == 'convs' else 2}.{rest}"
            if not torch.equal(tensors[prefix + key], tensors[prefix + second]):
                raise ValueError(f"{prefix}{key} and its second copy {prefix}{second} differ; the file is damaged")
