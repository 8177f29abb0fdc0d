"""Decoding and non-maximum suppression inside of the file."""

import keras
import numpy as np
import pytest
from keras_distill.tflite.inspect import inspect
from small_detectors import HEAD, rectangles, small_detector

import keras_distill
from keras_distill import detection, tflite


def anchored():
    """A head with anchors, whose classes end in a sigmoid, and outputs for it."""
    rng = np.random.default_rng(1)
    low = rng.uniform(0, 30, (12, 2))
    anchors = np.concatenate([low, low + rng.uniform(4, 20, (12, 2))], 1)
    head = detection.Head(
        (32, 48), (16,), ["a", "b", "c"], "deltas", classes=1, boxes=0, per_cell=2,
        anchors=anchors, activation="sigmoid", variances=(0.1, 0.1, 0.2, 0.2),
    )  # fmt: skip
    outputs = rng.normal(0, 2, (5, 12, 4)), rng.uniform(0, 1, (5, 12, 3))
    return head, [x.astype("float32") for x in outputs]


def by_distance():
    rng = np.random.default_rng(2)
    head = detection.Head((32, 48), (8, 16), ["a"])
    shapes = {"classes": (3, head.places, 1), "boxes": (3, head.places, 4)}
    return head, {name: rng.normal(0.5, 1, s).astype("float32") for name, s in shapes.items()}


def equal(found, want):
    np.testing.assert_array_equal(found["labels"], want.labels)
    np.testing.assert_allclose(found["scores"], want.scores, atol=1e-5)
    np.testing.assert_allclose(found["boxes"], want.boxes, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("case", [anchored, by_distance])
def test_layers_compute_what_the_head_does(case):
    head, outputs = case()
    boxes, scores = head.decode(outputs)
    decoded = detection.Decoded(head)(outputs)
    height, width = head.image_size
    inside = np.clip(boxes, 0, [width, height, width, height])
    np.testing.assert_allclose(decoded["boxes"], inside, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(decoded["scores"], scores, atol=1e-6)
    layer = detection.Found(head, score=0.3, iou=0.4, most=7)
    want = head.detections(outputs, score=0.3, iou=0.4, most=7)
    assert (want.labels >= 0).any()
    equal(layer(outputs), want)
    copy = detection.Found.from_config(layer.get_config())
    assert copy.head == head
    equal(copy(outputs), want)


@pytest.mark.long
def test_boxes_without_area_are_no_detections():
    """LiteRT's operator gives the first of them again in place of all that are less sure."""
    head = detection.Head((16, 32), (8,), ["a", "b"])
    sizes = {"classes": 2, "boxes": 4}
    given = {name: keras.Input((head.places, size), 1, name=name) for name, size in sizes.items()}
    whole = keras.Model(given, detection.Found(head, score=0.3, most=6, name="found")(given))
    classes, boxes = np.zeros((1, 8, 2), "float32"), np.full((1, 8, 4), 0.4, "float32")
    classes[0, :, 0] = np.arange(8) - 1
    classes[0, :, 1] = -9
    boxes[0, 6] = [0, 1, 0, 1]
    outputs = {"classes": classes, "boxes": boxes}
    found = head.detections(outputs, score=0.3, most=6)
    made = tflite.convert(whole)
    assert (found.labels == 0).sum() == 6
    assert (found.boxes[..., 2:] > found.boxes[..., :2]).all()
    equal(whole.predict(outputs, verbose=0), found)
    equal(made.predict(outputs), found)


def as_detections(outputs):
    return detection.Detections(outputs["boxes"], outputs["scores"], outputs["labels"])


@pytest.mark.long
def test_float_file_finds_what_the_head_finds(trained, tmp_path):
    student, x, _ = trained
    want = HEAD.detections(student.predict(x, verbose=0), score=0.3, most=20)
    assert 60 < (want.labels >= 0).sum() < want.labels.size
    whole = detection.detector(student, HEAD, score=0.3, most=20)
    whole.save(tmp_path / "whole.keras")
    equal(keras.models.load_model(tmp_path / "whole.keras").predict(x, verbose=0), want)
    made = tflite.convert(whole)
    assert made.report["operators"]["NON_MAX_SUPPRESSION_V4"] == 1
    equal(made.predict(x), want)
    kit = made.save(tmp_path / "kit", sources=detection.BoxSources(HEAD))
    found = [str(path.relative_to(kit)) for path in kit.rglob("Detections.kt")]
    assert sorted(found) == ["Detections.kt", "app/student/src/main/kotlin/Detections.kt"]


@pytest.mark.long
def test_int8_file_decodes_in_float_and_is_within_a_point(trained):
    """Nothing is warned of, for it is judged by what it finds, not by the order of rows."""
    pytest.importorskip("pycocotools")
    student, x, truth = trained
    whole = detection.detector(student, HEAD)
    made = tflite.convert(
        whole,
        quantization="int8",
        calibration=rectangles(100, 2)[0],
        precision={"found": "float32"},
    )
    operators = {op.name: op for op in inspect(made.tflite).operators}
    assert operators["NON_MAX_SUPPRESSION_V4"].inputs[0].dtype == "FLOAT32"
    assert operators["CONV_2D"].outputs[0].dtype == "INT8"
    report = made.verify(x)
    [row] = report["runtimes"]["litert"]["outputs"]
    assert report["verdict"] == "pass"
    assert row["name"] == "detections"
    assert 0 < row["error"] < 0.1
    scores = [
        detection.average_precision(truth["boxes"], truth["labels"], as_detections(found), 2)[0]
        for found in (whole.predict(x, verbose=0), made.predict(x))
    ]
    assert scores[0]["map"] > 0.5
    assert scores[1]["map"] > scores[0]["map"] - 0.01
    # What is wrong is seen.
    other = detection.detector(small_detector(), HEAD)
    assert tflite.load(made.tflite, student=other).verify(x)["verdict"] == "fail"


@pytest.mark.long
def test_quantize_aware_students_decode_in_float(trained):
    student, x, _ = trained
    aware = keras_distill.quantization.quantize_aware(student, rectangles(100, 2)[0])
    whole = detection.detector(aware, HEAD, score=0.3, most=20)
    with pytest.warns(UserWarning, match="stayed float: .*found"):
        made = tflite.convert(whole)
    [nms] = [op for op in inspect(made.tflite).operators if "NON_MAX" in op.name]
    assert nms.inputs[0].dtype == "FLOAT32"
    assert made.verify(x)["verdict"] == "pass"


@pytest.mark.long
def test_raw_outputs_of_another_head_and_microcontrollers_are_refused(trained):
    student = trained[0]
    with pytest.raises(ValueError, match="places, and boxes as"):
        detection.detector(student, detection.Head((48, 64), (8, 32), ["red", "green"], "edges"))
    with pytest.raises(ValueError, match="TFLite Micro has no operator NON_MAX_SUPPRESSION_V4"):
        tflite.convert(detection.detector(student, HEAD), "micro")
