"""Checks of chapter 02's exercises: holes, photons, robust errors, two players, a rate, tiles, a sharp loss."""

from course_lib.checks.restoration.adversarial import hinge
from course_lib.checks.restoration.coding import bits_per_pixel, quantise
from course_lib.checks.restoration.damage import hole_psnr, photon_noise
from course_lib.checks.restoration.errors import charbonnier
from course_lib.checks.restoration.sharpness import held_out, score, sharp_loss, start, train
from course_lib.checks.restoration.tiles import tiled

__all__ = [
    "bits_per_pixel",
    "charbonnier",
    "held_out",
    "hinge",
    "hole_psnr",
    "photon_noise",
    "quantise",
    "score",
    "sharp_loss",
    "start",
    "tiled",
    "train",
]
