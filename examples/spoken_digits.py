"""Spoken digits for a microcontroller: 270 labels, or a teacher's answers on 2,700 recordings.

The file is the Free Spoken Digit Dataset as `fsdd.npz`: int16 `audio` at 8 kHz, all recordings one
after the other, with their `offsets`, digits `y`, and whether each `is_test`. The teacher knows all
labels. All hear the recordings faster, slower, louder and softer, too.

    python examples/spoken_digits.py fsdd.npz teacher.keras firmware
"""

import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_distill

RATE, SECONDS, BANDS, BATCH_SIZE = 8000, 0.5, 20, 64


def read(file):
    """Recordings from -1 to 1, digits, and whether each is one to test on."""
    with np.load(file) as data:
        sounds = np.split(data["audio"].astype("float32") / 2**15, data["offsets"][1:-1])
        return sounds, data["y"].astype("int32"), data["is_test"].astype(bool)


def another(sound, rng):
    """The same word at another speed and loudness, a moment earlier or later."""
    speed = rng.uniform(0.85, 1.15)
    places = np.arange(int(len(sound) / speed)) * speed
    move = int(rng.integers(-RATE // 10, RATE // 10 + 1))
    changed = np.interp(places, np.arange(len(sound)), sound) * np.exp(rng.uniform(-0.7, 0.7))
    return np.pad(changed, (max(move, 0), max(-move, 0)))


def features(sounds):
    """Log-mel spectrograms of the middle of each sound, of shape `(sounds, 30, 20)`."""
    spectrogram = tf.function(
        keras_distill.data.log_mel(RATE, SECONDS, BANDS), reduce_retracing=True
    )
    return np.stack([spectrogram(tf.constant(sound, "float32")) for sound in sounds])


def convolutional(widths, x, dropout=0.0):
    """Convolutions over time; the bands are channels."""
    normalize = layers.Normalization(mean=x.mean((0, 1)), variance=x.var((0, 1)))
    stack = [keras.Input(x.shape[1:]), normalize]
    for width in widths:
        stack += [layers.Conv1D(width, 3, padding="same", use_bias=False)]
        stack += [layers.BatchNormalization(momentum=0.9), layers.ReLU(), layers.MaxPooling1D(2)]
    return keras.Sequential([*stack, layers.Flatten(), layers.Dropout(dropout), layers.Dense(10)])


def fit(model, x, y, count, steps):
    """Trains a model, or a distiller, for so many steps on so many spectrograms."""
    schedule = keras.optimizers.schedules.CosineDecay(5e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss, steps_per_execution=8)
    model.fit(x, y, batch_size=BATCH_SIZE, epochs=-(-steps * BATCH_SIZE // count), verbose=2)


def main(file, teacher, output=None, seed=0, labels=270, steps=1500, views=6):
    """Trains the student on few labels, and on the answers to all recordings.

    Args: `teacher` is its `.keras` file; where there is none yet, it is trained, and kept there.

    Returns:
        Accuracy on the test recordings by model, and the file's size in bytes.
    """
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    sounds, digits, is_test = read(file)
    heard, y = [sounds[i] for i in np.flatnonzero(~is_test)], digits[~is_test]
    x = [features(heard)] + [features([another(s, rng) for s in heard]) for _ in range(views)]
    known = rng.permutation(len(y))[:labels]
    some, of_some = np.concatenate([part[known] for part in x]), np.tile(y[known], views + 1)
    x, y = np.concatenate(x), np.tile(y, views + 1)
    if not pathlib.Path(teacher).is_file():
        model = convolutional((64, 96, 128), x, dropout=0.3)
        fit(model, x, y, len(x), steps)
        model.save(teacher)
    teacher = keras.models.load_model(teacher)

    # Steps and dropout were chosen for each student on recordings held out of those to train on.
    on_labels, student = (convolutional((16, 32, 32), x, rate) for rate in (0.3, 0.0))
    fit(on_labels, some, of_some, len(some), steps)
    answers = keras_distill.teachers.Arrays(teacher.predict(x, batch_size=256, verbose=0))
    losses = keras_distill.losses.SoftTargets(temperature=2.0)
    distiller = keras_distill.Distiller(student, answers, losses, alpha=0.0)
    fit(distiller, answers.attach(x), None, len(x), steps)

    artifact = keras_distill.tflite.convert(
        student, target="micro", quantization="int8", calibration=x[:500]
    )
    if output is not None:
        artifact.save(output)
    x_test = features([sounds[i] for i in np.flatnonzero(is_test)])
    models = {"teacher": teacher, "student on labels": on_labels, "student distilled": student}
    models["distilled, int8"] = artifact
    logits = {name: model.predict(x_test) for name, model in models.items()}
    accuracy = {k: float((z.argmax(1) == digits[is_test]).mean()) for k, z in logits.items()}
    return accuracy | {"bytes": len(artifact.tflite)}


if __name__ == "__main__":
    print(main(*sys.argv[1:4]))
