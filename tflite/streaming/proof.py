"""Streams, proven in the target's runtimes against the student or its file on windows."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras_distill.tflite import child, failing, faults, runtimes
from keras_distill.tflite.inspect import inspect
from keras_distill.tflite.streaming.comparison import Comparison, Pair, Student
from keras_distill.tflite.streaming.rewriting import Streamed
from keras_distill.tflite.streaming.timeline import Elements

#: How far floats may be apart, relative to the largest.
TOLERANCE = 1e-5
#: How long a recording is made from calibration data.
_FRAMES = 200

#: Arrays of shape `(recordings, time, ...)` by input name.
Recordings = Mapping[str, np.ndarray]


def ports_of(streamed: Streamed) -> runtimes.Ports:
    """The inputs and outputs of a stream."""
    along = [name for name, time in streamed.outputs.items() if isinstance(time, Elements)]
    each = [name for name in streamed.outputs if name not in along]
    return runtimes.ports_of(streamed.tflite, streamed.states, along, each, streamed.hop)


def pairs_of(
    streamed: Streamed, student: Student, recordings: Recordings, got: Mapping[str, np.ndarray]
) -> dict[str, Pair]:
    """What a student gives on all windows of recordings, and what its stream gave.

    Args:
        streamed: The stream.
        student: The student on windows.
        recordings: The recordings.
        got: What the stream gave, arrays of shape `(recordings, elements or steps, ...)` by name.
    """
    comparison = Comparison(streamed.outputs, streamed.window, streamed.hop)
    found: dict[str, list[Pair]] = {name: [] for name in streamed.outputs}
    for i in range(len(next(iter(recordings.values())))):
        recording = {name: array[i] for name, array in recordings.items()}
        outputs = {name: got[name][i] for name in streamed.outputs}
        for name, pair in comparison.pairs(student, recording, outputs).items():
            found[name].append(pair)
    return {
        name: Pair(*(np.concatenate(side) for side in zip(*pairs, strict=True)))
        for name, pairs in found.items()
        if pairs
    }


def prove(
    streamed: Streamed,
    windows: bytes,
    student: Student | None,
    recordings: Recordings,
    runtime: str,
    states: Sequence[str] = (),
) -> dict[str, Any]:
    """Compares a stream with the student on all windows of recordings.

    Args:
        streamed: The stream.
        windows: The file of windows.
        student: The student, where it must be met to 1e-5; else the stream must give what the
            file of windows gives, bit for bit in integers.
        recordings: The recordings.
        runtime: `"litert"` or `"micro"`.
        states: Names of the inputs of the file of windows that are states of recurrent layers
            before each element.

    Returns:
        A report of plain types.

    Raises:
        ConverterError: The stream differs.
        Refusal: The runtime can't run it.
    """
    failing.survive(streamed.tflite, runtime)
    found = inspect(streamed.tflite)
    judge = faults.judge_of(found, runtime)
    exact = student is None and not any(
        t.dtype.startswith("FLOAT") for op in found.operators for t in op.outputs
        if op.name not in ("QUANTIZE", "DEQUANTIZE")
    )  # fmt: skip
    tries = [(streamed, windows, student)]
    if streamed.probed and streamed.probed_window:
        probed = dataclasses.replace(streamed, tflite=streamed.probed, outputs=streamed.probes)
        tries.append((probed, streamed.probed_window, None))
    rows = []
    for stream, window, reference in tries:
        for name, pair in _run(stream, window, reference, recordings, judge, states).items():
            row = _row(name, pair)
            rows.append(row)
            allowed = 0.0 if exact else TOLERANCE * max(1.0, float(np.abs(pair.windows).max()))
            if row["largest_difference"] > allowed:
                raise child.ConverterError(
                    f"Output {name!r} of the stream differs from that of the student on windows by "
                    f"up to {row['largest_difference']:.3g} (allowed: {allowed:.3g})."
                )
    count, frames = next(iter(recordings.values())).shape[:2]
    return {
        "recordings": count,
        "frames": count * frames,
        "runtime": judge,
        "against": "the file of windows" if student is None else "the student on windows",
        "compared": rows,
    }


def _run(streamed, windows, student, recordings, runtime, states):
    """Pairs by output name, of the stream and of the student or its file."""
    if student is None:
        student = _of_file(windows, runtime, states)

    got = runtimes.predict(streamed.tflite, ports_of(streamed), recordings, runtime)
    return pairs_of(streamed, student, recordings, got)


def _of_file(windows: bytes, runtime: str, states: Sequence[str]) -> Student:
    """The file of windows as a student.

    The states before each element are those that the file itself gives after the element before:
    it is run until they stay the same, at most once for each element.
    """
    ports = runtimes.ports_of(windows)
    shapes = {port.name: port.shape[1:] for port in ports.inputs}

    def student(inputs):
        count = len(next(iter(inputs.values())))
        before = {name: np.zeros((count, *shapes[name]), "float32") for name in states}
        while True:
            results = runtimes.predict(windows, ports, {**inputs, **before}, runtime)
            after = {
                name: np.pad(results[f"{name}_out"][:, :-1], ((0, 0), (1, 0), (0, 0)))
                for name in states
            }
            pairs = ((after[name], before[name]) for name in states)
            if all(np.array_equal(*pair, equal_nan=True) for pair in pairs):
                return results
            before = after

    return student


def _row(name, pair):
    """The report on an output."""
    apart = np.abs(pair.windows.astype("float64") - pair.stream.astype("float64"))
    elsewhere = apart[~pair.same]
    return {
        "name": name,
        "values": int(apart[pair.same].size),
        "largest_difference": float(apart[pair.same].max(initial=0.0)),
        "on_padded_windows": float(elsewhere.max()) if elsewhere.size else None,
    }


def recordings_of(windows: Recordings, window: int, hop: int) -> dict[str, np.ndarray]:
    """Samples one after the other, as one recording of a few windows.

    Args:
        windows: Arrays of shape `(samples, window, ...)` by name.
        window: Frames of a window.
        hop: Frames of a step.
    """
    count = -(-_FRAMES // window) + 1
    result = {}
    for name, array in windows.items():
        chained = np.concatenate(list(array.take(range(count), axis=0, mode="wrap")))
        result[name] = chained[None, : len(chained) // hop * hop]
    return result


def first_steps(
    streamed: Streamed, recordings: Recordings, count: int, runtime: str
) -> dict[str, np.ndarray]:
    """The inputs and states of the first steps of a recording, as values.

    Args:
        streamed: The stream.
        recordings: The recordings.
        count: How many steps at most.
        runtime: Name of the runtime that the states come from.

    Returns:
        Arrays of shape `(steps, ...)` by input name.
    """
    opened, ports = runtimes.open_file(streamed.tflite, runtime), ports_of(streamed)
    state = {i: np.zeros(ports.inputs[i].shape, "float32") for i, _ in ports.states}
    met: list[dict[str, np.ndarray]] = []
    frames = next(iter(recordings.values())).shape[1]
    for start in range(0, min(count * streamed.hop, frames), streamed.hop):
        values = {
            port.name: state[i] if i in state
            else recordings[port.name][:1, start : start + streamed.hop]
            for i, port in enumerate(ports.inputs)
        }  # fmt: skip
        met.append(values)
        results = opened.run([port.quantize(values[port.name]) for port in ports.inputs])
        state = {i: ports.outputs[o].dequantize(results[o]) for i, o in ports.states}
    return {name: np.concatenate([values[name] for values in met]) for name in met[0]}
