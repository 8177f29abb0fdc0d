"""Files and folders are written completely or not at all."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from keras_distill._files import write_folder, write_text


def test_threads_that_write_one_file_leave_it_whole(tmp_path):
    path, texts = tmp_path / "file", [letter * 10_000 for letter in "abcd"]

    def write(text):
        for _ in range(300):
            write_text(path, text)
            assert path.read_text() in texts

    with ThreadPoolExecutor(len(texts)) as threads:
        list(threads.map(write, texts))
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_all_files_of_a_folder_are_written(tmp_path):
    folder = write_folder(tmp_path / "kit", {"a/b.txt": "text", "c.bin": b"\x00"})
    assert folder == tmp_path / "kit"
    assert (folder / "a" / "b.txt").read_text() == "text"
    assert (folder / "c.bin").read_bytes() == b"\x00"
    assert sorted(os.listdir(folder)) == ["a", "c.bin"]


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match=f"kit. No permission to write to {tmp_path}"):
        write_folder(tmp_path / "kit", {"a": ""})
    assert os.listdir(tmp_path) == []
