"""The file of a trained student: the very scales and integers, and nothing float."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from aware import MICRO, convolutional, graph_of, operators, steps_apart
from keras_distill.tflite import runtimes
from keras_distill.tflite.converters import trained
from keras_distill.tflite.converters.export_form import ExportForm

from keras_distill import quantization, tflite
from keras_distill.quantization.ranges import AnyRange


def by_name(file):
    return {tensor.name.decode(): tensor for tensor in graph_of(file)[1].tensors}


def test_every_range_is_in_the_file(aware_student, artifact):
    tensors = by_name(artifact.tflite)
    ranges = [x for x in aware_student._flatten_layers() if isinstance(x, AnyRange)]
    assert len(ranges) == 7
    for layer in ranges:
        scale, zero_point = (float(v) for v in layer.grid())
        found = tensors[layer.tensor].quantization
        assert float(found.scale[0]) == pytest.approx(scale, rel=1e-6)
        assert found.zeroPoint[0] == zero_point


@pytest.mark.parametrize(
    ("name", "norm"),
    [("stem", "stem_norm"), ("depthwise", "depthwise_norm"), ("wide", None), ("logits", None)],
)
def test_every_weight_is_in_the_file(name, norm, aware_student, artifact):
    """The integers from the trained kernel in float64, BatchNormalization folded by formula."""
    kernel = np.float64(aware_student.get_layer(name).float_kernel)
    if name == "depthwise":
        kernel = kernel[..., 0]
    folded = 1.0
    if norm is not None:
        norm = aware_student.get_layer(norm)
        deviation = np.sqrt(np.float64(norm.moving_variance) + norm.epsilon)
        folded = np.float64(norm.gamma) / deviation
    kernel = kernel * folded
    channels = kernel.shape[-1]
    scale = np.abs(kernel).reshape(-1, channels).max(0) / 127
    model, _ = graph_of(artifact.tflite)
    tensor = by_name(artifact.tflite)[f"{name}/kernel"]
    np.testing.assert_allclose(tensor.quantization.scale, scale, rtol=1e-6)
    integers = np.frombuffer(bytes(model.buffers[tensor.buffer].data), "int8")
    expected = np.round(kernel / scale)
    expected = expected[None] if name == "depthwise" else np.moveaxis(expected, -1, 0)
    np.testing.assert_array_equal(integers, expected.ravel())


def test_all_operators_are_int8(artifact):
    assert operators(artifact.tflite) == [
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "CONV_2D",
        "ADD",
        "MAX_POOL_2D",
        "CONV_2D",
        "CONCATENATION",
        "MEAN",
        "FULLY_CONNECTED",
    ]
    types = {tensor.type for tensor in graph_of(artifact.tflite)[1].tensors}
    assert types == {schema.TensorType.INT8, schema.TensorType.INT32}


@pytest.mark.parametrize("runtime", ["litert", "litert-reference", MICRO])
def test_runtimes_agree_with_the_simulation(runtime, aware_student, artifact, split):
    x, _ = split[1]
    apart = steps_apart(aware_student, artifact.tflite, [x], runtime)
    # A value on the edge between two integers may be rounded either way, and so may what follows.
    assert apart.max() <= 2
    assert np.mean(apart > 1) < 1e-3
    # Where one class leads by more than what kernels may differ, the answer is the same.
    logits = aware_student.predict(x, verbose=0)
    first, second = np.sort(logits)[:, -1], np.sort(logits)[:, -2]
    scale = by_name(artifact.tflite)["logits"].quantization.scale[0]
    assert np.mean(first - second > 1.5 * scale) > 0.95


@pytest.mark.parametrize(
    ("io", "ends"),
    [
        pytest.param("float32", ("QUANTIZE", "DEQUANTIZE"), marks=pytest.mark.long),
        ("uint8", ("QUANTIZE", "QUANTIZE")),
    ],
)
def test_ports_of_other_types(io, ends, aware_student, artifact, split):
    made = tflite.convert(aware_student, io=io)
    names = operators(made.tflite)
    assert (names[0], names[-1]) == ends
    assert len(names) == 11
    simulated = aware_student.predict(split[1][0][:64], verbose=0)
    outputs = made.predict(split[1][0][:64])
    scale = by_name(artifact.tflite)["logits"].quantization.scale
    answers = next(iter(outputs.values())) if isinstance(outputs, dict) else outputs
    assert np.max(np.abs(answers - simulated)) <= 1.01 * scale[0]


def tampered(file, change):
    model, graph = graph_of(file)
    change(model, {tensor.name.decode(): tensor for tensor in graph.tensors})
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def scale_of(name, factor):
    def change(model, tensors):
        tensors[name].quantization.scale[0] *= factor

    return change


def other_weight(model, tensors):
    data = np.array(model.buffers[tensors["wide/kernel"].buffer].data)
    data[3] ^= 1
    model.buffers[tensors["wide/kernel"].buffer].data = data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (scale_of("stem_relu", 1 + 1e-5), "'stem_relu' has scale"),
        (scale_of("wide/kernel", 1 + 1e-5), "'wide/kernel' have other scales"),
        (other_weight, "'wide/kernel' differ from the trained ones in 1 of"),
    ],
)
def test_a_file_that_differs_is_refused(change, message, aware_student, artifact):
    trained.check(ExportForm(aware_student), artifact.tflite)
    with pytest.raises(ValueError, match=message):
        trained.check(ExportForm(aware_student), tampered(artifact.tflite, change))


def test_a_file_with_a_float_tensor_is_refused(aware_student, artifact):
    def change(model, tensors):
        tensors["pointwise"].type = schema.TensorType.FLOAT32

    with pytest.raises(ValueError, match="'pointwise' is FLOAT32"):
        trained.check(ExportForm(aware_student), tampered(artifact.tflite, change))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"weight_bits": 4}, marks=pytest.mark.long),
        pytest.param({"learned_steps": True}, marks=pytest.mark.long),
        pytest.param({"weight_bits": 4, "learned_steps": True}, marks=pytest.mark.nightly),
        pytest.param({"activation_bits": 16}, marks=pytest.mark.long),
        pytest.param(
            {"layers": {"pointwise": {"weights": 4}, "logits": {"activations": 16}}},
            marks=pytest.mark.long,
        ),
    ],
    ids=str,
)
def test_other_precisions(options, float_student, split):
    """Files compute what the model does, in the runtime of microcontrollers where there is one."""
    model = quantization.quantize_aware(float_student, split[0][0][:256], **options)
    file = tflite.convert(model, io="int8").tflite if "activation_bits" not in options else None
    file = file or tflite.convert(model, io="int16").tflite
    runtime = "micro" if runtimes.micro_available() else "litert-reference"
    apart = steps_apart(model, file, [split[1][0][:150]], runtime)
    is_fine = options.get("activation_bits") == 16
    assert apart.max() <= (4 if is_fine else 2) if "layers" not in options else True
    (outputs,) = runtimes.run_samples(runtimes.open_file(file, runtime), [split[1][0][:150]])
    answers = np.argmax(model.predict(split[1][0][:150], verbose=0), -1)
    assert np.mean(np.argmax(outputs, -1) == answers) > 0.97


@pytest.mark.long
def test_int4_weights_take_half_a_byte(float_student, split):
    model = quantization.quantize_aware(float_student, split[0][0][:256], weight_bits=4)
    made = tflite.convert(model, io="int8")
    file, _ = graph_of(made.tflite)
    tensor = by_name(made.tflite)["wide/kernel"]
    assert tensor.type == schema.TensorType.INT4
    data = np.array(file.buffers[tensor.buffer].data)
    assert data.size == 16 * 16 * 9 / 2
    low, high = (data.astype("int8") << 4) >> 4, data.astype("int8") >> 4
    integers = np.stack([low, high], 1).reshape(16, 3, 3, 16)
    kernel = np.float64(model.get_layer("wide").float_kernel)
    scale = np.abs(kernel).max((0, 1, 2)) / 7
    np.testing.assert_array_equal(integers, np.moveaxis(np.round(kernel / scale), -1, 0))


@pytest.mark.long
def test_a_layer_that_stays_float(float_student, split):
    model = quantization.quantize_aware(
        float_student, split[0][0][:256], layers={"pointwise": None}
    )
    with pytest.warns(UserWarning, match="stayed float: CONV_2D at '.*pointwise"):
        made = tflite.convert(model, io="int8")
    assert operators(made.tflite)[2:6] == ["DEQUANTIZE", "CONV_2D", "QUANTIZE", "ADD"]
    apart = steps_apart(model, made.tflite, [split[1][0]])
    # What a float layer gives near the middle of two steps is rounded to either.
    assert apart.max() <= 2
    assert (apart > 1).mean() < 0.01


@pytest.mark.long
def test_a_bias_that_would_overflow_raises_the_scale(split):
    """A channel whose kernel is all but zero."""
    model = convolutional()
    norm = model.get_layer("stem_norm")
    gamma = np.ones(16, "float32")
    gamma[3] = 1e-9
    norm.gamma.assign(gamma)
    norm.beta.assign(np.full(16, 0.5, "float32"))
    aware = quantization.quantize_aware(model, split[0][0][:128])
    made = tflite.convert(aware, io="int8")
    assert steps_apart(aware, made.tflite, [split[1][0]]).max() <= 1


def branches():
    """Two inputs, a shared encoder, a nested head, three outputs by name."""
    layers = keras.layers
    inside = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, padding="same", name="conv")(inside)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    encoder = keras.Model(inside, layers.Conv2D(6, 3, strides=2, name="last")(x), name="encoder")
    left, right = keras.Input((8, 8, 1), name="left"), keras.Input((8, 8, 1), name="right")
    a, b = encoder(left), encoder(right)
    both = layers.Concatenate(name="both")([a, b])
    head = keras.Sequential(
        [layers.Flatten(), layers.Dense(12, activation="relu", name="hidden")], name="head"
    )
    shared = layers.Conv2D(4, 1, name="shared")
    total = shared(both) + shared(layers.ReLU(name="positive")(both))
    return keras.Model(
        {"left": left, "right": right},
        {
            "digit": layers.Dense(10, name="digit")(head(both)),
            "same": layers.Dense(1, activation="sigmoid", name="same")(layers.Flatten()(total)),
            "norm": layers.BatchNormalization(name="outer_norm")(a),
        },
        name="branches",
    )


@pytest.mark.long
def test_nested_and_shared_layers(tmp_path, split):
    x = split[0][0]
    inputs = {"left": x[:200], "right": x[200:400]}
    model = quantization.quantize_aware(branches(), inputs)
    made = tflite.convert(model, io="int8")
    kinds = operators(made.tflite)
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(kinds)
    assert kinds.count("CONCATENATION") == 1
    scales = {n: t.quantization.scale[0] for n, t in by_name(made.tflite).items()
              if n in ("encoder", "encoder_1")}  # fmt: skip
    assert scales["encoder"] == scales["encoder_1"]
    simulated = model.predict(inputs, verbose=0)
    answers = made.predict(inputs)
    for name in ("digit", "same", "norm"):
        layer = "outer_norm" if name == "norm" else name
        scale = by_name(made.tflite)[layer].quantization.scale[0]
        assert np.max(np.abs(answers[name] - simulated[name])) < 2.01 * scale
    model.save(tmp_path / "branches.keras")
    again = keras.saving.load_model(tmp_path / "branches.keras", safe_mode=True)
    for name, values in again.predict(inputs, verbose=0).items():
        np.testing.assert_array_equal(values, simulated[name])


@pytest.mark.long
def test_layers_with_the_same_constants(rng):
    """Each has its name in the file, though its factors are the very bytes of another's."""
    layers = keras.layers
    given = keras.Input((6, 4))
    x = layers.LayerNormalization(name="before")(layers.Dense(4, name="first")(given))
    x = layers.Activation("hard_sigmoid", name="gate")(layers.Dense(4, name="middle")(x))
    x = layers.PReLU(shared_axes=[1], name="slope")(x)
    x = layers.LayerNormalization(name="after")(layers.Dense(4, name="last")(x))
    x = layers.Activation("hard_sigmoid", name="second_gate")(x)
    x = layers.PReLU(shared_axes=[1], name="second_slope")(x)
    data = rng.normal(size=(200, 6, 4)).astype("float32")
    model = quantization.quantize_aware(keras.Model(given, x), data)
    made = tflite.convert(model, io="int8")
    names = {name.rpartition("/")[0] for name in by_name(made.tflite) if "/" in name}
    assert {"before_epsilon", "after_epsilon", "gate", "second_gate", "slope"} <= names
    assert "second_slope" in names
    assert steps_apart(model, made.tflite, [data]).max() <= 2


@pytest.mark.parametrize("bits", [8, 16])
def test_channels_that_a_normalization_multiplies_by_0(bits):
    """As of a pruned unit: the offset is left, in a scale that isn't 0."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(3, 3, name="maps")])
    model.add(layers.BatchNormalization(name="norm"))
    model.get_layer("norm").gamma.assign([0, 1, 0])
    model.get_layer("norm").beta.assign([0.75, 0.5, 0])
    x = np.random.default_rng(0).normal(size=(32, 6, 6, 2)).astype("float32")
    aware = quantization.quantize_aware(model, x, activation_bits=bits)
    artifact = tflite.convert(aware, "micro")
    scales = by_name(artifact.named)["maps/kernel"].quantization.scale
    assert np.min(scales) > 0
    found = artifact.predict(x)
    step = artifact.report["outputs"][0]["scale"]
    np.testing.assert_allclose(found[..., 0], 0.75, atol=step / 2 + 1e-6)
    np.testing.assert_array_equal(found[..., 2], 0)
    np.testing.assert_allclose(found, aware.predict(x, verbose=0), atol=2 * step)
