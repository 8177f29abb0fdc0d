"""`keras-distill export`: a student as a proven .tflite file, with what its target needs beside it.

  keras-distill export student.keras --target=micro --quantization=int8 --data=fashion_mnist \\
      --output=firmware

Integer types are calibrated on the training part of --data. The file is then run in the target's
own runtime beside the Keras model on the test part, and the differences, the size, the memory and
the operators are printed and kept in the folder as report.json and report.md.
"""

import pathlib

from absl import flags as absl_flags

from keras_distill import tflite
from keras_distill.cli import datasets, models


def define(flags):
    """Declares the command's flags."""
    datasets.define(flags)
    to = {"flag_values": flags}
    absl_flags.DEFINE_string("output", None, "New folder for the file and its kit.", **to)
    absl_flags.DEFINE_string("target", "android", "android, micro, ethos-u55-128, ...", **to)
    absl_flags.DEFINE_string(
        "quantization", "int8", "float32, float16, dynamic, int8, int16x8 or int4.", **to
    )
    absl_flags.DEFINE_string(
        "io", None, "Type of inputs and outputs: float32, int8, uint8 or int16.", **to
    )
    absl_flags.DEFINE_enum(
        "postprocessing",
        None,
        ["softmax", "sigmoid", "argmax"],
        "What to do with the outputs.",
        **to,
    )
    absl_flags.DEFINE_integer("samples", 500, "Examples to calibrate on and to verify on.", **to)


def main(flags, arguments, console):
    """Converts, verifies and saves the model."""
    if len(arguments) != 1:
        raise ValueError("name one model: keras-distill export FILE.keras.")
    if flags.output is None:
        raise ValueError("say where to: --output=FOLDER.")
    folder = pathlib.Path(flags.output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--output={folder} isn't empty: name a new folder.")
    student = models.load(arguments[0])
    loaded = datasets.load(flags)
    artifact = tflite.convert(
        student,
        target=flags.target,
        quantization=flags.quantization,
        io=flags.io,
        calibration=tflite.Calibration(
            loaded.train.take(flags.samples).map(lambda x, y: x).batch(1), samples=flags.samples
        ),
        postprocessing=flags.postprocessing,
        labels=loaded.class_names,
    )
    verified = artifact.verify(loaded.test.batch(64), count=flags.samples)
    artifact.save(folder)
    console.print(str(artifact.report), markup=False, soft_wrap=True)
    console.print(f"Written to {folder}")
    if verified["verdict"] != "pass":
        raise ValueError(
            f"the file doesn't compute what the student does (verdict: {verified['verdict']}): see "
            f"the verification in {folder / 'report.md'}."
        )
    return artifact.report
