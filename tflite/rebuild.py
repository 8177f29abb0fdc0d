"""Students on a backend other than TensorFlow: rebuilt on it and converted in a child process.

The file is proven here, against the student on its own backend.
"""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import keras
from keras_distill.tflite import child, handover, judge
from keras_distill.tflite.artifact import Artifact
from keras_distill.tflite.child import ConverterError
from keras_distill.tflite.request import Request
from keras_distill.tflite.targets import EthosU

from keras_distill import samples

#: How many of the last lines that a crashed child printed are shown.
_LINES = 5


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
    run = functools.partial(
        _run, request, target, quantization, {**arguments, "calibration": calibration}
    )
    made: handover.Outcome = run(handover.read_outcome, "convert")
    for message in made.warnings:
        warnings.warn(message, stacklevel=3)
    notes = judge.against_original(request, made.named, made.tflite, made.ports, arrays)
    known = made.report["warnings"]
    made.report["warnings"] = [*known, *(note for note in notes if note not in known)]
    return Artifact(
        made.tflite, request.target.name, made.report, made.ports, student=request.student,
        labels=request.labels, compiled=made.compiled, named=made.named, examples=made.examples,
        float32=functools.partial(run, _float32, "float32") if request.has_float_twin else None,
    )  # fmt: skip


def _refuse(arguments):
    if arguments["stream"] is not None:
        raise NotImplementedError(
            "`stream` needs the TensorFlow backend of Keras: save the student, and convert it in a "
            "process with KERAS_BACKEND=tensorflow."
        )
    for name in handover.AROUND:
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


def _run(request, target, quantization, arguments, read, work):
    """What `read` finds after a child process on the TensorFlow backend did its work."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        _save(request.student.model, folder / "student.keras")
        handover.write_arguments(folder, target, quantization, arguments)
        _save_around(request, arguments, folder)
        handover.write_modules(folder, _modules(folder))
        environment = {
            **os.environ,
            "KERAS_BACKEND": "tensorflow",
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        }
        main = "keras_distill.tflite.rebuild_main"
        ended = subprocess.run(
            [sys.executable, "-P", "-m", main, work, folder],
            env=environment, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        error = handover.read_error(folder)
        if error is not None:
            raise error
        if ended.returncode:
            last = " | ".join(ended.stderr.strip().splitlines()[-_LINES:])
            raise child.ConverterCrash(
                f"The process that rebuilds the student ended with {ended.returncode}; it last "
                f"printed: {last}"
            )
        return read(folder)


def _float32(folder):
    return (folder / "float32.tflite").read_bytes()


def _save(model, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # What Keras says of optimizers and of unbuilt models.
        model.save(path)


def _modules(folder):
    """Modules of the classes and functions that the saved models in a folder have by name."""
    texts = []
    for path in folder.glob("*.keras"):
        with zipfile.ZipFile(path) as archive:
            texts.append(archive.read("config.json").decode())
    registered = keras.saving.get_custom_objects()
    used = [x for name, x in registered.items() if any(json.dumps(name) in t for t in texts)]
    for x in used:
        if x.__module__ == "__main__":
            raise ConverterError(
                f"{x.__name__!r} is defined in the program that runs, which the process that "
                "converts on TensorFlow can't import. Put it in a module of its own."
            )
    return sorted({x.__module__ for x in used})


def _save_around(request, arguments, folder):
    """Saves the layers around the student, for which the child looks by name."""
    model = request.student.model
    for name in handover.AROUND:
        layer = arguments[name]
        if isinstance(layer, keras.Layer):
            place = request.student.inputs[0] if name == handover.AROUND[0] else model.outputs[0]
            shape = place.shape if name == handover.AROUND[0] else place.shape[1:]
            around = keras.Sequential([keras.Input(tuple(shape), dtype=place.dtype), layer])
            _save(around, folder / f"{name}.keras")
