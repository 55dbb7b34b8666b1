"""Wrong answers to chapter 07's exercises."""

import torch

from course_lib.checks import lpips as check
from tests.wrong_answers import wrong

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


@wrong(check.scale_input, "LPIPS 0.0")
def scales_to_minus_one(images):
    return 2 * images - 1


@wrong(check.scale_input, "did not divide")
def only_subtracts(images):
    return images - MEAN


@wrong(check.scale_input, "did not subtract")
def only_divides(images):
    return images / STD


@wrong(check.scale_input, "with the brackets")
def forgets_the_brackets(images):
    return images - MEAN / STD


@wrong(check.scale_input, "divide by them")
def multiplies(images):
    return (images - MEAN) * STD


@wrong(check.scale_input, "along the width")
def broadcasts_along_the_width(images):
    return (images - MEAN.flatten()) / STD.flatten()


@wrong(check.scale_input, "own statistics")
def standardises(images):
    return (images - images.mean((0, 2, 3), keepdim=True)) / images.std((0, 2, 3), keepdim=True)


@wrong(check.scale_input, "do not divide by 255")
def divides_by_255(images):
    return (images / 255 - MEAN) / STD


@wrong(check.scale_input, "red and blue")
def swaps_red_and_blue(images):
    return (images - MEAN.flip(1)) / STD.flip(1)


@wrong(check.scale_input, "variances")
def divides_by_the_variance(images):
    return (images - MEAN) / STD**2


@wrong(check.scale_input, "[-1, 1] first")
def scales_to_minus_one_first(images):
    return (2 * images - 1 - MEAN) / STD


@wrong(check.unit_channels, "over space, not channels")
def over_space(features):
    return torch.nn.functional.normalize(features.flatten(2), dim=2).view_as(features)


@wrong(check.unit_channels, "over the batch")
def over_the_batch(features):
    return torch.nn.functional.normalize(features, dim=0)


@wrong(check.unit_channels, "one length for the whole image")
def over_everything(features):
    return features / features.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


@wrong(check.unit_channels, "squared length")
def by_the_squared_length(features):
    return features / features.square().sum(1, keepdim=True)


@wrong(check.unit_channels, "sum of absolute values")
def by_the_l1_norm(features):
    return torch.nn.functional.normalize(features, p=1, dim=1)


@wrong(check.unit_channels, "softmax")
def by_softmax(features):
    return features.softmax(1)


@wrong(check.unit_channels, "largest channel")
def by_the_maximum(features):
    return features / features.amax(1, keepdim=True)


@wrong(check.unit_channels, "subtracts no mean")
def correlates(features):
    return torch.nn.functional.normalize(features - features.mean(1, keepdim=True), dim=1)


@wrong(check.unit_channels, "0 / 0")
def divides_by_zero(features):
    return features / features.norm(dim=1, keepdim=True)


@wrong(check.unit_channels, "shape (2, 5, 4), expected")
def takes_one_position(features):
    return torch.nn.functional.normalize(features, dim=1)[..., 0]


def unit(features):
    return torch.nn.functional.normalize(features, dim=1)


def column(head):
    return head.view(1, -1, 1, 1)


@wrong(check.layer_distance, "raw features")
def forgets_unit(fx, fy, head):
    return (column(head) * (fx - fy).square()).sum(1).mean((1, 2))


@wrong(check.layer_distance, "*then* subtract")
def scales_the_difference(fx, fy, head):
    return (column(head) * unit(fx - fy).square()).sum(1).mean((1, 2))


@wrong(check.layer_distance, "forgot the head")
def forgets_the_head(fx, fy, head):
    return (unit(fx) - unit(fy)).square().sum(1).mean((1, 2))


@wrong(check.layer_distance, "weights got squared")
def weighs_before_squaring(fx, fy, head):
    return (column(head) * (unit(fx) - unit(fy))).square().sum(1).mean((1, 2))


@wrong(check.layer_distance, "summed over the positions")
def sums_positions(fx, fy, head):
    return (column(head) * (unit(fx) - unit(fy)).square()).sum((1, 2, 3))


@wrong(check.layer_distance, "mean over the channels")
def averages_channels(fx, fy, head):
    return (column(head) * (unit(fx) - unit(fy)).square()).mean((1, 2, 3))


@wrong(check.layer_distance, "absolute differences")
def forgets_to_square(fx, fy, head):
    return (column(head) * (unit(fx) - unit(fy)).abs()).sum(1).mean((1, 2))


@wrong(check.layer_distance, "a *squared* distance")
def takes_the_root(fx, fy, head):
    return (column(head) * (unit(fx) - unit(fy)).square()).sum(1).mean((1, 2)).sqrt()


@wrong(check.layer_distance, "root at every position")
def takes_the_root_everywhere(fx, fy, head):
    return (column(head) * (unit(fx) - unit(fy)).square()).sum(1).sqrt().mean((1, 2))


@wrong(check.layer_distance, "whole batch")
def averages_the_batch(fx, fy, head):
    return (column(head) * (unit(fx) - unit(fy)).square()).sum(1).mean()


@wrong(check.layer_distance, "this is a map")
def returns_the_map(fx, fy, head):
    return (column(head) * (unit(fx) - unit(fy)).square()).sum(1)


def layers(x, y, trunk, heads, weigh=lambda w, squared: (w * squared).sum(1).mean((1, 2))):
    """What `weigh` makes of every layer's weights and squared differences, (n, layers)."""
    pairs = zip(heads, trunk(x).values(), trunk(y).values(), strict=True)
    return torch.stack([weigh(column(head), (unit(a) - unit(b)).square()) for head, a, b in pairs], 1)


@wrong(check.lpips, "mean over the layers")
def averages_layers(x, y, trunk, heads):
    return layers(x, y, trunk, heads).mean(1)


@wrong(check.lpips, "last layer only")
def overwrites(x, y, trunk, heads):
    for a, b, head in zip(trunk(x).values(), trunk(y).values(), heads, strict=True):
        total = (column(head) * (unit(a) - unit(b)).square()).sum(1).mean((1, 2))
    return total


@wrong(check.lpips, "first layer only")  # noqa: RET503
def returns_too_early(x, y, trunk, heads):
    for a, b, head in zip(trunk(x).values(), trunk(y).values(), heads, strict=True):
        return (column(head) * (unit(a) - unit(b)).square()).sum(1).mean((1, 2))


@wrong(check.lpips, "one number per layer")
def returns_layers(x, y, trunk, heads):
    return layers(x, y, trunk, heads)


@wrong(check.lpips, "a *squared* distance")
def takes_the_root_of_the_sum(x, y, trunk, heads):
    return layers(x, y, trunk, heads).sum(1).sqrt()


@wrong(check.lpips, "`Trunk` already does this")
def scales_twice(x, y, trunk, heads):
    return layers((x - MEAN) / STD, (y - MEAN) / STD, trunk, heads).sum(1)


@wrong(check.lpips, "you fed [-1, 1]")
def feeds_minus_one(x, y, trunk, heads):
    return layers(2 * x - 1, 2 * y - 1, trunk, heads).sum(1)


@wrong(check.lpips, "heads are missing")
def forgets_the_heads(x, y, trunk, heads):
    return layers(x, y, trunk, heads, lambda w, squared: squared.sum(1).mean((1, 2))).sum(1)


@wrong(check.lpips, "summed over the positions")
def sums_all_positions(x, y, trunk, heads):
    return layers(x, y, trunk, heads, lambda w, squared: (w * squared).sum((1, 2, 3))).sum(1)


@wrong(check.lpips, "whole batch")
def averages_all(x, y, trunk, heads):
    return layers(x, y, trunk, heads).sum(1).mean()


@wrong(check.lpips, "TypeError")
def takes_the_trunk_for_a_list(x, y, trunk, heads):
    return sum((trunk(x)[i] - trunk(y)[i]) for i in trunk)


def points(x, trunk, heads, scale):
    """Every layer's unit features times `scale` of its weights and number of positions, in one vector."""
    parts = []
    for features, head in zip(trunk(x).values(), heads, strict=True):
        parts.append((unit(features) * scale(column(head), features[0, 0].numel())).flatten(1))
    return torch.cat(parts, 1)


@wrong(check.embed, "*root* of the head")
def scales_by_the_head(x, trunk, heads):
    return points(x, trunk, heads, lambda w, positions: w / positions**0.5)


@wrong(check.embed, "*root* of the head over the positions")
def takes_no_root(x, trunk, heads):
    return points(x, trunk, heads, lambda w, positions: w / positions)


@wrong(check.embed, "heads are missing")
def embeds_without_heads(x, trunk, heads):
    return points(x, trunk, heads, lambda w, positions: positions**-0.5)


@wrong(check.embed, "large layers count too much")
def forgets_the_positions(x, trunk, heads):
    return points(x, trunk, heads, lambda w, positions: w.sqrt())


@wrong(check.embed, "*root* of the number of positions")
def divides_by_the_positions(x, trunk, heads):
    return points(x, trunk, heads, lambda w, positions: w.sqrt() / positions)


@wrong(check.embed, "not scaled to unit channels")
def embeds_raw_features(x, trunk, heads):
    maps = zip(trunk(x).values(), heads, strict=True)
    return torch.cat([(f * (column(w) / f[0, 0].numel()).sqrt()).flatten(1) for f, w in maps], 1)


@wrong(check.embed, "average pooling")
def pools(x, trunk, heads):
    maps = zip(trunk(x).values(), heads, strict=True)
    return torch.cat([unit(f).mean((2, 3)) * w.sqrt() for f, w in maps], 1)


@wrong(check.embed, "one layer only")  # noqa: RET503
def embeds_one_layer(x, trunk, heads):
    for features, head in zip(trunk(x).values(), heads, strict=True):
        return (unit(features) * (column(head) / features[0, 0].numel()).sqrt()).flatten(1)


@wrong(check.embed, "the batch axis comes first")
def flattens_the_batch(x, trunk, heads):
    return points(x, trunk, heads, lambda w, positions: (w / positions).sqrt()).view(1, -1)


@wrong(check.embed, "one vector per image")
def makes_one_long_vector(x, trunk, heads):
    return points(x, trunk, heads, lambda w, positions: (w / positions).sqrt()).flatten()


def decide(d0, d1, judge, tie):
    return torch.where(d0 == d1, tie, torch.where(d1 < d0, judge, 1 - judge))


@wrong(check.agreement, "reversed, and ties")
def prefers_the_farther_without_ties(distance, ref, p0, p1, judge):
    return torch.where(distance(ref, p0) < distance(ref, p1), judge, 1 - judge).mean()


@wrong(check.agreement, "with ties on one side")
def scores_the_majority_without_ties(distance, ref, p0, p1, judge):
    return ((distance(ref, p1) < distance(ref, p0)) == (judge > 0.5)).float().mean()


@wrong(check.agreement, "reversed: judge")
def prefers_the_farther(distance, ref, p0, p1, judge):
    return decide(distance(ref, p1), distance(ref, p0), judge, 0.5).mean()


@wrong(check.agreement, "ties went to p0")
def gives_ties_to_p0(distance, ref, p0, p1, judge):
    return decide(distance(ref, p0), distance(ref, p1), judge, 1 - judge).mean()


@wrong(check.agreement, "ties went to p1")
def gives_ties_to_p1(distance, ref, p0, p1, judge):
    return decide(distance(ref, p0), distance(ref, p1), judge, judge).mean()


@wrong(check.agreement, "agreement with the majority")
def scores_the_majority(distance, ref, p0, p1, judge):
    return decide(distance(ref, p0), distance(ref, p1), (judge > 0.5).float(), 0.5).mean()


@wrong(check.agreement, "one score per triplet")
def returns_scores(distance, ref, p0, p1, judge):
    return decide(distance(ref, p0), distance(ref, p1), judge, 0.5)


@wrong(check.agreement, "both distances start at the reference")
def compares_p0_with_p1(distance, ref, p0, p1, judge):
    return decide(distance(ref, p0), distance(p0, p1), judge, 0.5).mean()


@wrong(check.agreement, "that is a correlation")
def correlates_distances(distance, ref, p0, p1, judge):
    return torch.corrcoef(torch.stack([distance(ref, p0) - distance(ref, p1), judge]))[0, 1]


@wrong(check.agreement, "left out")
def leaves_ties_out(distance, ref, p0, p1, judge):
    d0, d1 = distance(ref, p0), distance(ref, p1)
    return decide(d0, d1, judge, 0.5)[d0 != d1].mean()


@wrong(check.agreement, "never calls")
def ignores_the_distance(distance, ref, p0, p1, judge):
    return torch.tensor(0.5)


def windows(wide, most):
    return [wide[..., k : k + wide.shape[3] - most] for k in range(most + 1)]


def curve(distance, pairs):
    return torch.stack([distance(a, b).mean() for a, b in pairs])


@wrong(check.shift_curve, "comes back on the other")
def rolls_left(distance, wide, most):
    window = windows(wide, most)[0]
    return curve(distance, [(window, window.roll(-k, 3)) for k in range(most + 1)])


@wrong(check.shift_curve, "rolled the whole picture")
def rolls_everything(distance, wide, most):
    return curve(distance, [(wide, wide.roll(-k, 3)) for k in range(most + 1)])


@wrong(check.shift_curve, "rolled the rows")
def rolls_rows(distance, wide, most):
    window = windows(wide, most)[0]
    return curve(distance, [(window, window.roll(-k, 2)) for k in range(most + 1)])


@wrong(check.shift_curve, "you cut rows")
def cuts_rows(distance, wide, most):
    window = windows(wide, most)[0]
    return curve(distance, [(window, window[:, :, k:]) for k in range(most + 1)])


@wrong(check.shift_curve, "get narrower")
def compares_what_overlaps(distance, wide, most):
    return curve(distance, [(wide[..., : wide.shape[3] - k], wide[..., k:]) for k in range(most + 1)])


@wrong(check.shift_curve, "neighbours")
def compares_neighbours(distance, wide, most):
    cut = windows(wide, most)
    return curve(distance, zip([cut[0], *cut[:-1]], cut, strict=True))


@wrong(check.shift_curve, "last shift is missing")
def stops_too_early(distance, wide, most):
    cut = windows(wide, most)
    return curve(distance, [(cut[0], other) for other in cut[:-1]])


@wrong(check.shift_curve, "shift of 0 is missing")
def starts_at_one(distance, wide, most):
    cut = windows(wide, most)
    return curve(distance, [(cut[0], other) for other in cut[1:]])


@wrong(check.shift_curve, "mean over the images")
def keeps_the_images(distance, wide, most):
    cut = windows(wide, most)
    return torch.stack([distance(cut[0], other) for other in cut])


@wrong(check.shift_curve, "these are sums")
def sums_images(distance, wide, most):
    cut = windows(wide, most)
    return torch.stack([distance(cut[0], other).sum() for other in cut])


@wrong(check.shift_curve, "differ in shape")
def cuts_narrower_windows(distance, wide, most):
    return curve(distance, [(wide, wide[..., k:]) for k in range(most + 1)])


@wrong(check.shift_curve, "returns a list")
def returns_a_list(distance, wide, most):
    cut = windows(wide, most)
    return [distance(cut[0], other).mean() for other in cut]


def noisy(photo, amount):
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    return (photo + amount * noise).clamp(0, 1)


@wrong(check.fooled, "returns nothing")
def returns_nothing(photo):
    noisy(photo, 0.1)


@wrong(check.fooled, "return two images")
def returns_one_image(photo):
    return noisy(photo, 0.1)


@wrong(check.fooled, "photograph's shape")
def crops_it(photo):
    return photo[..., :64], photo[..., 64:]


@wrong(check.fooled, "leaves [0, 1]")
def forgets_to_clamp(photo):
    return photo + 0.5, photo - 0.5


@wrong(check.fooled, "or nearly so")
def hardly_changes_it(photo):
    return photo * 0.9999, photo * 0.9


@wrong(check.fooled, "LPIPS agrees")
def agrees(photo):
    return noisy(photo, 0.2), noisy(photo, 0.02)


@wrong(check.fooled, "hardly prefers")
def is_undecided(photo):
    return noisy(photo, 0.1), noisy(photo, 0.101)
