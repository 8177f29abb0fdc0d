"""The `Distiller` for `tf_keras` models."""

import keras
import tensorflow as tf
import tf_keras

import keras_distill
from keras_distill.distiller import weighted_metrics_only
from keras_distill.teachers import BaseTeacher


class _Shell(keras.Model):
    """A `tf_keras` model in the shape that the Keras 3 distiller looks at.

    It holds the model out of Keras' sight, which would take it for something to track.
    """

    def __init__(self, model):
        super().__init__(name=model.name)
        self._hidden = (lambda: model,)
        self.built = model.built
        self.output_names = getattr(model, "output_names", None)

    @property
    def model(self):
        """The `tf_keras` model."""
        return self._hidden[0]()

    @property
    def operations(self):
        """The layers that can be tapped."""
        return self.model.layers

    @property
    def input(self):
        """What the model reads, as `keras.KerasTensor`s, or `None` before it was called."""
        spec = self.model.save_spec()
        if spec is None:
            return None
        return tf.nest.map_structure(
            lambda x: keras.KerasTensor(tuple(x.shape), x.dtype.name), spec[0][0]
        )

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)


class _Core(keras_distill.Distiller):
    """The Keras 3 distiller, of which a `tf_keras` training step uses all but the optimizer."""

    #: The compiled loss of the `tf_keras` distiller around it, and its student's own losses.
    outer = None

    @property
    def losses(self):
        student = [] if self.outer is None else self.outer().student.losses
        return [*super().losses, *student]

    @property
    def supports_jit(self):
        """The step is compiled by `tf_keras`."""
        return False

    @supports_jit.setter
    def supports_jit(self, value):
        pass


class Distiller(tf_keras.Model):
    """Trains a `tf_keras` student on the labels and on what a teacher says.

    The same distiller as `keras_distill.Distiller`, with its losses, matches and options, for
    `tf_keras` models and thus for the students of the TensorFlow Model Optimization Toolkit.
    `compile` takes what `tf_keras` takes: its optimizers, losses, metrics; `fit` its callbacks,
    such as `UpdatePruningStep`. Schedules and the shares of an ensemble take effect, but aren't
    reported.

    Args:
        student: The `tf_keras.Model` to train.
        teacher: A `tf_keras.Model`, a `keras.Model`, or one of `keras_distill.teachers`.
        losses: As in `keras_distill.Distiller`.
        alpha: As in `keras_distill.Distiller`.
        **kwargs: `missing_label` and `check_numerics` as in `keras_distill.Distiller`, and
            `name`.

    Raises:
        TypeError: If `student` isn't a `tf_keras` model.
        ValueError: As in `keras_distill.Distiller`.

    Example:

    >>> distiller = keras_distill.legacy.Distiller(student, teacher, alpha=0.1)
    >>> distiller.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> distiller.fit(x_train, y_train, epochs=5)
    """

    def __init__(self, student, teacher, losses=None, alpha=0.1, *, name="distiller", **kwargs):
        if not isinstance(student, tf_keras.Model):
            raise TypeError(
                "`student` must be a `tf_keras.Model`; for `keras.Model`s there is "
                f"`keras_distill.Distiller`. Received: student={student!r}"
            )
        shell = _Shell(student)
        if not student.built or shell.input is None:
            raise ValueError(
                f"The student {student.name!r} isn't built: call it once on a batch, or use the "
                "functional API."
            )
        super().__init__(name=name)
        self.student = student
        shared = {id(v) for v in student.variables}
        if isinstance(teacher, tf_keras.Model):
            if any(id(v) in shared for v in teacher.variables):
                raise ValueError(
                    "The student shares layers with the teacher, so training would change the "
                    "teacher. Give it a copy: `tf_keras.models.clone_model` and `set_weights`."
                )
            teacher = _Shell(teacher)
        elif not isinstance(teacher, (keras.Model, BaseTeacher)):
            raise TypeError(
                "`teacher` must be a `tf_keras.Model`, a `keras.Model` or one of "
                "`keras_distill.teachers`, which `teachers.as_teacher` makes of functions and "
                f"paths. Received: teacher={teacher!r}"
            )
        core = _Core(shell, teacher, losses, alpha, **kwargs)
        # Says what is wrong where the teacher can't read what the student reads.
        core.build_for(shell.input)
        core.outer = lambda: self
        self._core = lambda: core
        self.adapter_variables = [v.value for v in core.trainable_variables]
        # Held by the core: `tf_keras` takes what it finds here for metrics of `evaluate` too.
        names = ["loss", "student_loss", *(pair.name for pair in core._plan.pairs)]
        core._plan.trackers = {name: tf_keras.metrics.Mean(name=name) for name in names}

    @property
    def hyperparameters(self) -> dict:
        """The variables that may change while training goes on, by name."""
        return self._core().hyperparameters

    def set_hyperparameter(self, name, value):
        """Sets one of `hyperparameters`, if the value is in its range."""
        self._core().set_hyperparameter(name, value)

    def call(self, inputs, training=None):
        return self.student(inputs, training=training)

    def compile(self, optimizer="rmsprop", loss=None, **kwargs):
        """As `tf_keras.Model.compile`. Without a `loss`, only for a distiller with `alpha=0`."""
        core = self._core()
        core.require_loss(loss is not None)
        if core.check_numerics and kwargs.get("jit_compile"):
            raise ValueError(
                "XLA leaves out the checks that `check_numerics=True` asks for: leave "
                "`jit_compile` out."
            )
        if core.missing_label is not None:
            kwargs = weighted_metrics_only(kwargs)
        super().compile(optimizer, loss, **kwargs)
        core._compile_loss = None if loss is None else self._labels_loss

    def train_step(self, data):
        x, y, sample_weight = tf_keras.utils.unpack_x_y_sample_weight(data)
        core = self._core()
        core.advance_schedules(self.optimizer.iterations)
        teacher_answer = core.ask_teacher(x)
        with tf.GradientTape() as tape:
            answer = core.run_student(x, training=True)
            values = core.compute_losses(x, y, answer, teacher_answer, sample_weight)
        variables = [*self.student.trainable_variables, *self.adapter_variables]
        self.optimizer.minimize(values["loss"], variables, tape=tape)
        return self._report(values, x, y, answer.outputs, sample_weight)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        """The student's own loss, as `evaluate` reports it."""
        y, sample_weight = self._core()._known_labels(y, y_pred, sample_weight)
        return super().compute_loss(x, y, y_pred, sample_weight)

    def compute_metrics(self, x, y, y_pred, sample_weight):
        if y is None:  # The compiled metrics need labels.
            return self.get_metrics_result()
        y, sample_weight = self._core()._known_labels(y, y_pred, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def reset_metrics(self):
        super().reset_metrics()
        for tracker in self._core()._plan.trackers.values():
            tracker.reset_state()

    def _labels_loss(self, y, outputs, sample_weight):
        return self.compiled_loss(y, outputs, sample_weight)

    def _report(self, values, x, y, outputs, sample_weight):
        """Updates what `fit` reports and returns it."""
        trackers = self._core()._plan.trackers
        size = tf.shape(tf.nest.flatten(x)[0])[0]
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        for name, value in values.items():
            trackers[name].update_state(value * replicas, sample_weight=size)
        logs = self.compute_metrics(x, y, outputs, sample_weight)
        return {**logs, **{name: trackers[name].result() for name in values}}
