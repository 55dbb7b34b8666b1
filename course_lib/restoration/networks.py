"""One small convolutional network for every restoration: an autoencoder, with or without skip connections."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.restoration.degradations import Degraded


def conv3(channels: int, out: int) -> nn.Conv2d:
    """3 x 3 convolution that keeps the size."""
    return nn.Conv2d(channels, out, 3, padding=1)


class Block(nn.Module):
    """Two convolutions that predict a correction of their input."""

    def __init__(self, width: int):
        super().__init__()
        self.correction = nn.Sequential(conv3(width, width), nn.ReLU(), conv3(width, width))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Input plus correction."""
        return x + self.correction(x)


def down(width: int) -> nn.Module:
    """Half as many rows and columns."""
    return nn.Conv2d(width, width, 2, stride=2)


def up(width: int) -> nn.Module:
    """Twice as many rows and columns; four channel groups become the four pixels."""
    return nn.Sequential(nn.Conv2d(width, 4 * width, 1), nn.PixelShuffle(2))


class UNet(nn.Module):
    """Convolutional autoencoder (skip=False) or U-Net (skip=True) with the same parameters, for any image size.

    The latent has `width` channels and one position per stride x stride pixels. Skip connections *add* the encoder's
    features to the decoder's of the same size, so leaving them out changes no shape.

    Args:
        in_channels: 3, or 4 with a mask.
        width: channels at every level.
        depth: halvings after the first, which only rearranges pixels; the stride is 2 ** (depth + 1).
        skip: whether features of every level reach the decoder directly.
        residual: predict the correction of the input picture instead of the picture; starts as the identity.

    Source: Ronneberger, Fischer, Brox, U-Net, MICCAI 2015 (skip connections, there concatenated); Zhang, Zuo, Chen,
    Meng, Zhang, Beyond a Gaussian denoiser, IEEE TIP 2017 (residual learning), and FFDNet, IEEE TIP 2018 (the first
    halving).
    """

    def __init__(self, in_channels: int = 3, width: int = 40, depth: int = 2, skip: bool = True, residual: bool = True):
        super().__init__()
        self.settings = {
            "in_channels": in_channels, "width": width, "depth": depth, "skip": skip, "residual": residual,
        }  # fmt: skip
        self.skip, self.residual, self.stride = skip, residual, 2 ** (depth + 1)
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), conv3(4 * in_channels, width))
        self.encoders = nn.ModuleList([Block(width) for _ in range(depth)])
        self.downs = nn.ModuleList([down(width) for _ in range(depth)])
        self.bottleneck = nn.Sequential(Block(width), Block(width))
        self.ups = nn.ModuleList([up(width) for _ in range(depth)])
        self.decoders = nn.ModuleList([Block(width) for _ in range(depth)])
        last = conv3(width, 12)
        if residual:
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
        self.head = nn.Sequential(last, nn.PixelShuffle(2))

    @property
    def reach(self) -> int:
        """How many pixels away an input pixel can at most be that changes an output pixel."""
        steps = [2 ** (level + 1) for level in range(len(self.downs))]  # pixels per feature position
        return 2 * 2 + sum(4 * step for step in steps) + 4 * self.stride + self.stride

    def encode(self, x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n width h2 w2"], list[Tensor]]:
        """Latent, and the features of each level, largest first. h and w must be multiples of the stride."""
        x, skips = self.stem(x), []
        for block, shrink in zip(self.encoders, self.downs, strict=True):
            x = block(x)
            skips.append(x)
            x = shrink(x)
        return self.bottleneck(x), skips

    def decode(self, x: Float[Tensor, "n width h2 w2"], skips: list[Tensor]) -> Float[Tensor, "n 3 h w"]:
        """Picture or correction from the latent, and from what went around it if the network has skips."""
        for grow, block, features in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = grow(x)
            x = block(x + features if self.skip else x)
        return self.head(x)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h w"]:
        """Restored pictures, not clamped: a clamped pixel would have no gradient."""
        height, width = x.shape[2:]
        x = pad_to_multiple(x, self.stride).contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
        restored = self.decode(*self.encode(x))
        if self.residual:
            restored = restored + x[:, :3]
        return restored[:, :, :height, :width]


def pad_to_multiple(x: Float[Tensor, "n c h w"], stride: int) -> Float[Tensor, "n c h2 w2"]:
    """Repeat the last row and column until both sides are multiples of `stride`."""
    height, width = x.shape[2:]
    return F.pad(x, (0, -width % stride, 0, -height % stride), mode="replicate")


@torch.no_grad()
def restore(network: nn.Module, degraded: Degraded, paste: bool = True) -> Float[Tensor, "n 3 h w"]:
    """Restored images in [0, 1]; pixels that were never missing stay as given, unless `paste` is False."""
    restored = network(degraded.network_input()).clamp(0, 1)
    return degraded.paste_known(restored) if paste else restored


@torch.no_grad()
def without_latent(network: UNet, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h w"]:
    """What the network still draws when its latent is set to zero: the picture that went around the bottleneck.

    An autoencoder without skips draws one dark pattern for all pictures. A U-Net draws nearly the picture, so the
    size of its latent says nothing about what a file of it would need. Sides must be multiples of the stride.
    """
    latent, skips = network.encode(x)
    restored = network.decode(torch.zeros_like(latent), skips)
    return (restored + x[:, :3] if network.residual else restored).clamp(0, 1)
