"""Wrong answers to chapter 10's exercises."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from course_lib.checks import lipschitz as check
from course_lib.lipschitz import AOLLinear, L2AvgPool2d
from tests.wrong_answers import wrong


def margin(logits, labels):
    """The right logit minus the largest other."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    return own - logits.scatter(1, labels[:, None], -torch.inf).amax(1)


def gap(logits):
    """The largest logit minus the second largest, right or wrong."""
    top = logits.topk(2, 1).values
    return top[:, 0] - top[:, 1]


@wrong(check.certified_radius, "forgot sqrt(2)")
def forgets_the_root_of_two(logits, labels, constant):
    return margin(logits, labels).clamp_min(0) / constant


@wrong(check.certified_radius, "divided by 2")
def bounds_each_logit_alone(logits, labels, constant):
    return margin(logits, labels).clamp_min(0) / (2 * constant)


@wrong(check.certified_radius, "multiplied by sqrt(2)")
def multiplies_by_the_root_of_two(logits, labels, constant):
    return margin(logits, labels).clamp_min(0) * 2**0.5 / constant


@wrong(check.certified_radius, "constant L is missing")
def forgets_the_constant(logits, labels, constant):
    return margin(logits, labels).clamp_min(0) / 2**0.5


@wrong(check.certified_radius, "multiplied by L")
def multiplies_by_the_constant(logits, labels, constant):
    return margin(logits, labels).clamp_min(0) / 2**0.5 * constant


@wrong(check.certified_radius, "not under the root")
def takes_the_root_of_all(logits, labels, constant):
    return margin(logits, labels).clamp_min(0) / math.sqrt(2 * constant)


@wrong(check.certified_radius, "a wrong prediction got a radius")
def certifies_wrong_predictions(logits, labels, constant):
    return gap(logits) / (2**0.5 * constant)


@wrong(check.certified_radius, "radius is negative")
def forgets_to_clamp_the_radius(logits, labels, constant):
    return margin(logits, labels) / (2**0.5 * constant)


@wrong(check.certified_radius, "reversed")
def certifies_only_wrong_predictions(logits, labels, constant):
    return torch.where(logits.argmax(1) == labels, 0, gap(logits)) / (2**0.5 * constant)


@wrong(check.certified_radius, "you used probabilities")
def uses_probabilities(logits, labels, constant):
    return margin(logits.softmax(1), labels).clamp_min(0) / (2**0.5 * constant)


@wrong(check.certified_radius, "*smallest* logit")
def subtracts_the_smallest(logits, labels, constant):
    right = logits.argmax(1) == labels
    return (logits.amax(1) - logits.amin(1)) * right / (2**0.5 * constant)


@wrong(check.certified_radius, "top logit alone")
def subtracts_nothing(logits, labels, constant):
    return logits.amax(1) * (logits.argmax(1) == labels) / (2**0.5 * constant)


@wrong(check.certified_radius, "left out")
def leaves_wrong_predictions_out(logits, labels, constant):
    return (margin(logits, labels) / (2**0.5 * constant))[logits.argmax(1) == labels]


@wrong(check.certified_radius, "you returned one number")
def averages_radii(logits, labels, constant):
    return (margin(logits, labels).clamp_min(0) / (2**0.5 * constant)).mean()


@wrong(check.certified_radius, "in place")
def overwrites_the_logits(logits, labels, constant):
    own = logits.gather(1, labels[:, None]).squeeze(1).clone()
    logits.scatter_(1, labels[:, None], -torch.inf)
    return (own - logits.amax(1)).clamp_min(0) / (2**0.5 * constant)


@wrong(check.certified_radius, "returns a ndarray")
def returns_numpy(logits, labels, constant):
    return (margin(logits, labels).clamp_min(0) / (2**0.5 * constant)).numpy()


@wrong(check.certified_radius, "replaced by 0, which can win")
def replaces_the_right_logit_by_zero(logits, labels, constant):
    hot = F.one_hot(labels, logits.shape[1])
    return ((logits * hot).sum(1) - (logits * (1 - hot)).amax(1)).clamp_min(0) / (2**0.5 * constant)


@wrong(check.certified_radius, "leave out the 255")
def counts_in_grey_levels(logits, labels, constant):
    return 255 * margin(logits, labels).clamp_min(0) / (2**0.5 * constant)


@wrong(check.certified_radius, "sort begins with them")
def sorts_upwards(logits, labels, constant):
    ordered = logits.sort(1).values
    return (ordered[:, 0] - ordered[:, 1]) * (logits.argmax(1) == labels) / (2**0.5 * constant)


@wrong(check.certified_radius, "you compared the inputs with each other")
def takes_the_top_of_every_column(logits, labels, constant):
    top = logits.topk(2, dim=0).values
    return (top[0] - top[1]) / (2**0.5 * constant)


@wrong(check.certified_radius, "in a row of its own")
def keeps_the_axis(logits, labels, constant):
    top = logits.topk(2, 1).values
    return (top[:, :1] - top[:, 1:]) * (logits.argmax(1) == labels)[:, None] / (2**0.5 * constant)


@wrong(check.certified_radius, "makes a table")
def broadcasts(logits, labels, constant):
    top = logits.topk(2, 1).values
    return (top[:, :1] - top[:, 1:]) * (logits.argmax(1) == labels) / (2**0.5 * constant)


@wrong(check.certified_radius, "wrong predictions got a radius")
def takes_the_absolute_margin(logits, labels, constant):
    return margin(logits, labels).abs() / (2**0.5 * constant)


def iterated(apply, transpose, v, steps, length=torch.linalg.vector_norm):
    for _ in range(steps):
        v = transpose(apply(v))
        v = v / length(v).clamp_min(1e-12)
    return v


@wrong(check.power_iteration, "that is the square")
def returns_the_eigenvalue(apply, transpose, start, steps):
    v = iterated(apply, transpose, start, steps)
    return transpose(apply(v)).norm()


@wrong(check.power_iteration, "root of the norm")
def takes_one_root_too_many(apply, transpose, start, steps):
    return apply(iterated(apply, transpose, start, steps)).norm().sqrt()


@wrong(check.power_iteration, "length of v, which you made 1")
def returns_the_length_of_v(apply, transpose, start, steps):
    return iterated(apply, transpose, start, steps).norm()


@wrong(check.power_iteration, "return one number")
def returns_the_vector(apply, transpose, start, steps):
    return iterated(apply, transpose, start, steps)


@wrong(check.power_iteration, "inf or NaN")
def never_normalises(apply, transpose, start, steps):
    v = start
    for _ in range(steps):
        v = transpose(apply(v))
    return apply(v).norm() / v.norm()


@wrong(check.power_iteration, "you applied A to a result of A")
def forgets_the_transpose(apply, transpose, start, steps):
    v = start
    for _ in range(steps):
        v = apply(v) / apply(v).norm()
    return apply(v).norm()


@wrong(check.power_iteration, "you gave v to the transpose")
def starts_with_the_transpose(apply, transpose, start, steps):
    v = start
    for _ in range(steps):
        v = apply(transpose(v))
    return v.norm()


@wrong(check.power_iteration, "v has the shape of `start`")
def makes_a_column(apply, transpose, start, steps):
    return apply(start[:, None]).norm()


@wrong(check.power_iteration, "you did not iterate")
def stretches_the_start(apply, transpose, start, steps):
    return apply(start).norm() / start.norm()


@wrong(check.power_iteration, "Frobenius norm")
def sums_all_stretches(apply, transpose, start, steps):
    return sum(apply(e.view_as(start)).square().sum() for e in torch.eye(start.numel())).sqrt()


@wrong(check.power_iteration, "is above the norm 3.0000, and no stretch is")
def normalises_by_the_largest_entry(apply, transpose, start, steps):
    return apply(iterated(apply, transpose, start, steps, lambda v: v.abs().max())).norm()


@wrong(check.power_iteration, "after 100 steps")
def does_two_steps_always(apply, transpose, start, steps):
    return apply(iterated(apply, transpose, start, 2)).norm()


@wrong(check.power_iteration, "do exactly `steps` steps")
def does_many_steps_always(apply, transpose, start, steps):
    return apply(iterated(apply, transpose, start, 300)).norm()


@wrong(check.power_iteration, "after 1 step")
def adds_a_safety_factor_early(apply, transpose, start, steps):
    return apply(iterated(apply, transpose, start, steps)).norm() * (1 + 1 / steps**3)


@wrong(check.power_iteration, "right for a matrix")
def normalises_rows(apply, transpose, start, steps):
    return apply(iterated(apply, transpose, start, steps, lambda v: v.norm(dim=-1, keepdim=True))).norm()


@wrong(check.power_iteration, "NaN for A = 0")
def divides_zero_by_zero(apply, transpose, start, steps):
    v = start
    for _ in range(steps):
        v = transpose(apply(v))
        v = v / v.norm()
    return apply(v).norm()


@wrong(check.power_iteration, "whose norm is 0")
def returns_one_at_least(apply, transpose, start, steps):
    return max(1.0, apply(iterated(apply, transpose, start, steps)).norm().item())


@wrong(check.power_iteration, "not at a v of your own")
def draws_its_own_start(apply, transpose, start, steps):
    return apply(iterated(apply, transpose, torch.randn_like(start), steps)).norm()


@wrong(check.power_iteration, "has to be smaller, such as 1e-12")
def guards_with_one(apply, transpose, start, steps):
    v = start
    for _ in range(steps):
        v = transpose(apply(v))
        v = v / v.norm().clamp_min(1)
    return apply(v).norm()


@wrong(check.power_iteration, "never calls apply")
def guesses(apply, transpose, start, steps):
    return 3.0


@wrong(check.power_iteration, "in place")
def overwrites_the_start(apply, transpose, start, steps):
    for _ in range(steps):
        start.copy_(transpose(apply(start)))
        start /= start.norm()
    return apply(start).norm()


@wrong(check.power_iteration, "returns nothing")
def forgets_to_return(apply, transpose, start, steps):
    iterated(apply, transpose, start, steps)


@wrong(check.power_iteration, "returns a tuple")
def returns_vector_and_number(apply, transpose, start, steps):
    v = iterated(apply, transpose, start, steps)
    return apply(v).norm(), v


def sums(weight):
    return (weight.T @ weight).abs().sum(0).clamp_min(1e-12)


@wrong(check.aol, "forgot the root")
def divides_by_the_sums(weight):
    return weight / sums(weight)


@wrong(check.aol, "divide by it")
def multiplies_by_the_root(weight):
    return weight * sums(weight).sqrt()


@wrong(check.aol, "you scaled the rows")
def scales_rows(weight):
    return torch.diag(sums(weight).rsqrt()) @ weight


@wrong(check.aol, "sums of W W^T on the columns")
def uses_the_other_gram_matrix(weight):
    return weight * (weight @ weight.T).abs().sum(1).rsqrt()


@wrong(check.aol, "you rescaled the rows")
def rescales_the_rows(weight):
    return sums(weight.T).rsqrt()[:, None] * weight


@wrong(check.aol, "with its signs")
def sums_with_signs(weight):
    return weight * (weight.T @ weight).sum(1).rsqrt()


@wrong(check.aol, "comes after the product")
def takes_absolute_values_too_early(weight):
    return weight * (weight.abs().T @ weight.abs()).sum(1).rsqrt()


@wrong(check.aol, "only used the diagonal")
def normalises_columns(weight):
    return F.normalize(weight, dim=0)


@wrong(check.aol, "Frobenius norm: bounded, but loose")
def divides_by_the_frobenius_norm(weight):
    return weight / weight.norm()


@wrong(check.aol, "largest singular value: bounded")
def divides_by_the_norm(weight):
    return weight / torch.linalg.matrix_norm(weight, 2)


@wrong(check.aol, "one factor for the whole matrix")
def uses_the_largest_sum(weight):
    return weight / sums(weight).max().sqrt()


@wrong(check.aol, "you squared the entries")
def sums_squares(weight):
    return weight / (weight.T @ weight).square().sum(1).sqrt().sqrt()


@wrong(check.aol, "the mean of |W^T W|_ij")
def averages_the_rows(weight):
    return weight / (weight.T @ weight).abs().mean(1).sqrt()


@wrong(check.aol, "you return the transpose")
def returns_the_transpose(weight):
    return sums(weight).rsqrt()[:, None] * weight.T


@wrong(check.aol, "not for small W")
def only_shrinks(weight):
    return weight * (weight.T @ weight).abs().sum(1).clamp_min(1).rsqrt()


@wrong(check.aol, "you return the factors")
def returns_factors(weight):
    return sums(weight).rsqrt()


@wrong(check.aol, "NaN for a column of zeros")
def divides_zeros(weight):
    return weight * (weight.T @ weight).abs().sum(1).rsqrt()


@wrong(check.aol, "shape (6, 4), expected (7, 4)")
def drops_a_row_of_tall_matrices(weight):
    return (weight * sums(weight).rsqrt())[:6]


@wrong(check.aol, "in place")
def scales_in_place(weight):
    return weight.mul_(sums(weight).rsqrt())


@wrong(check.aol, "returns a ndarray")
def scales_in_numpy(weight):
    return (weight * sums(weight).rsqrt()).numpy()


def matrix_of_t(weight, log_q):
    return (weight.T @ weight).abs() * (log_q - log_q[:, None]).exp()


def step(x, weight, bias, t):
    return x - 2 * ((x @ weight + bias).relu() / t) @ weight.T


@wrong(check.sll, "upside down, or you summed over the wrong axis")
def sums_over_the_wrong_axis(x, weight, bias, log_q):
    return step(x, weight, bias, matrix_of_t(weight, log_q).sum(0))


@wrong(check.sll, "q cancels")
def cancels_q(x, weight, bias, log_q):
    q = log_q.exp()[:, None]
    return step(x, weight, bias, (q * (weight.T @ weight).abs() / q).sum(1))


@wrong(check.sll, "forgot to divide by q_i")
def forgets_the_divisor(x, weight, bias, log_q):
    return step(x, weight, bias, ((weight.T @ weight).abs() * log_q.exp()).sum(1))


@wrong(check.sll, "forgot to multiply by q_j")
def forgets_the_factor(x, weight, bias, log_q):
    return step(x, weight, bias, (weight.T @ weight).abs().sum(1) / log_q.exp())


@wrong(check.sll, "you multiplied by q_i")
def multiplies_by_both(x, weight, bias, log_q):
    q = log_q.exp()
    return step(x, weight, bias, ((weight.T @ weight).abs() * q[None] * q[:, None]).sum(1))


@wrong(check.sll, "*logarithm* of q")
def forgets_the_exponential(x, weight, bias, log_q):
    return step(x, weight, bias, ((weight.T @ weight).abs() * log_q[None] / log_q[:, None]).sum(1))


@wrong(check.sll, "the 2 is missing")
def forgets_the_two(x, weight, bias, log_q):
    return (x + step(x, weight, bias, matrix_of_t(weight, log_q).sum(1))) / 2


@wrong(check.sll, "with a plus the layer stretches")
def adds(x, weight, bias, log_q):
    return 2 * x - step(x, weight, bias, matrix_of_t(weight, log_q).sum(1))


@wrong(check.sll, "the skip is missing")
def forgets_the_skip(x, weight, bias, log_q):
    return step(x, weight, bias, matrix_of_t(weight, log_q).sum(1)) - x


@wrong(check.sll, "T comes from W W^T")
def takes_t_from_the_other_side(x, weight, bias, log_q):
    return step(x, weight, bias, matrix_of_t(weight.T, log_q).sum(1))


@wrong(check.sll, "W and W^T are swapped")
def swaps_the_transpose(x, weight, bias, log_q):
    return step(x, weight.T, bias, matrix_of_t(weight, log_q).sum(1))


@wrong(check.sll, "both products use W")
def uses_one_matrix_twice(x, weight, bias, log_q):
    return x - 2 * ((x @ weight + bias).relu() / matrix_of_t(weight, log_q).sum(1)) @ weight


@wrong(check.sll, "with its signs")
def forgets_absolute_values(x, weight, bias, log_q):
    return step(x, weight, bias, ((weight.T @ weight) * (log_q - log_q[:, None]).exp()).sum(1))


@wrong(check.sll, "the absolute value comes before the sum")
def takes_absolute_values_too_late(x, weight, bias, log_q):
    return step(x, weight, bias, ((weight.T @ weight) * (log_q - log_q[:, None]).exp()).sum(1).abs())


@wrong(check.sll, "and the ratios apart")
def multiplies_matrices_instead_of_entries(x, weight, bias, log_q):
    return step(x, weight, bias, ((weight.T @ weight).abs() @ (log_q - log_q[:, None]).exp()).sum(1))


@wrong(check.sll, "a root of T")
def rescales_both_weights(x, weight, bias, log_q):
    rescaled = weight / matrix_of_t(weight, log_q).sum(1).sqrt()
    return x - 2 * (x @ rescaled + bias).relu() @ rescaled.T


@wrong(check.sll, "the bias is added")
def subtracts_the_bias(x, weight, bias, log_q):
    return step(x, weight, -bias, matrix_of_t(weight, log_q).sum(1))


@wrong(check.sll, "comes after the product")
def takes_absolute_values_of_the_weight(x, weight, bias, log_q):
    return step(x, weight, bias, matrix_of_t(weight.abs(), log_q).sum(1))


@wrong(check.sll, "only used the diagonal")
def uses_the_diagonal(x, weight, bias, log_q):
    return step(x, weight, bias, weight.square().sum(0))


@wrong(check.sll, "you divided by the root of T")
def takes_the_root_of_t(x, weight, bias, log_q):
    return step(x, weight, bias, matrix_of_t(weight, log_q).sum(1).sqrt())


@wrong(check.sll, "you multiplied by T")
def multiplies_by_t(x, weight, bias, log_q):
    return step(x, weight, bias, 1 / matrix_of_t(weight, log_q).sum(1))


@wrong(check.sll, "the bias is missing")
def forgets_the_bias(x, weight, bias, log_q):
    return step(x, weight, 0, matrix_of_t(weight, log_q).sum(1))


@wrong(check.sll, "belongs inside the relu")
def adds_the_bias_late(x, weight, bias, log_q):
    return x - 2 * (((x @ weight).relu() + bias) / matrix_of_t(weight, log_q).sum(1)) @ weight.T


@wrong(check.sll, "the relu is missing")
def forgets_the_relu(x, weight, bias, log_q):
    return x - 2 * ((x @ weight + bias) / matrix_of_t(weight, log_q).sum(1)) @ weight.T


@wrong(check.sll, "q = exp(100) overflows")
def divides_exponentials(x, weight, bias, log_q):
    q = log_q.exp()
    return step(x, weight, bias, ((weight.T @ weight).abs() * q / q[:, None]).sum(1))


@wrong(check.sll, "no gradient reaches x")
def detaches(x, weight, bias, log_q):
    return step(x.detach(), weight, bias, matrix_of_t(weight, log_q).sum(1))


@wrong(check.sll, "dtype of x")
def computes_in_float32(x, weight, bias, log_q):
    return step(x.float(), weight.float(), bias.float(), matrix_of_t(weight.float(), log_q.float()).sum(1))


@wrong(check.sll, "in place")
def subtracts_in_place(x, weight, bias, log_q):
    hidden = (x @ weight + bias).relu() / matrix_of_t(weight, log_q).sum(1)
    x -= 2 * hidden @ weight.T
    return x


@wrong(check.sll, "returns a ndarray")
def returns_an_array(x, weight, bias, log_q):
    return step(x, weight, bias, matrix_of_t(weight, log_q).sum(1)).numpy()


def in_groups(x, group):
    if x.shape[1] % group:
        raise ValueError(f"{x.shape[1]} channels do not make groups of {group}")
    return x.unflatten(1, (-1, group))


@wrong(check.group_sort, "along the width")
def sorts_the_width(x, group):
    return x.sort(-1).values


@wrong(check.group_sort, "along the height")
def sorts_the_height(x, group):
    return x.sort(2).values


@wrong(check.group_sort, "over the batch")
def sorts_the_batch(x, group):
    return x.sort(0).values


@wrong(check.group_sort, "neighbouring *pixels*")
def groups_pixels(x, group):
    return x.view(-1, group).sort(1).values.view_as(x)


@wrong(check.group_sort, "sorted all channels together")
def sorts_all_channels(x, group):
    return x.sort(1).values


@wrong(check.group_sort, "the largest comes first")
def sorts_downwards(x, group):
    return in_groups(x, group).sort(2, descending=True).values.flatten(1, 2)


@wrong(check.group_sort, "you made `group` groups")
def makes_too_few_groups(x, group):
    return x.unflatten(1, (group, -1)).sort(2).values.flatten(1, 2)


@wrong(check.group_sort, "distant channels")
def groups_distant_channels(x, group):
    return x.unflatten(1, (group, -1)).sort(1).values.flatten(1, 2)


@wrong(check.group_sort, "the order of the groups")
def sorts_across_groups(x, group):
    return in_groups(x, group).sort(1).values.flatten(1, 2)


@wrong(check.group_sort, "an axis of their own")
def forgets_to_flatten(x, group):
    return in_groups(x, group).sort(2).values


@wrong(check.group_sort, "largest of every group only")
def keeps_the_largest(x, group):
    return in_groups(x, group).amax(2)


@wrong(check.group_sort, "whatever `group` says")
def sorts_pairs(x, group):
    return in_groups(x, 2).sort(2).values.flatten(1, 2)


@wrong(check.group_sort, "MaxMin of two halves")
def pairs_halves(x, group):
    first, second = x.chunk(2, 1)
    return torch.cat((torch.minimum(first, second), torch.maximum(first, second)), 1)


@wrong(check.group_sort, "not put back in place")
def interleaves_groups(x, group):
    return in_groups(x, group).sort(2).values.transpose(1, 2).flatten(1, 2)


@wrong(check.group_sort, "places that the values came from")
def returns_places(x, group):
    return in_groups(x, group).sort(2)[1].flatten(1, 2)


@wrong(check.group_sort, "absolute values")
def sorts_absolute_values(x, group):
    return in_groups(x.abs(), group).sort(2).values.flatten(1, 2)


@wrong(check.group_sort, "values *and* where")
def returns_both(x, group):
    return in_groups(x, group).sort(2)


@wrong(check.group_sort, "not for a dense (n, c)")
def wants_images(x, group):
    n, c, h, w = x.shape
    return x.view(n, c // group, group, h, w).sort(2).values.view(n, c, h, w)


@wrong(check.group_sort, "says nothing")
def leaves_the_rest_alone(x, group):
    return torch.cat([part.sort(1).values for part in x.split(group, 1)], 1)


@wrong(check.group_sort, "end in a RuntimeError")
def lets_the_reshape_complain(x, group):
    return x.unflatten(1, (-1, group)).sort(2).values.flatten(1, 2)


@wrong(check.group_sort, "in place")
def overwrites_x(x, group):
    x.copy_(in_groups(x, group).sort(2).values.flatten(1, 2))
    return x


@wrong(check.group_sort, "returns a ndarray")
def sorts_in_numpy(x, group):
    return in_groups(x, group).sort(2).values.flatten(1, 2).numpy()


def spectral(matrix):
    return torch.linalg.matrix_norm(matrix, 2).item()


def triangle(skip, scale, inner):
    return abs(skip) + abs(scale) * inner


def symmetric(weight, t):
    return max(1.0, 2 * spectral(weight / t.sqrt()) ** 2 - 1)


def walk(layers, norm=spectral, residual=triangle, sll=symmetric, combine=lambda a, b: a * b, relu=1.0, start=1.0):
    """Bound of a described network, with one rule replaced by a wrong one."""
    bound = start
    for kind, *given in layers:
        if kind == "linear":
            bound = combine(bound, norm(given[0]))
        elif kind == "relu":
            bound = combine(bound, relu)
        elif kind == "residual":
            inner = walk(given[2], norm, residual, sll, combine, relu, start)
            bound = combine(bound, residual(given[0], given[1], inner))
        else:
            bound = combine(bound, sll(*given))
    return bound


@wrong(check.network_bound, "you added the layers' constants")
def adds_constants(layers):
    return walk(layers, combine=lambda a, b: a + b, start=0.0)


@wrong(check.network_bound, "you took the largest constant")
def takes_the_largest(layers):
    return walk(layers, combine=max)


@wrong(check.network_bound, "you used Frobenius norms")
def uses_frobenius_norms(layers):
    return walk(layers, norm=lambda matrix: matrix.norm().item())


@wrong(check.network_bound, "you used the largest entry")
def uses_the_largest_entry(layers):
    return walk(layers, norm=lambda matrix: matrix.abs().max().item())


@wrong(check.network_bound, "largest row sum")
def uses_row_sums(layers):
    return walk(layers, norm=lambda matrix: torch.linalg.matrix_norm(matrix, torch.inf).item())


@wrong(check.network_bound, "only the first layer")  # noqa: RET503
def returns_in_the_loop(layers):
    for kind, *given in layers:
        return walk([(kind, *given)])


@wrong(check.network_bound, "only the last layer")
def overwrites_the_bound(layers):
    return walk(layers[-1:])


@wrong(check.network_bound, "the relu's constant is 1")
def halves_at_the_relu(layers):
    return walk(layers, relu=0.5)


@wrong(check.network_bound, "a product begins with 1")
def starts_with_zero(layers):
    return walk(layers, start=0.0)


@wrong(check.network_bound, "from *below*")
def iterates(layers):
    def norm(matrix):
        v = torch.ones(matrix.shape[1])
        for _ in range(30 if matrix.shape[1] > 20 else 2000):
            v = F.normalize(matrix.T @ (matrix @ v), dim=0)
        return (matrix @ v).norm().item()

    return walk(layers, norm=norm)


@wrong(check.network_bound, "you forgot the skip:")
def leaves_the_skip_out(layers):
    return walk(layers, residual=lambda skip, scale, inner: abs(scale) * inner)


@wrong(check.network_bound, "the skip's factor")
def takes_the_skip_for_one(layers):
    return walk(layers, residual=lambda skip, scale, inner: 1 + abs(scale) * inner)


@wrong(check.network_bound, "the branch's factor")
def forgets_the_scale(layers):
    return walk(layers, residual=lambda skip, scale, inner: abs(skip) + inner)


@wrong(check.network_bound, "a minus sign does not help")
def trusts_the_minus(layers):
    return walk(layers, residual=lambda skip, scale, inner: abs(skip + scale * inner))


@wrong(check.network_bound, "a minus sign before x")
def trusts_the_minus_of_the_skip(layers):
    return walk(layers, residual=lambda skip, scale, inner: skip + abs(scale) * inner)


@wrong(check.network_bound, "the larger of skip and branch")
def takes_the_larger(layers):
    return walk(layers, residual=lambda skip, scale, inner: max(abs(skip), abs(scale) * inner))


@wrong(check.network_bound, "you multiplied skip and branch")
def multiplies_skip_and_branch(layers):
    return walk(layers, residual=lambda skip, scale, inner: abs(skip * scale) * inner)


@wrong(check.network_bound, "not at right angles")
def adds_squares(layers):
    return walk(layers, residual=lambda skip, scale, inner: math.hypot(skip, scale * inner))


@wrong(check.network_bound, "residuals are left out")
def skips_residuals(layers):
    return walk(layers, residual=lambda skip, scale, inner: 1.0)


@wrong(check.network_bound, "a residual in a residual, below")
def does_not_recurse(layers):
    def flat(branch):
        return math.prod(spectral(given[0]) for kind, *given in branch if kind == "linear")

    return math.prod(
        triangle(given[0], given[1], flat(given[2])) if kind == "residual" else walk([(kind, *given)])
        for kind, *given in layers
    )


@wrong(check.network_bound, "by the triangle inequality: true, but loose")
def bounds_sll_by_the_triangle_inequality(layers):
    return walk(layers, sll=lambda weight, t: 1 + 2 * spectral(weight / t.sqrt()) ** 2)


@wrong(check.network_bound, "where every relu is off")
def forgets_the_one(layers):
    return walk(layers, sll=lambda weight, t: 2 * spectral(weight / t.sqrt()) ** 2 - 1)


@wrong(check.network_bound, "*if* T is large enough")
def trusts_t(layers):
    return walk(layers, sll=lambda weight, t: 1.0)


@wrong(check.network_bound, "lambda is its square")
def forgets_the_square(layers):
    return walk(layers, sll=lambda weight, t: max(1.0, 2 * spectral(weight / t.sqrt()) - 1))


@wrong(check.network_bound, "with every relu on")
def switches_every_relu_on(layers):
    return walk(layers, sll=lambda weight, t: spectral(torch.eye(len(weight)) - 2 * weight / t @ weight.T))


@wrong(check.network_bound, "the eigenvalues run from")
def forgets_the_factor_two(layers):
    return walk(layers, sll=lambda weight, t: max(1.0, spectral(weight / t.sqrt()) ** 2 - 1))


@wrong(check.network_bound, "T stands between W and W^T only once")
def divides_both_by_t(layers):
    return walk(layers, sll=lambda weight, t: max(1.0, 2 * spectral(weight / t) ** 2 - 1))


@wrong(check.network_bound, "T is missing")
def forgets_t(layers):
    return walk(layers, sll=lambda weight, t: max(1.0, 2 * spectral(weight) ** 2 - 1))


@wrong(check.network_bound, "true, but looser")
def adds_a_margin(layers):
    return 1.5 * walk(layers)


@wrong(check.network_bound, "returns nothing")
def computes_and_forgets(layers):
    walk(layers)


def spectrum(kernel, size):
    return torch.fft.fft2(kernel.double(), s=(size, size)).permute(2, 3, 0, 1)


@wrong(check.conv_norm, "image's own n x n grid")
def stays_on_the_images_grid(kernel, n):
    return torch.linalg.svdvals(spectrum(kernel, n)).max()


@wrong(check.conv_norm, "reshaped kernel bounds nothing")
def reshapes_the_kernel(kernel, n):
    return spectral(kernel.flatten(1))


@wrong(check.conv_norm, "k x k grid")
def stays_on_the_kernels_grid(kernel, n):
    return torch.linalg.svdvals(spectrum(kernel, kernel.shape[-1])).max()


@wrong(check.conv_norm, "largest entry of the spectrum")
def takes_the_largest_entry(kernel, n):
    return spectrum(kernel, n + kernel.shape[-1] - 1).abs().max()


@wrong(check.conv_norm, "Frobenius norm of each frequency's matrix")
def takes_frobenius_norms(kernel, n):
    return torch.linalg.matrix_norm(spectrum(kernel, n + kernel.shape[-1] - 1)).max()


@wrong(check.conv_norm, "over the two frequencies")
def forgets_to_permute(kernel, n):
    size = n + kernel.shape[-1] - 1
    return torch.linalg.svdvals(torch.fft.fft2(kernel.double(), s=(size, size))).max().item()


@wrong(check.conv_norm, "you transformed the channels")
def transforms_the_channels(kernel, n):
    return torch.linalg.svdvals(torch.fft.fft2(kernel.double(), dim=(0, 1)).permute(2, 3, 0, 1)).max().item()


@wrong(check.conv_norm, "sum over the taps")
def sums_taps(kernel, n):
    return torch.linalg.matrix_norm(kernel.permute(2, 3, 0, 1), 2).sum()


@wrong(check.conv_norm, "sum of all squares")
def takes_the_kernels_norm(kernel, n):
    return kernel.norm()


@wrong(check.conv_norm, "you dropped the imaginary parts")
def takes_the_real_part(kernel, n):
    return torch.linalg.svdvals(spectrum(kernel, n + kernel.shape[-1] - 1).real).max()


@wrong(check.conv_norm, "absolute values of the entries before")
def takes_absolute_values_of_the_spectrum(kernel, n):
    return torch.linalg.svdvals(spectrum(kernel, n + kernel.shape[-1] - 1).abs()).max()


@wrong(check.conv_norm, "k times the norm of the reshaped kernel")
def multiplies_the_reshaped_norm(kernel, n):
    return kernel.shape[-1] * spectral(kernel.flatten(1))


@wrong(check.conv_norm, "mixes frequencies and channels")
def reshapes_the_spectrum(kernel, n):
    size = n + kernel.shape[-1] - 1
    whole = torch.fft.fft2(kernel.double(), s=(size, size))
    return torch.linalg.svdvals(whole.reshape(size, size, *kernel.shape[:2])).max()


@wrong(check.conv_norm, "torus of n + out - 1")
def takes_the_channels_for_the_side(kernel, n):
    return torch.linalg.svdvals(spectrum(kernel, n + kernel.shape[0] - 1)).max()


@wrong(check.conv_norm, "squared norm")
def forgets_the_last_root(kernel, n):
    k = spectrum(kernel, n + kernel.shape[-1] - 1)
    return torch.linalg.eigvalsh(k.mH @ k).max()


@wrong(check.conv_norm, "an estimate from below is no bound")
def iterates_a_little(kernel, n):
    v = torch.randn(1, kernel.shape[1], n, n)
    for _ in range(3):
        v = F.normalize(F.conv_transpose2d(F.conv2d(v, kernel, padding="same"), kernel, padding=kernel.shape[-1] // 2))
        v = v / v.norm()
    return F.conv2d(v, kernel, padding="same").norm()


@wrong(check.conv_norm, "is true, but loose")
def doubles_it(kernel, n):
    return 2 * torch.linalg.svdvals(spectrum(kernel, n + kernel.shape[-1] - 1)).max()


@wrong(check.conv_norm, "return one number")
def returns_all_frequencies(kernel, n):
    return torch.linalg.matrix_norm(spectrum(kernel, n + kernel.shape[-1] - 1), 2)


@wrong(check.conv_norm, "in place")
def overwrites_the_kernel(kernel, n):
    norm = torch.linalg.svdvals(spectrum(kernel, n + kernel.shape[-1] - 1)).max()
    kernel /= norm
    return norm


class Noisy(nn.Module):
    """Adds noise, in evaluation mode too."""

    def forward(self, x):
        return x + 0.1 * torch.randn_like(x)

    def upper_bound(self):
        return 1.0


class Liar(nn.Linear):
    """Claims a bound that is not true."""

    def upper_bound(self):
        return 1.0


class Unknown(nn.Linear):
    """Has no bound."""

    def forward(self, x):
        return super().forward(x)


@wrong(check.classifier, "returns nothing")
def returns_no_network():
    nn.Sequential(nn.Flatten(), AOLLinear(784, 10))


@wrong(check.classifier, "returns a list")
def returns_layers():
    return [nn.Flatten(), AOLLinear(784, 10)]


@wrong(check.classifier, "one logit per digit")
def has_twelve_logits():
    return nn.Sequential(nn.Flatten(), AOLLinear(784, 12))


@wrong(check.classifier, "different logits")
def is_random():
    return nn.Sequential(nn.Flatten(), Noisy(), AOLLinear(784, 10))


@wrong(check.classifier, "PyTorch's spectral_norm iterates on")
def uses_the_usual_spectral_norm():
    return nn.Sequential(nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(784, 10)))


@wrong(check.classifier, "no parameters to train")
def has_nothing_to_learn():
    return nn.Sequential(nn.Flatten(), AOLLinear(784, 10).requires_grad_(False))


@wrong(check.classifier, "so it is not 1-Lipschitz")
def is_an_ordinary_network():
    return nn.Sequential(nn.Conv2d(1, 8, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 10))


@wrong(check.classifier, "after training, so it is not 1-Lipschitz")
def is_slow_before_training_only():
    layer = nn.Linear(784, 10)
    with torch.no_grad():
        layer.weight.mul_(0.01)
    return nn.Sequential(nn.Flatten(), layer)


@wrong(check.classifier, "does not know the module")
def cannot_be_bounded():
    return nn.Sequential(nn.Flatten(), Unknown(784, 10))


@wrong(check.classifier, "a bound has to be true")
def lies():
    layer = Liar(784, 10)
    nn.init.orthogonal_(layer.weight, 2.0)
    return nn.Sequential(nn.Flatten(), layer)


@wrong(check.classifier, "1-Lipschitz, but only")
def is_too_simple():
    return nn.Sequential(L2AvgPool2d(4), nn.Flatten(), AOLLinear(49, 10))
