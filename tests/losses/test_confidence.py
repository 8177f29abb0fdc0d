"""`Confident`: which samples count, and when."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill
from keras_distill import losses

RNG = np.random.default_rng(0)


def test_samples_count_from_the_threshold_on():
    """In float64, to the last of a probability of 0.8: at the threshold it counts."""
    teacher = np.log([[0.8, 0.1, 0.1], [0.79, 0.2, 0.01], [0.05, 0.05, 0.9]])
    student = RNG.standard_normal((3, 3))
    inner = losses.SoftTargets(2.0, dtype="float64", reduction="none")
    loss = losses.Confident(inner, 0.8 - 1e-12, dtype="float64", reduction="none")
    want = np.asarray(inner(teacher, student)) * [1, 0, 1]
    np.testing.assert_allclose(loss(teacher, student), want, rtol=1e-13)
    mean = losses.Confident(inner, 0.8 - 1e-12, dtype="float64")(teacher, student)
    np.testing.assert_allclose(mean, want.mean(), rtol=1e-13)


def test_a_teacher_that_is_not_finite_is_seen():
    """It isn't taken for one that isn't sure."""
    teacher = np.array([[np.nan, 0.0, 0.0], [0.0, 0.0, 0.1]])
    values = losses.Confident(threshold=0.8, reduction="none")(teacher, np.zeros((2, 3)))
    np.testing.assert_array_equal(values, [np.nan, 0.0])


def test_positions_count_by_themselves_and_labels_are_passed_on():
    teacher, student = RNG.standard_normal((2, 2, 3, 4)) * 3
    labels = RNG.integers(0, 4, (2, 3))
    p = np.exp(teacher) / np.exp(teacher).sum(-1, keepdims=True)
    inner = losses.DKD(reduction="none")
    loss = losses.Confident(losses.DKD(), 0.8, reduction="none")
    sure = p.max(-1) >= 0.8
    assert 0 < sure.sum() < sure.size
    want = np.asarray(inner((teacher, labels), student)) * sure
    np.testing.assert_allclose(loss((teacher, labels), student), want, rtol=1e-6)


def network(seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((6,)), layers.Dense(3)])


def distilled(threshold):
    teacher, student = network(0), network(1)
    distiller = keras_distill.Distiller(
        student, teacher, losses.Confident(losses.SoftTargets(1.0), threshold), alpha=0.0
    )
    distiller.compile(keras.optimizers.SGD(0.1))
    return distiller


def test_a_curriculum_goes_from_what_is_sure_to_all(tmp_path):
    """Step by step: the gradient is that of those sure at that step's threshold; also resumed."""
    x = RNG.standard_normal((6, 8, 6)).astype("float32")
    falling = keras.optimizers.schedules.PolynomialDecay(0.9, 4, end_learning_rate=0.0)
    distiller = distilled(falling)
    answers = np.asarray(distiller.student(x[0]))  # Builds it.
    assert answers.shape == (8, 3)
    reference, counts = network(1), []
    teacher = network(0)
    want = []
    for step, batch in enumerate(x):
        z = np.float64(teacher(batch))
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        sure = p.max(-1) >= max(0.0, 0.9 * (1 - step / 4))
        counts.append(sure.sum())
        kernel, bias = (np.float64(w) for w in reference.get_weights())
        q = np.exp(batch @ kernel + bias)
        apart = sure[:, None] * (q / q.sum(-1, keepdims=True) - p) / len(batch)
        reference.set_weights([kernel - 0.1 * batch.T @ apart, bias - 0.1 * apart.sum(0)])
        want.append(reference.get_weights())
    assert counts[0] < counts[1] <= 8
    assert counts[-1] == 8
    for step, batch in enumerate(x):
        if step == 3:
            distiller.save_weights(tmp_path / "half.weights.h5")
            distiller = distilled(falling)
            distiller.optimizer.build(distiller.trainable_variables)
            distiller.load_weights(tmp_path / "half.weights.h5")
        distiller.train_on_batch(batch)
        for got, each in zip(distiller.student.get_weights(), want[step], strict=True):
            np.testing.assert_allclose(got, each, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(TypeError, match="`Confident` takes a loss on logits"):
        losses.Confident(keras.losses.MeanSquaredError())
    with pytest.raises(ValueError, match="compares the logits of each position by itself"):
        losses.Confident(losses.DIST())
    with pytest.raises(ValueError, match="`threshold` must be"):
        losses.Confident(threshold=1.5)
    with pytest.raises(ValueError, match="each output is a decision of its own"):
        losses.Confident(losses.SoftTargets(activation="sigmoid"))(np.ones((2, 3)), np.ones((2, 3)))
    schedule = keras.optimizers.schedules.ExponentialDecay(4.0, 10, 0.5)
    with pytest.raises(ValueError, match="in `Confident` stay as they are: give `temperature`"):
        losses.Confident(losses.SoftTargets(schedule))
