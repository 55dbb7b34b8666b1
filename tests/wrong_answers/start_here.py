"""Wrong answers to chapter 00's exercises."""

import torch

from course_lib.checks import start_here as check
from tests.wrong_answers import wrong


@wrong(check.to_images, "divide by 255")
def forgets_to_divide(array):
    return torch.from_numpy(array).permute(2, 0, 1)[None].float()


@wrong(check.to_images, "256")
def divides_by_256(array):
    return torch.from_numpy(array).permute(2, 0, 1)[None] / 256


@wrong(check.to_images, "batch axis is missing")
def forgets_the_batch(array):
    return torch.from_numpy(array).permute(2, 0, 1) / 255


@wrong(check.to_images, "channels are still last")
def leaves_channels_last(array):
    return torch.from_numpy(array)[None] / 255


@wrong(check.to_images, "reshape keeps the memory order")
def reshapes(array):
    return torch.from_numpy(array).reshape(1, 3, *array.shape[:2]) / 255


@wrong(check.to_images, "height and width are swapped")
def transposes(array):
    return torch.from_numpy(array.T)[None] / 255


@wrong(check.to_images, "torch.float32")
def keeps_double(array):
    return torch.from_numpy(array / 255).permute(2, 0, 1)[None]


@wrong(check.to_images, "returns a ndarray")
def stays_in_numpy(array):
    return array.transpose(2, 0, 1)[None] / 255


@wrong(check.to_unit_range, "[0, 2]")
def only_shifts(images):
    return images + 1


@wrong(check.to_unit_range, "[-0.5, 0.5]")
def only_scales(images):
    return images / 2


@wrong(check.to_unit_range, "[0.5, 1.5]")
def forgets_the_brackets(images):
    return images / 2 + 1


@wrong(check.to_unit_range, "clamping")
def clamps(images):
    return images.clamp(0, 1)


@wrong(check.to_unit_range, "own minimum and maximum")
def stretches(images):
    return (images - images.min()) / (images.max() - images.min())


@wrong(check.to_unit_range, "did you forget `return`")
def forgets_to_return(images):
    images = (images + 1) / 2


@wrong(check.perturbation_size, "over the whole batch")
def one_norm(images, changed):
    return (changed - images).norm()


@wrong(check.perturbation_size, "square root")
def forgets_the_root(images, changed):
    return (changed - images).flatten(1).square().sum(1)


@wrong(check.perturbation_size, "*mean* square")
def root_mean_square(images, changed):
    return (changed - images).flatten(1).square().mean(1).sqrt()


@wrong(check.perturbation_size, "*mean* of the squares")
def mean_square(images, changed):
    return (changed - images).flatten(1).square().mean(1)


@wrong(check.perturbation_size, "L1 norm")
def l1(images, changed):
    return (changed - images).flatten(1).abs().sum(1)


@wrong(check.perturbation_size, "L-infinity")
def l_infinity(images, changed):
    return (changed - images).flatten(1).abs().amax(1)


@wrong(check.perturbation_size, "0-255 units")
def in_bytes(images, changed):
    return (255 * (changed - images)).flatten(1).norm(dim=1)


@wrong(check.perturbation_size, "one axis only")
def sums_channels_only(images, changed):
    return (changed - images).norm(dim=1)


@wrong(check.judge, "fraction for p0")
def counts_p0(votes):
    return (votes == 0).float().mean(1)


@wrong(check.judge, ".float() before the mean")
def forgets_float(votes):
    return votes.mean(1)


@wrong(check.judge, "majority")
def takes_the_majority(votes):
    return votes.float().mean(1).round()


@wrong(check.judge, "number of votes")
def counts(votes):
    return votes.sum(1)


@wrong(check.judge, "over the triplets")
def averages_triplets(votes):
    return votes.float().mean(0)


@wrong(check.judge, "one number for everything")
def averages_all(votes):
    return votes.float().mean()


@wrong(check.score, "reversed")
def prefers_the_farther(d0, d1, votes):
    return torch.where(d0 < d1, votes, torch.where(d0 > d1, 1 - votes, 0.5))


@wrong(check.score, "reversed, and ties")
def prefers_the_farther_without_ties(d0, d1, votes):
    return torch.where(d0 < d1, votes, 1 - votes)


@wrong(check.score, "a tie is a coin toss")
def gives_ties_to_p1(d0, d1, votes):
    return torch.where(d0 < d1, 1 - votes, votes)


@wrong(check.score, "decided for p0")
def gives_ties_to_p0(d0, d1, votes):
    return torch.where(d1 < d0, votes, 1 - votes)


@wrong(check.score, "against the majority")
def scores_the_majority(d0, d1, votes):
    agrees = ((d1 < d0) == (votes > 0.5)).float()
    return torch.where(d0 == d1, 0.5, agrees)


@wrong(check.score, "and 0.5 for a tie")
def scores_the_majority_without_ties(d0, d1, votes):
    return ((d1 < d0) == (votes > 0.5)).float()


@wrong(check.score, "one score per triplet")
def averages_scores(d0, d1, votes):
    return torch.where(d0 == d1, 0.5, torch.where(d0 < d1, 1 - votes, votes)).mean()


def bisect(mse_of, target, steps, swapped=False):
    """Bisection that can be made wrong in several ways."""
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        if (mse_of(middle) < target) != swapped:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@wrong(check.equal_strength, "raise the *lower* end")
def moves_the_wrong_end(mse_of, target):
    return bisect(mse_of, target, 50, swapped=True)


@wrong(check.equal_strength, "not exact")
def stops_early(mse_of, target):
    return bisect(mse_of, target, 8)


@wrong(check.equal_strength, "return the strength")
def returns_the_mse(mse_of, target):
    return mse_of(bisect(mse_of, target, 50))


@wrong(check.equal_strength, "linearly")
def interpolates(mse_of, target):
    return target / mse_of(1.0)


@wrong(check.equal_strength, "more than 200 calls")
def tries_everything(mse_of, target):
    return min((i / 10_000 for i in range(10_001)), key=lambda strength: abs(mse_of(strength) - target))


@wrong(check.equal_strength, "between 0 and 1")
def searches_outside(mse_of, target):
    return mse_of(2.0)


def noisy(photo, amount):
    """The photograph with a fixed noise of this standard deviation."""
    return (photo + amount * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


@wrong(check.my_pair, "returns nothing")
def pair_of_nothing(photo):
    noisy(photo, 0.05)


@wrong(check.my_pair, "return two images")
def single_image(photo):
    return noisy(photo, 0.05)


@wrong(check.my_pair, "photograph's shape")
def smaller_images(photo):
    return photo[..., ::2, ::2], photo[..., ::2]


@wrong(check.my_pair, "leaves [0, 1]")
def forgets_to_clamp(photo):
    return photo + 0.1, photo - 0.1


@wrong(check.my_pair, "photograph itself")
def keeps_the_photograph(photo):
    return photo, noisy(photo, 0.05)


@wrong(check.my_pair, "MSEs differ")
def unequal(photo):
    return noisy(photo, 0.05), noisy(photo, 0.1)


@wrong(check.my_pair, "choose one between")
def invisible(photo):
    return photo * 0.999, photo * 0.999


@wrong(check.my_pair, "nearly the same")
def the_same_twice(photo):
    return noisy(photo, 0.05), noisy(photo, 0.05)
