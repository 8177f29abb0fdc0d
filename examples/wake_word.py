"""A wake word in continuous speech: three minutes are marked, a teacher marks the other 77.

Voices of espeak-ng say sentences, and "hey computer" now and then; people say digits (FSDD). The
teacher knows where the words are in all 80 minutes, the student on labels in three; the distilled
one hears all without labels. Tested is an hour of voices and people that are new to all.

    pip install keras-distill[sound] scipy espeakng-loader
    python examples/wake_word.py fsdd.npz streams firmware
"""

import pathlib
import sys

import keras
import numpy as np
from keras import layers
from noisy_words import FRAME, RATE, features, read
from spoken_streams import VOICES, Espeak, stream

from keras_distill import Distiller, data, losses, tflite
from keras_distill.evaluation import StreamData

CLIP, HOP, REACH = 1000, 4, 125  # Frames of a recording, of a step, and that an answer knows.
STEP, AFTER = HOP * FRAME / RATE, 0.3  # Seconds of a step; for how long after it the word is on.
HEARD = VOICES[0::4] + VOICES[1::4]  # [2::4] are for choices, [3::4] for the test.
DECISION = tflite.Decision({1: 0.0}, smoothing=3, refractory=20)
AN_HOUR = 6.0  # False accepts allowed.


def recordings(path, file, voices, people, count, seed):
    """Features, whether the word was just said at each answer, and events, kept in `path`."""
    if not path.is_file():
        words, speakers = read(file)
        digits = [words[i] for i in np.flatnonzero(np.isin(speakers, people))]
        rng, espeak = np.random.default_rng(seed), Espeak()
        made = [stream(rng, espeak, voices, digits, CLIP, "hey computer") for _ in range(count)]
        events = [(i, *event) for i, (_, each) in enumerate(made) for event in each]
        np.savez(path, x=features([sound for sound, _ in made]), events=events)
    with np.load(path) as kept:
        x, said = kept["x"], kept["events"]
    times = (np.arange(REACH, CLIP + 1, HOP) + 2) * FRAME / RATE
    events = [[(a, b, 1) for which, a, b, _ in said if which == i] for i in range(len(x))]
    on = [[[any(b <= t < b + AFTER for _, b, _ in each)] for t in times] for each in events]
    return x, np.asarray(on, "float32"), events


def detector(width, convolution, dropout=0.0):
    """A logit of the word each 40 ms, of 40 bands each 10 ms, some dropped in training."""
    x = inputs = keras.Input((CLIP, 40), name="frames")
    x = layers.SpatialDropout1D(dropout)(layers.Rescaling(1 / 16)(x))
    x = layers.Conv1D(width, 5, strides=HOP, activation="relu")(x)
    for _ in range(3):
        x = layers.BatchNormalization(momentum=0.95)(convolution(width, 11, use_bias=False)(x))
        x = layers.Dropout(dropout)(layers.Activation("relu")(x))
    return keras.Model(inputs, layers.Conv1D(1, 1)(x), name="detector")


def fit(model, x, y, steps, rate):
    """Trains a model, or a distiller, on about so many batches."""
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)), loss)
    model.fit(x, y, epochs=-(-steps // -(-len(x) // 10)), batch_size=10, verbose=2)


def figures(logits, events):
    """Share of words heard at `AN_HOUR` false accepts; false accepts an hour at 5 % misses."""
    missing = CLIP // HOP - logits.shape[1]  # Steps too early to say anything.
    scores = np.pad(logits, ((0, 0), (missing, 0), (0, 0)), constant_values=-99.0)
    curve = StreamData(np.concatenate([0 * scores, scores], -1), events, STEP).curve(DECISION)
    most = max(point.false_accepts for point in curve)
    heard = max((1 - p.misses for p in curve if p.false_accepts <= AN_HOUR), default=0.0)
    return heard, min((p.false_accepts for p in curve if p.misses <= 0.05), default=most)


def main(file, folder, output=None, seed=0, count=480, marked=18, test=360, steps=1200):
    """Trains both students; what `folder` hasn't of recordings and the teacher is made, and kept.

    Returns:
        Share of the words heard by model, the file's size, and false accepts an hour at 5 % misses.
    """
    keras.utils.set_random_seed(seed)
    folder = pathlib.Path(folder)
    folder.mkdir(exist_ok=True)
    x, on, _ = recordings(folder / "heard.npz", file, HEARD, (0, 1, 2), count, 101)
    if not (folder / "teacher.keras").is_file():
        model = detector(64, layers.Conv1D, 0.1)
        fit(model, x, on, steps, 3e-3)
        model.save(folder / "teacher.keras")
    teacher = keras.models.load_model(folder / "teacher.keras")
    on_labels, student = (detector(24, layers.SeparableConv1D, rate) for rate in (0.3, 0.0))
    some = np.random.default_rng(seed).permutation(count)[:marked]
    fit(on_labels, x[some], on[some], steps, 3e-3)
    distiller = Distiller(student, teacher, losses.SoftTargets(1.0, activation="sigmoid"), alpha=0)
    fit(distiller, x, None, steps, 5e-3)

    artifact = tflite.convert(student, "micro", "int8", calibration=x[:40], stream=HOP)
    if output is not None:
        artifact.save(output, front_end=data.MicroFeatures(RATE))
    x, on, events = recordings(folder / "test.npz", file, VOICES[3::4], (4, 5), test, 103)
    models = {"teacher": teacher, "student on labels": on_labels, "student distilled": student}
    outputs = {name: model.predict(x, verbose=0) for name, model in models.items()}
    # The stream's first answers, to less than an answer needs, aren't counted.
    outputs["distilled, int8"] = artifact.predict(x)[:, -on.shape[1] :]
    found = {name: figures(logits, events) for name, logits in outputs.items()}
    wrong = {f"false accepts, {name}": accepts for name, (_, accepts) in found.items()}
    return {n: share for n, (share, _) in found.items()} | {"bytes": len(artifact.tflite)} | wrong


if __name__ == "__main__":
    print(main(*sys.argv[1:4]))
