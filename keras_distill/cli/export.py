"""`keras-distill export`: a student as a proven .tflite file, with what its target needs beside it.

  keras-distill export student.keras --target=micro --quantization=int8 --data=fashion_mnist \\
      --output=firmware

Integer types are calibrated on the training part of --data. The file is then run in the target's
own runtime beside the Keras model on the test part, and the differences, the size, the memory and
the operators are printed and kept in the folder as report.json and report.md. Unless the verdict is
"pass", the exit code is 2.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags
from rich.console import Console

from keras_distill import quantization, tflite
from keras_distill.cli import datasets, models


def main(
    flags: absl_flags.FlagValues, arguments: Sequence[str], console: Console
) -> dict[str, Any]:
    """Converts, verifies and saves the model."""
    if len(arguments) != 1:
        raise ValueError("name one model: keras-distill export FILE.keras.")
    if flags.output is None:
        raise ValueError("say where to: --output=FOLDER.")
    folder = pathlib.Path(flags.output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--output={folder} isn't empty: name a new folder.")
    if flags.package is not None and flags.target != "android":
        raise ValueError(
            f"--package={flags.package} names the Kotlin package of an app, which "
            f"--target={flags.target} doesn't make: leave it out."
        )
    student = models.load(arguments[0])
    trained = "float32" if quantization.is_quantize_aware(student) else "int8"
    loaded = datasets.load(flags)
    artifact = tflite.convert(
        student,
        target=flags.target,
        quantization=flags.quantization or trained,
        io=flags.io,
        calibration=tflite.Calibration(
            loaded.train.take(flags.samples).map(lambda x, y: x).batch(1), samples=flags.samples
        ),
        recurrent=flags.recurrent,
        postprocessing=flags.postprocessing,
        labels=_labels(flags.labels) or loaded.class_names,
        max_flash=flags.max_flash,
        max_arena=flags.max_arena,
        firmware=flags.firmware,
    )
    verified = artifact.verify(loaded.test.batch(64), count=flags.samples)
    package = {} if flags.package is None else {"package": flags.package}
    artifact.save(folder, flags.name, **package)
    console.print(str(artifact.report), markup=False, soft_wrap=True)
    console.print(f"Written to {folder}")
    _require_proof(verified, folder)
    return {**artifact.report}


def _labels(text: str | None) -> list[str] | None:
    """Names of the classes from a flag: a file with one on each line, or the names themselves."""
    if text is None:
        return None
    path = pathlib.Path(text)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    return [line.strip() for line in lines if line.strip()]


def _require_proof(verified: dict[str, Any], folder: pathlib.Path) -> None:
    """Raises `ValueError`, and so makes the exit code 2, unless the file passed."""
    verdict = verified["verdict"]
    if verdict == "pass":
        return
    found = {
        "fail": "the file doesn't compute what the student does",
        "not judged": "the file couldn't be proven: the runtime on this host has a known fault",
        "not run": "the file couldn't be proven: the runtime on this host lacks an operator",
    }.get(verdict, "the file couldn't be proven")
    raise ValueError(
        f"{found} (verdict: {verdict}). See the verification in {folder / 'report.md'}."
    )
