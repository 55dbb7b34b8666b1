"""check_images accepts the course's images only, and each refusal's fix works."""

import pytest
import torch

from course_lib.validation import TOLERANCE, check_images, check_pair

IMAGES = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05


@pytest.mark.parametrize(
    "images",
    [
        IMAGES,
        IMAGES.double(),
        IMAGES.half(),
        IMAGES.requires_grad_(False).clone().requires_grad_(),
        torch.zeros(1, 3, 1, 1),
        torch.ones(1, 3, 1, 1) + TOLERANCE / 2,
        torch.zeros(1, 3, 1, 1) - TOLERANCE / 2,
        IMAGES.to(memory_format=torch.channels_last),
    ],
)
def test_images_of_the_convention_pass(images):
    check_images(images)


@pytest.mark.parametrize(
    ("images", "message", "fix"),
    [
        (IMAGES * 255, "this looks like 0-255: pic / 255", lambda pic: pic / 255),
        ((IMAGES * 255).byte(), r"if it holds 0-255: pic.float\(\) / 255", lambda pic: pic.float() / 255),
        (IMAGES * 2 - 1, r"this looks like \[-1, 1\]: \(pic \+ 1\) / 2", lambda pic: (pic + 1) / 2),
        (IMAGES + 0.1, r"pic.clamp\(0, 1\)", lambda pic: pic.clamp(0, 1)),
        (IMAGES * 300, r"pic.clamp\(0, 1\)", lambda pic: pic.clamp(0, 1)),
        (IMAGES / torch.zeros(1), r"values in \[inf, inf\]", lambda pic: pic.clamp(0, 1)),
        (IMAGES[0], r"add the batch axis: pic\[None\]", lambda pic: pic[None]),
        (IMAGES[:, :1], r"pic.expand\(-1, 3, -1, -1\)", lambda pic: pic.expand(-1, 3, -1, -1)),
        (IMAGES.permute(0, 2, 3, 1), r"pic.permute\(0, 3, 1, 2\)", lambda pic: pic.permute(0, 3, 1, 2)),
    ],
)
def test_refusal_names_a_fix_that_works(images, message, fix):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        check_images(images, "pic")
    assert str(caught.value).startswith("pic ") and "\n" not in str(caught.value)
    check_images(fix(images), "pic")


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (IMAGES.numpy(), TypeError, "a ndarray, not a torch.Tensor"),
        (None, TypeError, "a NoneType, not a torch.Tensor"),
        (IMAGES[0, 0], ValueError, r"shape \(4, 5\); expected \(n, 3, h, w\)"),
        (IMAGES[:, [0, 0, 1, 2]], ValueError, "has 4 channels"),
        (IMAGES[:0], ValueError, "empty batch"),
        (IMAGES.clone().index_fill_(3, torch.tensor(2), float("nan")), ValueError, "contains NaN"),
    ],
)
def test_what_has_no_one_line_fix_is_refused_clearly(images, error, message, unchecked):
    with pytest.raises(error, match=message):
        check_images(images)


def test_size_below_the_minimum_is_refused():
    check_images(IMAGES, min_size=4)
    with pytest.raises(ValueError, match="images is 4 x 5 pixels; at least 5 x 5 is needed"):
        check_images(IMAGES, min_size=5)


def test_pair_must_have_one_shape():
    check_pair(IMAGES, IMAGES.flip(3))
    with pytest.raises(ValueError, match="the same number of images"):
        check_pair(IMAGES, IMAGES[:1])
    with pytest.raises(ValueError, match=r"a is .* but b is .*; resize or crop"):
        check_pair(IMAGES, IMAGES[..., :4], ("a", "b"))
    with pytest.raises(ValueError, match="b has values"):
        check_pair(IMAGES, IMAGES + 1, ("a", "b"))
