"""The convolutional networks whose features the course compares: AlexNet, VGG-16, SqueezeNet, shift-tolerant nets.

Only the feature part is built, cut after the last layer that LPIPS reads; there is no classifier.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.squeezenet import Fire

from course_lib import weights as weight_files

Layers = list[tuple[str, nn.Module]]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of RGB in [0, 1]


class BlurPool(nn.Module):
    """Blur with [1, 2, 1] x [1, 2, 1] / 16, then keep every second pixel, so that a shift moves the output less.

    (n, c, h, w) -> (n, c, (h + 3) // 2, (w + 3) // 2), because the border is first reflected by two pixels.

    Source: Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019; the padding of 2 pixels is
    from Ghildyal and Liu, Shift-tolerant Perceptual Similarity Metric, ECCV 2022.
    """

    kernel: Tensor

    def __init__(self):
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(row, row).view(1, 1, 3, 3), persistent=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        """Blur and halve; needs h and w of at least 3 for the reflected border."""
        channels = x.shape[1]
        x = nn.functional.pad(x, (2, 2, 2, 2), mode="reflect")
        return nn.functional.conv2d(x, self.kernel.expand(channels, -1, -1, -1), stride=2, groups=channels)


def _conv(block: str, c_in: int, c_out: int, size: int, **options: Any) -> Layers:
    return [(f"conv{block}", nn.Conv2d(c_in, c_out, size, **options))]


def _relu(block: str) -> Layers:
    return [(f"relu{block}", nn.ReLU(inplace=True))]


def _pool(block: str, size: int, shift_tolerant: bool) -> Layers:
    if shift_tolerant:
        return [(f"max{block}", nn.MaxPool2d(size, stride=1)), (f"pool{block}", BlurPool())]
    return [(f"pool{block}", nn.MaxPool2d(size, stride=2))]


def _alex(shift_tolerant: bool = False) -> Layers:
    first = _conv("1", 3, 64, 11, stride=1 if shift_tolerant else 4, padding=2)
    if shift_tolerant:
        first += [("blur1", BlurPool())]
    return [
        *first, *_relu("1"), *_pool("1", 3, shift_tolerant),
        *_conv("2", 64, 192, 5, padding=2), *_relu("2"), *_pool("2", 3, shift_tolerant),
        *_conv("3", 192, 384, 3, padding=1), *_relu("3"),
        *_conv("4", 384, 256, 3, padding=1), *_relu("4"),
        *_conv("5", 256, 256, 3, padding=1), *_relu("5"),
    ]  # fmt: skip


def _vgg(shift_tolerant: bool = False) -> Layers:
    layers: Layers = []
    channels = 3
    for block, (width, depth) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], start=1):
        if block > 1:
            layers += _pool(str(block - 1), 2, shift_tolerant)
        for i in range(1, depth + 1):
            layers += [*_conv(f"{block}_{i}", channels, width, 3, padding=1), *_relu(f"{block}_{i}")]
            channels = width
    return layers


def _squeeze() -> Layers:
    def fire(number: int, c_in: int, squeeze: int, expand: int) -> Layers:
        return [(f"fire{number}", Fire(c_in, squeeze, expand, expand))]

    def pool(number: int) -> Layers:
        return [(f"pool{number}", nn.MaxPool2d(3, stride=2, ceil_mode=True))]

    return [
        *_conv("1", 3, 64, 3, stride=2), *_relu("1"), *pool(1),
        *fire(2, 64, 16, 64), *fire(3, 128, 16, 64), *pool(3),
        *fire(4, 128, 32, 128), *fire(5, 256, 32, 128), *pool(5),
        *fire(6, 256, 48, 192), *fire(7, 384, 48, 192), *fire(8, 384, 64, 256), *fire(9, 512, 64, 256),
    ]  # fmt: skip


# net: how to build it, the layers LPIPS reads, their channels, the smallest image in pixels
ALEX_TAPS, ALEX_WIDTHS = ("relu1", "relu2", "relu3", "relu4", "relu5"), (64, 192, 384, 256, 256)
VGG_TAPS, VGG_WIDTHS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"), (64, 128, 256, 512, 512)
SQUEEZE_TAPS = ("relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9")
NETS = {
    "st-alex": (lambda: _alex(shift_tolerant=True), ALEX_TAPS, ALEX_WIDTHS, 21),
    "st-vgg": (lambda: _vgg(shift_tolerant=True), VGG_TAPS, VGG_WIDTHS, 18),
    "alex": (_alex, ALEX_TAPS, ALEX_WIDTHS, 31),
    "vgg": (_vgg, VGG_TAPS, VGG_WIDTHS, 16),
    "squeeze": (_squeeze, SQUEEZE_TAPS, (64, 128, 256, 384, 384, 512, 512), 17),
}


class Trunk(nn.Module):
    """Feature network of LPIPS and of the perceptual losses: images in [0, 1] in, feature maps out.

    Attributes:
        layer_names: every layer by its usual name, such as "conv1", "relu3_2", "pool2", "fire5".
        taps: the layers LPIPS reads, the default of what is returned.
        widths: their channel counts.
        min_size: smallest height and width in pixels.

    Args:
        net: "st-alex", "st-vgg" (offline), "alex", "vgg", "squeeze" (torchvision's, downloaded once).
        weights: "pretrained", or None for random ones.

    Raises:
        ValueError: for an unknown net or weights.
        ConnectionError: if a download is needed and there is no network.

    Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018;
    shift-tolerant nets: Ghildyal and Liu, ECCV 2022.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: str = "st-alex", weights: str | None = "pretrained"):
        super().__init__()
        if net not in NETS:
            raise ValueError(f"unknown net {net!r}; choose one of {', '.join(NETS)}")
        if weights not in ("pretrained", None):
            raise ValueError(f"weights={weights!r}; use 'pretrained', or None and then load_trunk(state_dict)")
        build, self.taps, self.widths, self.min_size = NETS[net]
        layers = build()
        self.net = net
        self.layer_names = tuple(name for name, _ in layers)
        self.features = nn.Sequential(*(layer for _, layer in layers))
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in IMAGENET)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        if weights == "pretrained":
            load = _shift_tolerant_features if net.startswith("st-") else weight_files.torchvision_trunk
            self.load_features(load(net))
        self.features.to(memory_format=torch.channels_last)  # the faster layout for convolutions on CPUs and GPUs
        self.eval().requires_grad_(False)

    def load_features(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load weights under torchvision's names ``features.N.weight``; other keys, the classifier's, are ignored.

        Raises:
            ValueError: if a tensor is missing, unknown or of the wrong shape; nothing is changed then.
        """
        own = self.features.state_dict()
        given = {
            key.removeprefix("features."): value for key, value in state_dict.items() if key.startswith("features.")
        }
        for key in sorted(own.keys() | given.keys()):
            if key not in own or key not in given:
                where = "is missing" if key in own else "does not belong there"
                raise ValueError(f"weights do not fit {self.net!r}: features.{key} {where}; use the net they are from")
            if own[key].shape != given[key].shape:
                found, expected = tuple(given[key].shape), tuple(own[key].shape)
                raise ValueError(f"weights do not fit {self.net!r}: features.{key} is {found}, expected {expected}")
        self.features.load_state_dict({key: torch.as_tensor(value) for key, value in given.items()})

    def stream(self, images: Float[Tensor, "n 3 h w"], layers: tuple[str, ...] | None = None) -> Iterator[Tensor]:
        """Yield the feature maps of `layers` (default: the taps) in network order, one at a time.

        A map that the caller has dropped is freed before the next one is computed. The values are not checked
        here, so that this can be compiled and exported; the public wrappers check.

        Raises:
            ValueError: for a layer that the net does not have, or a text instead of a tuple.
        """
        if isinstance(layers, str):
            raise ValueError(f"layers is the text {layers!r}; give a tuple: ({layers!r},)")
        wanted = set(self.taps if layers is None else layers)
        if unknown := wanted - set(self.layer_names):
            raise ValueError(f"{self.net!r} has no layer {sorted(unknown)}; it has {', '.join(self.layer_names)}")
        x = ((images - self.mean) / self.std).to(next(self.features.parameters()).dtype)
        for name, layer in zip(self.layer_names, self.features, strict=True):
            if not wanted:
                return
            x = layer(x)
            if name in wanted:
                wanted.remove(name)
                yield x if name.startswith(("relu", "fire", "pool", "max")) else x.clone()  # a ReLU works in place

    def forward(self, images: Float[Tensor, "n 3 h w"], layers: tuple[str, ...] | None = None) -> dict[str, Tensor]:
        """Feature maps by layer name, each (n, c, h', w'), in network order."""
        names = [name for name in self.layer_names if name in (self.taps if layers is None else layers)]
        return dict(zip(names, self.stream(images, layers), strict=True))


def _shift_tolerant_features(net: str) -> dict[str, Tensor]:
    """Rename net.sliceK.N.* of the package's file to features.N.*; its blur filters are constants of BlurPool."""
    stored = weight_files.load(net)
    trunk = {key: value for key, value in stored.items() if key.startswith("net.") and not key.endswith(".filt")}
    return {"features." + key.split(".", 2)[2]: value for key, value in trunk.items()}
