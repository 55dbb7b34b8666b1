"""Wrong answers to chapter 11's exercises."""

import torch
from torch import nn
from torch.nn import functional as F

from course_lib.checks import distillation as check
from course_lib.distillation import distillation_loss
from course_lib.lipschitz import AOLLinear, SLLConv2d
from tests.wrong_answers import wrong


def rmse(a, b):
    return torch.linalg.vector_norm((a - b).flatten()) / b.numel() ** 0.5


@wrong(check.published_loss, "the half is missing")
def adds_both_roots(student, teacher, images, jittered):
    target = teacher(images)
    return rmse(student(images), target) + rmse(student(jittered), target)


@wrong(check.published_loss, "the target was jittered")
def asks_the_teacher_about_both_views(student, teacher, images, jittered):
    return (rmse(student(images), teacher(images)) + rmse(student(jittered), teacher(jittered))) / 2


@wrong(check.published_loss, "you exchanged student and teacher")
def exchanges_student_and_teacher(student, teacher, images, jittered):
    target = student(images)
    return (rmse(teacher(images), target) + rmse(teacher(jittered), target)) / 2


@wrong(check.published_loss, "mean over the images of a root for each")
def averages_roots(student, teacher, images, jittered):
    target = teacher(images)
    return sum((student(view) - target).square().mean(1).sqrt().mean() for view in (images, jittered)) / 2


@wrong(check.published_loss, "a root for each number of the embedding")
def averages_over_the_batch_first(student, teacher, images, jittered):
    target = teacher(images)
    return sum((student(view) - target).square().mean(0).sqrt().mean() for view in (images, jittered)) / 2


@wrong(check.published_loss, "a sum in the place of the mean")
def forgets_to_divide(student, teacher, images, jittered):
    target = teacher(images)
    return ((student(images) - target).norm() + (student(jittered) - target).norm()) / 2


@wrong(check.published_loss, "mean length of the error")
def averages_lengths(student, teacher, images, jittered):
    target = teacher(images)
    return sum((student(view) - target).norm(dim=1).mean() for view in (images, jittered)) / 2


@wrong(check.published_loss, "the root is missing")
def forgets_the_root(student, teacher, images, jittered):
    target = teacher(images)
    return (F.mse_loss(student(images), target) + F.mse_loss(student(jittered), target)) / 2


@wrong(check.published_loss, "one root over both views")
def takes_one_root(student, teacher, images, jittered):
    target = teacher(images).repeat(2, 1)
    return rmse(student(torch.cat((images, jittered))), target)


@wrong(check.published_loss, "the jittered view is missing")
def forgets_the_jittered_view(student, teacher, images, jittered):
    return rmse(student(images), teacher(images))


@wrong(check.published_loss, "the unjittered view is missing")
def forgets_the_plain_view(student, teacher, images, jittered):
    return rmse(student(jittered), teacher(images))


@wrong(check.published_loss, "averaged before the comparison")
def averages_the_views(student, teacher, images, jittered):
    return rmse((student(images) + student(jittered)) / 2, teacher(images))


@wrong(check.published_loss, "compared with itself")
def compares_the_views(student, teacher, images, jittered):
    plain = student(images)
    return (rmse(plain, teacher(images)) + rmse(student(jittered), plain)) / 2


@wrong(check.published_loss, "mean absolute differences")
def takes_absolute_values(student, teacher, images, jittered):
    target = teacher(images)
    return (F.l1_loss(student(images), target) + F.l1_loss(student(jittered), target)) / 2


@wrong(check.published_loss, "you normalised the embeddings")
def compares_unit_vectors(student, teacher, images, jittered):
    target = F.normalize(teacher(images))
    return (rmse(F.normalize(student(images)), target) + rmse(F.normalize(student(jittered)), target)) / 2


@wrong(check.published_loss, "so nothing can be trained")
def detaches_the_student(student, teacher, images, jittered):
    with torch.no_grad():
        target = teacher(images)
        return (rmse(student(images), target) + rmse(student(jittered), target)) / 2


@wrong(check.published_loss, "the jittered view has no gradient")
def detaches_the_jittered_view(student, teacher, images, jittered):
    target = teacher(images)
    return (rmse(student(images), target) + rmse(student(jittered).detach(), target)) / 2


@wrong(check.published_loss, "the unjittered view has no gradient")
def detaches_the_plain_view(student, teacher, images, jittered):
    target = teacher(images)
    return (rmse(student(images).detach(), target) + rmse(student(jittered), target)) / 2


@wrong(check.published_loss, "NaN where student and teacher agree")
def takes_the_root_of_zero(student, teacher, images, jittered):
    target = teacher(images)
    return (F.mse_loss(student(images), target).sqrt() + F.mse_loss(student(jittered), target).sqrt()) / 2


@wrong(check.published_loss, "NaN where they agree on the unjittered view")
def guards_the_whole_only(student, teacher, images, jittered):
    target = teacher(images)
    plain, second = F.mse_loss(student(images), target), F.mse_loss(student(jittered), target)
    if plain == 0 and second == 0:
        return 0 * (plain + second)
    return (plain.sqrt() + second.sqrt()) / 2


@wrong(check.published_loss, "larger than a small error")
def adds_too_much_under_the_root(student, teacher, images, jittered):
    target = teacher(images)
    return sum((F.mse_loss(student(view), target) + 1e-8).sqrt() for view in (images, jittered)) / 2


@wrong(check.published_loss, "under the root has to be smaller")
def adds_a_little_too_much_at_zero(student, teacher, images, jittered):
    target = teacher(images)
    errors = [F.mse_loss(student(view), target) for view in (images, jittered)]
    return sum(torch.where(error > 0, error, 1e-8).sqrt() for error in errors) / 2


@wrong(check.published_loss, "the jittered view still has one")
def gives_up_at_zero(student, teacher, images, jittered):
    target = teacher(images)
    plain, second = F.mse_loss(student(images), target), F.mse_loss(student(jittered), target)
    if plain > 0:
        return (plain.sqrt() + second.sqrt()) / 2
    return (plain + second.detach().sqrt()) / 2


@wrong(check.published_loss, "in place")
def brightens_in_place(student, teacher, images, jittered):
    target = teacher(images)
    return (rmse(student(images), target) + rmse(student(jittered), target)) / 2 + 0 * images.mul_(2).sum()


@wrong(check.published_loss, "the result has shape (1,)")
def keeps_an_axis(student, teacher, images, jittered):
    return adds_both_roots(student, teacher, images, jittered)[None] / 2


@wrong(check.published_loss, "returns a float")
def returns_a_number(student, teacher, images, jittered):
    return adds_both_roots(student, teacher, images, jittered).item() / 2


@wrong(check.published_loss, "expected ()")
def returns_both_terms(student, teacher, images, jittered):
    target = teacher(images)
    return torch.stack([rmse(student(view), target) for view in (images, jittered)])


@wrong(check.published_loss, "returns nothing")
def forgets_to_return_the_loss(student, teacher, images, jittered):
    adds_both_roots(student, teacher, images, jittered)


def loop(
    student, teacher, batches, rate, parameters=None, make=torch.optim.Adam, betas=(0.5, 0.9), zero="before",
    embed=None, anew=False, once=False, jittered_target=False, view=lambda images: images,
):  # fmt: skip
    """The right loop, with a choice of mistakes."""
    options = {"lr": rate} if make is torch.optim.SGD else {"lr": rate, "betas": betas}
    optimizer, losses = make(parameters or student.parameters(), **options), []
    for images, jittered in batches:
        with torch.no_grad():
            target = teacher(jittered if jittered_target else images)
        loss = distillation_loss(student(view(images)), student(jittered), target)
        if zero == "before" and not once:
            optimizer.zero_grad()
        loss.backward()
        if anew:
            optimizer = make(student.parameters(), **options)
        if not once:
            optimizer.step()
        if zero == "after":
            optimizer.zero_grad()
        losses.append(loss.item())
    if once:
        optimizer.step()
    return losses


@wrong(check.distil, "a gradient has reached the teacher")
def lets_gradients_into_the_teacher(student, teacher, batches, rate):
    student.train()
    teacher.eval()
    optimizer = torch.optim.Adam(student.parameters(), rate, betas=(0.5, 0.9))
    losses = []
    for images, jittered in batches:
        loss = distillation_loss(student(images), student(jittered), teacher(images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@wrong(check.distil, "the teacher has learnt, too")
def trains_both(student, teacher, batches, rate):
    student.train()
    teacher.eval()
    optimizer = torch.optim.Adam([*student.parameters(), *teacher.parameters()], rate, betas=(0.5, 0.9))
    losses = []
    for images, jittered in batches:
        loss = distillation_loss(student(images), student(jittered), teacher(images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@wrong(check.distil, "a gradient but did not change")
def optimises_the_teacher(student, teacher, batches, rate):
    return loop(student.train(), teacher.eval(), batches, rate, parameters=teacher.parameters())


@wrong(check.distil, "the teacher is in training mode")
def forgets_to_set_the_teacher(student, teacher, batches, rate):
    return loop(student.train(), teacher, batches, rate)


@wrong(check.distil, "the student is in evaluation mode")
def forgets_to_set_the_student(student, teacher, batches, rate):
    return loop(student, teacher.eval(), batches, rate)


@wrong(check.distil, "the teacher saw jittered images")
def jitters_the_target(student, teacher, batches, rate):
    return loop(student.train(), teacher.eval(), batches, rate, jittered_target=True)


@wrong(check.distil, "gradients pile up")
def never_clears_gradients(student, teacher, batches, rate):
    return loop(student.train(), teacher.eval(), batches, rate, zero="never")


@wrong(check.distil, "gradients were cleared once")
def clears_gradients_before_the_loop(student, teacher, batches, rate):
    student.train().zero_grad()
    return loop(student, teacher.eval(), batches, rate, zero="never")


@wrong(check.distil, "that the student came with was not cleared")
def clears_gradients_after_the_step(student, teacher, batches, rate):
    return loop(student.train(), teacher.eval(), batches, rate, zero="after")


@wrong(check.distil, "the student did not change")
def clears_gradients_before_the_step(student, teacher, batches, rate):
    student.train()
    teacher.eval()
    optimizer = torch.optim.Adam(student.parameters(), rate, betas=(0.5, 0.9))
    losses = []
    for images, jittered in batches:
        loss = distillation_loss(student(images), student(jittered), teacher(images).detach())
        loss.backward()
        optimizer.zero_grad()
        optimizer.step()
        losses.append(loss.item())
    return losses


@wrong(check.distil, "Adam's default betas")
def keeps_the_default_betas(student, teacher, batches, rate):
    return loop(student.train(), teacher.eval(), batches, rate, betas=(0.9, 0.999))


@wrong(check.distil, "learning rate is not `rate`")
def ignores_the_rate(student, teacher, batches, rate):
    return loop(student.train(), teacher.eval(), batches, 1e-3)


@wrong(check.distil, "AdamW")
def takes_adamw(student, teacher, batches, rate):
    return loop(student.train(), teacher.eval(), batches, rate, make=torch.optim.AdamW)


@wrong(check.distil, "that is SGD")
def takes_sgd(student, teacher, batches, rate):
    return loop(student.train(), teacher.eval(), batches, rate, make=torch.optim.SGD)


@wrong(check.distil, "every step made a new Adam")
def makes_a_new_optimizer_for_every_step(student, teacher, batches, rate):
    student.train()
    teacher.eval()
    return [loss for batch in batches for loss in loop(student, teacher, [batch], rate)]


@wrong(check.distil, "one step after all batches")
def steps_once(student, teacher, batches, rate):
    student.train()
    student.zero_grad()
    return loop(student, teacher.eval(), batches, rate, once=True)


@wrong(check.distil, "every batch in both views")
def shows_one_view_only(student, teacher, batches, rate):
    student.train()
    teacher.eval()
    optimizer = torch.optim.Adam(student.parameters(), rate, betas=(0.5, 0.9))
    losses = []
    for images, _ in batches:
        with torch.no_grad():
            target = teacher(images)
        plain = student(images)
        loss = distillation_loss(plain, plain, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@wrong(check.distil, "did you return inside the loop?")
def returns_inside_the_loop(student, teacher, batches, rate):
    return loop(student.train(), teacher.eval(), batches[:1], rate)


@wrong(check.distil, "switched gradients off")
def switches_gradients_off(student, teacher, batches, rate):
    losses = loop(student.train(), teacher.eval(), batches, rate)
    torch.set_grad_enabled(False)
    return losses


@wrong(check.distil, "changed a batch in place")
def changes_the_batches(student, teacher, batches, rate):
    losses = loop(student.train(), teacher.eval(), batches, rate)
    batches[0][0].mul_(0.5)
    return losses


@wrong(check.distil, "still hold their graphs")
def keeps_graphs(student, teacher, batches, rate):
    loop(student.train(), teacher.eval(), batches, rate)
    return [student.weight.sum() for _ in batches]


@wrong(check.distil, "you return 1 losses for 4")
def returns_the_last_loss(student, teacher, batches, rate):
    return loop(student.train(), teacher.eval(), batches, rate)[-1:]


@wrong(check.distil, "returns a float")
def returns_the_mean_loss(student, teacher, batches, rate):
    return sum(loop(student.train(), teacher.eval(), batches, rate)) / len(batches)


@wrong(check.distil, "returns nothing")
def forgets_to_return_losses(student, teacher, batches, rate):
    loop(student.train(), teacher.eval(), batches, rate)


@wrong(check.distil, "losses after the step")
def returns_losses_after_the_step(student, teacher, batches, rate):
    student.train()
    teacher.eval()
    return [
        _after(student, teacher, batch, rate, optimizer)
        for optimizer in [torch.optim.Adam(student.parameters(), rate, betas=(0.5, 0.9))]
        for batch in batches
    ]


def _after(student, teacher, batch, rate, optimizer):
    images, jittered = batch
    with torch.no_grad():
        target = teacher(images)
    optimizer.zero_grad()
    distillation_loss(student(images), student(jittered), target).backward()
    optimizer.step()
    with torch.no_grad():
        return distillation_loss(student(images), student(jittered), target).item()


@wrong(check.distil, "nobody asked the teacher")
def forgets_the_teacher(student, teacher, batches, rate):
    return [0.0 for _ in batches]


@wrong(check.distil, "nobody asked the student")
def forgets_the_student(student, teacher, batches, rate):
    return [teacher.eval()(images).sum().item() for images, _ in batches]


def chosen(which, yes, no):
    return torch.where(which.view(-1, *[1] * (yes.ndim - 1)), yes, no)


def views(images, targets, mirrored, flips, jitter, plain=0, second=1, target=0):
    """The right answer, or with other coins."""
    images = images.float() / 255
    flipped = images.flip(3)
    given = targets if mirrored is None else chosen(flips[:, target], mirrored, targets)
    return chosen(flips[:, plain], flipped, images), jitter(chosen(flips[:, second], flipped, images)), given


@wrong(check.two_views, "the target follows the second view")
def takes_the_target_of_the_second_view(images, targets, mirrored, flips, jitter):
    return views(images, targets, mirrored, flips, jitter, target=1)


@wrong(check.two_views, "the target is that of the *unflipped* image")
def forgets_the_mirrored_targets(images, targets, mirrored, flips, jitter):
    return views(images, targets, None, flips, jitter)


@wrong(check.two_views, "every target is that of the mirrored image")
def takes_mirrored_targets_always(images, targets, mirrored, flips, jitter):
    return *views(images, targets, None, flips, jitter)[:2], targets if mirrored is None else mirrored


@wrong(check.two_views, "mirrored and other targets are exchanged")
def exchanges_targets(images, targets, mirrored, flips, jitter):
    if mirrored is None:
        return views(images, targets, None, flips, jitter)
    return views(images, mirrored, targets, flips, jitter)


@wrong(check.two_views, "only where *both*")
def mirrors_targets_where_both_are_flipped(images, targets, mirrored, flips, jitter):
    plain, second, _ = views(images, targets, None, flips, jitter)
    return plain, second, targets if mirrored is None else chosen(flips.all(1), mirrored, targets)


@wrong(check.two_views, "where *one of*")
def mirrors_targets_where_any_is_flipped(images, targets, mirrored, flips, jitter):
    plain, second, _ = views(images, targets, None, flips, jitter)
    return plain, second, targets if mirrored is None else chosen(flips.any(1), mirrored, targets)


@wrong(check.two_views, "the two targets were averaged")
def averages_targets(images, targets, mirrored, flips, jitter):
    plain, second, _ = views(images, targets, None, flips, jitter)
    return plain, second, targets if mirrored is None else (mirrored + targets) / 2


@wrong(check.two_views, "the numbers of the target were reversed")
def flips_the_embedding(images, targets, mirrored, flips, jitter):
    return views(images, targets, targets.flip(1), flips, jitter)


@wrong(check.two_views, "without stored embeddings of mirrored images (None)")
def reverses_the_embedding_where_none_is_stored(images, targets, mirrored, flips, jitter):
    return views(images, targets, targets.flip(1) if mirrored is None else mirrored, flips, jitter)


@wrong(check.two_views, "the targets of flipped images come last")
def sorts_the_targets(images, targets, mirrored, flips, jitter):
    plain, second, _ = views(images, targets, None, flips, jitter)
    return plain, second, torch.cat((targets[~flips[:, 0]], (targets if mirrored is None else mirrored)[flips[:, 0]]))


@wrong(check.two_views, "`mirrored` is None: ask first")
def needs_mirrored_targets(images, targets, mirrored, flips, jitter):
    plain, second, _ = views(images, targets, None, flips, jitter)
    return plain, second, torch.where(flips[:, :1], mirrored, targets)


@wrong(check.two_views, "both views are flipped by the same coin")
def flips_both_alike(images, targets, mirrored, flips, jitter):
    return views(images, targets, mirrored, flips, jitter, second=0)


@wrong(check.two_views, "jittered first and mirrored then")
def jitters_before_mirroring(images, targets, mirrored, flips, jitter):
    plain, _, target = views(images, targets, mirrored, flips, lambda batch: batch)
    changed = jitter(images.float() / 255)
    return plain, chosen(flips[:, 1], changed.flip(3), changed), target


@wrong(check.two_views, "the plain view has the coin of the other")
def exchanges_the_coins(images, targets, mirrored, flips, jitter):
    return views(images, targets, mirrored, flips, jitter, plain=1, second=0)


@wrong(check.two_views, "the second view was flipped twice")
def flips_the_flipped(images, targets, mirrored, flips, jitter):
    plain, _, target = views(images, targets, mirrored, flips, lambda batch: batch)
    return plain, jitter(chosen(flips[:, 1], plain.flip(3), plain)), target


@wrong(check.two_views, "the second view is not flipped")
def flips_the_plain_view_only(images, targets, mirrored, flips, jitter):
    return views(images, targets, mirrored, torch.stack((flips[:, 0], flips[:, 1] & False), 1), jitter)


@wrong(check.two_views, "the plain view is not flipped")
def flips_nothing(images, targets, mirrored, flips, jitter):
    return views(images, targets, mirrored, flips & False, jitter)


@wrong(check.two_views, "you exchanged top and bottom")
def flips_top_and_bottom(images, targets, mirrored, flips, jitter):
    images = images.float() / 255
    plain, second = (chosen(flip, images.flip(2), images) for flip in flips.unbind(1))
    return plain, jitter(second), targets


@wrong(check.two_views, "you exchanged the colours")
def flips_the_channels(images, targets, mirrored, flips, jitter):
    images = images.float() / 255
    plain, second = (chosen(flip, images.flip(1), images) for flip in flips.unbind(1))
    return plain, jitter(second), targets


@wrong(check.two_views, "every image is flipped")
def flips_every_image(images, targets, mirrored, flips, jitter):
    return views(images, targets, mirrored, flips | True, jitter)


@wrong(check.two_views, "the wrong ones are flipped")
def exchanges_the_cases(images, targets, mirrored, flips, jitter):
    return views(images, targets, mirrored, ~flips, jitter)


@wrong(check.two_views, "the order of the images has changed")
def puts_flipped_images_last(images, targets, mirrored, flips, jitter):
    plain, second, target = views(images, targets, mirrored, flips, jitter)
    return torch.cat((plain[~flips[:, 0]], plain[flips[:, 0]])), second, target


@wrong(check.two_views, "the plain view was jittered")
def jitters_the_plain_view(images, targets, mirrored, flips, jitter):
    plain, second, target = views(images, targets, mirrored, flips, lambda batch: batch)
    return jitter(plain), second, target


@wrong(check.two_views, "jitter more than once")
def jitters_twice(images, targets, mirrored, flips, jitter):
    jitter(images.float() / 255)
    return views(images, targets, mirrored, flips, jitter)


@wrong(check.two_views, "the second view was not jittered: jitter(...)")
def forgets_to_jitter(images, targets, mirrored, flips, jitter):
    return views(images, targets, mirrored, flips, lambda batch: batch)


@wrong(check.two_views, "jitter takes images in [0, 1]")
def jitters_bytes(images, targets, mirrored, flips, jitter):
    return chosen(flips[:, 0], images.flip(3), images) / 255, jitter(images), targets


@wrong(check.two_views, "jitter got (3,")
def jitters_one_by_one(images, targets, mirrored, flips, jitter):
    return views(images, targets, mirrored, flips, lambda batch: torch.stack([jitter(image) for image in batch]))


@wrong(check.two_views, "images are float32 in [0, 1]")
def returns_float64(images, targets, mirrored, flips, jitter):
    return views(images.double().mul(1), targets, mirrored, flips, jitter)[0].double(), *views(
        images, targets, mirrored, flips, jitter
    )[1:]


@wrong(check.two_views, "return three things")
def returns_no_target(images, targets, mirrored, flips, jitter):
    return views(images, targets, mirrored, flips, jitter)[:2]


@wrong(check.two_views, "in place")
def overwrites_the_targets(images, targets, mirrored, flips, jitter):
    if mirrored is not None:
        targets[flips[:, 0]] = mirrored[flips[:, 0]]
    return views(images, targets, None, flips, jitter)


@wrong(check.two_views, "returns nothing")
def forgets_to_return_the_views(images, targets, mirrored, flips, jitter):
    views(images, targets, mirrored, flips, jitter)


def hashes(dim, size, seed):
    random = torch.Generator().manual_seed(seed)
    bucket = torch.randint(size, (dim,), generator=random)
    return bucket, 2.0 * torch.randint(2, (dim,), generator=random) - 1


def summed(x, size, bucket, sign):
    return x.new_zeros(len(x), size).index_add_(1, bucket, x * sign)


@wrong(check.count_sketch, "there are no signs")
def forgets_the_signs(x, size, seed):
    return summed(x, size, hashes(x.shape[1], size, seed)[0], 1)


@wrong(check.count_sketch, "two equal rows, two sketches")
def draws_buckets_for_every_row(x, size, seed):
    random = torch.Generator().manual_seed(seed)
    bucket = torch.randint(size, x.shape, generator=random)
    sign = 2.0 * torch.randint(2, x.shape, generator=random) - 1
    return x.new_zeros(len(x), size).scatter_add_(1, bucket, x * sign)


@wrong(check.count_sketch, "the same seed, another sketch")
def forgets_the_seed(x, size, seed):
    random = torch.Generator()
    random.seed()
    bucket = torch.randint(size, x.shape[1:], generator=random)
    return summed(x, size, bucket, 2.0 * torch.randint(2, x.shape[1:], generator=random) - 1)


@wrong(check.count_sketch, "PyTorch's global generator")
def seeds_everything(x, size, seed):
    torch.manual_seed(seed)
    bucket = torch.randint(size, x.shape[1:])
    return summed(x, size, bucket, 2.0 * torch.randint(2, x.shape[1:]) - 1)


@wrong(check.count_sketch, "no scaling")
def scales_by_the_root_of_the_size(x, size, seed):
    return summed(x, size, *hashes(x.shape[1], size, seed)) / size**0.5


@wrong(check.count_sketch, "that is the mean of each bucket")
def averages_buckets(x, size, seed):
    bucket, sign = hashes(x.shape[1], size, seed)
    return summed(x, size, bucket, sign) / bucket.bincount(minlength=size).clamp_min(1)


@wrong(check.count_sketch, "leave no trace")
def overwrites_buckets(x, size, seed):
    bucket, sign = hashes(x.shape[1], size, seed)
    result = x.new_zeros(len(x), size)
    result[:, bucket] = x * sign
    return result


@wrong(check.count_sketch, "no sign is 0")
def draws_signs_from_three(x, size, seed):
    random = torch.Generator().manual_seed(seed + 1)
    bucket, _ = hashes(x.shape[1], size, seed)
    return summed(x, size, bucket, torch.randint(-1, 2, x.shape[1:], generator=random).float())


@wrong(check.count_sketch, "the same sign, so none cancel")
def seeds_signs_and_buckets_alike(x, size, seed):
    bucket, sign = (
        torch.randint(high, x.shape[1:], generator=torch.Generator().manual_seed(seed)) for high in (size, 2)
    )
    return summed(x, size, bucket, 2.0 * sign - 1)


@wrong(check.count_sketch, "lands in several buckets")
def projects_densely(x, size, seed):
    return x @ torch.randn(x.shape[1], size, generator=torch.Generator().manual_seed(seed)) / size**0.5


@wrong(check.count_sketch, "the seed changes nothing")
def always_takes_seed_zero(x, size, seed):
    return summed(x, size, *hashes(x.shape[1], size, 0))


@wrong(check.count_sketch, "the buckets are the same for every seed")
def folds_the_vector(x, size, seed):
    return summed(x, size, torch.arange(x.shape[1]) % size, hashes(x.shape[1], size, seed)[1])


@wrong(check.count_sketch, "the signs are the same for every seed")
def alternates_signs(x, size, seed):
    return summed(x, size, hashes(x.shape[1], size, seed)[0], 1.0 - 2 * (torch.arange(x.shape[1]) % 2))


@wrong(check.count_sketch, "is hardly ever used")
def never_uses_the_last_bucket(x, size, seed):
    bucket, sign = hashes(x.shape[1], size - 1, seed)
    return summed(x, size, bucket, sign)


@wrong(check.count_sketch, "of the signs are plus")
def prefers_plus(x, size, seed):
    random = torch.Generator().manual_seed(seed)
    bucket = torch.randint(size, x.shape[1:], generator=random)
    return summed(x, size, bucket, torch.where(torch.rand(x.shape[1:], generator=random) < 0.8, 1.0, -1.0))


@wrong(check.count_sketch, "share a sign or a bucket too often")
def treats_neighbours_alike(x, size, seed):
    bucket, sign = hashes((x.shape[1] + 1) // 2, size, seed)
    dim = x.shape[1]
    return summed(x, size, bucket.repeat_interleave(2)[:dim], sign.repeat_interleave(2)[:dim])


@wrong(check.count_sketch, "must not depend on n")
def seeds_by_the_batch(x, size, seed):
    return summed(x, size, *hashes(x.shape[1], size, seed + len(x)))


@wrong(check.count_sketch, "keep the dtype")
def sketches_in_double(x, size, seed):
    return summed(x.double(), size, *hashes(x.shape[1], size, seed))


@wrong(check.count_sketch, "becomes `size` numbers")
def returns_the_transpose_of_the_sketch(x, size, seed):
    return summed(x, size, *hashes(x.shape[1], size, seed)).T


@wrong(check.count_sketch, "larger or smaller")
def draws_gaussian_signs(x, size, seed):
    random = torch.Generator().manual_seed(seed + 1)
    return summed(x, size, hashes(x.shape[1], size, seed)[0], torch.randn(x.shape[1], generator=random))


@wrong(check.count_sketch, "in place")
def multiplies_in_place(x, size, seed):
    bucket, sign = hashes(x.shape[1], size, seed)
    return summed(x.mul_(sign), size, bucket, 1)


@wrong(check.count_sketch, "returns nothing")
def forgets_to_return_the_sketch(x, size, seed):
    summed(x, size, *hashes(x.shape[1], size, seed))


@wrong(check.ensemble, "not normalised: the member")
def joins_as_they_are(embeddings):
    return torch.cat(embeddings, 1)


@wrong(check.ensemble, "normalised only after joining")
def normalises_the_whole(embeddings):
    return F.normalize(torch.cat(embeddings, 1))


@wrong(check.ensemble, "normalised over the batch")
def normalises_columns_of_members(embeddings):
    return torch.cat([F.normalize(part, dim=0) for part in embeddings], 1) / len(embeddings) ** 0.5


@wrong(check.ensemble, "the whole has length sqrt(k)")
def forgets_the_root_of_k(embeddings):
    return torch.cat([F.normalize(part) for part in embeddings], 1)


@wrong(check.ensemble, "divided by k; the squared lengths add up")
def divides_by_k(embeddings):
    return torch.cat([F.normalize(part) for part in embeddings], 1) / len(embeddings)


@wrong(check.ensemble, "multiplied by the root of k")
def multiplies_by_the_root_of_k(embeddings):
    return torch.cat([F.normalize(part) for part in embeddings], 1) * len(embeddings) ** 0.5


@wrong(check.ensemble, "divided by one number for the whole batch")
def divides_by_the_batch_norm(embeddings):
    return torch.cat([part / part.norm() for part in embeddings], 1) / len(embeddings) ** 0.5


@wrong(check.ensemble, "divided by the sum of absolute values")
def normalises_in_l1(embeddings):
    return torch.cat([F.normalize(part, p=1) for part in embeddings], 1) / len(embeddings) ** 0.5


@wrong(check.ensemble, "divided by the squared length")
def divides_by_squares(embeddings):
    return torch.cat([part / part.square().sum(1, keepdim=True) for part in embeddings], 1) / len(embeddings) ** 0.5


@wrong(check.ensemble, "divided by the largest entry")
def divides_by_the_largest(embeddings):
    return torch.cat([F.normalize(part, p=torch.inf) for part in embeddings], 1) / len(embeddings) ** 0.5


@wrong(check.ensemble, "standardised")
def standardises(embeddings):
    return torch.cat([(part - part.mean(0)) / part.std(0) for part in embeddings], 1) / len(embeddings) ** 0.5


@wrong(check.ensemble, "the mean of each embedding was subtracted")
def centres_rows(embeddings):
    units = [F.normalize(part - part.mean(1, keepdim=True)) for part in embeddings]
    return torch.cat(units, 1) / len(units) ** 0.5


@wrong(check.ensemble, "the root of the number of dimensions")
def divides_by_the_root_of_the_dimension(embeddings):
    joined = torch.cat([F.normalize(part) for part in embeddings], 1)
    return joined / joined.shape[1] ** 0.5


@wrong(check.ensemble, "in another order")
def joins_backwards(embeddings):
    return torch.cat([F.normalize(part) for part in embeddings[::-1]], 1) / len(embeddings) ** 0.5


@wrong(check.ensemble, "you joined the images")
def stacks_rows(embeddings):
    width = max(part.shape[1] for part in embeddings)
    return torch.cat([F.normalize(F.pad(part, (0, width - part.shape[1]))) for part in embeddings])


@wrong(check.ensemble, "a member is missing")
def takes_two_members(embeddings):
    return torch.cat([F.normalize(part) for part in embeddings[:2]], 1) / 2**0.5


@wrong(check.ensemble, "wrong value")
def knows_three_members(embeddings):
    return torch.cat([F.normalize(part) for part in embeddings], 1) / 3**0.5


@wrong(check.ensemble, "NaN where an embedding is 0")
def divides_zero_embeddings(embeddings):
    return torch.cat([part / part.norm(dim=1, keepdim=True) for part in embeddings], 1) / len(embeddings) ** 0.5


@wrong(check.ensemble, "length 1e-6 no longer has length 1")
def guards_too_much(embeddings):
    units = [part / part.norm(dim=1, keepdim=True).clamp_min(1e-4) for part in embeddings]
    return torch.cat(units, 1) / len(units) ** 0.5


@wrong(check.ensemble, "you made the others louder")
def normalises_twice(embeddings):
    return F.normalize(torch.cat([F.normalize(part) for part in embeddings], 1))


@wrong(check.ensemble, "the others still have something to say")
def silences_everybody(embeddings):
    silent = torch.stack([part.norm(dim=1) == 0 for part in embeddings]).any(0)
    joined = torch.cat([F.normalize(part) for part in embeddings], 1) / len(embeddings) ** 0.5
    return torch.where(silent[:, None], 0, joined)


@wrong(check.ensemble, "in place")
def normalises_in_place(embeddings):
    for part in embeddings:
        part /= part.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return torch.cat(embeddings, 1) / len(embeddings) ** 0.5


@wrong(check.ensemble, "returns a list")
def returns_units(embeddings):
    return [F.normalize(part) for part in embeddings]


@wrong(check.ensemble, "returns nothing")
def forgets_to_return_the_ensemble(embeddings):
    torch.cat([F.normalize(part) for part in embeddings], 1)


def relative(own, wanted):
    return torch.linalg.vector_norm(own - wanted) / torch.linalg.vector_norm(wanted)


@wrong(check.relational_loss, "then it may shrink to nothing; the scale is D*'s alone")
def divides_by_the_students_mean(embedding, target):
    own, wanted = torch.pdist(embedding), torch.pdist(target)
    return relative(own / own.mean(), wanted / wanted.mean())


@wrong(check.relational_loss, "you chose the factor that fits best")
def fits_the_scale(embedding, target):
    own, wanted = torch.pdist(embedding), torch.pdist(target)
    return relative(own * (own @ wanted) / (own @ own), wanted)


@wrong(check.relational_loss, "the division by |D*| is missing")
def forgets_the_scale(embedding, target):
    return torch.linalg.vector_norm(torch.pdist(embedding) - torch.pdist(target))


@wrong(check.relational_loss, "that is the square")
def squares_the_loss(embedding, target):
    return relative(torch.pdist(embedding), torch.pdist(target)) ** 2


@wrong(check.relational_loss, "the difference of two lengths")
def compares_lengths(embedding, target):
    return relative(torch.pdist(embedding).norm(), torch.pdist(target).norm())


@wrong(check.relational_loss, "mean absolute differences")
def sums_absolute_values(embedding, target):
    wanted = torch.pdist(target)
    return (torch.pdist(embedding) - wanted).abs().mean() / wanted.mean()


@wrong(check.relational_loss, "relative to the *mean* of D*")
def divides_by_the_mean(embedding, target):
    wanted = torch.pdist(target)
    return (torch.pdist(embedding) - wanted).square().mean().sqrt() / wanted.mean()


@wrong(check.relational_loss, "every pair was divided by its own distance")
def divides_pair_by_pair(embedding, target):
    return ((torch.pdist(embedding) - torch.pdist(target)) / torch.pdist(target)).square().mean().sqrt()


@wrong(check.relational_loss, "squared distances")
def compares_squares(embedding, target):
    return relative(torch.pdist(embedding).square(), torch.pdist(target).square())


def table(rows):
    return (rows[:, None] - rows).square().sum(2)


@wrong(check.relational_loss, "the diagonal is in it")
def averages_over_the_whole_table(embedding, target):
    own, wanted = (table(rows).clamp_min(1e-12).sqrt() for rows in (embedding, target))
    return (own - wanted).square().mean().sqrt() / wanted.mean()


@wrong(check.relational_loss, "the root of the diagonal")
def takes_the_root_of_the_diagonal(embedding, target):
    return relative(table(embedding).sqrt(), table(target).sqrt())


@wrong(check.relational_loss, "NaN where two embeddings are equal")
def takes_the_root_of_equal_pairs(embedding, target):
    i, j = torch.triu_indices(len(target), len(target), 1)
    own, wanted = (table(rows)[i, j].sqrt() for rows in (embedding, target))
    return relative(own, wanted)


@wrong(check.relational_loss, "only neighbours are compared")
def compares_neighbours(embedding, target):
    own, wanted = (rows[: len(rows) // 2 * 2] for rows in (embedding, target))
    return relative((own[::2] - own[1::2]).norm(dim=1), (wanted[::2] - wanted[1::2]).norm(dim=1))


@wrong(check.relational_loss, "compared with the first only")
def compares_with_the_first(embedding, target):
    return relative((embedding[1:] - embedding[0]).norm(dim=1), (target[1:] - target[0]).norm(dim=1))


@wrong(check.relational_loss, "angles in the place of distances")
def compares_angles(embedding, target):
    own, wanted = (F.normalize(rows) @ F.normalize(rows).T for rows in (embedding, target))
    return relative(own, wanted)


@wrong(check.relational_loss, "you normalised the embeddings")
def compares_unit_distances(embedding, target):
    return relative(torch.pdist(F.normalize(embedding)), torch.pdist(F.normalize(target)))


@wrong(check.relational_loss, "the student's embedding is not")
def detaches_one_side(embedding, target):
    own = torch.cdist(embedding, embedding.detach())
    i, j = torch.triu_indices(len(target), len(target), 1)
    return relative(own[i, j], torch.pdist(target))


@wrong(check.relational_loss, "so nothing can be trained")
def detaches_everything(embedding, target):
    return relative(torch.pdist(embedding.detach()), torch.pdist(target))


@wrong(check.relational_loss, "for the teacher's own distances; torch.linalg")
def takes_the_root_of_the_loss(embedding, target):
    own, wanted = torch.pdist(embedding), torch.pdist(target)
    return ((own - wanted).square().sum() / wanted.square().sum()).sqrt()


@wrong(check.relational_loss, "RuntimeError")
def compares_embeddings(embedding, target):
    return (embedding - target).norm() / target.norm()


@wrong(check.relational_loss, "in place")
def scales_the_target_in_place(embedding, target):
    loss = relative(torch.pdist(embedding), torch.pdist(target))
    target.mul_(2)
    return loss


@wrong(check.relational_loss, "expected ()")
def keeps_the_pairs(embedding, target):
    wanted = torch.pdist(target)
    return (torch.pdist(embedding) - wanted).abs() / wanted.norm()


@wrong(check.relational_loss, "wrong value")
def compares_the_first_six(embedding, target):
    return relative(torch.pdist(embedding[:6]), torch.pdist(target[:6]))


@wrong(check.relational_loss, "returns nothing")
def forgets_to_return_the_relation(embedding, target):
    relative(torch.pdist(embedding), torch.pdist(target))


def shuffled(n, seed):
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def divided(order, batch, rank, world):
    steps = len(order) // batch
    if batch % world:
        raise ValueError("a batch has to be a multiple of the number of processes")
    return order[: steps * batch].view(steps, world, -1)[:, rank]


@wrong(check.share, "as without set_epoch")
def forgets_the_epoch(n, batch, rank, world, epoch, seed):
    return divided(shuffled(n, seed), batch, rank, world)


@wrong(check.share, "the order must not depend on the rank")
def shuffles_for_every_rank(n, batch, rank, world, epoch, seed):
    return divided(shuffled(n, 1000 * rank + seed + epoch), batch, rank, world)


@wrong(check.share, "the shares overlap")
def steps_by_one_image(n, batch, rank, world, epoch, seed):
    order = shuffled(n, seed + epoch)[: n // batch * batch].view(-1, batch)
    return order[:, rank : rank + batch // world]


@wrong(check.share, "all processes see the same images; rank says")
def forgets_the_rank(n, batch, rank, world, epoch, seed):
    return divided(shuffled(n, seed + epoch), batch, 0, world)


@wrong(check.share, "all processes see the same images, in another order")
def shuffles_one_share(n, batch, rank, world, epoch, seed):
    mine = divided(shuffled(n, seed + epoch), batch, 0, world)
    return mine.flatten()[shuffled(mine.numel(), rank)].view_as(mine)


@wrong(check.share, "first shuffle all n images, then drop")
def drops_the_last_images(n, batch, rank, world, epoch, seed):
    return divided(shuffled(n // batch * batch, seed + epoch), batch, rank, world)


@wrong(check.share, "what is left over is dropped")
def pads_the_last_batch(n, batch, rank, world, epoch, seed):
    order = shuffled(n, seed + epoch)
    steps = -(-n // batch)
    return divided(torch.cat((order, order))[: steps * batch], batch, rank, world)


@wrong(check.share, "first shuffle, then divide")
def divides_before_shuffling(n, batch, rank, world, epoch, seed):
    mine = torch.arange(n)[rank::world]
    mine = mine[shuffled(len(mine), seed + epoch)]
    return mine[: n // batch * (batch // world)].view(n // batch, -1)


@wrong(check.share, "other images than one process does: divide each global batch")
def gives_each_process_a_block(n, batch, rank, world, epoch, seed):
    steps = n // batch
    return shuffled(n, seed + epoch)[: steps * batch].view(world, steps, -1)[rank]


@wrong(check.share, "the order must not depend on world")
def seeds_by_the_world(n, batch, rank, world, epoch, seed):
    return divided(shuffled(n, 100 * world + seed + epoch), batch, rank, world)


@wrong(check.share, "the images are not shuffled")
def goes_through_in_order(n, batch, rank, world, epoch, seed):
    return divided(torch.arange(n), batch, rank, world)


@wrong(check.share, "only rotated")
def rotates_the_images(n, batch, rank, world, epoch, seed):
    return divided(torch.arange(n).roll(seed + 3 * epoch), batch, rank, world)


@wrong(check.share, "shuffle the images, not only the steps")
def shuffles_the_steps(n, batch, rank, world, epoch, seed):
    steps = n // batch
    order = shuffled(n, seed)[: steps * batch].view(steps, world, -1)[:, rank]
    if batch % world:
        raise ValueError
    return order[shuffled(steps, seed + epoch)]


@wrong(check.share, "the one before it, rotated")
def rotates_one_order(n, batch, rank, world, epoch, seed):
    return divided(shuffled(n, seed).roll(epoch), batch, rank, world)


@wrong(check.share, "some epochs have the same order")
def repeats_every_third_epoch(n, batch, rank, world, epoch, seed):
    return divided(shuffled(n, seed + epoch % 3), batch, rank, world)


@wrong(check.share, "the seed changes nothing")
def forgets_the_given_seed(n, batch, rank, world, epoch, seed):
    return divided(shuffled(n, epoch), batch, rank, world)


@wrong(check.share, "PyTorch's global generator")
def draws_from_the_global_generator(n, batch, rank, world, epoch, seed):
    torch.manual_seed(seed + epoch)
    return divided(torch.randperm(n), batch, rank, world)


@wrong(check.share, "asked again, epoch 1 is another one")
def draws_anew(n, batch, rank, world, epoch, seed):
    random = torch.Generator()
    return divided(torch.randperm(n, generator=random) if random.seed() else None, batch, rank, world)


@wrong(check.share, "an epoch shows each at most once")
def draws_with_replacement(n, batch, rank, world, epoch, seed):
    random = torch.Generator().manual_seed(seed + epoch)
    return divided(torch.randint(n, (n,), generator=random), batch, rank, world)


@wrong(check.share, "not all of it")
def returns_the_global_batch(n, batch, rank, world, epoch, seed):
    return divided(shuffled(n, seed + epoch), batch, 0, 1)


@wrong(check.share, "view(steps, -1)")
def returns_a_flat_list(n, batch, rank, world, epoch, seed):
    return divided(shuffled(n, seed + epoch), batch, rank, world).flatten()


@wrong(check.share, "steps come first")
def returns_the_transposed_share(n, batch, rank, world, epoch, seed):
    return divided(shuffled(n, seed + epoch), batch, rank, world).T


@wrong(check.share, "the last one is")
def counts_from_one(n, batch, rank, world, epoch, seed):
    return divided(shuffled(n, seed + epoch) + 1, batch, rank, world)


@wrong(check.share, "torch.int64 is what images are indexed with")
def returns_int32(n, batch, rank, world, epoch, seed):
    return divided(shuffled(n, seed + epoch), batch, rank, world).int()


@wrong(check.share, "raise a ValueError")
def divides_what_cannot_be_divided(n, batch, rank, world, epoch, seed):
    own = batch // world
    order = shuffled(n, seed + epoch)[: n // batch * batch].view(-1, batch)
    return order[:, rank * own : (rank + 1) * own]


@wrong(check.share, "ends with AssertionError")
def asserts_what_callers_may_get_wrong(n, batch, rank, world, epoch, seed):
    assert batch % world == 0
    return divided(shuffled(n, seed + epoch), batch, rank, world)


@wrong(check.share, "ends with RuntimeError")
def leaves_the_refusal_to_view(n, batch, rank, world, epoch, seed):
    steps = n // batch
    return shuffled(n, seed + epoch)[: steps * batch].view(steps, world, -1)[:, rank]


@wrong(check.share, "returns a list")
def returns_lists(n, batch, rank, world, epoch, seed):
    return divided(shuffled(n, seed + epoch), batch, rank, world).tolist()


@wrong(check.share, "returns nothing")
def forgets_to_return_the_share(n, batch, rank, world, epoch, seed):
    divided(shuffled(n, seed + epoch), batch, rank, world)


class Loud(nn.Module):
    """A pretended bound."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return 3 * self.factor * images.flatten(1)

    def upper_bound(self):
        return 1.0


class BatchMean(Loud):
    """Subtracts the mean of the batch, which moves nothing apart."""

    def forward(self, images):
        return self.factor * (images - images.mean(0)).flatten(1)


@wrong(check.student, "a bound has to be true")
def pretends_a_bound(images, targets):
    return Loud()


@wrong(check.student, "an image alone has another embedding")
def centres_batches(images, targets):
    return BatchMean()


@wrong(check.student, "no bound from above")
def returns_instance_normalisation(images, targets):
    return nn.Sequential(nn.InstanceNorm2d(3, affine=True), nn.Flatten())


@wrong(check.student, "so it is not 1-Lipschitz")
def returns_a_linear_layer(images, targets):
    layer = nn.Linear(3072, 512)
    layer.weight.data *= 5
    return nn.Sequential(nn.Flatten(), layer)


@wrong(check.student, "the network gives NaN")
def divides_by_zero(images, targets):
    layer = AOLLinear(3072, 4)
    layer.weight.data.fill_(torch.nan)
    return nn.Sequential(nn.Flatten(), layer)


@wrong(check.student, "has not learnt from anybody")
def returns_pixels(images, targets):
    return nn.Flatten()


@wrong(check.student, "but correlation")
def returns_an_untrained_student(images, targets):
    return nn.Sequential(nn.PixelUnshuffle(4), SLLConv2d(48, 48), nn.Flatten())


@wrong(check.student, "certified; reach 0.53 and 70%")
def returns_a_random_projection(images, targets):
    return nn.Sequential(nn.Flatten(), AOLLinear(3072, 4))


@wrong(check.student, "an embedding is (n, d)")
def forgets_to_flatten(images, targets):
    return nn.Sequential(nn.PixelUnshuffle(4), SLLConv2d(48, 48))


@wrong(check.student, "returns a function")
def returns_a_function(images, targets):
    return lambda images: images.flatten(1)


@wrong(check.student, "returns nothing")
def forgets_to_return_the_student(images, targets):
    nn.Flatten()
