"""Rounding, ranges and their gradients, against formulas in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_distill.quantization import ranges
from keras_distill.quantization.layers import QuantizedConv2D, QuantizedDense


def grid(minimum, maximum):
    """Scale and zero point of TFLite's asymmetric int8, in float64."""
    minimum, maximum = min(minimum, 0.0), max(maximum, 0.0)
    scale = (maximum - minimum) / 255
    return scale, np.clip(np.round(-128 - minimum / scale), -128, 127)


def rounded(x, scale, zero_point, lowest, highest):
    return (np.clip(np.round(x / scale) + zero_point, lowest, highest) - zero_point) * scale


@pytest.mark.parametrize(("low", "high"), [(-1.3, 2.1), (0.2, 5.0), (-3.0, -0.5), (-0.01, 40.0)])
def test_int8_range(low, high, rng):
    layer = ranges.Range()
    layer.build((None, 64))
    layer.start(low, high)
    x = rng.uniform(1.5 * low - 1, 1.5 * high + 1, (32, 64)).astype("float32")
    scale, zero_point = grid(low, high)
    np.testing.assert_allclose([float(v) for v in layer.grid()], (scale, zero_point), rtol=1e-6)
    expected = rounded(np.float64(x), scale, zero_point, -128, 127)
    difference = np.abs(np.float64(layer(x)) - expected)
    # A value between two steps may go either way in float32.
    assert np.max(difference) <= scale * 1.0001
    assert np.mean(difference > scale / 2) < 1e-3


def test_int16_range_is_symmetric(rng):
    layer = ranges.Range(bits=16)
    layer.build((None, 8))
    layer.start(-0.5, 2.0)
    scale, zero_point = (float(v) for v in layer.grid())
    assert zero_point == 0
    assert scale == pytest.approx(2.0 / 32767, rel=1e-6)
    x = rng.uniform(-2, 2, (16, 8)).astype("float32")
    assert np.max(np.abs(x - layer(x))) <= scale * 0.501


@pytest.mark.parametrize(
    ("signed", "bits", "scale", "zero_point"),
    [(False, 8, 1 / 256, -128), (True, 8, 1 / 128, 0), (False, 16, 1 / 32768, 0)],
)
def test_ranges_that_kernels_prescribe(signed, bits, scale, zero_point):
    assert ranges.FixedRange(signed, bits).grid() == (scale, zero_point)


def test_range_follows_the_data():
    layer = ranges.Range()
    low, high = 0.0, 0.0
    for step, x in enumerate([[-1.0, 2.0], [-3.0, 1.0], [0.5, 4.0]]):
        layer(np.float32([x]), training=True)
        momentum = 0.0 if step == 0 else 0.99
        low = momentum * low + (1 - momentum) * min(*x, 0.0)
        high = momentum * high + (1 - momentum) * max(*x, 0.0)
        np.testing.assert_allclose(layer.minimum, [low], rtol=1e-5)
        np.testing.assert_allclose(layer.maximum, [high], rtol=1e-5)
    layer.frozen.assign(1.0)
    layer(np.float32([[-90.0, 90.0]]), training=True)
    np.testing.assert_allclose(layer.maximum, [high], rtol=1e-5)


def test_inference_leaves_the_range():
    layer = ranges.Range()
    x = np.float32([[-1.23, 4.56]])
    np.testing.assert_array_equal(layer(x), x)
    layer(x, training=True)
    before = float(layer.maximum[0])
    layer(np.float32([[9.0, 9.0]]), training=False)
    assert float(layer.maximum[0]) == before


def test_shared_range_spans_the_averages_of_all_its_tensors():
    layer = ranges.Range(tensors=2)
    for _ in range(50):
        layer(np.float32([[0.0, 1.0]]), index=0, training=True)
        layer(np.float32([[-2.0, 0.5]]), index=1, training=True)
    assert float(layer.grid()[0]) == pytest.approx(3.0 / 255, rel=1e-6)


def test_gradients_of_rounding_and_learned_step(rng):
    x = tf.constant(rng.normal(0, 2, 200).astype("float32"))
    step, zero_point = tf.Variable(0.013), 20.0
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = ranges.fake_quantize(x, step, zero_point, -128, 127)
    dx, dstep = tape.gradient(y, [x, step])
    v = np.float64(x) / np.float64(np.float32(0.013))
    low, high = -128 - zero_point, 127 - zero_point
    inside = (v > low) & (v < high)
    np.testing.assert_array_equal(dx, inside.astype("float32"))
    # Equation 3 of arXiv:1902.08153, its bounds moved by the zero point.
    expected = np.where(inside, np.round(v) - v, np.where(v <= low, low, high)).sum()
    assert float(dstep) == pytest.approx(expected, rel=1e-4)


def test_gradients_of_a_step_per_channel(rng):
    x = tf.constant(rng.normal(0, 1, (6, 5, 3)).astype("float32"))
    step = tf.constant([[[0.01, 0.02, 0.5]]])
    upstream = rng.normal(0, 1, x.shape).astype("float32")
    with tf.GradientTape() as tape:
        tape.watch([x, step])
        y = ranges.fake_quantize(x, step, 0.0, -127, 127)
    dx, dstep = tape.gradient(y, [x, step], upstream)
    v = np.float64(x) / np.float64(step)
    inside = np.abs(v) <= 127
    assert not inside[..., 0].all()
    np.testing.assert_array_equal(dx, upstream * inside)
    expected = upstream * np.where(inside, np.round(v) - v, 127 * np.sign(v))
    np.testing.assert_allclose(dstep, expected.sum((0, 1), keepdims=True), rtol=1e-4)


def test_what_is_clipped_has_a_gradient_of_zero_however_great_it_is():
    x = tf.constant([-np.inf, 0.5, np.inf])
    step = tf.constant(0.01)
    with tf.GradientTape() as tape:
        tape.watch([x, step])
        y = ranges.fake_quantize(x, step, 0.0, -128, 127)
    np.testing.assert_allclose(y, [-1.28, 0.5, 1.27], rtol=1e-6)
    dx, dstep = tape.gradient(y, [x, step])
    np.testing.assert_array_equal(dx, [0, 1, 0])
    assert float(dstep) == pytest.approx(-128 + 127, abs=1e-4)


def test_a_range_that_has_seen_nothing_lets_values_and_gradients_pass(rng):
    x = tf.constant(rng.normal(0, 1, 20).astype("float32"))
    layer = ranges.Range()
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(tape.gradient(y, x), np.ones(20))


def test_learned_range_scales_its_gradient(rng):
    x = tf.constant(rng.normal(0, 1, (4, 50)).astype("float32"))
    layer = ranges.LearnedRange()
    layer.build((None, 50))
    layer.start(-1.0, 2.0)
    with tf.GradientTape() as tape:
        y = layer(x)
    got = tape.gradient(y, layer.step.value)
    with tf.GradientTape() as tape:
        step = tf.Variable(layer.step.value)
        y = ranges.fake_quantize(x, step, layer.zero_point.value, -128, 127)
    plain = tape.gradient(y, step)
    assert float(got) == pytest.approx(float(plain) / np.sqrt(50 * 127), rel=1e-4)


def test_a_learned_step_keeps_a_share_of_its_start_and_recovers(rng):
    """At a rate at which one update takes it far below 0."""
    x = rng.normal(0, 1, (64, 6)).astype("float32")
    y = x @ rng.normal(0, 1, (6, 3)).astype("float32")
    keras.utils.set_random_seed(0)
    kernel, output = QuantizedDense(3, learned_steps=True), ranges.LearnedRange(name="output")
    model = keras.Sequential([keras.Input((6,)), kernel, output])
    kernel.start()
    output.start(-4.0, 4.0)
    model.compile(keras.optimizers.Adam(0.3), "mse", jit_compile=False)
    seen, losses = [], []
    for _ in range(60):
        losses.append(float(model.train_on_batch(x, y)))
        usual = 2 * np.abs(np.float64(kernel.float_kernel)).mean(0) / np.sqrt(127)
        seen.append([np.min(np.ravel(kernel.step) / usual), float(output.step) / (8 / 255)])
    seen = np.array(seen)
    assert (seen >= 0.9999 / 256).all()
    np.testing.assert_allclose(seen.min(0), 1 / 256, rtol=1e-4)  # Both meet it.
    assert (seen[-10:] > 2 / 256).all()
    assert losses[-1] < losses[0]


def test_the_bound_of_a_learned_step_is_saved():
    layer, again = ranges.LearnedRange(), ranges.LearnedRange()
    for built in (layer, again):
        built.build((None, 4))
    layer.start(-1.0, 2.0)
    layer.step.assign(7.0)
    store = {}
    layer.save_own_variables(store)
    again.load_own_variables(store)
    again.step.assign(again.step.constraint(-1.0))
    assert float(again.step) == pytest.approx(3 / 255 / 256, rel=1e-6)
    # A file of an earlier version has none, which is taken from the step.
    del store["4"]
    again.load_own_variables(store)
    assert float(again.step.constraint(-1.0)) == pytest.approx(7 / 256, rel=1e-6)


@pytest.mark.parametrize("bits", [8, 4])
def test_kernels_are_rounded_per_channel(bits, rng):
    layer = QuantizedConv2D(5, 3, bits=bits)
    layer.build((None, 8, 8, 4))
    kernel = rng.normal(0, 1, (3, 3, 4, 5)) * np.array([0.01, 0.1, 1, 10, 100])
    layer.float_kernel.assign(kernel)
    highest = 2 ** (bits - 1) - 1
    scale = np.abs(np.float64(np.float32(kernel))).max((0, 1, 2)) / highest
    integers, steps = layer.integers()
    np.testing.assert_allclose(steps.ravel(), scale, rtol=1e-6)
    np.testing.assert_array_equal(integers, np.round(np.float32(kernel) / scale))
    np.testing.assert_allclose(layer.kernel, integers * scale, rtol=1e-5)
    assert np.abs(integers).max((0, 1, 2)).tolist() == [highest] * 5


def test_rounding_commutes_with_folding(rng):
    """What lets BatchNormalization be folded after training without changing an integer."""
    kernel = rng.normal(0, 1, (6, 7)).astype("float32")
    folded = rng.uniform(-3, 3, 7).astype("float32")
    layers = [QuantizedDense(7), QuantizedDense(7)]
    for layer, values in zip(layers, (kernel, kernel * folded), strict=True):
        layer.build((None, 6))
        layer.float_kernel.assign(values)
    (plain, step), (other, other_step) = (layer.integers() for layer in layers)
    np.testing.assert_array_equal(plain * np.sign(folded), other)
    np.testing.assert_allclose(step * np.abs(folded), other_step, rtol=1e-6)


def test_layers_survive_their_config():
    for layer in (
        ranges.Range(16, tensor="x", tensors=3, name="r"),
        ranges.LearnedRange(8, tensor="x", name="r"),
        ranges.FixedRange(True, 16, tensor="x", name="r"),
        QuantizedConv2D(4, 3, bits=4, learned_steps=True, name="r"),
    ):
        config = keras.saving.serialize_keras_object(layer)
        again = keras.saving.deserialize_keras_object(config, safe_mode=True)
        assert again.get_config() == layer.get_config()
