"""Labeled examples by name: TensorFlow Datasets, a folder of images, an NPZ or a CSV file."""

import numbers
import os
import pathlib
from typing import Any

from keras_distill.checks import number, whole_number
from keras_distill.data.classes import check_task
from keras_distill.data.csv_tables import from_table, is_table
from keras_distill.data.image_folders import from_folder
from keras_distill.data.npz import from_npz
from keras_distill.data.splits import Data
from keras_distill.data.tfds import from_tfds


def load(
    source: str | os.PathLike,
    *,
    holdout: float = 0.1,
    seed: int = 0,
    data_dir: str | None = None,
    download: bool = True,
    image_size: tuple[int, int] | None = None,
    target: str | None = None,
    text: str | None = None,
    task: str | None = None,
    validation: str | os.PathLike | None = None,
    test: str | os.PathLike | None = None,
) -> Data:
    """Loads labeled examples for training, validation and test.

    If the source has no split for validation or test, a random share of the training examples is
    held out for it, the same for the same seed. From TensorFlow Datasets, which shuffled the
    examples once, the last ones are held out, whatever the seed.

    Args:
        source: One of
            - the path of a folder of images: `class/image.png`, or `train/class/image.png` with
              `validation/` and `test/` beside it;
            - the path of an `.npz` file with arrays `x`, `y`, or `x_train`, `y_train` and, if it
              has them, `x_validation`, `y_validation`, `x_test`, `y_test`;
            - the path of a `.csv` or `.tsv` file whose first line names the columns, which may
              be compressed by gzip (`.csv.gz`);
            - the name of a dataset of TensorFlow Datasets, such as `"cifar10"`.
        holdout: Share of the training examples held out for each split that is missing.
        seed: Seed of the random splits of files.
        data_dir: Folder in which TensorFlow Datasets keeps its data. Defaults to its own choice.
        download: Whether TensorFlow Datasets may download a dataset that isn't there.
        image_size: `(height, width)` to which images are resized, whatever their shape. Defaults
            to `None`: they keep their size, and those of a folder must all have the same.
        target: For a table, the name of the column to predict. Texts are classes, numbers are
            regressed unless `task` says otherwise.
        text: For a table, the name of the column that holds the input text, the only input.
            Defaults to `None`: all columns but the target are inputs. Numbers are standardized,
            blanks filled with the median and marked, texts one-hot encoded, all by the training
            part.
        task: For a table or an NPZ file, `"classification"` or `"regression"`: whether labels
            are classes or values; for an NPZ file also `"multilabel"`: rows of 0 and 1. Defaults
            to `None`: texts, and the integers of an NPZ file, are classes, rows of 0 and 1 of an
            NPZ file are several labels at once unless each holds a single 1, other numbers are
            values. A warning tells of values that look like classes: at most 20 distinct integers.
        validation: For a table, the path of a second table to validate on, with the same columns.
            Defaults to `None`: a share of the training examples is held out.
        test: Likewise, to test on.

    Returns:
        `Data`. Images are uint8 from 0 to 255, arrays keep their dtype, tables without `text` are
        float32.

    Raises:
        TypeError: If `source` is neither a path nor a name.
        ValueError: If the source doesn't exist or can't be read as labeled examples. The message
            names the file and the place.

    Example:

    >>> data = keras_distill.data.load("fashion_mnist")
    >>> len(data.train), len(data.validation), len(data.test)
    (54000, 6000, 10000)
    """
    whole_number("seed", seed, 0)
    if not 0 < number("holdout", holdout) < 0.5:
        raise ValueError(f"`holdout` must be between 0 and 0.5. Received: holdout={holdout!r}")
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            "`source` must be the path of a folder or file, or the name of a dataset. "
            f"Received: source={source!r} of type {type(source).__name__}"
        )
    check_task(task)
    _check_size(image_size)
    path = pathlib.Path(source)
    if path.suffix == ".npz" or is_table(path):
        _refuse({"image_size": image_size}, source, "images in folders and TensorFlow Datasets")
    if is_table(path):
        return from_table(
            path, target, text, holdout, seed, task=task, validation=validation, test=test
        )
    _refuse({"target": target, "text": text}, source, "tables")
    given = {"validation": validation, "test": test}
    if path.suffix == ".npz":
        _refuse(given, source, "tables; an NPZ file has arrays for it")
        return from_npz(path, holdout, seed, task)
    _refuse({"task": task}, source, "tables and NPZ files")
    _refuse(given, source, "tables")
    if path.is_dir():
        return from_folder(path, holdout, seed, image_size)
    return from_tfds(str(source), holdout, data_dir, download, image_size)


def _check_size(image_size: Any) -> None:
    """Raises `ValueError` unless a size is `None` or two integers above 0."""
    if image_size is None:
        return
    is_pair = isinstance(image_size, (list, tuple)) and len(image_size) == 2
    if not is_pair or not all(isinstance(n, numbers.Integral) and int(n) > 0 for n in image_size):
        raise ValueError(
            "`image_size` must be (height, width), integers above 0. "
            f"Received: image_size={image_size!r}"
        )


def _refuse(given: dict[str, Any], source: Any, takers: str) -> None:
    """Raises `ValueError` if an argument is given that doesn't apply to the source."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"`{name}` is for {takers}, not for {str(source)!r}. Received: {name}={value!r}"
            )
