"""Wrong answers to chapter 06's exercises."""

import math

import torch

from course_lib.checks import perceptual_losses as check
from tests.wrong_answers import wrong


def error(x, y):
    return (x - y).square().mean((1, 2, 3))


@wrong(check.psnr, "sign is reversed")
def forgets_the_minus(x, y):
    return 10 * error(x, y).log10()


@wrong(check.psnr, "natural logarithm")
def takes_the_natural_logarithm(x, y):
    return -10 * error(x, y).log()


@wrong(check.psnr, "belongs to the *root*")
def twenty(x, y):
    return -20 * error(x, y).log10()


@wrong(check.psnr, "bels")
def forgets_the_ten(x, y):
    return -error(x, y).log10()


@wrong(check.psnr, "peak is 255")
def peak_of_bytes(x, y):
    return 10 * (255**2 / error(x, y)).log10()


@wrong(check.psnr, "over the whole batch")
def one_error(x, y):
    return -10 * (x - y).square().mean().log10()


@wrong(check.psnr, "mean PSNR")
def averages_psnr(x, y):
    return -10 * error(x, y).log10().mean()


@wrong(check.psnr, "this is the MSE")
def stops_at_the_mse(x, y):
    return error(x, y)


@wrong(check.psnr, "summed the squared errors")
def sums_errors(x, y):
    return -10 * (x - y).square().sum((1, 2, 3)).log10()


@wrong(check.psnr, "infinite PSNR")
def adds_epsilon(x, y):
    return -10 * (error(x, y) + 1e-10).log10()


@wrong(check.psnr, "did you forget `return`")
def returns_no_psnr(x, y):
    error(x, y)


def distances(size, middle=None):
    offset = torch.arange(size) - (size // 2 if middle is None else middle)
    return offset[:, None] ** 2 + offset[None] ** 2


def unit(weights):
    return weights / weights.sum()


@wrong(check.gaussian_window, "do not sum to 1")
def forgets_to_normalise(size, sigma):
    return torch.exp(-distances(size) / (2 * sigma**2))


@wrong(check.gaussian_window, "divided by its own sum")
def density(size, sigma):
    return torch.exp(-distances(size) / (2 * sigma**2)) / (2 * math.pi * sigma**2)


@wrong(check.gaussian_window, "every row sums to 1")
def softmax_of_rows(size, sigma):
    return torch.softmax(-distances(size) / (2 * sigma**2), 1)


@wrong(check.gaussian_window, "square sigma")
def forgets_to_square_sigma(size, sigma):
    return unit(torch.exp(-distances(size) / (2 * sigma)))


@wrong(check.gaussian_window, "2 is missing")
def forgets_the_two(size, sigma):
    return unit(torch.exp(-distances(size) / sigma**2))


@wrong(check.gaussian_window, "square the distance")
def falls_off_exponentially(size, sigma):
    return unit(torch.exp(-distances(size).sqrt() / (2 * sigma**2)))


@wrong(check.gaussian_window, "half a pixel off")
def off_centre(size, sigma):
    return unit(torch.exp(-distances(size, size / 2) / (2 * sigma**2)))


@wrong(check.gaussian_window, "in a corner")
def not_centred(size, sigma):
    return unit(torch.exp(-distances(size, 0) / (2 * sigma**2)))


@wrong(check.gaussian_window, "this is one row")
def only_a_row(size, sigma):
    return unit(torch.exp(-((torch.arange(size) - size // 2) ** 2) / (2 * sigma**2)))


@wrong(check.gaussian_window, "returns a list")
def list_of_rows(size, sigma):
    return unit(torch.exp(-distances(size) / (2 * sigma**2))).tolist()


def ssim_of(a, b, window, c1=0.01**2, c2=0.03**2):
    """The luminance term, and the contrast and structure term."""
    mean_a, mean_b = (window * a).sum(), (window * b).sum()
    var_a, var_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
    covariance = (window * a * b).sum() - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance, (2 * covariance + c2) / (var_a + var_b + c2)


@wrong(check.ssim_window, "luminance term only")
def only_luminance(a, b, window):
    return ssim_of(a, b, window)[0]


@wrong(check.ssim_window, "contrast and structure term only")
def only_contrast(a, b, window):
    return ssim_of(a, b, window)[1]


@wrong(check.ssim_window, "multiplies them")
def adds_the_terms(a, b, window):
    return sum(ssim_of(a, b, window))


@wrong(check.ssim_window, "weigh them by the window")
def ignores_the_window(a, b, window):
    return math.prod(ssim_of(a, b, torch.full_like(window, 1 / window.numel())))


@wrong(check.ssim_window, "are *squares*")
def forgets_to_square_the_constants(a, b, window):
    return math.prod(ssim_of(a, b, window, 0.01, 0.03))


@wrong(check.ssim_window, "values up to 255")
def constants_of_bytes(a, b, window):
    return math.prod(ssim_of(a, b, window, 2.55**2, 7.65**2))


@wrong(check.ssim_window, "c1 and c2 are missing")
def forgets_the_constants(a, b, window):
    return math.prod(ssim_of(a, b, window, 0, 0))


@wrong(check.ssim_window, "the square of the mean")
def raw_moments(a, b, window):
    luminance = ssim_of(a, b, window)[0]
    products = 2 * (window * a * b).sum() + 0.03**2
    return luminance * products / ((window * (a * a + b * b)).sum() + 0.03**2)


@wrong(check.ssim_window, "covariance lacks")
def raw_covariance(a, b, window):
    mean_a, mean_b = (window * a).sum(), (window * b).sum()
    variances = (window * (a * a + b * b)).sum() - mean_a**2 - mean_b**2
    return ssim_of(a, b, window)[0] * (2 * (window * a * b).sum() + 0.03**2) / (variances + 0.03**2)


@wrong(check.ssim_window, "standard deviations")
def adds_deviations(a, b, window):
    mean_a, mean_b = (window * a).sum(), (window * b).sum()
    deviations = [((window * p * p).sum() - m**2).sqrt() for p, m in ((a, mean_a), (b, mean_b))]
    covariance = (window * a * b).sum() - mean_a * mean_b
    return ssim_of(a, b, window)[0] * (2 * covariance + 0.03**2) / (sum(deviations) + 0.03**2)


@wrong(check.ssim_window, "factor 2")
def forgets_twice_the_covariance(a, b, window):
    mean_a, mean_b = (window * a).sum(), (window * b).sum()
    variances = (window * (a * a + b * b)).sum() - mean_a**2 - mean_b**2
    covariance = (window * a * b).sum() - mean_a * mean_b
    return ssim_of(a, b, window)[0] * (covariance + 0.03**2) / (variances + 0.03**2)


@wrong(check.gram, "so that images of different sizes")
def forgets_to_divide(features):
    flat = features.flatten(2)
    return flat @ flat.mT


@wrong(check.gram, "the positions h w only")
def divides_by_positions(features):
    flat = features.flatten(2)
    return flat @ flat.mT / flat.shape[2]


@wrong(check.gram, "the channels only")
def divides_by_channels(features):
    flat = features.flatten(2)
    return flat @ flat.mT / flat.shape[1]


@wrong(check.gram, "divided by n")
def divides_by_everything(features):
    flat = features.flatten(2)
    return flat @ flat.mT / features.numel()


@wrong(check.gram, "compares positions")
def compares_positions(features):
    flat = features.flatten(2)
    return flat.mT @ flat / features[0].numel()


@wrong(check.gram, "whole batch")
def one_matrix(features):
    flat = features.transpose(0, 1).flatten(1)
    return flat @ flat.mT / features.numel()


@wrong(check.gram, "covariance")
def subtracts_means(features):
    flat = features.flatten(2)
    flat = flat - flat.mean(2, keepdim=True)
    return flat @ flat.mT / features[0].numel()


@wrong(check.gram, "diagonal")
def squares_channels(features):
    return features.square().sum((2, 3)) / features[0].numel()


@wrong(check.gram, "got mixed up")
def multiplies_by_a_reshape(features):
    n, c, h, w = features.shape
    return features.flatten(2) @ features.reshape(n, h * w, c) / (c * h * w)


def layer_of(trunk, layer, x, y):
    return (trunk(x, (layer,))[layer] - trunk(y, (layer,))[layer]).square()


@wrong(check.feature_loss, "shape (n,)")
def averages_the_batch(trunk, layer, x, y):
    return layer_of(trunk, layer, x, y).mean()


@wrong(check.feature_loss, "summed the squares")
def sums_squares(trunk, layer, x, y):
    return layer_of(trunk, layer, x, y).sum((1, 2, 3))


@wrong(check.feature_loss, "over the channels")
def sums_channels(trunk, layer, x, y):
    return layer_of(trunk, layer, x, y).sum(1).mean((1, 2))


@wrong(check.feature_loss, "absolute differences")
def absolute(trunk, layer, x, y):
    return layer_of(trunk, layer, x, y).sqrt().mean((1, 2, 3))


@wrong(check.feature_loss, "square root")
def takes_the_root(trunk, layer, x, y):
    return layer_of(trunk, layer, x, y).mean((1, 2, 3)).sqrt()


@wrong(check.feature_loss, "the pixels")
def compares_pixels(trunk, layer, x, y):
    return error(x, y)


@wrong(check.feature_loss, "last layer")
def reads_the_last_layer(trunk, layer, x, y):
    return error(list(trunk(x).values())[-1], list(trunk(y).values())[-1])


@wrong(check.feature_loss, "all of the trunk's layers")
def reads_all_layers(trunk, layer, x, y):
    return sum(error(a, b) for a, b in zip(trunk(x).values(), trunk(y).values(), strict=True))


@wrong(check.feature_loss, "unit channels")
def as_lpips(trunk, layer, x, y):
    a, b = (torch.nn.functional.normalize(trunk(images, (layer,))[layer]) for images in (x, y))
    return error(a, b)


@wrong(check.feature_loss, "subtracts the ImageNet means")
def scales_twice(trunk, layer, x, y):
    return layer_of(trunk, layer, (x - trunk.mean) / trunk.std, (y - trunk.mean) / trunk.std).mean((1, 2, 3))


@wrong(check.feature_loss, "[-1, 1]")
def feeds_minus_one_to_one(trunk, layer, x, y):
    return layer_of(trunk, layer, 2 * x - 1, 2 * y - 1).mean((1, 2, 3))


@wrong(check.feature_loss, "no gradient")
@torch.no_grad()
def turns_gradients_off(trunk, layer, x, y):
    return layer_of(trunk, layer, x, y).mean((1, 2, 3))


def gram(features, divide=True):
    flat = features.flatten(2)
    return flat @ flat.mT / (features[0].numel() if divide else 1)


def apart(trunk, layers, x, y, compare=gram):
    """What `compare` makes of the first image's features minus what it makes of the second's, for every layer."""
    pairs = zip(trunk(x, tuple(layers)).values(), trunk(y, tuple(layers)).values(), strict=True)
    return [compare(a) - compare(b) for a, b in pairs]


def frobenius(difference):
    return difference.square().sum((1, 2))


@wrong(check.style_loss, "one number for the whole batch")
def averages_styles(trunk, layers, x, y):
    return sum(map(frobenius, apart(trunk, layers, x, y))).mean()


@wrong(check.style_loss, "summed over the batch")
def sums_styles(trunk, layers, x, y):
    return sum(map(frobenius, apart(trunk, layers, x, y))).sum()


@wrong(check.style_loss, "overwrite the sum")
def keeps_the_last_layer(trunk, layers, x, y):
    return frobenius(apart(trunk, layers, x, y)[-1])


@wrong(check.style_loss, "inside the loop")
def returns_in_the_loop(trunk, layers, x, y):
    return frobenius(apart(trunk, layers, x, y)[0])


@wrong(check.style_loss, "mean over the layers")
def averages_layers(trunk, layers, x, y):
    return sum(map(frobenius, apart(trunk, layers, x, y))) / len(layers)


@wrong(check.style_loss, "Frobenius norm sums")
def averages_matrices(trunk, layers, x, y):
    return sum(difference.square().mean((1, 2)) for difference in apart(trunk, layers, x, y))


@wrong(check.style_loss, "loss is its *square*")
def takes_the_norm(trunk, layers, x, y):
    return sum(frobenius(difference).sqrt() for difference in apart(trunk, layers, x, y))


@wrong(check.style_loss, "absolute differences")
def absolute_styles(trunk, layers, x, y):
    return sum(difference.abs().sum((1, 2)) for difference in apart(trunk, layers, x, y))


@wrong(check.style_loss, "not divided by c h w")
def undivided(trunk, layers, x, y):
    return sum(map(frobenius, apart(trunk, layers, x, y, lambda features: gram(features, divide=False))))


@wrong(check.style_loss, "compared the features")
def compares_features(trunk, layers, x, y):
    return sum(difference.square().mean((1, 2, 3)) for difference in apart(trunk, layers, x, y, lambda f: f))


@wrong(check.style_loss, "all of the trunk's layers")
def all_layers(trunk, layers, x, y):
    return sum(map(frobenius, apart(trunk, trunk.taps, x, y)))


@wrong(check.style_loss, "no gradient")
def detaches(trunk, layers, x, y):
    return sum(map(frobenius, apart(trunk, layers, x, y))).detach()


@wrong(check.style_loss, "differ in size")
def assumes_equal_sizes(trunk, layers, x, y):
    pairs = zip(trunk(x, tuple(layers)).values(), trunk(y, tuple(layers)).values(), strict=True)
    return sum(
        frobenius((a.flatten(2) @ a.flatten(2).mT - b.flatten(2) @ b.flatten(2).mT) / a[0].numel()) for a, b in pairs
    )


def gradient(loss, images):
    images = images.clone().requires_grad_()
    return torch.autograd.grad(loss(images).sum(), images)[0]


@wrong(check.descend, "*up* the gradient")
def climbs(loss, start, steps, rate):
    images = start.clone()
    for _ in range(steps):
        images = (images + rate * gradient(loss, images)).clamp(0, 1)
    return images


@wrong(check.descend, "clamp them after every step")
def never_clamps(loss, start, steps, rate):
    images = start.clone()
    for _ in range(steps):
        images = images - rate * gradient(loss, images)
    return images


@wrong(check.descend, "only at the end")
def clamps_at_the_end(loss, start, steps, rate):
    return never_clamps(loss, start, steps, rate).clamp(0, 1)


@wrong(check.descend, "add up")
def forgets_to_zero_the_gradient(loss, start, steps, rate):
    images = start.clone().requires_grad_()
    for _ in range(steps):
        loss(images).sum().backward()
        with torch.no_grad():
            images.sub_(rate * images.grad).clamp_(0, 1)
    return images.detach()


def descend(loss, start, steps, rate):
    images = start.clone()
    for _ in range(steps):
        images = (images - rate * gradient(loss, images)).clamp(0, 1)
    return images


@wrong(check.descend, "too few")
def one_step_less(loss, start, steps, rate):
    return descend(loss, start, steps - 1, rate)


@wrong(check.descend, "too many")
def one_step_more(loss, start, steps, rate):
    return descend(loss, start, steps + 1, rate)


@wrong(check.descend, "this is one step")
def one_step(loss, start, steps, rate):
    return descend(loss, start, 1, rate)


@wrong(check.descend, "did not move")
def stands_still(loss, start, steps, rate):
    return start.clone()


@wrong(check.descend, "mean over the batch")
def averages_the_loss(loss, start, steps, rate):
    return descend(loss, start, steps, rate / len(start))


@wrong(check.descend, "sign of the gradient")
def signs(loss, start, steps, rate):
    images = start.clone()
    for _ in range(steps):
        images = (images - rate * gradient(loss, images).sign()).clamp(0, 1)
    return images


@wrong(check.descend, "this is a loss")
def returns_the_loss(loss, start, steps, rate):
    return loss(descend(loss, start, steps, rate))


@wrong(check.descend, "not yours")
def changes_the_start(loss, start, steps, rate):
    start.copy_(descend(loss, start, steps, rate))
    return start


@wrong(check.descend, "history")
def keeps_the_history(loss, start, steps, rate):
    return descend(loss, start, steps, rate).requires_grad_()


@wrong(check.descend, "keep the shape")
def drops_the_batch(loss, start, steps, rate):
    return descend(loss, start[0], steps, rate)


def noisy(photo, amount):
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    return (photo + amount * noise).clamp(0, 1)


@wrong(check.my_disagreement, "returns nothing")
def returns_nothing(photo):
    noisy(photo, 0.1)


@wrong(check.my_disagreement, "return two images")
def returns_one_image(photo):
    return noisy(photo, 0.1)


@wrong(check.my_disagreement, "keep the photograph's shape")
def crops_it(photo):
    return photo[..., :64], photo[..., 64:]


@wrong(check.my_disagreement, "leaves [0, 1]")
def forgets_to_clamp(photo):
    return photo + 0.5, photo - 0.5


@wrong(check.my_disagreement, "or nearly so")
def hardly_changes_it(photo):
    return noisy(photo, 0.001), noisy(photo, 0.1)


@wrong(check.my_disagreement, "SSIM agrees")
def agrees(photo):
    return noisy(photo, 0.2), noisy(photo, 0.02)


@wrong(check.my_disagreement, "hardly prefers")
def is_undecided(photo):
    return noisy(photo, 0.1), noisy(photo, 0.101)
