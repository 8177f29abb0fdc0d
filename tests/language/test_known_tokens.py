"""Tokens that a model or a file has no row for are refused by name, wherever they are given."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_distill import language
from keras_distill.language.known_tokens import check_tokens

LENGTH, WORDS = 6, 7
PROMPTS = {"length": LENGTH, "end": 2}
TRANSLATES = {**PROMPTS, "target": "target", "start": 1}


def generated(model, inputs, folder, **options):
    language.generate(model, inputs, **options)


def exported(model, inputs, folder, **options):
    language.export(model, inputs, **options)


def stored(model, inputs, folder, **options):
    language.write_targets(model, inputs, folder / "targets", verbose=0, **options)
    pytest.fail("Something was stored.")


@pytest.mark.parametrize("way", [generated, exported, stored])
def test_models_refuse_them(way, causal, translating, prompts, sources, tmp_path):
    wrong = {"source": np.where(np.arange(10)[:, None] == 7, WORDS, sources)}
    for model, inputs, options, message in (
        (causal(), prompts + np.eye(6, 3, dtype="int32") * WORDS, PROMPTS, "1[0-3] in `inputs`"),
        (translating(), wrong, TRANSLATES, "from 0 to 6, .* Received: 7 in `source`"),
        (translating(), {"source": -sources}, TRANSLATES, "Received: -6 in `source`"),
        (translating(), {"source": sources}, {**TRANSLATES, "start": 9}, "9 in `start`"),
    ):
        with pytest.raises(ValueError, match=message):
            way(model, inputs, tmp_path, **options)
    assert not (tmp_path / "targets").exists()


def test_perplexity_refuses_them(causal, prompts):
    with pytest.raises(ValueError, match="Received: 7 in `inputs`"):
        language.perplexity(causal(), np.full((1, 3), WORDS), prompts[:1])


@pytest.mark.long
def test_files_refuse_them(causal, translating, prompts, sources, tmp_path):
    continues = language.export(causal(), prompts, prefill=1, **PROMPTS).save(tmp_path, "continues")
    translates = language.export(translating(), {"source": sources}, **TRANSLATES)
    translates = translates.save(tmp_path, "translates")
    for place, (path, inputs, options, message) in enumerate(
        (
            (
                continues,
                prompts + WORDS * (prompts > 0),
                PROMPTS,
                "`inputs` with tokens from 0 to 1",
            ),
            (translates, {"source": sources + 6}, TRANSLATES, "`source` with tokens from 7 to 12"),
            (translates, {"source": -sources}, TRANSLATES, "`source` with tokens from -6 to -1"),
            (translates, {"source": sources}, {**TRANSLATES, "start": 9}, "start=9"),
        )
    ):
        for way in (generated, stored):
            with pytest.raises(ValueError, match=f"isn't in the vocabulary.*{message}"):
                way(path, inputs, tmp_path / str(place), **options)


def test_each_input_is_held_to_its_own_table():
    """Numbers that aren't tokens, and tokens of a larger table, pass."""
    words, speaker, size = (keras.Input((n,), dtype="int32", name=name)
                            for n, name in ((5, "words"), (1, "speaker"), (1, "size")))  # fmt: skip
    x = layers.Embedding(50, 4)(words) + layers.Embedding(3, 4)(speaker)
    x = layers.GlobalAveragePooling1D()(x) * keras.ops.cast(size, "float32")
    model = keras.Model({"words": words, "speaker": speaker, "size": size}, x)
    given = {
        "words": np.full((4, 5), 49),
        "speaker": np.full((4, 1), 2),
        "size": np.full((4, 1), 1000),
    }
    check_tokens(model, given)
    with pytest.raises(ValueError, match="from 0 to 2, .* Received: 3 in `speaker`"):
        check_tokens(model, given | {"speaker": np.full((4, 1), 3)})
    with pytest.raises(ValueError, match="from 0 to 49, .* Received: 50 in `words`"):
        check_tokens(model, given | {"words": np.full((4, 5), 50)})


@pytest.mark.parametrize("kind", ["float32", "int32"])
def test_negative_numbers_that_no_table_looks_up_are_none(kind):
    target, heights = keras.Input((None,), name="target"), keras.Input((3,), name="heights")
    x = layers.Embedding(WORDS, 4)(target) + layers.Dense(4)(heights)[:, None]
    model = keras.Model([heights, target], layers.Dense(WORDS)(x))
    found = language.generate(model, {"heights": np.full((2, 3), -9, kind)}, **TRANSLATES)
    assert found.shape == (2, LENGTH)


def test_a_table_that_gives_logits_is_given_no_tokens():
    class Tied(layers.Embedding):
        def call(self, x, reverse=False):
            return ops.matmul(x, ops.transpose(self.embeddings)) if reverse else super().call(x)

        def compute_output_spec(self, x, reverse=False):
            return keras.KerasTensor((*x.shape[:2], WORDS if reverse else 4))

    tokens, table = keras.Input((None,), dtype="int32"), Tied(WORDS, 4)
    x = layers.Rescaling(0.0, offset=2.0 * WORDS)(table(tokens))
    model = keras.Model(tokens, table(x, reverse=True))
    assert language.generate(model, np.array([[3, 4]]), **PROMPTS).shape == (1, LENGTH)
