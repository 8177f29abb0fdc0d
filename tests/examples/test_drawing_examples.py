"""Each example that draws, from end to end on a small slice of its real data."""

import pathlib

import numpy as np
import pytest

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _examples(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture
def _some_clothes(data_dir, monkeypatch):
    """Has examples read 3,000 images of each split."""
    import clothes

    some = {split: clothes.images(data_dir / "fashion_mnist", split) for split in ("train", "test")}
    some = {split: tuple(part[:3000] for part in parts) for split, parts in some.items()}
    monkeypatch.setattr(clothes, "images", lambda _, split="train": some[split])


def drawings_of(result, picture):
    """The distances of teacher, student alone, student and file, of results that are complete."""
    names = ["teacher", "student alone", "student distilled", "distilled, int8"]
    shares = [f"{name}: {share}" for name in names for share in ("precision", "recall")]
    assert list(result)[:13] == [*names, *shares, "bytes"]
    assert all(0 <= result[share] <= 1 for share in shares)
    assert picture.is_file()
    return [result[name] for name in names]


@pytest.mark.long
@pytest.mark.usefixtures("_some_clothes")
def test_clothes_drawn_by_a_gan(tmp_path):
    import gan

    picture = tmp_path / "drawn.png"
    result = gan.main(None, tmp_path, picture, steps=100, rounds=150)
    teacher, alone, student, file = drawings_of(result, picture)
    assert teacher < 15
    assert alone - student > 0.6 * (alone - teacher) > 3
    assert file == pytest.approx(student, rel=0.05)


@pytest.mark.long
@pytest.mark.usefixtures("_some_clothes")
def test_clothes_drawn_by_an_autoencoder(tmp_path):
    import vae

    picture = tmp_path / "drawn.png"
    result = vae.main(None, tmp_path, picture, steps=100, rounds=300)
    teacher, alone, student, file = drawings_of(result, picture)
    assert teacher < 15
    assert alone - student > 0.6 * (alone - teacher) > 4
    assert file == pytest.approx(student, rel=0.05)


@pytest.mark.long
@pytest.mark.usefixtures("_some_clothes")
def test_clothes_drawn_by_diffusion_in_few_steps(tmp_path):
    import diffusion

    picture = tmp_path / "drawn.png"
    result = diffusion.main(None, tmp_path, picture, steps=100, rounds=600)
    teacher, alone, student, file = drawings_of(result, picture)
    assert teacher < 8
    assert alone - student > 0.5 * (alone - teacher) > 1
    assert file == pytest.approx(student, rel=0.1)


def test_noise_is_that_of_the_steps_of_the_student():
    """At time 0 there is no noise to take off, and `two_steps` isn't defined."""
    import diffusion

    images = np.zeros((64, 28, 28, 1), "float32")
    found = [times for (_, times), _ in diffusion.batches(images, 4).take(10)]
    assert np.unique(found).tolist() == [0.25, 0.5, 0.75, 1.0]
