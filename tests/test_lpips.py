"""LPIPS equals the published metric, keeps its promises as a distance, and says clearly what it cannot use."""

import functools
import sys
from pathlib import Path
from unittest import mock

import hypothesis
import hypothesis.strategies as st
import lpips as peer_package
import numpy as np
import pytest
import torch
from lpips import pretrained_networks
from torch import nn

from course_lib.data import distortions, photos
from course_lib.lpips import LPIPS, load_heads, unit_channels
from course_lib.trunks import NETS

REAL_WEIGHTS = Path(__file__).parents[2] / "shared" / "weights"
PEER_NAMES = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet"}
HEADS = [(net, "0.1") for net in NETS] + [(net, "0.0") for net in PEER_NAMES]


@functools.cache
def metric(net="st-alex", weights="pretrained", precision="fp32"):
    return LPIPS(net, weights, precision=precision)


def usable(net):
    """The pretrained metric where its weights are on this machine, else a random trunk."""
    return metric(net, "pretrained" if net.startswith("st-") else None)


@pytest.fixture(scope="module")
def pairs():
    """Two real crops and what two distortions make of them."""
    x = photos.crops("test", 2, size=48, seed=7).images.float() / 255
    return x, distortions.random_sequence(x, torch.Generator().manual_seed(3))[0]


@functools.cache
def random_trunk(net):
    """The lpips package's feature network, random, but so that the activations of every layer stay alive."""
    trunk = getattr(pretrained_networks, PEER_NAMES[net])(pretrained=False, requires_grad=False)
    for layer in trunk.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return trunk


def both(net, version="0.1", calibrated=True, spatial=False):
    """Our metric and the lpips package's, with one random trunk."""
    trunk = random_trunk(net)
    with mock.patch.object(pretrained_networks, PEER_NAMES[net], lambda **_: trunk):
        peer = peer_package.LPIPS(
            net=net, version=version, lpips=calibrated, spatial=spatial, pnet_rand=True, verbose=False
        )
    ours = LPIPS(net, weights=None, calibrated=calibrated, spatial=spatial, version=version)
    # sliceK.N.weight of the package is torchvision's features.N.weight
    ours.load_trunk({"features." + key.split(".", 1)[1]: value for key, value in peer.net.state_dict().items()})
    return ours, functools.partial(peer, normalize=True)


# Known values


@pytest.mark.parametrize(("net", "expected"), [("st-alex", (0.7778, 0.1320)), ("st-vgg", (0.6517, 0.1361))])
def test_shift_tolerant_distances_of_the_example_patches_are_those_of_the_authors_code(net, expected):
    ref, p0, p1 = photos.lpips_example()
    assert metric(net)(ref, p0).item() == pytest.approx(expected[0], abs=5e-5)
    assert metric(net)(ref, p1).item() == pytest.approx(expected[1], abs=5e-5)


@pytest.mark.skipif(not REAL_WEIGHTS.is_dir(), reason="needs ImageNet trunks in ../shared/weights")
@pytest.mark.parametrize(("net", "expected"), [("alex", (0.7219, 0.1376)), ("squeeze", (0.7110, 0.1479))])
def test_imagenet_distances_of_the_example_patches_are_those_of_the_authors_code(net, expected):
    with np.load(REAL_WEIGHTS / f"{net}_lpips_v0.1.npz") as arrays:
        stored = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    model = LPIPS(net, weights=None)
    model.load_trunk(stored)
    ref, p0, p1 = photos.lpips_example()
    assert model(ref, p0).item() == pytest.approx(expected[0], abs=5e-5)
    assert model(ref, p1).item() == pytest.approx(expected[1], abs=5e-5)
    for i, head in enumerate(load_heads(net)):
        assert torch.equal(head, stored[f"lin{i}.model.1.weight"].flatten())


# The lpips package as oracle


@pytest.mark.filterwarnings("ignore::UserWarning:torchvision.models")
@pytest.mark.parametrize("spatial", [False, True], ids=["number", "map"])
@pytest.mark.parametrize("calibrated", [True, False], ids=["calibrated", "uncalibrated"])
@pytest.mark.parametrize("version", ["0.1", "0.0"])
@pytest.mark.parametrize("net", PEER_NAMES)
def test_distances_equal_the_lpips_package(net, version, calibrated, spatial):
    ours, peer = both(net, version, calibrated, spatial)
    for height, width in [(32, 32), (33, 47)]:
        x, y = torch.rand(2, 2, 3, height, width)
        expected = peer(x, y).detach()
        expected = expected if spatial else expected.flatten()
        assert expected.mean() > 0.05  # else the tolerance would hide everything
        torch.testing.assert_close(ours(x, y), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("net", PEER_NAMES)
def test_layers_equal_the_lpips_package_and_sum_to_the_distance(net, pairs):
    ours, peer = both(net)
    expected = torch.cat(peer(*pairs, retPerLayer=True)[1], 1)[..., 0, 0]
    layers = ours.per_layer(*pairs)
    torch.testing.assert_close(layers, expected.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layers.sum(1), ours(*pairs))


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_gradients_equal_the_lpips_package(net, pairs):
    def gradient(distance):
        x = pairs[0].clone().requires_grad_()
        return torch.autograd.grad(distance(x, pairs[1]).sum(), x)[0]

    ours, peer = both(net)
    assert gradient(ours).abs().max() > 1e-3
    torch.testing.assert_close(gradient(ours), gradient(peer), atol=1e-5, rtol=1e-3)


def test_unit_channels_have_length_one():
    torch.testing.assert_close(unit_channels(torch.randn(2, 5, 3, 4)).norm(dim=1), torch.ones(2, 3, 4))


def test_zero_channels_have_a_zero_gradient_where_the_lpips_package_has_nan():
    features = torch.zeros(1, 5, 2, 2, requires_grad=True)
    gradient, *_ = torch.autograd.grad(unit_channels(features).square().sum(), features)
    theirs, *_ = torch.autograd.grad(peer_package.normalize_tensor(features).square().sum(), features)
    assert torch.equal(gradient, torch.zeros_like(features))
    assert theirs.isnan().all()


# A squared Euclidean distance


@pytest.mark.parametrize("net", NETS)
def test_distance_is_the_squared_euclidean_distance_of_embeddings(net, pairs):
    x, y = (images[:, :, :41] for images in pairs)
    model = usable(net)
    squared = (model.embed(x) - model.embed(y)).square().sum(1)
    assert squared.max() > (0.05 if net.startswith("st-") else 0)
    torch.testing.assert_close(model(x, y), squared, atol=1e-5, rtol=1e-4)


def test_embedding_of_a_64_pixel_image_has_158144_numbers():
    assert metric().embed(torch.rand(1, 3, 64, 64)).shape == (1, 158_144)


@pytest.mark.parametrize("net", NETS)
def test_triplet_distances_equal_two_calls(net, pairs):
    ref, p0 = pairs
    p1 = ref.flip(3)
    d0, d1 = usable(net).triplet_distances(ref, p0, p1)
    torch.testing.assert_close(d0, usable(net)(ref, p0))
    torch.testing.assert_close(d1, usable(net)(ref, p1))


@pytest.mark.parametrize("net", ["st-alex", "st-vgg"])
def test_spatial_map_has_the_size_of_the_image_and_averages_to_about_the_distance(net):
    x = photos.crops("test", 4, size=48, seed=1).images.float() / 255
    y = x.clone()
    y[..., 24:] = 0.5
    model = LPIPS(net, spatial=True)
    maps = model(x, y)
    assert maps.shape == (4, 1, 48, 48)
    torch.testing.assert_close(maps.mean((1, 2, 3)), metric(net)(x, y), atol=0.0, rtol=0.1)
    assert (maps[..., 30:].mean((1, 2, 3)) > 2 * maps[..., :18].mean((1, 2, 3))).all()


# What a distance owes


@pytest.mark.parametrize("net", NETS)
def test_distance_of_an_image_to_itself_is_exactly_zero(net, pairs):
    assert torch.equal(usable(net)(pairs[0], pairs[0]), torch.zeros(2))


@hypothesis.settings(max_examples=10)
@hypothesis.given(st.integers(1, 3), st.integers(21, 40), st.integers(21, 40), st.integers(0, 9))
def test_distance_is_symmetric_and_not_negative_at_any_size(n, height, width, seed):
    x, y = torch.rand(2, n, 3, height, width, generator=torch.Generator().manual_seed(seed))
    d = metric()(x, y)
    assert d.shape == (n,) and (d > 0).all()
    torch.testing.assert_close(metric()(y, x), d)


def test_distance_of_a_pair_does_not_depend_on_its_batch(pairs):
    alone = torch.cat([metric()(x[None], y[None]) for x, y in zip(*pairs, strict=True)])
    torch.testing.assert_close(metric()(*pairs), alone)


@pytest.mark.parametrize("net", ["st-alex", "st-vgg"])
@pytest.mark.parametrize("image", ["photograph", "black", "grey", "white"])
def test_gradient_is_finite_where_both_images_are_equal(net, image):
    ref = photos.lpips_example()[0]
    y = ref if image == "photograph" else torch.full_like(ref, {"black": 0.0, "grey": 0.5, "white": 1.0}[image])
    x = y.clone().requires_grad_()
    metric(net)(x, y).sum().backward()
    assert x.grad.isfinite().all()


# Heads


@pytest.mark.parametrize(("net", "version"), HEADS)
def test_heads_are_not_negative_and_have_one_weight_per_channel(net, version):
    heads = load_heads(net, version)
    assert tuple(len(head) for head in heads) == NETS[net][2]
    assert all((head >= 0).all() and head.max() > 0 for head in heads)


@pytest.mark.parametrize(
    ("net", "count"), [("st-alex", 1152), ("st-vgg", 1472), ("alex", 1152), ("vgg", 1472), ("squeeze", 2240)]
)
def test_number_of_calibrated_weights(net, count):
    assert sum(parameter.numel() for parameter in usable(net).network.heads) == count


def test_random_trunk_lies_under_the_calibrated_heads():
    random = LPIPS(weights=None)
    again = LPIPS(weights=None)
    ours, theirs, pretrained = (dict(m.network.trunk.features.named_parameters()) for m in (random, again, metric()))
    assert not any(torch.equal(ours[key], theirs[key]) or torch.equal(ours[key], pretrained[key]) for key in ours)
    for head, calibrated in zip(random.network.heads, metric().network.heads, strict=True):
        assert torch.equal(head, calibrated)


# Compiled, exported, mapped, in half the bits


def test_exported_network_gives_the_same_distances_for_another_batch_size(pairs):
    two = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(metric().network, pairs, dynamic_shapes=(two, two))
    x, y = torch.rand(2, 3, 3, 48, 48)
    torch.testing.assert_close(program.module()(x, y), metric()(x, y))


def test_compiled_network_is_one_graph_and_gives_the_same_distances(pairs, unchecked):
    # aot_eager traces as inductor does, and leaves out the minute that the C++ compiler takes
    compiled = torch.compile(metric().network, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*pairs), metric()(*pairs))


def test_vmapped_network_gives_the_same_distances():
    x, y = torch.rand(2, 3, 1, 3, 32, 32)
    torch.testing.assert_close(torch.func.vmap(metric().network)(x, y), metric()(x[:, 0], y[:, 0])[:, None])


def test_torchscript_still_gives_the_same_distances_and_warns_that_it_is_deprecated(pairs, unchecked):
    with pytest.warns((FutureWarning, DeprecationWarning), match="deprecated"):
        traced = torch.jit.trace(metric().network, pairs)
    torch.testing.assert_close(traced(*pairs), metric()(*pairs))


@pytest.mark.parametrize("net", ["st-alex", "st-vgg"])
def test_bf16_is_within_one_percent_on_most_distorted_photographs_and_four_on_all(net):
    x = photos.crops("test", 16, size=48, seed=5).images.float() / 255
    y = distortions.random_sequence(x, torch.Generator().manual_seed(5))[0]
    exact, approximate = metric(net)(x, y), metric(net, precision="bf16")(x, y)
    assert approximate.dtype == torch.float32
    visible = exact > 0.05
    assert visible.sum() > 8
    error = ((approximate - exact).abs() / exact)[visible]
    assert 0 < error.median() < 0.005
    assert error.quantile(0.9) < 0.01
    assert error.max() < 0.04
    assert (approximate - exact).abs().sum() < 0.005 * exact.sum()


def test_double_precision_goes_all_the_way():
    x, y = torch.rand(2, 1, 3, 32, 32, dtype=torch.float64)
    exact = LPIPS("st-alex").double()(x, y)
    assert exact.dtype == torch.float64
    assert exact.item() == pytest.approx(metric("st-alex")(x.float(), y.float()).item(), rel=1e-5)


# Clear refusals


X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
REFUSED = [
    (X * 255, ValueError, r"x has values in \[.*\], expected \[0, 1\]; this looks like 0-255: x / 255"),
    (X * 2 - 1, ValueError, r"this looks like \[-1, 1\]: \(x \+ 1\) / 2"),
    ((X * 255).byte(), TypeError, r"x has dtype torch.uint8; .* x.float\(\) / 255"),
    (X / 0 * 0, ValueError, "x contains NaN"),
    (X[0], ValueError, r"add the batch axis: x\[None\]"),
    (X[None], ValueError, r"expected \(n, 3, h, w\)"),
    (X[:, :1], ValueError, "x is grey"),
    (X.permute(0, 2, 3, 1), ValueError, "move the channels first"),
    (X[:0], ValueError, "empty batch"),
    (X[:, :, :20], ValueError, "x is 20 x 32 pixels; at least 21 x 21 is needed"),
    (X.numpy(), TypeError, "not a torch.Tensor"),
    (X[:1], ValueError, "x is .* but y is .*; give both the same number of images"),
    (X[..., :30], ValueError, "x is .* but y is .*; resize or crop one of them"),
]


@pytest.mark.parametrize(("x", "error", "message"), REFUSED)
@pytest.mark.parametrize("call", [LPIPS.forward, LPIPS.per_layer])
def test_wrong_images_are_refused_with_the_fix(call, x, error, message, unchecked):
    with pytest.raises(error, match=message) as caught:
        call(metric(), x, X)
    assert "\n" not in str(caught.value)


def test_every_argument_is_checked_and_named(unchecked):
    with pytest.raises(ValueError, match="p1 has values"):
        metric().triplet_distances(X, X, X + 1)
    with pytest.raises(ValueError, match=r"ref is .* but p0 is"):
        metric().triplet_distances(X, X[:1], X)
    with pytest.raises(ValueError, match="y has values"):
        metric()(X, X - 1)
    with pytest.raises(ValueError, match="x has values"):
        metric().embed(X + 1)


def test_rounding_outside_the_range_is_tolerated_but_not_more(unchecked):
    assert metric()(X, (X + 5e-7).clamp_min(0.5)).isfinite().all()
    metric()(X.clamp_min(-5e-7), torch.ones_like(X) + 5e-7)
    with pytest.raises(ValueError, match="clamp"):
        metric()(X, torch.ones_like(X) + 5e-6)


@pytest.mark.parametrize("net", NETS)
def test_min_size_is_the_smallest_that_works(net, unchecked):
    model = usable(net)
    smallest = torch.rand(2, 1, 3, model.min_size, model.min_size)
    assert model(*smallest).isfinite().all()
    for axis in (-1, -2):
        x, y = smallest.narrow(axis, 0, model.min_size - 1)
        with pytest.raises(RuntimeError, match=r"[Ss]ize"):
            model.network(x, y)
        with pytest.raises(ValueError, match="is needed"):
            model(x, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"net": "resnet"}, r"unknown net 'resnet'; choose one of st-alex, st-vgg, alex, vgg, squeeze"),
        ({"version": "0.2"}, "unknown version '0.2'"),
        ({"version": "0.0"}, "'st-alex' has one version only"),
        ({"precision": "fp16"}, "unknown precision 'fp16'"),
        ({"weights": "imagenet"}, r"weights='imagenet'; use 'pretrained', or None"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LPIPS(**options)


def test_no_code_of_the_packages_that_ship_weights_runs():
    metric()
    assert not [name for name in sys.modules if name.startswith("stlpips")]
