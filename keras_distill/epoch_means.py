"""Means over an epoch of what `fit` reports beside the metrics."""

from collections.abc import Callable, Iterable
from typing import Any


class EpochMeans:
    """A mean over the samples of an epoch for each name.

    Keras would report metrics that it finds in a model in `evaluate` too; it doesn't look into
    plain objects.

    Args:
        mean: Class of the metrics: `keras.metrics.Mean`, or that of `tf_keras`.
    """

    def __init__(self, mean: Callable):
        self._mean = mean
        self._metrics: dict[str, Any] = {}

    @property
    def variables(self) -> list:
        """The variables in which the means are counted."""
        return [variable for mean in self._metrics.values() for variable in mean.variables]

    def add(self, names: Iterable[str]) -> None:
        """Adds a mean for each name that has none."""
        for name in names:
            if name not in self._metrics:
                self._metrics[name] = self._mean(name=name)

    def update(self, values: dict, batch_size: Any) -> None:
        """Counts the values of a batch, scalars by name, once for each of its samples."""
        for name, value in values.items():
            self._metrics[name].update_state(value, sample_weight=batch_size)

    def results(self, names: Iterable[str]) -> dict:
        """The means so far, by name."""
        return {name: self._metrics[name].result() for name in names}

    def reset(self) -> None:
        """Begins a new epoch."""
        for metric in self._metrics.values():
            metric.reset_state()
