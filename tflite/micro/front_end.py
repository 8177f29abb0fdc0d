"""C++ of what computes frames from a sound."""

import numpy as np
from keras_distill.tflite.front_ends import FrontEnd, is_log_mel, mel_bands
from keras_distill.tflite.micro import sources


def header(front_end: FrontEnd, name: str) -> str:
    """The class `FrontEnd` in the namespace `name`."""
    values = {"NAME": name, "GUARD": name.upper()}
    values |= {constant: getattr(front_end, constant) for constant in ("RATE", "BANDS", "STEP")}
    if not is_log_mel(front_end):
        values["SCALE"] = front_end.SCALE  # type: ignore[attr-defined]
        return sources.filled("front_end.h", values)
    return sources.filled("log_mel.h", {**values, **_tables(front_end)})


def _tables(front_end):
    half = front_end.POINTS // 2
    angles = 2 * np.pi * np.arange(half) / front_end.POINTS
    bands, weights = mel_bands(front_end)
    ranges = [f"{{{first}, {count}}}" for first, count in bands]
    numbers = {
        "HANN": front_end.hann,
        "COSINES": np.cos(angles),
        "SINES": np.sin(angles),
        "WEIGHTS": weights,
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
