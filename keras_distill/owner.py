"""What the distillers of Keras and of `tf_keras` have in common: the `Objective` that they own."""

from typing import Any

from keras_distill.objective import Objective
from keras_distill.pairs import Answer


def _of_objective(name: str, doc: str) -> property:
    """An attribute of a distiller that its objective keeps."""

    def read(self):
        return getattr(self.objective, name)

    def write(self, value):
        setattr(self.objective, name, value)

    return property(read, write, doc=doc)


class ObjectiveOwner:
    """A model that leaves to its `objective` what a training step computes."""

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
