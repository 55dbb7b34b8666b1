"""Wrong answers to chapter 09's exercises."""

import functools

import torch
import torch.nn.functional as F

from course_lib.attacks import direction
from course_lib.checks import attacks as check
from tests.wrong_answers import wrong

IMAGE = (1, 2, 3)


def length(x, axes=IMAGE):
    return x.square().sum(axes, keepdim=True).sqrt().clamp_min(1e-12)


def shrunk(images, center, eps, size):
    return (center + (images - center) * (eps / size).clamp(max=1)).clamp(0, 1)


def with_length(axes):
    return lambda images, center, eps: shrunk(images, center, eps, length(images - center, axes))


wrong(check.project, "one length for the whole batch")(with_length((0, 1, 2, 3)))
wrong(check.project, "one length per channel")(with_length((2, 3)))
wrong(check.project, "one length per pixel")(with_length(1))
wrong(check.project, "one length per row")(with_length(3))


@wrong(check.project, "NaN where nothing was changed")
def divides_zero_by_zero(images, center, eps):
    change = images - center
    return (center + change * (eps * change / change / length(change)).clamp(max=1)).clamp(0, 1)


@wrong(check.project, "inside the ball were moved to its border")
def always_goes_to_the_border(images, center, eps):
    change = images - center
    return (center + eps * change / length(change)).clamp(0, 1)


@wrong(check.project, "you returned the change")
def returns_the_change(images, center, eps):
    change = images - center
    return change * (eps / length(change)).clamp(max=1)


@wrong(check.project, "pixels left [0, 1]")
def forgets_the_box(images, center, eps):
    return center + returns_the_change(images, center, eps)


@wrong(check.project, "of an image inside the ball left")
def cuts_off_only_what_is_outside(images, center, eps):
    size = length(images - center)
    return torch.where(size > eps, shrunk(images, center, eps, size), images)


@wrong(check.project, "before you shrank")
def cuts_off_first(images, center, eps):
    return center + returns_the_change(images.clamp(0, 1), center, eps)


@wrong(check.project, "that is the L-infinity ball")
def limits_each_pixel(images, center, eps):
    return torch.minimum(torch.maximum(images, center - eps), center + eps).clamp(0, 1)


@wrong(check.project, "squared length")
def forgets_the_root(images, center, eps):
    return shrunk(images, center, eps, (images - center).square().sum(IMAGE, keepdim=True).clamp_min(1e-12))


@wrong(check.project, "not their change")
def shrinks_images(images, center, eps):
    return (images * (eps / length(images)).clamp(max=1)).clamp(0, 1)


@wrong(check.project, "so that no pixel gets darker")
def cuts_off_the_change(images, center, eps):
    return center + returns_the_change(images, center, eps).clamp(0, 1)


@wrong(check.project, "a mean instead of a sum")
def takes_the_root_mean_square(images, center, eps):
    return shrunk(images, center, eps, (images - center).square().mean(IMAGE, keepdim=True).sqrt().clamp_min(1e-12))


@wrong(check.project, "the L1 length")
def adds_absolute_values(images, center, eps):
    return shrunk(images, center, eps, (images - center).abs().sum(IMAGE, keepdim=True).clamp_min(1e-12))


@wrong(check.project, "still longer than eps")
def only_cuts_off(images, center, eps):
    return images.clamp(0, 1)


@wrong(check.project, "changes what it is given")
def projects_in_place(images, center, eps):
    images -= center
    return (center + images * (eps / length(images)).clamp(max=1)).clamp(0, 1)


def of(gradient, norm, l2=None, linf=None):
    """The right direction, but for what is replaced."""
    if norm == "linf":
        return gradient.sign() if linf is None else linf
    return gradient / length(gradient) if l2 is None else l2


def with_l2(change):
    return lambda gradient, norm: of(gradient, norm, l2=change(gradient))


def with_linf(change):
    return lambda gradient, norm: of(gradient, norm, linf=change(gradient))


wrong(check.steepest, "L2: you took the sign")(with_l2(torch.sign))
wrong(check.steepest, "L2: the sign, scaled")(with_l2(lambda g: g.sign() / g[0].numel() ** 0.5))
wrong(check.steepest, "L2: you go down")(with_l2(lambda g: -g / length(g)))
wrong(check.steepest, "L2: you divided by the *squared*")(with_l2(lambda g: g / length(g) ** 2))
wrong(check.steepest, "mean or the sum of |g|")(
    with_l2(lambda g: g / g.abs().mean(IMAGE, keepdim=True).clamp_min(1e-12))
)
wrong(check.steepest, "L2: you divided by the largest")(
    with_l2(lambda g: g / g.abs().amax(IMAGE, keepdim=True).clamp_min(1e-12))
)
wrong(check.steepest, "root of the *mean*")(
    with_l2(lambda g: g / g.square().mean(IMAGE, keepdim=True).sqrt().clamp_min(1e-12))
)
wrong(check.steepest, "L2: one length per channel")(with_l2(lambda g: g / length(g, (2, 3))))
wrong(check.steepest, "L2: one length per pixel")(with_l2(lambda g: F.normalize(g)))
wrong(check.steepest, "one number for the whole batch")(with_l2(lambda g: g / g.norm()))
wrong(check.steepest, "NaN where the gradient is 0")(with_l2(lambda g: g / g.square().sum(IMAGE, keepdim=True).sqrt()))
wrong(check.steepest, "got shorter than 1")(with_l2(lambda g: g / (g.square().sum(IMAGE, keepdim=True).sqrt() + 1e-8)))
wrong(check.steepest, "you returned the gradient itself")(with_l2(lambda g: g))
wrong(check.steepest, "L-infinity: you divided by the largest")(
    with_linf(lambda g: g / g.abs().amax(IMAGE, keepdim=True).clamp_min(1e-12))
)
wrong(check.steepest, "L-infinity: that is the direction for L2")(with_linf(lambda g: g / length(g)))
wrong(check.steepest, "L-infinity: you go down")(with_linf(lambda g: -g.sign()))
wrong(check.steepest, "without gradient were changed")(with_linf(lambda g: torch.where(g >= 0, 1.0, -1.0)))


def right(d0, d1, judge):
    return torch.where(judge > 0.5, d1 - d0, d0 - d1)


def in_place_of_margin(says, change):
    wrong(check.margin, says)(change)


in_place_of_margin("one number for the batch", lambda d0, d1, judge: right(d0, d1, judge).mean())
in_place_of_margin("reversed", lambda d0, d1, judge: right(d1, d0, judge))
in_place_of_margin("how sure the metric is", lambda d0, d1, judge: (d0 - d1).abs())
in_place_of_margin("p0 for right everywhere", lambda d0, d1, judge: d0 - d1)
in_place_of_margin("p1 for right everywhere", lambda d0, d1, judge: d1 - d0)
in_place_of_margin("you weighed with the votes", lambda d0, d1, judge: (1 - 2 * judge) * (d0 - d1))
in_place_of_margin("when all agree", lambda d0, d1, judge: torch.where(judge == 1, d1 - d0, d0 - d1))
in_place_of_margin("cut off at 0", lambda d0, d1, judge: right(d0, d1, judge).relu())
in_place_of_margin("only whether the metric is fooled", lambda d0, d1, judge: (right(d0, d1, judge) > 0).float())
in_place_of_margin("divided by the sum", lambda d0, d1, judge: right(d0, d1, judge) / (d0 + d1))
in_place_of_margin("only the distance to the right", lambda d0, d1, judge: torch.where(judge > 0.5, d1, d0))
in_place_of_margin("the gradient is lost", lambda d0, d1, judge: right(d0, d1, judge).detach())
in_place_of_margin("not that of a difference", lambda d0, d1, judge: right(d0, d1.detach(), judge))


def climb(
    value,
    start,
    ball,
    steps,
    step_size,
    generator,
    *,
    begin=None,
    ahead=lambda images, gradient, step, ball, start: ball.project(
        images + step * direction(gradient, ball.norm), start
    ),
    better=lambda new, old: new > old,
    last=True,
    lowest=None,
    patient=True,
):
    """The right answer, with parts to be replaced."""
    images = ball.random(start, generator) if begin is None else begin(start, ball, generator)
    best, highest = images, lowest
    for step in range(steps + last):
        images = images.detach().requires_grad_()
        found = value(images)
        (gradient,) = torch.autograd.grad(found.sum(), images)
        choose = torch.ones_like(found, dtype=torch.bool) if highest is None else better(found, highest)
        if not (patient or choose.any()):
            break
        best = torch.where(choose.view(-1, 1, 1, 1), images, best).detach()
        highest = torch.where(choose, found, found if highest is None else highest).detach()
        if step < steps:
            images = ahead(images.detach(), gradient, step_size, ball, start)
    return best


def with_parts(says, **parts):
    wrong(check.pgd, says)(lambda *given: climb(*given, **parts))


def in_one_batch(images, gradient, step, ball, start):
    unit = gradient.sign() if ball.norm == "linf" else gradient / gradient.norm()
    return ball.project(images + step * unit, start)


def to(point, factor=1.0):
    return lambda images, gradient, step, ball, start: ball.project(
        point(images, start) + factor * step * direction(gradient, ball.norm), start
    )


with_parts("no projection", ahead=lambda images, g, step, ball, start: images + step * direction(g, ball.norm))
with_parts("does `highest` begin at -torch.inf", lowest=torch.zeros(6))
with_parts("a step may lose, and a later one win", patient=False)
with_parts("you begin at the start", begin=lambda start, ball, generator: start)
with_parts("you go down", ahead=to(lambda images, start: images, -1.0))
with_parts("begins at the start again", ahead=to(lambda images, start: start))
with_parts("the raw gradient", ahead=lambda images, g, step, ball, start: ball.project(images + step * g, start))
with_parts("steps of length 1", ahead=lambda images, g, step, ball, start: ball.project(
    images + ball.eps * direction(g, ball.norm), start))  # fmt: skip
with_parts("a step for the other norm", ahead=lambda images, g, step, ball, start: ball.project(
    images + step * g.sign(), start))  # fmt: skip
with_parts("one length for the whole batch", ahead=in_one_batch)
with_parts("a new random point at every step", ahead=lambda images, g, step, ball, start: ball.random(
    start, torch.Generator().manual_seed(int(1e6 * images.sum()))))  # fmt: skip
with_parts("nobody looked at the images after", last=False)
with_parts("you return the *worst*", better=lambda new, old: new < old)
with_parts("best for the batch", better=lambda new, old: (new.sum() > old.sum()).expand(len(new)))
with_parts("the same generator, other images", begin=lambda start, ball, generator: ball.project(
    start + ball.eps * torch.rand_like(start), start))  # fmt: skip
with_parts("another generator, the same", begin=lambda start, ball, generator: ball.random(
    start, torch.Generator().manual_seed(0)))  # fmt: skip


@wrong(check.pgd, "not in the ball around `start`")
def projects_about_the_random_point(value, start, ball, steps, step_size, generator):
    random = ball.random(start, generator)
    return climb(value, random, ball, steps, step_size, generator, begin=lambda *_: random)


@wrong(check.pgd, "changes what it is given")
def overwrites_the_start(value, start, ball, steps, step_size, generator):
    start.copy_(ball.random(start, generator))
    return climb(value, start, ball, steps, step_size, generator)


@wrong(check.pgd, "requires_grad_() on what you were given")
def asks_the_start_for_a_gradient(value, start, ball, steps, step_size, generator):
    return climb(value, start.requires_grad_(), ball, steps, step_size, generator)


@wrong(check.pgd, "you gave (1, 3, ")
def climbs_with_one_at_a_time(value, start, ball, steps, step_size, generator):
    return torch.cat([climb(value, one, ball, steps, step_size, generator) for one in start.split(1)])


@wrong(check.pgd, "you return the last images")
def returns_the_last(value, start, ball, steps, step_size, generator):
    images = ball.random(start, generator)
    for _ in range(steps):
        x = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(value(x).sum(), x)
        images = ball.project(images + step_size * direction(gradient, ball.norm), start)
    value(images)
    return images


@wrong(check.pgd, "the gradients of all steps add up")
def never_clears_the_gradient(value, start, ball, steps, step_size, generator):
    images = ball.random(start, generator).requires_grad_()
    for _ in range(steps):
        value(images).sum().backward()
        images.data = ball.project(images.data + step_size * direction(images.grad, ball.norm), start)
    value(images)
    return images.detach()


@wrong(check.pgd, "a stale gradient")
def steps_on_a_stale_image(value, start, ball, steps, step_size, generator):
    images = ball.random(start, generator).requires_grad_()
    (gradient,) = torch.autograd.grad(value(images).sum(), images)
    images = images.detach()
    for _ in range(steps):
        images = ball.project(images + step_size * direction(gradient, ball.norm), start)
        value(images)
    return images


@wrong(check.pgd, "compare before the images move on")
def keeps_the_images_after_the_best(value, start, ball, steps, step_size, generator):
    images = ball.random(start, generator)
    best, highest = images, torch.full((len(start),), -torch.inf)
    for _ in range(steps):
        x = images.clone().requires_grad_()
        found = value(x)
        (gradient,) = torch.autograd.grad(found.sum(), x)
        images = ball.project(images + step_size * direction(gradient, ball.norm), start)
        better = (found > highest).detach()
        best = torch.where(better.view(-1, 1, 1, 1), images, best)
        highest = torch.where(better, found.detach(), highest)
    value(images)
    return best


@wrong(check.pgd, "steps instead of 6")
def makes_one_step(value, start, ball, steps, step_size, generator):
    return climb(value, start, ball, 1, step_size, generator)


@wrong(check.pgd, "with steps=1 you looked at")
def makes_six_steps(value, start, ball, steps, step_size, generator):
    return climb(value, start, ball, 6, step_size, generator)


@wrong(check.pgd, "the graph of every step still hangs")
def keeps_the_graph(value, start, ball, steps, step_size, generator):
    return climb(value, start, ball, steps, step_size, generator).requires_grad_()


@wrong(check.pgd, "you never asked for a value")
def returns_a_random_point(value, start, ball, steps, step_size, generator):
    return ball.random(start, generator)


@wrong(check.pgd, "you returned the change")
def returns_the_change_of_the_best(value, start, ball, steps, step_size, generator):
    return climb(value, start, ball, steps, step_size, generator) - start


def parts_of_halving(values, last):
    moves = values.diff(dim=1)
    rises, interval = (moves[:, last:] > 0).sum(1), moves.shape[1] - last
    return moves, rises, interval, values.amax(1) <= values[:, : last + 1].amax(1)


def with_rule(says):
    def decorate(rule):
        return wrong(check.to_halve, says)(
            functools.wraps(rule)(lambda v, last, halved: rule(v, last, halved, *parts_of_halving(v, last)))
        )

    return decorate


@with_rule("with *and*")
def joins_with_and(values, last, halved, moves, rises, interval, unmoved):
    return (rises <= 0.75 * interval) & ~halved & unmoved


@with_rule("all examples got one answer")
def decides_for_all(values, last, halved, moves, rises, interval, unmoved):
    return ((rises <= 0.75 * interval) | (~halved & unmoved)).any().expand(len(values))


@with_rule("<=, not <; or you divide by one step too few")
def forgets_ties(values, last, halved, moves, rises, interval, unmoved):
    return (rises < 0.75 * interval) | (~halved & unmoved)


@with_rule("rises since the start")
def counts_since_the_start(values, last, halved, moves, rises, interval, unmoved):
    return ((moves > 0).sum(1) <= 0.75 * moves.shape[1]) | (~halved & unmoved)


@with_rule("number of *values*")
def counts_values(values, last, halved, moves, rises, interval, unmoved):
    return (rises <= 0.75 * (interval + 1)) | (~halved & unmoved)


@with_rule("with a tolerance")
def allows_a_tolerance(values, last, halved, moves, rises, interval, unmoved):
    return (rises <= 0.75 * interval) | (~halved & (values.amax(1) <= values[:, : last + 1].amax(1) + 1e-3))


@with_rule("too few digits")
def reads_half_of_the_digits(values, last, halved, moves, rises, interval, unmoved):
    _, rises, interval, unmoved = parts_of_halving(values.half(), last)
    return (rises <= 0.75 * interval) | (~halved & unmoved)


@with_rule("belongs to the best until there")
def leaves_the_checkpoint_out(values, last, halved, moves, rises, interval, unmoved):
    return (rises <= 0.75 * interval) | (~halved & (values.amax(1) <= values[:, : max(last, 1)].amax(1)))


@with_rule("the first step after")
def begins_too_late(values, last, halved, moves, rises, interval, unmoved):
    return ((moves[:, last + 1 :] > 0).sum(1) <= 0.75 * interval) | (~halved & unmoved)


@with_rule("the last step before")
def begins_too_early(values, last, halved, moves, rises, interval, unmoved):
    return ((moves[:, max(last - 1, 0) :] > 0).sum(1) <= 0.75 * interval) | (~halved & unmoved)


@with_rule("condition 1 is reversed")
def halves_after_many_rises(values, last, halved, moves, rises, interval, unmoved):
    return (rises > 0.75 * interval) | (~halved & unmoved)


@with_rule("stays the same is no rise")
def counts_standing_still(values, last, halved, moves, rises, interval, unmoved):
    return ((moves[:, last:] >= 0).sum(1) <= 0.75 * interval) | (~halved & unmoved)


@with_rule("new records")
def counts_records(values, last, halved, moves, rises, interval, unmoved):
    best = values.cummax(1).values
    return ((best.diff(dim=1)[:, last:] > 0).sum(1) <= 0.75 * interval) | (~halved & unmoved)


@with_rule("missing or never true")
def forgets_condition_2(values, last, halved, moves, rises, interval, unmoved):
    return rises <= 0.75 * interval


@with_rule("only condition 2")
def forgets_condition_1(values, last, halved, moves, rises, interval, unmoved):
    return ~halved & unmoved


@with_rule("lacks `~halved`")
def forgets_who_halved(values, last, halved, moves, rises, interval, unmoved):
    return (rises <= 0.75 * interval) | unmoved


@with_rule("you took `halved` for")
def takes_halved(values, last, halved, moves, rises, interval, unmoved):
    return (rises <= 0.75 * interval) | (halved & unmoved)


@with_rule("compares *best* values")
def compares_current_values(values, last, halved, moves, rises, interval, unmoved):
    return (rises <= 0.75 * interval) | (~halved & (values[:, -1] <= values[:, last]))


@with_rule("the best *so far* counts")
def takes_the_best_since(values, last, halved, moves, rises, interval, unmoved):
    return (rises <= 0.75 * interval) | (~halved & (values[:, last:].amax(1) <= values[:, last]))


@with_rule("condition 2 is reversed")
def halves_after_a_new_best(values, last, halved, moves, rises, interval, unmoved):
    return (rises <= 0.75 * interval) | (~halved & ~unmoved)


@with_rule("holds back condition 2 only")
def never_halves_twice(values, last, halved, moves, rises, interval, unmoved):
    return ~halved & ((rises <= 0.75 * interval) | unmoved)


@with_rule("True and False are swapped")
def answers_who_goes_on(values, last, halved, moves, rises, interval, unmoved):
    return ~((rises <= 0.75 * interval) | (~halved & unmoved))


@with_rule("return True or False")
def returns_numbers(values, last, halved, moves, rises, interval, unmoved):
    return ((rises <= 0.75 * interval) | (~halved & unmoved)).float()


@with_rule("of 200 differ")
def takes_half_the_steps(values, last, halved, moves, rises, interval, unmoved):
    return (rises <= 0.5 * interval) | (~halved & unmoved)


def slope_of(value, images):
    x = images.clone().requires_grad_()
    return torch.autograd.grad(value(x).sum(), x)[0]


def verdict(attack, value, start, ball, *, zero=lambda g: (g == 0).all(), alone=True, order="masked first", whose=None):
    """The right answer, with parts to be replaced."""
    images = attack(value, start, ball)
    standing = (value(images) <= 0).nonzero()[:, 0] if whose is None else whose(value(images))
    for i in standing.tolist():
        one = start[i : i + 1]
        short = (images[i] - one[0]).norm() < 0.99 * ball.eps
        if order == "size first" and short:
            return "too short"
        if zero(slope_of(value, one)):
            return "masked"
        if alone and value(attack(value, one, ball)) > 0:
            return "stops everyone"
        if short:
            return "too short"
    return "sound"


def with_evidence(says, **parts):
    wrong(check.diagnose, says)(lambda *given: verdict(*given, **parts))


with_evidence("look at the gradient before the size", order="size first")
with_evidence("fall when they are attacked *alone*", alone=False)
with_evidence("only those who stand", whose=lambda values: torch.arange(len(values)), alone=False)
with_evidence("nobody stands here who falls", whose=lambda values: torch.arange(len(values)))
with_evidence("a small one will do", zero=lambda gradient: gradient.abs().max() < 1e-5)


def by_parts(
    attack,
    value,
    start,
    ball,
    *,
    stands=lambda values: values <= 0,
    whose=None,
    flat=lambda g: g.flatten(1).abs().amax(1) == 0,
    where="start",
    some=torch.any,
    alone=lambda standing: standing,
    falls=lambda values: values > 0,
    short=lambda sizes, eps: (sizes < 0.9 * eps).any(),
):
    """The right answer for the whole batch, verdict by verdict, with parts to be replaced."""
    images = attack(value, start, ball)
    standing = stands(value(images)).nonzero()[:, 0]
    standing = standing if whose is None else whose(standing)
    if not len(standing):
        return "sound"
    if some(flat(slope_of(value, start if where == "start" else images))[standing]):
        return "masked"
    if any(falls(value(attack(value, start[i : i + 1], ball))) for i in alone(standing)):
        return "stops everyone"
    return "too short" if short((images - start).flatten(1).norm(dim=1)[standing], ball.eps) else "sound"


def with_proof(says, **parts):
    wrong(check.diagnose, says)(lambda *given: by_parts(*given, **parts))


with_proof("even if not all who stand are there", short=lambda sizes, eps: (sizes < 0.9 * eps).all())
with_proof("which a mean hides", short=lambda sizes, eps: sizes.mean() < 0.9 * eps)
with_proof("you say 'too short', it is 'masked'; one example", some=torch.all)
with_proof("you say 'sound', it is 'masked'; one example", whose=lambda standing: standing[:1])
with_proof("not only the first", alone=lambda standing: standing[:1])
with_proof("the gradient counts at `start`", where="images")
with_proof("most numbers of its gradient are 0", flat=lambda g: (g == 0).flatten(1).float().mean(1) > 0.5)
with_proof("who ends at exactly 0 stands", stands=lambda values: values < 0)
with_proof("who ends at exactly 0, alone, stands", falls=lambda values: values >= 0)


@wrong(check.diagnose, "only the gradients of those who *stand*")
def asks_everyone_for_a_gradient(attack, value, start, ball):
    standing = (value(attack(value, start, ball)) <= 0).any()
    flat = (slope_of(value, start) == 0).flatten(1).all(1).any()
    return "masked" if standing and flat else verdict(attack, value, start, ball)


@wrong(check.diagnose, "changes what it is given")
def moves_the_start(attack, value, start, ball):
    found = verdict(attack, value, start, ball)
    start += 0.01
    return found


@wrong(check.diagnose, "requires_grad_() on what you were given")
def makes_the_start_a_leaf(attack, value, start, ball):
    return verdict(attack, value, start.requires_grad_(), ball)


@wrong(check.diagnose, "measure the sizes of their changes")
def trusts_the_attack(attack, value, start, ball):
    return "sound"


@wrong(check.diagnose, "so nobody looked for a way")
def looks_for_images_that_did_not_move(attack, value, start, ball):
    found = verdict(attack, value, start, ball, zero=lambda gradient: False)
    moved = (attack(value, start, ball) - start).abs().amax((1, 2, 3)) > 0
    return found if moved.all() else "masked"


@wrong(check.diagnose, "the steps end too soon")
def calls_all_that_stands_masked(attack, value, start, ball):
    images = attack(value, start, ball)
    return "masked" if (value(images) <= 0).any() else "sound"


@wrong(check.diagnose, "and as far from the border")
def takes_every_mixed_result_for_an_early_stop(attack, value, start, ball):
    return "stops everyone" if (value(attack(value, start, ball)) <= 0).any() else "sound"


@wrong(check.diagnose, "return one of 'too short'")
def has_a_name_of_its_own(attack, value, start, ball):
    return "robust"


@wrong(check.diagnose, "did you forget `return`")
def says_nothing(attack, value, start, ball):
    attack(value, start, ball)


def repaired(value, start, ball, steps, generator, *, size=None, stop=None, freeze=True, masked=None, guesses=20,
             norm=None, center=None, begin=None, chance=None, wholly=True):  # fmt: skip
    """The right answer, with parts to be replaced."""
    size = 2.5 * ball.eps / steps if size is None else size(ball, steps)
    images = start if begin is None else begin(start, ball, generator)
    generator = generator if chance is None else chance()
    back = ball.project if center is None else center(ball)
    for _ in range(steps):
        images = images.detach().requires_grad_()
        found = value(images)
        (gradient,) = torch.autograd.grad(found.sum(), images)
        flat = (gradient.abs().amax(IMAGE, keepdim=True) if wholly else gradient) == 0
        flat = flat if masked is None else masked(flat)
        with torch.no_grad():
            for _ in range(guesses * int(flat.any())):
                change = ball.random(start, generator) - start
                gain = value(images + change) - value(images - change)
                gradient = gradient + flat * gain.view(-1, 1, 1, 1) * change
            ahead = back(images + size * direction(gradient, norm or ball.norm), start)
            ahead = ahead if center is not about_the_images else ball.project(ahead, images)
        done = found if stop is None else stop(found).expand(len(found))
        images = torch.where((done > 0).view(-1, 1, 1, 1) & freeze, images, ahead)
    return images.detach()


def with_fault(says, **parts):
    wrong(check.mended, says)(lambda *given: repaired(*given, **parts))


def about_the_images(ball):
    return lambda ahead, start: ahead


def unseeded():
    return torch.Generator().manual_seed(int(torch.randint(2**31, ())))


with_fault("l2, eps = 2.0, 10 steps: you gain", size=lambda ball, steps: 0.01)
with_fault("l2, eps = 4.0, 10 steps: you gain", size=lambda ball, steps: 2.5 / steps)
with_fault("the direction is not that of ball.norm", norm="l2")
with_fault("you estimate where there is a gradient", masked=torch.ones_like)
with_fault("not for pixels", wholly=False)
with_fault("and pixels leave [0, 1]: ball.project", center=lambda ball: lambda ahead, start: ahead)
with_fault("which is the ball around `start`", center=about_the_images)
with_fault("two runs with the same generator", chance=unseeded)
with_fault("another generator, the same", chance=lambda: torch.Generator().manual_seed(0))
with_fault("above 0 from the beginning was changed", begin=lambda start, ball, generator: ball.random(start, generator))
with_fault("those that need most", stop=lambda found: found.mean())
with_fault("it went on after it was fooled, or the steps are too long", freeze=False)
with_fault("for all images", guesses=0)
with_fault("for two of four images", masked=lambda flat: flat & flat.all())
wrong(check.mended, "you never asked for a value")(lambda value, start, ball, steps, generator: start)
wrong(check.mended, "you returned the change")(lambda *given: repaired(*given) - given[1])
wrong(check.mended, "away from the start")(
    lambda *given: given[1] + 2 * given[2].eps * direction(slope_of(*given[:2]), "linf")
)


@wrong(check.mended, "11 gradients per image")
def takes_one_gradient_more(value, start, ball, steps, generator):
    slope_of(value, start)
    return repaired(value, start, ball, steps, generator)


@wrong(check.mended, "changes what it is given")
def mends_in_place(value, start, ball, steps, generator):
    return start.copy_(repaired(value, start.clone(), ball, steps, generator))


@wrong(check.mended, "requires_grad_() on what you were given")
def mends_with_a_leaf(value, start, ball, steps, generator):
    return repaired(value, start.requires_grad_(), ball, steps, generator)


def across(ref, p0, p1):
    gap = p1 - p0
    squares = [(ref - p).square().sum(IMAGE, keepdim=True) for p in (p0, p1)]
    return squares[0], squares[1], gap, gap.square().sum(IMAGE, keepdim=True)


def flip(ref, p0, p1):
    s0, s1, gap, square = across(ref, p0, p1)
    return (s1 - s0) / (2 * square) * gap


wrong(check.smallest_flip, "you returned the images")(lambda ref, p0, p1: ref + flip(ref, p0, p1))
wrong(check.smallest_flip, "away from the plane")(lambda ref, p0, p1: flip(ref, p1, p0) * -1)
wrong(check.smallest_flip, "twice as far")(lambda ref, p0, p1: 2 * flip(ref, p0, p1))
wrong(check.smallest_flip, "one number per triplet")(lambda ref, p0, p1: flip(ref, p0, p1).flatten(1).norm(dim=1))
wrong(check.smallest_flip, "the middle between")(lambda ref, p0, p1: (p0 + p1) / 2 - ref)
wrong(check.smallest_flip, "you cut off pixels")(lambda ref, p0, p1: (ref + flip(ref, p0, p1)).clamp(0, 1) - ref)


@wrong(check.smallest_flip, "always towards p1")
def ignores_the_sign(ref, p0, p1):
    s0, s1, gap, square = across(ref, p0, p1)
    return (s1 - s0).abs() / (2 * square) * gap


@wrong(check.smallest_flip, "divided by |p1 - p0| once")
def divides_once(ref, p0, p1):
    s0, s1, gap, square = across(ref, p0, p1)
    return (s1 - s0) / (2 * square.sqrt()) * gap


@wrong(check.smallest_flip, "of the distances")
def takes_roots(ref, p0, p1):
    s0, s1, gap, square = across(ref, p0, p1)
    return (s1.sqrt() - s0.sqrt()) / (2 * square.sqrt()) * gap


@wrong(check.smallest_flip, "the direction is not p1 - p0")
def goes_straight_to_the_other(ref, p0, p1):
    s0, s1, gap, _ = across(ref, p0, p1)
    aim = torch.where(s0 < s1, p1, p0) - ref
    along = (aim * gap).sum(IMAGE, keepdim=True)
    return (s1 - s0) / (2 * along) * aim


@wrong(check.smallest_flip, "from the reference to a candidate")
def goes_from_the_reference_to_p1(ref, p0, p1):
    s0, s1, _, square = across(ref, p0, p1)
    return (s1 - s0) / (2 * square) * (p1 - ref)


@wrong(check.smallest_flip, "one length per channel")
def takes_one_length_per_channel(ref, p0, p1):
    s0, s1, square = ((x - y).square().sum((2, 3), keepdim=True) for x, y in ((ref, p0), (ref, p1), (p0, p1)))
    return (s1 - s0) / (2 * square) * (p1 - p0)


@wrong(check.smallest_flip, "over the whole batch")
def takes_one_length(ref, p0, p1):
    s0, s1, gap, square = across(ref, p0, p1)
    return (s1 - s0) / (2 * square.sum()) * gap


def tries(value, ref, ball, right, wrong, queries, generator, change=None):
    """Random points, the best of each."""
    best, highest = ref, torch.full((len(ref),), -torch.inf)
    for _ in range(queries):
        images = ball.random(ref, generator) if change is None else change(ref, ball, right, wrong)
        found = value(images)
        better = found > highest
        best = torch.where(better.view(-1, 1, 1, 1), images, best)
        highest = torch.where(better, found, highest)
    return best


wrong(check.few_queries, "decisions turned, Square turns")(tries)


@wrong(check.few_queries, "you asked for more than 50")
def asks_too_much(value, ref, ball, right, wrong, queries, generator):
    return tries(value, ref, ball, right, wrong, 2 * queries, generator)


@wrong(check.few_queries, "one query for each")
def asks_one_by_one(value, ref, ball, right, wrong, queries, generator):
    return torch.cat([tries(value, one, ball, right, wrong, 1, generator) for one in ref.split(1)])


@wrong(check.few_queries, "away from the start")
def leaves_the_ball(value, ref, ball, right, wrong, queries, generator):
    return wrong


@wrong(check.few_queries, "pixels leave [0, 1] by")
def leaves_the_box(value, ref, ball, right, wrong, queries, generator):
    return ref + 0.99 * ball.eps * direction(wrong - right, "l2")


@wrong(check.few_queries, "two runs with the same generator")
def brings_its_own_chance(value, ref, ball, right, wrong, queries, generator):
    return ball.project(ref + 0.1 * torch.randn_like(ref), ref)


@wrong(check.few_queries, "nothing has changed")
def follows_a_gradient_of_zero(value, ref, ball, right, wrong, queries, generator):
    return ball.project(ref + direction(slope_of(value, ref), "l2"), ref)


@wrong(check.few_queries, "you returned the change")
def returns_a_change(value, ref, ball, right, wrong, queries, generator):
    return ball.eps * direction(wrong - ref, "l2")
