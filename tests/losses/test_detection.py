"""The functions for detectors, alone and on a detector's outputs in a `Distiller`."""

import golden
import keras
import numpy as np
import pytest
import tensorflow as tf
from loss_cases import as_tensors, numeric_gradient

import keras_distill
from keras_distill import losses

RNG = np.random.default_rng(1)
BOXES = 2 * RNG.standard_normal((2, 3, 5, 4, 6))
CLASSES = 2 * RNG.standard_normal((2, 3, 5, 4))
MATCHED = np.array([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0.5, 0, 0, 0, 2]])


def localization(t, s, temperature=10.0):
    """Image by image, anchor by anchor, edge by edge."""
    values = np.zeros(3)
    for image in range(3):
        for anchor in np.flatnonzero(MATCHED[image]):
            for edge in range(4):
                z = t[image, anchor, edge], s[image, anchor, edge]
                values[image] += MATCHED[image, anchor] * golden.soft_targets(*z, temperature)
        values[image] /= MATCHED[image].sum() or 1
    return values


def test_localization_distillation():
    teacher, student = as_tensors(BOXES)
    with tf.GradientTape() as tape:
        tape.watch(student)
        got = losses.localization_distillation(teacher, student, MATCHED)
    np.testing.assert_allclose(got, localization(*BOXES), rtol=1e-5)
    assert got[1] == 0
    want = numeric_gradient(lambda s: localization(BOXES[0], s).sum(), BOXES[1].copy())
    np.testing.assert_allclose(tape.gradient(got, student), want, rtol=1e-3, atol=1e-5)
    equal = losses.localization_distillation(teacher, teacher, MATCHED)
    np.testing.assert_array_equal(equal, 0)


def test_the_weight_of_localization_distillation_in_the_authors_code():
    """Which averages over all boxes' edges and bins, and has the weight 0.25."""
    teacher, student = BOXES
    edges, bins = 4, BOXES.shape[-1]
    log_p, log_q = (
        z / 10 - np.log(np.exp(z / 10).sum(-1, keepdims=True)) for z in (teacher, student)
    )
    theirs = 0.25 * (10**2 * np.exp(log_p) * (log_p - log_q)).mean((-2, -1)).mean(-1)
    got = losses.localization_distillation(teacher, student, np.ones(MATCHED.shape))
    np.testing.assert_allclose(0.25 / (edges * bins) * got.numpy(), theirs, rtol=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_matched_classification(activation):
    formula = golden.soft_targets if activation == "softmax" else golden.soft_targets_sigmoid
    matched = MATCHED > 0
    got = losses.matched_classification(
        *as_tensors(CLASSES), matched, temperature=2.0, activation=activation
    )
    values = formula(*CLASSES, 2.0) * matched
    np.testing.assert_allclose(got, values.sum(1) / [2, 1, 2], rtol=1e-5)


def test_logits_of_60_and_jit_compile():
    teacher, student = 60 * np.sign(BOXES)
    compiled = tf.function(losses.localization_distillation, jit_compile=True, autograph=False)
    got = compiled(*as_tensors((teacher, student)), MATCHED)
    np.testing.assert_allclose(got, localization(teacher, student), rtol=1e-5)


def test_a_detector_is_distilled():
    """Boxes and classes compared where the teacher sees objects, by a plain function."""

    def detector(width, seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((4, 4, 3))
        x = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(inputs)
        boxes = keras.layers.Conv2D(4 * 6, 1)(x)
        boxes = keras.layers.Reshape((16, 4, 6), name="boxes")(boxes)
        classes = keras.layers.Reshape((16, 2), name="classes")(keras.layers.Conv2D(2, 1)(x))
        return keras.Model(inputs, {"boxes": boxes, "classes": classes})

    def where_objects_are(y_true, y_pred):
        (boxes_t, classes_t), (boxes, classes) = y_true, y_pred
        matched = keras.ops.max(keras.ops.sigmoid(classes_t), axis=-1) > 0.5
        return losses.localization_distillation(
            boxes_t, boxes, matched
        ) + losses.matched_classification(classes_t, classes, matched)

    teacher, student = detector(8, 0), detector(4, 1)
    match = keras_distill.Match(where_objects_are, student=("boxes", "classes"))
    distiller = keras_distill.Distiller(student, teacher, losses=[match], alpha=0.0)
    distiller.compile(optimizer=keras.optimizers.Adam(0.03))
    images = RNG.uniform(size=(8, 4, 4, 3)).astype("float32")
    answers = [model(images) for model in (teacher, student)]
    want = np.mean(where_objects_are(*((a["boxes"], a["classes"]) for a in answers)))
    history = distiller.fit(images, batch_size=8, epochs=15, verbose=0).history
    np.testing.assert_allclose(history["where_objects_are"][0], want, rtol=1e-5)
    assert history["where_objects_are"][-1] < 0.5 * want


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(batch, anchors, 4, bins\)"):
        losses.localization_distillation(CLASSES[0], CLASSES[1], MATCHED)
    with pytest.raises(ValueError, match="`matched` must have shape"):
        losses.matched_classification(CLASSES[0], CLASSES[1], MATCHED[:, :1])
