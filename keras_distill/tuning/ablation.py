"""Ablation: what each part of the objective adds."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import rich.box
import rich.table

from keras_distill.checks import whole_number
from keras_distill.evaluation import tables
from keras_distill.tuning import training


@dataclasses.dataclass
class Ablation:
    """What `ablate` measured; `print` shows it as a table.

    Attributes:
        values: Dict from what was trained (`"all"`, `"without soft_targets"`, `"labels alone"`,
            ...) to the monitored metric of each run.
        monitor: The metric.
    """

    values: dict[str, list[float]]
    monitor: str

    def table(self) -> rich.table.Table:
        """Each variant's mean and its difference from "all", as a `rich.table.Table`."""
        table = rich.table.Table(
            box=rich.box.SIMPLE_HEAD,
            caption="±: half the 95 % interval over runs (Student's t); differences run by run.",
            caption_justify="left",
        )
        for name in ("", self.monitor, "difference to all"):
            table.add_column(name, justify="right" if name else "left")
        whole = self.values["all"]
        for name, values in self.values.items():
            apart = [value - other for value, other in zip(values, whole, strict=True)]
            table.add_row(
                name, training.text(values), "" if name == "all" else training.text(apart)
            )
        return table

    def __rich__(self):
        return self.table()

    def __str__(self):
        return tables.as_text(self.table())


def ablate(
    build: Callable[[], Any],
    train: Any,
    validation: Any,
    *,
    epochs: int,
    monitor: str = "val_accuracy",
    runs: int = 3,
    seed: int = 0,
    **arguments: Any,
) -> Ablation:
    """Trains with all losses, with each left out in turn, and on the labels alone.

    A loss is left out by giving it weight 0. Where alpha is above 0, "labels alone" is `alpha=1`
    and "without labels" is `alpha=0`. Every variant runs from the same seeds.

    Args:
        build: Function without arguments that returns a new compiled `Distiller`.
        train: Training data: `(x, y)`, or a dataset that `fit` takes.
        validation: Validation data, likewise: apart from training and test data.
        epochs: Epochs of each run.
        monitor: Metric, as `fit` reports it on validation data.
        runs: Number of seeds for each variant.
        seed: The first seed.
        **arguments: Other arguments of `fit`, such as `batch_size`.

    Returns:
        An `Ablation`.

    Raises:
        ValueError: If a hyperparameter to be set to 0 or 1 follows a schedule, which would
            overwrite it.

    Example:

    >>> print(keras_distill.tuning.ablate(build, (x_train, y_train), (x_val, y_val), epochs=10))
    """
    training.check(monitor, epochs, seed)
    whole_number("runs", runs, 1)
    options = {"epochs": epochs, "monitor": monitor, **arguments}
    values = {}
    for variant, changes in _variants(build()).items():
        changed = functools.partial(_changed, build, changes)
        runs_of = (
            training.run(changed, train, validation, seed + i, **options) for i in range(runs)
        )
        values[variant] = [logs[monitor] for logs in runs_of]
    return Ablation(values, monitor)


def _variants(distiller: Any) -> dict[str, dict[str, float]]:
    """What is compared: for each variant the hyperparameters that it changes."""
    known = distiller.hyperparameters
    names = [name.removesuffix("/weight") for name in known if name.endswith("/weight")]
    variants: dict[str, dict[str, float]] = {"all": {}}
    if len(names) > 1:
        variants |= {f"without {name}": {f"{name}/weight": 0.0} for name in names}
    if float(known["alpha"]) > 0:
        variants |= {"without labels": {"alpha": 0.0}, "labels alone": {"alpha": 1.0}}
    for name in dict.fromkeys(name for changes in variants.values() for name in changes):
        if name in distiller.objective.scheduled:
            raise ValueError(
                f"The hyperparameter {name!r} follows a schedule, which would overwrite the value "
                "that the ablation gives it: give it a number instead."
            )
    return variants


def _changed(build: Callable[[], Any], changes: dict[str, float]) -> Any:
    """A new distiller with some hyperparameters changed."""
    distiller = build()
    for name, value in changes.items():
        distiller.hyperparameters[name].assign(value)
    return distiller
