"""`keras-distill evaluate`: models and exported files side by side on test data.

  keras-distill evaluate teacher=teacher.keras distilled=student.keras phone=kit/student.tflite \\
      --data=fashion_mnist

Each candidate is NAME=FILE: a .keras or .h5 file, a .tflite file, which runs in its target's own
runtime, or the folder of a SavedModel. Those called "teacher" and "student on labels" are what the
others are measured by: agreement with the teacher, and how much of the gap between the two is
recovered.

Detectors and segmenters are scored with --task=detection and --task=segmentation:

  keras-distill evaluate teacher=teacher.keras phone=kit/student.tflite --task=detection \\
      --data=cells --image_size=192,256 --decode=heads:detections
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags
from rich.console import Console

from keras_distill import evaluation, tflite
from keras_distill.cli import datasets, labeled_images, models
from keras_distill.teachers.conversion import KERAS_SUFFIXES


def main(
    flags: absl_flags.FlagValues, arguments: Sequence[str], console: Console
) -> dict[str, Any]:
    """Compares the files named in `arguments`."""
    comparison = compare(flags, arguments, flags.latency_runs, flags.split)
    console.print(comparison)
    return {**comparison.to_dict()}


def compare(
    flags: absl_flags.FlagValues,
    arguments: Sequence[str],
    latency_runs: int,
    split: str = "test",
) -> evaluation.Comparison:
    """The `Comparison` of the files named in `arguments`, on the data that the flags name.

    Args:
        flags: The flags of the data.
        arguments: `NAME=FILE` or `FILE` for each candidate.
        latency_runs: How often each is timed.
        split: `"test"` or `"validation"`.

    Raises:
        ValueError: If a file or the data don't exist or don't fit together.
    """
    if not arguments:
        raise ValueError("name the candidates: NAME=FILE.keras or NAME=FILE.tflite.")
    candidates: dict[str, Any] = {}
    for name, candidate in map(_candidate, arguments):
        if name in candidates:
            raise ValueError(f"two candidates are called {name!r}: name them, NAME=FILE.")
        candidates[name] = candidate
    if flags.task == "detection":
        return _of_detectors(flags, candidates, latency_runs)
    if flags.task == "segmentation":
        return _of_segmenters(flags, candidates, latency_runs)
    _refuse(flags, "decode", "images", "missing_label", "class_names")
    loaded = datasets.load(flags)
    for name, candidate in candidates.items():
        models.check(candidate, name, loaded.train.element_spec[0])
    return evaluation.compare(
        candidates,
        getattr(loaded, split).batch(256),
        task=flags.task or ("multilabel" if loaded.several_labels else None),
        class_names=loaded.class_names,
        latency_runs=latency_runs,
    )


def _of_detectors(
    flags: absl_flags.FlagValues, candidates: dict[str, Any], latency_runs: int
) -> evaluation.Comparison:
    _refuse(flags, "missing_label")
    data, class_names = labeled_images.boxes(flags)
    return evaluation.compare(
        candidates,
        data,
        task="detection",
        class_names=class_names,
        decode=None if flags.decode is None else datasets.function(flags.decode),
        latency_runs=latency_runs,
    )


def _of_segmenters(
    flags: absl_flags.FlagValues, candidates: dict[str, Any], latency_runs: int
) -> evaluation.Comparison:
    _refuse(flags, "decode", "images")
    return evaluation.compare(
        candidates,
        labeled_images.masks(flags),
        task="segmentation",
        class_names=flags.class_names,
        missing_label=flags.missing_label,
        latency_runs=latency_runs,
    )


def _refuse(flags: absl_flags.FlagValues, *names: str) -> None:
    """Raises `ValueError` if a flag is given that the task doesn't read."""
    for name in names:
        # `report` passes the flags of `train`, which has none of these.
        if name in flags and flags[name].value is not None:
            task = flags.task or "classification"
            raise ValueError(f"--{name} isn't for --task={task}: leave it out.")


def _candidate(argument: str) -> tuple[str, Any]:
    name, _, file = argument.partition("=")
    if not file:
        name, file = pathlib.Path(argument).stem, argument
    if file.endswith(KERAS_SUFFIXES):
        return name, models.load(file)
    if file.endswith(".tflite"):
        return name, tflite.load(file)
    if pathlib.Path(file).is_dir():
        return name, models.load_foreign(file)
    raise ValueError(
        f"{argument!r} must be NAME=FILE.keras (or .h5), NAME=FILE.tflite or NAME=FOLDER of a "
        "SavedModel."
    )
