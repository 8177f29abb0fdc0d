"""Pictures of what models drew."""

import pathlib
import sys

import numpy as np
import pytest

from keras_distill.generators import save_sheet

pytest.importorskip("matplotlib")


def test_rows_show_the_images(tmp_path):
    from matplotlib.image import imread

    black, white = np.full((2, 3, 28, 28, 1), -1.0)
    white = white + 2
    save_sheet({"black": black, "white": white}, tmp_path / "drawn.png")
    picture = imread(tmp_path / "drawn.png")[..., :3]
    dark = (picture.max(-1) < 0.02).mean(axis=1)
    top, bottom = np.split(dark, [len(dark) // 2])
    assert top.max() > 0.6  # Three dark images beside their name, and none below.
    assert bottom.max() < 0.1


@pytest.mark.parametrize(
    "rows",
    [{}, {"a": np.zeros((2, 4, 4))}, {"a": np.zeros((2, 4, 4, 1)), "b": np.zeros((3, 4, 4, 1))},
     {"a": np.zeros((2, 4, 4, 2))}, {"a": [np.zeros((4, 4, 1)), np.zeros((5, 4, 1))]}],
)  # fmt: skip
def test_other_shapes_are_refused(rows, tmp_path):
    with pytest.raises(ValueError, match="Each row must hold as many images of one size"):
        save_sheet(rows, tmp_path / "drawn.png")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, 4, 4, 1)), "`rows` holds no images"),
        (np.full((2, 4, 4, 1), np.nan), "Row 'drawn' holds NaN or infinity, first in image 0"),
        (np.full((2, 4, 4, 1), np.inf), "Row 'drawn' holds NaN or infinity, first in image 0"),
        (
            np.full((2, 4, 4, 1), 255, "uint8"),
            "Row 'drawn' has values from 255 to 255.*/ 127.5 - 1",
        ),
        (np.full((2, 4, 4, 1), -40.0), "Row 'drawn' has values from -40 to -40.*/ 127.5 - 1"),
    ],
)
def test_images_that_cannot_be_shown_are_refused(images, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_sheet({"real": np.zeros(images.shape), "drawn": images}, tmp_path / "drawn.png")
    assert not (tmp_path / "drawn.png").exists()


@pytest.mark.parametrize("name", ["drawn", "drawn.jpg", "drawn.v1", "."])
def test_only_a_png_is_written(name, tmp_path):
    """Matplotlib would write other formats, or a file of another name."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ValueError, match='`path` must end in ".png"'):
        save_sheet({"a": np.zeros((2, 4, 4, 1))}, folder / name)
    assert [file.name for file in tmp_path.rglob("*")] == ["folder"]


def test_a_picture_is_written_completely_or_not_at_all(tmp_path, monkeypatch):
    """A new folder is created for it, and what stood there stays until it is complete."""
    from matplotlib.figure import Figure

    rows, path = {"$$ a_$ {": np.zeros((2, 4, 4, 1))}, tmp_path / "new" / "drawn.png"
    save_sheet(rows, path)
    before = path.read_bytes()

    def interrupted(figure, file, **options):
        write = file.write_bytes if isinstance(file, pathlib.Path) else file.write
        write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_sheet(rows, path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["drawn.png"]
    with pytest.raises(ValueError, match="drawn.png is a file"):
        save_sheet(rows, path / "in.png")


def test_rows_are_a_dict_and_matplotlib_is_there(tmp_path, monkeypatch):
    with pytest.raises(TypeError, match="`rows` must be a dict .* Received: list"):
        save_sheet([np.zeros((2, 4, 4, 1))], tmp_path / "drawn.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"needs matplotlib.*pip install keras-distill\[report\]"):
        save_sheet({"a": np.zeros((2, 4, 4, 1))}, tmp_path / "drawn.png")
