"""The `Distiller` for `tf_keras` models."""

import math
from typing import Any

import keras
import tensorflow as tf
import tf_keras

from keras_distill import advice
from keras_distill import taps as tapping
from keras_distill.labels import weighted_metrics_only
from keras_distill.objective import Objective
from keras_distill.owner import ObjectiveOwner
from keras_distill.penalties import add_penalties, replicas
from keras_distill.teachers.base import BaseTeacher
from keras_distill.teachers.live import LiveTeacher


class Frozen(LiveTeacher):
    """A `tf_keras` model that answers for each batch.

    Args:
        model: The `tf_keras.Model`.
    """

    def __init__(self, model: tf_keras.Model):
        self.name = model.name
        self.model = model
        self.output_names = getattr(model, "output_names", None)

    def run(self, inputs: Any, taps: Any) -> Any:
        return tapping.run(self.model, taps, inputs, "teacher")

    def tap_path(self, tap: Any) -> str:
        return tapping.resolve(self.model, tap, "teacher")

    @property
    def variables(self):
        return self.model.variables


class Distiller(ObjectiveOwner, tf_keras.Model):
    """Trains a `tf_keras` student on labels and on the outputs of a teacher.

    It takes the losses, matches and options of `keras_distill.Distiller`, but trains `tf_keras`
    models, and so those of the TensorFlow Model Optimization Toolkit. `compile` takes optimizers,
    losses and metrics of `tf_keras`; `fit` takes its callbacks, such as `UpdatePruningStep`.
    Schedules and learned weights of an ensemble are applied, but not reported by `fit`.

    Args:
        student: The `tf_keras.Model` to train.
        teacher: A `tf_keras.Model`, a `keras.Model`, or one of `keras_distill.teachers`.
        losses: As in `keras_distill.Distiller`.
        alpha: As in `keras_distill.Distiller`.
        missing_label: As in `keras_distill.Distiller`.
        check_numerics: As in `keras_distill.Distiller`.
        validate_with_teacher: As in `keras_distill.Distiller`.
        name: Name of the model.
        **kwargs: Other arguments of `tf_keras.Model`.

    Raises:
        TypeError: If `student` isn't a `tf_keras` model.
        ValueError: As in `keras_distill.Distiller`.

    Example:

    >>> distiller = keras_distill.legacy.Distiller(student, teacher, alpha=0.1)
    >>> distiller.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> distiller.fit(x_train, y_train, epochs=5)
    """

    def __init__(
        self,
        student: tf_keras.Model,
        teacher: Any,
        losses: Any = None,
        alpha: Any = 0.1,
        *,
        missing_label: float | None = None,
        check_numerics: bool = False,
        validate_with_teacher: bool = False,
        name: str = "distiller",
        **kwargs: Any,
    ):
        advice.refuse_misplaced("Distiller", kwargs)
        if not isinstance(student, tf_keras.Model):
            raise TypeError(
                "`student` must be a `tf_keras.Model`; for `keras.Model`s there is "
                f"`keras_distill.Distiller`. Received: student={student!r}"
            )
        spec = _input_spec(student)
        if not student.built or spec is None:
            raise ValueError(
                f"The student {student.name!r} isn't built: call it once on a batch, or use the "
                "functional API."
            )
        super().__init__(name=name, **kwargs)
        self.student = student
        self.validate_with_teacher = validate_with_teacher
        # `tf_keras` tracks what it finds in attributes, metrics and layers of Keras 3 among them,
        # but not inside plain objects.
        self.objective = Objective(
            student,
            _as_teacher(teacher, student),
            losses,
            alpha,
            missing_label=missing_label,
            check_numerics=check_numerics,
            name=name,
        )
        self.objective.build_for(spec)
        self.adapter_variables = [
            variable.value
            for layer in self.objective.layers
            for variable in layer.trainable_variables
        ]
        self._report_by(tf_keras.metrics.Mean)
        self._means.add(["loss", *self.objective.reported])

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.student(inputs, training=training)

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, **kwargs: Any) -> None:
        """As `tf_keras.Model.compile`. Without a `loss`, only for a distiller with `alpha=0`."""
        advice.refuse_misplaced("compile", kwargs)
        self.objective.require_loss(loss is not None)
        if self.objective.check_numerics and kwargs.get("jit_compile"):
            raise ValueError(
                "XLA leaves out the checks that `check_numerics=True` asks for: leave "
                "`jit_compile` out."
            )
        if self.objective.missing_label is not None:
            kwargs = weighted_metrics_only(kwargs)
        super().compile(optimizer, loss, **kwargs)
        self._report_metrics(self.compiled_metrics)
        advice.warn_of_misread_outputs(self.objective, loss)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = tf_keras.utils.unpack_x_y_sample_weight(data)
        self.advance_schedules()
        teacher_answer = self.ask_teacher(x)
        with tf.GradientTape() as tape:
            answer = self.run_student(x, training=True)
            values = self._all_losses(x, y, answer, teacher_answer, sample_weight)
        variables = [*self.student.trainable_variables, *self.adapter_variables]
        self.optimizer.minimize(values["loss"], variables, tape=tape)
        logs = self._report(values, x, y, answer.values, sample_weight)
        theirs = self._teacher_metrics.update(
            self.objective, y, answer, teacher_answer, sample_weight
        )
        return {**theirs, **logs}

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = tf_keras.utils.unpack_x_y_sample_weight(data)
        if self.validate_with_teacher:
            teacher_answer = self.ask_teacher(x)
            answer = self.run_student(x, training=False)
            values = self._all_losses(x, y, answer, teacher_answer, sample_weight, training=False)
            return self._report(values, x, y, answer.values, sample_weight)
        logs = super().test_step(data)
        if y is None or not self.loss:
            logs.pop("loss", None)  # At most regularizers, which tell nothing of the data.
        return logs

    def evaluate(self, *args: Any, return_dict: bool = False, **kwargs: Any) -> Any:
        """As `tf_keras.Model.evaluate`. In a list, the loss is NaN where there is none."""
        logs = self._logs_of_epoch(super().evaluate(*args, return_dict=True, **kwargs))
        if return_dict:
            return logs
        values = [logs.pop("loss", math.nan), *logs.values()]
        return values if len(values) > 1 else values[0]

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None
    ) -> Any:
        """The student's own loss, as `evaluate` reports it."""
        y, sample_weight = self.objective.known_labels(y, y_pred, sample_weight)
        return super().compute_loss(x, y, y_pred, sample_weight)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> dict:
        if y is None:  # The compiled metrics need labels.
            return self.get_metrics_result()
        y, sample_weight = self._known_labels(y, y_pred, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_metrics_result(self) -> dict:
        # `tf_keras` asks at the end of an epoch.
        if tf.executing_eagerly():
            self._warn_of_nan(self._means.results(["loss"])["loss"])
        return super().get_metrics_result()

    def reset_metrics(self):
        super().reset_metrics()
        self._means.reset()
        self._teacher_metrics.reset()

    def _all_losses(self, x, y, answer, teacher_answer, sample_weight, training=True):
        """All losses of a batch, with regularizers and `add_loss` terms."""
        student_loss = self.compiled_loss if self.loss else None
        values = self.objective.compute_losses(
            x, y, answer, teacher_answer, sample_weight, student_loss, training
        )
        return add_penalties(values, self._penalties())

    def _penalties(self) -> list:
        """Regularizers and `add_loss` terms of the adapters and the student."""
        adapters = [loss for layer in self.objective.layers for loss in layer.losses]
        return [*adapters, *self.student.losses]

    def _report(self, values, x, y, outputs, sample_weight):
        """Updates what `fit` reports and returns it."""
        size = tf.shape(tf.nest.flatten(x)[0])[0]
        self._means.update({name: value * replicas() for name, value in values.items()}, size)
        logs = self.compute_metrics(x, y, outputs, sample_weight)
        return {**logs, **self._means.results(values)}


def _input_spec(model: tf_keras.Model) -> Any:
    """What a model reads, as `keras.KerasTensor`s, or `None` before it was called."""
    spec = model.save_spec()
    if spec is None:
        return None
    return tf.nest.map_structure(
        lambda x: keras.KerasTensor(tuple(x.shape), x.dtype.name), spec[0][0]
    )


def _as_teacher(teacher: Any, student: tf_keras.Model) -> keras.Model | BaseTeacher:
    """A teacher for the objective, checked."""
    if isinstance(teacher, tf_keras.Model):
        shared = {id(variable) for variable in student.variables}
        if any(id(variable) in shared for variable in teacher.variables):
            raise ValueError(
                "The student shares layers with the teacher, so training would change the "
                "teacher. Give it a copy: `tf_keras.models.clone_model` and `set_weights`."
            )
        return Frozen(teacher)
    if not isinstance(teacher, (keras.Model, BaseTeacher)):
        raise TypeError(
            "`teacher` must be a `tf_keras.Model`, a `keras.Model` or one of "
            "`keras_distill.teachers`. Convert functions and paths with "
            f"`keras_distill.teachers.as_teacher`. Received: teacher={teacher!r}"
        )
    return teacher
