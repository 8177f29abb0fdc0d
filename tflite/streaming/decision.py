"""From the scores of a stream to what an app acts on."""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from keras_distill.checks import whole_number


class Detection(NamedTuple):
    """What a decision found.

    Attributes:
        step: The step that it was found at, from 0.
        word: Index of the class.
        score: Its mean score.
    """

    step: int
    word: int
    score: float


@dataclasses.dataclass(frozen=True)
class Decision:
    """When an app acts on the scores that a stream gives step by step.

    The scores of the last `smoothing` steps are averaged. Of the classes whose mean reaches their
    threshold, the one with the largest mean is detected (of equal ones, the first). For
    `refractory` steps after a detection, there is no other.

    Kits hold the same decision in C++ and Kotlin, which find the same at the same steps, bit for
    bit: all three add up the scores from the oldest to the newest in 64-bit floats.

    Args:
        thresholds: The least mean score of each class that can be detected, by the class's index.
            Classes left out, such as background, never are. They are in the unit of the scores,
            probabilities or logits.
        smoothing: Over how many steps scores are averaged.
        refractory: How many steps after a detection there is no other.
        warm_up: How many steps after a start say nothing yet: the stream's
            `report["stream"]["outputs"]` has it in frames.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    >>> decision = keras_distill.tflite.Decision({1: 0.8, 2: 0.7}, smoothing=4, refractory=25)
    >>> decision.detections(artifact.predict(recording[None])[0])
    """

    thresholds: Mapping[int, float]
    smoothing: int = 1
    refractory: int = 0
    warm_up: int = 0

    def __post_init__(self):
        given = {int(word): float(least) for word, least in dict(self.thresholds).items()}
        if not given or min(given) < 0 or not all(map(math.isfinite, given.values())):
            raise ValueError(
                "`thresholds` must have a finite threshold for each class to detect, by the "
                f"class's index. Received: thresholds={self.thresholds!r}"
            )
        object.__setattr__(self, "thresholds", dict(sorted(given.items())))
        for name, least in (("smoothing", 1), ("refractory", 0), ("warm_up", 0)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))

    def constants(self) -> dict[str, str | int]:
        """Its numbers, exactly, as the kits' templates name them."""
        return {
            "SMOOTHING": self.smoothing,
            "REFRACTORY": self.refractory,
            "WARM_UP": self.warm_up,
            "WORD_COUNT": len(self.thresholds),
            "WORDS": ", ".join(map(str, self.thresholds)),
            "THRESHOLDS": ", ".join(map(repr, self.thresholds.values())),
        }

    def at(self, threshold: float) -> "Decision":
        """The same decision with one threshold for all its classes."""
        return dataclasses.replace(self, thresholds=dict.fromkeys(self.thresholds, threshold))

    def smoothed(self, scores: np.ndarray) -> np.ndarray:
        """The mean scores of the classes that can be detected.

        Args:
            scores: Scores of a recording, of shape `(steps, classes)`.

        Returns:
            Array of shape `(steps, words)`, float64; NaN where there is none yet.

        Raises:
            ValueError: The scores have another shape, or lack a class.
        """
        scores = np.asarray(scores)
        if scores.ndim != 2 or scores.shape[1] <= max(self.thresholds):
            raise ValueError(
                f"`scores` must be of shape (steps, classes) with class {max(self.thresholds)}. "
                f"Received: shape {scores.shape}"
            )
        words = scores[self.warm_up :, list(self.thresholds)].astype("float64")
        count = max(len(words) - self.smoothing + 1, 0)
        total = np.zeros((count, words.shape[1]))
        for first in range(self.smoothing):
            total += words[first : first + count]
        result = np.full((len(scores), words.shape[1]), np.nan)
        result[len(scores) - count :] = total / self.smoothing
        return result

    def detections(self, scores: np.ndarray) -> list[Detection]:
        """What is detected in a recording.

        Args:
            scores: Scores of the recording, of shape `(steps, classes)`.

        Raises:
            ValueError: The scores have another shape, or lack a class.
        """
        return self.among(self.smoothed(scores))

    def among(self, means: np.ndarray) -> list[Detection]:
        """What is detected where `smoothed` gave `means`."""
        words = list(self.thresholds)
        reached = means >= np.asarray(list(self.thresholds.values()))
        found: list[Detection] = []
        for step in np.flatnonzero(reached.any(axis=1)):
            if found and step <= found[-1].step + self.refractory:
                continue
            best = int(np.argmax(np.where(reached[step], means[step], -np.inf)))
            found.append(Detection(int(step), words[best], float(means[step, best])))
        return found
