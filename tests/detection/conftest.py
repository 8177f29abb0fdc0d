"""A detector of red and green rectangles, trained in seconds."""

import keras
import pytest
import tensorflow as tf
from small_detectors import HEAD, rectangles, small_detector

from keras_distill import detection


@pytest.fixture(scope="session")
def trained():
    """`(student, images, boxes)`: a trained student, and 60 images that it didn't see."""
    keras.utils.set_random_seed(0)
    student = small_detector()
    x, y = rectangles(256, 0)
    data = tf.data.Dataset.from_tensor_slices((x.astype("float32"), y))
    data = data.map(detection.targets(HEAD)).cache().repeat().shuffle(256, 0).batch(16)
    losses = {"classes": detection.TargetClasses(), "boxes": detection.TargetBoxes()}
    rate = keras.optimizers.schedules.CosineDecay(8e-3, 160)
    student.compile(keras.optimizers.Adam(rate), losses)
    student.fit(data, steps_per_epoch=160, verbose=0)
    return student, *rectangles(60, 1)
