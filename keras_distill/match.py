"""Where in the two models to look, how to compare, and how to make the two comparable."""

from collections.abc import Callable
from typing import Any

import keras

from keras_distill._types import PACKAGE
from keras_distill.checks import not_negative
from keras_distill.hyperparameters import Hyperparameter, hyperparameter_config
from keras_distill.losses.base import DistillationLoss

#: Names of what `fit` reports beside the distillation losses.
RESERVED = ("loss", "student_loss")


@keras.saving.register_keras_serializable(PACKAGE)
class Match:
    """Compares a place in the student with a place in the teacher.

    Args:
        loss: A `keras.losses.Loss`, or a function, of the teacher's and the student's tensors. A
            function returns one value per sample, shape `(batch,)`, or a scalar.
        student: Where to look in the student: the path of a layer (`"backbone/block3"`), the
            layer itself, the name or index of an output, or a tuple of these, which passes the
            loss a tuple of tensors. Defaults to `None`: each of the outputs.
        teacher: Where to look in the teacher, likewise. Defaults to `None`: the same as `student`.
        adapter: Layer that turns the student's features into the teacher's shape. It is trained
            with the student and never exported. `"auto"` builds it from the shapes. With a tuple
            of places, a tuple of layers. Defaults to `None`: features are compared as they are.
        weight: Weight of the loss, at least 0: a number, or a `keras.optimizers.schedules`
            schedule. Defaults to `1.0`.
        name: Name under which `fit` reports the loss. Defaults to the name of the loss. If another
            loss has that name, the place or a number is appended.

    Raises:
        TypeError: If `loss` is neither a loss nor a function, or `adapter` isn't a layer.
        ValueError: If `weight` is negative.

    Example:

    >>> keras_distill.Match(
    ...     keras_distill.losses.Hint(), student="block2", teacher="stage3", adapter="auto"
    ... )
    """

    weight = Hyperparameter(not_negative)

    def __init__(
        self,
        loss: keras.losses.Loss | Callable,
        student: Any = None,
        teacher: Any = None,
        adapter: Any = None,
        weight: Any = 1.0,
        name: str | None = None,
    ):
        self.loss = as_loss(loss)
        self.student = student
        self.teacher = student if teacher is None else teacher
        self.adapter = tuple(adapter) if isinstance(adapter, list) else adapter
        if adapter != "auto" and not all(
            layer is None or isinstance(layer, keras.layers.Layer)
            for layer in as_tuple(self.adapter)
        ):
            raise TypeError(
                '`adapter` must be "auto", a `keras.layers.Layer`, None, or a tuple with a layer '
                f"or None for each place. Received: adapter={adapter!r}"
            )
        self.weight = weight
        self.name = name or self.loss.name

    @property
    def layers(self) -> list:
        """The layers that it brings: the adapters given, and the layer with the loss' weights."""
        given = [x for x in as_tuple(self.adapter) if isinstance(x, keras.layers.Layer)]
        return [*given, *([self.loss.state] if self.loss.state is not None else [])]

    def __repr__(self):
        return f"<Match {self.name}: student={self.student!r}, teacher={self.teacher!r}>"

    def get_config(self) -> dict:
        return {
            "loss": keras.saving.serialize_keras_object(self.loss),
            "student": self.student,
            "teacher": self.teacher,
            "adapter": keras.saving.serialize_keras_object(self.adapter),
            "weight": hyperparameter_config(self, "weight"),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict) -> "Match":
        return cls(**keras.saving.deserialize_keras_object(config))


def as_loss(loss: Any) -> DistillationLoss:
    """`loss` as a `DistillationLoss`.

    Raises:
        TypeError: If it is neither a loss nor a function.
    """
    if isinstance(loss, DistillationLoss):
        return loss
    if isinstance(loss, type):
        raise TypeError(
            f"A distillation loss must be an object, not the class {loss.__name__}: write "
            f"`{loss.__name__}(...)`."
        )
    if isinstance(loss, str) or not callable(loss):
        raise TypeError(
            "A distillation loss must be a `keras.losses.Loss` or a function of the teacher's and "
            "the student's tensors, such as `keras_distill.losses.SoftTargets()` or "
            f"`keras.losses.MeanSquaredError()`. Received: {loss!r}"
        )
    return KerasLoss(loss)


@keras.saving.register_keras_serializable(PACKAGE)
class KerasLoss(DistillationLoss):
    """A loss of Keras, or a plain function, between teacher and student.

    Args:
        loss: A `keras.losses.Loss`, or a function of the teacher's and the student's tensors.
        name: Name of the loss. Defaults to the name of `loss`.
        reduction: As in `keras.losses.Loss`. Defaults to that of `loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.
    """

    def __init__(
        self,
        loss: keras.losses.Loss | Callable,
        name: str | None = None,
        reduction: str | None = None,
        dtype: Any = None,
    ):
        self.loss = loss
        super().__init__(
            name=name or getattr(loss, "name", None) or _name_of(loss),
            reduction=reduction or getattr(loss, "reduction", "sum_over_batch_size"),
            dtype=dtype or getattr(loss, "dtype", None),
        )
        # A function may compare tensors of different shapes.
        self.same_shape = isinstance(loss, keras.losses.Loss)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        function = self.loss.call if isinstance(self.loss, keras.losses.Loss) else self.loss
        return function(y_true, y_pred)

    def get_config(self) -> dict:
        return {**super().get_config(), "loss": keras.saving.serialize_keras_object(self.loss)}


def as_matches(losses: Any) -> list[Match]:
    """The `losses` of a `Distiller` as a list of matches."""
    if isinstance(losses, dict):
        matches = [
            Match(loss, student=output, teacher=output)
            for output, loss in losses.items()
            if loss is not None
        ]
    else:
        given = losses if isinstance(losses, (list, tuple)) else [losses]
        matches = [x if isinstance(x, Match) else Match(x) for x in given if x is not None]
    if not matches:
        raise ValueError(f"`losses` holds no loss. Received: losses={losses!r}")
    return matches


def unique_names(matches: list[Match]) -> list[str]:
    """A name for each match: its own, with the place or a number appended where it is taken."""
    taken = list(RESERVED)
    for match in matches:
        name = match.name
        if name in taken and isinstance(match.student, str):
            name = f"{name}_{match.student.replace('/', '_')}"
        taken.append(numbered(name, taken))
    return taken[len(RESERVED) :]


def numbered(name: str, taken: list[str]) -> str:
    """`name`, with a number appended where it is taken."""
    stem, number = name, 2
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    return name


def as_tuple(x: Any) -> tuple:
    """`x`, as a tuple of one unless it is a tuple."""
    return x if isinstance(x, tuple) else (x,)


def _name_of(function: Callable) -> str:
    """The name of a function, or of the class of another callable."""
    return getattr(function, "__name__", type(function).__name__).strip("<>")
