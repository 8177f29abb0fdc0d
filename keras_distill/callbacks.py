"""Callbacks that go with a `Distiller`."""

from collections.abc import Callable

import keras

from keras_distill import _keras
from keras_distill.checks import fraction


class Schedule(keras.callbacks.Callback):
    """Sets a hyperparameter of a `Distiller` at the start of each epoch, and logs it.

    To change one at every step, pass a `keras.optimizers.schedules` schedule to the `Distiller` or
    the loss instead of a number.

    Args:
        name: Name of the hyperparameter, one of `distiller.hyperparameters`: `"alpha"`,
            `"soft_targets/temperature"`, `"soft_targets/weight"`, ...
        schedule: Function of the epoch, an integer counted from 0, that returns the value, such
            as a `keras.optimizers.schedules` schedule.

    Raises:
        ValueError: When training begins, if the distiller has no such hyperparameter; when an
            epoch begins, if the value is out of its range.

    Example:

    >>> callback = keras_distill.callbacks.Schedule("alpha", lambda epoch: 0.1 + 0.02 * epoch)
    """

    def __init__(self, name: str, schedule: Callable[[int], float]):
        super().__init__()
        self.name = name
        self.schedule = schedule

    def on_train_begin(self, logs: dict | None = None) -> None:
        known = getattr(self.model, "hyperparameters", {})
        if self.name not in known:
            raise ValueError(
                f"The model {self.model.name!r} has no hyperparameter {self.name!r}. "
                f"It has: {', '.join(known) or 'none; it is not a `Distiller`'}."
            )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        # 0.3 - 3 * 0.1 is a little below 0.
        self.model.set_hyperparameter(self.name, round(float(self.schedule(epoch)), 12))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is not None:
            logs[self.name] = float(self.model.hyperparameters[self.name])


class MovingAverage(keras.callbacks.Callback):
    """Has a teacher follow the student: its weights are moving averages of the student's.

    After step t of the optimizer, counted from 1, each weight of the teacher becomes
    `a * teacher + (1 - a) * student`, with `a = min(1 - 1 / t, decay)`: the mean of all steps so
    far, until there are `1 / (1 - decay)`. With several `steps_per_execution` it follows after the
    last of them, and where gradients are accumulated, once they are applied. For students that
    learn from data without labels, with random changes of the inputs as layers of the student.

    The averages aren't part of the distiller's checkpoints: save the teacher beside it.

    Source: Tarvainen and Valpola, "Mean teachers are better role models" (arXiv:1703.01780),
    section 2, and the authors' code for the first steps. Their teacher normalizes by the batch;
    here it runs as in inference, and the statistics of normalization are averaged as well.

    Args:
        teacher: The model that follows, with weights of the same shapes as the student's, such as
            `keras.models.clone_model(student)`. It is the distiller's teacher, or a part of it.
        decay: The largest a, from 0 to 1.

    Raises:
        TypeError: If `teacher` is no model, or `decay` no number.
        ValueError: If `decay` isn't from 0 to 1; when training begins, if the shapes differ, or
            the model has no student.

    Example:

    >>> teacher = keras.models.clone_model(student)
    >>> distiller = keras_distill.Distiller(student, teacher, alpha=0.5, missing_label=-1)
    >>> distiller.compile("adam", "sparse_categorical_crossentropy")
    >>> distiller.fit(x, y, callbacks=[keras_distill.callbacks.MovingAverage(teacher)])
    """

    def __init__(self, teacher: keras.Model, decay: float = 0.999):
        super().__init__()
        if not isinstance(teacher, keras.Model):
            raise TypeError(
                "`teacher` must be a Keras model, such as `keras.models.clone_model(student)`. "
                f"Received: {teacher!r}"
            )
        self.teacher = teacher
        self.decay = fraction("decay", decay)
        self._followed = 0
        self._normalizations: list[keras.layers.Normalization] = []

    def on_train_begin(self, logs: dict | None = None) -> None:
        student = getattr(self.model, "student", None)
        if student is None:
            raise ValueError(f"The model {self.model.name!r} is not a `Distiller`: no student.")
        shapes = [[tuple(w.shape) for w in model.weights] for model in (student, self.teacher)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "`teacher` must have weights of the same shapes as the student, in the same order, "
                f"as `keras.models.clone_model(student)` has. Received: {self.teacher.name!r} with "
                f"{shapes[1]}; the student has {shapes[0]}"
            )
        self._followed = int(self.model.optimizer.iterations)
        # They compute with copies of their weights.
        layers = _keras.layers_of(self.teacher)
        self._normalizations = [x for x in layers if isinstance(x, keras.layers.Normalization)]

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        step = int(self.model.optimizer.iterations)
        if step == self._followed:  # Gradients are accumulated.
            return
        self._followed = step
        share = min(1 - 1 / step, self.decay)
        for mean, weight in zip(self.teacher.weights, self.model.student.weights, strict=True):
            mean.assign(share * mean + (1 - share) * weight)
        for layer in self._normalizations:
            layer.finalize_state()
