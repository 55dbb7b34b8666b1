"""Attacks for the smallest change, and Square: equal to closed forms, a QP solver and other libraries, or better."""

import foolbox
import numpy as np
import pytest
import scipy.optimize
import torch
import torchattacks
from pyautoattack import fab_projections
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack

from course_lib.attacks.balls import Ball, sizes
from course_lib.attacks.fab import fab
from course_lib.attacks.minimum_norm import carlini_wagner, ddn, deepfool, to_boundary
from course_lib.attacks.objectives import Objective, misclassify
from course_lib.attacks.square import bump, covered, square

PEER_NORM = {"l2": "L2", "linf": "Linf"}
DUAL = {"l2": 2, "linf": 1}
EVERY = {  # (attack, norm): what the closed forms are tested on
    "deepfool l2": (lambda objective: deepfool(objective), "l2"),
    "deepfool linf": (lambda objective: deepfool(objective, norm="linf"), "linf"),
    "ddn": (lambda objective: ddn(objective, steps=30), "l2"),
    "carlini-wagner": (lambda objective: carlini_wagner(objective, steps=30, search_steps=3), "l2"),
    "fab l2": (lambda objective: fab(objective, steps=10), "l2"),
    "fab linf": (lambda objective: fab(objective, norm="linf", steps=10), "linf"),
}
every = pytest.mark.parametrize(("attack", "norm"), EVERY.values(), ids=EVERY)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(start, weight, offset):
    """The value is <weight, images> - offset."""
    fixed = (weight, offset)
    return Objective(start, lambda x, w, b: (x * w).flatten(1).sum(1) - b, fixed, torch.zeros_like(offset))


def squared(start, threshold):
    """The value is the squared distance from the start, whose gradient is 0 there."""
    distance = lambda x, y: (x - y).square().flatten(1).sum(1)  # noqa: E731
    return Objective(start, distance, (start.clone(),), start.new_full((len(start),), threshold))


def pictures(n, seed):
    """Blurred random pictures with noise, and which of two products of their colours is larger."""
    random = generator(seed)
    images = torch.nn.functional.interpolate(torch.rand(n, 3, 4, 4, generator=random), size=8, mode="bilinear")
    images = (images + 0.1 * torch.randn(images.shape, generator=random)).clamp(0, 1)
    top, bottom = (half.mean((2, 3)) for half in images.split(4, 2))
    return images, (top[:, 0] * bottom[:, 1] > top[:, 1] * bottom[:, 2]).long()


@pytest.fixture(scope="module")
def classifier():
    """A small trained network with two logits."""
    torch.manual_seed(0)
    block = lambda i, o: (torch.nn.Conv2d(i, o, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2))  # noqa: E731
    net = torch.nn.Sequential(*block(3, 12), *block(12, 24), torch.nn.Flatten(), torch.nn.Linear(96, 2))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(100):
        images, label = pictures(48, seed=step)
        loss = torch.nn.functional.cross_entropy(net(images), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def task(classifier):
    """Pictures, what the network calls them, and the objective to make it call them something else."""
    images, _ = pictures(20, seed=1000)
    label = classifier(images).argmax(1)
    return images, label, misclassify(classifier, images, label)


def found_sizes(classifier, images, label, changed, norm):
    """Sizes of what another library found; infinite where it does not fool the network."""
    fooled = classifier(changed).argmax(1) != label
    return torch.where(fooled, sizes(changed.double() - images.double(), norm), torch.inf)


# closed forms


@every
def test_the_smallest_change_of_a_linear_objective_is_its_gap_over_the_dual_norm(attack, norm):
    weight = torch.randn(4, 3, 5, 5, generator=generator())
    start = torch.full_like(weight, 0.5)
    gap = torch.tensor([0.05, 0.2, 0.5, 1.0])
    objective = linear(start, weight, (start * weight).flatten(1).sum(1) + gap)
    expected = gap.double() / weight.double().flatten(1).norm(DUAL[norm], 1)
    attacked = attack(objective)
    assert attacked.success.all()
    assert (attacked.sizes(objective, norm) > expected * (1 - 1e-5)).all()
    assert attacked.sizes(objective, norm).numpy() == pytest.approx(expected.numpy(), rel=0.03)


@every
def test_of_several_images_the_largest_change_is_smallest_when_all_change_as_much(attack, norm):
    weight = torch.randn(3, 2, 3, 4, 4, generator=generator()) * torch.tensor([1.0, 0.3])[:, None, None, None]
    start = torch.full_like(weight, 0.5)
    gap = torch.tensor([0.1, 0.2, 0.3])
    objective = linear(start, weight, (start * weight).flatten(1).sum(1) + gap)
    expected = gap.double() / weight.double().flatten(2).norm(DUAL[norm], 2).sum(1)
    found = attack(objective).sizes(objective, norm)
    if attack is EVERY["carlini-wagner"][0]:  # minimises the sum of squares instead
        assert (found.isfinite() & (found > expected * (1 - 1e-5))).all()
    else:
        assert found.numpy() == pytest.approx(expected.numpy(), rel=0.03)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_zero_gradient_at_the_start_does_not_stop_ddn_and_fab(norm):
    objective = squared(torch.rand(3, 3, 4, 4, generator=generator()) / 2 + 0.25, threshold=0.04)
    for attack in [fab, ddn] if norm == "l2" else [fab]:
        found = attack(objective, norm=norm, steps=60).sizes(objective, norm)
        assert found.numpy() == pytest.approx(0.2 if norm == "l2" else 0.2 / 48**0.5, rel=0.03)


# the projection


def optimum(point, weight, gap, norm):
    """Size of the smallest change to the plane within the box, by a general solver of convex programs."""
    d = len(point)
    if norm == "l2":
        result = scipy.optimize.minimize(
            lambda change: change @ change,
            np.full(d, 1e-3),
            jac=lambda change: 2 * change,
            bounds=np.stack((-point, 1 - point), 1),
            constraints={"type": "eq", "fun": lambda change: weight @ change - gap, "jac": lambda _: weight},
            method="SLSQP",
            options={"maxiter": 1000, "ftol": 1e-14},
        )
        return result.fun**0.5
    cost, one = np.eye(d + 1)[d], np.ones((d, 1))
    result = scipy.optimize.linprog(
        cost,
        A_ub=np.block([[np.eye(d), -one], [-np.eye(d), -one]]),
        b_ub=np.zeros(2 * d),
        A_eq=np.append(weight, 0)[None],
        b_eq=[gap],
        bounds=[*zip(-point, 1 - point, strict=True), (0, None)],
    )
    return result.fun


def problems(n, d, reach):
    """Points in the box, some at its border, and planes that take `reach` of the largest change possible to get to."""
    random = generator(3)
    point = (torch.rand(n, d, generator=random, dtype=torch.float64) * 1.4 - 0.2).clamp(0, 1)
    weight = torch.randn(n, d, generator=random, dtype=torch.float64)
    weight[:, 0] = 0
    up, down = (weight * (weight > 0)), (weight * (weight < 0))
    most, least = (up * (1 - point) - down * point).sum(1), (down * (1 - point) - up * point).sum(1)
    sides = torch.arange(n) % 2 == 0
    return point, weight, torch.where(sides, most, least) * reach


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("reach", [0.1, 0.6, 0.95])
def test_the_projection_is_the_optimum_of_a_general_solver(norm, reach):
    point, weight, gap = problems(6, 12, reach)
    change = to_boundary(point.reshape(6, 3, 2, 2), weight.reshape(6, 3, 2, 2), gap, norm).flatten(1)
    assert ((point + change >= -1e-12) & (point + change <= 1 + 1e-12)).all()
    assert (weight * change).sum(1).numpy() == pytest.approx(gap.numpy(), abs=1e-9)
    expected = [optimum(*(part.numpy() for part in row), norm) for row in zip(point, weight, gap, strict=True)]
    assert change.norm(2 if norm == "l2" else torch.inf, dim=1).numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("reach", [0.0, 0.02, 0.5, 0.9, 1.1])
def test_the_projection_equals_the_published_code_also_where_the_plane_is_out_of_reach(norm, reach):
    point, weight, gap = problems(8, 300, reach)
    theirs = getattr(fab_projections, f"projection_{norm}")(
        *(t.float() for t in (point, weight, (weight * point).sum(1) + gap))
    )
    ours = to_boundary(*(t.reshape(8, 3, 10, 10).float() for t in (point, weight)), gap.float(), norm)
    assert ours.flatten(1).numpy() == pytest.approx(theirs.numpy(), abs=2e-5)


# against other libraries, on a network


def at_most(ours, theirs, factor=1.02):
    assert ours.isfinite().all()
    assert ours.median() <= theirs.median() * factor
    assert ours.mean() <= theirs.mean() * factor


@pytest.mark.parametrize(
    ("ours", "peer", "norm"),
    [
        (lambda o: ddn(o, steps=30), foolbox.attacks.DDNAttack(steps=30), "l2"),
        (
            lambda o: carlini_wagner(o, steps=30, search_steps=4),
            foolbox.attacks.L2CarliniWagnerAttack(4, 30, initial_const=1.0, abort_early=False),
            "l2",
        ),
        (lambda o: deepfool(o), foolbox.attacks.L2DeepFoolAttack(loss="logits"), "l2"),
        (lambda o: deepfool(o, norm="linf"), foolbox.attacks.LinfDeepFoolAttack(loss="logits"), "linf"),
    ],
    ids=["ddn", "carlini-wagner", "deepfool l2", "deepfool linf"],
)
def test_changes_are_not_larger_than_those_of_foolbox_with_as_many_gradients(classifier, task, ours, peer, norm):
    images, label, objective = task
    changed = peer.run(
        foolbox.PyTorchModel(classifier, bounds=(0, 1)), images, foolbox.criteria.Misclassification(label)
    )
    at_most(ours(objective).sizes(objective, norm), found_sizes(classifier, images, label, changed, norm))


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_fab_finds_changes_not_larger_than_the_published_code_finds(classifier, task, norm):
    images, label, objective = task
    peer = FABAttack_PT(classifier, PEER_NORM[norm], n_iter=20, eps=100.0, device=torch.device("cpu"))
    theirs = found_sizes(classifier, images, label, peer.perturb(images, label), norm)
    ours = fab(objective, norm=norm, steps=20)
    at_most(ours.sizes(objective, norm), theirs, factor=1.0)
    shorter = torch.lerp(images, ours.images, 0.98)
    assert (classifier(shorter).argmax(1) == label).all()
    again = fab(objective, norm=norm, steps=20, restarts=2).sizes(objective, norm)
    assert (again <= ours.sizes(objective, norm) * 1.005).all()
    assert again.mean() <= ours.sizes(objective, norm).mean()


def test_torchattacks_carlini_wagner_fools_nothing_where_all_logits_are_negative_and_ours_does():
    start, near, far = (torch.rand(4, 3, 6, 6, generator=generator(seed)) for seed in range(3))
    near = torch.lerp(start, near, 0.5)

    class MinusDistances(torch.nn.Module):
        def __init__(self, shift=0.0):
            super().__init__()
            self.shift = shift
            self.anything = torch.nn.Parameter(torch.zeros(()))  # torchattacks asks on which device it is

        def forward(self, x):
            return self.shift - torch.stack([(x - other).square().flatten(1).mean(1) for other in (near, far)], 1)

    model, label = MinusDistances(), torch.zeros(4, dtype=torch.int64)
    assert (model(start) < 0).all()
    positive, theirs = (torchattacks.CW(m, c=1000, steps=50, lr=0.05)(start, label) for m in (MinusDistances(1), model))
    assert (model(positive).argmax(1) != label).all()
    assert (model(theirs).argmax(1) == label).all()
    objective = misclassify(model, start, label)
    ours = carlini_wagner(objective, steps=50, search_steps=2, learning_rate=0.05)
    assert ours.success.all()
    assert (model(ours.images).argmax(1) != label).all()


def test_confidence_asks_for_that_much_more(task):
    objective = task[2].select(torch.arange(6))
    assert (carlini_wagner(objective, steps=30, search_steps=3, confidence=0.5).value > 0.5).all()


# Square


@pytest.mark.parametrize("queries", [10, 500, 10000])
def test_squares_shrink_on_the_published_schedule(queries):
    peer = SquareAttack(None, n_queries=queries)
    for step in range(0, queries, max(queries // 500, 1)):
        assert covered(step, queries) == pytest.approx(peer.p_selection(step))


@pytest.mark.parametrize("shape", [(1, 3), (2, 3), (6, 13), (7, 13)])
def test_bumps_are_those_of_the_published_code(shape):
    peer = SquareAttack(None, norm="L2", device=torch.device("cpu"))
    assert bump(*shape).numpy() == pytest.approx(peer.eta_rectangles(*shape).numpy(), abs=1e-6)


@pytest.mark.parametrize("ball", [Ball("l2", 1.0), Ball("linf", 0.04)], ids=["l2", "linf"])
def test_square_fools_as_many_as_the_published_code_and_stays_in_the_ball(classifier, task, ball):
    images, label, objective = task
    ours, theirs = [], []
    for seed in range(3):
        peer = SquareAttack(classifier, PEER_NORM[ball.norm], 60, ball.eps, seed=seed, device=torch.device("cpu"))
        theirs.append((classifier(peer.perturb(images, label)).argmax(1) != label).float().mean())
        attacked = square(objective, ball, queries=61, generator=generator(seed))
        ours.append(attacked.success.float().mean())
        assert (sizes(attacked.images.double() - images.double(), ball.norm) <= ball.eps).all()
        assert ((attacked.images >= 0) & (attacked.images <= 1)).all()
        assert (attacked.backwards == 0).all()
        assert (attacked.forwards <= 62).all()
    assert np.mean(theirs) > 0.05
    assert np.mean(ours) >= np.mean(theirs) - 0.05


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_square_is_not_misled_by_a_gradient_of_zero_and_uses_the_whole_ball(norm):
    weight = torch.randn(4, 2, 3, 9, 8, generator=generator())
    start = torch.full_like(weight, 0.5)
    per_image = weight.flatten(2).norm(DUAL[norm], 2).sum(1)
    steps = lambda x, w: (((x - 0.5) * w).flatten(1).sum(1) * 100).round()  # noqa: E731
    objective = Objective(start, steps, (weight,), 100 * 0.05 * per_image * (0.4 if norm == "linf" else 0.2))
    assert not deepfool(objective, norm=norm).success.any()
    assert square(objective, Ball(norm, 0.05), queries=300).success.all()


# what all have in common


ALL = {
    "deepfool": deepfool,
    "ddn": lambda objective: ddn(objective, steps=12),
    "carlini-wagner": lambda objective: carlini_wagner(objective, steps=8, search_steps=3, learning_rate=0.05),
    "fab l2": lambda objective: fab(objective, steps=5, restarts=2),
    "fab linf": lambda objective: fab(objective, norm="linf", steps=5),
    "square l2": lambda objective: square(objective, Ball("l2", 0.4), queries=30),
    "square linf": lambda objective: square(objective, Ball("linf", 0.02), queries=30, restarts=2),
}
all_attacks = pytest.mark.parametrize("attack", ALL.values(), ids=ALL)


@all_attacks
def test_an_example_does_not_depend_on_the_others_and_the_same_call_gives_the_same(classifier, task, attack):
    double = lambda x: torch.func.functional_call(classifier, weights, (x,))  # noqa: E731
    weights = {name: weight.double() for name, weight in classifier.named_parameters()}
    images, label = task[0][:5].double(), task[1][:5]
    first = attack(misclassify(double, images, label))
    again = attack(misclassify(double, images, label))
    assert torch.equal(first.images, again.images)
    others, wrong = images.clone(), label.clone()
    others[1:], wrong[4] = task[0][10:14], 1 - label[4]
    mixed = attack(misclassify(double, others, wrong))
    assert mixed.images[0].numpy() == pytest.approx(first.images[0].numpy(), abs=1e-6)
    assert mixed.forwards[0] == first.forwards[0]


@all_attacks
def test_passes_are_counted_and_misjudged_examples_cost_one_and_change_nothing(task, attack):
    images, label, objective = task
    label = label[:6].clone()
    label[2] = 1 - label[2]
    passes = []
    inside = objective.function

    def counted(x, label):
        passes.append((len(x), x.requires_grad))
        return inside(x, label)

    start = images[:6]
    attacked = attack(Objective(start, counted, (label,), torch.zeros(6)))
    assert int(attacked.forwards.sum()) == sum(n for n, _ in passes)
    assert int(attacked.backwards.sum()) == sum(n for n, gradient in passes if gradient)
    assert attacked.success[2]
    assert (attacked.forwards[2], attacked.backwards[2]) == (1, 0)
    assert torch.equal(attacked.images[2], start[2])
    assert ((attacked.images >= 0) & (attacked.images <= 1)).all()


def test_ddn_and_fab_take_exactly_as_many_gradients_as_steps(task):
    objective = task[2].select(torch.arange(3))
    assert ddn(objective, steps=7).backwards.tolist() == [7] * 3
    assert fab(objective, steps=4, restarts=2).backwards.tolist() == [8] * 3
    assert carlini_wagner(objective, steps=3, search_steps=2).backwards.tolist() == [6] * 3


def test_what_cannot_work_is_refused_with_a_reason(unchecked):
    objective = squared(torch.full((1, 3, 4, 4), 0.5), threshold=0.1)
    endless = squared(objective.start, threshold=torch.inf)
    with pytest.raises(ValueError, match="fab or deepfool"):
        ddn(objective, norm="linf")
    for attack in (deepfool, ddn, carlini_wagner, fab):
        with pytest.raises(ValueError, match="no finite threshold"):
            attack(endless)
        with pytest.raises(ValueError, match="steps is 0"):
            attack(objective, steps=0)
    for attack in (deepfool, fab):
        with pytest.raises(ValueError, match="unknown norm"):
            attack(objective, norm="l1")
    with pytest.raises(ValueError, match="queries is 0"):
        square(objective, Ball("l2", 1.0), queries=0)
