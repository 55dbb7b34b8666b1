"""The trial keeps votes safely, scores them as a plain loop does, and its widget shows what is voted on."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from course_lib.data import triplets
from course_lib.judgments import human_ceiling, l2, majority_ceiling
from course_lib.judgments.trial import NOTE, ZOOM, Trial, trial_widget
from course_lib.lpips import LPIPS

pytestmark = pytest.mark.usefixtures("unchecked")


def voted(folder, votes, **options):
    trial = Trial(folder=folder, **options)
    for vote in votes:
        trial.vote(vote)
    return trial


def test_votes_survive_in_a_new_trial_of_the_same_seed(tmp_path):
    voted(tmp_path, [1, 0, 1])
    again = Trial(folder=tmp_path)
    assert again.votes == [1, 0, 1] and not again.done
    again.vote(1)
    assert Trial(folder=tmp_path).votes == [1, 0, 1, 1]


@pytest.mark.parametrize("other", [{"seed": 1}, {"size": 19}])
def test_trial_of_another_seed_or_size_has_other_votes(tmp_path, other):
    first = voted(tmp_path, [1, 0, 1])
    second = Trial(folder=tmp_path, **other)
    assert second.votes == []
    second.vote(0)
    assert Trial(folder=tmp_path).votes == [1, 0, 1]
    assert len(first.triplets) != len(second.triplets) or (first.triplets.ref != second.triplets.ref).any()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"votes": [0, 2]}', '{"votes": 1}', '{"seed": 0}'])
def test_damaged_file_is_refused_and_left_alone(tmp_path, content):
    path = Trial(folder=tmp_path).path
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{path.name} is damaged"):
        Trial(folder=tmp_path)
    assert path.read_text() == content


def test_votes_on_other_triplets_are_refused(tmp_path):
    trial = voted(tmp_path, [1, 0])
    Trial(seed=1, folder=tmp_path).path.write_bytes(trial.path.read_bytes())
    with pytest.raises(ValueError, match="other triplets"):
        Trial(seed=1, folder=tmp_path)
    stored = json.loads(trial.path.read_text())
    stored["observers"][0] = 5 - stored["observers"][0]
    trial.path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="other triplets"):
        Trial(folder=tmp_path)


def test_second_window_cannot_overwrite_the_votes_of_the_first(tmp_path):
    first, second = Trial(folder=tmp_path), Trial(folder=tmp_path)
    first.vote(1)
    with pytest.raises(ValueError, match="meanwhile"):
        second.vote(0)
    assert Trial(folder=tmp_path).votes == [1]


def test_vote_that_cannot_be_written_does_not_count(tmp_path, monkeypatch):
    trial = voted(tmp_path, [1])

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("course_lib.judgments.trial.write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        trial.vote(0)
    assert trial.votes == Trial(folder=tmp_path).votes == [1]


@pytest.mark.parametrize("choice", [2, -1, None, "left"])
def test_vote_must_be_for_one_of_the_two(tmp_path, choice):
    with pytest.raises(ValueError, match="vote 0 for p0 or 1 for p1"):
        Trial(folder=tmp_path).vote(choice)


def test_nobody_votes_after_the_last_triplet(tmp_path):
    trial = voted(tmp_path, [0, 1], size=2)
    assert trial.done
    with pytest.raises(ValueError, match="all 2 triplets are judged"):
        trial.vote(0)


@pytest.mark.parametrize("size", [0, 2001])
def test_size_must_fit_the_data(tmp_path, size):
    with pytest.raises(ValueError, match="choose 1 to 2000 triplets"):
        Trial(size=size, folder=tmp_path)


def test_restart_forgets_the_votes_of_this_trial_only(tmp_path):
    trial, other = voted(tmp_path, [0, 1]), voted(tmp_path, [1], seed=1)
    trial.restart()
    assert trial.votes == Trial(folder=tmp_path).votes == []
    assert Trial(seed=1, folder=tmp_path).votes == other.votes


def test_triplets_come_from_the_simulated_test_split(tmp_path):
    trial = Trial(folder=tmp_path)
    test = triplets.simulated("test")
    rows = json.loads(voted(tmp_path, [0]).path.read_text())["triplets"]
    assert len(set(rows)) == 20
    assert (trial.triplets.ref == test.ref[rows]).all() and (trial.triplets.judge == test.judge[rows]).all()


def test_scores_are_those_of_a_plain_loop(tmp_path):
    votes = [0, 1, 1, 0, 0, 1, 0, 1]
    trial = voted(tmp_path, votes)
    table = trial.scores()
    ref, p0, p1, judge = trial.triplets[:8]

    def share(chooses_p1):
        return np.mean([p if one else 1 - p for one, p in zip(chooses_p1, judge.tolist(), strict=True)])

    metric = LPIPS("st-alex")
    expected = {
        "you": share(votes),
        "one random observer": human_ceiling(judge),
        "their majority": majority_ceiling(judge),
        "st-alex": share((metric(ref, p1) < metric(ref, p0)).tolist()),
        "pixel L2": share((l2(ref, p1) < l2(ref, p0)).tolist()),
    }
    assert table["score"].to_dict() == pytest.approx(expected, abs=1e-6)
    assert ((table.low <= table.score) & (table.score <= table.high)).all()


def test_the_majority_scores_its_ceiling_and_its_opposite_the_rest(tmp_path):
    trial = Trial(folder=tmp_path)
    majority = (trial.triplets.judge > 0.5).int().tolist()
    for votes, expected in ((majority, 1), ([1 - vote for vote in majority], 0)):
        table = trial.scores(votes, "somebody")
        ceiling = table.score["their majority"]
        assert table.score["somebody"] == pytest.approx(ceiling if expected else 1 - ceiling)


def test_twenty_votes_leave_a_wide_interval(tmp_path):
    trial = Trial(folder=tmp_path)
    coin = trial.scores(trial.coin(), "a coin").loc["a coin"]
    assert coin.high - coin.low > 0.2


def test_there_is_nothing_to_score_before_the_first_vote(tmp_path):
    trial = Trial(folder=tmp_path)
    for votes in (None, [], [0] * 21):
        with pytest.raises(ValueError, match="votes on 20 triplets"):
            trial.scores(votes)


def parts(widget):
    headline, row, again, result = widget.children
    left, middle, right = row.children
    pictures = [left.children[0], middle, right.children[0]]
    return headline, pictures, (left.children[1], right.children[1]), again, result


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(bytes(picture.value))))[::ZOOM, ::ZOOM]


def test_widget_shows_the_next_triplet_and_counts_the_pressed_side(tmp_path):
    trial = Trial(size=3, folder=tmp_path)
    headline, pictures, (left, right), _, result = parts(trial_widget(trial))
    for i, (button, votes) in enumerate([(right, [1]), (left, [1, 0]), (right, [1, 0, 1])]):
        assert f"Triplet {i + 1} of 3" in headline.value and result.value == ""
        for picture, name in zip(pictures, ("p0", "ref", "p1"), strict=True):
            assert (pixels(picture) == getattr(trial.triplets, name)[i].permute(1, 2, 0).numpy()).all()
        button.click()
        assert trial.votes == votes
    assert left.disabled and right.disabled
    assert NOTE in result.value and f"{100 * trial.scores().score['you']:.0f} %" in result.value


def test_widget_goes_on_where_the_trial_stopped_and_can_forget_it(tmp_path):
    headline, _, (left, right), again, result = parts(trial_widget(voted(tmp_path, [1, 1], size=3)))
    assert "Triplet 3 of 3" in headline.value
    left.click()
    assert left.disabled and result.value
    again.click()
    assert "Triplet 1 of 3" in headline.value and not right.disabled and result.value == ""


def test_widget_says_so_when_a_vote_does_not_count(tmp_path):
    trial = Trial(size=3, folder=tmp_path)
    headline, _, (left, _), _, _ = parts(trial_widget(trial))
    Trial(size=3, folder=tmp_path).vote(1)
    left.click()
    assert headline.value.startswith("Not counted") and trial.votes == []
