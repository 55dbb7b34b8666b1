"""Answers to chapter 01's exercises that are right, but written otherwise than the solution, pass."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_lib import autoencoders as library
from course_lib.checks import autoencoders as check
from tests.test_checks import line_of


def maps_columns_one_by_one(x, weight, bias, out_bias):
    return torch.stack([weight.T @ torch.sigmoid(weight @ row + bias) + out_bias for row in x])


def uses_functional_layers(x, weight, bias, out_bias):
    return F.linear(F.linear(x, weight, bias).sigmoid(), weight.T, out_bias)


def compares_distributions(code, rho):
    bernoulli = torch.distributions.Bernoulli
    units = bernoulli(code.mean(0).clamp(1e-7, 1 - 1e-7))
    return torch.distributions.kl_divergence(bernoulli(torch.tensor(rho)), units).sum()


def clamps_the_code_before_its_mean(code, rho):
    mean = code.clamp(1e-7, 1 - 1e-7).mean(0)
    return (rho * (rho / mean).log() + (1 - rho) * ((1 - rho) / (1 - mean)).log()).sum()


def adds_an_epsilon(code, rho):
    mean = code.mean(0)
    return (rho * (rho / (mean + 1e-7)).log() + (1 - rho) * ((1 - rho) / (1 - mean + 1e-7)).log()).sum()


def builds_the_jacobian(x, weight, bias):
    code = torch.sigmoid(x @ weight.T + bias)
    return ((code * (1 - code))[:, :, None] * weight).square().sum((1, 2)).mean()


def differentiates(x, weight, bias):
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: torch.sigmoid(weight @ row + bias)))(x)
    return jacobian.square().sum((1, 2)).mean()


def encodes_and_decodes(model, images, sigma, generator):
    noise = sigma * torch.randn(images.shape, generator=generator) if model.training else 0
    return F.mse_loss(model.decode(model.encode(images + noise)), images, reduction="sum") / len(images)


def takes_the_librarys_objective(model, images, sigma, generator):
    noisy = lambda clean: library.gaussian_noise(clean, sigma, generator)  # noqa: E731
    return library.objective(model, corrupt=noisy if model.training else None)(images)


def draws_the_noise_in_evaluation_too(model, images, sigma, generator):
    noise = torch.empty_like(images).normal_(0, sigma, generator=generator)
    return (model(images + noise * model.training) - images).square().flatten(1).sum(1).mean()


def updates_its_memory_in_place(weight, gradient, memory, lr, beta1, beta2, eps, decay):
    m = memory.setdefault("m", torch.zeros_like(weight)).lerp_(gradient, 1 - beta1)
    v = memory.setdefault("v", torch.zeros_like(weight)).mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    memory["t"] = memory.get("t", 0) + 1
    m, v = m / (1 - beta1 ** memory["t"]), v / (1 - beta2 ** memory["t"])
    return weight - lr * (m / (v.sqrt() + eps) + decay * weight)


def initialises_with_pytorch(shape, generator):
    return nn.init.kaiming_uniform_(torch.empty(shape), nonlinearity="relu", generator=generator)


def draws_from_the_upper_end(shape, generator):
    return (1 - 2 * torch.rand(shape, generator=generator)) * (6 / torch.empty(shape)[0].numel()) ** 0.5


def takes_eigenvectors(x, decoder):
    directions = torch.linalg.eigh(torch.cov(x.T)).eigenvectors[:, -decoder.shape[1] :]
    basis = torch.linalg.svd(decoder, full_matrices=False).U
    return torch.linalg.svdvals(directions.T @ basis).clamp(-1, 1).acos().rad2deg()


def computes_in_doubles(x, decoder):
    directions = torch.linalg.svd((x - x.mean(0)).double(), full_matrices=False).Vh[: decoder.shape[1]].T
    return torch.linalg.svdvals(torch.linalg.qr(decoder.double()).Q.T @ directions).clamp(max=1).acos().rad2deg()


class Own(library.Autoencoder):
    """A tied layer of a learner's own."""

    def __init__(self):
        layer = nn.Linear(196, 64)
        library.initialise(layer, "xavier", torch.Generator().manual_seed(0))
        encoder = nn.Sequential(nn.Flatten(), layer, nn.Sigmoid())
        super().__init__(encoder, nn.Sequential(), 64, (1, 14, 14))
        self.out = nn.Parameter(torch.zeros(196))

    def decode(self, code):
        """Back by the same weight."""
        return (code @ self.encoder[1].weight + self.out).view(-1, 1, 14, 14)


def writes_a_subclass():
    model = Own()

    def loss(images):
        code = model.encode(images)
        penalty = library.contractive(code, model.encoder[1].weight)
        return (model.decode(code) - images).square().sum((1, 2, 3)).mean() + 3 * penalty

    return model, loss


RIGHT = [
    (check.tied, maps_columns_one_by_one),
    (check.tied, uses_functional_layers),
    (check.kl_sparsity, library.kl_sparsity),
    (check.kl_sparsity, compares_distributions),
    (check.kl_sparsity, clamps_the_code_before_its_mean),
    (check.kl_sparsity, adds_an_epsilon),
    (check.contractive, builds_the_jacobian),
    (check.contractive, differentiates),
    (check.denoising_loss, encodes_and_decodes),
    (check.denoising_loss, takes_the_librarys_objective),
    (check.denoising_loss, draws_the_noise_in_evaluation_too),
    (check.adamw_step, updates_its_memory_in_place),
    (check.he_uniform, initialises_with_pytorch),
    (check.he_uniform, draws_from_the_upper_end),
    (check.angles_to_pca, takes_eigenvectors),
    (check.angles_to_pca, computes_in_doubles),
    (check.robust_code, writes_a_subclass),
]


@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=lambda value: value.__name__)
def test_another_right_answer_passes(exercise, answer, capsys):
    passed, line = line_of(capsys, exercise, answer)
    assert passed, line
