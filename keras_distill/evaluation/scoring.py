"""Candidates run on the same samples, and scored against the same labels."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from keras_distill import samples
from keras_distill.evaluation import metrics, tasks
from keras_distill.evaluation.candidates import Candidate
from keras_distill.evaluation.multilabel import multilabel
from keras_distill.evaluation.ranking import ranking

#: The runs of each candidate by its name.
Runs: TypeAlias = Mapping[str, Sequence[Candidate]]


@dataclasses.dataclass(frozen=True)
class Scored:
    """The scores of all candidates.

    Attributes:
        task: One of `tasks.TASKS`, `"detection"` or `"embedding"`.
        labels: Labels in the form in which they were compared, one entry for each sample.
        scores: For each candidate, the `metrics.Scores` of its runs.
        notes: Sentences about the labels that a reader must know.
        class_names: Names of the classes, where they aren't those that `compare` was given.
    """

    task: str
    labels: np.ndarray | list
    scores: dict[str, list[metrics.Scores]]
    notes: list[str]
    class_names: Sequence | None = None


def score(
    runs: Runs,
    x: Any,
    y: np.ndarray,
    *,
    task: str | None,
    teacher: str | None,
    from_logits: bool | None,
    missing_label: float | None,
    class_names: Sequence | None,
    batch_size: int,
) -> Scored:
    """Runs the candidates on `x` and scores their outputs. Arguments are those of `compare`."""
    outputs = _outputs(runs, x, batch_size)
    first = next(iter(outputs.values()))[0]
    task = task or tasks.task_of(y, first, missing_label)
    labels = tasks.labels_of(task, y, first, missing_label)
    form, compute = _scorer(task, from_logits)
    reference = None if teacher is None else form(outputs[teacher][0])
    has_classes = task not in ("regression", "ranking")
    notes = _absent_classes(task, labels, first, class_names) if has_classes else []
    scores = {
        name: [compute(form(given), labels, reference) for given in each]
        for name, each in outputs.items()
    }
    return Scored(task, labels, scores, notes)


def _scorer(task: str, from_logits: bool | None) -> tuple[Callable, Callable]:
    """What brings outputs into the form that is scored, and what scores them by the labels."""
    if task == "regression":
        return lambda outputs: outputs, metrics.regression
    if task == "ranking":
        return lambda outputs: outputs, ranking
    if task == "multilabel":
        return lambda outputs: tasks.label_probabilities(outputs, from_logits), multilabel
    score = functools.partial(metrics.classification, dense=task == "segmentation")
    return lambda outputs: tasks.log_probabilities(outputs, from_logits), score


def _outputs(runs: Runs, x: Any, batch_size: int) -> dict[str, list[np.ndarray]]:
    """The outputs of each candidate's runs, all of the same shape."""
    outputs: dict[str, list[np.ndarray]] = {}
    like = None
    for name, candidates in runs.items():
        outputs[name] = []
        for candidate in candidates:
            try:
                given = candidate.outputs(x, batch_size)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name!r} can't be run on these inputs: {error}") from error
            checked = tasks.check(given, samples.count(x), name, like=like)
            outputs[name].append(checked)
            like = like or (name, checked)
    return outputs


def _absent_classes(
    task: str, labels: np.ndarray, outputs: np.ndarray, class_names: Sequence | None
) -> list[str]:
    """A note about classes without samples; checks the number of `class_names`."""
    several = task == "multilabel"
    classes = outputs.shape[-1] if several else max(2, outputs.shape[-1])
    if class_names is not None and len(class_names) != classes:
        raise ValueError(
            f"`class_names` must name {classes} classes. Received: {len(class_names)} names"
        )
    present = np.flatnonzero((labels == 1).any(0)) if several else np.unique(labels)
    absent = sorted(set(range(classes)) - set(present))
    if not absent:
        return []
    names = [class_names[c] if class_names else c for c in absent]
    return [
        f"No test sample has the class {', '.join(map(str, names[:10]))}"
        f"{', …' if len(names) > 10 else ''}: means over classes leave it out."
    ]
