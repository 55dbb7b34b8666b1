"""Changes of basis that keep distances, gains that never enlarge them, and the network made of both."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import nn

from course_lib.lipschitz import (
    Abs,
    AbsDetails,
    BlockCosines,
    Gains,
    Haar2d,
    L2AvgPool2d,
    LipSimNet,
    lower_bound,
    upper_bound,
)


def images(n=3, side=16, seed=0):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_block_cosines_are_scipys_dct_of_every_block_of_brightness():
    x = images().double()
    layer = BlockCosines(4).double()
    block = x[1, :, 4:8, 8:12].sum(0).numpy() / 3**0.5
    found = layer(x)[1, ::3, 1, 2]
    np.testing.assert_allclose(found.numpy().reshape(4, 4), dctn(block, norm="ortho"), atol=1e-6)
    grey = torch.full((1, 3, 8, 8), 0.5)
    colour = BlockCosines(8)(grey)[0, :, 0, 0]
    assert colour[0] == pytest.approx(8 * 0.5 * 3**0.5, abs=1e-4) and colour[1:].abs().max() < 1e-4


@pytest.mark.parametrize("layer", [BlockCosines(8), nn.Sequential(BlockCosines(4), Haar2d(), Haar2d())])
def test_a_change_of_basis_keeps_all_distances(layer):
    x, y = images(), images(seed=1)
    torch.testing.assert_close((layer(x) - layer(y)).flatten(1).norm(dim=1), (x - y).flatten(1).norm(dim=1))
    assert upper_bound(layer) == pytest.approx(1, abs=1e-5)


def test_a_haar_step_begins_with_the_pool_and_its_differences_vanish_on_flat_images():
    x = images()
    y = Haar2d()(x).unflatten(1, (3, 4))
    torch.testing.assert_close(y[:, :, 0], L2AvgPool2d(2)(x))
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    assert torch.equal(Haar2d()(ramp)[0, :, 0, 0], torch.tensor([1.0, -1.0, 0.0, 0.0]))
    assert torch.equal(Haar2d()(ramp.mT)[0, :, 0, 0], torch.tensor([1.0, 0.0, -1.0, 0.0]))


def test_overlapping_blocks_keep_distances_inside_and_never_enlarge_them():
    layer = BlockCosines(8, 4)
    assert layer(images(side=32)).shape == (3, 192, 8, 8)
    assert layer.upper_bound() == pytest.approx(1, abs=1e-5)
    inside = torch.zeros(1, 3, 32, 32)
    inside[..., 8:24, 8:24] = images(1)
    assert layer(inside).norm().item() == pytest.approx(inside.norm().item(), rel=1e-5)
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x).flatten(), torch.zeros(1, 3, 16, 16))
    norm = torch.linalg.matrix_norm(jacobian.reshape(-1, 3 * 16**2), 2)
    assert 0.99 < norm <= 1 + 1e-5


def test_details_of_averages_lose_their_sign_and_nothing_else_does():
    x = -torch.ones(1, 2 * 16, 1, 1)
    once, twice = AbsDetails(1)(x).flatten(), AbsDetails(2)(x).flatten()
    assert once.reshape(8, 4).tolist() == 8 * [[-1, 1, 1, 1]]
    assert twice.reshape(2, 16).tolist() == 2 * [[-1, 1, 1, 1] + 12 * [-1]]


def test_gains_of_one_group_move_together_and_none_exceeds_one():
    gains = Gains.for_wavelets(2, 3)
    assert gains.group[:16].tolist() == [0, 1, 1, 1] + 3 * [2, 3, 3, 3]
    assert gains.group[16:64].tolist() == 3 * ([4] + 15 * [5])
    assert gains.group[64:].tolist() == (gains.group[:64] + 6).tolist() and len(gains.shared) == 12
    with torch.no_grad():
        gains.shared[7] = -1
        gains.own[7] = 5
    found = gains(torch.ones(1, 128))[0].detach()
    assert (found < 1e-9).nonzero().flatten().tolist() == [65, 66, 67]
    assert found[7] == 1 == gains.upper_bound()
    assert found[0] == pytest.approx(1 / (1 + np.exp(-1)))


def test_abs_can_leave_the_first_channels_alone():
    x = -images(1, 2)
    assert torch.equal(Abs(keep=1)(x), torch.cat([x[:, :1], -x[:, 1:]], 1))
    assert torch.equal(Abs()(x), -x)


@pytest.mark.parametrize(("stride", "features"), [(8, 12288), (4, 49152)])
def test_the_scattering_network_is_1_lipschitz_before_and_after_training(stride, features):
    torch.manual_seed(0)
    network = LipSimNet.scattering((8, 8), stride)
    x, y = images(4, 64), images(4, 64, seed=1)
    assert network.out_features == network(x).shape[1] == features
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(3):
        loss = -(network(x) - network(y)).norm(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    assert 0.9 < network.upper_bound() <= 1 + 1e-5
    near = x + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    moved = (network(near.clamp(0, 1)) - network(x)).norm(dim=1) / (near.clamp(0, 1) - x).flatten(1).norm(dim=1)
    assert (moved <= network.upper_bound() + 1e-5).all()
    assert lower_bound(network, x[:1]) <= network.upper_bound() + 1e-5
    torch.testing.assert_close(network.export()(x), network(x), rtol=0, atol=1e-5)


def test_without_sll_layers_it_does_not_see_the_sign_of_a_frequency():
    network = LipSimNet.preset("scattering").eval()
    with torch.no_grad():
        network.linear[1].shared.fill_(1)  # gains of 1
    x = images(2, 64)
    cosines = BlockCosines(8)(x)
    turned = torch.cat([cosines[:, :3], -cosines[:, 3:]], 1)
    back = torch.nn.functional.conv_transpose2d(turned, BlockCosines(8).filters, stride=8)
    assert (back - x).abs().max() > 0.3
    torch.testing.assert_close(network._features(back), network._features(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Haar2d()(torch.zeros(1, 2, 3, 4)), "even h and w"),
        (lambda: BlockCosines(8)(torch.zeros(1, 3, 12, 16)), "multiples of 8"),
        (lambda: BlockCosines(8, 3), "divide"),
        (lambda: AbsDetails(2)(torch.zeros(1, 8, 2, 2)), "groups of 16"),
        (lambda: BlockCosines(0), "positive integer"),
        (lambda: Gains.for_wavelets(1, 1)(torch.zeros(1, 5)), "takes"),
        (lambda: LipSimNet.scattering((4,)), "give two numbers"),
        (lambda: LipSimNet.scattering(stride=3), "4 or 8"),
        (lambda: LipSimNet.preset("scattering", 256), "has 12288"),
    ],
)
def test_misuse_is_explained(make, message, unchecked):
    with pytest.raises(ValueError, match=message):
        make()
