"""The feature networks are the published ones, and take the weights that fit and no others."""

import numpy as np
import pytest
import scipy.signal
import torch
import torchvision

from course_lib.trunks import NETS, BlurPool, Trunk

TORCHVISION = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}


@pytest.mark.parametrize("size", [(3, 3), (4, 7), (12, 9)])
def test_blur_pool_equals_scipy_in_double_precision(size):
    x = torch.randn(2, 3, *size)
    padded = np.pad(x.double().numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    blurred = [[scipy.signal.convolve2d(channel, kernel, mode="valid") for channel in image] for image in padded]
    expected = torch.from_numpy(np.array(blurred))[:, :, ::2, ::2]
    torch.testing.assert_close(BlurPool()(x).double(), expected, atol=1e-6, rtol=1e-6)
    assert expected.shape[2:] == ((size[0] + 3) // 2, (size[1] + 3) // 2)


def test_blur_pool_leaves_a_constant_image_constant():
    torch.testing.assert_close(BlurPool()(torch.full((1, 2, 6, 6), 0.3)), torch.full((1, 2, 4, 4), 0.3))


@pytest.mark.parametrize("net", TORCHVISION)
def test_features_equal_torchvision(net):
    trunk = Trunk(net, weights=None)
    with torch.device("meta"):  # no memory for the classifiers, which have most of the weights
        layers = getattr(torchvision.models, TORCHVISION[net])(weights=None).features
    layers = layers.to_empty(device="cpu").eval()
    layers.load_state_dict(trunk.features.state_dict())
    images = torch.rand(1, 3, 40, 51)
    x = (images - trunk.mean) / trunk.std
    found = trunk(images, trunk.layer_names)
    assert tuple(found) == trunk.layer_names
    with torch.no_grad():
        for name, layer in zip(trunk.layer_names, layers, strict=False):
            x = layer(x.clone())  # torchvision's ReLU overwrites its input
            torch.testing.assert_close(found[name], x, msg=name)


@pytest.mark.parametrize("net", NETS)
def test_taps_have_the_stated_widths_and_gradients_reach_the_image(net):
    trunk = Trunk(net, weights=None)
    images = torch.rand(2, 3, 40, 40, requires_grad=True)
    maps = trunk(images)
    assert tuple(maps) == trunk.taps
    assert tuple(features.shape[1] for features in maps.values()) == trunk.widths
    assert all((features >= 0).all() for features in maps.values())
    sum(features.sum() for features in maps.values()).backward()
    assert images.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in trunk.parameters())


def test_only_the_asked_layers_come_in_network_order():
    trunk = Trunk("st-alex", weights=None)
    images = torch.rand(1, 3, 32, 32)
    some = trunk(images, ("pool1", "conv1"))
    everything = trunk(images, trunk.layer_names)
    assert list(some) == ["conv1", "pool1"]
    assert all(torch.equal(some[name], everything[name]) for name in some)
    assert some["conv1"].min() < 0  # not overwritten by the ReLU that follows


def test_unknown_layer_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'squeeze' has no layer \['relu9'\]; it has conv1, relu1, .*fire9"):
        Trunk("squeeze", weights=None)(torch.rand(1, 3, 32, 32), ("relu1", "relu9"))


def test_layer_name_that_is_no_tuple_is_refused_with_the_tuple(unchecked):
    with pytest.raises(ValueError, match=r"layers is the text 'conv2'; give a tuple: \('conv2',\)"):
        Trunk("st-alex", weights=None)(torch.rand(1, 3, 32, 32), "conv2")


def test_torchvision_state_dict_is_loaded_and_its_classifier_ignored():
    model = torchvision.models.squeezenet1_1(weights=None)
    trunk = Trunk("squeeze", weights=None)
    trunk.load_features(model.state_dict())
    for key, value in trunk.features.state_dict().items():
        assert torch.equal(value, model.state_dict()[f"features.{key}"])


ALEX = {f"features.{key}": value for key, value in Trunk("alex", None).features.state_dict().items()}
LAST = "features.10.bias"
WRONG_WEIGHTS = [
    ({key: value for key, value in ALEX.items() if key != LAST}, f"{LAST} is missing; use the net they are from"),
    (ALEX | {"features.99.bias": torch.ones(1)}, r"features.99.bias does not belong there"),
    (ALEX | {LAST: torch.ones(3)}, r"features.10.bias is \(3,\), expected \(256,\)"),
    ({}, r"weights do not fit 'alex': features.0.bias is missing"),
    ({key.removeprefix("features."): value for key, value in ALEX.items()}, "features.0.bias is missing"),
]


@pytest.mark.parametrize(("state_dict", "message"), WRONG_WEIGHTS)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(state_dict, message):
    trunk = Trunk("alex", weights=None)
    before = {key: value.clone() for key, value in trunk.features.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        trunk.load_features(state_dict)
    assert all(torch.equal(before[key], value) for key, value in trunk.features.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("alexnet",), "unknown net 'alexnet'; choose one of"), (("alex", "imagenet"), "weights='imagenet'; use")],
)
def test_unknown_net_or_weights_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Trunk(*arguments)
