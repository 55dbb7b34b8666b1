"""EfficientNet-Lite0: a small ImageNet classifier whose last features see what a picture shows.

Its weights come with a pip package; the network is written here, because all of it fits on a page.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib import weights as weight_files

BLOCKS = [  # how often, kernel, stride of the first, expansion, channels
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
]  # fmt: skip
FEATURES, CLASSES = 1280, 1000


class SamePad(nn.Module):
    """Pad with zeros so that a convolution yields ceil(size / stride) positions, the odd one at the end.

    This is TensorFlow's "SAME", with which the weights were trained; PyTorch's padding is the same at both ends.
    """

    def __init__(self, kernel: int, stride: int):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        """Pad height and width."""
        sides = [max((-(-s // self.stride) - 1) * self.stride + self.kernel - s, 0) for s in x.shape[2:]]
        (top, left) = (side // 2 for side in sides)
        return F.pad(x, (left, sides[1] - left, top, sides[0] - top))


def _conv(c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(c_in, c_out, kernel, stride, groups=groups, bias=False)
    pad = [SamePad(kernel, stride)] if kernel > 1 else []
    return [*pad, convolution, nn.BatchNorm2d(c_out, eps=1e-3)]


class InvertedResidual(nn.Module):
    """Widen, convolve each channel by itself, narrow again, and add the input where the shapes agree.

    Source: Sandler, Howard, Zhu, Zhmoginov and Chen, MobileNetV2, CVPR 2018.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = c_in * expansion
        widen = [*_conv(c_in, wide), nn.ReLU6()] if expansion > 1 else []
        depthwise = [*_conv(wide, wide, kernel, stride, groups=wide), nn.ReLU6()]
        self.layers = nn.Sequential(*widen, *depthwise, *_conv(wide, c_out))
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        """Apply the block."""
        return x + self.layers(x) if self.residual else self.layers(x)


class EfficientNetLite0(nn.Module):
    """Images (n, 3, h, w) in [0, 1], made for 224 x 224 -> 1,280 features; :meth:`classify` gives ImageNet logits.

    Args:
        weights: "pretrained", or None for random ones.

    Raises:
        FileNotFoundError: if the pip package that ships the weights is missing.
        ValueError: for other `weights`, or a damaged file.

    Source: Tan and Le, EfficientNet, ICML 2019; the Lite variant (no squeeze-and-excitation, ReLU6) is from
    TensorFlow's TPU repository, 2020, whose input is (255 x - 127) / 128.
    """

    def __init__(self, weights: str | None = "pretrained"):
        super().__init__()
        if weights not in ("pretrained", None):
            raise ValueError(f"weights={weights!r}; use 'pretrained' or None")
        layers: list[nn.Module] = [*_conv(3, 32, 3, 2), nn.ReLU6()]
        channels = 32
        for repeats, kernel, stride, expansion, width in BLOCKS:
            for i in range(repeats):
                layers.append(InvertedResidual(channels, width, kernel, stride if i == 0 else 1, expansion))
                channels = width
        self.features = nn.Sequential(*layers, *_conv(channels, FEATURES), nn.ReLU6())
        self.classifier = nn.Linear(FEATURES, CLASSES)
        if weights == "pretrained":
            # the file lists its tensors in the order of the layers, under other names
            stored = weight_files.load("efficientnet-lite0").values()
            self.load_state_dict(dict(zip(self.state_dict(), stored, strict=True)))
        self.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1280"]:
        """Features after the last convolution, averaged over positions."""
        return self.features((255 * images - 127) / 128).mean((2, 3))

    def classify(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1000"]:
        """Logits of the ImageNet classes."""
        return self.classifier(self(images))
