"""What the distillers of Keras and of `tf_keras` have in common: the `Objective` that they own."""

from collections.abc import Callable
from typing import Any

import keras

from keras_distill import advice, labels
from keras_distill.epoch_means import EpochMeans
from keras_distill.objective import Objective
from keras_distill.pairs import Answer
from keras_distill.teacher_metrics import TeacherMetrics

#: Name of the share of batches with labels that count, which isn't reported.
_LABELED = "labeled"


def _of_objective(name: str, doc: str) -> property:
    """An attribute of a distiller that its objective keeps."""

    def read(self):
        return getattr(self.objective, name)

    def write(self, value):
        setattr(self.objective, name, value)

    return property(read, write, doc=doc)


class ObjectiveOwner:
    """A model that leaves to its `objective` what a training step computes."""

    name: str
    objective: Objective
    optimizer: Any
    alpha = _of_objective("alpha", "Weight of the labels.")
    missing_label = _of_objective("missing_label", 'Label that stands for "not known", or `None`.')
    check_numerics = _of_objective("check_numerics", "Whether steps are checked for NaN.")

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The hyperparameters that may change during training: variables by name.

        They are `"alpha"`, and `"<loss>/weight"`, `"<loss>/temperature"` and the like for each
        distillation loss. Assign to them between steps, or use `keras_distill.callbacks.Schedule`.
        """
        return self.objective.hyperparameters

    def set_hyperparameter(self, name: str, value: float) -> None:
        """Sets one of `hyperparameters`.

        Args:
            name: Name of the hyperparameter.
            value: A number in its range.

        Raises:
            ValueError: If there is no such hyperparameter, or the value is out of range.
        """
        self.objective.set_hyperparameter(name, value)

    def advance_schedules(self, iterations: Any = None) -> None:
        """Sets the hyperparameters that follow a schedule to their values at this step.

        Args:
            iterations: Number of training steps so far. Defaults to the optimizer's.
        """
        if iterations is None and self.objective.scheduled:
            iterations = self.optimizer.iterations
        self.objective.advance_schedules(iterations)

    def ask_teacher(self, x: Any) -> Answer:
        """The teacher's answer for a batch. Call it outside the gradient tape."""
        return self.objective.ask_teacher(x)

    def run_student(self, x: Any, training: bool = True) -> Answer:
        """The student's answer for a batch: its outputs and the tapped features."""
        return self.objective.run_student(x, training)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As in Keras, with a warning at the first NaN."""
        logs = super().train_on_batch(*args, **kwargs)  # type: ignore[misc]
        # They are numbers on the host already.
        loss = logs["loss"] if isinstance(logs, dict) else keras.tree.flatten(logs)[0]
        self._warn_of_nan(loss)
        return logs

    # What is reported of an epoch.

    def _report_by(self, mean: Callable) -> None:
        """Sets up what is reported of an epoch, by means of this class."""
        self._means = EpochMeans(mean)
        self._means.add([_LABELED])
        self._report_metrics(None)

    def _report_metrics(self, compiled: Any) -> None:
        """Reports the teacher's values of the metrics that `compile` made, from now on."""
        self._teacher_metrics = TeacherMetrics(compiled)
        self._told_nan = False

    def _known_labels(self, y: Any, outputs: Any, sample_weight: Any) -> tuple[Any, Any]:
        """Labels and weights of a batch, of which it is noted whether any label counts."""
        y, sample_weight = self.objective.known_labels(y, outputs, sample_weight)
        if self.missing_label is not None:
            self._means.update({_LABELED: labels.any_counts(sample_weight)}, 1)
        return y, sample_weight

    def _logs_of_epoch(self, logs: dict[str, Any]) -> dict[str, Any]:
        """What to report of an epoch: where all labels were missing, nothing computed of them."""
        if self.missing_label is None or float(self._means.results([_LABELED])[_LABELED]) > 0:
            return logs
        kept = [name for name in self.objective.reported_without_labels if name in logs]
        return {name: logs[name] for name in (["loss", *kept] if kept else [])}

    def _warn_of_nan(self, loss: Any) -> None:
        if not self._told_nan:
            self._told_nan = advice.warn_of_nan(self.name, loss)
