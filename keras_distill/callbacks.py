"""Callbacks that go with a `Distiller`."""

from collections.abc import Callable

import keras


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
