"""How far files may be from the simulation: 1 step a kernel, times the gain of those behind it."""

import keras
import numpy as np
import pytest
from aware import steps_apart
from keras_distill.tflite import runtimes
from sweeps import rest_is_long

from keras_distill import quantization, tflite
from keras_distill.quantization.ranges import AnyRange

layers = keras.layers
RUNTIMES = ["litert", "litert-reference", *["micro"] * runtimes.micro_available()]


def convolution(x):
    return layers.Conv2D(8, 3, padding="same")(x)


#: What is normalized, and by how many of its steps it may be off: 1 for each kernel in a row.
BEFORE = {
    "a pool": (lambda x: layers.AveragePooling2D(8)(convolution(x)), 2),
    "a sum": (lambda x: layers.Add()([convolution(x), convolution(x)]), None),
    "a concatenation": (
        lambda x: layers.Concatenate()(
            [layers.AveragePooling2D(8)(convolution(x)), layers.MaxPooling2D(8)(convolution(x))]
        ),
        2,
    ),
}


def normalized(kind, x):
    """A normalization by the data's own statistics, as training finds them."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(x.shape[1:])
    y = BEFORE[kind][0](inputs)
    values = np.float64(keras.Model(inputs, y).predict(x, verbose=0))
    norm = layers.BatchNormalization(name="norm")
    model = keras.Model(inputs, norm(y))
    norm.moving_mean.assign(values.mean((0, 1, 2)))
    norm.moving_variance.assign(values.var((0, 1, 2)))
    return quantization.quantize_aware(model, x)


@pytest.fixture(scope="module", params=rest_is_long(list(BEFORE), ["a sum"]))
def measured(request):
    """The bound for each channel, and the greatest difference in any runtime."""
    x = np.random.default_rng(0).normal(size=(200, 8, 8, 3)).astype("float32")
    x[0] *= 4  # One recording is louder than the others.
    aware = normalized(request.param, x)
    steps = [float(y.grid()[0]) for y in aware.layers if isinstance(y, AnyRange)]
    inside = BEFORE[request.param][1] or 1 + (steps[-4] + steps[-3]) / steps[-2]
    factors = np.abs(aware.get_layer("norm").scale_and_offset()[0])
    bound = 1 + inside * factors * steps[-2] / steps[-1]
    file = tflite.convert(aware, io="int8").tflite
    apart = [steps_apart(aware, file, [x], runtime) for runtime in RUNTIMES]
    return bound, np.max(apart, axis=(0, 1, 2, 3))


@pytest.mark.long
def test_no_runtime_is_farther_than_the_bound(measured):
    bound, apart = measured
    assert (apart <= bound).all()


def test_the_bound_is_no_constant(measured):
    """Of these, a pool in the range of its input is stretched most."""
    bound, apart = measured
    assert apart.max() >= 2
    assert bound.max() > 2
