"""Connected digits by CTC: what two people said is transcribed, a teacher transcribes the others.

One of six people says two to four digits (FSDD). The teacher knows what all six say, the student on
labels what two do; the distilled one hears all without labels, and learns the teacher's scores.

    pip install keras-distill[language,sound] scipy
    python examples/connected_digits.py fsdd.npz teacher.keras firmware
"""

import pathlib
import sys

import keras
import numpy as np
from keras import layers
from noisy_words import FRAME, RATE, features, read

import keras_distill
from keras_distill import language, tflite

CLIP, HOP, LONGEST = 300, 4, 4  # Frames of a clip and of a step, digits of a clip at most.


def clips(rng, words, digits, speakers, count):
    """Features of one's digits between pauses in faint noise, and labels: digits + 1, then 0."""
    size = (CLIP + 2) * FRAME
    sounds, labels = rng.normal(size=(count, size)), np.zeros((count, LONGEST), "int32")
    sounds *= 10 ** rng.uniform(-2.5, -1.5, (count, 1))
    for sound, label in zip(sounds, labels, strict=True):
        at = int(rng.integers(RATE // 3, RATE // 2))
        own = np.flatnonzero(speakers == rng.choice(speakers))
        for place, which in enumerate(rng.choice(own, rng.integers(2, LONGEST + 1))):
            word = words[which]
            if at + len(word) > size - RATE // 4:
                break
            sound[at : at + len(word)] += word / max(word.std(), 1e-6)
            label[place] = digits[which] + 1
            at += len(word) + int(RATE * rng.uniform(0.02, 0.25))
        sound *= 10 ** (rng.uniform(-35, -20) / 20)
    return features(np.clip(sounds, -1, 1)), labels


def recognizer(width, convolution, dropout=0.0):
    """Scores of none and ten digits each 40 ms, of 40 bands each 10 ms."""
    x = inputs = keras.Input((CLIP, 40), name="frames")
    x = layers.SpatialDropout1D(dropout)(layers.Rescaling(1 / 16)(x))
    x = layers.Conv1D(width, 5, strides=HOP, activation="relu")(x)
    for _ in range(3):
        x = layers.BatchNormalization(momentum=0.95)(convolution(width, 7, use_bias=False)(x))
        x = layers.Dropout(dropout)(layers.Activation("relu")(x))
    return keras.Model(inputs, layers.Conv1D(11, 1)(x), name="recognizer")


def fit(model, x, y, steps, rate, loss=None):
    """Trains a model, or a distiller."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(keras.optimizers.Adam(schedule, clipnorm=1.0), loss)
    model.fit(x, y, epochs=-(-steps * 20 // len(x)), batch_size=20, verbose=2)


def right(scores, labels):
    """1 - word error rate of scores."""
    said = [" ".join(map(str, row[row > 0])) for row in labels]
    heard = [" ".join(map(str, row)) for row in language.decode_ctc(scores)]
    return 1 - language.word_error_rate(heard, said)


def main(file, teacher, output=None, seed=0, count=800, test=200, steps=1200):
    """Trains both students, and the teacher where `teacher` isn't its file yet.

    Returns:
        1 - word error rate on recordings that none of them heard by model, and the file's size.
    """
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    words, speakers = read(file)
    with np.load(file) as data:
        digits, is_test = data["y"], data["is_test"].astype(bool)

    def made(chosen, count):
        chosen = np.flatnonzero(chosen)
        return clips(rng, [words[i] for i in chosen], digits[chosen], speakers[chosen], count)

    (x, y), known = made(~is_test, count), rng.permutation(6)[:2]
    if not pathlib.Path(teacher).is_file():
        model = recognizer(64, layers.Conv1D, 0.2)
        fit(model, x, y, steps, 3e-3, keras.losses.CTC())
        model.save(teacher)
    teacher = keras.models.load_model(teacher)
    # Steps, rates and dropout were chosen on recordings held out of those heard.
    on_labels, student = (recognizer(32, layers.SeparableConv1D, rate) for rate in (0.1, 0.0))
    some, marks = made(~is_test & np.isin(speakers, known), count)
    fit(on_labels, some, marks, steps, 1e-2, keras.losses.CTC())
    losses = keras_distill.losses.SoftTargets(temperature=1.0)
    distiller = keras_distill.Distiller(student, teacher, losses, alpha=0.0)
    fit(distiller, x, None, steps, 1e-2)

    artifact = tflite.convert(student, "micro", "int8", calibration=x[:50], stream=HOP)
    if output is not None:
        artifact.save(output, front_end=keras_distill.data.MicroFeatures(RATE))
    x, y = made(is_test, test)
    models = {"teacher": teacher, "student on labels": on_labels, "student distilled": student}
    outputs = {name: model.predict(x, verbose=0) for name, model in models.items()}
    # The stream's first answers, to less than an answer needs, aren't counted.
    outputs["distilled, int8"] = artifact.predict(x)[:, -outputs["teacher"].shape[1] :]
    return {name: right(z, y) for name, z in outputs.items()} | {"bytes": len(artifact.tflite)}


if __name__ == "__main__":
    print(main(*sys.argv[1:4]))
