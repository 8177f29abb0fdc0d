"""Voice activity: a pretrained detector teaches a student that runs on a microphone's frames.

Silero's model, which nobody here trained, hears clips of spoken digits (FSDD) in noise and music.
The student for microcontrollers learns from its answers on all clips; beside it the same student on
a few that someone marked. Both are tested on speakers and noise that they never heard.

    pip install keras-distill[sound] onnxruntime scipy
    pip install --no-deps silero-vad
    python examples/voice_activity.py fsdd.npz firmware
"""

import importlib.util
import pathlib
import sys

import keras
import numpy as np
import onnxruntime
from keras import layers
from noisy_words import FRAME, RATE, clips, features, read

import keras_distill
from keras_distill.evaluation import frames

CHUNK = 512  # Samples for which the teacher gives an answer.
CLIP, HOP, REACH = 600, 3, 41  # Frames of a clip, of the student's step, and that an answer knows.
LATENCY, LAG = 4, 3  # Frames by which the student is later than the teacher, and that than speech.


def silero(sounds):
    """The teacher's logit of speech at each sample."""
    folder = pathlib.Path(importlib.util.find_spec("silero_vad").origin).parent / "data"
    session = onnxruntime.InferenceSession(str(folder / "silero_vad_16k_op15.onnx"))
    state, found = np.zeros((2, len(sounds), 128), "float32"), []
    padded = np.pad(sounds, ((0, 0), (64, CHUNK)))
    for start in range(0, sounds.shape[1], CHUNK):
        heard = padded[:, start : start + 64 + CHUNK]
        given = {"input": heard, "state": state, "sr": np.array(RATE)}
        answer, state = session.run(None, given)
        found.append(np.repeat(answer, CHUNK, axis=1))
    p = np.concatenate(found, axis=1)[:, : sounds.shape[1]].clip(1e-4, 1 - 1e-4)
    return np.log(p / (1 - p))


def at_steps(values, lag):
    """What held, of a value for each sample, `lag` frames before each answer of the student."""
    last = np.arange(REACH - 1, CLIP, HOP)
    return values[:, (last - lag) * FRAME + FRAME // 2, None].astype("float32")


def detector(dropout=0.0):
    """A student with an answer each 30 ms, of 40 bands each 10 ms, some dropped in training."""
    x = inputs = keras.Input((CLIP, 40), name="frames")
    x = layers.SpatialDropout1D(dropout)(layers.Rescaling(1 / 16)(x))
    x = layers.Conv1D(24, 5, strides=HOP, activation="relu")(x)
    x = layers.SeparableConv1D(24, 7, activation="relu")(x)
    x = layers.SeparableConv1D(24, 7, activation="relu")(x)
    return keras.Model(inputs, layers.Conv1D(1, 1)(x), name="detector")


def fit(model, x, y, clips, epochs, rate):
    """Trains a model, or a distiller, on so many clips."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * -(-clips // 10))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss)
    model.fit(x, y, epochs=epochs, batch_size=10, verbose=2)


def main(file, output=None, seed=0, count=400, marked=10, test=100, epochs=20, held_out=(4, 5)):
    """Areas under ROC on unheard sounds, the file's bytes, then closeness to the teacher."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    words, speakers = read(file)
    heard = [x for x, who in zip(words, speakers, strict=True) if who not in {*held_out, 4, 5}]
    sounds, spoken = clips(rng, heard, count, CLIP + 2)
    x, y = features(sounds), at_steps(spoken, LATENCY + LAG)

    # Epochs and rates, and dropout on labels, were chosen on a speaker held out of those heard.
    on_labels, student = detector(0.2), detector()
    fit(on_labels, x[:marked], y[:marked], marked, 5 * epochs, 3e-3)
    teacher = keras_distill.teachers.Arrays(at_steps(silero(sounds), LATENCY), name="Silero")
    losses = keras_distill.losses.SoftTargets(temperature=1.0, activation="sigmoid")
    distiller = keras_distill.Distiller(student, teacher, losses, alpha=0.0)
    fit(distiller, teacher.attach(x), None, count, epochs, 1e-2)

    artifact = keras_distill.tflite.convert(
        student, target="micro", quantization="int8", calibration=x[:50], stream=HOP
    )
    if output is not None:
        artifact.save(output, front_end=keras_distill.data.MicroFeatures(RATE))
    unheard = [x for x, who in zip(words, speakers, strict=True) if who in held_out]
    sounds, spoken = clips(rng, unheard, test, CLIP + 2, heard=False)
    x, y = features(sounds), at_steps(spoken, LATENCY + LAG)[..., 0]
    scores = {
        "teacher": at_steps(silero(sounds), LATENCY)[..., 0],
        "student on labels": on_labels.predict(x, verbose=0)[..., 0],
        "student distilled": student.predict(x, verbose=0)[..., 0],
        # The stream's first answers, to less than an answer needs, aren't counted.
        "distilled, int8": artifact.predict(x)[:, -y.shape[1] :, 0],
    }
    result = {name: frames(z, y, threshold=0.0).auc for name, z in scores.items()}
    result["bytes"] = len(artifact.tflite)
    for name in ("student on labels", "distilled, int8"):
        area, agreement, *_ = frames(scores[name], scores["teacher"], threshold=0.0, like=0.0)
        result |= {f"{name}, area to Silero": area, f"{name}, agreement": agreement}
    return result


if __name__ == "__main__":
    print(main(*sys.argv[1:3]))
