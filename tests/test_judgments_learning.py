"""Training: the fast way is the slow way, modes change what they should, runs go on, held-out means held out."""

import dataclasses

import pytest
import torch

from course_lib import weights as weight_files
from course_lib.judgments import (
    MODES,
    Heads,
    Recipe,
    cache_differences,
    held_out_distances,
    load_metric,
    train_heads,
    train_lpips,
    two_afc_score,
)
from course_lib.lpips import LPIPS
from course_lib.training import TrainingError
from course_lib.trunks import Trunk
from tests.small_judgments import WIDTHS, small_differences, small_triplets

QUICK = Recipe(learning_rate=0.01, batch_size=10, epochs=1, decay_epochs=1)
NOTHING = torch.zeros(24, dtype=torch.bool)


def learn(mode="lin", data=None, recipe=QUICK, net="alex", weights=None, **options):
    return train_lpips(
        mode, small_triplets() if data is None else data, recipe=recipe, net=net, weights=weights, **options
    )


def heads_of(trained):
    return torch.cat([head.detach() for head in trained.metric.network.heads])


def trunk_of(trained):
    return trained.metric.network.trunk.features.state_dict()


def same(ours, theirs):
    return [torch.equal(ours[key], theirs[key]) for key in ours]


def random_trunk(seed=0, net="alex"):
    torch.manual_seed(seed)
    return Trunk(net, weights=None).features.state_dict()


# The fast way


@pytest.mark.parametrize("dropout", ["none", "channel"])
@pytest.mark.parametrize("ranking", ["network", "sigmoid"])
def test_the_fast_way_gives_the_heads_of_the_slow_way(ranking, dropout):
    recipe = dataclasses.replace(QUICK, ranking=ranking, dropout=dropout)
    fast, slow = (learn(recipe=recipe, fast=fast) for fast in (True, False))
    assert heads_of(fast).max() > 0.05
    torch.testing.assert_close(heads_of(fast), heads_of(slow), atol=1e-5, rtol=0)
    assert [a["loss"] for a in fast.history] == pytest.approx([b["loss"] for b in slow.history], abs=1e-5)


def test_the_fast_way_is_the_slow_way_for_a_pretrained_trunk_and_validation_triplets():
    val = small_triplets(12, seed=1)
    fast, slow = (learn(net="st-alex", weights="pretrained", val=val, fast=fast) for fast in (True, False))
    torch.testing.assert_close(heads_of(fast), heads_of(slow), atol=1e-5, rtol=0)
    assert [a["val_2afc"] for a in fast.history] == pytest.approx([b["val_2afc"] for b in slow.history])
    d0, d1 = fast.metric.triplet_distances(*val[:][:3])
    assert fast.history[-1]["val_2afc"] == pytest.approx(two_afc_score(d0, d1, val.judge))


def test_heads_trained_on_cached_differences_are_those_of_mode_lin():
    trained = learn()
    metric = LPIPS("alex", weights=None)
    metric.load_trunk({f"features.{key}": value for key, value in trunk_of(trained).items()})
    heads, history = train_heads(cache_differences(metric, small_triplets()), recipe=QUICK)
    assert torch.equal(heads.weight, heads_of(trained)) and history == trained.history
    assert not heads.training


def test_element_dropout_trains_the_slow_way_and_is_not_channel_dropout():
    element, channel, none = (
        heads_of(learn(recipe=dataclasses.replace(QUICK, dropout=dropout), fast=False))
        for dropout in ("element", "channel", "none")
    )
    assert not torch.allclose(element, channel, atol=1e-4) and not torch.allclose(element, none, atol=1e-6)


# Modes


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "slow"])
def test_lin_leaves_the_trunk_as_it_was(fast):
    trained = learn(net="st-alex", weights="pretrained", fast=fast)
    assert all(same(trunk_of(trained), Trunk("st-alex").features.state_dict()))


def test_tune_changes_every_layer_of_the_trunk_it_was_given():
    start = random_trunk(7)
    lin, tune = (learn(mode, trunk={f"features.{key}": start[key] for key in start}) for mode in ("lin", "tune"))
    assert all(same(trunk_of(lin), start))
    assert not any(same(trunk_of(tune), start))
    assert all(torch.allclose(trunk_of(tune)[key], start[key], atol=0.1) for key in start)  # it began there
    assert not tune.metric.training and not any(p.requires_grad for p in tune.metric.parameters())


def test_scratch_reads_no_weights_and_its_seed_decides_the_start(monkeypatch):
    def refuse(*_):
        raise AssertionError("pretrained weights were read")

    with monkeypatch.context() as patch:
        patch.setattr(weight_files, "load", refuse)
        patch.setattr(weight_files, "torchvision_trunk", refuse)
        first = learn("scratch", weights="pretrained")
        again, other = (learn("scratch", recipe=dataclasses.replace(QUICK, seed=seed)) for seed in (0, 1))
        with pytest.raises(AssertionError, match="pretrained weights were read"):
            learn("tune", weights="pretrained")
    assert all(same(trunk_of(first), trunk_of(again)))
    assert not any(same(trunk_of(first), trunk_of(other)))


@pytest.mark.parametrize("mode", MODES)
def test_heads_are_never_negative_after_a_step(mode, monkeypatch):
    seen, clamp = [], Heads.clamp

    def watched(heads):
        before = heads.weight.min().item()
        clamp(heads)
        seen.append((before, heads.weight.min().item()))

    monkeypatch.setattr(Heads, "clamp", watched)
    trained = learn(mode)
    steps = seen[1:]  # the first is the start
    assert len(steps) == 6
    assert all(before < 0 <= after for before, after in steps)
    assert (heads_of(trained) >= 0).all() and (heads_of(trained) > 0).any()


def test_seeds_decide_heads_and_order_and_nothing_global_does():
    results = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)
        trained = learn("lin", recipe=dataclasses.replace(QUICK, seed=seed), net="st-alex", weights="pretrained")
        results.append(heads_of(trained))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


# Learning


def test_trained_heads_find_what_the_simulated_observers_look_at():
    data, held_out = small_differences(600, seed=1), small_differences(600, seed=2)
    start = Heads(WIDTHS).eval()
    heads, history = train_heads(data, val=held_out, recipe=Recipe(learning_rate=0.02))
    untrained, trained = (
        two_afc_score(h(held_out.d0).detach(), h(held_out.d1).detach(), held_out.judge) for h in (start, heads)
    )
    assert untrained < 0.65
    assert trained > untrained + 0.1  # 7 standard errors of a score of 600 triplets
    assert history[-1]["val_2afc"] == pytest.approx(trained)
    assert history[-1]["loss"] < history[0]["loss"]
    assert heads.weight[:4].min() > 2 * heads.weight[4:].max()


def test_tuning_lowers_the_loss_by_more_than_training_the_heads_does():
    recipe = Recipe(batch_size=12, epochs=6, decay_epochs=0, dropout="none", ranking="sigmoid")
    lin, tune = ([record["loss"] for record in learn(mode, recipe=recipe).history] for mode in ("lin", "tune"))
    assert tune[0] - tune[-1] > max(1e-3, 10 * (lin[0] - lin[-1]))


@pytest.mark.parametrize("group", [0, 3])
def test_held_out_distances_do_not_depend_on_the_votes_of_their_group(group):
    recipe = Recipe(learning_rate=0.02, epochs=1, decay_epochs=1)
    data = small_differences(80)
    flipped = small_differences(80)
    out = data.photo == group
    flipped.judge = torch.where(out, 1 - flipped.judge, flipped.judge)
    before, after = (torch.cat(held_out_distances(d, recipe)).view(2, -1) for d in (data, flipped))
    assert torch.equal(before[:, out], after[:, out])
    assert not torch.isclose(before[:, ~out], after[:, ~out], rtol=1e-3).all(1).any()


def test_held_out_distances_are_those_of_heads_trained_without_the_group():
    data, recipe = small_differences(80), Recipe(epochs=1, decay_epochs=0)
    groups = torch.arange(80) // 40
    d0, d1 = held_out_distances(data, recipe, groups)
    heads, _ = train_heads(data.select(groups == 0), recipe=recipe)
    torch.testing.assert_close((d0[40:], d1[40:]), (heads(data.d0[40:]).detach(), heads(data.d1[40:]).detach()))


# Recipe


def test_the_rate_is_constant_and_then_falls_linearly_to_zero():
    times = (0.0, 2.5, 5.0, 6.0, 7.5, 9.0, 10.0, 11.0)
    assert [Recipe().rate(t) for t in times] == pytest.approx([1, 1, 1, 0.8, 0.5, 0.2, 0, 0])
    assert [Recipe(epochs=2, decay_epochs=0).rate(t) for t in (0.0, 2.0, 3.0)] == [1, 1, 0]
    assert [Recipe(epochs=0, decay_epochs=2).rate(t) for t in (0.0, 1.0, 2.0)] == [1, 0.5, 0]
    recipe = Recipe(epochs=1, decay_epochs=2, learning_rate=0.01)
    rates = [record["learning_rate"] for record in train_heads(small_differences(100), recipe=recipe)[1]]
    assert rates == pytest.approx([0.01, 0.005, 0])


RECIPES = {
    "unknown ranking 'hinge'; choose one of sigmoid, network": {"ranking": "hinge"},
    "unknown dropout 'all'; choose one of channel, element, none": {"dropout": "all"},
    r"learning rates are \(0\.0, None\), batch_size 50; all of them are positive": {"learning_rate": 0.0},
    "batch_size 0; all of them are positive": {"batch_size": 0},
    "epochs is 0, decay_epochs 0; train for at least one epoch": {"epochs": 0, "decay_epochs": 0},
    "epochs is -1, decay_epochs 5": {"epochs": -1},
}


@pytest.mark.parametrize("message", RECIPES)
def test_a_recipe_that_makes_no_sense_is_refused(message):
    with pytest.raises(ValueError, match=message):
        Recipe(**RECIPES[message])


# Runs that go on, and files


class Killed(Exception):
    """Stands for a process that ends without warning."""


@pytest.mark.parametrize(("mode", "fast"), [("lin", True), ("tune", False)])
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(tmp_path, monkeypatch, mode, fast):
    whole = learn(mode, fast=fast)
    steps, clamp = [], Heads.clamp

    def killing(heads):
        steps.append(clamp(heads))
        if len(steps) == 6:  # the start, 3 steps of the first epoch, 2 of the second
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Heads, "clamp", killing)
        with pytest.raises(Killed):
            learn(mode, fast=fast, folder=tmp_path)
    assert not (tmp_path / "metric.pt").exists()
    resumed = learn(mode, fast=fast, folder=tmp_path)
    assert resumed.history == whole.history
    assert torch.equal(heads_of(resumed), heads_of(whole)) and all(same(trunk_of(resumed), trunk_of(whole)))
    ref, p0, _, _ = small_triplets()[:4]
    assert torch.equal(load_metric(tmp_path / "metric.pt")(ref, p0), whole.metric(ref, p0))


CHANGED = {
    "trunk and triplets: .* there, .* now": {"trunk": {f"features.{k}": v for k, v in random_trunk(9).items()}},
    "mode: lin there, tune now": {"mode": "tune"},
    "fast: True there, False now": {"fast": False},
    r"learning_rate: 0\.01 there, 0\.02 now": {"recipe": dataclasses.replace(QUICK, learning_rate=0.02)},
    "net: alex there, st-alex now": {"net": "st-alex"},
    "data: made up 0 there, made up 3 now": {"data": small_triplets(seed=3)},
}


@pytest.mark.parametrize("message", CHANGED)
def test_a_folder_with_another_run_is_refused(tmp_path, message):
    learn(folder=tmp_path)
    kept = {name: (tmp_path / name).read_bytes() for name in ("metric.pt", "last.pt")}
    with pytest.raises(TrainingError, match=rf"holds a run with other settings \(.*{message}.*\); name another folder"):
        learn(folder=tmp_path, **CHANGED[message])
    assert all((tmp_path / name).read_bytes() == content for name, content in kept.items())


def test_a_saved_metric_gives_the_same_distances(tmp_path):
    trained = learn("tune")
    trained.save(tmp_path / "deep" / "metric.pt")
    ref, p0, p1, _ = small_triplets()[:]
    stored = load_metric(tmp_path / "deep" / "metric.pt")
    assert torch.equal(torch.stack(stored.triplet_distances(ref, p0, p1)),
                       torch.stack(trained.metric.triplet_distances(ref, p0, p1)))  # fmt: skip
    about = torch.load(tmp_path / "deep" / "metric.pt", weights_only=True)["about"]
    assert about["mode"] == "tune" and about["data"] == "made up 0" and about["learning_rate"] == 0.01


def test_files_that_hold_no_metric_are_named(tmp_path):
    (tmp_path / "damaged.pt").write_bytes(b"PK\x03\x04 damaged")
    torch.save({"weights": torch.ones(2)}, tmp_path / "foreign.pt")
    learn(folder=tmp_path / "run")
    for name, error, message in [
        ("damaged.pt", ValueError, r"damaged\.pt is damaged or not a checkpoint; delete it or name another one"),
        ("foreign.pt", ValueError, r"foreign\.pt holds no trained LPIPS but weights; name a metric\.pt"),
        ("run/last.pt", ValueError, r"last\.pt holds no trained LPIPS but model, .*; name a metric\.pt"),
        ("nothing.pt", FileNotFoundError, r"there is no checkpoint .*nothing\.pt; train one first, or correct"),
    ]:
        with pytest.raises(error, match=message) as caught:
            load_metric(tmp_path / name)
        assert "\n" not in str(caught.value)


# Clear refusals

ELEMENT = dataclasses.replace(QUICK, dropout="element")
REFUSED = {
    "unknown mode 'fine'; choose one of lin, tune, scratch": lambda: learn("fine"),
    "unknown net 'resnet'; choose one of": lambda: learn(net="resnet"),
    "element-wise dropout needs the images in every step; set fast=False": lambda: learn(recipe=ELEMENT),
    "element-wise dropout needs the images": lambda: train_heads(small_differences(9), recipe=ELEMENT),
    "'scratch' starts at random weights; leave trunk= out": lambda: learn("scratch", trunk=random_trunk()),
    r"features\.0\.bias is missing": lambda: learn(trunk={"features.0.weight": torch.ones(1)}),
    "made up 0 is empty; give at least one": lambda: learn(data=small_triplets().select(NOTHING)),
    "made up 0 is empty; give at least": lambda: learn("tune", val=small_triplets().select(NOTHING)),
    "made up is empty": lambda: train_heads(small_differences(0)),
    "groups names 1 groups of 8 triplets": lambda: held_out_distances(
        small_differences(8), groups=torch.zeros(8).long()
    ),
    "groups names 3 groups of 3 triplets; .* 8 triplets": lambda: held_out_distances(
        small_differences(8), groups=torch.arange(3)
    ),
    "made up does not say which photographs .*; give groups=": lambda: held_out_distances(
        dataclasses.replace(small_differences(8), photo=None)
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_wrong_input_is_refused_in_one_line_with_the_fix(message, unchecked):
    with pytest.raises(ValueError, match=message) as caught:
        REFUSED[message]()
    assert "\n" not in str(caught.value)


def test_the_trunk_has_a_learning_rate_of_its_own():
    data = small_triplets(12, 40)
    still, moved = (
        train_lpips("tune", data, net="alex", weights=None, recipe=Recipe(1e-2, 6, 1, 0, trunk_learning_rate=rate))
        for rate in (1e-12, 1e-2)
    )
    frozen = train_lpips("lin", data, net="alex", weights=None, recipe=Recipe(1e-2, 6, 1, 0), fast=False)
    before, slow, fast = (trained.metric.network.trunk.features[0].weight for trained in (frozen, still, moved))
    assert torch.allclose(before, slow, atol=1e-9)
    assert (before - fast).abs().max() > 5e-3
