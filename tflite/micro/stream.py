"""Firmware of a stream: a program that plays a stored recording and prints what is decided."""

from typing import TYPE_CHECKING

import numpy as np
from keras_distill.tflite.front_ends import FrontEnd, check_features
from keras_distill.tflite.micro import front_end as front_ends
from keras_distill.tflite.micro import sources
from keras_distill.tflite.streaming.decision import Decision

if TYPE_CHECKING:
    from keras_distill.tflite.artifact import Artifact


_BEGIN = """\
  static kit::@INPUT@::Type frames[kit::@INPUT@::kSize];
  if (!front_end.Start(kit::FrontEnd::kSampleRate)) {
    std::printf("FAIL: the front end did not start\\n");
    return 1;
  }"""


def files(
    artifact: "Artifact",
    name: str,
    decision: Decision | None,
    recording: np.ndarray | None,
    front_end: FrontEnd | None = None,
) -> dict[str, str]:
    """The decision, and the program where there is a recording to play, by relative path.

    Args:
        artifact: A stream for microcontrollers, of one input and one output.
        name: What files and namespace are named after, safe for C++.
        decision: When the firmware acts on scores, or `None`.
        recording: Frames of shape `(time, ...)`, whole steps, or samples of a sound where there
            is a front end, or `None`.
        front_end: What computes frames from a sound, or `None`.

    Raises:
        ValueError: The artifact has several inputs or outputs, or the recording doesn't fit.
    """
    values = {"NAME": name, "GUARD": name.upper()}
    result = {}
    if front_end is not None:
        result[f"{name}_front_end.h"] = front_ends.header(front_end, name)
    if decision is not None:
        values |= decision.constants()
        result[f"{name}_decision.h"] = sources.filled("decision.h", values)
    if decision is not None and front_end is not None and artifact.stream is not None:
        port, output = _listened(artifact)
        values |= _of_ports(artifact.ports, port, output)
        values |= _encoding(port)
        check_features(front_end, port.shape)
        result[f"{name}_listener.h"] = sources.filled("listener.h", values)
    if recording is not None:
        if decision is None:
            raise ValueError("`recording` needs a `decision`, whose detections are compared.")
        values |= _played(artifact, name, decision, np.asarray(recording), front_end)
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


def listening(name: str) -> list[str]:
    """Headers that a program needs to listen."""
    return [f"{name}_{part}.h" for part in ("decision", "front_end", "listener")]


def examples(name: str) -> dict[str, str]:
    """Programs that listen to a microphone, by path among the library's examples.

    Args:
        name: What files and namespace are named after, safe for C++.
    """
    folder = f"{name}_listen"
    templates = {
        f"{folder}/{folder}.ino": "listen.ino",
        f"{folder}_idf/CMakeLists.txt": "listen_project.txt",
        f"{folder}_idf/main/main.cc": "listen_main.cc",
        f"{folder}_idf/main/CMakeLists.txt": "listen_CMakeLists.txt",
    }
    return {path: sources.filled(file, {"NAME": name}) for path, file in templates.items()}


def _listened(artifact):
    """The input and the output of a stream, which has one of each besides its state."""
    ports = artifact.ports
    fed = {i for i, _ in ports.states}
    data = [i for i in range(len(ports.inputs)) if i not in fed]
    if artifact.stream is None or len(data) != 1 or len(ports.results) != 1:
        raise ValueError(
            "`recording`, and `front_end` with a `decision`, are for a stream "
            "(`convert(stream=...)`) of one input and one output. "
            f"Received: {len(data)} inputs and {len(ports.results)} outputs"
            + ("" if artifact.stream else " of a file that isn't a stream")
        )
    output = sources.Port(ports.outputs[ports.results[0]], ports.results[0], "Output")
    return sources.Port(ports.inputs[data[0]], data[0], "Input"), output


def _of_ports(ports, port, output):
    """What steps through the stream."""
    return {
        "INPUT": port.struct,
        "OUTPUT": output.struct,
        "CLASSES": output.shape[-1],
        "SCORE": sources.decoded("output[row * kClasses + i]", output, "kit"),
        "HELPERS": sources.filled("ports.inc", {}),
        **_states(ports),
    }


def _encoding(port):
    """How features become elements of the input."""
    coded = f"Encode<kit::{port.struct}>(features[band])" if port.scale else "features[band]"
    return {"ENCODED": coded, "ENCODE": sources.filled("encode.inc", {})}


def _played(artifact, name, decision, recording, front_end):
    """What the program and its recording need."""
    ports = artifact.ports
    port, output = _listened(artifact)
    taken = ports.inputs[port.index]
    frames = _frames(recording, taken, ports.hop, front_end)
    found = decision.detections(scores_of(artifact, frames))
    return {
        "STEPS": len(frames) // ports.hop,
        "DETECTIONS": len(found),
        "FOUND": sources.rows([f"{{{d.step}, {d.word}}}" for d in found] or ["{-1, -1}"], 6),
        **_stored(recording, taken, port, name, front_end),
        **_of_ports(ports, port, output),
    }


def _frames(recording, taken, hop, front_end):
    """The frames that a stream takes, whole steps of them."""
    if front_end is None:
        if recording.shape[1:] != tuple(taken.shape[2:]) or len(recording) % hop:
            raise ValueError(
                f"`recording` must hold frames of shape {tuple(taken.shape[2:])}, a multiple of "
                f"{hop} of them. Received: shape {recording.shape}"
            )
        return recording
    if recording.dtype != np.int16 or recording.ndim != 1:
        raise ValueError(
            "`recording` must be a sound for the front end, int16 samples of one channel. "
            f"Received: {recording.dtype.name} of shape {recording.shape}"
        )
    frames = np.asarray(front_end(recording))
    frames = frames[: len(frames) // hop * hop]
    return frames.reshape(len(frames), *taken.shape[2:])


def _stored(recording, taken, port, name, front_end):
    """The recording as the program has it, and how it reads it."""
    if front_end is None:
        values = taken.quantize(recording).ravel()
        kind, dtype = port.type, port.dtype
        read = {
            "INCLUDE": "", "NEXT": "", "BEGIN": "",
            "FRAMES": f"kit::kRecording + step * kit::{port.struct}::kSize",
        }  # fmt: skip
    else:
        # Whole steps, which the front end takes.
        values = np.pad(recording, (0, -len(recording) % front_end.STEP))
        kind, dtype = "std::int16_t", "int16"
        read = {
            "INCLUDE": f'#include "{name}_front_end.h"',
            "NEXT": sources.filled("sound.inc", {"INPUT": port.struct, **_encoding(port)}),
            "BEGIN": _BEGIN.replace("@INPUT@", port.struct),
            "FRAMES": "(Next(frames), frames)",
        }
    numbers = [sources.literal(value, dtype) for value in values]
    return {"TYPE": kind, "SIZE": len(values), "VALUES": sources.rows(numbers), **read}


def _states(ports):
    """What carries the state from step to step."""
    pairs = [
        (sources.Port(ports.inputs[i], i, "Input"), sources.Port(ports.outputs[o], o, "Output"))
        for i, o in ports.states
    ]
    names = [(f"kit::{a.struct}", f"kit::{b.struct}", a.buffer) for a, b in pairs]
    return {
        "STATES": "\n".join(f"{given}::Type {kept}[{given}::kSize];" for given, _, kept in names),
        "STARTS": "\n".join(f"  Fill<{given}>({kept});" for given, _, kept in names),
        "FEEDS": "\n".join(f"    Give<{given}>(interpreter, {kept});" for given, _, kept in names),
        "KEEPS": "\n".join(f"    Take<{out}>(interpreter, {kept});" for _, out, kept in names),
    }
