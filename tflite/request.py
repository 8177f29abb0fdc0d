"""What `convert` is asked for: its arguments, checked."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras_distill.tflite import budget, lowering, runtimes, student_function, targets
from keras_distill.tflite.calibration import Calibration
from keras_distill.tflite.given_states import can_be_given
from keras_distill.tflite.streaming import Stream
from keras_distill.tflite.student_function import StudentFunction

from keras_distill import quantization as quantization_aware
from keras_distill.quantization.aware import quantized_by_keras
from keras_distill.quantization.stepped import QuantizedSteps

#: Quantizations without integer activations.
FLOAT = ("float32", "float16", "dynamic")

#: What `precision` may ask for.
PRECISIONS = ("float32", "int4", "int8", "int16")

#: How a student becomes a file; `keras_distill.tflite.converters` has a module for each.
Way = Literal["plain", "quantizer", "trained"]


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """The arguments of `convert`, checked and with defaults filled in.

    Attributes:
        student: The student, between preprocessing and postprocessing.
        target: The target.
        quantization: What the file is to be; for quantize-aware students what they were trained as.
        io: Types of the file's inputs and outputs.
        way: How the student becomes a file: `"plain"` is TensorFlow's converter, `"quantizer"`
            is ai-edge-quantizer on the float32 file, `"trained"` writes the integers of a
            quantize-aware student.
        calibration: Calibration data, or `None`.
        precision: Precision by layer or operator where it is to differ.
        recurrent: `None`, `"unroll"` or `"step"`.
        stream: How the file is to run frame by frame, or `None`.
        labels: Names of the classes, or `None`.
        batch_size: Static batch size, or `None`.
        max_flash: Bytes that the file may have, or `None`.
        max_arena: Bytes of arena that it may need, or `None`.
    """

    student: StudentFunction
    target: targets.Target
    quantization: str
    io: tuple[str, str]
    way: Way
    calibration: Calibration | None
    precision: Mapping[str, str]
    recurrent: str | None
    stream: Stream | None
    labels: list[str] | None
    batch_size: int | None
    max_flash: int | None
    max_arena: int | None

    @classmethod
    def of(
        cls,
        model: Any,
        target: str | targets.EthosU,
        quantization: str,
        *,
        io: str | Sequence[str] | None,
        calibration: Any,
        precision: Mapping[str, str] | None,
        recurrent: str | None,
        stream: int | Stream | None,
        preprocessing: Any,
        postprocessing: Any,
        labels: Sequence[str] | None,
        batch_size: int | None,
        input_signature: Any,
        max_flash: int | str | None,
        max_arena: int | str | None,
    ) -> "Request":
        """A request from the arguments of `convert`, which documents them.

        Raises:
            TypeError: `model` is not a Keras model.
            ValueError: An argument is wrong, or the target can't run what is asked for.
        """
        where = targets.get(target)
        _check_model(model)
        _check_strings(model, preprocessing, input_signature)
        _check_keras_quantized(model)
        _check_weights(model)
        if calibration is not None and not isinstance(calibration, Calibration):
            calibration = Calibration(calibration)
        precision = dict(precision or {})
        way, quantization = _way(model, quantization, calibration, precision)
        _check_quantization(where, quantization)
        if way != "trained":
            _check_calibrated(quantization, calibration)
        types = _types(where, quantization, io)
        _check_shape(where, batch_size, recurrent)
        _check_stateful(model, recurrent)
        stream = Stream.of(stream)
        if stream is not None:
            _check_stream(model, quantization, batch_size, recurrent)
        _CHECKS[way](model, quantization, types, calibration, precision, recurrent)
        limits = budget.size("max_flash", max_flash), budget.size("max_arena", max_arena)
        _check_arena(where, limits[1])
        student = StudentFunction(
            model,
            student_function.inputs_of(model, input_signature),
            preprocessing=preprocessing,
            postprocessing=_postprocessing(postprocessing),
            cast="uint8" if quantization in FLOAT and types[0] == "uint8" else None,
            structure=input_signature if isinstance(input_signature, Mapping) else None,
        )
        return cls(
            student, where, quantization, types, way, calibration, precision, recurrent,
            stream, _labels(labels, model), batch_size, *limits,
        )  # fmt: skip

    @property
    def is_float(self) -> bool:
        """Whether activations stay float."""
        return self.quantization in FLOAT

    @property
    def has_float_twin(self) -> bool:
        """Whether a float32 file of the same operators can be made beside a quantized one."""
        whole = self.recurrent != "step" and self.stream is None
        return self.quantization != "float32" and self.way != "trained" and whole


def _way(
    model: keras.Model,
    quantization: str,
    calibration: Calibration | None,
    precision: Mapping[str, str],
) -> tuple[Way, str]:
    """How a student becomes a file, and the quantization of that file."""
    if quantization_aware.is_quantize_aware(model):
        return "trained", _trained_quantization(model, quantization)
    ranges = "minmax" if calibration is None else calibration.ranges
    if ranges != "minmax" or precision or quantization == "int4":
        return "quantizer", quantization
    return "plain", quantization


def _trained_quantization(model, quantization):
    """What a quantize-aware student becomes, which `quantization` may leave out or repeat."""
    trained = quantization_aware.precision(model)
    if quantization not in ("float32", trained):
        raise ValueError(
            f"The student was made quantize-aware for {trained!r}, so it can't be converted to "
            f"quantization={quantization!r}. Leave `quantization` out, or convert the float "
            "student."
        )
    return trained


def _check_model(model):
    if isinstance(getattr(model, "student", None), keras.Model):
        raise TypeError(
            f"`student` must be the student alone. Received: {type(model).__name__}; give its "
            "`.student`."
        )
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`student` must be a Keras model (`keras.Model`). Received: {type(model).__name__}"
        )


_OF_STRINGS = (
    keras.layers.HashedCrossing,
    keras.layers.Hashing,
    keras.layers.IntegerLookup,
    keras.layers.StringLookup,
    keras.layers.TextVectorization,
)


def _check_strings(model, preprocessing, input_signature):
    """Refuses students and preprocessing that take texts, or hash and look up: the app must."""
    layers = [x for x in (preprocessing,) if isinstance(x, keras.Layer)]
    for layer in [*layers, *lowering.all_layers(model)]:
        if isinstance(layer, _OF_STRINGS):
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) takes text, hashes it or looks it "
                "up, which TFLite's operators don't: the app must do that. Cut the student after "
                "the layer, as in `keras.Model(layer.output, student.output)` with "
                f"`layer = student.get_layer({layer.name!r})`, and give the file ids."
            )
    given = keras.tree.flatten(input_signature) if input_signature is not None else []
    for spec in given or getattr(model, "inputs", None) or []:
        if "string" in str(spec.dtype):
            raise ValueError(
                f"Input {getattr(spec, 'name', None)!r} of model {model.name!r} takes text, which "
                "TFLite's operators don't: the app must turn it into ids or numbers. Cut the "
                "student where they come in, as in `keras.Model(layer.output, student.output)`."
            )


def _check_keras_quantized(model):
    """Refuses layers whose kernels Keras has turned into integers, which no operator takes so."""
    for layer in quantized_by_keras(model):
        if layer.quantization_mode != "int4" and not isinstance(layer, keras.layers.Embedding):
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) was quantized to "
                f"{layer.quantization_mode} by Keras (`quantize`), in a form that TFLite has no "
                "operators for. Convert the float student, as it was before "
                '`student.quantize(...)`: `convert(..., quantization="int8", calibration=...)` '
                "quantizes it."
            )


def _check_weights(model):
    for variable in model.variables:
        values = keras.ops.convert_to_numpy(variable)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(
                f"Weight {variable.path!r} of model {model.name!r} holds NaN or infinity "
                f"({np.sum(~np.isfinite(values)):,} of {values.size:,} values): training diverged. "
                "Go back to weights from before it did, and train with a smaller learning rate or "
                "`clipnorm`."
            )


def _check_stateful(model, recurrent):
    for layer in lowering.all_layers(model):
        if getattr(layer, "stateful", False) and recurrent != "step":
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) is stateful: it goes on from where "
                'it was, which a file can do with `recurrent="step"` only (it computes one step, '
                "the caller keeps the state). For whole sequences that each start from zero, "
                "build the student with `stateful=False`."
            )


def _check_quantization(target, quantization):
    if quantization not in targets.QUANTIZATIONS:
        raise ValueError(
            f"`quantization` must be one of {list(targets.QUANTIZATIONS)}."
            f"{targets.suggestion(quantization, targets.QUANTIZATIONS)} "
            f"Received: quantization={quantization!r}"
        )
    if quantization in target.refused:
        runs = [q for q in targets.QUANTIZATIONS if q not in target.refused]
        raise ValueError(
            f"Target {target.name!r} can't run quantization={quantization!r}: "
            f"{target.refused[quantization]}. Use one of {runs}."
        )


def _check_calibrated(quantization, calibration):
    if quantization not in FLOAT and calibration is None:
        raise ValueError(
            f"`calibration` is needed for quantization={quantization!r}: give some hundred inputs "
            "like those that the file will meet, for example `calibration=x_train[:500]`."
        )


def _types(target, quantization, io):
    """`io` as a pair (inputs, outputs)."""
    if io is None:
        own = {"int8": "int8", "int4": "int8", "int16x8": "int16"}.get(quantization, "float32")
        io = own if target.runtime == "micro" else "float32"
    pair = (io, io) if isinstance(io, str) else tuple(io)
    choices = {
        "int8": ("int8", "uint8", "float32"),
        "int4": ("int8", "float32"),
        "int16x8": ("int16", "float32"),
    }.get(quantization, ("float32", "uint8"))
    if len(pair) != 2 or any(x not in choices for x in pair):
        raise ValueError(
            f"`io` must be one of {list(choices)} for quantization={quantization!r}, or a pair of "
            f"them (inputs, outputs). Received: io={io!r}"
        )
    # Without quantized activations there is no scale by which outputs could be bytes.
    return (pair[0], "float32") if quantization in FLOAT else pair


def _check_shape(target, batch_size, recurrent):
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(
            f"`batch_size` must be an integer of at least 1, or `None`. Received: {batch_size!r}"
        )
    if batch_size is None and target.runtime == "micro":
        raise ValueError(f"Target {target.name!r} needs static shapes: give `batch_size=1`.")
    if recurrent not in (None, "unroll", "step"):
        raise ValueError(
            f'`recurrent` must be `None`, "unroll" or "step". Received: recurrent={recurrent!r}'
        )


def _check_stream(model, quantization, batch_size, recurrent):
    if quantization == "dynamic":
        raise ValueError(
            '`stream` is not for quantization="dynamic", which finds the ranges of activations '
            'anew at each run: a few frames have others than a window. Use "int8" or "float16".'
        )
    if batch_size != 1:
        raise ValueError(f"`stream` needs `batch_size=1`. Received: batch_size={batch_size!r}")
    if recurrent is not None:
        raise ValueError(
            f'`stream` and `recurrent` exclude each other. Received: recurrent="{recurrent}"'
        )
    for layer in lowering.all_layers(model):
        kind = type(layer).__name__
        if isinstance(layer, keras.layers.Bidirectional):
            raise ValueError(
                f"Layer {layer.name!r} ({kind}) can't run frame by frame: it reads the sequence "
                "both ways. Use the layer inside it alone."
            )
        if isinstance(layer, QuantizedSteps):
            raise ValueError(
                f"Layer {layer.name!r} ({kind}) can't run frame by frame: quantize-aware, it is "
                "unrolled over its window. Use an `LSTM`, or quantize it after training."
            )
        if isinstance(layer, keras.layers.RNN) and not can_be_given(layer):
            raise ValueError(
                f"Layer {layer.name!r} ({kind}) can't run frame by frame beside other layers. Use "
                "an `LSTM`, a `GRU` or a `SimpleRNN`, forwards and without `return_state`, or "
                '`recurrent="step"` where no other layer looks at several frames.'
            )


def _check_plain(model, quantization, io, calibration, precision, recurrent):
    """Nothing to refuse: TensorFlow's converter takes all of it."""


def _check_quantizer(model, quantization, io, calibration, precision, recurrent):
    """Refuses what `ranges` and `precision` can't be applied to."""
    if quantization not in ("int8", "int4"):
        raise ValueError(
            '`ranges` and `precision` are for quantization="int8" and "int4". '
            f"Received: quantization={quantization!r}"
        )
    if "uint8" in io:
        raise ValueError(
            '`io="uint8"` is not for files with `ranges` or `precision`, whose inputs and outputs '
            f'are int8 or float: use `io="int8"` or `io="float32"`. '
            f"{_received(calibration, precision)}"
        )
    known = {layer.name for layer in lowering.all_layers(model)}
    for name, value in precision.items():
        if value not in PRECISIONS:
            raise ValueError(
                f"`precision` must be one of {list(PRECISIONS)} for each layer or operator. "
                f"Received: precision[{name!r}]={value!r}"
            )
        if name not in known and not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
            raise ValueError(
                f"`precision` names {name!r}, which is neither a layer of the student nor an "
                f'operator such as "CONV_2D".{targets.suggestion(name, known)}'
            )


def _check_trained(model, quantization, io, calibration, precision, recurrent):
    """Refuses what a quantize-aware student has settled in training."""
    if precision or (calibration is not None and calibration.ranges != "minmax"):
        raise ValueError(
            "A quantize-aware student is exported with the ranges and the precision that it was "
            "trained with: leave `ranges` and `precision` out, or give `quantize_aware` other "
            f"`layers`. {_received(calibration, precision)}"
        )
    if recurrent == "step":
        raise ValueError(
            '`recurrent="step"` is not for quantize-aware students, whose `GRU` and `SimpleRNN` '
            "are unrolled. Leave it out, use `stream=1`, which steps through an `LSTM`, or give "
            '`recurrent="unroll"` if a recurrent layer stays float.'
        )


_CHECKS = {"plain": _check_plain, "quantizer": _check_quantizer, "trained": _check_trained}


def _received(calibration, precision):
    ranges = "minmax" if calibration is None else calibration.ranges
    return f"Received: ranges={ranges!r}, precision={precision!r}"


def _check_arena(target, max_arena):
    if max_arena is None:
        return
    if target.runtime != "micro":
        raise ValueError(f"`max_arena` is for microcontrollers, not for target {target.name!r}.")
    if target.accelerator is None and not runtimes.micro_available():
        raise ValueError(
            "`max_arena` needs the TFLite Micro interpreter to measure the arena: "
            "`pip install keras-distill[micro]` (Linux x86-64)."
        )


def _labels(labels, model):
    if labels is None:
        return None
    labels = [str(label) for label in labels]
    shape = getattr(model, "output_shape", None)
    classes = shape[-1] if isinstance(shape, tuple) and shape else None
    if isinstance(classes, int) and classes > 1 and classes != len(labels):
        raise ValueError(
            f"`labels` has {len(labels)} names for the {classes} classes of the student."
        )
    return labels


def _postprocessing(given):
    """A layer or function on every output, from its name or itself."""
    known = {
        "softmax": keras.ops.softmax,
        "sigmoid": keras.ops.sigmoid,
        "argmax": _argmax,
    }
    if isinstance(given, str) and given not in known:
        raise ValueError(
            f"`postprocessing` must be one of {list(known)}, or a Keras layer or function. "
            f"Received: postprocessing={given!r}"
        )
    return known[given] if isinstance(given, str) else given


def _argmax(x):
    """The index of the largest value along the last axis, int32."""
    if keras.backend.backend() != "tensorflow":
        return keras.ops.argmax(x, axis=-1)
    # Keras' own ends in bitwise operators that TFLite lacks.
    return tf.argmax(x, axis=-1, output_type=tf.int32)
