"""Normalization of rows with next to no variance, whose variance is rounded to 0."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from aware import steps_apart
from keras_distill.tflite import runtimes

from keras_distill import quantization, tflite
from keras_distill.quantization.layers import InverseRoot

layers = keras.layers
RUNTIMES = ["litert", "litert-reference", *["micro"] * runtimes.micro_available()]


def student(**options):
    """ReLU before the normalization, as in the padded rows of texts and recordings."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 16), name="x")
    x = layers.ReLU()(layers.Dense(16, use_bias=False)(inputs))
    return keras.Model(inputs, layers.LayerNormalization(name="norm", **options)(x))


def rows(scale=1.0):
    """The last two rows are padding; that before them is nearly so."""
    x = np.random.default_rng(0).normal(size=(64, 6, 16)).astype("float32") * scale
    x[:, 4:] = 0
    x[:, 3] *= 0.02
    return x


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "scale", "bits"),
    [
        ({"epsilon": 1e-5}, 30.0, 8),
        pytest.param({"epsilon": 1e-5, "learned": True}, 30.0, 8, marks=pytest.mark.long),
        pytest.param({"epsilon": 1e-5}, 30.0, 16, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_rows_without_variance(options, scale, bits):
    options = dict(options)
    learned = options.pop("learned", False)
    x, model = rows(scale), student(**options)
    expected = model.predict(x, verbose=0)
    aware = quantization.quantize_aware(model, x, activation_bits=bits, learned_steps=learned)
    error = np.sqrt(np.mean(np.square(aware.predict(x, verbose=0) - expected), axis=(0, 2)))
    # Rows with variance are as near as if there were no others.
    assert error[:3].max() < (0.08 if bits == 8 else 0.01)
    np.testing.assert_array_equal(error[4:], 0)
    aware.compile(keras.optimizers.SGD(1e-3), "mse", jit_compile=False)
    history = aware.fit(x, expected, batch_size=8, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert all(np.isfinite(w).all() for w in aware.get_weights())
    file = tflite.convert(aware, io=f"int{bits}").tflite
    for runtime in RUNTIMES:
        apart = steps_apart(aware, file, [x], runtime)
        # Of 256 steps, and of 65,536. In the row between those and the padding, the kernels'
        # means may round a variance to 0 that isn't 0 in the simulation.
        assert apart[:, :3].max() <= (16 if bits == 8 else 160)
        assert apart.mean() < 1
        np.testing.assert_array_equal(apart[:, 4:], 0)


@pytest.mark.long
def test_training_without_calibration_stays_finite():
    x, model = rows(30.0), student(epsilon=1e-5)
    aware = quantization.quantize_aware(model)
    aware.compile(keras.optimizers.SGD(1e-3), "mse", jit_compile=False)
    history = aware.fit(x, model.predict(x, verbose=0), batch_size=8, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(aware.predict(x, verbose=0)).all()


def test_the_range_of_inverses():
    """From 0 to what can be told apart: 16 times the least."""
    x, model = rows(30.0), student(epsilon=1e-5)
    aware = quantization.quantize_aware(model, x)
    before = keras.Model(model.inputs, model.layers[-2].output).predict(x, verbose=0)
    least = (np.float64(before).var(-1).max() + 1e-5) ** -0.5
    scale, zero_point = aware.get_layer("norm_inverse_range").grid()
    assert float(scale) * 255 == pytest.approx(16 * least, rel=1e-3)
    assert float(zero_point) == -128


def test_inverse_root_and_its_gradient():
    x = tf.constant([0.0, 0.25, 4.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = InverseRoot()(x)
    np.testing.assert_allclose(y, [np.inf, 2.0, 0.5], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(y, x, [1.0, 1.0, 1.0]), [0, -4, -1 / 16], rtol=1e-6)


def test_other_normalizations_are_refused_by_name():
    x = np.ones((4, 6, 16), "float32")
    with pytest.warns(UserWarning, match="rms_scaling"):  # Keras' own.
        scaled = layers.LayerNormalization(rms_scaling=True, name="norm")
    for layer in (
        scaled,
        layers.RMSNormalization(name="norm"),
        layers.GroupNormalization(4, name="norm"),
        layers.UnitNormalization(name="norm"),
    ):
        inputs = keras.Input((6, 16))
        with pytest.raises(ValueError, match=r"'norm' \((Layer|RMS|Group|Unit)Normalization\)"):
            quantization.quantize_aware(keras.Model(inputs, layer(inputs)), x)
