"""A depthwise student distilled on Fashion-MNIST while it is quantized, and its file."""

import gzip

import keras
import numpy as np
import pytest
from aware import compiled, steps_apart
from keras_distill.tflite import runtimes

import keras_distill
from keras_distill import quantization, tflite


def read(folder, split, count):
    """The first images of a split, from 0 to 1, and their labels."""
    folder = folder / "fashion_mnist"
    images = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    x = np.frombuffer(images, "uint8", offset=16).reshape(-1, 28, 28, 1)[:count]
    return x.astype("float32") / 255, np.frombuffer(labels, "uint8", offset=8)[:count].astype(int)


def depthwise():
    layers = keras.layers
    x = image = keras.Input((28, 28, 1), name="image")
    x = layers.Conv2D(12, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    for width in (16, 24):
        x = layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.Conv2D(width, 1, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.nightly
def test_file_of_a_distilled_depthwise_student_is_the_simulation(data_dir):
    x, y = read(data_dir, "train", 3000)
    x_test, y_test = read(data_dir, "t10k", 500)
    student = compiled(depthwise())
    student.fit(x, y, batch_size=64, epochs=3, verbose=0)
    before = student.evaluate(x_test, y_test, verbose=0)[1]
    aware = quantization.quantize_aware(student, x[:300])
    distiller = compiled(keras_distill.Distiller(aware, student, alpha=0.5), 1e-3)
    distiller.fit(x, y, batch_size=64, epochs=1, verbose=0)
    file = tflite.convert(aware, io="int8").tflite
    assert steps_apart(aware, file, [x_test]).max() <= 2
    (integers,) = runtimes.run_samples(runtimes.open_file(file), [x_test])
    simulated = aware.predict(x_test, verbose=0)
    # Where two classes share the highest integer, their order is undefined.
    top = np.sort(integers, axis=-1)
    sure = top[:, -1] - top[:, -2] > 2
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(integers[sure].argmax(-1), simulated[sure].argmax(-1))
    accuracy = np.mean(integers.argmax(-1) == y_test)
    assert accuracy > before - 0.02 > 0.6
