"""Where quantization error comes in, layer by layer.

ai-edge-quantizer's `compare_model` does much of this, but not the share of clipped values, and not
files with recurrent operators.
"""

from collections.abc import Iterable, Sequence
from typing import NotRequired, TypedDict

import numpy as np
from keras_distill.tflite import profiles, runtimes, targets
from keras_distill.tflite.inspect import Inspection, inspect


class LayerError(TypedDict):
    """The error of one operator of a quantized file; see `errors`."""

    layer: str
    operator: str
    error: float
    added: float
    clipped: float
    time: NotRequired[float | None]


def errors(
    float32: bytes,
    tflite: bytes,
    inputs: Sequence[np.ndarray],
    profile: profiles.Profile | None = None,
) -> list[LayerError]:
    """Compares the activations of a quantized file with those of its float32 twin.

    Args:
        float32: The float32 file of the same student.
        tflite: The quantized file, names included.
        inputs: Arrays in the order of the files' inputs, each of shape `(samples, ...)`.
        profile: How long each operator took somewhere, or `None`.

    Returns:
        A row per operator in order: `layer`, `operator`, `error` (root mean square of the
        difference over that of the float activations), `added` (how much larger it is than that
        of the operator's inputs), `clipped` (share of the float values
        that the range can't hold) and, with a profile, `time` in its unit.
    """
    found = inspect(tflite)
    sums = _sums(float32, tflite, inputs, _twins(inspect(float32), found))
    shares = {n: float(np.sqrt(s[0] / s[1])) if s[1] else 0.0 for n, s in sums.items()}
    times = profile.of(found) if profile else [None] * len(found.operators)
    rows: list[LayerError] = []
    for op, time in zip(found.operators, times, strict=True):
        name = op.layer
        if name not in sums or not sums[name][3]:
            continue
        before = max((shares[t.name] for t in op.inputs if t and t.name in shares), default=0.0)
        rows.append(
            {
                "layer": targets.layer_of(name),
                "operator": op.name,
                "error": shares[name],
                "added": shares[name] - before,
                "clipped": float(sums[name][2] / sums[name][3]),
            }
        )
        if profile:
            rows[-1]["time"] = time
    return rows


def _sums(float32, tflite, inputs, watched):
    """By tensor: squared differences, squares, clipped values and all values, summed up."""
    floats, quantized = _Runner(float32, watched.values()), _Runner(tflite, watched)
    sums = {name: np.zeros(4) for name in watched}
    for start in range(0, len(inputs[0]), floats.batch):
        places = range(start, start + floats.batch)
        # The last sample fills the last batch.
        sample = [array.take(places, axis=0, mode="clip") for array in inputs]
        floats.run(sample)
        quantized.run(sample)
        for name, twin in watched.items():
            expected, _ = floats.value(twin)
            got, (low, high) = quantized.value(name)
            if expected.shape != got.shape:
                continue
            difference = got - expected
            clipped = (expected < low) | (expected > high)
            sums[name] += (
                np.square(difference).sum(),
                np.square(expected).sum(),
                clipped.sum(),
                expected.size,
            )
    return sums


def _twins(float32: Inspection, quantized: Inspection) -> dict[str, str]:
    """The tensor of the float32 file for each of the quantized one that has such a twin."""
    known = {t.name for op in float32.operators for t in op.outputs}
    known |= {t.name for t in float32.inputs}
    made = {t.name for op in quantized.operators for t in op.outputs}
    made |= {t.name for t in quantized.inputs}
    twins = {name: name for name in made & known}
    for op in quantized.operators:
        if op.name in ("QUANTIZE", "DEQUANTIZE"):
            # Both sides are the same values, of which the float32 file knows one.
            given, result = op.inputs[0].name, op.outputs[0].name
            if given in twins:
                twins.setdefault(result, twins[given])
            elif result in twins:
                twins[given] = twins[result]
    return twins


class _Runner:
    """A file in LiteRT's kernels, with the tensors of some names kept."""

    def __init__(self, tflite: bytes, names: Iterable[str]):
        self._file = runtimes.LiteRT(tflite, "litert-builtin", threads=None, keep_tensors=True)
        self.batch = self._file.inputs[0].shape[0] or 1
        names = set(names)
        self._tensors = {
            port.name: (index, port)
            for index, port in self._file.computed().items()
            if port.name in names
        }

    def run(self, sample):
        self._file.reset()
        ports = self._file.inputs
        self._file.run([port.quantize(x) for port, x in zip(ports, sample, strict=True)])

    def value(self, name):
        """A tensor as floats, and the range that it can hold."""
        index, port = self._tensors[name]
        return port.dequantize(self._file.tensor(index)).astype("float64"), port.limits()
