"""Augmentations named on the command line."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_distill.cli.command_flags import AUGMENTATIONS


def augmentation(
    names: Sequence[str], shape: Sequence[int | None]
) -> list[keras.layers.Layer] | None:
    """The layers that draw views of images, or `None` without names.

    Args:
        names: Of `AUGMENTATIONS`.
        shape: Shape of an image.

    Raises:
        ValueError: If a name is unknown, or the examples aren't images.
    """
    unknown = set(names) - set(AUGMENTATIONS)
    if unknown:
        raise ValueError(
            f"--augment must be of {', '.join(AUGMENTATIONS)}, not {sorted(unknown)[0]!r}."
        )
    if not names:
        return None
    height, width = (*shape, None, None)[:2]
    if len(shape) != 3 or height is None or width is None:
        raise ValueError(f"--augment is for images; these data have shape {shape}.")
    chain = []
    if "crop" in names:
        border = -(-height // 8), -(-width // 8)
        chain += [layers.ZeroPadding2D(border), layers.RandomCrop(height, width)]
    if "flip" in names:
        chain.append(layers.RandomFlip("horizontal"))
    if "randaugment" in names:
        chain.append(layers.RandAugment(value_range=(0, 255)))
    return chain
