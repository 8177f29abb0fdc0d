"""What models and files can't write with is said where it is given, before anything is written."""

import pathlib
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras_distill.tflite import convert
from positions import Positions

from keras_distill import language

CONTINUES = {"length": 6, "end": 2}
TRANSLATES = {**CONTINUES, "target": "target", "start": 1}
WORDS = ["", "[UNK]", *"abcde"]


@pytest.fixture(scope="module")
def translates(translating, sources, tmp_path_factory):
    """An encoder and decoder, exported by more samples than are read step by step; its file."""
    given = {"source": np.tile(sources, (7, 1))}
    made = language.export(translating(), given, **TRANSLATES)
    assert made.report["same_tokens"] == 1.0
    return made, made.save(tmp_path_factory.mktemp("translates"))


@pytest.fixture(scope="module")
def continues(causal, prompts):
    """An exported model of prompts."""
    return language.export(causal(), prompts, prefill=1, **CONTINUES)


def refused(model, inputs, message, **options):
    """Checks what `generate` and `write_targets` say, and that nothing is written."""
    with pytest.raises((TypeError, ValueError), match=message):
        language.generate(model, inputs, **options)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "targets")
        with pytest.raises((TypeError, ValueError), match=message):
            language.write_targets(model, inputs, path, verbose=0, **options)
        assert not path.exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[:, :4], r"takes 'source' of the shape \(10, 5\). Received: shape \(10, 4\)"),
        (lambda x: np.pad(x, ((0, 0), (0, 1))), r"Received: shape \(10, 6\)"),
        (lambda x: x + 0.5, "'source' of int32. Received: float64 from 1.5 to 6.5"),
        (lambda x: x.astype("int64") + 2**32, "'source' of int32. Received: int64 from 4294967297"),
        (lambda x: x.astype(str), "'source' of int32. Received: (<U|object)"),
    ],
    ids=["narrow", "wide", "half", "large", "text"],
)
def test_a_file_says_what_its_encoder_takes(spoil, message, translates, sources):
    made, path = translates
    wrong = {"source": spoil(sources)}
    with pytest.raises(ValueError, match=message):
        made.predict(np.ones((10, 2), "int32"), wrong)
    refused(path, wrong, message, **TRANSLATES)


def vectorized(tokens):
    return layers.TextVectorization(vocabulary=tokens[2:], output_sequence_length=4)


def test_a_folder_has_nothing_of_an_earlier_file(continues, prompts, tmp_path):
    """Whose tokens would be taken for those of the new one."""
    path = continues.save(tmp_path, tokenizer=vectorized(WORDS))
    assert {"Tokenizer.kt", "student.tokens.json"} <= {x.name for x in tmp_path.iterdir()}
    kept = (tmp_path / "student.tokens.json").read_text()
    continues.save(tmp_path, tokenizer=WORDS)
    assert not (tmp_path / "Tokenizer.kt").exists()
    assert language.fingerprint(path) == language.fingerprint(WORDS)

    (tmp_path / "Tokenizer.kt").write_text("")
    continues.save(tmp_path)
    names = {"Generator.kt", "student.json", "student.tflite"}
    assert {x.name for x in tmp_path.iterdir()} == names
    # Nor do tokens count that come from elsewhere.
    (tmp_path / "student.tokens.json").write_text(kept)
    with pytest.raises(ValueError, match=r"without a tokenizer, unlike student.tokens.json. Save"):
        language.fingerprint(path)
    language.generate(path, prompts, **CONTINUES)


def test_a_tokenizer_in_a_folder_of_other_sources_stays(continues, tmp_path):
    (tmp_path / "Tokenizer.kt").write_text("an app's own")
    continues.save(tmp_path)
    assert (tmp_path / "Tokenizer.kt").read_text() == "an app's own"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"name": name}, f"`name` must .* Received: name={name!r}")
          for name in ("", "a/b", "..", 3, None)),
        *(({"package": name}, f"`package` must .* Received: package={name!r}")
          for name in ("app", "org.example.in", "org.Example", 3)),
        ({"tokenizer": [*WORDS, "f"]}, "knows 7 tokens, and `tokenizer` .* from 0 to 7. Give"),
        ({"tokenizer": language.Bytes(4)}, "from 0 to 255"),
        ({"tokenizer": language.HashedWords(4, 10)}, "from 0 to 9"),
    ],
    ids=repr,
)  # fmt: skip
def test_nothing_is_saved_that_an_app_cannot_use(options, message, continues, tmp_path):
    with pytest.raises(ValueError, match=message):
        continues.save(tmp_path / "app", **options)
    assert not (tmp_path / "app").exists()


@pytest.mark.parametrize("name", ["student.json", "student.tokens.json"])
@pytest.mark.parametrize("spoilt", [b'{"tok', b"\xff", b""], ids=["cut", "bytes", "empty"])
def test_a_damaged_file_beside_it_is_named(name, spoilt, continues, prompts, tmp_path):
    path = continues.save(tmp_path, tokenizer=WORDS)
    (tmp_path / name).write_bytes(spoilt)
    message = rf"{name} isn't as `Generator.save` wrote it: .* Copy the files"
    for read in (
        lambda: language.generate(path, prompts, **CONTINUES),
        lambda: language.write_targets(path, prompts, tmp_path / "x", verbose=0, **CONTINUES),
        lambda: language.fingerprint(path),
        lambda: language.require_same_vocabulary(path, WORDS),
    ):
        with pytest.raises(ValueError, match=message) as raised:
            read()
        assert type(raised.value) is ValueError


def test_tokens_alone_are_read_if_they_are_whole(continues, tmp_path):
    path = continues.save(tmp_path, tokenizer=WORDS)
    (tmp_path / "student.json").unlink()
    assert language.fingerprint(path) == language.fingerprint(WORDS)
    for other in ("[1]", '{"tokens": []}'):
        (tmp_path / "student.tokens.json").write_text(other)
        with pytest.raises(ValueError, match="wrote it: it lacks the tokens or the probes. Copy"):
            language.fingerprint(path)
    # A file of another maker may have labels of its own beside it.
    (tmp_path / "student.json").write_text('["cat", "dog"]')
    language.generate(path, [[3, 4]], **CONTINUES)


@pytest.fixture(scope="module")
def files(continues, translates, tmp_path_factory):
    """The paths of both files."""
    return {None: continues.save(tmp_path_factory.mktemp("continues")), "target": translates[1]}


PAIR = [[3], [4, 5]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (tf.ragged.constant(PAIR), "a ragged tensor. Give `x.to_tensor..`"),
        (PAIR, r"of one length, padded .* Received: lengths \[1, 2\]. `keras.utils.pad_seq"),
        (np.array([3, 4]), r"Received: shape \(2,\) of int64"),
        (np.zeros((3, 0), "int32"), r"Received: shape \(3, 0\) of int32"),
        (None, "`inputs` must be an array .* Received: inputs of type NoneType"),
        (3, "`inputs` must be an array .* Received: inputs of type int"),
        (np.full((2, 2), 2**32 + 3), "at most 2147483647. Received: 4294967299"),
        (np.full((2, 2), 1e12), "at most 2147483647. Received: 1e\\+12|1000000000000"),
    ],
    ids=["ragged", "lists", "1d", "empty", "none", "number", "wrapped", "float"],
)
def test_prompts_are_named(given, message, causal, files):
    for model in (causal(), files[None]):
        refused(model, given, message, **CONTINUES)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": np.ones((10, 5)), "more": np.ones((4, 5))}, "{'source': 10, 'more': 4}"),
        ({"source": tf.ragged.constant(PAIR)}, r"rows of `inputs\['source'\]` .* ragged tensor"),
        ({"source": PAIR}, r"rows of `inputs\['source'\]` .* lengths \[1, 2\]"),
        ({"source": 3}, r"`inputs\['source'\]` must be an array"),
        ({"source": np.ones((0, 5))}, r"at least one sample .* none in \['source'\]"),
        ({"target": np.ones((2, 5))}, r"other inputs, .* inputs=\['target'\]"),
    ],
    ids=["counts", "ragged", "lists", "number", "empty", "target"],
)
def test_inputs_of_an_encoder_are_named(given, message, translating, files):
    for model in (translating(), files["target"]):
        refused(model, given, message, **TRANSLATES)


def test_lists_of_numbers_are_arrays(translating, sources, files):
    options = {"batch_size": 10, **TRANSLATES}
    want = language.generate(translating(), {"source": sources}, **options)
    for model in (translating(), files["target"]):
        got = language.generate(model, {"source": sources.tolist()}, **options)
        np.testing.assert_array_equal(got, want)


def test_tokens_may_be_floats_and_are_held_to_the_vocabulary(causal, translating, prompts, sources):
    floats = prompts.astype("float32")
    got = language.generate(causal(), floats, **CONTINUES)
    np.testing.assert_array_equal(got, language.generate(causal(), prompts, **CONTINUES))
    refused(causal(), floats + 9 * (floats > 0), "from 0 to 6, .* Received: 15 in", **CONTINUES)
    given = {"source": sources + 9.0}
    refused(translating(), given, "Received: 15.0 in `source`", **TRANSLATES)


def test_a_dataset_is_for_targets(causal, tmp_path):
    ragged = tf.data.Dataset.from_generator(
        lambda: PAIR, output_signature=tf.TensorSpec(None, "int32")
    )
    with pytest.raises(ValueError, match="a `tf.data.Dataset`. `write_targets` takes one"):
        language.generate(causal(), ragged, **CONTINUES)
    with pytest.raises(ValueError, match="examples of `dataset` must be of one shape"):
        language.write_targets(causal(), ragged, tmp_path / "x", verbose=0, **CONTINUES)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("penalty", [float("nan"), float("inf"), "x", None])
def test_a_penalty_is_a_number(penalty, causal, prompts, files):
    for model in (causal(), files[None]):
        message = f"`length_penalty` must be .* Received: length_penalty={penalty!r}"
        refused(model, prompts, message, beams=2, length_penalty=penalty, **CONTINUES)


@pytest.mark.parametrize("seed", [-1, "x", None, 1.5])
def test_a_seed_is_a_whole_number(seed, causal, prompts):
    with pytest.raises(ValueError, match=f"`seed` must be a whole .* Received: seed={seed!r}"):
        language.generate(causal(), prompts, temperature=1.0, seed=seed, **CONTINUES)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[:, ::-1], "Sequences are padded with 0 on the right"),
        (lambda x: x[0], r"Sequences must be integers .* shape \(3,\)"),
        (lambda x: x + 0.5, "Sequences must be integers .* float64"),
        (lambda x: x[:, :0], r"Sequences must be integers .* shape \(6, 0\)"),
        (lambda x: x[:0], r"Sequences must be integers .* shape \(0, 3\)"),
        (lambda x: -x, "Tokens of sequences must be at least 0, .* Received: -6"),
        (lambda x: 9 * x, "in the vocabulary .* `tokens` with tokens from 0 to 54"),
        (lambda x: PAIR, "rows of `tokens` must be of one length"),
    ],
    ids=["left", "1d", "half", "narrow", "none", "negative", "unknown", "lists"],
)
def test_what_a_file_cannot_predict(spoil, message, continues, prompts):
    with pytest.raises(ValueError, match=message):
        continues.predict(spoil(prompts))


def test_a_prediction_needs_inputs_for_each_sequence(continues, translates, prompts, sources):
    made, _ = translates
    with pytest.raises(ValueError, match=r"'source' of the shape \(6, 5\). .* shape \(10, 5\)"):
        made.predict(prompts, {"source": sources})
    with pytest.raises(ValueError, match="`inputs` must be a dict of arrays by name. .* ndarray"):
        made.predict(prompts, sources)
    with pytest.raises(ValueError, match=r"takes prompts alone. Received: \['source'\]"):
        continues.predict(prompts, {"source": sources})


def causal_of(layer, **options):
    """A model of prompts with a layer of its own."""
    tokens = keras.Input((None,), dtype="int32", **options)
    return keras.Model(tokens, layers.Dense(7)(layer(layers.Embedding(7, 6)(tokens))), name="made")


class Sliced(layers.Layer):
    """Positions that are cut from a weight, as KerasHub's are."""

    def build(self, shape):
        self.table = self.add_weight(shape=(4, shape[-1]))

    def call(self, x):
        return x + keras.ops.slice(self.table, (0, 0), (keras.ops.shape(x)[1], 6))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: Positions(4, 6), "'made' has 4 positions, .* Received: length=6. .* at most 4"),
        (Sliced, "(?s)'made' can't read sequences of so many tokens. Received: length=6. .* got 6"),
        (lambda: layers.GRU(6), r"'made' must be the logits .* Received: shape \(1, 7\)"),
    ],
    ids=["positions", "sliced", "last"],
)
def test_models_that_cannot_read_so_much(layer, message, prompts):
    model = causal_of(layer())
    refused(model, prompts, message, **CONTINUES)
    with pytest.raises(ValueError, match=message):
        language.export(model, prompts, **CONTINUES)


def test_as_many_positions_as_tokens_are_enough(prompts):
    model = causal_of(Positions(4, 6))
    assert language.generate(model, prompts, length=4, end=2).shape == (6, 4)
    generator = language.export(causal_of(Positions(2, 6)), prompts[:, :1], length=2, end=2)
    assert list(generator.artifacts) == ["decode"]
    assert generator.report["same_sequences"] == 1.0


def test_models_of_other_outputs(causal, prompts):
    model = causal()
    outputs = {"logits": model.output, "features": model.layers[1].output}
    message = r"must have one output: .* Received: \['features', 'logits'\]. Give `keras.Model\("
    refused(keras.Model(model.input, outputs), prompts, message, **CONTINUES)
    pair = keras.Model(model.input, list(outputs.values()))
    refused(pair, prompts, "must have one output: .* Received: 2 outputs", **CONTINUES)
    with pytest.raises(ValueError, match=message):
        language.export(keras.Model(model.input, outputs), prompts, **CONTINUES)


def test_states_of_what_was_written_before(prompts):
    stateful = layers.GRU(6, return_sequences=True, stateful=True, name="gru")
    model = causal_of(stateful, batch_size=6)
    message = r"Layer 'gru' \(GRU\) is stateful: .* Build the model with `stateful=False`"
    refused(model, prompts, message, **CONTINUES)
    with pytest.raises(ValueError, match=message):
        language.export(model, prompts, **CONTINUES)


def test_an_end_that_is_never_written(causal, translating, prompts, sources, files):
    message = "`end` must be a token that the model can write, below 7. Received: end=7"
    for model in (causal(), files[None]):
        refused(model, prompts, message, length=6, end=7)
    for model in (translating(), files["target"]):
        refused(model, {"source": sources}, message, **{**TRANSLATES, "end": 7})


def test_inputs_that_a_model_cannot_read(translating, sources):
    words = {"source": sources.astype(str)}
    refused(translating(), words, "(?s)can't read the first sample .* string", **TRANSLATES)
    refused(translating(), {"source": sources[:, :4]}, "expected shape=", **TRANSLATES)
    refused(translating(), {"text": sources}, "reads the input 'source', but", **TRANSLATES)


@pytest.fixture(scope="module")
def converted(causal, translating, tmp_path_factory):
    """Files of `convert`, which are run on whole sequences of 6 tokens."""
    folder, found = tmp_path_factory.mktemp("converted"), {}
    sizes = {"tokens": 6}, {"source": 5, "target": 6}, {"tokens": 6}
    models = causal(), translating(), causal_of(layers.GRU(6))
    for name, model, ports in zip(("causal", "both", "last"), models, sizes, strict=True):
        specs = {
            key: keras.InputSpec("int32", (None, size), name=key) for key, size in ports.items()
        }
        found[name] = folder / f"{name}.tflite"
        found[name].write_bytes(convert(model, "android", input_signature=specs).tflite)
    return found


@pytest.mark.parametrize("length", [5, 8])
def test_a_converted_file_writes_sequences_of_its_length(length, converted, prompts, sources):
    message = f"for sequences of 6 tokens in '{{}}'. Received: length={length}. Give that `length`"
    refused(converted["causal"], prompts, message.format("tokens"), length=length, end=2)
    options = {**TRANSLATES, "length": length}
    refused(converted["both"], {"source": sources}, message.format("target"), **options)


def test_a_converted_file_says_what_it_takes(converted, prompts, sources):
    both, x = converted["both"], {"source": sources}
    for given, message in (
        ({"source": sources[:, :4]}, r"'source' of the shape \(10, 5\). Received: shape \(10, 4\)"),
        ({"source": sources + 0.5}, "'source' of int32. Received: float64 from 1.5 to 6.5"),
        (
            {"text": sources},
            r"takes the inputs \['source', 'target'\]. Received: \['target', 'text",
        ),
    ):
        refused(both, given, message, **TRANSLATES)
    refused(both, x, r"Received: \['answer', 'source'\]", **{**TRANSLATES, "target": "answer"})
    refused(both, prompts, "Give the name of the decoder's as `target`", **CONTINUES)
    refused(both, x, "below 7. Received: end=7", **{**TRANSLATES, "end": 7})
    refused(converted["last"], prompts, r"the file must be the logits .* \(1, 7\)", **CONTINUES)
