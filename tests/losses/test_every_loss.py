"""What holds for every loss: its formula, its gradient, weights, dtypes, one sample, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from loss_cases import (
    CASES,
    as_tensors,
    joined,
    numeric_gradient,
    rows,
    value_and_gradient,
)
from sweeps import rest_is_long

import keras_distill

every_loss = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
ONE_OF_A_CLASS = list({type(case.make()): case for case in CASES}.values())
#: The losses that `make test` compiles; `make test-long` compiles the others.
COMPILED = [
    case for case in ONE_OF_A_CLASS if case.name in ("soft_targets", "attention", "contrastive")
]


def assert_structures_close(actual, desired, **tolerance):
    for a, d in zip(keras.tree.flatten(actual), keras.tree.flatten(desired), strict=True):
        np.testing.assert_allclose(a, d, **tolerance)


@every_loss
def test_value_of_each_sample_is_the_formulas(case):
    teacher, student, labels = case.arrays()
    got = case.loss(reduction="none")(joined(as_tensors(teacher), labels), as_tensors(student))
    want = case.formula(teacher, student, labels)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@every_loss
def test_gradient_is_that_of_the_formula(case):
    teacher, student, labels = case.arrays()
    _, got = value_and_gradient(case.loss(), teacher, labels, student)
    want = numeric_gradient(lambda s: case.formula(teacher, s, labels).mean(), student)
    assert_structures_close(got, want, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.zero_at_equality], ids=lambda case: case.name
)
def test_equal_teacher_and_student_cost_nothing_and_pull_nowhere(case):
    teacher, _, labels = case.arrays()
    value, gradient = value_and_gradient(case.loss(), teacher, labels, teacher)
    np.testing.assert_allclose(value, 0, atol=case.zero_at_equality)
    assert_structures_close(gradient, keras.tree.map_structure(np.zeros_like, teacher), atol=5e-5)


@pytest.mark.parametrize("case", rest_is_long(CASES, ONE_OF_A_CLASS), ids=lambda case: case.name)
def test_sample_weights_and_rows_of_weight_0(case):
    """A row of weight 0 influences nothing, whatever it holds; the others keep their weights."""
    teacher, student, labels = case.arrays()
    batch = len(keras.tree.flatten(student)[0])
    weights = np.linspace(0.5, 2, batch)
    weights[1] = 0
    kept = np.flatnonzero(weights)
    values = case.formula(
        rows(teacher, kept), rows(student, kept), None if labels is None else labels[kept]
    )
    values = values.reshape(len(kept), -1)
    want = (weights[kept][:, None] * values).sum() / (batch * values.shape[1])

    value, gradient = value_and_gradient(case.loss(), teacher, labels, student, weights)
    np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-5)
    for leaf in keras.tree.flatten((teacher, student)):
        leaf[1] = 7 * leaf[1] - 5
    changed, changed_gradient = value_and_gradient(case.loss(), teacher, labels, student, weights)
    assert changed == value
    assert_structures_close(changed_gradient, gradient, rtol=1e-6, atol=1e-7)
    for leaf in keras.tree.flatten(gradient):
        np.testing.assert_array_equal(leaf[1], 0)


@pytest.mark.parametrize("weights", [[1.0, 3.0], [[0.5, 0.0, 1.0], [2.0, 1.0, 1.5]]])
def test_mean_with_sample_weight(rng, weights):
    """Weights of rows and of steps: the sum of weighted values over the sum of weights."""
    teacher, student = rng.normal(size=(2, 2, 3, 4))
    values = np.square(teacher - student).mean(-1)
    loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    loss = keras_distill.match.as_loss(loss)
    want = np.average(values, weights=np.broadcast_to(np.array(weights).reshape(2, -1), (2, 3)))
    assert float(loss(teacher, student, weights)) == pytest.approx(want, rel=1e-5)


def test_weights_of_values_in_double_precision(rng):
    teacher, student = rng.normal(size=(2, 5, 4))
    weights = [1.0, 0.0, 2.0, 1.0, 0.5]
    loss = keras_distill.match.as_loss(
        lambda t, s: keras.ops.mean(keras.ops.square(keras.ops.cast(t - s, "float64")), -1)
    )
    want = (np.square(teacher - student).mean(-1) * weights).mean()
    value = loss(tf.constant(teacher), tf.constant(student), tf.constant(weights))
    assert float(value) == pytest.approx(want, rel=1e-5)


@pytest.mark.long
@every_loss
def test_batch_of_one(case):
    teacher, student, labels = case.arrays()
    teacher, student = rows(teacher, slice(1)), rows(student, slice(1))
    labels = None if labels is None else labels[:1]
    value, gradient = value_and_gradient(case.loss(), teacher, labels, student)
    want = case.formula(teacher, student, labels).mean()
    np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in keras.tree.flatten(gradient))


@pytest.mark.parametrize("case", rest_is_long(CASES, ONE_OF_A_CLASS), ids=lambda case: case.name)
@pytest.mark.parametrize("fill", rest_is_long([0.0, 0.1, -3.0], [0.1]))
def test_all_equal_values_keep_the_gradient_finite_and_small(case, fill):
    teacher, student, labels = case.arrays()
    student = keras.tree.map_structure(lambda a: np.full_like(a, fill), student)
    value, gradient = value_and_gradient(case.loss(), teacher, labels, student)
    assert np.isfinite(value)
    for leaf in keras.tree.flatten(gradient):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() < 1000
    if case.zero_at_equality is not None:
        same, _ = value_and_gradient(case.loss(), student, labels, student)
        assert np.isfinite(same)


@pytest.mark.parametrize("case", rest_is_long(CASES, ONE_OF_A_CLASS), ids=lambda case: case.name)
def test_float16(case):
    """Half precision outputs are compared in float32; a loss in float16 is right to its digits."""
    teacher, student, labels = case.arrays()
    halved = keras.tree.map_structure(
        lambda a: a.astype("float16").astype("float64"), (teacher, student)
    )
    want = case.formula(*halved, labels).mean()
    y_true, y_pred = joined(as_tensors(teacher, "float16"), labels), as_tensors(student, "float16")
    value = case.loss()(y_true, y_pred)
    assert value.dtype == "float32"
    np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-5)
    half = case.loss(dtype="float16")
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = half(y_true, y_pred)
    assert value.dtype == "float16"
    np.testing.assert_allclose(value, want, rtol=2e-2, atol=2e-2)
    for leaf in keras.tree.flatten(tape.gradient(value, y_pred)):
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize("case", rest_is_long(ONE_OF_A_CLASS, COMPILED), ids=lambda case: case.name)
def test_jit_compile(case):
    teacher, student, labels = case.arrays()
    loss = case.loss()

    # As `fit` compiles a step, which AutoGraph doesn't convert.
    @tf.function(jit_compile=True, autograph=False)
    def compiled(y_true, y_pred):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = loss(y_true, y_pred)
        return value, tape.gradient(value, y_pred)

    got = compiled(joined(as_tensors(teacher), labels), as_tensors(student))
    want = value_and_gradient(case.loss(), teacher, labels, student)
    assert_structures_close(got, want, rtol=1e-5, atol=1e-6)


@every_loss
def test_config_round_trip(case):
    loss = case.loss(name="mine", reduction="sum", dtype="float16")
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(copy) is type(loss)
    assert copy.get_config() == loss.get_config()
    assert (copy.name, copy.reduction, copy.dtype) == ("mine", "sum", "float16")
