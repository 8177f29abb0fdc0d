"""Detections in streams against what happens in them: false accepts an hour, misses, delay."""

import dataclasses
import math
import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_distill.checks import not_negative, positive
from keras_distill.evaluation.candidates import of_each
from keras_distill.tflite.streaming.decision import Decision, Detection

#: Between how many thresholds a detection error tradeoff is drawn at most.
_THRESHOLDS = 200


class Event(NamedTuple):
    """Something in a recording that is to be detected.

    Attributes:
        start: When it starts, in seconds.
        end: When it ends.
        word: Index of its class.
    """

    start: float
    end: float
    word: int


class Point(NamedTuple):
    """What a threshold costs.

    Attributes:
        threshold: The threshold of all classes.
        false_accepts: False accepts an hour.
        misses: Share of the events that are missed, NaN where there are none.
    """

    threshold: float
    false_accepts: float
    misses: float


@dataclasses.dataclass(frozen=True)
class StreamScores:
    """How well a stream and its decision detect.

    Attributes:
        hours: How long the recordings are.
        events: How many events are in them.
        hits: How many of these were detected.
        false_accepts: Detections that belong to no event of their class, or to one that was
            detected before.
        delays: Seconds from the end of each event that was detected to its detection. Below 0
            where it was detected before it ended.
        confusion: What was detected, as `confusion[event's word][detected word]`: how often.
            `None` stands for no event, or for no detection.
    """

    hours: float
    events: int
    hits: int
    false_accepts: int
    delays: list[float]
    confusion: dict[int | None, dict[int | None, int]]

    @property
    def misses(self) -> int:
        """Events that were not detected."""
        return self.events - self.hits

    @property
    def false_accepts_per_hour(self) -> float:
        """False accepts an hour."""
        return self.false_accepts / self.hours

    @property
    def miss_rate(self) -> float:
        """Share of the events that were missed; NaN where there are none."""
        return self.misses / self.events if self.events else math.nan

    @property
    def mean_delay(self) -> float:
        """Mean of the delays in seconds; NaN where nothing was detected."""
        return float(np.mean(self.delays)) if self.delays else math.nan

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain types for JSON."""
        confusion = {
            str(word): {str(other): count for other, count in row.items()}
            for word, row in self.confusion.items()
        }
        return {
            **dataclasses.asdict(self),
            "confusion": confusion,
            "misses": self.misses,
            "false_accepts_per_hour": self.false_accepts_per_hour,
            "miss_rate": self.miss_rate,
            "mean_delay": self.mean_delay,
        }


def _read(recording: int, events: Any) -> list[Event]:
    """The events of a recording, in order."""
    try:
        found = [Event(*event) for event in events]
        words = [operator.index(event.word) for event in found]
    except TypeError:
        words = [-1]
    if min(words, default=0) < 0:
        raise ValueError(
            "`events` must have a list of tuples `(start, end, word)` for each recording, the word "
            f"the index of a class. Received for recording {recording}: {events!r}"
        )
    return sorted(found)


class StreamData:
    """Scores of recordings, and the events in them.

    Args:
        scores: What a stream gave for each recording, arrays of shape `(steps, classes)`.
        events: The `Event`s of each recording, or tuples `(start, end, word)`.
        step: Seconds from one step to the next.
        tolerance: How many seconds after its end an event may still be detected.

    Raises:
        ValueError: There are other numbers of recordings, or an event isn't inside its recording,
            or its word is no class of the scores.

    Example:

    >>> data = StreamData(artifact.predict(recordings), events, step=0.02)
    >>> decision = data.choose(Decision({1: 0.5}, smoothing=4, refractory=50), per_hour=0.5)
    >>> held_out.scores(decision).miss_rate
    """

    def __init__(
        self,
        scores: Sequence[np.ndarray] | np.ndarray,
        events: Sequence[Sequence[tuple[float, float, int]]],
        step: float,
        tolerance: float = 0.5,
    ):
        positive("step", step)
        not_negative("tolerance", tolerance)
        if len(scores) != len(events) or not len(scores):
            raise ValueError(
                "`scores` and `events` must hold the same recordings, at least one. "
                f"Received: {len(scores)} and {len(events)}"
            )
        self._scores = [np.asarray(rows) for rows in scores]
        self.step = step
        self.tolerance = tolerance
        self.events = [_read(i, each) for i, each in enumerate(events)]
        for i, (rows, each) in enumerate(zip(self._scores, self.events, strict=True)):
            for event in each:
                if not 0 <= event.start <= event.end <= len(rows) * step + 1e-9:
                    raise ValueError(
                        f"An event must start before it ends, inside its recording of "
                        f"{len(rows) * step:g} seconds. Received in recording {i}: {event}"
                    )
                if rows.ndim == 2 and event.word >= rows.shape[1]:
                    raise ValueError(
                        f"An event's word must be one of the {rows.shape[1]} classes of the "
                        f"scores, counted from 0. Received in recording {i}: {event}"
                    )

    @property
    def hours(self) -> float:
        """How long the recordings are together."""
        return sum(map(len, self._scores)) * self.step / 3600

    def scores(self, decision: Decision) -> StreamScores:
        """How well a decision detects the events.

        An event counts as detected by the first detection of its class from its start until
        `tolerance` seconds after its end. Every other detection is a false accept.

        Args:
            decision: When to act on scores.
        """
        return self._scored(decision, [decision.smoothed(rows) for rows in self._scores])

    def curve(self, decision: Decision) -> list[Point]:
        """The detection error tradeoff: false accepts and misses at each threshold.

        Args:
            decision: Its smoothing, refractory time and classes count; all classes have the
                threshold of the point.

        Returns:
            Points from the highest threshold, which accepts nothing, to the lowest.
        """
        means = [decision.smoothed(rows) for rows in self._scores]
        known = np.concatenate([rows.max(axis=1) for rows in means])
        values = np.unique(known[np.isfinite(known)])[::-1]
        # Near the top, where false accepts are few, each value counts.
        places = np.unique(np.geomspace(1, max(len(values), 1), _THRESHOLDS).astype(int)) - 1
        nothing = np.nextafter(values[:1], np.inf)
        points = []
        for threshold in [*nothing, *values[places[: len(values)]]]:
            found = self._scored(decision.at(float(threshold)), means)
            points.append(Point(float(threshold), found.false_accepts_per_hour, found.miss_rate))
        return points

    def choose(self, decision: Decision, per_hour: float) -> Decision:
        """A decision with the threshold that misses least at a wanted rate of false accepts.

        Choose it on validation recordings: on those of a test, the rate would look too good.

        Args:
            decision: Its smoothing, refractory time and classes are kept.
            per_hour: False accepts an hour that are allowed.

        Raises:
            ValueError: `per_hour` is negative, or there are no events to be missed.
        """
        not_negative("per_hour", per_hour)
        if not any(self.events):
            raise ValueError("A threshold can't be chosen on recordings without events.")
        allowed = [p for p in self.curve(decision) if p.false_accepts <= per_hour]
        # Of equal ones, the highest.
        return decision.at(min(allowed, key=lambda point: point.misses).threshold)

    def _scored(self, decision: Decision, means: Sequence[np.ndarray]) -> StreamScores:
        """`scores` from what `smoothed` gave for each recording."""
        delays: list[float] = []
        false_accepts = 0
        pairs: Counter = Counter()
        for rows, events in zip(means, self.events, strict=True):
            matched, wrong, others = self._matched(decision.among(rows), events)
            delays += matched
            false_accepts += wrong
            pairs.update(others)
        confusion: dict[int | None, dict[int | None, int]] = {}
        for (word, other), count in pairs.items():
            confusion.setdefault(word, {})[other] = count
        total = sum(map(len, self.events))
        return StreamScores(self.hours, total, len(delays), false_accepts, delays, confusion)

    def _matched(
        self, detections: Sequence[Detection], events: Sequence[Event]
    ) -> tuple[list[float], int, Counter]:
        """Delays of the events that were detected, false accepts, and pairs of words."""
        delays: list[float] = []
        pairs: Counter = Counter()
        open_events = list(events)
        wrong: list[tuple[float, int]] = []
        for detection in detections:
            time = (detection.step + 1) * self.step
            for event in open_events:
                if event.word == detection.word and self._covers(event, time):
                    open_events.remove(event)
                    delays.append(time - event.end)
                    pairs[event.word, event.word] += 1
                    break
            else:
                wrong.append((time, detection.word))
        missed = list(open_events)
        for time, word in wrong:
            taken = next((e for e in missed if e.word != word and self._covers(e, time)), None)
            if taken is not None:
                missed.remove(taken)
            pairs[None if taken is None else taken.word, word] += 1
        for event in missed:
            pairs[event.word, None] += 1
        return delays, len(wrong), pairs

    def _covers(self, event: Event, time: float) -> bool:
        """Whether what is detected at a time can be the event. Step times are sums of floats."""
        return event.start - 1e-9 <= time <= event.end + self.tolerance + 1e-9


class FrameScores(NamedTuple):
    """How well scores of frames tell two kinds apart, such as speech and silence.

    Attributes:
        auc: Area under the receiver operating characteristic: the probability that a frame of the
            one kind scores higher than a frame of the other. NaN where one kind is missing.
        agreement: Share of the frames on which both are on the same side of their thresholds.
        false_positives: Rates along the characteristic, from 0 to 1.
        true_positives: Likewise.
        thresholds: The score from which on a frame counts as positive, for each of these.
    """

    auc: float
    agreement: float
    false_positives: np.ndarray
    true_positives: np.ndarray
    thresholds: np.ndarray


def frames(
    scores: np.ndarray, reference: np.ndarray, threshold: float = 0.5, like: float = 0.5
) -> FrameScores:
    """Scores of frames against labels, or against the scores of a teacher.

    Source: Fawcett, "An introduction to ROC analysis" (2006).

    Args:
        scores: Score of each frame, of any shape.
        reference: Labels (0 or 1) or scores of the teacher, of the same shape.
        threshold: From which score on a frame counts as positive, for `agreement`.
        like: From which value on the reference counts as positive.

    Raises:
        ValueError: The shapes differ, there are no frames, or a score isn't finite.

    Example:

    >>> frames(artifact.predict(recordings)[..., 0], teacher_scores).auc
    """
    scores, reference = np.asarray(scores, "float64"), np.asarray(reference, "float64")
    if scores.shape != reference.shape or not scores.size:
        raise ValueError(
            "`scores` and `reference` must have one shape and at least one frame. "
            f"Received: {scores.shape} and {reference.shape}"
        )
    if not (np.isfinite(scores).all() and np.isfinite(reference).all()):
        raise ValueError("`scores` and `reference` must be finite. Received NaN or infinity.")
    positive = (reference >= like).ravel()
    order = np.argsort(-scores, axis=None, kind="stable")
    values, hits = scores.ravel()[order], np.cumsum(positive[order])
    last = np.append(values[1:] != values[:-1], True)
    true = np.append(0, hits[last])
    false = np.append(0, np.arange(1, len(values) + 1)[last]) - true
    with np.errstate(invalid="ignore"):
        true, false = true / true[-1], false / false[-1]
    return FrameScores(
        auc=float(np.trapezoid(true, false)),
        agreement=float(np.mean((scores >= threshold).ravel() == positive)),
        false_positives=false,
        true_positives=true,
        thresholds=np.append(np.inf, values[last]),
    )


def compare_streams(
    candidates: Mapping[str, Any],
    recordings: Any,
    events: Sequence[Sequence[tuple[float, float, int]]],
    decisions: Decision | Mapping[str, Decision],
    step: float,
    *,
    tolerance: float = 0.5,
) -> dict[str, StreamScores]:
    """Streams side by side on the same recordings. Use recordings that chose no threshold.

    Args:
        candidates: Dict from names to streams (artifacts of `convert(stream=...)`), other objects
            whose `predict` takes recordings, or their scores, arrays of shape
            `(recordings, steps, classes)`.
        recordings: Recordings as `predict` takes them.
        events: The `Event`s of each recording, or tuples `(start, end, word)`, times in seconds.
        decisions: The decision of all candidates, or a dict of one for each.
        step: Seconds from one step to the next.
        tolerance: How many seconds after its end an event may still be detected.

    Returns:
        The scores by name.

    Raises:
        TypeError: A decision is something else.
        ValueError: A candidate has no decision, or events and recordings don't fit together.

    Example:

    >>> compare_streams({"labels": one, "distilled": other}, recordings, events, decision, 0.02)
    """
    each = decision_of_each("decisions", decisions, candidates)
    found = {}
    for name, candidate in candidates.items():
        scores = candidate.predict(recordings) if hasattr(candidate, "predict") else candidate
        found[name] = StreamData(scores, events, step, tolerance).scores(each[name])
    return found


def decision_of_each(argument: str, given: Any, candidates: Iterable[str]) -> dict[str, Decision]:
    """The decision of each candidate, where one of all or a dict of one for each is given.

    Raises:
        TypeError: Something given is no `Decision`.
        ValueError: A candidate has none, or there is one for what is no candidate.
    """
    return of_each(
        argument, given, candidates, lambda d: isinstance(d, Decision),
        "a `keras_distill.tflite.Decision`",
    )  # fmt: skip
