"""What attacks make large: the metric's own distances, whichever image changes, and no misleading input."""

import pytest
import torch

from course_lib.attacks import Ball, Objective, apgd, flip, misclassify, pull, push, retrieve
from course_lib.judgments import Metric, load
from tests.known_optima import generator, pictures

N = 4
IMAGES = pictures(5 * N, seed=3).view(5, N, 3, 5, 5)
REF, P0, P1, OTHER, _ = IMAGES
EITHER = torch.tensor([0, 1, 0, 1])


def lopsided(x, y):
    """A distance that is not symmetric, so that exchanged arguments are noticed."""
    return ((x - y).relu() + 0.3 * (y - x).relu()).flatten(1).sum(1)


LOPSIDED = Metric("lopsided", lopsided)


class Embedding:
    """A metric that embeds, as LPIPS does, and counts the images it was given."""

    weight = torch.randn(75, 6, generator=generator())

    def __init__(self):
        self.embedded = 0

    def embed(self, x):
        self.embedded += len(x)
        return torch.tanh(x.flatten(1) @ self.weight)

    def between(self, e, f):
        return (e - f).square().sum(1)

    def __call__(self, x, y):
        return self.between(self.embed(x), self.embed(y))


def changed(images):
    return (images + 0.2 * torch.randn(images.shape, generator=generator(7))).clamp(0, 1)


# The metric's own distances


@pytest.mark.parametrize("metric", [LOPSIDED, Metric("embedding", Embedding())], ids=["plain", "embedding"])
@pytest.mark.parametrize("perturb", ["ref", "p0", "p1", "all"])
def test_flip_is_the_distance_to_the_right_image_minus_that_to_the_wrong_one(metric, perturb):
    task = flip(metric, REF, P0, P1, label=EITHER, perturb=perturb)
    triplet = [REF, P0, P1]
    for which in range(3):
        if perturb in (("ref", "p0", "p1")[which], "all"):
            triplet[which] = changed(triplet[which])
    images = changed(task.start) if perturb != "all" else torch.stack(triplet, 1)
    d0, d1 = (metric.distance(triplet[0], candidate) for candidate in triplet[1:])
    expected = torch.where(EITHER == 0, d0 - d1, d1 - d0)
    assert torch.allclose(task.value(images), expected, atol=1e-5)
    wrong = torch.where(EITHER == 0, d1 < d0, d0 < d1)
    assert torch.equal(task.succeeded(task.value(images)), wrong)
    one = torch.tensor([2])
    assert torch.allclose(task.select(one).value(images[one]), expected[one], atol=1e-5)


@pytest.mark.parametrize("perturb", ["ref", "p0", "p1", "all"])
def test_without_labels_the_metric_is_right_at_first(perturb):
    task = flip(LOPSIDED, REF, P0, P1, perturb=perturb)
    d0, d1 = lopsided(REF, P0), lopsided(REF, P1)
    assert torch.allclose(task.value(task.start), -(d0 - d1).abs(), atol=1e-5)
    assert (d0 < d1).unique().numel() == 2


def test_a_tie_is_no_success():
    task = flip(LOPSIDED, REF, P0, P0, label=EITHER)
    assert not task.succeeded(task.value(REF)).any()


def test_push_measures_from_the_original_and_pull_to_the_target():
    images = changed(REF)
    far, near = push(LOPSIDED, REF, threshold=6.0), pull(LOPSIDED, REF, OTHER, threshold=9.0)
    assert torch.allclose(far.value(images), lopsided(REF, images))
    assert torch.allclose(near.value(images), -lopsided(images, OTHER))
    for distance, success in ((5.9, False), (6.1, True)):
        assert far.succeeded(torch.full((N,), distance)).tolist() == [success] * N
    for distance, success in ((9.1, False), (8.9, True)):
        assert near.succeeded(torch.full((N,), -distance)).tolist() == [success] * N


@pytest.mark.parametrize("metric", [LOPSIDED, Metric("embedding", Embedding())], ids=["plain", "embedding"])
def test_retrieval_succeeds_exactly_where_the_target_is_the_nearest_of_the_gallery(metric):
    gallery, target = pictures(6, seed=8), torch.tensor([5, 0, 2, 2])
    task = retrieve(metric, REF, gallery, target)
    distances = torch.stack([metric.distance(REF, one.expand_as(REF)) for one in gallery], 1)
    others = torch.stack([torch.cat((row[:t], row[t + 1 :])).min() for row, t in zip(distances, target, strict=True)])
    assert torch.allclose(task.value(REF), others - distances[torch.arange(N), target], atol=1e-5)
    found = apgd(task, Ball("l2", 4.0), steps=30)
    distances = torch.stack([metric.distance(found.images, one.expand_as(REF)) for one in gallery], 1)
    assert torch.equal(distances.argmin(1) == target, found.success)
    assert found.success.all()
    assert not task.succeeded(task.value(REF)).all()


def test_misclassifying_raises_the_largest_wrong_logit_above_the_right_one():
    weight, label = torch.randn(75, 5, generator=generator()), torch.tensor([0, 4, 2, 2])
    task = misclassify(lambda images: images.flatten(1) @ weight, REF, label)
    logits = REF.flatten(1) @ weight
    assert torch.equal(task.succeeded(task.value(REF)), logits.argmax(1) != label)
    assert task.value(REF)[1] == logits[1, :4].max() - logits[1, 4]


# The fixed images are embedded once


def test_a_metric_that_embeds_does_so_once_for_images_that_stay():
    network = Embedding()
    task = flip(Metric("embedding", network), REF, P0, P1, label=EITHER)
    assert network.embedded == 2 * N
    for _ in range(3):
        task.value(REF)
    assert network.embedded == 5 * N
    search = retrieve(Metric("embedding", network), REF, pictures(6, seed=8), EITHER)
    before = network.embedded
    search.value(REF)
    assert network.embedded == before + N


def test_the_shortcut_gives_the_distances_of_lpips_and_its_gradient():
    lpips = load("lpips-alex-random")
    ref, p0, p1 = pictures(3 * 2, size=32).view(3, 2, 3, 32, 32)
    gradients = []
    for metric in (lpips, Metric("without embedding", lambda x, y: lpips.distance(x, y))):
        task, images = flip(metric, ref, p0, p1, label=EITHER[:2]), ref.clone().requires_grad_()
        value = task.value(images)
        gradients.append(torch.autograd.grad(value.sum(), images)[0])
    d0, d1 = lpips(ref, p0), lpips(ref, p1)
    assert torch.allclose(value, torch.stack((d0[0] - d1[0], d1[1] - d0[1])), rtol=1e-3, atol=1e-6)
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-3 * gradients[0].abs().max().item())


# Input


def test_pixels_just_outside_the_limits_start_at_the_limits():
    task = push(LOPSIDED, REF * (1 + 5e-7) / REF.max())
    assert task.start.max() == 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: flip(LOPSIDED, REF * 255, P0, P1), r"ref has values in .*ref / 255"),
        (lambda: flip(LOPSIDED, REF, P0[:2], P1), "ref is .* but p0 is"),
        (lambda: flip(LOPSIDED, REF, P0, P1[..., :4]), "ref is .* but p1 is"),
        (lambda: flip(LOPSIDED, REF, P0, P1, label=torch.rand(N)), "label has to hold 0"),
        (lambda: flip(LOPSIDED, REF, P0, P1, label=EITHER[:2]), r"for each of 4 triplets: \(judge > 0.5\)"),
        (lambda: flip(LOPSIDED, REF, P0, P1, perturb="both"), "unknown perturb='both'; choose ref, p0, p1, all"),
        (lambda: push(LOPSIDED, REF[0]), "add the batch axis"),
        (lambda: pull(LOPSIDED, REF, OTHER - 0.5), "target has values in"),
        (lambda: retrieve(LOPSIDED, REF, OTHER, torch.tensor([0, 1, 2, 4])), r"one target in 0..3 per query"),
        (lambda: retrieve(LOPSIDED, REF, OTHER, torch.tensor([0, 1, 2, -1])), "one target in 0..3"),
        (lambda: retrieve(LOPSIDED, REF, OTHER[:1], torch.zeros(N).long()), "a gallery of at least two images"),
        (lambda: misclassify(torch.sum, 2 * REF, EITHER), "images have values outside"),
        (lambda: misclassify(torch.sum, REF, EITHER[:2]), "give one class"),
    ],
)
def test_input_that_does_not_fit_is_explained(build, message, unchecked):
    with pytest.raises(ValueError, match=message):
        build()


def test_an_objective_has_to_be_one_number_per_example_and_a_number(unchecked):
    per_pixel = Objective(REF, lambda images: images.sum(1), (), torch.zeros(N))
    with pytest.raises(ValueError, match=r"\(4, 5, 5\) for 4 examples"):
        per_pixel.value(REF)
    undefined = Objective(REF, lambda images: images.flatten(1).sum(1) / torch.tensor([1.0, 1, 1, torch.nan]), (), REF)
    with pytest.raises(ValueError, match="NaN for example 3 of 4"):
        undefined.value(REF)
