"""Firmware of a stream: a program that plays a stored recording and prints what is decided."""

from typing import TYPE_CHECKING

import numpy as np
from keras_distill.tflite.micro import sources
from keras_distill.tflite.streaming.decision import Decision

if TYPE_CHECKING:
    from keras_distill.tflite.artifact import Artifact


def files(
    artifact: "Artifact",
    name: str,
    decision: Decision | None,
    recording: np.ndarray | None,
) -> dict[str, str]:
    """The decision, and the program where there is a recording to play, by relative path.

    Args:
        artifact: A stream for microcontrollers, of one input and one output.
        name: What files and namespace are named after, safe for C++.
        decision: When the firmware acts on scores, or `None`.
        recording: Frames of shape `(time, ...)`, whole steps, or `None`.

    Raises:
        ValueError: The artifact has several inputs or outputs, or the recording doesn't fit.
    """
    if decision is None:
        if recording is not None:
            raise ValueError("`recording` needs a `decision`, whose detections are compared.")
        return {}
    values = {"NAME": name, "GUARD": name.upper(), **decision.constants()}
    result = {f"{name}_decision.h": sources.filled("decision.h", values)}
    if recording is not None:
        values |= _played(artifact, decision, np.asarray(recording))
        for end in ("recording.h", "recording.cc"):
            result[f"{name}_{end}"] = sources.filled(end, values)
        result["stream_main.cc"] = sources.filled("stream_main.cc", values)
    return result


def scores_of(artifact: "Artifact", recording: np.ndarray) -> np.ndarray:
    """What a stream gives for a recording, of shape `(elements, classes)`.

    Args:
        artifact: A stream of one input and one output.
        recording: Frames of shape `(time, ...)`.
    """
    scores = artifact.predict(np.asarray(recording)[None])[0]
    return scores.reshape(-1, scores.shape[-1])


def _played(artifact, decision, recording):
    """What the program and its recording need."""
    ports = artifact.ports
    fed = {i for i, _ in ports.states}
    data = [i for i in range(len(ports.inputs)) if i not in fed]
    if artifact.stream is None or len(data) != 1 or len(ports.results) != 1:
        raise ValueError(
            "`recording` is for a stream (`convert(stream=...)`) of one input and one output. "
            f"Received: {len(data)} inputs and {len(ports.results)} outputs"
            + ("" if artifact.stream else " of a file that isn't a stream")
        )
    frames = ports.inputs[data[0]]
    if recording.shape[1:] != tuple(frames.shape[2:]) or len(recording) % ports.hop:
        raise ValueError(
            f"`recording` must hold frames of shape {tuple(frames.shape[2:])}, a multiple of "
            f"{ports.hop} of them. Received: shape {recording.shape}"
        )
    found = decision.detections(scores_of(artifact, recording))
    port = sources.Port(frames, data[0], "Input")
    output = sources.Port(ports.outputs[ports.results[0]], ports.results[0], "Output")
    integers = frames.quantize(recording).ravel()
    states = [
        (sources.Port(ports.inputs[i], i, "Input"), sources.Port(ports.outputs[o], o, "Output"))
        for i, o in ports.states
    ]
    return {
        "TYPE": port.type,
        "INPUT": port.struct,
        "OUTPUT": output.struct,
        "SIZE": len(integers),
        "STEPS": len(recording) // ports.hop,
        "CLASSES": output.shape[-1],
        "VALUES": sources.rows([sources.literal(v, port.dtype) for v in integers]),
        "DETECTIONS": len(found),
        "FOUND": sources.rows([f"{{{d.step}, {d.word}}}" for d in found] or ["{-1, -1}"], 6),
        "SCORE": sources.decoded("output[row * kClasses + i]", output, "kit"),
        "STATES": "\n".join(
            f"kit::{before.struct}::Type {before.buffer}[kit::{before.struct}::kSize];"
            for before, _ in states
        ),
        "STARTS": "\n".join(
            f"  Fill<kit::{before.struct}>({before.buffer});" for before, _ in states
        ),
        "FEEDS": "\n".join(
            f"    Give<kit::{before.struct}>(interpreter, {before.buffer});" for before, _ in states
        ),
        "KEEPS": "\n".join(
            f"    Take<kit::{after.struct}>(interpreter, {before.buffer});"
            for before, after in states
        ),
    }
