"""Attacked scores: closed forms, curves that fall, images judged anew, resuming, names, and the command ``attack``."""

import json
import re
import shlex
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from course_lib import cli
from course_lib.attacks import names
from course_lib.attacks.evaluation import PushedDistances, RobustAccuracy, attack_2afc, attack_distance
from course_lib.attacks.names import NAMES, named
from course_lib.attacks.search import Search
from course_lib.judgments import Metric, bootstrap_interval, evaluate
from tests.small_attacks import BENT, ROOTED, SQUARED, Bent, random_triplets, squared

FAST = {
    "steps": 8, "queries": 20, "search_steps": 3,
}  # fmt: skip


def fast(name):
    """Few steps, as far as the attack counts them."""
    return {option: value for option, value in FAST.items() if option in named(name).options}


def boundary(data):
    """L2 distance of each reference from where the squared pixel distances to p0 and p1 are equal, in float64."""
    ref, p0, p1 = (images.double() / 255 for images in (data.ref, data.p0, data.p1))
    gap = (squared(ref, p0) - squared(ref, p1)).abs()
    return gap / (2 * squared(p0, p1).sqrt())


def voted_by(metric, data):
    """The same triplets, where all votes but one of five agree with the metric."""
    ref, p0, p1, _ = data[:]
    return replace(data, judge=torch.where(metric(ref, p1) < metric(ref, p0), 0.8, 0.2))


# The table


@pytest.mark.parametrize("attack", ["worst-case", "ddn", "pgd"])
def test_robust_accuracy_of_a_linear_decision_is_the_share_beyond_eps(attack):
    data = voted_by(SQUARED, random_triplets(16))
    distances = boundary(data).sort().values
    eps = [((distances[i] + distances[i + 1]) / 2).item() for i in (2, 7, 12)]
    assert (distances.diff()[[2, 7, 12]] > 0.03 * distances[[2, 7, 12]]).all()  # else rounding decides
    options = fast(attack) | {"steps": 10 if attack == "worst-case" else 25}
    table = attack_2afc(SQUARED, data, attack=attack, eps=eps, batch_size=8, **options).table()
    assert table["robust_accuracy"].tolist() == [1, 13 / 16, 8 / 16, 3 / 16]
    assert table["score"].tolist() == pytest.approx([0.8, *(0.8 * r + 0.2 * (1 - r) for r in (13 / 16, 0.5, 3 / 16))])
    assert table["eps"].tolist() == [0, *eps]


def test_smallest_changes_of_a_linear_decision_are_the_distances_to_its_boundary():
    data = voted_by(SQUARED, random_triplets(16))
    result = attack_2afc(SQUARED, data, attack="fab", eps=[10.0], steps=10)
    torch.testing.assert_close(result.sizes[1], boundary(data), rtol=5e-3, atol=0)
    assert result.table()["median_size"][1] == pytest.approx(boundary(data).quantile(0.5).item(), rel=5e-3)


def test_the_row_without_attack_is_the_evaluation_of_the_metric():
    data = random_triplets(20, judge=torch.arange(20) % 6 / 5)
    table = attack_2afc("l2", data, attack="fgm", eps=[0.01]).table()
    expected = evaluate("l2", data)
    d0, d1 = expected.distances
    assert table["score"][0] == pytest.approx(expected.score)
    assert (table["score_low"][0], table["score_high"][0]) == pytest.approx(expected.interval())
    right = ((d1 < d0) == (data.judge > 0.5)).double()
    assert table["robust_accuracy"][0] == pytest.approx(right.mean().item())
    interval = bootstrap_interval(lambda i: right[i].mean().item(), 20, data.photo)
    assert (table["robust_accuracy_low"][0], table["robust_accuracy_high"][0]) == pytest.approx(interval)
    assert table[["metric", "data", "attack", "norm", "perturb", "n"]].iloc[1].tolist() == [
        "l2", "simulated noise", "fgm", "l2", "ref", 20,
    ]  # fmt: skip


def test_votes_of_one_half_are_counted_left_out_of_robust_accuracy_and_never_attacked():
    data = random_triplets(12)
    data.judge[[1, 4, 5]] = 0.5
    result = attack_2afc(BENT, data, attack="apgd-margin", eps=[5.0], steps=20)
    table = result.table()
    assert table["undecided"].tolist() == [3, 3] and table["n"].tolist() == [12, 12]
    assert table["robust_accuracy"].tolist() == [1, 0]
    assert table["score"].tolist() == pytest.approx([(9 * 0.8 + 1.5) / 12, (9 * 0.2 + 1.5) / 12])
    assert result.sizes[:, [1, 4, 5]].isinf().all()
    assert torch.equal(result.distances[0][1, [1, 4, 5]], result.distances[0][0, [1, 4, 5]])


class Wavy(Bent):
    """Goes up and down along every line."""

    def embed(self, x):
        return torch.sin((x - 0.5).flatten(1) @ self.weight)


def test_a_decision_overturned_at_a_small_eps_stays_overturned_though_the_attack_alone_would_lose_it():
    metric, eps = Metric("wavy", Wavy(gain=12.0)), [0.05, 0.1, 0.2, 0.4, 0.8, 1.6]
    data = voted_by(metric, random_triplets(24))
    alone = torch.stack([attack_2afc(metric, data, attack="fgm", eps=[e]).standing()[1] for e in eps])
    assert (alone.diff(dim=0) > 0).any()  # one large step overshoots
    together = attack_2afc(metric, data, attack="fgm", eps=eps[::-1])
    assert torch.equal(together.standing()[1:], alone.cummin(0).values)
    assert together.table()["robust_accuracy"].is_monotonic_decreasing
    assert together.eps == tuple(eps)


def test_wrong_decisions_need_no_change_and_ties_are_not_right():
    data = random_triplets(6)
    data.judge = 1 - data.judge
    data.p0[2] = data.p1[2]
    result = attack_2afc(BENT, data, attack="pgd", eps=[0.1], steps=5)
    assert result.standing()[0].sum() == 0
    assert (result.sizes[0] == 0).tolist() == [True, True, False, True, True, True]
    assert result.agreement()[0].tolist() == pytest.approx([0.2, 0.2, 0.5, 0.2, 0.2, 0.2])


@pytest.mark.parametrize("perturb", ["p0", "p1", "all"])
def test_candidates_can_be_attacked_and_all_three_fall_sooner_than_the_reference(perturb):
    data = random_triplets(16)
    asked = {"attack": "apgd-margin", "eps": [0.02, 0.4], "steps": 12}
    curve, of_ref = (attack_2afc(BENT, data, perturb=p, **asked).table()["robust_accuracy"] for p in (perturb, "ref"))
    assert 0 < curve[1] < 1 and curve[2] < curve[1] - 0.3
    if perturb == "all":
        assert curve[1] < of_ref[1] - 0.1


@pytest.mark.parametrize("what", ["outside the ball", "does not fool"])
def test_images_of_an_attack_are_judged_anew(what, monkeypatch):
    def boastful(objective, ball):
        search = Search(objective)
        inside = what == "does not fool"
        search.images = objective.start if inside else 1 - objective.start
        search.success[:] = True
        return search.result()

    data = random_triplets(8)
    assert attack_2afc(BENT, data, attack="fgm", eps=[3.0]).standing()[1].sum() < 8
    monkeypatch.setitem(names.ATTACKS, "fgm", replace(names.ATTACKS["fgm"], function=boastful))
    assert attack_2afc(BENT, data, attack="fgm", eps=[0.01]).standing()[1].sum() == 8
    assert attack_distance(SQUARED, data, attack="pgd", eps=[0.01], steps=2).distances.max() <= 1.001e-4


def test_distances_of_overturned_decisions_are_those_of_the_attacked_images():
    result = attack_2afc(BENT, random_triplets(12), attack="pgd", eps=[1.0], steps=10)
    overturned = result.standing()[1] == 0
    assert overturned.any()
    changed = (result.distances[0][1] != result.distances[0][0]) | (result.distances[1][1] != result.distances[1][0])
    assert torch.equal(changed, overturned)


# Distances


@pytest.mark.parametrize("attack", ["pgd", "momentum", "apgd-margin", "apgd-ce", "worst-case"])
def test_a_squared_distance_is_pushed_to_eps_squared_and_no_further(attack):
    images = random_triplets(5).ref
    options = fast(attack) | {"steps": 20}
    result = attack_distance(SQUARED, images, attack=attack, eps=[0.2, 0.1], **options)
    largest = torch.tensor([[0.01], [0.04]]).expand(2, 5)
    torch.testing.assert_close(result.distances, largest, rtol=1e-3, atol=0)
    table = result.table()
    assert table["eps"].tolist() == [0.1, 0.2] and table["n"].tolist() == [5, 5]
    assert table[["mean", "q05", "q50", "q95", "largest"]].iloc[1].tolist() == pytest.approx([0.04] * 5, rel=1e-3)


def test_in_the_linf_ball_every_pixel_moves_by_eps():
    images = random_triplets(4).ref
    distances = attack_distance(SQUARED, images, attack="PGD-Linf", eps=[2 / 255], steps=10).distances
    torch.testing.assert_close(distances, torch.full((1, 4), 192 * (2 / 255) ** 2), rtol=1e-3, atol=0)


def test_quantiles_are_those_of_numpy_and_a_larger_ball_never_holds_less():
    data = random_triplets(20)
    result = attack_distance(BENT, data, attack="pgd", eps=[0.1, 0.4, 0.5], steps=3)
    assert (result.distances.diff(dim=0) >= 0).all()
    for row, values in zip(result.table().itertuples(), result.distances, strict=True):
        assert (row.q05, row.q25, row.q75) == pytest.approx(tuple(np.quantile(values, [0.05, 0.25, 0.75])))


def test_triplets_their_references_and_floats_are_pushed_alike():
    data = random_triplets(5)
    inputs = (data, data.ref, data.ref.float() / 255)
    results = [attack_distance(BENT, images, attack="pgd", eps=[0.1], steps=3).distances for images in inputs]
    assert torch.equal(results[0], results[1]) and torch.equal(results[1], results[2])


@pytest.mark.parametrize("attack", ["fgm", "fab", "ddn", "deepfool", "carlini-wagner"])
def test_attacks_that_cannot_push_a_distance_are_refused(attack):
    with pytest.raises(ValueError, match=f"the attack {attack} .* cannot push a distance; take apgd-margin or pgd"):
        attack_distance(BENT, random_triplets(2), attack=attack, eps=[0.1])


# Resuming


class Interrupted(Bent):
    """Is killed at its n-th forward pass."""

    def __init__(self, after=None):
        super().__init__()
        self.after, self.calls = after, 0

    def embed(self, x):
        self.calls += 1
        if self.calls == self.after:
            raise KeyboardInterrupt
        return super().embed(x)


@pytest.mark.parametrize("mode", ["2afc", "distance"])
def test_an_interrupted_attack_goes_on_and_ends_with_the_same_numbers(mode, tmp_path):
    work = attack_2afc if mode == "2afc" else attack_distance
    data, options = random_triplets(12), {"attack": "pgd", "eps": [0.1, 0.3], "steps": 4, "batch_size": 3}
    whole = Interrupted()
    expected = work(Metric("bent", whole), data, **options)
    with pytest.raises(KeyboardInterrupt):
        work(Metric("bent", Interrupted(after=whole.calls * 2 // 3)), data, folder=tmp_path, **options)
    done = sorted(tmp_path.glob("batch-*.npz"))
    assert 1 <= len(done) < 4
    done[0].write_bytes(done[0].read_bytes()[:100])  # a damaged file is made again
    rest = Interrupted()
    resumed = work(Metric("bent", rest), data, folder=tmp_path, **options)
    assert rest.calls < whole.calls + 12  # looking whether stored batches fit costs up to three passes each
    pd.testing.assert_frame_equal(resumed.table(), expected.table(), check_exact=True)
    last = Interrupted()
    again = work(Metric("bent", last), data, folder=tmp_path, **options)
    pd.testing.assert_frame_equal(again.table(), expected.table(), check_exact=True)
    assert last.calls <= 4 * 4


CHANGED = {
    "eps": {"eps": [0.2]},
    "steps": {"steps": 5},
    "attack": {"attack": "momentum"},
    "norm": {"norm": "linf"},
    "perturb": {"perturb": "p0"},
    "seed": {"seed": 1},
    "batch_size": {"batch_size": 5},
    "restarts": {"restarts": 2},
}


@pytest.mark.parametrize("key", CHANGED)
def test_a_folder_of_other_settings_is_refused_in_one_line(key, tmp_path):
    asked = {"attack": "pgd", "eps": [0.1], "steps": 2, "folder": tmp_path}
    attack_2afc(BENT, random_triplets(4), **asked)
    with pytest.raises(ValueError, match=rf"holds an attack with .*{key}.*, this one has {key} ") as e:
        attack_2afc(BENT, random_triplets(4), **{**asked, **CHANGED[key]})
    assert "\n" not in str(e.value)


def test_a_folder_of_another_metric_or_other_images_of_the_same_name_is_refused(tmp_path):
    asked = {"attack": "pgd", "eps": [0.1], "steps": 2, "folder": tmp_path}
    attack_2afc(BENT, random_triplets(4), **asked)
    for metric, seed in ((Metric("bent", Bent(seed=1)), 0), (BENT, 1)):
        with pytest.raises(ValueError, match=r"made with another metric or other images .*; name another folder"):
            attack_2afc(metric, random_triplets(4, seed), **asked)


# Names and bad input


@pytest.mark.parametrize(
    ("given", "name", "norm"),
    [
        ("AA-L2", "worst-case", "l2"), ("aa-linf", "worst-case", "linf"), ("PGD-L2", "pgd", "l2"),
        ("PGD-Linf", "pgd", "linf"), ("CW-L2", "carlini-wagner", "l2"), ("MIFGSM-Linf", "momentum", "linf"),
        ("MI-L2", "momentum", "l2"), ("SQ-L2", "square", "l2"), ("DF-Linf", "deepfool", "linf"),
        ("FGSM-Linf", "fgm", "linf"), ("APGD-Margin", "apgd-margin", "l2"), ("worst-case", "worst-case", "l2"),
    ],
)  # fmt: skip
def test_names_of_lipsim_are_understood_in_any_case(given, name, norm):
    attack = named(given)
    assert (attack.name, attack.norm) == (name, norm)
    assert named(given, norm) == attack


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("name", NAMES)
def test_every_attack_runs_by_its_name_and_overturns_decisions(name, norm):
    if norm not in named(name).norms:
        with pytest.raises(ValueError, match=f"the attack {name} works for l2 only; for linf take fab or pgd"):
            named(name, norm)
        return
    eps = {"l2": 0.4, "linf": 0.04}[norm]
    result = attack_2afc(BENT, random_triplets(10), attack=name, norm=norm, eps=[eps], **fast(name))
    assert (result.attack, result.norm) == (name, norm)
    assert result.standing()[1].sum() <= (9 if name == "square" else 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attack": "foo"}, r"unknown attack 'foo'; choose fgm, pgd, .*worst-case, or a name of LipSim's \(AA, PGD"),
        ({"attack": "PGD-L1"}, "unknown attack 'PGD-L1'"),
        ({"norm": "l1"}, "unknown norm 'l1'; choose l2 or linf"),
        ({"attack": "PGD-Linf", "norm": "l2"}, "PGD-Linf is one for linf, but the norm is to be l2; leave one"),
        ({"attack": "CW-Linf"}, "carlini-wagner works for l2 only"),
        ({"attack": "square", "steps": 5}, "the attack square takes queries, p_init, restarts; not steps"),
        ({"attack": "fgm", "steps": 5}, "the attack fgm takes no options; not steps"),
        ({"attack": "pgd", "steps": 0}, "steps"),
        ({"eps": []}, "give at least one eps"),
        ({"eps": [0.1, -1]}, "eps is -1.0; it has to be a positive number"),
        ({"perturb": "everything"}, "unknown perturb='everything'; choose ref, p0, p1, all"),
        ({"batch_size": 0}, "batch_size is 0; it starts at 1"),
        ({"metric": "lpips"}, "unknown metric 'lpips'"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_one_line(options, message):
    asked = {"metric": BENT, "triplets": random_triplets(2), "eps": [0.1], "attack": "pgd", **options}
    with pytest.raises(ValueError, match=message) as caught:
        attack_2afc(asked.pop("metric"), asked.pop("triplets"), **asked)
    assert "\n" not in str(caught.value)


def test_data_without_triplets_or_without_any_majority_are_refused():
    data = random_triplets(3)
    with pytest.raises(ValueError, match="simulated noise is empty"):
        attack_2afc(BENT, data.select(torch.zeros(3, dtype=torch.bool)), eps=[0.1])
    with pytest.raises(ValueError, match="all votes are one half; without a majority there is nothing to attack"):
        attack_2afc(BENT, random_triplets(3, judge=torch.full((3,), 0.5)), eps=[0.1])
    with pytest.raises(ValueError, match="there are no images"):
        attack_distance(BENT, torch.zeros(0, 3, 8, 8), eps=[0.1])


def test_a_metric_without_a_finite_gradient_is_named_in_one_line():
    data = random_triplets(3)
    data.p0[0] = data.ref[0]
    data.judge[:] = 0.0
    with pytest.raises(ValueError, match="gradient of the objective is NaN or infinite") as caught:
        attack_2afc(ROOTED, data, attack="deepfool", eps=[0.1])
    assert "\n" not in str(caught.value)


# The command


def run(*arguments):
    """Output and errors of the command in this process; an expected error is raised as main() would report it."""
    result = CliRunner().invoke(cli.app, ["attack", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


@pytest.fixture
def folder(tmp_path):
    """Twelve triplets of noise, p0 always the nearer one, and everybody sees that."""
    random = np.random.default_rng(0)
    for i in range(12):
        ref = random.integers(60, 190, (24, 24, 3))
        for name, strength in (("ref", 0), ("p0", 20), ("p1", 21 + i)):
            pixels = (ref + random.integers(-strength, strength + 1, ref.shape)).astype(np.uint8)
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
        (tmp_path / "data" / "judge").mkdir(exist_ok=True)
        np.save(tmp_path / "data" / "judge" / f"{i}.npy", np.zeros(1, np.float32))
    return tmp_path / "data"


FORMS = {
    "several after one": ["--eps", "0.1", "0.25", "0.5"],
    "repeated": ["--eps", "0.1", "--eps", "0.25", "--eps", "0.5"],
    "both, and an equals sign": ["--eps=0.1", "0.25", "--eps", "0.5"],
    "fractions": ["--eps", "1/10", "1/4", "--eps=1/2"],
}


@pytest.mark.parametrize(("form", "position"), [*zip(FORMS, ["first", "in between", "last", "first"], strict=True)])
def test_eps_takes_several_values_in_every_form(form, position, folder, tmp_path):
    words = ["--metric", "l2", "--attack", "PGD-L2", "--steps", "2", "--dataset", "folder", "--data-dir", folder,
             "--output", tmp_path / "table.csv"]  # fmt: skip
    at = {"first": 0, "in between": 4, "last": len(words)}[position]
    run(*words[:at], *FORMS[form], *words[at:])
    assert pd.read_csv(tmp_path / "table.csv")["eps"].tolist() == [0, 0.1, 0.25, 0.5]


def test_the_command_prints_and_writes_the_table_and_says_what_is_in_use(folder, tmp_path):
    words = ["--metric", "lpips-st-alex", "--attack", "apgd-margin", "--eps", "0.5", "1", "--steps", "3",
             "--dataset", "folder", "--data-dir", folder, "--limit", "3", "--seed", "2",
             "--output", tmp_path / "table.json", "--folder", tmp_path / "run"]  # fmt: skip
    out, err = run(*words)
    stored = json.loads((tmp_path / "table.json").read_text())
    rows = pd.DataFrame(stored["rows"])
    assert rows["eps"].tolist() == [0, 0.5, 1] and (rows["n"] == 3).all()
    assert (stored["mode"], stored["seed"], stored["options"]["steps"]) == ("2afc", 2, 3)
    assert "lpips-st-alex: shift-tolerant LPIPS-alex, trunk and heads (BAPPS); attack apgd-margin, l2" in err
    assert f"{data_name(rows)}: 3 triplets" in err and "robust_accuracy" in out
    assert len(list((tmp_path / "run").glob("batch-*.npz"))) == 1
    assert run(*words)[0] == out


def data_name(rows):
    return rows["data"][0]


def test_the_distance_mode_writes_every_distance(folder, tmp_path):
    run("--metric", f"{__name__.rpartition('.')[0]}.small_attacks:squared", "--mode", "distance", "--attack", "AA-Linf",
        "--eps", "1/255", "2/255", "--steps", "4", "--queries", "5", "--dataset", "folder", "--data-dir", folder,
        "--output", tmp_path / "d.json")  # fmt: skip
    stored = json.loads((tmp_path / "d.json").read_text())
    assert stored["mode"] == "distance" and [len(d) for d in stored["distances"].values()] == [12, 12]
    for eps, d in stored["distances"].items():
        assert d == pytest.approx([3 * 24 * 24 * float(eps) ** 2] * 12, rel=0.02)


def test_the_quick_example_in_the_help_runs_on_simulated_data():
    text = CliRunner().invoke(cli.app, ["attack", "--help"], terminal_width=200).stdout
    examples = [shlex.split(line) for line in re.findall(r"python -m course_lib attack (.*)", text)]
    for example in examples:
        assert all(word in text.split("Options:")[1] for word in example if word.startswith("--"))
    assert examples[0][-2] == "--limit"
    out, err = run(*examples[0][:-1], 2)
    assert "simulated (test): 2 triplets" in err
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["0", *(e for e in ("0.5", "1", "2"))]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--eps", "x"], "--eps x is not a number; write 0.5 or 8/255"),
        (["--eps", "0.5", "1/0"], "--eps 1/0 is not a number"),
        (["--eps", "-1"], "eps is -1.0; it has to be a positive number"),
        (["--eps", "1", "--attack", "foo"], "unknown attack 'foo'; choose fgm"),
        (["--eps", "1", "--attack", "PGD-Linf", "--norm", "l2"], "PGD-Linf is one for linf"),
        (["--eps", "1", "--mode", "jnd"], "unknown mode 'jnd'; choose 2afc or distance"),
        (["--eps", "1", "--output", "x.txt"], "x.txt ends in neither .json nor .csv"),
        (["--eps", "1", "--attack", "square", "--steps", "3"], "the attack square takes"),
        (["--eps", "1", "--device", "nowhere"], "device 'nowhere' cannot be used here"),
        (["--eps", "1", "--data-dir", "nowhere"], "nowhere does not exist|there is no"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(words, message, folder, monkeypatch, capsys):
    data = [] if "--data-dir" in words else ["--data-dir", str(folder)]
    command = ["course_lib", "attack", "--metric", "l2", "--dataset", "folder", *data, *words]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    error = capsys.readouterr().err.splitlines()[-1]
    assert caught.value.code == 1
    assert error.startswith("error: ") and re.search(message, error)


def test_results_have_the_types_they_name():
    data = random_triplets(3)
    assert isinstance(attack_2afc(BENT, data, attack="fgm", eps=[0.1]), RobustAccuracy)
    assert isinstance(attack_distance(BENT, data, attack="pgd", eps=[0.1], steps=1), PushedDistances)
