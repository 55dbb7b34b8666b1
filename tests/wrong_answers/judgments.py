"""Wrong answers to chapter 08's exercises."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from course_lib.checks import judgments as check
from tests.wrong_answers import wrong


def scores(d0, d1, judge, tie=0.5):
    return torch.where(d0 == d1, torch.as_tensor(tie), torch.where(d1 < d0, judge, 1 - judge))


@wrong(check.two_afc_score, "reversed: judge")
def prefers_the_larger_distance(d0, d1, judge):
    return scores(d1, d0, judge).mean()


@wrong(check.two_afc_score, "ties went to p0")
def gives_ties_to_p0(d0, d1, judge):
    return scores(d0, d1, judge, 1 - judge).mean()


@wrong(check.two_afc_score, "ties went to p1")
def gives_ties_to_p1(d0, d1, judge):
    return scores(d0, d1, judge, judge).mean().item()


@wrong(check.two_afc_score, "ties scored 0, ")
def forgets_ties(d0, d1, judge):
    return ((d0 < d1) * (1 - judge) + (d1 < d0) * judge).mean()


@wrong(check.two_afc_score, "ties scored 1")
def compares_with_or_equal(d0, d1, judge):
    return ((d0 <= d1) * (1 - judge) + (d1 <= d0) * judge).mean()


@wrong(check.two_afc_score, "left out")
def leaves_ties_out(d0, d1, judge):
    return scores(d0, d1, judge)[d0 != d1].mean()


@wrong(check.two_afc_score, "merely close")
def takes_close_for_equal(d0, d1, judge):
    return torch.where(torch.isclose(d0, d1), 0.5, scores(d0, d1, judge)).mean()


@wrong(check.two_afc_score, "reversed, and ties went to one side")
def is_reversed_without_ties(d0, d1, judge):
    return torch.where(d0 < d1, judge, 1 - judge).mean()


@wrong(check.two_afc_score, "reversed, and ties scored 0 or 1")
def takes_judge_for_votes_for_p0(d0, d1, judge):
    return ((d0 < d1) * judge + (d1 < d0) * (1 - judge)).mean()


@wrong(check.two_afc_score, "agreement with the majority")
def scores_the_majority(d0, d1, judge):
    return ((d1 < d0) == (judge > 0.5)).float().mean()


@wrong(check.two_afc_score, "one score per triplet")
def returns_scores(d0, d1, judge):
    return scores(d0, d1, judge)


@wrong(check.two_afc_score, "sum over the triplets")
def adds_scores(d0, d1, judge):
    return scores(d0, d1, judge).sum()


@wrong(check.two_afc_score, "that is a correlation")
def correlates(d0, d1, judge):
    return torch.corrcoef(torch.stack([d0 - d1, judge]))[0, 1]


@wrong(check.two_afc_score, "changes what it is given")
def writes_into_judge(d0, d1, judge):
    judge[d0 == d1] = 0.5
    return scores(d0, d1, judge).mean()


@wrong(check.two_afc_score, "did you forget `return`")
def returns_nothing(d0, d1, judge):
    scores(d0, d1, judge).mean()


def three(p, v):
    human = (p**2 + (1 - p) ** 2).mean()
    return human, torch.maximum(p, 1 - p).mean(), (v * human - 1) / (v - 1)


@wrong(check.ceilings, "in another order")
def swaps_ceilings(judge, voters):
    human, majority, unbiased = three(judge, voters)
    return majority, human, unbiased


@wrong(check.ceilings, "return 3 numbers")
def returns_one_ceiling(judge, voters):
    return three(judge, voters)[0]


@wrong(check.ceilings, "return 3 numbers: human, majority, unbiased")
def returns_vectors(judge, voters):
    return judge**2 + (1 - judge) ** 2, torch.maximum(judge, 1 - judge), judge


@wrong(check.ceilings, "human: you took the mean of the votes first")
def averages_votes_first(judge, voters):
    return three(judge.mean(), voters)


@wrong(check.ceilings, "human: that is p² only")
def forgets_votes_for_p0(judge, voters):
    return judge.square().mean(), *three(judge, voters)[1:]


@wrong(check.ceilings, "human: p + (1 - p) is always 1")
def squares_the_sum(judge, voters):
    return ((judge + 1 - judge) ** 2).mean(), *three(judge, voters)[1:]


@wrong(check.ceilings, "disagree in two ways")
def forgets_one_way_to_disagree(judge, voters):
    return (1 - judge * (1 - judge)).mean(), *three(judge, voters)[1:]


@wrong(check.ceilings, "how often two voters *disagree*")
def counts_disagreement(judge, voters):
    return (2 * judge * (1 - judge)).mean(), *three(judge, voters)[1:]


@wrong(check.ceilings, "human: that is the sum")
def adds_up_human(judge, voters):
    return three(judge, voters)[0] * len(judge), *three(judge, voters)[1:]


def with_majority(value):
    return lambda judge, voters: (three(judge, voters)[0], value(judge), three(judge, voters)[2])


wrong(check.ceilings, "majority: you took the mean")(with_majority(lambda p: max(p.mean(), 1 - p.mean())))
wrong(check.ceilings, "most chose p1")(with_majority(lambda p: (p > 0.5).float().mean()))
wrong(check.ceilings, "unanimous triplets only")(with_majority(lambda p: ((p == 0) | (p == 1)).float().mean()))
wrong(check.ceilings, "sides with the few")(with_majority(lambda p: torch.minimum(p, 1 - p).mean()))
wrong(check.ceilings, "not with all of them")(with_majority(lambda p: 1.0))
wrong(check.ceilings, "majority: that is the sum")(with_majority(lambda p: torch.maximum(p, 1 - p).sum()))


def with_unbiased(value):
    return lambda judge, voters: (*three(judge, voters)[:2], value(three(judge, voters)[0], voters, judge))


wrong(check.ceilings, "unbiased: you changed nothing")(with_unbiased(lambda c, v, p: c))
wrong(check.ceilings, "unbiased: brackets!")(with_unbiased(lambda c, v, p: v * c - 1 / (v - 1)))
wrong(check.ceilings, "divide by v - 1")(with_unbiased(lambda c, v, p: (v * c - 1) / v))
wrong(check.ceilings, "subtract the 1")(with_unbiased(lambda c, v, p: v * c / (v - 1)))
wrong(check.ceilings, "not always five voters")(with_unbiased(lambda c, v, p: (5 * c - 1) / 4))
wrong(check.ceilings, "not of triplets")(with_unbiased(lambda c, v, p: (len(p) * c - 1) / (len(p) - 1)))
wrong(check.ceilings, "not from that of the majority")(
    with_unbiased(lambda c, v, p: (v * torch.maximum(p, 1 - p).mean() - 1) / (v - 1))
)


def to_the_end(precision):
    return precision.flip(0).cummax(0).values.flip(0)


def area(ranked, envelope=to_the_end):
    precision = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)
    return (ranked / ranked.sum() * envelope(precision)).sum()


def curve(distance, same):
    ranked = same[distance.argsort()]
    return ranked.cumsum(0) / ranked.sum(), ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)


@wrong(check.jnd_map, "descending distance")
def ranks_descending(distance, same):
    return area(same[distance.argsort(descending=True)])


@wrong(check.jnd_map, "the envelope is missing")
def forgets_the_envelope(distance, same):
    return area(same[distance.argsort()], lambda precision: precision)


@wrong(check.jnd_map, "runs the wrong way")
def takes_the_largest_so_far(distance, same):
    return area(same[distance.argsort()], lambda precision: precision.cummax(0).values)


@wrong(check.jnd_map, "not sorted along")
def sorts_only_the_distances(distance, same):
    distance.sort()
    return area(same)


@wrong(check.jnd_map, "the rise in recall is that of the *ranked* pairs")
def forgets_the_order_at_the_end(distance, same):
    return (same / same.sum() * to_the_end(curve(distance, same)[1])).sum()


@wrong(check.jnd_map, "still turned round")
def does_not_turn_back(distance, same):
    return area(same[distance.argsort()], lambda precision: precision.flip(0).cummax(0).values)


@wrong(check.jnd_map, "divide by 1, 2, 3")
def counts_from_zero(distance, same):
    ranked = same[distance.argsort()]
    return (ranked / ranked.sum() * to_the_end(ranked.cumsum(0) / torch.arange(len(ranked)))).sum()


@wrong(check.jnd_map, "rounded to 0 or 1")
def rounds_votes(distance, same):
    return area((same[distance.argsort()] > 0.5).float())


@wrong(check.jnd_map, "adds 1 - s to them")
def counts_every_pair_as_false(distance, same):
    ranked = same[distance.argsort()]
    true, false = ranked.cumsum(0), torch.ones(len(ranked)).cumsum(0)
    return (ranked / ranked.sum() * to_the_end(true / (true + false))).sum()


@wrong(check.jnd_map, "joined by straight lines")
def joins_points_by_lines(distance, same):
    recall, precision = curve(distance, same)
    return torch.trapezoid(to_the_end(precision), recall)


@wrong(check.jnd_map, "the first step is missing")
def forgets_where_recall_starts(distance, same):
    recall, precision = curve(distance, same)
    return (recall.diff() * to_the_end(precision)[1:]).sum()


@wrong(check.jnd_map, "mean over the ranks")
def averages_precision(distance, same):
    return to_the_end(curve(distance, same)[1]).mean()


@wrong(check.jnd_map, "divide by their sum")
def divides_recall_by_the_number_of_pairs(distance, same):
    ranked = same[distance.argsort()]
    return area(ranked) * ranked.sum() / len(ranked)


@wrong(check.jnd_map, "11 or 101 points")
def reads_eleven_points(distance, same):
    recall, precision = curve(distance, same)
    levels = torch.linspace(0, 1, 11) - 1e-6
    return torch.stack([to_the_end(precision)[recall >= level][0] for level in levels]).mean()


@wrong(check.jnd_map, "changes what it is given")
def sorts_in_place(distance, same):
    order = distance.argsort()
    same.copy_(same[order].clone())
    return area(same)


@wrong(check.jnd_map, "returns a list")
def returns_precisions(distance, same):
    return curve(distance, same)[1].tolist()


def interval(means, cut=0.025):
    means = torch.stack(means)
    return means.quantile(cut).item(), means.quantile(1 - cut).item()


def drawn_means(agreement, photo, resamples, generator, draw=None, pool=lambda drawn: torch.cat(drawn).mean()):
    groups = [agreement[photo == name] for name in photo.unique()]
    draw = draw or (lambda k: torch.randint(k, (k,), generator=generator))
    return [pool([groups[i] for i in draw(len(groups)).tolist()]) for _ in range(resamples)]


@wrong(check.photograph_interval, "you resampled triplets")
def resamples_triplets(agreement, photo, resamples, generator):
    n = len(agreement)
    return interval([agreement[torch.randint(n, (n,), generator=generator)].mean() for _ in range(resamples)])


@wrong(check.photograph_interval, "drawn twice counts twice")
def counts_a_photograph_once(agreement, photo, resamples, generator):
    names = photo.unique()
    drawn = [names[torch.randint(len(names), (len(names),), generator=generator)] for _ in range(resamples)]
    return interval([agreement[torch.isin(photo, some)].mean() for some in drawn])


@wrong(check.photograph_interval, "averaged the photographs' means")
def averages_means(agreement, photo, resamples, generator):
    mean_of_means = lambda drawn: torch.stack([group.mean() for group in drawn]).mean()  # noqa: E731
    return interval(drawn_means(agreement, photo, resamples, generator, pool=mean_of_means))


@wrong(check.photograph_interval, "as many photographs as there are triplets")
def draws_too_many(agreement, photo, resamples, generator):
    draw = lambda k: torch.randint(k, (len(photo),), generator=generator)  # noqa: E731
    return interval(drawn_means(agreement, photo, resamples, generator, draw))


@wrong(check.photograph_interval, "not numbered 0, 1, 2")
def takes_names_for_numbers(agreement, photo, resamples, generator):
    k, means = len(photo.unique()), []
    for _ in range(resamples):
        drawn = torch.randint(k, (k,), generator=generator)
        means.append(torch.cat([agreement[photo == name] for name in drawn]).mean())
    return interval(means)


@wrong(check.photograph_interval, "one triplet per photograph")
def draws_as_many_triplets_as_photographs(agreement, photo, resamples, generator):
    n, k = len(agreement), len(photo.unique())
    return interval([agreement[torch.randint(n, (k,), generator=generator)].mean() for _ in range(resamples)])


@wrong(check.photograph_interval, "no width")
def permutes(agreement, photo, resamples, generator):
    draw = lambda k: torch.randperm(k, generator=generator)  # noqa: E731
    return interval(drawn_means(agreement, photo, resamples, generator, draw))


@wrong(check.photograph_interval, "a 90 % interval")
def cuts_five_per_cent_on_both_sides(agreement, photo, resamples, generator):
    return interval(drawn_means(agreement, photo, resamples, generator), 0.05)


@wrong(check.photograph_interval, "or all of the scores")
def returns_the_extremes(agreement, photo, resamples, generator):
    means = drawn_means(agreement, photo, resamples, generator)
    return min(means), max(means)


@wrong(check.photograph_interval, "not repeatable")
def draws_without_the_generator(agreement, photo, resamples, generator):
    return interval(drawn_means(agreement, photo, resamples, generator, lambda k: torch.randint(k, (k,))))


@wrong(check.photograph_interval, "low is larger than high")
def swaps_the_ends(agreement, photo, resamples, generator):
    return interval(drawn_means(agreement, photo, resamples, generator))[::-1]


@wrong(check.photograph_interval, "the interval is too narrow")
def draws_twice_as_many_photographs(agreement, photo, resamples, generator):
    draw = lambda k: torch.randint(k, (2 * k,), generator=generator)  # noqa: E731
    return interval(drawn_means(agreement, photo, resamples, generator, draw))


@wrong(check.photograph_interval, "the root of `resamples`")
def divides_by_the_root_of_the_resamples(agreement, photo, resamples, generator):
    means = torch.stack(drawn_means(agreement, photo, resamples, generator))
    margin = 1.96 * means.std() / math.sqrt(resamples)
    return agreement.mean() - margin, agreement.mean() + margin


@wrong(check.photograph_interval, "too wide")
def multiplies_by_the_root_of_the_photographs(agreement, photo, resamples, generator):
    margin = 1.96 * torch.stack(drawn_means(agreement, photo, resamples, generator)).std() * len(photo.unique()) ** 0.5
    return agreement.mean() - margin, agreement.mean() + margin


@wrong(check.photograph_interval, "return 2 numbers: low, high")
def returns_all_means(agreement, photo, resamples, generator):
    return drawn_means(agreement, photo, resamples, generator)


@wrong(check.ranking_loss, "reversed: votes go to p1")
def predicts_the_farther(d0, d1, judge):
    return F.binary_cross_entropy_with_logits(d1 - d0, judge)


@wrong(check.ranking_loss, "the minus is missing")
def forgets_the_minus(d0, d1, judge):
    return (judge * F.logsigmoid(d0 - d1) + (1 - judge) * F.logsigmoid(d1 - d0)).mean()


@wrong(check.ranking_loss, "sigmoid was taken twice")
def takes_the_sigmoid_twice(d0, d1, judge):
    return F.binary_cross_entropy_with_logits((d0 - d1).sigmoid(), judge)


@wrong(check.ranking_loss, "votes were rounded")
def learns_the_majority(d0, d1, judge):
    return F.binary_cross_entropy_with_logits(d0 - d1, (judge > 0.5).float())


@wrong(check.ranking_loss, "half of it is missing")
def forgets_the_votes_for_p0(d0, d1, judge):
    return -(judge * F.logsigmoid(d0 - d1)).mean()


@wrong(check.ranking_loss, "squared error")
def squares_the_error(d0, d1, judge):
    return F.mse_loss((d0 - d1).sigmoid(), judge)


@wrong(check.ranking_loss, "sum over the triplets")
def adds_losses(d0, d1, judge):
    return F.binary_cross_entropy_with_logits(d0 - d1, judge, reduction="sum")


@wrong(check.ranking_loss, "one loss per triplet")
def returns_losses(d0, d1, judge):
    return F.binary_cross_entropy_with_logits(d0 - d1, judge, reduction="none")


@wrong(check.ranking_loss, "margin loss")
def uses_a_margin(d0, d1, judge):
    return F.margin_ranking_loss(d0, d1, 2 * judge - 1, margin=0.1)


@wrong(check.ranking_loss, "margin loss of rounded votes")
def rounds_votes_and_takes_a_margin(d0, d1, judge):
    return F.margin_ranking_loss(d0, d1, (judge - 0.5).sign(), margin=0.05)


@wrong(check.ranking_loss, "NaN")
def forgets_the_sigmoid(d0, d1, judge):
    return -(judge * (d0 - d1).log() + (1 - judge) * (1 - (d0 - d1)).log()).mean()


@wrong(check.ranking_loss, "no gradient reaches")
def returns_a_float(d0, d1, judge):
    return F.binary_cross_entropy_with_logits(d0 - d1, judge).item()


@wrong(check.ranking_loss, "where |d0 - d1| = 200: the sigmoid rounds to 0 or 1, and log(0) is infinite")
def takes_the_log_of_the_sigmoid(d0, d1, judge):
    p = (d0 - d1).sigmoid()
    return -(judge * p.log() + (1 - judge) * (1 - p).log()).mean()


@wrong(check.ranking_loss, "clamping its logarithm makes it finite but not right")
def takes_the_clamped_loss(d0, d1, judge):
    return F.binary_cross_entropy((d0 - d1).sigmoid(), judge)


@wrong(check.ranking_loss, "but its gradient is")
def has_the_value_but_not_the_gradient(d0, d1, judge):
    z = d0 - d1
    far = z.abs() > 50
    near = F.binary_cross_entropy_with_logits(z, judge, reduction="none")
    return torch.where(far, near.detach() + 0 * z, near).mean()


def unit(features, axis=1):
    return features / (features.norm(dim=axis, keepdim=True) + 1e-10)


def joined(fx, fy, difference=lambda a, b: (unit(a) - unit(b)).square(), reduce=lambda d: d.mean((2, 3))):
    return torch.cat([reduce(difference(a, b)) for a, b in zip(fx, fy, strict=True)], 1)


@wrong(check.channel_differences, "raw features")
def compares_raw_features(fx, fy):
    return joined(fx, fy, lambda a, b: (a - b).square())


@wrong(check.channel_differences, "you scaled the difference")
def scales_the_difference(fx, fy):
    return joined(fx, fy, lambda a, b: unit(a - b).square())


@wrong(check.channel_differences, "averaged before squaring")
def averages_first(fx, fy):
    return joined(fx, fy, lambda a, b: unit(a) - unit(b)).square()


@wrong(check.channel_differences, "forgot to square")
def forgets_the_square(fx, fy):
    return joined(fx, fy, lambda a, b: unit(a) - unit(b))


@wrong(check.channel_differences, "absolute differences")
def takes_absolute_differences(fx, fy):
    return joined(fx, fy, lambda a, b: (unit(a) - unit(b)).abs())


@wrong(check.channel_differences, "square root at the end")
def takes_the_root(fx, fy):
    return joined(fx, fy).sqrt()


@wrong(check.channel_differences, "summed over the positions")
def sums_positions(fx, fy):
    return joined(fx, fy, reduce=lambda d: d.sum((2, 3)))


@wrong(check.channel_differences, "averaged over the channels")
def averages_channels(fx, fy):
    return joined(fx, fy, reduce=lambda d: d.mean((1, 2, 3)).unsqueeze(1))


@wrong(check.channel_differences, "over space, not channels")
def normalises_over_space(fx, fy):
    return joined(fx, fy, lambda a, b: (unit(a, (2, 3)) - unit(b, (2, 3))).square())


@wrong(check.channel_differences, "divided by the sum of the channels")
def divides_by_the_sum(fx, fy):
    unit = lambda features: features / features.sum(1, keepdim=True)  # noqa: E731
    return torch.cat([(unit(a) - unit(b)).square().mean((2, 3)) for a, b in zip(fx, fy, strict=True)], 1)


@wrong(check.channel_differences, "divided by the squared length")
def forgets_the_root_of_the_length(fx, fy):
    unit = lambda features: features / features.square().sum(1, keepdim=True)  # noqa: E731
    return torch.cat([(unit(a) - unit(b)).square().mean((2, 3)) for a, b in zip(fx, fy, strict=True)], 1)


@wrong(check.channel_differences, "mean over the batch")
def averages_the_batch(fx, fy):
    return joined(fx, fy).mean(0)


@wrong(check.channel_differences, "reverse order")
def starts_at_the_last_layer(fx, fy):
    return joined(fx[::-1], fy[::-1])


@wrong(check.channel_differences, "one layer only")  # noqa: RET503
def returns_in_the_loop(fx, fy):
    for a, b in zip(fx, fy, strict=True):
        return (unit(a) - unit(b)).square().mean((2, 3))


@wrong(check.channel_differences, "all positions are still there")
def keeps_positions(fx, fy):
    return joined(fx, fy, reduce=lambda d: d.flatten(1))


@wrong(check.channel_differences, "separate layers")
def returns_layers(fx, fy):
    return [(unit(a) - unit(b)).square().mean((2, 3)) for a, b in zip(fx, fy, strict=True)]


@wrong(check.channel_differences, "0 / 0")
def divides_zero_by_zero(fx, fy):
    return joined(fx, fy, lambda a, b: (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).square())


@wrong(check.channel_differences, "changes what it is given")
def normalises_in_place(fx, fy):
    for features in (*fx, *fy):
        features /= features.norm(dim=1, keepdim=True) + 1e-10
    return joined(fx, fy)


def step(heads, optimiser, d0, d1, judge, *, clamp=True, zero=True, weight=None):
    """The right step, or one with a part left out."""
    weight = heads.weight[0] if weight is None else weight
    loss = F.binary_cross_entropy_with_logits(d0 @ weight - d1 @ weight, judge)
    if zero:
        optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if clamp:
        heads.weight.data.clamp_(min=0)
    return loss.item()


@wrong(check.train_step, "clamp them at 0 *in place*")
def forgets_to_clamp(heads, optimiser, d0, d1, judge):
    return step(heads, optimiser, d0, d1, judge, clamp=False)


@wrong(check.train_step, "clamped before the step")
def clamps_before(heads, optimiser, d0, d1, judge):
    heads.weight.data.clamp_(min=0)
    return step(heads, optimiser, d0, d1, judge, clamp=False)


@wrong(check.train_step, "abs() turns")
def takes_absolute_weights(heads, optimiser, d0, d1, judge):
    loss = step(heads, optimiser, d0, d1, judge, clamp=False)
    heads.weight.data.abs_()
    return loss


@wrong(check.train_step, "gradients add up")
def forgets_zero_grad(heads, optimiser, d0, d1, judge):
    return step(heads, optimiser, d0, d1, judge, zero=False)


@wrong(check.train_step, "a relu in the forward pass")
def rectifies_in_the_forward_pass(heads, optimiser, d0, d1, judge):
    return step(heads, optimiser, d0, d1, judge, clamp=False, weight=heads.weight[0].relu())


@wrong(check.train_step, "reversed: the loss takes (d0, d1, judge)")
def swaps_the_distances(heads, optimiser, d0, d1, judge):
    return step(heads, optimiser, d1, d0, judge)


@wrong(check.train_step, "reversed: the weights move away")
def climbs(heads, optimiser, d0, d1, judge):
    loss = F.binary_cross_entropy_with_logits((heads(d0) - heads(d1)).squeeze(1), judge)
    step(heads, optimiser, d1, d0, judge)
    return loss


@wrong(check.train_step, "you clamped the gradient")
def clamps_the_gradient(heads, optimiser, d0, d1, judge):
    loss = F.binary_cross_entropy_with_logits((heads(d0) - heads(d1)).squeeze(1), judge)
    optimiser.zero_grad()
    loss.backward()
    heads.weight.grad.clamp_(min=0)
    optimiser.step()
    return loss


@wrong(check.train_step, "weights above 1 were cut")
def clamps_above(heads, optimiser, d0, d1, judge):
    loss = step(heads, optimiser, d0, d1, judge)
    heads.weight.data.clamp_(0, 1)
    return loss


@wrong(check.train_step, "a softmax moves every weight")
def takes_a_softmax(heads, optimiser, d0, d1, judge):
    loss = step(heads, optimiser, d0, d1, judge, clamp=False)
    heads.weight.data.copy_(heads.weight.data.softmax(1))
    return loss


@wrong(check.train_step, "a sum of 1")
def scales_weights(heads, optimiser, d0, d1, judge):
    loss = step(heads, optimiser, d0, d1, judge)
    heads.weight.data /= heads.weight.data.sum()
    return loss


@wrong(check.train_step, "you replaced the Parameter")
def replaces_the_parameter(heads, optimiser, d0, d1, judge):
    loss = step(heads, optimiser, d0, d1, judge, clamp=False)
    heads.weight = nn.Parameter(heads.weight.clamp(min=0))
    return loss


@wrong(check.train_step, "RuntimeError: a leaf Variable")
def clamps_with_a_gradient(heads, optimiser, d0, d1, judge):
    loss = step(heads, optimiser, d0, d1, judge, clamp=False)
    heads.weight.clamp_(min=0)
    return loss


@wrong(check.train_step, "no longer require a gradient")
def freezes_the_weights(heads, optimiser, d0, d1, judge):
    heads.weight.requires_grad_(True)
    loss = step(heads, optimiser, d0, d1, judge)
    heads.weight.requires_grad_(False)
    return loss


@wrong(check.train_step, "call optimiser.step()")
def forgets_the_step(heads, optimiser, d0, d1, judge):
    loss = F.binary_cross_entropy_with_logits((heads(d0) - heads(d1)).squeeze(1), judge)
    loss.backward()
    return loss


@wrong(check.train_step, "every distance was compared with every vote")
def compares_all_with_all(heads, optimiser, d0, d1, judge):
    z = heads(d0) - heads(d1)
    loss = -(judge * F.logsigmoid(z) + (1 - judge) * F.logsigmoid(-z)).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    heads.weight.data.clamp_(min=0)
    return loss


@wrong(check.train_step, "the loss after the step")
def returns_the_next_loss(heads, optimiser, d0, d1, judge):
    step(heads, optimiser, d0, d1, judge)
    return F.binary_cross_entropy_with_logits((heads(d0) - heads(d1)).squeeze(1), judge)


@wrong(check.train_step, "return the loss")
def returns_no_loss(heads, optimiser, d0, d1, judge):
    step(heads, optimiser, d0, d1, judge)


@wrong(check.train_step, "wrong with Adam")
def steps_on_its_own(heads, optimiser, d0, d1, judge):
    loss = F.binary_cross_entropy_with_logits((heads(d0) - heads(d1)).squeeze(1), judge)
    (gradient,) = torch.autograd.grad(loss, heads.weight)
    with torch.no_grad():
        heads.weight.sub_(optimiser.param_groups[0]["lr"] * gradient).clamp_(min=0)
    return loss


@wrong(check.my_metric, "did you forget `return`")
def measures_and_keeps_quiet(x, y):
    (x - y).abs().mean((1, 2, 3))


@wrong(check.my_metric, "one number for the whole batch")
def averages_everything(x, y):
    return (x - y).abs().mean()


@wrong(check.my_metric, "one distance for every pair")
def returns_a_map(x, y):
    return (x - y).abs().mean(1)


@wrong(check.my_metric, "NaN or infinite")
def divides_by_the_image(x, y):
    return ((x - y) / (x * 0)).abs().mean((1, 2, 3))


@wrong(check.my_metric, "two calls, two answers")
def draws_new_weights_every_time(x, y):
    kernel = torch.randn(8, 3, 3, 3)
    return (F.conv2d(x, kernel) - F.conv2d(y, kernel)).abs().mean((1, 2, 3))


@wrong(check.my_metric, "what else is in the batch")
def scales_by_the_batch(x, y):
    distance = (x - y).abs().mean((1, 2, 3))
    return distance / distance.max()


@wrong(check.my_metric, "is this a similarity")
def returns_a_similarity(x, y):
    return F.cosine_similarity(x.flatten(1), y.flatten(1))


@wrong(check.my_metric, "exactly as pixel L2 does")
def takes_the_mean_squared_error(x, y):
    return (x - y).square().mean((1, 2, 3))


@wrong(check.my_metric, "with pixel L2; get 0.03 above")
def compares_mean_colours(x, y):
    return (x.mean((2, 3)) - y.mean((2, 3))).abs().sum(1)


@wrong(check.my_metric, "changes what it is given")
def subtracts_in_place(x, y):
    x -= y
    return x.abs().mean((1, 2, 3))


@wrong(check.my_metric, "NumPy array")
def returns_numpy(x, y):
    return (x - y).abs().mean((1, 2, 3)).numpy()


@wrong(check.my_metric, "returns a list")
def returns_a_list(x, y):
    return (x - y).abs().mean((1, 2, 3)).tolist()
