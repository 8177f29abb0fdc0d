"""The child process in which a student of another backend is rebuilt on TensorFlow.

Started by name, with a folder that holds the student and what is asked for.
"""

import pathlib
import pickle
import sys
import warnings
from typing import Any

import keras
from keras_distill.tflite.artifact import Artifact
from keras_distill.tflite.child import ConverterError
from keras_distill.tflite.convert import convert
from keras_distill.tflite.rebuild import AROUND, Outcome, as_arrays


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
            f"`Lambda` layer make one of them. The error was: {error}"
        ) from None


def run(folder: pathlib.Path) -> Any:
    """What is asked for of the student in a folder: an `Outcome`, or the float32 file."""
    given = pickle.loads((folder / "given.pickle").read_bytes())
    work, target, quantization = (given.pop(key) for key in ("work", "target", "quantization"))
    for name in AROUND:
        if isinstance(given[name], pathlib.Path):
            given[name] = rebuilt(given[name]).layers[-1]
    student = rebuilt(folder / "student.keras")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        artifact = convert(student, target, quantization, **given)
    if work == "float32":
        return artifact.float32()
    return outcome_of(artifact, tuple(str(x.message) for x in caught if _is_ours(x)))


def outcome_of(artifact: Artifact, messages: tuple[str, ...]) -> Outcome:
    """An artifact without its student."""
    return Outcome(
        artifact.tflite, artifact.named, artifact.compiled, dict(artifact.report), artifact.ports,
        as_arrays(artifact.examples), messages,
    )  # fmt: skip


def _is_ours(warning):
    return issubclass(warning.category, UserWarning) and "keras_distill" in warning.filename


if __name__ == "__main__":
    place = pathlib.Path(sys.argv[1])
    try:
        result = run(place)
    except Exception as error:
        # Raised again by the parent.
        result = error if isinstance(error, (ValueError, TypeError, RuntimeError)) else None
        if result is None:
            raise
    (place / "outcome.pickle").write_bytes(pickle.dumps(result))
