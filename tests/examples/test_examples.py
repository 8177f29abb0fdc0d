"""Each example from end to end on a small slice of its real data.

Where there are no real data, the same files hold made-up ones that can be learned.
"""

import importlib
import json
import os
import pathlib
import sys

import keras
import numpy as np
import pytest
import staging

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _examples(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture(scope="module")
def real():
    """The folder of real data, or `None`."""
    default = pathlib.Path(__file__).parents[3] / "shared" / "data"
    folder = pathlib.Path(os.environ.get("KERAS_DISTILL_TEST_DATA", default))
    return folder if folder.is_dir() else None


@pytest.fixture(scope="module")
def fashion(real, digits, tmp_path_factory):
    """A `data_dir` of TensorFlow Datasets with a slice of Fashion-MNIST."""
    if real:
        source = real / "fashion_mnist"
        parts = staging.idx_images(source, "train", 600), staging.idx_images(source, "t10k", 200)
    else:
        images = (digits[0] * 255).astype("uint8").repeat(3, 1).repeat(3, 2)
        images = np.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)])
        parts = (images[:600], digits[1][:600]), (images[600:800], digits[1][600:800])
    return staging.stage("fashion_mnist", str(tmp_path_factory.mktemp("fashion")), *parts)


@pytest.fixture(scope="module")
def news(real):
    if real:
        folder = real / "ag_news"
        return [staging.news_rows(folder / f"{p}.tsv.gz")[:400] for p in ("dev", "test")]
    rng = np.random.default_rng(0)
    words = np.array(["".join(rng.choice(list("abcdefgh"), 5)) for _ in range(240)])
    classes = rng.integers(4, size=800)
    texts = [" ".join(words[rng.integers(60, size=8) + 60 * c]) for c in classes]
    rows = [(text, f"class {c}") for text, c in zip(texts, classes, strict=True)]
    return rows[:400], rows[400:]


def check(result, names, low=0.0):
    assert list(result) == names
    assert all(low <= value <= 1 for value in result.values())


STUDENTS = ["student on labels", "student distilled"]


def test_image_classification(fashion):
    import image_classification

    result = image_classification.main(epochs=3, examples=500, data_dir=fashion)
    check(result, ["teacher", *STUDENTS])


def test_scenes_of_the_segmentation_example():
    import segmentation

    x, y = segmentation.scenes(np.full((2, 28, 28), 200), np.array([3, 7]), count=5, seed=0)
    assert x.shape == (5, 48, 48, 1)
    for image, mask in zip(x[..., 0], y, strict=True):
        np.testing.assert_array_equal(image == 200, mask > 0)
        assert set(np.unique(mask)) <= {0, 4, 8}


@pytest.mark.nightly
def test_segmentation(fashion):
    import segmentation

    result = segmentation.main(epochs=1, examples=60, data_dir=fashion)
    check(result, ["teacher", *STUDENTS])


def test_text_classification(news, tmp_path):
    import text_classification

    train, test = (staging.news_file(tmp_path / f"{i}.tsv", rows) for i, rows in enumerate(news))
    result = text_classification.main(train, test, epochs=16)
    check(result, ["teacher", *STUDENTS], low=0.3)


def test_texts_without_words(rng):
    """Two of SST-2's 60,614 have none."""
    import text_classification

    words = rng.integers(1, 10_000, (3, 48)) * (np.arange(48) < np.array([5, 0, 48])[:, None])
    student = text_classification.bag_of_words(4)
    table, kernel, bias = (np.array(weight) for weight in student.get_weights())
    means = [table[row[row > 0]].mean(0) if row.any() else np.zeros(8) for row in words]
    np.testing.assert_allclose(student(words), means @ kernel + bias, rtol=1e-4, atol=1e-6)
    assert np.isfinite(text_classification.transformer(4)(words)).all()


def test_recommendation(news, tmp_path):
    import recommendation

    path = staging.ratings_file(tmp_path / "ratings.csv", news[0])
    x, y = recommendation.histories(path, items=200)
    assert x.shape == (len(y), 200)
    assert (x.sum(1) >= 2).all()
    assert (x[np.arange(len(y)), y] == 0).all()
    result = recommendation.main(path, epochs=3, items=200)
    check(result, ["teacher", *STUDENTS])


def test_tabular_regression(real, tmp_path):
    import tabular_regression

    path = tmp_path / "housing.csv"
    if real:
        text = staging.complete_lines(real / "california_housing" / "housing.csv.gz")
        lines = text.splitlines()
        lines = [lines[0], *lines[1::20]]
    else:
        x = np.random.default_rng(0).normal(size=(1000, 2))
        prices = 2e5 + 5e4 * (x[:, 0] + x[:, 1] ** 2)
        lines = [
            "a,b,median_house_value",
            *(f"{a},{b},{p}" for (a, b), p in zip(x, prices, strict=True)),
        ]
    path.write_text("\n".join(lines))
    result = tabular_regression.main(path, epochs=15)
    check(result, ["teacher (forest)", *STUDENTS], low=0.2)


def test_spoken_digits(real, tmp_path):
    import spoken_digits

    if real:
        sounds = staging.fsdd_recordings(real / "fsdd" / "fsdd.npz", per_digit=12)
    else:
        rng = np.random.default_rng(0)
        time = np.arange(4000) / 8000
        sounds = [
            (
                f"{d}_x_{i}.wav",
                8000 * np.sin(2 * np.pi * (300 + 300 * d) * time + rng.uniform(0, 6)),
            )
            for d in range(10)
            for i in range(15)
        ]
    folder = staging.wav_folder(tmp_path / "recordings", sounds)
    result = spoken_digits.main(folder, tmp_path / "firmware", epochs=12)
    size = result.pop("bytes")
    check(result, ["teacher", *STUDENTS, "distilled, int8"])
    assert result["teacher"] > 0.4
    assert (tmp_path / "firmware" / "student.tflite").stat().st_size == size < 8192


@pytest.mark.nightly
def test_activity_recognition(real, tmp_path):
    import activity_recognition

    if real:
        arrays = staging.har_arrays(real / "uci_har" / "uci_har_6ch.npz", 400)
    else:
        rng = np.random.default_rng(0)
        y, is_test = rng.integers(6, size=400), rng.random(400) < 0.5
        time = np.arange(128) / 50
        x = np.sin(2 * np.pi * (y[:, None] + 1) * time + rng.uniform(0, 6, size=(400, 1)))
        arrays = x[..., None] * np.ones(6), y, is_test
    folder = staging.har_folder(tmp_path / "har", *arrays)
    result = activity_recognition.main(folder, tmp_path / "firmware", epochs=30)
    assert result.pop("bytes") < 8192
    check(result, ["teacher", *STUDENTS, "distilled, int8"], low=0.2)
    assert (tmp_path / "firmware" / "student.tflite").is_file()


@pytest.mark.nightly
def test_transfer_learning(digits, tmp_path):
    import transfer_learning

    weights = str(tmp_path / "backbone.weights.h5")
    keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, include_top=False, weights=None, pooling="avg"
    ).save_weights(weights)
    pixels = (digits[0][:300] * 255).astype("uint8").repeat(4, 1).repeat(4, 2).repeat(3, 3)
    # Photographs differ in size, as those of cats and dogs do.
    photographs = [np.pad(x, [(0, i % 9), (0, 0), (0, 0)]) for i, x in enumerate(pixels)]
    split = photographs, digits[1][:300] % 2
    data_dir = staging.stage("cats_vs_dogs", str(tmp_path), split, split)
    result = transfer_learning.main(
        "cats_vs_dogs", weights, size=32, epochs=1, labels=64, data_dir=data_dir
    )
    check(result, ["teacher", *STUDENTS])


def test_a_tuned_backbone_keeps_the_statistics_it_was_pretrained_with(rng):
    import transfer_learning

    teacher, backbone = transfer_learning.pretrained((32, 32, 3), 2, None, size=32)
    transfer_learning.unfreeze(backbone)
    pixels, labels = rng.uniform(0, 255, (8, 32, 32, 3)), np.arange(8) % 2
    before = [(v.path, np.array(v)) for v in backbone.variables]
    teacher.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    teacher.fit(pixels, labels, verbose=0)
    after = [np.array(v) for v in backbone.variables]
    changed = {path for (path, old), new in zip(before, after, strict=True) if (old != new).any()}
    assert changed
    assert not [path for path in changed if "bn" in path.lower()]


def test_record_writes_the_mean_over_seeds(tmp_path, monkeypatch):
    (tmp_path / "toy.py").write_text(
        "def main(a, seed, b):\n    return {'x': float(a) + b * seed}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    record = importlib.import_module("record")
    record.record("toy", ["0.5", "b=2"], seeds=3, note="made up", folder=tmp_path)
    written = json.loads((tmp_path / "toy.json").read_text())
    assert written["mean"] == {"x": 2.5}
    assert written["standard_deviation"] == {"x": 2.0}
    assert [run["x"] for run in written["runs"]] == [0.5, 2.5, 4.5]
    assert not list(tmp_path.glob("*.partial"))
    sys.modules.pop("toy")


def test_each_example_is_short():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 105, path.name


def test_recorded_results_are_those_of_an_example():
    for path in (EXAMPLES / "results").glob("*.json"):
        results = json.loads(path.read_text())
        assert (EXAMPLES / f"{path.stem}.py").is_file()
        assert f"examples/record.py {path.stem}" in results["command"]
        assert len(results["runs"]) >= 3
        for key, mean in results["mean"].items():
            assert mean == pytest.approx(np.mean([run[key] for run in results["runs"]]))
