"""Pictures read with 8 bits: the pixels that torchvision's Resize makes, and the errors of read_image."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from course_lib.data.pictures import RESAMPLE, read_image, read_pixels

RGB = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [16, 64])
def test_resizing_is_what_torchvision_does_with_a_picture(tmp_path, resample, size):
    Image.fromarray(RGB).save(tmp_path / "x.png")
    oracle = transforms.Compose([transforms.Resize((size, size), transforms.InterpolationMode(resample))])
    expected = np.array(oracle(Image.fromarray(RGB)))
    assert np.array_equal(read_pixels(tmp_path / "x.png", size, resample).permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("resample", RESAMPLE)
def test_shrinking_is_antialiased(tmp_path, resample):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "x.png")
    middle = read_pixels(tmp_path / "x.png", 16, resample)[:, :, 2:-2]
    assert (middle.float() - 127.5).abs().max() < 8  # without antialiasing: black or white


def test_without_a_size_the_pixels_are_those_of_read_image(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "x.png")
    pixels = read_pixels(tmp_path / "x.png")
    assert pixels.dtype == torch.uint8 and pixels.shape == (3, 40, 30)
    torch.testing.assert_close(pixels / 255, read_image(tmp_path / "x.png"))


def test_sixteen_bit_grey_is_rounded_to_eight_bits(tmp_path):
    grey = np.array([[0, 128, 129, 257, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "x.png")
    pixels = read_pixels(str(tmp_path / "x.png"))
    assert pixels.tolist() == [[[0, 0, 1, 1, 255]]] * 3


@pytest.mark.parametrize("read", [read_image, read_pixels])
def test_a_file_that_is_not_there_is_named(tmp_path, read):
    with pytest.raises(ValueError, match=r"x.png cannot be read: .*No such file"):
        read(tmp_path / "x.png")
