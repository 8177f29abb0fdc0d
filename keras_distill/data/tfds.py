"""Labeled examples of TensorFlow Datasets."""

import difflib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_distill.data.splits import Data


def from_tfds(
    name: str,
    holdout: float = 0.1,
    data_dir: str | None = None,
    download: bool = True,
    image_size: tuple[int, int] | None = None,
) -> Data:
    """`load` for TensorFlow Datasets."""
    builder = _builder(name, data_dir, download)
    info = builder.info
    if info.supervised_keys is None:
        raise ValueError(
            f"The dataset {name!r} has no declared input and label; its features are "
            f"{', '.join(info.features)}."
        )
    splits = _splits(info.splits, round(100 * holdout), name)
    parts = [builder.as_dataset(split=split, as_supervised=True) for split in splits]
    if image_size is not None:
        parts = [part.map(_resize(image_size), tf.data.AUTOTUNE) for part in parts]
    label = info.features[info.supervised_keys[-1]]
    is_class = type(label).__name__ == "ClassLabel"
    return Data(*parts, tuple(label.names) if is_class else None)


def _builder(name: str, data_dir: str | None, download: bool) -> Any:
    """The dataset of this name, prepared to be read."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"{name!r} is neither a file nor a folder, and TensorFlow Datasets isn't installed: "
            "`pip install keras-distill[data]`."
        ) from error
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        near = difflib.get_close_matches(name, tfds.list_builders(), n=3)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise ValueError(
            f"{name!r} is neither a file nor a folder nor a dataset of TensorFlow Datasets.{hint}"
        ) from error
    except ValueError as error:
        first_line = str(error).split("\n")[0]
        raise ValueError(
            f"{name!r} is neither a file nor a folder, and TensorFlow Datasets can't read it: "
            f"{first_line}"
        ) from error
    if download:
        try:
            builder.download_and_prepare()
        except (OSError, tfds.download.DownloadError) as error:
            raise ValueError(f"The dataset {name!r} couldn't be downloaded: {error}") from error
    elif not builder.is_prepared():
        raise ValueError(f"The dataset {name!r} isn't in {builder.data_path}: download it first.")
    return builder


def _splits(splits: Any, percent: int, name: str) -> list[str]:
    """The instructions for training, validation and test."""
    if "train" not in splits:
        raise ValueError(f"The dataset {name!r} has no split 'train', only {', '.join(splits)}.")
    held, end = [], 100
    for split in ("validation", "test"):
        if split in splits:
            held.append(split)
        else:
            held.append(f"train[{end - percent}%:{end}%]")
            end -= percent
    return [f"train[:{end}%]", *held]


def _resize(size: tuple[int, int]) -> Callable:
    def resize(image: Any, label: Any) -> tuple[Any, Any]:
        resized = tf.image.resize(image, size, antialias=True)
        return tf.cast(tf.round(resized), image.dtype), label

    return resize
