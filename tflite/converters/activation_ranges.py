"""The ranges of activations, from calibration data.

ai-edge-quantizer has a calibrator of its own. It has no percentiles and no least error, and keeps
the state of recurrent operators from one sample to the next, which makes their ranges too wide.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from keras_distill.tflite import runtimes

_BINS = 2048

Range = tuple[float, float]


def activation_ranges(
    tflite: bytes, inputs: Sequence[np.ndarray], method: str, percentile: float = 99.9
) -> dict[str, Range]:
    """Ranges of the float tensors of a float32 file over samples.

    Args:
        tflite: The float32 file, of static batch size.
        inputs: Arrays in the order of the file's inputs.
        method: `"minmax"`: the smallest and the largest value; `"percentile"`: without the
            outermost values; `"mse"`: the range of least mean squared error in 256 steps.
        percentile: Share of the values inside, in percent.

    Returns:
        `(low, high)` by tensor name, `low <= 0 <= high`.
    """
    limits: dict[str, Range] = {}
    for name, values in activations(tflite, inputs):
        low, high = limits.get(name, (0.0, 0.0))
        limits[name] = (min(low, float(values.min())), max(high, float(values.max())))
    if method == "minmax":
        return limits
    histograms = {name: np.zeros(_BINS) for name in limits}
    for name, values in activations(tflite, inputs):
        if method == "mse":
            values = values[values != 0]  # 0 is exact in every range
        histograms[name] += np.histogram(values, bins=_BINS, range=_wide(limits[name]))[0]
    cut = _percentile if method == "percentile" else _least_error
    return {
        name: cut(histogram, *_wide(limits[name]), percentile)
        for name, histogram in histograms.items()
    }


def _wide(limits: Range) -> Range:
    """A range that is no single point."""
    low, high = limits
    return (low, high) if high > low else (low, low + 1e-6)


def activations(tflite: bytes, inputs: Sequence) -> Iterator[tuple[str, np.ndarray]]:
    """The float activations of a file for each sample, as pairs (name, array)."""
    file = runtimes.LiteRT(tflite, "litert-builtin", threads=None, keep_tensors=True)
    watched = {i: port.name for i, port in file.computed().items() if port.dtype == "float32"}
    batch = file.inputs[0].shape[0] or 1
    for start in range(0, len(inputs[0]) // batch * batch, batch):
        file.reset()
        file.run([array[start : start + batch] for array in inputs])
        for index, name in watched.items():
            values = file.tensor(index)
            if values.size:
                yield name, values


def _percentile(histogram: np.ndarray, low: float, high: float, percentile: float) -> Range:
    """The range without the outermost values, the same share at both ends."""
    edges = np.linspace(low, high, _BINS + 1)
    shares = np.cumsum(histogram) / histogram.sum()
    outside = (1 - percentile / 100) / 2
    first = edges[np.searchsorted(shares, outside)]
    last = edges[min(np.searchsorted(shares, 1 - outside) + 1, _BINS)]
    return min(float(first), 0.0), max(float(last), 0.0)


def _least_error(histogram: np.ndarray, low: float, high: float, _: float | None) -> Range:
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
