"""Answers to chapter 02's exercises that are right, but written otherwise than the solution, pass."""

import math

import pytest
import torch
from torch.nn import functional as F

from course_lib import restoration as library
from course_lib.checks import restoration as check
from tests.test_checks import line_of


def picks_the_missing_pixels_one_image_after_the_other(restored, truth, mask):
    holes = [(r - t)[m.expand(3, -1, -1)] for r, t, m in zip(restored, truth, mask, strict=True)]
    return torch.stack([-20 * hole.square().mean().sqrt().log10() for hole in holes])


def averages_the_colours_first(restored, truth, mask):
    error = (restored - truth).square().mean(1, keepdim=True)
    return 10 * torch.log10(mask.sum((1, 2, 3)) / (error * mask).sum((1, 2, 3)))


def reports_holes_with_the_library(restored, truth, mask):
    return library.psnr_by_mask(restored, truth, mask)[0]


def counts_with_the_library(images, photons, generator):
    return library.poisson_noise(images, generator, photons).images


def clips_the_counts(images, photons, generator):
    return torch.poisson(images * photons, generator=generator).clamp(max=photons) / photons


def counts_in_two_halves_image_by_image(images, photons, generator):
    halves = [[torch.poisson(image * photons / 2, generator=generator) for _ in range(2)] for image in images]
    return torch.stack([(one + other) / photons for one, other in halves]).clamp(0, 1)


def takes_eps_out_of_the_root(restored, truth, eps):
    return eps * (torch.sqrt(1 + ((restored - truth) / eps) ** 2) - 1).flatten(1).mean(1)


def subtracts_eps_from_the_mean(restored, truth, eps):
    return torch.hypot(restored - truth, torch.tensor(eps)).mean((1, 2, 3)) - eps


def scores_both_in_one_batch(discriminator, restored, truth):
    real, fake = discriminator(torch.cat([truth, restored.detach()])).chunk(2)
    return torch.clamp(1 - real, min=0).mean() + F.relu(fake + 1).mean(), -torch.mean(discriminator(restored))


def freezes_the_discriminator_for_a_moment(discriminator, restored, truth):
    loss = library.hinge_loss(discriminator, restored, truth).mean()
    discriminator.requires_grad_(False)
    fooling = -discriminator(restored).mean()
    discriminator.requires_grad_(True)
    return [loss, fooling]


class Straight(torch.autograd.Function):
    """Rounds, and passes the gradient on."""

    @staticmethod
    def forward(ctx, x, step):
        """Nearest multiples of step."""
        return (x / step).round() * step

    @staticmethod
    def backward(ctx, behind):
        """What comes from behind."""
        return behind, None


def adds_zero_with_a_gradient(x, step):
    return ((x / step).round() * step).detach() + x - x.detach()


def starts_from_the_smaller_tail(latent, mean, scale, size):
    distance, scale = -(latent - mean[:, None, None]).abs(), scale[:, None, None]
    probability = torch.sigmoid((distance + 0.5) / scale) - torch.sigmoid((distance - 0.5) / scale)
    return -probability.clamp(2**-30).log().flatten(1).sum(1) / math.log(2) / math.prod(size)


def adds_the_rarest_probability(latent, mean, scale, size):
    values = torch.stack([latent + 0.5, latent - 0.5]).double()
    above, below = ((values - mean.view(-1, 1, 1)) / scale.view(-1, 1, 1)).sigmoid()
    return -(above - below + 2**-30).log2().sum((1, 2, 3)).float() / (size[0] * size[1])


def works_with_logarithms(latent, mean, scale, size):
    above, below = ((latent + half - mean.view(-1, 1, 1)) / scale.view(-1, 1, 1) for half in (0.5, -0.5))
    nats = F.logsigmoid(above) + F.logsigmoid(-below) + torch.log(-torch.expm1(-1 / scale.view(-1, 1, 1)))
    return (-nats / math.log(2)).clamp(max=30).sum((1, 2, 3)) / math.prod(size)


def spreads_the_tiles_evenly_and_takes_the_smaller_weight(restore, picture, tile, overlap):
    result, total = torch.zeros_like(picture), torch.zeros_like(picture)

    def places(length):
        last = max(length - tile, 0)
        count = -(-last // (tile - overlap))
        for begin in (round(i * last / max(count, 1)) for i in range(count + 1)):
            side = min(tile, length)
            place = torch.arange(side)
            left = place + 1 if begin else torch.full((side,), overlap + 1)
            right = side - place if begin + side < length else torch.full((side,), overlap + 1)
            yield begin, torch.minimum(left, right).clamp(max=overlap + 1).double()

    for top, rows in places(picture.shape[2]):
        for left, columns in places(picture.shape[3]):
            where = (..., slice(top, top + len(rows)), slice(left, left + len(columns)))
            weight = torch.minimum(rows[:, None], columns)
            result[where] += weight * restore(picture[where])
            total[where] += weight
    return result / total


def cuts_the_last_tile_short_and_goes_image_by_image(restore, picture, tile, overlap):
    result, total = torch.zeros_like(picture), torch.zeros_like(picture)

    def bell(side):
        place = torch.arange(side)
        return (torch.minimum(place, place.flip(0)) + 0.5).clamp(max=max(overlap, 1)) / max(overlap, 1)

    for image in range(len(picture)):
        for top in range(0, max(picture.shape[2] - overlap, 1), tile - overlap):
            for left in range(0, max(picture.shape[3] - overlap, 1), tile - overlap):
                where = (slice(image, image + 1), slice(None), slice(top, top + tile), slice(left, left + tile))
                piece = restore(picture[where])
                weight = bell(piece.shape[2])[:, None] * bell(piece.shape[3])
                result[where] += weight * piece
                total[where] += weight
    return result / total


RIGHT = [
    (check.hole_psnr, picks_the_missing_pixels_one_image_after_the_other),
    (check.hole_psnr, averages_the_colours_first),
    (check.hole_psnr, reports_holes_with_the_library),
    (check.photon_noise, counts_with_the_library),
    (check.photon_noise, counts_in_two_halves_image_by_image),
    (check.photon_noise, clips_the_counts),
    (check.charbonnier, takes_eps_out_of_the_root),
    (check.charbonnier, subtracts_eps_from_the_mean),
    (check.charbonnier, library.charbonnier),
    (check.hinge, scores_both_in_one_batch),
    (check.hinge, freezes_the_discriminator_for_a_moment),
    (check.quantise, Straight.apply),
    (check.quantise, adds_zero_with_a_gradient),
    (check.bits_per_pixel, starts_from_the_smaller_tail),
    (check.bits_per_pixel, adds_the_rarest_probability),
    (check.bits_per_pixel, works_with_logarithms),
    (check.tiled, spreads_the_tiles_evenly_and_takes_the_smaller_weight),
    (check.tiled, cuts_the_last_tile_short_and_goes_image_by_image),
]


@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=lambda value: value.__name__)
def test_another_right_answer_passes(exercise, answer, capsys):
    passed, line = line_of(capsys, exercise, answer)
    assert passed, line


def test_the_network_that_everybody_starts_from_does_not_reach_the_goal_and_bicubic_neither():
    for network in (torch.nn.Identity(), check.start()):
        assert check.score(network).lpips > 0.27


def test_training_repeats_and_leaves_the_start_as_it_was():
    before = check.start().state_dict()
    first, again = (check.train(library.l1).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], before[name]) for name in first)
    assert all(torch.equal(before[name], value) for name, value in check.start().state_dict().items())
