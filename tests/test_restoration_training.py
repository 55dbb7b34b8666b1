"""The network, its losses and its training: skips, residuals, any size, tiles, two players, exact resume."""

import copy

import pytest
import torch
from torch import nn

from course_lib.data import photos
from course_lib.restoration import (
    TASKS,
    PatchDiscriminator,
    UNet,
    charbonnier,
    clamped,
    fit,
    fooling_loss,
    gaussian_noise,
    hide,
    hinge_loss,
    inpainting,
    l1,
    l2,
    psnr,
    random_mask,
    restore,
    tiled,
    turned,
    weighted_sum,
    without_latent,
)

CROPS = photos.crops("train", 48, 32, seed=1).images
HELD_OUT = photos.crops("val", 8, 32, seed=1).images.float() / 255


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(**options):
    """A small network whose head is not zero, as after training."""
    torch.manual_seed(1)
    made = UNet(**{"width": 8, "depth": 1} | options)
    nn.init.normal_(made.head[0].weight, std=0.05)
    return made.eval()


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (32, 32), (33, 47)])
@pytest.mark.parametrize("channels", [3, 4])
def test_the_network_takes_any_size(size, channels):
    assert network(in_channels=channels)(torch.rand(2, channels, *size)).shape == (2, 3, *size)


def test_padding_does_not_change_what_is_far_from_it():
    net, x = network(), torch.rand(1, 3, 61, 90)
    whole, cut = net(x), net(x[..., :80])
    assert torch.allclose(whole[..., : 80 - net.reach], cut[..., : 80 - net.reach], atol=1e-5)


def test_a_residual_network_begins_as_the_identity_and_a_plain_one_does_not():
    x = torch.rand(2, 3, 20, 20)
    assert torch.equal(UNet(residual=True)(x), x)
    assert (UNet(residual=False)(x) - x).abs().mean() > 0.1


def test_skips_cost_no_parameters_and_change_the_result():
    with_skips, without = network(skip=True), network(skip=False)
    without.load_state_dict(with_skips.state_dict())
    x = torch.rand(1, 3, 32, 32)
    assert (with_skips(x) - without(x)).abs().max() > 1e-3


@pytest.mark.parametrize("depth", [1, 2])
def test_no_pixel_beyond_the_reach_matters_and_the_reach_is_not_much_too_large(depth):
    net = network(depth=depth, width=6, residual=False)
    size = 2 * net.reach + 3 * net.stride
    x = torch.rand(1, 3, size, size, requires_grad=True)
    middle = size // 2 // net.stride * net.stride
    patch = net(x)[..., middle : middle + net.stride, middle : middle + net.stride]
    (gradient,) = torch.autograd.grad((patch * torch.randn_like(patch)).sum(), x)
    rows = gradient.abs().sum((0, 1, 3)).nonzero()
    farthest = max(middle - int(rows.min()), int(rows.max()) - (middle + net.stride - 1))
    assert 0.7 * net.reach < farthest <= net.reach


def test_a_u_net_passes_the_picture_around_its_bottleneck_and_an_autoencoder_does_not():
    left = {}
    for skip in (True, False):
        torch.manual_seed(0)
        net = UNet(width=12, depth=1, skip=skip, residual=False)
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
        clean = CROPS.float() / 255
        for step in range(40):
            batch = clean[step % 3 :: 3]
            loss = l2(net(batch), batch).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        left[skip] = psnr(without_latent(net, HELD_OUT), HELD_OUT).mean().item()
        assert psnr(restore(net, gaussian_noise(HELD_OUT, generator(), 1e-3)), HELD_OUT).mean() > 18
    assert left[True] > left[False] + 4
    blank = without_latent(net, HELD_OUT)
    assert (blank - blank[:1]).abs().max() < 1e-5  # the same nothing for every picture


@pytest.mark.parametrize("size", [(150, 203), (64, 300), (40, 40)])
def test_tiled_equals_whole_when_the_halo_covers_the_reach(size):
    net, x = network(), torch.rand(2, 3, *size)
    with torch.no_grad():
        whole = net(x)
    assert (tiled(net, x, tile=96, ramp=8) - whole).abs().max() < 1e-5
    assert (tiled(net, x, tile=96, ramp=0) - whole).abs().max() < 1e-5


def test_without_a_halo_tiles_differ_from_the_whole_and_blending_makes_the_seam_smaller():
    net, x = network(residual=False), torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        whole = net(x)
    hard, soft = ((tiled(net, x, tile=64, halo=0, ramp=ramp) - whole).abs() for ramp in (0, 16))
    assert hard.max() > 1e-3
    assert soft.max() < hard.max()
    covered = (tiled(net, x, tile=64, halo=8, ramp=0) - whole).abs()
    assert covered.max() < hard.max()


def test_memory_of_tiled_inference_does_not_grow_with_the_picture():
    net, sizes = network(), []
    for module in net.modules():
        module.register_forward_hook(lambda _, __, out: sizes.append(out.numel()))
    peaks = []
    for side in (96, 160, 256):
        sizes.clear()
        tiled(net, torch.rand(1, 3, side, side), tile=96)
        peaks.append(max(sizes))
    assert peaks[0] == peaks[1] == peaks[2]


def test_losses_agree_with_closed_forms_and_rank_one_large_error_differently():
    truth = torch.zeros(1, 3, 10, 10)
    spread, spike = truth + 0.1, truth.clone()
    spike[..., 0, :5] = 1.0  # 5 of 100 pixels
    assert l2(spread, truth).item() == pytest.approx(0.01) and l2(spike, truth).item() == pytest.approx(0.05)
    assert l1(spread, truth).item() == pytest.approx(0.1) and l1(spike, truth).item() == pytest.approx(0.05)
    assert charbonnier(spread, truth, eps=0.1).item() == pytest.approx(0.1 * (2**0.5 - 1))
    assert charbonnier(truth, truth).item() == 0
    mixed = weighted_sum((2.0, l2), (0.5, l1))
    assert mixed(spread, truth).item() == pytest.approx(2 * 0.01 + 0.5 * 0.1)


def test_a_distance_for_images_only_is_called_with_images_only():
    def strict(restored, truth):
        assert restored.min() >= 0 and restored.max() <= 1
        return l1(restored, truth)

    wild = torch.linspace(-1, 2, 300).view(1, 3, 10, 10).requires_grad_()
    clamped(strict)(wild, torch.zeros(1, 3, 10, 10)).sum().backward()
    assert (wild.grad[(wild > 0) & (wild < 1)] > 0).all()


def test_each_player_gets_only_its_own_gradient():
    judge = PatchDiscriminator(width=8)
    restored = torch.rand(2, 3, 32, 32, requires_grad=True)
    fooling_loss(judge, restored).sum().backward()
    assert restored.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in judge.parameters())
    restored.grad = None
    hinge_loss(judge, restored, torch.rand(2, 3, 32, 32)).sum().backward()
    assert restored.grad is None
    assert all(parameter.grad is not None for parameter in judge.parameters())


def test_hinge_loss_stops_where_the_margin_is_kept():
    class Mean(nn.Module):
        def forward(self, images):
            return 4 * images.mean((1, 2, 3), keepdim=True) - 2

    white, black, grey = (torch.full((1, 3, 8, 8), value) for value in (1.0, 0.0, 0.5))
    assert hinge_loss(Mean(), black, white).item() == 0
    assert hinge_loss(Mean(), white, black).item() == pytest.approx(6)
    assert hinge_loss(Mean(), grey, grey).item() == pytest.approx(2)
    assert fooling_loss(Mean(), white).item() == pytest.approx(-2)


def test_a_discriminator_score_depends_on_26_pixels():
    judge = PatchDiscriminator(width=4)
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    (gradient,) = torch.autograd.grad(judge(x)[0, 0, 8, 8], x)
    rows = gradient.abs().sum((0, 1, 3)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 26


@pytest.mark.parametrize("adversarial", [False, True])
def test_a_training_killed_between_steps_goes_on_exactly(tmp_path, adversarial):
    def start(folder, loss):
        torch.manual_seed(3)
        net, judge = UNet(width=8, depth=1), PatchDiscriminator(width=4) if adversarial else None
        history = fit(
            net, TASKS["gaussian"], CROPS, loss, epochs=2, batch_size=16, discriminator=judge, folder=folder,
            held_out=(gaussian_noise(HELD_OUT, generator()), HELD_OUT),
        )  # fmt: skip
        players = nn.ModuleList([net, judge] if judge else [net])
        return torch.cat([p.detach().flatten() for p in players.parameters()]), history

    class Killed(Exception):
        pass

    calls = 0

    def dying(restored, truth):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise Killed
        return l1(restored, truth)

    whole, history = start(None, l1)
    with pytest.raises(Killed):
        start(tmp_path, dying)
    resumed, again = start(tmp_path, l1)
    assert torch.equal(whole, resumed) and history == again
    assert len(history) == 2 and history[1]["psnr"] > 0


def test_a_short_training_denoises_pictures_that_it_never_saw():
    torch.manual_seed(0)
    degraded = gaussian_noise(HELD_OUT, generator())
    net = UNet(width=12, depth=1)
    before = psnr(restore(net, degraded), HELD_OUT).mean()
    history = fit(
        net, TASKS["gaussian"], CROPS, l1, epochs=40, batch_size=16, learning_rate=4e-3, held_out=(degraded, HELD_OUT)
    )
    assert history[-1]["psnr"] > before + 2


def test_the_same_seed_gives_every_loss_the_same_crops_and_damage():
    seen = {}
    for name, loss in (("l1", l1), ("l2", l2)):
        seen[name] = []

        def spy(restored, truth, loss=loss, kept=seen[name]):
            kept.append(truth.clone())
            return loss(restored, truth)

        fit(UNet(width=4, depth=1), TASKS["poisson"], CROPS, spy, epochs=1)
    assert len(seen["l1"]) == 3
    assert all(torch.equal(a, b) for a, b in zip(seen["l1"], seen["l2"], strict=True))


def test_turned_images_are_the_eight_symmetries_of_a_square():
    image = torch.arange(27, dtype=torch.uint8).view(1, 3, 3, 3)
    made = {tuple(turned(image, generator(seed)).flatten().tolist()) for seed in range(100)}
    expected = {tuple(torch.rot90(flip, k, (2, 3)).flatten().tolist()) for k in range(4) for flip in (image, image.mT)}
    assert made == expected


def test_restoring_keeps_known_pixels_unless_asked_not_to():
    degraded = inpainting(HELD_OUT, generator())
    net = network(in_channels=4, residual=False)
    known = ~degraded.mask.expand_as(HELD_OUT)
    assert torch.equal(restore(net, degraded)[known], HELD_OUT[known])
    assert not torch.equal(restore(net, degraded, paste=False)[known], HELD_OUT[known])


def test_bad_input_gets_one_clear_line(unchecked):
    net = copy.deepcopy(network())
    cases = [
        (lambda: weighted_sum(), "a sum of no losses"),
        (lambda: weighted_sum((-1.0, l1)), "a loss has weight -1"),
        (lambda: fit(net, TASKS["sr2"], CROPS[:5], l1, epochs=1), "5 crops do not fill a batch of 16"),
        (lambda: tiled(net, torch.rand(1, 3, 99, 99), tile=32), f"nothing left inside halo {net.reach} and ramp 16"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


class Shift(nn.Module):
    """Everything somewhat too bright."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        return x[:, :3] + self.bias


def test_only_missing_pixels_are_learned_from():
    biases = []
    for share in (0.0, 0.5):
        network = Shift()
        fit(network, lambda x, g, share=share: hide(x, random_mask(x, g, share)), CROPS[:8], l1, epochs=2, batch_size=4)
        biases.append(network.bias.item())
    assert biases[0] == pytest.approx(0.3, abs=1e-7) and biases[1] < 0.3
