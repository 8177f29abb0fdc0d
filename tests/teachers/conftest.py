"""Small models, and formulas in float64, for what teachers promise."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill


def log_softmax(z):
    z = np.asarray(z, "float64")
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def softmax(z):
    return np.exp(log_softmax(z))


def soft_targets(teacher, student, temperature):
    """T²·KL for each sample, in float64."""
    log_p = log_softmax(np.asarray(teacher, "float64") / temperature)
    log_q = log_softmax(np.asarray(student, "float64") / temperature)
    return temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(-1)


@pytest.fixture(scope="session")
def formulas():
    """`log_softmax`, `softmax` and `soft_targets` in float64 NumPy."""

    class Formulas:
        pass

    for function in (log_softmax, softmax, soft_targets):
        setattr(Formulas, function.__name__, staticmethod(function))
    return Formulas


@pytest.fixture(scope="session")
def dense():
    """Builds a small dense classifier of 4 inputs; the same `seed` gives the same weights."""

    def build(classes=3, activation=None, seed=1, name=None):
        keras.utils.set_random_seed(seed)
        return keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(8, activation="tanh", name="hidden", kernel_initializer="he_normal"),
                layers.Dense(
                    classes, activation=activation, name="scores", bias_initializer="normal"
                ),
            ],
            name=name,
        )

    return build


@pytest.fixture(scope="session")
def x():
    return np.random.default_rng(0).normal(size=(16, 4)).astype("float32") * 3


@pytest.fixture(scope="session")
def loss_of():
    """The distillation loss of a batch, computed eagerly by a `Distiller`."""

    def compute(student, teacher, x, loss=None):
        distiller = keras_distill.Distiller(student, teacher, loss, alpha=0.0)
        distiller.build_for(keras.tree.map_structure(keras.ops.convert_to_tensor, x))
        answer = distiller.run_student(x, training=False)
        values = distiller.compute_losses(x, None, answer, distiller.ask_teacher(x))
        return float(values["loss"])

    return compute
