"""One training run and the validation metric at its end."""

import gc
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_distill.checks import whole_number
from keras_distill.evaluation import intervals

#: Words in the names of metrics: of those where more is better, and of those where less is.
_WORDS = {
    "max": (
        "acc", "accuracy", "auc", "correlation", "f1", "fbeta", "io", "iou", "precision", "r2",
        "recall", "sensitivity", "similarity", "specificity",
    ),
    "min": (
        "cosh", "crossentropy", "divergence", "error", "hinge", "logcosh", "loss", "mae", "mape",
        "mse", "msle", "poisson", "rmse",
    ),
}  # fmt: skip


def direction(monitor: str, mode: str | None = None) -> str:
    """`"max"` or `"min"`: which values of a metric are better.

    Raises:
        ValueError: If `mode` isn't one of these or `None`, or the metric's name doesn't tell.
    """
    if mode in ("max", "min"):
        return mode
    if mode is not None:
        raise ValueError(f'`mode` must be "max", "min" or None. Received: mode={mode!r}')
    # The last word with a known direction: "classifier_accuracy_loss" is a loss.
    for word in reversed(monitor.split("_")):
        for found, words in _WORDS.items():
            if word in words:
                return found
    raise ValueError(
        f"The name of the metric {monitor!r} doesn't tell whether more or less of it is better. "
        'Give `mode`: "max" or "min".'
    )


def check(monitor: str, epochs: int, seed: int) -> None:
    """Raises unless a metric is measured on validation data, and numbers are in their ranges."""
    whole_number("epochs", epochs, 1)
    whole_number("seed", seed, 0)
    if not monitor.startswith("val_"):
        raise ValueError(
            "`monitor` must be a metric on validation data, such as 'val_accuracy'. "
            f"Received: monitor={monitor!r}"
        )


def run(
    build: Callable[[], Any],
    train: Any,
    validation: Any,
    seed: int,
    *,
    epochs: int,
    monitor: str,
    watch: keras.callbacks.Callback | None = None,
    **arguments: Any,
) -> dict[str, float]:
    """Builds a model from a seed, trains it, and returns its logs at the end of the last epoch.

    Args:
        build: Function without arguments that returns a compiled model.
        train: `(x, y)`, or a dataset that `fit` takes.
        validation: Likewise.
        seed: Seed of weights, dropout and shuffling.
        epochs: Number of epochs.
        monitor: Metric that the logs must hold.
        watch: A callback that runs after those in `arguments`, or `None`.
        **arguments: Other arguments of `fit`.

    Raises:
        ValueError: If the logs don't hold `monitor`.
    """
    keras.utils.set_random_seed(seed)
    model = build()
    pair = train if isinstance(train, tuple) else (train,)
    callbacks = [*arguments.pop("callbacks", ()), *([watch] if watch else [])]
    history = model.fit(
        *pair,
        validation_data=validation,
        epochs=epochs,
        verbose=0,
        callbacks=callbacks,
        **arguments,
    ).history
    logs = {name: values[-1] for name, values in history.items()}
    if monitor not in logs:
        raise ValueError(
            f"`fit` doesn't report {monitor!r}. It reports: {', '.join(sorted(logs))}."
        )
    del model
    # Keras models hold cycles: without this, those of many runs pile up.
    gc.collect()
    return logs


def summary(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean over runs, and half its 95 % interval (`None` for a single run)."""
    mean = math.fsum(values) / len(values)
    interval = intervals.over_runs(values)
    return mean, interval and (interval[1] - interval[0]) / 2


def text(values: Sequence[float]) -> str:
    """The mean over runs with half its interval, as text."""
    mean, half = summary(values)
    return f"{mean:.4g}" + (f" ± {half:.2g}" if half is not None else "")
