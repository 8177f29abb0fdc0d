"""Which layers take 4-bit weights, so that a file fits: those that the outputs miss least."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_distill import _keras
from keras_distill.checks import whole_number
from keras_distill.inputs import keys_of
from keras_distill.quantization.aware import quantize_aware
from keras_distill.quantization.rules import rule_of
from keras_distill.quantization.rules.rule import YES
from keras_distill.samples import batches


@dataclasses.dataclass(frozen=True)
class Found:
    """What `search` found.

    Attributes:
        layers: Layers with 4-bit weights, as `layers` of `quantize_aware`.
        bytes: Bytes of the file with them.
        sensitivity: For each layer that can have 4-bit weights, by path: the mean squared error of
            the model's outputs where it alone has them, as a share of their variance.
    """

    layers: dict[str, dict[str, int]]
    bytes: int
    sensitivity: dict[str, float]


def search(
    model: keras.Model,
    calibration: Any,
    *,
    flash: int,
    bytes_of: Callable[[keras.Model], int],
    samples: int = 256,
) -> Found:
    """Chooses which layers have 4-bit weights, so that the file has so many bytes at most.

    Each layer that has kernels for them is rounded to 4 bits alone, and the outputs are compared
    with those of the float model on calibration data. Layers get 4 bits in the order of the error
    for each byte saved, until the file fits; then those with the greatest error get back their 8
    bits if it still does. Files are made and measured, at least one for each layer, so that the
    limit is exact. Train the student with what was found (`quantize_aware`): that brings back part
    of the loss.

    Args:
        model: As in `quantize_aware`.
        calibration: Inputs, as in `quantize_aware`.
        flash: Bytes of the file at most.
        bytes_of: Function that returns the bytes of the file of a quantize-aware model, such as
            `lambda m: len(tflite.convert(m, target="micro").tflite)`.
        samples: How many samples of `calibration` errors are measured on.

    Returns:
        A `Found`.

    Raises:
        ValueError: If the file is larger even with 4 bits wherever they are possible; names how
            large. Otherwise as `quantize_aware`.

    Example:

    >>> found = quantization.search(student, x, flash=20_000, bytes_of=bytes_of)
    >>> aware = quantization.quantize_aware(student, x, layers=found.layers)
    """
    whole_number("flash", flash, 1)
    whole_number("samples", samples, 1)
    measured = _Measured(model, calibration, bytes_of)
    paths = list(_paths(model))
    sensitivity = measured.sensitivity(paths, samples)
    chosen: list[str] = []
    if measured.bytes([]) > flash:
        saved = {path: measured.bytes([]) - measured.bytes([path]) for path in paths}
        # A dense layer of 4 bits is a convolution in the file: a small one saves nothing.
        useful = [path for path in paths if saved[path] > 0]
        order = sorted(useful, key=lambda path: sensitivity[path] / saved[path])
        chosen = order[: _fewest(order, flash, measured)]
        for path in sorted(chosen, key=lambda path: -sensitivity[path]):
            others = [x for x in chosen if x != path]
            if measured.bytes(others) <= flash:
                chosen = others
    layers = {path: {"weights": 4} for path in paths if path in chosen}
    return Found(layers, measured.bytes(chosen), sensitivity)


class _Measured:
    """Files and outputs of a model with 4 bits in some layers, each made once."""

    def __init__(self, model: keras.Model, calibration: Any, bytes_of: Callable):
        self._model, self._calibration, self._bytes_of = model, calibration, bytes_of
        self._known: dict[frozenset[str], int] = {}

    def aware(self, paths: Any) -> keras.Model:
        layers = {path: {"weights": 4} for path in paths}
        return quantize_aware(self._model, self._calibration, layers=layers)

    def bytes(self, paths: Any) -> int:
        key = frozenset(paths)
        if key not in self._known:
            self._known[key] = int(self._bytes_of(self.aware(key)))
        return self._known[key]

    def sensitivity(self, paths: Any, count: int) -> dict[str, float]:
        aware = self.aware([])
        names = keys_of(aware.input) or [x.name for x in aware.inputs]
        shapes = {name: x.shape[1:] for name, x in zip(names, aware.inputs, strict=True)}
        given = batches(self._calibration, shapes, batch_size=count, argument="calibration")
        first = next(iter(given))
        x = keras.tree.pack_sequence_as(aware.input, [first[name] for name in shapes])

        def outputs(model: keras.Model) -> list[np.ndarray]:
            flat = keras.tree.flatten(model(x, training=False))
            return [np.asarray(keras.ops.convert_to_numpy(y), "float64") for y in flat]

        wanted = outputs(self._model)

        def error(path: str) -> float:
            found = outputs(self.aware([path]))
            shares = (
                np.mean((y - z) ** 2) / np.maximum(np.var(z), 1e-12)
                for y, z in zip(found, wanted, strict=True)
            )
            return float(sum(shares))

        return {path: error(path) for path in paths}


def _fewest(order: list[str], flash: int, measured: _Measured) -> int:
    """How many layers of an order must have 4 bits until the file fits, by bisection."""
    if (least := measured.bytes(order)) > flash:
        names = ", ".join(map(repr, order)) or "there are none"
        raise ValueError(
            f"The file has {least:,} bytes even with 4-bit weights in all layers that are smaller "
            f"so ({names}); {flash:,} are allowed. "
            "Raise `flash`, or make the model smaller, such as by `pruning.prune`."
        )
    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        if measured.bytes(order[:middle]) <= flash:
            high = middle
        else:
            low = middle
    return high


def _paths(model: keras.Model, prefix: str = "") -> Iterator[str]:
    """Paths of the layers that can have 4-bit weights."""
    graph = _keras.graph_of(model)
    for operation in graph.operations if graph is not None else ():
        path = prefix + operation.name
        if isinstance(operation, keras.Model):
            yield from _paths(operation, f"{path}/")
            continue
        rule = rule_of(operation)
        has_kernel = any(len(x.shape) > 1 for x in getattr(operation, "weights", ()))
        if rule is not None and rule.support.int4 == YES and has_kernel:
            yield path
