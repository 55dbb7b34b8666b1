"""The few figures that the notebooks share."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

INK, ACCENT, MUTED = "#1b263b", "#d1495b", "#8d99ae"
COLOURS = ("#00798c", "#d1495b", "#edae49", "#66a182", "#2e4057", "#8d96a3")


def show(images: Sequence[Tensor], titles: Sequence[str] = (), *, columns: int = 6, size: float = 2.0) -> Figure:
    """Show images side by side, pixels as they are (no smoothing).

    Args:
        images: each (3, h, w) or (1, 3, h, w) in [0, 1], or (h, w) for a map, drawn in its own colour scale.
        titles: one above each image.
        columns: images per row.
        size: width of one image in inches.

    Raises:
        ValueError: if there are no images, the numbers of titles and images differ, or an image has another shape.
    """
    if not images:
        raise ValueError("no images to show; give a list of at least one")
    if titles and len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} images; give one for each, or none")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    lines = 1 + max((title.count("\n") for title in titles), default=0)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size * columns, (size + 0.22 * lines) * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for i, image in enumerate(images):
        draw_image(axes.flat[i], image)
        if titles:
            axes.flat[i].set_title(titles[i], fontsize=9, color=INK)
    return figure


def draw_image(axis: plt.Axes, image: Tensor) -> None:
    """Draw one image, (3, h, w) or (1, 3, h, w) in [0, 1], or a map (h, w), on a matplotlib axis.

    Raises:
        ValueError: for another shape.
    """
    image = image.detach().cpu().float()
    if image.ndim == 4 and len(image) == 1:
        image = image[0]
    if image.ndim == 3 and image.shape[0] == 3:
        axis.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
    elif image.ndim == 2:
        axis.imshow(image.numpy(), cmap="magma", interpolation="nearest")
    else:
        raise ValueError(f"cannot draw a tensor of shape {tuple(image.shape)}; give (3, h, w), (1, 3, h, w) or (h, w)")
    axis.set_axis_off()


def bars(
    axis: plt.Axes, names: Sequence[str], values: Sequence[float] | Tensor, *, label: str, digits: int = 3
) -> None:
    """Draw horizontal bars, the first on top, each with its number."""
    values = torch.as_tensor(values).tolist()
    drawn = axis.barh(range(len(names)), values, color=[COLOURS[i % len(COLOURS)] for i in range(len(names))])
    axis.bar_label(drawn, [f"{value:.{digits}g}" for value in values], padding=3, fontsize=8)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel(label)
    axis.margins(x=0.15)
    axis.spines[["top", "right"]].set_visible(False)
