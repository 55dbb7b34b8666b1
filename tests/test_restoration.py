"""Damage follows its formula, masks hide what they say, errors are measured apart, and baselines repair."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio
from torch.nn import functional as F

from course_lib.data import photos
from course_lib.restoration import (
    BASELINES,
    MASKS,
    TASKS,
    Degraded,
    anscombe_non_local_means,
    bicubic,
    biharmonic,
    downsample,
    gaussian_noise,
    hide,
    inpainting,
    non_local_means,
    poisson_noise,
    psnr,
    psnr_by_mask,
    push_pull,
    smooth_fill,
    total_variation,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def crops(n=6, size=64):
    return photos.crops("test", n, size, seed=4).images.float() / 255


def test_gaussian_noise_has_the_stated_deviation_and_is_independent_from_pixel_to_pixel():
    clean = torch.full((4, 3, 64, 64), 0.5)
    noise = gaussian_noise(clean, generator(), 0.08).images - clean
    assert noise.std().item() == pytest.approx(0.08, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.002)
    neighbours = torch.corrcoef(torch.stack([noise[..., 1:].flatten(), noise[..., :-1].flatten()]))[0, 1]
    assert abs(neighbours) < 0.03


@pytest.mark.parametrize("level", [0.1, 0.4])
@pytest.mark.parametrize("photons", [50, 200])
def test_poisson_noise_counts_photons_so_that_its_variance_is_the_image_over_photons(level, photons):
    noisy = poisson_noise(torch.full((4, 3, 64, 64), level), generator(), photons).images
    assert noisy.mean().item() == pytest.approx(level, rel=0.01)
    assert noisy.var().item() == pytest.approx(level / photons, rel=0.05)
    counts = noisy.double() * photons
    assert (counts - counts.round()).abs().max() < 1e-4


@pytest.mark.parametrize("task", TASKS)
def test_a_generator_decides_the_damage_and_the_result_is_an_image(task):
    truth = crops()
    one, same, other = (TASKS[task](truth, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.images, same.images)
    assert torch.equal(one.images, other.images) == task.startswith("sr")  # only shrinking is not random
    assert one.images.min() >= 0 and one.images.max() <= 1
    assert one.images.shape[2] * one.factor == 64
    assert one.network_input().shape == (6, 3 + (one.mask is not None), 64, 64)


@pytest.mark.parametrize("factor", [2, 4])
def test_downsampling_averages_stripes_that_skipping_pixels_would_turn_into_other_stripes(factor):
    stripes = torch.tensor([0.0, 1.0]).repeat(32).expand(1, 3, 64, 64)
    small = downsample(stripes, factor=factor).images
    assert small.shape[2:] == (64 // factor, 64 // factor)
    inside = small[..., 4:-4, 4:-4]
    assert (inside - 0.5).abs().max() < 0.1
    skipped = F.interpolate(stripes, scale_factor=1 / factor, mode="nearest")
    assert (skipped - 0.5).abs().max() == 0.5


def test_downsampling_agrees_with_pillows_antialiased_filter():
    from PIL import Image

    truth = crops(1)
    pixels = (truth[0, 0] * 255).numpy()
    pillow = np.array(Image.fromarray(pixels, "F").resize((16, 16), Image.Resampling.BICUBIC)) / 255
    ours = downsample(truth, factor=4).images[0, 0].numpy()
    assert np.abs(ours - pillow.clip(0, 1)).max() < 0.02


@pytest.mark.parametrize(("kind", "low", "high"), [("random", 0.47, 0.53), ("block", 0.03, 0.18), ("text", 0.1, 0.5)])
def test_masks_hide_about_as_much_as_they_say_and_differ_from_image_to_image(kind, low, high):
    truth = crops(12)
    mask = MASKS[kind](truth, generator())
    share = mask.float().mean((1, 2, 3))
    assert low < share.mean() < high
    assert share.min() > 0 and share.max() < 1
    assert not torch.equal(mask[0], mask[1])


def test_a_block_is_one_rectangle():
    for mask in MASKS["block"](torch.zeros(20, 3, 40, 60), generator())[:, 0]:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        assert int(mask.sum()) == height * width
        assert 40 * 0.2 - 1 <= height <= 40 * 0.4 + 1 and 60 * 0.2 - 1 <= width <= 60 * 0.4 + 1


def test_missing_means_true_and_known_pixels_are_untouched():
    truth = crops()
    mask = MASKS["random"](truth, generator())
    hidden = hide(truth, mask)
    everywhere = mask.expand_as(truth)
    assert (hidden.images[everywhere] == 0.5).all()
    assert torch.equal(hidden.images[~everywhere], truth[~everywhere])
    pasted = hidden.paste_known(torch.zeros_like(truth))
    assert (pasted[everywhere] == 0).all() and torch.equal(pasted[~everywhere], truth[~everywhere])


def test_any_mask_takes_the_three_kinds_in_turn():
    mask = inpainting(crops(6), generator(), "any").mask
    assert 0.4 < mask[0::3].float().mean() < 0.6
    for block in mask[1::3, 0]:
        assert int(block.sum()) == int(block.any(1).sum() * block.any(0).sum())


@given(st.integers(0, 10_000), st.floats(0.01, 1))
def test_psnr_is_scikit_images_with_peak_one(seed, scale):
    x = torch.rand(2, 3, 9, 7, generator=generator(seed))
    y = (x + scale * (torch.rand(2, 3, 9, 7, generator=generator(seed + 1)) - 0.5)).clamp(0, 1)
    expected = [peak_signal_noise_ratio(b, a, data_range=1.0) for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    assert psnr(x, y).numpy() == pytest.approx(np.array(expected), rel=1e-4)


def test_psnr_of_equal_images_is_infinite():
    assert torch.isinf(psnr(crops(1), crops(1))).all()


def test_masked_and_unmasked_errors_are_reported_apart_and_make_up_the_whole():
    truth = torch.full((1, 3, 10, 10), 0.5)
    mask = torch.zeros(1, 1, 10, 10, dtype=torch.bool)
    mask[..., :2, :] = True
    restored = torch.where(mask, truth + 0.1, truth - 0.01)
    inside, outside = psnr_by_mask(restored, truth, mask)
    assert inside.item() == pytest.approx(20, abs=1e-3) and outside.item() == pytest.approx(40, abs=1e-3)
    whole = -10 * math.log10(0.2 * 0.1**2 + 0.8 * 0.01**2)
    assert psnr(restored, truth).item() == pytest.approx(whole, abs=1e-3)


@pytest.mark.parametrize("task", BASELINES)
def test_every_baseline_gives_images_and_brings_them_nearer_to_the_truth(task):
    truth = crops(3)
    degraded = TASKS[task](truth, generator())
    start = bicubic(degraded) if degraded.factor == 1 else F.interpolate(degraded.images, 64, mode="nearest")
    for name, restore in BASELINES[task].items():
        restored = restore(degraded)
        assert restored.shape == truth.shape and restored.dtype == truth.dtype, name
        assert (psnr(restored, truth) > psnr(start, truth)).all(), name


def test_anscombes_transform_helps_non_local_means_against_photon_noise_and_keeps_the_mean_of_a_flat_picture():
    truth = crops(6)
    noisy = poisson_noise(truth, generator())
    assert psnr(anscombe_non_local_means(noisy), truth).mean() > psnr(non_local_means(noisy, 0.085, 0.8), truth).mean()
    flat = torch.full((1, 3, 64, 64), 0.3)
    assert abs(anscombe_non_local_means(poisson_noise(flat, generator())).mean() - 0.3) < 0.01


def test_baselines_leave_a_flat_picture_flat_and_biharmonic_continues_a_slope():
    flat = Degraded(torch.full((1, 3, 32, 32), 0.3))
    for restore in (total_variation, non_local_means):
        assert (restore(flat) - 0.3).abs().max() < 1e-4
    slope = torch.linspace(0.1, 0.9, 32).expand(1, 3, 32, 32)
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[..., 12:18, 12:18] = True
    assert (biharmonic(hide(slope, mask)) - slope).abs().max() < 1e-3


def test_push_pull_keeps_known_pixels_invents_nothing_outside_their_range_and_fills_a_flat_picture_exactly():
    truth = crops(6, size=61)
    for kind in MASKS:
        degraded = inpainting(truth, generator(), kind)
        filled, known = push_pull(degraded), ~degraded.mask.expand_as(truth)
        assert torch.equal(filled[known], truth[known])
        assert (psnr(filled, truth) > psnr(degraded.images, truth) + 1).all()
        for image, source, here in zip(filled, truth, known, strict=True):
            assert source[here].min() - 1e-5 <= image.min() and image.max() <= source[here].max() + 1e-5
    for size in ((40, 33), (64, 3), (1, 20)):
        flat = torch.full((2, 3, *size), 0.2)
        assert torch.allclose(push_pull(inpainting(flat, generator())), flat, atol=1e-5)


def test_smooth_fill_is_the_biharmonic_surface_where_holes_are_small_and_keeps_what_is_known():
    truth = crops(4, size=61)
    for kind in ("random", "text"):
        degraded = inpainting(truth, generator(), kind)
        filled, inside = smooth_fill(degraded), degraded.mask.expand_as(truth).clone()
        assert torch.equal(filled[~inside], truth[~inside])
        inside[..., :2, :], inside[..., -2:, :], inside[..., :2], inside[..., -2:] = False, False, False, False
        gap = (filled - biharmonic(degraded))[inside]  # at the border the two continue the picture differently
        assert gap.square().mean().sqrt() < 0.02 and gap.abs().median() < 2e-3
    nothing_known = Degraded(torch.full((1, 3, 8, 8), 0.5), torch.ones(1, 1, 8, 8, dtype=torch.bool))
    assert smooth_fill(nothing_known).isfinite().all()
    assert torch.equal(smooth_fill(Degraded(truth)), truth)


def test_bad_input_gets_one_clear_line(unchecked):
    truth = crops(1)
    cases = [
        (lambda: gaussian_noise(truth * 255, generator()), "looks like 0-255"),
        (lambda: gaussian_noise(truth, generator(), -1), "sigma is -1; it must be a positive number"),
        (lambda: poisson_noise(truth, generator(), 0), "photons is 0; it must be a positive number"),
        (lambda: downsample(truth[..., :63], factor=2), "cannot shrink 64 x 63 pixels by 2; crop to a multiple"),
        (lambda: inpainting(truth, generator(), "holes"), "unknown mask 'holes'; choose random, block, text or any"),
        (lambda: psnr(truth * 255, truth), "looks like 0-255"),
        (lambda: psnr(truth, truth[..., :60]), "resize or crop one of them"),
        (lambda: psnr_by_mask(truth, truth, truth[:, :1] > 2), "no missing or no known pixel"),
        (lambda: biharmonic(Degraded(truth)), "there is no mask"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)
