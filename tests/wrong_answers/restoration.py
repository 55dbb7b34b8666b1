"""Wrong answers to chapter 02's exercises."""

import functools
import math

import torch
from torch.nn import functional as F

from course_lib import restoration as library
from course_lib.checks import restoration as check
from course_lib.lpips import LPIPS
from tests.wrong_answers import wrong


def hole_mse(restored, truth, mask):
    return ((restored - truth).square() * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))


@wrong(check.hole_psnr, "the mask is inverted")
def inverts_the_mask(restored, truth, mask):
    return -10 * hole_mse(restored, truth, ~mask).log10()


@wrong(check.hole_psnr, "the whole picture counts")
def ignores_the_mask(restored, truth, mask):
    return library.psnr(restored, truth)


@wrong(check.hole_psnr, "number of *all* pixels")
def divides_by_all_pixels(restored, truth, mask):
    return -10 * ((restored - truth).square() * mask).mean((1, 2, 3)).log10()


@wrong(check.hole_psnr, "summed over three and divided by one")
def forgets_the_three_channels(restored, truth, mask):
    return -10 * (3 * hole_mse(restored, truth, mask)).log10()


@wrong(check.hole_psnr, "divided by three once too often")
def counts_the_channels_twice(restored, truth, mask):
    return -10 * (hole_mse(restored, truth, mask) / 3).log10()


@wrong(check.hole_psnr, "the peak is 255")
def takes_the_peak_of_bytes(restored, truth, mask):
    return 10 * (255**2 / hole_mse(restored, truth, mask)).log10()


@wrong(check.hole_psnr, "not the largest in this image")
def takes_the_peak_of_the_image(restored, truth, mask):
    return 10 * (truth.amax((1, 2, 3)) ** 2 / hole_mse(restored, truth, mask)).log10()


@wrong(check.hole_psnr, "natural logarithm")
def takes_the_natural_logarithm(restored, truth, mask):
    return -10 * hole_mse(restored, truth, mask).log()


@wrong(check.hole_psnr, "logarithm to base 2")
def takes_the_binary_logarithm(restored, truth, mask):
    return -10 * hole_mse(restored, truth, mask).log2()


@wrong(check.hole_psnr, "twice too much")
def takes_twenty_of_the_square(restored, truth, mask):
    return -20 * hole_mse(restored, truth, mask).log10()


@wrong(check.hole_psnr, "half of it")
def takes_ten_of_the_root(restored, truth, mask):
    return -10 * hole_mse(restored, truth, mask).sqrt().log10()


@wrong(check.hole_psnr, "the 10 is missing")
def forgets_the_ten(restored, truth, mask):
    return -hole_mse(restored, truth, mask).log10()


@wrong(check.hole_psnr, "the sign is wrong")
def forgets_the_minus(restored, truth, mask):
    return 10 * hole_mse(restored, truth, mask).log10()


@wrong(check.hole_psnr, "that is the mean square error")
def returns_the_error(restored, truth, mask):
    return hole_mse(restored, truth, mask)


@wrong(check.hole_psnr, "absolute difference")
def takes_the_absolute_difference(restored, truth, mask):
    size = ((restored - truth).abs() * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))
    return -20 * size.log10()


@wrong(check.hole_psnr, "you summed the squares")
def sums_the_squares(restored, truth, mask):
    return -10 * ((restored - truth).square() * mask).sum((1, 2, 3)).log10()


@wrong(check.hole_psnr, "average over the images *after*")
def pools_the_batch(restored, truth, mask):
    return -10 * (restored - truth)[mask.expand_as(truth)].square().mean().log10()


@wrong(check.hole_psnr, "you averaged over the images; one number for each")
def averages_the_batch(restored, truth, mask):
    return -10 * hole_mse(restored, truth, mask).log10().mean()


@wrong(check.hole_psnr, "that of the whole batch; keep")
def gives_every_image_the_batchs_number(restored, truth, mask):
    return -10 * (restored - truth)[mask.expand_as(truth)].square().mean().log10().expand(len(truth))


@wrong(check.hole_psnr, "a mask of its own")
def takes_the_first_mask(restored, truth, mask):
    return -10 * hole_mse(restored, truth, mask[:1]).log10()


@wrong(check.hole_psnr, "logarithm of every pixel")
def takes_the_logarithm_first(restored, truth, mask):
    decibels = -10 * ((restored - truth).square() + 1e-6).log10() * mask
    return decibels.sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))


@wrong(check.hole_psnr, "in place")
def fills_the_known_pixels_in_place(restored, truth, mask):
    restored[~mask.expand_as(truth)] = truth[~mask.expand_as(truth)]
    return -10 * hole_mse(restored, truth, mask).log10()


@wrong(check.hole_psnr, "shape")
def keeps_an_axis(restored, truth, mask):
    return -10 * hole_mse(restored, truth, mask).log10()[:, None]


@wrong(check.hole_psnr, "returns nothing")
def prints_the_psnr(restored, truth, mask):
    -10 * hole_mse(restored, truth, mask).log10()


def counted(rate, generator):
    return torch.poisson(rate, generator=generator)


def normal(images, generator):
    return torch.randn(images.shape, generator=generator)


@wrong(check.photon_noise, "those are the counts")
def forgets_to_divide_by_photons(images, photons, generator):
    return counted(images * photons, generator)


@wrong(check.photon_noise, "you added them to it")
def adds_the_counts(images, photons, generator):
    return images + counted(images * photons, generator) / photons


@wrong(check.photon_noise, "that is the noise alone")
def returns_the_noise(images, photons, generator):
    return counted(images * photons, generator) / photons - images


@wrong(check.photon_noise, "the picture counts twice")
def multiplies_by_the_counts(images, photons, generator):
    return images * counted(images * photons, generator) / photons


@wrong(check.photon_noise, "photons is there twice")
def divides_before_and_after(images, photons, generator):
    return counted(images, generator) / photons


@wrong(check.photon_noise, "white is `photons`, not 255")
def counts_bytes(images, photons, generator):
    return counted(images * 255, generator) / photons


@wrong(check.photon_noise, "keeps the mean")
def clips_the_counts(images, photons, generator):
    return counted(images * photons, generator).clamp(max=10) / photons


@wrong(check.photon_noise, "there is no noise")
def only_rounds(images, photons, generator):
    return (images * photons).round() / photons


@wrong(check.photon_noise, "equally noisy")
def adds_gaussian_noise(images, photons, generator):
    return images + normal(images, generator) / photons**0.5


@wrong(check.photon_noise, "`photons` is ignored")
def counts_one_photon(images, photons, generator):
    return counted(images, generator)


@wrong(check.photon_noise, "255 photons")
def counts_255_photons(images, photons, generator):
    return counted(images * 255, generator) / 255


@wrong(check.photon_noise, "the noise is multiplied")
def takes_the_variance_for_the_deviation(images, photons, generator):
    return images + images * normal(images, generator) / photons**0.5


@wrong(check.photon_noise, "that is binomial")
def sends_a_fixed_number(images, photons, generator):
    return torch.binomial(torch.full_like(images, photons), images, generator=generator) / photons


@wrong(check.photon_noise, "too small by the root of photons")
def divides_the_deviation_by_photons(images, photons, generator):
    return images + images.sqrt() * normal(images, generator) / photons


@wrong(check.photon_noise, "the noise has variance 0.00")
def has_half_the_noise(images, photons, generator):
    return (images + counted(images * photons, generator) / photons) / 2


@wrong(check.photon_noise, "photons are whole")
def approximates_by_a_gaussian(images, photons, generator):
    return images + (images / photons).sqrt() * normal(images, generator)


@wrong(check.photon_noise, "rounded Gaussian")
def rounds_a_gaussian(images, photons, generator):
    rate = images * photons
    return (rate + (rate - 0.08).sqrt() * normal(images, generator)).round() / photons


@wrong(check.photon_noise, "the three channels got the same noise")
def counts_grey_photons(images, photons, generator):
    return counted(images[:, :1] * photons, generator).expand_as(images) / photons


@wrong(check.photon_noise, "every image got the same noise")
def seeds_every_image(images, photons, generator):
    seed = generator.initial_seed()
    return torch.cat([counted(image * photons, generator.manual_seed(seed)) for image in images.split(1)]) / photons


@wrong(check.photon_noise, "does not follow the generator")
def ignores_the_generator(images, photons, generator):
    return torch.poisson(images * photons).clamp(max=photons) / photons


@wrong(check.photon_noise, "every seed gives the same noise")
def seeds_again(images, photons, generator):
    return counted(images * photons, generator.manual_seed(0)).clamp(max=photons) / photons


@wrong(check.photon_noise, "the same noise every time it is used")
def takes_the_generators_seed(images, photons, generator):
    torch.manual_seed(generator.initial_seed())
    return torch.poisson(images * photons).clamp(max=photons) / photons


@wrong(check.photon_noise, "do not round before")
def rounds_the_expected_number(images, photons, generator):
    return counted((images * photons).round(), generator).clamp(max=photons) / photons


@wrong(check.photon_noise, "not the largest value in the picture")
def takes_the_brightest_pixel_for_white(images, photons, generator):
    return (counted(images / images.max() * photons, generator) / photons).clamp(max=1)


@wrong(check.photon_noise, "cut at 0")
def clamps_a_gaussian(images, photons, generator):
    return (images + (images / photons).sqrt() * normal(images, generator)).clamp(0, 1)


@wrong(check.photon_noise, "grey of 0.112 becomes")
def clips_the_counts_before_dividing(images, photons, generator):
    return counted(images * photons, generator).clamp(max=1)


@wrong(check.photon_noise, "a full sensor stops at 1")
def never_clips(images, photons, generator):
    return counted(images * photons, generator) / photons


@wrong(check.photon_noise, "white has no noise")
def spares_white(images, photons, generator):
    noisy = counted(images * photons, generator) / photons
    return torch.where(images == 1, images, noisy)


@wrong(check.photon_noise, "in place")
def scales_the_images_in_place(images, photons, generator):
    return counted(images.mul_(photons), generator) / photons


@wrong(check.photon_noise, "NaN")
def takes_the_root_of_a_negative_number(images, photons, generator):
    return images + (images - 0.1).sqrt() * normal(images, generator)


@wrong(check.photon_noise, "returns nothing")
def counts_and_forgets(images, photons, generator):
    counted(images * photons, generator)


MEAN = (1, 2, 3)


@wrong(check.charbonnier, "subtract eps")
def forgets_to_subtract_eps(restored, truth, eps):
    return ((restored - truth).square() + eps**2).sqrt().mean(MEAN)


@wrong(check.charbonnier, "not its square")
def subtracts_the_square_of_eps(restored, truth, eps):
    return (((restored - truth).square() + eps**2).sqrt() - eps**2).mean(MEAN)


@wrong(check.charbonnier, "eps is ignored")
def takes_the_chapters_eps(restored, truth, eps):
    return library.charbonnier(restored, truth)


@wrong(check.charbonnier, "you squared eps only")
def squares_only_eps(restored, truth, eps):
    return (((restored - truth).abs() + eps**2).sqrt() - eps).mean(MEAN)


@wrong(check.charbonnier, "a root of its own")
def adds_the_colours_under_the_root(restored, truth, eps):
    return (((restored - truth).square().sum(1) + eps**2).sqrt() - eps).mean((1, 2))


@wrong(check.charbonnier, "you summed over the colours")
def sums_the_colours(restored, truth, eps):
    return (((restored - truth).square() + eps**2).sqrt() - eps).sum(1).mean((1, 2))


@wrong(check.charbonnier, "restored was clamped")
def clamps_the_restored(restored, truth, eps):
    return (((restored.clamp(0, 1) - truth).square() + eps**2).sqrt() - eps).mean(MEAN)


@wrong(check.charbonnier, "eps is squared inside the root")
def forgets_to_square_eps(restored, truth, eps):
    return (((restored - truth).square() + eps).sqrt() - eps).mean(MEAN)


@wrong(check.charbonnier, "eps is outside the root")
def adds_eps_after_the_root(restored, truth, eps):
    return ((restored - truth).square().sqrt() + eps).mean(MEAN)


@wrong(check.charbonnier, "that is L1")
def is_l1(restored, truth, eps):
    return library.l1(restored, truth)


@wrong(check.charbonnier, "that is L2")
def is_l2(restored, truth, eps):
    return library.l2(restored, truth)


@wrong(check.charbonnier, "the root of the mean")
def takes_the_root_of_the_mean(restored, truth, eps):
    return (library.l2(restored, truth) + eps**2).sqrt() - eps


@wrong(check.charbonnier, "root of a negative number")
def forgets_the_square(restored, truth, eps):
    return ((restored - truth + eps**2).sqrt() - eps).mean(MEAN)


@wrong(check.charbonnier, "the difference is not squared")
def takes_the_root_of_the_absolute_difference(restored, truth, eps):
    return ((restored - truth + eps**2).abs().sqrt() - eps).mean(MEAN)


@wrong(check.charbonnier, "before squaring")
def adds_eps_before_squaring(restored, truth, eps):
    return ((restored - truth + eps).square().sqrt() - eps).mean(MEAN)


@wrong(check.charbonnier, "Huber")
def is_huber(restored, truth, eps):
    return F.smooth_l1_loss(restored, truth, beta=eps, reduction="none").mean(MEAN)


@wrong(check.charbonnier, "pseudo-Huber")
def is_pseudo_huber(restored, truth, eps):
    return eps**2 * ((1 + ((restored - truth) / eps).square()).sqrt() - 1).mean(MEAN)


@wrong(check.charbonnier, "you summed over the pixels")
def sums_the_pixels(restored, truth, eps):
    return (((restored - truth).square() + eps**2).sqrt() - eps).sum(MEAN)


@wrong(check.charbonnier, "the sign is wrong")
def subtracts_the_root(restored, truth, eps):
    return (eps - ((restored - truth).square() + eps**2).sqrt()).mean(MEAN)


@wrong(check.charbonnier, "you averaged over the images, too")
def averages_everything(restored, truth, eps):
    return (((restored - truth).square() + eps**2).sqrt() - eps).mean()


@wrong(check.charbonnier, "one number for every pixel")
def keeps_the_pixels(restored, truth, eps):
    return ((restored - truth).square() + eps**2).sqrt() - eps


@wrong(check.charbonnier, "one number for every channel")
def keeps_the_channels(restored, truth, eps):
    return (((restored - truth).square() + eps**2).sqrt() - eps).mean((2, 3))


@wrong(check.charbonnier, "you averaged over the images; average over channels")
def averages_the_wrong_axis(restored, truth, eps):
    return (((restored - truth).square() + eps**2).sqrt() - eps).mean(0)


@wrong(check.charbonnier, "gradient is NaN where the images are equal")
def divides_by_the_difference(restored, truth, eps):
    size = (restored - truth).square().sqrt()
    return ((size.square() + eps**2).sqrt() - eps).mean(MEAN)


@wrong(check.charbonnier, "the gradient by the restored image is not")
def detaches_the_root(restored, truth, eps):
    root = ((restored - truth).square() + eps**2).sqrt()
    return ((root + root.detach()) / 2 - eps).mean(MEAN)


@wrong(check.charbonnier, "without a gradient")
def has_no_gradient(restored, truth, eps):
    return (((restored.detach() - truth).square() + eps**2).sqrt() - eps).mean(MEAN)


@wrong(check.charbonnier, "in place")
def subtracts_in_place(restored, truth, eps):
    return ((restored.sub_(truth).square() + eps**2).sqrt() - eps).mean(MEAN)


@wrong(check.charbonnier, "returns nothing")
def computes_and_forgets(restored, truth, eps):
    (((restored - truth).square() + eps**2).sqrt() - eps).mean(MEAN)


def judged(discriminator, restored, truth):
    return discriminator(truth), discriminator(restored.detach())


def hinges(discriminator, restored, truth):
    real, fake = judged(discriminator, restored, truth)
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def fooled(discriminator, restored):
    return -discriminator(restored).mean()


@wrong(check.hinge, "the discriminator's signs are swapped")
def swaps_real_and_restored(discriminator, restored, truth):
    return hinges(discriminator, truth, restored), fooled(discriminator, restored)


@wrong(check.hinge, "there is no hinge: a real score")
def has_no_hinge(discriminator, restored, truth):
    real, fake = judged(discriminator, restored, truth)
    return fake.mean() - real.mean(), fooled(discriminator, restored)


@wrong(check.hinge, "you took the mean before the hinge")
def bends_the_mean(discriminator, restored, truth):
    real, fake = judged(discriminator, restored, truth)
    return F.relu(1 - real.mean()) + F.relu(1 + fake.mean()), fooled(discriminator, restored)


@wrong(check.hinge, "the margin is missing")
def has_no_margin(discriminator, restored, truth):
    real, fake = judged(discriminator, restored, truth)
    return F.relu(-real).mean() + F.relu(fake).mean(), fooled(discriminator, restored)


@wrong(check.hinge, "there is a 1/2 in front")
def halves_the_loss(discriminator, restored, truth):
    return hinges(discriminator, restored, truth) / 2, fooled(discriminator, restored)


@wrong(check.hinge, "half about the truth is missing")
def forgets_the_truth(discriminator, restored, truth):
    return F.relu(1 + discriminator(restored.detach())).mean(), fooled(discriminator, restored)


@wrong(check.hinge, "half about restored images is missing")
def forgets_the_restored(discriminator, restored, truth):
    return F.relu(1 - discriminator(truth)).mean(), fooled(discriminator, restored)


@wrong(check.hinge, "both halves of the discriminator's loss have 1 minus")
def treats_both_as_real(discriminator, restored, truth):
    return sum(F.relu(1 - s).mean() for s in judged(discriminator, restored, truth)), fooled(discriminator, restored)


@wrong(check.hinge, "both halves of the discriminator's loss have 1 plus")
def treats_both_as_restored(discriminator, restored, truth):
    return sum(F.relu(1 + s).mean() for s in judged(discriminator, restored, truth)), fooled(discriminator, restored)


@wrong(check.hinge, "the two halves of the discriminator's loss are added")
def subtracts_the_halves(discriminator, restored, truth):
    real, fake = judged(discriminator, restored, truth)
    return F.relu(1 - real).mean() - F.relu(1 + fake).mean(), fooled(discriminator, restored)


@wrong(check.hinge, "cross-entropy of the first GANs; the hinge")
def takes_the_cross_entropy(discriminator, restored, truth):
    real, fake = judged(discriminator, restored, truth)
    return F.softplus(-real).mean() + F.softplus(fake).mean(), fooled(discriminator, restored)


@wrong(check.hinge, "LSGAN")
def takes_the_squared_error(discriminator, restored, truth):
    real, fake = judged(discriminator, restored, truth)
    return (real - 1).square().mean() + fake.square().mean(), fooled(discriminator, restored)


@wrong(check.hinge, "the sign of the discriminator's loss is wrong")
def negates_the_hinges(discriminator, restored, truth):
    return -hinges(discriminator, restored, truth), fooled(discriminator, restored)


@wrong(check.hinge, "the discriminator's loss is summed")
def sums_the_patches(discriminator, restored, truth):
    real, fake = judged(discriminator, restored, truth)
    return F.relu(1 - real).sum() + F.relu(1 + fake).sum(), fooled(discriminator, restored)


@wrong(check.hinge, "average the discriminator's loss over all of them")
def keeps_the_discriminators_images(discriminator, restored, truth):
    return library.hinge_loss(discriminator, restored, truth), fooled(discriminator, restored)


@wrong(check.hinge, "the restorer's sign is wrong")
def wants_low_scores(discriminator, restored, truth):
    return hinges(discriminator, restored, truth), -fooled(discriminator, restored)


@wrong(check.hinge, "the restorer's loss has no hinge")
def bends_the_restorers_loss(discriminator, restored, truth):
    return hinges(discriminator, restored, truth), F.relu(1 - discriminator(restored)).mean()


@wrong(check.hinge, "that is the discriminator's half about restored images; the restorer")
def plays_the_discriminators_game(discriminator, restored, truth):
    return hinges(discriminator, restored, truth), F.relu(1 + discriminator(restored)).mean()


@wrong(check.hinge, "not by the truth")
def scores_the_truth(discriminator, restored, truth):
    return hinges(discriminator, restored, truth), fooled(discriminator, truth)


@wrong(check.hinge, "the truth has no part")
def compares_the_scores(discriminator, restored, truth):
    return hinges(discriminator, restored, truth), (discriminator(truth) - discriminator(restored)).mean()


@wrong(check.hinge, "cross-entropy of the first GANs; the restorer's")
def fools_by_cross_entropy(discriminator, restored, truth):
    return hinges(discriminator, restored, truth), F.softplus(-discriminator(restored)).mean()


@wrong(check.hinge, "is not minus the discriminator's")
def plays_zero_sum(discriminator, restored, truth):
    return hinges(discriminator, restored, truth), -hinges(discriminator, restored, truth)


@wrong(check.hinge, "the restorer's loss is summed")
def sums_the_restorers_patches(discriminator, restored, truth):
    return hinges(discriminator, restored, truth), -discriminator(restored).sum()


@wrong(check.hinge, "average the restorer's loss over all of them")
def keeps_the_restorers_images(discriminator, restored, truth):
    return hinges(discriminator, restored, truth), library.fooling_loss(discriminator, restored)


@wrong(check.hinge, "the two losses are swapped")
def returns_the_restorers_first(discriminator, restored, truth):
    return fooled(discriminator, restored), hinges(discriminator, restored, truth)


@wrong(check.hinge, "return two losses")
def adds_the_losses(discriminator, restored, truth):
    return hinges(discriminator, restored, truth) + fooled(discriminator, restored)


@wrong(check.hinge, "learn to *help* it")
def forgets_to_detach(discriminator, restored, truth):
    real, fake = discriminator(truth), discriminator(restored)
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean(), -fake.mean()


@wrong(check.hinge, "you detached the *score* of restored")
def detaches_the_score(discriminator, restored, truth):
    real, fake = discriminator(truth), discriminator(restored).detach()
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean(), fooled(discriminator, restored)


@wrong(check.hinge, "the score of the truth is detached")
def detaches_the_real_score(discriminator, restored, truth):
    real, fake = discriminator(truth).detach(), discriminator(restored.detach())
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean(), fooled(discriminator, restored)


@wrong(check.hinge, "the discriminator's loss has no gradient")
def judges_without_gradient(discriminator, restored, truth):
    with torch.no_grad():
        value = hinges(discriminator, restored, truth)
    return value, fooled(discriminator, restored)


@wrong(check.hinge, "the restorer's loss has no gradient by restored")
def uses_the_detached_score_twice(discriminator, restored, truth):
    return hinges(discriminator, restored, truth), -discriminator(restored.detach()).mean()


@wrong(check.hinge, "you froze the discriminator")
def freezes_the_discriminator(discriminator, restored, truth):
    value = hinges(discriminator, restored, truth)
    return value, fooled(discriminator.requires_grad_(False), restored)


@wrong(check.hinge, "you called .backward()")
def steps_by_itself(discriminator, restored, truth):
    value = hinges(discriminator, restored, truth)
    value.backward(retain_graph=True)
    return value, fooled(discriminator, restored)


@wrong(check.hinge, "itself, in place")
def detaches_in_place(discriminator, restored, truth):
    fooling = fooled(discriminator, restored)
    return hinges(discriminator, restored.detach_(), truth), fooling


@wrong(check.hinge, "returns nothing")
def plays_and_forgets(discriminator, restored, truth):
    hinges(discriminator, restored, truth), fooled(discriminator, restored)


def nearest(x, step):
    return (x / step).round() * step


@wrong(check.quantise, "that is x itself")
def subtracts_what_it_added(x, step):
    return x + nearest(x, step).detach() - nearest(x, step).detach()


@wrong(check.quantise, "those are the whole numbers")
def returns_the_symbols(x, step):
    return x / step + ((x / step).round() - x / step).detach()


@wrong(check.quantise, "whatever step is")
def ignores_the_step(x, step):
    return x + (x.round() - x).detach()


@wrong(check.quantise, "the other way round")
def multiplies_first(x, step):
    return x + ((x * step).round() / step - x).detach()


@wrong(check.quantise, "never multiplied again, or the reverse")
def forgets_to_divide(x, step):
    return x + (x.round() * step - x).detach()


@wrong(check.quantise, "floor")
def rounds_downwards(x, step):
    return x + ((x / step).floor() * step - x).detach()


@wrong(check.quantise, "ceil")
def rounds_upwards(x, step):
    return x + ((x / step).ceil() * step - x).detach()


@wrong(check.quantise, "cuts off")
def truncates(x, step):
    return x + ((x / step).int() * step - x).detach()


@wrong(check.quantise, "x is added twice")
def adds_the_rounded(x, step):
    return x + nearest(x, step).detach()


@wrong(check.quantise, "that is the rounding error")
def returns_the_rounding_error(x, step):
    return nearest(x, step).detach() - x


@wrong(check.quantise, "noise in the place of rounding")
def adds_noise(x, step):
    return x + step * (torch.rand_like(x) - 0.5)


@wrong(check.quantise, "the gradient is 0")
def only_rounds_the_latent(x, step):
    return nearest(x, step)


@wrong(check.quantise, "the gradient is 2")
def detaches_half_of_the_difference(x, step):
    return x + nearest(x, step).detach() - x.detach() + x - x.detach()


@wrong(check.quantise, "the gradient is -1")
def detaches_x_instead(x, step):
    return x.detach() + nearest(x, step) - x + (x - x.detach()) * 0


@wrong(check.quantise, "the gradient is step")
def scales_the_gradient(x, step):
    return step * x + (nearest(x, step) - step * x).detach()


@wrong(check.quantise, "the gradient is 1 / step")
def divides_the_gradient(x, step):
    return x / step + (nearest(x, step) - x / step).detach()


@wrong(check.quantise, "only some numbers have gradient 1")
def passes_only_the_small_ones(x, step):
    small = x.abs() < 2
    return torch.where(small, x + (nearest(x, step) - x).detach(), nearest(x, step))


@wrong(check.quantise, "it is 1, as if")
def passes_half(x, step):
    return x / 2 + (nearest(x, step) - x / 2).detach()


@wrong(check.quantise, "without a gradient")
def detaches_everything(x, step):
    return nearest(x, step).detach()


class SetsOnes(torch.autograd.Function):
    """Rounds; its backward pass forgets what comes from behind."""

    @staticmethod
    def forward(ctx, x, step):
        """Nearest multiples of step."""
        return nearest(x, step)

    @staticmethod
    def backward(ctx, behind):
        """Ones."""
        return torch.ones_like(behind), None


@wrong(check.quantise, "what comes from behind is lost")
def sets_the_gradient_to_one(x, step):
    return SetsOnes.apply(x, step)


@wrong(check.quantise, "in place")
def rounds_in_place(x, step):
    return x.div_(step).round_().mul_(step)


@wrong(check.quantise, "returns nothing")
def rounds_and_forgets(x, step):
    x + (nearest(x, step) - x).detach()


def probability(latent, mean, scale, below=0.5, above=0.5):
    mean, scale = (value.view(1, -1, 1, 1) if value.ndim == 1 else value for value in (mean, scale))
    value = latent - mean
    return ((value + above) / scale).sigmoid() - ((value - below) / scale).sigmoid()


def length(share):
    return -share.clamp_min(2**-30).log2().sum((1, 2, 3))


def pixels(size):
    return size[0] * size[1]


@wrong(check.bits_per_pixel, "those are nats")
def stays_in_nats(latent, mean, scale, size):
    return length(probability(latent, mean, scale)) * math.log(2) / pixels(size)


@wrong(check.bits_per_pixel, "logarithm to base 10")
def takes_base_ten(latent, mean, scale, size):
    return length(probability(latent, mean, scale)) * math.log10(2) / pixels(size)


@wrong(check.bits_per_pixel, "positions of the latent")
def divides_by_the_latents_positions(latent, mean, scale, size):
    return length(probability(latent, mean, scale)) / latent[0, 0].numel()


@wrong(check.bits_per_pixel, "bits per number of the latent")
def averages_over_the_latent(latent, mean, scale, size):
    return -probability(latent, mean, scale).clamp_min(2**-30).log2().mean((1, 2, 3))


@wrong(check.bits_per_pixel, "three colours")
def divides_by_the_colours(latent, mean, scale, size):
    return length(probability(latent, mean, scale)) / (3 * pixels(size))


@wrong(check.bits_per_pixel, "you forgot to divide")
def forgets_the_pixels(latent, mean, scale, size):
    return length(probability(latent, mean, scale))


@wrong(check.bits_per_pixel, "one channel's worth")
def averages_over_the_channels(latent, mean, scale, size):
    return length(probability(latent, mean, scale)) / latent.shape[1] / pixels(size)


@wrong(check.bits_per_pixel, "that is bytes")
def returns_bytes(latent, mean, scale, size):
    return length(probability(latent, mean, scale)) / 8 / pixels(size)


@wrong(check.bits_per_pixel, "not h + w")
def adds_the_sides(latent, mean, scale, size):
    return length(probability(latent, mean, scale)) / sum(size)


@wrong(check.bits_per_pixel, "the picture is not square")
def squares_the_height(latent, mean, scale, size):
    return length(probability(latent, mean, scale)) / size[0] ** 2


@wrong(check.bits_per_pixel, "need not be eight times as large")
def guesses_the_size(latent, mean, scale, size):
    return length(probability(latent, mean, scale)) / (64 * latent[0, 0].numel())


@wrong(check.bits_per_pixel, "neither squared nor under a root")
def takes_the_variance(latent, mean, scale, size):
    return length(probability(latent, mean, scale**2)) / pixels(size)


@wrong(check.bits_per_pixel, "you averaged them")
def averages_the_channels_distributions(latent, mean, scale, size):
    return length(probability(latent, mean.mean(), scale.mean())) / pixels(size)


@wrong(check.bits_per_pixel, "every picture got the same number")
def gives_every_picture_the_mean(latent, mean, scale, size):
    return length(probability(latent, mean, scale)).mean().expand(len(latent)) / pixels(size)


@wrong(check.bits_per_pixel, "the sign is wrong")
def forgets_the_sign(latent, mean, scale, size):
    return -length(probability(latent, mean, scale)) / pixels(size)


@wrong(check.bits_per_pixel, "logarithm of the density")
def takes_the_density(latent, mean, scale, size):
    value = (latent - mean.view(-1, 1, 1)) / scale.view(-1, 1, 1)
    return length(value.sigmoid() * (-value).sigmoid() / scale.view(-1, 1, 1)) / pixels(size)


@wrong(check.bits_per_pixel, "twice too wide")
def takes_two_steps(latent, mean, scale, size):
    return length(probability(latent, mean, scale, 1, 1)) / pixels(size)


@wrong(check.bits_per_pixel, "from k to k + 1")
def takes_the_step_above(latent, mean, scale, size):
    return length(probability(latent, mean, scale, 0, 1)) / pixels(size)


@wrong(check.bits_per_pixel, "from k - 1 to k")
def takes_the_step_below(latent, mean, scale, size):
    return length(probability(latent, mean, scale, 1, 0)) / pixels(size)


@wrong(check.bits_per_pixel, "of *at most* k + 1/2")
def forgets_to_subtract(latent, mean, scale, size):
    return length(((latent + 0.5 - mean.view(-1, 1, 1)) / scale.view(-1, 1, 1)).sigmoid()) / pixels(size)


@wrong(check.bits_per_pixel, "another axis")
def lets_it_broadcast(latent, mean, scale, size):
    return length(probability(latent, mean.view(1, 1, 1, -1), scale.view(1, 1, 1, -1))) / pixels(size)


@wrong(check.bits_per_pixel, "you multiplied by scale")
def multiplies_by_the_scale(latent, mean, scale, size):
    return length(probability(latent, mean, 1 / scale)) / pixels(size)


@wrong(check.bits_per_pixel, "the mean is missing")
def forgets_the_mean(latent, mean, scale, size):
    return length(probability(latent, 0 * mean, scale)) / pixels(size)


@wrong(check.bits_per_pixel, "the mean is added")
def adds_the_mean(latent, mean, scale, size):
    return length(probability(latent, -mean, scale)) / pixels(size)


@wrong(check.bits_per_pixel, "1/2 was added after")
def adds_the_half_too_late(latent, mean, scale, size):
    value = (latent - mean.view(-1, 1, 1)) / scale.view(-1, 1, 1)
    return length((value + 0.5).sigmoid() - (value - 0.5).sigmoid()) / pixels(size)


@wrong(check.bits_per_pixel, "normal distribution's")
def takes_a_normal_distribution(latent, mean, scale, size):
    normal = torch.distributions.Normal(mean.view(-1, 1, 1), scale.view(-1, 1, 1))
    return length(normal.cdf(latent + 0.5) - normal.cdf(latent - 0.5)) / pixels(size)


@wrong(check.bits_per_pixel, "p log p")
def takes_the_entropy(latent, mean, scale, size):
    share = probability(latent, mean, scale)
    return -(share * share.log2()).sum((1, 2, 3)) / pixels(size)


@wrong(check.bits_per_pixel, "you averaged over the pictures")
def averages_the_pictures(latent, mean, scale, size):
    return length(probability(latent, mean, scale)).mean() / pixels(size)


@wrong(check.bits_per_pixel, "the logarithm of a sum")
def takes_the_logarithm_of_the_sum(latent, mean, scale, size):
    return -probability(latent, mean, scale).sum((1, 2, 3)).log2() / pixels(size)


@wrong(check.bits_per_pixel, "right, but inf")
def never_clamps(latent, mean, scale, size):
    return -probability(latent, mean, scale).log2().sum((1, 2, 3)) / pixels(size)


@wrong(check.bits_per_pixel, "the *probability* is at least")
def clamps_too_early(latent, mean, scale, size):
    return -probability(latent, mean, scale).clamp_min(1e-7).log2().sum((1, 2, 3)) / pixels(size)


@wrong(check.bits_per_pixel, "without a gradient")
def has_no_gradient_at_all(latent, mean, scale, size):
    return length(probability(latent, mean, scale)).detach() / pixels(size)


@wrong(check.bits_per_pixel, "the gradient by scale is not")
def detaches_the_scale(latent, mean, scale, size):
    return length(probability(latent, mean, scale.detach() + 0 * scale)) / pixels(size)


@wrong(check.bits_per_pixel, "the gradient by latent is not")
def rounds_the_latent_again(latent, mean, scale, size):
    return length(probability(latent.round() + 0 * latent, mean, scale)) / pixels(size)


@wrong(check.bits_per_pixel, "in place")
def centres_in_place(latent, mean, scale, size):
    return length(probability(latent.sub_(mean.view(-1, 1, 1)), 0 * mean, scale)) / pixels(size)


@wrong(check.bits_per_pixel, "returns nothing")
def measures_and_forgets(latent, mean, scale, size):
    length(probability(latent, mean, scale)) / pixels(size)


def starts(length, tile, step):
    last = max(length - tile, 0)
    return [*range(0, last, step), last]


def ramp(begin, side, length, overlap):
    place = torch.arange(side)
    weight = torch.ones(side)
    if begin > 0:
        weight = weight * ((place + 1) / (overlap + 1)).clamp(max=1)
    if begin + side < length:
        weight = weight * ((side - place) / (overlap + 1)).clamp(max=1)
    return weight


def tiles(restore, picture, tile, overlap, begins=None, weigh=ramp, divide=True):
    height, width = picture.shape[2:]
    begins = begins or (lambda length: starts(length, tile, tile - overlap))
    result, total = torch.zeros_like(picture), torch.zeros(height, width)
    for top in begins(height):
        for left in begins(width):
            piece = restore(picture[:, :, top : top + tile, left : left + tile])
            h, w = piece.shape[2:]
            weight = weigh(top, h, height, overlap)[:, None] * weigh(left, w, width, overlap)
            result[:, :, top : top + h, left : left + w] += weight * piece
            total[top : top + h, left : left + w] += weight
    return result / total if divide else result


def evenly(begin, side, length, overlap):
    return torch.ones(side)


@wrong(check.tiled, "the last rows and columns are missing")
def forgets_the_last_tiles(restore, picture, tile, overlap):
    height, width = picture.shape[2:]
    result, total = torch.zeros_like(picture), torch.zeros(height, width)
    for top in range(0, height - tile + 1, tile - overlap):
        for left in range(0, width - tile + 1, tile - overlap):
            where = (..., slice(top, top + tile), slice(left, left + tile))
            result[where] += restore(picture[where])
            total[where[1:]] += 1
    return result / total.clamp_min(1)


@wrong(check.tiled, "the last columns are missing")
def forgets_the_last_columns(restore, picture, tile, overlap):
    short = picture[..., : picture.shape[3] // (tile - overlap) * (tile - overlap) - overlap]
    return F.pad(tiles(restore, short, tile, overlap), (0, picture.shape[3] - short.shape[3]))


@wrong(check.tiled, "NaN, which is 0 / 0")
def divides_by_no_weight(restore, picture, tile, overlap):
    def triangle(begin, side, length, overlap):
        return torch.minimum(torch.arange(side), torch.arange(side).flip(0)) / overlap

    return tiles(restore, picture, tile, overlap, weigh=triangle)


@wrong(check.tiled, "no tile covers some pixels")
def steps_too_far(restore, picture, tile, overlap):
    result = torch.zeros_like(picture)
    for top in starts(picture.shape[2], tile, tile + overlap):
        for left in starts(picture.shape[3], tile, tile + overlap):
            where = (..., slice(top, top + tile), slice(left, left + tile))
            result[where] = restore(picture[where])
    return result


@wrong(check.tiled, "counted several times")
def forgets_to_normalise(restore, picture, tile, overlap):
    return tiles(restore, picture, tile, overlap, weigh=evenly, divide=False)


@wrong(check.tiled, "too dark towards the borders")
def darkens_the_borders(restore, picture, tile, overlap):
    def hann(begin, side, length, overlap):
        return torch.hann_window(side + 2)[1:-1] / 2

    return tiles(restore, picture, tile, overlap, weigh=hann, divide=False)


@wrong(check.tiled, "a tile is elsewhere")
def pastes_one_pixel_off(restore, picture, tile, overlap):
    return tiles(lambda piece: restore(piece).roll(1, 3), picture, tile, overlap)


@wrong(check.tiled, "a tile has at most 24")
def restores_the_whole_picture(restore, picture, tile, overlap):
    return restore(picture)


@wrong(check.tiled, "restore was given 40 pixels")
def adds_the_overlap_to_the_tile(restore, picture, tile, overlap):
    return tiles(restore, picture, tile + 2 * overlap, overlap)


@wrong(check.tiled, "share 0 pixels")
def has_no_overlap(restore, picture, tile, overlap):
    return tiles(restore, picture, tile, 0)


@wrong(check.tiled, "share 4 pixels")
def overlaps_by_half(restore, picture, tile, overlap):
    return tiles(restore, picture, tile, overlap // 2)


@wrong(check.tiled, "suffice")
def steps_by_the_overlap(restore, picture, tile, overlap):
    return tiles(restore, picture, tile, overlap, lambda length: starts(length, tile, overlap or tile))


@wrong(check.tiled, "a later tile overwrites")
def overwrites(restore, picture, tile, overlap):
    result = torch.zeros_like(picture)
    for top in starts(picture.shape[2], tile, tile - overlap):
        for left in starts(picture.shape[3], tile, tile - overlap):
            where = (..., slice(top, top + tile), slice(left, left + tile))
            result[where] = restore(picture[where])
    return result


@wrong(check.tiled, "half a seam from tile to tile downwards")
def averages_the_overlap(restore, picture, tile, overlap):
    return tiles(restore, picture, tile, overlap, weigh=evenly)


@wrong(check.tiled, "half a seam from tile to tile to the right")
def blends_downwards_only(restore, picture, tile, overlap):
    def downwards(begin, side, length, overlap):
        return ramp(begin, side, length, overlap) if length == picture.shape[2] else torch.ones(side)

    return tiles(restore, picture, tile, overlap, weigh=downwards)


@wrong(check.tiled, "there is still a seam")
def falls_to_one_third(restore, picture, tile, overlap):
    def short(begin, side, length, overlap):
        return ramp(begin, side, length, overlap).clamp_min(0.5)

    return tiles(restore, picture, tile, overlap, weigh=short)


@wrong(check.tiled, "do not fall linearly")
def falls_like_a_cosine(restore, picture, tile, overlap):
    def smooth(begin, side, length, overlap):
        return (ramp(begin, side, length, overlap) * torch.pi / 2).sin().square()

    return tiles(restore, picture, tile, overlap, weigh=smooth)


@wrong(check.tiled, "do not fall linearly")
def weighs_twice(restore, picture, tile, overlap):
    return tiles(restore, picture, tile, overlap, weigh=lambda *place: ramp(*place).square())


@wrong(check.tiled, "not with one pixel of overlap: NaN")
def falls_to_zero(restore, picture, tile, overlap):
    def from_zero(begin, side, length, overlap):
        weight = torch.ones(side)
        if begin > 0:
            weight[:overlap] *= torch.linspace(0, 1, overlap)
        if begin + side < length:
            weight[side - overlap :] *= torch.linspace(1, 0, overlap) if overlap > 1 else 0
        return weight

    return tiles(restore, picture, tile, overlap, weigh=from_zero)


@wrong(check.tiled, "no part of the picture; pad nothing")
def pads_the_picture(restore, picture, tile, overlap):
    height, width = picture.shape[2:]
    step = tile - overlap
    below, right = (max(tile, tile + -(-(side - tile) // step) * step) - side for side in (height, width))
    return tiles(restore, F.pad(picture, (0, right, 0, below)), tile, overlap)[..., :height, :width]


@wrong(check.tiled, "not for a picture that is lower than a tile: restore was given something")
def pads_small_pictures(restore, picture, tile, overlap):
    def padded(piece):
        height, width = piece.shape[2:]
        return restore(F.pad(piece, (0, tile - width, 0, tile - height)))[..., :height, :width]

    return tiles(padded, picture, tile, overlap)


@wrong(check.tiled, "changed pixels")
def weighs_before_restoring(restore, picture, tile, overlap):
    def fades(piece):
        weight = torch.ones_like(piece)
        weight[..., 0, :] = 0.5
        return restore(piece * weight) / weight

    return tiles(fades, picture, tile, overlap)


@wrong(check.tiled, "came out as the first one")
def restores_the_first_image(restore, picture, tile, overlap):
    return tiles(lambda piece: restore(piece[:1]).expand_as(piece), picture, tile, overlap)


@wrong(check.tiled, "you clamped the result")
def clamps_the_result(restore, picture, tile, overlap):
    return tiles(restore, picture, tile, overlap).clamp(0, 1)


@wrong(check.tiled, "not for a picture that is lower than a tile")
def needs_a_full_tile(restore, picture, tile, overlap):
    if picture.shape[2] < tile:
        return F.pad(tiles(restore, picture[..., :tile], tile, overlap), (0, picture.shape[3] - tile))
    return tiles(restore, picture, tile, overlap)


@wrong(check.tiled, "not for a picture that fits a tile")
def refuses_small_pictures(restore, picture, tile, overlap):
    if picture.shape[3] < tile:
        raise ValueError("too small")
    return tiles(restore, picture, tile, overlap)


@wrong(check.tiled, "not without overlap")
def divides_by_the_overlap(restore, picture, tile, overlap):
    def plain(begin, side, length, overlap):
        weight = ramp(begin, side, length, overlap)
        return weight * (overlap / torch.tensor(float(overlap)))

    return tiles(restore, picture, tile, overlap, weigh=plain)


@wrong(check.tiled, "takes one call")
def always_makes_four(restore, picture, tile, overlap):
    if picture.shape[2] < tile and picture.shape[3] < tile:
        restore(picture[:, :, :5])
    return tiles(restore, picture, tile, overlap)


@wrong(check.tiled, "you wrote into the picture")
def writes_into_the_picture(restore, picture, tile, overlap):
    return picture.copy_(tiles(restore, picture, tile, overlap)).mul_(1.0001)


@wrong(check.tiled, "you never called restore")
def restores_nothing(restore, picture, tile, overlap):
    return picture.clone()


@wrong(check.tiled, "shape")
def restores_one_image(restore, picture, tile, overlap):
    return tiles(restore, picture[:1], tile, overlap)


@wrong(check.tiled, "returns nothing")
def tiles_and_forgets(restore, picture, tile, overlap):
    tiles(restore, picture, tile, overlap)


@functools.cache
def lpips():
    return LPIPS()


@wrong(check.sharp_loss, "reach 0.24 at most")
def only_squares(restored, truth):
    return library.l2(restored, truth)


@wrong(check.sharp_loss, "too much is made up")
def trusts_lpips_alone(restored, truth):
    return library.clamped(lpips())(restored, truth)


@wrong(check.sharp_loss, "clamp them for it")
def forgets_to_clamp(restored, truth):
    return lpips()(restored, truth)


@wrong(check.sharp_loss, "the loss is inf at step 0")
def divides_by_the_batch(restored, truth):
    return library.l1(restored, truth) / (4 - len(truth))


@wrong(check.sharp_loss, "in place")
def clamps_in_place(restored, truth):
    return library.l1(restored.clamp_(0, 1), truth)


@wrong(check.sharp_loss, "one number per image")
def averages_the_losses(restored, truth):
    return library.l1(restored, truth).mean()


@wrong(check.sharp_loss, "no .detach()")
def detaches_the_loss(restored, truth):
    return library.l1(restored, truth).detach()


@wrong(check.sharp_loss, "it does not depend on it")
def looks_at_the_truth(restored, truth):
    return library.l1(truth, truth) + 0 * restored.sum()


@wrong(check.sharp_loss, "gradient that is NaN")
def takes_the_root_of_zero(restored, truth):
    return (restored - restored.detach()).square().mean((1, 2, 3)).sqrt()


@wrong(check.sharp_loss, "does not see colours")
def looks_at_grey(restored, truth):
    return (restored.mean(1) - truth.mean(1)).square().mean((1, 2))


@wrong(check.sharp_loss, "returns nothing")
def measures_the_loss_and_forgets(restored, truth):
    library.l1(restored, truth)
