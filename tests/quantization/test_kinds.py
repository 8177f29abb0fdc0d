"""Kinds of layers and models that users build, simulated and held against their file."""

import functools

import keras
import numpy as np
import pytest
from aware import MICRO, steps_apart
from sweeps import rest_is_long

from keras_distill import quantization, tflite

layers = keras.layers


def data(*shape):
    return np.random.default_rng(0).normal(size=(64, *shape)).astype("float32")


def aware_of(function, x):
    inputs = keras.Input(x.shape[1:], name="x")
    student = keras.Model(inputs, function(inputs))
    aware = quantization.quantize_aware(student, x)
    error = aware.predict(x, verbose=0) - student.predict(x, verbose=0)
    assert np.abs(error).max() < 0.05 * np.ptp(student.predict(x, verbose=0))
    return aware


CONSTANTS = {
    "add": lambda x: x + 3.0,
    "reversed subtract": lambda x: 1.5 - x,
    "multiply and relu6": lambda x: keras.ops.relu6(x + 3.0) * (1 / 6),
    "divide": lambda x: x / 4.0,
    "negative": lambda x: -x,
    "by channel": lambda x: (x - np.float32([0.5, -1.0, 2.0])) / np.float32([1.0, 2.0, 0.5]),
}


@pytest.fixture(scope="module")
def with_constants():
    """The quantize-aware model of each kind and its file, made once."""

    @functools.cache
    def make(kind):
        keras.utils.set_random_seed(0)
        aware = aware_of(lambda x: layers.Conv2D(4, 3)(CONSTANTS[kind](x)), data(6, 6, 3))
        return aware, tflite.convert(aware, "micro", io="int8").tflite

    return make


@pytest.mark.parametrize("runtime", ["litert", MICRO])
@pytest.mark.parametrize(
    "kind",
    rest_is_long(list(CONSTANTS), ["multiply and relu6"]),
)
def test_arithmetic_with_constants(kind, runtime, with_constants):
    assert steps_apart(*with_constants(kind), [data(6, 6, 3)], runtime).max() <= 1


def test_constants_that_have_no_kernel():
    x = keras.Input((4, 3))
    for y, message in (
        (x * np.ones((4, 3)), r"\(4, 3\) must be one number, or one for each channel"),
        (x / x, "Only division by a constant"),
        (x / 0.0, "divides by 0"),
    ):
        with pytest.raises(ValueError, match=message):
            quantization.quantize_aware(keras.Model(x, y))


@pytest.mark.long
def test_mobilenet_v3():
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV3Small(
        weights=None, input_shape=(32, 32, 3), alpha=0.35, classes=4, include_preprocessing=False
    )
    assert quantization.is_quantize_aware(quantization.quantize_aware(model))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (layers.UpSampling2D(2, interpolation="bicubic", name="a"), "interpolation='bicubic'"),
        (layers.UpSampling2D(2, interpolation="lanczos3", name="a"), "interpolation='lanczos3'"),
        (layers.Resizing(4, 4, interpolation="area", name="a"), "interpolation='area'"),
        (layers.Resizing(4, 4, antialias=True, name="a"), "`antialias=True`"),
        (layers.Resizing(4, 4, pad_to_aspect_ratio=True, name="a"), "`pad_to_aspect_ratio=True`"),
    ],
)
def test_resizing_that_cannot_be_exported_is_refused_before_training(layer, message):
    x = keras.Input((8, 6, 3))
    with pytest.raises(ValueError, match=f"'a'.*{message}"):
        quantization.quantize_aware(keras.Model(x, layer(x)))


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(layers.Resizing(4, 4, crop_to_aspect_ratio=True), marks=pytest.mark.long),
        pytest.param(layers.Resizing(12, 9), marks=pytest.mark.long),
        pytest.param(layers.Resizing(5, 5, interpolation="nearest"), marks=pytest.mark.long),
        pytest.param(layers.UpSampling2D((2, 3)), marks=pytest.mark.long),
        layers.UpSampling2D(2, interpolation="bilinear"),
    ],
)
def test_resizing_that_can_be_exported(layer):
    x = data(8, 6, 3)
    aware = aware_of(lambda x: layers.Conv2D(2, 1)(layer(layers.Conv2D(3, 1)(x))), x)
    file = tflite.convert(aware, io="int8").tflite
    assert steps_apart(aware, file, [x]).max() <= 1


def test_random_augmentation_is_for_training():
    x = data(8, 8, 3)

    def student(x):
        x = layers.RandomFlip()(layers.RandomRotation(0.2)(layers.RandomContrast(0.3)(x)))
        return layers.Conv2D(4, 3)(x)

    aware = aware_of(student, x)
    assert steps_apart(aware, tflite.convert(aware, "micro", io="int8").tflite, [x]).max() <= 1
    first, second = (np.asarray(aware(x, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 0.1
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match="RandomCrop"):
        quantization.quantize_aware(keras.Model(inputs, layers.RandomCrop(4, 4)(inputs)))


def test_low_rank_adaptation_is_merged():
    x = data(6)
    student = keras.Sequential([keras.Input((6,)), layers.Dense(8), layers.Dense(3)])
    student.layers[0].enable_lora(2)
    lora = student.layers[0].lora_kernel_b
    lora.assign(np.random.default_rng(1).normal(size=lora.shape))
    aware = quantization.quantize_aware(student, x)
    error = aware.predict(x, verbose=0) - student.predict(x, verbose=0)
    assert np.abs(error).max() < 0.05 * np.ptp(student.predict(x, verbose=0))
    assert steps_apart(aware, tflite.convert(aware, "micro", io="int8").tflite, [x]).max() <= 1


def test_nearest_upsampling_of_dynamic_height_and_width():
    x = data(8, 8, 2)
    inputs = keras.Input((None, None, 2))
    y = layers.UpSampling2D(2)(layers.Conv2D(4, 3, padding="same")(inputs))
    aware = quantization.quantize_aware(keras.Model(inputs, layers.Conv2D(2, 1)(y)), x)
    signature = [keras.InputSpec(shape=(None, 8, 8, 2), dtype="float32")]
    file = tflite.convert(aware, "micro", input_signature=signature, io="int8")
    assert file.report["operators"]["RESIZE_NEAREST_NEIGHBOR"] == 1
    assert steps_apart(aware, file.tflite, [x]).max() <= 1
