"""The training loop: it resumes exactly, refuses what does not belong together, and names what went wrong."""

import json

import pytest
import torch
from torch import nn

from course_lib.training import TrainingError, load_checkpoint, train

DATA = torch.randn(48, 5, generator=torch.Generator().manual_seed(1))
TARGET = DATA.sum(1, keepdim=True)


class Killed(Exception):
    """Stands for a process that ends without warning."""


def run(folder=None, *, epochs=4, stop_at=None, seed=3, lr=0.01, validate=None, **options):
    torch.manual_seed(99)
    model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    steps = 0

    def loss(rows):
        nonlocal steps
        if steps == stop_at:
            raise Killed
        steps += 1
        return (model(DATA[rows]) - TARGET[rows]).square().mean()

    def batches(generator):
        return torch.randperm(len(DATA), generator=generator).split(6)

    history = train(
        model, loss, batches, optimizer, epochs=epochs, schedule=schedule, folder=folder, seed=seed, validate=validate,
        settings={"lr": lr}, checkpoint_steps=3, **options,
    )  # fmt: skip
    return model, history, steps


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("stop_at", [1, 3, 7, 8, 9, 20, 31])
def test_a_run_killed_at_any_step_ends_with_the_same_weights_bit_for_bit(tmp_path, stop_at):
    whole, history, _ = run()
    with pytest.raises(Killed):
        run(tmp_path, stop_at=stop_at)
    resumed, resumed_history, steps = run(tmp_path)
    assert torch.equal(weights(whole), weights(resumed))
    assert resumed_history == history
    assert steps <= 32 - stop_at + 3  # it went on, and did not begin again


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, *_ = run(tmp_path)
    again, history, steps = run(tmp_path)
    assert steps == 0 and len(history) == 4
    assert torch.equal(weights(first), weights(again))


def test_the_seed_decides_order_and_dropout_and_leaves_the_global_random_state_alone():
    one, two, other = (weights(run(seed=seed)[0]) for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    model = nn.Linear(5, 1)
    torch.manual_seed(5)
    train(
        model, lambda rows: model(DATA[rows]).square().mean(), lambda g: torch.arange(48).split(8),
        torch.optim.SGD(model.parameters(), lr=0.1), epochs=1,
    )  # fmt: skip
    assert torch.equal(torch.rand(1), expected)


def test_metrics_are_written_as_json_lines(tmp_path):
    _, history, _ = run(tmp_path, validate=lambda: {"score": 0.25})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == history
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[0].keys() == {"epoch", "loss", "learning_rate", "score"}
    assert lines[0]["loss"] > 0


def test_the_best_epoch_is_kept_and_patience_stops_the_run(tmp_path):
    scores = iter([0.1, 0.9, 0.5, 0.6, 0.7])
    _, history, _ = run(tmp_path, epochs=5, validate=lambda: {"score": next(scores)}, best="score", patience=2)
    assert len(history) == 4
    best, last = load_checkpoint(tmp_path / "best.pt"), load_checkpoint(tmp_path / "last.pt")
    assert (best["epoch"], last["epoch"]) == (2, 4)
    assert not torch.equal(best["model"]["0.weight"], last["model"]["0.weight"])


def test_a_folder_with_another_run_is_refused_and_kept(tmp_path):
    run(tmp_path)
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(TrainingError, match=r"other settings \(lr: 0\.01 there, 0\.02 now\); name another folder"):
        run(tmp_path, lr=0.02)
    assert (tmp_path / "last.pt").read_bytes() == before


def test_a_loss_that_is_not_a_number_is_named_and_the_last_good_state_kept(tmp_path):
    model = nn.Linear(5, 1)
    steps = 0

    def loss(rows):
        nonlocal steps
        steps += 1
        return model(DATA[rows]).square().mean() * (float("nan") if steps == 8 else 1)

    with pytest.raises(TrainingError, match=r"the loss is nan at epoch 2, step 2; .*last\.pt"):
        train(
            model, loss, lambda g: DATA[:, 0].argsort().split(8), torch.optim.SGD(model.parameters(), lr=0.1),
            epochs=3, folder=tmp_path,
        )  # fmt: skip
    assert load_checkpoint(tmp_path / "last.pt")["epoch"] == 1


def test_empty_data_and_unknown_options_are_named():
    model = nn.Linear(5, 1)
    adam = torch.optim.Adam(model.parameters())
    with pytest.raises(TrainingError, match="no batch to train on"):
        train(model, lambda rows: torch.zeros(()), lambda g: [], adam, epochs=1)
    with pytest.raises(ValueError, match="unknown precision 'fp8'; choose fp32 or bf16"):
        train(model, lambda rows: torch.zeros(()), lambda g: [], adam, epochs=1, precision="fp8")
    with pytest.raises(ValueError, match="best and patience need validate="):
        train(model, lambda rows: torch.zeros(()), lambda g: [], adam, epochs=1, best="score")
    with pytest.raises(ValueError, match=r"best='accuracy' is not a metric; validate returns .*score"):
        run(validate=lambda: {"score": 1.0}, best="accuracy")


def test_bf16_computes_the_loss_in_bf16_and_keeps_fp32_weights():
    seen = []
    model = nn.Linear(5, 1)

    def loss(rows):
        out = model(DATA[rows])
        seen.append(out.dtype)
        return out.float().square().mean()

    adam = torch.optim.Adam(model.parameters())
    train(model, loss, lambda g: torch.arange(48).split(24), adam, epochs=1, precision="bf16")
    assert set(seen) == {torch.bfloat16} and model.weight.dtype == torch.float32


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 damaged"])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"last\.pt is damaged or not a checkpoint"):
        run(tmp_path)
    assert (tmp_path / "last.pt").read_bytes() == content
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint"):
        load_checkpoint(tmp_path / "nothing.pt")


def test_long_gradients_are_shortened_and_short_ones_are_not():
    model = nn.Linear(1, 1, bias=False)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    for clip, expected in ((0.5, 0.5), (None, 20.0), (30.0, 20.0)):
        start = model.weight.item()
        train(model, lambda x: model(x).sum(), lambda g: [torch.full((1, 1), 20.0)], sgd, epochs=1, clip=clip)
        assert start - model.weight.item() == pytest.approx(expected, rel=1e-4)


def test_only_what_is_left_of_an_epoch_is_loaded_when_a_run_goes_on(tmp_path):
    loaded = []

    def load(batches):
        for rows in batches:
            loaded.append(rows)
            yield rows

    with pytest.raises(Killed):
        run(tmp_path, stop_at=7, load=load)  # of 8 steps in an epoch; the checkpoint is after the sixth
    first, loaded = loaded, []
    resumed, *_ = run(tmp_path, epochs=4, load=load)
    assert len(loaded) == 32 - 6 and torch.equal(loaded[0], first[6])
    assert torch.equal(weights(resumed), weights(run()[0]))
