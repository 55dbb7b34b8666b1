"""CertifiedMetric keeps its word under attack and rounding, refuses what it cannot prove, and comes back whole."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from course_lib import judgments
from course_lib.attacks import attack_2afc, sizes
from course_lib.certification import CertifiedMetric, radii, rounding
from course_lib.data import photos
from course_lib.data.triplets import Triplets
from course_lib.lipschitz import LipSimNet
from tests.small_certified import METRICS, SIZE, attacked, images, isometry, student


@pytest.mark.parametrize("name", METRICS)
def test_no_attack_inside_the_radius_flips_any_of_300_decisions(name):
    metric, triplets = METRICS[name](), images(310)
    decision, radius = metric.decide(*triplets), metric.radius(*triplets)
    some = radius != 0
    assert some.sum() >= 300 and radius.abs().median() > 0.01
    assert torch.equal(radius.sign()[some], (1.0 - 2 * decision)[some])
    for seed in range(2):
        found = attacked(metric, *triplets, radius.abs(), seed=seed)
        assert (sizes(found.double() - triplets[0].double(), "l2") <= radius.abs().double()).all()
        assert torch.equal(metric.decide(found, *triplets[1:])[some], decision[some])


def test_the_same_attack_flips_most_decisions_inside_the_published_radius_and_just_outside_the_exact_one():
    metric, triplets = METRICS["isometry cosine"](), images()
    decision, radius, norm = metric.assess(*triplets)
    published = metric.assess(*triplets, formula="published").radius
    assert torch.allclose(published * norm, radius, rtol=1e-4) and norm.median() < 1
    found = attacked(metric, *triplets, published.abs())
    assert (metric.decide(found, *triplets[1:]) != decision)[norm < 0.9].float().mean() > 0.9
    found = attacked(metric, *triplets, radius.abs() * 1.01 + 1e-4)
    assert (metric.decide(found, *triplets[1:]) != decision).float().mean() > 0.9


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("name", METRICS)
def test_no_attack_leaves_the_interval(name, both):
    metric, (x, y, _) = METRICS[name](), images(150, seed=1)
    reached = 0
    for eps in (0.01, 0.2, 5.0):
        low, high = metric.interval(x, y, eps, both=both)
        assert (low <= metric(x, y)).all() and (metric(x, y) <= high).all()
        for sign in (1, -1):
            pair = torch.stack([x, y])
            for step in range(20):
                pair.requires_grad_(True)
                d = metric(*pair)
                assert (d >= low).all() and (d <= high).all()
                (slope,) = torch.autograd.grad(sign * d.sum(), pair)
                slope[1] *= both
                slope = slope / slope.flatten(2).norm(dim=2)[..., None, None, None].clamp_min(1e-12)
                change = pair.detach() + slope * eps * 2 * (1 - step / 20) - torch.stack([x, y])
                length = change.flatten(2).norm(dim=2)[..., None, None, None].clamp_min(1e-12)
                pair = torch.stack([x, y]) + change * (eps * (1 - 1e-6) / length).clamp(max=1)
                pair = pair.clamp(0, 1)
            reached += ((d - (high if sign > 0 else low)).abs() < 0.02 * (high - low)).sum()
    assert name.startswith("student") or reached > 300


@pytest.mark.parametrize("name", METRICS)
def test_no_attack_on_all_three_images_flips_what_is_certified_against_it(name):
    metric, triplets = METRICS[name](), images(200, seed=2, contrast=0.05)
    eps = (0.02, 0.03, 0.01)
    certified = metric.three_image_certified(*triplets, eps)
    assert 0.01 < certified.float().mean() < 0.99
    decision = metric.decide(*triplets)
    start, budgets = torch.stack(triplets), torch.tensor(eps)[:, None, None, None, None]
    x = start
    for _ in range(20):
        x = x.detach().requires_grad_(True)
        d0, d1 = metric.triplet_distances(*x)
        (slope,) = torch.autograd.grad(((1 - 2 * decision) * (d1 - d0)).sum(), x)
        slope = slope / slope.flatten(2).norm(dim=2)[..., None, None, None].clamp_min(1e-12)
        x = (start + 0.999 * budgets * -slope).clamp(0, 1)
    assert torch.equal(metric.decide(*x)[certified], decision[certified])
    assert not metric.three_image_certified(*triplets, 100).any()


NETWORKS = {
    "tiny": lambda: LipSimNet.tiny(),
    "weights three times as large": lambda: grown(LipSimNet.tiny()),
    "28 layers": lambda: LipSimNet.published(12, 20, 8, 32, out_features=12, image_size=16),
    "isometry": lambda: isometry(offset=3.0),
}


def grown(network):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_embeddings_in_float32_are_within_half_the_margin_of_those_in_float64(name):
    network = NETWORKS[name]().eval()
    pictures = (
        photos.crops("test", 12, size={"isometry": SIZE, "28 layers": 16}.get(name, 64), seed=0).images.float() / 255
    )
    with torch.no_grad():
        together, apart = network(pictures), torch.cat([network(picture[None]) for picture in pictures])
        exact = copy.deepcopy(network).double()(pictures.double())
    _, allowed = rounding.exactly(together, pictures, 1.0)
    for found in (together, apart):
        assert ((found.double() - exact).norm(dim=1) < allowed / 2).all()
    assert allowed.max() < 1e-4  # and the margin is small beside 36 / 255


@pytest.mark.parametrize("kind", radii.KINDS)
def test_where_float32_decides_otherwise_than_float64_the_radius_is_0(kind):
    """References as far from p0 as from p1, by construction, so that rounding decides."""
    generator = torch.Generator().manual_seed(0)
    ref = torch.full((600, 3, SIZE, SIZE), 0.5)
    change = 0.1 * torch.randn(ref.shape, generator=generator)
    swapped = change.flatten(1)[:, torch.randperm(3 * SIZE**2, generator=generator)].reshape(ref.shape)
    size = 10 ** -(3 * torch.rand(600, 1, 1, 1, generator=generator))
    triplets = ref, ref + size * change, ref + size * swapped
    metric = CertifiedMetric(nn.Flatten(), kind)
    exact = CertifiedMetric(nn.Flatten(), kind).double()
    rounded = metric.decide(*triplets)
    different = rounded != exact.decide(
        *(image.double() + 1e-9 * torch.rand_like(image.double()) for image in triplets)
    )
    assert different.any() and (metric.radius(*triplets)[different] == 0).all()
    raw = (radii.euclidean_2afc_radius if kind == "euclidean" else radii.cosine_2afc_radius)(
        *(metric.embed(image).double() for image in triplets)
    )
    assert (raw[different] != 0).any()  # what the formula alone would have certified


def test_radii_are_never_above_those_of_the_formula_and_hardly_below():
    for name, make in METRICS.items():
        metric, triplets = make(), images(100, seed=3)
        formula = radii.cosine_2afc_radius if name.endswith("cosine") else radii.euclidean_2afc_radius
        exact = formula(*(metric.embed(image).double() for image in triplets)).abs()
        radius = metric.radius(*triplets).double().abs()
        assert (radius * metric.lipschitz <= exact).all()
        assert (radius > exact - 1e-3).all() and radius.median() > 0.97 * exact.median()


def test_radii_are_divided_by_the_bound_which_follows_the_weights():
    metric, triplets = CertifiedMetric(isometry()), images(20)
    assert metric.lipschitz == pytest.approx(1, abs=1e-5)
    radius = metric.radius(*triplets)
    twice = CertifiedMetric(isometry(), lipschitz=2).radius(*triplets)
    assert torch.allclose(twice, radius / 2, atol=1e-4)
    with torch.no_grad():
        metric.network[1].weight.mul_(3)
    assert metric.lipschitz == pytest.approx(3, abs=1e-5)
    assert torch.allclose(metric.radius(*triplets), radius, atol=1e-4)  # embeddings and bound both grew


@pytest.mark.parametrize(
    "network, given, error, message",
    [
        (
            nn.Sequential(nn.Flatten(), nn.Softmax(1)),
            None,
            TypeError,
            r"no certificate without a Lipschitz bound: .*Soft",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")),
            None,
            ValueError,
            "or give one that you",
        ),
        (nn.Flatten(), 0.0, ValueError, r"bound is 0\.0; it has to be positive and finite"),
        (nn.Flatten(), math.nan, ValueError, "bound is nan"),
    ],
)
def test_a_network_without_a_bound_is_refused(network, given, error, message):
    with pytest.raises(error, match=message) as caught:
        CertifiedMetric(network, lipschitz=given)
    assert "\n" not in str(caught.value)


def test_ties_are_called_ties():
    ref, p0, _ = images(10)
    for make in METRICS.values():
        for other in (p0, ref):
            assert make().decide(ref, other, other).tolist() == [-1] * 10
            assert make().radius(ref, other, other).tolist() == [0] * 10


def test_certificates_are_those_of_evaluation_mode_in_full_precision_and_leave_the_mode_as_it_is():
    metric, triplets = CertifiedMetric(isometry()), images(20)
    radius = metric.radius(*triplets)
    metric.train()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(metric.radius(*triplets), radius)
        assert metric.embed(triplets[0]).dtype == torch.bfloat16  # training is the caller's business
        assert metric.network.training
        metric.eval()
        assert metric.embed(triplets[0]).dtype == torch.float32
    assert not metric.radius(*triplets).requires_grad
    x = triplets[0].clone().requires_grad_(True)
    metric(x, triplets[0]).sum().backward()
    assert x.grad.isfinite().all()


def test_half_precision_certifies_less_and_never_more():
    metric, triplets = CertifiedMetric(isometry()), images(50)
    radius = metric.radius(*triplets).abs()
    half = CertifiedMetric(isometry().bfloat16(), lipschitz=1.01).radius(*(image.bfloat16() for image in triplets))
    assert half.dtype == torch.float32 and (half.abs() <= radius).all() and (half.abs() < 0.5 * radius).any()


def test_batches_are_embedded_in_parts_with_the_same_result():
    metric, triplets = CertifiedMetric(student(), "cosine"), images(150)
    most = 0

    def watch(module, inputs):
        nonlocal most
        most = max(most, len(inputs[0]))

    network = metric.network
    metric.network = Watched(network, watch)
    metric._given = 1.0
    together = metric.radius(*triplets)
    assert most == 3 * 64
    apart = torch.cat([metric.radius(*(image[i : i + 1] for image in triplets)) for i in range(150)])
    assert torch.allclose(together, apart, atol=1e-5)


class Watched(nn.Module):
    """A network that is looked at whenever it is called."""

    def __init__(self, network, watch):
        super().__init__()
        self.network, self.watch = network, watch

    def forward(self, x):
        self.watch(self, (x,))
        return self.network(x)


def test_it_is_a_metric_of_the_course():
    metric = CertifiedMetric(student())
    ref, p0, p1 = ((255 * image).round().byte() for image in images(40))
    data = Triplets("noise", ref, p0, p1, (torch.arange(40) % 6).float() / 5)
    measured = judgments.evaluate(metric, data)
    d0, d1 = measured.distances
    floats = [image.float() / 255 for image in (ref, p0, p1)]
    assert torch.equal((d1 < d0).long(), metric.decide(*floats))
    assert torch.allclose(d0, metric(floats[0], floats[1]), rtol=1e-4)
    table = attack_2afc(metric, data, eps=[0.5], attack="pgd", steps=5).table()
    assert table.robust_accuracy[1] <= table.robust_accuracy[0]


def test_a_network_that_gives_nan_certifies_nothing():
    network = isometry()
    metric = CertifiedMetric(network, lipschitz=1)
    network[1].bias.data[0] = math.nan
    with pytest.raises(ValueError, match="an embedding is NaN or infinite"):
        metric.radius(*images(5))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m, x: m.radius(x, x, 255 * x), "p1 has values in .* this looks like 0-255"),
        (lambda m, x: m.decide(x, x[:1], x), r"ref is \(2, 3, 8, 8\) but p0 is \(1, 3, 8, 8\)"),
        (lambda m, x: m.interval(x, x, -1), "eps is -1"),
        (lambda m, x: m.three_image_certified(x, x, x, (1, 2)), "eps has 2 numbers"),
        (lambda m, x: m.assess(x, x, x, formula="published"), "no formula 'published' for kind 'euclidean'"),
        (lambda m, x: m(x[..., :4], x[..., :4]), "images are 8 x 4 pixels; this network takes 8 x 8"),
        (lambda m, x: m.save("metric.pt"), "does not end in .safetensors"),
        (lambda m, x: CertifiedMetric(m.network, "manhattan"), "unknown kind 'manhattan'"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(call, message, unchecked):
    with pytest.raises(ValueError, match=message) as caught:
        call(CertifiedMetric(student()), images(2)[0])
    assert "\n" not in str(caught.value)


def test_what_is_saved_comes_back_with_its_card_and_the_same_radii(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        metric = CertifiedMetric(LipSimNet.tiny(32).eval(), "cosine")
    triplets = [photos.crops("test", 2, seed=seed).images.float() / 255 for seed in range(3)]
    path = tmp_path / "metric.safetensors"
    state = torch.get_rng_state()
    metric.save(path, command="finetune ...", seed=5, scores={"natural": 88.25})
    for name in (path, tmp_path / "metric.json", str(path)):
        loaded = CertifiedMetric.load(name)
        assert torch.equal(loaded.radius(*triplets), metric.radius(*triplets))
        assert not loaded.training and not loaded.network.training
        assert (loaded.kind, loaded.lipschitz) == ("cosine", metric.lipschitz)
    assert torch.equal(torch.get_rng_state(), state)
    card = json.loads((tmp_path / "metric.json").read_text())
    assert card == loaded.card
    assert card["network"] == {"architecture": "tiny", "out_features": 32}
    assert (card["seed"], card["scores"]) == (5, {"natural": 88.25}) and card["versions"]["torch"] == torch.__version__
    assert sorted(file.name for file in tmp_path.iterdir()) == ["metric.json", "metric.safetensors"]
    assert set(load_file(path)) == set(metric.network.state_dict())  # another program reads it too
    loaded.save(tmp_path / "again.safetensors", scores={})
    assert CertifiedMetric.load(tmp_path / "again.json").card["network"] == card["network"]


def test_a_network_of_ones_own_is_saved_and_loaded_into_another_of_its_kind(tmp_path):
    metric = CertifiedMetric(isometry(), lipschitz=1.5)
    metric.save(tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match="architecture of your own; give it as network="):
        CertifiedMetric.load(tmp_path / "own.json")
    with pytest.raises(ValueError, match=r"holds another network .*: size mismatch"):
        CertifiedMetric.load(tmp_path / "own.json", isometry(5))
    loaded = CertifiedMetric.load(tmp_path / "own.json", isometry(seed=1))
    assert loaded.lipschitz == 1.5 and torch.equal(loaded.radius(*images(5)), metric.radius(*images(5)))


def changed_card(folder, **entries):
    card = json.loads((folder / "m.json").read_text())
    (folder / "m.json").write_text(json.dumps({**card, **entries}))


@pytest.mark.parametrize(
    "damage, error, message",
    [
        (lambda f: (f / "m.json").unlink(), FileNotFoundError, r"m\.json is missing; a certified metric is"),
        (lambda f: (f / "m.safetensors").unlink(), FileNotFoundError, r"m\.safetensors is missing"),
        (
            lambda f: (f / "m.safetensors").write_bytes((f / "m.safetensors").read_bytes()[:-7]),
            ValueError,
            "does not fit the SHA-256 on its card: the file is cut off",
        ),
        (lambda f: changed_card(f, sha256="0" * 64), ValueError, "does not fit the SHA-256"),
        (lambda f: (f / "m.json").write_text('{"kind": "cos'), ValueError, "is damaged, no JSON"),
        (lambda f: (f / "m.json").write_text("[1]"), ValueError, "it has no kind, lipschitz, network"),
        (lambda f: changed_card(f, kind="l2"), ValueError, "unknown kind 'l2'"),
        (
            lambda f: changed_card(f, network={"architecture": "resnet"}),
            ValueError,
            r"m\.json: unknown architecture 'resnet'; known are tiny, scattering",
        ),
        (
            lambda f: changed_card(f, network={"architecture": "tiny", "widht": 3}),
            ValueError,
            "cannot be built with .*widht",
        ),
        (
            lambda f: changed_card(f, network={"architecture": "tiny", "out_features": 31}),
            ValueError,
            "the weights are not those of",
        ),
        (
            lambda f: changed_card(f, network={"architecture": "xlarge"}),
            ValueError,
            "the weights are not those of",
        ),
    ],
)
def test_damaged_or_foreign_files_are_refused_in_one_clear_line(damage, error, message, tmp_path, unchecked):
    CertifiedMetric(LipSimNet.tiny(32)).save(tmp_path / "m.safetensors")
    damage(tmp_path)
    with pytest.raises(error, match=message) as caught:
        CertifiedMetric.load(tmp_path / "m.safetensors")
    assert "\n" not in str(caught.value)


def test_nothing_is_written_when_the_card_is_wrong(tmp_path):
    metric = CertifiedMetric(LipSimNet.tiny(32), architecture={"architecture": "tiny", "out_features": 16})
    with pytest.raises(ValueError, match=r"the network is not .*; give the architecture it was built with"):
        metric.save(tmp_path / "m.safetensors")
    metric = CertifiedMetric(LipSimNet.tiny(32))
    with pytest.raises(ValueError, match="the card has an entry 'kind' of its own"):
        metric.save(tmp_path / "m.safetensors", kind="nice")
    for wrong in (np.float32(1), math.nan):
        with pytest.raises(ValueError, match="the card cannot be written as JSON"):
            metric.save(tmp_path / "m.safetensors", score=wrong)
    assert not list(tmp_path.iterdir())
