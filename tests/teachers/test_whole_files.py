"""Files that several write at once."""

from concurrent.futures import ThreadPoolExecutor

from keras_distill._files import write_text


def test_threads_that_write_one_file_leave_it_whole(tmp_path):
    path, texts = tmp_path / "file", [letter * 10_000 for letter in "abcd"]

    def write(text):
        for _ in range(300):
            write_text(path, text)
            assert path.read_text() in texts

    with ThreadPoolExecutor(len(texts)) as threads:
        list(threads.map(write, texts))
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
