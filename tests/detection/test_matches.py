"""Heads related to each other, what they are to predict, and a detector distilled."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill
from keras_distill import detection

RNG = np.random.default_rng(0)
SMALL = detection.Head((20, 24), (8, 16), ["dog", "cat"], "edges")
#: Sees images twice as large with twice the strides, has one level more, and one class.
LARGE = detection.Head((40, 48), (8, 16, 32), ["cat", "cow", "dog"], "edges")


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def outputs(head, bins=5):
    return 2 * RNG.standard_normal((2, head.places, len(head.class_names))), (
        2 * RNG.standard_normal((2, head.places, 4, bins))
    )


def place_by_place(teacher, student):
    """Both losses, with the places of the teacher that see the same."""
    (theirs, their_boxes), (ours, our_boxes) = teacher, student
    classes, boxes = np.zeros(2), np.zeros(2)
    for image in range(2):
        total = 0
        for place in range(SMALL.places):
            other = 30 + place  # The first level of the teacher has 5 · 6 places.
            z = theirs[image, other, [2, 0]]
            y, q = sigmoid(z), sigmoid(ours[image, place])
            entropy = -y * np.log(q) - (1 - y) * np.log(1 - q)
            classes[image] += (np.abs(y - q) * entropy).sum()
            total += y.max()
            for edge in range(4):
                a, b = their_boxes[image, other, edge] / 10, our_boxes[image, place, edge] / 10
                a, b = (v - np.log(np.exp(v).sum()) for v in (a, b))
                boxes[image] += y.max() * 100 * (np.exp(a) * (a - b)).sum()
        classes[image] /= total
        boxes[image] /= total
    return classes, boxes


def test_levels_are_related_by_their_grids_and_classes_by_their_names():
    by_class, by_box = detection.matches(student=SMALL, teacher=LARGE)
    (theirs, their_boxes), (ours, our_boxes) = teacher, student = outputs(LARGE), outputs(SMALL)
    want = place_by_place(teacher, student)
    by_class.loss.reduction = by_box.loss.reduction = "none"
    np.testing.assert_allclose(by_class.loss(theirs, ours), want[0], rtol=1e-5)
    np.testing.assert_allclose(by_box.loss((their_boxes, theirs), our_boxes), want[1], rtol=1e-5)
    for match in (by_class, by_box):
        copy = keras.losses.deserialize(keras.losses.serialize(match.loss))
        assert copy.get_config() == match.loss.get_config()


def test_classes_that_end_in_a_sigmoid_are_compared_by_their_logits():
    def ending(head):
        return dataclasses.replace(head, activation="sigmoid")

    (theirs, their_boxes), (ours, our_boxes) = outputs(LARGE), outputs(SMALL)
    wanted = [
        loss.loss((their_boxes, theirs) if "box" in loss.loss.name else theirs, given)
        for loss, given in zip(detection.matches(SMALL, LARGE), (ours, our_boxes), strict=True)
    ]
    by_class, by_box = detection.matches(ending(SMALL), ending(LARGE))
    p, q = (sigmoid(z).astype("float32") for z in (theirs, ours))
    np.testing.assert_allclose(by_class.loss(p, q), wanted[0], rtol=1e-4)
    np.testing.assert_allclose(by_box.loss((their_boxes, p), our_boxes), wanted[1], rtol=1e-4)
    by_class, _ = detection.matches(SMALL, ending(LARGE))
    np.testing.assert_allclose(by_class.loss(p, ours), wanted[0], rtol=1e-4)


def test_boxes_of_different_kinds_are_compared_by_their_overlap():
    distances = detection.Head((20, 24), (8, 16), ["dog", "cat"], "distances")
    _, by_box = detection.matches(student=distances, teacher=SMALL)
    classes, edges = outputs(SMALL)
    p = np.exp(edges) / np.exp(edges).sum(-1, keepdims=True)
    same = (p * np.arange(5)).sum(-1)
    assert float(by_box.loss((edges, classes), same)) == pytest.approx(0, abs=1e-5)
    # All four distances halved: an overlap of a quarter, inside of the other.
    assert float(by_box.loss((edges, classes), same / 2)) == pytest.approx(0.75, rel=1e-5)


def test_levels_of_one_cell_each_are_related_by_their_strides():
    head = detection.Head((32, 32), (16, 32, 64), ["a"])
    assert head.grids == ((2, 2), (1, 1), (1, 1))
    assert detection.matches(head, head)[0].loss.rows == [[0, 4, 0, 4], [4, 5, 4, 5], [5, 6, 5, 6]]
    last = detection.Head((64, 64), (128,), ["a"])
    assert detection.matches(last, head)[0].loss.rows == [[0, 1, 5, 6]]


def test_heads_that_cannot_be_related_are_refused_in_words():
    def relate(size=(20, 24), strides=(8, 16), names=("dog", "cat"), boxes_as="edges", **more):
        return detection.matches(
            student=SMALL, teacher=detection.Head(size, strides, names, boxes_as, **more)
        )

    with pytest.raises(ValueError, match=r"doesn't know the student's classes \['cat'\]"):
        relate(names=["dog", "pig"])
    with pytest.raises(ValueError, match="No level of the student has the grid"):
        relate(strides=(4, 32))
    with pytest.raises(ValueError, match="1 place.*in a cell and the teacher 3"):
        relate(per_cell=3)
    with pytest.raises(ValueError, match='"edges", the teacher as "deltas"'):
        relate(boxes_as="deltas", anchors=np.zeros((13, 4)))
    with pytest.warns(UserWarning, match=r"levels of the strides \[16\] have no counterpart"):
        relate(strides=(8, 32))
    anchors = [np.tile([0, 0, side, side], (13, 1)) for side in (8, 9)]
    heads = [detection.Head((20, 24), (8, 16), ["dog"], "deltas", anchors=each) for each in anchors]
    with pytest.raises(ValueError, match="anchors aren't the teacher's"):
        detection.matches(*heads)
    scaled = dataclasses.replace(heads[0], variances=(0.1, 0.1, 0.2, 0.2))
    with pytest.raises(ValueError, match=r"`variances` aren't the teacher's.*\(1.0, .*\(0.1, "):
        detection.matches(heads[0], scaled)
    with pytest.raises(ValueError, match="`targets` are for heads without anchors"):
        detection.targets(heads[0])


def test_targets_are_what_decodes_to_the_boxes():
    head = detection.Head((64, 64), (8, 16), ["a", "b"])
    boxes = np.float32([[4, 6, 40, 38], [2, 4, 62, 60], [30, 40, 33, 43], [0, 0, 0, 0]])
    given = {"boxes": boxes, "labels": np.array([0, 1, 1, -1])}
    _, y = detection.targets(head)(tf.zeros((64, 64, 3)), given)
    classes, distances = np.asarray(y["classes"]), np.asarray(y["boxes"])
    at = classes.any(-1)
    np.testing.assert_array_equal((distances >= 0).all(-1), at)
    np.testing.assert_array_equal(distances[~at], -1)
    decoded, _ = head.decode({"classes": classes[None], "boxes": distances[None]})
    found = {tuple(np.round(box, 3)) for box in decoded[0, at]}
    assert {tuple(map(float, box)) for box in boxes[:2]} <= found
    # Smaller than a cell, but one place is to find it; the largest is found on the second level.
    small = [i for i in np.flatnonzero(at) if np.allclose(decoded[0, i], boxes[2], atol=4)]
    assert len(small) == 1
    large = [i for i in np.flatnonzero(at) if np.allclose(decoded[0, i], boxes[1], atol=0.01)]
    assert min(large) >= head.level(1).start


def test_the_losses_of_labels():
    classes = (RNG.uniform(size=(2, 6, 3)) < 0.2).astype(float)
    logits = RNG.standard_normal((2, 6, 3))
    p = sigmoid(logits)
    focal = -classes * 0.25 * (1 - p) ** 2 * np.log(p)
    focal -= (1 - classes) * 0.75 * p**2 * np.log(1 - p)
    want = focal.sum((1, 2)) / np.maximum(classes.sum((1, 2)), 1)
    loss = detection.TargetClasses(reduction=None)
    np.testing.assert_allclose(loss(classes, logits), want, rtol=1e-5)

    ends = detection.TargetClasses("sigmoid", reduction=None)
    np.testing.assert_allclose(ends(classes, p.astype("float32")), want, rtol=1e-4)
    copy = keras.losses.deserialize(keras.losses.serialize(ends))
    assert copy.get_config() == ends.get_config()
    # Keras notes the logits of a sigmoid: nothing to say, and exact.
    noted = keras.activations.sigmoid(keras.ops.convert_to_tensor(logits, "float32"))
    np.testing.assert_allclose(loss(classes, noted), want, rtol=1e-5)

    distances = RNG.uniform(0, 3.5, (2, 6, 4))
    distances[:, 2:] = -1
    edges = RNG.standard_normal((2, 6, 4, 5))
    log_q = edges - np.log(np.exp(edges).sum(-1, keepdims=True))
    want = np.zeros(2)
    for image, place in np.ndindex(2, 2):
        d, q = distances[image, place], log_q[image, place]
        mean = (np.exp(q) * np.arange(5)).sum(-1)
        low = np.floor(d).astype(int)
        bins = -(low + 1 - d) * q[range(4), low] - (d - low) * q[range(4), low + 1]
        overlap = float(keras_distill.losses.cross_head.generalized_iou(d, mean))
        want[image] += (2 * (1 - overlap) + 0.25 * bins.mean()) / 2
    loss = detection.TargetBoxes(reduction=None)
    np.testing.assert_allclose(loss(distances, edges), want, rtol=1e-5)


def detector(head, width, seed):
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((*head.image_size, 3))
    x = layers.Conv2D(width, 8, strides=8, activation="relu")(x)
    x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
    classes = layers.Conv2D(1, 1, bias_initializer=keras.initializers.Constant(-3))(x)
    boxes = layers.Conv2D(4 * 6, 1)(x)
    outputs = {
        "classes": layers.Reshape((-1, 1), name="classes")(classes),
        "boxes": layers.Reshape((-1, 4, 6), name="boxes")(boxes),
    }
    return keras.Model(image, outputs)


@pytest.mark.long
def test_a_detector_learns_from_labels_and_teacher():
    """Three lines, and what comes of them scores as detections do."""
    pytest.importorskip("pycocotools")
    head = detection.Head((32, 32), (8,), ["square"], "edges")
    images, boxes = np.zeros((32, 32, 32, 3), "float32"), np.zeros((32, 1, 4), "float32")
    for i in range(32):
        left, top = RNG.integers(0, 16, 2)
        boxes[i, 0] = [left, top, left + 16, top + 16]
        images[i, top : top + 16, left : left + 16] = 1
    truth = {"boxes": boxes, "labels": np.zeros((32, 1), "int32")}
    data = tf.data.Dataset.from_tensor_slices((images, truth))
    data = data.map(detection.targets(head)).batch(32).cache().repeat()
    teacher, student = detector(head, 16, 0), detector(head, 8, 1)
    labels = {"classes": detection.TargetClasses(), "boxes": detection.TargetBoxes()}
    teacher.compile(keras.optimizers.Adam(0.01), labels)
    teacher.fit(data, steps_per_epoch=40, verbose=0)

    matches = detection.matches(student=head, teacher=head, box_weight=0.25 / 24)
    distiller = keras_distill.Distiller(student, teacher, matches, alpha=0.5)
    distiller.compile(keras.optimizers.Adam(0.01), labels)
    history = distiller.fit(data, steps_per_epoch=20, epochs=2, verbose=0).history
    for name in ("classes", "boxes"):
        assert history[name][-1] < history[name][0]
    for model, least in ((teacher, 0.9), (student, 0.5)):
        found = head.detections(model(images))
        values, _ = detection.average_precision(boxes, truth["labels"], found, 1)
        assert values["ap50"] > least
