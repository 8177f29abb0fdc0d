"""Bits per layer under a limit of flash."""

import keras
import numpy as np
import pytest
from sweeps import rest_is_long

from keras_distill import quantization, tflite

layers = keras.layers


@pytest.fixture(scope="module")
def student():
    """`rough` has kernels that 4 bits hold exactly, `fine` and `logits` don't."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = keras.Input((64,), name="x")
    inner = keras.Sequential([keras.Input((32,)), layers.Dense(32, name="fine")], name="inner")
    y = inner(layers.Dense(32, activation="relu", name="rough")(x))
    model = keras.Model(x, layers.Dense(8, name="logits")(y))
    kernel = rng.integers(-7, 8, (64, 32))
    kernel[0] = 7
    model.get_layer("rough").kernel.assign(kernel / 50)
    return model, rng.normal(size=(200, 64)).astype("float32")


def bytes_of(model):
    """Bytes of the kernels alone, as a file holds them, and 1000 of everything else."""
    kernels = [x for x in model._flatten_layers() if hasattr(x, "bits") and hasattr(x, "kernel")]
    return 1000 + sum(int(np.prod(x.kernel.shape)) * x.bits // 8 for x in kernels)


ALL = 1000 + 64 * 32 + 32 * 32 + 32 * 8


def test_what_costs_least_is_rounded_first(student):
    model, x = student
    found = quantization.search(model, x, flash=ALL - 1, bytes_of=bytes_of)
    assert found.layers == {"rough": {"weights": 4}}
    assert found.bytes == ALL - 64 * 32 // 2
    assert found.sensitivity["rough"] < found.sensitivity["inner/fine"] / 10


LIMITS = {
    ALL: [],
    ALL - 1024: ["rough"],
    ALL - 1025: ["rough", "logits"],
    ALL - 1536: ["rough", "inner/fine"],
    ALL - 1664: ["rough", "inner/fine", "logits"],
}


@pytest.mark.parametrize(
    ("flash", "names"), rest_is_long(list(LIMITS.items()), [(ALL - 1024, ["rough"])])
)
def test_the_limit_is_exact(student, flash, names):
    model, x = student
    found = quantization.search(model, x, flash=flash, bytes_of=bytes_of)
    assert found.bytes <= flash
    if flash != ALL - 1025:  # Which of two it is there is the data's choice.
        assert set(found.layers) == set(names)


def test_a_limit_that_cannot_be_met_says_what_is_left(student):
    model, x = student
    with pytest.raises(ValueError, match=r"2,664 bytes even with .*'rough'.*2,663 are allowed"):
        quantization.search(model, x, flash=ALL - 1665, bytes_of=bytes_of)


@pytest.mark.long
def test_files_are_measured(rng):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 4), name="x")
    y = layers.Conv2D(32, 3, activation="relu", name="wide")(image)
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 3, name="deep")(y))
    model = keras.Model(image, layers.Dense(4, name="logits")(y))
    x = rng.normal(size=(64, 8, 8, 4)).astype("float32")

    def measured(aware):
        return len(tflite.convert(aware, io="int8").tflite)

    whole = measured(quantization.quantize_aware(model, x))
    found = quantization.search(model, x, flash=whole - 1000, bytes_of=measured)
    assert set(found.layers) == {"deep"}  # A dense layer so small would make the file larger.
    aware = quantization.quantize_aware(model, x, layers=found.layers)
    assert measured(aware) == found.bytes <= whole - 1000
