"""A picture of what several models drew, one row a model."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def save_sheet(rows: Mapping[str, Any], path: str | pathlib.Path) -> None:
    """Saves images side by side, a row for each model, as a PNG.

    Args:
        rows: Dict from names to images from -1 to 1, shape `(images, height, width, channels)`,
            of 1 or 3 channels; as many, and as large, in each row.
        path: Path of the PNG.

    Raises:
        ImportError: If matplotlib is missing; `pip install keras-distill[report]` brings it.
        ValueError: If the images have other shapes, there are none, or their values aren't finite
            or beyond ±10: not those of images from -1 to 1.

    Example:

    >>> rows = {"real": images[:8], "teacher": teacher(latents), "student": student(latents)}
    >>> keras_distill.generators.save_sheet(rows, "drawn.png")
    """
    from matplotlib.figure import Figure

    drawn = {name: np.asarray(images) for name, images in rows.items()}
    shapes = {name: images.shape for name, images in drawn.items()}
    first: tuple = next(iter(shapes.values()), ())
    if len(first) != 4 or first[-1] not in (1, 3) or set(shapes.values()) != {first}:
        raise ValueError(
            "Each row must hold as many images of one size, shape (images, height, width, channels)"
            f" with 1 or 3 channels. Received: {shapes}"
        )
    if not np.prod(first):
        raise ValueError(f"`rows` holds no images. Received arrays of shape {first}.")
    for name, images in drawn.items():
        _check_values(name, images)
    count, height, width, channels = first
    figure = Figure(figsize=(1.5 + 0.55 * count, 0.6 * len(rows) * height / width))
    axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for each, (name, images) in zip(axes, drawn.items(), strict=True):
        framed = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=1.0)
        strip = np.concatenate(list(framed), axis=1)
        strip = strip.repeat(3 // channels, axis=-1)
        each.imshow(np.clip((strip + 1) / 2, 0, 1), interpolation="nearest")
        each.set_xticks([])
        each.set_yticks([])
        each.spines[:].set_visible(False)
        each.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def _check_values(name, images):
    """Refuses what would be shown as plain white or black."""
    if not np.isfinite(images).all():
        index = int(np.argwhere(~np.isfinite(images))[0][0])
        raise ValueError(f"Row {name!r} holds NaN or infinity, first in image {index}.")
    low, high = images.min(), images.max()
    if max(-float(low), float(high)) > 10:  # Drawings may leave the range, but not so far.
        raise ValueError(
            f"Images must be from -1 to 1. Row {name!r} has values from {low:.4g} to {high:.4g}. "
            "If they are from 0 to 255, pass `images / 127.5 - 1`."
        )
