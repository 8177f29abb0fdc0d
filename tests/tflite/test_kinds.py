"""Kinds of students that users train, converted and held against Keras in the runtimes."""

import keras
import numpy as np
import pytest

from keras_distill import tflite

layers = keras.layers


def data(*shape):
    return np.random.default_rng(0).standard_normal((64, *shape)).astype("float32")


def model_of(function, *shape, dtype="float32"):
    keras.utils.set_random_seed(0)
    x = keras.Input(shape, dtype=dtype, name="x")
    return keras.Model(x, function(x), name="student")


def error(artifact, student, x, runtime=None):
    """Root mean square error over the spread of Keras' outputs."""
    expected, got = student.predict(x, verbose=0), artifact.predict(x, runtime)
    assert expected.shape == got.shape
    return float(np.sqrt(np.mean((expected - got) ** 2)) / expected.std())


REPEATS = {
    "UpSampling2D": (lambda x: layers.UpSampling2D((2, 3))(x), (6, 5, 3)),
    "UpSampling1D": (lambda x: layers.UpSampling1D(3)(x), (6, 3)),
    "RepeatVector": (lambda x: layers.RepeatVector(5)(layers.Dense(4)(x)), (6,)),
    "repeat": (lambda x: keras.ops.repeat(x, 3, axis=-2), (6, 5, 3)),
    "repeat by 7 of 41": (lambda x: keras.ops.repeat(x, 7, axis=1), (41, 2)),
    "tile": (lambda x: keras.ops.tile(x, (1, 2, 3)), (6, 3)),
    "tile often": (lambda x: keras.ops.tile(x, (1, 13, 1)), (2, 3)),
    "GroupQueryAttention": (lambda x: layers.GroupQueryAttention(3, 4, 2)(x, x), (5, 6)),
}


@pytest.mark.parametrize("quantization", ["float32", "int8"])
@pytest.mark.parametrize("kind", REPEATS)
def test_repetition_on_microcontrollers(kind, quantization):
    """TFLite Micro has no TILE."""
    function, shape = REPEATS[kind]
    x, student = data(*shape), model_of(lambda x: layers.Dense(3)(function(x)), *shape)
    artifact = tflite.convert(student, "micro", quantization, calibration=x)
    assert "TILE" not in artifact.report["operators"]
    limit = 1e-5 if quantization == "float32" else 0.06
    assert error(artifact, student, x) < limit
    assert error(artifact, student, x, "litert") < limit


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_students_trained_in_half_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:

        def function(x):
            x = layers.BatchNormalization()(layers.Conv1D(8, 3, activation="relu")(x))
            x = layers.LayerNormalization()(layers.LSTM(6, return_sequences=True)(x))
            x = layers.Flatten()(layers.MultiHeadAttention(2, 3)(x, x))
            return layers.Activation("softmax", dtype="float32")(layers.Dense(3)(x))

        student = model_of(function, 8, 4)
    finally:
        keras.config.set_dtype_policy("float32")
    x = data(8, 4)
    half = 0.02 if "b" not in policy else 0.1
    assert error(tflite.convert(student), student, x) < half
    assert error(tflite.convert(student, "micro", "int8", calibration=x), student, x) < 0.1 + half
    # The student itself is left as it is.
    assert student.layers[1].compute_dtype == policy.removeprefix("mixed_")


def test_embedding_in_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        student = model_of(
            lambda x: layers.Dense(3)(layers.Flatten()(layers.Embedding(9, 4)(x))), 5, dtype="int32"
        )
    finally:
        keras.config.set_dtype_policy("float32")
    ids = np.random.default_rng(0).integers(0, 9, (64, 5)).astype("int32")
    assert error(tflite.convert(student), student, ids) < 0.01


def test_embedding_with_low_rank_adaptation():
    student = model_of(lambda x: layers.Flatten()(layers.Embedding(9, 4)(x)), 5, dtype="int32")
    student.layers[1].enable_lora(2)
    lora = student.layers[1].lora_embeddings_b
    lora.assign(np.random.default_rng(1).normal(size=lora.shape))
    ids = np.random.default_rng(0).integers(0, 9, (64, 5)).astype("int32")
    assert error(tflite.convert(student), student, ids) < 1e-5
