"""Overlaps, suppression and average precision, alone and in `compare`."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_distill import detection, evaluation

pytest.importorskip("pycocotools")


def found(*images, most=4):
    """`Detections` from `(box, score, label)`s of each image."""
    boxes, scores = np.zeros((len(images), most, 4)), np.zeros((len(images), most))
    labels = np.full((len(images), most), -1)
    for i, image in enumerate(images):
        for k, (box, score, label) in enumerate(image):
            boxes[i, k], scores[i, k], labels[i, k] = box, score, label
    return detection.Detections(boxes, scores, labels)


SQUARE = [0, 0, 10, 10]
TRUE_BOXES = np.array([[SQUARE, [20, 20, 120, 120]], [SQUARE, [0, 0, 0, 0]]], "float32")
TRUE_LABELS = np.array([[0, 1], [0, -1]])


def score(detections, classes=3, **arguments):
    return detection.average_precision(TRUE_BOXES, TRUE_LABELS, detections, classes, **arguments)


def test_average_precision_by_hand():
    """Overlaps of 1, 0.8 and 0.5, and what their ranks make of them."""
    # Both squares found, one with an overlap of 0.8; the large box not at all.
    values, per_class = score(
        found([(SQUARE, 0.9, 0)], [([0, 0, 8, 10], 0.8, 0), ([30, 30, 50, 50], 0.7, 0)])
    )
    # Up to an overlap of 0.8, both are right; above it, a half of the recall: 51 of 101 points.
    above = 51 / 101
    expected = (7 * 1 + 3 * above) / 10
    np.testing.assert_allclose(per_class[0], [expected, 0, np.nan], atol=1e-9)
    np.testing.assert_allclose(per_class[1], [1, 0, np.nan], atol=1e-9)
    assert values["map"] == pytest.approx(expected / 2)
    assert values["ap50"] == pytest.approx(0.5)
    assert values["ap_small"] == pytest.approx(expected)
    assert values["ap_large"] == 0
    assert np.isnan(values["ap_medium"])


def test_a_false_detection_that_is_surer_halves_precision():
    values, _ = score(
        found([([60, 60, 70, 70], 0.95, 1), ([20, 20, 120, 120], 0.9, 1)], [(SQUARE, 0.9, 0)])
    )
    # Class 0: recall 1/2 at precision 1. Class 1: recall 1 at precision 1/2.
    assert values["ap50"] == pytest.approx((51 / 101 + 0.5) / 2)


def test_nothing_found_and_crowds():
    values, per_class = score(found([], []))
    assert values["map"] == 0
    np.testing.assert_array_equal(per_class[0][:2], 0)
    ignored = np.array([[False, True], [False, False]])
    values, per_class = score(found([(SQUARE, 0.9, 0)], [(SQUARE, 0.8, 0)]), ignored=ignored)
    assert values["map"] == pytest.approx(1)
    assert np.isnan(per_class[0][1])


def test_suppression_keeps_the_surest_of_each_class():
    boxes = np.array([[SQUARE, [1, 0, 11, 10], [0, 0, 10, 4], [50, 50, 60, 60]]], "float32")
    scores = np.zeros((1, 4, 2), "float32")
    scores[0, :, 0] = [0.6, 0.9, 0.5, 0.02]
    scores[0, 0, 1] = 0.3
    kept = detection.chosen(boxes, scores, score=0.05, iou=0.5, most=3)
    np.testing.assert_array_equal(kept.labels, [[0, 0, 1]])
    np.testing.assert_allclose(kept.scores, [[0.9, 0.5, 0.3]])
    np.testing.assert_array_equal(kept.boxes[0], boxes[0, [1, 2, 0]])
    np.testing.assert_allclose(
        detection.overlaps(boxes[0], boxes[0][:1])[:, 0], [1, 90 / 110, 0.4, 0]
    )


def test_a_box_turned_inside_out_overlaps_nothing():
    turned = np.float32([[10, 10, 0, 0], [10, 0, 0, 10]])
    np.testing.assert_array_equal(detection.overlaps(turned, np.float32([SQUARE])), 0)
    # Nor does it count as area against others.
    assert detection.overlaps(turned[:1], turned[:1])[0, 0] == 0


def test_disagreement():
    a = found([(SQUARE, 0.9, 0), ([20, 20, 30, 30], 0.9, 0)], [], [(SQUARE, 0.9, 1)])
    b = found([([0, 0, 9, 10], 0.8, 0)], [], [(SQUARE, 0.9, 0)])
    np.testing.assert_allclose(detection.disagreement(a, b), [1 / 3, 0, 1])


def model_of(outputs, name):
    """A model that gives the same for each image."""
    image = keras.Input((40, 40, 3))
    zero = layers.Lambda(lambda x: keras.ops.sum(x, axis=(1, 2, 3), keepdims=False) * 0.0)(image)

    def constant(value):
        def call(z):
            shape = (-1, *(1,) * value.ndim)
            return keras.ops.reshape(z, shape) + value[None]

        return layers.Lambda(call, output_shape=value.shape)(zero)

    made = {key: constant(np.float32(value)) for key, value in outputs.items()}
    return keras.Model(image, made, name=name)


def test_compare_detectors(tmp_path):
    x = np.zeros((3, 40, 40, 3), "float32")
    x[:, 5:15, 5:15] = 1
    truth = {
        "boxes": np.tile(np.float32([[5, 5, 15, 15], [0, 0, 0, 0]]), (3, 1, 1)),
        "labels": np.tile([0, -1], (3, 1)),
    }
    right = {"boxes": [[5, 5, 15, 15]], "scores": [0.9], "labels": [0.0]}
    late = {"boxes": [[5, 5, 13, 15]], "scores": [0.9], "labels": [0.0]}
    wrong = {"boxes": [[20, 20, 30, 30]], "scores": [0.9], "labels": [0.0]}
    models = {
        "teacher": model_of({k: np.array(v) for k, v in right.items()}, "right"),
        "student on labels": model_of({k: np.array(v) for k, v in wrong.items()}, "wrong"),
        "distilled": model_of({k: np.array(v) for k, v in late.items()}, "late"),
    }
    result = evaluation.compare(models, (x, truth), task="detection", class_names=["cell", "other"])
    rows = {row["name"]: row for row in result.rows}
    assert rows["teacher"]["map"] == pytest.approx(1)
    assert rows["student on labels"]["map"] == 0
    assert rows["distilled"]["map"] == pytest.approx(0.7)
    assert rows["distilled"]["gap_recovered"] == pytest.approx(0.7)
    assert rows["distilled"]["ap_small"] == pytest.approx(0.7)
    assert "mAP, 50 to 95" in str(result)
    assert any("No test image has the class other" in note for note in result.notes)
    assert [d["distance"] for d in result.disagreements["student on labels"]] == [1.0] * 3
    assert result.disagreements["distilled"] == []
    folder = result.report(tmp_path / "report")
    page = (folder / "report.html").read_text()
    assert page.count("data:image/svg+xml") >= 3 * 3
    stored = json.loads((folder / "report.json").read_text())
    assert stored["per_class"]["distilled"]["ap"][0] == pytest.approx(0.7)


def test_detectors_that_cannot_be_compared_are_told_why():
    x = np.zeros((2, 8, 8, 3), "float32")
    truth = {"boxes": np.zeros((2, 1, 4)), "labels": np.zeros((2, 1), int)}
    plain = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 1)])
    with pytest.raises(ValueError, match="'model' must give detections.*`decode`"):
        evaluation.compare({"model": plain}, (x, truth), task="detection")
    with pytest.raises(ValueError, match="`data` must be `\\(images, "):
        evaluation.compare({"model": plain}, (x, np.zeros(2)), task="detection")
    with pytest.raises(ValueError, match='`decode` is for `task="detection"`'):
        evaluation.compare({"model": plain}, (x, np.zeros((2, 8, 8), int)), decode=lambda x: x)
    head = detection.Head((8, 8), (8,), ["a"])
    with pytest.raises(ValueError, match="'model' can't be run .*name them by `classes=`"):
        evaluation.compare({"model": plain}, (x, truth), task="detection", decode=head.detections)


def test_what_detectors_cannot_use_is_refused():
    x = np.zeros((2, 8, 8, 3), "float32")
    truth = {"boxes": np.zeros((2, 1, 4)), "labels": np.zeros((2, 1), int)}
    models = {"one": keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 1)])}

    def compared(data=(x, truth), **arguments):
        evaluation.compare(models, data, task="detection", **arguments)

    decode = detection.Head((8, 8), (8,), ["a"]).detections
    with pytest.raises(ValueError, match=r"have one for each candidate.*\['two'\] for \['one'\]"):
        compared(decode={"two": decode})
    with pytest.raises(TypeError, match="`decode` must be a function.*'sigmoid'"):
        compared(decode={"one": "sigmoid"})
    with pytest.raises(ValueError, match="`data` must hold images"):
        compared([], decode=decode)
    with pytest.raises(ValueError, match="`data` must hold images"):
        compared((x[:0], {k: v[:0] for k, v in truth.items()}), decode=decode)
    for name, value in (("missing_label", -1), ("from_logits", True), ("resamples", 50)):
        with pytest.raises(ValueError, match=f"not for task=.detection.*{name}={value}"):
            compared(**{name: value})


def test_what_a_head_cannot_be_is_refused():
    def head(boxes_as="distances", **arguments):
        return detection.Head((8, 8), (8,), ["a"], boxes_as, **arguments)

    for classes, boxes in (("scores", 1), (0, "boxes"), (0, 0), ("a", "a"), (-1, 0), (True, 0)):
        with pytest.raises(ValueError, match="`classes` and `boxes` must be the names of two"):
            head(classes=classes, boxes=boxes)
    with pytest.raises(ValueError, match='`activation` must be "sigmoid".*softmax'):
        head(activation="softmax")
    with pytest.raises(ValueError, match="`variances` must be four factors"):
        head(variances=(0.1, 0.1, 0.2, 0.2))
    with pytest.raises(ValueError, match="`variances` must be four factors"):
        head("deltas", anchors=np.zeros((1, 4)), variances=(0.1, 0.2))


def test_sizes_names_and_anchors_of_a_head_are_checked():
    for wrong, says in (
        ({"class_names": "RBC"}, "`class_names` must be .*'RBC'"),
        ({"class_names": ["a", "a"]}, "`class_names` must be .*different.*'a'"),
        ({"strides": 8}, "`strides` must be .*8"),
        ({"image_size": 8}, "`image_size` must be .*8"),
        ({"boxes_as": "deltas", "anchors": np.full((1, 4), np.nan)}, "`anchors` must be finite"),
    ):
        given = {"image_size": (8, 8), "strides": (8,), "class_names": ["a"], **wrong}
        with pytest.raises(ValueError, match=says):
            detection.Head(**given)
    outputs = {"classes": np.zeros((1, 1, 1)), "boxes": np.ones((1, 1, 4))}
    head = detection.Head((8, 8), (8,), ["a"])
    for name, value in (("score", 2), ("score", np.nan), ("iou", -1), ("most", 0)):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            head.detections(outputs, **{name: value})
    image = keras.Input((16, 16, 3))
    flat = keras.layers.AveragePooling2D(16)(image)
    student = keras.Model(
        image,
        [keras.layers.Reshape((1, size))(keras.layers.Conv2D(size, 1)(flat)) for size in (1, 4)],
    )
    with pytest.raises(ValueError, match=r"images of \(12, 12\).*takes.*16, 16"):
        detection.detector(student, detection.Head((12, 12), (16,), ["a"], classes=0, boxes=1))


def test_heads_are_equal_if_their_anchors_are():
    def head(anchor):
        return detection.Head((8, 8), (8,), ["a"], "deltas", anchors=[anchor])

    assert head([0, 0, 8, 8]) == head([0, 0, 8, 8])
    assert hash(head([0, 0, 8, 8])) == hash(head([0, 0, 8, 8]))
    assert head([0, 0, 8, 8]) != head([0, 0, 8, 9])
    assert detection.Head((8, 8), (8,), ["a"]) != "head"


def test_scores_are_what_the_head_says_they_are():
    """Whatever the values of a batch happen to be."""
    values = np.float32([[[0.25], [0.75]]])
    given = {"classes": values, "boxes": np.zeros((1, 2, 4))}
    logits = detection.Head((8, 16), (8,), ["a"])
    np.testing.assert_allclose(logits.decode(given)[1], 1 / (1 + np.exp(-values)), rtol=1e-6)
    ends = detection.Head((8, 16), (8,), ["a"], activation="sigmoid")
    np.testing.assert_array_equal(ends.decode(given)[1], values)
    with pytest.raises(ValueError, match="classes are from 0 to 1.*from -4 to 0.75"):
        ends.decode({**given, "classes": np.float32([[[-4], [0.75]]])})


def test_places_of_a_head():
    head = detection.Head((20, 24), (8, 16), ["a", "b"])
    assert head.grids == ((3, 3), (2, 2))
    assert head.places == 13
    np.testing.assert_array_equal(head.points()[[0, 1, 3, 9, 12]], [
        [4, 4, 8], [12, 4, 8], [4, 12, 8], [8, 8, 16], [24, 24, 16]
    ])  # fmt: skip
    assert head.level(1) == slice(9, 13)


def test_decoding_of_each_kind():
    rng = np.random.default_rng(0)
    classes = 3 * rng.standard_normal((2, 13, 2))
    distances = rng.uniform(0, 3, (2, 13, 4))
    head = detection.Head((20, 24), (8, 16), ["a", "b"])
    boxes, scores = head.decode({"classes": classes, "boxes": distances})
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-classes)), rtol=1e-5)
    x, y, stride = head.points()[5]
    left, top, right, bottom = distances[1, 5] * stride
    np.testing.assert_allclose(
        boxes[1, 5], [x - left, y - top, x + right, y + bottom], rtol=1e-5, atol=1e-5
    )
    # As in training, what is below 0 is 0.
    negative = np.where(distances < 1, -distances, distances)
    np.testing.assert_array_equal(
        head.decode({"classes": classes, "boxes": negative})[0],
        head.decode({"classes": classes, "boxes": np.maximum(negative, 0)})[0],
    )
    edges = detection.Head((20, 24), (8, 16), ["a", "b"], "edges", classes=0, boxes=1)
    logits = rng.standard_normal((2, 13, 4, 5))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    same, _ = edges.decode([classes, logits])
    expected, _ = head.decode({"classes": classes, "boxes": (p * np.arange(5)).sum(-1)})
    np.testing.assert_allclose(same, expected, rtol=1e-4, atol=1e-4)
    anchors = rng.uniform(0, 10, (13, 4)) + np.array([0, 0, 10, 10])
    by_deltas = detection.Head((20, 24), (8, 16), ["a", "b"], "deltas", anchors=anchors)
    still, _ = by_deltas.decode({"classes": classes, "boxes": np.zeros((2, 13, 4))})
    np.testing.assert_allclose(still[0], anchors, rtol=1e-5)
    moved, _ = by_deltas.decode({"classes": classes, "boxes": np.full((2, 13, 4), np.log(2))})
    variances = np.array([0.1, 0.1, 0.2, 0.2])
    ssd = detection.Head(
        (20, 24), (8, 16), ["a", "b"], "deltas", anchors=anchors, variances=variances
    )
    deltas = rng.standard_normal((2, 13, 4))
    np.testing.assert_allclose(
        ssd.decode({"classes": classes, "boxes": deltas})[0],
        by_deltas.decode({"classes": classes, "boxes": deltas * variances})[0],
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    size = anchors[:, 2:] - anchors[:, :2]
    np.testing.assert_allclose(moved[0, :, 2:] - moved[0, :, :2], 2 * size, rtol=1e-5)
    with pytest.raises(ValueError, match="has 13 places.*Received: classes of shape"):
        head.decode({"classes": classes[:, :5], "boxes": distances})
    with pytest.raises(ValueError, match="`anchors` must be given"):
        detection.Head((20, 24), (8, 16), ["a"], "deltas")
