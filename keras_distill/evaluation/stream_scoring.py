"""Candidates run on the same recordings, and scored against what happens in them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_distill import samples
from keras_distill.evaluation import tasks
from keras_distill.evaluation.candidates import Candidate
from keras_distill.evaluation.streams import StreamData, frames
from keras_distill.tflite.streaming.decision import Decision

#: How many thresholds the curves of a comparison have at most.
_POINTS = 200


class Scored(NamedTuple):
    """What was measured of a run.

    Attributes:
        values: Metrics by name.
        details: Curve and confusion, as plain types.
    """

    values: dict[str, float]
    details: dict[str, Any]


def recordings_of(data: Any) -> tuple[Any, Any]:
    """Recordings, and the events, or the labels of the steps, of each."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ValueError(
            'For task="stream", `data` must be a pair: recordings, and the events (or the labels '
            f"of the steps) of each. Received: data of type {type(data).__name__}"
        )
    recordings, truth = data
    count = samples.count(recordings)
    if len(truth) != count:
        raise ValueError(
            'For task="stream", `data` must have events or labels for each recording. '
            f"Received: {count} recordings and {len(truth)} of these"
        )
    return recordings, truth


def outputs_of(
    runs: Mapping[str, Sequence[Candidate]], recordings: Any, batch_size: int
) -> dict[str, list[np.ndarray]]:
    """What each run of each candidate gives for recordings, of shape `(recordings, steps, ...)`.

    Raises:
        ValueError: A candidate can't be run, or gives one output for a recording.
    """
    found: dict[str, list[np.ndarray]] = {}
    for name, candidates in runs.items():
        found[name] = []
        for candidate in candidates:
            try:
                given = candidate.outputs(recordings, batch_size)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name!r} can't be run on these recordings: {error}") from error
            given = tasks.check(given, samples.count(recordings), name)
            if given.ndim < 2:
                raise ValueError(
                    f"{name!r} gives shape {given.shape}, but an output for each step is needed."
                )
            found[name].append(given)
    return found


def detections(
    name: str,
    outputs: np.ndarray,
    events: Sequence[Sequence[tuple[float, float, int]]],
    decision: Decision,
    step: float,
) -> Scored:
    """Detections against events.

    Args:
        name: The candidate's.
        outputs: Scores of shape `(recordings, steps, classes)`.
        events: The `Event`s of each recording.
        decision: When to act on scores.
        step: Seconds from one step to the next.
    """
    if outputs.ndim != 3:
        raise ValueError(
            f"{name!r} gives shape {outputs.shape}, but events need scores of shape (recordings, "
            "steps, classes). Give a student with an output for each step, or convert it with "
            "`stream=`."
        )
    data = StreamData(outputs, events, step)
    found = data.scores(decision)
    values = {
        "miss_rate": found.miss_rate,
        "false_accepts_per_hour": found.false_accepts_per_hour,
        "mean_delay": found.mean_delay,
    }
    curve = [point._asdict() for point in data.curve(decision)]
    return Scored(values, {**found.to_dict(), "curve": curve})


def each_step(
    outputs: np.ndarray,
    labels: np.ndarray,
    from_logits: bool | None,
    teacher: np.ndarray | None,
) -> Scored:
    """Scores of steps against labels, and against the teacher's.

    Args:
        outputs: Scores of shape `(recordings, steps)`, or with a last axis of 1 or 2 classes.
        labels: 0 or 1, or probabilities, of shape `(recordings, steps)`.
        from_logits: Whether the scores are logits. `None`: unless they look like probabilities.
        teacher: The teacher's outputs, or `None`.
    """
    scores = _positive(outputs, labels.shape, from_logits)
    found = frames(scores, labels)
    values = {"auc": found.auc, "accuracy": found.agreement}
    if teacher is not None:
        values["agreement"] = frames(
            scores, _positive(teacher, labels.shape, from_logits)
        ).agreement
    places = np.unique(np.linspace(0, len(found.thresholds) - 1, _POINTS).astype(int))
    names = ("false_positives", "true_positives", "thresholds")
    return Scored(values, {name: getattr(found, name)[places].tolist() for name in names})


def _positive(outputs: np.ndarray, shape: tuple, from_logits: bool | None) -> np.ndarray:
    """Probability of the second class at each step."""
    each = outputs[..., None] if outputs.shape == shape else outputs
    if each.shape[:-1] != shape or each.shape[-1] > 2:
        raise ValueError(
            f"Labels of shape {shape} don't fit outputs of shape {outputs.shape}: one label is "
            "needed for each step, and one or two scores."
        )
    return np.exp(tasks.log_probabilities(each, from_logits))[..., 1]
