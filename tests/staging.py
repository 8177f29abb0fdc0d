"""Puts images into the place and format from which `tfds.load` reads a dataset it prepared."""

import csv
import gzip
import os
import zlib

import numpy as np


def stage(name, data_dir, train, test):
    """Prepares `mnist`, `fashion_mnist`, `cifar10` or `cats_vs_dogs` with `(images, labels)`.

    The builder is the one of TensorFlow Datasets, but for its examples, which come from here in
    place of a download. Afterwards `tfds.load(name, data_dir=data_dir)` reads them.
    """
    import tensorflow_datasets as tfds

    stock = tfds.builder_cls(name)
    with tfds.core.registered.skip_registration():

        class Local(stock):
            def _split_generators(self, dl_manager):
                if name == "cifar10":
                    self.info.features["label"].names = [f"class{i}" for i in range(10)]
                return {"train": self._rows("train", *train), "test": self._rows("test", *test)}

            def _rows(self, split, images, labels):
                for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                    row = {"image": image, "label": int(label)}
                    if name == "cifar10":
                        row["id"] = f"{split}_{i:05d}"
                    if name == "cats_vs_dogs":
                        row["image/filename"] = f"{i}.jpg"
                    yield i, row

    Local.name = name
    tfds.disable_progress_bar()
    Local(data_dir=data_dir).download_and_prepare()
    return data_dir


def idx_images(folder, kind, count):
    """The first images and labels of MNIST-like gz files; `kind` is `train` or `t10k`."""
    with gzip.open(os.path.join(folder, f"{kind}-images-idx3-ubyte.gz")) as file:
        images = np.frombuffer(file.read(16 + 784 * count), "uint8", offset=16)
    with gzip.open(os.path.join(folder, f"{kind}-labels-idx1-ubyte.gz")) as file:
        labels = np.frombuffer(file.read(8 + count), "uint8", offset=8)
    return images.reshape(-1, 28, 28, 1), labels


def complete_lines(path):
    """The text of a gz file up to its last whole line, though the file may end too early."""
    unpacked = zlib.decompressobj(wbits=31).decompress(path.read_bytes())
    return unpacked[: unpacked.rindex(b"\n") + 1].decode()


# What users of the examples download, in the layout in which they get it.


def har_arrays(npz, step=1):
    """Windows, activities, parts and people of the UCI HAR Dataset, one window in `step`."""
    with np.load(npz) as h:
        x = h["halves"][h["pairs"]].reshape(-1, 128, 6)
        arrays = x, h["y"], h["is_test"].astype(bool), h["subject"]
    return [array[::step] for array in arrays]


def har_folder(folder, x, y, is_test, people):
    """The UCI HAR Dataset's text files of six signals."""
    for part, rows in (("train", ~is_test), ("test", is_test)):
        signals = folder / part / "Inertial Signals"
        signals.mkdir(parents=True)
        names = [f"{sensor}_{axis}" for sensor in ("body_gyro", "total_acc") for axis in "xyz"]
        for i, name in enumerate(names):
            np.savetxt(signals / f"{name}_{part}.txt", x[rows][..., i], "%.7e")
        np.savetxt(folder / part / f"y_{part}.txt", y[rows] + 1, "%d")
        np.savetxt(folder / part / f"subject_{part}.txt", people[rows], "%d")
    return folder


def news_rows(path):
    """`(text, class)` of AG News."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    return [line.split("\t") for line in lines]


def news_file(path, rows):
    """AG News as a table with a header."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows([("text", "class"), *rows])
    return path
