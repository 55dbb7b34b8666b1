"""The shared figures draw what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from course_lib.plots import bars, draw_image, show


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_images_and_maps_are_shown_pixel_by_pixel_with_their_titles():
    colour, grey = torch.rand(3, 4, 5), torch.rand(4, 5)
    figure = show([colour, colour[None], grey], ["a", "b", "c"], columns=2)
    drawn = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in drawn] == ["a", "b", "c"]
    assert len(figure.axes) == 4 and not any(axis.axison for axis in figure.axes)
    for axis, expected in zip(drawn, [colour.permute(1, 2, 0), colour.permute(1, 2, 0), grey], strict=True):
        np.testing.assert_allclose(axis.images[0].get_array(), expected)


def test_gradients_and_half_precision_can_be_drawn():
    show([torch.rand(3, 4, 4, requires_grad=True), torch.rand(4, 4, dtype=torch.bfloat16)])


@pytest.mark.parametrize(
    ("images", "titles", "message"),
    [
        ([], [], "no images to show"),
        ([torch.rand(3, 4, 4)], ["a", "b"], "2 titles for 1 images"),
        ([torch.rand(2, 4, 4)], [], r"cannot draw a tensor of shape \(2, 4, 4\)"),
        ([torch.rand(2, 3, 4, 4)], [], r"cannot draw a tensor of shape \(2, 3, 4, 4\)"),
    ],
)
def test_what_cannot_be_shown_is_refused(images, titles, message):
    with pytest.raises(ValueError, match=message):
        show(images, titles)


def test_bars_carry_their_names_and_numbers_the_first_on_top():
    axis = plt.figure().subplots()
    bars(axis, ["one", "two"], torch.tensor([0.1234, 2.0]), label="distance")
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([0.1234, 2.0])
    assert [text.get_text() for text in axis.texts] == ["0.123", "2"]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["one", "two"]
    assert axis.yaxis_inverted() and axis.get_xlabel() == "distance"


def test_a_map_keeps_its_own_range():
    axis = plt.figure().subplots()
    draw_image(axis, torch.tensor([[-2.0, 5.0]]))
    assert axis.images[0].get_clim() == (-2.0, 5.0)
