"""`keras-distill evaluate`: models and exported files side by side on test data.

  keras-distill evaluate teacher=teacher.keras distilled=student.keras phone=kit/student.tflite \\
      --data=fashion_mnist

Each candidate is NAME=FILE: a .keras or a .tflite file, run in its own runtime. Those called
"teacher" and "student on labels" are what the others are measured by: agreement with the teacher,
and how much of the gap between the two is recovered.
"""

import pathlib

from absl import flags as absl_flags

from keras_distill import evaluation, tflite
from keras_distill.cli import datasets, models


def define(flags):
    """Declares the command's flags."""
    datasets.define(flags)
    to = {"flag_values": flags}
    absl_flags.DEFINE_enum("split", "test", ["test", "validation"], "Part of the data.", **to)
    absl_flags.DEFINE_integer(
        "latency_runs", 0, "How often each candidate is timed on this host.", **to
    )


def main(flags, arguments, console):
    """Compares the files named in `arguments`."""
    comparison = compare(flags, arguments, flags.latency_runs, flags.split)
    console.print(comparison)
    return comparison.to_dict()


def compare(flags, arguments, latency_runs, split="test"):
    """The `Comparison` of the files named in `arguments`, on the data that the flags name."""
    if not arguments:
        raise ValueError("name the candidates: NAME=FILE.keras or NAME=FILE.tflite.")
    candidates = {}
    for name, candidate in map(_candidate, arguments):
        if name in candidates:
            raise ValueError(f"two candidates are called {name!r}: name them, NAME=FILE.")
        candidates[name] = candidate
    loaded = datasets.load(flags)
    for name, candidate in candidates.items():
        models.check(candidate, name, loaded.train.element_spec[0])
    return evaluation.compare(
        candidates,
        getattr(loaded, split).batch(256),
        class_names=loaded.class_names,
        latency_runs=latency_runs,
    )


def _candidate(argument):
    name, _, file = argument.partition("=")
    if not file:
        name, file = pathlib.Path(argument).stem, argument
    if file.endswith(".keras"):
        return name, models.load(file)
    if file.endswith(".tflite"):
        return name, tflite.load(file)
    raise ValueError(f"{argument!r} must be NAME=FILE.keras or NAME=FILE.tflite.")
