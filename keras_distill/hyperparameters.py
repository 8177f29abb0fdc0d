"""Scalars that may change while training goes on: temperatures, weights, alpha."""

from collections.abc import Callable
from typing import Any

import keras


class Hyperparameter:
    """A scalar attribute that may change while training goes on.

    Reading gives a Python float, until a `Distiller` binds the attribute to a variable of its
    own: from then on reading gives the variable, so that a traced training step sees every later
    assignment without being traced again. Assigning checks the value first.

    Args:
        check: One of `keras_distill.checks`, a function of a name and a value that returns the
            value as a float or raises.
    """

    def __init__(self, check: Callable[[str, Any], float]):
        self._check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        if self.name not in instance.__dict__:
            raise AttributeError(self.name)
        value = instance.__dict__[self.name]
        return value.variable if isinstance(value, Bound) else value

    def __set__(self, instance: Any, value: Any) -> None:
        current = instance.__dict__.get(self.name)
        if isinstance(value, Bound):
            instance.__dict__[self.name] = value
        elif isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
            if isinstance(current, Bound):
                raise ValueError(
                    f"`{self.name}` already belongs to a `Distiller`; give its schedule when the "
                    "loss is constructed, or change it with `keras_distill.callbacks.Schedule`."
                )
            instance.__dict__[self.name] = value
        else:
            if isinstance(current, Bound):
                current.assign(value)
            else:
                instance.__dict__[self.name] = self.check(value)

    def check(self, value: Any) -> float:
        """`value` as a float in its range, or an error that names the attribute."""
        return self._check(self.name, value)


class Bound:
    """The variable that a `Distiller` keeps for a hyperparameter, and its schedule if any.

    Args:
        variable: The `keras.Variable`, a scalar.
        check: Function that returns a value as a float or raises.
        schedule: A `keras.optimizers.schedules` schedule, or `None`.
    """

    def __init__(
        self,
        variable: keras.Variable,
        check: Callable[[Any], float],
        schedule: keras.optimizers.schedules.LearningRateSchedule | None = None,
    ):
        self.variable = variable
        self.check = check
        self.schedule = schedule

    def assign(self, value: Any) -> None:
        """Sets the variable to a value in its range."""
        self.variable.assign(self.check(value))


def bind(instance: Any, name: str, dtype: str | None = None) -> Bound:
    """A new variable for a hyperparameter, with its present value and schedule.

    Args:
        instance: The object that has the hyperparameter.
        name: Its name.
        dtype: Dtype of the computation. With `"float64"` the variable is float64 too, else
            float32. Defaults to `keras.config.floatx()`.
    """
    value = instance.__dict__[name]
    schedule = None
    check = getattr(type(instance), name).check
    if isinstance(value, Bound):
        value, schedule = value.variable, value.schedule
    elif isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        value, schedule = check(as_float(value(0))), value
    dtype = dtype or keras.config.floatx()
    variable = keras.Variable(
        as_float(value),
        trainable=False,
        dtype="float64" if dtype == "float64" else "float32",
        name=name,
        aggregation="only_first_replica",
    )
    bound = Bound(variable, check, schedule)
    setattr(instance, name, bound)
    return bound


def as_float(x: Any) -> float:
    """A scalar, tensor or variable as a Python float."""
    return float(keras.ops.convert_to_numpy(x))


def hyperparameters(instance: Any) -> list[str]:
    """Names of the attributes of `instance` that may change while training goes on."""
    return [
        name
        for cls in reversed(type(instance).__mro__)
        for name, value in vars(cls).items()
        if isinstance(value, Hyperparameter)
    ]


def hyperparameter_config(instance: Any, name: str) -> Any:
    """The value of a hyperparameter for `get_config`: a float, or its serialized schedule."""
    value = instance.__dict__[name]
    if isinstance(value, Bound):
        value = value.schedule or float(value.variable)
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return keras.saving.serialize_keras_object(value)
    return value
