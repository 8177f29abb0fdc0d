"""A distiller that an earlier version saved in the middle of training, and how it trains on.

`python tests/unchanged/saved.py` saved it, once: `distiller.keras` and `distiller.weights.h5`.
"""

import keras
import numpy as np
import small
from fits import BATCH, CROSS_ENTROPY, convolutional, inputs_of, labels, schedules

import keras_distill
from keras_distill import losses

FILE, WEIGHTS = small.HERE / "distiller.keras", small.HERE / "distiller.weights.h5"
SAVED_AFTER, STEPS = 4, 10


def distiller():
    """With an adapter, a loss with weights of its own, and schedules; compiled, fresh."""
    matches = [
        losses.SoftTargets(temperature=schedules.ExponentialDecay(8.0, 5, 0.5)),
        keras_distill.Match(losses.Hint(), "stage1", "stage1", adapter="auto", weight=0.5),
        keras_distill.Match(losses.VariationalInformation(), "embedding", adapter="auto"),
    ]
    alpha = schedules.PiecewiseConstantDecay([6], [0.25, 0.75])
    result = keras_distill.Distiller(convolutional(3), teacher(), matches, alpha)
    result.compile(
        keras.optimizers.Adam(0.01), CROSS_ENTROPY, metrics=["accuracy"], jit_compile=False
    )
    return result


def teacher():
    return convolutional(4, seed=1)


def trained(model, start, stop):
    """The model after more of the same steps, and what `fit` reported."""
    rows = slice(start * BATCH, stop * BATCH)
    x, y = inputs_of(model.student)[rows], labels()[rows]
    history = model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0).history
    return {name: float(values[-1]) for name, values in history.items()}


def loaded():
    """The distiller of the file."""
    model = keras.models.load_model(FILE)
    model.teacher = teacher()
    return model


def filled():
    """A distiller that loads the weights."""
    model = distiller()
    model.load_weights(WEIGHTS)
    return model


CASES = {"file": loaded, "weights": filled}


def compute(cases=CASES):
    """All values after the last step: of the loaded file, and of the loaded weights."""
    found = {}
    for name in cases:
        small.fresh_names()
        model = CASES[name]()
        before = [np.asarray(v) for v in model.variables]
        logs = trained(model, SAVED_AFTER, STEPS)
        variables = [*model.variables, *model.optimizer.variables]
        found[name] = {
            "before": small.sha(*before),
            "logs": logs,
            "values": [np.asarray(v).astype("float64").tolist() for v in variables],
        }
    return found


def save():
    """Saves the distiller after some of the steps."""
    small.fresh_names()
    model = distiller()
    trained(model, 0, SAVED_AFTER)
    model.save(FILE)
    model.save_weights(WEIGHTS)


if __name__ == "__main__":
    save()
