"""Wrong answers to chapter 06's exercises."""

import torch
import torch.nn.functional as F

from course_lib.checks import perceptual_losses as check
from tests.wrong_answers import wrong


def errors(x, y):
    return (x - y).square().mean((1, 2, 3))


@wrong(check.psnr, "sign is wrong")
def positive_logarithm(x, y):
    return 10 * errors(x, y).log10()


@wrong(check.psnr, "natural logarithm")
def natural_logarithm(x, y):
    return -10 * errors(x, y).log()


@wrong(check.psnr, "multiply by 10")
def in_bels(x, y):
    return -errors(x, y).log10()


@wrong(check.psnr, "*root* of the MSE")
def twenty_times(x, y):
    return -20 * errors(x, y).log10()


@wrong(check.psnr, "every image has its own PSNR")
def of_the_whole_batch(x, y):
    return -10 * (x - y).square().mean().log10()


@wrong(check.psnr, "not 255")
def peak_of_bytes(x, y):
    return 10 * (255**2 / errors(x, y)).log10()


@wrong(check.psnr, "you averaged the decibels")
def mean_of_decibels(x, y):
    return (-10 * errors(x, y).log10()).mean()


@wrong(check.psnr, "*absolute* error")
def of_the_absolute_error(x, y):
    return -20 * (x - y).abs().mean((1, 2, 3)).log10()


def bell(size, scale, centre=None):
    offsets = torch.arange(size) - (size // 2 if centre is None else centre)
    row = torch.exp(-(offsets**2) / scale)
    return torch.outer(row, row)


@wrong(check.gaussian_window, "do not sum to 1")
def forgets_to_normalise(size, sigma):
    return bell(size, 2 * sigma**2)


@wrong(check.gaussian_window, "2 pi sigma^2")
def density_of_the_normal_distribution(size, sigma):
    return bell(size, 2 * sigma**2) / (2 * torch.pi * sigma**2)


@wrong(check.gaussian_window, "one row")
def only_a_row(size, sigma):
    row = torch.exp(-((torch.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    return row / row.sum()


@wrong(check.gaussian_window, "2 sigma^2")
def forgets_the_two(size, sigma):
    window = bell(size, sigma**2)
    return window / window.sum()


@wrong(check.gaussian_window, "not squared")
def forgets_the_square(size, sigma):
    window = bell(size, 2 * sigma)
    return window / window.sum()


@wrong(check.gaussian_window, "not centred")
def starts_at_zero(size, sigma):
    window = bell(size, 2 * sigma**2, centre=0)
    return window / window.sum()


@wrong(check.gaussian_window, "not size / 2")
def centre_between_two_pixels(size, sigma):
    window = bell(size, 2 * sigma**2, centre=size / 2)
    return window / window.sum()


@wrong(check.gaussian_window, "in pixels")
def offsets_from_minus_one_to_one(size, sigma):
    row = torch.exp(-(torch.linspace(-1, 1, size) ** 2) / (2 * sigma**2))
    return torch.outer(row, row) / row.sum() ** 2


@wrong(check.gaussian_window, "every row sums to 1")
def normalises_rows(size, sigma):
    window = bell(size, 2 * sigma**2)
    return window / window.sum(1, keepdim=True)


def similarity(x, y, window, c1=0.01**2, c2=0.03**2, padding=0, minus=1.0, terms=torch.mul, two=2, root=1.0):
    """SSIM that can be made wrong in several ways."""
    kernel = window.expand(3, 1, *window.shape)
    mx, my, xx, yy, xy = (F.conv2d(i, kernel, groups=3, padding=padding) for i in (x, y, x * x, y * y, x * y))
    luminance = (2 * mx * my + c1) / (mx**2 + my**2 + c1)
    spread = (xx - minus * mx**2).clamp_min(0) ** root + (yy - minus * my**2).clamp_min(0) ** root
    structure = (two * (xy - minus * mx * my) + c2) / (spread + c2)
    return terms(luminance, structure).mean((1, 2, 3))


@wrong(check.ssim, "*minus* the square of the mean")
def forgets_the_means(x, y, window):
    return similarity(x, y, window, minus=0.0)


@wrong(check.ssim, "have to be squared")
def forgets_to_square_the_constants(x, y, window):
    return similarity(x, y, window, 0.01, 0.03)


@wrong(check.ssim, "range of 255")
def constants_for_bytes(x, y, window):
    return similarity(x, y, window, (0.01 * 255) ** 2, (0.03 * 255) ** 2)


@wrong(check.ssim, "swapped the constants")
def swaps_the_constants(x, y, window):
    return similarity(x, y, window, 0.03**2, 0.01**2)


@wrong(check.ssim, "luminance term is missing")
def structure_only(x, y, window):
    return similarity(x, y, window, terms=lambda luminance, structure: structure)


@wrong(check.ssim, "structure term is missing")
def luminance_only(x, y, window):
    return similarity(x, y, window, terms=lambda luminance, structure: luminance)


@wrong(check.ssim, "multiplied, not averaged")
def averages_the_terms(x, y, window):
    return similarity(x, y, window, terms=lambda luminance, structure: (luminance + structure) / 2)


@wrong(check.ssim, "at every position")
def averages_before_it_multiplies(x, y, window):
    parts = [
        similarity(x, y, window, terms=part)
        for part in (lambda luminance, _: luminance, lambda _, structure: structure)
    ]
    return parts[0] * parts[1]


@wrong(check.ssim, "C1 and C2 are missing")
def no_constants(x, y, window):
    return similarity(x, y, window, 0, 0)


@wrong(check.ssim, "2 before the covariance")
def forgets_the_two_of_the_covariance(x, y, window):
    return similarity(x, y, window, two=1)


@wrong(check.ssim, "not the standard deviations")
def divides_by_standard_deviations(x, y, window):
    return similarity(x, y, window, root=0.5)


@wrong(check.ssim, "every pixel weighs the same")
def takes_an_even_window(x, y, window):
    return similarity(x, y, torch.full_like(window, 1 / window.numel()))


@wrong(check.ssim, "not one of your own")
def takes_the_published_window(x, y, window):
    published = bell(11, 2 * 1.5**2)
    return similarity(x, y, published / published.sum())


@wrong(check.ssim, "made the pictures grey")
def compares_grey_pictures(x, y, window):
    return similarity(*(i.mean(1, keepdim=True).expand_as(i) for i in (x, y)), window)


@wrong(check.ssim, "padded the border")
def pads(x, y, window):
    return similarity(x, y, window, padding=window.shape[0] // 2)


@wrong(check.ssim, "one number per image")
def ssim_of_the_batch(x, y, window):
    return similarity(x, y, window).mean()


@wrong(check.ssim, "a similarity")
def as_a_distance(x, y, window):
    return 1 - similarity(x, y, window)


@wrong(check.ms_ssim, "clamp first")
def powers_of_negatives(contrast, luminance, weights):
    return (contrast**weights).prod(1) * luminance ** weights[-1]


@wrong(check.ms_ssim, "absolute value")
def takes_the_absolute_value(contrast, luminance, weights):
    return (contrast.abs() ** weights).prod(1) * luminance ** weights[-1]


@wrong(check.ms_ssim, "luminance is missing")
def forgets_the_luminance(contrast, luminance, weights):
    return (contrast.clamp_min(0) ** weights).prod(1)


@wrong(check.ms_ssim, "exponent of its scale")
def luminance_without_exponent(contrast, luminance, weights):
    return (contrast.clamp_min(0) ** weights).prod(1) * luminance


@wrong(check.ms_ssim, "*last* scale")
def luminance_of_the_finest_scale(contrast, luminance, weights):
    return (contrast.clamp_min(0) ** weights).prod(1) * luminance ** weights[0]


@wrong(check.ms_ssim, "exponents, not factors")
def weights_as_factors(contrast, luminance, weights):
    return (weights * contrast.clamp_min(0)).prod(1) * luminance * weights[-1]


@wrong(check.ms_ssim, "not added")
def adds_the_scales(contrast, luminance, weights):
    return (weights * contrast.clamp_min(0)).sum(1) * luminance ** weights[-1]


@wrong(check.ms_ssim, "wrong order")
def from_coarse_to_fine(contrast, luminance, weights):
    weights = weights.flip(0)
    return (contrast.clamp_min(0) ** weights).prod(1) * luminance ** weights[-1]


@wrong(check.ms_ssim, "over the batch")
def multiplies_the_batch(contrast, luminance, weights):
    return (contrast.clamp_min(0) ** weights).prod(0)


@wrong(check.ms_ssim, "over the batch, too")
def multiplies_everything(contrast, luminance, weights):
    return (contrast.clamp_min(0) ** weights).prod() * luminance ** weights[-1]


@wrong(check.ms_ssim, "do not turn the scales round")
def turns_the_weights_of_the_contrast_only(contrast, luminance, weights):
    return (contrast.clamp_min(0) ** weights.flip(0)).prod(1) * luminance ** weights[-1]


@wrong(check.gram, "positions, not channels")
def compares_positions(features):
    flat = features.flatten(2)
    return flat.mT @ flat / features[0].numel()


@wrong(check.gram, "not divided by c h w")
def sums(features):
    flat = features.flatten(2)
    return flat @ flat.mT


@wrong(check.gram, "c is missing")
def divides_by_positions(features):
    flat = features.flatten(2)
    return flat @ flat.mT / flat.shape[2]


@wrong(check.gram, "h w is missing")
def divides_by_channels(features):
    flat = features.flatten(2)
    return flat @ flat.mT / flat.shape[1]


@wrong(check.gram, "size of the batch")
def divides_by_all_numbers(features):
    flat = features.flatten(2)
    return flat @ flat.mT / features.numel()


@wrong(check.gram, "covariance")
def subtracts_the_mean(features):
    flat = features.flatten(2)
    flat = flat - flat.mean(2, keepdim=True)
    return flat @ flat.mT / features[0].numel()


@wrong(check.gram, "summed over the batch")
def one_matrix_for_all(features):
    return torch.einsum("nihw,njhw->ij", features, features) / features[0].numel()


@wrong(check.gram, "with one another")
def compares_images(features):
    flat = features.flatten(1)
    return flat @ flat.T / flat.shape[1]


@wrong(check.gram, "flatten(2) keeps them apart")
def joins_batch_and_channels(features):
    flat = features.flatten(0, 1).flatten(1)
    return flat @ flat.T / features[0].numel()


def gaps(ours, theirs):
    return {name: (ours[name] - theirs[name]) for name in ours}


@wrong(check.feature_loss, "averaged over the batch")
def loss_of_the_batch(ours, theirs, weights):
    return sum(weights[n] * gap.square().mean() for n, gap in gaps(ours, theirs).items())


@wrong(check.feature_loss, "large layers rule")
def sums_the_features(ours, theirs, weights):
    return sum(weights[n] * gap.square().sum((1, 2, 3)) for n, gap in gaps(ours, theirs).items())


@wrong(check.feature_loss, "weights are missing")
def ignores_the_weights(ours, theirs, weights):
    return sum(gap.square().mean((1, 2, 3)) for gap in gaps(ours, theirs).values())


@wrong(check.feature_loss, "by name")
def zips_the_weights(ours, theirs, weights):
    pairs = zip(weights.values(), gaps(ours, theirs).values(), strict=True)
    return sum(weight * gap.square().mean((1, 2, 3)) for weight, gap in pairs)


@wrong(check.feature_loss, "square it")
def absolute_differences(ours, theirs, weights):
    return sum(weights[n] * gap.abs().mean((1, 2, 3)) for n, gap in gaps(ours, theirs).items())


@wrong(check.feature_loss, "do not take the root")
def root_of_each_layer(ours, theirs, weights):
    return sum(weights[n] * gap.square().mean((1, 2, 3)).sqrt() for n, gap in gaps(ours, theirs).items())


@wrong(check.feature_loss, "number of layers")
def averages_the_layers(ours, theirs, weights):
    return sum(weights[n] * gap.square().mean((1, 2, 3)) for n, gap in gaps(ours, theirs).items()) / len(weights)


@wrong(check.feature_loss, "sum of the weights")
def weighted_mean_of_the_layers(ours, theirs, weights):
    terms = [weights[n] * gap.square().mean((1, 2, 3)) for n, gap in gaps(ours, theirs).items()]
    return sum(terms) / sum(weights.values())


@wrong(check.feature_loss, "root of the sum")
def root_of_the_sum(ours, theirs, weights):
    return sum(weights[n] * gap.square().mean((1, 2, 3)) for n, gap in gaps(ours, theirs).items()).sqrt()


@wrong(check.feature_loss, "not into it")
def squares_the_weights(ours, theirs, weights):
    return sum((weights[n] * gap).square().mean((1, 2, 3)) for n, gap in gaps(ours, theirs).items())


@wrong(check.feature_loss, "over the channels; take the mean")
def sums_the_channels(ours, theirs, weights):
    return sum(weights[n] * gap.square().sum(1).mean((1, 2)) for n, gap in gaps(ours, theirs).items())


@wrong(check.feature_loss, "inside the loop")
def returns_too_early(ours, theirs, weights):
    name, weight = next(iter(weights.items()))
    return weight * (ours[name] - theirs[name]).square().mean((1, 2, 3))


@wrong(check.best_for_absolute_error, "*squared* error")
def takes_the_mean(answers):
    return answers.mean(0)


@wrong(check.best_for_absolute_error, "take .values")
def keeps_the_indices(answers):
    return answers.median(0)


@wrong(check.best_for_absolute_error, "one number")
def median_of_everything(answers):
    return answers.median()


@wrong(check.best_for_absolute_error, "one of the answers")
def takes_the_best_answer(answers):
    costs = [(answers - answer).abs().mean() for answer in answers]
    return answers[torch.stack(costs).argmin()]


@wrong(check.best_for_absolute_error, "*largest* error")
def takes_the_middle_of_the_range(answers):
    return (answers.amin(0) + answers.amax(0)) / 2


@wrong(check.fool_ssim, "returns nothing")
def image_of_nothing(photo):
    photo.flip(3)


@wrong(check.fool_ssim, "the photograph (1, 3, 192, 192)")
def loses_the_batch(photo):
    return photo[0]


@wrong(check.fool_ssim, "a torch.Tensor was expected")
def leaves_pytorch(photo):
    return photo.numpy()


@wrong(check.fool_ssim, "photo.clone()")
def paints_over_the_photograph(photo):
    photo[:, 0] = (photo[:, 0] + 0.3).clamp(0, 1)
    return photo


@wrong(check.fool_ssim, "leaves [0, 1]")
def brightens_without_clamping(photo):
    return photo + 0.2


@wrong(check.fool_ssim, "change the picture more")
def changes_too_little(photo):
    return (photo + 0.02).clamp(0, 1)


@wrong(check.fool_ssim, "spare edges and texture")
def adds_noise(photo):
    return (photo + 0.15 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
