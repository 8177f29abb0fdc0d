"""Losses with `dtype="float64"` compute in float64 throughout, hyperparameters included."""

import golden
import keras
import numpy as np
import pytest
from keras import layers

import keras_distill
from keras_distill import losses


@pytest.fixture
def both():
    return np.random.default_rng(0).normal(size=(2, 6, 5)) * 3


def soft_targets(t, s, temperature):
    log_p, log_q = (
        z / temperature - np.log(np.exp(z / temperature).sum(-1, keepdims=True)) for z in (t, s)
    )
    return temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(-1)


def test_a_temperature_that_float32_cannot_hold(both):
    t, s = both
    expected = soft_targets(t, s, 0.7)
    loss = losses.SoftTargets(0.7, dtype="float64", reduction=None)
    np.testing.assert_allclose(loss(t, s), expected, rtol=1e-13)
    student = keras.Sequential([keras.Input((5,)), layers.Dense(5)])
    distiller = keras_distill.Distiller(student, keras.models.clone_model(student), loss)
    # From now on a variable holds the temperature.
    np.testing.assert_allclose(loss(t, s), expected, rtol=1e-13)
    distiller.set_hyperparameter("soft_targets/temperature", 1.1)
    np.testing.assert_allclose(loss(t, s), soft_targets(t, s, 1.1), rtol=1e-13)


@pytest.mark.parametrize(
    "make",
    [
        lambda T: losses.DKD(0.3, 1.7, T, dtype="float64", reduction=None),
        lambda T: losses.RLD(0.3, 1.7, T, dtype="float64", reduction=None),
        lambda T: losses.JensenShannon(0.3, T, dtype="float64", reduction=None),
        lambda T: losses.DIST(0.3, 1.7, T, dtype="float64", reduction=None),
        lambda T: losses.SoftTargets(T, activation="sigmoid", dtype="float64", reduction=None),
    ],
    ids=["DKD", "RLD", "JensenShannon", "DIST", "sigmoid"],
)
def test_a_temperature_is_a_divisor_of_the_logits(both, make):
    t, s = both
    hot, cold = make(0.7), make(1.0)
    given = (lambda z: (z, np.arange(6) % 5)) if hot.needs_labels else (lambda z: z)
    expected = 0.7**2 * np.asarray(cold(given(t / 0.7), s / 0.7))
    np.testing.assert_allclose(hot(given(t), s), expected, rtol=1e-12)


def test_temperatures_that_float32_cannot_hold(both):
    t, s = both
    loss = losses.MLKD([0.7, 1.1], dtype="float64", reduction=None)
    np.testing.assert_allclose(loss(t, s), golden.mlkd(t, s, [0.7, 1.1]), rtol=1e-13)
    learned = losses.CTKD(start=0.7, span=1.1, dtype="float64", reduction=None)
    learned.build(t.shape, s.shape)
    expected = soft_targets(t, s, 0.7 + 1.1 / (1 + np.exp(-1)))
    # The weight itself, and so the temperature, is float32.
    np.testing.assert_allclose(learned(t, s), expected, rtol=1e-6)


def test_weights_of_terms(both):
    """DKD is linear in alpha and beta."""
    t, s = both
    labels = np.arange(6) % 5

    def value(alpha, beta):
        return np.asarray(losses.DKD(alpha, beta, dtype="float64", reduction=None)((t, labels), s))

    expected = 0.3 * value(1, 0) + 1.7 * value(0, 1)
    np.testing.assert_allclose(value(0.3, 1.7), expected, rtol=1e-13)


def test_a_margin():
    """The student's squared error and the margin are just at the teacher's squared error."""
    loss = losses.TeacherBoundedRegression(0.1, dtype="float64", reduction=None)
    teacher = np.array([[np.sqrt(0.26 + 1e-9)], [np.sqrt(0.26 - 1e-9)]])
    student = np.full((2, 1), 0.4)
    np.testing.assert_allclose(loss((teacher, np.zeros((2, 1))), student), [0, 0.16], rtol=1e-13)


def test_maps_of_two_sizes(both):
    """Averages over parts of three positions have weights of a third."""
    t = np.random.default_rng(1).normal(size=(2, 6, 3))
    s = np.random.default_rng(2).normal(size=(2, 2, 3))
    loss = losses.AttentionTransfer(dtype="float64", reduction=None)

    def attention(x):
        q = (x**2).sum(-1)
        return q / np.linalg.norm(q, axis=-1, keepdims=True)

    pooled = t.reshape(2, 2, 3, 3).mean(2)
    expected = np.square(attention(pooled) - attention(s)).mean(-1)
    np.testing.assert_allclose(loss(t, s), expected, rtol=1e-12)


def test_the_objective_of_float64_models(both):
    x, y = both[0], np.arange(6) % 5

    def model(seed):
        keras.utils.set_random_seed(seed)
        return keras.Sequential(
            [keras.Input((5,), dtype="float64"), layers.Dense(5, dtype="float64")], name=f"m{seed}"
        )

    student, teacher = model(1), model(2)
    student.dtype_policy = keras.DTypePolicy("float64")
    z, t = np.asarray(student(x)), np.asarray(teacher(x))
    match = keras_distill.Match(losses.SoftTargets(0.7, dtype="float64"), weight=0.3)
    distiller = keras_distill.Distiller(student, teacher, match, alpha=0.1, dtype="float64")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    distiller.compile(keras.optimizers.SGD(0.0), loss)
    answer = distiller.run_student(x, training=False)
    values = distiller.compute_losses(x, y, answer, distiller.ask_teacher(x))
    hard = np.log(np.exp(z).sum(-1)) - z[np.arange(6), y]
    # Keras adds up the compiled losses in float32.
    np.testing.assert_allclose(values["student_loss"], hard.mean(), rtol=1e-6)
    expected = 0.1 * np.float64(values["student_loss"]) + 0.27 * soft_targets(t, z, 0.7).mean()
    np.testing.assert_allclose(values["loss"], expected, rtol=1e-12)
