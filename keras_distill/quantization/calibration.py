"""Calibration: the ranges that the tensors of a quantize-aware model start from."""

import collections
from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from keras_distill import _keras
from keras_distill.quantization.ranges import (
    AnyRange,
    LearnedRange,
    Range,
    require_quantize_aware,
)

_BATCH = 64


def calibrate(model: keras.Model, data) -> None:
    """Sets the ranges of a quantize-aware model to the extremes that its tensors take.

    Args:
        model: A model made by `quantize_aware`.
        data: As `calibration` in `quantize_aware`.

    Raises:
        ValueError: If the model isn't quantize-aware, or the data doesn't fit its inputs.
    """
    require_quantize_aware(model)
    ranges = [x for x in _keras.layers_of(model) if isinstance(x, (Range, LearnedRange))]
    seen = collections.defaultdict(lambda: (0.0, 0.0))

    def observe(layer):
        def observer(x):
            extremes = float(ops.min(x)), float(ops.max(x))
            if not np.all(np.isfinite(x)):
                raise ValueError(
                    f"Calibration met NaN or infinity in the output of {layer.tensor!r}: look at "
                    "the samples and at the model's weights."
                )
            low, high = seen[layer]
            seen[layer] = min(low, extremes[0]), max(high, extremes[1])

        return observer

    everything = [x for x in _keras.layers_of(model) if isinstance(x, AnyRange)]
    for layer in everything:
        layer.observer = observe(layer)
    try:
        for batch in _batches(model, data):
            model(batch, training=False)
    finally:
        for layer in everything:
            layer.observer = None
    if not seen:
        raise ValueError("`calibration` holds no samples.")
    for layer in ranges:
        layer.start(*seen[layer])


def _batches(model, data) -> Iterable:
    """`data` as batches that the model takes, each checked against its inputs."""
    specs = model.inputs
    is_structure = isinstance(data, dict) or (
        isinstance(data, (list, tuple))
        and len(data) == len(specs)
        and all(len(np.shape(x)) == len(s.shape) for x, s in zip(data, specs, strict=True))
    )
    if is_structure or hasattr(data, "shape"):
        flat = keras.tree.flatten(data)
        size = len(flat[0])
        if any(len(x) != size for x in flat):
            raise ValueError(
                "`calibration` holds inputs of different numbers of samples: "
                f"{[len(x) for x in flat]}."
            )
        batches = (
            keras.tree.map_structure(lambda x, i=i: x[i : i + _BATCH], data)
            for i in range(0, size, _BATCH)
        )
    elif isinstance(data, Iterable):
        # Data sets yield `(x, y)` or `(x, y, weight)` too.
        batches = (x[0] if isinstance(x, tuple) else x for x in data)
    else:
        raise ValueError(
            "`calibration` must be an array, a list or dict of arrays, or an iterable of batches. "
            f"Received: {type(data).__name__}"
        )
    for batch in batches:
        _check_batch(model, batch)
        yield batch


def _check_batch(model, batch):
    by_name = {x.name: x for x in model.inputs}
    if isinstance(batch, dict):
        pairs = [(batch.get(name), spec) for name, spec in by_name.items()]
    else:
        flat = keras.tree.flatten(batch)
        pairs = list(zip(flat, model.inputs, strict=False))
        if len(flat) != len(model.inputs):
            pairs = [(None, model.inputs[0])]
    for x, spec in pairs:
        fits = x is not None and len(np.shape(x)) == len(spec.shape)
        fits = fits and all(
            want in (None, have) for have, want in zip(np.shape(x)[1:], spec.shape[1:], strict=True)
        )
        if not fits:
            given = keras.tree.map_structure(lambda x: tuple(np.shape(x)), batch)
            wanted = {name: x.shape for name, x in by_name.items()}
            raise ValueError(
                f"`calibration` doesn't match the model's inputs: it has shapes {given} where the "
                f"inputs are {wanted}. Give batches of samples, as `model.predict` takes them."
            )
