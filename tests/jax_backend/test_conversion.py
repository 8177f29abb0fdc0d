"""Students on JAX or PyTorch become TFLite files that compute what they compute there."""

import keras
import numpy as np
import pytest
from backend_cases import convolutional, data

from keras_distill import quantization, tflite


@pytest.fixture(scope="module")
def student():
    return convolutional(3, 1)


@pytest.fixture(scope="module")
def int8(student):
    """For microcontrollers, by layers around it, one of them with weights."""
    normalization = keras.layers.Normalization(mean=0.1, variance=2.0, axis=None)
    x, _, _ = data((8, 8, 1))
    return tflite.convert(
        student,
        "micro",
        "int8",
        calibration=x,
        preprocessing=normalization,
        postprocessing="softmax",
        labels=["a", "b", "c"],
    )


@pytest.mark.nightly
def test_float32_file(student):
    x, y, _ = data((8, 8, 1))
    artifact = tflite.convert(student)
    np.testing.assert_allclose(artifact.predict(x), student.predict(x, verbose=0), atol=1e-5)
    assert artifact.verify(x, y)["verdict"] == "pass"
    assert artifact.student.model is student


@pytest.mark.nightly
def test_int8_file(int8, student):
    x, y, _ = data((8, 8, 1))
    report = int8.verify(x, y)
    assert report["verdict"] == "pass"
    expected = keras.ops.softmax(student.predict((x - 0.1) / 2**0.5, verbose=0))
    np.testing.assert_allclose(int8.predict(x), expected, atol=0.05)
    assert int8.labels == ["a", "b", "c"]
    assert int8.report["calibration"]["samples"] == len(x)


def test_quantize_aware_student(student):
    x, _, _ = data((8, 8, 1))
    aware = quantization.quantize_aware(student, calibration=x)
    artifact = tflite.convert(aware, io="int8")
    steps = artifact.verify(x)["runtimes"]["litert"]["outputs"][0]["largest_steps"]
    assert steps <= 1.5


@pytest.mark.nightly
def test_errors_of_the_child_arrive(student):
    with pytest.raises(tflite.BudgetError, match="over its budget"):
        tflite.convert(student, max_flash=100)


@keras.saving.register_keras_serializable("tests")
class OfJax(keras.layers.Layer):
    def call(self, inputs):
        import jax

        return jax.nn.relu(inputs)


@keras.saving.register_keras_serializable("tests")
class Gated(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="uniform", name="scale")

    def call(self, inputs):
        return doubled(inputs) * (1 + self.scale)


@keras.saving.register_keras_serializable("tests")
def doubled(x):
    return 2 * keras.ops.sigmoid(x)


def test_layers_and_functions_of_a_module_are_imported(monkeypatch):
    """Registered names say nothing of the module that registers them."""
    student = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, doubled), Gated(name="gate")]
    )
    artifact = tflite.convert(student)
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    np.testing.assert_allclose(artifact.predict(x), student.predict(x, verbose=0), atol=1e-5)
    monkeypatch.setattr(Gated, "__module__", "__main__")
    with pytest.raises(tflite.ConverterError, match="'Gated' is defined in the program that runs"):
        tflite.convert(student)


def test_what_cannot_be_handed_over_is_refused(student):
    with pytest.raises(NotImplementedError, match="`stream` needs the TensorFlow backend"):
        tflite.convert(student, stream=1)
    with pytest.raises(NotImplementedError, match="`preprocessing` must be a Keras layer"):
        tflite.convert(student, preprocessing=lambda x: x / 255)


@pytest.mark.nightly
def test_a_layer_of_jax_is_refused():
    foreign = keras.Sequential([keras.Input((4,)), OfJax()])
    with pytest.raises(tflite.ConverterError, match="can't be rebuilt on the TensorFlow backend"):
        tflite.convert(foreign)
