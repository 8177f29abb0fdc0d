"""A teacher that follows the student."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill
from keras_distill.callbacks import MovingAverage


class Record(keras.callbacks.Callback):
    """The student's weights after each step, in float64."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_batch_end(self, batch, logs=None):
        found = self.model.student.get_weights()
        self.weights.append([weight.astype("float64") for weight in found])


def model():
    return keras.Sequential([keras.Input((4,)), layers.BatchNormalization(), layers.Dense(3)])


@pytest.fixture
def followed(rng):
    """A student, the teacher that follows it, and what was recorded in eight steps."""
    student, teacher = model(), model()
    distiller = keras_distill.Distiller(student, teacher, alpha=0.5, missing_label=-1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.3), loss)
    x, y = rng.normal(size=(16, 4)).astype("float32"), rng.integers(-1, 3, 16)
    record = Record()
    for _ in range(2):  # It goes on from one `fit` to the next.
        distiller.fit(x, y, 4, verbose=0, callbacks=[record, MovingAverage(teacher, decay=0.6)])
    return student, teacher, record.weights


def test_weights_are_those_of_the_formula(followed):
    _, teacher, steps = followed
    assert len(steps) == 8
    means = None
    for t, weights in enumerate(steps, 1):
        a = min(1 - 1 / t, 0.6)
        means = [a * m + (1 - a) * w for m, w in zip(means or weights, weights, strict=True)]
    for found, mean in zip(teacher.get_weights(), means, strict=True):
        np.testing.assert_allclose(found, mean, atol=1e-6)


def test_the_student_moves_and_the_teacher_lags(followed):
    student, teacher, steps = followed
    for after, mean, first in zip(
        student.get_weights(), teacher.get_weights(), steps[0], strict=True
    ):
        assert 0 < np.abs(after - mean).max() < np.abs(after - first).max()


def test_it_follows_steps_not_batches(rng):
    """Of accumulated gradients; and with the statistics of an adapted layer."""
    x, y = rng.normal(3, 2, (32, 4)).astype("float32"), rng.integers(0, 3, 32)
    student = keras.Sequential([keras.Input((4,)), layers.Normalization(), layers.Dense(3)])
    student.layers[0].adapt(x)
    teacher = keras.models.clone_model(student)
    distiller = keras_distill.Distiller(student, teacher, alpha=0.5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sgd = keras.optimizers.SGD(0.3, gradient_accumulation_steps=2)
    distiller.compile(sgd, loss, jit_compile=False)
    record = Record()
    distiller.fit(x, y, 8, verbose=0, callbacks=[record, MovingAverage(teacher)])
    mean = [(a + b) / 2 for a, b in zip(record.weights[1], record.weights[3], strict=True)]
    for found, expected in zip(teacher.get_weights(), mean, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(teacher.layers[0](x), student.layers[0](x), atol=1e-5)


def test_what_cannot_follow_is_named():
    student, other = model(), keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller = keras_distill.Distiller(student, other)
    distiller.compile("sgd", loss)
    x, y = np.zeros((4, 4)), np.zeros(4)
    with pytest.raises(ValueError, match="weights of the same shapes as the student"):
        distiller.fit(x, y, verbose=0, callbacks=[MovingAverage(other)])
    student.compile("sgd", loss)
    with pytest.raises(ValueError, match="is not a `Distiller`"):
        student.fit(x, y, verbose=0, callbacks=[MovingAverage(other)])
    with pytest.raises(TypeError, match="`teacher` must be a Keras model.*Received: 'teacher'"):
        MovingAverage("teacher")
    with pytest.raises(ValueError, match="`decay` must be between 0 and 1"):
        MovingAverage(other, decay=2)
