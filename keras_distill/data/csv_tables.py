"""Labeled examples from CSV and TSV files, which may be compressed by gzip."""

import csv
import gzip
import os
import pathlib
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from keras_distill.data import classes
from keras_distill.data.splits import Data, hold_out

#: A column with more distinct texts isn't taken for a category.
MAX_CATEGORIES = 100


def is_table(path: pathlib.Path) -> bool:
    """Whether a path is that of a CSV or TSV file, by its name."""
    return path.name.lower().endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz"))


def from_table(
    path: str | os.PathLike,
    target: str | None,
    text: str | None = None,
    holdout: float = 0.1,
    seed: int = 0,
    *,
    task: str | None = None,
    validation: str | os.PathLike | None = None,
    test: str | os.PathLike | None = None,
) -> Data:
    """`load` for a CSV or TSV file."""
    if task == "multilabel":
        raise ValueError(
            "A table has one column to predict. For several labels at once give an NPZ file whose "
            "`y` holds rows of 0 and 1. Received: task='multilabel'"
        )
    path = pathlib.Path(path)
    files = {"train": path}
    files |= {n: pathlib.Path(p) for n, p in (("validation", validation), ("test", test)) if p}
    columns, ends = _read(list(files.values()), text)
    if text is not None and text == target:
        raise ValueError(
            "`text` is the input and `target` what is predicted from it: two columns. "
            f"Received: text={text!r}, target={target!r}"
        )
    _check_named(columns, path, {"target": target, **({} if text is None else {"text": text})})
    y = columns.pop(str(target))
    _check_blank(y, str(target), list(files.values()), ends)
    where = f"The column {target!r} of {path}"
    y, class_names = _labels(y, task, slice(ends[0]), where)
    if class_names is None and task is None:
        classes.warn_of_integers(y, where)
    rest: tuple = (np.random.default_rng(seed).permutation(ends[0]),)
    size = round(holdout * ends[0])
    places = {n: np.arange(a, b) for n, a, b in zip(files, [0, *ends], ends, strict=False)}
    for name in ("validation", "test"):
        if name not in files:
            (places[name],), rest = hold_out(rest, size, path)
    places["train"] = rest[0]
    x = _encode(columns, places["train"], path) if text is None else columns[text]
    parts = [
        tf.data.Dataset.from_tensor_slices((x[i], y[i]))
        for i in (places[name] for name in ("train", "validation", "test"))
    ]
    return Data(*parts, class_names)


def read_table(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The columns of a CSV or TSV file by name: float32 with NaN for blanks, or texts.

    Columns with whole numbers that float32 would round, such as times in seconds since 1970 or
    long numbers of users, are float64.

    Args:
        path: Path of the file, whose first line names the columns: `.csv` or `.tsv`, and with
            `.gz` behind it if it is compressed by gzip.

    Returns:
        A dict of arrays of the same length. A column is numeric if all its values are.

    Raises:
        ValueError: If the file doesn't exist, is empty, isn't UTF-8, or a line has a different
            number of values.
    """
    return _read([pathlib.Path(path)])[0]


def _read(
    paths: Sequence[pathlib.Path], text: str | None = None
) -> tuple[dict[str, np.ndarray], list[int]]:
    """The columns of several files, one file after another, and where each file ends.

    The column `text` holds texts, even if they are all numbers.
    """
    header: list[str] = []
    rows: list[list[str]] = []
    ends = []
    for path in paths:
        names, found = _lines(path)
        header = header or names
        if sorted(names) != sorted(header):
            raise ValueError(
                f"{path} has the columns {', '.join(names)}, but {paths[0]} has "
                f"{', '.join(header)}."
            )
        order = [names.index(name) for name in header]
        rows.extend([row[i] for i in order] for row in found)
        ends.append(len(rows))
    columns = zip(header, zip(*rows, strict=True), strict=True)
    read = {n: np.array(values) if n == text else _column(values) for n, values in columns}
    return read, ends


def _lines(path: pathlib.Path) -> tuple[list[str], list[list[str]]]:
    """The names of a file's columns, and its lines."""
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    is_compressed = path.suffix.lower() == ".gz"
    delimiter = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","
    opened = gzip.open if is_compressed else open
    try:
        with opened(path, "rt", newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter)
            header = next(reader, [])
            numbered = [(reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} isn't text in UTF-8: {error}. Convert it first.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error, csv.Error) as error:
        raise ValueError(f"{path} can't be read as a table: {error}") from error
    # Many programs end a file with blank lines.
    while numbered and not numbered[-1][1]:
        numbered.pop()
    if not numbered:
        raise ValueError(f"{path} holds no examples.")
    for line, row in numbered:
        if len(row) != len(header):
            raise ValueError(
                f"{path}, line {line}: {len(row)} values where the first line names "
                f"{len(header)} columns."
            )
    for name in header:
        if header.count(name) > 1:
            raise ValueError(f"{path} has two columns of the name {name!r}: rename one.")
    return header, [row for _, row in numbered]


def _column(values: tuple[str, ...]) -> np.ndarray:
    try:
        column = np.array([float(v) if v.strip() else np.nan for v in values])
    except ValueError:
        return np.array(values)
    with np.errstate(over="ignore"):
        rounded = column.astype("float32")
    is_whole = column == np.floor(column)
    return rounded if (rounded == column)[is_whole].all() else column


def _check_named(
    columns: Mapping[str, np.ndarray], path: pathlib.Path, named: Mapping[str, str | None]
) -> None:
    for argument, name in named.items():
        if name not in columns:
            raise ValueError(
                f"`{argument}` must name a column of {path}: {', '.join(columns)}. "
                f"Received: {argument}={name!r}"
            )


def _check_blank(
    y: np.ndarray, target: str, paths: Sequence[pathlib.Path], ends: Sequence[int]
) -> None:
    blank = np.char.strip(y) == "" if y.dtype.kind == "U" else np.isnan(y)
    if blank.any():
        row = int(np.flatnonzero(blank)[0])
        file = int(np.searchsorted(ends, row, side="right"))
        line = row - [0, *ends][file] + 2
        raise ValueError(f"{paths[file]}, line {line}: the column {target!r} is blank.")


def _labels(
    y: np.ndarray, task: str | None, known: slice, where: str
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Classes as indices and their names, or values and `None`."""
    is_text = y.dtype.kind == "U"
    if is_text and task == "regression":
        raise ValueError(
            f"{where} holds texts, which are classes. Received: task='regression', which needs "
            "numbers."
        )
    if is_text or task == "classification":
        return classes.encode(y, known, where)
    return y.astype("float32"), None


def _encode(columns: dict[str, np.ndarray], training: np.ndarray, path: pathlib.Path) -> np.ndarray:
    """All columns as one float32 array, encoded by the statistics of the training rows."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [i for i, x in enumerate(columns.values()) if x.dtype.kind == "f"]
    for name, values in columns.items():
        if values.dtype.kind == "f" and np.isinf(values).any():
            raise ValueError(
                f"{path}: the column {name!r} holds infinity: leave such values blank."
            )
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
