"""GRUs and SimpleRNNs: unrolled files compute what was simulated, step after step of time."""

import keras
import numpy as np
import pytest
from aware import MICRO, compiled, graph_of, operators, steps_apart

from keras_distill import pruning, quantization, tflite
from keras_distill.quantization.stepped import QuantizedSteps

layers = keras.layers
KINDS = {
    "GRU": lambda: layers.GRU(8, return_sequences=True),
    "SimpleRNN": lambda: layers.SimpleRNN(8, return_sequences=True),
    "backwards": lambda: layers.GRU(4, go_backwards=True, use_bias=False),
    "both ways": lambda: layers.Bidirectional(layers.SimpleRNN(4, return_sequences=True)),
}
RUNTIMES = ["litert", "litert-reference", MICRO]


def build(kind, steps, bits=8):
    """A quantize-aware model whose weights are far from those that a layer starts with."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    inputs = keras.Input((steps, 4), name="x")
    model = keras.Model(inputs, KINDS[kind]()(inputs))
    for variable in model.weights:
        spread = 0.5 if variable.name == "bias" else 1 / np.sqrt(variable.shape[0])
        variable.assign(rng.normal(0, spread, variable.shape))
    x = rng.normal(size=(16, steps, 4)).astype("float32")
    return quantization.quantize_aware(model, x, activation_bits=bits), x


def converted(aware, runtime="litert", bits=8):
    target = "micro" if runtime == "micro" else "android"
    return tflite.convert(aware, target=target, io=f"int{bits}").tflite


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("SimpleRNN", 4),
        pytest.param("GRU", 4, marks=pytest.mark.long),
        pytest.param("backwards", 4, marks=pytest.mark.long),
        pytest.param("both ways", 4, marks=pytest.mark.long),
        pytest.param("SimpleRNN", 100, marks=pytest.mark.nightly),
        pytest.param("GRU", 100, marks=pytest.mark.nightly),
    ],
)
def test_litert_computes_the_simulated_integers(kind, steps):
    """Each of them: an error in one step of time would be met in those after it."""
    aware, x = build(kind, steps)
    apart = steps_apart(aware, converted(aware), [x], "litert")
    assert apart.max() <= (1 if kind == "both ways" else 0)


def greatest_error(layer, projection):
    """How many steps of 8 bits the state may be off after one step of time from the same state.

    Each operator is at most one of its steps off what it makes of its integers, and passes on what
    they were off.
    """
    step, most = {}, {}
    for name, range in layer.ranges.items():
        size, zero = (float(x) for x in range.grid())
        step[name], most[name] = size, size * max(127 - zero, 128 + zero)
    x = float(projection.grid()[0])
    sums = step["recurrent"]
    if "sum" in layer.ranges:
        return (x + sums + step["sum"]) / step["hidden"] + 1
    gates = 0.25 * (x + sums + step["gates"]) + step["sigmoid"]
    reset = gates * most["recurrent"] + sums + step["reset"]
    candidate = x + reset + step["candidate"] + step["tanh"]
    kept = gates * most["apart"] + candidate + step["apart"] + step["kept"]
    return (candidate + kept) / step["hidden"] + 1


@pytest.mark.parametrize("kind", ["SimpleRNN", pytest.param("GRU", marks=pytest.mark.long)])
def test_one_step_of_time_is_within_its_bound(kind):
    """In the runtimes that round twice, too."""
    aware, x = build(kind, 2)
    (layer,) = (z for z in aware.layers if isinstance(z, QuantizedSteps))
    bound = greatest_error(layer, aware.get_layer(f"{layer.name}_input_range"))
    assert bound < 60
    for runtime in ("litert-reference", "micro"):
        apart = steps_apart(aware, converted(aware, runtime), [x], runtime)
        assert apart[:, 0].max() <= min(bound, 3)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["GRU", "SimpleRNN"])
def test_files_stay_near_over_100_steps(kind):
    """Runtimes that round twice: errors neither grow nor gather."""
    aware, x = build(kind, 100)
    for runtime in ("litert-reference", "micro"):
        apart = steps_apart(aware, converted(aware, runtime), [x], runtime)
        assert apart.max() <= 10
        assert apart.mean() < 0.2
        assert apart[:, 50:].mean() < 2 * apart[:, :50].mean() + 0.05


@pytest.mark.long
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", ["GRU", "SimpleRNN"])
def test_activations_of_16_bits(kind, runtime):
    aware, x = build(kind, 4, bits=16)
    apart = steps_apart(aware, converted(aware, runtime, bits=16), [x], runtime)
    assert apart.max() <= 10  # Of 65,536.


def test_all_steps_read_one_kernel():
    aware, _ = build("SimpleRNN", 4)
    file = converted(aware)
    _, graph = graph_of(file)
    names = operators(file)
    dense = [o for o, name in zip(graph.operators, names, strict=True) if name == "FULLY_CONNECTED"]
    assert len(dense) == 1 + 4
    assert len({tuple(o.inputs[1:2]) for o in dense[1:]}) == 1
    (layer,) = (z for z in aware.layers if isinstance(z, QuantizedSteps))
    integers, _ = layer.integers()
    model, _ = graph_of(file)
    data = bytes(model.buffers[graph.tensors[dense[1].inputs[1]].buffer].data)
    np.testing.assert_array_equal(np.frombuffer(data, "int8"), integers.T.ravel())


def test_training_saving_and_zeros(tmp_path, rng):
    """It learns, keeps zeros, and is loaded the same."""
    x = rng.normal(size=(128, 6, 2)).astype("float32")
    y = (x[..., 0].sum(1) > 0).astype("int32")
    inputs = keras.Input(x.shape[1:])
    hidden = layers.GRU(6, dropout=0.1, recurrent_dropout=0.1)(inputs)
    model = keras.Model(inputs, layers.Dense(2)(hidden))
    aware = compiled(quantization.quantize_aware(model, x[:4]), 0.02)
    (gru,) = (z for z in aware.layers if isinstance(z, QuantizedSteps))
    before = np.array(gru.ranges["gates"].maximum)
    sparse = pruning.Sparsity(0.5, end_step=8, frequency=2)
    history = aware.fit(x, y, epochs=12, batch_size=32, verbose=0, callbacks=[sparse])
    assert history.history["accuracy"][-1] > 0.8
    assert np.array(gru.ranges["gates"].maximum) != before
    assert np.mean(np.array(gru.recurrent_kernel) == 0) == pytest.approx(0.5, abs=0.01)
    aware.save(tmp_path / "aware.keras")
    loaded = keras.saving.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), aware.predict(x, verbose=0))


@pytest.mark.parametrize("kind", [layers.GRU, layers.LSTM])
def test_outputs_are_regularized_as_before(kind):
    x = np.random.default_rng(0).normal(size=(4, 3, 2)).astype("float32")
    model = keras.Sequential([keras.Input((3, 2)), kind(3, activity_regularizer="l2")])
    aware = quantization.quantize_aware(model, x)
    for each in (model, aware):
        each(x)
    assert float(aware.losses[0]) == pytest.approx(float(model.losses[0]), rel=0.2)
    again = keras.models.clone_model(aware)
    again(x)
    assert len(again.losses) == 1


@pytest.mark.long
@pytest.mark.parametrize("learned", [False, True])
def test_stacks_are_loaded_cloned_and_written(tmp_path, learned):
    """What a layer reads may have the range inside another layer, or another model."""
    x = np.random.default_rng(0).normal(size=(16, 3, 4)).astype("float32")
    inner = keras.Sequential([keras.Input((3, 4)), layers.SimpleRNN(4, return_sequences=True)])
    inputs = keras.Input((3, 4))
    y = layers.SimpleRNN(4, return_sequences=True)(inner(inputs))
    model = keras.Model(inputs, layers.SimpleRNN(3)(layers.LSTM(4, return_sequences=True)(y)))
    aware = quantization.quantize_aware(model, x, learned_steps=learned)
    aware.save(tmp_path / "aware.keras")
    cloned = keras.models.clone_model(aware)
    cloned.set_weights(aware.get_weights())
    for again in (keras.saving.load_model(tmp_path / "aware.keras"), cloned):
        assert len(again.weights) == len(aware.weights)
        np.testing.assert_array_equal(again(x), aware(x))
    assert steps_apart(aware, converted(aware), [x], "litert").max() <= 2


@pytest.mark.parametrize("learned", [False, True])
def test_float_outputs_are_near(learned):
    """And steps may be learned."""
    x = np.random.default_rng(0).normal(size=(16, 4, 4)).astype("float32")
    inputs = keras.Input(x.shape[1:])
    gru = layers.GRU(8, return_sequences=True)
    model = keras.Model(inputs, gru(inputs))
    again = quantization.quantize_aware(model, x, learned_steps=learned)
    assert np.abs(model.predict(x, verbose=0) - again.predict(x, verbose=0)).max() < 0.1


def test_what_is_told_of_steps_of_time():
    aware, _ = build("SimpleRNN", 4)
    with pytest.raises(ValueError, match="are unrolled"):
        tflite.convert(aware, recurrent="step")
    with pytest.raises(ValueError, match=r"'simple_rnn.* can't run frame by frame: quantize-aware"):
        tflite.convert(aware, stream=1)
