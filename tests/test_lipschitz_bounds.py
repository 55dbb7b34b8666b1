"""Bounds from below and above on Lipschitz constants, against full matrices and Jacobians in float64."""

import itertools
import re

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from course_lib.lipschitz.bounds import conv_upper_bound, jacobian_norm, lower_bound, sandwich_plot, upper_bound
from course_lib.lipschitz.conv import SLLConv2d
from course_lib.lipschitz.dense import SLLLinear
from course_lib.trunks import BlurPool


def matrix_of(linear, *shape):
    """The matrix of a linear map on images of `shape`, column by column, in float64."""
    basis = torch.eye(torch.Size(shape).numel(), dtype=torch.float64).view(-1, *shape)
    return (linear(basis) - linear(torch.zeros(1, *shape, dtype=torch.float64))).flatten(1).T


def true_norm(linear, *shape):
    return torch.linalg.matrix_norm(matrix_of(linear, *shape), 2).item()


@settings(max_examples=40)
@given(
    st.integers(0, 999), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2),
    st.integers(0, 3), st.integers(4, 7), st.sampled_from([1, 2]),
)  # fmt: skip
def test_no_zero_padded_convolution_exceeds_its_bound(seed, taps, stride, channels, dilation, padding, size, groups):
    kernel = torch.randn(
        2 * groups, channels, taps, taps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    padding += dilation * (taps - 1) // 2
    true = true_norm(lambda x: F.conv2d(x, kernel, padding=padding, **options), channels * groups, size, size)
    assert true <= conv_upper_bound(kernel, size, **options) * (1 + 1e-9)
    assert true <= conv_upper_bound(kernel, **options) * (1 + 1e-9)


def test_the_bound_for_every_size_is_the_norm_on_large_images_up_to_one_percent():
    kernel = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    true = true_norm(lambda x: F.conv2d(x, kernel, padding=1), 2, 20, 20)
    assert true <= conv_upper_bound(kernel, 20) <= conv_upper_bound(kernel) <= 1.04 * true
    on_a_fine_grid = torch.fft.fft2(kernel, (256, 256)).permute(2, 3, 0, 1)
    fine = torch.linalg.matrix_norm(on_a_fine_grid, 2).max().item()
    assert fine * (1 - 1e-4) <= conv_upper_bound(kernel) <= 1.011 * fine


def test_one_by_one_convolutions_and_disjoint_strides_are_bounded_exactly():
    kernel = torch.randn(3, 4, 1, 1, dtype=torch.float64)
    assert conv_upper_bound(kernel) == pytest.approx(torch.linalg.matrix_norm(kernel[:, :, 0, 0], 2).item())
    blocks = torch.randn(5, 3, 4, 4, dtype=torch.float64)
    assert conv_upper_bound(blocks, stride=4) == pytest.approx(torch.linalg.matrix_norm(blocks.flatten(1), 2).item())


def test_the_image_s_own_grid_is_exceeded_by_a_zero_padded_convolution_and_ours_is_not():
    exceeded = []
    for seed, size in itertools.product(range(50), (3, 6)):
        kernel = torch.randn(1, 1, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        true = true_norm(lambda x, kernel=kernel: F.conv2d(x, kernel, padding=1), 1, size, size)
        own_grid = torch.fft.fft2(kernel, (size, size)).abs().max().item()
        exceeded.append(true / own_grid)
        assert true <= conv_upper_bound(kernel, size)
    assert max(exceeded) > 1.1
    assert sum(ratio > 1 for ratio in exceeded) >= 2


NETWORKS = {
    "conv pool linear": [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5)],
    "overlapping pools": [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 1), nn.AvgPool2d(3, 2, 1), nn.Tanh()],
    "strides": [nn.Conv2d(3, 4, 3, 2, 2), nn.LeakyReLU(), nn.Conv2d(4, 4, 2, dilation=2, groups=2), nn.Sigmoid()],
    "blur pool": [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2, 1), BlurPool(), nn.AdaptiveAvgPool2d(1)],
    "batch norm": [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.ConvTranspose2d(4, 1, 2, 2)],
}
NETWORKS = {name: nn.Sequential(*layers) for name, layers in NETWORKS.items()}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(2))
def test_lower_bound_true_norm_and_upper_bound_are_in_order(name, seed):
    torch.manual_seed(seed)
    net = NETWORKS[name].double().eval()
    for module in net:
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.1, 2)
            nn.init.normal_(module.weight)
    x = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    true = jacobian_by_hand(net, x).max().item()
    at_points = lower_bound(net, x, steps=100, search=0)
    assert at_points <= true * (1 + 1e-9)
    assert at_points >= 0.98 * true
    searched = lower_bound(net, x, steps=20, search=20)
    assert searched <= upper_bound(net, 8) * (1 + 1e-9)
    assert true <= upper_bound(net, 8) * (1 + 1e-9)
    assert upper_bound(net, 8) <= upper_bound(net) * (1 + 1e-9)
    torch.testing.assert_close(jacobian_norm(net, x), jacobian_by_hand(net, x))


def jacobian_by_hand(net, x):
    """Largest singular value of the full Jacobian at each point, one row of it per output."""
    norms = []
    for point in x.split(1):
        point = point.detach().requires_grad_()
        rows = [torch.autograd.grad(out, point, retain_graph=True)[0].flatten() for out in net(point).flatten()]
        norms.append(torch.linalg.matrix_norm(torch.stack(rows), 2))
    return torch.stack(norms)


@settings(max_examples=20)
@given(st.integers(0, 999), st.integers(1, 6), st.integers(1, 40), st.integers(0, 10))
def test_the_lower_bound_never_exceeds_the_norm_of_a_matrix(seed, features, steps, search):
    torch.manual_seed(seed)
    layer = nn.Linear(4, features)
    true = torch.linalg.matrix_norm(layer.weight.detach().double(), 2).item()
    assert lower_bound(layer, torch.randn(2, 4), steps=steps, search=search) <= true * (1 + 1e-9)


def test_the_search_finds_the_steep_part_that_the_given_points_do_not_see():
    def kink(x):
        return 0.01 * x + 5 * F.relu(x - 0.6)

    x = torch.full((2, 1), 0.55, dtype=torch.float64)
    assert lower_bound(kink, x, search=0) == pytest.approx(0.01)
    assert 3 < lower_bound(kink, x, search=30) <= 5.01 * (1 + 1e-9)


def test_the_search_stays_in_the_unit_cube_when_it_starts_there():
    def only_images(x):
        assert x.min() >= 0 and x.max() <= 1
        return x.square()

    assert 1.5 < lower_bound(only_images, torch.rand(4, 3), search=40) <= 2


def test_a_constant_function_has_the_lower_bound_0():
    assert lower_bound(lambda x: 0 * x, torch.rand(2, 3)) == 0


def test_the_bounds_leave_the_network_as_it_was():
    net = NETWORKS["conv pool linear"].float().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    lower_bound(net, torch.rand(1, 3, 8, 8), steps=2, search=2)
    upper_bound(net)
    assert net.training
    assert all(value.dtype == torch.float32 for value in net.state_dict().values())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("layer", [SLLLinear(12, 8), SLLConv2d(3, 4)], ids=["dense", "conv"])
def test_a_residual_layer_s_bound_is_1_where_the_product_rule_says_more_than_2(layer):
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.abs_()  # the slowest pattern, all units on, is then close to what T allows for
        layer.log_q.zero_()
    layer = layer.double().eval()
    x = torch.rand(2, 12, dtype=torch.float64) if isinstance(layer, SLLLinear) else torch.rand(2, 3, 5, 5).double()
    first, second = layer.plain().first, layer.plain().second
    product_rule = 1 + upper_bound(first) * upper_bound(second)
    assert product_rule > 2
    assert jacobian_by_hand(layer, x).max() <= upper_bound(layer) * (1 + 1e-9)
    assert upper_bound(nn.Sequential(layer)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("size", [3, 4, 5, 8, 9])
def test_the_blur_pool_is_bounded_exactly_where_its_size_is_known(size):
    pool = BlurPool().double()
    true = true_norm(pool, 1, size, size)
    assert upper_bound(pool, size) == pytest.approx(true)
    assert true <= upper_bound(pool)


@pytest.mark.parametrize(
    "pool",
    [nn.AvgPool2d(2), nn.AvgPool2d(3, 1), nn.AvgPool2d(3, 2, padding=1), nn.AvgPool2d(4, divisor_override=4)],
)
def test_no_average_pool_exceeds_its_bound(pool):
    true = true_norm(pool, 1, 8, 8)
    assert true <= upper_bound(pool) * (1 + 1e-9)
    if pool.kernel_size == pool.stride:
        assert upper_bound(pool) == pytest.approx(true)


@pytest.mark.parametrize(("kernel", "stride", "dilation", "windows"), [(2, 2, 1, 1), (3, 2, 1, 4), (3, 1, 2, 9)])
def test_a_max_pool_is_as_steep_as_the_windows_that_share_one_pixel(kernel, stride, dilation, windows):
    pool = nn.MaxPool2d(kernel, stride, dilation=dilation)
    assert upper_bound(pool) == pytest.approx(windows**0.5)
    peak = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    peak[..., 4, 4] = 1
    assert (pool(peak) - pool(0 * peak)).norm().item() == pytest.approx(upper_bound(pool))


class Doubled(nn.Sequential):
    """A Sequential that does more than its layers."""

    def forward(self, x):
        return 2 * super().forward(x)


class Own(nn.Module):
    """A module that knows its own bound."""

    def upper_bound(self):
        return 3.0


@pytest.mark.parametrize(
    ("net", "error", "message"),
    [
        (nn.Sequential(nn.ReLU(), nn.Sequential(nn.GRU(2, 2))), TypeError, "the module 1.0 (GRU)"),
        (Doubled(nn.ReLU()), TypeError, "the module the network (Doubled)"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), ValueError, "padding_mode='reflect' is not bounded"),
        (nn.Sequential(nn.BatchNorm2d(3)), ValueError, "0: batch norm mixes the images"),
        (nn.Dropout(0.5), ValueError, "dropout is random in training"),
        (nn.AvgPool2d(3, ceil_mode=True), ValueError, "ceil_mode"),
        (nn.AdaptiveAvgPool2d(2), ValueError, "only the output size 1"),
    ],
)
def test_what_cannot_be_bounded_is_named(net, error, message):
    with pytest.raises(error, match=re.escape(message)):
        upper_bound(net)


def test_a_module_s_own_bound_is_used_and_one_with_hooks_is_refused():
    assert upper_bound(nn.Sequential(Own(), Own())) == 9
    net = nn.Sequential(nn.ReLU())
    net[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.raises(ValueError, match=r"0 \(ReLU\) has forward hooks"):
        upper_bound(net)


def test_a_layer_that_occurs_twice_counts_twice():
    double = nn.Linear(2, 2, bias=False)
    double.weight.data = 2 * torch.eye(2)
    assert upper_bound(nn.Sequential(double, nn.ReLU(), double)) == pytest.approx(4)


def test_a_lower_bound_needs_points_and_steps():
    with pytest.raises(ValueError, match="0 points and 20 steps"):
        lower_bound(nn.ReLU(), torch.rand(0, 3))
    with pytest.raises(ValueError, match="1 points and 0 steps"):
        lower_bound(nn.ReLU(), torch.rand(1, 3), steps=0)


def test_the_sandwich_is_drawn_on_one_logarithmic_axis():
    figure = sandwich_plot({"CNN": (2.0, 3.0, 4e4), "ours": (0.8, None, 1.0), "pair": (1, 2)}, title="bounds")
    axis = figure.axes[0]
    assert axis.get_xscale() == "log"
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["CNN", "ours", "pair"]
    assert [text.get_text() for text in axis.texts] == ["2 ≤ 3 ≤ 4e+04", "0.8 ≤ 1", "1 ≤ 2"]
    drawn = sorted(float(points.get_offsets()[0, 0]) for points in axis.collections)
    assert drawn == pytest.approx([0.8, 1, 1, 2, 2, 3, 4e4])
    plt.close(figure)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({}, "nothing to draw"),
        ({"a": (2, 1)}, "a: [2.0, 1.0] is not in the order"),
        ({"a": (1, 3, 2)}, "not in the order"),
        ({"a": (0, 1)}, "must be positive and finite"),
        ({"a": (1, float("inf"))}, "must be positive and finite"),
        ({"a": (1,)}, "a: give (lower, upper) or (lower, true, upper), not (1,)"),
        ({"a": (None, 1)}, "a: give (lower, upper) or (lower, true, upper), not (None, 1)"),
    ],
)
def test_a_sandwich_in_the_wrong_order_is_refused(bounds, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        sandwich_plot(bounds)
    plt.close("all")
