"""A picture of what several models drew, one row a model."""

import io
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_distill._files import write_folder


def save_sheet(rows: Mapping[str, Any], path: str | pathlib.Path) -> None:
    """Saves images side by side, a row for each model, as a PNG.

    Args:
        rows: Dict from names to images from -1 to 1, shape `(images, height, width, channels)`,
            of 1 or 3 channels; as many, and as large, in each row.
        path: Path of the PNG, which ends in ".png". It is written completely or not at all; its
            folder is created if it doesn't exist.

    Raises:
        ImportError: If matplotlib is missing; `pip install keras-distill[report]` brings it.
        TypeError: If `rows` isn't a dict.
        ValueError: If the images have other shapes, there are none, or their values aren't finite
            or beyond ±10: not those of images from -1 to 1; if `path` ends otherwise, or can't be
            written.

    Example:

    >>> rows = {"real": images[:8], "teacher": teacher(latents), "student": student(latents)}
    >>> keras_distill.generators.save_sheet(rows, "drawn.png")
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError(
            f"`save_sheet` needs {error.name}: `pip install keras-distill[report]`."
        ) from error
    path = pathlib.Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f'`path` must end in ".png". Received: path={str(path)!r}')
    if not isinstance(rows, Mapping):
        raise TypeError(
            f"`rows` must be a dict from names to images. Received: {type(rows).__name__}"
        )
    drawn = {name: _array(images) for name, images in rows.items()}
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
        each.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, parse_math=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, bbox_inches="tight")
    write_folder(path.parent, {path.name: picture.getvalue()})


def _array(images):
    """Images as an array; those of several sizes as one of objects, whose shape is refused."""
    try:
        return np.asarray(images)
    except ValueError:
        return np.empty(len(images), object)


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
