"""`compare`: teacher, baseline, students and exported files on the same held-out data."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_distill import backends, samples
from keras_distill.checks import whole_number
from keras_distill.evaluation import (
    candidate_rows,
    detection_scoring,
    disagreements,
    embeddings,
    gains,
    scoring,
    stream_scoring,
    streams,
    tasks,
)
from keras_distill.evaluation.comparison import Comparison
from keras_distill.labels import checked_missing
from keras_distill.tflite.streaming.decision import Decision

#: How many test sets the bootstrap draws unless `compare` is told otherwise.
_RESAMPLES = 1000


def compare(
    candidates: Mapping[str, Any],
    data: Any,
    *,
    teacher: str = "teacher",
    baseline: str = "student on labels",
    task: str | None = None,
    from_logits: bool | None = None,
    missing_label: float | None = None,
    class_names: Sequence | None = None,
    resamples: int = _RESAMPLES,
    latency_runs: int = 0,
    batch_size: int = 256,
    decision: Decision | Mapping[str, Decision] | None = None,
    step: float | None = None,
    decode: Callable | Mapping[str, Callable] | None = None,
    labeled: Any = None,
) -> Comparison:
    """Runs candidates on the same held-out data and puts them side by side.

    Files run in their target's own runtime. Give data that neither training nor tuning has seen.

    Args:
        candidates: Dict from names to Keras models, `Distiller`s (their student counts), teachers
            of `keras_distill.teachers`, artifacts of `keras_distill.tflite`, or paths of `.keras`,
            `.h5` and `.tflite` files. A list holds several runs of one candidate, trained from
            different seeds: its metrics are means over the runs, with an interval over them.
        data: Held-out inputs and labels: `(x, y)`, a `tf.data.Dataset`, a `keras.utils.PyDataset`
            or another iterable of batches. Labels are class indices or one-hot rows, rows of 0
            and 1 (several labels at once), class indices for each position (segmentation), or
            values (regression). For `task="ranking"`, outputs are scores of shape
            `(queries, candidates)`, and labels the number of the relevant candidate of each query
            or a relevance for each candidate. For `task="detection"`, images and the boxes on them,
            as `keras_distill.detection.dataset(...).batch(...)` gives them. For `task="stream"`,
            recordings and the `Event`s of each, or recordings and a label for each step (voice
            activity), of shape `(recordings, steps)`. For `task="embedding"`, outputs are vectors,
            of any size, and labels classes, whose numbers may have gaps.
        teacher: Name of the candidate to which the others are compared. If there is none of
            this name, agreement and divergence are left out.
        baseline: Name of the candidate trained on the labels alone, from which the recovered gap
            is measured: (candidate - baseline) / (teacher - baseline), of the accuracy, the
            mean average precision, the mean IoU, nDCG or R². Left out where there is none of this
            name.
        task: `"classification"`, `"multilabel"` (several labels at once), `"segmentation"`,
            `"regression"`, `"ranking"`, `"detection"`, `"stream"` or `"embedding"`. Defaults to
            `None`: inferred from labels and outputs, but for the last four.
        from_logits: Whether the outputs of classifiers are logits. Defaults to `None`: they are
            unless they look like probabilities, decided for each candidate.
        missing_label: Label that stands for "not known", for example `-1` or `255`. Such samples,
            positions or, of several, labels are left out. Not for detection, where the boxes that
            `data` names `"ignored"` are neither found nor missed.
        class_names: Names of the classes.
        resamples: Number of test sets drawn for the bootstrap intervals; 0 leaves them out. mAP has
            none.
        latency_runs: How often each candidate is timed; 0 leaves latency out. Candidates take
            turns on this host, with one sample and one thread, in a separate process.
        batch_size: Samples that a Keras model predicts at a time.
        decision: For `task="stream"`, when to act on scores: one for all candidates, or a dict of
            one for each, its threshold chosen on other recordings. `None`: each step has a label.
        step: For `task="stream"` with events, seconds from one step to the next.
        decode: For `task="detection"`, function from a candidate's outputs to
            `keras_distill.detection.Detections`, such as `Head.detections`: one for all candidates,
            or a dict of one for each. `None`: they are detections.
        labeled: For `task="embedding"`, labeled samples that aren't in `data`, in its form. On
            their vectors a linear probe is trained, of which accuracy and all decisions are, and
            among them are the nearest neighbors that vote.

    Returns:
        A `Comparison`.

    Raises:
        TypeError: If a candidate is something else.
        ValueError: If labels, outputs and task don't fit together.

    Example:

    >>> result = keras_distill.evaluation.compare(
    ...     {"teacher": teacher, "student on labels": baseline, "distilled": student,
    ...      "int8": artifact},
    ...     (x_test, y_test),
    ... )
    >>> print(result)
    """
    _check_candidates(candidates, teacher=teacher, baseline=baseline)
    _check_task(task, decision=decision, step=step, decode=decode, labeled=labeled)
    whole_number("resamples", resamples, 0)
    whole_number("latency_runs", latency_runs, 0)
    if latency_runs:
        backends.require("`latency_runs`", "tensorflow")
    whole_number("batch_size", batch_size, 1)
    checked_missing(missing_label)
    if task == "stream":
        _check_unused(
            task,
            missing_label=missing_label,
            class_names=class_names,
            latency_runs=latency_runs or None,
            resamples=_drawn(resamples),
        )
        return _of_streams(candidates, data, teacher, from_logits, batch_size, decision, step)
    runs = {name: candidate_rows.runs_of(model, name) for name, model in candidates.items()}
    names = _Names(
        teacher if teacher in runs else None, baseline if baseline in runs else None, class_names
    )
    if task == "detection":
        _check_unused(
            task,
            missing_label=missing_label,
            from_logits=from_logits,
            resamples=_drawn(resamples),
        )
        x, scored = detection_scoring.score(
            runs,
            data,
            teacher=names.teacher,
            class_names=class_names,
            decode=decode,
            batch_size=batch_size,
        )
        return _of_samples(runs, x, scored, names, 0, latency_runs)
    x, y = samples.labeled(data)
    tasks.check_labels(y)
    if task == "embedding":
        _check_unused(task, missing_label=missing_label, from_logits=from_logits)
        scored = embeddings.score(
            runs,
            x,
            y,
            labeled,
            teacher=names.teacher,
            class_names=class_names,
            batch_size=batch_size,
        )
        names = names._replace(classes=scored.class_names)
        return _of_samples(runs, x, scored, names, resamples, latency_runs)
    scored = scoring.score(
        runs,
        x,
        y,
        task=task,
        teacher=names.teacher,
        from_logits=from_logits,
        missing_label=missing_label,
        class_names=class_names,
        batch_size=batch_size,
    )
    return _of_samples(runs, x, scored, names, resamples, latency_runs)


class _Names(NamedTuple):
    """Whom `compare` compares with, `None` where there is no such candidate, and the classes."""

    teacher: str | None
    baseline: str | None
    classes: Sequence | None


def _of_samples(
    runs: scoring.Runs,
    x: Any,
    scored: scoring.Scored,
    names: _Names,
    resamples: int,
    latency_runs: int,
) -> Comparison:
    """The candidates' scores on samples as a `Comparison`, with costs, intervals and notes."""
    teacher, baseline = names.teacher, names.baseline
    count = samples.count(x)
    rows, notes = candidate_rows.rows_of(runs, scored.scores, x)
    draws, few = candidate_rows.draws_of(scored.scores, resamples)
    notes = [*scored.notes, *notes, *few]
    if teacher and baseline:
        metric = tasks.MAIN_METRICS[scored.task]
        notes += gains.add_recovered_gap(rows, draws, metric, teacher, baseline)
        students = candidate_rows.students(runs, teacher, baseline)
        notes += gains.notes_on_students(rows, draws, metric, baseline, students)
    candidate_rows.add_intervals(rows, scored.scores, draws)
    if latency_runs:
        candidate_rows.add_latency(rows, runs, x, latency_runs, teacher)
    return Comparison(
        rows=rows,
        notes=notes + candidate_rows.legend(runs, latency_runs, count if draws else None),
        task=scored.task,
        samples=count,
        teacher=teacher,
        class_names=None if names.classes is None else list(map(str, names.classes)),
        scores={name: each[0] for name, each in scored.scores.items()},
        disagreements=disagreements.largest(scored.scores, teacher, x, scored.labels),
    )


def _of_streams(
    candidates: Mapping[str, Any],
    data: Any,
    teacher: str,
    from_logits: bool | None,
    batch_size: int,
    decision: Decision | Mapping[str, Decision] | None,
    step: float | None,
) -> Comparison:
    """`compare` of streams. Arguments are those of `compare`."""
    recordings, truth = stream_scoring.recordings_of(data)
    if (decision is None) != (step is None):
        raise ValueError(
            "Events need both `decision` and `step`, labels of steps neither. "
            f"Received: decision={decision!r}, step={step!r}"
        )
    decisions = decision and streams.decision_of_each("decision", decision, candidates)
    runs = {name: candidate_rows.runs_of(model, name) for name, model in candidates.items()}
    outputs = stream_scoring.outputs_of(runs, recordings, batch_size)
    reference = outputs[teacher][0] if teacher in outputs else None

    def scored(name: str, given: np.ndarray) -> stream_scoring.Scored:
        if decisions is None or step is None:
            return stream_scoring.each_step(given, np.asarray(truth), from_logits, reference)
        return stream_scoring.detections(name, given, truth, decisions[name], step)

    found = {name: [scored(name, each) for each in given] for name, given in outputs.items()}
    rows, notes = candidate_rows.rows_of(runs, found, recordings)
    candidate_rows.add_intervals(rows, found, {})
    for row in rows:
        if runs[row["name"]][0].runtime == "keras":
            row["multiply_accumulates"] = None  # It would be that of a whole recording.
        silent = int(np.isnan(row.get("run_values", {}).get("mean_delay", [])).sum())
        if silent:
            notes.append(f"{row['name']}: {silent} of {row['runs']} runs detected nothing.")
    return Comparison(
        rows=rows,
        notes=[
            *notes,
            *candidate_rows.legend(runs, 0, None),
            "Multiply-accumulates are those of a step.",
        ],
        task="frames" if decision is None else "stream",
        samples=samples.count(recordings),
        teacher=None if reference is None else teacher,
        class_names=None,
        scores={},
        disagreements={},
        streams={name: each[0].details for name, each in found.items()},
    )


#: Why some tasks have no use for some arguments of `compare`.
_UNUSED = {
    "stream": "Streams are counted event by event or step by step.",
    "detection": 'Boxes that don\'t count are `"ignored"` in `data`, `decode` knows what outputs '
    "are, and mAP has no bootstrap interval.",
    "embedding": "Outputs are vectors; leave samples without a label out of `data`.",
}


def _check_unused(task: str, **given: Any) -> None:
    """Raises a `ValueError` where arguments are given that a task has no use for."""
    used = {name: value for name, value in given.items() if value is not None}
    if used:
        names = ", ".join(f"`{name}`" for name in given)
        raise ValueError(
            f'{names} are not for task="{task}". {_UNUSED[task]} Received: '
            + ", ".join(f"{name}={value!r}" for name, value in used.items())
        )


def _drawn(resamples: int) -> int | None:
    """How many test sets were asked for, `None` where nobody did."""
    return None if resamples in (0, _RESAMPLES) else resamples


def _check_candidates(candidates: Any, **names: Any) -> None:
    backends.require("`evaluation.compare`", "tensorflow", "jax", "torch")
    if not isinstance(candidates, dict) or not candidates:
        raise TypeError(
            "`candidates` must be a dict from names to models and files. "
            f"Received: candidates={candidates!r}"
        )
    for argument, name in names.items():
        if name is not None and not isinstance(name, str):
            raise TypeError(
                f"`{argument}` must be the name of a candidate: put the model into `candidates` "
                f"under this name. Received: {argument}={name!r}"
            )


def _check_task(task: Any, decision: Any, step: Any, decode: Any, labeled: Any) -> None:
    known = (*tasks.TASKS, "detection", "stream", "embedding")
    if task not in (None, *known):
        raise ValueError(f"`task` must be one of {known} or None. Received: task={task!r}")
    if task != "stream" and (decision is not None or step is not None):
        raise ValueError(
            '`decision` and `step` are for `task="stream"`. '
            f"Received: task={task!r}, decision={decision!r}, step={step!r}"
        )
    if task != "detection" and decode is not None:
        raise ValueError(f'`decode` is for `task="detection"`. Received: task={task!r}')
    if (task == "embedding") != (labeled is not None):
        raise ValueError(
            '`task="embedding"` needs `labeled`, samples with labels for a probe, and no other '
            f"task does. Received: task={task!r}, labeled={labeled!r:.60}"
        )
