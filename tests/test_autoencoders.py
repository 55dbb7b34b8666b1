"""Autoencoders and their regularisers against published formulas in numpy, automatic differentiation and statistics."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from torch import nn
from torch.nn import functional as F

from course_lib.autoencoders import (
    Autoencoder,
    Convolutional,
    DeepDense,
    Dense,
    contractive,
    fit,
    gaussian_noise,
    hutchinson,
    initialise,
    jacobian,
    kl_sparsity,
    l1,
    masking_noise,
    objective,
    parameter_count,
    rescaled,
    salt_and_pepper,
    squared_error,
    unit_columns_,
    weight_decay,
)
from course_lib.data import digits
from course_lib.training import train

SHAPE = (1, 4, 6)
MODELS = {
    "dense": partial(Dense, 5),
    "tied": partial(Dense, 40, "relu", tied=True),
    "deep": partial(DeepDense, (12, 5)),
    "deep batch norm": partial(DeepDense, (12, 9, 5), batch_norm=True, dropout=0.2),
    "convolutional": partial(Convolutional, 5, (3,)),
    "convolutional batch norm": partial(Convolutional, 5, (3, 4), batch_norm=True, shape=(3, 8, 4)),
}


def small(**options) -> Dense:
    return Dense(5, options.pop("activation", "sigmoid"), shape=SHAPE, output="linear", **options)


def images(n=7, shape=SHAPE, dtype=torch.float32):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(4)).to(dtype)


# Models


@pytest.mark.parametrize("name", MODELS)
def test_every_model_turns_images_into_codes_and_codes_into_images_in_range(name):
    model = MODELS[name]() if "batch norm" in name and "conv" in name else MODELS[name](shape=SHAPE)
    x = images(shape=model.shape)
    code = model.encode(x)
    assert code.shape == (7, model.code_size)
    y = model.decode(code)
    assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1
    model.eval()
    assert torch.equal(model(x), model.decode(model.encode(x)))
    assert model.overcomplete == (name == "tied")


def test_the_dense_autoencoder_is_its_formula():
    x = images(dtype=torch.float64)
    flat = x.flatten(1).numpy()
    for tied in (False, True):
        model = Dense(5, shape=SHAPE, tied=tied).double()
        w, b, c = (p.detach().numpy() for p in (model.weight, model.into.bias, model.out.bias))
        v = w.T if tied else model.out.weight.detach().numpy()
        h = 1 / (1 + np.exp(-(flat @ w.T + b)))
        y = 1 / (1 + np.exp(-(h @ v.T + c)))
        np.testing.assert_allclose(model.encode(x).detach(), h, rtol=1e-12)
        np.testing.assert_allclose(model(x).detach().flatten(1), y, rtol=1e-12)
        np.testing.assert_array_equal(model.columns.detach(), v)


def test_tied_weights_are_counted_and_trained_once_by_both_halves():
    model, free = small(tied=True), small()
    assert parameter_count(model) == 24 * 5 + 5 + 24
    assert parameter_count(free) == 2 * 24 * 5 + 5 + 24
    squared_error(model(images()), images()).backward()
    both = model.weight.grad
    into, out = model.weight.detach().clone().requires_grad_(), model.weight.detach().clone().requires_grad_()
    h = torch.sigmoid(F.linear(images().flatten(1), into, model.into.bias.detach()))
    (F.linear(h, out.T, model.out.bias.detach()) - images().flatten(1)).square().sum(1).mean().backward()
    torch.testing.assert_close(both, into.grad + out.grad)


def test_dropout_acts_on_the_code_in_training_only():
    model = small(dropout=0.5, activation="linear")
    code = torch.ones(4000, 5)
    model.train()
    assert not torch.equal(model.decode(code), model.decode(code))
    assert torch.equal(model.encode(images()), model.encode(images()))
    dropped = model.decode(code).mean(0)
    model.eval()
    torch.testing.assert_close(dropped, model.decode(code)[0], atol=0.08, rtol=0)  # the expected decoder is kept


def test_batch_normalisation_and_dropout_sit_between_the_layers():
    kinds = [type(layer).__name__ for layer in DeepDense((8, 4), batch_norm=True, dropout=0.1).encoder]
    assert kinds == ["Flatten", "Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear"]
    plain = [type(layer).__name__ for layer in DeepDense((8, 4)).decoder]
    assert plain == ["Linear", "ReLU", "Linear", "Sigmoid", "Unflatten"]


def test_what_does_not_fit_is_named(unchecked):
    model = Dense(5)
    with pytest.raises(ValueError, match=r"images has shape \(2, 3, 28, 28\); this autoencoder takes \(n, 1, 28, 28\)"):
        model(torch.rand(2, 3, 28, 28))
    with pytest.raises(TypeError, match=r"dtype torch.uint8; .*images\.float\(\) / 255"):
        model(digits.load("test")[0])
    with pytest.raises(ValueError, match=r"code has shape \(2, 6\); this autoencoder takes \(n, 5\)"):
        model.decode(torch.zeros(2, 6))
    with pytest.raises(ValueError, match="unknown activation 'gelu'; choose one of linear, sigmoid, tanh, relu"):
        Dense(5, "gelu")
    with pytest.raises(ValueError, match=r"layers of \(0,\) units cannot be built"):
        Dense(0)
    with pytest.raises(ValueError, match=r"layers of \(\) units cannot be built"):
        DeepDense(())
    with pytest.raises(ValueError, match="28 x 28 pixels cannot be halved 3 times; use fewer channels"):
        Convolutional(8, (4, 8, 16))


def test_any_encoder_and_decoder_make_an_autoencoder():
    model = Autoencoder(nn.Sequential(nn.Flatten()), nn.Sequential(nn.Unflatten(1, SHAPE)), 24, SHAPE)
    assert torch.equal(model(images()), images()) and model.overcomplete


# Sparsity


def test_l1_is_the_mean_over_images_of_the_sum_over_units():
    assert l1(torch.tensor([[1.0, -2.0, 0.0], [0.0, 0.5, 0.5]])).item() == pytest.approx((3 + 1) / 2)


@pytest.mark.parametrize("rho", [0.01, 0.05, 0.5, 0.9])
def test_kl_sparsity_is_the_divergence_from_the_target_to_the_mean_activation(rho):
    code = torch.rand(50, 6, dtype=torch.float64)
    mean = code.mean(0).numpy()
    expected = (rel_entr(rho, mean) + rel_entr(1 - rho, 1 - mean)).sum()
    assert kl_sparsity(code, rho).item() == pytest.approx(expected, rel=1e-9)
    assert kl_sparsity(torch.full((3, 4), rho, dtype=torch.float64), rho).item() == pytest.approx(0, abs=1e-12)


def test_kl_sparsity_stays_finite_where_units_are_never_or_always_on():
    code = torch.tensor([[0.0, 1.0]]).requires_grad_()
    value = kl_sparsity(code)
    value.backward()
    assert value.isfinite() and code.grad.isfinite().all()


def test_kl_sparsity_refuses_what_is_no_probability():
    with pytest.raises(
        ValueError, match=r"activations lie in \[-1, 2\], not \[0, 1\]; KL sparsity needs sigmoid units"
    ):
        kl_sparsity(torch.tensor([[-1.0, 2.0]]))
    with pytest.raises(ValueError, match=r"rho is 1\.0"):
        kl_sparsity(torch.rand(2, 2), 1.0)


# The contractive penalty


def test_the_closed_form_is_the_jacobian_of_automatic_differentiation():
    model, x = small().double(), images(dtype=torch.float64)
    rows = torch.stack([torch.func.jacrev(lambda one: model.encode(one[None])[0])(one) for one in x])
    exact = rows.square().sum((1, 2, 3, 4))
    torch.testing.assert_close(contractive(model.encode(x), model.weight), exact.mean())
    torch.testing.assert_close(jacobian(model, x), rows)


def test_the_closed_form_refuses_codes_that_are_not_of_sigmoids():
    model = small(activation="relu")
    with pytest.raises(ValueError, match=r"activations lie in \[0, 3\], not \[0, 1\]; this formula needs sigmoid"):
        contractive(torch.tensor([[0.0, 1.0, 3.0, 0.0, 0.0]]), model.weight)


def test_jacobians_can_be_watched_while_gradients_are_off():
    model, x = small(), images()
    exact = jacobian(model, x)
    with torch.no_grad():
        torch.testing.assert_close(jacobian(model, x), exact)
        assert hutchinson(model, x, 4).isfinite().all()


@pytest.mark.parametrize("name", ["deep", "convolutional", "dense"])
def test_hutchinson_is_unbiased_for_any_encoder(name):
    model, x = MODELS[name](shape=SHAPE).double().eval(), images(1, dtype=torch.float64)
    gram = torch.func.jacrev(lambda one: model.encode(one)[0])(x).flatten(1)
    gram = gram @ gram.T
    exact = gram.trace()
    variance = 2 * (gram.square().sum() - gram.diagonal().square().sum())  # of one estimate with random signs
    n = 4000
    estimates = hutchinson(model, x.expand(n, -1, -1, -1), generator=torch.Generator().manual_seed(0))
    assert abs(estimates.mean() - exact) < 4 * (variance / n).sqrt()
    assert estimates.var().item() == pytest.approx(variance.item(), rel=0.2)
    fewer = hutchinson(model, x.expand(500, -1, -1, -1), probes=8, generator=torch.Generator().manual_seed(1))
    assert fewer.var().item() == pytest.approx(variance.item() / 8, rel=0.35)


def test_hutchinson_can_be_minimised():
    model, x = DeepDense((12, 5), shape=SHAPE), images()
    before = hutchinson(model, x, 64, torch.Generator().manual_seed(0)).mean()
    before.backward()
    with torch.no_grad():
        for p in model.encoder.parameters():
            if p.grad is not None:
                p -= 0.05 * p.grad
    assert hutchinson(model, x, 64, torch.Generator().manual_seed(0)).mean() < before


def test_a_jacobian_that_depends_on_the_batch_is_refused():
    model = DeepDense((8, 5), batch_norm=True, shape=SHAPE)
    for function in (jacobian, hutchinson):
        with pytest.raises(ValueError, match="batch normalisation in training mode mixes images"):
            function(model, images())
    jacobian(model.eval(), images())
    with pytest.raises(ValueError, match="probes is 0"):
        hutchinson(model, images(), 0)


# Rescaling


@pytest.mark.parametrize("c", [0.1, 0.001])
def test_rescaling_keeps_the_reconstruction_and_makes_the_penalties_vanish(c):
    model, x = small(activation="relu").double(), images(dtype=torch.float64)
    shrunk = rescaled(model, c)
    torch.testing.assert_close(shrunk(x), model(x))
    assert l1(shrunk.encode(x)).item() == pytest.approx(c * l1(model.encode(x)).item())
    norms = [jacobian(m, x).square().sum().item() for m in (shrunk, model)]
    assert norms[0] == pytest.approx(c**2 * norms[1])


def test_unit_columns_undo_the_rescaling_and_tied_weights_forbid_it():
    model = small(activation="relu")
    unit_columns_(model)
    shrunk = rescaled(model, 0.01)
    unit_columns_(shrunk)
    torch.testing.assert_close(shrunk.columns, model.columns)
    torch.testing.assert_close(shrunk.columns.norm(dim=0), torch.ones(5))
    tied = small(tied=True)
    unit_columns_(tied)
    torch.testing.assert_close(tied.weight.norm(dim=1), torch.ones(5))
    with pytest.raises(ValueError, match="tied weights cannot be rescaled apart"):
        rescaled(tied, 0.5)
    with pytest.raises(ValueError, match=r"cannot rescale sigmoid units by 0\.5"):
        rescaled(small(), 0.5)


# Corruptions


def test_gaussian_noise_has_its_mean_and_standard_deviation_and_is_not_clipped():
    x = torch.full((4, 1, 100, 100), 0.9)
    noise = gaussian_noise(x, 0.3, torch.Generator().manual_seed(0)) - x
    assert noise.mean().item() == pytest.approx(0, abs=0.006)
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    assert (x + noise).max() > 1


@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_masking_and_salt_and_pepper_hit_their_share_of_the_pixels_and_no_other(fraction):
    x = torch.full((4, 1, 100, 100), 0.5)
    masked = masking_noise(x, fraction, torch.Generator().manual_seed(0))
    assert set(masked.unique().tolist()) <= {0.0, 0.5}
    assert (masked == 0).float().mean().item() == pytest.approx(fraction, abs=0.01)
    peppered = salt_and_pepper(x, fraction, torch.Generator().manual_seed(0))
    assert (peppered == 0).float().mean().item() == pytest.approx(fraction / 2, abs=0.01)
    assert (peppered == 1).float().mean().item() == pytest.approx(fraction / 2, abs=0.01)
    assert ((peppered == 0.5) == (masked == 0.5)).all()


def test_impossible_corruptions_are_named():
    with pytest.raises(ValueError, match="sigma is -1"):
        gaussian_noise(images(), -1.0)
    for corruption in (masking_noise, salt_and_pepper):
        with pytest.raises(ValueError, match=r"fraction is 1\.5; a share of pixels lies between 0 and 1"):
            corruption(images(), 1.5)


# Objective


def test_weight_decay_has_the_gradient_that_sgd_adds():
    models = [small(tied=tied) for tied in (True, True)]
    models[1].load_state_dict(models[0].state_dict())
    matrices = [[p for p in m.parameters() if p.ndim > 1] for m in models]
    ours = torch.optim.SGD(matrices[0], lr=0.1)
    theirs = torch.optim.SGD(matrices[1], lr=0.1, weight_decay=0.3)
    for optimizer, model, penalties in (
        (ours, models[0], [(0.3, lambda at: weight_decay(at.model))]),
        (theirs, models[1], []),
    ):
        objective(model, *penalties)(images()).backward()
        optimizer.step()
    torch.testing.assert_close(models[0].weight, models[1].weight)


def test_the_objective_is_the_error_plus_the_weighted_penalties():
    model, x = small(), images()
    error = (model(x) - x).square().sum() / len(x)
    both = objective(model, (0.1, lambda at: l1(at.code)), (2.0, lambda at: contractive(at.code, at.model.weight)))(x)
    torch.testing.assert_close(objective(model)(x), error)
    torch.testing.assert_close(both, error + 0.1 * l1(model.encode(x)) + 2 * contractive(model.encode(x), model.weight))
    with pytest.raises(ValueError, match="a penalty has weight -1"):
        objective(model, (-1.0, lambda at: l1(at.code)))


def test_the_denoising_target_is_the_clean_image():
    model, x, seen = small(), images(), []
    black = objective(model, (0.0, lambda at: seen.append(at.images) or l1(at.code)), corrupt=torch.zeros_like)(x)
    torch.testing.assert_close(black, squared_error(model(torch.zeros_like(x)), x))
    assert len(seen) == 1 and (seen[0] == 0).all()


def test_fit_learns_the_same_from_the_same_seed_and_leaves_the_caller_alone():
    def trained(seed):
        torch.manual_seed(0)
        model = small(dropout=0.2)
        loss = objective(model, corrupt=partial(masking_noise, fraction=0.2))
        history = fit(model, images(64), loss, epochs=5, batch_size=16, learning_rate=0.01, seed=seed)
        return model.weight.detach(), history

    (one, history), (two, _), (other, _) = trained(1), trained(1), trained(2)
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert history[-1]["loss"] < history[0]["loss"] and history[-1]["learning_rate"] == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="epochs is 0, batch_size 100"):
        fit(small(), images(), epochs=0)


def test_a_digit_survives_a_bottleneck_better_than_the_mean_digit():
    x = digits.load("train")[0][:1000].float() / 255
    model = Dense(16, "linear", output="linear")
    initialise(model, "xavier")
    fit(model, x, epochs=10, learning_rate=1e-2)
    assert squared_error(model(x), x) < 0.6 * squared_error(x.mean(0).expand_as(x), x)


def test_a_contractive_objective_makes_the_jacobian_smaller_than_plain_training():
    x = images(64)

    def norm(weight):
        torch.manual_seed(0)
        model = small(tied=True)
        penalty = (weight, lambda at: contractive(at.code, at.model.weight))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        train(model, objective(model, penalty), lambda order: x.split(16), optimizer, epochs=40)
        return jacobian(model, x).square().sum().item()

    assert norm(1.0) < 0.5 * norm(0.0)
