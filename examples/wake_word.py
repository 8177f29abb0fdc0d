"""A wake word in continuous speech, by a teacher that knows it from many voices.

Voices of espeak-ng say sentences, and "computer" now and then; people say digits (FSDD). The
teacher knows where the word is in 25 minutes of many voices, the student on labels in 3 minutes of
six; the distilled one hears those 25 without labels. Tested are voices and noise new to all.

    pip install keras-distill[sound] scipy espeakng-loader
    python examples/wake_word.py fsdd.npz firmware
"""

import sys

import keras
import numpy as np
from keras import layers
from noisy_words import FRAME, RATE, features, read
from spoken_streams import VOICES, Espeak, stream

import keras_distill
from keras_distill.evaluation import StreamData

CLIP, HOP, REACH = 1000, 4, 101  # Frames of a recording, of a step, and that an answer knows.
STEP, AFTER = HOP * FRAME / RATE, 0.3  # Seconds of a step; for how long after it the word is on.
PEOPLE = (0, 1, 2), (4, 5)  # Speakers of digits for training, and for the test.
HEARD = VOICES[0::4] + VOICES[1::4]  # [2::4] are for choices, [3::4] for the test.
DECISION = keras_distill.tflite.Decision({1: 0.0}, smoothing=3, refractory=20)
AN_HOUR = 6.0  # False accepts allowed.


def recordings(rng, espeak, voices, digits, count, heard=True):
    """Features of recordings, whether the word was just said at each answer, and events."""
    made = [stream(rng, espeak, voices, digits, CLIP, "computer", heard) for _ in range(count)]
    times = (np.arange(REACH, CLIP + 1, HOP) + 2) * FRAME / RATE
    on = np.zeros((count, len(times), 1), "float32")
    for row, (_, events) in zip(on, made, strict=True):
        for _, end, _ in events:
            row[(times >= end) & (times < end + AFTER)] = 1.0
    return features([sound for sound, _ in made]), on, [events for _, events in made]


def detector(width, dropout=0.0):
    """A logit of the word each 40 ms, of 40 bands each 10 ms, some dropped in training."""
    x = inputs = keras.Input((CLIP, 40), name="frames")
    x = layers.SpatialDropout1D(dropout)(layers.Rescaling(1 / 16)(x))
    x = layers.Conv1D(width, 5, strides=HOP, activation="relu")(x)
    for _ in range(3):
        x = layers.SeparableConv1D(width, 9, use_bias=False)(x)
        x = layers.Activation("relu")(layers.BatchNormalization()(x))
        x = layers.Dropout(dropout)(x)
    return keras.Model(inputs, layers.Conv1D(1, 1)(x), name="detector")


def fit(model, x, y, steps, rate):
    """Trains a model, or a distiller, on about so many batches."""
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)), loss)
    model.fit(x, y, epochs=steps // -(-len(x) // 10), batch_size=10, verbose=2)


def figures(logits, events):
    """Share of words heard at `AN_HOUR` false accepts; false accepts an hour at 5 % misses."""
    missing = CLIP // HOP - logits.shape[1]  # Steps too early to say anything.
    scores = np.pad(logits, ((0, 0), (missing, 0), (0, 0)), constant_values=-99.0)
    curve = StreamData(np.concatenate([0 * scores, scores], -1), events, STEP).curve(DECISION)
    most = max(point.false_accepts for point in curve)
    heard = max((1 - p.misses for p in curve if p.false_accepts <= AN_HOUR), default=0.0)
    return heard, min((p.false_accepts for p in curve if p.misses <= 0.05), default=most)


def main(file, output=None, seed=0, count=150, marked=18, test=150, steps=300):
    """Trains teacher and both students on ten-second recordings.

    Returns:
        Share of the words heard by model, the file's size, and false accepts an hour at 5 % misses.
    """
    keras.utils.set_random_seed(seed)
    rng, espeak = np.random.default_rng(seed), Espeak()
    words, speakers = read(file)
    known, others = ([words[i] for i in np.flatnonzero(np.isin(speakers, p))] for p in PEOPLE)
    x, y, _ = recordings(rng, espeak, HEARD, known, count)
    few, marks, _ = recordings(rng, espeak, HEARD[:6], known, marked)

    teacher, on_labels, student = detector(48, 0.1), detector(24, 0.2), detector(24)
    fit(teacher, x, y, steps, 3e-3)
    fit(on_labels, few, marks, steps // 3, 3e-3)
    losses = keras_distill.losses.SoftTargets(temperature=1.0, activation="sigmoid")
    distiller = keras_distill.Distiller(student, teacher, losses, alpha=0.0)
    fit(distiller, x, None, steps, 5e-3)

    artifact = keras_distill.tflite.convert(
        student, target="micro", quantization="int8", calibration=x[:40], stream=HOP
    )
    if output is not None:
        artifact.save(output, front_end=keras_distill.data.MicroFeatures(RATE))
    x, y, events = recordings(rng, espeak, VOICES[3::4], others, test, heard=False)
    outputs = {
        "teacher": teacher.predict(x, verbose=0),
        "student on labels": on_labels.predict(x, verbose=0),
        "student distilled": student.predict(x, verbose=0),
        # The stream's first answers, to less than an answer needs, aren't counted.
        "distilled, int8": artifact.predict(x)[:, -y.shape[1] :],
    }
    found = {name: figures(logits, events) for name, logits in outputs.items()}
    wrong = {f"false accepts, {name}": accepts for name, (_, accepts) in found.items()}
    return {n: share for n, (share, _) in found.items()} | {"bytes": len(artifact.tflite)} | wrong


if __name__ == "__main__":
    print(main(*sys.argv[1:3]))
