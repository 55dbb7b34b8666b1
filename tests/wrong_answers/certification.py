"""Wrong answers to chapter 12's exercises."""

import functools
import math

import torch
from scipy.stats import beta, norm
from torch import nn
from torch.nn import functional as F

from course_lib.checks import certification as check
from course_lib.lipschitz import AOLLinear
from tests.wrong_answers import wrong

TINY = 1e-12


def size(x):
    return x.norm(dim=1)


def dot(x, y):
    return (x * y).sum(1)


def cosine(ref, p0, p1):
    apart = F.normalize(p0, dim=1) - F.normalize(p1, dim=1)
    return dot(ref, apart) / size(apart).clamp_min(TINY)


def bisector(ref, p0, p1):
    return (size(ref - p1).square() - size(ref - p0).square()) / (2 * size(p0 - p1).clamp_min(TINY))


@wrong(check.cosine_radius, "you normalised e_ref: that is the published formula")
def normalises_the_reference(ref, p0, p1):
    return cosine(F.normalize(ref, dim=1), p0, p1)


@wrong(check.cosine_radius, "the sign is missing: + where")
def forgets_the_sign_of_the_angle(ref, p0, p1):
    return cosine(ref, p0, p1).abs()


@wrong(check.cosine_radius, "the sign is turned round")
def turns_the_angle_round(ref, p0, p1):
    return cosine(ref, p1, p0)


@wrong(check.cosine_radius, "you normalised e_ref, and the sign is missing")
def is_published_and_unsigned(ref, p0, p1):
    return normalises_the_reference(ref, p0, p1).abs()


@wrong(check.cosine_radius, "divided by |u_0| + |u_1|")
def divides_by_the_sum_of_lengths(ref, p0, p1):
    u0, u1 = F.normalize(p0, dim=1), F.normalize(p1, dim=1)
    return dot(ref, u0 - u1) / (size(u0) + size(u1))


@wrong(check.cosine_radius, "divided by |u_0 + u_1|")
def divides_by_the_length_of_the_sum(ref, p0, p1):
    u0, u1 = F.normalize(p0, dim=1), F.normalize(p1, dim=1)
    return dot(ref, u0 - u1) / size(u0 + u1)


@wrong(check.cosine_radius, "divided by |e_0 - e_1|")
def divides_by_the_distance_of_embeddings(ref, p0, p1):
    return dot(ref, F.normalize(p0, dim=1) - F.normalize(p1, dim=1)) / size(p0 - p1)


@wrong(check.cosine_radius, "p0 and p1 are not normalised")
def forgets_to_normalise(ref, p0, p1):
    return dot(ref, p0 - p1) / size(p0 - p1)


@wrong(check.cosine_radius, "nothing is normalised but e_ref")
def normalises_only_the_reference(ref, p0, p1):
    return dot(F.normalize(ref, dim=1), p0 - p1) / size(p0 - p1)


@wrong(check.cosine_radius, "did not divide by |u_0 - u_1|")
def does_not_divide_by_the_slope(ref, p0, p1):
    return dot(ref, F.normalize(p0, dim=1) - F.normalize(p1, dim=1))


@wrong(check.cosine_radius, "difference of the cosines")
def subtracts_cosines(ref, p0, p1):
    return F.cosine_similarity(ref, p0) - F.cosine_similarity(ref, p1)


@wrong(check.cosine_radius, "*squared* length of u_0 - u_1")
def divides_by_the_squared_slope(ref, p0, p1):
    apart = F.normalize(p0, dim=1) - F.normalize(p1, dim=1)
    return dot(ref, apart) / dot(apart, apart)


@wrong(check.cosine_radius, "you halved it")
def halves_the_angle(ref, p0, p1):
    return cosine(ref, p0, p1) / 2


@wrong(check.cosine_radius, "you multiplied by |e_ref| twice")
def multiplies_by_the_length(ref, p0, p1):
    return cosine(ref, p0, p1) * size(ref)


@wrong(check.cosine_radius, "that is the Euclidean bisector")
def bisects(ref, p0, p1):
    return bisector(ref, p0, p1)


@wrong(check.cosine_radius, "difference of Euclidean distances")
def subtracts_distances(ref, p0, p1):
    return (size(ref - p1) - size(ref - p0)) / 2


@wrong(check.cosine_radius, "an angle is no distance")
def measures_arcs(ref, p0, p1):
    theta = [F.cosine_similarity(ref, p).acos() for p in (p0, p1)]
    return size(ref) * (theta[1] - theta[0]) / 2


@wrong(check.cosine_radius, "you normalised over the batch")
def normalises_columns(ref, p0, p1):
    apart = F.normalize(p0, dim=0) - F.normalize(p1, dim=0)
    return dot(ref, apart) / size(apart)


@wrong(check.cosine_radius, "took them for (e_p0, e_ref, e_p1)")
def takes_p0_first(p0, ref, p1):
    return cosine(ref, p0, p1)


@wrong(check.cosine_radius, "took them for (e_p0, e_p1, e_ref)")
def takes_the_reference_last(p0, p1, ref):
    return cosine(ref, p0, p1)


@wrong(check.cosine_radius, "leave out the 255")
def counts_grey_levels(ref, p0, p1):
    return 255 * cosine(ref, p0, p1)


@wrong(check.cosine_radius, "where p1 is closer the radius is negative, not 0")
def clamps_the_angle(ref, p0, p1):
    return cosine(ref, p0, p1).clamp_min(0)


@wrong(check.cosine_radius, "NaN for a tie")
def divides_zero_by_zero(ref, p0, p1):
    apart = F.normalize(p0, dim=1) - F.normalize(p1, dim=1)
    return dot(ref, apart) / size(apart)


@wrong(check.cosine_radius, "which any change may decide")
def gives_ties_a_radius(ref, p0, p1):
    return torch.where((p0 == p1).all(1), size(ref), cosine(ref, p0, p1))


@wrong(check.cosine_radius, "one tie in the batch")
def gives_up_at_a_tie(ref, p0, p1):
    return cosine(ref, p0, p1) * 0 if (p0 == p1).all(1).any() else cosine(ref, p0, p1)


@wrong(check.cosine_radius, "the same direction, so a tie")
def looks_for_equal_embeddings_only(ref, p0, p1):
    apart = F.normalize(p0, dim=1) - F.normalize(p1, dim=1)
    return torch.where((p0 == p1).all(1), 0, dot(ref, apart) / size(apart))


@wrong(check.cosine_radius, "keep the dtype you get")
def returns_float32(ref, p0, p1):
    return cosine(ref, p0, p1).float()


@wrong(check.cosine_radius, "is something converted on the way")
def loses_float64_on_the_way(ref, p0, p1):
    return cosine(ref.float(), p0.float(), p1.float()).to(ref.dtype)


@wrong(check.cosine_radius, "without keepdim")
def keeps_the_axis(ref, p0, p1):
    return cosine(ref, p0, p1)[:, None]


@wrong(check.cosine_radius, "every row met every other")
def makes_a_table(ref, p0, p1):
    apart = F.normalize(p0, dim=1) - F.normalize(p1, dim=1)
    return (ref * apart).sum(1) / apart.norm(dim=1, keepdim=True)


@wrong(check.cosine_radius, "you returned one number")
def sums_everything(ref, p0, p1):
    return cosine(ref, p0, p1).sum()


@wrong(check.cosine_radius, "in place")
def normalises_in_place(ref, p0, p1):
    p0 /= p0.norm(dim=1, keepdim=True)
    p1 /= p1.norm(dim=1, keepdim=True)
    return dot(ref, p0 - p1) / size(p0 - p1).clamp_min(TINY)


@wrong(check.cosine_radius, "returns a ndarray")
def returns_numpy(ref, p0, p1):
    return cosine(ref, p0, p1).numpy()


@wrong(check.cosine_radius, "returns nothing")
def forgets_to_return(ref, p0, p1):
    cosine(ref, p0, p1)


@wrong(check.euclidean_radius, "the factor 2 is missing")
def forgets_the_two(ref, p0, p1):
    return 2 * bisector(ref, p0, p1)


@wrong(check.euclidean_radius, "you divided by the *squared* |e_0 - e_1|")
def divides_by_the_squared_distance(ref, p0, p1):
    return bisector(ref, p0, p1) / size(p0 - p1)


@wrong(check.euclidean_radius, "(d1 - d0) / 2 is sound but loose: both")
def takes_the_triangle_inequality(ref, p0, p1):
    return (size(ref - p1) - size(ref - p0)) / 2


@wrong(check.euclidean_radius, "d1 - d0 forgets that both distances move")
def moves_one_distance_only(ref, p0, p1):
    return size(ref - p1) - size(ref - p0)


@wrong(check.euclidean_radius, "the sign is turned round: + where p0 is closer, d1^2")
def turns_the_bisector_round(ref, p0, p1):
    return bisector(ref, p1, p0)


@wrong(check.euclidean_radius, "the sign is missing")
def forgets_the_sign_of_the_distance(ref, p0, p1):
    return bisector(ref, p0, p1).abs()


@wrong(check.euclidean_radius, "sound but loose, and it is turned round")
def is_loose_and_turned_round(ref, p0, p1):
    return (size(ref - p0) - size(ref - p1)) / 2


@wrong(check.euclidean_radius, "under the fraction are not squared")
def forgets_the_squares(ref, p0, p1):
    return (size(ref - p1) - size(ref - p0)) / (2 * size(p0 - p1))


@wrong(check.euclidean_radius, "you multiplied by 2 instead of dividing")
def multiplies_by_two(ref, p0, p1):
    return 4 * bisector(ref, p0, p1)


@wrong(check.euclidean_radius, "you did not divide by |e_0 - e_1|")
def does_not_divide_by_the_distance(ref, p0, p1):
    return (size(ref - p1).square() - size(ref - p0).square()) / 2


@wrong(check.euclidean_radius, "you divided by |e_0| + |e_1|")
def divides_by_the_lengths(ref, p0, p1):
    return bisector(ref, p0, p1) * size(p0 - p1) / (size(p0) + size(p1))


@wrong(check.euclidean_radius, "you divided by |e_0 + e_1|")
def divides_by_the_sum(ref, p0, p1):
    return bisector(ref, p0, p1) * size(p0 - p1) / size(p0 + p1)


@wrong(check.euclidean_radius, "a mean instead of a sum")
def takes_means_of_squares(ref, p0, p1):
    d0, d1 = ((ref - p).square().mean(1) for p in (p0, p1))
    return (d1 - d0) / (2 * size(p0 - p1).clamp_min(TINY))


@wrong(check.euclidean_radius, "that is the cosine radius")
def takes_the_cosine_radius(ref, p0, p1):
    return cosine(ref, p0, p1)


@wrong(check.euclidean_radius, "the embeddings are normalised")
def normalises_all(ref, p0, p1):
    return bisector(*(F.normalize(e, dim=1) for e in (ref, p0, p1)))


@wrong(check.euclidean_radius, "from the *point* midway")
def measures_from_the_middle(ref, p0, p1):
    return size(ref - (p0 + p1) / 2) * bisector(ref, p0, p1).sign()


@wrong(check.euclidean_radius, "as seen from the origin")
def forgets_the_reference(ref, p0, p1):
    return bisector(torch.zeros_like(ref), p0, p1)


@wrong(check.euclidean_radius, "took them for (e_p0, e_ref, e_p1)")
def takes_the_candidate_first(p0, ref, p1):
    return bisector(ref, p0, p1)


@wrong(check.euclidean_radius, "took them for (e_p0, e_p1, e_ref)")
def takes_the_reference_at_the_end(p0, p1, ref):
    return bisector(ref, p0, p1)


@wrong(check.euclidean_radius, "leave out the 255")
def counts_in_levels(ref, p0, p1):
    return bisector(ref, p0, p1) * 255


@wrong(check.euclidean_radius, "where p1 is closer the radius is negative")
def clamps_the_distance(ref, p0, p1):
    return bisector(ref, p0, p1).clamp_min(0)


@wrong(check.euclidean_radius, "expected")
def cuts_off_at_two(ref, p0, p1):
    return bisector(ref, p0, p1).clamp(-2, 2)


@wrong(check.euclidean_radius, "NaN for a tie")
def divides_by_zero(ref, p0, p1):
    return (size(ref - p1).square() - size(ref - p0).square()) / (2 * size(p0 - p1))


@wrong(check.euclidean_radius, "what guards against 0 / 0 has to be tiny")
def guards_with_a_large_number(ref, p0, p1):
    return (size(ref - p1).square() - size(ref - p0).square()) / (2 * size(p0 - p1).clamp_min(1e-2))


@wrong(check.euclidean_radius, "or a constant added that is too large")
def adds_a_constant(ref, p0, p1):
    return (size(ref - p1).square() - size(ref - p0).square()) / (2 * size(p0 - p1) + 1e-6)


@wrong(check.euclidean_radius, "keep the dtype you get")
def rounds_to_float32(ref, p0, p1):
    return bisector(ref.float(), p0.float(), p1.float())


@wrong(check.euclidean_radius, "every row met every other")
def compares_all_pairs(ref, p0, p1):
    return (torch.cdist(ref, p1).square() - torch.cdist(ref, p0).square()) / (2 * torch.cdist(p0, p1)).clamp_min(TINY)


@wrong(check.euclidean_radius, "in place")
def subtracts_in_place(ref, p0, p1):
    apart = size(p0 - p1)
    p0 -= ref
    p1 -= ref
    return (size(p1).square() - size(p0).square()) / (2 * apart.clamp_min(TINY))


def ends(low=1.0, high=1.0):
    """An interval whose reach is a wrong function of (reach for one image, both)."""

    def decorate(change):
        @functools.wraps(change)
        def interval(x, y, eps, constant, both):
            d = (x - y).norm(dim=1)
            reach = change(eps, constant, both)
            return (d - low * reach).clamp_min(0), d + high * reach

        return interval

    return decorate


@wrong(check.interval, "when both images change: factor 2 forgotten")
@ends()
def moves_one_image_always(eps, constant, both):
    return constant * eps


@wrong(check.interval, "both images were moved; with both=False")
@ends()
def moves_both_always(eps, constant, both):
    return 2 * constant * eps


@wrong(check.interval, "that is sqrt(2) L eps")
@ends()
def adds_squares(eps, constant, both):
    return constant * math.hypot(eps, both * eps)


@wrong(check.interval, "the constant L is missing")
@ends()
def forgets_the_constant(eps, constant, both):
    return (1 + both) * eps


@wrong(check.interval, "you divided by L")
@ends()
def divides_by_the_constant(eps, constant, both):
    return (1 + both) * eps / constant


@wrong(check.interval, "eps is missing")
@ends()
def forgets_eps(eps, constant, both):
    return (1 + both) * constant


@wrong(check.interval, "the 2 is squared")
@ends()
def squares_the_two(eps, constant, both):
    return (1 + both) ** 2 * constant * eps


@wrong(check.interval, "high is wrong when one image changes: eps is in the units of pixels")
@ends()
def divides_eps_by_255(eps, constant, both):
    return (1 + both) * constant * eps / 255


@wrong(check.interval, "low is negative")
def forgets_to_cut_off(x, y, eps, constant, both):
    d, reach = (x - y).norm(dim=1), (1 + both) * constant * eps
    return d - reach, d + reach


@wrong(check.interval, "low is |d - L eps|")
def mirrors_at_zero(x, y, eps, constant, both):
    d, reach = (x - y).norm(dim=1), (1 + both) * constant * eps
    return (d - reach).abs(), d + reach


@wrong(check.interval, "high is wrong when one image changes: you multiplied")
def multiplies_the_distance(x, y, eps, constant, both):
    d, reach = (x - y).norm(dim=1), (1 + both) * constant * eps
    return d * (1 - reach), d * (1 + reach)


@wrong(check.interval, "low is wrong when one image changes: you divided")
def divides_the_distance(x, y, eps, constant, both):
    d, reach = (x - y).norm(dim=1), (1 + both) * constant * eps
    return d / (1 + reach), d + reach


@wrong(check.interval, "low is wrong when one image changes: you multiplied")
def multiplies_the_lower_end(x, y, eps, constant, both):
    d, reach = (x - y).norm(dim=1), (1 + both) * constant * eps
    return (d * (1 - reach)).clamp_min(0), d + reach


@wrong(check.interval, "low is wrong when both images change: factor 2 forgotten")
def forgets_the_two_below(x, y, eps, constant, both):
    d, reach = (x - y).norm(dim=1), constant * eps
    return (d - reach).clamp_min(0), d + (1 + both) * reach


@wrong(check.interval, "low and high are the wrong way round")
def turns_the_ends_round(x, y, eps, constant, both):
    d, reach = (x - y).norm(dim=1), (1 + both) * constant * eps
    return d + reach, (d - reach).clamp_min(0)


@wrong(check.interval, "high is the distance itself")
def only_shrinks(x, y, eps, constant, both):
    d, reach = (x - y).norm(dim=1), (1 + both) * constant * eps
    return (d - reach).clamp_min(0), d


@wrong(check.interval, "low is the distance itself")
def only_grows(x, y, eps, constant, both):
    d, reach = (x - y).norm(dim=1), (1 + both) * constant * eps
    return d, d + reach


@wrong(check.interval, "the *squared* distance")
def squares_the_distance(x, y, eps, constant, both):
    d, reach = (x - y).square().sum(1), (1 + both) * constant * eps
    return (d - reach).clamp_min(0), d + reach


@wrong(check.interval, "the distance of *normalised* embeddings")
def normalises_both(x, y, eps, constant, both):
    d, reach = (F.normalize(x, dim=1) - F.normalize(y, dim=1)).norm(dim=1), (1 + both) * constant * eps
    return (d - reach).clamp_min(0), d + reach


@wrong(check.interval, "one minus a cosine")
def takes_the_cosine(x, y, eps, constant, both):
    d, reach = 1 - F.cosine_similarity(x, y), (1 + both) * constant * eps
    return (d - reach).clamp_min(0), d + reach


@wrong(check.interval, "the root of the *mean* of squares")
def takes_the_root_mean_square(x, y, eps, constant, both):
    d, reach = (x - y).square().mean(1).sqrt(), (1 + both) * constant * eps
    return (d - reach).clamp_min(0), d + reach


@wrong(check.interval, "sum of absolute differences")
def takes_l1(x, y, eps, constant, both):
    d, reach = (x - y).abs().sum(1), (1 + both) * constant * eps
    return (d - reach).clamp_min(0), d + reach


@wrong(check.interval, "your function returns one tensor")
def stacks_the_ends(x, y, eps, constant, both):
    d, reach = (x - y).norm(dim=1), (1 + both) * constant * eps
    return torch.stack([(d - reach).clamp_min(0), d + reach])


@wrong(check.interval, "keep the dtype you get")
def gives_float32_ends(x, y, eps, constant, both):
    d, reach = (x - y).norm(dim=1), (1 + both) * constant * eps
    return (d - reach).clamp_min(0).float(), (d + reach).float()


@wrong(check.interval, "in place")
def subtracts_y_from_x(x, y, eps, constant, both):
    d, reach = x.sub_(y).norm(dim=1), (1 + both) * constant * eps
    return (d - reach).clamp_min(0), d + reach


def angle(x, y):
    return F.cosine_similarity(x, y).clamp(-1, 1).acos()


def gap(ref, p0, p1):
    return (angle(ref, p1) - angle(ref, p0)).abs()


def turn(e, eps):
    """arcsin(eps / |e|), infinite where the direction is lost."""
    return torch.where(eps < size(e), (eps / size(e)).clamp(max=1).arcsin(), torch.inf)


def capped(e, eps):
    return (eps / size(e)).clamp(max=1).arcsin()


def needing(turn=turn, weights=(2, 1, 1)):
    def decorate(names):
        @functools.wraps(names)
        def certified(ref, p0, p1, eps):
            parts = (w * turn(e, one) for w, e, one in zip(weights, (ref, p0, p1), eps, strict=True) if w)
            return gap(ref, p0, p1) > sum(parts)

        return certified

    return decorate


@wrong(check.three_image_certified, "arcsin(min(1, eps / |e|)) says 90 degrees")
@needing(turn=capped)
def caps_the_arcsin():
    pass


@wrong(check.three_image_certified, "the factor 2 of the reference is missing: when")
@needing(weights=(1, 1, 1))
def counts_the_reference_once():
    pass


@wrong(check.three_image_certified, "the factor 2 of the reference is missing, and")
@needing(capped, (1, 1, 1))
def caps_and_counts_once():
    pass


@wrong(check.three_image_certified, "only the reference turns")
@needing(weights=(2, 0, 0))
def turns_the_reference_only():
    pass


@wrong(check.three_image_certified, "the reference turns as well")
@needing(weights=(0, 1, 1))
def turns_the_candidates_only():
    pass


@wrong(check.three_image_certified, "sound but loose: only the reference counts twice")
@needing(weights=(2, 2, 2))
def counts_all_twice():
    pass


@wrong(check.three_image_certified, "the factor 2 belongs to the reference")
@needing(weights=(1, 2, 2))
def counts_the_candidates_twice():
    pass


@wrong(check.three_image_certified, "the turn of p0 counts as well")
@needing(weights=(2, 0, 1))
def leaves_p0_out():
    pass


@wrong(check.three_image_certified, "the turn of p1 counts as well")
@needing(weights=(2, 1, 0))
def leaves_p1_out():
    pass


@wrong(check.three_image_certified, "the turn is its arcsin, and larger")
@needing(turn=lambda e, eps: torch.where(eps < size(e), eps / size(e), torch.inf))
def takes_the_sine_for_the_angle():
    pass


@wrong(check.three_image_certified, "eps / |e| is the sine of the turn, and at eps >= |e|")
@needing(turn=lambda e, eps: eps / size(e))
def divides_and_that_is_all():
    pass


@wrong(check.three_image_certified, "arctan(eps / |e|) is too small")
@needing(turn=lambda e, eps: torch.atan(eps / size(e)))
def takes_the_arctangent():
    pass


@wrong(check.three_image_certified, "arcsin(eps) forgets the length")
@needing(turn=lambda e, eps: math.asin(eps))
def forgets_the_lengths():
    pass


@wrong(check.three_image_certified, "one budget was used for all three")
def uses_the_first_budget(ref, p0, p1, eps):
    return gap(ref, p0, p1) > 2 * turn(ref, eps[0]) + turn(p0, eps[0]) + turn(p1, eps[0])


@wrong(check.three_image_certified, "the budgets are mixed up")
def turns_the_budgets_round(ref, p0, p1, eps):
    return gap(ref, p0, p1) > 2 * turn(ref, eps[2]) + turn(p0, eps[1]) + turn(p1, eps[0])


@wrong(check.three_image_certified, "that compares cosines")
def compares_cosines(ref, p0, p1, eps):
    d = (F.cosine_similarity(ref, p0) - F.cosine_similarity(ref, p1)).abs()
    return d > 2 * turn(ref, eps[0]) + turn(p0, eps[1]) + turn(p1, eps[2])


def needed(ref, p0, p1, eps):
    return 2 * turn(ref, eps[0]) + turn(p0, eps[1]) + turn(p1, eps[2])


@wrong(check.three_image_certified, "only decisions for p0 are certified")
def forgets_the_absolute_value(ref, p0, p1, eps):
    return angle(ref, p1) - angle(ref, p0) > needed(ref, p0, p1, eps)


@wrong(check.three_image_certified, "only decisions for p1 are certified")
def turns_the_gap_round(ref, p0, p1, eps):
    return angle(ref, p0) - angle(ref, p1) > needed(ref, p0, p1, eps)


@wrong(check.three_image_certified, "reversed: certified is where the gap")
def is_reversed(ref, p0, p1, eps):
    return gap(ref, p0, p1) < needed(ref, p0, p1, eps)


@wrong(check.three_image_certified, "NaN <= x is False")
def asks_what_is_not_refused(ref, p0, p1, eps):
    parts = [(one / size(e)).arcsin() for e, one in zip((ref, p0, p1), eps, strict=True)]
    return ~(gap(ref, p0, p1) <= 2 * parts[0] + parts[1] + parts[2])


@wrong(check.three_image_certified, "angles in degrees on one side")
def mixes_degrees_and_radians(ref, p0, p1, eps):
    return torch.rad2deg(gap(ref, p0, p1)) > needed(ref, p0, p1, eps)


@wrong(check.three_image_certified, "budgets do not add up as squares")
def adds_turns_as_squares(ref, p0, p1, eps):
    parts = [turn(e, one) for e, one in zip((ref, p0, p1), eps, strict=True)]
    return gap(ref, p0, p1) > (4 * parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2).sqrt()


@wrong(check.three_image_certified, "everything is certified")
def trusts_everything(ref, p0, p1, eps):
    return size(ref) > 0


@wrong(check.three_image_certified, "nothing is certified")
def trusts_nothing(ref, p0, p1, eps):
    return size(ref) < 0


@wrong(check.three_image_certified, "ties are certified at eps 0")
def certifies_ties(ref, p0, p1, eps):
    return gap(ref, p0, p1) >= needed(ref, p0, p1, eps)


@wrong(check.three_image_certified, "certified at eps = |e|")
def keeps_the_border(ref, p0, p1, eps):
    kept = [one <= size(e) for e, one in zip((ref, p0, p1), eps, strict=True)]
    parts = [capped(e, one) for e, one in zip((ref, p0, p1), eps, strict=True)]
    return kept[0] & kept[1] & kept[2] & (gap(ref, p0, p1) > 2 * parts[0] + parts[1] + parts[2])


@wrong(check.three_image_certified, "unsound: ")
def leaves_a_tenth_of_the_gap(ref, p0, p1, eps):
    return gap(ref, p0, p1) > 0.9 * needed(ref, p0, p1, eps)


@wrong(check.three_image_certified, "sound but loose: ")
def adds_a_tenth_to_the_gap(ref, p0, p1, eps):
    return gap(ref, p0, p1) > 1.1 * needed(ref, p0, p1, eps)


@wrong(check.three_image_certified, "one for each triplet")
def certifies_the_batch(ref, p0, p1, eps):
    return (gap(ref, p0, p1) > needed(ref, p0, p1, eps)).all()


@wrong(check.three_image_certified, "a comparison, bool")
def returns_what_is_left(ref, p0, p1, eps):
    return gap(ref, p0, p1) - needed(ref, p0, p1, eps)


@wrong(check.three_image_certified, "in place")
def normalises_the_reference_in_place(ref, p0, p1, eps):
    found = gap(ref, p0, p1) > needed(ref, p0, p1, eps)
    ref /= ref.norm(dim=1, keepdim=True)
    return found


def right(radius, judge, eps):
    return torch.where(judge > 0.5, -radius, radius) > eps


@wrong(check.certified_accuracy, "wrong decisions count as certified")
def counts_wrong_decisions(radius, judge, eps):
    return (radius.abs() > eps)[judge != 0.5].float().mean().item()


@wrong(check.certified_accuracy, "votes of exactly 0.5 have no right answer")
def counts_undecided_votes(radius, judge, eps):
    return right(radius, judge, eps).float().mean().item()


@wrong(check.certified_accuracy, "the sign is turned round")
def takes_p0_for_p1(radius, judge, eps):
    return right(-radius, judge, eps)[judge != 0.5].float().mean().item()


@wrong(check.certified_accuracy, ">= for >")
def counts_the_border(radius, judge, eps):
    return (torch.where(judge > 0.5, -radius, radius) >= eps)[judge != 0.5].float().mean().item()


@wrong(check.certified_accuracy, "a tie is no right decision")
def counts_ties(radius, judge, eps):
    return (right(radius, judge, eps) | (radius == 0))[judge != 0.5].float().mean().item()


@wrong(check.certified_accuracy, "eps is in the units of pixels")
def takes_eps_for_grey_levels(radius, judge, eps):
    return right(radius, judge, eps / 255)[judge != 0.5].float().mean().item()


@wrong(check.certified_accuracy, "accuracy without any change")
def ignores_eps(radius, judge, eps):
    return right(radius, judge, 0)[judge != 0.5].float().mean().item()


@wrong(check.certified_accuracy, "you divided by the number of right decisions")
def divides_by_the_right_ones(radius, judge, eps):
    decided = judge != 0.5
    return (right(radius, judge, eps) & decided).sum() / (right(radius, judge, 0) & decided).sum()


@wrong(check.certified_accuracy, "only unanimous votes were counted")
def counts_unanimous_votes(radius, judge, eps):
    return right(radius, judge, eps)[(judge == 0) | (judge == 1)].float().mean().item()


@wrong(check.certified_accuracy, "any vote for p1 made it the right answer")
def takes_any_vote(radius, judge, eps):
    return (torch.where(judge > 0, -radius, radius) > eps)[judge != 0.5].float().mean().item()


@wrong(check.certified_accuracy, "votes were taken for certainty")
def weighs_by_votes(radius, judge, eps):
    return (torch.where(radius > 0, 1 - judge, judge) * (radius.abs() > eps)).mean().item()


@wrong(check.certified_accuracy, "only decisions for p0 can be right in it")
def knows_p0_only(radius, judge, eps):
    return ((radius > eps) & (judge < 0.5))[judge != 0.5].float().mean().item()


@wrong(check.certified_accuracy, "only decisions for p1 can be right in it")
def knows_p1_only(radius, judge, eps):
    return ((radius < -eps) & (judge > 0.5))[judge != 0.5].float().mean().item()


@wrong(check.certified_accuracy, "number of certified triplets")
def counts_only(radius, judge, eps):
    return right(radius, judge, eps)[judge != 0.5].sum().item()


@wrong(check.certified_accuracy, "in percent")
def returns_percent(radius, judge, eps):
    return 100 * right(radius, judge, eps)[judge != 0.5].float().mean().item()


@wrong(check.certified_accuracy, "share that is *not* certified")
def returns_the_rest(radius, judge, eps):
    return 1 - right(radius, judge, eps)[judge != 0.5].float().mean().item()


@wrong(check.certified_accuracy, "certified is what is *above* eps")
def asks_for_small_radii(radius, judge, eps):
    decided = judge != 0.5
    return (right(radius, judge, 0) & (radius.abs() < eps))[decided].float().mean().item()


@wrong(check.certified_accuracy, "one value for each triplet")
def returns_all(radius, judge, eps):
    return right(radius, judge, eps)[judge != 0.5].float()


@wrong(check.certified_accuracy, "all three majorities agree")
def has_a_size_built_in(radius, judge, eps):
    return right(radius, judge, eps)[judge != 0.5].float().mean().item() * (1 if len(radius) > 4 else 0.5)


@wrong(check.certified_accuracy, "in place")
def turns_radii_in_place(radius, judge, eps):
    radius[judge > 0.5] *= -1
    return (radius > eps)[judge != 0.5].float().mean().item()


@wrong(check.certified_accuracy, "returns a list")
def returns_a_list(radius, judge, eps):
    return [right(radius, judge, eps)[judge != 0.5].float().mean().item()]


@wrong(check.certified_accuracy, "expected")
def is_off_by_one(radius, judge, eps):
    return right(radius, judge, eps)[judge != 0.5].sum().item() / ((judge != 0.5).sum().item() + 1)


def noisy(ref, sigma, m, generator):
    return ref + sigma * torch.randn(m, *ref.shape, generator=generator)


def clopper_pearson(k, n, alpha):
    return float(beta.ppf(alpha, k, n - k + 1)) if k else 0.0


def reach(share, sigma):
    return sigma * float(norm.ppf(share))


def smoothing(bound=clopper_pearson, draw=noisy, reach=reach):
    """A smoothed decision that is right but for one part."""

    def decorate(names):
        @functools.wraps(names)
        def smoothed(decide, ref, sigma, n0, n, alpha, generator):
            decision = int(int(decide(draw(ref, sigma, n0, generator)).sum()) > n0 / 2)
            votes = int(decide(draw(ref, sigma, n, generator)).sum())
            share = bound(votes if decision else n - votes, n, alpha)
            return (decision, reach(share, sigma)) if share > 0.5 else (-1, 0.0)

        return smoothed

    return decorate


@wrong(check.smoothed, "without a confidence bound")
@smoothing(bound=lambda k, n, alpha: k / n)
def trusts_the_estimate():
    pass


@wrong(check.smoothed, "a *two-sided* interval")
@smoothing(bound=lambda k, n, alpha: clopper_pearson(k, n, alpha / 2))
def is_two_sided():
    pass


@wrong(check.smoothed, "the upper end of the interval")
@smoothing(bound=lambda k, n, alpha: beta.ppf(1 - alpha, k + 1, n - k))
def takes_the_upper_end():
    pass


@wrong(check.smoothed, "the normal approximation is no bound")
@smoothing(bound=lambda k, n, alpha: k / n - norm.ppf(1 - alpha) * (k / n * (1 - k / n) / n) ** 0.5)
def approximates():
    pass


@wrong(check.smoothed, "Hoeffding's bound is true, but loose")
@smoothing(bound=lambda k, n, alpha: k / n - math.sqrt(math.log(1 / alpha) / (2 * n)))
def takes_hoeffding():
    pass


@wrong(check.smoothed, "one-sided, not (k, n - k)")
@smoothing(bound=lambda k, n, alpha: float(beta.ppf(alpha, k, n - k)))
def is_off_by_one_in_the_bound():
    pass


@wrong(check.smoothed, "sigma is forgotten")
@smoothing(reach=lambda share, sigma: norm.ppf(share))
def forgets_sigma():
    pass


@wrong(check.smoothed, "you divided by sigma")
@smoothing(reach=lambda share, sigma: norm.ppf(share) / sigma)
def divides_by_sigma():
    pass


@wrong(check.smoothed, "that is sigma squared times")
@smoothing(reach=lambda share, sigma: sigma**2 * norm.ppf(share))
def squares_sigma():
    pass


@wrong(check.smoothed, "halved: sigma / 2")
@smoothing(reach=lambda share, sigma: sigma / 2 * norm.ppf(share))
def halves_the_radius():
    pass


@wrong(check.smoothed, "that is Phi; its *inverse*")
@smoothing(reach=lambda share, sigma: sigma * norm.cdf(share))
def takes_phi():
    pass


@wrong(check.smoothed, "you return the probability")
@smoothing(reach=lambda share, sigma: share)
def returns_the_probability():
    pass


@wrong(check.smoothed, "p - 1/2 is no radius")
@smoothing(reach=lambda share, sigma: sigma * (share - 0.5))
def takes_the_excess():
    pass


@wrong(check.smoothed, "the radius is negative: the decision says")
@smoothing(reach=lambda share, sigma: -reach(share, sigma))
def is_negative():
    pass


@wrong(check.smoothed, "NaN for k = 0")
@smoothing(bound=lambda k, n, alpha: 0.51 if k == 0 else clopper_pearson(k, n, alpha), reach=lambda share, sigma: (
    math.nan if share == 0.51 else reach(share, sigma)))  # fmt: skip
def is_nan_without_hits():
    pass


@wrong(check.smoothed, "torch.rand is uniform, torch.randn is Gaussian")
@smoothing(draw=lambda ref, sigma, m, generator: ref + sigma * torch.rand(m, *ref.shape, generator=generator))
def draws_uniform_noise():
    pass


@wrong(check.smoothed, "the noise is not Gaussian")
@smoothing(draw=lambda ref, sigma, m, g: ref + sigma * 12**0.5 * (torch.rand(m, *ref.shape, generator=g) - 0.5))
def draws_centred_uniform_noise():
    pass


@wrong(check.smoothed, "not its variance")
@smoothing(draw=lambda ref, sigma, m, generator: noisy(ref, sigma**2, m, generator))
def takes_sigma_squared_for_noise():
    pass


@wrong(check.smoothed, "not the variance: no root")
@smoothing(draw=lambda ref, sigma, m, generator: noisy(ref, sigma**0.5, m, generator))
def takes_the_root_of_sigma():
    pass


@wrong(check.smoothed, "the noise has standard deviation")
@smoothing(draw=lambda ref, sigma, m, generator: noisy(ref, 1.0, m, generator))
def forgets_to_scale_noise():
    pass


@wrong(check.smoothed, "you cut the noisy images off")
@smoothing(draw=lambda ref, sigma, m, generator: noisy(ref, sigma, m, generator).clamp(0, 1))
def cuts_off():
    pass


@wrong(check.smoothed, "you decide noise alone")
@smoothing(draw=lambda ref, sigma, m, generator: sigma * torch.randn(m, *ref.shape, generator=generator))
def forgets_the_image():
    pass


@wrong(check.smoothed, "you added no noise")
@smoothing(draw=lambda ref, sigma, m, generator: ref.expand(m, -1, -1, -1))
def forgets_the_noise():
    pass


@wrong(check.smoothed, "each sample needs noise of its own")
@smoothing(draw=lambda ref, sigma, m, g: noisy(ref, sigma, 1, g).expand(m, -1, -1, -1))
def draws_once():
    pass


@wrong(check.smoothed, "all pixels of an image get the same noise")
@smoothing(draw=lambda ref, sigma, m, g: ref + sigma * torch.randn(m, 1, 1, 1, generator=g))
def shifts_brightness():
    pass


@wrong(check.smoothed, "all colours of a pixel get the same noise")
@smoothing(draw=lambda ref, sigma, m, g: ref + sigma * torch.randn(m, 1, *ref.shape[1:], generator=g))
def draws_grey_noise():
    pass


@wrong(check.smoothed, "the same generator, other noise")
@smoothing(draw=lambda ref, sigma, m, g: noisy(ref, sigma, m, None))
def ignores_the_generator():
    pass


@wrong(check.smoothed, "another generator, the same noise")
@smoothing(draw=lambda ref, sigma, m, g: noisy(ref, sigma, m, torch.Generator().manual_seed(m)))
def seeds_a_generator_of_its_own():
    pass


@wrong(check.smoothed, "it takes noisy references")
@smoothing(draw=lambda ref, sigma, m, g: noisy(ref, sigma, m, g)[0])
def asks_about_one_image():
    pass


def both_counts(decide, ref, sigma, n0, n, generator):
    first = int(decide(noisy(ref, sigma, n0, generator)).sum())
    return first, int(decide(noisy(ref, sigma, n, generator)).sum())


@wrong(check.smoothed, "the samples that chose were counted again")
def pools_the_samples(decide, ref, sigma, n0, n, alpha, generator):
    first, then = both_counts(decide, ref, sigma, n0, n, generator)
    decision = int(first > n0 / 2)
    k = first + then if decision else n0 + n - first - then
    share = clopper_pearson(k, n + n0, alpha)
    return (decision, reach(share, sigma)) if share > 0.5 else (-1, 0.0)


@wrong(check.smoothed, "you estimated from the n0 samples that chose")
def estimates_from_the_first(decide, ref, sigma, n0, n, alpha, generator):
    first, _ = both_counts(decide, ref, sigma, n0, n, generator)
    decision = int(first > n0 / 2)
    share = clopper_pearson(first if decision else n0 - first, n0, alpha)
    return (decision, reach(share, sigma)) if share > 0.5 else (-1, 0.0)


@wrong(check.smoothed, "n0 samples choose, n *others* estimate")
def uses_one_sample_for_both(decide, ref, sigma, n0, n, alpha, generator):
    votes = int(decide(noisy(ref, sigma, n, generator)).sum())
    decision = int(votes > n / 2)
    share = clopper_pearson(votes if decision else n - votes, n, alpha)
    return (decision, reach(share, sigma)) if share > 0.5 else (-1, 0.0)


@wrong(check.smoothed, "chooses the luckier side")
def decides_by_all(decide, ref, sigma, n0, n, alpha, generator):
    _, votes = both_counts(decide, ref, sigma, n0, n, generator)
    decision = int(votes > n / 2)
    share = clopper_pearson(votes if decision else n - votes, n, alpha)
    return (decision, reach(share, sigma)) if share > 0.5 else (-1, 0.0)


def never_abstaining(finish):
    def decorate(names):
        @functools.wraps(names)
        def smoothed(decide, ref, sigma, n0, n, alpha, generator):
            first, votes = both_counts(decide, ref, sigma, n0, n, generator)
            decision = int(first > n0 / 2)
            k = votes if decision else n - votes
            return finish(decision, clopper_pearson(k, n, alpha), sigma, k / n)

        return smoothed

    return decorate


@wrong(check.smoothed, "prove no majority")
@never_abstaining(lambda decision, share, sigma, estimate: (decision, reach(share, sigma)))
def never_abstains():
    pass


@wrong(check.smoothed, "radius 0, but decision")
@never_abstaining(lambda decision, share, sigma, estimate: (decision, max(0.0, reach(share, sigma))))
def decides_without_a_radius():
    pass


@wrong(check.smoothed, "you abstain, but with radius")
@never_abstaining(lambda decision, share, sigma, estimate: (
    (decision if share > 0.5 else -1), abs(reach(max(share, 1e-9), sigma))))  # fmt: skip
def abstains_with_a_radius():
    pass


@wrong(check.smoothed, "the lower bound is")
@never_abstaining(lambda decision, share, sigma, estimate: (
    (decision, abs(reach(share, sigma))) if estimate > 0.5 else (-1, 0.0)))  # fmt: skip
def abstains_by_the_estimate():
    pass


@wrong(check.smoothed, "samples agree: abstain")
@never_abstaining(lambda decision, share, sigma, estimate: (
    (decision, abs(reach(max(share, 1e-3), sigma))) if share > 0.5 or estimate < 0.5 else (-1, 0.0)))  # fmt: skip
def takes_absolute_radii():
    pass


@wrong(check.smoothed, "is what most of the first n0 samples say")
@never_abstaining(lambda decision, share, sigma, estimate: (
    (1 - decision, reach(share, sigma)) if share > 0.5 else (-1, 0.0)))  # fmt: skip
def returns_the_other_decision():
    pass


@wrong(check.smoothed, "whose lower bound is")
@never_abstaining(lambda decision, share, sigma, estimate: (
    (decision, reach(share, sigma)) if share > 0.9 else (-1, 0.0)))  # fmt: skip
def abstains_too_often():
    pass


@wrong(check.smoothed, "return two numbers: decision, radius")
@never_abstaining(lambda decision, share, sigma, estimate: reach(share, sigma) if share > 0.5 else 0.0)
def returns_the_radius_only():
    pass


@wrong(check.smoothed, "return decision, radius")
@never_abstaining(lambda decision, share, sigma, estimate: (reach(share, sigma) if share > 0.5 else 0.0, decision))
def returns_the_radius_first():
    pass


@wrong(check.smoothed, "you asked for more than")
def asks_too_often(decide, ref, sigma, n0, n, alpha, generator):
    first, _ = both_counts(decide, ref, sigma, n0, n, generator)
    decide(noisy(ref, sigma, n, generator))
    return int(first > n0 / 2), 1.0


@wrong(check.smoothed, "in place")
def adds_noise_in_place(decide, ref, sigma, n0, n, alpha, generator):
    first = sum(int(decide(noisy(ref, sigma, 1, generator))) for _ in range(n0))
    votes = int(decide(noisy(ref, sigma, n, generator)).sum())
    ref += sigma * torch.randn(ref.shape, generator=generator)
    return int(first > n0 / 2), votes / n


def hinge(r, judge, margin):
    return (1 - judge) * (margin - r).relu() + judge * (margin + r).relu()


def with_radius(change):
    """The mean hinge over another radius."""
    return lambda ref, p0, p1, judge, margin: hinge(change(ref, p0, p1), judge, margin).mean()


wrong(check.radius_hinge, "the labels are turned round")(with_radius(lambda ref, p0, p1: bisector(ref, p1, p0)))
wrong(check.radius_hinge, "you divided by |e_ref|")(with_radius(lambda ref, p0, p1: bisector(ref, p0, p1) / size(ref)))
wrong(check.radius_hinge, "the embeddings are normalised")(with_radius(normalises_all))
wrong(check.radius_hinge, "that is the published hinge")(with_radius(subtracts_cosines))
wrong(check.radius_hinge, "that is the hinge on d1 - d0")(with_radius(moves_one_distance_only))
wrong(check.radius_hinge, "that is the cosine radius")(with_radius(cosine))
wrong(check.radius_hinge, "the radius lacks its factor 2")(with_radius(forgets_the_two))
wrong(check.radius_hinge, "|r| rewards certainty")(with_radius(lambda ref, p0, p1: bisector(ref, p0, p1).abs()))
wrong(check.radius_hinge, "a table")(with_radius(lambda ref, p0, p1: bisector(ref, p0, p1)[:, None]))
wrong(check.radius_hinge, "the norm |e_0 - e_1| is detached")(
    with_radius(lambda ref, p0, p1: bisector(ref, p0, p1) * size(p0 - p1) / size(p0 - p1).detach())
)
wrong(check.radius_hinge, "the direction from p1 to p0 is detached")(
    with_radius(lambda ref, p0, p1: dot(ref - (p0 + p1) / 2, F.normalize(p0 - p1, dim=1).detach()))
)
wrong(check.radius_hinge, "reaches the embedding of ref;")(
    with_radius(lambda ref, p0, p1: bisector(ref.detach(), p0, p1))
)
wrong(check.radius_hinge, "reaches the embedding of p0;")(
    with_radius(lambda ref, p0, p1: bisector(ref, p0.detach(), p1))
)
wrong(check.radius_hinge, "reaches the embedding of p1;")(
    with_radius(lambda ref, p0, p1: bisector(ref, p0, p1.detach()))
)
wrong(check.radius_hinge, "reaches the embedding of p0 and p1;")(
    with_radius(lambda ref, p0, p1: bisector(ref, p0.detach(), p1.detach()))
)
wrong(check.radius_hinge, "without a gradient")(with_radius(lambda ref, p0, p1: bisector(ref, p0, p1).detach()))
wrong(check.radius_hinge, "the gradient is NaN where p0 = p1")(
    with_radius(
        lambda ref, p0, p1: (dot(ref - p1, ref - p1) - dot(ref - p0, ref - p0)) / (2 * dot(p0 - p1, p0 - p1).sqrt())
    )
)
wrong(check.radius_hinge, "is something converted on the way")(
    with_radius(lambda ref, p0, p1: bisector(ref.float(), p0.float(), p1.float()).to(ref.dtype))
)


@wrong(check.radius_hinge, "right decisions only")
def learns_from_right_decisions(ref, p0, p1, judge, margin):
    r = bisector(ref, p0, p1)
    return hinge(r, judge, margin)[(r > 0) == (judge < 0.5)].mean()


@wrong(check.radius_hinge, "wrong decisions only")
def learns_from_wrong_decisions(ref, p0, p1, judge, margin):
    r = bisector(ref, p0, p1)
    return hinge(r, judge, margin)[(r > 0) != (judge < 0.5)].mean()


@wrong(check.radius_hinge, "a mean over those that still lose")
def averages_losers(ref, p0, p1, judge, margin):
    terms = hinge(bisector(ref, p0, p1), judge, margin)
    return terms.sum() / (terms > 0).sum()


@wrong(check.radius_hinge, "you rounded them")
def rounds_votes(ref, p0, p1, judge, margin):
    return hinge(bisector(ref, p0, p1), (judge > 0.5).to(ref.dtype), margin).mean()


@wrong(check.radius_hinge, "mixes both sides *before* the hinge")
def mixes_before_the_hinge(ref, p0, p1, judge, margin):
    return (margin - (1 - 2 * judge) * bisector(ref, p0, p1)).relu().mean()


@wrong(check.radius_hinge, "one hinge over the mean")
def hinges_the_mean(ref, p0, p1, judge, margin):
    return (margin - ((1 - 2 * judge) * bisector(ref, p0, p1)).mean()).relu()


@wrong(check.radius_hinge, "there is no hinge")
def forgets_the_hinge(ref, p0, p1, judge, margin):
    return -((1 - 2 * judge) * bisector(ref, p0, p1)).mean()


@wrong(check.radius_hinge, "the hinge is the wrong way round")
def turns_the_hinge_round(ref, p0, p1, judge, margin):
    r = bisector(ref, p0, p1)
    return ((1 - judge) * (r - margin).relu() + judge * (-r - margin).relu()).mean()


@wrong(check.radius_hinge, "the sign of the loss")
def returns_what_should_grow(ref, p0, p1, judge, margin):
    return -hinge(bisector(ref, p0, p1), judge, margin).mean()


@wrong(check.radius_hinge, "the margin is missing")
def forgets_the_margin(ref, p0, p1, judge, margin):
    return hinge(bisector(ref, p0, p1), judge, 0).mean()


@wrong(check.radius_hinge, "the margin is taken off")
def subtracts_the_margin(ref, p0, p1, judge, margin):
    return hinge(bisector(ref, p0, p1), judge, -margin).mean()


@wrong(check.radius_hinge, "that is the sum")
def sums_the_loss(ref, p0, p1, judge, margin):
    return hinge(bisector(ref, p0, p1), judge, margin).sum()


@wrong(check.radius_hinge, "the hinge is squared")
def squares_the_hinge(ref, p0, p1, judge, margin):
    return hinge(bisector(ref, p0, p1), judge, margin).square().mean()


@wrong(check.radius_hinge, "votes for p1 teach nothing")
def learns_from_p0_only(ref, p0, p1, judge, margin):
    return ((1 - judge) * (margin - bisector(ref, p0, p1)).relu()).mean()


@wrong(check.radius_hinge, "votes for p0 teach nothing")
def learns_from_p1_only(ref, p0, p1, judge, margin):
    return (judge * (margin + bisector(ref, p0, p1)).relu()).mean()


@wrong(check.radius_hinge, "both sides count in full")
def forgets_the_shares(ref, p0, p1, judge, margin):
    r = bisector(ref, p0, p1)
    return ((margin - r).relu() + (margin + r).relu()).mean()


@wrong(check.radius_hinge, "one value for each triplet")
def forgets_the_mean(ref, p0, p1, judge, margin):
    return hinge(bisector(ref, p0, p1), judge, margin)


@wrong(check.radius_hinge, "keep the dtype you get")
def loses_float64(ref, p0, p1, judge, margin):
    return hinge(bisector(ref.float(), p0.float(), p1.float()), judge.float(), margin).mean()


@wrong(check.radius_hinge, "returns a float")
def returns_a_float(ref, p0, p1, judge, margin):
    return hinge(bisector(ref, p0, p1), judge, margin).mean().item()


@wrong(check.radius_hinge, "in place")
def rounds_votes_in_place(ref, p0, p1, judge, margin):
    loss = hinge(bisector(ref, p0, p1), judge, margin).mean()
    judge.round_()
    return loss


class Unknown(nn.Module):
    """A layer that no bound is known of."""

    def forward(self, x):
        return x.flatten(1).sin()


class Normalised(nn.Module):
    """Not 1-Lipschitz, whatever it says: short images are made long."""

    def forward(self, x):
        return F.normalize(x.flatten(1), dim=1) * 100

    def upper_bound(self):
        return 1.0


class Batched(nn.Module):
    """Distances that depend on the company."""

    def forward(self, x):
        return x.flatten(1) - x.flatten(1).mean(0)

    def upper_bound(self):
        return 1.0


@wrong(check.metric, "returns nothing")
def returns_no_network():
    AOLLinear(12288, 8)


@wrong(check.metric, "returns a function")
def returns_a_function():
    return lambda images: images.flatten(1)


@wrong(check.metric, "end with nn.Flatten()")
def forgets_to_flatten():
    return nn.Identity()


@wrong(check.metric, "in a batch")
def depends_on_the_batch():
    return Batched()


@wrong(check.metric, "no bound from above, no certificate")
def is_of_an_unknown_kind():
    return nn.Sequential(Unknown(), AOLLinear(12288, 8))


@wrong(check.metric, "so it is not 1-Lipschitz")
def doubles():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12288, 4))
    with torch.no_grad():
        network[1].weight.zero_()[:, :4] = 2 * torch.eye(4)
    return network


@wrong(check.metric, "a bound has to be true")
def normalises_and_says_nothing():
    return Normalised()


@wrong(check.metric, "what does st-alex see that pixels do not?")
def is_pixel_l2():
    return nn.Flatten()


class Halved(nn.Flatten):
    """Pixel L2 with half the distances, and so half the radii."""

    def forward(self, x):
        return super().forward(x) / 2

    def upper_bound(self):
        return 0.5


@wrong(check.metric, "the radii are short")
def is_slower_than_it_has_to_be():
    return Halved()


@wrong(check.metric, "worse than a coin")
def sees_nothing():
    layer = nn.Linear(12288, 1, bias=False)
    nn.init.zeros_(layer.weight)
    return nn.Sequential(nn.Flatten(), layer)
