"""A student to a TFLite file for a target."""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import pathlib
import tempfile
import warnings

import keras
import numpy as np
import tensorflow as tf
from keras_distill.tflite import (
    artifact,
    budget,
    ethos,
    flatbuffer,
    graph,
    recipe,
    runtimes,
    steps,
    targets,
    worker,
)
from keras_distill.tflite import calibration as calibration_ranges
from keras_distill.tflite.inspect import inspect

from keras_distill import samples

_FLOAT = ("float32", "float16", "dynamic")
# How many operators that stayed float are named.
_NAMED = 5


def convert(
    student,
    target="android",
    quantization="float32",
    *,
    io=None,
    calibration=None,
    calibration_samples=500,
    ranges="minmax",
    percentile=99.9,
    training_range=None,
    precision=None,
    recurrent=None,
    preprocessing=None,
    postprocessing=None,
    labels=None,
    batch_size=1,
    input_signature=None,
    max_flash=None,
    max_arena=None,
):
    """Converts a student to a TFLite file for a target.

    The converter runs in a child process. The file is then run once in the target's own runtime
    on this host; `Artifact.verify` proves its outputs.

    Args:
        student: A built Keras model. One made by `keras_distill.quantization.quantize_aware`
            becomes a file with the very ranges and integers that it was trained with; it needs
            neither `quantization` nor `calibration`.
        target: `"android"`, `"micro"` or an Ethos-U such as `"ethos-u55-128"`.
        quantization: `"float32"`, `"float16"` (weights stored in half), `"dynamic"` (int8 weights,
            float activations), `"int8"`, `"int16x8"` (int16 activations, int8 weights) or
            `"int4"` (int4 weights, int8 activations).
        io: Type of the file's inputs and outputs, or a pair (inputs, outputs): `"float32"`,
            `"int8"`, `"uint8"`, `"int16"`. Defaults to that of the activations for
            microcontrollers and to `"float32"` for phones. Integer inputs of the student, such as
            token ids, and integer outputs keep their type. With `"uint8"` and calibration data
            of bytes, the file takes the bytes as they are.
        calibration: Inputs like those the file will meet, by which the ranges of activations are
            set: arrays, a `tf.data.Dataset` or an iterable. Needed for int8, int16x8 and int4.
        calibration_samples: How many of them to use at most.
        ranges: How the ranges of activations follow from calibration: `"minmax"` covers all
            values, `"percentile"` leaves out the outermost, `"mse"` gives the least mean squared
            error. The last two are for `"int8"` and `"int4"`.
        percentile: Share of the values inside the range, in percent.
        training_range: `(low, high)` of the inputs in training, to be warned where calibration
            data are unlike them. The student's batch normalization tells without it.
        precision: `"float32"`, `"int16"`, `"int8"` or `"int4"` by layer name or by operator, such
            as `{"stem": "float32", "FULLY_CONNECTED": "int4"}`, where it is to differ from
            `quantization="int8"` or `"int4"`.
        recurrent: What becomes of recurrent layers that have no operator of their own (an `LSTM`
            with default settings has one): `None` makes loops, which only float files can hold;
            `"unroll"` copies the operators for each time step; `"step"` makes a file that
            computes one step, its state as further inputs and outputs.
        preprocessing: Keras layer or function from the file's input to the student's, to be part
            of the file, such as `keras.layers.Rescaling(1 / 255)`. Calibration data and all other
            inputs of the artefact are then those of the file.
        postprocessing: `"softmax"`, `"sigmoid"`, `"argmax"`, or a Keras layer or function on
            every output, to be part of the file.
        labels: Names of the classes.
        batch_size: Static batch size, or `None` for a dynamic one (phones only).
        input_signature: `keras.InputSpec`s with a batch axis, for models whose inputs aren't
            known or not fixed in size.
        max_flash: Bytes that the file may have, as a number or as `"64KB"`.
        max_arena: Bytes of tensor arena that it may need on microcontrollers.

    Returns:
        An `Artifact`.

    Raises:
        TypeError: `student` is not a Keras model.
        ValueError: An argument is wrong, or the target can't run what is asked for.
        BudgetError: The file is over `max_flash` or `max_arena`.
        ConverterError: The converter refused the model, or crashed.

    Example:

    >>> artifact = keras_distill.tflite.convert(
    ...     student, target="micro", quantization="int8", calibration=x_train[:200])
    >>> artifact.verify(x_test, y_test)
    >>> artifact.save("firmware")
    """
    target = targets.get(target)
    _check_student(student)
    aware = _is_quantize_aware(student)
    if aware:
        quantization = _trained(student, quantization)
    _check_quantization(target, quantization, calibration, aware)
    io = _check_io(target, quantization, io)
    _check_calibration(calibration_samples, ranges, percentile)
    if ranges != "minmax" or precision:
        _check_quantizer(student, quantization, ranges, precision or {}, io, aware)
    _check_shape(target, batch_size, recurrent, aware)
    max_flash, max_arena = budget.size("max_flash", max_flash), budget.size("max_arena", max_arena)
    _check_arena(target, max_arena)
    whole = graph.Wrapped(
        student,
        graph.inputs_of(student, input_signature),
        preprocessing=preprocessing,
        postprocessing=_postprocessing(postprocessing),
        cast="uint8" if quantization in _FLOAT and io[0] == "uint8" else None,
    )
    labels = _check_labels(labels, student)
    arrays, raw, notes = _read_calibration(whole, calibration, calibration_samples, training_range)
    exported, met = whole, arrays
    if recurrent == "step":
        exported = steps.Step(whole)
        met = exported.rollout(arrays or whole.made_up(4), calibration_samples)
    elif aware:
        exported = dataclasses.replace(whole, student=_export_form(student), named_by=student)
    if quantization not in _FLOAT and not aware:
        _check_count(met, batch_size)
    with tempfile.TemporaryDirectory() as folder:
        job = _Job(exported, pathlib.Path(folder), target, batch_size, quantization, io)
        job.save(recurrent)
        if aware:
            named = _complete(student, job.convert("float32"), io)
        elif ranges != "minmax" or precision or quantization == "int4":
            named = job.quantize(met, ranges, percentile, precision or {})
        else:
            named = job.convert(quantization, None if quantization in _FLOAT else met)
    if io[0] == "uint8" and raw:
        named = flatbuffer.fed_bytes(named)
    found = inspect(named)
    _refuse(student, target, quantization, found)
    notes += _left_float(found, quantization, precision or {}, job.named)
    result, errors = _run(target, named, exported, whole, labels, arrays, quantization)
    notes += _judge(errors, quantization)
    result._examples = {name: array[:5] for name, array in (met or whole.made_up(5)).items()}
    if quantization != "float32" and not aware and recurrent != "step":
        result._float32 = functools.partial(
            _float32_file, exported, target, batch_size, recurrent, quantization
        )
    result.report.update(
        {
            "quantization": quantization,
            "io": list(io),
            "calibration": _calibration_report(arrays, ranges, precision),
            "warnings": notes,
            "versions": {p: importlib.metadata.version(p) for p in ("tensorflow", "keras")},
        }
    )
    budget.check(result.report, max_flash, max_arena)
    return result


def _read_calibration(whole, data, count, training_range):
    """Calibration data by input name, whether they are bytes, and what is odd about them."""
    if data is None:
        return None, False, []
    shapes = {i.name: i.shape for i in whole.inputs}
    arrays, _ = samples.read(data, shapes, count, argument="calibration")
    raw = all(array.dtype == "uint8" for array in arrays.values())
    arrays = {i.name: arrays[i.name].astype(whole.dtype(i)) for i in whole.inputs}
    return arrays, raw, calibration_ranges.unlike_training(whole, arrays, training_range)


class _Job:
    """One conversion in a temporary folder."""

    def __init__(self, exported, folder, target, batch_size, quantization, io):
        self.exported = exported
        self.folder = folder
        self.target = target
        self.batch_size = batch_size
        self.quantization = quantization
        self.io = io
        #: The operators that each key of `precision` names, known when they are quantized.
        self.named = {}

    def save(self, recurrent):
        """Saves the graph, and refuses recurrent layers that the converter is known to crash on."""
        self.recurrent = recurrent
        self.saved = self._save(self.folder)
        if self.saved.recurrent and self.quantization not in _FLOAT:
            layer = self.saved.recurrent[0]
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) becomes a loop, which the "
                f'converter can\'t quantize to {self.quantization}. Give `recurrent="unroll"` '
                '(its operators once for each time step) or `recurrent="step"` (the file '
                "computes one step, the caller keeps the state). An `LSTM` with default "
                "activations, without mask or initial state, has an operator of its own in int8."
            )

    def _save(self, folder, marked=False):
        return graph.save(
            self.exported,
            folder / "saved_model",
            self.batch_size,
            marked=marked,
            tanh_gelu=self.target.runtime == "micro",
            fuse=self.quantization != "int16x8",
            unroll=self.recurrent == "unroll",
        )

    def convert(self, quantization, arrays=None):
        """Runs TensorFlow's converter. Returns the file."""
        try:
            tflite = worker.run(
                self.folder,
                "convert",
                arrays,
                quantization=quantization,
                io=self.io if quantization == self.quantization else ("float32", "float32"),
                batch_size=self.batch_size,
            )
        except worker.ConverterCrash as error:
            raise worker.ConverterCrash(
                f"TensorFlow's converter crashed on model {self.exported.student.name!r} as "
                f"{quantization} ({error}). " + self._blame()
            ) from None
        except worker.ConverterError as error:
            raise worker.ConverterError(
                f"TensorFlow's converter refused model {self.exported.student.name!r} as "
                f"{quantization}: {error}"
            ) from None
        return flatbuffer.tidied(tflite, [i.name for i in self.exported.inputs], self.saved.outputs)

    def _blame(self):
        if self.saved.loops:
            return (
                f"It can't quantize loops; the model's are {self.saved.loops}, named after their "
                'layers. Use quantization="float32" or "float16", or write the layer without '
                "a loop."
            )
        return 'Convert parts of the model to find the layer, or use quantization="float32".'

    def quantize(self, arrays, ranges, percentile, precision):
        """Runs ai-edge-quantizer on the float32 file. Returns the file."""
        float32 = self.convert("float32")
        found = inspect(float32)
        names = [i.name for i in self.exported.inputs]
        limits = calibration_ranges.activation_ranges(
            float32, [arrays[n] for n in names], ranges, percentile
        )
        ranks = {
            t.name: len(t.shape) for op in found.operators for t in (*op.inputs, *op.outputs) if t
        }
        np.savez(
            self.folder / "ranges.npz",
            **{
                name: np.array(limit, "float32").reshape(2, *(1,) * ranks.get(name, 1))
                for name, limit in limits.items()
            },
        )
        (self.folder / "float32.tflite").write_bytes(float32)
        self.named = self._named(precision, found)
        micro = self.target.runtime == "micro"
        rules = recipe.build(self.quantization, self.io, precision, self.named, micro)
        try:
            tflite = worker.run(self.folder, "quantize", recipe=rules)
        except worker.ConverterError as error:
            raise worker.ConverterError(
                f"ai-edge-quantizer refused model {self.exported.student.name!r} as "
                f"{self.quantization}: {error}"
            ) from None
        return flatbuffer.tidied(tflite, names, self.saved.outputs)

    def _named(self, precision, found):
        """The operators of the float32 file that each key of `precision` names."""
        if not precision:
            return {}
        folder = self.folder / "marked"
        scopes = self._save(folder, marked=True).scopes
        types = {"quantization": "float32", "io": ("float32", "float32")}
        tflite = worker.run(folder, "convert", batch_size=self.batch_size, **types)
        return recipe.named(precision, scopes, found.operators, graph.unmarked(inspect(tflite)))


def _float32_file(exported, target, batch_size, recurrent, quantization):
    """The float32 file of the graph that a quantized file was made from."""
    with tempfile.TemporaryDirectory() as folder:
        job = _Job(exported, pathlib.Path(folder), target, batch_size, quantization, None)
        job.save(recurrent)
        return job.convert("float32")


def _run(target, named, exported, whole, labels, arrays, quantization):
    """The artefact and the errors of its outputs, where the target's runtimes run the file."""
    try:
        runtimes.survive(named, target.runtime)
        result = _artifact(target, named, exported, whole, labels)
        return result, _errors(result, arrays or whole.made_up(4))
    except runtimes.Refusal as error:
        raise ValueError(
            f"The runtime of target {target.name!r} refuses model {whole.student.name!r} as "
            f"{quantization}. {error}"
        ) from None


def _artifact(target, named, exported, whole, labels):
    """The artefact of a file that still has its names."""
    tflite = flatbuffer.stripped(named) if target.runtime == "micro" else named
    inputs, outputs = artifact.ports(runtimes.LiteRT(named))
    names = getattr(exported, "states", [])
    states = [
        ([p["name"] for p in inputs].index(n), [p["name"] for p in outputs].index(f"{n}_out"))
        for n in names
    ]
    report = artifact.describe(inspect(tflite), inputs, outputs, target.name)
    report["labels"] = labels
    if target.runtime == "micro":
        report["bytes_saved_by_stripping_names"] = len(named) - len(tflite)
        if runtimes.micro_available():
            report["arena"] = runtimes.TFLiteMicro(tflite).arena
    compiled = None
    if target.accelerator:
        compiled, report["npu"] = ethos.compile(tflite, target)
    return artifact.Artifact(
        tflite, target.name, report, inputs=inputs, outputs=outputs, student=whole,
        labels=labels, states=states, named=named, compiled=compiled,
    )  # fmt: skip


def _refuse(student, target, quantization, found):
    """Raises where the target can't run the file."""
    refused = targets.refusals(found, target.name)
    if refused:
        raise ValueError(
            f"Target {target.name!r} can't run model {student.name!r} as {quantization}: "
            f"{'; '.join(refused)}."
        )


def _left_float(found, quantization, precision, named):
    """Says which operators compute in float though integers were asked for."""
    if quantization in ("float32", "float16"):
        return []
    if quantization == "dynamic":
        left = [
            op for op in found.operators if any(t.dtype == "FLOAT32" for t in op.inputs[1:2] if t)
        ]
        left = [op for op in left if op.macs != 0]
    else:
        floats = [key for key, value in precision.items() if value == "float32"]
        asked = {op.layer for key in floats for op in named[key]}
        left = [
            op
            for op in found.operators
            if op.name not in ("QUANTIZE", "DEQUANTIZE")
            and any(t.dtype == "FLOAT32" for t in op.outputs)
            and op.layer not in asked
        ]
    if not left:
        return []
    named = [f"{op.name} at {targets.layer_of(op.layer)!r}" for op in left[:_NAMED]]
    if len(left) > _NAMED:
        named.append(f"and {len(left) - _NAMED} others")
    note = f"stayed float: {', '.join(named)}"
    if quantization != "dynamic":
        warnings.warn(f"Not everything is {quantization}; {note}.", stacklevel=3)
    return [note]


def _errors(result, arrays):
    """Largest error of each output on a few samples in the target's runtime, relative to the
    output's largest value."""
    inputs = {name: array[:4] for name, array in arrays.items()}
    expected = result.student.predict(inputs)
    _, got = result._run(inputs, runtimes.on_host(result.runtime))
    return {
        name: float(np.abs(got[name] - wanted).max() / (np.abs(wanted).max() + 1e-6))
        for name, wanted in expected.items()
        if wanted.dtype.kind == "f"
    }


def _judge(errors, quantization):
    """A float file that answers otherwise is an error, a quantized one a warning."""
    notes = []
    for name, error in errors.items():
        note = f"output {name!r} is off by {error:.1%} of its largest value on a few samples"
        if quantization == "float32" and not error < 0.01:
            raise worker.ConverterError(f"The float32 file computes something else: {note}.")
        if not error < 0.5:
            warnings.warn(f"As {quantization}, {note}; `verify` tells more.", stacklevel=3)
            notes.append(note)
    return notes


def _calibration_report(arrays, ranges, precision):
    if arrays is None:
        return {}
    return {
        "samples": len(next(iter(arrays.values()))),
        "ranges": ranges,
        **({"precision": dict(precision)} if precision else {}),
    }


def _check_student(student):
    if not isinstance(student, keras.Model):
        raise TypeError(
            f"`student` must be a Keras model (`keras.Model`). Received: {type(student).__name__}"
        )


def _check_quantization(target, quantization, calibration, aware):
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
    if quantization not in _FLOAT and calibration is None and not aware:
        raise ValueError(
            f"`calibration` is needed for quantization={quantization!r}: give some hundred inputs "
            "like those the file will meet, for example `calibration=x_train[:500]`."
        )


def _check_calibration(count, ranges, percentile):
    if not isinstance(count, int) or count < 1:
        raise ValueError(
            f"`calibration_samples` must be an integer of at least 1. Received: {count!r}"
        )
    if ranges not in calibration_ranges.RANGES:
        raise ValueError(
            f"`ranges` must be one of {list(calibration_ranges.RANGES)}. Received: {ranges!r}"
        )
    if not 50 < percentile <= 100:
        raise ValueError(f"`percentile` must be above 50, at most 100. Received: {percentile!r}")


def _check_count(arrays, batch_size):
    count = len(next(iter(arrays.values())))
    if batch_size is not None and count < batch_size:
        raise ValueError(
            f"`calibration` gives {count} samples, fewer than the batch of {batch_size} that they "
            "are run in: give more of them, and `calibration_samples` of as many."
        )


def _check_quantizer(student, quantization, ranges, precision, io, aware):
    """Refuses what `ranges` and `precision` can't be applied to."""
    received = f"Received: ranges={ranges!r}, precision={precision!r}"
    if aware:
        raise ValueError(
            "A quantize-aware student is exported with the ranges and the precision that it was "
            "trained with: leave `ranges` and `precision` out, or give `quantize_aware` other "
            f"`layers`. {received}"
        )
    if quantization not in ("int8", "int4"):
        raise ValueError(
            '`ranges` and `precision` are for quantization="int8" and "int4". '
            f"Received: quantization={quantization!r}"
        )
    if "uint8" in io:
        raise ValueError(
            '`io="uint8"` is not for files with `ranges` or `precision`, whose inputs and outputs '
            f'are int8 or float: use `io="int8"` or `io="float32"`. {received}'
        )
    recipe.check(student, precision)


def _check_shape(target, batch_size, recurrent, aware):
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
    if recurrent == "step" and aware:
        raise ValueError(
            '`recurrent="step"` is not for quantize-aware students, whose recurrent layers stay '
            'float. Use `recurrent="unroll"`, or quantize the float student after training.'
        )


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


def _check_labels(labels, student):
    if labels is None:
        return None
    labels = [str(label) for label in labels]
    shape = getattr(student, "output_shape", None)
    classes = shape[-1] if isinstance(shape, tuple) and shape else None
    if isinstance(classes, int) and classes > 1 and classes != len(labels):
        raise ValueError(
            f"`labels` has {len(labels)} names for the {classes} classes of the student."
        )
    return labels


def _check_io(target, quantization, io):
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
    return (pair[0], "float32") if quantization in _FLOAT else pair


def _postprocessing(name):
    known = {
        "softmax": keras.ops.softmax,
        "sigmoid": keras.ops.sigmoid,
        # Keras' own argmax ends in bitwise operators that TFLite lacks.
        "argmax": lambda x: tf.argmax(x, axis=-1, output_type=tf.int32),
    }
    if isinstance(name, str) and name not in known:
        raise ValueError(
            f"`postprocessing` must be one of {list(known)}, or a Keras layer or function. "
            f"Received: postprocessing={name!r}"
        )
    return known[name] if isinstance(name, str) else name


def _is_quantize_aware(student):
    if importlib.util.find_spec("keras_distill.quantization") is None:
        return False
    from keras_distill import quantization

    return quantization.is_quantize_aware(student)


def _export_form(student):
    from keras_distill import quantization

    return quantization.export_form(student)


def _trained(student, quantization):
    """What a quantize-aware student becomes, which `quantization` may leave out or repeat."""
    from keras_distill import quantization as aware

    trained = aware.precision(student)
    if quantization not in ("float32", trained):
        raise ValueError(
            f"The student was made quantize-aware for {trained!r}, so it can't be converted to "
            f"quantization={quantization!r}. Leave `quantization` out, or convert the float "
            "student."
        )
    return trained


def _complete(student, float32, io):
    """The integer file of a quantization-aware student, from the float one of its export form."""
    from keras_distill import quantization

    tflite = quantization.write_integers(student, float32, io)
    quantization.check_export(student, tflite)
    return tflite
