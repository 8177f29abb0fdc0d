"""What the distillers of Keras and of `tf_keras` have in common: the `Objective` that they own."""

from collections.abc import Callable
from typing import Any

import keras

from keras_distill import advice, labels
from keras_distill.epoch_means import EpochMeans
from keras_distill.objective import Objective
from keras_distill.pairs import Answer
from keras_distill.teacher_metrics import TeacherMetrics

#: With the index of an output, the name of its share of batches with labels that count, which
#: isn't reported.
_LABELED = "labeled/"


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
    #: What the last epoch didn't report, as all of its labels were missing.
    _unreported: tuple[str, ...] = ()
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

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As in Keras, which would ignore weights without labels: they are refused."""
        if y is None and kwargs.get("sample_weight") is not None:
            raise ValueError(
                "Keras ignores `sample_weight` where there is no `y`. Give labels, too: with "
                "`missing_label=-1`, -1 for each that isn't known. A dataset has elements "
                "(x, y, sample_weight)."
            )
        return super().fit(x, y, *args, **kwargs)  # type: ignore[misc]

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
        #: The student's outputs in the order of labels; one of no name where it doesn't tell.
        self._outputs = _output_names(self.objective.student) or [""]
        self._means.add(f"{_LABELED}{index}" for index in range(len(self._outputs)))
        self._report_metrics(None)

    def _report_metrics(self, compiled: Any) -> None:
        """Reports the teacher's values of the metrics that `compile` made, from now on."""
        self._teacher_metrics = TeacherMetrics(compiled)
        self._told_nan = False

    def _known_labels(self, y: Any, outputs: Any, sample_weight: Any) -> tuple[Any, Any]:
        """Labels and weights of a batch, of which it is noted whether any label counts."""
        y, sample_weight = self.objective.known_labels(y, outputs, sample_weight)
        if self.missing_label is not None:
            counts = labels.which_count(sample_weight)
            if len(counts) != len(self._outputs):
                counts = [sum(counts)]
            self._means.update({f"{_LABELED}{i}": count for i, count in enumerate(counts)}, 1)
        return y, sample_weight

    def _logs_of_epoch(self, logs: dict[str, Any]) -> dict[str, Any]:
        """What to report of an epoch: where all labels were missing, nothing computed of them."""
        self._unreported = ()
        if self.missing_label is None:
            return logs
        outputs = self._outputs
        shares = self._means.results(f"{_LABELED}{index}" for index in range(len(outputs)))
        missing = [name for name, share in zip(outputs, shares.values(), strict=True) if share <= 0]
        if not missing:
            return logs
        advice.warn_of_missing(missing if len(outputs) > 1 else [])
        if missing == outputs:
            kept = [name for name in self.objective.reported_without_labels if name in logs]
            return {name: logs[name] for name in (["loss", *kept] if kept else [])}
        others = self.objective.reported
        of_labels = [
            pair.name
            for pair in self.objective.pairs or ()
            if pair.loss.needs_labels and self._name_of(pair.output) in missing
        ]
        self._unreported = tuple(
            name
            for name in logs
            if name in of_labels or (name not in others and _output_of(name, outputs) in missing)
        )
        return {name: value for name, value in logs.items() if name not in self._unreported}

    def _name_of(self, output: int | str | None) -> str | None:
        """The name of an output that is given by its index or name."""
        return self._outputs[output] if isinstance(output, int) else output

    def _warn_of_nan(self, loss: Any) -> None:
        if not self._told_nan:
            self._told_nan = advice.warn_of_nan(self.name, loss)


def _output_names(student: Any) -> list[str]:
    """Names of a model's outputs in the order of labels; empty where it doesn't tell."""
    try:
        names, outputs = list(student.output_names), student.output
    except (AttributeError, TypeError, ValueError):  # Not built, or a subclass.
        return []
    # A dict is flattened by its sorted keys.
    return sorted(names) if isinstance(outputs, dict) else names


def _output_of(name: str, outputs: list[str]) -> str | None:
    """The output that a loss or metric is of, by Keras' names such as `"box_mae"`."""
    name = name.removeprefix("teacher_")
    found = [output for output in outputs if name.startswith(f"{output}_")]
    return max(found, key=len, default=None)
