"""Weights that keep a form in training: a callback that puts it into each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill import backends
from keras_distill.checks import whole_number
from keras_distill.distiller import Distiller
from keras_distill.pruning import replicas

KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel")


class Form:
    """What a variable is brought to after each step of the optimizer: as Keras, its constraint.

    Args:
        variable: The Keras variable.
    """

    def __init__(self, variable: Any):
        self.variable = variable
        #: What identifies the call of `fit` that it is held in.
        self.run: Any = None

    def __call__(self, value: Any) -> Any:
        """The nearest tensor that has the form."""
        raise NotImplementedError

    def recognize(self) -> None:
        """Takes the form that the variable already has, from the last run or an earlier one."""
        raise NotImplementedError

    def apply(self) -> None:
        """Brings the variable to the form."""
        self.variable.assign(self(ops.convert_to_tensor(self.variable)))


class Mask(Form):
    """Some of the values are 0."""

    def __init__(self, variable: Any):
        super().__init__(variable)
        self.keeps = keras.Variable(np.ones(variable.shape, bool), "bool", trainable=False)

    def __call__(self, value: Any) -> Any:
        # Multiplied with 0, a negative value would become -0.
        return ops.where(self.keeps, value, ops.zeros_like(value))

    def recognize(self) -> None:
        """Zeros stay 0, unless there is nothing else: that is how some layers begin."""
        is_set = ops.convert_to_numpy(self.variable) != 0
        self.keeps.assign(is_set | (not is_set.any()))


class HoldsForms(keras.callbacks.Callback):
    """A callback that holds variables of a student in forms while it is trained.

    Args:
        begin_step: Step of the optimizer from which on `advance` is called.
        end_step: Step from which on it isn't called any more; training that begins later calls it
            once, at once.
        frequency: Steps between two calls.
    """

    def __init__(self, begin_step: int, end_step: int, frequency: int):
        super().__init__()
        self.begin_step = whole_number("begin_step", begin_step, 0)
        self.end_step = whole_number("end_step", end_step, 0)
        self.frequency = whole_number("frequency", frequency, 1)
        if begin_step > end_step:
            raise ValueError(
                "`begin_step` must be at most `end_step`. "
                f"Received: begin_step={begin_step!r}, end_step={end_step!r}"
            )
        self._forms: list[Any] = []
        self._before: list[Any] = []
        self._is_set = False
        self._last = -1

    # What subclasses say.

    def forms_of(self, student: keras.Model) -> Sequence[Form]:
        """A form for each variable that is held."""
        raise NotImplementedError

    def advance(self, progress: float) -> None:
        """Changes and applies the forms; those that are as they should be, it leaves as they are.

        Args:
            progress: How far the schedule is, from 0 to 1: `1 - (1 - t)**3` at a share `t` of the
                steps (arXiv:1710.01878, equation 1).
        """
        raise NotImplementedError

    # What Keras calls.

    def on_train_begin(self, logs: dict | None = None) -> None:
        backends.require(f"`{type(self).__name__}`", "tensorflow")
        student = self.model.student if isinstance(self.model, Distiller) else self.model
        self._forms = list(self.forms_of(student))
        if not self._forms:
            raise ValueError(
                f"`{type(self).__name__}` finds nothing to hold in the model {student.name!r}. "
                "It must have trainable kernels."
            )
        # Keras gives the callbacks of one `fit` one dict.
        self._before = [_without_earlier(x.variable.constraint, self.params) for x in self._forms]
        strategy = self.model.distribute_strategy
        if strategy is not None and strategy.num_replicas_in_sync > 1:
            replicas.hold(self.model.optimizer, self._forms, self.params)
        else:
            for form, before in zip(self._forms, self._before, strict=True):
                form.run = self.params
                form.variable.constraint = form if before is None else _Both(before, form)
        # A step that was traced before doesn't know them.
        self.model.make_train_function(force=True)
        self._is_set = False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        # Only now has every other callback restored what it restores when training begins.
        if not self._is_set:
            self._is_set = True
            self._last = self._step
            for form in self._forms:
                form.recognize()
            if self._last >= self.end_step:
                self.advance(1.0)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        step, last = self._step, self._last
        self._last = step
        if step < self.begin_step or last >= self.end_step:
            return
        if step // self.frequency > last // self.frequency or step >= self.end_step:
            self.advance(self._progress(step))

    def on_train_end(self, logs: dict | None = None) -> None:
        for form, before in zip(self._forms, self._before, strict=True):
            # Optimizers that average weights have just set them.
            form.apply()
            form.variable.constraint = before
        replicas.release(self.model.optimizer)
        self.model.make_train_function(force=True)

    def _progress(self, step: int) -> float:
        if step >= self.end_step:  # Also where the schedule is a single step.
            return 1.0
        return 1 - (1 - (step - self.begin_step) / (self.end_step - self.begin_step)) ** 3

    @property
    def _step(self) -> int:
        return int(ops.convert_to_numpy(self.model.optimizer.iterations))


class _Both:
    """One constraint after the other."""

    def __init__(self, first: Any, second: Any):
        self.first, self.second = first, second

    def __call__(self, value: Any) -> Any:
        return self.second(self.first(value))


def _without_earlier(constraint: Any, run: Any) -> Any:
    """A constraint without the forms that an interrupted call of `fit` left on it."""
    if isinstance(constraint, _Both):
        first, second = (_without_earlier(x, run) for x in (constraint.first, constraint.second))
        return _Both(first, second) if first and second else first or second
    return None if isinstance(constraint, Form) and constraint.run is not run else constraint


def kernels_of(student: keras.Model) -> list:
    """The trainable kernels of a model."""
    return [x for x in student.trainable_variables if x.name in KERNELS]
