"""Kinds of students that users train, converted and held against Keras in the runtimes."""

import itertools

import keras
import numpy as np
import pytest
from sweeps import rest_is_long

from keras_distill import tflite
from keras_distill.quantization import quantize_aware

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
    "repeat by counts": (lambda x: keras.ops.repeat(x, [1, 2, 0, 3], axis=-2), (4, 3)),
    "tile": (lambda x: keras.ops.tile(x, (1, 2, 3)), (6, 3)),
    "tile often": (lambda x: keras.ops.tile(x, (1, 13, 1)), (2, 3)),
    "GroupQueryAttention": (lambda x: layers.GroupQueryAttention(3, 4, 2)(x, x), (5, 6)),
}


QUANTIZED_REPEATS = ("UpSampling2D", "repeat", "repeat by counts", "tile", "GroupQueryAttention")


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "quantization"),
    [
        *rest_is_long(
            [
                *((kind, "float32") for kind in REPEATS),
                *((kind, "int8") for kind in QUANTIZED_REPEATS),
            ],
            [
                *((kind, "float32") for kind in ("RepeatVector", "tile often")),
                *((kind, "int8") for kind in QUANTIZED_REPEATS[:4]),
            ],
        ),
        *(
            pytest.param(kind, "int8", marks=pytest.mark.nightly)
            for kind in ("UpSampling1D", "RepeatVector", "repeat by 7 of 41", "tile often")
        ),
    ],
)
def test_repetition_on_microcontrollers(kind, quantization):
    """TFLite Micro has no TILE."""
    function, shape = REPEATS[kind]
    x, student = data(*shape), model_of(lambda x: layers.Dense(3)(function(x)), *shape)
    artifact = tflite.convert(student, "micro", quantization, calibration=x)
    assert "TILE" not in artifact.report["operators"]
    limit = 1e-5 if quantization == "float32" else 0.06
    assert error(artifact, student, x) < limit
    assert error(artifact, student, x, "litert") < limit


@pytest.mark.parametrize("policy", rest_is_long(["mixed_float16", "mixed_bfloat16", "float16"], []))
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


# Keras advises to name them, too.
@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict:UserWarning")
@pytest.mark.parametrize("aware", [False, True], ids=["plain", "aware"])
def test_unnamed_inputs_have_the_names_of_their_entries(aware):
    near, far = keras.Input((6,)), keras.Input((3,))
    y = layers.Concatenate()([layers.Dense(4)(near), 4 * layers.Dense(4)(far)])
    student = keras.Model({"near": near, "far": far}, layers.Dense(2)(y))
    x = {"near": data(6), "far": data(3)}
    model = quantize_aware(student, x) if aware else student
    artifact = tflite.convert(model, "micro", "int8", calibration=None if aware else x)
    assert [port.name for port in artifact.ports.inputs] == ["far", "near"]
    assert error(artifact, student, x) < 0.1


def test_students_trained_in_double_precision():
    inputs, x = keras.Input((6,), dtype="float64"), data(6)
    y = layers.Dense(8, "relu", dtype="float64")(inputs)
    student = keras.Model(inputs, layers.Dense(3, dtype="float64")(y))
    assert error(tflite.convert(student), student, x) < 1e-5
    assert error(tflite.convert(student, "micro", "int8", calibration=x), student, x) < 0.05
    assert student.layers[-1].compute_dtype == "float64"


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


LOW_RANK = {
    "Dense": (lambda: layers.Dense(5), (6,)),
    "Conv1D": (lambda: layers.Conv1D(4, 3), (8, 3)),
    "EinsumDense": (lambda: layers.EinsumDense("abc,cd->abd", (8, 4), bias_axes="d"), (8, 3)),
}


@pytest.mark.parametrize("aware", [False, True], ids=["plain", "aware"])
@pytest.mark.parametrize("kind", rest_is_long(LOW_RANK, ["Dense"]))
def test_low_rank_adaptation(kind, aware):
    """The file has the adapted kernel alone."""
    make, shape = LOW_RANK[kind]
    x, student = data(*shape), model_of(lambda x: make()(x), *shape)
    layer = student.layers[1]
    before = np.array(student(x))
    layer.enable_lora(2)
    for lora in (layer.lora_kernel_a, layer.lora_kernel_b):
        lora.assign(np.random.default_rng(1).normal(size=lora.shape))
    assert np.std(student(x) - before) > 0.5 * before.std()
    model = quantize_aware(student, x) if aware else student
    artifact = tflite.convert(model, "micro" if aware else "android")
    assert error(artifact, student, x) < (0.05 if aware else 1e-5)


def twice(x):
    y = layers.Dense(3)(x)
    return [y, y]


def behind_dropout(x):
    y = layers.Dense(3)(x)
    return [y, layers.Dropout(0.5)(y)]


def by_two_names(x):
    y = layers.Dense(3)(x)
    return {"a": y, "b": layers.Identity()(y), "c": layers.Dense(2)(y)}


def itself(x):
    return [x, layers.Dense(3)(x)]


def itself_in_other_shapes(x):
    return [layers.Flatten()(layers.Reshape((3, 2))(layers.Dropout(0.5)(x))), layers.Dense(3)(x)]


@pytest.mark.parametrize("aware", [False, True], ids=["plain", "aware"])
@pytest.mark.parametrize(
    "function",
    rest_is_long([twice, behind_dropout, by_two_names, itself, itself_in_other_shapes], [itself]),
)
def test_outputs_that_are_one_tensor(function, aware):
    x, student = data(6), model_of(function, 6)
    files = [("micro", "int8"), ("android", "float32")]
    for target, quantization in [("micro", "float32")] if aware else files:
        model = quantize_aware(student, x) if aware else student
        artifact = tflite.convert(model, target, quantization, calibration=x)
        expected = keras.tree.flatten(model.predict(x, verbose=0))
        for runtime in ("litert", "micro") if target == "micro" else ("litert",):
            got = list(artifact.predict(x, runtime).values())
            assert len(got) == len(expected)
            for a, b in zip(got, expected, strict=True):
                assert np.sqrt(np.mean((a - b) ** 2)) < 0.05 * b.std()


def test_outputs_that_are_one_tensor_with_a_dynamic_batch():
    x, student = data(6), model_of(twice, 6)
    got = tflite.convert(student, batch_size=None).predict(x)
    np.testing.assert_allclose(list(got.values()), student.predict(x), atol=1e-5)


@pytest.mark.long
def test_stateful_layers_go_on_from_where_they_were():
    keras.utils.set_random_seed(0)
    for layer in (layers.GRU, layers.LSTM):
        student = keras.Sequential(
            [keras.Input(batch_shape=(1, 8, 6)), layer(4, stateful=True, name="memory")]
        )
        for recurrent in (None, "unroll"):
            with pytest.raises(ValueError, match=r"'memory' .* is stateful: .*recurrent=\"step\""):
                tflite.convert(student, recurrent=recurrent)
        x = data(8, 6)
        artifact = tflite.convert(student, "micro", "int8", recurrent="step", calibration=x)
        expected = []
        for sequence in x[:16]:
            student.layers[-1].reset_state()
            expected.append(student(sequence[None])[0])
        got = artifact.predict(x[:16])
        assert np.sqrt(np.mean((got - expected) ** 2)) < 0.05 * np.std(expected)


class Difference(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x["right"]) - 2 * self.dense(x["left"])


def test_subclassed_students_that_take_a_dict():
    x = {"left": data(6), "right": data(6)[::-1]}
    student = Difference()
    expected = student(x)
    signature = {name: keras.InputSpec(shape=(None, 6), dtype="float32") for name in x}
    artifact = tflite.convert(student, input_signature=signature)
    assert [port.name for port in artifact.ports.inputs] == ["left", "right"]
    np.testing.assert_allclose(artifact.predict(x), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("target", "quantization"),
    rest_is_long(
        list(itertools.product(["android", "micro"], ["float32", "int8"])),
        [],
    ),
)
def test_streams_with_an_output_for_each_step(target, quantization):
    def function(x):
        x = layers.GRU(5, return_sequences=True)(layers.Dense(6, activation="relu")(x))
        return {"each": layers.Dense(3)(x), "last": layers.Dense(2)(layers.LSTM(4)(x))}

    x, student = data(7, 4), model_of(function, 7, 4)
    artifact = tflite.convert(student, target, quantization, recurrent="step", calibration=x)
    assert [p.shape for p in artifact.ports.outputs][:2] == [(1, 1, 3), (1, 2)]
    expected, got = student.predict(x, verbose=0), artifact.predict(x)
    limit = 1e-5 if quantization == "float32" else 0.08
    for name in ("each", "last"):
        assert got[name].shape == expected[name].shape
        error = np.sqrt(np.mean((got[name] - expected[name]) ** 2))
        assert error < limit * expected[name].std()
    assert artifact.verify(x)["verdict"] == "pass"
