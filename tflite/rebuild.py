"""Students on a backend other than TensorFlow: rebuilt on it and converted in a child process.

The file is proven here, against the student on its own backend.
"""

import dataclasses
import functools
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras_distill.tflite import child, judge, runtimes
from keras_distill.tflite.artifact import Artifact, Examples
from keras_distill.tflite.request import Request
from keras_distill.tflite.targets import EthosU

from keras_distill import samples

#: The layers around a student that are saved beside it.
AROUND = ("preprocessing", "postprocessing")
#: How many of the last lines that a crashed child printed are shown.
_LINES = 5


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the child hands back.

    Attributes:
        tflite: The file as it is delivered.
        named: The file with its names.
        compiled: The file compiled for an NPU, or `None`.
        report: What is known of it.
        ports: Its inputs and outputs.
        examples: Inputs of its test vectors.
        warnings: Messages of which the child warned.
    """

    tflite: bytes
    named: bytes
    compiled: bytes | None
    report: dict[str, Any]
    ports: runtimes.Ports
    examples: Examples
    warnings: tuple[str, ...]


def convert(
    request: Request, target: str | EthosU, quantization: str, arguments: Mapping[str, Any]
) -> Artifact:
    """The artifact of a student that lives on another backend.

    Args:
        request: What was asked for, checked.
        target: As in `keras_distill.tflite.convert`.
        quantization: Likewise.
        arguments: The other arguments of it.

    Raises:
        NotImplementedError: An argument can't be handed to another process.
        ConverterError: The student can't be rebuilt; or as in `keras_distill.tflite.convert`.
    """
    _refuse(arguments)
    arrays, calibration = _calibration(request)
    given = {**arguments, "calibration": calibration, "target": target}
    given["quantization"] = quantization
    made: Outcome = _run(request, given, "convert")
    for message in made.warnings:
        warnings.warn(message, stacklevel=3)
    notes = judge.against_original(request, made.named, made.tflite, made.ports, arrays)
    known = made.report["warnings"]
    made.report["warnings"] = [*known, *(note for note in notes if note not in known)]
    float32 = functools.partial(_run, request, given, "float32")
    return Artifact(
        made.tflite, request.target.name, made.report, made.ports, student=request.student,
        labels=request.labels, compiled=made.compiled, named=made.named, examples=made.examples,
        float32=float32 if request.has_float_twin else None,
    )  # fmt: skip


def _refuse(arguments):
    if arguments["stream"] is not None:
        raise NotImplementedError(
            "`stream` needs the TensorFlow backend of Keras: save the student, and convert it in a "
            "process with KERAS_BACKEND=tensorflow."
        )
    for name in AROUND:
        given = arguments[name]
        if given is not None and not isinstance(given, (str, keras.Layer)):
            raise NotImplementedError(
                f"`{name}` must be a Keras layer on the {keras.backend.backend()} backend, from "
                "which a function can't be handed to TensorFlow, or a name that `convert` knows. "
                f"Received: {name}={given!r}"
            )


def _calibration(request):
    """Calibration data as arrays by input name, and as an argument for the child."""
    calibration, function = request.calibration, request.student
    if calibration is None:
        return None, None
    shapes = {i.name: i.shape for i in function.inputs}
    given, _ = samples.read(calibration.data, shapes, calibration.samples, argument="calibration")
    arrays = {i.name: given[i.name].astype(function.dtype(i)) for i in function.inputs}
    return arrays, dataclasses.replace(calibration, data=given)


def _run(request: Request, given: Mapping[str, Any], work: str) -> Any:
    """Has a child process on the TensorFlow backend do work on the saved student."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        _save(request.student.model, folder / "student.keras")
        given = {**given, **_saved_around(request, given, folder)}
        (folder / "given.pickle").write_bytes(pickle.dumps({"work": work, **given}))
        environment = {
            **os.environ,
            "KERAS_BACKEND": "tensorflow",
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        }
        main = "keras_distill.tflite.rebuild_main"
        ended = subprocess.run(
            [sys.executable, "-P", "-m", main, folder],
            env=environment, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        file = folder / "outcome.pickle"
        if ended.returncode or not file.is_file():
            last = " | ".join(ended.stderr.strip().splitlines()[-_LINES:])
            raise child.ConverterCrash(
                f"The process that rebuilds the student ended with {ended.returncode}; it last "
                f"printed: {last}"
            )
        outcome = pickle.loads(file.read_bytes())
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _save(model, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # What Keras says of optimizers and of unbuilt models.
        model.save(path)


def _saved_around(request, given, folder):
    """The layers around the student in files: dict from argument to path, or what was given."""
    places = {}
    model = request.student.model
    for name in AROUND:
        layer = given[name]
        if isinstance(layer, keras.Layer):
            place = request.student.inputs[0] if name == AROUND[0] else model.outputs[0]
            shape = place.shape if name == AROUND[0] else place.shape[1:]
            around = keras.Sequential([keras.Input(tuple(shape), dtype=place.dtype), layer])
            places[name] = folder / f"{name}.keras"
            _save(around, places[name])
    return places


def as_arrays(examples: Examples) -> Examples:
    """Examples of NumPy arrays alone."""
    if examples.arrays is None:
        return examples
    arrays = {name: np.asarray(x) for name, x in examples.arrays.items()}
    return dataclasses.replace(examples, arrays=arrays)
