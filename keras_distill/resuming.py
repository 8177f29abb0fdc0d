"""What resuming a run takes beside the weights, and Keras doesn't save itself."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill import _keras


@dataclasses.dataclass
class Average:
    """A model whose weights are averages of the student's.

    Attributes:
        steps: How many times it has followed.
        model: The model, or `None`: it was loaded, and no model has taken it yet.
        loaded: The weights that were loaded, until then.
    """

    steps: int
    model: keras.Model | None = None
    loaded: list[np.ndarray] = dataclasses.field(default_factory=list)

    def values(self) -> list[np.ndarray]:
        return self.loaded if self.model is None else self.model.get_weights()


def run_state(model: Any) -> dict[str, list]:
    """The hyperparameters of a distiller and the seeds in it: lists of variables by name."""
    hyperparameters = list(model.hyperparameters.values())
    return {"hyperparameters": hyperparameters, "seeds": _keras.seed_states(model)}


def save_run_state(model: Any, store: Any) -> None:
    """Writes `run_state` and averages to the store that Keras keeps a layer's variables in."""
    for name, variables in run_state(model).items():
        if variables:
            store[name] = np.stack([ops.convert_to_numpy(value) for value in variables])
    if model.averages:
        store["averages"] = np.array([average.steps for average in model.averages])
    for index, average in enumerate(model.averages):
        for number, value in enumerate(average.values()):
            store[f"average{index}_{number:05}"] = value


def load_run_state(model: Any, store: Any) -> dict[str, Any]:
    """Reads what `save_run_state` wrote, and returns what else is in the store, by name."""
    state = run_state(model)
    for name, variables in state.items():
        for variable, value in zip(variables, store[name] if variables else (), strict=True):
            variable.assign(value)
    others = {name: store[name] for name in store.keys() if name not in state}  # noqa: SIM118
    if "averages" in others:
        model.averages = [
            Average(int(steps), loaded=_taken(others, f"average{index}_"))
            for index, steps in enumerate(others.pop("averages"))
        ]
    return others


def _taken(values, prefix):
    """Those whose names begin so, in order. They are removed from the dict."""
    return [np.asarray(values.pop(name)) for name in sorted(values) if name.startswith(prefix)]
