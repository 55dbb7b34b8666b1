"""The coder round-trips exactly and is as short as probability allows; files count every byte."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from course_lib.data import photos
from course_lib.restoration import (
    Codec,
    bits_per_pixel,
    compress,
    decode_jpeg,
    decompress,
    encode_jpeg,
    fit_codec,
    jpeg_header_size,
    psnr,
    range_coder,
    rate_distortion,
)

TOTAL = 2**range_coder.SHARE_BITS


def table_of(weights):
    """Cumulative shares proportional to weights, by largest remainders; a zero weight has no share."""
    exact = np.array(weights, dtype=float) / sum(weights) * TOTAL
    shares = np.floor(exact).astype(int)
    shares[(np.array(weights) > 0) & (shares == 0)] = 1
    shares[np.argmax(shares)] += TOTAL - shares.sum()
    return [0, *np.cumsum(shares).tolist()]


@st.composite
def messages(draw):
    tables = draw(
        st.lists(
            st.lists(st.sampled_from([0, 1, 2, 1000, 10**9]), min_size=2, max_size=9).filter(sum).map(table_of),
            min_size=1, max_size=4,
        )
    )  # fmt: skip
    chosen = [tables[i] for i in draw(st.lists(st.integers(0, len(tables) - 1), max_size=200))]
    owned = [[s for s in range(len(t) - 1) if t[s + 1] > t[s]] for t in chosen]
    return [draw(st.sampled_from(symbols)) for symbols in owned], chosen


@given(messages())
@settings(max_examples=150)
def test_whatever_is_encoded_comes_back_exactly_and_costs_at_most_two_bytes_more_than_it_must(message):
    symbols, tables = message
    data = range_coder.encode(symbols, tables)
    assert range_coder.decode(data, tables) == symbols
    shares = [(t[s + 1] - t[s]) / TOTAL for s, t in zip(symbols, tables, strict=True)]
    assert 8 * len(data) <= -sum(map(math.log2, shares)) * (1 + 1e-4) + 16


def test_a_long_message_of_known_entropy_is_coded_to_within_a_tenth_of_a_percent():
    weights = [0.9, 0.05, 0.03, 0.02]
    symbols = np.random.default_rng(0).choice(4, 20_000, p=weights)
    data = range_coder.encode(symbols.tolist(), [table_of(weights)] * len(symbols))
    ideal = -np.log2(np.array(weights)[symbols]).sum() / 8
    assert ideal <= len(data) + 1 and len(data) < 1.001 * ideal + 2


def test_carries_run_through_bytes_of_ones():
    # shares at the very top of the interval keep `low` just under the next byte, until a carry ripples through
    tables = [[0, TOTAL - 1, TOTAL]] * 400
    rng = np.random.default_rng(1)
    for _ in range(30):
        symbols = rng.integers(0, 2, 400).tolist()
        assert range_coder.decode(range_coder.encode(symbols, tables), tables) == symbols


def test_a_symbol_without_share_is_refused():
    with pytest.raises(ValueError, match="symbol 1 has no share in a table of 3"):
        range_coder.encode([1], [[0, 5, 5, TOTAL]])
    with pytest.raises(ValueError, match="symbol 7 has no share"):
        range_coder.encode([7], [[0, 5, TOTAL]])


@pytest.fixture(scope="module")
def codec():
    """A tiny codec after a short training."""
    torch.manual_seed(0)
    made = Codec(channels=12, width=8, stride=8, lambdas=(0.001, 0.03))
    crops = photos.crops("train", 64, 32, seed=2).images
    made.start_from(crops)
    fit_codec(made, crops, epochs=5)
    return made.eval()


def picture(height=61, width=90):
    return photos.single("rocket")[:, :, 100 : 100 + height, 250 : 250 + width]


@pytest.mark.parametrize("size", [(61, 90), (16, 16), (1, 1), (33, 64)])
def test_a_file_decodes_to_what_the_rounded_latent_decodes_to(codec, size):
    image, rate = picture(*size), torch.tensor([1])
    decoded = decompress(codec, compress(codec, image, 1))
    with torch.no_grad():
        expected = codec.decode(codec.encode(image, rate).round(), rate)[:, :, : size[0], : size[1]].clamp(0, 1)
    assert decoded.shape == image.shape
    assert torch.allclose(decoded, expected, atol=1e-5)


def test_the_file_is_as_long_as_the_entropy_model_says_plus_its_header(codec):
    image, rate = photos.single("rocket"), torch.tensor([1])
    with torch.no_grad():
        latent = codec.encode(image, rate).round()
    symbols = latent[0].flatten(1).long() + 127
    shares = codec.tables[1].long().diff(dim=1).gather(1, symbols).double() / TOTAL
    ideal = -shares.log2().sum().item() / 8
    length = len(compress(codec, image, 1))
    assert ideal < length < 1.001 * ideal + 8 + 2


def test_the_prior_is_the_stated_mixture_and_the_tables_use_up_the_coders_total(codec):
    mean, scale = codec.prior.mean[1, 5].double(), codec.prior.log_scale[1, 5].exp().double()
    weight = codec.prior.log_weight[1, 5].double().softmax(0)
    edges = torch.tensor([1.5, 2.5]).double()[:, None]
    below = (weight * 0.5 * (1 + torch.tanh((edges - mean) / (2 * scale)))).sum(1)  # logistic, written with tanh
    expected = (below[1] - below[0]).item()
    start, stop = codec.tables[1, 5, 127 + 2 : 127 + 4].tolist()
    assert (stop - start) / TOTAL == pytest.approx(expected, rel=0.01, abs=3 / TOTAL)
    two = torch.zeros(1, 12, 1, 1)
    two[0, 5] = 2
    others = codec.prior.bits(torch.zeros(1, 12, 1, 1), torch.tensor([1]))
    zero = codec.tables[1, 5, 127:129].diff().item() / TOTAL
    difference = (codec.prior.bits(two, torch.tensor([1])) - others).item()
    assert difference == pytest.approx(math.log2(zero / expected), abs=0.02)
    assert (codec.tables[..., 0] == 0).all() and (codec.tables[..., -1] == TOTAL).all()
    assert (codec.tables.diff(dim=-1) >= 1).all()


def test_a_higher_rate_costs_more_and_shows_more(codec):
    image = photos.single("rocket")
    files = [compress(codec, image, rate) for rate in (0, 1)]
    assert len(files[1]) > 1.5 * len(files[0])
    low, high = (psnr(decompress(codec, data), image).item() for data in files)
    assert high > low + 0.5 and low > 22


def test_the_start_is_pca_of_the_blocks():
    crops = photos.crops("train", 40, 32, seed=3).images
    codec = Codec(channels=10, width=4, stride=8)
    codec.start_from(crops)
    blocks = (crops.float() / 255 - 0.5).unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(-1, 192)
    _, _, components = torch.linalg.svd(blocks, full_matrices=False)
    ours = codec.to_latent.weight.detach().flatten(1)
    overlap = torch.linalg.svdvals(ours @ components[:10].T)
    assert overlap.min() > 0.999
    rate = torch.zeros(len(crops), dtype=torch.long)
    images = crops.float() / 255
    with torch.no_grad():
        projected = codec.decode(codec.encode(images, rate), rate) - 0.5
    expected = (blocks @ components[:10].T @ components[:10]).square().sum()
    assert projected.square().sum().item() == pytest.approx(expected.item(), rel=1e-3)


def test_rounding_passes_gradients_to_the_encoder(codec):
    trained = copy.deepcopy(codec).train()
    decoded, bits = trained(picture(32, 32), torch.tensor([0]))
    (gradient,) = torch.autograd.grad(decoded.square().mean(), trained.to_latent.weight, retain_graph=True)
    assert gradient.abs().sum() > 0
    (gradient,) = torch.autograd.grad(bits.sum(), trained.to_latent.weight)
    assert gradient.abs().sum() > 0


def test_rate_and_quality_are_averages_over_whole_files():
    pictures = [picture(16, 32), picture(64, 64)]
    files = {16: b"1" * 100, 64: b"2" * 1024}
    rate, quality = rate_distortion(
        lambda image: files[image.shape[2]], lambda data: data, pictures, lambda data, _: torch.tensor(float(len(data)))
    )
    assert rate == pytest.approx((800 / 512 + 8192 / 4096) / 2) and quality == (100 + 1024) / 2


def test_latent_grows_with_the_picture_while_its_share_stays(codec):
    assert codec.latent_shape(64, 64) == (12, 8, 8)
    assert codec.latent_shape(128, 256) == (12, 16, 32)
    assert codec.latent_shape(65, 1) == (12, 9, 1)


def test_bits_per_pixel_count_the_whole_jpeg_file_of_which_the_header_is_most_at_64_pixels():
    crop = photos.crops("test", 1, 64, seed=4).images.float() / 255
    data = encode_jpeg(crop, 10, optimize=False)
    assert bits_per_pixel(data, crop) == len(data) * 8 / 4096
    assert 590 <= jpeg_header_size(data) <= 640
    assert 8 * jpeg_header_size(data) / 4096 > 1.1
    flat = encode_jpeg(torch.full((1, 3, 8, 8), 0.5), 50, optimize=False)
    assert len(flat) - jpeg_header_size(flat) < 12  # next to no pixels to code


def test_jpeg_files_are_pillows():
    image = picture()
    data = encode_jpeg(image, 80, subsampling="4:4:4")
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.format == "JPEG" and opened.size == (90, 61)
        assert np.array_equal(np.array(opened), (decode_jpeg(data)[0] * 255).round().byte().permute(1, 2, 0).numpy())
    assert psnr(decode_jpeg(data), image).item() > 30


def test_bad_input_gets_one_clear_line(codec, unchecked):
    data = compress(codec, picture())
    damaged = bytes([*data[:-3], data[-3] ^ 1, *data[-2:]])
    cases = [
        (lambda: decompress(codec, b""), "not a file of this codec"),
        (lambda: decompress(codec, encode_jpeg(picture())), "not a file of this codec"),
        (lambda: decompress(codec, data[:-2]), "this file is damaged"),
        (lambda: decompress(codec, damaged), "this file is damaged"),
        (lambda: compress(codec, picture().repeat(2, 1, 1, 1)), "a file holds one"),
        (lambda: compress(codec, picture(), 2), "unknown rate 2; this codec has 0 .* to 1"),
        (lambda: compress(Codec(channels=4, width=4, stride=8), picture()), "this codec has no tables yet"),
        (lambda: encode_jpeg(picture(), 100), "a quality from 1 to 95"),
        (lambda: jpeg_header_size(b"GIF89a"), "not a JPEG file"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)
