"""From the file of windows to a proven stream: the stage of `convert` that `stream` asks for."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras_distill.tflite import budget, flatbuffer, runtimes
from keras_distill.tflite.inspect import inspect
from keras_distill.tflite.judge import Judged
from keras_distill.tflite.request import Request
from keras_distill.tflite.streaming import proof, recurrence
from keras_distill.tflite.streaming.operators import streamed
from keras_distill.tflite.streaming.rewriting import Streamed
from keras_distill.tflite.streaming.timeline import Elements

from keras_distill import samples

#: How many test vectors are made of a recording.
_STEPS = 5


@dataclasses.dataclass(frozen=True)
class Proven:
    """A stream that gives what the student gives.

    Attributes:
        judged: Its file, in place of that of windows.
        streamed: The stream, names included.
        steps: The inputs and states of a recording's first steps, arrays by name.
        report: What is known of it, as plain types.
    """

    judged: Judged
    streamed: Streamed
    steps: dict[str, np.ndarray]
    report: dict[str, Any]


def stream(
    request: Request,
    windows: Judged,
    scopes: Mapping[str, set[str]],
    arrays: Mapping[str, np.ndarray] | None,
    carried: Mapping[str, Sequence[str]],
) -> Proven:
    """Rewrites the file of windows as a stream, and proves it.

    Args:
        request: What was asked for.
        windows: The file of windows.
        scopes: Name scopes of each layer's operators, by the layer's name.
        arrays: Calibration data by input name, or `None`.
        carried: Names of the inputs that are states of recurrent layers before each element, by
            the layer's name.

    Raises:
        LateError: An LSTM's operator can't wait for its first element.
        ValueError: A layer can't run frame by frame, or the target can't run the stream.
        ConverterError: The stream gives something else than the student.
        BudgetError: The stream is over one of its limits.
    """
    assert request.stream is not None
    states = [name for names in carried.values() for name in names]
    whole = recurrence.closed(windows.named, states) if states else windows.named
    made = streamed(whole, request.stream.hop, scopes, carried)
    recordings = _recordings(request, made, arrays)
    student = request.student.predict if request.quantization == "float32" else None
    try:
        report = proof.prove(made, whole, student, recordings, request.target.runtime, states)
    except runtimes.Refusal as error:
        raise ValueError(
            f"The runtime of target {request.target.name!r} refuses the stream of model "
            f"{request.student.model.name!r}. {error}"
        ) from None
    ports = proof.ports_of(made)
    facts = described(made, ports)
    limits = request.stream.max_macs, budget.size("max_state", request.stream.max_state)
    budget.check_stream(facts, *limits)
    notes = _padded(report)
    for note in notes:
        warnings.warn(note, stacklevel=3)
    steps = proof.first_steps(made, recordings, _STEPS, report["runtime"])
    micro = request.target.runtime == "micro"
    tflite = flatbuffer.stripped(made.tflite) if micro else made.tflite
    judged = Judged(tflite, made.tflite, ports, (*windows.notes, *notes))
    return Proven(judged, made, steps, {**facts, "proof": report})


def _recordings(request, made, arrays):
    """What the stream is proven on, arrays of shape `(recordings, time, ...)` by name."""
    given = request.stream.recordings
    if given is None:
        windows = arrays or request.student.made_up(8)
        return proof.recordings_of(windows, made.window, made.hop)
    shapes = {i.name: (None, *i.shape[1:]) for i in request.student.inputs}
    read, _ = samples.read(given, shapes, argument="recordings")
    frames = next(iter(read.values())).shape[1]
    if frames < 2 * made.window:
        raise ValueError(
            f"`recordings` must be of at least two windows of {made.window} frames. "
            f"Received: {frames} frames"
        )
    whole = frames // made.hop * made.hop
    return {
        i.name: read[i.name][:, :whole].astype(request.student.dtype(i))
        for i in request.student.inputs
    }


def described(made: Streamed, ports: runtimes.Ports) -> dict[str, Any]:
    """The facts of a stream for the report.

    Args:
        made: The stream.
        ports: Its inputs and outputs.
    """
    found = inspect(made.tflite)
    states = [
        {
            "name": port.name,
            "shape": list(port.shape),
            "dtype": port.dtype,
            "bytes": int(np.prod(port.shape)) * np.dtype(port.dtype).itemsize,
        }
        for port in (ports.inputs[i] for i, _ in ports.states)
    ]
    macs = None if found.macs is None else found.macs / made.hop
    return {
        "hop": made.hop,
        "window": made.window,
        "multiply_accumulates_per_frame": macs,
        "state_bytes": sum(state["bytes"] for state in states),
        "states": states,
        "outputs": [_when(name, time, made.window) for name, time in made.outputs.items()],
    }


def _when(name, time, window):
    """When an output comes, in frames."""
    elements = isinstance(time, Elements)
    first = time.stride * (max(time.start, 0) + time.delay) if elements else time.offset
    return {
        "name": name,
        "latency": max(time.offset - window, 0),
        "warm_up": max(first, 0),
    }


def _padded(report):
    """Warns where windows are padded inside the student, and the stream has frames there."""
    return tuple(
        f"Output {row['name']!r} of the stream is that of the student on the recording so far, not "
        "on a window alone: the student starts each window from zeros (padding, recurrent state), "
        "in whose place the stream has the frames before. They differ by up to "
        f"{row['on_padded_windows']:.3g}. Where they must not, use "
        '`padding="valid"` along time and no recurrent layers.'
        for row in report["compared"]
        if row["on_padded_windows"]
    )
