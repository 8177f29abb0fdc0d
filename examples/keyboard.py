"""Next words for a keyboard: a language model's own text, and a student for a phone.

The folder has Multi30k's English captions. The teacher has read 29,000 of them, the student 1,000;
distilled, it reads what the teacher writes, too, and learns how likely the teacher finds each word.
Three words are suggested that begin with the letters typed so far; see `keystrokes_saved`.

    python examples/keyboard.py multi30k teacher app
"""

import gzip
import pathlib
import string
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_distill import Distiller, language, losses

WORDS, LENGTH, BATCH_SIZE = 3000, 24, 64
START, END = WORDS, WORDS + 1
WRITING = {"length": LENGTH, "end": END}


def captions(folder, part):
    return gzip.decompress(pathlib.Path(folder, f"{part}.en.gz").read_bytes()).decode().splitlines()


def tokens_of(vectorize, texts):
    """Ids between start and end, padded with 0."""
    ids = np.pad(np.asarray(vectorize(texts)), ((0, 0), (1, 1)))
    ids[:, 0], ids[np.arange(len(ids)), (ids != 0).sum(1)] = START, END
    return ids.astype("int32")


def language_model(size, dropout=0.0):
    """Logits of the word after each."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = layers.Dropout(dropout)(layers.Embedding(WORDS + 2, size, mask_zero=True)(tokens))
    x = layers.Dropout(dropout)(layers.GRU(2 * size, return_sequences=True)(x))
    return keras.Model(tokens, layers.Dense(WORDS + 2)(layers.Dense(size)(x)))


def fit(model, tokens, epochs, rate=4e-3):
    """Trains a model, or a distiller."""
    data = tf.data.Dataset.from_tensor_slices((tokens[:, :-1], tokens[:, 1:])).shuffle(len(tokens))
    data = language.bucketed(data, [9, 11, 13, 15, 18], BATCH_SIZE)
    steps = epochs * (len(tokens) // BATCH_SIZE)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)), loss)
    model.fit(data, epochs=epochs, shuffle=False, verbose=2)


def scores(logits, tokens, texts, vocabulary):
    """The share of keystrokes saved, and the perplexity."""
    is_token = tokens[:, 1:] != 0
    logits, y = logits[is_token], tokens[:, 1:][is_token]
    strip = str.maketrans("", "", string.punctuation)
    words = [word for x in texts for word in x.lower().translate(strip).split()[: LENGTH - 2]]
    saved = language.keystrokes_saved(logits[y != END], words, ["", "", *vocabulary[2:]])
    loss = keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
    return saved, float(np.exp(np.mean(loss)))


def main(folder, work, output=None, seed=0, known=1000, written=8000, epochs=(5, 20, 5)):
    """Keystrokes saved and perplexity on test captions by model, and the file's bytes."""
    keras.utils.set_random_seed(seed)
    texts, work = captions(folder, "train"), pathlib.Path(work)
    vectorize = layers.TextVectorization(WORDS, output_sequence_length=LENGTH - 2)
    vectorize.adapt(texts)
    tokens = tokens_of(vectorize, texts)
    if not work.exists():  # The teacher and what it writes are the same for all seeds.
        teacher = language_model(96, dropout=0.3)
        fit(teacher, tokens, epochs[0])
        texts = language.generate(teacher, np.full((written, 1), START), temperature=1.0, **WRITING)
        work.mkdir(parents=True)
        teacher.save(work / "teacher.keras")
        np.save(work / "written.npy", texts)
    teacher, texts = keras.models.load_model(work / "teacher.keras"), np.load(work / "written.npy")
    tokens = tokens[np.random.default_rng(seed).permutation(len(tokens))[:known]]
    on_labels, student = language_model(48, dropout=0.3), language_model(48)
    fit(on_labels, tokens, epochs[1])
    distiller = Distiller(student, teacher, losses.SoftTargets(temperature=1.0), alpha=0.0)
    fit(distiller, np.concatenate([tokens, texts]), epochs[2])
    generator = language.export(student, tokens[:300, :4], quantization="int8", **WRITING)
    if output:
        generator.save(output, tokenizer=vectorize)
    texts = captions(folder, "test_2016_flickr")
    x, known = tokens_of(vectorize, texts), vectorize.get_vocabulary()
    names = ("teacher", "student on labels", "student distilled", "distilled, int8")
    logits = (m.predict(x[:, :-1]) for m in (teacher, on_labels, student, generator))
    saved, perplexity = zip(*(scores(z, x, texts, known) for z in logits), strict=True)
    result = dict(zip(names, saved, strict=True)) | {"bytes": len(generator.tflite)}
    return result | {f"{n}, perplexity": p for n, p in zip(names, perplexity, strict=True)}


if __name__ == "__main__":
    print(main(*sys.argv[1:4]))
