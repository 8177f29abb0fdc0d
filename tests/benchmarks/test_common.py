"""What the benchmarks share: datasets in both of their forms, runs done once, tables in pages."""

import gzip
import io
import json
import pathlib

import numpy as np
import pytest
import staging
from PIL import Image


@pytest.fixture
def common(monkeypatch):
    root = pathlib.Path(__file__).parents[2]
    for folder in ("benchmarks", "examples"):
        monkeypatch.syspath_prepend(str(root / folder))
    import common

    return common


def test_activities_are_the_same_packed_and_as_published(common, rng, tmp_path):
    x = rng.normal(size=(12, 128, 6)).astype("float32")
    y, is_test = np.resize(np.arange(6), 12), np.arange(12) >= 8
    people = np.arange(12) // 4 + 1
    staging.har_folder(tmp_path / "UCI HAR Dataset", x, y, is_test, people)
    published = common.uci_har(tmp_path)

    (tmp_path / "uci_har").mkdir()
    arrays = {"halves": x.reshape(24, 64, 6), "pairs": np.arange(24).reshape(12, 2), "y": y + 1}
    np.savez(tmp_path / "uci_har" / "uci_har_6ch.npz", subject=people, is_test=is_test, **arrays)
    packed = common.uci_har(tmp_path)

    np.testing.assert_allclose(published[0], x, rtol=1e-6)
    np.testing.assert_array_equal(packed[0], x)
    for read in (published, packed):
        for found, expected in zip(read[1:], (y, people, is_test), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_activities_that_are_missing_say_where_to_get_them(common, tmp_path):
    with pytest.raises(FileNotFoundError, match="UCI HAR Dataset.*doi.org"):
        common.uci_har(tmp_path)


def test_digits_in_their_original_files(common, rng, tmp_path):
    pixels = rng.integers(256, size=(3, 28, 28), dtype=np.uint8)
    labels = np.array([7, 0, 9], np.uint8)
    for split in ("train", "t10k"):
        for name, head, array in (("images-idx3", 16, pixels), ("labels-idx1", 8, labels)):
            path = tmp_path / "mnist" / f"{split}-{name}-ubyte.gz"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(gzip.compress(bytes(head) + array.tobytes()))
    for x, y in common.mnist("mnist", tmp_path):
        np.testing.assert_array_equal(x, (pixels[..., None] / 255).astype("float32"))
        np.testing.assert_array_equal(y, labels)


def test_images_packed_in_tiles(common, rng, tmp_path):
    tiles = rng.integers(256, size=(2, 10, 10, 32, 32, 3), dtype=np.uint8)
    files = []
    for tile in tiles:
        to = io.BytesIO()
        Image.fromarray(tile.swapaxes(1, 2).reshape(320, 320, 3)).save(to, "WEBP", lossless=True)
        files.append(to.getvalue())
    blob = np.frombuffer(b"".join(files), np.uint8)
    ends = np.cumsum([0, *map(len, files)])
    labels = rng.integers(10, size=150)
    (tmp_path / "cifar10").mkdir()
    packed = {f"webp_{part}": blob for part in ("train", "test")}
    packed |= {f"webp_{part}_off": ends for part in ("train", "test")}
    packed |= {f"y_{part}": labels for part in ("train", "test")}
    np.savez(tmp_path / "cifar10" / "cifar10.npz", **packed)
    for x, y in common.cifar10(tmp_path):
        np.testing.assert_array_equal(x, tiles.reshape(-1, 32, 32, 3)[:150])
        np.testing.assert_array_equal(y, labels)


def test_what_is_done_is_not_done_again_nor_mixed_with_other_settings(common, tmp_path):
    path = common.runs_of(tmp_path / "runs", {"epochs": 3}) / "runs.json"
    assert common.once(path, "seed 0", lambda: 0.5) == 0.5
    assert common.once(path, "seed 0", lambda: pytest.fail("done twice")) == 0.5
    assert common.once(path, "seed 1", lambda: 0.25) == 0.25
    assert json.loads(path.read_text()) == {"seed 0": 0.5, "seed 1": 0.25}
    with pytest.raises(ValueError, match="settings"):
        common.runs_of(tmp_path / "runs", {"epochs": 4})


def test_a_table_replaces_the_one_of_its_name_alone(common, tmp_path, monkeypatch):
    monkeypatch.setattr(common, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- a -->\nold\n<!-- /a -->\n<!-- b -->\nkept\n<!-- /b -->\n")
    common.insert("new", "page.md", "a")
    expected = "above\n<!-- a -->\nnew\n<!-- /a -->\n<!-- b -->\nkept\n<!-- /b -->\n"
    assert page.read_text() == expected


def test_the_readme_has_the_recorded_examples_and_the_demo(common):
    """Its one table is the one that the recorded results give now."""
    import examples

    readme = (common.ROOT / "README.md").read_text()
    table = readme.split("<!-- examples -->\n")[1].split("\n<!-- /examples -->")[0]
    assert table == examples.page(examples.recorded())
