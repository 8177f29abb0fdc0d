"""Files run in their target's runtimes, and compared with the student."""

import dataclasses
import re
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras_distill.tflite import (
    child,
    closeness,
    failing,
    faults,
    flatbuffer,
    joined,
    lowering,
    runtimes,
    targets,
)
from keras_distill.tflite.converters import Converted
from keras_distill.tflite.inspect import Inspection, inspect
from keras_distill.tflite.request import Request
from keras_distill.tflite.streaming import Streamed, proof
from keras_distill.tflite.student_function import StudentFunction
from keras_distill.tflite.trace import Function

from keras_distill import _keras

#: How many operators that stayed float are named.
_NAMED = 5
#: On how many samples a file is judged.
_JUDGED = 100


@dataclasses.dataclass(frozen=True)
class Judged:
    """A file that its target's runtimes run.

    Attributes:
        tflite: The file as it is delivered.
        named: The file with its names.
        ports: Its inputs and outputs.
        notes: Warnings about it.
    """

    tflite: bytes
    named: bytes
    ports: runtimes.Ports
    notes: tuple[str, ...]


def judge(
    request: Request,
    converted: Converted,
    arrays: Mapping[str, np.ndarray] | None,
    function: Function,
) -> Judged:
    """Runs a file in its target's runtimes, and warns where it is not what was asked for.

    Args:
        request: What was asked for.
        converted: The file.
        arrays: Samples by input name, or `None` for random ones.
        function: What was traced.

    Raises:
        ValueError: The target can't run the file.
        ConverterError: A float32 file computes something else than the student.
    """
    target, named, model = request.target, converted.tflite, request.student.model
    found = inspect(named)
    refused = targets.refusals(found, target.name)
    if refused:
        raise ValueError(
            f"Target {target.name!r} can't run model {model.name!r} as {request.quantization}: "
            f"{'; '.join(refused)}."
        )
    for note in converted.notes:
        warnings.warn(f"As {request.quantization}, {note}.", stacklevel=3)
    notes = list(converted.notes)
    notes += _left_float(found, request.quantization, converted.asked_float)
    tflite = flatbuffer.stripped(named) if target.runtime == "micro" else named
    try:
        failing.survive(named, target.runtime)
        ports = runtimes.ports_of(
            named, function.states, function.along_time, hop=1 if function.states else 0
        )
        runtime = faults.judge_of(found, target.runtime)
        errors = _errors(request, found, tflite, ports, runtime, arrays)
        if not function.states and len(function.inputs) == len(request.student.inputs):
            notes += _on_zeros(request, tflite, ports, runtime)
            notes += _joined(request, found, arrays)
    except runtimes.Refusal as error:
        raise ValueError(
            f"The runtime of target {target.name!r} refuses model {model.name!r} as "
            f"{request.quantization}. {_with_layers(str(error), found)}"
            f"{failing.unprepared(named, str(error))}{_advice_on(str(error))}"
        ) from None
    notes += _off(errors, request, found)
    return Judged(tflite, named, ports, tuple(notes))


def against_original(
    request: Request,
    named: bytes,
    tflite: bytes,
    ports: runtimes.Ports,
    arrays: Mapping[str, np.ndarray] | None,
) -> list[str]:
    """Compares a file with a student that was rebuilt on another backend to be converted.

    Args:
        request: What was asked for, with the student on its own backend.
        named: The file with its names.
        tflite: The file as it is delivered.
        ports: Its inputs and outputs.
        arrays: Samples by input name, or `None` for random ones.

    Returns:
        Notes on outputs that are off, of which it warns.

    Raises:
        ConverterError: A float32 file computes something else than the student.
    """
    found = inspect(named)
    runtime = faults.judge_of(found, request.target.runtime)
    return _off(_errors(request, found, tflite, ports, runtime, arrays), request, found)


_NODE = re.compile(r"Node (?:number (\d+) \((\w+)\)|(\w+) \(number (\d+)f?\))")


def _with_layers(message, found):
    """A runtime's message with the layers of the nodes that it knows by their numbers."""
    operators = [op for op in found.operators if op.subgraph == 0]

    def named(match):
        number, name = (match[1], match[2]) if match[1] else (match[4], match[3])
        op = operators[int(number)] if int(number) < len(operators) else None
        if op is None or op.name != name or not op.layer:
            return match[0]
        return f"{match[0]}, layer {targets.layer_of(op.layer)!r},"

    return _NODE.sub(named, message)


def _advice_on(message):
    """What to do about what a runtime says, "" where that isn't known."""
    if "INT64 (4)" in message:
        return ' Build the student with an input of int32: `keras.Input(..., dtype="int32")`.'
    if "UNIDIRECTIONAL_SEQUENCE_LSTM" in message and "INT64" in message:
        return (
            ' LiteRT has no LSTM with activations of 16 bits: give it 8, or take target="micro", '
            "whose interpreter (the package `tflite-micro`) has one."
        )
    if "UINT8 (3)" in message:
        return f" {_BYTES}"
    return f" {_DIVISORS}" if "div.cc" in message or "(DIV)" in message else ""


_BYTES = (
    'Build the student with a float input (`keras.Input(..., dtype="float32")`), and give '
    '`io="uint8"`: the file takes the same bytes.'
)
_DIVISORS = "Keep divisors away from 0, as in `total / ops.maximum(count, 1)`."


def _left_float(found: Inspection, quantization: str, asked: frozenset[str]) -> list[str]:
    """Names the operators that compute in float though integers were asked for."""
    if quantization in ("float32", "float16"):
        return []
    if quantization == "dynamic":
        left = [
            op
            for op in found.operators
            if op.macs != 0 and any(t.dtype == "FLOAT32" for t in op.inputs[1:2] if t)
        ]
    else:
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
        warnings.warn(f"Not everything is {quantization}; {note}.", stacklevel=4)
    return [note]


class _Error(NamedTuple):
    """How far an output is off.

    Attributes:
        size: As `closeness` has it.
        wide: What to do where it varies too little for its step, "" where it doesn't.
        is_float: Whether it is float in the student; it may be a class or another integer.
    """

    size: float
    wide: str
    is_float: bool


def _errors(request, found, tflite, ports, runtime, arrays):
    """The `_Error` of each output by name.

    On made-up inputs, outputs may vary less than on real ones: wide steps aren't judged by them.
    """
    made_up = arrays is None
    given = arrays or request.student.made_up(_JUDGED, closeness.input_ranges(found))
    inputs = {name: array[:_JUDGED] for name, array in given.items()}
    expected = request.student.predict(inputs)
    got = runtimes.predict(tflite, ports, inputs, runtime)
    if own := request.student.own_errors(expected, got):
        return {name: _Error(error, "", False) for name, error in own.items()}
    steps = dict(zip([p.name for p in ports.outputs], closeness.output_steps(found), strict=True))
    errors = {}
    for i, (name, wanted) in enumerate(expected.items()):
        if wanted.dtype.kind != "f":
            errors[name] = _Error(closeness.share_differing(wanted, got[name]), "", False)
            continue
        wide = _wide(request, i, wanted, steps[name])
        if not (made_up and wide):
            error = closeness.relative_error(wanted, got[name], steps[name])
            errors[name] = _Error(error, wide, True)
    return errors


def _wide(request, index, expected, step):
    """What to do where an output varies too little for its step, "" where it doesn't."""
    reason = closeness.wide_step(expected, step)
    if not reason:
        return ""
    fixes = ["standardize the target in training and undo that after the file"]
    if closeness.are_probabilities(expected):
        fixes = ["end the student in logits and make them probabilities after the file"]
    if request.way != "trained" and request.quantization in ("int8", "int4"):
        last = _layer_of_output(request, index)
        if last and request.target.accelerator is None:
            io = f"({request.io[0]!r}, 'float32')".replace("uint8", "int8")
            fixes.append(f"compute it in float (`precision={{{last!r}: 'float32'}}, io={io}`)")
        fixes.append('take quantization="int16x8"')
    return f"{reason}: {', or '.join(fixes)}"


def _layer_of_output(request, index):
    """The name of the layer that makes an output, by which `precision` knows it; "" without one."""
    outputs = keras.tree.flatten(getattr(request.student.model, "outputs", None) or [])
    if request.student.postprocessing is not None or index >= len(outputs):
        return ""
    name = _keras.producer_of(outputs[index]).name
    layers = [layer for layer in lowering.all_layers(request.student.model) if layer.name == name]
    return name if layers and not isinstance(layers[0], keras.Model) else ""


def _joined(request, found, arrays):
    """Warns of concatenations in which one part leaves few steps to another.

    Made-up inputs don't tell: of other images, the parts may be as wide as each other.
    """
    left = {name for name, kind in request.precision.items() if kind == "float32"}
    notes = joined.ranges_apart(request.student, found, arrays, left) if arrays else []
    for note in notes:
        warnings.warn(f"As {request.quantization}, {note}.", stacklevel=4)
    return notes


def _off(errors, request, found):
    """Refuses a float32 file that is off, and warns of other files that are."""
    quantization, notes = request.quantization, []
    mixed = "int4" if "int4" in request.precision.values() else quantization
    limit = closeness.LIMITS[mixed]
    for name, error in errors.items():
        if error.size <= limit:
            continue
        how = (
            f"its root mean square error is {error.size:.1%} of the spread of the student's output"
            if error.is_float
            else f"{error.size:.1%} of its values are not the student's"
        )
        note = f"output {name!r} is off: {how} (limit: {limit:.0%})"
        # A float that is off by a rounding may fall on the other side of a decision.
        if quantization == "float32" and error.is_float:
            loops = request.target.runtime == "micro" and "WHILE" in found.counts
            advice = ' Give `recurrent="unroll"`: loops of TFLite Micro lose sequences.'
            raise child.ConverterError(
                f"The float32 file computes something else: {note}.{advice if loops else ''}"
            )
        note += f"; {error.wide}" if error.wide else ""
        shown = "" if error.wide else "; `layers` shows where"
        warnings.warn(f"As {quantization}, {note}{shown}.", stacklevel=4)
        notes.append(note)
    return notes


def _on_zeros(request, tflite, ports, runtime):
    """Warns where the student gives NaN for zeros (padding, silence), refuses a file that alone
    does."""
    zeros = request.student.zeros()
    expected = request.student.predict(zeros)
    got = runtimes.predict(tflite, ports, zeros, runtime)
    notes = []
    for name, wanted in expected.items():
        finite = np.isfinite(wanted).all(), np.isfinite(got[name]).all()
        if wanted.dtype.kind != "f" or all(finite):
            continue
        what = f"output {name!r} is NaN or infinite where all inputs are 0 (padding, silence)"
        if finite[0]:
            raise child.ConverterError(f"In the file, {what}; the student's is not. {_DIVISORS}")
        note = f"{what}, as the student's is"
        if finite[1]:
            note = (
                f"the student's {what}; the file gives some number there, as integers have no NaN"
            )
        warnings.warn(f"{note[0].upper()}{note[1:]}. {_DIVISORS}", stacklevel=4)
        notes.append(note)
    return notes


def compare(
    student: StudentFunction,
    tflite: bytes,
    ports: runtimes.Ports,
    runtime: str,
    inputs: Mapping[str, np.ndarray],
    y: Any = None,
    stream: Streamed | None = None,
) -> dict:
    """Differences between the student and a file in every runtime of the target.

    Args:
        student: The student, under the file's names.
        tflite: The file.
        ports: Its inputs and outputs.
        runtime: The target's runtime.
        inputs: Arrays by input name.
        y: Labels of the first output, an array, or `None`.
        stream: When the outputs come, where the file runs frame by frame. `inputs` are recordings
            then, and the student runs on all windows of them.

    Returns:
        A report of plain types.
    """
    found = inspect(tflite)
    limit, steps = closeness.LIMITS[closeness.quantization_of(found)], closeness.output_steps(found)
    expected = {} if stream else student.predict(inputs)
    report: dict = {"samples": len(next(iter(inputs.values()))), "limit": limit}
    if y is not None:
        first = next(iter(expected))
        report["student"] = _score(first, expected[first], y)
    report["runtimes"] = {}
    for name in runtimes.of_target(runtime):
        try:
            got = runtimes.predict(tflite, ports, inputs, name)
            if stream is not None:
                pairs = proof.pairs_of(stream, student.predict, inputs, got)
                expected = {output: pair.windows for output, pair in pairs.items()}
                got = {output: pair.stream for output, pair in pairs.items()}
        except runtimes.Refusal as error:
            report["runtimes"][name] = {"verdict": "not run", "reason": str(error)}
            continue
        own = {} if stream else student.own_errors(expected, got)
        rows: list[dict] = [{"name": output, "error": error} for output, error in own.items()]
        wide = dict.fromkeys(own, "")
        for i in () if own else ports.results:
            port = ports.outputs[i]
            difference = _differences(port, expected[port.name], got[port.name], steps[i])
            rows.append({"name": port.name, **difference})
            wide[port.name] = closeness.wide_step(expected[port.name], steps[i])
        report["runtimes"][name] = {
            **_verdict(rows, limit, faults.known(found, name), wide),
            "outputs": rows,
            **(_score(first, got[first], y) if y is not None else {}),
        }
    report["verdict"] = report["runtimes"][faults.judge_of(found, runtime)]["verdict"]
    return report


def _verdict(rows, limit, fault, wide):
    """`"pass"` or `"fail"`; `"not judged"` where a known fault of the runtime explains failure."""
    off = [row["name"] for row in rows if row.get("error", 0.0) > limit]
    if not off:
        return {"verdict": "pass"}
    if fault:
        return {"verdict": "not judged", "reason": fault}
    named = [f"{name} ({wide[name]})" if wide[name] else name for name in off]
    return {"verdict": "fail", "reason": f"off by more than {limit:.0%}: {', '.join(named)}"}


def _differences(port, expected, got, step):
    if expected.shape != got.shape:
        raise ValueError(
            f"Output {port.name!r} has shape {got.shape} in the file and {expected.shape} in the "
            "student: the file belongs to another student."
        )
    report = {}
    if expected.dtype.kind == "f":
        report["error"] = closeness.relative_error(expected, got, step)
    else:
        report["error"] = closeness.share_differing(expected, got)
    same = (expected == got) | (np.isnan(expected) & np.isnan(got))
    difference = np.where(same, 0.0, np.abs(got.astype("float64") - expected.astype("float64")))
    report.update(largest=float(difference.max()), mean=float(difference.mean()))
    if port.scale:
        report["largest_steps"] = float(difference.max() / port.scale)
        report["mean_steps"] = float(difference.mean() / port.scale)
    if expected.dtype.kind in "iu":
        report["agreement"] = float(np.mean(expected == got))
    elif expected.ndim > 1 and expected.shape[-1] > 1:
        report["agreement"] = float(np.mean(expected.argmax(-1) == got.argmax(-1)))
    return report


def labels_of_first(model: keras.Model, y: Any) -> np.ndarray:
    """The labels of a student's first output.

    Args:
        model: The student.
        y: Labels in the container of its outputs, or of the only one.
    """
    outputs = getattr(model, "output", None)
    names = list(getattr(model, "output_names", None) or [])
    if isinstance(outputs, Mapping):
        names = sorted(outputs)
    if isinstance(y, Mapping):
        if not names or names[0] not in y:
            raise ValueError(
                "`y` must have the labels of the student's first output, "
                f"{names[0] if names else 'in an array'!r}. Received: {list(y)}"
            )
        return np.asarray(y[names[0]])
    of_each = isinstance(y, (list, tuple)) and len(y) == len(names) > 1
    return np.asarray(y[0] if of_each else y)


def _score(name, output, y):
    """Accuracy of an output against classes, mean absolute error against other numbers."""
    rows = output.shape[:-1] if output.ndim > 1 else output.shape
    several = output.ndim > 1 and output.shape[-1] > 1
    if y.shape == output.shape and several and _is_one_hot(y):
        y = y.argmax(-1)
    if y.size not in (output.size, int(np.prod(rows))):
        raise ValueError(
            f"`y` must have a label for each of {len(output)} samples, or the shape of output "
            f"{name!r}, {output.shape}. Received: an array of shape {y.shape}"
        )
    if y.dtype.kind in "iub" and output.dtype.kind in "iub":
        return {"accuracy": float(np.mean(output.reshape(y.shape) == y))}
    if y.dtype.kind in "iub" and several and y.size != output.size:
        return {"accuracy": float(np.mean(output.argmax(-1) == y.reshape(rows)))}
    error = np.abs(output.astype("float64").reshape(y.shape) - y)
    return {"mean_absolute_error": float(error.mean())}


def _is_one_hot(y):
    return y.shape[-1] > 1 and bool(np.all((y == 0) | (y == 1)) and np.all(y.sum(-1) == 1))
