"""Boxes in pixels beside scores from 0 to 1: one scale for both would round scores to 0."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill
from keras_distill import tflite

X = np.random.default_rng(0).uniform(0, 1, (64, 8, 8, 3)).astype("float32")


def detector(joined, pixels=200.0):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="stem")(image)
    boxes = layers.Rescaling(pixels, name="pixels")(
        layers.Conv2D(4, 1, activation="sigmoid", name="sides")(x)
    )
    scores = layers.Conv2D(2, 1, activation="sigmoid", name="scores")(x)
    if not joined:
        return keras.Model(image, {"boxes": boxes, "scores": scores})
    return keras.Model(image, layers.Concatenate(name="both")([boxes, scores]))


def convert(model, **arguments):
    """Converts to int8: the artifact, and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = tflite.convert(model, quantization="int8", **arguments)
    return made, [str(w.message) for w in caught]


def test_a_concatenation_of_ranges_far_apart_is_named():
    made, said = convert(detector(True), calibration=X)
    [note] = [text for text in said if "joins" in text]
    assert "'both' joins 'pixels' (up to 1" in note
    assert "and 'scores' (up to 0." in note
    assert "Give them as separate outputs" in note
    assert any("'both' joins" in text for text in made.report["warnings"])
    # The scores are rounded to a few values.
    assert len(np.unique(made.predict(X)[..., 4:])) <= 3


def test_parts_that_are_apart_or_alike_are_not():
    _, said = convert(detector(True, pixels=8.0), calibration=X)
    assert not [text for text in said if "joins" in text]
    made, said = convert(detector(False), calibration=X)
    assert not [text for text in said if "joins" in text]
    expected, got = detector(False).predict(X, verbose=0), made.predict(X)
    for name, least in (("boxes", 3.0), ("scores", 0.03)):
        assert np.abs(expected[name] - got[name]).max() < least


def test_a_quantize_aware_student_of_this_form_is_named():
    aware = keras_distill.quantization.quantize_aware(detector(True), X)
    _, said = convert(aware, calibration=X)
    assert [text for text in said if "'both' joins" in text]


@pytest.mark.long
def test_made_up_inputs_tell_nothing_about_ranges():
    aware = keras_distill.quantization.quantize_aware(detector(True), X)
    made, said = convert(aware)
    assert not [text for text in said + made.report["warnings"] if "joins" in text]


@pytest.mark.long
def test_a_concatenation_that_stays_float_is_not_named():
    """Beside another one, in integers, that joins what is alike."""
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 1, name="stem")(image)
    alike = layers.Concatenate(name="both_1")([x, layers.Conv2D(2, 1, name="other")(x)])
    model = keras.Model(image, [detector(True)(image), layers.Conv2D(2, 1, name="last")(alike)])
    _, said = convert(model, calibration=X, precision={"both": "float32"})
    assert not [text for text in said if "joins" in text]
    _, said = convert(model, calibration=X, precision={"stem": "float32"})
    assert [text for text in said if "'both' joins" in text]
