"""Activity recognition from a phone's or watch's motion sensors, for a microcontroller.

The folder is the unpacked "UCI HAR Dataset" (Human Activity Recognition Using Smartphones, UCI
Machine Learning Repository): windows of 2.56 s from gyroscope and accelerometer, 50 a second; the
people in its test set aren't those in its training set.

    python examples/activity_recognition.py "UCI HAR Dataset" firmware
"""

import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_distill
from keras_distill import data

SIGNALS = [f"{sensor}_{axis}" for sensor in ("body_gyro", "total_acc") for axis in "xyz"]
AUGMENT = data.Augmentation([data.random_scale(0.9, 1.1), data.random_noise(0.05)])


def windows(folder, part):
    """Windows of shape (128, 6) and activities from 0 to 5."""
    folder = pathlib.Path(folder, part)
    x = [np.loadtxt(folder / "Inertial Signals" / f"{s}_{part}.txt", "float32") for s in SIGNALS]
    return np.stack(x, -1), np.loadtxt(folder / f"y_{part}.txt", "int32") - 1


def convolutional(widths, dropout=0.0):
    """Convolutions over time, each at half the rate of the one before."""
    stack = [keras.Input((128, len(SIGNALS)))]
    for width in widths:
        stack += [
            layers.Conv1D(width, 5, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
        ]
    stack += [layers.GlobalAveragePooling1D(), layers.Dropout(dropout), layers.Dense(6)]
    return keras.Sequential(stack)


def main(folder, output=None, seed=0, epochs=15):
    """Trains teacher and students and exports the distilled one for a microcontroller.

    Returns:
        Accuracy on people never seen in training, by model, and the file's size in bytes.
    """
    keras.utils.set_random_seed(seed)
    (x, y), test = windows(folder, "train"), windows(folder, "test")
    train = data.batches(tf.data.Dataset.from_tensor_slices((x, y)), 64, augment=AUGMENT, seed=seed)

    def fit(model):
        schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(train))
        model.compile(
            keras.optimizers.Adam(schedule),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        model.fit(train, epochs=epochs, verbose=2)

    teacher = convolutional((32, 48, 64), dropout=0.5)
    on_labels, student = convolutional((8, 12, 16)), convolutional((8, 12, 16))
    student.set_weights(on_labels.get_weights())
    fit(teacher)
    fit(on_labels)
    # Chosen on the last fifth of the training windows.
    fit(keras_distill.Distiller(student, teacher, keras_distill.losses.DIST(2, 2, 4), alpha=0.2))

    artifact = keras_distill.tflite.convert(
        student, target="micro", quantization="int8", calibration=x[::10]
    )
    artifact.verify(*test)
    if output is not None:
        artifact.save(output)
    result = keras_distill.evaluation.compare(
        {
            "teacher": teacher,
            "student on labels": on_labels,
            "student distilled": student,
            "distilled, int8": artifact,
        },
        test,
    )
    print(result)
    accuracy = {row["name"]: float(row["accuracy"]) for row in result.rows}
    return accuracy | {"bytes": len(artifact.tflite)}


if __name__ == "__main__":
    main(*sys.argv[1:3])
