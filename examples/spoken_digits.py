"""Spoken digits for a microcontroller: a distilled, quantized network on log-mel spectrograms.

The folder holds the recordings of the Free Spoken Digit Dataset, `7_jackson_32.wav` being the
digit 7 said by Jackson for the 32nd time; as its authors ask, those numbered 0 to 4 are the test.

    git clone https://github.com/Jakobovski/free-spoken-digit-dataset
    python examples/spoken_digits.py free-spoken-digit-dataset/recordings firmware
"""

import math
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_distill
from keras_distill import data

SILENCE = math.log(1e-6)  # In a log-mel spectrogram.
AUGMENT = data.Augmentation([data.random_shift(4, fill=SILENCE), data.random_noise(0.5)])


def recordings(folder):
    """Spectrograms of shape (30, 20), digits, and whether each is one to test on."""
    files = sorted(pathlib.Path(folder).glob("*.wav"))
    parts = [path.stem.split("_") for path in files]
    spectrogram = data.log_mel(8000, seconds=0.5, bands=20)

    def read(path):
        audio, _ = tf.audio.decode_wav(tf.io.read_file(path), desired_channels=1)
        return spectrogram(audio[:, 0])

    paths = tf.data.Dataset.from_tensor_slices([str(path) for path in files])
    x = np.stack(list(paths.map(read, tf.data.AUTOTUNE).as_numpy_iterator()))
    return x, np.array([int(p[0]) for p in parts]), np.array([int(p[2]) < 5 for p in parts])


def convolutional(widths, mean, variance):
    """Convolutions over time; the mel bands are channels."""
    stack = [keras.Input((30, 20)), layers.Normalization(mean=mean, variance=variance)]
    for width in widths:
        stack += [
            layers.Conv1D(width, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling1D(2),
        ]
    return keras.Sequential([*stack, layers.Flatten(), layers.Dense(10)])


def main(folder, output=None, seed=0, epochs=25):
    """Trains teacher and students and exports the distilled one for a microcontroller.

    Returns:
        Accuracy on the test recordings by model, and what the firmware needs, in bytes.
    """
    keras.utils.set_random_seed(seed)
    x, y, is_test = recordings(folder)
    train = tf.data.Dataset.from_tensor_slices((x[~is_test], y[~is_test]))
    train = data.batches(train, 64, augment=AUGMENT, seed=seed)
    statistics = x[~is_test].mean((0, 1)), x[~is_test].var((0, 1))

    def fit(model):
        schedule = keras.optimizers.schedules.CosineDecay(5e-3, epochs * len(train))
        model.compile(
            keras.optimizers.Adam(schedule),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        model.fit(train, epochs=epochs, verbose=2)

    teacher = convolutional((64, 96, 128), *statistics)
    on_labels = convolutional((8, 8), *statistics)
    student = keras.models.clone_model(on_labels)
    student.set_weights(on_labels.get_weights())
    fit(teacher)
    fit(on_labels)
    fit(keras_distill.Distiller(student, teacher))

    artifact = keras_distill.tflite.convert(
        student, target="micro", quantization="int8", calibration=x[~is_test]
    )
    artifact.verify(x[is_test], y[is_test])
    if output is not None:
        artifact.save(output)
    result = keras_distill.evaluation.compare(
        {
            "teacher": teacher,
            "student on labels": on_labels,
            "student distilled": student,
            "distilled, int8": artifact,
        },
        (x[is_test], y[is_test]),
    )
    print(result)
    accuracy = {row["name"]: float(row["accuracy"]) for row in result.rows}
    return accuracy | {"bytes": len(artifact.tflite)}


if __name__ == "__main__":
    main(*sys.argv[1:3])
