"""Labeled images from folders, one folder for each class."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_distill.data.splits import Data, hold_out

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
#: How many images are compared in size before any is used.
_COMPARED = 200


def from_folder(
    path: str | os.PathLike,
    holdout: float = 0.1,
    seed: int = 0,
    image_size: tuple[int, int] | None = None,
) -> Data:
    """`load` for a folder of images, one folder for each class."""
    path = pathlib.Path(path)
    training = path / "train" if (path / "train").is_dir() else path
    class_names = tuple(sorted(p.name for p in training.iterdir() if p.is_dir()))
    if not class_names:
        raise ValueError(f"The folder {training} has no folders of images, one for each class.")
    files, labels = _images(training, class_names)
    order = np.random.default_rng(seed).permutation(len(files))
    rest: tuple = files[order], labels[order]
    held: dict[str, tuple] = {}
    for name in ("validation", "test"):
        if training is not path and (path / name).is_dir():
            held[name] = _images(path / name, class_names)
        else:
            held[name], rest = hold_out(rest, round(holdout * len(files)), path)
    decode = _Decoder(rest[0][0], image_size)
    if image_size is None:
        for file in rest[0][:_COMPARED]:
            decode.require_size(file, opened(file))
    parts = [
        tf.data.Dataset.from_tensor_slices(part).map(decode, tf.data.AUTOTUNE)
        for part in (rest, held["validation"], held["test"])
    ]
    return Data(*parts, class_names)


def _images(folder: pathlib.Path, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Paths and labels of the images in the class folders of `folder`."""
    unknown = {p.name for p in folder.iterdir() if p.is_dir()} - set(class_names)
    if unknown:
        raise ValueError(f"{folder} has classes that training lacks: {', '.join(sorted(unknown))}.")
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        found = sorted(
            str(p) for p in (folder / name).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES
        )
        files.extend(found)
        labels.extend([label] * len(found))
    if not files:
        raise ValueError(
            f"The class folders of {folder} hold no images ({', '.join(IMAGE_SUFFIXES)})."
        )
    return np.array(files), np.array(labels, "int32")


class _Decoder:
    """Reads an image file, upright, as uint8 in the mode of the first one.

    Images are resized to `size`, or must all have the size of the first one.

    `keras.utils.image_dataset_from_directory` reads fewer formats, ignores the orientation in
    EXIF, resizes without antialiasing and doesn't name the file that it can't read.
    """

    def __init__(self, first: str, size: tuple[int, int] | None):
        image = opened(first)
        self.first = first
        self.mode = "L" if image.mode == "L" else "RGB"
        self.size = size
        self.shape = (*(size or (image.height, image.width)), 1 if self.mode == "L" else 3)

    def __call__(self, path: Any, label: Any) -> tuple[Any, Any]:
        image = tf.numpy_function(self._decode, [path], tf.uint8, stateful=False)
        return tf.ensure_shape(image, self.shape), label

    def _decode(self, encoded_path: bytes) -> np.ndarray:
        path = encoded_path.decode()
        image = opened(path).convert(self.mode)
        height, width, _ = self.shape
        if self.size is not None:
            image = image.resize((width, height), resample=2)
        else:
            self.require_size(path, image)
        return np.asarray(image, "uint8").reshape(self.shape)

    def require_size(self, path: str, image: Any) -> None:
        """Raises `ValueError` if an image hasn't the size of the first one."""
        height, width, _ = self.shape
        if image.size != (width, height):
            raise ValueError(
                f"{path} is {image.height} pixels high and {image.width} wide, but {self.first} is "
                f"{height} and {width}. Give `image_size`, the height and width to which all "
                "images are resized."
            )


def opened(path: str) -> Any:
    """The image in a file, upright and completely decoded.

    Raises:
        ValueError: If it can't be read, or Pillow is missing.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ValueError(
            "Reading images needs Pillow: `pip install keras-distill[data]`."
        ) from error
    try:
        image = ImageOps.exif_transpose(Image.open(path))
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not a readable image: {error}") from error
    return image
