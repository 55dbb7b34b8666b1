"""Ways to damage an image: the *traditional* distortions of BAPPS, each with a strength from 0 to 1.

Every distortion is ``f(images, strength, generator)``: images (n, 3, h, w) in [0, 1], one strength for all or one per
image. Strength 0 returns the very same pixels; strength 1 is severe, though one can mostly still tell what is shown.
Random choices (directions, signs, noise) come from `generator`, never from the strength, so that sweeping the
strength with one seed moves along one path. `DISTORTIONS` maps names to functions, `FAMILIES` groups the names.
The formulas are in photometric.py, noise.py, blur.py, spatial.py and compression.py.

Lengths are in pixels and made for 64 x 64 patches, except in the spatial family, where they are parts of the image.

All raise TypeError or ValueError for images outside the course's convention or a strength outside [0, 1].

Source: the list is that of Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric
(2018), table 2, with quantisation and corner shift added; the formulas and ranges are this course's.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.data.distortions import draws
from course_lib.data.distortions.blur import bilateral_blur, gaussian_blur
from course_lib.data.distortions.compression import jpeg, quantisation
from course_lib.data.distortions.noise import blue_noise, checkerboard, pink_noise, uniform_noise, white_noise
from course_lib.data.distortions.photometric import colour_shift, contrast, lightness, saturation
from course_lib.data.distortions.spatial import (
    affine,
    chromatic_aberration,
    corner_shift,
    ghosting,
    homography,
    shift,
    warp,
)
from course_lib.validation import check_images

_BY_FAMILY = {
    "photometric": [lightness, colour_shift, contrast, saturation],
    "noise": [uniform_noise, white_noise, pink_noise, blue_noise, checkerboard],
    "blur": [gaussian_blur, bilateral_blur],
    "spatial": [shift, affine, homography, warp, corner_shift, chromatic_aberration, ghosting],
    "compression": [jpeg, quantisation],
}
FAMILIES: dict[str, list[str]] = {family: [f.__name__ for f in members] for family, members in _BY_FAMILY.items()}
DISTORTIONS: dict[str, Callable] = {f.__name__: f for members in _BY_FAMILY.values() for f in members}


def random_sequence(
    images: Float[Tensor, "n 3 h w"], generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "n 3 h w"], list[str]]:
    """Distort every image by one distortion or by two different ones in a row, drawn at random with their strengths.

    Returns:
        The distorted images, and for each what was done, such as ``"jpeg(0.43) + lightness(0.91)"``.

    Raises:
        TypeError, ValueError: as :func:`course_lib.validation.check_images`.
    """
    check_images(images)
    n, kinds = len(images), list(DISTORTIONS)
    device = draws.device(generator)
    first = torch.randint(len(kinds), (n,), generator=generator, device=device)
    second = (first + torch.randint(1, len(kinds), (n,), generator=generator, device=device)) % len(kinds)
    again = torch.rand(n, generator=generator, device=device) < 0.5
    strengths = torch.rand(2, n, generator=generator, device=device).to(images)
    images = images.clone()
    steps: list[list[str]] = [[] for _ in range(n)]
    for chosen, strength in ((first, strengths[0]), (torch.where(again, second, -1), strengths[1])):
        for kind, name in enumerate(kinds):
            at = (chosen == kind).nonzero().flatten()
            if len(at):
                images[at] = DISTORTIONS[name](images[at], strength[at], generator)
            for i in at.tolist():
                steps[i].append(f"{name}({strength[i]:.2f})")
    return images, [" + ".join(step) for step in steps]
