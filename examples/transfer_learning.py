"""Transfer learning: a pretrained network of `keras.applications`, few labels, a tiny student.

MobileNetV2, trained on ImageNet, is fine-tuned on the few images that have labels. It then teaches
a student of 25,000 weights on all images, with labels or without.

    python examples/transfer_learning.py cats_vs_dogs imagenet
"""

import sys

import keras
import tensorflow as tf
from keras import layers

import keras_distill


def pretrained(shape, classes, weights, size):
    """A MobileNetV2 with a new head, and its backbone. Reads pixels from 0 to 255."""
    backbone = keras.applications.MobileNetV2(
        (size, size, 3), alpha=0.35, include_top=False, weights=weights, pooling="avg"
    )
    pixels = keras.Input(shape)
    x = layers.Rescaling(1 / 127.5, offset=-1)(layers.Resizing(size, size)(pixels))
    x = layers.Dense(classes)(layers.Dropout(0.2)(backbone(x)))
    return keras.Model(pixels, x, name="teacher"), backbone


def unfreeze(backbone):
    """Makes a backbone trainable, but for its BatchNormalization: few images would spoil it."""
    # In Keras 3 `fit` overrules a `training=False` that the backbone was called with.
    backbone.trainable = True
    for layer in backbone.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False


def small(shape, classes):
    """A small convolutional network."""
    stack = [keras.Input(shape), layers.Rescaling(1 / 255)]
    for width in (16, 24, 32, 48):
        stack += [
            layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
        ]
    return keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(classes)])


def main(source, weights="imagenet", size=96, seed=0, epochs=12, labels=500, data_dir=None):
    """Fine-tunes a teacher, trains a student on the labels, and distils the same student.

    Args:
        source: What `keras_distill.data.load` takes: a dataset's name, a folder, an NPZ file.
        weights: "imagenet", or a file of weights of MobileNetV2 without its top.
        size: Height and width of the images that the teacher reads.
        labels: Number of images whose labels may be used.

    Returns:
        Accuracy on the test images by model.
    """
    keras.utils.set_random_seed(seed)
    data = keras_distill.data.load(source, data_dir=data_dir)
    if None in data.train.element_spec[0].shape:  # Photographs of different sizes.
        data = keras_distill.data.load(source, data_dir=data_dir, image_size=(size, size))
    shape, classes = data.train.element_spec[0].shape, len(data.class_names)
    augment = layers.RandomFlip("horizontal")
    images = data.train.shuffle(10_000, seed=seed, reshuffle_each_iteration=False).enumerate()
    labeled = images.take(labels).map(lambda i, example: example).cache()
    labeled = keras_distill.data.batches(labeled, 32, augment=augment, seed=seed)
    partly = images.map(lambda i, example: (example[0], tf.where(i < labels, example[1], -1)))
    partly = keras_distill.data.batches(partly.cache(), 64, augment=augment, seed=seed)
    test = data.test.batch(256).cache()
    accuracy = {}

    def fit(model, dataset, learning_rate, epochs):
        steps = epochs * len(dataset)
        model.compile(
            keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.fit(dataset, epochs=epochs, verbose=2)
        return model.evaluate(test, verbose=0, return_dict=True)["accuracy"]

    teacher, backbone = pretrained(shape, classes, weights, size)
    backbone.trainable = False
    fit(teacher, labeled, 1e-2, 5)
    unfreeze(backbone)
    accuracy["teacher"] = fit(teacher, labeled, 3e-4, 10)

    student = small(shape, classes)
    initial = student.get_weights()
    repeats = -(-len(partly) // len(labeled))  # As many steps as the distilled student has.
    accuracy["student on labels"] = fit(student, labeled, 3e-3, epochs * repeats)
    student.set_weights(initial)
    distiller = keras_distill.Distiller(
        student, teacher, keras_distill.losses.SoftTargets(2.0), alpha=0.1, missing_label=-1
    )
    accuracy["student distilled"] = fit(distiller, partly, 3e-3, epochs)
    return accuracy


if __name__ == "__main__":
    print(main(*sys.argv[1:3]))
