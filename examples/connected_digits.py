"""Connected digits by CTC: a recognizer taught by many labels teaches a stream without any.

Clips of two to four spoken digits (FSDD). The teacher knows what 2,700 recordings say, the student
on labels 200 of them; the distilled student hears clips of all without labels, and takes the
teacher's scores for each frame. Tested are clips of 300 other recordings.

    pip install keras-distill[language,sound] scipy
    python examples/connected_digits.py fsdd.npz firmware
"""

import sys

import keras
import numpy as np
from keras import layers
from noisy_words import FRAME, RATE, features, read

import keras_distill
from keras_distill import language

CLIP, HOP, LONGEST = 300, 4, 4  # Frames of a clip and of a step, digits of a clip at most.


def clips(rng, words, digits, count):
    """Features of digits between short pauses in faint noise, and labels: digits + 1, then 0."""
    size = (CLIP + 2) * FRAME
    sounds, labels = rng.normal(size=(count, size)), np.zeros((count, LONGEST), "int32")
    sounds *= 10 ** rng.uniform(-2.5, -1.5, (count, 1))
    for sound, label in zip(sounds, labels, strict=True):
        at = int(rng.integers(RATE // 3, RATE // 2))
        for place, which in enumerate(rng.integers(0, len(words), rng.integers(2, LONGEST + 1))):
            word = words[which]
            if at + len(word) > size - RATE // 4:
                break
            sound[at : at + len(word)] += word / max(word.std(), 1e-6)
            label[place] = digits[which] + 1
            at += len(word) + int(RATE * rng.uniform(0.02, 0.25))
        sound *= 10 ** (rng.uniform(-35, -20) / 20)
    return features(np.clip(sounds, -1, 1)), labels


def recognizer(width, dropout=0.0):
    """Scores of none and ten digits each 40 ms, of 40 bands each 10 ms."""
    x = inputs = keras.Input((CLIP, 40), name="frames")
    x = layers.SpatialDropout1D(dropout)(layers.Rescaling(1 / 16)(x))
    x = layers.Conv1D(width, 5, strides=HOP, activation="relu")(x)
    for _ in range(3):
        x = layers.SeparableConv1D(width, 7, use_bias=False)(x)
        x = layers.Activation("relu")(layers.BatchNormalization()(x))
        x = layers.Dropout(dropout)(x)
    return keras.Model(inputs, layers.Conv1D(11, 1)(x), name="recognizer")


def fit(model, x, y, epochs, rate, loss=None):
    """Trains a model, or a distiller."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * -(-len(x) // 10))
    model.compile(keras.optimizers.Adam(schedule, clipnorm=1.0), loss)
    model.fit(x, y, epochs=epochs, batch_size=10, verbose=2)


def right(scores, labels):
    """1 - word error rate of scores."""
    said = [" ".join(map(str, row[row > 0])) for row in labels]
    heard = [" ".join(map(str, row)) for row in language.decode_ctc(scores)]
    return 1 - language.word_error_rate(heard, said)


def main(file, output=None, seed=0, count=500, marked=200, test=100, epochs=12):
    """Trains teacher and both students.

    Returns:
        1 - word error rate on recordings that none of them heard by model, and the file's size.
    """
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    words, _ = read(file)
    with np.load(file) as data:
        digits, is_test = data["y"], data["is_test"].astype(bool)

    def made(chosen, count):
        return clips(rng, [words[i] for i in chosen], digits[chosen], count)

    heard = rng.permutation(np.flatnonzero(~is_test))
    (x, y), (few, marks) = made(heard, count), made(heard[:marked], count)
    # Epochs, rates and dropout were chosen on recordings held out of those heard.
    teacher, on_labels, student = recognizer(64, 0.1), recognizer(32, 0.1), recognizer(32)
    fit(teacher, x, y, epochs, 5e-3, keras.losses.CTC())
    fit(on_labels, few, marks, epochs, 5e-3, keras.losses.CTC())
    losses = keras_distill.losses.SoftTargets(temperature=1.0)
    distiller = keras_distill.Distiller(student, teacher, losses, alpha=0.0)
    fit(distiller, x, None, epochs * 5 // 3, 1e-2)

    artifact = keras_distill.tflite.convert(
        student, target="micro", quantization="int8", calibration=x[:50], stream=HOP
    )
    if output is not None:
        artifact.save(output, front_end=keras_distill.data.MicroFeatures(RATE))
    x, y = made(np.flatnonzero(is_test), test)
    outputs = {
        "teacher": teacher.predict(x, verbose=0),
        "student on labels": on_labels.predict(x, verbose=0),
        "student distilled": student.predict(x, verbose=0),
    }
    # The stream's first answers, to less than an answer needs, aren't counted.
    outputs["distilled, int8"] = artifact.predict(x)[:, -outputs["teacher"].shape[1] :]
    return {name: right(z, y) for name, z in outputs.items()} | {"bytes": len(artifact.tflite)}


if __name__ == "__main__":
    print(main(*sys.argv[1:3]))
