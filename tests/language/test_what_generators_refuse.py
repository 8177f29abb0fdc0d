"""What models and files can't write with is said where it is given, before anything is written."""

import numpy as np
import pytest
from keras import layers

from keras_distill import language

CONTINUES = {"length": 6, "end": 2}
TRANSLATES = {**CONTINUES, "target": "target", "start": 1}
WORDS = ["", "[UNK]", *"abcde"]


@pytest.fixture(scope="module")
def translates(translating, sources, tmp_path_factory):
    """An exported encoder and decoder, and its file."""
    made = language.export(translating(), {"source": sources}, **TRANSLATES)
    return made, made.save(tmp_path_factory.mktemp("translates"))


@pytest.fixture(scope="module")
def continues(causal, prompts):
    """An exported model of prompts."""
    return language.export(causal(), prompts, prefill=1, **CONTINUES)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[:, :4], r"'source' of the shape \(10, 5\). Received: shape \(10, 4\)"),
        (lambda x: np.pad(x, ((0, 0), (0, 1))), r"Received: shape \(10, 6\)"),
        (lambda x: x + 0.5, "'source' of int32. Received: float64 from 1.5 to 6.5"),
        (lambda x: x.astype("int64") + 2**32, "'source' of int32. Received: int64 from 4294967297"),
        (lambda x: x.astype(str), "'source' of int32. Received: <U"),
    ],
    ids=["narrow", "wide", "half", "large", "text"],
)
def test_a_file_says_what_its_encoder_takes(spoil, message, translates, sources):
    made, path = translates
    wrong = {"source": spoil(sources)}
    with pytest.raises(ValueError, match=message):
        made.predict(np.ones((10, 2), "int32"), wrong)
    with pytest.raises(ValueError, match=message):
        language.generate(path, wrong, batch_size=10, **TRANSLATES)


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
