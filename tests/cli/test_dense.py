"""`keras-distill evaluate` for detectors and segmenters: what `compare` finds, from files."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from keras_distill import cli, detection, evaluation, tflite

#: Two images of 40 x 60, scaled by a half: boxes as COCO gives them, left, top, width, height.
BOXES = {"a": ("red", [4, 4, 20, 10]), "b": ("green", [10, 6, 30, 24])}
SIZE = (20, 30)


def head():
    return detection.Head(SIZE, (10,), ["green", "red"], "distances")


HEADS = """
from keras_distill import detection

def detections(outputs):
    return detection.Head((20, 30), (10,), ["green", "red"], "distances").detections(outputs)
"""


def small_detector():
    x = image = keras.Input((*SIZE, 3))
    x = keras.layers.Conv2D(4, 10, strides=10, activation="relu")(x)
    outputs = {
        "classes": keras.layers.Reshape((-1, 2), name="classes")(keras.layers.Conv2D(2, 1)(x)),
        "boxes": keras.layers.Reshape((-1, 4), name="boxes")(
            keras.layers.Conv2D(4, 1, bias_initializer="ones")(x)
        ),
    }
    return keras.Model(image, outputs)


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """A folder in the layout of Pascal VOC, the same as COCO, and a module with the head."""
    folder = tmp_path_factory.mktemp("cells")
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    notes = []
    for i, (name, (label, (left, top, width, height))) in enumerate(BOXES.items()):
        pixels = rng.integers(0, 255, (40, 60, 3)).astype("uint8")
        Image.fromarray(pixels).save(folder / "JPEGImages" / f"{name}.png")
        (folder / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.png</filename><size><width>60</width>"
            f"<height>40</height></size><object><name>{label}</name><bndbox><xmin>{left}</xmin>"
            f"<ymin>{top}</ymin><xmax>{left + width}</xmax><ymax>{top + height}</ymax></bndbox>"
            "</object></annotation>"
        )
        box = {"id": i, "image_id": i, "bbox": [left, top, width, height]}
        notes.append({**box, "category_id": 5 + (label == "red")})
    (folder / "ImageSets/Main/test.txt").write_text("a\nb\n")
    images = [
        {"id": i, "file_name": f"{n}.png", "height": 40, "width": 60} for i, n in enumerate("ab")
    ]
    categories = [{"id": 5, "name": "green"}, {"id": 6, "name": "red"}]
    content = {"images": images, "annotations": notes, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    keras.utils.set_random_seed(0)
    model = small_detector()
    # As it was trained: Keras has to know its losses to load it.
    model.compile("sgd", {"classes": detection.TargetClasses(), "boxes": detection.TargetBoxes()})
    model.save(folder / "teacher.keras")
    (folder / "file.tflite").write_bytes(tflite.convert(model).tflite)
    return folder


def run(capsys, *arguments):
    assert cli.main(["evaluate", *arguments, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.mark.long
def test_the_command_loads_what_detectors_are_compiled_with(cells):
    code = "import sys; from keras_distill.cli import models; models.load(sys.argv[1])"
    command = [sys.executable, "-c", code, str(cells / "teacher.keras")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_detectors(cells, capsys, monkeypatch):
    pytest.importorskip("pycocotools")
    (cells / "heads_of_cells.py").write_text(HEADS)
    monkeypatch.chdir(cells)
    given = ["teacher=teacher.keras", "phone=file.tflite", "--task=detection", "--image_size=20,30"]
    given.append("--decode=heads_of_cells:detections")
    found = run(capsys, *given, "--data=.")
    data = detection.dataset(detection.read_voc(cells, "test"), SIZE).batch(2)
    teacher = keras.models.load_model(cells / "teacher.keras")
    want = evaluation.compare(
        {"teacher": teacher}, data, task="detection", class_names=["green", "red"],
        decode=head().detections,
    )  # fmt: skip
    assert found["task"] == "detection"
    assert found["class_names"] == ["green", "red"]
    rows = {row["name"]: row for row in found["candidates"]}
    for name in ("teacher", "phone"):
        assert rows[name]["map"] == pytest.approx(want.rows[0]["map"])
        assert rows[name]["average_recall"] == pytest.approx(want.rows[0]["average_recall"])
    assert rows["teacher"]["average_recall"] > 0
    assert found["per_class"]["teacher"]["labels"] == [1, 1]
    of_coco = run(capsys, *given, "--data=instances.json", "--images=JPEGImages")
    assert of_coco["candidates"][0]["map"] == rows["teacher"]["map"]


def test_segmenters(tmp_path, capsys):
    """A model that takes what is red for 1, on masks of gray and of a palette."""
    rng = np.random.default_rng(1)
    painted = rng.integers(0, 2, (2, 8, 12))
    painted[:, :, 5] = 9
    for name in ("test", "testannot"):
        (tmp_path / name).mkdir()
    for i, classes in enumerate(painted):
        image = np.zeros((8, 12, 3), "uint8")
        image[..., 0] = 200 * (classes == 1)
        Image.fromarray(image).save(tmp_path / "test" / f"{i}.png")
        mask = Image.fromarray(classes.astype("uint8"))
        if i:
            mask.putpalette(list(range(30)))
            assert mask.mode == "P"
        mask.save(tmp_path / "testannot" / f"{i}.png")
    inputs = keras.Input((8, 12, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1)(inputs))
    model.set_weights([np.float32([[-1, 1], [0, 0], [0, 0]])[None, None], np.float32([50, -50])])
    model.save(tmp_path / "right.keras")
    given = [f"right={tmp_path / 'right.keras'}", "--task=segmentation", "--image_size=8,12"]
    found = run(capsys, *given, f"--data={tmp_path}", "--missing_label=9", "--class_names=no,yes")
    [row] = found["candidates"]
    assert (row["mean_iou"], row["accuracy"]) == (1, 1)
    counts = [int((painted == label).sum()) for label in (0, 1)]
    assert np.array(found["confusion"]["right"]).tolist() == np.diag(counts).tolist()
    assert found["class_names"] == ["no", "yes"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--task=detection"], "say which data"),
        (["--task=detection", "--data=none"], "--image_size must be HEIGHT,WIDTH"),
        (
            ["--task=segmentation", "--data=none", "--image_size=0,8"],
            "--image_size must be HEIGHT,",
        ),
        (["--task=detection", "--data=none", "--image_size=8,8"], "none/ImageSets/Main/test.txt"),
        (["--task=detection", "--data=x.json", "--image_size=8,8"], "--images must name"),
        (["--task=detection", "--data=none", "--missing_label=1"], "--missing_label isn't for"),
        (["--task=segmentation", "--data=none", "--image_size=8,8"], "no folder none/testannot"),
        (["--task=segmentation", "--data=none", "--decode=a:b"], "--decode isn't for"),
        (["--data=digits.npz", "--decode=a:b"], "--decode isn't for"),
    ],
)
def test_wrong_flags(cells, flags, says, capsys):
    assert cli.main(["evaluate", f"a={cells / 'teacher.keras'}", *flags]) == 2
    assert says in capsys.readouterr().err


def test_masks_of_another_form_are_named(tmp_path, cells, capsys):
    for name in ("val", "valannot"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.zeros((8, 12, 3), "uint8")).save(tmp_path / "val" / "0.png")
    given = [f"a={cells / 'teacher.keras'}", "--task=segmentation", f"--data={tmp_path}"]
    given += ["--image_size=8,12", "--split=validation"]
    mask = tmp_path / "valannot" / "0.png"
    for says, shape in (
        ("has no mask", None),
        ("one number for each", (8, 12, 3)),
        ("(8, 12)", (4, 4)),
    ):
        if shape:
            Image.fromarray(np.zeros(shape, "uint8")).save(mask)
        assert cli.main(["evaluate", *given]) == 2
        assert says in (err := capsys.readouterr().err)
        assert str(mask) in err
