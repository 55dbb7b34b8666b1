"""Chapter 10's layers against the full Jacobian in float64, the published formulas, and the traps they avoid."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.func import jacrev
from torch.nn import functional as F

from course_lib import lipschitz as lip
from course_lib.lipschitz import norms

SIDE = (4, 5)


def _conv(kind, **options):
    return lambda i, o: kind(i, o, 3, **options)


DENSE = {
    name: getattr(lip, name)
    for name in (
        "SpectralLinear", "BjorckLinear", "CayleyLinear", "OrthogonalLinear", "AOLLinear", "SandwichLinear",
    )
} | {"SLLLinear": lambda i, o: lip.SLLLinear(i, o + 1), "CPLLinear": lambda i, o: lip.CPLLinear(i, o + 1)}  # fmt: skip
CONV = {
    "SpectralConv2d": _conv(lip.SpectralConv2d),
    "SpectralConv2d, stride 2": _conv(lip.SpectralConv2d, stride=2),
    "SpectralConv2d, circular": _conv(lip.SpectralConv2d, padding_mode="circular"),
    "LinearResidualConv2d": lambda i, o: lip.LinearResidualConv2d(i),
    "AOLConv2d": _conv(lip.AOLConv2d),
    "AOLConv2d, stride 2": _conv(lip.AOLConv2d, stride=2),
    "AOLConv2d, circular": _conv(lip.AOLConv2d, padding_mode="circular"),
    "SLLConv2d": lip.SLLConv2d,
    "SLLConv2d, 1 x 1": lambda i, o: lip.SLLConv2d(i, o, 1),
    "SLLConv2d, cancelled q": lambda i, o: lip.SLLConv2d(i, o, cancelled_q=True),
    "CPLConv2d": lip.CPLConv2d,
    "CayleyConv2d": _conv(lip.CayleyConv2d),
    "SOCConv2d": _conv(lip.SOCConv2d),
    "BCOPConv2d": _conv(lip.BCOPConv2d),
    "BCOPConv2d, 5 x 5": lambda i, o: lip.BCOPConv2d(i, o, 5),
    "BCOPConv2d, zeros": _conv(lip.BCOPConv2d, padding_mode="zeros"),
}
LAYERS = DENSE | CONV
ORTHOGONAL = [
    "BjorckLinear", "CayleyLinear", "OrthogonalLinear", "CayleyConv2d", "SOCConv2d", "BCOPConv2d", "BCOPConv2d, 5 x 5",
]  # fmt: skip
CHANNELS = [(3, 5), (5, 2), (4, 4), (1, 3)]
SCALES = [1.0, 1e-3, 1e3, 0.0]


def make(name, channels=(3, 5), scale=1.0, dtype=torch.float64):
    """A layer with all parameters multiplied by `scale`, and a batch of two inputs for it."""
    layer = LAYERS[name](*channels).to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(scale)
    shape = (2, channels[0]) if name in DENSE else (2, channels[0], *SIDE)
    return layer, torch.randn(shape, dtype=dtype)


def jacobian(layer, x):
    """The full Jacobian at the first input of x, as a float64 matrix."""
    one = x[:1]
    return jacrev(layer)(one).reshape(-1, one.numel()).detach().double()


def norm(matrix):
    return torch.linalg.matrix_norm(matrix, 2).item()


def train(layer, x, steps=3):
    """A few large steps that make the output, and with it the layer, as expanding as possible."""
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.3)
    for _ in range(steps):
        optimizer.zero_grad()
        (-(layer(x[:1]) - layer(x[1:])).norm()).backward()
        optimizer.step()


def check_bounded(layer, x, tolerance=1e-5):
    bound = layer.upper_bound()
    found = norm(jacobian(layer, x))
    assert found <= 1 + tolerance
    assert bound <= 1 + tolerance
    assert found <= bound + 1e-9
    return found


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", LAYERS)
def test_the_jacobian_norm_is_at_most_the_upper_bound_which_is_at_most_one(name, scale):
    for channels in CHANNELS if scale == 1 else CHANNELS[:2]:
        layer, x = make(name, channels, scale)
        check_bounded(layer, x)
        check_bounded(layer.eval(), x)


@pytest.mark.parametrize("name", LAYERS)
def test_training_does_not_break_the_bound(name):
    for channels in CHANNELS[:2]:
        layer, x = make(name, channels)
        train(layer.train(), x)
        check_bounded(layer, x)
        check_bounded(layer.eval(), x)


@pytest.mark.parametrize("name", [name for name in LAYERS if name.startswith(("SLL", "Sandwich"))])
@pytest.mark.parametrize("value", [-100.0, 20.0, "both"])
def test_extreme_q_and_psi_are_clamped_and_stay_bounded(name, value):
    layer, x = make(name)
    free = layer.log_psi if "Sandwich" in name else layer.log_q
    with torch.no_grad():
        free.copy_(torch.tensor([20.0, -20.0] * 3)[: len(free)] if value == "both" else torch.tensor(value))
    check_bounded(layer, x)
    layer.float()(x.float()).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
    assert norm(jacobian(layer, x.float())) <= 1 + 1e-5


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_lower_precision_exceeds_one_by_its_rounding_only(name, dtype, tolerance):
    for scale in SCALES:
        layer, x = make(name, scale=scale, dtype=dtype)
        layer.eval()
        assert layer(x).dtype == dtype
        assert norm(jacobian(layer, x)) <= 1 + tolerance
        assert layer.upper_bound() <= 1 + tolerance


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_finite_and_nonzero_and_finite_even_where_all_parameters_are_zero(name):
    for scale in (1.0, 1e3, 1e-30, 0.0):
        layer, x = make(name, scale=scale, dtype=torch.float32)
        layer(x.requires_grad_()).square().sum().backward()
        gradients = [parameter.grad for parameter in layer.parameters() if parameter.grad is not None]
        assert all(gradient.isfinite().all() for gradient in [x.grad, *gradients])
        if scale == 1:
            assert any(gradient.abs().max() > 1e-3 for gradient in gradients)


@pytest.mark.parametrize("name", ["SLLLinear", "CPLLinear", "SLLConv2d", "SLLConv2d, cancelled q", "CPLConv2d"])
def test_residual_layers_have_lambda_at_most_one_and_report_it_honestly(name):
    layer, x = make(name, (3, 6))
    size = x[0].numel()
    linear = (
        (lambda v: F.linear(v, layer.weight)) if "Linear" in name else (lambda v: F.conv2d(v, layer.kernel, padding=1))
    )
    matrix = jacobian(linear, x)
    scale = layer.rescaled()["scale"].detach()
    spread = scale.repeat_interleave(matrix.shape[0] // len(scale))
    largest = torch.linalg.eigvalsh(matrix.T @ (spread[:, None] * matrix))[-1].item()
    assert 0.3 < largest <= 1 + 1e-9
    with torch.no_grad():
        layer.bias.fill_(1e3)  # every hidden unit active: the Jacobian is I - 2 K^T S K
    assert torch.allclose(jacobian(layer, x), torch.eye(size) - 2 * matrix.T @ (spread[:, None] * matrix), atol=1e-9)

    rescale = layer._rescale
    layer._rescale = lambda: {key: 1.5 * value for key, value in rescale().items()}
    assert layer.upper_bound() >= 2 * 1.5 * largest - 1 - 1e-9
    assert layer.upper_bound() >= norm(jacobian(layer, x)) - 1e-9
    assert layer.upper_bound() > 1.2


@pytest.mark.parametrize("name", ["SpectralLinear", "AOLLinear", "AOLConv2d", "SpectralConv2d", "BCOPConv2d"])
def test_upper_bound_notices_weights_that_are_too_large(name):
    layer, x = make(name, (4, 4))
    rescale = layer._rescale
    layer._rescale = lambda: {key: 3 * value for key, value in rescale().items()}
    assert layer.upper_bound() >= norm(jacobian(layer, x)) > 1.1


@pytest.mark.parametrize("name", ORTHOGONAL)
def test_orthogonal_layers_keep_norms_both_ways(name):
    for channels in CHANNELS:
        values = torch.linalg.svdvals(jacobian(*make(name, channels)))
        assert values.max() <= 1 + 1e-5
        assert values.min() >= 1 - 1e-4
    layer, x = make(name, (4, 4))
    y = layer(x) - layer(torch.zeros_like(x))
    assert torch.allclose(y.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-4)


def test_bjorck_is_bounded_before_it_converges_and_diverges_from_a_start_that_is_too_large():
    weight = torch.diag(torch.tensor([1.0, 0.9, 0.3]))
    layer = lip.BjorckLinear(3, 3)
    with torch.no_grad():
        layer.weight.copy_(weight)
    for layer.iterations in range(1, 12):
        assert 0.3 < layer.upper_bound() <= 1 + 1e-6
    large = 2.3 * weight
    assert norm(1.5 * large - 0.5 * large @ large.T @ large) > 2.3


# --- cache


@pytest.mark.parametrize("name", LAYERS)
def test_the_cache_is_used_in_eval_and_dropped_by_every_change(name):
    layer, x = make(name, (4, 4))
    other, _ = make(name, (4, 4))
    layer.eval()
    tensors = layer.rescaled()
    layer(x)
    assert layer.rescaled() is tensors
    assert not any(tensor.requires_grad for tensor in tensors.values())

    expected = other(x)
    layer.load_state_dict(other.state_dict())
    assert torch.allclose(layer(x), expected)

    with torch.no_grad():
        for parameter in (*layer.parameters(), *other.parameters()):
            parameter.add_(0.3)
    assert torch.allclose(layer(x), other(x))

    layer.float()(x.float())
    assert layer.double()(x).dtype == torch.float64
    layer.train()
    assert layer(x).requires_grad
    assert all(tensor.requires_grad for tensor in layer.rescaled().values())


@pytest.mark.parametrize("name", LAYERS)
def test_a_cache_made_in_inference_mode_serves_an_attack(name):
    layer, x = make(name, (4, 4))
    with torch.inference_mode():
        expected = layer.eval()(x).clone()
    attacked = x.clone().requires_grad_()
    y = layer(attacked)
    y.square().sum().backward()
    assert torch.allclose(y, expected)
    assert attacked.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["SLLConv2d", "CayleyConv2d", "SandwichLinear"])
def test_jacobians_in_eval_leave_a_cache_that_copies_and_pickles(name):
    layer, x = make(name)
    jacobian(layer.eval(), x)
    expected = layer(x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with torch.no_grad():
            next(twin.parameters()).mul_(1.5)
        assert torch.allclose(layer(x), expected)
        assert not torch.allclose(twin(x), expected)


def test_cayley_convolution_takes_one_image_size_after_another():
    layer = lip.CayleyConv2d(2, 3, 3).double()
    for size in ((4, 5), (7, 3), (1, 2), (4, 5)):
        x = torch.randn(2, 2, *size).double()
        assert torch.allclose(layer.eval()(x), layer.train()(x))
        check_bounded(layer, x)


# --- plain networks


@pytest.mark.parametrize("name", LAYERS)
def test_the_plain_network_gives_the_same_outputs_and_is_frozen(name):
    for channels in CHANNELS:
        layer, x = make(name, channels)
        expected = layer.eval()(x)
        plain = layer.plain()
        assert torch.allclose(plain(x), expected, atol=1e-9)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(1)
        assert torch.allclose(plain(x), expected, atol=1e-9)
        assert not any(parameter.requires_grad for parameter in plain.parameters())
        assert not any(isinstance(module, lip.LipschitzLayer) for module in plain.modules())


@pytest.mark.parametrize("name", ["SLLConv2d", "SOCConv2d", "SandwichLinear"])
def test_the_plain_network_exports(name):
    layer, x = make(name, dtype=torch.float32)
    program = torch.export.export(layer.eval().plain().eval(), (x,))
    assert torch.allclose(program.module()(x), layer(x), atol=1e-5)


@pytest.mark.parametrize("name", CONV)
def test_channels_last_gives_the_same_result(name):
    layer, x = make(name, (8, 8), dtype=torch.float32)
    expected = layer(x)
    moved = layer.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert torch.allclose(moved, expected, atol=1e-5)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("hidden", [1, 4, 64])
def test_pairs_of_pixels_in_eval_give_the_same_result_as_single_ones_in_training(kernel_size, hidden):
    layer = lip.SLLConv2d(6, hidden, kernel_size)
    for size in ((5, 8), (4, 7), (3, 2), (2, 1)):
        x = torch.randn(2, 6, *size)
        expected = layer.train()(x)
        with torch.no_grad():
            assert torch.allclose(layer.eval()(x), expected, atol=1e-5)
        assert torch.allclose(jacobian(layer, x), jacobian(layer.train(), x), atol=1e-5)
    assert ("pair" in layer.eval().rescaled()) == (hidden <= 4)


@pytest.mark.parametrize("name", ["SLLConv2d", "CPLConv2d"])
def test_under_autocast_the_residual_sum_keeps_the_precision_of_the_input(name):
    layer, x = make(name, (8, 8), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(1e3 * x)
    assert y.dtype == torch.float32
    assert torch.allclose(y, layer(1e3 * x), rtol=0, atol=30)


@pytest.mark.parametrize("name", CONV)
def test_the_input_is_left_as_it_was(name):
    layer, x = make(name, (4, 4), dtype=torch.float32)
    x = x.contiguous(memory_format=torch.channels_last)
    before = x.clone()
    for module in (layer, layer.eval()):
        module(x)
        assert torch.equal(x, before)


# --- published formulas


def test_sll_dense_is_the_published_formula():
    layer, x = make("SLLLinear", (4, 5))
    w, q = layer.weight.T, layer.log_q.exp()
    t = ((w.T @ w).abs() * q[None, :] / q[:, None]).sum(1)
    assert torch.allclose(layer(x), x - 2 * (torch.relu(x @ w + layer.bias) / t) @ w.T)


def test_sll_convolution_is_the_formula_with_q_on_its_own_axes_and_the_flag_cancels_it():
    layer, x = make("SLLConv2d", (3, 6))
    published = lip.SLLConv2d(3, 6, cancelled_q=True).double()
    published.load_state_dict(layer.state_dict())
    gram = F.conv2d(layer.kernel, layer.kernel, padding=2).abs().sum((2, 3))
    for module, ratio in ((layer, (layer.log_q[None, :] - layer.log_q[:, None]).exp()), (published, torch.ones(6, 6))):
        hidden = F.relu(F.conv2d(x, layer.kernel, layer.bias, padding=1)) / (gram * ratio).sum(1).view(-1, 1, 1)
        assert torch.allclose(module(x), x - 2 * F.conv_transpose2d(hidden, layer.kernel, padding=1))
    assert not torch.allclose(layer(x), published(x))


def test_aol_divides_by_the_published_sums():
    layer, _ = make("AOLConv2d", (3, 5))
    k = layer.weight.transpose(0, 1)
    sums = F.conv2d(k, k, padding=2).abs().sum((1, 2, 3))
    assert torch.allclose(layer.rescaled()["weight"], layer.weight / sums.sqrt()[None, :, None, None])
    dense, _ = make("AOLLinear", (3, 5))
    sums = (dense.weight.T @ dense.weight).abs().sum(1)
    assert torch.allclose(dense.rescaled()["weight"], dense.weight / sums.sqrt())


def test_aol_on_the_shorter_side_keeps_more_than_on_the_longer_side():
    wide, _ = make("AOLLinear", (64, 8))
    with torch.no_grad():
        wide.weight.normal_()
    columns = wide.weight / (wide.weight.T @ wide.weight).abs().sum(1).sqrt()
    assert 1 >= norm(wide.rescaled()["weight"].detach()) > 1.1 * norm(columns.detach())


def test_bjorck_finds_the_closest_orthogonal_matrix():
    layer = lip.BjorckLinear(4, 6, iterations=40).double()
    with torch.no_grad():
        layer.weight.normal_()
    u, _, vh = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
    assert torch.allclose(layer.rescaled()["weight"], u @ vh, atol=1e-6)


def test_cayley_of_a_square_matrix_is_the_textbook_transform():
    layer, _ = make("CayleyLinear", (5, 5))
    skew = layer.weight - layer.weight.T
    identity = torch.eye(5).double()
    assert torch.allclose(layer.rescaled()["weight"], torch.linalg.solve(identity + skew, identity - skew))


def test_soc_is_the_exponential_of_a_skew_matrix_also_with_zero_padding():
    layer, x = make("SOCConv2d", (4, 4))
    skew = jacobian(lambda v: F.conv2d(v, layer.rescaled()["weight"].detach(), padding=1), x)
    assert torch.allclose(skew, -skew.T, atol=1e-12)
    assert torch.allclose(jacobian(layer, x), torch.linalg.matrix_exp(skew), atol=1e-5)


def test_soc_divides_the_remainder_of_its_series_out_and_reports_a_skew_kernel_that_is_too_large():
    layer, x = lip.SOCConv2d(2, 2, 1, terms=1).double(), torch.zeros(1, 2, 1, 1).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 9.0], [-9.0, 0.0]]).view(2, 2, 1, 1))
    # the eigenvalues of L are scaled to i and -i, so one term gives |1 + i|, above 1 by itself
    assert norm(jacobian(layer, x)) == pytest.approx(2**0.5 / (1 + 1 / 2), rel=1e-2)
    rescale = layer._rescale
    layer._rescale = lambda: {"weight": 3 * rescale()["weight"]}
    assert layer.upper_bound() >= norm(jacobian(layer, x)) > 2


def test_sandwich_blocks_are_orthonormal_and_psi_cancels_in_the_jacobian():
    layer, x = make("SandwichLinear", (4, 5))
    a, b = lip.dense.cayley(layer.weight.detach()).split([5, 4], dim=1)
    assert torch.allclose(a @ a.T + b @ b.T, torch.eye(5).double(), atol=1e-12)
    with torch.no_grad():
        layer.log_psi.normal_()
        layer.bias.fill_(1e3)
    assert torch.allclose(jacobian(layer, x), 2 * a.T @ b, atol=1e-9)


def test_orthogonal_linear_is_a_rotation_with_determinant_one():
    rotation = make("OrthogonalLinear", (5, 5))[0].rescaled()["weight"].detach()
    assert torch.linalg.det(rotation).item() == pytest.approx(1)


def test_the_linear_residual_is_identity_plus_convolution_over_a_bound():
    layer, x = make("LinearResidualConv2d", (4, 4))
    step = x + F.conv2d(x, layer.weight, padding=1)
    y = layer(x) - layer.bias[:, None, None]
    ratio = step / y
    assert torch.allclose(ratio, ratio.flatten()[0].expand_as(ratio))
    assert 1 <= ratio.flatten()[0] < 1.5


# --- norms


@pytest.mark.parametrize("shape", [(4, 6, 3, 3), (6, 4, 5, 5), (1, 1, 3, 3), (3, 3, 1, 1)])
def test_conv_bound_holds_for_every_size_padding_and_stride_and_is_tight(shape):
    kernel = torch.randn(shape, dtype=torch.float64)
    bound = norms.conv_bound(kernel).item()
    found = []
    for height, width in ((1, 1), (2, 3), (5, 4), (6, 6)):
        x = torch.randn(1, shape[1], height, width, dtype=torch.float64)
        found += [norm(jacobian(lambda v, s=s: F.conv2d(v, kernel, None, s, shape[2] // 2), x)) for s in (1, 2)]
    found += [norms.torus_norm(kernel, size, size) for size in (1, 2, 4, 7, 31)]
    assert max(found) <= bound <= 1.05 * max(found)
    assert bound <= norms.tap_bound(kernel) * 1.05


def test_the_fft_on_the_images_own_grid_is_below_the_norm_with_zero_padding_and_the_larger_torus_is_not():
    second = torch.tensor([-1.0, 2.0, -1.0], dtype=torch.float64)
    kernel = torch.outer(second, second).view(1, 1, 3, 3)
    found = norm(jacobian(lambda v: F.conv2d(v, kernel, padding=1), torch.zeros(1, 1, 5, 5).double()))
    assert found == pytest.approx((2 + 2 * math.cos(math.pi / 6)) ** 2)  # eigenvalues of the second difference
    assert norms.torus_norm(kernel, 5, 5) == pytest.approx((2 - 2 * math.cos(4 * math.pi / 5)) ** 2)
    assert found > 1.06 * norms.torus_norm(kernel, 5, 5)
    assert found <= norms.torus_norm(kernel, 7, 7)


def test_transfer_matrices_and_torus_norm_are_those_of_circular_convolution():
    kernel = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    for size in ((4, 5), (3, 6)):
        x = torch.zeros(1, 2, *size).double()
        full = jacobian(lambda v: F.conv2d(F.pad(v, (1,) * 4, mode="circular"), kernel), x)
        assert norms.torus_norm(kernel, *size) == pytest.approx(norm(full))


@pytest.mark.parametrize("taps", [(3, 3), (2, 4), (5, 2), (1, 1)])
@pytest.mark.parametrize("size", [(5, 6), (8, 7), (3, 3)])
def test_transfer_times_the_spectrum_of_an_image_is_the_spectrum_of_its_circular_convolution(taps, size):
    kernel = torch.randn(3, 2, *taps, dtype=torch.float64)
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    matrices = norms.transfer(kernel, *size).unflatten(0, (size[0], -1))
    product = torch.einsum("hwoi,nihw->nohw", matrices, torch.fft.rfft2(x))
    expected = sum(
        kernel[:, :, row, column] @ x[0].roll((taps[0] // 2 - row, taps[1] // 2 - column), (1, 2)).flatten(1)
        for row in range(taps[0]) for column in range(taps[1])
    )  # fmt: skip
    assert torch.allclose(torch.fft.irfft2(product, size).flatten(2)[0], expected)
    if taps[0] % 2 and taps[1] % 2 and min(size) >= 5:
        around = F.pad(x, (taps[1] // 2,) * 2 + (taps[0] // 2,) * 2, mode="circular")
        assert torch.allclose(torch.fft.irfft2(product, size), F.conv2d(around, kernel))
    if taps != (1, 1):
        conjugated = torch.einsum("hwoi,nihw->nohw", matrices.conj(), torch.fft.rfft2(x))
        assert not torch.allclose(torch.fft.irfft2(conjugated, size).flatten(2)[0], expected, atol=1e-2)


def test_gram_bound_is_above_svd_and_close_and_its_gradient_is_that_of_the_norm():
    for shape in ((5, 7), (7, 5), (40, 40)):
        for dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128):
            for scale in (1e-15, 1.0, 1e15):
                matrix = scale * torch.randn(shape, dtype=dtype)
                exact = torch.linalg.matrix_norm(matrix.to(torch.complex128), 2).item()
                assert exact <= norms.gram_bound(matrix).item() <= 1.01 * exact
    matrix = torch.diag(torch.tensor([3.0, 1.0, 0.5])).requires_grad_()
    norms.gram_bound(matrix).backward()
    assert torch.allclose(matrix.grad, torch.diag(torch.tensor([1.0, 0.0, 0.0])), atol=1e-4)
    assert norms.gram_bound(torch.zeros(3, 4)).item() == 0
    assert norms.gram_bound(torch.linalg.qr(torch.randn(64, 64)).Q).item() <= 64 ** (1 / 256) * 1.001
    assert 1e-28 <= norms.gram_bound(torch.full((100, 100), 1e-30)).item() <= 1.01e-28


def test_matrix_norm_is_never_below_the_norm_and_hardly_above():
    for rows, columns, scale in ((3, 5, 1.0), (700, 40, 1e-200), (40, 700, 1e200), (1, 1, 1.0)):
        matrix = torch.full((rows, columns), scale, dtype=torch.float64)
        exact = scale * math.sqrt(rows * columns)
        assert exact <= norms.matrix_norm(matrix) <= exact * (1 + 1e-9)
        matrix = matrix * torch.randn(rows, columns, dtype=torch.float64)
        assert norm(matrix) <= norms.matrix_norm(matrix) <= norm(matrix) * (1 + 1e-9)
    assert 1 <= norms.matrix_norm(torch.eye(64)) <= 1 + 1e-9
    assert norms.matrix_norm(torch.zeros(3, 4)) == 0
    assert 1e-298 <= norms.matrix_norm(torch.full((100, 100), 1e-300, dtype=torch.float64)) <= 1.01e-298


def test_power_iteration_stays_below_the_norm_where_gram_iteration_is_above():
    matrix = torch.diag(torch.linspace(0.9, 1, 50, dtype=torch.float64))
    vector = torch.ones(50, dtype=torch.float64)
    for _ in range(10):
        vector = F.normalize(matrix @ vector, dim=0)
    assert (matrix @ vector).norm() < 0.99
    assert 1 <= norms.gram_bound(matrix).item() < 1.01


def test_normalising_the_reshaped_kernel_leaves_a_convolution_of_norm_far_above_one():
    kernel = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    for trap, least in ((kernel, 2.5), (torch.randn(8, 8, 3, 3, dtype=torch.float64), 1.3)):
        trap = trap / norm(trap.flatten(1))
        x = torch.zeros(1, trap.shape[1], 8, 8, dtype=torch.float64)
        assert norm(jacobian(lambda v, k=trap: F.conv2d(v, k, padding=1), x)) > least
        layer = lip.SpectralConv2d(trap.shape[1], trap.shape[0], 3).double()
        with torch.no_grad():
            layer.weight.copy_(trap)
        assert check_bounded(layer, x) > 0.85


# --- activations


ACTIVATIONS = {"MaxMin": lip.MaxMin, "GroupSort": lambda: lip.GroupSort(3), "Abs": lip.Abs}


@pytest.mark.parametrize("name", [*ACTIVATIONS, "Householder"])
@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 2, 3)])
def test_activations_have_orthogonal_jacobians_and_bound_one(name, shape):
    layer = lip.Householder(6).double() if name == "Householder" else ACTIVATIONS[name]()
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -9, 9)
    for _ in range(5):
        matrix = jacobian(layer, torch.randn(shape, dtype=torch.float64))
        assert torch.allclose(matrix.T @ matrix, torch.eye(len(matrix), dtype=torch.float64), atol=1e-9)
    x, y = torch.randn(2, 50, *shape[1:], dtype=torch.float64)
    assert ((layer(x) - layer(y)).flatten(1).norm(dim=1) <= (x - y).flatten(1).norm(dim=1) + 1e-9).all()
    assert layer.upper_bound() == 1


def test_sorting_is_over_channels_in_dense_and_convolutional_networks():
    dense = torch.tensor([[3.0, 1.0, 2.0, 4.0]])
    assert lip.MaxMin()(dense).tolist() == [[3, 4, 2, 1]]
    assert lip.GroupSort(2)(dense).tolist() == [[1, 3, 2, 4]]
    assert lip.GroupSort(4)(dense).tolist() == [[1, 2, 3, 4]]
    image = torch.randn(2, 4, 3, 6)
    columns = image.permute(0, 2, 3, 1).reshape(-1, 4)  # every pixel's channels as a dense input
    for layer in (lip.MaxMin(), lip.GroupSort(2), lip.GroupSort(4), lip.Householder(4)):
        assert torch.equal(layer(image).permute(0, 2, 3, 1).reshape(-1, 4), layer(columns))


def test_householder_starts_as_maxmin_and_is_continuous_at_its_line():
    x = torch.randn(50, 6, 2, 2)
    assert torch.allclose(lip.Householder(6)(x), lip.MaxMin()(x), atol=1e-6)
    layer = lip.Householder(2)
    nn.init.constant_(layer.angle, 0.7)
    on_the_line = torch.tensor([math.cos(0.35), math.sin(0.35)])
    aside = 1e-4 * torch.tensor([math.sin(0.35), -math.cos(0.35)])
    assert torch.allclose(layer((on_the_line + aside)[None]), layer((on_the_line - aside)[None]), atol=1e-6)
    layer(x[:, :2]).sum().backward()
    assert layer.angle.grad.abs().max() > 0


# --- pooling and channels


def test_l2_pooling_is_the_window_sum_divided_by_k_and_linear():
    x = torch.randn(2, 3, 8, 8)
    pool = lip.L2AvgPool2d(4)
    assert torch.allclose(pool(x), x.unfold(2, 4, 4).unfold(3, 4, 4).sum((-2, -1)) / 4, atol=1e-5)
    assert torch.allclose(pool(-2 * x), -2 * pool(x), atol=1e-5)
    assert norm(jacobian(pool, x.double())) == pytest.approx(1)
    assert norm(jacobian(lambda v: F.avg_pool2d(v, 4), x.double())) == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lip.L2AvgPool2d(2), (3, 5, 4)),
        (lip.MaxPool2d(2), (3, 5, 4)),
        (lip.MaxPool2d(2, 3), (3, 5, 6)),
        (lip.GlobalL2Pool(), (3, 5, 4)),
        (lip.PadChannels(5), (3, 2, 4)),
        (lip.PadChannels(5), (3,)),
        (lip.TruncateChannels(2), (3, 2, 4)),
        (lip.OrthonormalProjection(6, 4).double(), (6,)),
        (lip.OrthonormalProjection(4, 6).double(), (4,)),
        (lip.ResidualAverage(lip.SLLConv2d(3, 4).double()), (3, 4, 4)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_pooling_and_channel_maps_have_norm_one_and_not_less(layer, shape):
    found = norm(jacobian(layer, torch.randn(1, *shape, dtype=torch.float64)))
    assert found == pytest.approx(1, abs=1e-5)
    assert layer.upper_bound() == pytest.approx(1, abs=1e-6)


def test_overlapping_max_pooling_has_the_constant_that_the_message_says():
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    x[..., 2::4, 2::4] = torch.rand(2, 2) + 1  # each of these pixels is the largest of four windows
    assert norm(jacobian(lambda v: F.max_pool2d(v, 3, 2), x)) == pytest.approx(2)
    with pytest.raises(ValueError, match=r"stride 2 is less than kernel_size 3.*constant is 2; use stride=3"):
        lip.MaxPool2d(3, 2)


def test_padding_then_truncating_channels_is_the_identity_and_the_average_of_residuals_is_bounded():
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(lip.TruncateChannels(3)(lip.PadChannels(7)(x)), x)
    assert torch.equal(lip.PadChannels(7)(x)[:, 3:], torch.zeros(2, 4, 4, 4))
    layer = lip.ResidualAverage(lip.OrthogonalLinear(4, 4))
    assert layer.upper_bound() == pytest.approx(1, abs=1e-5)
    assert torch.allclose(layer(x), (x + layer.module(x)) / 2)


def test_the_orthonormal_projection_is_reproducible_and_stored():
    first, second, other = (lip.OrthonormalProjection(6, 4, seed) for seed in (0, 0, 1))
    assert torch.equal(first.matrix, second.matrix)
    assert not torch.allclose(first.matrix, other.matrix)
    assert "matrix" in first.state_dict()


# --- messages


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lip.SLLConv2d(3, 4)(torch.zeros(1, 5, 4, 4)), "5 channels; this layer takes"),
        (lambda: lip.CayleyConv2d(3, 4, 3)(torch.zeros(1, 5, 4, 4)), "5 channels; this layer takes"),
        (lambda: lip.AOLConv2d(3, 4, 3)(torch.zeros(3, 4, 4)), "this layer takes (n, 3, h, w)"),
        (lambda: lip.SLLLinear(3, 4)(torch.zeros(1, 3, 4, 4)), "flatten it first: x.flatten(1)"),
        (lambda: lip.SLLConv2d(3, 4, 2), "kernel_size is 2; an even kernel has no middle: use 1 or 3"),
        (lambda: lip.BCOPConv2d(3, 4, 4), "use 3 or 5"),
        (lambda: lip.SLLConv2d(3, 0), "hidden is 0; it has to be a positive integer"),
        (lambda: lip.AOLLinear(3, 1.5), "out_features is 1.5"),
        (lambda: lip.AOLConv2d(3, 4, 3, stride=0), "stride is 0"),
        (lambda: lip.AOLConv2d(3, 4, 3, padding_mode="reflect"), "use one of zeros, circular"),
        (lambda: lip.BCOPConv2d(3, 4, 3, padding_mode="reflect"), "use one of zeros, circular"),
        (lambda: lip.AOLConv2d(3, 4, 5, padding_mode="circular")(torch.zeros(1, 3, 1, 4)), "needs as many pixels"),
        (lambda: lip.MaxMin()(torch.zeros(2, 3)), "3 channels, shape (2, 3); MaxMin needs a multiple of 2"),
        (lambda: lip.GroupSort(4)(torch.zeros(2, 6, 2, 2)), "GroupSort(4) needs a multiple of 4"),
        (lambda: lip.MaxMin()(torch.zeros(4)), "needs a batch"),
        (lambda: lip.Householder(3), "Householder works on pairs: use 4"),
        (lambda: lip.Householder(4)(torch.zeros(2, 6)), "this layer takes (n, 4, ...)"),
        (lambda: lip.L2AvgPool2d(4)(torch.zeros(1, 3, 3, 8)), "no 4 x 4 window fits"),
        (lambda: lip.PadChannels(2)(torch.zeros(1, 3, 4, 4)), "3 channels, more than 2"),
        (lambda: lip.TruncateChannels(4)(torch.zeros(1, 3)), "3 channels, fewer than 4"),
        (lambda: lip.GlobalL2Pool()(torch.zeros(1, 3)), "GlobalL2Pool takes (n, c, h, w)"),
        (lambda: lip.ResidualAverage(nn.ReLU()), "ReLU has no upper_bound()"),
        (lambda: norms.grid_correction(3, 2), "a grid of 2 is too coarse"),
    ],
)
def test_bad_sizes_get_one_clear_line(unchecked, call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [lambda: lip.SLLConv2d(4, 3), lambda: lip.AOLConv2d(4, 4, 3)])
def test_vmap_and_jacrev_go_through_convolutions(make):
    layer, x = make().double().eval(), torch.randn(2, 1, 4, 5, 5, dtype=torch.float64)
    jacobians = torch.func.vmap(jacrev(layer))(x).reshape(2, 100, 100)
    assert torch.linalg.matrix_norm(jacobians, 2).max() <= 1 + 1e-9
