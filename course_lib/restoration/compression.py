"""Compression with a real rate: a file that another program could decode, and its length in bits per pixel.

An autoencoder's latent is rounded to integers; a factorised entropy model, fitted on training photographs, says how
likely each integer is in each channel; the range coder turns the integers into bytes. No skip connection leads around
the latent: what it carries would have to be in the file too.

Source: Ballé, Laparra, Simoncelli, End-to-end optimized image compression, ICLR 2017; rates in one network: Cui et
al., Asymmetric gained deep image compression with continuous rate adaptation, CVPR 2021.
"""

import math
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.restoration import range_coder
from course_lib.restoration.fit import cosine, turned
from course_lib.restoration.networks import UNet, pad_to_multiple
from course_lib.training import train
from course_lib.validation import check_images

LAMBDAS = (0.0006, 0.002, 0.006, 0.02)  # bits per pixel that an error of 1 (on the 0-255 scale, squared) is worth
LARGEST = 127  # a latent beyond it is clipped before it is coded
HEADER = struct.Struct(">BBHHH")  # format, rate, height, width, check sum
FORMAT = 1


class FactorizedPrior(nn.Module):
    """How likely every integer is, for each rate and channel: a mixture of three logistic distributions."""

    def __init__(self, rates: int, channels: int):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(rates, channels, 3))
        self.log_scale = nn.Parameter(torch.zeros(rates, channels, 3))
        self.log_weight = nn.Parameter(torch.zeros(rates, channels, 3))

    def cdf(self, x: Float[Tensor, "n c k"], rate: Int[Tensor, "n"]) -> Float[Tensor, "n c k"]:
        """Probability that a value of this channel is below x."""
        parts = self.mean, self.log_scale, self.log_weight.softmax(2)
        mean, log_scale, weight = (part[rate].unsqueeze(2) for part in parts)
        return (weight * torch.sigmoid((x.unsqueeze(3) - mean) * torch.exp(-log_scale))).sum(3)

    def bits(self, latent: Float[Tensor, "n c h w"], rate: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Ideal length of every latent: -log2 of the probability of the interval of width 1 around each value."""
        values = latent.flatten(2).float()
        probability = self.cdf(values + 0.5, rate) - self.cdf(values - 0.5, rate)
        return -probability.clamp_min(1e-9).log2().sum((1, 2))

    @torch.no_grad()
    def tables(self, rate: int) -> Int[Tensor, "c entries"]:
        """Cumulative integer shares for the coder of the symbols -LARGEST ... LARGEST; each has at least one."""
        edges = torch.arange(-LARGEST, LARGEST, dtype=torch.float64) + 0.5
        inner = self.cdf(edges.expand(1, self.mean.shape[1], -1), torch.tensor([rate]))[0]
        ends = inner.new_zeros(len(inner), 1)
        cdf = torch.cat([ends, inner, ends + 1], 1)
        symbols = torch.arange(cdf.shape[1])
        return (cdf * (2**range_coder.SHARE_BITS - len(symbols) + 1)).long() + symbols


class Codec(nn.Module):
    """Autoencoder for compression: `channels` integers per block of `stride` x `stride` pixels, at several rates.

    Encoder: a U-Net that prepares the picture, then one linear map of each block, then a gain per channel and rate;
    a larger gain means finer rounding, less error, more bits. Decoder: the same backwards. The U-Nets' own skips stay
    inside encoder and decoder; nothing goes around the latent.

    Args:
        channels: at most 3 stride².
        width: of both U-Nets.
        stride: side of a block.
        lambdas: one rate each: bits per pixel that a squared error of 1 (0-255 scale) is worth.
    """

    tables: Tensor  # of the coder, fixed by freeze(); they belong to the decoder, as JPEG's standard tables would

    def __init__(self, channels: int = 192, width: int = 32, stride: int = 16, lambdas: Sequence[float] = LAMBDAS):
        super().__init__()
        self.settings = {"channels": channels, "width": width, "stride": stride, "lambdas": list(lambdas)}
        self.stride, self.lambdas = stride, list(lambdas)
        self.prepare, self.finish = UNet(width=width, depth=1), UNet(width=width, depth=1)
        self.to_latent = nn.Conv2d(3, channels, stride, stride=stride, bias=False)
        self.from_latent = nn.ConvTranspose2d(channels, 3, stride, stride=stride, bias=False)
        # where a rounding step balances bits and error if the linear map is a rotation and steps are small
        gain = 0.5 * (torch.tensor(lambdas) * 255**2 * math.log(2) / 18).log()[:, None].expand(-1, channels)
        self.log_gain, self.log_inverse = nn.Parameter(gain.clone()), nn.Parameter(-gain.clone())
        self.prior = FactorizedPrior(len(lambdas), channels)
        self.register_buffer("tables", torch.zeros(len(lambdas), channels, 2 * LARGEST + 2, dtype=torch.int32))

    @torch.no_grad()
    def start_from(self, crops: UInt8[Tensor, "n 3 h w"]) -> None:
        """Begin as the best linear autoencoder: the linear maps are PCA of the crops' blocks, as JPEG's are a DCT."""
        blocks = F.unfold(crops.float() / 255 - 0.5, self.stride, stride=self.stride).mT.flatten(0, 1)
        values, vectors = torch.linalg.eigh(blocks.T @ blocks / len(blocks))
        channels = len(self.log_gain[0])
        components = vectors.flip(1)[:, :channels].T.reshape(self.to_latent.weight.shape)
        self.to_latent.weight.copy_(components)
        self.from_latent.weight.copy_(components)
        deviation = values.flip(0)[:channels].clamp_min(1e-8).log() / 2 + self.log_gain
        self.prior.log_scale.copy_(deviation[:, :, None] + torch.tensor([0.05, 0.2, 0.6]).log())

    def encode(self, images: Float[Tensor, "n 3 h w"], rate: Int[Tensor, "n"]) -> Float[Tensor, "n c h2 w2"]:
        """Latent before rounding; sides that are no multiples of the stride are padded."""
        prepared = self.prepare(pad_to_multiple(images, self.stride)) - 0.5
        return self.to_latent(prepared) * self.log_gain[rate].exp()[:, :, None, None]

    def decode(self, latent: Float[Tensor, "n c h2 w2"], rate: Int[Tensor, "n"]) -> Float[Tensor, "n 3 h w"]:
        """Pictures from rounded latents, not clamped."""
        return self.finish(self.from_latent(latent * self.log_inverse[rate].exp()[:, :, None, None]) + 0.5)

    def forward(
        self, images: Float[Tensor, "n 3 h w"], rate: Int[Tensor, "n"]
    ) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n"]]:
        """Decoded pictures and ideal bits per pixel, both with useful gradients, although rounding has none.

        The decoder sees rounded values whose gradient passes straight through; the rate is that of the values plus
        uniform noise in ± 0.5, which stands for the unknown rounding error.
        """
        latent = self.encode(images, rate)
        rounded = latent + (latent.round() - latent).detach()
        noisy = latent + torch.rand_like(latent) - 0.5
        height, width = images.shape[2:]
        decoded = self.decode(rounded, rate)[:, :, :height, :width]
        return decoded, self.prior.bits(noisy, rate) / (height * width)

    def freeze(self) -> None:
        """Fix the coder's tables. Integers, so that every machine decodes what any machine encoded."""
        self.tables = torch.stack([self.prior.tables(rate) for rate in range(len(self.log_gain))]).int()

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Channels, rows and columns of the latent: it grows with the picture, its share of the picture does not."""
        return len(self.log_gain[0]), -(-height // self.stride), -(-width // self.stride)


def fit_codec(
    codec: Codec,
    crops: UInt8[Tensor, "n 3 h w"],
    *,
    epochs: int,
    batch_size: int = 8,
    learning_rate: float = 1e-3,
    folder: str | Path | None = None,
    seed: int = 0,
    precision: str = "fp32",
    progress: str | None = None,
) -> list[dict[str, Any]]:
    """Minimise bits per pixel + lambda x squared error (0-255 scale), each image at a random rate; then freeze.

    Arguments and errors are those of :func:`~course_lib.restoration.fit.fit`.
    """
    worth = torch.tensor(codec.lambdas) * 255**2

    def batch_loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        images, rate = batch
        decoded, bits = codec(images, rate)
        return (bits + worth.to(bits)[rate] * (decoded - images).square().mean((1, 2, 3))).mean()

    def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(crops), generator=generator).split(batch_size):
            rate = torch.randint(len(worth), (len(rows),), generator=generator)
            yield turned(crops[rows], generator).float() / 255, rate

    optimizer = torch.optim.Adam(codec.parameters(), lr=learning_rate)
    history = train(
        codec, batch_loss, batches, optimizer, epochs=epochs, folder=folder, seed=seed, precision=precision,
        schedule=cosine(optimizer, epochs * -(-len(crops) // batch_size)), progress=progress,
        settings={"learning_rate": learning_rate, "batch_size": batch_size, "crops": len(crops)} | codec.settings,
    )  # fmt: skip
    codec.freeze()
    return history


@torch.no_grad()
def compress(codec: Codec, image: Float[Tensor, "1 3 h w"], rate: int = 0) -> bytes:
    """A file of one picture: 8 bytes of header, then the coded latent.

    Raises:
        TypeError, ValueError: if it is not one image in [0, 1] of at most 65,535 pixels a side, for an unknown rate,
            or a codec that was not frozen.
    """
    check_images(image, "image")
    if len(image) != 1 or max(image.shape) > 65_535:
        raise ValueError(f"image has shape {tuple(image.shape)}; a file holds one, of at most 65535 pixels a side")
    if not 0 <= rate < len(codec.tables):
        raise ValueError(f"unknown rate {rate}; this codec has 0 (smallest files) to {len(codec.tables) - 1}")
    if not codec.tables.any():
        raise ValueError("this codec has no tables yet; train it with fit_codec, or call codec.freeze()")
    latent = codec.encode(image, torch.tensor([rate]))[0].round().clamp(-LARGEST, LARGEST)
    symbols = (latent.flatten().int() + LARGEST).tolist()
    body = range_coder.encode(symbols, _tables(codec, rate, latent[0].numel()))
    return HEADER.pack(FORMAT, rate, *image.shape[2:], zlib.crc32(body) & 0xFFFF) + body


@torch.no_grad()
def decompress(codec: Codec, data: bytes) -> Float[Tensor, "1 3 h w"]:
    """The picture in a file that :func:`compress` made with the same codec, in [0, 1].

    Raises:
        ValueError: if it is not such a file, or is damaged.
    """
    if len(data) < HEADER.size or data[0] != FORMAT:
        raise ValueError("this is not a file of this codec: its header is missing or another one's")
    _, rate, height, width, check = HEADER.unpack_from(data)
    body = data[HEADER.size :]
    if zlib.crc32(body) & 0xFFFF != check or rate >= len(codec.tables):
        raise ValueError("this file is damaged, or from a codec with more rates; compress the picture again")
    channels, rows, columns = codec.latent_shape(height, width)
    symbols = range_coder.decode(body, _tables(codec, rate, rows * columns))
    latent = (torch.tensor(symbols) - LARGEST).view(1, channels, rows, columns).float()
    return codec.decode(latent, torch.tensor([rate]))[:, :, :height, :width].clamp(0, 1)


def bits_per_pixel(data: bytes, image: Float[Tensor, "1 3 h w"]) -> float:
    """Bits of a whole file, header and all, divided by height times width."""
    return 8 * len(data) / (image.shape[2] * image.shape[3])


def rate_distortion(
    encode: Callable[[Tensor], bytes],
    decode: Callable[[bytes], Tensor],
    pictures: Sequence[Float[Tensor, "1 3 _ _"]],
    quality: Callable[[Tensor, Tensor], Tensor],
) -> tuple[float, float]:
    """Bits per pixel and quality (of decoded, original) of a coder, both averaged over `pictures`."""
    rates, qualities = [], []
    for picture in pictures:
        data = encode(picture)
        rates.append(bits_per_pixel(data, picture))
        qualities.append(float(quality(decode(data), picture)))
    return sum(rates) / len(rates), sum(qualities) / len(qualities)


def _tables(codec: Codec, rate: int, positions: int) -> list[list[int]]:
    """A table per latent number, in the order in which they are coded: channel by channel."""
    return [table for table in codec.tables[rate].tolist() for _ in range(positions)]
