"""What computes the features of sounds, as kits need to know it."""

from typing import Any, Protocol

import numpy as np


class FrontEnd(Protocol):
    """Features of sounds that an app or firmware can compute.

    `keras_distill.data.MicroFeatures`, with a `SCALE`, is configured in TFLite Micro's own front
    end; `keras_distill.data.LogMel`, with the tables of its `WINDOW`, is written out.
    """

    RATE: int
    BANDS: int
    STEP: int

    def __call__(self, audio: np.ndarray) -> np.ndarray:
        """Features of shape `(frames, bands)` of int16 samples."""


def is_log_mel(front_end: FrontEnd) -> bool:
    """Whether it is written out."""
    return hasattr(front_end, "mel")


def mel_bands(front_end: Any) -> tuple[list[tuple[int, int]], list[float]]:
    """First frequency and number of frequencies of each mel band, and their weights in a row."""
    ranges, weights = [], []
    for band in np.asarray(front_end.mel).T:
        (used,) = np.nonzero(band)
        first, count = (int(used[0]), int(used[-1] - used[0] + 1)) if len(used) else (0, 0)
        ranges.append((first, count))
        weights += list(band[first : first + count])
    return ranges, weights or [0.0]


def check_features(front_end: FrontEnd, shape: Any) -> None:
    """Refuses frames of another size than what the front end gives.

    Args:
        front_end: The front end.
        shape: Shape of the frames that a stream takes, `(batch, time, ...)`.

    Raises:
        ValueError: They differ.
    """
    if np.prod(shape[2:]) != front_end.BANDS:
        raise ValueError(
            f"The front end gives {front_end.BANDS} features a frame. "
            f"The stream takes frames of shape {tuple(shape[2:])}"
        )
