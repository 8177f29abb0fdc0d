"""Generation by exported files: they write what their models write, on sentences of Multi30k."""

import gzip
import subprocess

import keras
import kotlin_writer
import numpy as np
import pytest
from keras import layers, ops
from keras_distill.tflite import signatures
from keras_distill.tflite.flatbuffer import File
from positions import Positions

from keras_distill import language

LENGTH, START, END = 16, 1, 2
NUMBERS = "tokens", "position"


def attending(x, memory=None):
    normal = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, 16)(normal, normal, use_causal_mask=True)
    if memory is not None:
        x = x + layers.MultiHeadAttention(2, 16)(layers.LayerNormalization()(x), memory)
    normal = layers.LayerNormalization()(x)
    return x + layers.Dense(32)(layers.Dense(64, "relu")(normal))


@pytest.fixture(scope="module")
def sentences(data_dir):
    """Ids of the captions' words by language and part."""

    def read(part, name):
        path = data_dir / "multi30k" / f"{part}.{name}.gz"
        return gzip.decompress(path.read_bytes()).decode().split("\n")[:-1]

    found = {}
    for name in ("de", "en"):
        words = layers.TextVectorization(300, output_sequence_length=LENGTH - 2)
        words.adapt(read("train", name)[:2000])
        for part in ("train", "val"):
            ids = np.asarray(words(read(part, name)[:2000]))
            ids = np.pad(np.where(ids > 0, ids + 2, 0), ((0, 0), (1, 1)))
            ids[:, 0] = START
            ids[np.arange(len(ids)), (ids != 0).sum(1)] = END
            found[part, name] = ids.astype("int32")
    return found


def trained(model, x, y):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    model.fit(x, y, epochs=2, batch_size=64, verbose=0)
    return model


@pytest.fixture(scope="module")
def writer(sentences):
    keras.utils.set_random_seed(0)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = Positions(LENGTH, 32)(layers.Embedding(302, 32, mask_zero=True)(tokens))
    model = keras.Model(tokens, layers.Dense(302)(attending(x)))
    x = sentences["train", "en"]
    return trained(model, x[:, :-1], x[:, 1:])


@pytest.mark.long
def test_a_file_writes_what_its_model_writes(writer, sentences, tmp_path):
    prompts = sentences["val", "en"][:, :5]
    made = language.export(writer, prompts[:100], length=LENGTH, end=END, prefill=3)
    assert made.report["same_sequences"] == made.report["same_tokens"] == 1.0
    assert made.report["kept_bytes"] == 2 * 4 * LENGTH * 2 * 16
    alone = {name: len(artifact.tflite) for name, artifact in made.artifacts.items()}
    assert list(alone) == ["prefill", "decode"]
    assert len(made.tflite) < 1.2 * alone["decode"]

    path = made.save(tmp_path)
    held_out = prompts[100:200].copy()
    for row, size in enumerate(np.random.default_rng(0).integers(1, 6, 100)):
        held_out[row, size:] = 0
    for options in ({}, {"beams": 3}, {"temperature": 0.7, "seed": 1}):
        want = language.generate(writer, held_out, length=LENGTH, end=END, **options)
        got = language.generate(path, held_out, length=LENGTH, end=END, **options)
        np.testing.assert_array_equal(got, want)
    with pytest.raises(ValueError, match=r"up to 16 tokens. Received: length=17"):
        language.generate(path, held_out, length=LENGTH + 1, end=END)


@pytest.mark.long
def test_an_int8_file_agrees_with_its_model(writer, sentences, tmp_path):
    prompts = sentences["val", "en"][:, :5]
    made = language.export(writer, prompts[:100], length=LENGTH, end=END, quantization="int8")
    operators = {op for x in made.artifacts.values() for op in x.report["operators"]}
    assert "BATCH_MATMUL" in operators
    assert made.report["same_tokens"] > 0.9
    want = language.generate(writer, prompts[100:200], length=LENGTH, end=END)
    path = made.save(tmp_path)
    got = language.generate(path, prompts[100:200], length=LENGTH, end=END)
    assert (got == want).all(1).mean() > 0.6


@pytest.mark.long
def test_what_is_kept_may_be_int8(writer, sentences, tmp_path):
    """A quarter of the memory, and what it writes is still close to the model's."""
    prompts, options = sentences["val", "en"][:, :5], {"length": LENGTH, "end": END}
    made = language.export(writer, prompts[:100], quantization="int8", io="int8", **options)
    assert made.report["kept_bytes"] == 2 * LENGTH * 2 * 16
    for ports in made.report["signatures"].values():
        kept = [port for side in ports.values() for port in side if port["name"] not in NUMBERS]
        assert {port["dtype"] for port in kept} == {"int8"}
    assert made.report["same_tokens"] > 0.85
    got = language.generate(made.save(tmp_path), prompts[100:200], **options)
    want = language.generate(writer, prompts[100:200], **options)
    assert (got == want).all(1).mean() > 0.5


def translator(kind):
    source = keras.Input((LENGTH,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    inputs = {"source": source, "target": target}
    if kind == "keras_hub":
        return keras.Model(inputs, of_blocks(source, target))
    x = layers.Embedding(302, 32, mask_zero=True)(source)
    y = layers.Embedding(302, 32, mask_zero=True)(target)
    if kind == "attention":
        memory = layers.Add()([x, layers.MultiHeadAttention(2, 16)(x, x)])
        y = attending(Positions(LENGTH, 32)(y), memory)
    else:
        y = layers.GRU(32, return_sequences=True)(y, initial_state=layers.GRU(32)(x))
    return keras.Model(inputs, layers.Dense(302)(y))


def of_blocks(source, target):
    """Two blocks on each side, all of which see what is padding, and one table."""
    hub = pytest.importorskip("keras_hub").layers
    scale = keras.initializers.RandomNormal(stddev=32**-0.5)
    table = hub.TokenAndPositionEmbedding(302, LENGTH, 32, True, scale, mask_zero=True)
    wide = layers.Rescaling(32**0.5)
    memory, y = wide(table(source)), wide(table(target))
    options = {"intermediate_dim": 64, "num_heads": 2, "normalize_first": True}
    for _ in range(2):
        memory = hub.TransformerEncoder(**options)(memory)
    for _ in range(2):
        y = hub.TransformerDecoder(**options)(y, memory)
    return table.token_embedding(layers.LayerNormalization()(y), reverse=True)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*does not support masking")  # KerasHub hands masks on itself.
@pytest.mark.parametrize("kind", ["attention", "recurrent", "keras_hub"])
def test_a_file_translates_as_its_model_does(kind, sentences, tmp_path):
    keras.utils.set_random_seed(0)
    model = translator(kind)
    english = sentences["train", "en"]
    x = {"source": sentences["train", "de"], "target": english[:, :-1]}
    trained(model, x, english[:, 1:])

    options = {"target": "target", "start": START, "end": END, "length": LENGTH}
    german = sentences["val", "de"]
    for quantization, least in (("int8", 0.9), ("float32", 1.0))[kind == "keras_hub" :]:
        made = language.export(
            model, {"source": german[:100]}, quantization=quantization, **options
        )
        assert list(made.artifacts) == ["encode", "decode"]
        assert made.report["same_tokens"] >= least
    path = made.save(tmp_path)
    for beams in (1, 3):
        want = language.generate(model, {"source": german[100:150]}, beams=beams, **options)
        got = language.generate(path, {"source": german[100:150]}, beams=beams, **options)
        np.testing.assert_array_equal(got, want)
    x = {"source": german[100:150]}
    got = language.write_targets(path, x, tmp_path / "targets", beams=3, verbose=0, **options)
    np.testing.assert_array_equal(got, want)


@pytest.mark.long
def test_a_file_of_keras_hub_writes_what_its_model_writes(sentences, tmp_path):
    hub = pytest.importorskip("keras_hub")
    keras.utils.set_random_seed(0)
    backbone = hub.models.LlamaBackbone(
        302, num_layers=2, num_query_heads=2, num_key_value_heads=1, hidden_dim=32,
        intermediate_dim=64,
    )  # fmt: skip
    llama = hub.models.LlamaCausalLM(backbone, preprocessor=None)
    tokens = keras.Input((None,), dtype="int32")
    mask = ops.cast(ops.not_equal(tokens, 0), "int32")
    model = keras.Model(tokens, llama({"token_ids": tokens, "padding_mask": mask}))
    x = sentences["train", "en"]
    trained(model, x[:, :-1], x[:, 1:])
    prompts = sentences["val", "en"][:, :5]
    made = language.export(model, prompts[:50], length=LENGTH, end=END, prefill=3)
    assert made.report["same_sequences"] == made.report["same_tokens"] == 1.0
    want = language.generate(model, prompts[50:80], length=LENGTH, end=END, beams=2)
    got = language.generate(made.save(tmp_path), prompts[50:80], length=LENGTH, end=END, beams=2)
    np.testing.assert_array_equal(got, want)


def test_a_model_of_one_length_is_refused():
    tokens = keras.Input((LENGTH,), dtype="int32")
    model = keras.Model(tokens, layers.Dense(9)(layers.Embedding(9, 4)(tokens)))
    with pytest.raises(ValueError, match=r"takes tokens of the shape \(None, 16\)"):
        language.export(model, np.ones((2, 3), "int32"), length=LENGTH, end=END)


def test_an_app_has_floats_or_int8(causal, prompts):
    with pytest.raises(ValueError, match='`io` must be "float32" or "int8". Received: io=.uint8'):
        language.export(causal(), prompts, length=6, end=END, quantization="int8", io="uint8")


def test_a_file_of_prompts_refuses_other_inputs(tmp_path):
    """Whose answer would be to the start token alone; prompts may be lists."""
    keras.utils.set_random_seed(0)
    tokens = keras.Input((None,), dtype="int32")
    model = keras.Model(tokens, layers.Dense(9)(layers.Embedding(9, 4)(tokens)))
    prompts = [[3, 4], [5, 0]]
    model.layers[-1].bias.assign(np.eye(9)[END] * 99)
    with pytest.raises(ValueError, match="prefill=5, .* up to 3 tokens. Give a smaller `prefill`"):
        language.export(model, prompts, length=6, end=END, prefill=5)
    generator = language.export(model, prompts, length=6, end=END, prefill=1)
    path = generator.save(tmp_path)
    got = language.generate(path, prompts, length=6, end=END)
    np.testing.assert_array_equal(got, language.generate(model, prompts, length=6, end=END))
    with pytest.raises(ValueError, match=r"takes prompts alone. Received: \['source'\]"):
        language.generate(
            path, {"source": np.ones((2, 3))}, length=6, end=END, start=START, target="target"
        )


@pytest.mark.long
def test_files_are_joined_with_their_weights_once():
    """Loops, whose bodies are graphs of their own, are found in the file of both."""
    from keras_distill.tflite import convert

    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 3), name="x")
    loop = keras.Model(inputs, layers.Dense(64)(layers.GRU(64)(inputs)))
    files = {name: convert(loop).tflite for name in ("first", "second")}
    whole = signatures.joined(files)
    assert len(whole) < 1.3 * len(files["first"])
    assert len(File(whole).model.subgraphs) == 2 * len(File(files["first"]).model.subgraphs) > 2
    x = np.random.default_rng(0).normal(size=(1, 4, 3)).astype("float32")
    opened = signatures.Signatures(whole)
    for name in files:
        (got,) = opened.run(name, {"x": x}).values()
        np.testing.assert_allclose(got, loop.predict(x, verbose=0), rtol=1e-4, atol=1e-5)


def scales(made, signature, side):
    """How an app's integers are scaled."""
    return {port["scale"] for port in made.report["signatures"][signature][side]}


def rows(tokens):
    """Rows without their padding."""
    return [row[row != 0].tolist() for row in tokens]


@pytest.mark.long
@pytest.mark.parametrize(
    "numbers",
    [
        {"quantization": "float32"},
        {"quantization": "int8"},
        {"quantization": "int8", "io": "int8"},
    ],
    ids=["float32", "int8", "int8-io"],
)
def test_kotlin_writes_what_python_writes(numbers, writer, sentences, tmp_path):
    kotlin_writer.kotlinc()
    prompts = sentences["val", "en"][:, :5]
    options = {"length": LENGTH, "end": END}
    made = language.export(writer, prompts[:50], prefill=2, **numbers, **options)
    if "io" in numbers:
        assert scales(made, "decode", "outputs") - scales(made, "decode", "inputs")
    path = made.save(tmp_path, tokenizer=language.Bytes(LENGTH))
    held_out = prompts[100:140].copy()
    for row, size in enumerate(np.random.default_rng(0).integers(1, 6, len(held_out))):
        held_out[row, size:] = 0
    got, names = kotlin_writer.written(tmp_path, held_out)
    # In a batch, all prompts are read up to the end of the shortest first: in other pieces.
    assert got == rows(language.generate(path, held_out, batch_size=1, **options))
    assert names == {"prefill", "decode"}
    assert len({tuple(row) for row in got}) > 20


@pytest.mark.long
@pytest.mark.parametrize("io", ["float32", "int8"])
def test_kotlin_reads_the_encoder_once(io, translating, sources, tmp_path):
    options = {"target": "target", "start": 1, "end": 2, "length": 9}
    made = language.export(
        translating(3), {"source": sources.astype("int64")}, quantization="int8", io=io, **options
    )
    path = made.save(tmp_path)
    got, names = kotlin_writer.written(tmp_path, sources, "source")
    assert got == rows(language.generate(path, {"source": sources}, **options))
    assert names == {"encode", "decode"}


#: Asks for what an encoder can't read.
ASKS = """
import com.example.student.Generator

fun main() {
    val generator = Generator { name, _, _ -> println(name) }
    val right = mapOf("source" to intArrayOf(3, 4, 5), "speed" to floatArrayOf(1f, 2f))
    generator.encode(right)
    for (wrong in listOf(
        "source" to floatArrayOf(3f, 4f, 5f), "speed" to intArrayOf(1, 2),
        "source" to listOf(3, 4, 5), "source" to intArrayOf(3, 4),
    )) {
        try {
            generator.encode(right + wrong)
        } catch (error: IllegalArgumentException) {
            println(error.message)
        }
    }
}
"""


@pytest.mark.long
def test_kotlin_takes_integers_and_floats_for_what_they_are(tmp_path):
    """Four bytes of one would be read as another number."""
    kotlin_writer.kotlinc()
    source = keras.Input((3,), dtype="int32", name="source")
    speed = keras.Input((2,), name="speed")
    target = keras.Input((None,), dtype="int32", name="target")
    table = layers.Embedding(7, 4)
    state = layers.GRU(4)(table(source)) + layers.Dense(4)(speed)
    x = layers.GRU(4, return_sequences=True)(table(target), initial_state=state)
    inputs = {"source": source, "speed": speed, "target": target}
    model = keras.Model(inputs, layers.Dense(7)(x))
    given = {"source": np.ones((4, 3), "int64"), "speed": np.ones((4, 2))}
    made = language.export(model, given, length=6, end=END, start=START, target="target")
    made.save(tmp_path)
    (tmp_path / "Main.kt").write_text(ASKS)
    program = kotlin_writer.compiled(tmp_path, sorted(tmp_path.glob("*.kt")))
    done = subprocess.run(["java", "-cp", program, "MainKt"], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "encode",
        "source takes an IntArray",
        "speed takes a FloatArray",
        "source takes an IntArray",
        "source takes 12 bytes, not 8",
    ], done.stderr


def test_a_file_knows_its_tokenizer(causal, prompts, tmp_path):
    words = layers.TextVectorization(vocabulary=list("abcde"), output_sequence_length=4)
    options = {"length": 6, "end": END}
    generator = language.export(causal(), prompts, prefill=1, **options)
    path = generator.save(tmp_path, tokenizer=words, package="org.example")
    assert (tmp_path / "Tokenizer.kt").read_text().startswith("package org.example\n")
    assert language.fingerprint(path) == language.fingerprint(words)
    language.require_same_vocabulary(path, words)
    with pytest.raises(ValueError, match="2 is 'a' for the teacher and 'b' for the student"):
        language.require_same_vocabulary(path, ["", "[UNK]", "b", "a", "c", "d", "e"])
    want = language.generate(path, prompts, **options)

    (tmp_path / "other").mkdir()
    generator.save(tmp_path / "other", tokenizer=["", "[UNK]", "x"])
    assert not (tmp_path / "other" / "Tokenizer.kt").exists()
    tokens = tmp_path / "student.tokens.json"
    kept = tokens.read_text()
    tokens.write_text((tmp_path / "other" / tokens.name).read_text())
    with pytest.raises(ValueError, match="aren't those that '.*student.tflite' was saved with"):
        language.generate(path, prompts, **options)
    tokens.unlink()
    with pytest.raises(ValueError, match="no student.tokens.json. Save it with"):
        language.generate(path, prompts, **options)
    tokens.write_text(kept)
    np.testing.assert_array_equal(language.generate(path, prompts, **options), want)


def test_a_file_tells_what_it_expects_after_each_token(causal, prompts):
    model = causal()
    generator = language.export(model, prompts, length=6, end=END, prefill=1)
    got = generator.predict(prompts)
    want = np.where((prompts != 0)[..., None], model(prompts), 0)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "dtype", ["int64", *(pytest.param(x, marks=pytest.mark.long) for x in ("float64", "bool"))]
)
def test_an_encoder_takes_what_an_app_has(dtype, translating, sources, tmp_path):
    """An IntArray or a FloatArray has 32 bits; in Python, numbers may come in another width."""
    options = {"target": "target", "start": START, "end": END, "length": 6}
    given = sources.astype(dtype)
    made = language.export(translating(), {"source": given}, **options)
    (port,) = made.report["signatures"]["encode"]["inputs"]
    assert port["dtype"] == ("float32" if dtype == "float64" else "int32")
    path = made.save(tmp_path)
    want = language.generate(translating(), {"source": given}, **options)
    for same in ("int32", "int64", "float32"):
        got = language.generate(path, {"source": given.astype(same)}, **options)
        np.testing.assert_array_equal(got, want)
