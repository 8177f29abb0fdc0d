"""Text classification: topics of news, from a transformer to a bag of words that runs anywhere.

The files are tab-separated with the columns `text` and `class`, such as AG News.

    python examples/text_classification.py train.tsv test.tsv
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_distill

WORDS, LENGTH = 10_000, 48


def mean_of_words(x, words):
    """The mean of what stands at the words of each text: 0, not NaN, where a text has none."""
    mask = keras.ops.cast(words != 0, x.dtype)[..., None]
    return keras.ops.sum(x * mask, 1) / keras.ops.maximum(keras.ops.sum(mask, 1), 1)


def transformer(classes, width=48, heads=4, blocks=1):
    """A transformer encoder over words."""
    words = keras.Input((LENGTH,), dtype="int32")
    places = layers.Embedding(LENGTH, width)(keras.ops.arange(LENGTH))
    # Few texts: half of what it reads is dropped.
    x = layers.Dropout(0.5)(layers.Embedding(WORDS, width)(words) + places)
    for _ in range(blocks):
        y = layers.LayerNormalization()(x)
        y = layers.MultiHeadAttention(heads, width // heads)(
            y, y, attention_mask=keras.ops.expand_dims(words != 0, 1)
        )
        x = x + layers.Dropout(0.1)(y)
        y = layers.LayerNormalization()(x)
        y = layers.Dense(width)(layers.Dense(2 * width, activation="gelu")(y))
        x = x + layers.Dropout(0.1)(y)
    x = layers.Dropout(0.5)(mean_of_words(x, words))
    return keras.Model(words, layers.Dense(classes)(x), name="transformer")


def bag_of_words(classes, width=8):
    """The mean of small word vectors, and one dense layer."""
    words = keras.Input((LENGTH,), dtype="int32")
    x = mean_of_words(layers.Embedding(WORDS, width)(words), words)
    return keras.Model(words, layers.Dense(classes)(x), name="bag_of_words")


def main(train_file, test_file, seed=0, epochs=8, examples=None):
    """Trains a teacher, a student on labels, and the same student distilled.

    Returns:
        Accuracy on the test texts by model.
    """
    keras.utils.set_random_seed(seed)
    tables = [keras_distill.data.read_table(path) for path in (train_file, test_file)]
    names = np.unique(tables[0]["class"])
    vectorize = layers.TextVectorization(WORDS, output_sequence_length=LENGTH)
    vectorize.adapt(tables[0]["text"])
    datasets = []
    for table in tables:
        words = vectorize(table["text"][:examples])
        labels = np.searchsorted(names, table["class"][:examples])
        datasets.append(tf.data.Dataset.from_tensor_slices((words, labels)))
    # Each epoch hides other words, so that the teacher has more to say than once per text.
    augment = keras_distill.data.Augmentation(keras_distill.data.random_unknown(0.15))
    train = keras_distill.data.batches(datasets[0], 64, augment=augment, seed=seed)
    test = datasets[1].batch(500).cache()
    accuracy = {}

    def fit(title, model, learning_rate, epochs):
        model.compile(
            keras.optimizers.Adam(
                keras.optimizers.schedules.CosineDecay(learning_rate, epochs * len(train))
            ),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.fit(train, epochs=epochs, verbose=2)
        accuracy[title] = model.evaluate(test, verbose=0, return_dict=True)["accuracy"]

    teacher = transformer(len(names))
    fit("teacher", teacher, 1e-3, -(-epochs // 2))
    student = bag_of_words(len(names))
    initial = student.get_weights()
    fit("student on labels", student, 1e-2, epochs)
    student.set_weights(initial)
    losses = keras_distill.losses.SoftTargets(temperature=2.0)
    fit("student distilled", keras_distill.Distiller(student, teacher, losses), 1e-2, epochs)
    return accuracy


if __name__ == "__main__":
    print(main(*sys.argv[1:3]))
