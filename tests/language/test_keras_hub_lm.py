"""KerasHub's language models, small and without weights, as teachers and students."""

import keras
import numpy as np
import pytest
import staging
import tensorflow as tf

import keras_distill
from keras_distill import language, losses

hub = pytest.importorskip("keras_hub")


def sizes(width, layers, vocabulary=50, length=16):
    return {
        "vocabulary_size": vocabulary,
        "num_layers": layers,
        "num_heads": 2,
        "hidden_dim": width,
        "intermediate_dim": 2 * width,
        "max_sequence_length": length,
    }


def language_model(width, layers):
    backbone = hub.models.GPT2Backbone(**sizes(width, layers), dropout=0.0)
    return hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)


def of_tokens(model):
    """The model with its tokens as the only input: padding is token 0."""
    tokens = keras.Input((None,), dtype="int32")
    padding_mask = keras.ops.cast(keras.ops.not_equal(tokens, 0), "int32")
    return keras.Model(tokens, model({"token_ids": tokens, "padding_mask": padding_mask}))


@pytest.fixture(scope="module")
def teacher():
    keras.utils.set_random_seed(0)
    model = language_model(16, 2)
    for weight in model.trainable_variables:  # Else its logits hardly differ.
        weight.assign(8 * weight)
    return model


@pytest.fixture
def batch(rng):
    tokens = rng.integers(1, 50, (8, 12)).astype("int32")
    return {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}, np.roll(tokens, -1, 1)


@pytest.mark.long
def test_a_causal_model_is_distilled_by_word_and_in_chunks(teacher, batch):
    """The embedding is shared with the output: its gradient comes from both."""
    results = []
    for loss, alpha, labels in (
        (losses.SoftTargets(2.0), 0.5, "sparse_categorical_crossentropy"),
        (losses.Chunked(losses.SoftTargets(2.0), positions=16, label_weight=0.5), 0.0, None),
    ):
        keras.utils.set_random_seed(1)
        student = language_model(8, 1)
        distiller = keras_distill.Distiller(student, teacher, loss, alpha=alpha)
        compiled = labels and keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile(keras.optimizers.SGD(0.5), compiled)
        history = distiller.fit(*batch, batch_size=8, epochs=3, verbose=0).history
        results.append((history["loss"], student.get_weights()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    for plain, chunked in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(plain, chunked, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_what_it_writes_is_what_keras_hub_writes(teacher, batch):
    prompts = np.array(batch[0]["token_ids"][:, :3])
    padded = np.pad(prompts, [(0, 0), (0, 9)])
    given = {"token_ids": padded, "padding_mask": (padded != 0).astype("int32")}
    teacher.compile(sampler="greedy")
    theirs = teacher.generate(given, stop_token_ids=None)["token_ids"]
    ours = language.generate(of_tokens(teacher), prompts, length=12, end=49)
    # Token 0 is padding, which only KerasHub's writes; the end is the end.
    stops = np.isin(theirs[:, 3:], [0, 49])
    before = np.cumsum(stops, axis=1) == 0
    assert before.mean() > 0.5
    np.testing.assert_array_equal(ours[:, 3:][before], theirs[:, 3:][before])


def translator(width, layers):
    backbone = hub.models.BartBackbone(**sizes(width, layers), dropout=0.0)
    return hub.models.BartSeq2SeqLM(backbone, preprocessor=None)


def of_source_and_target(model):
    """The model with tokens as its only inputs: padding is token 0."""
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("source", "target")}
    given = {}
    for side, tokens in zip(("encoder", "decoder"), inputs.values(), strict=True):
        given[f"{side}_token_ids"] = tokens
        given[f"{side}_padding_mask"] = keras.ops.cast(keras.ops.not_equal(tokens, 0), "int32")
    return keras.Model(inputs, model(given))


@pytest.mark.long
def test_a_translator_writes_what_keras_hub_writes_teaches_it_and_is_exported(batch, tmp_path):
    keras.utils.set_random_seed(0)
    teacher = translator(16, 2)
    for weight in teacher.trainable_variables:  # Else its logits hardly differ.
        weight.assign(8 * weight)
    source, options = batch[0]["token_ids"].copy(), {"start": 1, "end": 49, "length": 12}
    for row, length in enumerate([12, 11, 9, 8, 7, 6, 5, 4]):
        source[row, length:] = 0
    first = np.pad(np.ones((8, 1), "int32"), [(0, 0), (0, 11)])
    teacher.compile(sampler="greedy")
    theirs = teacher.generate(
        {
            "encoder_token_ids": source,
            "encoder_padding_mask": (source != 0).astype("int32"),
            "decoder_token_ids": first,
            "decoder_padding_mask": first,
        },
        stop_token_ids=[49],
    )["decoder_token_ids"]
    big, small = of_source_and_target(teacher), of_source_and_target(translator(8, 1))
    x = {"source": source}
    ours = language.generate(big, x, target="target", **options)
    assert len(np.unique(ours, axis=0)) > 4
    np.testing.assert_array_equal(ours, theirs)

    written = language.write_targets(big, x, tmp_path, target="target", verbose=0, **options)
    distiller = keras_distill.Distiller(small, big, losses.SoftTargets(2.0), alpha=0.0)
    distiller.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    x = x | {"target": written[:, :-1]}
    history = distiller.fit(x, written[:, 1:], epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]
    made = language.export(small, {"source": source}, target="target", **options)
    assert made.report["same_sequences"] == made.report["same_tokens"] == 1.0


def bert(width, layers, vocabulary):
    backbone = hub.models.BertBackbone(**sizes(width, layers, vocabulary, length=32))
    return hub.models.BertTextClassifier(backbone, num_classes=4, preprocessor=None)


@pytest.mark.long
def test_a_text_classifier_is_distilled_behind_its_preprocessor_and_exported(data_dir):
    """Topics of news: 3,000 texts for the teacher, of which the student has 200 labels."""
    rows = staging.news_rows(data_dir / "ag_news" / "dev.tsv.gz")
    texts, topics = zip(*rows[:4000], strict=True)
    names = sorted(set(topics))
    y = np.array([names.index(topic) for topic in topics])
    data = tf.data.Dataset.from_tensor_slices(list(texts)).batch(500)
    vocabulary = hub.tokenizers.compute_word_piece_vocabulary(
        data, 2000, lowercase=True, reserved_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    )
    tokenizer = hub.models.BertTokenizer(vocabulary, lowercase=True)
    read = hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=32)
    x = {name: np.asarray(value) for name, value in read(list(texts)).items()}
    labels = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def part(start, end):
        return {name: value[start:end] for name, value in x.items()}, y[start:end]

    def fit(model, epochs, end):
        model.compile(keras.optimizers.Adam(1e-3), labels, metrics=["accuracy"])
        model.fit(*part(0, end), epochs=epochs, batch_size=32, verbose=0)
        return model

    keras.utils.set_random_seed(0)
    teacher = fit(bert(64, 2, len(vocabulary)), 4, 3000)
    on_labels = fit(bert(16, 1, len(vocabulary)), 30, 200)
    student = bert(16, 1, len(vocabulary))
    soft = losses.SoftTargets(temperature=2.0)
    fit(keras_distill.Distiller(student, teacher, soft, alpha=0.0), 8, 3000)

    signature = {name: keras.InputSpec("int32", (None, 32)) for name in x}
    artifact = keras_distill.tflite.convert(
        student,
        target="android",
        quantization="int8",
        calibration=part(0, 200)[0],
        input_signature=signature,
    )
    x_test, y_test = part(3000, 4000)
    logits = {
        "teacher": teacher.predict(x_test, verbose=0),
        "on labels": on_labels.predict(x_test, verbose=0),
        "student": student.predict(x_test, verbose=0),
        "int8": artifact.predict(x_test),
    }
    accuracy = {name: (z.argmax(1) == y_test).mean() for name, z in logits.items()}
    assert accuracy["teacher"] > accuracy["int8"] > accuracy["on labels"] + 0.05
    assert (logits["int8"].argmax(1) == logits["student"].argmax(1)).mean() > 0.95
    assert len(artifact.tflite) < 70_000
