"""Pascal VOC and COCO as datasets: boxes where they are, and faults named."""

import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_distill import detection, evaluation

OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>"
    "<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


@pytest.fixture
def voc(tmp_path):
    """A folder, and a function that adds an image of 40×60 with boxes to it."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)

    def add(name, *objects, size=(40, 60)):
        pixels = np.zeros((*size, 3), "uint8")
        for _, _, left, top, right, bottom in objects:
            pixels[max(int(top), 0) : int(bottom), max(int(left), 0) : int(right)] = 255
        path = tmp_path / "JPEGImages" / f"{name}.png"
        path.write_bytes(tf.io.encode_png(pixels).numpy())
        (tmp_path / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.png</filename><size><width>{size[1]}</width>"
            f"<height>{size[0]}</height></size>{''.join(OBJECT.format(*o) for o in objects)}"
            "</annotation>"
        )

    return tmp_path, add


def test_voc(voc):
    folder, add = voc
    add("a", ("cat", 0, 10, 20, 30, 40), ("ant", 1, 1, 2, 3, 4))
    add("b", ("dog", 0, 0, 0, 60, 40))
    (folder / "ImageSets" / "Main" / "train.txt").write_text("b\n")
    read = detection.read_voc(folder)
    assert read.class_names == ["ant", "cat", "dog"]
    assert [image.path.name for image in read.images] == ["a.png", "b.png"]
    np.testing.assert_array_equal(read.images[0].boxes, [[10, 20, 30, 40], [1, 2, 3, 4]])
    np.testing.assert_array_equal(read.images[0].labels, [1, 0])
    np.testing.assert_array_equal(read.images[0].ignored, [False, True])
    train = detection.read_voc(folder, "train")
    assert len(train) == 1
    assert train.class_names == read.class_names


def test_faults_are_counted_and_their_files_named(voc):
    folder, add = voc
    add("flat", ("cat", 0, 5, 5, 5, 9), ("cat", 0, 5, 9, 9, 5))
    add("out", ("cat", 0, 70, 5, 80, 9), ("cat", 0, -5, 30, 10, 50))
    with pytest.warns(UserWarning, match="Annotations: ") as caught:
        read = detection.read_voc(folder)
    [text] = [str(w.message) for w in caught]
    for part in (
        r"2 boxes without area, dropped (in",
        "1 boxes outside of their image, dropped (in",
        "1 boxes that reach beyond their image, cut (in",
        "1 images without boxes, kept (in",
    ):
        assert part in text
    assert "flat.xml" in text
    assert "out.xml" in text
    np.testing.assert_array_equal(read.images[1].boxes, [[0, 30, 10, 40]])
    assert {kind: len(files) for kind, files in read.faults.items()} == {
        "boxes without area, dropped": 2,
        "images without boxes, kept": 1,
        "boxes outside of their image, dropped": 1,
        "boxes that reach beyond their image, cut": 1,
    }


def test_what_cannot_be_read_is_an_error_that_names_the_file(voc):
    folder, add = voc
    with pytest.raises(ValueError, match="no XML files in .*Annotations"):
        detection.read_voc(folder)
    add("a", ("cat", 0, 1, 1, 3, 4))
    with pytest.raises(ValueError, match=r"a.xml has the class 'cat', which isn't one of \['dog'"):
        detection.read_voc(folder, class_names=["dog"])
    with pytest.raises(ValueError, match="`split` must be one of"):
        detection.read_voc(folder, "test")
    file = folder / "Annotations" / "a.xml"
    whole = file.read_text()
    file.write_text(whole.replace("<xmin>1</xmin>", ""))
    with pytest.raises(ValueError, match="a.xml must have a size"):
        detection.read_voc(folder)
    file.write_text(whole.replace("<xmin>1<", "<xmin>nan<"))
    with pytest.raises(ValueError, match="a.xml has a box with the edges"):
        detection.read_voc(folder)
    file.write_text(whole[:50])
    with pytest.raises(ValueError, match="a.xml can't be read as XML"):
        detection.read_voc(folder)
    file.write_text('<?xml version="1.0" encoding="klingon"?><annotation/>')
    with pytest.raises(ValueError, match="a.xml can't be read as XML"):
        detection.read_voc(folder)
    file.write_text(whole.replace("<name>cat", "<name> cat\n"))
    assert detection.read_voc(folder).class_names == ["cat"]
    file.write_text(whole)
    (folder / "ImageSets" / "Main" / "bytes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="bytes.txt can't be read"):
        detection.read_voc(folder, "bytes")
    (folder / "JPEGImages" / "a.png").unlink()
    with pytest.raises(ValueError, match="a.xml is about .*a.png, which doesn't exist"):
        detection.read_voc(folder)


def test_coco(tmp_path):
    pixels = tf.io.encode_png(np.zeros((40, 60, 3), "uint8")).numpy()
    (tmp_path / "a.png").write_bytes(pixels)
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": 40, "width": 60}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [10, 5, 20, 30], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        ],
    }
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content))
    read = detection.read_coco(file, tmp_path)
    assert read.class_names == ["car", "dog"]
    np.testing.assert_array_equal(read.images[0].boxes, [[10, 5, 30, 35], [0, 0, 9, 9]])
    np.testing.assert_array_equal(read.images[0].labels, [1, 0])
    np.testing.assert_array_equal(read.images[0].ignored, [False, True])
    [(_, boxes)] = detection.dataset(read, (20, 30))
    np.testing.assert_array_equal(boxes["labels"], [1, 0])
    np.testing.assert_array_equal(boxes["ignored"], [False, True])
    for name, change, message in (
        ("category_id", 99, "annotation 1 has the category 99"),
        ("image_id", 8, "annotation 1 has the image 8, which isn't among the file's images"),
        ("bbox", [1, 2, 3], r"instances.json: annotation 1 must have a `bbox` .*\[1, 2, 3\]"),
        ("bbox", 5, "annotation 1 must have a `bbox`"),
    ):
        wrong = json.loads(json.dumps(content))
        wrong["annotations"][0][name] = change
        file.write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=message):
            detection.read_coco(file, tmp_path)


def test_coco_files_that_are_wrong_are_named(tmp_path):
    (tmp_path / "a.png").write_bytes(tf.io.encode_png(np.zeros((4, 6, 3), "uint8")).numpy())
    image = {"id": 7, "file_name": "a.png", "height": 4, "width": 6}
    box = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 2, 2]}
    kinds = [{"id": 3, "name": "car"}]
    file = tmp_path / "instances.json"
    for change, says in (
        ({"annotations": [{**box, "bbox": ["1", "2", "3", "4"]}]}, "annotation 1 .*`bbox`"),
        ({"annotations": [{**box, "bbox": [None, 2, 3, 4]}]}, "annotation 1 .*`bbox`"),
        ({"images": [{"id": 7, "height": 4, "width": 6}]}, "'file_name'"),
        ({"images": [{**image, "height": None}]}, "image a.png .*None"),
        ({"images": [{**image, "height": "four"}]}, "image a.png .*'four'"),
        ({"images": [{**image, "file_name": 3}]}, "image 3"),
        ({"images": [image, image]}, "two images have the `id` 7"),
        ({"categories": [*kinds, {"id": 3, "name": "b"}]}, "two categories have the `id` 3"),
        ({"categories": [*kinds, {"id": 4, "name": "car"}]}, "`class_names` .*'car'"),
        ({"images": None}, "isn't a COCO file"),
    ):
        content = {"images": [image], "categories": kinds, "annotations": [box], **change}
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"instances.json.*{says}"):
            detection.read_coco(file, tmp_path)
    file.write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match="instances.json can't be read as JSON"):
        detection.read_coco(file, tmp_path)


def test_images_that_cannot_be_read_and_sizes_that_are_none(voc):
    folder, add = voc
    add("a", ("cat", 0, 1, 1, 3, 4))
    read = detection.read_voc(folder)
    for size in (8, (0, 8), (8, 8, 3), "ab"):
        with pytest.raises(ValueError, match="`image_size` must be"):
            detection.dataset(read, size)
    image = folder / "JPEGImages" / "a.png"
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"a.png can't be read"):
        list(detection.dataset(read, (8, 8)))
    add("thin", ("cat", 0, 0, 0, 2, 400), size=(1000, 2))
    (folder / "ImageSets" / "Main" / "thin.txt").write_text("thin")
    [(pixels, _)] = detection.dataset(detection.read_voc(folder, "thin"), (48, 64))
    assert (np.asarray(pixels)[:, 0] > 0).any()


def test_what_is_ignored_is_no_false_alarm_and_no_background(voc):
    """From the file to the scores of `compare`, and to what is to be learned."""
    pytest.importorskip("pycocotools")
    folder, add = voc
    add("a", ("cat", 0, 4, 4, 20, 20), ("dog", 1, 32, 8, 56, 32))
    data = detection.dataset(detection.read_voc(folder), (40, 60))
    flip = layers.RandomFlip("horizontal", bounding_box_format="xyxy", seed=0)
    [(_, moved)] = detection.augmented(data, flip)
    np.testing.assert_array_equal(moved["ignored"], [False, True])
    found = detection.Detections(
        np.float32([[[4, 4, 20, 20], [32, 8, 56, 32]]]), np.float32([[0.8, 0.9]]),
        np.array([[0, 1]]),
    )  # fmt: skip
    model = keras.Sequential([keras.Input((40, 60, 3)), layers.Flatten()])
    result = evaluation.compare(
        {"right": model, "cats": model},
        data.batch(1),
        task="detection",
        class_names=["cat", "dog"],
        decode={
            "right": lambda outputs: found,
            "cats": lambda outputs: found._replace(labels=np.array([[0, 0]])),
        },
    )
    # The difficult dog isn't missed; a cat in its place is a false alarm, surer than the right one.
    assert [row["map"] for row in result.rows] == pytest.approx([1, 0.5])

    head = detection.Head((40, 60), (8,), ["cat", "dog"])
    [(_, y)] = data.map(detection.targets(head))
    x, y_of = head.points()[:, 0], head.points()[:, 1]
    inside = (x > 32) & (x < 56) & (y_of > 8) & (y_of < 32)
    classes = np.asarray(y["classes"])
    np.testing.assert_array_equal((classes == -1).all(-1), inside)
    assert (classes[~inside] >= 0).all()
    assert classes[~inside].sum() > 0
    logits = np.random.default_rng(0).standard_normal((1, head.places, 2))
    loss = detection.TargetClasses()
    other = logits + 5 * inside[None, :, None]
    np.testing.assert_allclose(loss(classes[None], logits), loss(classes[None], other), rtol=1e-6)


def white(image, boxes):
    """The box around the white pixels, and the first box given."""
    rows, columns = np.nonzero(np.asarray(image)[..., 0] > 128)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return found, np.asarray(boxes["boxes"][0])


def test_boxes_stay_on_what_they_are_about(voc):
    """Through letterboxing, mirroring, zoom, shift and resizing."""
    folder, add = voc
    add("wide", ("cat", 0, 12, 8, 32, 28))
    add("tall", ("cat", 0, 8, 12, 28, 32), size=(60, 40))
    data = detection.dataset(detection.read_voc(folder), (80, 80)).cache()
    for image, boxes in data:
        assert image.dtype == "uint8"
        found, box = white(image, boxes)
        np.testing.assert_allclose(box, found, atol=1.5)
    keras.utils.set_random_seed(1)
    steps = [
        layers.RandomFlip(bounding_box_format="xyxy"),
        layers.RandomZoom((-0.3, 0.1), bounding_box_format="xyxy", fill_mode="constant"),
        layers.RandomTranslation(0.2, 0.2, bounding_box_format="xyxy", fill_mode="constant"),
        layers.Resizing(64, 64, bounding_box_format="xyxy"),
    ]
    seen = 0
    for image, boxes in detection.augmented(data.repeat(6), steps):
        assert image.shape == (64, 64, 3)
        if boxes["labels"][0] == 0:
            found, box = white(image, boxes)
            np.testing.assert_allclose(box, found, atol=2.5)
            seen += 1
        else:
            np.testing.assert_array_equal(boxes["boxes"], 0)
    assert seen >= 6
    with pytest.raises(ValueError, match='`bounding_box_format="xyxy"`.*has .xywh.'):
        detection.augmented(data, layers.RandomFlip(bounding_box_format="xywh"))
    with pytest.raises(ValueError, match='`bounding_box_format="xyxy"`.*has None'):
        detection.augmented(data, layers.RandomFlip())


def test_a_crop_of_keras_takes_boxes_elsewhere(voc):
    """So it is refused. If this fails, Keras has learned it: allow `RandomCrop`."""
    image = np.zeros((1, 40, 60, 3), "float32")
    image[:, 10:30, 35:45] = 255
    layer = layers.RandomCrop(36, 40, bounding_box_format="xyxy", seed=3)
    apart = []
    for _ in range(8):
        given = {"boxes": np.float32([[[35, 10, 45, 30]]]), "labels": np.array([[0]])}
        moved = layer({"images": tf.constant(image), "bounding_boxes": keras.tree.map_structure(
            tf.constant, given)})  # fmt: skip
        boxes = {"boxes": np.clip(moved["bounding_boxes"]["boxes"][0], 0, 40)}
        if (np.asarray(moved["images"]) > 128).any():
            apart.append(np.abs(np.subtract(*white(moved["images"][0], boxes))).max())
    assert max(apart) > 3
    folder, add = voc
    add("a", ("cat", 0, 1, 1, 3, 4))
    with pytest.raises(ValueError, match="can't hold `keras.layers.RandomCrop`"):
        detection.augmented(detection.dataset(detection.read_voc(folder), (8, 8)), layer)


def test_an_image_of_another_size_stops_with_its_path(voc):
    folder, add = voc
    add("a", ("cat", 0, 1, 1, 3, 4), size=(30, 30))
    file = folder / "Annotations" / "a.xml"
    file.write_text(file.read_text().replace("<width>30", "<width>31"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="a.png"):
        list(detection.dataset(detection.read_voc(folder), (8, 8)))


def test_blood_cells(data_dir):
    """Of the real files, a few boxes have no width or height."""
    with pytest.warns(UserWarning, match=r"boxes without area, dropped \(in .*BloodImage_"):
        read = detection.read_voc(data_dir / "bccd")
    assert read.class_names == ["Platelets", "RBC", "WBC"]
    kept = np.bincount(np.concatenate([image.labels for image in read.images]))
    dropped = len(read.faults["boxes without area, dropped"])
    assert kept.sum() + dropped == 361 + 4155 + 372
    assert len(read) == 364
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        test = detection.read_voc(data_dir / "bccd", "test")
    assert len(test) == 72
    image, boxes = next(iter(detection.dataset(test, (192, 256), most=30)))
    assert image.shape == (192, 256, 3)
    sides = np.asarray(boxes["boxes"])[np.asarray(boxes["labels"]) >= 0]
    assert (sides[:, 2] <= 256).all()
    assert (sides[:, 3] <= 192).all()
