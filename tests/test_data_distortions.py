"""Distortions: exact at strength 0, stronger with strength, reproducible, and each what its name says."""

import inspect
import io
import re

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from course_lib.data import distortions, photos
from course_lib.data.distortions import DISTORTIONS, FAMILIES, draws
from course_lib.data.distortions.photometric import luma

every = pytest.mark.parametrize("name", DISTORTIONS)
WITHOUT_CHANCE = {"gaussian_blur", "bilateral_blur", "jpeg", "quantisation"}


def seed(number=0):
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def crops():
    return photos.crops("all", 33, seed=2).images.float() / 255


@pytest.fixture
def always_positive(monkeypatch):
    monkeypatch.setattr(draws, "sign", lambda images, shape, generator: torch.ones(len(images), *shape))


@pytest.fixture
def always_negative(monkeypatch):
    monkeypatch.setattr(draws, "sign", lambda images, shape, generator: -torch.ones(len(images), *shape))


def test_every_family_of_bapps_traditional_is_there():
    assert {name for names in FAMILIES.values() for name in names} == set(DISTORTIONS)
    assert sum(map(len, FAMILIES.values())) == len(DISTORTIONS) == 20
    assert list(FAMILIES) == ["photometric", "noise", "blur", "spatial", "compression"]


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(DISTORTIONS)),
    shape=st.tuples(st.integers(1, 3), st.just(3), st.integers(8, 40), st.integers(8, 40)),
    strength=st.floats(0, 1),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_output_has_the_input_s_shape_and_type_and_stays_in_range(name, shape, strength, dtype):
    images = torch.rand(shape, generator=seed(), dtype=dtype)
    before = images.clone()
    distorted = DISTORTIONS[name](images, strength, seed(1))
    assert distorted.shape == images.shape and distorted.dtype == dtype
    assert distorted.min() >= 0 and distorted.max() <= 1
    assert torch.equal(images, before)


@every
def test_strength_0_returns_the_very_same_pixels_even_beside_strength_1(name, crops):
    strength = torch.tensor([0.0, 1.0]).repeat(17)[:33]
    distorted = DISTORTIONS[name](crops, strength, seed())
    assert torch.equal(distorted[::2], crops[::2])
    assert (distorted != crops).flatten(1).any(1)[1::2].all()
    assert torch.equal(DISTORTIONS[name](crops, 0, seed()), crops)


@every
def test_more_strength_is_more_damage_on_average(name, crops):
    strengths = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0)
    damage = [(DISTORTIONS[name](crops, s, seed()) - crops).square().mean().item() for s in strengths]
    assert damage == sorted(damage)
    assert damage[-1] > 1.2 * damage[-3] > 0 and damage[-1] > 0.001


@every
def test_the_seed_decides_the_pixels(name, crops):
    first, again, other = (DISTORTIONS[name](crops, 0.5, seed(number)) for number in (3, 3, 4))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name in WITHOUT_CHANCE)


@every
def test_one_strength_per_image_equals_one_call_per_strength(name, crops):
    strength = torch.linspace(0, 1, 4)
    together = DISTORTIONS[name](crops[:4], strength, seed())
    for i, s in enumerate(strength.tolist()):
        assert torch.allclose(together[i], DISTORTIONS[name](crops[:4], s, seed())[i], atol=1e-6)


@every
def test_help_shows_the_public_signature_and_a_description(name):
    assert list(inspect.signature(DISTORTIONS[name]).parameters) == ["images", "strength", "generator"]
    assert DISTORTIONS[name].__doc__.endswith(".") or "\n" in DISTORTIONS[name].__doc__
    assert getattr(distortions, name) is DISTORTIONS[name]


@pytest.mark.parametrize("name", [*FAMILIES["spatial"], *FAMILIES["blur"], "jpeg", "contrast"])
def test_an_image_of_one_grey_stays_as_it_is(name):
    grey = torch.full((2, 3, 24, 32), 128 / 255)
    assert torch.allclose(DISTORTIONS[name](grey, 0.8, seed()), grey, atol=1e-4)


def test_photometric_distortions_change_what_they_say_and_keep_the_rest(always_negative):
    images = 0.5 + 0.1 * (torch.rand(3, 3, 16, 16, generator=seed()) - 0.5)
    assert torch.allclose(distortions.lightness(images, 0.5), images - 0.175, atol=1e-6)
    assert torch.allclose(luma(distortions.colour_shift(images, 0.9, seed())), luma(images), atol=1e-6)
    assert torch.allclose(distortions.saturation(images, 1.0), luma(images).expand_as(images), atol=1e-6)
    weaker = distortions.contrast(images, 1.0)
    assert torch.allclose(weaker.mean((2, 3)), images.mean((2, 3)), atol=1e-6)
    assert torch.allclose(weaker.std((2, 3)), images.std((2, 3)) / 4, atol=1e-6)


def test_contrast_and_saturation_can_also_be_raised(always_positive):
    images = 0.5 + 0.1 * (torch.rand(3, 3, 16, 16, generator=seed()) - 0.5)
    assert torch.allclose(distortions.contrast(images, 1.0).std((2, 3)), 3 * images.std((2, 3)), atol=1e-5)
    chroma = images - luma(images)
    assert torch.allclose(distortions.saturation(images, 1.0) - luma(images), 4 * chroma, atol=1e-5)


SLOPES = {"white_noise": 0, "uniform_noise": 0, "pink_noise": -2, "blue_noise": 2}


@pytest.mark.parametrize(("name", "slope"), SLOPES.items())
def test_noise_has_the_spectrum_of_its_colour(name, slope):
    grey = torch.full((64, 3, 64, 64), 0.5)
    noise = DISTORTIONS[name](grey, 0.4, seed()) - grey
    power = np.abs(np.fft.fft2(noise.numpy())) ** 2
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64))
    inside = (frequency > 0.03) & (frequency < 0.4)
    fitted = np.polyfit(np.log(frequency[inside]), np.log(power.mean((0, 1))[inside]), 1)[0]
    assert fitted == pytest.approx(slope, abs=0.1)
    expected = 0.4 * (0.25 / 3**0.5 if name == "uniform_noise" else 0.15)
    assert noise.std().item() == pytest.approx(expected, rel=0.02)


def test_checkerboard_alternates_in_squares_of_1_to_3_pixels():
    grey = torch.full((40, 3, 12, 12), 0.5)
    boards = distortions.checkerboard(grey, 1.0, seed()) - grey
    assert torch.allclose(boards.abs(), torch.tensor(0.15), atol=1e-6)
    row = boards[:, 0, 0].sign()
    cells = {next(c for c in range(1, 13) if r[c] != r[0]) for r in row}
    assert cells == {1, 2, 3}


@pytest.mark.parametrize("strength", [0.2, 0.7, 1.0])
def test_gaussian_blur_equals_scipy(strength, crops):
    sigma = 3 * strength
    ours = distortions.gaussian_blur(crops[:3], strength)
    filtered = scipy.ndimage.gaussian_filter(
        crops[:3].double().numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=9 / sigma
    )
    assert np.allclose(ours.numpy(), filtered, atol=1e-5)


def test_bilateral_blur_equals_its_definition_in_float64(crops):
    image, sigma = crops[5].double().numpy(), 0.4 * 0.6
    ours = distortions.bilateral_blur(crops[5:6], 0.6)[0].numpy()
    padded = np.pad(image, ((0, 0), (4, 4), (4, 4)), mode="edge")
    offsets = np.arange(-4, 5)
    near = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 2**2))
    for y, x in [(0, 0), (0, 63), (31, 17), (40, 60), (63, 5)]:
        window = padded[:, y : y + 9, x : x + 9]
        weight = near * np.exp(-((window - image[:, y, x, None, None]) ** 2).sum(0) / (2 * sigma**2))
        assert np.allclose(ours[:, y, x], (weight * window).sum((1, 2)) / weight.sum(), atol=1e-5)


def test_shift_moves_pixels_by_up_to_an_eighth_of_the_image(monkeypatch, crops):
    right = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    monkeypatch.setattr(draws, "direction", lambda images, generator: right.expand(len(images), -1, 1, 1))
    shifted = distortions.shift(crops, 0.5)
    assert torch.allclose(shifted[..., :-4], crops[..., 4:], atol=1e-5)
    mirrored = distortions.shift(crops, 1.0)
    assert torch.allclose(mirrored[..., -8:], crops[..., -8:].flip(3), atol=1e-5)


def test_affine_and_homography_keep_straight_lines_straight_and_warp_does_not():
    ramp = torch.linspace(0.3, 0.7, 64).expand(1, 3, 64, 64)  # a function of the position shows where pixels came from
    middle = (slice(None), 0, slice(20, 44), slice(20, 44))
    bent = {}
    for name in ("affine", "homography", "warp"):
        seen = DISTORTIONS[name](ramp.contiguous(), 0.5, seed(1))[middle][0].double().numpy()
        # a homography shows a ramp as (a + b x + c y) / (1 + d x + e y): linear least squares after multiplying out
        y, x = (axis.ravel() / 24 for axis in np.mgrid[:24, :24])
        z = seen.ravel()
        terms = np.column_stack([np.ones_like(x), x, y, -x * z, -y * z])
        bent[name] = np.abs(terms @ np.linalg.lstsq(terms, z, rcond=None)[0] - z).max()
    assert bent["affine"] < 1e-3 and bent["homography"] < 1e-3  # bicubic sampling is that far from linear
    assert bent["warp"] > 5e-3


def test_corner_shift_leaves_the_sides_away_from_the_corner(monkeypatch, always_positive, crops):
    outward = torch.tensor([1.0, 1.0]).view(1, 2, 1, 1)
    monkeypatch.setattr(draws, "direction", lambda images, generator: outward.expand(len(images), -1, 1, 1))
    moved = (distortions.corner_shift(crops, 0.3) - crops).abs().mean((0, 1))
    assert moved[0].max() < 0.02 and moved[:, 0].max() < 0.02 < moved[40:, 40:].mean()


def test_chromatic_aberration_moves_red_and_blue_apart_and_leaves_green(crops):
    distorted = distortions.chromatic_aberration(crops, 1.0, seed())
    assert torch.equal(distorted[:, 1], crops[:, 1])
    grey = crops.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    red, _, blue = distortions.chromatic_aberration(grey, 1.0, seed()).unbind(1)
    assert (red - blue).abs().mean() > 0.01


@pytest.mark.parametrize(("strength", "quality"), [(0.3, 37), (0.7, 10), (1.0, 4)])
def test_jpeg_equals_pillow_s_encoder(strength, quality, crops):
    ours = (distortions.jpeg(crops[:8], strength) * 255).round()
    for image, coded in zip(crops[:8], ours, strict=True):
        file = io.BytesIO()
        Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        theirs = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float()
        assert (coded - theirs).abs().mean() < 0.5


@pytest.mark.parametrize(("strength", "levels"), [(0.25, 11), (0.5, 5), (1.0, 3)])
def test_quantisation_leaves_this_many_levels(strength, levels):
    ramp = torch.linspace(0, 1, 4096).view(1, 1, 64, 64).expand(1, 3, 64, 64)
    values = distortions.quantisation(ramp, strength).unique()
    assert len(values) == levels and 0.5 in values


def test_a_random_sequence_is_one_or_two_different_distortions_and_uses_all_of_them(crops):
    images = crops.repeat(20, 1, 1, 1)
    distorted, described = distortions.random_sequence(images, seed())
    steps = [re.findall(r"(\w+)\((\d\.\d\d)\)", text) for text in described]
    assert 0.4 < np.mean([len(step) == 1 for step in steps]) < 0.6
    assert all(len({name for name, _ in step}) == len(step) in (1, 2) for step in steps)
    assert {name for step in steps for name, _ in step} == set(DISTORTIONS)
    assert (distorted != images).flatten(1).any(1).float().mean() > 0.98
    assert 0.45 < np.mean([float(strength) for step in steps for _, strength in step]) < 0.55


def test_a_random_sequence_does_what_it_says(crops):
    images = crops.repeat(12, 1, 1, 1)
    distorted, described = distortions.random_sequence(images, seed(5))
    compared = 0
    for i, text in enumerate(described):
        name, strength = re.fullmatch(r"(\w+)\((.+)\)", text.split(" + ")[0]).groups()
        if " + " not in text and name in {"gaussian_blur", "bilateral_blur"}:
            expected = DISTORTIONS[name](images[i : i + 1], float(strength))[0]
            assert torch.allclose(distorted[i], expected, atol=0.03)
            compared += 1
    assert compared >= 5


def test_a_random_sequence_repeats_with_its_seed(crops):
    (first, how), (again, how_again), (other, _) = (distortions.random_sequence(crops, seed(n)) for n in (1, 1, 2))
    assert torch.equal(first, again) and how == how_again and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        (1.5, "strength is 1.5 to 1.5; it must be between 0 .* and 1"),
        (-0.1, "between 0"),
        (float("nan"), "between 0"),
        (torch.ones(2), "give one number, or 3: one per image"),
        (torch.ones(3, 1), "one per image"),
    ],
)
def test_a_wrong_strength_gets_one_clear_line(unchecked, strength, message):
    with pytest.raises(ValueError, match=message) as caught:
        distortions.shift(torch.rand(3, 3, 16, 16), strength)
    assert "\n" not in str(caught.value)


def test_images_outside_the_convention_are_refused(unchecked):
    with pytest.raises(ValueError, match="looks like 0-255: images / 255"):
        distortions.jpeg(torch.rand(1, 3, 16, 16) * 255, 0.5)
    with pytest.raises(TypeError, match=r"images.float\(\) / 255"):
        distortions.random_sequence(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
