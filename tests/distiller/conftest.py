"""Small models and data for the promises of the `Distiller`."""

import keras
import numpy as np
import pytest
from keras import layers


@pytest.fixture
def dense():
    """Builds a small dense classifier of 4 inputs and 3 classes."""

    def build(width=5, name=None, regularizer=None, activation=None):
        return keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(
                    width, activation="tanh", name="hidden", kernel_regularizer=regularizer
                ),
                layers.Dense(3, name="scores", activation=activation),
            ],
            name=name,
        )

    return build


@pytest.fixture
def batch(rng):
    """32 samples of 4 inputs, with labels of 3 classes and positive weights."""
    x = rng.normal(size=(32, 4)).astype("float32")
    y = rng.integers(0, 3, 32)
    return x, y, rng.uniform(0.2, 2, 32).astype("float32")


@pytest.fixture
def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def log_softmax(z):
    """In float64, written without the code under test."""
    z = np.asarray(z, "float64")
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def soft_targets(teacher, student, temperature):
    """T²·KL for each sample, in float64."""
    log_p = log_softmax(np.asarray(teacher, "float64") / temperature)
    log_q = log_softmax(np.asarray(student, "float64") / temperature)
    return temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(-1)


def labels_loss(y, student):
    """Cross-entropy for each sample, in float64."""
    return -np.take_along_axis(log_softmax(student), np.asarray(y)[:, None], -1)[:, 0]


@pytest.fixture
def formulas():
    """Formulas in float64 NumPy: `soft_targets(teacher, student, T)`, `labels_loss(y, student)`."""

    class Formulas:
        pass

    Formulas.soft_targets = staticmethod(soft_targets)
    Formulas.labels_loss = staticmethod(labels_loss)
    return Formulas


@keras.saving.register_keras_serializable("keras_distill_tests")
class Count(layers.Layer):
    """An identity that counts, in a variable, how often it really runs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.count = self.add_weight(
            shape=(), dtype="int32", trainable=False, initializer="zeros", name="count"
        )

    def call(self, inputs):
        self.count.assign_add(1)
        return inputs


@pytest.fixture
def counter():
    """A layer that counts its runs."""
    return Count
