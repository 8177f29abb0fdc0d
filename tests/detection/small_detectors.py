"""A small detector of red and green rectangles, and images of them."""

import keras
import numpy as np
from keras import layers

from keras_distill import detection

HEAD = detection.Head((48, 64), (8, 16), ["red", "green"], "edges")


def rectangles(count, seed):
    """Images of one to three rectangles on gray noise, and the boxes on them."""
    rng = np.random.default_rng(seed)
    images = rng.normal(90, 15, (count, 48, 64, 3))
    boxes = np.zeros((count, 3, 4), "float32")
    labels = np.full((count, 3), -1, "int32")
    for image, its_boxes, its_labels in zip(images, boxes, labels, strict=True):
        for i in range(rng.integers(1, 4)):
            width, height = rng.integers(10, 30, 2)
            left, top = rng.integers(0, 64 - width), rng.integers(0, 48 - height)
            box = left, top, left + width, top + height
            if (detection.overlaps(its_boxes, np.array([box])) > 0).any():
                continue
            its_boxes[i], its_labels[i] = box, rng.integers(2)
            image[top : top + height, left : left + width, its_labels[i]] += 120
    return np.clip(images, 0, 255).astype("uint8"), {"boxes": boxes, "labels": labels}


def small_detector(head=HEAD, width=12):
    """An untrained student of that head, which takes bytes."""
    image = keras.Input((*head.image_size, 3), name="image")
    x = layers.Rescaling(1 / 64, -1.5)(image)
    classes, boxes = [], []
    for level, stride in enumerate((2, 2, 2, 2)):
        x = layers.Conv2D(width, 3, stride, padding="same", activation="relu")(x)
        if level > 1:
            y = layers.Conv2D(2 * width, 3, padding="same", activation="relu")(x)
            prior = keras.initializers.Constant(-3)
            z = layers.Conv2D(len(head.class_names), 1, bias_initializer=prior)(y)
            classes.append(layers.Reshape((-1, len(head.class_names)))(z))
            boxes.append(layers.Reshape((-1, 4, 6))(layers.Conv2D(24, 1)(y)))
    outputs = {
        "classes": layers.Concatenate(1, name="classes")(classes),
        "boxes": layers.Concatenate(1, name="boxes")(boxes),
    }
    return keras.Model(image, outputs, name="student")
