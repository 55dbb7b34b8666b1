"""Optimisers, schedules and initialisations against torch's, and PCA against scikit-learn's and scipy's."""

import warnings
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import sklearn.decomposition
import torch
from torch import nn
from torch.optim import lr_scheduler

from course_lib.autoencoders import (
    INITIALISATIONS,
    SGD,
    Adam,
    AdamW,
    Convolutional,
    DeepDense,
    Dense,
    Momentum,
    Plateau,
    RMSprop,
    cosine,
    depth_statistics,
    eigengaps,
    fit,
    halved,
    he,
    initialise,
    linear_autoencoder,
    mixing,
    orthogonal,
    pca,
    principal_angles,
    step_decay,
    warm_up,
    xavier,
)
from course_lib.data import digits
from course_lib.training import train

OPTIMISERS = {
    "SGD": (partial(SGD, lr=0.01), partial(torch.optim.SGD, lr=0.01)),
    "momentum": (partial(Momentum, lr=0.01, momentum=0.8), partial(torch.optim.SGD, lr=0.01, momentum=0.8)),
    "RMSprop": (partial(RMSprop, lr=0.01, alpha=0.9), partial(torch.optim.RMSprop, lr=0.01, alpha=0.9)),
    "Adam": (partial(Adam, lr=0.01, beta1=0.8, beta2=0.95), partial(torch.optim.Adam, lr=0.01, betas=(0.8, 0.95))),
    "AdamW": (partial(AdamW, lr=0.01, decay=0.1), partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1)),
}
X = torch.rand(60, 1, 4, 5, generator=torch.Generator().manual_seed(1))


def batches(order):
    return X[torch.randperm(60, generator=order)].split(15)


# Optimisers


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_equals_torch_over_twenty_steps(name):
    weights = []
    for make in OPTIMISERS[name]:
        torch.manual_seed(0)
        model = Dense(6, shape=(1, 4, 5))
        start = model.weight.detach().clone()
        train(model, lambda x, model=model: (model(x) - x).square().sum(), batches, make(model.parameters()), epochs=5)
        weights.append(model.weight.detach())
        assert (weights[-1] - start).abs().max() > 1e-3
    torch.testing.assert_close(weights[0], weights[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_resumes_from_a_checkpoint_and_follows_a_schedule(name, tmp_path):
    def run(epochs, folder):
        torch.manual_seed(0)
        model = Dense(6, shape=(1, 4, 5))
        optimizer = OPTIMISERS[name][0](model.parameters())
        schedule = lr_scheduler.LambdaLR(optimizer, warm_up(3, cosine(10)))
        stop = iter(range(epochs * 4))

        def loss(x):
            next(stop)
            return (model(x) - x).square().sum()

        train(
            model, loss, batches, optimizer, epochs=3, schedule=schedule, folder=folder, settings={}, checkpoint_steps=1
        )
        return model.weight.detach()

    whole = run(3, tmp_path / "whole")
    with pytest.raises(StopIteration):
        run(1, tmp_path / "killed")
    assert torch.equal(run(3, tmp_path / "killed"), whole)


def test_adams_first_step_is_the_learning_rate_whatever_the_gradient():
    for scale in (1e-4, 1.0, 1e4):
        weight = nn.Parameter(torch.zeros(3))
        weight.grad = scale * torch.tensor([1.0, -2.0, 3.0])
        Adam([weight], lr=0.1).step()
        torch.testing.assert_close(weight.detach(), torch.tensor([-0.1, 0.1, -0.1]), rtol=2e-4, atol=0)


def test_a_weight_without_gradient_stays():
    weight = nn.Parameter(torch.ones(2))
    AdamW([weight]).step()
    assert weight.tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"the learning rate is 0\.0; it is positive"):
        SGD([weight], lr=0.0)


# Schedules


def rates(make, steps=30):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.4)
    schedule, seen = make(optimizer), []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def torch_warm_up_and_cosine(optimizer):
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / 8, total_iters=7)
    return lr_scheduler.SequentialLR(optimizer, [rise, lr_scheduler.CosineAnnealingLR(optimizer, 22)], milestones=[8])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (step_decay(7, 0.3), lambda o: lr_scheduler.StepLR(o, 7, 0.3)),
        (cosine(30), lambda o: lr_scheduler.CosineAnnealingLR(o, 30)),
        (cosine(30, floor=0.1), lambda o: lr_scheduler.CosineAnnealingLR(o, 30, eta_min=0.04)),
        (warm_up(8), lambda o: lr_scheduler.LinearLR(o, start_factor=1 / 8, total_iters=7)),
        (warm_up(8, cosine(22)), torch_warm_up_and_cosine),
    ],
    ids=["step", "cosine", "cosine with a floor", "warm-up", "warm-up, then cosine"],
)
def test_every_schedule_equals_torch(ours, theirs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's SequentialLR warns about itself
        expected = rates(theirs)
    np.testing.assert_allclose(rates(lambda o: lr_scheduler.LambdaLR(o, ours)), expected, atol=1e-9)


def test_cosine_stays_at_its_floor():
    assert cosine(10, 0.2)(10) == cosine(10, 0.2)(1000) == pytest.approx(0.2)


def test_an_empty_schedule_is_named():
    for make in (cosine, warm_up, step_decay):
        with pytest.raises(ValueError, match="a schedule of 0 steps is empty"):
            make(0)


def test_plateau_equals_torch_on_losses_that_fall_stall_and_rise():
    losses = torch.cat([torch.linspace(1, 0.5, 6), 0.5 + 0.02 * torch.randn(30), torch.full((12,), 0.4)]).tolist()
    ours, theirs = (torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.4) for _ in range(2))
    plateau, reference = Plateau(ours, 0.5, 3), lr_scheduler.ReduceLROnPlateau(theirs, factor=0.5, patience=3)
    seen = []
    for loss in losses:
        ours.step()
        plateau.step()
        plateau.observe(loss)
        reference.step(loss)
        seen.append(ours.param_groups[0]["lr"])
        assert seen[-1] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12)
    assert len(set(seen)) > 4


def test_a_run_under_a_plateau_resumes_exactly(tmp_path):
    def run(folder, epochs):
        torch.manual_seed(0)
        model = Dense(6, shape=(1, 4, 5))
        optimizer = torch.optim.Adam(model.parameters())
        plateau = Plateau(optimizer, 0.5, 0)
        left = iter(range(epochs))

        def validate():
            plateau.observe(1.0)
            return {"left": next(left)}

        return train(
            model, lambda x: (model(x) - x).square().sum(), batches, optimizer, epochs=6, schedule=plateau,
            folder=folder, settings={}, validate=validate,
        )  # fmt: skip

    whole = [record["learning_rate"] for record in run(tmp_path / "whole", 6)]
    with pytest.raises(StopIteration):
        run(tmp_path / "killed", 3)
    assert [record["learning_rate"] for record in run(tmp_path / "killed", 6)] == whole
    assert whole[-1] < 0.1 * whole[0]
    with pytest.raises(ValueError, match="factor is 2"):
        Plateau(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1), 2.0)


# Initialisation


@pytest.mark.parametrize(("n_out", "n_in"), [(300, 200), (100, 400)])
def test_xavier_and_he_have_the_distributions_that_torch_draws(n_out, n_in):
    for draw, reference in (
        (xavier, nn.init.xavier_uniform_),
        (he, partial(nn.init.kaiming_normal_, nonlinearity="relu")),
    ):
        ours = draw(n_out, n_in, torch.Generator().manual_seed(1)).flatten()
        theirs = reference(torch.empty(n_out, n_in), generator=torch.Generator().manual_seed(2)).flatten()
        assert scipy.stats.ks_2samp(ours.numpy(), theirs.numpy()).pvalue > 1e-3
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.02)


@pytest.mark.parametrize(("n_out", "n_in"), [(7, 20), (20, 7), (9, 9)])
def test_orthogonal_rows_or_columns_are_orthonormal(n_out, n_in):
    w = orthogonal(n_out, n_in)
    assert w.shape == (n_out, n_in)
    product = w @ w.T if n_out <= n_in else w.T @ w
    torch.testing.assert_close(product, torch.eye(min(n_out, n_in)), atol=1e-5, rtol=0)


def test_orthogonal_has_no_preferred_sign():
    draws = torch.stack([orthogonal(3, 3, torch.Generator().manual_seed(seed)) for seed in range(400)])
    assert draws.mean(0).abs().max() < 4 * (1 / 3 / 400) ** 0.5


@pytest.mark.parametrize(("name", "factor"), [("he", 1.0), ("xavier", 0.5)])
def test_he_keeps_the_signal_of_relus_and_xavier_halves_its_variance_at_every_layer(name, factor):
    x, logs = torch.rand(50, 1, 16, 16), []
    for seed in range(10):
        model = DeepDense((256,) * 10, shape=(1, 16, 16))
        initialise(model, name, torch.Generator().manual_seed(seed))
        h = model.encoder[:3](x)
        logs.append((model.encoder[3:-1](h).square().mean() / h.square().mean()).log2().item() / 8)
    assert np.mean(logs) == pytest.approx(np.log2(factor), abs=0.1)


def test_depth_statistics_are_those_of_a_hand_made_pass():
    model, x = DeepDense((30, 20, 4), shape=(1, 4, 5)), X
    with torch.no_grad():
        model.encoder[1].bias[:6] = -100  # six dead units
    table = depth_statistics(model, x)
    assert all(p.grad is None for p in model.parameters())
    h1 = torch.relu(model.encoder[1](x.flatten(1))).detach().requires_grad_()
    y = model.decode(model.encoder[3:](h1))
    (y - x).square().sum((1, 2, 3)).mean().backward()
    assert table.layer.tolist() == [1, 2, 3, 4, 5] and table.width.tolist() == [30, 20, 20, 30, 20]
    assert table.dead[0] >= 0.2 and table.dead[0] == pytest.approx((h1 == 0).all(0).float().mean().item())
    assert table.activation_std[0] == pytest.approx(h1.std().item(), rel=1e-5)
    assert table.signal_std[0] == pytest.approx(h1.detach().numpy().var(0, ddof=1).mean() ** 0.5, rel=1e-5)
    assert table.gradient_std[0] == pytest.approx(h1.grad.std().item(), rel=1e-4)
    with torch.no_grad():
        assert depth_statistics(model, x).equals(table)


def test_initialise_is_seeded_and_names_what_it_does_not_know():
    models = [DeepDense((30, 20, 4), shape=(1, 4, 5)) for _ in range(2)]
    for name in INITIALISATIONS:
        for model in models:
            initialise(model, name, torch.Generator().manual_seed(3))
        for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
            assert torch.equal(a, b) and (a.ndim == 2 or not a.any())
    with pytest.raises(ValueError, match="unknown initialisation 'glorot'; choose one of xavier, he, orthogonal"):
        initialise(models[0], "glorot")


def test_convolutions_start_as_torch_starts_them_and_transposed_ones_keep_their_size():
    conv, up = nn.Conv2d(24, 40, 3, stride=2), nn.ConvTranspose2d(24, 40, 4, stride=2, padding=1)
    initialise(nn.Sequential(conv, up), "he", torch.Generator().manual_seed(1))
    reference = nn.init.kaiming_normal_(torch.empty(40, 24, 3, 3), nonlinearity="relu")
    assert scipy.stats.ks_2samp(conv.weight.detach().flatten(), reference.flatten()).pvalue > 1e-3
    painted = up(torch.randn(20, 24, 8, 8))[..., 2:-2, 2:-2]  # inside, where no padding takes anything away
    assert painted.square().mean().item() == pytest.approx(2, rel=0.05)
    assert not conv.bias.any() and not up.bias.any()
    initialise(conv, "orthogonal")
    rows = conv.weight.detach().flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(40), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"a kernel of \(3, 3\) is no multiple of the stride \(2, 2\)"):
        initialise(nn.ConvTranspose2d(4, 4, 3, stride=2), "he")


@pytest.mark.parametrize(
    "make",
    [
        partial(Dense, 6, tied=True, shape=(1, 4, 5)),
        partial(DeepDense, (8, 3), batch_norm=True, shape=(1, 4, 5)),
        partial(Convolutional, 3, (4,), batch_norm=True, shape=(1, 4, 6)),
    ],
    ids=["tied", "batch normalisation", "convolutional"],
)
def test_a_trained_model_starts_anew_without_a_trace(make):
    torch.manual_seed(1)
    trained = make()
    fit(trained, torch.rand(40, *trained.shape), epochs=2, learning_rate=0.1)
    torch.manual_seed(2)
    for model in (trained, fresh := make()):
        initialise(model, "he", torch.Generator().manual_seed(3))
    for name, value in trained.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name


# PCA


def test_pca_equals_scikit_learn():
    x = digits.load("test")[0].float() / 255
    found = pca(x, 5)
    reference = sklearn.decomposition.PCA(5, svd_solver="full").fit(x.flatten(1).double().numpy())
    np.testing.assert_allclose(found.variances, reference.explained_variance_ * 499 / 500, rtol=1e-4)
    assert (np.abs((found.directions.T.numpy() * reference.components_).sum(1)) > 1 - 1e-5).all()
    theirs = reference.inverse_transform(reference.transform(x.flatten(1).double().numpy()))
    np.testing.assert_allclose(found.reconstruct(x).flatten(1), theirs, atol=1e-5)
    with pytest.raises(ValueError, match="k is 501; 500 images of 784 pixels have 1 to 500"):
        pca(x, 501)


def test_principal_angles_equal_scipy_and_ignore_the_choice_of_basis():
    a, b = torch.randn(20, 4, dtype=torch.float64), torch.randn(20, 4, dtype=torch.float64)
    expected = np.sort(np.rad2deg(scipy.linalg.subspace_angles(a.numpy(), b.numpy())))
    np.testing.assert_allclose(principal_angles(a, b), expected, atol=1e-8)
    torch.testing.assert_close(principal_angles(a, b @ torch.randn(4, 4, dtype=torch.float64)), principal_angles(a, b))
    assert principal_angles(a, 3 * a).max() < 1e-4
    with pytest.raises(ValueError, match="the columns of b are linearly dependent"):
        principal_angles(a, a[:, :1].expand(-1, 4))


def test_the_linear_autoencoder_finds_pcas_subspace_but_not_its_axes():
    k = 6
    x = halved(digits.load("train")[0].float() / 255)
    assert eigengaps(pca(x, k + 1).variances)[k - 1] > 1.2
    found = pca(x, k)
    model = linear_autoencoder(x, k)
    centred = x - found.mean
    with torch.no_grad():
        error = (model(centred) - centred).square().sum()
        code = model.encode(centred) - model.into.bias
    assert principal_angles(model.columns.detach(), found.directions).max() < 1
    assert error.item() == pytest.approx((found.reconstruct(x) - x).square().sum().item(), rel=0.01)
    a = mixing(model, found.directions)
    torch.testing.assert_close(found.directions @ a, model.columns.detach(), atol=0.01, rtol=0)
    expected = centred.flatten(1) @ found.directions @ torch.linalg.inv(a).T
    assert (code - expected).norm() < 0.02 * expected.norm()
    assert (a - a.diagonal().diag()).norm() > 0.5 * a.norm()  # far from PCA's own axes
