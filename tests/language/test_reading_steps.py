"""Models that read a few tokens at a time, against the same models on whole sequences."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, ops
from positions import Positions
from sweeps import rest_is_long

from keras_distill.language import exporting, file_reader
from keras_distill.language.steps import Steps

WORDS, LENGTH, WIDTH = 20, 9, 8


def attending(x, memory=None):
    """A block of a decoder."""
    normal = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, 5, value_dim=3)(normal, normal, use_causal_mask=True)
    if memory is not None:
        x = x + layers.MultiHeadAttention(2, 4)(layers.LayerNormalization()(x), memory)
    return x + layers.Dense(WIDTH, "relu")(layers.LayerNormalization()(x))


def decoder():
    tokens = keras.Input((None,), dtype="int32")
    x = Positions(LENGTH, WIDTH)(layers.Embedding(WORDS, WIDTH, mask_zero=True)(tokens))
    return keras.Model(tokens, layers.Dense(WORDS)(attending(attending(x))))


def translator():
    """Its encoder looks both ways, and its source is padded."""
    source = keras.Input((7,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    table, places = layers.Embedding(WORDS, WIDTH, mask_zero=True), Positions(LENGTH, WIDTH)
    x = places(table(source))
    x = layers.Bidirectional(layers.GRU(WIDTH, return_sequences=True), "sum")(x)
    memory = layers.MultiHeadAttention(2, 4)(x, x)
    x = attending(attending(places(table(target)), memory), memory)
    return keras.Model({"source": source, "target": target}, layers.Dense(WORDS, "softmax")(x))


def recurrent_translator():
    source = keras.Input((7,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    table = layers.Embedding(WORDS, WIDTH, mask_zero=True)
    _, *states = layers.LSTM(WIDTH, return_state=True)(table(source))
    lstm = layers.LSTM(WIDTH, return_sequences=True, return_state=True)
    x, *_ = lstm(table(target), initial_state=states)
    x = layers.GRU(WIDTH, return_sequences=True)(x)
    return keras.Model({"source": source, "target": target}, layers.Dense(WORDS)(x))


def gpt2(hub):
    backbone = hub.models.GPT2Backbone(
        WORDS, num_layers=2, num_heads=2, hidden_dim=WIDTH, intermediate_dim=12,
        max_sequence_length=LENGTH,
    )  # fmt: skip
    return hub.models.GPT2CausalLM(backbone, preprocessor=None)


def llama(hub):
    """Its positions turn queries and keys, and two queries share a key."""
    backbone = hub.models.LlamaBackbone(
        WORDS, num_layers=2, num_query_heads=2, num_key_value_heads=1, hidden_dim=WIDTH,
        intermediate_dim=12,
    )  # fmt: skip
    return hub.models.LlamaCausalLM(backbone, preprocessor=None)


def gemma(hub):
    backbone = hub.models.GemmaBackbone(
        WORDS, num_layers=2, num_query_heads=2, num_key_value_heads=1, hidden_dim=WIDTH,
        intermediate_dim=12, head_dim=4,
    )  # fmt: skip
    return hub.models.GemmaCausalLM(backbone, preprocessor=None)


def of_keras_hub(make):
    model = make(pytest.importorskip("keras_hub"))
    tokens = keras.Input((None,), dtype="int32")
    mask = ops.cast(ops.not_equal(tokens, 0), "int32")
    return keras.Model(tokens, model({"token_ids": tokens, "padding_mask": mask}))


def padded(rng, count, length, shortest):
    tokens = rng.integers(1, WORDS, (count, length)).astype("int32")
    for row, size in zip(tokens, rng.integers(shortest, length + 1, count), strict=True):
        row[size:] = 0
    return tokens


MODELS = {
    "decoder": decoder,
    "translator": translator,
    "recurrent_translator": recurrent_translator,
    **{x.__name__: functools.partial(of_keras_hub, x) for x in (gpt2, llama, gemma)},
}


def read(model, rng):
    """A model read token by token, which was compared with itself as a whole, and its inputs."""
    for weight in model.trainable_variables:
        weight.assign(1.5 * rng.normal(size=weight.shape) / np.sqrt(max(weight.shape[0], 4)))
    has_source = isinstance(model.input, dict)
    others = {"source": padded(rng, 6, 7, 2)} if has_source else {}
    target = "target" if has_source else None
    steps = Steps(model, {name: x[:1] for name, x in others.items()}, LENGTH, target)
    tokens = padded(rng, 6, LENGTH, 5)
    met = exporting.Rollout(steps, tokens, others, [1, 3]).met
    return steps, met, tokens, others


@pytest.mark.parametrize("name", rest_is_long(list(MODELS), ["decoder"]))
def test_tokens_read_a_few_at_a_time_give_the_logits_of_all_at_once(name, rng):
    steps, met, tokens, others = read(MODELS[name](), rng)
    grows = {kept.name: kept.shape for kept in steps.all_kept if kept.grows}
    assert all(shape[0] == LENGTH for shape in grows.values())
    assert len(grows) == {"recurrent_translator": 0}.get(name, 4)
    for size in (1, 3):
        assert met[size]["tokens"].shape[1] == size
        assert (met[size]["tokens"] != 0).all()

    whole = np.asarray(steps.logits(tokens, others))
    kept = {x.name: np.zeros((6, *x.shape), "float32") for x in steps.all_kept}
    given = {name: ops.convert_to_tensor(x) for name, x in others.items()}
    kept |= steps.encode(given) if others else {}
    for place in (0, 3):
        position = np.full((6, 1), place, "int32")
        after = steps.read(tokens[:, place : place + 3], position, kept)
        after = {name: np.asarray(x) for name, x in after.items()}
        rows = tokens[:, place + 2] != 0
        got = after.pop("logits")[rows]
        np.testing.assert_allclose(got, whole[rows, place + 2], rtol=1e-4, atol=1e-4)
        kept = file_reader.put(kept, after, place)


@pytest.mark.long
def test_what_is_kept_has_names_and_shapes(rng):
    steps, *_ = read(translator(), rng)
    found = {
        kept.name.rpartition("_")[2]: (kept.shape, kept.given)
        for kept in steps.all_kept
        if not kept.grows
    }
    assert found == {"keys": ((7, 2, 4), True), "values": ((7, 2, 4), True), "mask": ((7,), True)}
    steps, *_ = read(recurrent_translator(), rng)
    assert [kept.given for kept in steps.all_kept] == [True, True, False]


def test_what_looks_at_several_tokens_is_refused(rng):
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Conv1D(WIDTH, 3, padding="causal")(layers.Embedding(WORDS, WIDTH)(tokens))
    with pytest.raises(ValueError, match="read token by token, gives other logits"):
        read(keras.Model(tokens, layers.Dense(WORDS)(x)), rng)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True))(x)
    with pytest.raises(ValueError, match=r"Layer '\w+' \(Bidirectional\) can't read"):
        read(keras.Model(tokens, layers.Dense(WORDS)(x)), rng)
    x = layers.LSTM(4, return_sequences=True, go_backwards=True)(layers.Embedding(9, 4)(tokens))
    with pytest.raises(ValueError, match=r"\(LSTM\) can't read token by token: it reads backwards"):
        read(keras.Model(tokens, layers.Dense(WORDS)(x)), rng)


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU])
def test_recurrent_layers_may_return_their_states(kind, rng):
    """As decoders do in Keras' own examples; a state that is used is one of all tokens."""
    tokens = keras.Input((None,), dtype="int32")
    options = {"return_sequences": True, "return_state": True}
    x, *states = kind(WIDTH, **options)(layers.Embedding(WORDS, WIDTH)(tokens))
    steps, met, *_ = read(keras.Model(tokens, layers.Dense(WORDS)(x)), rng)
    assert len(steps.all_kept) == len(states) == len(met[1]) - 2
    x = x + states[0][:, None]
    with pytest.raises(ValueError, match="read token by token, gives other logits"):
        read(keras.Model(tokens, layers.Dense(WORDS)(x)), rng)


@pytest.mark.parametrize("length", [2, 3])
def test_short_sequences_are_read_with_as_many_positions(length, rng):
    tokens = keras.Input((None,), dtype="int32", name="target")
    source = keras.Input((3,), name="source")
    x = Positions(length, WIDTH)(layers.Embedding(WORDS, WIDTH)(tokens))
    model = keras.Model(tokens, layers.Dense(WORDS)(attending(x)))
    steps = Steps(model, {}, length, None)
    exporting.Rollout(steps, rng.integers(1, WORDS, (4, length)).astype("int32"), {})
    y = layers.Dense(WORDS)(attending(x, layers.Dense(WIDTH)(source[..., None])))
    others = {"source": rng.normal(size=(4, 3)).astype("float32")}
    model = keras.Model({"source": source, "target": tokens}, y)
    steps = Steps(model, {"source": others["source"][:1]}, length, "target")
    exporting.Rollout(steps, rng.integers(1, WORDS, (4, length)).astype("int32"), others)
