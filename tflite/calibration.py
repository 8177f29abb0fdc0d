"""The ranges of activations, from calibration data."""

import warnings

import keras
import numpy as np
import tensorflow as tf
from keras_distill.tflite import forms

RANGES = ("minmax", "percentile", "mse")
_BINS = 2048


def activation_ranges(tflite, inputs, method, percentile=99.9) -> dict:
    """Ranges of the float tensors of a float32 file over samples.

    Args:
        tflite: The float32 file, of static batch size.
        inputs: Arrays in the order of the file's inputs.
        method: `"minmax"`: the smallest and the largest value; `"percentile"`: without the
            outermost values; `"mse"`: what gives the least mean squared error in 256 steps.
        percentile: Share of the values inside, in percent.

    Returns:
        `(low, high)` by tensor name, `low <= 0 <= high`.
    """
    limits = {}
    for name, values in _activations(tflite, inputs):
        low, high = limits.get(name, (0.0, 0.0))
        limits[name] = (min(low, float(values.min())), max(high, float(values.max())))
    if method == "minmax":
        return limits
    histograms = {name: np.zeros(_BINS) for name in limits}
    for name, values in _activations(tflite, inputs):
        if method == "mse":
            values = values[values != 0]  # 0 is exact in every range
        histograms[name] += np.histogram(values, bins=_BINS, range=_wide(limits[name]))[0]
    cut = _percentile if method == "percentile" else _least_error
    return {
        name: cut(histogram, *_wide(limits[name]), percentile)
        for name, histogram in histograms.items()
    }


def _wide(limits):
    """A range that is no single point."""
    low, high = limits
    return (low, high) if high > low else (low, low + 1e-6)


def _activations(tflite, inputs):
    """The float activations of a file for each sample, as pairs (name, array)."""
    from ai_edge_litert import interpreter

    runner = interpreter.Interpreter(
        model_content=tflite,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    runner.allocate_tensors()
    ports = runner.get_input_details()
    produced = {i for op in runner._get_ops_details() for i in op["outputs"]}
    produced |= {port["index"] for port in ports}
    watched = [
        d
        for d in runner.get_tensor_details()
        if d["dtype"] == np.float32 and d["index"] in produced
    ]
    batch = ports[0]["shape"][0]
    for start in range(0, len(inputs[0]) // batch * batch, batch):
        runner.reset_all_variables()
        for port, array in zip(ports, inputs, strict=True):
            runner.set_tensor(port["index"], array[start : start + batch])
        runner.invoke()
        for details in watched:
            values = runner.get_tensor(details["index"])
            if values.size:
                yield details["name"], values


def _percentile(histogram, low, high, percentile):
    """The range without the outermost values, the same share at both ends."""
    edges = np.linspace(low, high, _BINS + 1)
    shares = np.cumsum(histogram) / histogram.sum()
    outside = (1 - percentile / 100) / 2
    first = edges[np.searchsorted(shares, outside)]
    last = edges[min(np.searchsorted(shares, 1 - outside) + 1, _BINS)]
    return min(float(first), 0.0), max(float(last), 0.0)


def _least_error(histogram, low, high, _):
    """The range of least mean squared error in 256 steps.

    Values inside have the error of rounding, step² / 12, and those outside the error of clipping.
    """
    edges = np.linspace(low, high, _BINS + 1)
    centers = (edges[:-1] + edges[1:]) / 2
    lows, highs = (np.unique(np.linspace(end, 0.0, 129)) for end in (low, high))
    under = np.maximum(lows[:, None] - centers, 0)
    over = np.maximum(centers - highs[:, None], 0)
    clipping = (under**2 @ histogram)[:, None] + over**2 @ histogram
    inside = histogram.sum() - ((under > 0) @ histogram)[:, None] - (over > 0) @ histogram
    steps = (highs - lows[:, None]) / 255
    errors = np.where(steps > 0, clipping + inside * steps**2 / 12, np.inf)
    i, j = np.unravel_index(np.argmin(errors), errors.shape)
    return float(lows[i]), float(highs[j])


def unlike_training(wrapped, arrays, training_range=None) -> list[str]:
    """Signs that calibration data aren't like what the student was trained on.

    What batch normalization layers saw in training is compared with what they see now; so are the
    inputs with `training_range`.

    Args:
        wrapped: The student, a `graph.Wrapped`.
        arrays: Arrays by input name.
        training_range: `(low, high)` of the inputs in training, or `None`.

    Returns:
        A warning for each sign.
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
    for layer, x in _first_normalized(wrapped, {n: a[:100] for n, a in arrays.items()}):
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
    for message in found:
        warnings.warn(
            f"{message}. Calibrate with inputs like those the file will meet, preprocessed alike.",
            stacklevel=4,
        )
    return found


def _first_normalized(wrapped, arrays):
    """The first batch normalization layer and what it takes in, as pairs (layer, array)."""
    seen = []

    def call(layer, original, inputs, *args, **kwargs):
        seen.append((layer, keras.ops.convert_to_numpy(inputs)))
        return original(inputs, *args, **kwargs)

    for layer in forms.all_layers(wrapped.student):
        if type(layer) is keras.layers.BatchNormalization:
            with forms.calling(layer, call):
                wrapped({name: tf.constant(array) for name, array in arrays.items()})
            break
    return seen
