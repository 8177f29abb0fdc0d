"""Calibration: the ranges that the tensors of a quantize-aware model start from."""

import collections
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill import _keras, samples
from keras_distill.inputs import keys_of
from keras_distill.quantization.ranges import (
    AnyRange,
    LearnedRange,
    Range,
    require_quantize_aware,
)

_BATCH = 64


def calibrate(model: keras.Model, data: Any) -> None:
    """Sets the ranges of a quantize-aware model to the extremes of its tensors on some data.

    Args:
        model: A model made by `quantize_aware`.
        data: Inputs, as `calibration` of `quantize_aware`: arrays, a `tf.data.Dataset`, or an
            iterable of batches.

    Raises:
        ValueError: If the model isn't quantize-aware, or the data doesn't fit its inputs.
    """
    require_quantize_aware(model)
    ranges = [x for x in _keras.layers_of(model) if isinstance(x, (Range, LearnedRange))]
    seen = collections.defaultdict(lambda: (math.inf, -math.inf))

    def observe(layer: AnyRange) -> Callable[[Any], None]:
        def observer(x: Any) -> None:
            # PyTorch warns where a tensor with a gradient becomes a number.
            extremes = tuple(float(ops.convert_to_numpy(y)) for y in (ops.min(x), ops.max(x)))
            if not np.all(np.isfinite(extremes)):
                raise ValueError(
                    f"Calibration found NaN or infinity in the output of {layer.tensor!r}. Check "
                    "the samples and the model's weights."
                )
            low, high = seen[layer]
            seen[layer] = min(low, extremes[0]), max(high, extremes[1])

        return observer

    everything = [x for x in _keras.layers_of(model) if isinstance(x, AnyRange)]
    for layer in everything:
        layer.observer = observe(layer)
    try:
        names = keys_of(model.input) or [x.name for x in model.inputs]
        shapes = {name: x.shape[1:] for name, x in zip(names, model.inputs, strict=True)}
        for batch in samples.batches(data, shapes, batch_size=_BATCH, argument="calibration"):
            flat = [batch[name] for name in shapes]
            model(keras.tree.pack_sequence_as(model.input, flat), training=False)
    finally:
        for layer in everything:
            layer.observer = None
    for layer in ranges:
        layer.start(*seen[layer])
