"""Changes of basis that keep distances, gains that never enlarge them, and the network made of both."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import nn

from course_lib.lipschitz import Abs, BlockCosines, Gains, Haar2d, L2AvgPool2d, LipSimNet, lower_bound, upper_bound


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


def test_gains_of_one_group_move_together_and_none_exceeds_one():
    gains = Gains.for_wavelets(2, 2)
    assert gains.group.tolist() == [0, 1, 1, 1] + 12 * [2] + [3, 4, 4, 4] + 12 * [5]
    with torch.no_grad():
        gains.shared[4] = -1
        gains.own[7] = 5
    found = gains(torch.ones(1, 32))[0].detach()
    assert (found < 1e-9).nonzero().flatten().tolist() == [17, 18, 19]
    assert found[7] == 1 == gains.upper_bound()
    assert found[0] == pytest.approx(1 / (1 + np.exp(-1)))


def test_abs_can_leave_the_first_channels_alone():
    x = -images(1, 2)
    assert torch.equal(Abs(keep=1)(x), torch.cat([x[:, :1], -x[:, 1:]], 1))
    assert torch.equal(Abs()(x), -x)


def test_the_scattering_network_is_1_lipschitz_before_and_after_training():
    torch.manual_seed(0)
    network = LipSimNet.scattering((8, 8))
    x, y = images(4, 64), images(4, 64, seed=1)
    assert network.preset("scattering").out_features == network(x).shape[1] == 12288
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


def test_without_its_layers_it_sees_the_strength_of_frequencies_and_not_their_sign():
    network = LipSimNet.scattering((0, 0)).eval()
    with torch.no_grad():
        network.linear[1].shared.fill_(1)  # gains of 1
    x = 0.25 + 0.5 * images(2, 64)
    turned = 1 - x  # every coefficient but the mean changes its sign
    far, near = network(x), network(turned)
    colours = (BlockCosines(8)(x) - BlockCosines(8)(turned))[:, :3].flatten(1).norm(dim=1)
    torch.testing.assert_close((far - near).norm(dim=1), colours, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Haar2d()(torch.zeros(1, 2, 3, 4)), "even h and w"),
        (lambda: BlockCosines(8)(torch.zeros(1, 3, 12, 16)), "multiples of 8"),
        (lambda: BlockCosines(0), "positive integer"),
        (lambda: Gains.for_wavelets(1, 1)(torch.zeros(1, 5)), "takes"),
        (lambda: LipSimNet.scattering((4,)), "give two numbers"),
        (lambda: LipSimNet.preset("scattering", 256), "has 12288"),
    ],
)
def test_misuse_is_explained(make, message, unchecked):
    with pytest.raises(ValueError, match=message):
        make()
