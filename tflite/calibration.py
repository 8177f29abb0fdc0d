"""Calibration: the samples from which the ranges of activations follow, and how."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras_distill.tflite import lowering
from keras_distill.tflite.student_function import StudentFunction

from keras_distill import samples

RANGES = ("minmax", "percentile", "mse")


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """Samples for `convert(calibration=...)`, and how the ranges of activations follow from them.

    Args:
        data: Inputs like those that the file will meet, of shape `(samples, ...)`: an array, a
            list or dict of arrays, a `tf.data.Dataset`, an iterable of samples or batches, or a
            function that returns one. As in `fit`, elements may be `(x, y)`.
        samples: How many of them to use at most.
        ranges: `"minmax"` covers all values, `"percentile"` leaves out the outermost, `"mse"`
            gives the least mean squared error. The last two are for `quantization="int8"` and
            `"int4"`.
        percentile: Share of the values inside the range for `ranges="percentile"`, in percent.
        training_range: `(low, high)` of the inputs in training: `convert` warns where the
            calibration data differ from them. What the student's batch normalization layers met in
            training is compared in any case.

    Raises:
        ValueError: An option is not one of those above.

    Example:

    >>> artifact = keras_distill.tflite.convert(
    ...     student, "micro", "int8",
    ...     calibration=keras_distill.tflite.Calibration(x_train, samples=200, ranges="mse"))
    """

    data: Any = dataclasses.field(repr=False)
    samples: int = 500
    ranges: str = "minmax"
    percentile: float = 99.9
    training_range: tuple[float, float] | None = None

    def __post_init__(self):
        if self.data is None:
            raise ValueError("`data` must hold samples. Received: data=None")
        if not isinstance(self.samples, int) or self.samples < 1:
            raise ValueError(
                f"`samples` must be an integer of at least 1. Received: samples={self.samples!r}"
            )
        if self.ranges not in RANGES:
            raise ValueError(
                f"`ranges` must be one of {list(RANGES)}. Received: ranges={self.ranges!r}"
            )
        if not 50 < self.percentile <= 100:
            raise ValueError(
                "`percentile` must be above 50, at most 100. "
                f"Received: percentile={self.percentile!r}"
            )
        if self.training_range is not None:
            low, high = self.training_range
            if not low < high:
                raise ValueError(
                    "`training_range` must be a pair (low, high) with low < high. "
                    f"Received: training_range={self.training_range!r}"
                )


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """Calibration data as they were read.

    Attributes:
        arrays: Arrays of shape `(samples, ...)` by input name, or `None` without data.
        are_bytes: Whether the data are bytes.
        notes: Warnings about them.
    """

    arrays: dict[str, np.ndarray] | None = None
    are_bytes: bool = False
    notes: tuple[str, ...] = ()


def read(
    function: StudentFunction, calibration: Calibration | None, sets_ranges: bool
) -> Calibrated:
    """Reads calibration data, and warns if they differ from those of training.

    Args:
        function: The student, as the file's inputs reach it.
        calibration: The data, or `None`.
        sets_ranges: Whether the ranges of integers come from them.
    """
    if calibration is None:
        return Calibrated()
    shapes = {i.name: i.shape for i in function.inputs}
    given, _ = samples.read(calibration.data, shapes, calibration.samples, argument="calibration")
    arrays = {i.name: given[i.name].astype(function.dtype(i)) for i in function.inputs}
    notes = _all_zero(arrays) + _unlike_training(function, arrays, calibration.training_range)
    if sets_ranges and not notes and len(next(iter(arrays.values()))) == 1:
        notes.append("calibration data are a single sample: others are clipped to its ranges")
    for note in notes:
        warnings.warn(
            f"{note}. Calibrate with inputs like those that the file will meet, preprocessed "
            "alike.",
            stacklevel=3,
        )
    return Calibrated(arrays, all(a.dtype == "uint8" for a in given.values()), tuple(notes))


def _all_zero(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Names the float inputs whose range would hold nothing else than 0."""
    return [
        f"calibration data of input {name!r} are 0 everywhere: in integers, it could hold nothing "
        "else"
        for name, array in arrays.items()
        if keras.backend.is_float_dtype(str(array.dtype)) and not array.any()
    ]


def _unlike_training(
    function: StudentFunction,
    arrays: Mapping[str, np.ndarray],
    training_range: tuple[float, float] | None,
) -> list[str]:
    """Signs that calibration data aren't like what the student was trained on.

    What the first batch normalization layer met in training is compared with what it meets now;
    so are the inputs, with `training_range`.
    """
    found = []
    if training_range is not None:
        low, high = training_range
        for name, array in arrays.items():
            if array.min() < low or array.max() > high or np.ptp(array) < (high - low) / 10:
                found.append(
                    f"calibration data of input {name!r} span {array.min():.4g} to "
                    f"{array.max():.4g}, the training data {low:.4g} to {high:.4g}"
                )
    for layer, x in _first_normalized(function, {n: a[:100] for n, a in arrays.items()}):
        mean = keras.ops.convert_to_numpy(layer.moving_mean)
        variance = keras.ops.convert_to_numpy(layer.moving_variance)
        axes = tuple(a for a in range(x.ndim) if a != layer.axis % x.ndim)
        shift = np.median(np.abs(x.mean(axes) - mean) / np.sqrt(variance + layer.epsilon))
        spread = np.median(np.sqrt((x.var(axes) + layer.epsilon) / (variance + layer.epsilon)))
        if shift > 3 or not 0.2 < spread < 5:
            found.append(
                f"layer {layer.name!r} meets calibration data whose mean is {shift:.3g} standard "
                f"deviations from that in training, and whose spread is {spread:.3g} times as wide"
            )
    return found


def _first_normalized(function, arrays):
    """The first batch normalization layer and its inputs, as pairs (layer, array)."""
    seen = []

    def call(layer, original, inputs, *args, **kwargs):
        seen.append((layer, keras.ops.convert_to_numpy(inputs)))
        return original(inputs, *args, **kwargs)

    for layer in lowering.all_layers(function.model):
        if type(layer) is keras.layers.BatchNormalization:
            with lowering.calling(layer, call):
                function({name: tf.constant(array) for name, array in arrays.items()})
            break
    return seen
