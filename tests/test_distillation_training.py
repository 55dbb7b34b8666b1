"""Distillation: the right target for every view, exact resume, students that are examined and stay 1-Lipschitz."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from course_lib.data.triplets import Triplets
from course_lib.distillation import (
    PUBLISHED,
    RECIPES,
    Exam,
    Recipe,
    Teacher,
    TensorImages,
    distill,
    learning,
    load_student,
    pixels,
)
from course_lib.judgments import spearman, two_afc_score
from course_lib.lipschitz import LipSimNet
from course_lib.training import TrainingError, load_checkpoint

SIDE, DIM = 16, 5
QUICK = Recipe(learning_rate=0.01, epochs=2, batch_size=8, warmup_steps=2)


def noise(n, seed):
    """Blocks of colour with noise: images whose distances differ."""
    generator = torch.Generator().manual_seed(seed)
    blocks = nn.functional.interpolate(torch.rand(n, 3, 2, 2, generator=generator), SIDE)
    return ((blocks + 0.2 * torch.rand(n, 3, SIDE, SIDE, generator=generator)) * 200).byte()


DATA = TensorImages("blocks", noise(34, 1))
HELD_OUT = TensorImages("other blocks", noise(12, 2))


class Linear(nn.Module):
    """A linear embedding of images, mostly of their mean colour, which small students can see."""

    def __init__(self, factor=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        colour = torch.randn(3, DIM, generator=generator).repeat_interleave(SIDE * SIDE, 0) / 40
        matrix = colour + torch.randn(3 * SIDE * SIDE, DIM, generator=generator) / 60
        self.matrix, self.out_features = nn.Parameter(factor * matrix), DIM

    def forward(self, images):
        return images.flatten(1) @ self.matrix


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))


def teacher():
    return Teacher("linear", Linear(), dim=DIM)


def small(seed=0, out_features=DIM):
    torch.manual_seed(seed)
    return LipSimNet.published(6, 1, 1, 8, out_features=out_features, image_size=SIDE)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def losses(monkeypatch, student, recipe):
    """Both halves of the loss at every step: of plain views, and of jittered ones."""
    seen = []

    def spy(plain, jittered, target, kind):
        seen.append(((plain - target).norm().item(), (jittered - target).norm().item()))
        return 0 * plain.sum()

    monkeypatch.setattr(learning, "distillation_loss", spy)
    distill(student, teacher(), DATA, recipe)
    return torch.tensor(seen).T


def test_targets_are_those_of_the_view_that_the_student_sees(monkeypatch):
    recipe = dataclasses.replace(QUICK, views="flip")
    plain, second = losses(monkeypatch, Linear(), recipe)
    assert plain.max() < 0.02 and second.max() < 0.02
    plain, _ = losses(monkeypatch, Linear(), dataclasses.replace(recipe, mirrored_targets=False))
    assert plain.min() > 0.1


def test_the_target_of_a_jittered_view_is_that_of_the_unjittered_one(monkeypatch):
    plain, jittered = losses(monkeypatch, Linear(), QUICK)
    assert plain.max() < 0.02 and jittered.min() > 0.1


def test_the_scale_multiplies_targets_once(monkeypatch):
    recipe = dataclasses.replace(QUICK, views="plain", scale=3.0)
    plain, _ = losses(monkeypatch, Linear(factor=3.0), recipe)
    assert plain.max() < 0.05
    plain, _ = losses(monkeypatch, Linear(), recipe)
    assert plain.min() > 0.1


@pytest.mark.parametrize("loss", ["published", "cosine", "relational"])
def test_a_student_learns_stays_1_lipschitz_and_leaves_its_teacher_alone(loss):
    master = teacher()
    before = weights(master)
    exam = Exam(master, HELD_OUT)
    recipe = dataclasses.replace(QUICK, loss=loss, views="plain", epochs=15, clip=1.0)
    start = exam.scores(small().eval())["spearman"]
    done = distill(small(), master, DATA, recipe, exam=exam)
    assert done.history[-1]["loss"] < 0.8 * done.history[0]["loss"]
    assert done.history[-1]["spearman"] > start + 0.05
    assert done.student.upper_bound() <= 1 + 1e-5 and not done.student.training
    assert torch.equal(weights(master), before) and not any(p.requires_grad for p in master.parameters())


class Killed(Exception):
    """Stands for a process that ends without warning."""


def test_a_killed_run_goes_on_inside_an_epoch_and_ends_with_the_same_student(tmp_path, monkeypatch):
    whole = distill(small(), teacher(), DATA, QUICK)
    steps, original = 0, learning.distillation_loss

    def mortal(*arguments):
        nonlocal steps
        if steps == 6:
            raise Killed
        steps += 1
        return original(*arguments)

    monkeypatch.setattr(learning, "distillation_loss", mortal)
    with pytest.raises(Killed):
        distill(small(), teacher(), DATA, QUICK, folder=tmp_path / "run", checkpoint_steps=1)
    assert load_checkpoint(tmp_path / "run" / "last.pt")["step_in_epoch"] == 2
    monkeypatch.setattr(learning, "distillation_loss", original)
    resumed = distill(small(seed=5), teacher(), DATA, QUICK, folder=tmp_path / "run")
    assert torch.equal(weights(resumed.student), weights(whole.student)) and resumed.history == whole.history
    with pytest.raises(TrainingError, match=r"other settings \(scale: 1\.0 there, 2\.0 now\)"):
        distill(small(), teacher(), DATA, dataclasses.replace(QUICK, scale=2.0), folder=tmp_path / "run")


def test_worker_processes_change_nothing():
    one, two = (distill(small(), teacher(), DATA, QUICK, workers=workers).student for workers in (0, 1))
    assert torch.equal(weights(one), weights(two))


def test_bf16_trains_about_the_same_student_and_keeps_its_bound():
    full, half = (
        distill(small(), teacher(), DATA, dataclasses.replace(QUICK, precision=precision))
        for precision in ("fp32", "bf16")
    )
    assert half.history[-1]["loss"] == pytest.approx(full.history[-1]["loss"], rel=0.05)
    assert half.student.upper_bound() <= 1 + 1e-5
    assert not torch.equal(weights(full.student), weights(half.student))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_share_every_batch_without_duplicates(monkeypatch, world):
    def epoch(rank, world, number):
        monkeypatch.setattr(learning.parallel, "rank_and_world", lambda: (rank, world))
        return list(learning.plans(34, QUICK, torch.Generator().manual_seed(number)))

    alone = epoch(0, 1, 7)
    shares = [epoch(rank, world, 7) for rank in range(world)]
    assert len(alone) == 4
    for step, plan in enumerate(alone):
        assert torch.equal(torch.cat([share[step].items for share in shares]), plan.items)
        for part, whole in enumerate(plan.views):
            assert torch.equal(torch.cat([share[step].views[part] for share in shares]), whole)
    items = torch.cat([plan.items for plan in alone])
    assert len(items.unique()) == 32
    assert not torch.equal(items, torch.cat([plan.items for plan in epoch(0, 1, 8)]))


def test_the_rate_rises_linearly_and_falls_along_a_cosine():
    steps = 40 * (1_281_167 // 512)
    assert [PUBLISHED.rate(step, steps) for step in (0, 999, 1999)] == pytest.approx([1 / 2000, 0.5, 1])
    assert PUBLISHED.rate(2000 + (steps - 2000) // 2, steps) == pytest.approx(0.5, abs=1e-4)
    assert PUBLISHED.rate(steps - 1, steps) < 1e-8
    rates = [PUBLISHED.rate(step, 100) for step in range(100)]  # a short run warms up for a tenth of its steps
    assert rates.index(max(rates)) == 9 and rates[55] == pytest.approx((1 + math.cos(math.pi / 2)) / 2, abs=1e-6)
    assert [dataclasses.replace(PUBLISHED, warmup_steps=0).rate(0, steps)] == [1]


def test_the_published_recipe_is_the_published_one():
    assert (PUBLISHED.learning_rate, PUBLISHED.betas, PUBLISHED.warmup_steps) == (0.01, (0.5, 0.9), 2000)
    assert (PUBLISHED.epochs, PUBLISHED.batch_size, PUBLISHED.loss, PUBLISHED.views) == (40, 512, *["published"] * 2)
    assert RECIPES["published"] is PUBLISHED


def judged(n=6):
    ref, p0, p1 = (noise(n, seed) for seed in (3, 4, 5))
    p0[: n // 2] = ref[: n // 2] // 2
    return Triplets("made up", ref, p0, p1, torch.linspace(0, 1, n))


def test_an_exam_compares_distances_with_the_teachers():
    data, master = judged(), teacher()
    student = small().eval()
    scores = Exam(master, HELD_OUT, data, batch_size=5).scores(student)
    ours, theirs = (f(HELD_OUT.images.float() / 255).detach() for f in (student, master))
    pairs = torch.triu_indices(12, 12, 1)
    apart = [(e[pairs[0]] - e[pairs[1]]).norm(dim=1) for e in (ours, theirs)]
    assert scores["spearman"] == pytest.approx(spearman(*apart), abs=0.01)
    assert scores["distance"] == pytest.approx(apart[0].mean().item(), rel=1e-4)
    assert scores["norm"] == pytest.approx(ours.norm(dim=1).mean().item(), rel=1e-4)
    ref, p0, p1, judge = data[:]
    d0, d1 = ((student(ref) - student(p)).norm(dim=1).detach() for p in (p0, p1))
    t0, t1 = master.distance(ref, p0), master.distance(ref, p1)
    assert scores["agreement"] == pytest.approx(two_afc_score(d0, d1, judge))
    assert scores["same_decision"] == pytest.approx(((d0 < d1) == (t0 < t1)).float().mean().item())
    assert scores["spearman_near"] == pytest.approx(spearman(torch.cat([d0, d1]), torch.cat([t0, t1])), abs=0.01)


def test_an_exams_table_has_pixels_and_the_teacher_beside_the_students():
    table = Exam(teacher(), HELD_OUT, judged()).table({"untrained": small().eval()})
    assert list(table.index) == ["pixel L2", "untrained", "teacher linear"]
    last = table.loc["teacher linear"]
    assert (last["spearman"], last["spearman_near"], last["same_decision"]) == (1, 1, 1)
    images = HELD_OUT.images.float() / 255
    assert table.loc["pixel L2", "distance"] == pytest.approx(torch.pdist(pixels(images)).mean().item(), rel=1e-4)


def test_an_exam_needs_something_to_compare_and_takes_a_spread():
    with pytest.raises(ValueError, match="other blocks: 2 images; an exam needs at least 3"):
        Exam(teacher(), HELD_OUT, limit=2)
    assert torch.equal(Exam(teacher(), HELD_OUT, limit=3).images, HELD_OUT.images[::4])


def test_triplets_of_another_size_are_enlarged():
    data = judged()
    small_ones = (nn.functional.avg_pool2d(part.float(), 2).byte() for part in (data.ref, data.p0, data.p1))
    halves = Triplets("half", *small_ones, data.judge)
    assert Exam(teacher(), HELD_OUT, halves).scores(small().eval())["agreement"] > 0


def test_a_student_is_kept_with_what_made_it(tmp_path):
    done = distill(small(), teacher(), DATA, QUICK, folder=tmp_path)
    assert done.preset is None
    found, about = load_student(tmp_path / "student.pt", small(seed=9))
    assert torch.equal(weights(found), weights(done.student)) and not found.training
    assert (about["teacher"], about["data"], about["epochs"]) == ("linear", "blocks", 2)
    assert about["history"] == done.history
    with pytest.raises(ValueError, match=r"architecture of your own; give it as student="):
        load_student(tmp_path / "student.pt")
    with pytest.raises(ValueError, match=r"student\.pt holds another network than the one that was given"):
        load_student(tmp_path / "student.pt", LipSimNet.published(6, 2, 1, 8, out_features=DIM, image_size=SIDE))
    with pytest.raises(ValueError, match=r"last\.pt holds no distilled student but model, optimizer"):
        load_student(tmp_path / "last.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student": "huge"}, "no preset 'huge'; choose tiny, scattering"),
        ({"student": "tiny"}, "blocks has images of 16 x 16 pixels; the student takes 64 x 64"),
        ({"student": small(out_features=4)}, r"the student gives 4 numbers, teacher 'linear' 5; .*out_features=5"),
        ({"recipe": PUBLISHED}, "blocks has 34 images, a batch is 512; use a smaller batch_size"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_computed(tmp_path, change, message):
    arguments = {"student": small(), "teacher": teacher(), "data": DATA, "recipe": QUICK} | change
    with pytest.raises(ValueError, match=message):
        distill(**arguments, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists() and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "mse"}, "unknown loss 'mse'; choose published, cosine, relational"),
        ({"views": "crop"}, "unknown views 'crop'; choose published, flip, plain"),
        ({"precision": "fp16"}, "unknown precision 'fp16'; choose fp32, bf16"),
        ({"scale": 0.0}, "scale is 0.0; it has to be positive"),
        ({"clip": -1.0}, "clip is -1.0; it has to be positive"),
        ({"learning_rate": math.nan}, "learning_rate is nan; it has to be positive"),
        ({"epochs": 0}, "epochs is 0; it has to be positive"),
        ({"betas": (0.5, 1.0)}, r"betas \(0.5, 1.0\)"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PUBLISHED, **change)
