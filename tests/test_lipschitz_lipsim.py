"""LipSim's network: presets, the published weights and forward pass, export, cache, and its Lipschitz constant."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_lib.lipschitz.bounds import lower_bound
from course_lib.lipschitz.conv import SLLConv2d
from course_lib.lipschitz.dense import SLLLinear
from course_lib.lipschitz.lipsim import LipSimNet

LITTLE = {"channels": 6, "convs": 3, "dense": 2, "hidden": 16, "out_features": 20, "image_size": 32, "conv_hidden": 5}


def published_state(channels, convs, dense, hidden, image_size=224, conv_hidden=5, prefix="module."):
    """Random weights under the published names, shapes and duplicates, as saved from nn.DataParallel."""
    features = channels * (image_size // 16) ** 2
    state = {}
    for i in range(convs):
        state[f"convs.{i}.kernel"] = torch.randn(conv_hidden, channels, 3, 3) * 0.3
        state[f"convs.{i}.bias"] = torch.randn(1, conv_hidden, 1, 1) * 0.1
        state[f"convs.{i}.q"] = torch.randn(conv_hidden)
    for j in range(1, dense + 1):
        state[f"linear.{j}.weight"] = torch.randn(hidden, features) * 0.1
        state[f"linear.{j}.bias"] = torch.randn(1, hidden) * 0.1
        state[f"linear.{j}.q"] = torch.randn(hidden)
    base = {key.replace("convs", "base.1").replace("linear", "base.2"): value for key, value in state.items()}
    return {f"{prefix}model.{key}": value for key, value in (state | base).items()}


def published_forward(state, x, channels, convs, dense, out_features=1792, prefix="module.", **_):
    """The published formulas, written plainly: q and 1/q both on the axis of the row in the convolutions."""
    x = F.pad(x, (0, 0, 0, 0, 0, channels - 3))
    for i in range(convs):
        kernel, bias, q = (state[f"{prefix}model.convs.{i}.{name}"] for name in ("kernel", "bias", "q"))
        overlap = F.conv2d(kernel, kernel, padding=2).abs()
        t = ((-q).exp().view(-1, 1, 1, 1) * overlap * q.exp().view(-1, 1, 1, 1)).sum((1, 2, 3))
        hidden = (F.conv2d(x, kernel, padding=1) + bias).relu() / t.view(1, -1, 1, 1)
        x = x - 2 * F.conv_transpose2d(hidden, kernel, padding=1)
    x = F.avg_pool2d(F.avg_pool2d(x, 4, divisor_override=4), 4, divisor_override=4).flatten(1)
    for j in range(1, dense + 1):
        weight, bias, q = (state[f"{prefix}model.linear.{j}.{name}"] for name in ("weight", "bias", "q"))
        t = torch.einsum("i,ik,jk,j->ij", (-q).exp(), weight, weight, q.exp()).abs().sum(1)
        x = x - 2 * F.linear((F.linear(x, weight) + bias).relu() / t, weight.T)
    return x[:, :out_features]


@pytest.fixture
def state():
    return published_state(*(LITTLE[name] for name in ("channels", "convs", "dense", "hidden", "image_size")))


@pytest.fixture
def little():
    return LipSimNet.published(**LITTLE)


@pytest.mark.parametrize("training", [True, False])
def test_official_weights_give_the_published_embeddings(little, state, training):
    little.train(training).load_official(state)
    images = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(little(images), published_forward(state, images, **LITTLE), atol=1e-5, rtol=1e-5)


def test_official_weights_of_full_size_and_depth_give_the_published_embeddings():
    names = {"channels": 45, "convs": 20, "dense": 2, "hidden": 64}  # "small" has 7 dense layers with 1024, 16 x slower
    state = published_state(*names.values())
    net = LipSimNet.published(**names).eval()
    net.load_official(state)
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(net(image), published_forward(state, image, **names), atol=1e-5, rtol=1e-5)


def test_with_q_on_the_right_axes_the_published_weights_would_give_another_network(little, state):
    little.load_official(state)
    images = torch.rand(2, 3, 32, 32)
    published = little.eval()(images)
    assert little.cancelled_q
    little.cancelled_q = False
    assert not torch.allclose(little(images), published, atol=1e-3)


def test_that_q_is_cancelled_survives_saving_and_loading(little, state):
    little.load_official(state)
    again = LipSimNet.published(**LITTLE)
    assert not again.cancelled_q
    again.load_state_dict(little.state_dict())
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again(images), little(images))


@pytest.mark.parametrize("prefix", ["", "module.", "module.backbone.", "backbone.module."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_prefixes_and_wrapping_of_a_checkpoint_do_not_matter(little, state, prefix, wrapped):
    renamed = {prefix + key.removeprefix("module."): value for key, value in state.items()}
    little.load_official({"model_state_dict": renamed, "epoch": 3} if wrapped else renamed)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(little(images), published_forward(state, images, **LITTLE), atol=1e-5, rtol=1e-5)


def broken(state, how):
    key = "module.model.convs.1.bias"
    if how == "missing":
        del state[key]
    elif how == "missing copy":
        del state["module.model.base.1.1.bias"]
    elif how == "extra":
        state["module.model.convs.9.bias"] = torch.zeros(1, 5, 1, 1)
    elif how == "other prefix":
        state["model.convs.0.kernel"] = state["module.model.convs.0.kernel"]
    elif how == "shape":
        state[key] = state[key].flatten()
    elif how == "not a tensor":
        state[key] = 3
    elif how == "copies":
        state["module.model.base.2.1.q"] = state["module.model.base.2.1.q"] + 1e-3
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "no module.model.convs.1.bias (1 of 30 keys"),
        ("missing copy", "no module.model.base.1.1.bias"),
        ("extra", "has module.model.convs.9.bias, which this network has not"),
        ("other prefix", "has model.convs.0.kernel, which this network has not"),
        ("shape", "module.model.convs.1.bias is (5,) in the checkpoint; this network has (1, 5, 1, 1)"),
        ("not a tensor", "module.model.convs.1.bias is int in the checkpoint"),
        ("copies", "module.model.linear.1.q and its second copy module.model.base.2.1.q differ"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name_and_changes_nothing(little, state, how, message):
    before = {key: value.clone() for key, value in little.state_dict().items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        little.load_official(broken(state, how))
    assert all(torch.equal(value, before[key]) for key, value in little.state_dict().items())


def test_an_empty_checkpoint_and_weights_of_another_size_are_refused(little, state):
    with pytest.raises(ValueError, match=r"no model\.convs\.0\.kernel \(30 of 30"):
        little.load_official({})
    with pytest.raises(ValueError, match=r"module.model.convs.0.kernel is \(5, 6, 3, 3\)"):
        LipSimNet.published(**(LITTLE | {"channels": 7})).load_official(state)


def test_the_tiny_network_has_no_official_weights(state):
    with pytest.raises(ValueError, match="only the published architecture has official weights"):
        LipSimNet.preset("tiny").load_official(state)


@pytest.mark.parametrize(
    ("name", "sizes", "parameters"),
    [
        ("small", (45, 20, 7, 1024), 63_276_796),
        ("medium", (60, 30, 10, 2048), 240_967_060),
        ("large", (90, 50, 10, 2048), 361_511_160),
        ("xlarge", (120, 70, 15, 2048), 722_974_540),
    ],
)
def test_presets_have_the_published_keys_shapes_and_sizes_without_being_allocated(name, sizes, parameters):
    with torch.device("meta"):
        net = LipSimNet.preset(name)
        state = published_state(*sizes, prefix="")
    assert {f"model.{key}": shape for key, shape in net.official_shapes().items()} == {
        key: tuple(tensor.shape) for key, tensor in state.items()
    }
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert all(p.is_meta for p in net.parameters())


@pytest.mark.parametrize("name", ["large", "xlarge"])
@pytest.mark.parametrize("training", [True, False])
def test_the_largest_presets_embed_224_pixels_into_1792_numbers(name, training):
    with torch.device("meta"):
        net, images = LipSimNet.preset(name).train(training), torch.empty(2, 3, 224, 224)
        assert net.last(net.linear(net.convs(net.first(images)))).shape == (2, 1792)


def test_the_tiny_network_embeds_64_pixels_into_256_numbers():
    net = LipSimNet.preset("tiny")
    assert net(torch.rand(2, 3, 64, 64)).shape == (2, 256)
    assert LipSimNet.preset("tiny", out_features=8)(torch.rand(1, 3, 64, 64)).shape == (1, 8)
    assert sum(p.numel() for p in net.parameters()) < 3_000_000


def test_the_tiny_network_is_1_lipschitz_and_moves_at_more_than_half_that_speed():
    net = LipSimNet.preset("tiny").eval()
    rate = lower_bound(net, torch.rand(1, 3, 64, 64), steps=3, search=1)
    assert 0.5 < rate <= net.upper_bound() <= 1 + 1e-5


def test_the_tiny_network_stays_1_lipschitz_after_training_steps_at_an_absurd_rate():
    net = LipSimNet.preset("tiny")
    images = torch.rand(4, 3, 64, 64)
    optimizer = torch.optim.SGD(net.parameters(), lr=10.0)
    for _ in range(2):
        optimizer.zero_grad()
        (net(images) - 1).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net.eval().upper_bound() <= 1 + 1e-5
    x, y = images, images.flip(0)
    assert (((net(x) - net(y)).norm(dim=1) / (x - y).flatten(1).norm(dim=1)) <= 1 + 1e-5).all()


def test_the_published_architecture_is_1_lipschitz_with_and_without_the_cancelled_q(little, state):
    assert little.upper_bound() <= 1 + 1e-5
    little.eval().load_official(state)
    assert lower_bound(little, torch.rand(2, 3, 32, 32), steps=5, search=3) <= little.upper_bound() <= 1 + 1e-5


def test_one_seed_gives_one_network():
    first, second, third = (torch.manual_seed(seed) and LipSimNet.preset("tiny") for seed in (3, 3, 4))
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(first(images), second(images))
    assert not torch.equal(first(images), third(images))


@pytest.mark.parametrize("name", ["tiny", "published"])
def test_the_exported_network_is_plain_and_has_equal_outputs(name, little):
    net, size = (LipSimNet.preset("tiny"), 64) if name == "tiny" else (little, 32)
    plain, images = net.export(), torch.rand(2, 3, size, size)
    owners = {type(module) for module in plain.modules() if list(module.parameters(recurse=False))}
    assert owners == {nn.Conv2d, nn.Linear}
    assert not any(p.requires_grad for p in plain.parameters())
    torch.testing.assert_close(plain(images), net.eval()(images), atol=1e-5, rtol=1e-5)
    program = torch.export.export(plain, (images,))
    torch.testing.assert_close(program.module()(images), net(images), atol=1e-5, rtol=1e-5)


def test_in_eval_mode_nothing_is_rescaled_twice_until_weights_are_loaded(little, state, monkeypatch):
    calls = []
    for kind in (SLLConv2d, SLLLinear):
        original = kind._rescale

        def counted(layer, original=original):
            calls.append(layer)
            return original(layer)

        monkeypatch.setattr(kind, "_rescale", counted)
    images = torch.rand(1, 3, 32, 32)
    little.eval()
    little(images), little(images)
    assert len(calls) == 5
    little.load_official(state)
    loaded = little(images)
    assert len(calls) == 10
    torch.testing.assert_close(loaded, published_forward(state, images, **LITTLE), atol=1e-5, rtol=1e-5)
    little.train()
    little(images), little(images)
    assert len(calls) == 20


def test_wrong_input_is_explained(unchecked, little):
    with pytest.raises(ValueError, match="images are 64 x 64 pixels; this network takes 32 x 32"):
        little(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"images has values in \[0, 255\]"):
        little(torch.linspace(0, 255, 3 * 32 * 32).view(1, 3, 32, 32))
    with pytest.raises(TypeError, match=r"images are torch.float64 but the network is torch.float32"):
        little(torch.rand(1, 3, 32, 32).double())
    assert little.double()(torch.rand(1, 3, 32, 32).double()).dtype == torch.float64


def test_unknown_presets_and_impossible_sizes_are_explained():
    with pytest.raises(ValueError, match="no preset 'huge'; choose tiny, scattering, scattering-sll, small, medium"):
        LipSimNet.preset("huge")
    with pytest.raises(ValueError, match="out_features is 25; this network has 1 to 24"):
        LipSimNet.published(**(LITTLE | {"out_features": 25}))
    with pytest.raises(ValueError, match="out_features is 0"):
        LipSimNet.preset("tiny", out_features=0)
