"""Students that learn from each other."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_distill import _keras
from keras_distill import taps as tapping
from keras_distill._types import PACKAGE
from keras_distill.distiller import Distiller
from keras_distill.inputs import entries_for
from keras_distill.losses.response import SoftTargets
from keras_distill.match import as_matches
from keras_distill.outputs import Mean, Output
from keras_distill.teachers.base import BaseTeacher, Misfit


@keras.saving.register_keras_serializable(PACKAGE)
class MutualDistiller(Distiller):
    """Trains two or more students at once, each on the labels and on the others' outputs.

    `loss = sum over students of alpha * student_loss + (1 - alpha) * distillation_loss`. The
    teacher of a student is the mean of the others' outputs in the same step, through which no
    gradient flows: the mean of their softened probabilities for losses with a temperature, else
    of the values compared. All students are updated together, from one forward pass of each.
    `fit` and `evaluate` report losses and metrics by the students' names; `predict` returns a
    dict of their outputs. Each student can be saved and exported on its own.

    Source: Zhang et al., "Deep Mutual Learning" (arXiv:1706.00384), equations 4 to 6. Their
    `CE + KL` is twice this with `alpha=0.5` and temperature 1. They update the students one after
    the other; updating all at once is a variant that they found to work as well.

    Args:
        students: Two or more `keras.Model`s with different names. All read the same inputs, and
            each has one output, of the same shape.
        losses: As in `Distiller`, between each student and its peers. Defaults to
            `SoftTargets(temperature=1.0)`.
        alpha: As in `Distiller`. Defaults to `0.5`.
        name: Name of the model.
        **kwargs: Other arguments of `Distiller`.

    Raises:
        TypeError: If `students` isn't a list of models.
        ValueError: If there are fewer than two students, or two have the same name.

    Example:

    ```python
    mutual = keras_distill.MutualDistiller([small, large])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    mutual.compile("adam", loss, metrics=["accuracy"])
    mutual.fit(x_train, y_train, epochs=10)
    mutual.students[0].save("small.keras")
    ```
    """

    def __init__(
        self,
        students: list[keras.Model],
        losses: Any = None,
        alpha: Any = 0.5,
        *,
        name: str = "mutual_distiller",
        **kwargs: Any,
    ):
        cohort = Cohort(students)
        matches = as_matches(SoftTargets(temperature=1.0) if losses is None else losses)
        activations = [getattr(match.loss, "activation", None) for match in matches]
        # A loss that names sigmoid decides, then one that follows the students.
        chosen = next((x for x in ("sigmoid", None, "softmax") if x in activations), None)
        peers = Peers(cohort, chosen)
        super().__init__(cohort, peers, matches, alpha, name=name, **kwargs)

    @property
    def students(self) -> list[keras.Model]:
        """The students, in order."""
        return self.student.students

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, metrics: Any = None, **kwargs: Any
    ) -> None:
        """As `keras.Model.compile`. A single loss or list of metrics applies to each student."""
        if isinstance(metrics, list):
            metrics = {
                name: [_keras.copy_of_metric(metric) for metric in metrics]
                for name in self.output_names
            }
        super().compile(optimizer, loss, metrics=metrics, **kwargs)

    def _unpack(self, data):
        """A batch with the same labels for each student."""
        x, y, sample_weight = super()._unpack(data)
        if y is not None:
            y = dict.fromkeys(self.output_names, y)
        return x, y, sample_weight

    def get_config(self) -> dict:
        config = super().get_config()
        del config["student"]
        return {
            **config,
            "students": [keras.saving.serialize_keras_object(model) for model in self.students],
        }

    @classmethod
    def from_config(cls, config: dict) -> Any:
        return cls(**keras.saving.deserialize_keras_object(config))


@keras.saving.register_keras_serializable(PACKAGE)
class Cohort(keras.Model):
    """Several models that read the same inputs, with a dict of outputs by the models' names.

    Args:
        students: See `MutualDistiller`.
    """

    def __init__(self, students: list[keras.Model]):
        if not isinstance(students, (list, tuple)) or not all(
            isinstance(student, keras.Model) for student in students
        ):
            raise TypeError(
                f"`students` must be a list of Keras models. Received: students={students!r}"
            )
        names = [student.name for student in students]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(
                "`students` must be two or more models with different names. "
                f"Received students with the names {names}"
            )
        super().__init__(name="students")
        self.students = list(students)
        self.built = all(student.built for student in students)

    @property
    def output_names(self) -> list[str]:
        return [student.name for student in self.students]

    @property
    def input(self) -> Any:
        first = self.students[0]
        return first.inputs[0] if isinstance(first, keras.Sequential) else first.input

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        return {
            student.name: student(entries_for(student, inputs, "student"), training=training)
            for student in self.students
        }

    def get_config(self) -> dict:
        return {"students": [keras.saving.serialize_keras_object(model) for model in self.students]}

    @classmethod
    def from_config(cls, config: dict) -> Any:
        return cls(**keras.saving.deserialize_keras_object(config))


class Peers(BaseTeacher):
    """The teacher of each student in a cohort: the mean output of the others.

    Args:
        cohort: The `Cohort`.
        activation: `"softmax"` or `"sigmoid"`, which losses with a temperature compare; `None` for
            what the students end in.
    """

    name = "peers"

    def __init__(self, cohort: Cohort, activation: str | None):
        self.cohort = cohort
        self.activation = activation
        self.output_names = cohort.output_names

    def answer(self, inputs: Any, taps: Sequence[str] = ()) -> tuple[Any, list]:
        """Returns nothing yet: the peers run as the students of the step."""
        return None, []

    def answer_spec(self, inputs: Any, taps: Sequence[str] = ()) -> tuple[Any, list]:
        outputs = tapping.spec_of(lambda x: self.cohort(x, training=False), inputs)
        shapes: dict[str, Any] = {
            name: getattr(output, "shape", None) for name, output in outputs.items()
        }
        if None in shapes.values() or len({shape[1:] for shape in shapes.values()}) > 1:
            raise Misfit(
                "Each student must have one output, all of one shape apart from the batch. "
                f"Received outputs of shape {shapes}"
            )
        return outputs, []

    def complete(self, outputs: Any, student_outputs: Any) -> dict[str, Output]:
        """For each student, the mean output of all others, without a gradient."""
        answers = {name: output.detached() for name, output in student_outputs.items()}
        ends = {output.activation for output in answers.values()}
        activation = self.activation or ("sigmoid" if "sigmoid" in ends else "softmax")
        means = {}
        for name in answers:
            others = [answer for other, answer in answers.items() if other != name]
            means[name] = others[0] if len(others) == 1 else _mean(others, activation)
        return means


def _mean(answers, activation):
    """The mean of several outputs; losses with a temperature take that of the probabilities."""
    share = 1 / len(answers)
    logits = [ops.cast(answer.logits_at(), "float32") for answer in answers]
    return Output(
        values=share * sum(ops.cast(answer.values, "float32") for answer in answers),
        logits=share * sum(logits),
        activation=activation,
        mean=Mean(tuple(logits), (share,) * len(logits)),
    )
