"""Views and losses of distillation: as torchvision and the formulas have them, image by image, and safe at zero."""

import pytest
import torch
from torchvision.transforms import functional as tv

from course_lib.distillation import losses, views

CHANGES = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)


def pictures(n=24, size=12):
    """Noise, with a grey, a black, a white and a two-coloured image among it, where hue has special cases."""
    images = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))
    images[0], images[1], images[2] = 0.3, 0.0, 1.0
    images[3] = (images[3] > 0.5).float()
    return images


@pytest.mark.parametrize("which", range(4))
def test_each_change_of_colour_is_torchvisions_for_every_image(which):
    images = pictures()
    factor = torch.linspace(0.5, 1.5, len(images))
    if which == 3:
        factor -= 1  # turns of hue, from -½ to ½
    changed = (views.brightness, views.contrast, views.saturation, views.hue)[which](images, factor)
    expected = torch.stack([CHANGES[which](x, f) for x, f in zip(images, factor.tolist(), strict=True)])
    torch.testing.assert_close(changed, expected, atol=2e-6, rtol=0)


def test_both_views_are_those_of_a_loop_over_images_with_torchvision():
    images = pictures(200, 6)
    drawn = views.draw_views(200, torch.Generator().manual_seed(3))
    plain, jittered = views.apply_views(images, drawn)
    for i in range(200):
        first, second = (tv.hflip(images[i]) if flip else images[i] for flip in drawn.flip[i])
        if drawn.jitter[i]:
            for which in drawn.order[i].tolist():
                second = CHANGES[which](second, drawn.factor[i, which].item())
        if drawn.grey[i]:
            second = tv.rgb_to_grayscale(second, 3)
        torch.testing.assert_close(plain[i], first)
        torch.testing.assert_close(jittered[i], second, atol=5e-6, rtol=0)
    assert jittered.min() >= 0 and jittered.max() <= 1


def test_parameters_are_drawn_as_published():
    drawn = views.draw_views(20_000, torch.Generator().manual_seed(0))
    assert drawn.jitter.float().mean() == pytest.approx(0.8, abs=0.015)
    assert drawn.grey.float().mean() == pytest.approx(0.2, abs=0.015)
    assert drawn.flip.float().mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.015)
    both = (drawn.flip[:, 0] & drawn.flip[:, 1]).float().mean()
    assert both == pytest.approx(0.25, abs=0.015)  # two coins, not one
    low, high = drawn.factor.aminmax(dim=0)
    torch.testing.assert_close(low, torch.tensor([0.6, 0.6, 0.8, -0.1]), atol=1e-3, rtol=0)
    torch.testing.assert_close(high, torch.tensor([1.4, 1.4, 1.2, 0.1]), atol=1e-3, rtol=0)
    orders, counts = drawn.order.unique(dim=0, return_counts=True)
    assert len(orders) == 24 and counts.min() > 600


def test_the_other_kinds_of_views_change_less():
    images = pictures()
    flips = views.draw_views(24, torch.Generator().manual_seed(1), "flip")
    first, second = views.apply_views(images, flips)
    assert torch.equal(first, second) and 0 < flips.flip[:, 0].sum() < 24
    first, second = views.apply_views(images, views.draw_views(24, torch.Generator().manual_seed(1), "plain"))
    assert torch.equal(first, images) and torch.equal(second, images)
    with pytest.raises(ValueError, match="unknown views 'crop'; choose published, flip, plain"):
        views.draw_views(4, torch.Generator(), "crop")


def test_a_part_of_the_batch_has_the_views_it_has_in_the_whole():
    images = pictures()
    drawn = views.draw_views(24, torch.Generator().manual_seed(2))
    whole = views.apply_views(images, drawn)
    part = views.apply_views(images[1::2], drawn.select(slice(1, None, 2)))
    for a, b in zip(whole, part, strict=True):
        torch.testing.assert_close(a[1::2], b)


def rows(n=6, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).float()


def test_the_published_loss_is_its_formula():
    plain, jittered, target = rows(seed=0), rows(seed=1), rows(seed=2)
    expected = sum(torch.nn.MSELoss()(e.double(), target.double()).sqrt() for e in (plain, jittered)) / 2
    assert losses.distillation_loss(plain, jittered, target).item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_cosine_loss_is_one_minus_cosine_and_blind_to_length():
    plain, jittered, target = rows(seed=0), rows(seed=1), rows(seed=2)
    similarity = torch.nn.functional.cosine_similarity
    expected = 1 - (similarity(plain, target).mean() + similarity(jittered, target).mean()) / 2
    value = losses.distillation_loss(plain, jittered, target, "cosine")
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(losses.distillation_loss(plain * 7, jittered, target * 0.1, "cosine"), value)


def test_the_relational_loss_compares_all_pairs_and_has_the_targets_scale():
    embedding, target = rows(d=3), rows(seed=1)
    pairs = [(i, j) for i in range(6) for j in range(i)]
    ours, theirs = (torch.stack([(e[i] - e[j]).norm() for i, j in pairs]) for e in (embedding, target))
    torch.testing.assert_close(losses.relational(embedding, target), (ours - theirs).norm() / theirs.norm())
    assert losses.relational(target + 3, target) < 1e-6  # a shift keeps every distance
    assert losses.relational(0 * target, target).item() == pytest.approx(1)
    assert losses.relational(target / 2, target).item() == pytest.approx(0.5)  # shrinking does not pay
    torch.testing.assert_close(losses.relational(9 * embedding, 9 * target), losses.relational(embedding, target))


@pytest.mark.parametrize("kind", losses.LOSSES)
@pytest.mark.parametrize("case", ["equal", "zero", "one pair equal"])
def test_gradients_are_finite_where_roots_and_angles_are_not_defined(kind, case):
    target = rows()
    embedding = {"equal": target.clone(), "zero": torch.zeros(6, 5), "one pair equal": rows(seed=1)}[case]
    embedding[1] = embedding[0]
    embedding = embedding.requires_grad_()
    losses.distillation_loss(embedding, embedding, target, kind).backward()
    assert embedding.grad.isfinite().all() and embedding.grad.abs().max() < 10


@pytest.mark.parametrize("kind", losses.LOSSES)
def test_losses_have_the_gradients_of_finite_differences(kind):
    target = rows(seed=2).double()
    function = losses.LOSSES[kind]
    assert torch.autograd.gradcheck(lambda e: function(e, target), rows().double().requires_grad_())


def test_losses_refuse_what_they_cannot_compare():
    with pytest.raises(ValueError, match="unknown loss 'l1'; choose published, cosine, relational"):
        losses.distillation_loss(rows(), rows(), rows(), "l1")
    for kind in ("published", "cosine"):
        with pytest.raises(ValueError, match=r"the student gives 3 numbers, the teacher 5; .*out_features=5"):
            losses.distillation_loss(rows(d=3), rows(d=3), rows(), kind)
    with pytest.raises(ValueError, match="a batch of at least 2"):
        losses.relational(rows(1), rows(1))
    with pytest.raises(ValueError, match="all targets of a batch are the same"):
        losses.relational(rows(), torch.ones(6, 5))
