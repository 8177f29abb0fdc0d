"""What the benchmarks share: timing in turns, and results written whole into files and pages."""

import gzip
import io
import itertools
import json
import os
import pathlib
import platform
import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from keras_distill._files import write_text
from keras_distill.evaluation.report import versions
from keras_distill.tuning.training import summary

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# Folder of the datasets.
DATA = os.environ.get("KERAS_DISTILL_TEST_DATA", str(ROOT.parent / "shared" / "data"))


def in_turns(functions, rounds):
    """Seconds of each function in each round, after one that isn't counted.

    Args:
        functions: Dict of functions by name.
        rounds: Number of rounds that count.

    Returns:
        A dict of lists by name.
    """
    times = {name: [] for name in functions}
    for number in range(rounds + 1):
        # The order turns round, so that none always comes behind the same other.
        for name in list(functions) if number % 2 else reversed(functions):
            start = time.perf_counter()
            functions[name]()
            if number:
                times[name].append(time.perf_counter() - start)
    return times


def steady(dataset):
    """A dataset without autotuning.

    TensorFlow's autotuning thread wakes at ever longer intervals, and now and then holds up the end
    of an epoch until it does: up to as long again as the epoch took.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def median_ratio(times, other):
    """Median over the rounds of what one took, divided by what another took in that round."""
    return statistics.median(ratios(times, other))


def ratios(times, other):
    """What one took in each round, divided by what another took in it."""
    return [a / b for a, b in zip(times, other, strict=True)]


def gain(values, others):
    """What runs gain over others of the same seeds, in points.

    Args:
        values: Accuracies, from 0 to 1, one for each seed.
        others: Those to compare with.

    Returns:
        The mean of the differences, half its 95 % interval (Student's t), and what that shows:
        `"better"`, `"worse"` or `"no difference shown"`.
    """
    mean, half = summary(100 * np.subtract(values, others))
    half = np.nan if half is None else half
    shown = "better" if mean > half else "worse" if mean < -half else "no difference shown"
    return mean, half, shown


def mnist(name, data):
    """MNIST or Fashion-MNIST.

    Args:
        name: `"mnist"` or `"fashion_mnist"`.
        data: Folder that may hold a folder of that name with the four original files; where it
            doesn't, they are downloaded.

    Returns:
        `(x, y)` to train on and `(x, y)` to test on: images (samples, 28, 28, 1), float32 from 0
        to 1, and labels, int32.
    """
    folder = pathlib.Path(data, name)
    if not folder.is_dir():
        splits = getattr(keras.datasets, name).load_data()
        return [((x[..., None] / 255).astype("float32"), y.astype("int32")) for x, y in splits]

    def read(file, offset):
        path = next(folder.rglob(f"{file}*.gz"))
        return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=offset)

    return [
        (
            (read(f"{split}-images", 16).reshape(-1, 28, 28, 1) / 255).astype("float32"),
            read(f"{split}-labels", 8).astype("int32"),
        )
        for split in ("train", "t10k")
    ]


def cifar10(data):
    """CIFAR-10.

    Args:
        data: Folder that may hold `cifar10/cifar10.npz`; where it doesn't, it is downloaded.

    Returns:
        `(x, y)` to train on and `(x, y)` to test on: images (samples, 32, 32, 3), uint8, and
        labels, int32.
    """
    path = pathlib.Path(data, "cifar10", "cifar10.npz")
    if not path.exists():
        return [(x, y[:, 0].astype("int32")) for x, y in keras.datasets.cifar10.load_data()]
    parts = ("train", "test")
    with np.load(path) as file:
        return [(_images(file, part), file[f"y_{part}"].astype("int32")) for part in parts]


def uci_har(data):
    """UCI HAR, activity recognition from a phone's sensors.

    Args:
        data: Folder that holds `uci_har/uci_har_6ch.npz`, or the dataset as UCI publishes it
            unpacked, `UCI HAR Dataset`.

    Returns:
        Windows (10299, 128, 6), float32, of the gyroscope's and the accelerometer's three axes; the
        activities, from 0; the number of the person; and whether the window is one of the official
        test set.
    """
    path = pathlib.Path(data, "uci_har", "uci_har_6ch.npz")
    text = pathlib.Path(data, "UCI HAR Dataset")
    if path.exists():
        with np.load(path) as file:
            windows = file["halves"][file["pairs"]].reshape(-1, 128, 6)
            labels = file["y"].astype("int32")
            return windows, labels - labels.min(), file["subject"], file["is_test"]
    if not text.is_dir():
        raise FileNotFoundError(
            f"There is no {text}. Unpack there what UCI has as 'Human Activity Recognition Using "
            "Smartphones': https://doi.org/10.24432/C54S4K"
        )
    parts = [_windows(text / part, part) for part in ("train", "test")]
    is_test = np.repeat([False, True], [len(labels) for _, labels in parts])
    people = [np.loadtxt(text / p / f"subject_{p}.txt", "int32") for p in ("train", "test")]
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return x, y, np.concatenate(people), is_test


def _windows(folder, part):
    """Windows of shape (128, 6) and activities from 0, as UCI publishes them."""
    names = [f"{sensor}_{axis}" for sensor in ("body_gyro", "total_acc") for axis in "xyz"]
    files = [folder / "Inertial Signals" / f"{name}_{part}.txt" for name in names]
    x = np.stack([np.loadtxt(file, "float32") for file in files], -1)
    return x, np.loadtxt(folder / f"y_{part}.txt", "int32") - 1


def _images(file, part):
    """Images that are kept as lossless WebP, 10 × 10 to a file."""
    blob, ends = file[f"webp_{part}"], file[f"webp_{part}_off"]
    tiles = [
        np.asarray(Image.open(io.BytesIO(blob[a:b].tobytes())).convert("RGB"))
        for a, b in itertools.pairwise(ends)
    ]
    tiles = np.stack(tiles).reshape(-1, 10, 32, 10, 32, 3).swapaxes(2, 3)
    return tiles.reshape(-1, 32, 32, 3)[: len(file[f"y_{part}"])]


def peak_memory():
    """Most memory that this process has held, in MiB (Linux).

    `getrusage` would count what the process that started this one held.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def machine():
    """What the figures of a run depend on."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "load": os.getloadavg(),
        **versions(),
    }


def _processor():
    """The processor's name, as far as the system tells."""
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (x.partition(": ")[2] for x in lines if x.startswith("model name"))
    return next(names, platform.processor())


def measure(path, parts, settings, wanted=()):
    """Measures the parts of a benchmark and writes them as JSON.

    Args:
        path: Path of the results.
        parts: Dict of functions by name, in the order in which they run.
        settings: Dict of what all parts have in common.
        wanted: Names of those to measure anew: the others keep their results. Defaults to all.

    Returns:
        The results by name, with "settings", and as "machines" the machine at the end of each.
    """
    for name in wanted:
        if name not in parts:
            raise ValueError(f"There is no part {name!r}; there are {', '.join(parts)}.")
    results = json.loads(path.read_text()) if wanted else {"settings": settings}
    check_settings(path, results["settings"], settings)
    for name in wanted or parts:
        results[name] = parts[name]()
        results.setdefault("machines", {})[name] = machine()
    write(path, json.dumps(results, indent=1) + "\n")
    return results


def runs_of(path, settings):
    """The folder of what is done of a benchmark, made where it doesn't exist.

    Args:
        path: Path of the folder.
        settings: Dict of the settings of all that is done.

    Raises:
        ValueError: If what is in the folder was done with others.
    """
    folder = pathlib.Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    done = once(folder / "settings.json", "settings", lambda: settings)
    check_settings(folder, done, settings)
    return folder


def check_settings(path, done, settings):
    """Raises unless what was done, read from JSON, was done with these settings."""
    wanted = json.loads(json.dumps(settings))
    if json.loads(json.dumps(done)) != wanted:
        raise ValueError(f"{path} has results of other settings: {done}. Wanted: {wanted}")


def once(path, key, function):
    """What a function returned for a key, kept in a file of JSON so that a stopped run goes on.

    Args:
        path: Path of the file of all keys done.
        key: What is done, in words.
        function: Function without arguments, called if the key isn't in the file.

    Returns:
        Its result.
    """
    done = json.loads(path.read_text()) if path.exists() else {}
    if key not in done:
        done[key] = function()
        print(f"{key}: {done[key]}", flush=True)
        write(path, json.dumps(done, indent=1))
    return done[key]


def write(path, text):
    """Writes a file whole or not at all."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def insert(text, page, name):
    """Puts a benchmark's text between `<!-- name -->` and `<!-- /name -->` in a page.

    Args:
        text: Markdown.
        page: Path of the page from the project's root.
        name: Name of the benchmark.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    document = (ROOT / page).read_text()
    if begin not in document or end not in document:
        raise ValueError(f"{page} has no lines {begin!r} and {end!r} to put the results between.")
    before, rest = document.split(begin)
    write(ROOT / page, f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")
