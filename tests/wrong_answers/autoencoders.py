"""Wrong answers to chapter 01's exercises."""

import math
from functools import partial

import torch
from torch import nn

from course_lib import autoencoders as library
from course_lib.checks import autoencoders as check
from tests.wrong_answers import wrong


@wrong(check.tied, "the decoder's weight is not transposed")
def decodes_with_the_encoders_product(x, weight, bias, out_bias):
    return (x @ weight.T + bias).sigmoid() @ weight.T + out_bias


@wrong(check.tied, "the encoder's weight is not transposed")
def encodes_without_transposing(x, weight, bias, out_bias):
    return (x @ weight + bias).sigmoid() @ weight.T + out_bias


@wrong(check.tied, "encoder's bias b again")
def reuses_the_bias(x, weight, bias, out_bias):
    return (x @ weight.T + bias).sigmoid() @ weight + bias


@wrong(check.tied, "both biases")
def adds_both_biases(x, weight, bias, out_bias):
    return (x @ weight.T + bias).sigmoid() @ weight + bias + out_bias


@wrong(check.tied, "b and c are swapped")
def swaps_the_biases(x, weight, bias, out_bias):
    return (x @ weight.T + out_bias).sigmoid() @ weight + bias


@wrong(check.tied, "the output is linear")
def activates_the_output(x, weight, bias, out_bias):
    return ((x @ weight.T + bias).sigmoid() @ weight + out_bias).sigmoid()


@wrong(check.tied, "missing from the code")
def forgets_the_sigmoid(x, weight, bias, out_bias):
    return (x @ weight.T + bias) @ weight + out_bias


@wrong(check.tied, "comes after the bias")
def adds_the_bias_too_late(x, weight, bias, out_bias):
    return ((x @ weight.T).sigmoid() + bias) @ weight + out_bias


@wrong(check.tied, "the encoder's bias is missing")
def forgets_the_encoders_bias(x, weight, bias, out_bias):
    return (x @ weight.T).sigmoid() @ weight + out_bias


@wrong(check.tied, "the decoder's bias is missing")
def forgets_the_decoders_bias(x, weight, bias, out_bias):
    return (x @ weight.T + bias).sigmoid() @ weight


@wrong(check.tied, "the bias is added")
def subtracts_the_bias(x, weight, bias, out_bias):
    return (x @ weight.T - bias).sigmoid() @ weight + out_bias


@wrong(check.tied, "you subtracted b from the code")
def undoes_the_bias(x, weight, bias, out_bias):
    return ((x @ weight.T + bias).sigmoid() - bias) @ weight + out_bias


@wrong(check.tied, "not inverted")
def inverts_the_weight(x, weight, bias, out_bias):
    return (x @ weight.T + bias).sigmoid() @ torch.linalg.pinv(weight).T + out_bias


@wrong(check.tied, "with tanh")
def uses_tanh(x, weight, bias, out_bias):
    return (x @ weight.T + bias).tanh() @ weight + out_bias


@wrong(check.tied, "with relu")
def uses_relu(x, weight, bias, out_bias):
    return (x @ weight.T + bias).relu() @ weight + out_bias


@wrong(check.tied, "nothing is clamped")
def clamps_the_reconstruction(x, weight, bias, out_bias):
    return ((x @ weight.T + bias).sigmoid() @ weight + out_bias).clamp(0, 1)


@wrong(check.tied, "you return the code")
def only_encodes(x, weight, bias, out_bias):
    return (x @ weight.T + bias).sigmoid()


@wrong(check.tied, "in place")
def overwrites_the_images(x, weight, bias, out_bias):
    code = (x @ weight.T + bias).sigmoid()
    return torch.add(code @ weight, out_bias, out=x)


@wrong(check.tied, "decoder's weight is a copy without gradient")
def detaches_the_decoder(x, weight, bias, out_bias):
    return (x @ weight.T + bias).sigmoid() @ weight.detach() + out_bias


@wrong(check.tied, "encoder's weight is a copy without gradient")
def detaches_the_encoder(x, weight, bias, out_bias):
    return (x @ weight.T.detach() + bias).sigmoid() @ weight + out_bias


@wrong(check.tied, "without a gradient")
def reconstructs_without_gradient(x, weight, bias, out_bias):
    with torch.no_grad():
        return (x @ weight.T + bias).sigmoid() @ weight + out_bias


@wrong(check.tied, "returns nothing")
def forgets_to_return(x, weight, bias, out_bias):
    (x @ weight.T + bias).sigmoid() @ weight + out_bias


def kl(p, q):
    return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()


def share(code):
    return code.mean(0).clamp(1e-7, 1 - 1e-7)


@wrong(check.kl_sparsity, "arguments are swapped")
def swaps_the_arguments(code, rho):
    return kl(share(code), rho).sum()


@wrong(check.kl_sparsity, "KL of every single activation")
def averages_after_the_divergence(code, rho):
    return kl(rho, code).mean(0).sum()


@wrong(check.kl_sparsity, "you averaged over the units as well")
def averages_the_units(code, rho):
    return kl(rho, share(code)).mean()


@wrong(check.kl_sparsity, "over the units of each image")
def averages_over_the_wrong_axis(code, rho):
    return kl(rho, code.mean(1)).sum()


@wrong(check.kl_sparsity, "one mean over everything")
def averages_everything(code, rho):
    return kl(rho, code.mean()) * code.shape[1]


@wrong(check.kl_sparsity, "only half of it: units that are *off*")
def forgets_the_second_term(code, rho):
    return (rho * (rho / share(code)).log()).sum()


@wrong(check.kl_sparsity, "only the half of the units that are off")
def forgets_the_first_term(code, rho):
    return ((1 - rho) * ((1 - rho) / (1 - share(code))).log()).sum()


@wrong(check.kl_sparsity, "the two terms are added")
def subtracts_the_second_term(code, rho):
    mean = share(code)
    return (rho * (rho / mean).log() - (1 - rho) * ((1 - rho) / (1 - mean)).log()).sum()


@wrong(check.kl_sparsity, "the sign is wrong")
def turns_the_ratios_over(code, rho):
    mean = share(code)
    return (rho * (mean / rho).log() + (1 - rho) * ((1 - mean) / (1 - rho)).log()).sum()


@wrong(check.kl_sparsity, "in bits")
def uses_bits(code, rho):
    return kl(rho, share(code)).sum() / math.log(2)


@wrong(check.kl_sparsity, "cross-entropy")
def forgets_the_entropy(code, rho):
    mean = share(code)
    return nn.functional.binary_cross_entropy(mean, torch.full_like(mean, rho), reduction="sum")


@wrong(check.kl_sparsity, "squared difference")
def squares_the_difference(code, rho):
    return (code.mean(0) - rho).square().sum()


@wrong(check.kl_sparsity, "that is L1 sparsity")
def penalises_the_size(code, rho):
    return code.abs().sum(1).mean()


@wrong(check.kl_sparsity, "one number for every unit")
def returns_every_unit(code, rho):
    return kl(rho, share(code))


@wrong(check.kl_sparsity, "rho_hat is the *mean*")
def sums_the_batch(code, rho):
    return kl(rho, code.sum(0)).sum()


@wrong(check.kl_sparsity, "inside the logarithm")
def forgets_the_logarithm(code, rho):
    mean = share(code)
    return (rho * (rho / mean) + (1 - rho) * ((1 - rho) / (1 - mean))).sum()


@wrong(check.kl_sparsity, "divided by the images once more")
def divides_by_the_images(code, rho):
    return kl(rho, share(code)).sum() / len(code)


@wrong(check.kl_sparsity, "0.05, whatever rho is")
def ignores_rho(code, rho):
    return kl(0.05, share(code)).sum()


@wrong(check.kl_sparsity, "where a unit is never on")
def never_clamps(code, rho):
    return kl(rho, code.mean(0)).sum()


@wrong(check.kl_sparsity, "1 - 1e-12 is 1 in float32")
def clamps_only_below(code, rho):
    return kl(rho, code.mean(0).clamp(1e-7, 1 - 1e-12)).sum()


@wrong(check.kl_sparsity, "pays too little")
def clamps_too_early(code, rho):
    return kl(rho, code.mean(0).clamp(0.01, 0.99)).sum()


@wrong(check.kl_sparsity, "right, but 0.")
def ignores_dead_units(code, rho):
    return kl(rho, code.mean(0)).nan_to_num(posinf=0).sum()


@wrong(check.kl_sparsity, "right, but 3.4e+38 where a unit is never on")
def makes_infinity_finite(code, rho):
    return kl(rho, code.mean(0)).nan_to_num().sum()


@wrong(check.kl_sparsity, "clamp rho_hat *before* the logarithms")
def clamps_the_result(code, rho):
    mean = code.mean(0)
    return torch.where((mean > 0) & (mean < 1), kl(rho, mean), kl(rho, share(code).detach())).sum()


@wrong(check.kl_sparsity, "without a gradient")
def computes_in_numpy(code, rho):
    return kl(rho, share(code.detach())).sum()


@wrong(check.kl_sparsity, "in place")
def clamps_in_place(code, rho):
    return kl(rho, code.clamp_(1e-3, 0.6).mean(0)).sum()


def encode(x, weight, bias):
    return (x @ weight.T + bias).sigmoid()


def slope(code):
    return code * (1 - code)


@wrong(check.contractive, "wrong axis of W")
def sums_the_columns(x, weight, bias):
    return (slope(encode(x, weight, bias)).square() @ weight.square().sum(0)).mean()


@wrong(check.contractive, "h (1 - h) is not squared")
def forgets_to_square_the_slope(x, weight, bias):
    return (slope(encode(x, weight, bias)) @ weight.square().sum(1)).mean()


@wrong(check.contractive, "the weights are not squared")
def forgets_to_square_the_weights(x, weight, bias):
    return (slope(encode(x, weight, bias)).square() @ weight.norm(dim=1)).mean()


@wrong(check.contractive, "nothing is squared")
def squares_nothing(x, weight, bias):
    return (slope(encode(x, weight, bias)) @ weight.norm(dim=1)).mean()


@wrong(check.contractive, "derivative of tanh")
def takes_the_slope_of_tanh(x, weight, bias):
    return ((1 - encode(x, weight, bias) ** 2).square() @ weight.square().sum(1)).mean()


@wrong(check.contractive, "you put W x + b into")
def uses_the_pre_activation(x, weight, bias):
    return (slope(x @ weight.T + bias).square() @ weight.square().sum(1)).mean()


@wrong(check.contractive, "through another sigmoid")
def activates_twice(x, weight, bias):
    return (slope(encode(x, weight, bias).sigmoid()).square() @ weight.square().sum(1)).mean()


@wrong(check.contractive, "the (1 - h) is missing")
def takes_the_code_for_its_slope(x, weight, bias):
    return (encode(x, weight, bias).square() @ weight.square().sum(1)).mean()


@wrong(check.contractive, "the h is missing")
def takes_the_rest_for_the_slope(x, weight, bias):
    return ((1 - encode(x, weight, bias)).square() @ weight.square().sum(1)).mean()


@wrong(check.contractive, "you averaged over the units")
def averages_over_the_units(x, weight, bias):
    return (slope(encode(x, weight, bias)).square() * weight.square().sum(1)).mean()


@wrong(check.contractive, "you summed over the images")
def sums_the_images(x, weight, bias):
    return (slope(encode(x, weight, bias)).square() @ weight.square().sum(1)).sum()


@wrong(check.contractive, "before squaring: the mean comes last")
def averages_the_slopes(x, weight, bias):
    return slope(encode(x, weight, bias)).mean(0).square() @ weight.square().sum(1)


@wrong(check.contractive, "before the slope was taken")
def averages_the_codes(x, weight, bias):
    return slope(encode(x, weight, bias).mean(0)).square() @ weight.square().sum(1)


@wrong(check.contractive, "every unit pays for all of W")
def sums_all_weights(x, weight, bias):
    return (slope(encode(x, weight, bias)).square().sum(1) * weight.square().sum()).mean()


@wrong(check.contractive, "that is the norm")
def takes_a_root(x, weight, bias):
    return (slope(encode(x, weight, bias)).square() @ weight.square().sum(1)).sqrt().mean()


@wrong(check.contractive, "before the sum over the units, not after")
def squares_the_sum(x, weight, bias):
    return (slope(encode(x, weight, bias)) @ weight.square().sum(1)).square().mean()


@wrong(check.contractive, "square each entry, then sum")
def lets_the_entries_cancel(x, weight, bias):
    return (slope(encode(x, weight, bias)) @ weight).square().sum(1).mean()


@wrong(check.contractive, "weight decay")
def decays_weights(x, weight, bias):
    return weight.square().sum()


@wrong(check.contractive, "the bias is missing")
def forgets_the_bias(x, weight, bias):
    return (slope((x @ weight.T).sigmoid()).square() @ weight.square().sum(1)).mean()


@wrong(check.contractive, "the encoder's weight is not transposed")
def forgets_to_transpose(x, weight, bias):
    return (slope((x @ weight + bias).sigmoid()).square() @ weight.square().sum(1)).mean()


@wrong(check.contractive, "one number for every image")
def returns_every_image(x, weight, bias):
    return slope(encode(x, weight, bias)).square() @ weight.square().sum(1)


@wrong(check.contractive, "the code is detached")
def detaches_the_code(x, weight, bias):
    return (slope(encode(x, weight, bias).detach()).square() @ weight.square().sum(1)).mean()


@wrong(check.contractive, "lengths are detached")
def detaches_the_lengths(x, weight, bias):
    return (slope(encode(x, weight, bias)).square() @ weight.detach().square().sum(1)).mean()


@wrong(check.contractive, "without a gradient")
def detaches_everything(x, weight, bias):
    return (slope(encode(x, weight, bias)).square() @ weight.square().sum(1)).mean().detach()


@wrong(check.contractive, "is a part of it detached?")
def scales_its_gradient(x, weight, bias):
    value = (slope(encode(x, weight, bias)).square() @ weight.square().sum(1)).mean()
    return 2 * value - value.detach()


def gauss(images, sigma, generator):
    return sigma * torch.randn(images.shape, generator=generator)


def error(y, x):
    return (y - x).square().sum((1, 2, 3)).mean()


def noisy_in_training(model, images, noise):
    return images + noise if model.training else images


@wrong(check.denoising_loss, "the target is noisy")
def aims_at_the_noisy_image(model, images, sigma, generator):
    noisy = images + gauss(images, sigma, generator)
    return error(model(noisy), noisy)


@wrong(check.denoising_loss, "added to the target as well")
def adds_noise_to_the_target_too(model, images, sigma, generator):
    noisy = images + gauss(images, sigma, generator)
    return error(model(noisy), images + gauss(images, sigma, generator))


@wrong(check.denoising_loss, "the model sees clean images")
def aims_from_clean_to_noisy(model, images, sigma, generator):
    return error(model(images), images + gauss(images, sigma, generator))


@wrong(check.denoising_loss, "in evaluation mode")
def adds_noise_in_evaluation(model, images, sigma, generator):
    return error(model(images + gauss(images, sigma, generator)), images)


@wrong(check.denoising_loss, "were clamped")
def clamps_the_noisy_images(model, images, sigma, generator):
    return error(model((images + gauss(images, sigma, generator)).clamp(0, 1)), images)


@wrong(check.denoising_loss, "never negative")
def draws_uniform_noise(model, images, sigma, generator):
    return error(model(images + sigma * torch.rand(images.shape, generator=generator)), images)


@wrong(check.denoising_loss, "the noise is uniform; Gaussian")
def draws_symmetric_uniform_noise(model, images, sigma, generator):
    noise = 12**0.5 * sigma * (torch.rand(images.shape, generator=generator) - 0.5)
    return error(model(images + noise), images)


@wrong(check.denoising_loss, "has standard deviation 1")
def forgets_sigma(model, images, sigma, generator):
    return error(model(images + gauss(images, 1, generator)), images)


@wrong(check.denoising_loss, "no square")
def squares_sigma(model, images, sigma, generator):
    return error(model(images + gauss(images, sigma**2, generator)), images)


@wrong(check.denoising_loss, "no root")
def takes_the_root_of_sigma(model, images, sigma, generator):
    return error(model(images + gauss(images, sigma**0.5, generator)), images)


@wrong(check.denoising_loss, "the noise has mean")
def shifts_the_noise(model, images, sigma, generator):
    return error(model(images + gauss(images, sigma, generator) + 0.1), images)


@wrong(check.denoising_loss, "and sigma is 0.3")
def doubles_the_noise(model, images, sigma, generator):
    return error(model(images + gauss(images, 2 * sigma, generator)), images)


@wrong(check.denoising_loss, "every image got the same noise")
def draws_noise_once(model, images, sigma, generator):
    return error(model(images + gauss(images[:1], sigma, generator)), images)


@wrong(check.denoising_loss, "every channel got the same noise")
def draws_noise_for_one_channel(model, images, sigma, generator):
    return error(model(images + gauss(images[:, :1], sigma, generator)), images)


@wrong(check.denoising_loss, "the noise grows with the pixel")
def multiplies_with_the_noise(model, images, sigma, generator):
    return error(model(images + images * gauss(images, sigma, generator)), images)


@wrong(check.denoising_loss, "every pixel of an image")
def draws_one_number_per_image(model, images, sigma, generator):
    # many images would be needed for a sample of the right size, so the sample is standardised
    noise = gauss(images[:, :, :1, :1], 1, generator)
    return error(model(images + sigma * (noise - noise.mean()) / noise.std(correction=0)), images)


@wrong(check.denoising_loss, "does not follow the generator")
def ignores_the_generator(model, images, sigma, generator):
    torch.manual_seed(int(torch.randint(1000, (), dtype=torch.int64)) + 1)
    return error(model(images + sigma * torch.randn_like(images)), images)


@wrong(check.denoising_loss, "every seed gives the same noise")
def seeds_again(model, images, sigma, generator):
    return error(model(images + gauss(images, sigma, generator.manual_seed(0))), images)


@wrong(check.denoising_loss, "that compares with the clean image's reconstruction")
def compares_two_outputs(model, images, sigma, generator):
    y = model(images + gauss(images, sigma, generator))
    return error(y, images @ model.mix)


@wrong(check.denoising_loss, "you called the model 2 times")
def compares_two_calls(model, images, sigma, generator):
    return error(model(images + gauss(images, sigma, generator)), model(images))


@wrong(check.denoising_loss, "you never called the model")
def never_calls_the_model(model, images, sigma, generator):
    return error(images + gauss(images, sigma, generator), images)


@wrong(check.denoising_loss, "the model's output is missing")
def compares_input_and_target(model, images, sigma, generator):
    noisy = images + gauss(images, sigma, generator)
    model(noisy)
    return error(noisy, images)


@wrong(check.denoising_loss, "you averaged over the pixels")
def averages_pixels(model, images, sigma, generator):
    return nn.functional.mse_loss(model(images + gauss(images, sigma, generator)), images)


@wrong(check.denoising_loss, "you averaged over the channels")
def averages_channels(model, images, sigma, generator):
    return (model(images + gauss(images, sigma, generator)) - images).square().sum((2, 3)).mean()


@wrong(check.denoising_loss, "you summed over the images")
def sums_images(model, images, sigma, generator):
    return (model(images + gauss(images, sigma, generator)) - images).square().sum()


@wrong(check.denoising_loss, "the square is missing")
def forgets_the_square(model, images, sigma, generator):
    return (model(images + gauss(images, sigma, generator)) - images).abs().sum((1, 2, 3)).mean()


@wrong(check.denoising_loss, "length of the difference")
def takes_the_length(model, images, sigma, generator):
    return (model(images + gauss(images, sigma, generator)) - images).flatten(1).norm(dim=1).mean()


@wrong(check.denoising_loss, "there is a 1/2")
def halves_the_error(model, images, sigma, generator):
    return error(model(images + gauss(images, sigma, generator)), images) / 2


@wrong(check.denoising_loss, "one number for every image")
def keeps_the_images_apart(model, images, sigma, generator):
    return (model(images + gauss(images, sigma, generator)) - images).square().sum((1, 2, 3))


@wrong(check.denoising_loss, "in place")
def adds_noise_in_place(model, images, sigma, generator):
    images += gauss(images, sigma, generator)
    return error(model(images), images)


@wrong(check.denoising_loss, "without a gradient")
def detaches_the_output(model, images, sigma, generator):
    seen = noisy_in_training(model, images, gauss(images, sigma, generator))
    return error(model(seen).detach(), images)


@wrong(check.denoising_loss, "back into training mode")
def switches_to_training(model, images, sigma, generator):
    seen = noisy_in_training(model, images, gauss(images, sigma, generator))
    model.train()
    return error(model(seen), images)


@wrong(check.denoising_loss, "returns a float")
def returns_a_float(model, images, sigma, generator):
    return error(model(images + gauss(images, sigma, generator)), images).item()


@wrong(check.denoising_loss, "returns nothing")
def trains_nothing(model, images, sigma, generator):
    error(model(images + gauss(images, sigma, generator)), images)


def moments(gradient, memory, beta1, beta2):
    """Counts the step, and returns t, m and v, which are kept."""
    t = memory["t"] = memory.get("t", 0) + 1
    m = memory["m"] = beta1 * memory.get("m", 0) + (1 - beta1) * gradient
    v = memory["v"] = beta2 * memory.get("v", 0) + (1 - beta2) * gradient**2
    return t, m, v


def right_step(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    t, m, v = moments(gradient, memory, beta1, beta2)
    return weight * (1 - lr * decay) - lr * m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps)


@wrong(check.adamw_step, "the bias correction is missing")
def forgets_the_bias_correction(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    _, m, v = moments(gradient, memory, beta1, beta2)
    return weight * (1 - lr * decay) - lr * m / (v.sqrt() + eps)


@wrong(check.adamw_step, "only v is corrected")
def corrects_only_v(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    t, m, v = moments(gradient, memory, beta1, beta2)
    return weight * (1 - lr * decay) - lr * m / ((v / (1 - beta2**t)).sqrt() + eps)


@wrong(check.adamw_step, "only m is corrected")
def corrects_only_m(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    t, m, v = moments(gradient, memory, beta1, beta2)
    return weight * (1 - lr * decay) - lr * m / (1 - beta1**t) / (v.sqrt() + eps)


@wrong(check.adamw_step, "eps is inside the root")
def adds_eps_inside_the_root(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    t, m, v = moments(gradient, memory, beta1, beta2)
    return weight * (1 - lr * decay) - lr * m / (1 - beta1**t) / (v / (1 - beta2**t) + eps).sqrt()


@wrong(check.adamw_step, "eps is added before the bias correction")
def adds_eps_before_the_correction(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    t, m, v = moments(gradient, memory, beta1, beta2)
    rate = lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
    return weight * (1 - lr * decay) - rate * m / (v.sqrt() + eps)


@wrong(check.adamw_step, "eps is missing")
def forgets_eps(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    return right_step(weight, gradient, memory, lr, beta1, beta2, 0.0, decay)


@wrong(check.adamw_step, "not a lower limit")
def clamps_at_eps(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    t, m, v = moments(gradient, memory, beta1, beta2)
    return weight * (1 - lr * decay) - lr * m / (1 - beta1**t) / (v / (1 - beta2**t)).sqrt().clamp_min(eps)


@wrong(check.adamw_step, "the root is missing")
def forgets_the_root(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    t, m, v = moments(gradient, memory, beta1, beta2)
    return weight * (1 - lr * decay) - lr * m / (1 - beta1**t) / (v / (1 - beta2**t) + eps)


@wrong(check.adamw_step, "through the gradient: that is Adam with L2")
def decays_through_the_gradient(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    return right_step(weight, gradient + decay * weight, memory, lr, beta1, beta2, eps, 0.0)


@wrong(check.adamw_step, "multiplied by the learning rate")
def decays_without_the_learning_rate(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    return right_step(weight, gradient, memory, lr, beta1, beta2, eps, decay / lr)


@wrong(check.adamw_step, "the decay is missing")
def forgets_the_decay(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    return right_step(weight, gradient, memory, lr, beta1, beta2, eps, 0.0)


@wrong(check.adamw_step, "wrong sign: weights shrink")
def grows_the_weights(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    return right_step(weight, gradient, memory, lr, beta1, beta2, eps, -decay)


@wrong(check.adamw_step, "the decay comes first")
def decays_after_the_step(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    return right_step(weight, gradient, memory, lr, beta1, beta2, eps, 0.0) * (1 - lr * decay)


@wrong(check.adamw_step, "the exponent is missing, or t is not kept")
def forgets_the_exponent(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    _, m, v = moments(gradient, memory, beta1, beta2)
    return weight * (1 - lr * decay) - lr * m / (1 - beta1) / ((v / (1 - beta2)).sqrt() + eps)


@wrong(check.adamw_step, "not beta^(2t)")
def doubles_the_exponent(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    t, m, v = moments(gradient, memory, beta1, beta2)
    return weight * (1 - lr * decay) - lr * m / (1 - beta1 ** (2 * t)) / ((v / (1 - beta2 ** (2 * t))).sqrt() + eps)


@wrong(check.adamw_step, "t is one too large")
def counts_from_two(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    t, m, v = moments(gradient, memory, beta1, beta2)
    return weight * (1 - lr * decay) - lr * m / (1 - beta1 ** (t + 1)) / ((v / (1 - beta2 ** (t + 1))).sqrt() + eps)


@wrong(check.adamw_step, "t begins at 1")
def counts_from_zero(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    t, m, v = moments(gradient, memory, beta1, beta2)
    m, v = m / torch.tensor(1 - beta1 ** (t - 1)), v / torch.tensor(1 - beta2 ** (t - 1))
    return weight * (1 - lr * decay) - lr * m / (v.sqrt() + eps)


@wrong(check.adamw_step, "you multiplied by 1 - beta^t")
def multiplies_by_the_correction(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    t, m, v = moments(gradient, memory, beta1, beta2)
    return weight * (1 - lr * decay) - lr * m * (1 - beta1**t) / ((v * (1 - beta2**t)).sqrt() + eps)


@wrong(check.adamw_step, "went into the memory")
def keeps_the_corrected_means(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    t, m, v = moments(gradient, memory, beta1, beta2)
    m = memory["m"] = m / (1 - beta1**t)
    v = memory["v"] = v / (1 - beta2**t)
    return weight * (1 - lr * decay) - lr * m / (v.sqrt() + eps)


@wrong(check.adamw_step, "beta1 and beta2 are swapped")
def swaps_the_betas(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    return right_step(weight, gradient, memory, lr, beta2, beta1, eps, decay)


@wrong(check.adamw_step, "v is a mean of *squared* gradients")
def averages_sizes(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    t, m, _ = moments(gradient, memory, beta1, beta2)
    v = memory["size"] = beta2 * memory.get("size", 0) + (1 - beta2) * gradient.abs()
    return weight * (1 - lr * decay) - lr * m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps)


@wrong(check.adamw_step, "v is one number for the whole weight")
def averages_all_squares(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    t, m, _ = moments(gradient, memory, beta1, beta2)
    v = memory["all"] = beta2 * memory.get("all", 0) + (1 - beta2) * gradient.square().mean()
    return weight * (1 - lr * decay) - lr * m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps)


@wrong(check.adamw_step, "you return the change")
def returns_the_change(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    return right_step(weight, gradient, memory, lr, beta1, beta2, eps, decay) - weight


@wrong(check.adamw_step, "m and v grow")
def sums_gradients(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    t = memory["t"] = memory.get("t", 0) + 1
    m = memory["m"] = beta1 * memory.get("m", 0) + gradient
    v = memory["v"] = beta2 * memory.get("v", 0) + gradient**2
    return weight * (1 - lr * decay) - lr * m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps)


@wrong(check.adamw_step, "the step is along the gradient")
def steps_along_the_gradient(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    t, _, v = moments(gradient, memory, beta1, beta2)
    return weight * (1 - lr * decay) - lr * gradient / ((v / (1 - beta2**t)).sqrt() + eps)


@wrong(check.adamw_step, "downhill is minus")
def climbs(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    return 2 * (1 - lr * decay) * weight - right_step(weight, gradient, memory, lr, beta1, beta2, eps, decay)


@wrong(check.adamw_step, "nothing is remembered")
def remembers_nothing(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    m, v = (1 - beta1) * gradient, (1 - beta2) * gradient**2
    return weight * (1 - lr * decay) - lr * m / (v.sqrt() + eps)


@wrong(check.adamw_step, "right for 1 step, then not")
def never_counts(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    return right_step(weight, gradient, {}, lr, beta1, beta2, eps, decay)


@wrong(check.adamw_step, "two share their state")
def shares_its_state(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    if not memory:
        SHARED.clear()
        memory["begun"] = True
    return right_step(weight, gradient, SHARED, lr, beta1, beta2, eps, decay)


SHARED = {}


@wrong(check.adamw_step, "it should rest")
def drifts(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    moved = 0.1 if not gradient.any() else 0.0
    return right_step(weight, gradient, memory, lr, beta1, beta2, eps, decay) - moved


@wrong(check.adamw_step, "in place")
def changes_the_weight(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    weight.copy_(right_step(weight, gradient, memory, lr, beta1, beta2, eps, decay))
    return weight


@wrong(check.adamw_step, "returns nothing")
def updates_and_forgets(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    right_step(weight, gradient, memory, lr, beta1, beta2, eps, decay)


@wrong(check.adamw_step, "returns a tuple")
def returns_the_memory_too(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    return right_step(weight, gradient, memory, lr, beta1, beta2, eps, decay), memory


@wrong(check.adamw_step, "has shape ()")
def averages_the_weight(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    return right_step(weight, gradient, memory, lr, beta1, beta2, eps, decay).mean()


def uniform(shape, bound, generator):
    return bound * (2 * torch.rand(shape, generator=generator) - 1)


def fan_in(shape):
    return math.prod(shape[1:])


@wrong(check.he_uniform, "you used fan_out")
def uses_fan_out(shape, generator):
    return uniform(shape, (6 / (shape[0] * math.prod(shape[2:]))) ** 0.5, generator)


@wrong(check.he_uniform, "the sqrt(3) is missing")
def forgets_the_root_of_three(shape, generator):
    return uniform(shape, (2 / fan_in(shape)) ** 0.5, generator)


@wrong(check.he_uniform, "the variance for the standard deviation")
def takes_the_variance_for_the_deviation(shape, generator):
    return uniform(shape, 3**0.5 * 2 / fan_in(shape), generator)


@wrong(check.he_uniform, "the variance for the bound")
def takes_the_variance_for_the_bound(shape, generator):
    return uniform(shape, 2 / fan_in(shape), generator)


@wrong(check.he_uniform, "the root is missing")
def forgets_the_root_of_the_bound(shape, generator):
    return uniform(shape, 6 / fan_in(shape), generator)


@wrong(check.he_uniform, "not 3 times")
def goes_to_three_deviations(shape, generator):
    return uniform(shape, 3 * (2 / fan_in(shape)) ** 0.5, generator)


@wrong(check.he_uniform, "you divided by sqrt(3)")
def divides_by_the_root_of_three(shape, generator):
    return uniform(shape, (2 / fan_in(shape)) ** 0.5 / 3**0.5, generator)


@wrong(check.he_uniform, "that is Xavier's")
def draws_like_xavier(shape, generator):
    return uniform(shape, (6 / (fan_in(shape) + shape[0] * math.prod(shape[2:]))) ** 0.5, generator)


@wrong(check.he_uniform, "the 2 is missing")
def forgets_the_relu(shape, generator):
    return uniform(shape, (3 / fan_in(shape)) ** 0.5, generator)


@wrong(check.he_uniform, "PyTorch's own start")
def draws_like_pytorch(shape, generator):
    return uniform(shape, fan_in(shape) ** -0.5, generator)


@wrong(check.he_uniform, "did not double it")
def centres_without_doubling(shape, generator):
    return (6 / fan_in(shape)) ** 0.5 * (torch.rand(shape, generator=generator) - 0.5)


@wrong(check.he_uniform, "root of fan_in; divide by it")
def multiplies_by_the_root_of_fan_in(shape, generator):
    return uniform(shape, (6 * fan_in(shape)) ** 0.5, generator)


@wrong(check.he_uniform, "the mean is not 0")
def draws_positive_weights(shape, generator):
    return (6 / fan_in(shape)) ** 0.5 * torch.rand(shape, generator=generator)


@wrong(check.he_uniform, "the mean is below 0")
def subtracts_too_much(shape, generator):
    return (6 / fan_in(shape)) ** 0.5 * (torch.rand(shape, generator=generator) - 1)


@wrong(check.he_uniform, "right variance, but not uniform")
def draws_normal_weights(shape, generator):
    return (2 / fan_in(shape)) ** 0.5 * torch.randn(shape, generator=generator)


@wrong(check.he_uniform, "weights of about the same size")
def draws_only_signs(shape, generator):
    return (2 / fan_in(shape)) ** 0.5 * (2 * torch.rand(shape, generator=generator) - 1).sign()


@wrong(check.he_uniform, "the weight is torch.float64")
def draws_doubles(shape, generator):
    return (6 / fan_in(shape)) ** 0.5 * (2 * torch.rand(shape, generator=generator).double() - 1)


@wrong(check.he_uniform, "is it torch.randn?")
def takes_the_bound_for_a_deviation(shape, generator):
    return (6 / fan_in(shape)) ** 0.5 * torch.randn(shape, generator=generator)


@wrong(check.he_uniform, "the weight is transposed")
def transposes_the_shape(shape, generator):
    return uniform((shape[1], shape[0], *shape[2:]), (6 / fan_in(shape)) ** 0.5, generator)


@wrong(check.he_uniform, "right for matrices; a unit of a convolution")
def counts_channels_only(shape, generator):
    return uniform(shape, (6 / shape[1]) ** 0.5, generator)


@wrong(check.he_uniform, "one of the two sides")
def counts_one_side_of_the_kernel(shape, generator):
    return uniform(shape, (6 / math.prod(shape[1:3])) ** 0.5, generator)


@wrong(check.he_uniform, "with the same seed differ")
def uses_the_global_generator(shape, generator):
    return (6 / fan_in(shape)) ** 0.5 * (2 * torch.rand(shape) - 1)


@wrong(check.he_uniform, "every seed gives the same weight")
def seeds_the_generator_again(shape, generator):
    return uniform(shape, (6 / fan_in(shape)) ** 0.5, generator.manual_seed(0))


@wrong(check.he_uniform, "copies of each other")
def repeats_one_row(shape, generator):
    return uniform(shape[1:], (6 / fan_in(shape)) ** 0.5, generator).expand(shape)


@wrong(check.he_uniform, "the standard deviation for shape")
def adds_a_gain(shape, generator):
    return uniform(shape, 1.3 * (6 / fan_in(shape)) ** 0.5, generator)


@wrong(check.he_uniform, "returns nothing")
def draws_and_forgets(shape, generator):
    uniform(shape, (6 / fan_in(shape)) ** 0.5, generator)


def directions(x, k):
    return torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:k].T


def angles(a, b, orthonormal=True):
    basis = torch.linalg.qr(b).Q if orthonormal else b
    return torch.linalg.svdvals(a.T @ basis).clamp(max=1).acos().rad2deg()


@wrong(check.angles_to_pca, "the images are not centred")
def forgets_to_centre(x, decoder):
    return angles(torch.linalg.svd(x, full_matrices=False).Vh[: decoder.shape[1]].T, decoder)


@wrong(check.angles_to_pca, "every image's own mean")
def centres_every_image(x, decoder):
    return angles(torch.linalg.svd(x - x.mean(1, keepdim=True)).Vh[: decoder.shape[1]].T, decoder)


@wrong(check.angles_to_pca, "one number from all pixels")
def centres_on_one_number(x, decoder):
    return angles(torch.linalg.svd(x - x.mean()).Vh[: decoder.shape[1]].T, decoder)


@wrong(check.angles_to_pca, "the decoder's columns are not orthonormal")
def forgets_to_orthonormalise(x, decoder):
    return angles(directions(x, decoder.shape[1]), decoder, orthonormal=False)


@wrong(check.angles_to_pca, "not right angles to each other")
def only_normalises_the_columns(x, decoder):
    return angles(directions(x, decoder.shape[1]), decoder / decoder.norm(dim=0), orthonormal=False)


@wrong(check.angles_to_pca, "column with column")
def compares_column_with_column(x, decoder):
    cosines = (directions(x, decoder.shape[1]) * nn.functional.normalize(decoder, dim=0)).sum(0)
    return cosines.abs().acos().rad2deg().sort().values


@wrong(check.angles_to_pca, "you took more than k directions")
def takes_the_notebooks_k(x, decoder):
    k = 6
    return angles(directions(x, k), decoder)


@wrong(check.angles_to_pca, "the *last* directions")
def takes_the_first_of_eigh(x, decoder):
    return angles(torch.linalg.eigh(torch.cov(x.T)).eigenvectors[:, : decoder.shape[1]], decoder)


@wrong(check.angles_to_pca, "the rows of Vh")
def takes_columns_of_vh(x, decoder):
    return angles(torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:, : decoder.shape[1]], decoder)


@wrong(check.angles_to_pca, "divided by its standard deviation")
def standardises_the_pixels(x, decoder):
    return angles(directions((x - x.mean(0)) / x.std(0), decoder.shape[1]), decoder)


@wrong(check.angles_to_pca, "those are radians")
def stays_in_radians(x, decoder):
    return angles(directions(x, decoder.shape[1]), decoder).deg2rad()


@wrong(check.angles_to_pca, "those are the cosines")
def returns_cosines(x, decoder):
    return torch.linalg.svdvals(torch.linalg.qr(decoder).Q.T @ directions(x, decoder.shape[1]))


@wrong(check.angles_to_pca, "those are the sines")
def returns_sines(x, decoder):
    return angles(directions(x, decoder.shape[1]), decoder).deg2rad().sin()


@wrong(check.angles_to_pca, "you took asin")
def takes_asin(x, decoder):
    return 90 - angles(directions(x, decoder.shape[1]), decoder)


@wrong(check.angles_to_pca, "from small to large")
def sorts_downwards(x, decoder):
    return angles(directions(x, decoder.shape[1]), decoder).flip(0)


@wrong(check.angles_to_pca, "one number, and there are k angles")
def returns_the_largest(x, decoder):
    return angles(directions(x, decoder.shape[1]), decoder).max()


@wrong(check.angles_to_pca, "NaN for equal spaces")
def forgets_to_clamp(x, decoder):
    return torch.linalg.svdvals(torch.linalg.qr(decoder).Q.T @ directions(x, decoder.shape[1])).acos().rad2deg()


@wrong(check.angles_to_pca, "clamp the cosines at 1, no lower")
def clamps_too_low(x, decoder):
    cosines = torch.linalg.svdvals(torch.linalg.qr(decoder).Q.T @ directions(x, decoder.shape[1]))
    return cosines.clamp(max=0.9999).acos().rad2deg()


@wrong(check.angles_to_pca, "in place")
def centres_in_place(x, decoder):
    x -= x.mean(0)
    return angles(directions(x, decoder.shape[1]), decoder)


@wrong(check.angles_to_pca, "returns a ndarray")
def returns_numpy(x, decoder):
    return angles(directions(x, decoder.shape[1]), decoder).numpy()


def layer(units=64, **options):
    return library.Dense(units, output="linear", tied=True, shape=(1, 14, 14), **options)


@wrong(check.robust_code, "returns nothing")
def builds_and_forgets():
    layer()


@wrong(check.robust_code, "return two things")
def returns_only_the_model():
    return layer()


@wrong(check.robust_code, "one of the chapter's autoencoders, or a subclass")
def returns_a_classifier():
    model = nn.Sequential(nn.Flatten(), nn.Linear(196, 64))
    return model, lambda images: model(images).square().mean()


@wrong(check.robust_code, "the loss is a Tensor")
def returns_a_value():
    model = layer()
    return model, library.objective(model)(torch.rand(5, 1, 14, 14))


@wrong(check.robust_code, "30,000 are allowed")
def has_too_many_parameters():
    model = library.DeepDense((200, 64), output="linear", shape=(1, 14, 14))
    return model, library.objective(model)


@wrong(check.robust_code, "65 numbers; 64 are allowed")
def has_too_many_numbers():
    model = layer(65)
    return model, library.objective(model)


@wrong(check.robust_code, "depends on chance")
def draws_noise_in_evaluation():
    model = layer()
    model.encoder.append(Jitter())
    return model, library.objective(model)


class Jitter(nn.Module):
    """Adds noise, in evaluation mode too."""

    def forward(self, code):
        """Noisy code."""
        return code + 0.01 * torch.randn_like(code)


@wrong(check.robust_code, "is the loss that of another model?")
def trains_another_model():
    other = layer(5)
    return layer(), lambda images: library.objective(other)(images)


@wrong(check.robust_code, "the loss of a batch is one number")
def keeps_images_apart():
    model = layer()
    return model, lambda images: (model(images) - images).square().sum((1, 2, 3))


@wrong(check.robust_code, "the loss has no gradient")
def detaches_the_loss():
    model = layer()
    return model, lambda images: (model(images) - images).square().mean().detach()


@wrong(check.robust_code, "the loss is nan at step 0")
def divides_by_zero():
    model = layer()
    return model, lambda images: library.objective(model)(images) * 0 / 0


@wrong(check.robust_code, "should still be an autoencoder")
def only_contracts():
    model = layer()
    return model, lambda images: library.contractive(model.encode(images), model.weight)


@wrong(check.robust_code, "of the clean digits")
def has_no_regulariser():
    model = layer()
    library.initialise(model, "xavier", torch.Generator().manual_seed(0))
    return model, library.objective(model)


@wrong(check.robust_code, "of the noisy ones")
def is_a_bottleneck_only():
    model = library.Dense(12, "linear", output="linear", tied=True, shape=(1, 14, 14))
    library.initialise(model, "xavier", torch.Generator().manual_seed(0))
    return model, library.objective(model, corrupt=partial(library.masking_noise, fraction=0.3))
