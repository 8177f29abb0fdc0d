"""Pictures of what models drew."""

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
     {"a": np.zeros((2, 4, 4, 2))}],
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
