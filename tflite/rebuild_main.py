"""The child process in which a student of another backend is rebuilt on TensorFlow.

Started by name, with what to do (`"convert"` or `"float32"`) and a folder that holds the student
and what is asked for.
"""

import importlib
import pathlib
import sys
import warnings
from typing import Any

import keras
from keras_distill.tflite import handover
from keras_distill.tflite.child import ConverterError
from keras_distill.tflite.convert import convert


def rebuilt(path: pathlib.Path) -> Any:
    """The model in a file, of which Keras runs no code that the file brings along.

    Raises:
        ConverterError: It can't be rebuilt.
    """
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Whatever a layer raises.
        raise ConverterError(
            "The student can't be rebuilt on the TensorFlow backend from its saved form. Layers of "
            "your own must be in a module that can be imported, registered by "
            "`keras.saving.register_keras_serializable`, and compute with `keras.ops`; of a "
            "`Lambda` layer make one of them. The error was: "
            + str(error).partition("Full object config")[0].strip()
        ) from None


def _import(module: str) -> None:
    """Imports a module, which registers what the student has of it.

    Raises:
        ConverterError: It can't be imported here.
    """
    try:
        importlib.import_module(module)
    except Exception as error:  # Whatever a module raises.
        raise ConverterError(
            f"The student has layers or functions of the module {module!r}, which can't be "
            f"imported on the TensorFlow backend: {type(error).__name__}: {error}"
        ) from None


def run(work: str, folder: pathlib.Path) -> None:
    """Converts the student of a folder, and writes the outcome or the float32 file there."""
    given = handover.read_arguments(folder)
    for module in handover.read_modules(folder):
        _import(module)
    for name in handover.AROUND:
        place = folder / f"{name}.keras"
        if place.is_file():
            given[name] = rebuilt(place).layers[-1]
    student = rebuilt(folder / "student.keras")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        artifact = convert(student, given.pop("target"), given.pop("quantization"), **given)
    if work == "float32":
        (folder / "float32.tflite").write_bytes(artifact.float32())
        return
    messages = tuple(str(x.message) for x in caught if _is_ours(x))
    outcome = handover.Outcome(
        artifact.tflite, artifact.named, artifact.compiled, artifact.report, artifact.ports,
        artifact.examples, messages,
    )  # fmt: skip
    handover.write_outcome(folder, outcome)


def _is_ours(warning):
    return issubclass(warning.category, UserWarning) and "keras_distill" in warning.filename


if __name__ == "__main__":
    place = pathlib.Path(sys.argv[2])
    try:
        run(sys.argv[1], place)
    except Exception as error:
        if not handover.write_error(place, error):
            raise
