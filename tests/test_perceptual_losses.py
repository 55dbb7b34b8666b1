"""Pixel, structural, feature and style losses against other libraries, brute force and hand-made features."""

import numpy as np
import piq
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from course_lib.data import photos
from course_lib.perceptual_losses import (
    MS_SSIM_MIN_SIZE,
    SCALE_WEIGHTS,
    FeatureLoss,
    StyleLoss,
    gram,
    ms_ssim,
    mse,
    psnr,
    ssim,
    ssim_map,
)
from course_lib.trunks import Trunk

METRICS = {"mse": mse, "psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim}
LAYERS = ("conv1", "relu2", "pool2", "relu5")


@pytest.fixture(scope="module")
def trunk():
    return Trunk("st-alex")


def pair(size, n=3, dtype=torch.float32):
    """Crops of photographs, and the same with noise that is stronger in every next image."""
    height, width = (size, size) if isinstance(size, int) else size
    x = photos.crops("test", n, max(height, width), seed=1).images[..., :height, :width].to(dtype) / 255
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    return x, (x + 0.05 * torch.arange(1, n + 1).view(-1, 1, 1, 1) * noise).clamp(0, 1)


def brute_force_ssim(x, y):
    """Equations (12), (14), (15) and (13) of Wang et al. 2004 in float64: a loop over windows of one grey image."""
    i = np.arange(11) - 5
    window = np.exp(-(i[:, None] ** 2 + i[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2, values = 0.01**2, 0.03**2, []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = (image[top : top + 11, left : left + 11] for image in (x, y))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
            values.append(luminance * (2 * covariance + c2) / (var_a + var_b + c2))
    return np.mean(values)


# Pixels


@pytest.mark.parametrize("size", [8, (5, 9)])
def test_mse_and_psnr_equal_numpy_and_scikit_image(size):
    x, y = pair(size) if isinstance(size, int) else torch.rand(2, 3, 3, *size)
    a, b = x.double().numpy(), y.double().numpy()
    np.testing.assert_allclose(mse(x, y), ((a - b) ** 2).mean((1, 2, 3)), rtol=1e-5)
    expected = [peak_signal_noise_ratio(i, j, data_range=1.0) for i, j in zip(a, b, strict=True)]
    np.testing.assert_allclose(psnr(x, y), expected, rtol=1e-5)


def test_ten_times_smaller_error_gives_twenty_decibels_more():
    x, zero = torch.full((1, 3, 8, 8), 0.5), torch.zeros(1, 3, 8, 8)
    assert psnr(x / 10, zero).item() == pytest.approx(psnr(x, zero).item() + 20, abs=1e-4)
    assert psnr(torch.ones_like(zero), zero).item() == pytest.approx(0, abs=1e-5)


def test_psnr_of_equal_images_is_infinite():
    x = torch.rand(2, 3, 8, 8)
    assert psnr(x, x).tolist() == [torch.inf, torch.inf]


# SSIM


@pytest.mark.parametrize("size", [11, 64, (40, 67), 300])
def test_ssim_equals_piq_on_every_image(size):
    x, y = pair(size)
    torch.testing.assert_close(ssim(x, y), piq.ssim(x, y, downsample=False, reduction="none"), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [64, (40, 67)])
def test_ssim_map_is_torchmetrics_without_its_mirrored_border(size):
    x, y = pair(size, dtype=torch.float64)
    _, full = structural_similarity_index_measure(x, y, data_range=1.0, reduction="none", return_full_image=True)
    torch.testing.assert_close(ssim_map(x, y), full[..., 5:-5, 5:-5], atol=1e-6, rtol=0)


def test_ssim_equals_scikit_image():
    x, y = pair((40, 67))
    options = {"data_range": 1.0, "channel_axis": 0, "gaussian_weights": True, "use_sample_covariance": False}
    expected = [structural_similarity(a.numpy(), b.numpy(), **options) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(ssim(x, y), expected, atol=1e-5)


def test_ssim_equals_the_definition_computed_window_by_window():
    x, y = pair((14, 17), n=1)
    channels = zip(x[0].double().numpy(), y[0].double().numpy(), strict=True)
    expected = np.mean([brute_force_ssim(a, b) for a, b in channels])
    assert ssim(x, y).item() == pytest.approx(expected, abs=1e-5)
    assert ssim(x.double(), y.double()).item() == pytest.approx(expected, abs=1e-12)


def test_ssim_of_bright_flat_images_survives_float32():
    x = 1 - 0.01 * torch.rand(2, 3, 64, 64)
    y = x + 0.005 * (torch.rand(x.shape) - 0.5).clamp(max=0)
    torch.testing.assert_close(ssim(x, y).double(), ssim(x.double(), y.double()), atol=1e-4, rtol=0)


def test_ssim_of_a_negative_is_negative():
    x, _ = pair(64, n=2)
    assert (ssim(x, 1 - x) < 0).all()


# MS-SSIM


@pytest.mark.parametrize("size", [176, (192, 256)])
def test_ms_ssim_equals_piq_on_every_image(size):
    x, y = pair(size)
    torch.testing.assert_close(ms_ssim(x, y), piq.multi_scale_ssim(x, y, reduction="none"), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [176, MS_SSIM_MIN_SIZE])
def test_ms_ssim_is_the_product_of_torchmetrics_terms_at_five_scales(size):
    x, y = pair(size, n=2)
    expected = torch.ones(2, 3)
    options = {"data_range": 1.0, "reduction": "none"}
    for scale, weight in enumerate(SCALE_WEIGHTS):
        a, b = x.flatten(0, 1)[:, None], y.flatten(0, 1)[:, None]  # each channel is an image of its own
        if scale < 4:
            _, term = structural_similarity_index_measure(a, b, return_contrast_sensitivity=True, **options)
        else:
            _, full = structural_similarity_index_measure(a, b, return_full_image=True, **options)
            term = full[..., 5:-5, 5:-5].mean((1, 2, 3))
        expected *= term.view(2, 3).clamp_min(0) ** weight
        odd = x.shape[-1] % 2
        x, y = (torch.nn.functional.pad(i, (0, odd, 0, odd), mode="replicate") for i in (x, y))
        x, y = ((i[..., ::2, ::2] + i[..., 1::2, ::2] + i[..., ::2, 1::2] + i[..., 1::2, 1::2]) / 4 for i in (x, y))
    torch.testing.assert_close(ms_ssim(*pair(size, n=2)), expected.mean(1), atol=1e-4, rtol=0)


def test_ms_ssim_of_a_negative_is_zero_with_a_finite_gradient():
    x, _ = pair(176, n=1)
    y = (1 - x).requires_grad_()
    value = ms_ssim(x, y)
    value.sum().backward()
    assert value.item() == 0
    assert y.grad.isfinite().all()


# What all of them promise


@pytest.mark.parametrize("name", METRICS)
def test_metric_is_symmetric_and_knows_each_image_of_the_batch(name):
    x, y = pair(176)
    values = METRICS[name](x, y)
    assert values.shape == (3,)
    torch.testing.assert_close(METRICS[name](y, x), values, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(METRICS[name](x[1:2], y[1:2]), values[1:2], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", METRICS)
def test_more_noise_is_worse(name):
    x, y = pair(176)
    values = METRICS[name](x, y) if name == "mse" else -METRICS[name](x, y)
    stronger = (x + 3 * (y - x)).clamp(0, 1)
    worse = METRICS[name](x, stronger) if name == "mse" else -METRICS[name](x, stronger)
    assert (worse > values).all()


@pytest.mark.parametrize(("name", "best"), [("mse", 0), ("ssim", 1), ("ms_ssim", 1)])
def test_equal_images_get_the_best_value_and_others_do_not(name, best):
    x, y = pair(176)
    torch.testing.assert_close(METRICS[name](x, x), torch.full((3,), float(best)), atol=1e-6, rtol=0)
    assert ((METRICS[name](x, y) - best).abs() > 1e-3).all()


@pytest.mark.parametrize("name", METRICS)
def test_gradient_is_finite_where_the_images_are_equal(name):
    x, _ = pair(176, n=2)
    x[1] = 0.25  # flat: every variance is 0
    y = x.clone().requires_grad_()
    METRICS[name](x, y).sum().backward()
    assert y.grad.isfinite().all()
    assert y.grad.abs().max() < 1e-3  # it is the optimum


@pytest.mark.parametrize(("name", "size"), [("mse", 6), ("psnr", 6), ("ssim", 12)])
def test_gradient_equals_finite_differences(name, size):
    x, y = 0.1 + 0.8 * torch.rand(2, 1, 3, size, size, dtype=torch.float64)
    assert torch.autograd.gradcheck(METRICS[name], (x.requires_grad_(), y.requires_grad_()), fast_mode=True)


def test_gradient_of_ms_ssim_equals_a_finite_difference():
    x, y = pair(176, n=1, dtype=torch.float64)
    y = (0.1 + 0.8 * y).requires_grad_()
    direction = torch.randn(y.shape, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(ms_ssim(x, y).sum(), y)
    with torch.no_grad():
        difference = (ms_ssim(x, y + 1e-6 * direction) - ms_ssim(x, y - 1e-6 * direction)) / 2e-6
    assert (gradient * direction).sum().item() == pytest.approx(difference.item(), rel=1e-5)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda x: x * 255, ValueError, "x / 255"),
        (lambda x: x * 2 - 1, ValueError, "(x + 1) / 2"),
        (lambda x: (x * 255).byte(), TypeError, "x.float() / 255"),
        (lambda x: x[0], ValueError, "x[None]"),
        (lambda x: x[:, :1], ValueError, "grey"),
        (lambda x: x * torch.nan, ValueError, "NaN"),
        (lambda x: x[..., :-1], ValueError, "resize or crop"),
    ],
)
def test_bad_images_are_refused_with_the_fix(name, change, error, says, unchecked):
    x = torch.rand(1, 3, 176, 176)
    with pytest.raises(error) as raised:
        METRICS[name](change(x), x)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("metric", "smallest"), [(ssim, 11), (ms_ssim, 161)])
def test_images_smaller_than_the_window_allows_are_refused_with_the_smallest_size(metric, smallest):
    x = torch.rand(1, 3, smallest, smallest + 3)
    assert metric(x, x).isfinite().all()
    with pytest.raises(ValueError, match=f"{smallest} x {smallest}"):
        metric(x[..., 1:, :], x[..., 1:, :])


# Features and style


def test_gram_matrix_equals_a_loop_over_channels_and_positions():
    features = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    expected = torch.zeros(2, 4, 4, dtype=torch.float64)
    for n, i, j in np.ndindex(2, 4, 4):
        for row, column in np.ndindex(3, 5):
            expected[n, i, j] += features[n, i, row, column] * features[n, j, row, column] / (4 * 3 * 5)
    torch.testing.assert_close(gram(features), expected)
    assert (torch.linalg.eigvalsh(gram(features)) > -1e-12).all()


def test_gram_matrix_forgets_where_things_are_and_how_large_the_image_is():
    features = torch.randn(2, 4, 3, 5)
    shuffled = features.flatten(2)[..., torch.randperm(15)].view_as(features)
    torch.testing.assert_close(gram(shuffled), gram(features))
    torch.testing.assert_close(gram(features.repeat(1, 1, 2, 3)), gram(features))


def test_feature_loss_equals_features_made_by_hand(trunk):
    x, y = pair(64)
    weights = {"relu5": 0.5, "conv1": 2.0, "pool2": 1.0}
    loss = FeatureLoss(trunk, weights)
    expected = torch.zeros(3)
    a, b = ((image - trunk.mean) / trunk.std for image in (x, y))
    for name, layer in zip(trunk.layer_names, trunk.features, strict=True):
        a, b = layer(a.clone()), layer(b.clone())
        if name in weights:
            expected += weights[name] * torch.tensor([((i - j) ** 2).mean() for i, j in zip(a, b, strict=True)])
    torch.testing.assert_close(loss(x, y), expected)


def test_style_loss_equals_gram_matrices_made_by_hand(trunk):
    x, y = pair(64)
    ours, theirs = (trunk(image, ("relu1", "relu3")) for image in (x, y))
    expected = torch.zeros(3)
    for layer, weight in {"relu1": 1.0, "relu3": 3.0}.items():
        a, b = (f[layer].flatten(2).double() for f in (ours, theirs))
        difference = torch.einsum("ncp,ndp->ncd", a, a) - torch.einsum("ncp,ndp->ncd", b, b)
        expected += weight * (difference.square().sum((1, 2)) / (a.shape[1] * a.shape[2]) ** 2).float()
    torch.testing.assert_close(StyleLoss(trunk, {"relu3": 3.0, "relu1": 1.0})(x, y), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", [FeatureLoss, StyleLoss])
def test_loss_is_the_sum_of_its_layers_whatever_their_order(trunk, kind):
    x, y = pair(32)
    forwards, backwards = kind(trunk, LAYERS), kind(trunk, LAYERS[::-1])
    assert forwards.per_layer(x, y).shape == (3, 4)
    torch.testing.assert_close(forwards(x, y), backwards(x, y))
    single = [kind(trunk, [layer])(x, y) for layer in LAYERS]
    torch.testing.assert_close(forwards.per_layer(x, y), torch.stack(single, 1))


@pytest.mark.parametrize("kind", [FeatureLoss, StyleLoss])
def test_loss_is_symmetric_and_zero_with_a_finite_gradient_at_equal_images(trunk, kind):
    x, y = pair(32)
    loss = kind(trunk, LAYERS)
    torch.testing.assert_close(loss(x, y), loss(y, x))
    assert (loss(x, y) > 0).all()
    x.requires_grad_()
    value = loss(x, x.detach())
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert value.abs().max() < 1e-6
    assert gradient.isfinite().all()


@pytest.mark.parametrize("kind", [FeatureLoss, StyleLoss])
def test_gradient_of_a_feature_loss_equals_a_finite_difference(kind):
    trunk = Trunk("st-alex").double()
    x, y = pair(24, n=1, dtype=torch.float64)
    loss = kind(trunk, LAYERS)
    x = (0.1 + 0.8 * x).requires_grad_()
    direction = torch.randn(x.shape, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(loss(x, y).sum(), x)
    with torch.no_grad():
        difference = (loss(x + 1e-7 * direction, y) - loss(x - 1e-7 * direction, y)) / 2e-7
    assert (gradient * direction).sum().item() == pytest.approx(difference.item(), rel=1e-4)


def test_style_loss_compares_images_of_different_sizes_but_feature_loss_refuses(trunk, unchecked):
    x, y = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 48, 40)
    assert StyleLoss(trunk, ["relu2"])(x, y).shape == (2,)
    with pytest.raises(ValueError, match="resize or crop"):
        FeatureLoss(trunk, ["relu2"])(x, y)
    with pytest.raises(ValueError, match=r"y\.expand\(2, -1, -1, -1\)"):
        StyleLoss(trunk, ["relu2"])(x, y[:1])


@pytest.mark.parametrize("kind", [FeatureLoss, StyleLoss])
def test_loss_refuses_bad_and_too_small_images(trunk, kind, unchecked):
    loss, x = kind(trunk, ["relu1"]), torch.rand(1, 3, 32, 32)
    with pytest.raises(ValueError, match="y / 255"):
        loss(x, x * 255)
    with pytest.raises(ValueError, match=f"at least {trunk.min_size} x {trunk.min_size}"):
        loss(x[..., :20], x[..., :20])


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ([], "no layers given"),
        ("relu1", "give a list: ['relu1']"),
        (["relu9"], "has no layer 'relu9'; it has conv1, "),
        (["relu1", "relu1"], "named twice"),
        ({"relu1": -1.0}, "weights are finite and not negative"),
        ({"relu1": float("nan")}, "weights are finite and not negative"),
    ],
)
def test_bad_layers_are_refused_when_the_loss_is_made(trunk, layers, says, unchecked):
    with pytest.raises(ValueError) as raised:
        FeatureLoss(trunk, layers)
    assert says in str(raised.value)
