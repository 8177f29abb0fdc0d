"""The samples on which candidates and teacher disagree most."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from keras_distill import samples
from keras_distill.evaluation.metrics import Scores

#: How many samples are kept of each candidate.
KEPT = 12


class Disagreement(TypedDict):
    """A sample on which a candidate disagrees with the teacher.

    Attributes:
        sample: Number of the sample.
        input: The sample's input.
        label: Its label.
        teacher: The teacher's output: `(class, probability)`, a map of classes, values, or a dict
            of boxes.
        candidate: The candidate's, likewise.
        distance: How far the two are apart: the Kullback-Leibler divergence in nats, or the
            absolute difference.
    """

    sample: int
    input: Any
    label: Any
    teacher: Any
    candidate: Any
    distance: float


def largest(
    scores: Mapping[str, Sequence[Scores]],
    teacher: str | None,
    x: Any,
    labels: Sequence | np.ndarray,
) -> dict[str, list[Disagreement]]:
    """For each candidate, the samples on which its first run is farthest from the teacher."""
    if teacher is None:
        return {}
    reference = scores[teacher][0]
    return {
        name: _of_candidate(runs[0], reference, x, labels)
        for name, runs in scores.items()
        if name != teacher
    }


def _of_candidate(own: Any, reference: Scores, x: Any, labels: Any) -> list[Disagreement]:
    worst = np.argsort(-own.disagreement, kind="stable")[:KEPT]
    return [
        {
            "sample": int(i),
            "input": samples.take(x, int(i)),
            "label": labels[i],
            "teacher": _output(reference, i),
            "candidate": _output(own, i),
            "distance": float(own.disagreement[i]),
        }
        for i in worst
        if own.disagreement[i] > 0
    ]


def _output(scores: Scores, i: int) -> Any:
    """The output for sample `i`: class and probability, a map of classes, or values."""
    if scores.confidence is not None and scores.confidence.ndim == 1:
        return int(scores.predicted[i]), float(scores.confidence[i])
    return scores.predicted[i]
