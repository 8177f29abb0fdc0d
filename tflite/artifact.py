"""A TFLite file with the evidence that it does what the student does."""

import contextlib
import json
import os
import pathlib

import numpy as np
from keras_distill.tflite import cost, layers, names, runtimes, targets, verify
from keras_distill.tflite.inspect import inspect, read
from keras_distill.tflite.report import Report

from keras_distill import _files, samples

#: How many test vectors are stored.
VECTORS = 5


class Artifact:
    """A TFLite file for a target. `convert` and `load` make it.

    Attributes:
        tflite: Bytes of the file.
        compiled: Bytes of the file compiled for the target's NPU, or `None`.
        target: Name of the target.
        report: What is known of the file, as plain types; `print` shows it as Markdown.
        student: The Keras student between pre- and postprocessing, or `None` for loaded files.
    """

    def __init__(
        self,
        tflite,
        target,
        report,
        *,
        inputs,
        outputs,
        student=None,
        labels=None,
        states=(),
        named=None,
        compiled=None,
        float32=None,
    ):
        self.tflite = tflite
        self.target = target
        self.report = Report(report)
        self.student = student
        self.labels = labels
        self.compiled = compiled
        self._inputs = inputs
        self._outputs = outputs
        self._states = states
        self._named = named or tflite
        self._float32 = float32
        self._examples = None

    def __repr__(self):
        return f"<Artifact for {self.target}, {len(self.tflite):,} bytes>"

    @property
    def runtime(self) -> str:
        """Runtime of the target: `"litert"` or `"micro"`."""
        return targets.get(self.target).runtime

    def predict(self, x, runtime=None):
        """Runs the file in the target's runtime on this host.

        Args:
            x: Samples as `fit` takes them: an array, or a list or dict of arrays. They are values
                and are quantized here as the file needs.
            runtime: `"litert"`, `"litert-reference"` or `"micro"`. Defaults to the target's, and to
                `"litert-reference"` where TFLite Micro's isn't installed.

        Returns:
            An array of shape `(samples, ...)`, or a dict of them by name where the file has
            several outputs. Quantized outputs are given as floats.
        """
        inputs, _ = samples.read(x, self._shapes(), argument="x")
        outputs = self._run(inputs, runtime or runtimes.on_host(self.runtime))[1]
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def _shapes(self):
        """Shapes of samples by input name; those of a step model are whole sequences."""
        fed = [i for i, _ in self._states]
        ports = [port for i, port in enumerate(self._inputs) if i not in fed]
        time = [None] if self._states else []
        return {p["name"]: (*time, *p["shape"][1 + len(time) :]) for p in ports}

    def _run(self, inputs, runtime):
        """The ports of the outputs, and the outputs as floats, by name."""
        interpreter = runtimes.open_file(self.tflite, runtime)
        results = runtimes.run_samples(interpreter, list(inputs.values()), self._states)
        kept = [o for _, o in self._states]
        ports = [p for i, p in enumerate(interpreter.outputs) if i not in kept]
        given = [port["name"] for i, port in enumerate(self._outputs) if i not in kept]
        ports = dict(zip(given, ports, strict=True))
        return ports, {
            name: port.dequantize(result)
            for (name, port), result in zip(ports.items(), results, strict=True)
        }

    def verify(self, data, y=None, *, count=None):
        """Runs the Keras student and the file on the same samples, and records the differences.

        Args:
            data: Samples as `predict` takes them, a `tf.data.Dataset` or an iterable; elements
                `(x, y)` give labels too.
            y: Labels of shape `(samples,)`, for accuracies.
            count: How many samples at most.

        Returns:
            The report, which is `report["verification"]` from now on: for each runtime and output
            the largest and mean difference (also in steps of the output's quantization), the
            share of samples with the same argmax (`agreement`), and the accuracies.

        Raises:
            ValueError: The artefact was loaded from a file and has no student to compare with.
        """
        if self.student is None:
            raise ValueError(
                "This artefact has no Keras student to compare with: it was loaded from a file. "
                "Give `student=` to `load`."
            )
        inputs, found = samples.read(data, self._shapes(), count, argument="data")
        y = found if y is None else np.asarray(y)[:count]
        report = verify.compare(self, inputs, y)
        self.report["verification"] = report
        return Report(report)

    def layers(self, data, *, count=20):
        """Where quantization error comes in: each layer beside that of the float32 file.

        Args:
            data: Samples as `predict` takes them.
            count: How many of them at most.

        Returns:
            A row per operator in order: `layer`, `operator`, `error` (root mean square of the
            difference, relative to the activations), `added` (by how much it is larger than that
            of the operator's inputs), `clipped` (share of the values that the range can't hold).
            It is `report["layers"]` from now on.

        Raises:
            ValueError: There is no float32 file to compare with: the artefact was loaded, made
                by quantization-aware training or for single steps, or is float itself.
        """
        if self._float32 is None:
            raise ValueError(
                "There is no float32 file to compare this artefact's layers with. Convert a plain "
                'student with `quantization="int8"` or another quantization.'
            )
        inputs, _ = samples.read(data, self._shapes(), count)
        rows = layers.errors(self._float32(), self._named, list(inputs.values()))
        self.report["layers"] = rows
        return rows

    def benchmark(self, runs=50, threads=(1, 2)):
        """Times single inferences on this host in each runtime of the target.

        A host's latencies tell little of a phone's, and nothing of a microcontroller's.

        Args:
            runs: How many inferences are timed.
            threads: Numbers of threads to time LiteRT with.

        Returns:
            The host and a row per runtime and number of threads: median and 95th percentile in
            milliseconds. It is `report["latency"]` from now on.
        """
        self.report["latency"] = cost.latencies(self, runs, threads)
        return Report(self.report["latency"])

    def test_vectors(self):
        """A few inputs and the outputs that they give, as the file's own types.

        Returns:
            Inputs and outputs, each a list by port of lists of arrays.
        """
        micro = runtimes.on_host(self.runtime) == "micro"
        interpreter = runtimes.open_file(self.tflite, "micro" if micro else "litert-reference")
        given, expected = [], []
        for i in range(VECTORS):
            arrays = [
                port.quantize(self._example(port, n, i))
                for n, port in enumerate(interpreter.inputs)
            ]
            interpreter.reset()
            given.append(arrays)
            expected.append([np.array(a) for a in interpreter.run(arrays)])
        return list(zip(*given, strict=True)), list(zip(*expected, strict=True))

    def _example(self, port, n, i):
        """Values of input `n` for test vector `i`: calibration data, else made up."""
        if self._examples is not None:
            array = self._examples[self._inputs[n]["name"]]
            batch = port.shape[0] or 1
            return array.take(range(i * batch, (i + 1) * batch), axis=0, mode="wrap")
        shape = [size or 1 for size in port.shape]
        return np.random.default_rng(i).random(shape, "float32")

    def example_values(self):
        """The test vectors as values.

        Returns:
            Inputs and outputs by name, each of shape `(samples, ...)`.
        """
        given, expected = self.test_vectors()
        interpreter = runtimes.LiteRT(self.tflite)
        sides = (
            (self._inputs, interpreter.inputs, given),
            (self._outputs, interpreter.outputs, expected),
        )
        return tuple(
            {
                known["name"]: np.concatenate([port.dequantize(a) for a in arrays])
                for known, port, arrays in zip(*side, strict=True)
            }
            for side in sides
        )

    def save(
        self,
        folder,
        name="student",
        *,
        variants=(),
        package="com.example.student",
        description="A student distilled with keras_distill.",
        normalization=(0.0, 1.0),
    ):
        """Writes the file and what the target needs beside it.

        For phones: the file with TFLite metadata, the labels, a Kotlin class for LiteRT's API, the
        lines for Gradle, and a complete sample app. For microcontrollers: the file as a C++ array,
        a header with operators, arena, ports and labels, stored test vectors with a program that
        runs them, `CMakeLists.txt` and an Arduino sketch. For both: the report, as JSON and
        Markdown.

        Args:
            folder: Folder to write to; made where it doesn't exist.
            name: What files, C++ namespace and Kotlin class are named after; made safe for them.
            variants: Phones: further artefacts of the same student, such as float16 for the GPU
                beside int8 for the NPU. The Kotlin class loads the one that suits.
            package: Phones: Kotlin package.
            description: Phones: what the student does, in a sentence.
            normalization: Phones: `(mean, std)`; the student takes `(value - mean) / std`, which
                the Kotlin class computes.

        Returns:
            Path of the folder.

        Raises:
            ValueError: The folder can't be written, or an argument doesn't fit. Nothing is left
                half-written.
        """
        _files.check_folder(folder)
        if self.runtime == "micro":
            from keras_distill.tflite import micro

            files = {f"{names.cpp_identifier(name)}.tflite": self.tflite}
            if self.compiled is not None:
                files[f"{names.cpp_identifier(name)}_vela.tflite"] = self.compiled
            files |= micro.files(self, name)
        else:
            from keras_distill.tflite import android

            files = android.files(self, name, package, description, normalization, variants)
        files["report.json"] = json.dumps(self.report, indent=2) + "\n"
        files["report.md"] = f"{self.report}\n"
        return _files.write_folder(folder, files)


def load(path, target=None, *, student=None, labels=None) -> Artifact:
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
    refused = targets.refusals(found, target)
    if refused:
        raise ValueError(f"Target {target!r} refuses the file: {'; '.join(refused)}.")
    runtime = targets.get(target).runtime
    try:
        runtimes.survive(tflite, runtime)
        inputs, outputs = ports(runtimes.LiteRT(tflite))
        report = describe(found, inputs, outputs, target)
        if runtimes.on_host(runtime) == "micro":
            report["arena"] = runtimes.TFLiteMicro(tflite).arena
    except runtimes.Refusal as error:
        raise ValueError(f"Target {target!r} can't run the file. {error}") from None
    if student is not None:
        from keras_distill.tflite import graph

        student = graph.beside_file(student, inputs, outputs)
    return Artifact(tflite, target, report, inputs=inputs, outputs=outputs, student=student,
                    labels=labels)  # fmt: skip


def _reported_target(path, tflite):
    """The target that the report beside a file names, where it is a report of that file."""
    report = {}
    if isinstance(path, (str, os.PathLike)):
        with contextlib.suppress(OSError, ValueError):
            report = json.loads(pathlib.Path(path).with_name("report.json").read_text())
    known = isinstance(report, dict) and report.get("bytes") == len(tflite)
    return report.get("target", "android") if known else "android"


def ports(interpreter):
    """Inputs and outputs of an interpreter as plain types."""
    return tuple(
        [{**vars(port), "shape": list(port.shape)} for port in side]
        for side in (interpreter.inputs, interpreter.outputs)
    )


def describe(found, inputs, outputs, target) -> dict:
    """The facts of a file for its report."""
    return {
        "target": target,
        "bytes": found.bytes["total"],
        "bytes_by_part": found.bytes,
        "parameters": found.parameters,
        "multiply_accumulates": found.macs,
        "inputs": inputs,
        "outputs": outputs,
        "operators": found.counts,
    }
