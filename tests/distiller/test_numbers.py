"""Mixed precision, compilers, several steps at a time, accumulation, clipping, averaging."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sweeps import rest_is_long

import keras_distill
from keras_distill.losses import SoftTargets


def model(width, policy="float32"):
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(width, activation="tanh", name="hidden", dtype=policy),
            layers.Dense(3, dtype=policy),
        ]
    )


def losses():
    mse = keras.losses.MeanSquaredError()
    hidden = keras_distill.Match(mse, student="hidden", teacher="hidden", adapter="auto")
    return [SoftTargets(2.0), hidden]


def trained(batch, cross_entropy, optimizer=None, **compile_arguments):
    """Weights and logs after 8 steps, from the same start."""
    keras.utils.set_random_seed(1)
    x, y, _ = batch
    distiller = keras_distill.Distiller(model(5), model(9), losses())
    distiller.compile(optimizer or keras.optimizers.SGD(0.1), cross_entropy, **compile_arguments)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8).repeat(2)
    history = distiller.fit(data, epochs=1, verbose=0)
    return distiller, history.history


@pytest.mark.parametrize(
    "arguments",
    rest_is_long(
        [{"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 3}],
        [{"jit_compile": True}],
    ),
    ids=str,
)
def test_compiled_or_eager_or_several_steps_give_the_same(batch, cross_entropy, arguments):
    expected, history = trained(batch, cross_entropy, jit_compile=False)
    got, logs = trained(batch, cross_entropy, **arguments)
    for a, b in zip(expected.get_weights(), got.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert set(logs) == set(history)
    for name in history:
        np.testing.assert_allclose(logs[name], history[name], rtol=1e-4)


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        ("float32", "mixed_float16"),
        pytest.param("mixed_float16", "float32", marks=pytest.mark.long),
        pytest.param("mixed_float16", "mixed_bfloat16", marks=pytest.mark.long),
        pytest.param("float32", "float32", marks=pytest.mark.nightly),
        pytest.param("float32", "mixed_bfloat16", marks=pytest.mark.nightly),
        pytest.param("mixed_float16", "mixed_float16", marks=pytest.mark.nightly),
    ],
)
def test_student_and_teacher_of_different_precision(batch, cross_entropy, student, teacher):
    x, y, _ = batch
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(student)
        small = model(5, student)
    finally:
        keras.config.set_dtype_policy(before)
    big = model(9, teacher)
    distiller = keras_distill.Distiller(small, big, losses())
    distiller.compile("sgd", cross_entropy)
    scaled = isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (student == "mixed_float16")
    z, t = small.predict(x, verbose=0), big.predict(x, verbose=0)
    logs = distiller.train_on_batch(x, y, return_dict=True)
    soft = float(SoftTargets(2.0)(t.astype("float32"), z.astype("float32")))
    np.testing.assert_allclose(logs["soft_targets"], soft, rtol=5e-2, atol=1e-3)
    assert all(w.dtype == "float32" for w in distiller.trainable_variables)
    first = logs["loss"]
    for _ in range(20):
        logs = distiller.train_on_batch(x, y, return_dict=True)
    assert logs["loss"] < first


def test_gradient_accumulation_clipping_and_averaging_are_the_optimizers(batch, cross_entropy):
    """The distiller hands gradients to the optimizer as a hand-written loop does."""

    def optimizer():
        return keras.optimizers.SGD(
            0.1,
            momentum=0.9,
            clipnorm=0.05,
            gradient_accumulation_steps=2,
            use_ema=True,
            ema_overwrite_frequency=4,
        )

    x, y, _ = batch
    keras.utils.set_random_seed(1)
    student, teacher = model(5), model(9)
    by_hand = keras.models.clone_model(student)
    by_hand.set_weights(student.get_weights())
    distiller = keras_distill.Distiller(student, teacher, SoftTargets(2.0), alpha=0.5)
    distiller.compile(optimizer(), cross_entropy)
    hand = optimizer()
    for start in range(0, 32, 8):
        rows = slice(start, start + 8)
        distiller.train_on_batch(x[rows], y[rows])
        with tf.GradientTape() as tape:
            z = by_hand(x[rows], training=True)
            loss = 0.5 * cross_entropy(y[rows], z)
            loss += 0.5 * SoftTargets(2.0)(teacher(x[rows]), z)
        weights = by_hand.trainable_variables
        hand.apply(tape.gradient(loss, weights), weights)
    for a, b in zip(student.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
