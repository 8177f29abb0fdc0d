import keras
import pytest
from aware import compiled, convolutional

from keras_distill import quantization, tflite


@pytest.fixture(scope="session")
def float_student(split):
    """A convolutional student, trained as float."""
    keras.utils.set_random_seed(0)
    model = compiled(convolutional(), 4e-3)
    model.fit(*split[0], epochs=10, batch_size=64, verbose=0)
    return model


@pytest.fixture(scope="session")
def aware_student(float_student, split):
    """The same student, trained on for an epoch while being quantized to int8."""
    keras.utils.set_random_seed(0)
    model = compiled(quantization.quantize_aware(float_student, split[0][0][:256]), 1e-3)
    model.fit(*split[0], epochs=1, batch_size=64, verbose=0)
    return model


@pytest.fixture(scope="session")
def artifact(aware_student):
    """Its file, with integer inputs and outputs."""
    return tflite.convert(aware_student, io="int8")
