"""Fine-tuning for decisions and for radii, and the decisions of a metric that are learnt."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from course_lib.certification import CertifiedMetric, distance_hinge, finetune, labels, radius_hinge
from course_lib.certification.finetuning import Recipe
from course_lib.certification.radii import cosine_2afc_radius, euclidean_2afc_radius
from course_lib.data import triplets
from course_lib.data.triplets import Triplets
from course_lib.judgments import load
from course_lib.lipschitz import LipSimNet
from course_lib.training import TrainingError

QUICK = Recipe(margins=(0.3,), learning_rate=0.01, batch_size=16, epochs=6, warmup_steps=0)


def network(seed=0):
    torch.manual_seed(seed)
    return LipSimNet.published(12, 2, 1, 16, out_features=8, image_size=16)


def redder_or_bluer(n=48, seed=0):
    """Triplets of 16 x 16: one candidate is redder, one bluer by as much, and the bluer one is always closer."""
    generator = torch.Generator().manual_seed(seed)
    ref = torch.randint(60, 180, (n, 3, 16, 16), generator=generator, dtype=torch.uint8)
    redder, bluer = ref.clone(), ref.clone()
    redder[:, 0] += 20
    bluer[:, 2] += 20
    right = torch.rand(n, generator=generator) < 0.5
    swap = right[:, None, None, None]
    p0, p1 = torch.where(swap, redder, bluer), torch.where(swap, bluer, redder)
    return Triplets("colours", ref, p0, p1, right.float())


def embeddings(n=7, d=5):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, d, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("kind", ["euclidean", "cosine"])
def test_the_radius_hinge_is_the_expected_shortfall_of_the_signed_radius(kind):
    e = embeddings()
    radius = {"euclidean": euclidean_2afc_radius, "cosine": cosine_2afc_radius}[kind](*e).tolist()
    judge = torch.tensor([0.0, 1.0, 0.2, 0.4, 0.5, 0.6, 1.0], dtype=torch.float64)
    expected = sum(
        (1 - j) * max(0, 0.7 - r) + j * max(0, 0.7 + r) for r, j in zip(radius, judge.tolist(), strict=True)
    ) / len(radius)
    assert radius_hinge(*e, judge, 0.7, kind).item() == pytest.approx(expected, rel=1e-12)
    both = (radius_hinge(*e, judge, 0.7, kind) + radius_hinge(*e, judge, 4.0, kind)) / 2
    torch.testing.assert_close(radius_hinge(*e, judge, (0.7, 4.0), kind), both)


@pytest.mark.parametrize("appended", [False, True])
def test_the_published_hinge_is_on_the_difference_of_cosine_distances(appended):
    e = embeddings()
    judge = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    longer = [torch.cat([x, torch.ones(7, 1, dtype=x.dtype)], 1) if appended else x for x in e]
    d0, d1 = (1 - F.cosine_similarity(longer[0], x) for x in longer[1:])
    y = 2 * judge - 1  # +1 where p1 is right, as published
    expected = (0.2 - y * (d0 - d1)).clamp(min=0).mean()
    torch.testing.assert_close(distance_hinge(*e, judge, 0.2, appended), expected)


def test_the_published_hinge_cannot_see_that_embeddings_shrink_and_the_radius_hinge_can():
    e = [x.detach() for x in embeddings()]
    short = [0.01 * x for x in e]
    judge = (cosine_2afc_radius(*e) < 0).double()
    torch.testing.assert_close(distance_hinge(*short, judge, 0.2), distance_hinge(*e, judge, 0.2))
    assert radius_hinge(*short, judge, 0.5) > 0.45 > radius_hinge(*e, judge, 0.5)


@pytest.mark.parametrize("loss", ["radius", "hinge"])
def test_fine_tuning_learns_decisions_and_the_network_stays_1_lipschitz(loss):
    data, held_out = redder_or_bluer(), redder_or_bluer(seed=1)
    margins, kind = ((0.3,), "euclidean") if loss == "radius" else ((0.005,), "cosine")
    recipe = dataclasses.replace(QUICK, loss=loss, kind=kind, margins=margins)

    def right(net):
        radius = CertifiedMetric(net.eval(), recipe.kind).radius(*held_out[:][:3])
        return ((radius < 0) == (held_out.judge > 0.5)).float().mean().item()

    start = network()
    before = right(start)
    if before > 0.5:  # then let it learn the opposite
        data, held_out = (dataclasses.replace(d, judge=1 - d.judge) for d in (data, held_out))
        before = right(start)
    done = finetune(start, data, recipe)
    assert done.network is start and not start.training
    assert done.history[-1]["loss"] < 0.8 * done.history[0]["loss"]
    assert right(start) > 0.9 > before
    assert start.upper_bound() <= 1 + 1e-4


def weights(net):
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def test_a_continued_run_ends_where_an_unbroken_one_does_average_included(tmp_path):
    recipe = dataclasses.replace(QUICK, epochs=3, average=0.9)
    whole = finetune(network(), redder_or_bluer(), recipe).network

    class Stop(Exception):
        pass

    def stop_in_the_second_epoch(_, seen=[]):  # noqa: B006
        seen.append(1)
        if len(seen) == 2:
            raise Stop
        return {}

    with pytest.raises(Stop):
        finetune(network(), redder_or_bluer(), recipe, val=stop_in_the_second_epoch, folder=tmp_path)
    continued = finetune(network(3), redder_or_bluer(), recipe, folder=tmp_path).network
    assert torch.equal(weights(whole), weights(continued))
    assert not torch.allclose(weights(whole), weights(finetune(network(), redder_or_bluer(), QUICK).network))
    with pytest.raises(TrainingError, match="other settings"):
        finetune(network(), redder_or_bluer(), dataclasses.replace(recipe, margins=(0.6,)), folder=tmp_path)


def test_the_average_keeps_little_of_the_start_and_then_as_much_as_the_recipe_says():
    data, seen = redder_or_bluer(16), []  # one step in each epoch
    recipe = dataclasses.replace(QUICK, epochs=12)
    finetune(network(), data, recipe, val=lambda net: seen.append(weights(net)) or {})
    mean = seen[0]
    for step, new in enumerate(seen[1:], 1):
        keep = min(0.5, (1 + step) / (10 + step))
        mean = keep * mean + (1 - keep) * new
    averaged = finetune(network(), data, dataclasses.replace(recipe, average=0.5)).network
    torch.testing.assert_close(weights(averaged), mean, rtol=0, atol=1e-5)
    assert (mean - seen[-1]).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "triplet"}, "unknown loss 'triplet'; choose radius or hinge"),
        ({"kind": "manhattan"}, "manhattan"),
        ({"margins": (1.0, 0.0)}, "margin is 0.0; it has to be positive"),
        ({"margins": ()}, "margin is 0; it has to be positive"),
        ({"appended": True}, "appended belongs to the published loss"),
        ({"average": 1.0}, "average 1.0"),
        ({"precision": "fp16"}, "unknown precision"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**changes)


def test_no_triplets_are_refused():
    data = redder_or_bluer()
    with pytest.raises(ValueError, match="empty"):
        finetune(network(), data.select(torch.zeros(48, dtype=torch.bool)))


def test_the_shipped_decisions_are_those_of_the_teacher():
    data = labels.simulated("val")
    assert "decided by lpips-st-alex" in data.name and len(data) == triplets.SIZES["val"]
    assert torch.equal(data.ref, triplets.simulated("val").ref)
    few = data.select(torch.arange(0, 1000, 100))
    d0, d1 = load("lpips-st-alex").triplet_distances(*few[:][:3])
    assert torch.equal(few.judge, (d0 > d1).float())


def test_decisions_are_kept_in_the_cache_and_change_with_the_images(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    data = redder_or_bluer(6)
    metric = load(CertifiedMetric(network().eval(), "euclidean"))
    first = labels.decided(data, metric)
    d0, d1 = metric.triplet_distances(*data[:][:3])
    assert torch.equal(first.judge, (d0 > d1).float()) and len(list(tmp_path.iterdir())) == 1
    kept = next(tmp_path.iterdir())
    metric.distance.forward = metric.distance.triplet_distances = None  # from the cache, or not at all
    assert torch.equal(labels.decided(data, metric).judge, first.judge)
    with pytest.raises(TypeError):
        labels.decided(dataclasses.replace(data, ref=data.ref + 1), metric)
    kept.write_bytes(kept.read_bytes()[:50])
    with pytest.raises(TypeError):
        labels.decided(data, metric)


def test_fresh_triplets_are_new_ones_of_the_training_photographs_and_always_the_same(monkeypatch):
    train = set(triplets.simulated("train").photo.tolist())
    monkeypatch.setattr(triplets, "PART", 8)
    data, again = labels.fresh([0, 1], "l2"), labels.fresh([1], "l2")
    assert len(data) == 16 and torch.equal(data.p0[8:], again.p0) and torch.equal(data.judge[8:], again.judge)
    assert not torch.equal(data.ref[:8], data.ref[8:])
    assert set(data.photo.tolist()) <= train
    assert set(data.judge.tolist()) == {0.0, 1.0}
    for wrong in ([], [-1]):
        with pytest.raises(ValueError, match="give at least one number"):
            labels.fresh(wrong, "l2")


@pytest.mark.parametrize(("hidden", "stride"), [((0, 0), 8), ((8, 0), 8), ((0, 8), 4)])
def test_every_scattering_network_is_built_again_from_its_card(hidden, stride, tmp_path):
    metric = CertifiedMetric(LipSimNet.scattering(hidden, stride).eval())
    metric.save(tmp_path / "m.safetensors")
    again = CertifiedMetric.load(tmp_path / "m.json")
    assert again.card["network"] == {"architecture": "scattering", "hidden": list(hidden), "stride": stride}
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(again.embed(x), metric.embed(x))
