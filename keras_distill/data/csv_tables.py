"""Labeled examples from CSV and TSV files."""

import csv
import os
import pathlib

import numpy as np
import tensorflow as tf

from keras_distill.data.splits import Data, hold_out

#: A column with more distinct texts isn't taken for a category.
MAX_CATEGORIES = 100


def from_table(
    path: str | os.PathLike,
    target: str | None,
    text: str | None = None,
    holdout: float = 0.1,
    seed: int = 0,
) -> Data:
    """`load` for a CSV or TSV file."""
    path = pathlib.Path(path)
    columns = read_table(path)
    named = {"target": target} if text is None else {"target": target, "text": text}
    for argument, name in named.items():
        if name not in columns:
            raise ValueError(
                f"`{argument}` must name a column of {path}: {', '.join(columns)}. "
                f"Received: {argument}={name!r}"
            )
    y = columns.pop(str(target))
    class_names = None
    blank = np.char.strip(y) == "" if y.dtype.kind == "U" else np.isnan(y)
    if blank.any():
        line = int(np.flatnonzero(blank)[0]) + 2
        raise ValueError(f"{path}, line {line}: the column {target!r} is blank.")
    if y.dtype.kind == "U":
        class_names, y = np.unique(y, return_inverse=True)
        class_names, y = tuple(class_names.tolist()), y.astype("int32")
    order = np.random.default_rng(seed).permutation(len(y))
    size = round(holdout * len(y))
    validation, rest = hold_out((order,), size, path)
    test, rest = hold_out(rest, size, path)
    if text is None:
        x = _encode(columns, rest[0], path)
    else:
        x = columns[text]
    parts = [tf.data.Dataset.from_tensor_slices((x[i], y[i])) for (i,) in (rest, validation, test)]
    return Data(*parts, class_names)


def read_table(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The columns of a CSV or TSV file by name: float32 with NaN for blanks, or texts.

    Args:
        path: Path of the file, whose first line names the columns.

    Returns:
        A dict of arrays of the same length. A column is numeric if all its values are.

    Raises:
        ValueError: If the file doesn't exist, is empty, or a line has a different number of values.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        header = next(reader, [])
        rows = []
        for row in reader:
            if len(row) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(row)} values where the first line "
                    f"names {len(header)} columns."
                )
            rows.append(row)
    if not rows:
        raise ValueError(f"{path} holds no examples.")
    return {
        name: _column(values) for name, values in zip(header, zip(*rows, strict=True), strict=True)
    }


def _column(values: tuple[str, ...]) -> np.ndarray:
    try:
        return np.array([float(v) if v.strip() else np.nan for v in values], "float32")
    except ValueError:
        return np.array(values)


def _encode(columns: dict[str, np.ndarray], training: np.ndarray, path: pathlib.Path) -> np.ndarray:
    """All columns as one float32 array, encoded by the statistics of the training rows."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [i for i, x in enumerate(columns.values()) if x.dtype.kind == "f"]
    texts = [i for i in range(len(columns)) if i not in numbers]
    for i in texts:
        name, values = list(columns.items())[i]
        if len(np.unique(values)) > MAX_CATEGORIES:
            raise ValueError(
                f"{path}: the column {name!r} holds {len(np.unique(values))} distinct texts, too "
                f"many for categories. If it is the input, give text={name!r}."
            )
    encoder = make_column_transformer(
        (
            make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()),
            numbers,
        ),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts),
    )
    x = np.array([values.astype(object) for values in columns.values()], dtype=object).T
    encoder.fit(x[training])
    return encoder.transform(x).astype("float32")
