"""Views of digits, and that batches have each image once in an epoch, with its label and key."""

import pathlib

import numpy as np
import pytest

from keras_distill.teachers import Arrays

NONE = dict.fromkeys(("turn", "size", "slant", "move", "bend"), 0.0) | {"smooth": 5.0}
SOME = {"turn": 0.2, "size": 0.12, "slant": 0.15, "move": 2.0, "bend": 1.2, "smooth": 5.0}


@pytest.fixture
def digit_views(monkeypatch):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parents[2] / "benchmarks"))
    import digit_views

    return digit_views


def test_a_view_without_changes_is_the_image(digit_views, rng):
    images = rng.integers(256, size=(5, 28, 28), dtype=np.uint8)
    np.testing.assert_array_equal(digit_views.view(images, rng, **NONE), images)


def test_a_view_is_a_digit_somewhere_else(digit_views, rng):
    """About as much ink, a pixel or two away, and no two alike."""
    images = np.zeros((200, 28, 28), np.uint8)
    images[:, 8:20, 12:16] = 255
    views = digit_views.view(images, rng, **SOME).astype("float64")
    assert views.sum((1, 2)).mean() == pytest.approx(images[0].sum(), rel=0.1)
    rows = (views * np.arange(28)[:, None]).sum((1, 2)) / views.sum((1, 2))
    assert np.abs(rows - 13.5).max() < 6
    assert 0.5 < rows.std() < 2.5
    assert len(np.unique(views, axis=0)) == 200


def test_an_epoch_has_one_view_of_each_image_with_its_answers(digit_views):
    labels = np.arange(4, dtype="int32")
    views = np.arange(8, dtype=np.uint8)[:, None] * np.ones(784, np.uint8)
    answers = Arrays(np.arange(8.0)[:, None])
    data = list(digit_views.batches(views, labels, 3, 2, 0, answers))
    places = np.concatenate([255 * x.inputs[:, 0] for x, _ in data]).round()
    first, second = [0, 1, 2, 3], [4, 5, 6, 7]
    assert [sorted(epoch) for epoch in places.reshape(3, 4)] == [first, second, first]
    np.testing.assert_array_equal(np.concatenate([y for _, y in data]), places % 4)
    said = np.concatenate([next(iter(x.answers.values()))[:, 0] for x, _ in data])
    np.testing.assert_array_equal(said, places)
