"""A TFLite file with the evidence that it does what the student does."""

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras_distill.tflite import (
    arena,
    closeness,
    ethos,
    failing,
    faults,
    judge,
    kit_arguments,
    layer_errors,
    names,
    profiles,
    provenance,
    runtimes,
    student_function,
    targets,
)
from keras_distill.tflite.calibration import Calibrated
from keras_distill.tflite.inspect import Inspection, inspect, read
from keras_distill.tflite.report import Report
from keras_distill.tflite.request import Request
from keras_distill.tflite.streaming import Decision, Streamed
from keras_distill.tflite.streaming.conversion import Proven
from keras_distill.tflite.student_function import StudentFunction

from keras_distill import _files, samples

if TYPE_CHECKING:
    from keras_distill.tflite.front_ends import FrontEnd
    from keras_distill.tflite.kit_sources import Sources


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Inputs of test vectors.

    Attributes:
        arrays: Arrays of shape `(samples, ...)` by input name, `None` to make some up.
        source: Where they come from.
        prove: Whether outputs for them prove more than that the file runs.
    """

    arrays: Mapping[str, np.ndarray] | None = None
    source: str = "made up"
    prove: bool = False


class Artifact:
    """A TFLite file for a target. `convert` and `load` make it.

    Attributes:
        tflite: Bytes of the file.
        compiled: Bytes of the file compiled for the target's NPU, or `None`.
        target: Name of the target.
        report: What is known of the file, as plain types; `print` shows it as Markdown.
        ports: Inputs and outputs of the file, a `runtimes.Ports`.
        student: The student between pre- and postprocessing, or `None` for loaded files.
        labels: Names of the classes, or `None`.
        named: Bytes of the file with the names of its tensors.
        examples: Inputs of the test vectors.
        float32: Makes the float32 file of the same operators, `None` where there is none.
        stream: When the outputs of a file that runs frame by frame come, or `None`.
    """

    #: How many test vectors are stored.
    VECTORS = 5

    def __init__(
        self,
        tflite: bytes,
        target: str,
        report: Mapping[str, Any],
        ports: runtimes.Ports,
        *,
        student: StudentFunction | None = None,
        labels: Sequence[str] | None = None,
        compiled: bytes | None = None,
        named: bytes | None = None,
        examples: Examples | None = None,
        float32: Callable[[], bytes] | None = None,
        stream: Streamed | None = None,
    ):
        self.tflite = tflite
        self.target = target
        self.report = Report(report)
        self.ports = ports
        self.student = student
        self.labels = labels
        self.compiled = compiled
        self.named = named or tflite
        self.examples = examples or Examples()
        self.float32 = float32
        self.stream = stream

    def __repr__(self) -> str:
        return f"<Artifact for {self.target}, {len(self.tflite):,} bytes>"

    @property
    def runtime(self) -> str:
        """Runtime of the target: `"litert"` or `"micro"`."""
        return targets.get(self.target).runtime

    def predict(self, x: Any, runtime: str | None = None) -> np.ndarray | dict[str, np.ndarray]:
        """Runs the file in the target's runtime on this host.

        Args:
            x: Samples as `fit` takes them: an array, or a list or dict of arrays, of shape
                `(samples, ...)`. They are values, and are quantized here as the file needs.
            runtime: `"litert"`, `"litert-reference"` or `"micro"`. Defaults to the target's. Where
                TFLite Micro's isn't installed, `"litert-reference"` stands for it, or `"litert"`
                where the reference kernels lack an operator or are known to be wrong.

        Returns:
            An array of shape `(samples, ...)`, or a dict of them by name where the file has
            several outputs. Quantized outputs are given as float32.
        """
        inputs, _ = samples.read(x, self.ports.shapes(), argument="x")
        runtime = runtime or faults.judge_of(inspect(self.tflite), self.runtime)
        outputs = runtimes.predict(self.tflite, self.ports, inputs, runtime)
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def verify(self, data: Any, y: Any = None, *, count: int | None = None) -> Report:
        """Runs the Keras student and the file on the same samples, and records the differences.

        Args:
            data: Samples as `predict` takes them, a `tf.data.Dataset` or an iterable; elements
                `(x, y)` give labels too.
            y: Labels of shape `(samples,)`, for accuracies of the first output; where there are
                several, a list or dict of those of each.
            count: How many samples at most.

        Returns:
            The report, which is `report["verification"]` from now on: for each runtime and output
            the largest and mean difference (also in steps of the output's quantization), the
            share of samples with the same argmax (`agreement`), the accuracies, and a `verdict`:
            `"pass"` where each output's `error` (root mean square, relative to the spread of the
            student's; of integers and booleans at most the share that differs) is within `limit`,
            which goes with the quantization (`closeness.LIMITS`), else `"fail"`; `"not judged"`
            where a known fault of the runtime explains it, `"not run"` where the runtime lacks an
            operator, with the reason. The verdict of the target's own runtime is that of the
            report.

        Raises:
            ValueError: The artifact was loaded from a file and has no student to compare with.
        """
        if self.student is None:
            raise ValueError(
                "This artifact has no Keras student to compare with: it was loaded from a file. "
                "Give `student=` to `load`."
            )
        if self.stream is not None and y is not None:
            raise ValueError(
                "`y` holds labels of samples, which the windows of a recording don't have. Leave "
                "it out."
            )
        inputs, found = samples.read(data, self.ports.shapes(), count, argument="data")
        if y is not None:
            y = judge.labels_of_first(self.student.model, y)[:count]
        elif found is not None and self.stream is None:
            y = judge.labels_of_first(self.student.model, found)
        report = judge.compare(
            self.student, self.tflite, self.ports, self.runtime, inputs, y, self.stream
        )
        if not self.ports.hop:
            self.examples = Examples(_spread(inputs), "samples given to `verify`", True)
        self.report["verification"] = report
        return Report(report)

    def layers(
        self, data: Any, *, count: int | None = 20, profile: str | os.PathLike | None = None
    ) -> list[layer_errors.LayerError]:
        """Where quantization error comes in: each layer compared with that of the float32 file.

        Args:
            data: Samples as `predict` takes them.
            count: How many of them at most.
            profile: Path of a log with the time of each operator on a board or a phone, as
                `keras-distill profile` reads it.

        Returns:
            A row per operator in order: `layer`, `operator`, `error` (root mean square of the
            difference, relative to the activations), `added` (by how much it is larger than that
            of the operator's inputs), `clipped` (share of the values that the range can't hold),
            and with a profile `time` (in ticks, or milliseconds of a phone). It is
            `report["layers"]` from now on.

        Raises:
            ValueError: There is no float32 file to compare with: the artifact was loaded, made
                by quantization-aware training or for single steps, or is float itself. Or the
                profile is that of another file.
        """
        if self.float32 is None:
            raise ValueError(
                "There is no float32 file to compare this artifact's layers with. Convert a plain "
                'student with `quantization="int8"` or another quantization.'
            )
        inputs, _ = samples.read(data, self.ports.shapes(), count)
        log = None if profile is None else profiles.load(profile)
        rows = layer_errors.errors(self.float32(), self.named, list(inputs.values()), log)
        self.report["layers"] = rows
        return rows

    def test_vectors(self) -> tuple[list[tuple], list[tuple]]:
        """A few inputs and the outputs that they give, as the file's own types.

        Returns:
            Inputs and outputs, each a list by port of tuples of arrays.
        """
        found = inspect(self.tflite)
        interpreter = runtimes.open_file(self.tflite, faults.judge_of(found, self.runtime))
        ranges = closeness.input_ranges(found)
        given, expected = [], []
        for i in range(self.VECTORS):
            arrays = [
                port.quantize(self._example(port, i, limits))
                for port, limits in zip(self.ports.inputs, ranges, strict=True)
            ]
            interpreter.reset()
            given.append(arrays)
            expected.append([np.array(a) for a in interpreter.run(arrays)])
        return list(zip(*given, strict=True)), list(zip(*expected, strict=True))

    def _example(self, port, i, limits):
        """Values of an input for test vector `i`: data, else made up within its range."""
        if self.examples.arrays is not None:
            batch = port.shape[0] or 1
            places = range(i * batch, (i + 1) * batch)
            return self.examples.arrays[port.name].take(places, axis=0, mode="wrap")
        low, high = limits or (0.0, 1.0)
        shape = [size or 1 for size in port.shape]
        return low + (high - low) * np.random.default_rng(i).random(shape, "float32")

    def example_values(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The test vectors as values.

        Returns:
            Inputs and outputs by name, each of shape `(samples, ...)`.
        """
        given, expected = self.test_vectors()
        return _values(self.ports.inputs, given), _values(self.ports.outputs, expected)

    def save(
        self,
        folder: str | os.PathLike,
        name: str = "student",
        *,
        variants: Sequence["Artifact"] = (),
        package: str = kit_arguments.PACKAGE,
        description: str = kit_arguments.DESCRIPTION,
        normalization: tuple[float, float] = kit_arguments.NORMALIZATION,
        decision: Decision | None = None,
        recording: np.ndarray | None = None,
        front_end: "FrontEnd | None" = None,
        sources: "Sources | None" = None,
    ) -> pathlib.Path:
        """Writes the file and what the target needs besides it.

        For phones: the file with TFLite metadata, the labels, a Kotlin class for LiteRT's API, the
        lines for Gradle, and a complete sample app. For microcontrollers: the file as a C++ array,
        a header with operators, arena, ports and labels, stored test vectors with a program that
        runs them, `CMakeLists.txt`, an Arduino sketch and a README. For both: the report, as JSON
        and Markdown.

        Args:
            folder: Folder to write to; made where it doesn't exist.
            name: What files, C++ namespace and Kotlin class are named after; made safe for them.
            variants: Phones: further artifacts of the same student, such as float16 for the GPU
                besides int8 for the NPU. The Kotlin class loads the one that fits the accelerator.
            package: Phones: Kotlin package.
            description: Phones: what the student does, in a sentence.
            normalization: Phones: `(mean, std)`; the student takes `(value - mean) / std`, which
                the Kotlin class computes.
            decision: When the app acts on the scores, to be written in C++ or Kotlin.
            recording: Microcontrollers: frames of shape `(time, ...)`, or the samples of a sound
                where there is a front end, for a program that plays them through the stream and
                the decision, and prints what is detected.
            front_end: What the frames of a stream were computed by, for the same in C++ or
                Kotlin: a `keras_distill.data.LogMel`, or, on microcontrollers, a
                `keras_distill.data.MicroFeatures`. With a decision, the kit listens to a
                microphone.
            sources: What makes further sources, such as a `keras_distill.detection.BoxSources`,
                which decodes boxes in C++, and finds them on pictures in Kotlin.

        Returns:
            Path of the folder.

        Raises:
            ValueError: The folder can't be written, or an argument doesn't fit. Nothing is left
                half-written.
        """
        _files.check_folder(folder)
        if self.runtime == "micro":
            from keras_distill.tflite import micro

            kit_arguments.refuse_of_apps(
                self.target, variants=variants, package=package, description=description,
                normalization=normalization,
            )  # fmt: skip
            files: dict[str, str | bytes] = {f"{names.cpp_identifier(name)}.tflite": self.tflite}
            if self.compiled is not None:
                files[f"{names.cpp_identifier(name)}_vela.tflite"] = self.compiled
            files |= micro.files(self, name, decision, recording, front_end, sources)
        else:
            from keras_distill.tflite import android

            if recording is not None:
                raise ValueError(
                    "`recording` is for microcontrollers: the sources of an app play none. "
                    "Leave it out."
                )
            heard = android.Heard(decision, front_end)
            files = android.files(
                self, name, package, description, normalization, variants, heard, sources
            )
        files["report.json"] = json.dumps(self.report, indent=2) + "\n"
        files["report.md"] = f"{self.report}\n"
        return _files.write_folder(folder, files)


def _spread(inputs):
    """As many samples as there are test vectors, from all over the data."""
    count = len(next(iter(inputs.values())))
    chosen = np.linspace(0, count - 1, min(Artifact.VECTORS, count)).astype(int)
    return {name: array[chosen] for name, array in inputs.items()}


def _values(ports, vectors):
    """Test vectors as values, by the names of their ports."""
    return {
        port.name: np.concatenate([port.dequantize(array) for array in arrays])
        for port, arrays in zip(ports, vectors, strict=True)
    }


def finished(
    request: Request,
    judged: judge.Judged,
    calibrated: Calibrated,
    samples: Mapping[str, np.ndarray] | None,
    float32: Callable[[], bytes] | None,
    proven: Proven | None = None,
) -> Artifact:
    """The artifact of a file that `convert` made.

    Args:
        request: What was asked for.
        judged: The file, which its target's runtimes run.
        calibrated: Calibration data.
        samples: Calibration data at the file's inputs by name, or `None`.
        float32: Makes the float32 file of the same operators, `None` where there is none.
        proven: The stream in place of the file, `None` where none was asked for.
    """
    if proven is not None:
        judged, samples = proven.judged, proven.steps
    target, tflite = request.target, judged.tflite
    report = _described(inspect(tflite), judged.ports, target.name)
    report["labels"] = request.labels
    if target.runtime == "micro":
        report["sha256"] = provenance.sha256(tflite)
        report["bytes_saved_by_stripping_names"] = len(judged.named) - len(tflite)
        if runtimes.micro_available():
            report["arena"] = arena.measured(tflite)
    compiled = None
    if target.accelerator:
        compiled, report["npu"] = ethos.compile(tflite, target, judged.named)
        report["npu"]["sha256"] = provenance.sha256(compiled)
    if "arena" in report:
        report["arena"]["reserved"] = arena.reserved(report, request.max_arena)
    if proven is not None:
        report["stream"] = proven.report
    report |= {
        "quantization": request.quantization,
        "io": [_types(judged.ports.inputs), _types(judged.ports.outputs)],
        "calibration": _calibration(request, calibrated.arrays),
        "warnings": [*calibrated.notes, *judged.notes],
        "versions": provenance.versions(target),
    }
    return Artifact(
        tflite, target.name, report, judged.ports, student=request.student, labels=request.labels,
        compiled=compiled, named=judged.named,
        examples=_examples(request, calibrated, samples), float32=float32,
        stream=None if proven is None else proven.streamed,
    )  # fmt: skip


def _types(ports):
    """The types of a side of a file, each once."""
    return ", ".join(dict.fromkeys(port.dtype for port in ports))


def _examples(request, calibrated, samples):
    """The inputs of the test vectors until `verify` is given some."""
    if samples is None and request.way == "trained":
        return Examples(source="made up within the trained range", prove=True)
    if samples is None:
        return Examples()
    first = {name: array[: Artifact.VECTORS] for name, array in samples.items()}
    if calibrated.arrays is None:
        return Examples(first)
    return Examples(first, "calibration data", True)


def _calibration(request, arrays):
    """The report's entry on calibration."""
    if arrays is None:
        return {}
    return {
        "samples": len(next(iter(arrays.values()))),
        "ranges": request.calibration.ranges,
        **({"precision": dict(request.precision)} if request.precision else {}),
    }


def load(
    path: str | os.PathLike | bytes,
    target: str | None = None,
    *,
    student: keras.Model | None = None,
    labels: Sequence[str] | None = None,
) -> Artifact:
    """Wraps an existing TFLite file, ours or from elsewhere.

    Args:
        path: Path or bytes of the file.
        target: Target it is to run on; see `convert`. Defaults to the one that `report.json` beside
            the file names, if `save` wrote both, and else to `"android"`.
        student: Keras model to `verify` it against. Where its inputs and outputs have other names
            than the file's, they are taken to be in the same order.
        labels: Names of the classes.

    Returns:
        An `Artifact`.

    Raises:
        ValueError: Not a TFLite file, or one that the target refuses or that has other inputs or
            outputs than the student.
    """
    tflite = read(path)
    target = targets.get(_reported_target(path, tflite) if target is None else target).name
    found = inspect(tflite)
    if targets.NPU_OPERATOR in found.counts:
        raise ValueError(
            "Vela compiled the file for an Ethos-U: nothing on this host runs it. Load the file "
            "that it was made from, which `save` wrote beside it."
        )
    refused = targets.refusals(found, target)
    if refused:
        raise ValueError(f"Target {target!r} refuses the file: {'; '.join(refused)}.")
    runtime = targets.get(target).runtime
    try:
        failing.survive(tflite, runtime)
        ports = runtimes.ports_of(tflite)
        report = _described(found, ports, target)
        if runtime == "micro":
            report["sha256"] = provenance.sha256(tflite)
            report["versions"] = provenance.versions(targets.get(target))
        if runtimes.on_host(runtime) == "micro":
            report["arena"] = arena.measured(tflite)
            report["arena"]["reserved"] = arena.reserved(report)
    except runtimes.Refusal as error:
        raise ValueError(f"Target {target!r} can't run the file. {error}") from None
    function = None if student is None else student_function.beside_file(student, ports)
    return Artifact(tflite, target, report, ports, student=function, labels=labels)


def _reported_target(path, tflite):
    """The target in the report next to a file, if it is a report on that file."""
    report = {}
    if isinstance(path, (str, os.PathLike)):
        with contextlib.suppress(OSError, ValueError):
            report = json.loads(pathlib.Path(path).with_name("report.json").read_text())
    known = isinstance(report, dict) and report.get("bytes") == len(tflite)
    return report.get("target", "android") if known else "android"


def _described(found: Inspection, ports: runtimes.Ports, target: str) -> dict[str, Any]:
    """The facts of a file for its report."""
    return {
        "target": target,
        "bytes": found.bytes["total"],
        "bytes_by_part": found.bytes,
        "parameters": found.parameters,
        "multiply_accumulates": found.macs,
        "inputs": ports.reported("inputs"),
        "outputs": ports.reported("outputs"),
        "operators": found.counts,
    }
