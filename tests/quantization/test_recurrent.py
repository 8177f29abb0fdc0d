"""Recurrent layers: files compute what was simulated, over many steps of time."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from aware import MICRO, compiled, graph_of, operators, steps_apart
from sweeps import rest_is_long

from keras_distill import pruning, quantization, tflite
from keras_distill.quantization import lstm as lstms
from keras_distill.quantization.lstm import QuantizedLSTM

layers = keras.layers
#: What is built, its operators, and how many steps the file may be off: 1 for each kernel in a row.
KINDS = {
    "sequences": (
        lambda x: layers.LSTM(8, return_sequences=True)(x),
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        1,
    ),
    "last": (
        lambda x: layers.Dense(3)(layers.LSTM(8)(layers.Conv1D(6, 3)(x))),
        "RESHAPE CONV_2D RESHAPE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE FULLY_CONNECTED",
        3,
    ),
    "backwards": (
        lambda x: layers.LSTM(4, go_backwards=True)(x),
        "REVERSE_V2 UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE",
        1,
    ),
    "bidirectional": (
        lambda x: layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x),
        None,
        2,
    ),
    "stacked": (
        lambda x: layers.LSTM(4)(layers.LSTM(6, return_sequences=True)(x)),
        "UNIDIRECTIONAL_SEQUENCE_LSTM UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE",
        2,
    ),
}
#: Cells that grow from step to step, and cells that forget at once.
FORGETS = (3.0, -1.0)
SHORT = [("last", 3.0)]


def build(function, shape, forget=1.0):
    """A model whose weights are far from those that a layer starts with."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    inputs = keras.Input(shape, name="x")
    model = keras.Model(inputs, function(inputs))
    for variable in model.weights:
        if variable.name in ("kernel", "recurrent_kernel"):
            variable.assign(rng.normal(0, 1 / np.sqrt(variable.shape[0]), variable.shape))
        elif variable.name == "bias":
            variable.assign(rng.normal(0, 0.5, variable.shape))
            if variable.shape[0] in (16, 24, 32):
                units = variable.shape[0] // 4
                bias = np.array(variable)
                bias[units : 2 * units] = forget
                variable.assign(bias)
    return model


@pytest.fixture(scope="module")
def files():
    """The quantize-aware model, file and inputs of each case over 100 steps, made once."""
    made = {}

    def make(kind, forget):
        if (kind, forget) not in made:
            x = np.random.default_rng(0).normal(size=(16, 100, 4)).astype("float32")
            aware = quantization.quantize_aware(build(KINDS[kind][0], x.shape[1:], forget), x)
            made[kind, forget] = aware, tflite.convert(aware, io="int8").tflite, x
        return made[kind, forget]

    return make


@pytest.mark.parametrize("runtime", ["litert", "litert-reference", MICRO])
@pytest.mark.parametrize(
    ("kind", "forget"), rest_is_long([(k, f) for k in KINDS for f in FORGETS], SHORT)
)
def test_files_compute_what_was_simulated_over_100_steps(kind, forget, runtime, files):
    aware, file, x = files(kind, forget)
    _, expected, bound = KINDS[kind]
    if expected:
        assert " ".join(operators(file)) == expected
    apart = steps_apart(aware, file, [x], runtime)
    assert apart.max() <= bound
    assert apart.mean() < (0.1 if bound == 1 else 0.3)


def test_the_file_holds_the_integers_of_each_gate(files):
    aware, file, _ = files("last", 3.0)
    (lstm,) = (x for x in aware.layers if isinstance(x, QuantizedLSTM))
    model, graph = graph_of(file)
    (fused,) = (o for o in graph.operators if len(o.inputs) == 24)

    def data(place, dtype):
        tensor = graph.tensors[fused.inputs[place]]
        values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), dtype)
        return values.reshape(tensor.shape), tensor.quantization.scale[0]

    input_step = graph.tensors[fused.inputs[0]].quantization.scale[0]
    for first, variable in ((1, lstm.kernel), (5, lstm.recurrent_kernel)):
        for gate, weights in enumerate(np.split(np.array(variable), 4, axis=1)):
            integers, step = data(first + gate, "int8")
            assert step == pytest.approx(np.abs(weights).max() / 127, rel=1e-6)
            np.testing.assert_array_equal(integers, np.round(weights.T / step))
            if first == 1:
                bias, bias_step = data(12 + gate, "int32")
                assert bias_step == pytest.approx(step * input_step, rel=1e-6)
                expected = np.split(np.array(lstm.bias), 4)[gate] / bias_step
                np.testing.assert_allclose(bias, expected, atol=0.51)
    hidden, cell = (graph.tensors[fused.inputs[place]] for place in (18, 19))
    output = graph.tensors[fused.outputs[0]].quantization
    assert (hidden.quantization.scale, hidden.quantization.zeroPoint) == (
        output.scale,
        output.zeroPoint,
    )
    assert np.log2(cell.quantization.scale[0]) % 1 == 0
    assert 1 <= cell.quantization.scale[0] * 2**15 <= 64


def test_gates_are_as_near_to_the_kernels_as_they_say():
    """All 16-bit inputs of TFLite Micro's tables against what is simulated: 2 steps of 2^-15."""
    x = np.arange(-(2**15), 2**15)
    table = np.minimum(np.round(2**16 / (1 + np.exp(-np.arange(257) / 24))), 2**16 - 1).astype(int)

    def interpolated(x, bits):
        # kernels/internal/reference/integer_ops/logistic.h and tanh.h, of inputs in 2^-12.
        size = abs(3 * x)
        place, rest = size >> bits, size & (2**bits - 1)
        known = np.minimum(place, 255)
        inside = (table[known] << bits) + rest * (table[known + 1] - table[known])
        return np.where(place >= 255, (2**16 - 1) << bits, inside) / 2.0 ** (16 + bits)

    upper = interpolated(x, 9)
    sigmoid = np.round(np.where(x < 0, 1 - upper, upper) * 2**15)
    tanh = np.round(np.sign(x) * (2 * interpolated(x, 8) - 1) * 2**15)
    for kernel, simulated in ((sigmoid, lstms._sigmoid), (tanh, lstms._tanh)):
        values = np.array(simulated(keras.ops.convert_to_tensor(np.float32(x / 2**12)))) * 2**15
        assert np.abs(values - kernel).max() <= 2


def test_training_saving_and_zeros(tmp_path, rng):
    """It learns, as the float layer does, follows its cell, keeps zeros, and is loaded the same."""
    x = rng.normal(size=(128, 12, 2)).astype("float32")
    y = (x[..., 0].sum(1) > 0).astype("int32")
    model = build(lambda z: layers.Dense(2)(layers.LSTM(6, dropout=0.1)(z)), x.shape[1:])
    aware = compiled(quantization.quantize_aware(model, x[:4]), 0.02)
    (lstm,) = (z for z in aware.layers if isinstance(z, QuantizedLSTM))
    before = np.array(lstm.cell_range.maximum)
    sparse = pruning.Sparsity(0.5, end_step=8, frequency=2)
    history = aware.fit(x, y, epochs=12, batch_size=32, verbose=0, callbacks=[sparse])
    assert history.history["accuracy"][-1] > 0.85
    assert np.array(lstm.cell_range.maximum) != before
    assert np.mean(np.array(lstm.recurrent_kernel) == 0) == pytest.approx(0.5, abs=0.01)
    aware.save(tmp_path / "aware.keras")
    loaded = keras.saving.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), aware.predict(x, verbose=0))
    assert loaded.get_layer(lstm.name).dropout == 0.1
    quantization.freeze(loaded)
    file = tflite.convert(loaded, io="int8").tflite
    assert steps_apart(loaded, file, [x]).max() <= 3
    _, graph = graph_of(file)
    (fused,) = (o for o in graph.operators if len(o.inputs) == 24)
    model, graph = graph_of(file)
    zeros = [
        np.mean(np.frombuffer(bytes(model.buffers[graph.tensors[i].buffer].data), "int8") == 0)
        for i in fused.inputs[5:9]
    ]
    assert np.mean(zeros) >= 0.5


REFUSED = {
    "return_state": (lambda x: layers.LSTM(3, name="rnn", return_state=True)(x)[0], "return_state"),
    "activation": (lambda x: layers.LSTM(3, name="rnn", activation="relu")(x), "`activation`"),
    "sum": (
        lambda x: layers.Bidirectional(layers.LSTM(3), merge_mode="sum", name="rnn")(x),
        'merge_mode="concat"',
    ),
    "reset_after": (lambda x: layers.GRU(3, reset_after=False, name="rnn")(x), "`reset_after"),
    "relu": (lambda x: layers.SimpleRNN(3, activation="relu", name="rnn")(x), "`activation`"),
    "cell": (lambda x: layers.RNN(layers.GRUCell(3), name="rnn")(x), "`GRU` and `SimpleRNN`"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_operator_does_not_compute_is_refused(kind):
    function, message = REFUSED[kind]
    model = build(function, (5, 4))
    with pytest.raises(ValueError, match=f"'rnn' .*{message}"):
        quantization.quantize_aware(model)


def sequences(x):
    return layers.LSTM(8, return_sequences=True, name="rnn")(x)


#: LSTMs of 16 bits, the bias of their forget gates, and how many steps the output may be off: of 16
#: bits, or of 8 where only the LSTM has 16. A tenth of a step of 8 bits is 26 of 16.
SIXTEEN = {
    "keeps": (sequences, 3.0, 64),
    "forgets": (sequences, -1.0, 26),
    "stacked": (lambda x: layers.LSTM(4)(layers.LSTM(6, return_sequences=True)(x)), -1.0, 26),
    "alone": (
        lambda x: layers.Dense(3)(layers.LSTM(8, name="rnn")(layers.Conv1D(6, 3)(x))),
        3.0,
        1,
    ),
}


@pytest.mark.parametrize("kind", rest_is_long(SIXTEEN, ["alone"]))
def test_lstms_of_16_bits_in_tflite_micro(kind):
    pytest.importorskip("tflite_micro")
    function, forget, bound = SIXTEEN[kind]
    x = np.random.default_rng(0).normal(size=(16, 100, 4)).astype("float32")
    model = build(function, x.shape[1:], forget)
    is_alone = kind == "alone"
    bits = {"layers": {"rnn": {"activations": 16}}} if is_alone else {"activation_bits": 16}
    aware = quantization.quantize_aware(model, x, **bits)
    artifact = tflite.convert(aware, target="micro", io="int8" if is_alone else "int16")
    _, graph = graph_of(artifact.tflite)
    for fused in (o for o in graph.operators if len(o.inputs) == 24):
        ends = (graph.tensors[i].type for i in (fused.inputs[0], fused.outputs[0]))
        assert set(ends) == {schema.TensorType.INT16}
    assert steps_apart(aware, artifact.tflite, [x], "micro").max() <= bound
    artifact.verify(x)


def test_an_lstm_of_16_bits_is_refused_for_litert():
    model = build(lambda x: layers.LSTM(3, name="rnn")(x), (5, 4))
    x = np.ones((4, 5, 4), "float32")
    aware = quantization.quantize_aware(model, x, activation_bits=16)
    with pytest.raises(
        ValueError, match=r"target 'android' .* no LSTM with activations of 16 bits"
    ):
        tflite.convert(aware)


@pytest.mark.parametrize("bits", [{"weight_bits": 4}, {"activation_bits": 16}])
def test_other_bits_are_refused(bits):
    kind = layers.Bidirectional if "activation_bits" in bits else lambda layer, name: layer
    model = build(lambda x: kind(layers.LSTM(3, name="rnn"), name="rnn")(x), (5, 4))
    with pytest.raises(ValueError, match=r"'rnn' .* bits: give it 8 with `layers=\{'rnn'"):
        quantization.quantize_aware(model, **bits)
