"""English to German: a translator of a tenth of the size, which learns what the teacher writes.

The folder has Multi30k's captions. Three students of one size learn people's translations; how
likely the teacher finds each next piece of these (word level); and the teacher's own translations,
found by beam search (sequence level: Kim and Rush, arXiv:1606.07947).

    pip install keras-hub sacrebleu tokenizers
    python examples/translation.py multi30k teacher app
"""

import gzip
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from translator import END, LENGTH, START, pieces_of, tokens_of, translator

from keras_distill import Distiller, language, losses, teachers

BATCH_SIZE = 64
WRITING = {"target": "target", "start": START, "end": END, "length": LENGTH}


def captions(folder, part):
    """English and German."""
    files = (pathlib.Path(folder, f"{part}.{name}.gz") for name in ("en", "de"))
    return [gzip.decompress(file.read_bytes()).decode().splitlines() for file in files]


def fit(model, x, y, epochs, rate, answers=None):
    """Trains a model, or a distiller on stored answers. Padding weighs nothing."""
    inputs, labels = {"source": x, "target": y[:, :-1]}, y[:, 1:]
    weights, steps = (labels != 0).astype("float32"), epochs * (len(x) // BATCH_SIZE)
    data = tf.data.Dataset.from_tensor_slices((inputs, labels, weights))
    data = (data if answers is None else answers.attach(data)).shuffle(len(x))
    data = language.bucketed(data, range(12, LENGTH, 4), BATCH_SIZE, list(inputs))
    warmup = {"warmup_target": rate, "warmup_steps": steps // 10}
    schedule = keras.optimizers.schedules.CosineDecay(0.0, steps - steps // 10, **warmup)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule, clipnorm=1.0), loss, jit_compile=False)
    model.fit(data, epochs=epochs, shuffle=False, verbose=2)


def taught(work, x, y, epochs, rate):
    """The teacher, the same for all seeds, and its file, which writes faster."""
    teacher = translator(128, 2, dropout=0.1)
    file, weights = work / "teacher.tflite", work / "teacher.weights.h5"
    if not file.exists():
        fit(teacher, x, y, epochs, rate)
        work.mkdir(parents=True, exist_ok=True)
        teacher.save_weights(weights)
        language.export(teacher, {"source": x[:200]}, **WRITING).save(work, "teacher")
    teacher.load_weights(weights)
    return teacher, file


def student_of(x, y, epochs, rate, answers=None):
    """A student of translations, or of stored answers to them."""
    model = student = translator(32, 1)
    if answers is not None:
        loss = losses.SoftTargets(temperature=1.0)
        model = Distiller(student, answers, loss, alpha=0.0)
    fit(model, x, y, epochs, rate, answers)
    return student


def score(model, pieces, english, german):
    """BLEU of greedy translations."""
    x = {"source": tokens_of(pieces, english)[:, :-1]}
    written = language.generate(model, x, batch_size=128, **WRITING)
    return language.bleu(pieces.decode_batch(written.tolist()), german)


def main(folder, work, output=None, seed=0, epochs=(16, 8), rates=(3e-3, 1.2e-2)):
    """BLEU on the test captions by model, and the file's bytes."""
    keras.utils.set_random_seed(seed)
    english, german = captions(folder, "train")
    pieces, work = pieces_of(english + german), pathlib.Path(work)
    x, y = tokens_of(pieces, english)[:, :-1], tokens_of(pieces, german)
    teacher, file = taught(work, x, y, epochs[0], rates[0])
    written = language.write_targets(file, {"source": x}, work / "written", beams=3, **WRITING)
    inputs, how = {"source": x, "target": y[:, :-1]}, (epochs[1], rates[1])
    answers = teachers.store(teacher, inputs, work / "answers", top_k=16, verbose=0)
    models = {"teacher": file, "student on labels": student_of(x, y, *how)}
    student = student_of(x, np.pad(written, ((0, 0), (0, 1))), *how)
    generator = language.export(student, {"source": x[:300]}, quantization="int8", **WRITING)
    models["student distilled"] = student
    models["distilled, int8"] = generator.save(output or work, tokenizer=pieces)
    models["word level"] = student_of(x, y, *how, answers)
    test = captions(folder, "test_2016_flickr")
    result = {name: score(model, pieces, *test) for name, model in models.items()}
    return result | {"bytes": len(generator.tflite)}


if __name__ == "__main__":
    print(main(*sys.argv[1:4]))
