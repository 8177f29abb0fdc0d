"""What resuming a run takes beside the weights, and Keras doesn't save itself."""

from typing import Any

import numpy as np
from keras import ops

from keras_distill import _keras


def run_state(model: Any) -> dict[str, list]:
    """The hyperparameters of a distiller and the seeds in it: lists of variables by name."""
    hyperparameters = list(model.hyperparameters.values())
    return {"hyperparameters": hyperparameters, "seeds": _keras.seed_states(model)}


def save_run_state(model: Any, store: Any) -> None:
    """Writes `run_state` to the store that Keras keeps a layer's variables in."""
    for name, variables in run_state(model).items():
        if variables:
            store[name] = np.stack([ops.convert_to_numpy(value) for value in variables])


def load_run_state(model: Any, store: Any) -> dict[str, Any]:
    """Reads `run_state`, and returns what else is in the store, by name."""
    state = run_state(model)
    for name, variables in state.items():
        for variable, value in zip(variables, store[name] if variables else (), strict=True):
            variable.assign(value)
    return {name: store[name] for name in store.keys() if name not in state}  # noqa: SIM118
