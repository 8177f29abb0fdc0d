"""Each example that draws, from end to end on a small slice of its real data."""

import importlib

import numpy as np
import pytest


@pytest.fixture
def _some_clothes(data_dir, monkeypatch):
    """Has examples read 3,000 images of each split."""
    import clothes

    some = {split: clothes.images(data_dir / "fashion_mnist", split) for split in ("train", "test")}
    some = {split: tuple(part[:3000] for part in parts) for split, parts in some.items()}
    monkeypatch.setattr(clothes, "images", lambda _, split="train": some[split])


@pytest.mark.long
@pytest.mark.usefixtures("_some_clothes")
@pytest.mark.parametrize(
    ("name", "batches", "far", "share", "gap", "rounding"),
    [
        ("gan", {"steps": 100, "rounds": 150}, 15, 0.6, 3, 0.05),
        ("vae", {"steps": 100, "rounds": 300}, 15, 0.6, 4, 0.05),
        ("diffusion", {"steps": 100, "rounds": 600}, 8, 0.5, 1, 0.1),
    ],
)
def test_clothes_are_drawn(name, batches, far, share, gap, rounding, tmp_path):
    """By a teacher nearer than `far`, whose student closes a share of the gap to that alone."""
    picture = tmp_path / "drawn.png"
    result = importlib.import_module(name).main(None, tmp_path, picture, **batches)
    names = ["teacher", "student alone", "student distilled", "distilled, int8"]
    shares = [f"{each}: {kind}" for each in names for kind in ("precision", "recall")]
    errors = [key for key in result if key.endswith("squared error of repeated images")]
    assert list(result) == [*names, *shares, "bytes", *errors]
    assert len(errors) == (3 if name == "vae" else 0)
    assert all(0 <= result[each] <= 1 for each in shares)
    teacher, alone, student, file = (result[name] for name in names)
    assert teacher < far
    assert alone - student > share * (alone - teacher) > gap
    assert file == pytest.approx(student, rel=rounding)
    assert picture.is_file()


def test_noise_is_that_of_the_steps_of_the_student():
    """At time 0 there is no noise to take off, and `two_steps` isn't defined."""
    import diffusion

    images = np.zeros((64, 28, 28, 1), "float32")
    found = [times for (_, times), _ in diffusion.batches(images, 4).take(10)]
    assert np.unique(found).tolist() == [0.25, 0.5, 0.75, 1.0]
