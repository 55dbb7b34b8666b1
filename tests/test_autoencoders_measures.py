"""What is measured of a code, against autoencoders whose answers are known, and the comparison of regularisers."""

import math

import numpy as np
import pytest
import torch

from course_lib.autoencoders import (
    DeepDense,
    Dense,
    Variant,
    active_share,
    code_movement,
    compare,
    copied_noise,
    explained,
    halved,
    hoyer,
    jacobian,
    jacobian_norm,
    knn_accuracy,
    linear_accuracy,
    pca,
    reconstruction_error,
    variants,
)
from course_lib.data import digits


def data(split, n=None):
    images, labels = digits.load(split)
    return halved(images[:n].float() / 255), labels[:n]


def projection(directions, scale=1.0):
    """The linear autoencoder U U^T, whose codes are `scale` times as big."""
    model = Dense(directions.shape[1], "linear", output="linear", shape=(1, 14, 14))
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.weight.copy_(scale * directions.T)
        model.columns.copy_(directions / scale)
    return model.eval()


@pytest.fixture(scope="module")
def identity():
    return projection(torch.eye(196))


def test_the_identity_copies_everything(identity):
    x, _ = data("test")
    assert copied_noise(identity, x) == pytest.approx(1, abs=1e-4)
    assert explained(identity, torch.rand(10, 1, 14, 14)) == pytest.approx(1)
    assert reconstruction_error(identity, x).max() < 1e-12


@pytest.mark.parametrize("k", [1, 20, 150])
def test_a_projection_copies_the_share_of_noise_that_its_dimensions_are(k):
    x, _ = data("test")
    model = projection(pca(x, k).directions)
    assert copied_noise(model, x, generator=torch.Generator().manual_seed(0)) == pytest.approx(k / 196, rel=0.1)


def test_explained_is_pcas_share_of_the_variance():
    x, _ = data("test")
    x = x - x.mean(0)
    everything = pca(x, 196).variances
    assert explained(projection(pca(x, 10).directions), x) == pytest.approx(
        (everything[:10].sum() / everything.sum()).item(), abs=1e-4
    )
    with pytest.raises(ValueError, match="all images are the same"):
        explained(projection(pca(x, 10).directions), x[:1].expand(3, -1, -1, -1))


def test_sparsity_of_known_codes():
    code = torch.tensor([[0.0, -3.0, 0.0, 0.0], [1.0, 1.0, -1.0, 1.0], [3.0, 0.2, 0.0, 4.0]])
    assert active_share(code).tolist() == [0.25, 1.0, 0.5]
    np.testing.assert_allclose(hoyer(code)[:2], [1, 0], atol=1e-6)
    assert hoyer(code)[2].item() == pytest.approx(2 - 7.2 / math.sqrt(25.04), abs=1e-5)
    torch.testing.assert_close(hoyer(100 * code), hoyer(code))
    with pytest.raises(ValueError, match="not all 0"):
        hoyer(torch.zeros(2, 4))


def test_the_jacobian_norm_is_that_of_the_whole_matrix():
    x = torch.rand(20, 1, 6, 6)
    model = DeepDense((15, 8), "tanh", shape=(1, 6, 6))
    exact = jacobian(model, x).square().sum((1, 2, 3, 4)).mean().sqrt().item()
    assert jacobian_norm(model, x, probes=200) == pytest.approx(exact, rel=0.02)


def test_movement_is_noise_over_spread_and_does_not_depend_on_the_scale_of_the_code(identity):
    x, _ = data("test")
    expected = math.sqrt(196 * 0.1**2 / (2 * x.flatten(1).var(0).sum().item()))
    for model in (identity, projection(torch.eye(196), 0.01)):
        assert code_movement(model, x, generator=torch.Generator().manual_seed(0)) == pytest.approx(expected, rel=0.01)
    with pytest.raises(ValueError, match="the code has collapsed"):
        code_movement(projection(torch.zeros(196, 3)), x)
    for measure in (code_movement, copied_noise):
        with pytest.raises(ValueError, match="sigma is 0"):
            measure(identity, x, 0.0)


def test_classifiers_read_labels_where_they_are_and_only_there():
    labels = torch.arange(300) % 3
    code = torch.eye(3)[labels] + 0.1 * torch.randn(300, 3)
    noise = torch.randn(300, 3)
    for accuracy in (linear_accuracy, knn_accuracy):
        assert accuracy(code[:200], labels[:200], code[200:], labels[200:]) > 0.95
        assert accuracy(1e-4 * code[:200], labels[:200], 1e-4 * code[200:], labels[200:]) > 0.95
        assert accuracy(noise[:200], labels[:200], noise[200:], labels[200:]) < 0.55


def test_halving_averages_two_by_two_pixels():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert halved(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_the_variants_are_overcomplete_but_for_the_bottleneck_and_have_equally_many_parameters():
    models = {name: variant.build() for name, variant in variants().items()}
    assert list(models) == [
        "none", "bottleneck", "L1", "KL", "contractive", "denoising", "dropout", "weight decay"
    ]  # fmt: skip
    assert {name for name, model in models.items() if not model.overcomplete} == {"bottleneck"}
    counts = [sum(p.numel() for p in set(model.parameters())) for model in models.values()]
    assert max(counts) < 1.01 * min(counts)
    with pytest.raises(ValueError, match="256 units for 784 pixels are not overcomplete"):
        variants((1, 28, 28))


@pytest.fixture(scope="module")
def table():
    return compare(data("train", 1000), data("test"), epochs=20)


def test_every_regulariser_does_to_the_code_what_it_is_for(table):
    none = table.loc["none"]
    assert (table.drop("none").copied_noise < 0.95 * none.copied_noise).all()
    assert table.copied_noise.bottleneck < 0.5 * none.copied_noise
    assert min(table.hoyer.L1, table.hoyer.KL) > 2 * none.hoyer
    assert table.jacobian.contractive < 0.9 * none.jacobian
    assert table.movement.contractive < none.movement
    assert (table.linear > 0.6).all()


def test_the_comparison_is_the_same_every_time(table):
    chosen = {name: variants()[name] for name in ("none", "denoising")}
    again = compare(data("train", 1000), data("test"), chosen, epochs=20)
    assert again.equals(table.loc[["none", "denoising"]])
    assert isinstance(chosen["none"], Variant)
