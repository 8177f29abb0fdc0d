"""What can't be simulated is named, with what to do instead."""

import keras
import numpy as np
import pytest
from aware import convolutional

from keras_distill import quantization, tflite

layers = keras.layers


def model_of(function, shape=(8, 8, 4)):
    x = keras.Input(shape, name="x")
    return keras.Model(x, function(x))


class Twice(layers.Layer):
    def call(self, x):
        return 2 * x


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda x: Twice(name="mine")(x),
            r"'mine' \(Twice\).*keep it float.*`layers={'mine': None}`",
        ),
        (lambda x: layers.Conv2D(2, 1, activation="selu", name="a")(x), "'a' .*activation is selu"),
        (lambda x: layers.Activation("softplus", name="a")(x), "'a' .*softplus.*relu6"),
        (lambda x: layers.ReLU(max_value=3, name="a")(x), r"'a' .*max_value=3"),
        (lambda x: layers.Average(name="a")([x, x]), "'a' .*Add, followed by Rescaling"),
        (lambda x: x * np.ones((8, 8, 4)), "one number, or one for each channel"),
        (
            lambda x: layers.Conv2D(2, 1, data_format="channels_first", name="a")(x),
            "'a' .*channels_last",
        ),
        (lambda x: layers.BatchNormalization(axis=1, name="a")(x), "'a' .*axis=-1"),
        (lambda x: layers.LayerNormalization(axis=1, name="a")(x), "'a' .*axis=-1"),
        (lambda x: Subclassed(name="a")(x), "'a' .*subclassed"),
    ],
)
def test_layers(function, message):
    with pytest.raises(ValueError, match=message):
        quantization.quantize_aware(model_of(function))


@pytest.mark.parametrize("option", [{"use_gate": True}, {"sliding_window": 2}], ids=str)
def test_attention(option):
    model = model_of(lambda x: layers.MultiHeadAttention(2, 2, name="a", **option)(x, x), (6, 4))
    with pytest.raises(ValueError, match=f"'a' .*`{next(iter(option))}`.* no integer form"):
        quantization.quantize_aware(model)


def test_recurrent_layers_and_masks():
    model = model_of(lambda x: layers.RNN(layers.GRUCell(3), name="rnn")(x), (5, 4))
    with pytest.raises(ValueError, match=r"'rnn' \(RNN\).*`GRU` and `SimpleRNN` are simulated"):
        quantization.quantize_aware(model)
    ids = keras.Input((5,), dtype="int32")
    model = keras.Model(ids, layers.Embedding(9, 3, mask_zero=True, name="embedding")(ids))
    with pytest.raises(ValueError, match="'embedding' .*mask_zero=False"):
        quantization.quantize_aware(model)
    model = model_of(lambda x: layers.GRU(3)(layers.Masking(name="mask")(x)), (5, 4))
    with pytest.raises(ValueError, match=r"'mask' \(Masking\).*leave the layer out"):
        quantization.quantize_aware(model)


@pytest.mark.long
def test_a_recurrent_layer_that_stays_float():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 5, 4)).astype("float32")
    student = model_of(lambda x: layers.Dense(2)(layers.GRU(3, name="rnn")(x)), (5, 4))
    aware = quantization.quantize_aware(student, x, layers={"rnn": None})
    with pytest.raises(ValueError, match='`recurrent="step"`.*"unroll"'):
        tflite.convert(aware, recurrent="step")
    with pytest.warns(UserWarning, match=r"stayed float: .* at '.*rnn.*, and \d+ others") as record:
        artifact = tflite.convert(aware, recurrent="unroll")
    assert max(len(str(w.message)) for w in record) < 600
    np.testing.assert_allclose(artifact.predict(x), aware.predict(x, verbose=0), atol=1e-2)


def test_a_layer_inside_another_model_is_named_by_its_path():
    inner = model_of(lambda x: Twice(name="mine")(x))
    inner.name = "inner"
    with pytest.raises(ValueError, match="'inner/mine'"):
        quantization.quantize_aware(model_of(inner))


def test_models_without_a_graph():
    with pytest.raises(ValueError, match="functional API"):
        quantization.quantize_aware(Subclassed())
    with pytest.raises(ValueError, match="functional API"):
        quantization.quantize_aware(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(TypeError, match="Keras 3 model"):
        quantization.quantize_aware("student.keras")
    with pytest.raises(ValueError, match="quantize-aware already"):
        quantization.quantize_aware(quantization.quantize_aware(convolutional()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_bits": 3}, "8 or 4 bits"),
        ({"activation_bits": 4}, "activations of 8 or 16"),
        ({"layers": {"sten": None}}, "'sten'.*stem"),
        ({"layers": {"stem": {"bits": 4}}}, '"weights" and "activations"'),
        ({"learned_steps": True}, "needs `calibration`"),
    ],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        quantization.quantize_aware(convolutional(), **options)


def test_kernels_that_do_not_exist():
    model = model_of(lambda x: layers.Conv2DTranspose(3, 3, name="up")(x))
    with pytest.raises(ValueError, match="'up'.*layers={'up': {\"weights\": 8}}"):
        quantization.quantize_aware(model, weight_bits=4)
    quantization.quantize_aware(model, weight_bits=4, layers={"up": {"weights": 8}})
    model = model_of(lambda x: layers.Activation("hard_silu", name="a")(x))
    with pytest.raises(ValueError, match="'a'.*no kernel of 16 bits"):
        quantization.quantize_aware(model, activation_bits=16)


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (
            np.zeros((9, 7, 8, 1), "float32"),
            r"'image' must have shape \(samples, 8, 8, 1\).*\(9, 7, 8, 1\)",
        ),
        ({"picture": np.zeros((9, 8, 8, 1), "float32")}, "'image'"),
        ([], "no samples"),
        (np.full((4, 8, 8, 1), np.nan, "float32"), "NaN or infinity.*'image'"),
    ],
)
def test_calibration(calibration, message):
    with pytest.raises(ValueError, match=message):
        quantization.quantize_aware(convolutional(), calibration)


@pytest.mark.parametrize("calibration", [7, True, convolutional])
def test_calibration_that_is_no_data(calibration):
    with pytest.raises(TypeError, match="`calibration` must be an array, a list or dict.*Received"):
        quantization.quantize_aware(convolutional(), calibration)


def quantized_by_keras(mode, *inner, shape=(6,), dtype="float32"):
    keras.utils.set_random_seed(0)
    x = y = keras.Input(shape, dtype=dtype)
    for layer in inner:
        y = layer(y, y) if isinstance(layer, layers.MultiHeadAttention) else layer(y)
    model = keras.Model(x, y)
    for layer in model._flatten_layers():
        if isinstance(layer, (layers.Dense, layers.EinsumDense, layers.Embedding)):
            layer.quantize(mode)
    return model


OF_KERAS = {
    "Dense": (lambda: [layers.Dense(8, name="d"), layers.Dense(3)], (6,), "float32"),
    "EinsumDense": (lambda: [layers.EinsumDense("ab,bc->ac", 8, name="d")], (6,), "float32"),
    "inner EinsumDense": (lambda: [layers.MultiHeadAttention(2, 4, name="d")], (5, 6), "float32"),
    "Embedding": (lambda: [layers.Embedding(9, 4, name="d")], (6,), "int32"),
}


class TestQuantizedByKeras:
    """Its integers can't be trained, nor taken by TFLite: the float student is the way out."""

    @pytest.mark.parametrize(
        ("kind", "mode"),
        [
            ("Dense", "float8"),
            ("EinsumDense", "int8"),
            ("EinsumDense", "int4"),
            pytest.param("inner EinsumDense", "int8", marks=pytest.mark.long),
            ("Embedding", "int8"),
            *(
                pytest.param(kind, mode, marks=pytest.mark.nightly)
                for kind, mode in (
                    ("Dense", "int8"), ("Dense", "int4"), ("EinsumDense", "float8"),
                    ("inner EinsumDense", "int4"), ("inner EinsumDense", "float8"),
                    ("Embedding", "int4"),
                )
            ),
        ],
    )  # fmt: skip
    def test_is_not_trained(self, kind, mode):
        make, shape, dtype = OF_KERAS[kind]
        model = quantized_by_keras(mode, *make(), shape=shape, dtype=dtype)
        message = f"'(.*/)?d.*was quantized to {mode} by Keras.*before `model.quantize"
        with pytest.raises(ValueError, match=message):
            quantization.quantize_aware(model)

    @pytest.mark.parametrize(
        ("kind", "mode"),
        [
            ("Dense", "float8"),
            ("EinsumDense", "int8"),
            ("inner EinsumDense", "float8"),
            pytest.param("Dense", "int8", marks=pytest.mark.nightly),
            pytest.param("EinsumDense", "float8", marks=pytest.mark.nightly),
            pytest.param("inner EinsumDense", "int8", marks=pytest.mark.nightly),
        ],
    )
    def test_is_not_converted(self, kind, mode):
        make, shape, dtype = OF_KERAS[kind]
        model = quantized_by_keras(mode, *make(), shape=shape, dtype=dtype)
        message = f'quantized to {mode} by Keras.*before `student.quantize.*quantization="int8'
        with pytest.raises(ValueError, match=message):
            tflite.convert(model)

    @pytest.mark.parametrize(("kind", "mode"), [("Dense", "int4"), ("Embedding", "int8")])
    def test_is_converted_where_operators_take_it(self, kind, mode):
        make, shape, dtype = OF_KERAS[kind]
        model = quantized_by_keras(mode, *make(), shape=shape, dtype=dtype)
        x = np.random.default_rng(0).integers(0, 9, (16, *shape)).astype(dtype)
        got = tflite.convert(model).predict(x)
        np.testing.assert_allclose(got, model.predict(x, verbose=0), rtol=1e-5, atol=1e-5)


def test_conversion(aware_student):
    with pytest.raises(ValueError, match="seen no data: train the model"):
        tflite.convert(quantization.quantize_aware(convolutional()))
    with pytest.raises(ValueError, match="quantize-aware for 'int8'"):
        tflite.convert(aware_student, quantization="int16x8")
    ranges = tflite.Calibration(np.zeros((2, 8, 8, 1)), ranges="percentile")
    for options in ({"calibration": ranges}, {"precision": {"logits": "float32"}}):
        with pytest.raises(ValueError, match="leave `ranges` and `precision` out"):
            tflite.convert(aware_student, **options)
    with pytest.raises(ValueError, match="isn't quantize-aware"):
        quantization.freeze(convolutional())


@pytest.mark.parametrize(
    "layer",
    [
        layers.GlobalAveragePooling1D(name="a"),
        layers.BatchNormalization(name="a"),
        layers.Softmax(name="a"),
    ],
)
def test_masks_are_refused_before_training(layer):
    x, mask = keras.Input((6, 8)), keras.Input((6,), dtype="bool")
    shown = mask[..., None] if isinstance(layer, layers.Softmax) else mask
    model = keras.Model([x, mask], layer(layers.Dense(8)(x), mask=shown))
    with pytest.raises(ValueError, match=r"'a' .*Masks have no integer form: leave `mask` out"):
        quantization.quantize_aware(model)
