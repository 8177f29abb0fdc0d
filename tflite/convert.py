"""A student to a TFLite file for a target."""

import functools
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras_distill.tflite import artifact, budget, converters, judge, rebuild, trace
from keras_distill.tflite import calibration as calibration_data
from keras_distill.tflite.calibration import Calibration
from keras_distill.tflite.given_states import GivenStates
from keras_distill.tflite.micro import firmware as whole
from keras_distill.tflite.request import Request
from keras_distill.tflite.streaming import LateError, Stream, conversion
from keras_distill.tflite.targets import EthosU

from keras_distill import backends


def convert(
    student: keras.Model,
    target: str | EthosU = "android",
    quantization: str = "float32",
    *,
    io: str | Sequence[str] | None = None,
    calibration: Calibration | Any = None,
    precision: Mapping[str, str] | None = None,
    recurrent: str | None = None,
    stream: int | Stream | None = None,
    preprocessing: keras.Layer | Callable | None = None,
    postprocessing: str | keras.Layer | Callable | None = None,
    labels: Sequence[str] | None = None,
    batch_size: int | None = 1,
    input_signature: Any = None,
    max_flash: int | str | None = None,
    max_arena: int | str | None = None,
    firmware: str | None = None,
) -> artifact.Artifact:
    """Converts a student to a TFLite file for a target.

    The converter runs in a child process. The file is then run once in the target's own runtime
    on this host; `Artifact.verify` proves its outputs. A student on the JAX backend is rebuilt
    on TensorFlow from its saved form, and its file is compared with what it computes on JAX.

    Args:
        student: A built Keras model. One made by `keras_distill.quantization.quantize_aware`
            becomes a file with the very ranges and integers that it was trained with; it needs
            neither `quantization` nor `calibration`.
        target: `"android"`, `"micro"`, an Ethos-U such as `"ethos-u55-128"`, or an `EthosU` with
            settings of its own.
        quantization: `"float32"`, `"float16"` (weights stored in half), `"dynamic"` (int8 weights,
            float activations), `"int8"`, `"int16x8"` (int16 activations, int8 weights) or
            `"int4"` (int4 weights, int8 activations).
        io: Type of the file's inputs and outputs, or a pair (inputs, outputs): `"float32"`,
            `"int8"`, `"uint8"`, `"int16"`. Defaults to that of the activations for
            microcontrollers and to `"float32"` for phones. Integer inputs of the student, such as
            token ids, and integer outputs keep their type. With `"uint8"` and calibration data
            of bytes, the file takes the bytes as they are.
        calibration: Inputs like those that the file will meet, of shape `(samples, ...)`, from
            which the ranges of activations follow: arrays, a `tf.data.Dataset` or an iterable,
            or a `Calibration`, which has options too. Needed for int8, int16x8 and int4.
        precision: `"float32"`, `"int16"`, `"int8"` or `"int4"` by layer name or by operator, such
            as `{"stem": "float32", "FULLY_CONNECTED": "int4"}`, where it is to differ from
            `quantization="int8"` or `"int4"`.
        recurrent: What becomes of recurrent layers that have no operator of their own (an `LSTM`
            with default settings has one): `None` makes loops, which only float files can hold;
            `"unroll"` copies the operators for each time step; `"step"` makes a file that
            computes one step, its state as further inputs and outputs.
        stream: How many frames along time, the second axis of the inputs, the file takes at each
            step, or a `Stream`: the file then takes the next frames and gives the next outputs,
            with its state as further inputs and outputs. It is proven to give what the student
            gives on a window of frames. `docs/streaming.md` says which layers can.
        preprocessing: Keras layer or function from the file's input to the student's, to be part
            of the file, such as `keras.layers.Rescaling(1 / 255)`. Calibration data and all other
            inputs of the artifact are then those of the file.
        postprocessing: `"softmax"`, `"sigmoid"`, `"argmax"`, or a Keras layer or function on
            every output, to be part of the file.
        labels: Names of the classes.
        batch_size: Static batch size, or `None` for a dynamic one (phones only).
        input_signature: `keras.InputSpec`s with a batch axis, for models whose inputs aren't
            known or not fixed in size.
        max_flash: Bytes that the file may have, as a number or as `"64KB"`; with `firmware`, bytes
            of flash that the whole may take.
        max_arena: Bytes of tensor arena that it may need on microcontrollers.
        firmware: `"reference"` or `"cmsis_nn"`, for target `"micro"`: kernels of TFLite Micro with
            which the least firmware that runs the file is linked for a Cortex-M4, and run in QEMU.
            What it takes is `report["firmware"]`; `micro.firmware.measure` says what this needs.
            `None` links nothing.

    Returns:
        An `Artifact`.

    Raises:
        TypeError: `student` is not a Keras model.
        ValueError: An argument is wrong, or the target can't run what is asked for.
        BudgetError: The file, or the firmware, is over `max_flash` or `max_arena`.
        ConverterError: The converter refused the model, or crashed.

    Example:

    >>> artifact = keras_distill.tflite.convert(
    ...     student, target="micro", quantization="int8", calibration=x_train[:200])
    >>> artifact.verify(x_test, y_test)
    >>> artifact.save("firmware")
    """
    backends.require("`keras_distill.tflite.convert`", "tensorflow", "jax", "torch")
    arguments = {
        "io": io,
        "calibration": calibration,
        "precision": precision,
        "recurrent": recurrent,
        "stream": stream,
        "preprocessing": preprocessing,
        "postprocessing": postprocessing,
        "labels": labels,
        "batch_size": batch_size,
        "input_signature": input_signature,
        "max_flash": max_flash,
        "max_arena": max_arena,
    }
    request = Request.of(student, target, quantization, **arguments)
    if firmware is not None:
        _check_firmware(request, firmware)
    if keras.backend.backend() == "tensorflow":
        made = _converted(request)
    else:
        made = rebuild.convert(request, target, quantization, arguments)
    if firmware is not None:
        whole.measure(made, kernels=firmware, max_flash=max_flash)
    return made


def _check_firmware(request, firmware):
    """Refuses what can't be linked, before the minutes that a conversion can take."""
    if request.target.name != "micro" or firmware not in whole.KERNELS:
        raise ValueError(
            f'`firmware` must be one of {list(whole.KERNELS)}, for target "micro", or `None`. '
            f"Received: firmware={firmware!r}, target={request.target.name!r}"
        )
    whole.find(kernels=firmware)


def _converted(request: Request) -> artifact.Artifact:
    """The stages of a conversion."""
    calibrated = calibration_data.read(
        request.student, request.calibration, not request.is_float and request.way != "trained"
    )
    converter = converters.WAYS[request.way]()
    try:
        made = _made(request, converter, calibrated)
    except LateError:
        made = _made(request, converter, calibrated, fused=False)
    function, converted, samples, judged, proven = made
    float32 = functools.partial(converters.float32_file, request, function, converted.scores)
    result = artifact.finished(
        request,
        judged,
        calibrated,
        samples,
        float32 if request.has_float_twin else None,
        proven,
    )
    budget.check(result.report, request.max_flash, request.max_arena)
    return result


def _made(
    request: Request,
    converter: converters.Converter,
    calibrated: calibration_data.Calibrated,
    fused: bool = True,
) -> tuple:
    """What was traced, its file, the calibration data at its inputs, the judgement, the stream.

    Args:
        request: What was asked for.
        converter: The way in which the student becomes a file.
        calibrated: Calibration data.
        fused: Whether the LSTMs of a stream keep the operator of their own.
    """
    arrays = calibrated.arrays
    function, samples = trace.prepared(request, converter.form(request), arrays, fused)
    with tempfile.TemporaryDirectory() as folder:
        graph = trace.trace(request, function, pathlib.Path(folder))
        converted = converter.convert(request, graph, samples)
    if request.io[0] == "uint8" and calibrated.are_bytes:
        converted = converted.fed_bytes()
    if request.target.runtime == "micro":
        converted = converted.for_micro()
    carried = function.carried if isinstance(function, GivenStates) else {}
    judged = judge.judge(request, converted, samples if carried else arrays, function)
    if request.stream is None:
        return function, converted, samples, judged, None
    proven = conversion.stream(request, judged, graph.scopes, arrays, carried)
    return function, converted, samples, judged, proven
