"""Labeled examples from NPZ files."""

import os
import pathlib
import zipfile
import zlib

import numpy as np
import tensorflow as tf

from keras_distill.data import classes
from keras_distill.data.splits import Data, hold_out


def from_npz(
    path: str | os.PathLike, holdout: float = 0.1, seed: int = 0, task: str | None = None
) -> Data:
    """`load` for an NPZ file."""
    path = pathlib.Path(path)
    arrays = _arrays(path)
    first = "x_train" if "x_train" in arrays else "x"
    pairs: dict[str, tuple] = {}
    for name in ("train", "validation", "test"):
        keys = (first, first.replace("x", "y")) if name == "train" else (f"x_{name}", f"y_{name}")
        if name == "train" or keys[0] in arrays:
            x, y = _pair(path, arrays, *keys)
            pairs[name] = x, _as(task, y, f"{path}: {keys[1]}")
    order = np.random.default_rng(seed).permutation(len(pairs["train"][0]))
    rest = tuple(part[order] for part in pairs["train"])
    class_names = _classes(path, pairs)
    several = task == "multilabel" or (
        task is None and all(classes.are_several(y) for _, y in pairs.values())
    )
    if class_names is None and task is None:
        classes.warn_of_integers(pairs["train"][1], f"{path}: {first.replace('x', 'y')}")
    for name in ("validation", "test"):
        if name not in pairs:
            pairs[name], rest = hold_out(rest, round(holdout * len(order)), path)
    pairs["train"] = rest
    parts = [
        tf.data.Dataset.from_tensor_slices(pairs[name]) for name in ("train", "validation", "test")
    ]
    return Data(*parts, class_names, several)


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (EOFError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} can't be read as NPZ: {error}") from error


def _pair(
    path: pathlib.Path, arrays: dict[str, np.ndarray], x: str, y: str
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels, checked: of the same length, and without NaN or infinity."""
    for name in (x, y):
        if name not in arrays:
            raise ValueError(f"{path} has no array {name!r}; it has {', '.join(arrays) or 'none'}.")
        values = arrays[name]
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise ValueError(f"{path}: {name}[{row}] holds NaN or infinity.")
    if len(arrays[x]) != len(arrays[y]) or not len(arrays[x]):
        raise ValueError(f"{path}: {x} has {len(arrays[x])} rows, {y} has {len(arrays[y])}.")
    labels = arrays[y]
    if labels.dtype.kind in "iub" and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return arrays[x], labels


def _as(task: str | None, y: np.ndarray, where: str) -> np.ndarray:
    """Labels as the numbers that the task takes: integers are classes, floats are values."""
    if task == "multilabel":
        if y.ndim != 2 or not ((y == 0) | (y == 1)).all():
            raise ValueError(
                f"{where} must hold rows of 0 and 1 for task='multilabel', one column for each "
                f"label. Its shape is {y.shape}."
            )
        return y.astype("int32")
    if task == "regression":
        return y.astype("float32")
    if task == "classification" and y.dtype.kind == "f":
        wrong = y[y != np.floor(y)]
        if wrong.size:
            raise ValueError(f"{where} holds {wrong[0]:g}, which isn't the index of a class.")
        return y.astype("int64")
    return y


def _classes(path: pathlib.Path, pairs: dict[str, tuple]) -> tuple[str, ...] | None:
    """Names of the classes 0, 1, ... if labels are integers. Checks that all are in range."""
    labels = pairs["train"][1]
    if labels.dtype.kind not in "iub" or labels.ndim != 1:
        return None
    count = int(labels.max()) + 1
    for name, (_, y) in pairs.items():
        wrong = np.flatnonzero((y < 0) | (y >= count))
        if wrong.size:
            raise ValueError(
                f"{path}: the {name} label in row {wrong[0]} is {y[wrong[0]]}, out of the range "
                f"0 to {count - 1} of the training labels."
            )
    return tuple(str(i) for i in range(count))
