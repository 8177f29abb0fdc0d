"""Callbacks that go with a `Distiller`."""

from collections.abc import Callable

import keras

from keras_distill.checks import fraction, whole_number
from keras_distill.frozen import finalize
from keras_distill.resuming import Average


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
    far, until there are `1 / (1 - decay)`. Integers and truth values are the student's. With
    several `steps_per_execution` it follows after the last of them, where gradients are accumulated
    once they are applied, and t counts only these. For students that learn from data without
    labels, with random changes of the inputs as layers of the student.

    The distiller keeps the averages and their t in its checkpoints: the next `fit`, a new
    `compile`, a loaded distiller and a restored run go on with them. Of callbacks that save at
    some batches, put this one first.

    Source: Tarvainen and Valpola, "Mean teachers are better role models" (arXiv:1703.01780),
    section 2, and the authors' code for the first steps. Their teacher normalizes by the batch;
    here it runs as in inference, and the statistics of normalization are averaged as well.

    Args:
        teacher: The model that follows, with weights of the same shapes as the student's, such as
            `keras.models.clone_model(student)`. It is the distiller's teacher, or a part of it.
        decay: The largest a, from 0 to 1.
        steps: The t up to which a teacher has followed that this distiller doesn't know yet, such
            as one loaded from its own file. Defaults to 0: what it holds is replaced at the first
            step.

    Raises:
        TypeError: If `teacher` is no model, or `decay` no number.
        ValueError: If `decay` isn't from 0 to 1, or `steps` not a whole number of at least 0; when
            training begins, if the shapes differ, the model has no student, or `teacher` isn't its
            teacher or a part of it.

    Example:

    >>> teacher = keras.models.clone_model(student)
    >>> distiller = keras_distill.Distiller(student, teacher, alpha=0.5, missing_label=-1)
    >>> distiller.compile("adam", "sparse_categorical_crossentropy")
    >>> distiller.fit(x, y, callbacks=[keras_distill.callbacks.MovingAverage(teacher)])
    """

    def __init__(self, teacher: keras.Model, decay: float = 0.999, steps: int = 0):
        super().__init__()
        if not isinstance(teacher, keras.Model):
            raise TypeError(
                "`teacher` must be a Keras model, such as `keras.models.clone_model(student)`. "
                f"Received: {teacher!r}"
            )
        self.teacher = teacher
        self.decay = fraction("decay", decay)
        self.steps = whole_number("steps", steps, 0)
        self._followed = 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        if not hasattr(self.model, "averages"):
            raise ValueError(f"The model {self.model.name!r} is not a `Distiller`: no averages.")
        student = self.model.student
        if self.teacher is student or not self._is_part(self.teacher):
            raise ValueError(
                "`teacher` must be the distiller's teacher, or a model in it, and not the student: "
                "`average = keras.models.clone_model(student)`, `Distiller(student, average, ...)` "
                f"and `MovingAverage(average)`. Received: {self.teacher.name!r}; the distiller has "
                f"the student {student.name!r} and the teacher {self.model.teacher!r}"
            )
        shapes = [[tuple(w.shape) for w in model.weights] for model in (student, self.teacher)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "`teacher` must have weights of the same shapes as the student, in the same order, "
                f"as `keras.models.clone_model(student)` has. Received: {self.teacher.name!r} with "
                f"{shapes[1]}; the student has {shapes[0]}"
            )
        self._start()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        # By now, other callbacks have restored what they do when training begins.
        self._start()

    def _start(self) -> None:
        """Goes on from the average and the step that the distiller has."""
        self._average = self._known_average()
        self._followed = int(self.model.optimizer.iterations)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        iterations = int(self.model.optimizer.iterations)
        if iterations == self._followed:  # Gradients are accumulated.
            return
        self._followed = iterations
        self._average.steps += 1
        share = min(1 - 1 / self._average.steps, self.decay)
        for mean, weight in zip(self.teacher.weights, self.model.student.weights, strict=True):
            is_float = keras.backend.is_float_dtype(mean.dtype)
            mean.assign(share * mean + (1 - share) * weight if is_float else weight)
        finalize(self.teacher)

    def _known_average(self) -> Average:
        """The distiller's average of the teacher: its own, a loaded one, or a new one."""
        averages = [x for x in self.model.averages if x.model is None or self._is_part(x.model)]
        found = [x for x in averages if x.model is self.teacher]
        found += [x for x in averages if x.model is None]
        if not found:
            found.append(Average(self.steps, self.teacher))
            averages.append(found[0])
        elif found[0].model is None:
            self.teacher.set_weights(found[0].loaded)
            found[0].model, found[0].loaded = self.teacher, []
            finalize(self.teacher)
        self.model.averages = averages
        return found[0]

    def _is_part(self, model: keras.Model) -> bool:
        """Whether a model is, or may be, in the teacher: functions don't tell what they call."""
        return _may_hold(self.model.teacher, {id(x) for x in model.weights})


def _may_hold(teacher, weights):
    """Whether a teacher, or one in it, has weights of these ids, or doesn't tell its own."""
    inner = [*getattr(teacher, "teachers", ()), *filter(None, [getattr(teacher, "teacher", None)])]
    known = {id(x) for x in getattr(teacher, "variables", ()) if isinstance(x, keras.Variable)}
    return not known or weights <= known or any(_may_hold(each, weights) for each in inner)
