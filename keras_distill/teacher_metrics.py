"""The teacher's values of the metrics that its student is measured by."""

from typing import Any

import keras

from keras_distill import _keras
from keras_distill.adapters import fit
from keras_distill.objective import Objective
from keras_distill.pairs import Answer


class TeacherMetrics:
    """The compiled metrics once more, for what the teacher outputs in the batches of an epoch.

    They show a teacher that is bad on the views that the student learns from. Keras would report
    metrics that it finds in a model in `evaluate` too; it doesn't look into plain objects.

    Args:
        compiled: What `compile` made of the metrics, `_keras.compiled_metrics(model)`.
    """

    def __init__(self, compiled: Any = None):
        with self._scope():
            self._metrics = None if compiled is None else _keras.twin_metrics(compiled)

    @property
    def variables(self) -> list:
        """The variables in which they are counted, once they are built."""
        return self._metrics.variables if self._metrics is not None and self._metrics.built else []

    def build(self, y: Any, outputs: Any) -> None:
        """Creates the variables for labels and outputs of these shapes, if there are none yet."""
        if self._metrics is not None and not self._metrics.built:
            with self._scope():
                self._metrics.build(y, outputs)

    @staticmethod
    def _scope() -> Any:
        """Where paths of variables aren't those of the student's metrics, as Orbax needs them."""
        return keras.name_scope("teacher")

    def update(
        self, objective: Objective, y: Any, answer: Answer, teacher_answer: Answer, weight: Any
    ) -> dict[str, Any]:
        """Counts a batch and returns the values so far, by name.

        There are none without labels, and none where the teacher's outputs aren't of the
        student's shapes, or are those of the students themselves.

        Args:
            objective: The distiller's objective.
            y: Labels of the batch, or `None`.
            answer: The student's answer.
            teacher_answer: The teacher's, as `ask_teacher` returned it.
            weight: Weights of the samples, or `None`.
        """
        if self._metrics is None or y is None or teacher_answer.outputs is None:
            return {}
        theirs = objective.complete(teacher_answer, answer).outputs
        if not _are_alike(theirs, answer.outputs):
            return {}
        values = keras.tree.map_structure(lambda t, s: t.in_form_of(s), theirs, answer.outputs)
        y, weight = objective.known_labels(y, values, weight)
        self._metrics.update_state(y, values, sample_weight=weight)
        results = _keras.results_of(self._metrics)
        return {f"teacher_{name}": value for name, value in results.items()}

    def reset(self) -> None:
        """Begins a new epoch."""
        if self._metrics is not None and self._metrics.built:
            self._metrics.reset_state()


def _are_alike(outputs: Any, others: Any) -> bool:
    """Whether two structures of `Output`s have the same containers, and samples of one shape."""
    try:
        keras.tree.assert_same_structure(outputs, others)
    except (TypeError, ValueError):
        return False
    pairs = zip(keras.tree.flatten(outputs), keras.tree.flatten(others), strict=True)
    return all(fit(x.shape, y.shape) for x, y in pairs)
