"""Each example from end to end on a small slice of its real data."""

import dataclasses
import importlib
import importlib.util
import json
import pathlib
import re
import sys
import warnings

import keras
import numpy as np
import pytest
import staging
from gaining import STUDENTS, gains

import keras_distill

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def check(result, names, low=0.0):
    assert list(result) == names
    assert all(low <= value <= 1 for value in result.values())


@pytest.mark.long
def test_text_classification(data_dir, tmp_path):
    import text_classification

    rows = staging.news_rows(data_dir / "ag_news" / "dev.tsv.gz")
    parts = rows[:2000], rows[2000:3000]
    train, test = (staging.news_file(tmp_path / f"{i}.tsv", part) for i, part in enumerate(parts))
    app = tmp_path / "app"
    with pytest.warns(UserWarning, match="stayed float: CAST"):  # of the words' numbers
        result = text_classification.main(train, test, app, labels=200, steps=160)
    gains(result, 0.5, over=0.04)
    assert result["teacher"] > 0.8
    # The file in the app has metadata, too.
    assert result["bytes"] <= (app / "student.tflite").stat().st_size < 170_000


@pytest.mark.long
def test_blood_cells(data_dir, tmp_path):
    import blood_cells

    options = {"labeled": 3, "steps": 200}
    with warnings.catch_warnings():  # The data have boxes without area, which are dropped.
        warnings.filterwarnings("ignore", "Annotations: ", UserWarning)
        result = blood_cells.main(
            data_dir / "bccd", tmp_path / "teacher.keras", tmp_path / "report", **options
        )
    errors = [name for name in result if name.endswith(": calibration error")]
    assert [result.pop(name) for name in errors] == pytest.approx([0.1] * 4, abs=0.3)
    gains(result, 0.5, over=0.05)
    assert result["teacher"] > 0.9
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.mark.long
def test_representations(data_dir, tmp_path, monkeypatch):
    import representations as example

    whole = example.images
    monkeypatch.setattr(
        example, "images", lambda *of: tuple(part[:9000][::3] for part in whole(*of))
    )
    monkeypatch.setattr(example, "THEIRS", slice(1000))
    monkeypatch.setattr(example, "OURS", slice(1000, 3000))
    keras.utils.set_random_seed(0)
    teacher = example.backbone((16, 32, 64), depth=1)
    images = example.images(data_dir / "fashion_mnist", "train")
    example.classifier(teacher, tuple(part[:1000] for part in images), 400, 3e-3)
    teacher.save(tmp_path / "teacher.keras")
    monkeypatch.setattr(example, "FEW", 50)
    result = example.main(
        data_dir / "fashion_mnist", tmp_path / "teacher.keras", tmp_path / "firmware", steps=400
    )
    near = [result.pop(f"{name}: nearest neighbors") for name in ("teacher", *STUDENTS)]
    assert near[0] > near[1]
    gains(result, 0.25, over=0.02)
    assert (tmp_path / "firmware" / "student.tflite").stat().st_size == result["bytes"] < 31_000


@pytest.mark.long
def test_another_domain(data_dir, tmp_path):
    import another_domain

    result = another_domain.main(
        data_dir / "mnist", tmp_path / "firmware", seed=1, steps=200, count=3000
    )
    assert 0 < result.pop("teacher, statistics of MNIST") < 1
    gains(result, 0.5, over=0.05)
    assert (tmp_path / "firmware" / "student.tflite").stat().st_size == result["bytes"] < 9000


def test_digits_of_both_domains_fill_their_images_alike(data_dir):
    """Rows and columns with ink, and how much of it: what cropping is for."""
    import another_domain

    x, y = another_domain.source(data_dir / "mnist", 500)
    adapted, chosen, held_out = another_domain.target()
    assert [len(part[1]) for part in (adapted, chosen, held_out)] == [1000, 400, 397]
    assert x.shape == (500, 8, 8, 1)
    assert set(y) == set(held_out[1]) == set(range(10))
    for images in (x, held_out[0]):
        assert 0 <= images.min() < images.max() <= 1
        assert (images.max((2, 3)) > 0.1).mean() > 0.95
        assert 0.2 < images.mean() < 0.45


@pytest.mark.long
def test_policy():
    import policy

    result = policy.main(rounds=50, steps=250)
    assert list(result) == [
        *("teacher", "student alone", "student distilled", "distilled, int8", "bytes")
    ]
    assert result["teacher"] > 400
    assert result["student alone"] < 300
    for name in ("student distilled", "distilled, int8"):
        assert result[name] > 0.9 * result["teacher"]
    assert result["bytes"] < 2048


def test_returns_of_episodes_begin_and_end_as_in_the_environment():
    """Leaning on the fall holds the pole up to the end; one push makes it fall at once."""
    gymnasium = pytest.importorskip("gymnasium")
    import policy

    environment = gymnasium.make_vec("CartPole-v1", num_envs=policy.ENVIRONMENTS)
    right = np.array([0.0, 1.0])
    assert policy.score(lambda x: (x[:, 2] + x[:, 3])[:, None] * right, environment, 0) > 195
    assert 8 <= policy.score(lambda x: np.broadcast_to(right, (len(x), 2)), environment, 0) <= 11


def test_texts_without_words(rng):
    """Two of SST-2's 60,614 have none."""
    import text_classification

    words = rng.integers(1, 10_000, (3, 48)) * (np.arange(48) < np.array([5, 0, 48])[:, None])
    student = text_classification.bag_of_words(4, 8)
    table, kernel, bias = (np.array(weight) for weight in student.get_weights())
    means = [table[row[row > 0]].mean(0) if row.any() else np.zeros(8) for row in words]
    np.testing.assert_allclose(student(words), means @ kernel + bias, rtol=1e-4, atol=1e-6)


@pytest.mark.long
def test_tabular_regression(data_dir, tmp_path):
    import tabular_regression

    path = tmp_path / "housing.csv"
    text = staging.complete_lines(data_dir / "california_housing" / "housing.csv.gz")
    path.write_text("\n".join([text.splitlines()[0], *text.splitlines()[1::4]]))
    result = tabular_regression.main(path, tmp_path / "firmware", labels=400, steps=1200)
    gains(result, 0.25, over=0.02)
    assert result["teacher"] > 0.6
    assert (tmp_path / "firmware" / "student.tflite").stat().st_size == result["bytes"] <= 4096


@pytest.mark.long
def test_activity_recognition(data_dir, tmp_path):
    import activity_recognition

    arrays = staging.har_arrays(data_dir / "uci_har" / "uci_har_6ch.npz", step=4)
    folder = staging.har_folder(tmp_path / "UCI HAR Dataset", *arrays)
    result = activity_recognition.main(folder, tmp_path / "firmware", steps=600)
    gains(result, 0.5, over=0.05)
    assert result["teacher"] > 0.95
    assert result["distilled, int8"] > 0.925
    assert (tmp_path / "firmware" / "student.tflite").stat().st_size == result["bytes"] <= 5000


def test_a_wave_has_its_energy_in_its_band():
    """Six periods in a window, along gravity: their size has twelve."""
    import motion_features

    window = np.zeros((1, 128, 6))
    window[..., 5] = 1 + 0.1 * np.sin(2 * np.pi * 6 * np.arange(128) / 128)
    read, beside = motion_features.features(window)
    assert (read.shape, beside.shape) == ((1, 141), (1, 132))
    np.testing.assert_allclose(read[0, :9], [0, 0, 1] * 3, atol=1e-6)
    energies = np.exp(read[0, 9:]).reshape(12, 11)
    z, size, rise = 2, 6, 8
    assert energies[:, [z, size, rise]].argmax(0).tolist() == [5, 8, 5]
    np.testing.assert_allclose(np.delete(energies, [z, size, rise], 1), 1e-5, rtol=1e-3)


@pytest.mark.long
def test_voice_activity(data_dir, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("pymicro_features")
    if importlib.util.find_spec("silero_vad") is None:
        pytest.skip("silero-vad isn't installed")
    import voice_activity

    slice_ = {"count": 60, "marked": 2, "test": 12, "epochs": 5}
    result = voice_activity.main(data_dir / "fsdd" / "fsdd.npz", tmp_path / "firmware", **slice_)
    for measure in ("area to Silero", "agreement"):
        on_labels = result.pop(f"student on labels, {measure}")
        assert on_labels < result.pop(f"distilled, int8, {measure}") < 1
    gains(result, 0.25, over=0.02)
    assert result["teacher"] > 0.9
    assert result["bytes"] <= 16 * 1024
    assert (tmp_path / "firmware" / "student_front_end.h").is_file()


# The moving means of normalization are those of the start after so few steps.
@pytest.mark.filterwarnings("ignore:.*meets calibration data")
@pytest.mark.nightly
def test_wake_word(data_dir, tmp_path):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("pymicro_features")
    import wake_word

    slice_ = {"count": 20, "marked": 10, "test": 6, "steps": 12}
    streams, firmware = tmp_path / "streams", tmp_path / "firmware"
    result = wake_word.main(data_dir / "fsdd" / "fsdd.npz", streams, firmware, **slice_)
    names = ["teacher", *STUDENTS, "distilled, int8"]
    assert list(result) == [*names, "bytes", *(f"false accepts, {name}" for name in names)]
    assert all(0 <= result[name] <= 1 for name in names)
    assert result["bytes"] <= 20 * 1024
    assert (firmware / "student_front_end.h").is_file()
    assert {p.name for p in streams.iterdir()} == {"heard.npz", "teacher.keras", "test.npz"}


@pytest.mark.long
def test_words_are_on_where_they_were_said(data_dir, tmp_path):
    """Answers that know it hear all words, and nothing else."""
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("pymicro_features")
    import wake_word

    file, path = data_dir / "fsdd" / "fsdd.npz", tmp_path / "streams.npz"
    x, on, events = wake_word.recordings(path, file, wake_word.HEARD[:2], (0, 1), 4, 0)
    again = wake_word.recordings(path, file, (), (), 0, 0)
    assert (again[0] == x).all()
    assert again[2] == events
    assert x.shape == (4, wake_word.CLIP, 40)
    assert sum(map(len, events)) >= 1
    assert wake_word.figures(20 * on - 10, events) == (1.0, 0.0)
    assert wake_word.figures(-20 * on, events)[0] < 0.5


# The moving means of normalization are those of the start after so few steps.
@pytest.mark.filterwarnings("ignore:.*meets calibration data")
@pytest.mark.nightly
def test_connected_digits(data_dir, tmp_path):
    pytest.importorskip("jiwer")
    pytest.importorskip("pymicro_features")
    import connected_digits

    slice_ = {"count": 20, "test": 5, "steps": 3}
    file, firmware = data_dir / "fsdd" / "fsdd.npz", tmp_path / "firmware"
    result = connected_digits.main(file, tmp_path / "teacher.keras", firmware, **slice_)
    assert list(result) == ["teacher", *STUDENTS, "distilled, int8", "bytes"]
    assert all(value <= 1 for name, value in result.items() if name != "bytes")
    assert result["bytes"] <= 24 * 1024
    assert (firmware / "student_front_end.h").is_file()


def test_words_that_are_right_are_counted():
    """Of "12" and "3", one of three words is wrong."""
    pytest.importorskip("jiwer")
    pytest.importorskip("pymicro_features")
    import connected_digits

    frames = np.eye(11)[[[2, 0, 4, 4], [4, 4, 4, 0]]]
    assert connected_digits.right(frames, np.array([[2, 3], [4, 0]])) == pytest.approx(2 / 3)


@pytest.mark.nightly
def test_spoken_digits(data_dir, tmp_path):
    import spoken_digits

    with np.load(data_dir / "fsdd" / "fsdd.npz") as data:
        some = np.flatnonzero(data["is_test"] | (np.arange(len(data["y"])) % 3 == 0))
        sounds = np.split(data["audio"], data["offsets"][1:-1])
        ends = np.cumsum([0, *[len(sounds[i]) for i in some]])
        slice_ = {name: data[name][some] for name in ("y", "is_test")}
    path = tmp_path / "fsdd.npz"
    np.savez(path, audio=np.concatenate([sounds[i] for i in some]), offsets=ends, **slice_)
    teacher, firmware = tmp_path / "teacher.keras", tmp_path / "firmware"
    result = spoken_digits.main(path, teacher, firmware, labels=60, steps=240, views=2)
    gains(result, 0.5, over=0.1)
    assert result["teacher"] > 0.9
    assert (firmware / "student.tflite").stat().st_size == result["bytes"] <= 16 * 1024


def test_sounds_change_in_speed_loudness_and_place(rng):
    import spoken_digits

    sound = np.sin(np.arange(4000) / 10).astype("float32")
    for _ in range(20):
        changed = spoken_digits.another(sound, rng)
        heard = np.flatnonzero(changed)
        assert 4000 / 1.16 < heard[-1] - heard[0] < 4000 / 0.84
        assert 0 <= len(changed) - (heard[-1] - heard[0]) <= 810
        assert 0.49 < np.abs(changed).max() < 2.02


def test_the_detector_has_the_outputs_of_its_head():
    import detection

    model = detection.detector((4, 4, 8), 1, classes=3)
    names = ["Platelets", "RBC", "WBC"]
    head = keras_distill.detection.Head(detection.SIZE, detection.STRIDES, names, "edges")
    boxes, scores = head.decode(model(np.zeros((1, *detection.SIZE, 3), "float32")))
    assert boxes.shape == (1, head.places, 4)
    # Before training, no place is believed to have an object.
    assert scores.max() < 0.1


def test_places_and_bins_of_the_detector_can_say_where_cells_are(data_dir, rng):
    """Outputs that agree with the targets of real boxes score nearly 1."""
    pytest.importorskip("pycocotools")
    import detection as example

    from keras_distill import detection

    with pytest.warns(UserWarning, match="1 boxes without area, dropped"):
        cells = detection.read_voc(data_dir / "bccd", "val")
    cells = dataclasses.replace(cells, images=cells.images[:12])
    head = detection.Head(example.SIZE, example.STRIDES, cells.class_names, "edges")
    data = detection.dataset(cells, example.SIZE)
    given = next(iter(data.map(lambda _, boxes: boxes).batch(12)))
    _, y = next(iter(data.map(detection.targets(head)).batch(12)))
    # Two neighboring bins hold a distance between them.
    near = 1 - np.abs(np.array(y["boxes"])[..., None] - np.arange(example.BINS))
    outputs = {
        "classes": 20 * np.array(y["classes"]) - 10,
        "boxes": np.log(near.clip(1e-6)),
    }
    found = head.detections(outputs)
    truth, labels = np.array(given["boxes"]), np.array(given["labels"])
    scores, _ = detection.average_precision(truth, labels, found, len(cells.class_names))
    assert scores["ap50"] > 0.95
    assert scores["map"] > 0.9


def some_of(folder, source, patterns, count):
    """A folder with links to the first files of each pattern."""
    for pattern in patterns:
        for path in sorted(source.glob(pattern))[:count]:
            link = folder / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    return folder


@pytest.mark.nightly
def test_segmentation(data_dir, tmp_path):
    import segmentation

    patterns = [f"{split}{kind}" for split in ("train", "test") for kind in ("/*", "annot/*")]
    folder = some_of(tmp_path / "camvid", data_dir / "camvid", patterns, 60)
    slice_ = {"labels": 2, "steps": 200, "teacher_steps": 250}
    result = segmentation.main(folder, tmp_path / "teacher.keras", tmp_path / "app", **slice_)
    gains(result, 0.25, over=0.02)
    assert result["teacher"] > 0.25
    assert (tmp_path / "app" / "student.tflite").stat().st_size >= result["bytes"]
    assert result["bytes"] <= 100_000
    assert (tmp_path / "teacher.keras").is_file()


def test_masks_stay_classes_when_frames_are_scaled(data_dir, tmp_path):
    import segmentation

    folder = some_of(tmp_path, data_dir / "camvid", ["val/*", "valannot/*"], 2)
    images, masks = segmentation.frames(folder, "val")
    assert images.shape == (2, *segmentation.SIZE, 3)
    painted = keras.utils.img_to_array(
        keras.utils.load_img(next(iter(sorted(folder.glob("valannot/*")))), color_mode="grayscale")
    )[..., 0]
    # Sizes are 2.5 times as small: a class of each pixel is that of one of those painted there.
    assert (masks[0, ::2, ::2] == painted[1::5, 1::5]).mean() > 0.95
    assert masks.max() == segmentation.UNLABELED
    assert segmentation.segmenter((4, 4, 8), 1).output_shape == (None, *segmentation.SIZE, 11)


@pytest.mark.parametrize(("name", "most"), [("detection", 250_000), ("segmentation", 100_000)])
def test_files_of_detectors_and_segmenters_are_within_a_point_of_their_students(name, most):
    results = json.loads((EXAMPLES / "results" / f"{name}.json").read_text())
    for run in results["runs"]:
        assert abs(run["distilled, int8"] - run["student distilled"]) < 0.01
        assert run["bytes"] <= most


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


@pytest.mark.long
def test_a_tuned_backbone_keeps_the_statistics_it_was_pretrained_with(rng):
    import transfer_learning

    teacher, backbone = transfer_learning.pretrained((32, 32, 3), 2, None, size=32)
    transfer_learning.unfreeze(backbone)
    pixels, labels = rng.uniform(0, 255, (8, 32, 32, 3)), np.arange(8) % 2
    before = [(v.path, np.array(v)) for v in backbone.variables]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # One batch takes less time than tracing.
    teacher.compile("adam", loss, run_eagerly=True)
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
    assert written["seeds"] == [0, 1, 2]
    assert "gain" not in written
    assert [len(written["seconds"][kind]) for kind in ("wall", "cpu")] == [3, 3]
    assert {"Python", "keras", "tensorflow", "scikit-learn"} <= written["versions"].keys()
    assert [run["x"] for run in written["runs"]] == [0.5, 2.5, 4.5]
    assert not list(tmp_path.glob("*.partial"))
    sys.modules.pop("toy")


def test_the_gain_is_of_paired_differences():
    """Differences 0.1, 0.2 and 0.3: their standard error is 0.1 / √3, t(0.975, 2) is 4.3027."""
    record = importlib.import_module("record")
    runs = [
        {"teacher": a + 0.4, "student on labels": a, "student distilled": 0.0,
         "distilled, int8": a + d, "bytes": 9}
        for a, d in ((0.1, 0.1), (0.5, 0.2), (0.3, 0.3))
    ]  # fmt: skip
    gain = record.statistics(runs)["gain"]
    assert gain.pop("of") == "distilled, int8"
    expected = {"mean": 0.2, "half_interval": 4.302653 * 0.1 / 3**0.5, "share_of_gap": 0.5}
    assert gain == pytest.approx(expected, rel=1e-6)
    # As distances: the lead of what is less.
    distances = [{key: -value for key, value in run.items()} for run in runs]
    gain = record.statistics(distances, less_is_better=True)["gain"]
    assert (gain.pop("of"), gain.pop("less_is_better")) == ("distilled, int8", True)
    assert gain == pytest.approx(expected, rel=1e-6)


def test_each_example_is_short():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 110, path.name


def test_recorded_results_are_those_of_an_example():
    record = importlib.import_module("record")
    for path in (EXAMPLES / "results").glob("*.json"):
        results = json.loads(path.read_text())
        assert (EXAMPLES / f"{path.stem}.py").is_file()
        assert f"examples/record.py {path.stem}" in results["command"]
        assert len(results["runs"]) >= 3
        less = results["gain"].get("less_is_better", False)
        for key, value in record.statistics(results["runs"], less).items():
            for name, number in value.items():
                assert results[key][name] == pytest.approx(number), (path.stem, key, name)


@pytest.mark.parametrize(
    "path", sorted((EXAMPLES / "results").glob("*.json")), ids=lambda p: p.stem
)
def test_an_example_gains_and_says_if_less_than_half_of_the_gap(path):
    gain = json.loads(path.read_text())["gain"]
    assert gain["mean"] > gain["half_interval"]
    # Of less than a half, the page has to say so.
    docs = EXAMPLES.parent / "docs"
    pages = "".join((docs / f"{name}.md").read_text() for name in ("examples", "beyond_labels"))
    shown = f"{{{{ results: {path.stem} }}}}"
    page = next(text for text in re.split(r"(?={{ results: )", pages) if text.startswith(shown))
    says_so = "The gain is less than half of the gap" in " ".join(page.split())
    assert says_so == (gain["share_of_gap"] < 0.5)


def test_what_is_told_not_to_pay_does_not():
    """Those whose interval excludes a gain of nothing have no place on that page."""
    paths = sorted((EXAMPLES.parent / "docs" / "without_gain").glob("*.json"))
    assert paths
    for path in paths:
        gain = json.loads(path.read_text())["gain"]
        assert gain["mean"] < gain["half_interval"], path.stem
