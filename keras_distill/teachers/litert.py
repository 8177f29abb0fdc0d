"""TFLite files as teachers."""

import os
import pathlib
import threading
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_distill.teachers.functions import Function, are_probabilities, refuse_probabilities


class LiteRT(Function):
    """A `.tflite` file, run by LiteRT on the CPU.

    Floats are quantized on the way in and out where the file's inputs and outputs are integers;
    inputs of the file's own integer type are passed as they are. A file with several inputs takes
    a dict by the names of its signature, or a list in the file's order, which
    `Teacher(preprocess=...)` makes.

    Args:
        path: The file.
        name: Name for messages and reports. Defaults to the file's.

    Raises:
        ValueError: If the file doesn't exist or isn't a TFLite model.

    Example:

    ```python
    teacher = keras_distill.teachers.LiteRT("teacher.tflite")
    ```
    """

    def __init__(self, path: Any, name: str | None = None):
        self._path = pathlib.Path(path)
        self._file = _LiteRTFile(self._path)
        super().__init__(self._file, self._file.output_spec, name or self._path.stem)

    @property
    def ports(self) -> list:
        """The file's inputs, with their names, shapes and types."""
        return self._file.inputs

    @property
    def results(self) -> list:
        """Its outputs."""
        return self._file.outputs

    def run(self, inputs: Any, taps: Any) -> tuple:
        return super().run(self._file.in_order(inputs), taps)

    def require_logits(self, from_logits: bool | dict) -> None:
        refuse_probabilities(self._path, self._file.answers_with_probabilities, from_logits)

    def own_contents(self) -> Iterable:
        return [*super().own_contents(), self._path.read_bytes()]


class _LiteRTFile:
    """A TFLite file as a function of a batch of arrays."""

    def __init__(self, path):
        from keras_distill.tflite import runtimes

        if not path.is_file():
            raise ValueError(f"There is no file {path}.")
        try:
            self._file = runtimes.LiteRT(path.read_bytes(), threads=os.cpu_count())
        except runtimes.Refusal as error:
            raise ValueError(f"{path} isn't a TFLite model that LiteRT can run: {error}") from error
        self.inputs, self.outputs = self._file.inputs, self._file.outputs
        self._lock = threading.Lock()
        specs = [tf.TensorSpec((None, *port.shape[1:])) for port in self._file.outputs]
        self.output_spec = specs if len(specs) > 1 else specs[0]
        rng = np.random.default_rng(0)
        probe = [
            rng.uniform(size=(2, *(size or 1 for size in port.shape[1:]))).astype("float32")
            for port in self._file.inputs
        ]
        one_by_one = self._one_by_one(probe)
        self._takes_batches = self._agrees(probe, one_by_one)
        found = [
            are_probabilities(y) or _is_scaled_as_probabilities(port)
            for y, port in zip(one_by_one, self._file.outputs, strict=True)
        ]
        self.answers_with_probabilities = found if len(found) > 1 else found[0]

    def in_order(self, inputs):
        """Inputs by name in the order of the file's; others as they are."""
        names = [port.name for port in self._file.inputs]
        if not isinstance(inputs, dict) or len(inputs) == len(names) == 1:
            return inputs
        if not set(names) <= set(inputs):
            raise ValueError(
                f"The TFLite model reads the inputs {', '.join(map(repr, names))}, but the batch "
                f"holds {', '.join(map(repr, inputs))}."
            )
        return [inputs[name] for name in names]

    def __call__(self, inputs):
        inputs = keras.tree.flatten(inputs)
        if len(inputs) != len(self._file.inputs):
            raise ValueError(
                f"The TFLite model reads {len(self._file.inputs)} inputs. Received: {len(inputs)}"
            )
        with self._lock:
            outputs = self._run(inputs) if self._takes_batches else self._one_by_one(inputs)
        return outputs if len(outputs) > 1 else outputs[0]

    def _agrees(self, probe, expected):
        """Whether a batch of two gives what its rows give alone."""
        try:
            outputs = self._run(probe)
        except (RuntimeError, ValueError):
            return False
        return all(
            y.shape == e.shape and np.allclose(y, e, rtol=1e-3, atol=1e-3 * np.abs(e).max())
            for y, e in zip(outputs, expected, strict=True)
        )

    def _one_by_one(self, inputs):
        rows = [self._run([x[i : i + 1] for x in inputs]) for i in range(len(inputs[0]))]
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    def _run(self, inputs):
        self._file.resize([x.shape for x in inputs])
        outputs = self._file.run(
            [
                # Integers of the file's own type stand for themselves.
                x if x.dtype == port.dtype else port.quantize(x)
                for port, x in zip(self._file.inputs, inputs, strict=True)
            ]
        )
        return [
            port.dequantize(y).astype("float32")
            for port, y in zip(self._file.outputs, outputs, strict=True)
        ]


def _is_scaled_as_probabilities(port):
    """Whether a file's output has the scale that TFLite gives to 8-bit softmax and sigmoid."""
    is_integer = np.issubdtype(np.dtype(port.dtype), np.integer)
    return is_integer and (port.scale, port.zero_point) == (1 / 256, np.iinfo(port.dtype).min)
