"""Every kind of student in every quantization for every target: proven there, or refused."""

import itertools

import keras
import numpy as np
import pytest
import zoo
from ai_edge_litert.tools import flatbuffer_utils
from keras_distill.tflite import targets
from sweeps import rest_is_long

from keras_distill import tflite

# Root mean square error relative to the outputs' spread.
TOLERANCE = {
    "float32": 1e-5, "float16": 2e-3, "dynamic": 0.02, "int8": 0.1, "int16x8": 0.05, "int4": 0.6,
}  # fmt: skip
CASES = [
    (student, target, quantization)
    for student in zoo.STUDENTS
    for target in ("android", "micro")
    for quantization in targets.QUANTIZATIONS
    if target == "android" or quantization not in ("float16", "dynamic")
]
#: Each student on each target, each quantization at least once.
SHORT = [
    *(("conv1d", "android", "dynamic"), ("embedding", "micro", "int16x8")),
    *(("attention", "android", "int4"), ("lstm", "micro", "int8"), ("gru", "micro", "int8")),
]
REFUSED = {
    ("lstm", "android", "int16x8"): "becomes a loop",
    ("lstm", "micro", "int16x8"): "becomes a loop",
    ("embedding", "micro", "int16x8"): "'INT16' is not supported by gather",
    **{
        ("gru", target, quantization): "Layer 'memory' .GRU. becomes a loop"
        for target in ("android", "micro")
        for quantization in ("int8", "int16x8", "int4")
    },
}


#: Operators that Vela leaves to the CPU.
LEFT_TO_THE_CPU = {"embedding": {"GATHER"}, "lstm": {"REVERSE_V2"}}


@pytest.fixture(scope="module")
def students():
    keras.utils.set_random_seed(3)
    models = {name: build() for name, build in zoo.STUDENTS.items()}
    return {name: (model, zoo.data(model)) for name, model in models.items()}


@pytest.mark.filterwarnings("ignore:Not everything is:UserWarning")
@pytest.mark.parametrize(("name", "target", "quantization"), rest_is_long(CASES, SHORT))
def test_student_is_proven_or_refused(students, name, target, quantization):
    student, x = students[name]
    message = REFUSED.get((name, target, quantization))
    if message:
        with pytest.raises(ValueError, match=message):
            tflite.convert(student, target, quantization, calibration=x)
        return
    artifact = tflite.convert(student, target, quantization, calibration=x)
    expected, got = student.predict(x, verbose=0), artifact.predict(x)
    tolerance = 2e-3 if (name, target, quantization) == ("attention", "micro", "float32") else None
    for wanted, found in _pairs(expected, got):
        assert wanted.shape == found.shape
        error = np.sqrt(np.mean((wanted - found) ** 2)) / wanted.std()
        assert error < (tolerance or TOLERANCE[quantization])
    if quantization.startswith("int"):
        _check_types(artifact)


def _check_types(artifact):
    """Nothing is left float in silence."""
    operators = [
        op
        for op in tflite.inspect(artifact.tflite).operators
        if op.name not in ("QUANTIZE", "DEQUANTIZE")
    ]
    floats = any(t.dtype == "FLOAT32" for op in operators for t in op.outputs)
    said = any("stayed float" in note for note in artifact.report["warnings"])
    assert floats == said


@pytest.mark.parametrize(
    "name", rest_is_long(sorted(set(zoo.STUDENTS) - {"gru"}), ["embedding", "several"])
)
def test_student_on_an_npu(students, name):
    pytest.importorskip("ethosu", reason="Vela (keras-distill[ethos]) is not installed")
    student, x = students[name]
    artifact = tflite.convert(student, "ethos-u55-128", "int8", calibration=x)
    assert "ethos-u" in tflite.inspect(artifact.compiled).counts
    assert artifact.report["npu"]["cycles"] > 0
    left = set(artifact.report["npu"]["operators_left_to_the_cpu"])
    assert left == LEFT_TO_THE_CPU.get(name, set())


def _pairs(expected, got):
    if not isinstance(expected, dict):
        return [(expected, got)]
    assert set(expected) == set(got)
    return [(expected[name], got[name]) for name in expected]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Not everything is int8. stayed float. SPLIT:UserWarning")
@pytest.mark.parametrize(
    ("target", "recurrent"),
    rest_is_long(
        list(itertools.product(["android", "micro"], ["unroll", "step"])),
        [("android", "unroll"), ("micro", "step")],
    ),
)
def test_gru_in_integers(students, recurrent, target):
    student, x = students["gru"]
    artifact = tflite.convert(student, target, "int8", calibration=x, recurrent=recurrent)
    expected, got = student.predict(x, verbose=0), artifact.predict(x)
    assert np.sqrt(np.mean((expected - got) ** 2)) / expected.std() < 0.1
    if recurrent == "step":
        assert [port["name"] for port in artifact.report["inputs"]] == ["window", "memory_state"]
        assert artifact.report["inputs"][0]["shape"] == [1, 1, 3]


@pytest.mark.long
def test_fused_operator_for_lstm(students):
    student, x = students["lstm"]
    artifact = tflite.convert(student, "micro", "int8", calibration=x)
    assert artifact.report["operators"]["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 3
    assert "WHILE" not in artifact.report["operators"]
    # Hidden states are forgotten between samples: the order of samples doesn't matter.
    [array] = x.values()
    forward, backward = artifact.predict(array), artifact.predict(array[::-1])
    np.testing.assert_array_equal(forward, backward[::-1])


def test_steps_that_are_not_steps(students):
    inputs = keras.Input((6, 3))
    x = keras.layers.GRU(4)(keras.layers.Conv1D(4, 3, padding="same")(inputs))
    with pytest.raises(ValueError, match="looks at several time steps at once"):
        tflite.convert(keras.Model(inputs, x), recurrent="step")
    student, x = students["lstm"]
    with pytest.raises(ValueError, match="reads the sequence backwards"):
        tflite.convert(student, "micro", "int8", calibration=x, recurrent="step")
    masked = keras.layers.Masking()(inputs)
    with pytest.raises(ValueError, match="'memory' .GRU. is given a mask"):
        tflite.convert(
            keras.Model(inputs, keras.layers.GRU(4, name="memory")(masked)), recurrent="step"
        )
    student, x = students["conv"]
    with pytest.raises(ValueError, match="needs a recurrent layer"):
        tflite.convert(student, recurrent="step")


@keras.saving.register_keras_serializable("test")
class Loop(keras.layers.Layer):
    """A loop of its own, which the converter can't quantize."""

    def call(self, x):
        import tensorflow as tf

        def step(t, h):
            return t + 1, tf.tanh(0.5 * h + x[:, t])

        return tf.while_loop(lambda t, _: t < 4, step, (0, tf.zeros_like(x[:, 0])))[1]


@pytest.mark.long
def test_crash_of_the_converter_names_the_layer(students):
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(Loop(name="spin")(inputs)))
    with pytest.raises(tflite.ConverterCrash, match=r"crashed on model .*'[^']*spin[^']*/while'"):
        tflite.convert(model, quantization="int8", calibration=np.ones((8, 4, 3), "float32"))
    # The next conversion starts a new child.
    student, x = students["several"]
    assert tflite.convert(student).predict(x).keys() == {"scores", "angle"}


def test_crash_of_tflite_micro_is_an_error():
    """Its kernel aborts where the scale of a difference is far below that of its inputs."""
    inputs = keras.Input((4,))
    x = keras.layers.Dense(4)(inputs)
    x = keras.layers.Subtract(name="nothing")([x, x * 1.000001])
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    x = np.random.default_rng(0).standard_normal((8, 4)).astype("float32")
    message = r"Runtime 'micro' crashes on the file at SUB \(layer '.*nothing.*'\) \(ended by SIG"
    with pytest.raises(ValueError, match=message):
        tflite.convert(model, "micro", "int8", calibration=x)


def test_softmax_of_vanishing_values():
    """The reference kernels abort at the scale that calibration gives."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(inputs))
    model.set_weights([1e-9 * w for w in model.get_weights()])
    x = np.random.default_rng(0).standard_normal((8, 4)).astype("float32")
    artifact = tflite.convert(model, "micro", "int8", calibration=x)
    assert set(artifact.verify(x)["runtimes"]) == {"micro", "litert", "litert-reference"}
    np.testing.assert_allclose(artifact.predict(x), 1 / 3, atol=1 / 256)
    file = flatbuffer_utils.read_model_from_bytearray(bytearray(artifact.tflite))
    operator = file.subgraphs[0].operators[-1]
    file.subgraphs[0].tensors[operator.inputs[0]].quantization.scale = [1e-9]
    with pytest.raises(ValueError, match="Runtime 'litert-reference' crashes on the file"):
        tflite.load(bytes(flatbuffer_utils.convert_object_to_bytearray(file)))


APPLICATIONS = {
    "MobileNetV2": {"alpha": 0.35},
    "MobileNetV3Small": {"include_preprocessing": False},
    "EfficientNetB0": {},
}


LARGE = ("MobileNetV2", "EfficientNetB0")


@pytest.mark.filterwarnings("ignore:layer .* meets calibration data:UserWarning")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.nightly if n in LARGE else pytest.mark.long)
        for n in APPLICATIONS
    ],
)
def test_keras_applications_in_int8(name):
    """Untrained, they give nearly the same for every image; operators and types are what is new."""
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(32, 32, 3), classes=10, **APPLICATIONS[name])
    x = np.random.default_rng(0).random((4, 32, 32, 3), "float32")
    x = x * 255 if name == "EfficientNetB0" else x
    artifact = tflite.convert(model, "android", "int8", io="int8", calibration=x)
    found = tflite.inspect(artifact.tflite)
    assert not any(t.dtype == "FLOAT32" for op in found.operators for t in op.outputs)
    runtimes = artifact.verify(x)["runtimes"]
    assert set(runtimes) == {"litert", "litert-reference"}
    assert all(r["outputs"][0]["largest_steps"] < 2 for r in runtimes.values())
