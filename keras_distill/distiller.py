"""The `Distiller`: a Keras model that trains a student on labels and a teacher's outputs."""

from typing import Any

import keras
from keras import ops

from keras_distill import _keras, advice, backends
from keras_distill._types import PACKAGE
from keras_distill.hyperparameters import hyperparameter_config
from keras_distill.labels import weighted_metrics_only
from keras_distill.objective import Objective
from keras_distill.owner import ObjectiveOwner
from keras_distill.pairs import Answer
from keras_distill.penalties import add_penalties, replicas, total_of_penalties
from keras_distill.resuming import Average, load_run_state, save_run_state

if keras.backend.backend() == "jax":
    from keras_distill.jax_steps import JaxSteps as Steps
elif keras.backend.backend() == "torch":
    from keras_distill.torch_steps import TorchSteps as Steps  # type: ignore
else:
    from keras_distill.tensorflow_steps import TensorFlowSteps as Steps  # type: ignore


@keras.saving.register_keras_serializable(PACKAGE)
class Distiller(Steps, _keras.EvaluatesWithoutLoss, ObjectiveOwner, keras.Model):
    """Trains a student on labels and on the outputs of a teacher.

    `loss = alpha * student_loss + (1 - alpha) * sum(weight_i * distillation_loss_i)`, plus the
    student's own regularizers and `add_loss` terms. `student_loss` is the loss given to
    `compile`. One training step runs the student once, the teacher once outside the gradient
    tape, and one backward pass, no matter how many layers are compared. `fit` reports `loss`,
    `student_loss`, each distillation loss by name, and the compiled metrics, which compare the
    student's outputs with the labels; and the teacher's values of these metrics in the same
    batches, such as `teacher_accuracy`. `evaluate` and `predict` use the student alone, unless
    `validate_with_teacher=True`. Without labels, or without a loss for them, `evaluate` then has
    no `loss` to report, and `fit` no `val_loss`.

    The teacher runs in inference mode. It is never changed, trained or saved.

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network"
    (arXiv:1503.02531), section 2.

    Args:
        student: The `keras.Model` to train.
        teacher: A `keras.Model`, one of `keras_distill.teachers`, a function of a batch, or a
            path. With `None`, set it before training: `distiller.teacher = model`.
        losses: One distillation loss, a list of losses and `Match`es, or a dict from the name of
            an output to a loss (`None` skips the output). A loss is a `keras.losses.Loss`, or a
            function, of the teacher's and the student's tensors. Without a `Match`, it compares
            each of the student's outputs with the same output of the teacher. Defaults to
            `SoftTargets(temperature=4.0)`.
        alpha: Weight of the labels, from 0 to 1: a number or a `keras.optimizers.schedules`
            schedule. With `alpha=0` no labels are needed. Defaults to `0.1`.
        missing_label: Label that stands for "not known", for example `-1` (or NaN in regression).
            Such samples have weight 0 in `student_loss`, in losses that need labels, and in the
            metrics, all of which become weighted metrics. Defaults to `None`: all are known.
        check_numerics: Whether to stop at the first NaN or infinity, with an error that names the
            teacher, the student or the loss in which it appears. XLA drops such checks, so it
            isn't used then. Defaults to `False`.
        validate_with_teacher: Whether `evaluate`, and so validation in `fit`, runs the teacher too
            and reports what training reports: `val_loss` is the whole objective, beside
            `val_student_loss` and, for example, `val_soft_targets`. Defaults to `False`: `val_loss`
            is the loss of the labels.
        name: Name of the model.
        **kwargs: Other arguments of `keras.Model`.

    Raises:
        TypeError: If `student` isn't a `keras.Model`, or `teacher` or a loss has a wrong type.
        ValueError: If `alpha` isn't between 0 and 1, a layer to compare doesn't exist, the two
            tensors of a loss can't be compared, or student and teacher share layers that training
            would change.

    Example:

    ```python
    distiller = keras_distill.Distiller(
        student, teacher, losses=keras_distill.losses.SoftTargets(temperature=4.0), alpha=0.1
    )
    distiller.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    distiller.fit(x_train, y_train, validation_data=(x_val, y_val), epochs=10)
    distiller.student.save("student.keras")
    ```
    """

    train_function: Any

    def __init__(
        self,
        student: keras.Model,
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
        backends.require("`keras_distill.Distiller`", "tensorflow", "jax", "torch")
        advice.refuse_misplaced("Distiller", kwargs)
        if not isinstance(student, keras.Model):
            raise TypeError(
                "`student` must be a `keras.Model`. "
                f"Received: student={student!r} of type {type(student).__name__}"
            )
        kwargs.setdefault("dtype", student.dtype_policy)
        super().__init__(name=name, **kwargs)
        self.student = student
        self.adapters: list = []
        # Keras tracks what it finds in attributes, lists and dicts, but not inside plain objects.
        self.objective = Objective(
            student,
            None,
            losses,
            alpha,
            missing_label=missing_label,
            check_numerics=check_numerics,
            dtype=student.dtype_policy,
            name=self.name,
        )
        self.validate_with_teacher = validate_with_teacher
        #: What `callbacks.MovingAverage` has averaged.
        self.averages: list[Average] = []
        self._report_by(keras.metrics.Mean)
        self.teacher = teacher

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "teacher":  # Keras would track a model before the property sees it.
            object.__setattr__(self, name, value)
            return
        super().__setattr__(name, value)
        if name == "student" and hasattr(self, "objective"):
            self.objective.student = value

    @property
    def teacher(self) -> Any:
        """The teacher, one of `keras_distill.teachers`, or `None`."""
        return self.objective.teacher

    @teacher.setter
    def teacher(self, value: Any) -> None:
        self.objective.teacher = value
        self.train_function = self.test_function = None
        self.supports_jit = self.objective.supports_jit
        if self.student.built:
            self.built = True
            self._track()
            self._refuse_shared_layers()
            self.objective.build_early()
            self._track()
            advice.warn_of_misread_outputs(self.objective, _keras.given_loss(self))

    @property
    def output_names(self) -> list[str]:
        """Names of the student's outputs, by which `compile` takes losses and metrics."""
        return self.student.output_names

    # What a step is made of. `Steps` puts the parts together, as the backend of Keras runs them.

    def build_for(self, x: Any) -> None:
        """Builds what depends on the shapes of a batch, if it isn't built yet.

        Args:
            x: The inputs of a batch, tensors.

        Raises:
            ValueError: If there is no teacher, or the two tensors of a loss can't be compared.
        """
        self._refuse_shared_layers()
        if self.objective.pairs is None:
            self.objective.build_for(x)
            advice.warn_of_misread_outputs(self.objective, _keras.given_loss(self))
        # Stored answers beside the inputs may be bytes, too.
        advice.warn_of_bytes(self.student, self.objective.student_inputs(x), "student")
        self._track()

    def compute_losses(
        self,
        x: Any,
        y: Any,
        answer: Answer,
        teacher_answer: Answer,
        sample_weight: Any = None,
        training: bool = True,
    ) -> dict[str, Any]:
        """Computes all losses of a batch. Call it inside the gradient tape.

        Args:
            x: The inputs of the batch.
            y: Its labels, or `None`.
            answer: What `run_student` returned.
            teacher_answer: What `ask_teacher` returned.
            sample_weight: Weights of the samples, or `None`.
            training: Whether adapters behave as in training.

        Returns:
            A dict of scalar tensors: `"loss"`, the objective; `"student_loss"` where there are
            labels; and each distillation loss by name, unweighted.
        """
        values = self.objective.compute_losses(
            x, y, answer, teacher_answer, sample_weight, _keras.compiled_loss(self), training
        )
        # Adapters have run by now, so `losses` holds theirs.
        return add_penalties(values, self.losses)

    # What Keras asks of a model.

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.student(self.objective.student_inputs(inputs), training=training)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As `keras.Model.compile`. Without a `loss`, only for a distiller with `alpha=0`."""
        advice.refuse_misplaced("compile", kwargs)
        has_loss = kwargs.get("loss") is not None or (len(args) > 1 and args[1] is not None)
        self.objective.require_loss(has_loss)
        if self.missing_label is not None:
            kwargs = weighted_metrics_only(kwargs)
        super().compile(*args, **kwargs)
        self._report_metrics(_keras.compiled_metrics(self))
        advice.warn_of_misread_outputs(self.objective, _keras.given_loss(self))

    def compile_from_config(self, config: dict) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The student's own loss, as `evaluate` reports it."""
        y, sample_weight = self.objective.known_labels(y, y_pred, sample_weight)
        if y is None or _keras.compiled_loss(self) is None:
            return total_of_penalties(self.losses)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict:
        if y is None:  # The compiled metrics need labels.
            return {"loss": _keras.loss_tracker(self).result()}
        y, sample_weight = self._known_labels(y, y_pred, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_metrics_result(self) -> dict:
        # Keras asks at the end of an epoch, whether or not there were labels.
        if _keras.is_eager():
            self._warn_of_nan(_keras.loss_tracker(self).result())
        metrics = _keras.compiled_metrics(self)
        if metrics is not None and not metrics.built:
            return {"loss": _keras.loss_tracker(self).result()}
        return super().get_metrics_result()

    def reset_metrics(self) -> None:
        super().reset_metrics()
        self._means.reset()
        self._teacher_metrics.reset()

    # Saving.

    def get_config(self) -> dict:
        config = {
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "student": keras.saving.serialize_keras_object(self.student),
            "losses": self.objective.match_configs(),
            "alpha": hyperparameter_config(self.objective, "alpha"),
            "missing_label": self.missing_label,
            "check_numerics": self.check_numerics,
            "validate_with_teacher": self.validate_with_teacher,
        }
        if self.objective.state is not None:
            config["teacher_state"] = keras.saving.serialize_keras_object(self.objective.state)
        return config

    @classmethod
    def from_config(cls, config: dict) -> "Distiller":
        config = keras.saving.deserialize_keras_object(config)
        state = config.pop("teacher_state", None)
        distiller = cls(teacher=None, **config)
        distiller.objective.teacher_state = state
        distiller._track()
        return distiller

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        save_run_state(self, store)

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables(load_run_state(self, store))

    # Building.

    def _build_metrics(self, y):
        """Builds the metrics, where the shapes of labels and outputs are known."""
        outputs, metrics = self.objective.output_specs, _keras.compiled_metrics(self)
        # A batch without labels holds none, or a `NoneTensorSpec`.
        is_known = y is not None and all(hasattr(x, "shape") for x in keras.tree.flatten(y))
        if metrics is None or outputs is None or not is_known:
            return
        if not metrics.built:
            metrics.build(y, outputs)
        self._teacher_metrics.build(y, outputs)

    def _track(self):
        """Makes the objective's layers and figures this model's: trained, saved, reported."""
        self._means.add(self.objective.reported)
        layers = self.objective.layers
        if list(map(id, layers)) == list(map(id, self.adapters)):
            return
        # Keras locks a model once it is built; what depends on the teacher's shapes comes later.
        with _keras.unlocked(self):
            self.adapters.clear()
            self.adapters.extend(layers)

    def _refuse_shared_layers(self):
        if self.teacher is not None:
            self.teacher.refuse_shared_layers(self.student)

    # Parts of a step.

    def _unpack(self, data):
        """Inputs, labels and sample weights of a batch."""
        return keras.utils.unpack_x_y_sample_weight(data)

    def _train_logs(self, values, figures, x, y, answer, teacher_answer, sample_weight):
        """What a training step reports: losses, metrics, and scheduled hyperparameters.

        The teacher's figures are those from before the update.
        """
        answers = answer, teacher_answer
        logs = self._teacher_metrics.update(self.objective, y, *answers, sample_weight)
        logs |= self._report(values, figures, x, y, answer.values, sample_weight)
        for name, variable in self.objective.scheduled.items():
            logs[name] = ops.convert_to_tensor(variable)
        return logs

    def _test_logs(self, x, y, sample_weight):
        """What `evaluate` reports with the teacher's help."""
        teacher_answer = self.ask_teacher(x)
        answer = self.run_student(x, training=False)
        values = self.compute_losses(x, y, answer, teacher_answer, sample_weight, False)
        return self._report(values, {}, x, y, answer.values, sample_weight)

    def _without_empty_loss(self, logs, y):
        """What `evaluate` reports of the student alone; without labels there is no loss."""
        if y is None or _keras.compiled_loss(self) is None:
            logs.pop("loss", None)  # At most regularizers, which tell nothing of the data.
        return logs

    def _report(self, values, figures, x, y, outputs, sample_weight):
        """Updates what `fit` reports and returns it."""
        size = ops.shape(keras.tree.flatten(x)[0])[0]
        # Losses are divided by the number of replicas, so that their gradients add up.
        reported = {name: value * replicas() for name, value in values.items()} | figures
        _keras.loss_tracker(self).update_state(reported.pop("loss"), sample_weight=size)
        self._means.update(reported, size)
        logs = self.compute_metrics(x, y, outputs, sample_weight)
        return {**logs, **self._means.results(reported)}
