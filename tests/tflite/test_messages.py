"""What can't be exported is refused by name, with what to do instead."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sweeps import rest_is_long

from keras_distill import quantization, tflite

layers = keras.layers


def model_of(function, *shape, dtype="float32"):
    keras.utils.set_random_seed(0)
    x = keras.Input(shape, dtype=dtype, name="x")
    return keras.Model(x, function(x), name="student")


def data(*shape):
    return np.random.default_rng(0).standard_normal((32, *shape)).astype("float32")


class TestStrings:
    def test_layers(self):
        lookup = layers.StringLookup(vocabulary=["a", "b"], name="words")
        student = model_of(lambda x: layers.Embedding(3, 2)(lookup(x)), 4, dtype="string")
        with pytest.raises(ValueError, match=r"'words' \(StringLookup\).*get_layer\('words'\)"):
            tflite.convert(student)

    def test_preprocessing(self):
        texts = layers.TextVectorization(output_sequence_length=4, name="texts")
        texts.adapt(["a b", "c"])
        student = model_of(layers.Embedding(9, 2), 4, dtype="int32")
        with pytest.raises(ValueError, match=r"'texts' \(TextVectorization\).*the app must do"):
            tflite.convert(student, preprocessing=texts)

    def test_inputs(self):
        class Student(keras.Model):
            def call(self, x):
                return x

        signature = [keras.InputSpec(shape=(None, 4), dtype="string")]
        with pytest.raises(ValueError, match="takes text.*into ids or numbers"):
            tflite.convert(Student(), input_signature=signature)


class Spectrum(layers.Layer):
    """As pipelines for speech have it."""

    def call(self, x):
        waves = tf.reshape(x[0], (-1, 1))
        spectrum = tf.raw_ops.AudioSpectrogram(input=waves, window_size=256, stride=128)
        return tf.raw_ops.Mfcc(spectrogram=spectrum, sample_rate=16000)


BY_OPERATOR = {
    "ResizeBicubic": (
        layers.Resizing(5, 5, interpolation="bicubic", name="larger"),
        (8, 8, 2),
        'use `interpolation="bilinear"`',
    ),
    "ScaleAndTranslate": (
        layers.Resizing(5, 5, interpolation="lanczos3", name="larger"),
        (8, 8, 2),
        'use `interpolation="bilinear"` without antialiasing',
    ),
    "ResizeArea": (
        layers.Resizing(5, 5, interpolation="area", name="larger"),
        (8, 8, 2),
        'use `interpolation="bilinear"`',
    ),
    "MaxPool3D": (layers.MaxPooling3D(2, name="larger"), (4, 4, 4, 2), "pooling of two dimensions"),
    "AvgPool3D": (
        layers.AveragePooling3D(2, name="larger"),
        (4, 4, 4, 2),
        "pooling of two dimensions",
    ),
    "Mfcc": (Spectrum(name="larger"), (4000,), "compute features in the app"),
}


@pytest.mark.parametrize("operator", BY_OPERATOR)
def test_operators_that_tflite_lacks(operator):
    """Operator, layer and what to do."""
    function, shape, fix = BY_OPERATOR[operator]
    message = rf"no operator for .*{operator} \(layer 'larger'\): .*{fix}"
    with pytest.raises(tflite.ConverterError, match=message) as caught:
        tflite.convert(model_of(function, *shape))
    assert len(str(caught.value)) < 500


def test_operations_that_tflite_lacks():
    student = model_of(lambda x: keras.ops.argmax(layers.Dense(3)(x), -1), 6)
    with pytest.raises(tflite.ConverterError, match=r'BitwiseAnd \(.*postprocessing="argmax"'):
        tflite.convert(student)


def test_counts_of_ids():
    count = layers.CategoryEncoding(5, "multi_hot", name="hot")
    with pytest.raises(tflite.ConverterError, match=r"DenseBincount \(layer 'hot'\): .*one_hot"):
        tflite.convert(model_of(count, 6, dtype="int32"))


@pytest.mark.parametrize(
    ("layer", "dtype"),
    [
        (layers.Hashing(5, name="buckets"), "int32"),
        (layers.IntegerLookup(vocabulary=[3, 4], name="buckets"), "int64"),
    ],
)
def test_hashed_and_looked_up_ids(layer, dtype):
    student = model_of(lambda x: layers.Embedding(5, 2)(layer(x)), 6, dtype=dtype)
    with pytest.raises(ValueError, match=r"'buckets' \(.*the app must do that. Cut the student"):
        tflite.convert(student)


@pytest.mark.parametrize(
    "layer", [layers.GRU(3, name="memory"), layers.Bidirectional(layers.LSTM(3), name="memory")]
)
def test_loops_of_unknown_size(layer):
    message = r"loop \(.*layer '.*(memory|lstm).*'.*give `batch_size=1`"
    with pytest.raises(tflite.ConverterError, match=message):
        tflite.convert(model_of(layer, 4, 3), batch_size=None)


@pytest.mark.long
def test_loops_of_tflite_micro():
    student = model_of(lambda x: layers.GRU(3, return_sequences=True)(x), 5, 3)
    with pytest.raises(tflite.ConverterError, match='Give `recurrent="unroll"`'):
        tflite.convert(student, "micro")
    x = data(5, 3)
    artifact = tflite.convert(student, "micro", recurrent="unroll")
    np.testing.assert_allclose(artifact.predict(x), student.predict(x), atol=1e-5)


def test_exponential_that_tflite_micro_has_for_floats_only():
    student = model_of(lambda x: keras.ops.logsumexp(layers.Dense(3)(x), -1), 6)
    message = r"has no EXP of integers \(at '.*LogSumExp/Exp'\): compute it after the file"
    with pytest.raises(ValueError, match=message):
        tflite.convert(student, "micro", "int8", calibration=data(6))
    tflite.convert(student, "micro")


def test_copies_that_tflite_micro_lacks():
    copies = layers.Lambda(lambda x: tf.tile(x, [1, 4]), name="copies")
    student = model_of(lambda x: copies(layers.Dense(3)(x)), 6)
    with pytest.raises(ValueError, match=r"no operator TILE \(at .*\): repeat floats.*`ops.take`"):
        tflite.convert(student, "micro")


def test_nodes_are_named_by_their_layers():
    student = model_of(lambda x: x / keras.ops.sum(keras.ops.abs(x), axis=-1, keepdims=True), 6)
    with pytest.raises(ValueError, match=r"\(DIV\), layer '.*', failed to invoke"):
        tflite.convert(student, quantization="int8", calibration=data(6))


def test_a_distiller_instead_of_its_student():
    from keras_distill import Distiller

    student = model_of(layers.Dense(3), 6)
    distiller = Distiller(student, keras.models.clone_model(student))
    with pytest.raises(TypeError, match=r"Received: Distiller; give its `\.student`"):
        tflite.convert(distiller)


class TestDenseLayersIn16Bits:
    """The kernel of CMSIS-NN wants one scale for all weights."""

    def test_are_written_per_tensor_for_microcontrollers(self):
        x, student = data(6), model_of(lambda x: layers.Dense(3)(layers.Dense(8, "relu")(x)), 6)
        for target, count in (("micro", 1), ("android", 8)):
            artifact = tflite.convert(student, target, "int16x8", calibration=x)
            weights = tflite.inspect(artifact.tflite).operators[1 - (target == "micro")].inputs[1]
            assert len(weights.scales) == count
            expected = student.predict(x, verbose=0)
            assert np.sqrt(np.mean((artifact.predict(x) - expected) ** 2)) < 0.02 * expected.std()

    @pytest.mark.parametrize("by_layer", rest_is_long([False, True], [False]))
    def test_of_aware_students_are_convolutions(self, by_layer):
        """Which take the trained scales of each output, bit for bit."""

        def function(x):
            x = layers.BatchNormalization()(layers.Dense(8, name="embed")(x))
            return layers.Dense(3, name="scores")(layers.ReLU()(x))

        x, student = data(6), model_of(function, 6)
        options = {"activation_bits": 16}
        if by_layer:
            options = {"layers": {"scores": {"activations": 16}}}
        aware = quantization.quantize_aware(student, x, **options)
        expected = aware.predict(x, verbose=0)
        for target, name in (("micro", "CONV_2D"), ("android", "FULLY_CONNECTED")):
            io = "float32" if by_layer else None
            artifact = tflite.convert(aware, target, io=io)
            dense = [op for op in tflite.inspect(artifact.tflite).operators if len(op.inputs) == 3]
            in_16_bits = [op.name for op in dense if op.inputs[0].dtype == "INT16"]
            assert in_16_bits == [name] * (1 if by_layer else 2)
            assert [len(op.inputs[1].scales) for op in dense] == [8, 3]
            error = artifact.predict(x) - expected
            assert np.sqrt(np.mean(error**2)) < 1e-3 * expected.std()
            assert not artifact.report["warnings"]


def test_types_in_the_report():
    student = model_of(lambda x: layers.Dense(2)(layers.Flatten()(layers.Embedding(9, 2)(x))), 4,
                       dtype="int32")  # fmt: skip
    ids = np.random.default_rng(0).integers(0, 9, (16, 4)).astype("int32")
    artifact = tflite.convert(student, "android", "int8", calibration=ids)
    assert artifact.report["io"] == ["int32", "float32"]


def test_variants_that_the_app_would_not_load(tmp_path):
    student = model_of(layers.Dense(3), 6)
    files = {q: tflite.convert(student, quantization=q) for q in ("float32", "dynamic", "float16")}
    for others in (("dynamic",), ("float16",)):
        with pytest.raises(ValueError, match=f"{others[0]!r} would never be loaded"):
            files["float32"].save(tmp_path, variants=[files[q] for q in others])
    files["dynamic"].save(tmp_path, variants=[files["float16"]])


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("variants", ["itself"]),
        ("package", "org.example.digits"),
        ("description", "Reads digits."),
        ("normalization", (0.0, 255.0)),
    ],
)
def test_arguments_of_an_app_for_firmware(argument, value, firmware, tmp_path):
    given = {argument: [firmware] if argument == "variants" else value}
    message = rf"`{argument}` is for the app of a phone, .* target 'micro'.*Leave it out.*Received"
    with pytest.raises(ValueError, match=message):
        firmware.save(tmp_path / "kit", **given)
    assert not (tmp_path / "kit").exists()


def test_defaults_of_an_app_for_firmware(firmware, tmp_path):
    firmware.save(tmp_path / "kit", variants=[], normalization=[0, 1])


@pytest.fixture(scope="module")
def firmware():
    return tflite.convert(model_of(layers.Dense(3), 6), "micro")
