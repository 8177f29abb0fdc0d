"""Labelled examples by name: TensorFlow Datasets, a folder of images, an NPZ or a CSV file."""

import csv
import dataclasses
import difflib
import pathlib
import zipfile
import zlib

import numpy as np
import tensorflow as tf

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# A column of texts with more distinct values than this isn't a category.
MAX_CATEGORIES = 100


@dataclasses.dataclass(frozen=True)
class Data:
    """Labelled examples in three parts that share none.

    Attributes:
        train: `tf.data.Dataset` of single examples `(x, y)`.
        validation: Likewise, to choose settings by.
        test: Likewise, to report on.
        class_names: Names of the classes, in the order of the labels; `None` for regression.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset
    test: tf.data.Dataset
    class_names: tuple | None


def load(
    source,
    *,
    holdout: float = 0.1,
    seed: int = 0,
    data_dir=None,
    download: bool = True,
    image_size: tuple | None = None,
    target: str | None = None,
    text: str | None = None,
) -> Data:
    """Loads labelled examples for training, validation and test.

    Where the source has no split of its own for validation or test, a random share of the
    training examples is held out for it, always the same for a seed. Of TensorFlow Datasets,
    which shuffled them once, it is the last ones, whatever the seed.

    Args:
        source: One of
            - the path of a folder of images: `class/image.png`, or `train/class/image.png` with
              `validation/` and `test/` beside it;
            - the path of an `.npz` file with arrays `x`, `y`, or `x_train`, `y_train` and, if it
              has them, `x_validation`, `y_validation`, `x_test`, `y_test`;
            - the path of a `.csv` or `.tsv` file whose first line names the columns;
            - the name of a dataset of TensorFlow Datasets, such as `"cifar10"`.
        holdout: Share of the training examples held out for each split that is missing.
        seed: Seed of the random splits of files.
        data_dir: Where TensorFlow Datasets keeps its data. Defaults to its own choice.
        download: Whether TensorFlow Datasets may download what isn't there.
        image_size: `(height, width)` to which images are resized. Defaults to `None`: as they are.
        target: For a table, the name of the column to predict: texts are classes, numbers are
            regressed.
        text: For a table, the name of the column that holds the input text, the only input.
            Defaults to `None`: all columns but the target are inputs, numbers standardized, blanks
            filled with the median and marked, texts one-hot (all learned from the training part).

    Returns:
        `Data`.

    Raises:
        ValueError: If the source isn't there or can't be read as labelled examples. Says where.

    Example:

    >>> data = keras_distill.data.load("fashion_mnist")
    >>> len(data.train), len(data.validation), len(data.test)
    (54000, 6000, 10000)
    """
    if not 0 < holdout < 0.5:
        raise ValueError(f"`holdout` must be between 0 and 0.5. Received: holdout={holdout!r}")
    path = pathlib.Path(source)
    if path.is_dir():
        return from_folder(path, holdout, seed, image_size)
    if path.suffix == ".npz":
        return from_npz(path, holdout, seed)
    if path.suffix in (".csv", ".tsv"):
        return from_table(path, target, text, holdout, seed)
    return from_tfds(str(source), holdout, data_dir, download, image_size)


def from_tfds(name, holdout=0.1, data_dir=None, download=True, image_size=None) -> Data:
    """`load` for TensorFlow Datasets."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"{name!r} is no file or folder, and TensorFlow Datasets isn't installed to look it up "
            "there: `pip install keras-distill[data]`."
        ) from error
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        near = difflib.get_close_matches(name, tfds.list_builders(), n=3)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise ValueError(
            f"{name!r} is no file or folder, and no dataset of TensorFlow Datasets.{hint}"
        ) from error
    except ValueError as error:
        says = str(error).split("\n")[0]
        raise ValueError(
            f"{name!r} is no file or folder, and TensorFlow Datasets says: {says}"
        ) from error
    if download:
        try:
            builder.download_and_prepare()
        except (OSError, tfds.download.DownloadError) as error:
            raise ValueError(f"The dataset {name!r} couldn't be downloaded: {error}") from error
    elif not builder.is_prepared():
        raise ValueError(f"The dataset {name!r} isn't in {builder.data_path}: download it first.")
    info = builder.info
    if info.supervised_keys is None:
        raise ValueError(
            f"The dataset {name!r} doesn't say what is input and what is label; its features are "
            f"{', '.join(info.features)}."
        )
    splits = _tfds_splits(info.splits, round(100 * holdout), name)
    parts = [builder.as_dataset(split=split, as_supervised=True) for split in splits]
    if image_size is not None:
        parts = [part.map(_resize(image_size), tf.data.AUTOTUNE) for part in parts]
    label = info.features[info.supervised_keys[-1]]
    return Data(*parts, tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else None)


def from_folder(path, holdout=0.1, seed=0, image_size=None) -> Data:
    """`load` for a folder of images, one folder for each class."""
    path = pathlib.Path(path)
    training = path / "train" if (path / "train").is_dir() else path
    class_names = tuple(sorted(p.name for p in training.iterdir() if p.is_dir()))
    if not class_names:
        raise ValueError(f"The folder {training} has no folders of images, one for each class.")
    files, labels = _images(training, class_names)
    order = np.random.default_rng(seed).permutation(len(files))
    rest = files[order], labels[order]
    held = {}
    for name in ("validation", "test"):
        if training is not path and (path / name).is_dir():
            held[name] = _images(path / name, class_names)
        else:
            held[name], rest = _hold_out(rest, round(holdout * len(files)), path)
    decode = _Decoder(rest[0][0], image_size)
    parts = [
        tf.data.Dataset.from_tensor_slices(part).map(decode, tf.data.AUTOTUNE)
        for part in (rest, held["validation"], held["test"])
    ]
    return Data(*parts, class_names)


def from_npz(path, holdout=0.1, seed=0) -> Data:
    """`load` for an NPZ file."""
    arrays = _npz_arrays(path)
    first = "x_train" if "x_train" in arrays else "x"
    pairs = {}
    for name in ("train", "validation", "test"):
        keys = (first, first.replace("x", "y")) if name == "train" else (f"x_{name}", f"y_{name}")
        if name == "train" or keys[0] in arrays:
            pairs[name] = _npz_pair(path, arrays, *keys)
    order = np.random.default_rng(seed).permutation(len(pairs["train"][0]))
    rest = tuple(part[order] for part in pairs["train"])
    classes = _classes(path, pairs)
    for name in ("validation", "test"):
        if name not in pairs:
            pairs[name], rest = _hold_out(rest, round(holdout * len(order)), path)
    pairs["train"] = rest
    parts = [
        tf.data.Dataset.from_tensor_slices(pairs[name]) for name in ("train", "validation", "test")
    ]
    return Data(*parts, classes)


def from_table(path, target, text=None, holdout=0.1, seed=0) -> Data:
    """`load` for a CSV or TSV file."""
    columns = read_table(path)
    for argument, name in (("target", target), ("text", text)):
        if name not in columns and (name is not None or argument == "target"):
            raise ValueError(
                f"`{argument}` must name a column of {path}: {', '.join(columns)}. "
                f"Received: {argument}={name!r}"
            )
    y = columns.pop(target)
    class_names = None
    blank = np.char.strip(y) == "" if y.dtype.kind == "U" else np.isnan(y)
    if blank.any():
        line = int(np.flatnonzero(blank)[0]) + 2
        raise ValueError(f"{path}, line {line}: the column {target!r} is blank.")
    if y.dtype.kind == "U":
        class_names, y = np.unique(y, return_inverse=True)
        class_names, y = tuple(class_names.tolist()), y.astype("int32")
    order = np.random.default_rng(seed).permutation(len(y))
    rest = (order,)
    size = round(holdout * len(y))
    validation, rest = _hold_out(rest, size, path)
    test, rest = _hold_out(rest, size, path)
    if text is None:
        x = _encode(columns, rest[0], path)
    else:
        x = columns[text]
    parts = [tf.data.Dataset.from_tensor_slices((x[i], y[i])) for (i,) in (rest, validation, test)]
    return Data(*parts, class_names)


def read_table(path) -> dict:
    """The columns of a CSV or TSV file by name: float32 with NaN for blanks, or texts.

    Args:
        path: The file; its first line names the columns.

    Returns:
        A dict of arrays of one length. A column is numeric if all its values are.

    Raises:
        ValueError: If the file isn't there, is empty, or a line has another number of values.
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


def _column(values):
    try:
        return np.array([float(v) if v.strip() else np.nan for v in values], "float32")
    except ValueError:
        return np.array(values)


def _encode(columns, training, path):
    """All columns as one float32 array, by what the training rows show."""
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
                f"many for categories. If it is the input, say text={name!r}."
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


def _hold_out(arrays, count, path):
    """The first `count` rows of shuffled arrays, and the rest."""
    if not 0 < count < len(arrays[0]):
        raise ValueError(f"{path} has too few examples to hold some out: {len(arrays[0])}.")
    return tuple(a[:count] for a in arrays), tuple(a[count:] for a in arrays)


def _tfds_splits(splits, percent, name):
    """Instructions for training, validation and test."""
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


def _resize(size):
    def resize(image, label):
        resized = tf.image.resize(image, size, antialias=True)
        return tf.cast(tf.round(resized), image.dtype), label

    return resize


def _images(folder, class_names):
    """Paths and labels of the images in the class folders of `folder`."""
    unknown = {p.name for p in folder.iterdir() if p.is_dir()} - set(class_names)
    if unknown:
        raise ValueError(f"{folder} has classes unknown in training: {', '.join(sorted(unknown))}.")
    files, labels = [], []
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
    """Reads an image file, upright, as uint8 in the size and mode of the first one."""

    def __init__(self, first, size):
        image = _open(first)
        self.mode = "L" if image.mode == "L" else "RGB"
        self.size = size
        self.shape = (*(size or (image.height, image.width)), 1 if self.mode == "L" else 3)

    def __call__(self, path, label):
        image = tf.numpy_function(self._decode, [path], tf.uint8, stateful=False)
        return tf.ensure_shape(image, self.shape), label

    def _decode(self, path):
        path = path.decode()
        image = _open(path).convert(self.mode)
        height, width, _ = self.shape
        if self.size is not None:
            image = image.resize((width, height), resample=2)
        elif image.size != (width, height):
            raise ValueError(
                f"{path} is {image.height}×{image.width} where the first image is "
                f"{height}×{width}: give an `image_size`."
            )
        return np.asarray(image, "uint8").reshape(self.shape)


def _open(path):
    """The image of a file, upright and decoded to its end."""
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


def _npz_arrays(path):
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (EOFError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} can't be read as NPZ: {error}") from error


def _npz_pair(path, arrays, x, y):
    """The two arrays, checked: of one length, and without NaN or infinity."""
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


def _classes(path, pairs):
    """Names of the classes 0, 1, ... if labels are integers; checks that all are in range."""
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
