"""C++ of what computes frames from a sound."""

from typing import Protocol

import numpy as np
from keras_distill.tflite.micro import sources


class FrontEnd(Protocol):
    """Features of sounds that firmware can compute.

    `keras_distill.data.MicroFeatures`, with a `SCALE`, is configured in TFLite Micro's own front
    end; `keras_distill.data.LogMel`, with the tables of its `WINDOW`, is written out.
    """

    RATE: int
    BANDS: int
    STEP: int

    def __call__(self, audio: np.ndarray) -> np.ndarray:
        """Features of shape `(frames, bands)` of int16 samples."""


def header(front_end: FrontEnd, name: str) -> str:
    """The class `FrontEnd` in the namespace `name`."""
    values = {"NAME": name, "GUARD": name.upper()}
    values |= {constant: getattr(front_end, constant) for constant in ("RATE", "BANDS", "STEP")}
    if not is_log_mel(front_end):
        values["SCALE"] = front_end.SCALE  # type: ignore[attr-defined]
        return sources.filled("front_end.h", values)
    return sources.filled("log_mel.h", {**values, **_tables(front_end)})


def is_log_mel(front_end: FrontEnd) -> bool:
    """Whether it needs nothing but its header."""
    return hasattr(front_end, "mel")


def _tables(front_end):
    half = front_end.POINTS // 2
    angles = 2 * np.pi * np.arange(half) / front_end.POINTS
    ranges, weights = [], []
    for band in np.asarray(front_end.mel).T:
        (used,) = np.nonzero(band)
        first, count = (used[0], used[-1] - used[0] + 1) if len(used) else (0, 0)
        ranges.append(f"{{{first}, {count}}}")
        weights += list(band[first : first + count])
    numbers = {
        "HANN": front_end.hann,
        "COSINES": np.cos(angles),
        "SINES": np.sin(angles),
        "WEIGHTS": weights or [0.0],
    }
    kept = -(-front_end.WINDOW // front_end.STEP) * front_end.STEP
    return {
        "WINDOW": front_end.WINDOW,
        "POINTS": front_end.POINTS,
        "RAM": 2 * kept + 4 * (3 * half + 2),
        "FLASH": 4 * sum(map(len, numbers.values())) + 4 * len(ranges),
        "RANGES": sources.rows(ranges, 6),
        **{key: sources.rows(list(map(sources.number, n)), 6) for key, n in numbers.items()},
    }
