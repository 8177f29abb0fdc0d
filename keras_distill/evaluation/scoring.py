"""Candidates run on the same samples, and scored against the same labels."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from keras_distill import samples
from keras_distill.evaluation import metrics, tasks
from keras_distill.evaluation.candidates import Candidate

#: The runs of each candidate by its name.
Runs: TypeAlias = Mapping[str, Sequence[Candidate]]


@dataclasses.dataclass(frozen=True)
class Scored:
    """The scores of all candidates.

    Attributes:
        task: `"classification"`, `"segmentation"` or `"regression"`.
        labels: Labels in the form in which they were compared, of shape `(samples, ...)`.
        scores: For each candidate, the `metrics.Scores` of its runs.
        notes: Sentences about the labels that a reader must know.
    """

    task: str
    labels: np.ndarray
    scores: dict[str, list[metrics.Scores]]
    notes: list[str]


def score(
    runs: Runs,
    x: Any,
    y: np.ndarray,
    *,
    task: str | None,
    teacher: str | None,
    from_logits: bool | None,
    missing_label: int | None,
    class_names: Sequence | None,
    batch_size: int,
) -> Scored:
    """Runs the candidates on `x` and scores their outputs. Arguments are those of `compare`."""
    outputs = _outputs(runs, x, batch_size)
    first = next(iter(outputs.values()))[0]
    task = task or tasks.task_of(y, first)
    labels = tasks.labels_of(task, y, first, missing_label)
    reference = None if teacher is None else outputs[teacher][0]
    notes: list[str] = []
    scorer: Callable[[np.ndarray], metrics.Scores]
    if task == "regression":

        def scorer(given):
            return metrics.regression(given, labels, reference)

    else:
        notes = _absent_classes(labels, first, class_names)
        if reference is not None:
            reference = tasks.log_probabilities(reference, from_logits)

        def scorer(given):
            log_p = tasks.log_probabilities(given, from_logits)
            return metrics.classification(log_p, labels, reference, dense=task == "segmentation")

    scores = {name: [scorer(given) for given in each] for name, each in outputs.items()}
    return Scored(task, labels, scores, notes)


def _outputs(runs: Runs, x: Any, batch_size: int) -> dict[str, list[np.ndarray]]:
    """The outputs of each candidate's runs, all of the same shape."""
    outputs: dict[str, list[np.ndarray]] = {}
    like = None
    for name, candidates in runs.items():
        outputs[name] = []
        for candidate in candidates:
            given = candidate.outputs(x, batch_size)
            checked = tasks.check(given, samples.count(x), name, like=like)
            outputs[name].append(checked)
            like = like or (name, checked)
    return outputs


def _absent_classes(
    labels: np.ndarray, outputs: np.ndarray, class_names: Sequence | None
) -> list[str]:
    """A note about classes without samples; checks the number of `class_names`."""
    classes = max(2, outputs.shape[-1])
    if class_names is not None and len(class_names) != classes:
        raise ValueError(
            f"`class_names` must name {classes} classes. Received: {len(class_names)} names"
        )
    absent = sorted(set(range(classes)) - set(np.unique(labels)))
    if not absent:
        return []
    names = [class_names[c] if class_names else c for c in absent]
    return [
        f"No test sample has the class {', '.join(map(str, names[:10]))}"
        f"{', …' if len(names) > 10 else ''}: means over classes leave it out."
    ]
