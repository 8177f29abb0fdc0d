"""The kit's README and headers: what each file is, and where it comes from."""

from typing import TYPE_CHECKING

from keras_distill.tflite import provenance
from keras_distill.tflite.front_ends import is_log_mel

if TYPE_CHECKING:
    from keras_distill.tflite.artifact import Artifact

_PACKAGES = {
    "keras_distill": "keras_distill",
    "tensorflow": "TensorFlow",
    "keras": "Keras",
    "tflite_micro": "TFLite Micro",
    "vela": "Vela",
}


def values(
    artifact: "Artifact", name: str, decision: object, recording: object, front_end: object
) -> dict[str, str]:
    """The values that are filled into the templates.

    Args:
        artifact: An `Artifact` for microcontrollers.
        name: What the kit is named after.
        decision: The decision in the kit, or `None`.
        recording: The recording in the kit, or `None`.
        front_end: What computes frames from a sound, or `None`.
    """
    versions = artifact.report.get("versions", {})
    commit = versions.get("tflite_micro_commit", "unknown")
    files = [*_files(artifact, name), *_of_stream(artifact, name, decision, recording, front_end)]
    return {
        "TFLITE_MICRO": provenance.TFLITE_MICRO,
        "CHECKOUT": "" if commit == "unknown" else f"\ngit checkout {commit}",
        "ABOUT": _about(artifact),
        "FILES": "\n".join(f"| {file} | {what} |" for file, what in files),
        "NPU": _npu(artifact, name),
        "HEADER": "\n".join(f"// {line}" for line in _origin(artifact)),
        "PROVENANCE": "\n".join(f"- {line}" for line in _origin(artifact)),
    }


def sentence(artifact: "Artifact", name: str) -> str:
    """What the kit is, in a sentence that metadata can hold."""
    return f"The model {name} for {artifact.target}: {_kind(artifact)}."


def _about(artifact):
    return f"Target `{artifact.target}`: {_kind(artifact)}."


def _kind(artifact):
    quantization = artifact.report.get("quantization")
    kind = f"a TFLite file in {quantization}" if quantization else "a TFLite file"
    return f"{kind}, {len(artifact.tflite):,} bytes"


def _files(artifact, name):
    """Each file of the kit, and what it is."""
    yield f"`{name}.tflite`", "the file, without names"
    held = "the file"
    if artifact.compiled is not None:
        held = f"`{name}_vela.tflite`"
        yield held, "the file compiled by Vela"
    yield f"`{name}_model.cc`, `.h`", f"the bytes of {held} as an aligned constant array"
    yield (
        f"`{name}.h`",
        "arena size, inputs and outputs, labels, and a resolver with the operators of the file",
    )
    yield (
        f"`{name}_test_vectors.cc`, `.h`, `main.cc`",
        f"stored inputs and outputs ({artifact.examples.source}), and a program that runs them",
    )
    yield (
        f"`{name}_serve.h`, `serve_main.cc`, `test_vectors.json`",
        "what `keras-distill prove` needs to run those vectors on a board, over its serial port",
    )
    yield (
        f"`{name}_profile.h`, `profile_main.cc`",
        "the ticks of each operator, which `keras-distill profile` reads",
    )
    yield (
        "`CMakeLists.txt`, `Makefile`",
        "build that program, and the library for your firmware",
    )
    yield (
        f"`library/{name}/`, `library/{name}.zip`",
        "the same as a library for ESP-IDF, PlatformIO, Arduino and Zephyr, with a sketch; its "
        "README has the steps",
    )
    yield "`report.json`, `report.md`", "what is known of the file"


def _of_stream(artifact, name, decision, recording, front_end):
    """What the kit of a stream has besides."""
    if front_end is not None:
        kind = "log-mel" if is_log_mel(front_end) else "by TFLite Micro's audio front end"
        yield f"`{name}_front_end.h`", f"features of a sound, {kind}"
    if decision is not None:
        yield f"`{name}_decision.h`", "when to act on the scores: smoothing, thresholds"
    if decision is not None and front_end is not None and artifact.stream is not None:
        yield (
            f"`{name}_listener.h`",
            "all of it in one object, which `library/` has with programs that listen to a "
            f"microphone: `examples/{name}_listen` for Arduino, `{name}_listen_idf` for ESP-IDF",
        )
    if recording is not None:
        yield (
            f"`{name}_recording.cc`, `.h`, `stream_main.cc`",
            "a recording, and a program that plays it and prints what is detected at which step",
        )


def _npu(artifact, name):
    npu = artifact.report.get("npu")
    if npu is None:
        return ""
    return (
        f"\n## Ethos-U\n\n`{name}_model.cc` holds the file that Vela compiled for "
        f"`{artifact.target}`, system configuration `{npu['system_config']}`, memory mode "
        f"`{npu['memory_mode']}`: your system must be the same. TFLite Micro must be built with "
        "Arm's driver (`CO_PROCESSOR=ethos_u`). The stored outputs are those of the file before "
        "Vela compiled it, with the CPU's kernels.\n"
    )


def _origin(artifact):
    """What made the file and what it was run with, line by line."""
    versions = artifact.report.get("versions", {})
    yield f"SHA-256 of the .tflite file: {provenance.sha256(artifact.tflite)}"
    if artifact.compiled is not None:
        yield f"SHA-256 of the _vela.tflite file: {provenance.sha256(artifact.compiled)}"
    made = [f"{_PACKAGES[key]} {value}" for key, value in versions.items() if key in _PACKAGES]
    if made:
        yield f"Made with {', '.join(made)}"
    commit = versions.get("tflite_micro_commit")
    if commit is None:
        yield f"Not run in TFLite Micro ({provenance.TFLITE_MICRO}) where it was made"
    else:
        yield f"Run in TFLite Micro as of commit {commit} of {provenance.TFLITE_MICRO}"
