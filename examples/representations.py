"""A backbone without labels: the teacher's vectors teach it, then one label in a hundred is enough.

Someone trained the teacher, a backbone, on 25,000 labeled images, and gives its vectors of 128
numbers without a classifier. On 25,000 other images, which nobody labeled, a backbone of a twelfth
of its weights learns to point the same way. A linear classifier on top then needs 250 labels.

    python examples/representations.py fashion_mnist teacher.keras firmware
"""

import gzip
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_distill

THEIRS, OURS, FEW = slice(25_000), slice(25_000, 50_000), 250


def images(folder, split):
    """Images and labels of Fashion-MNIST's original files; `split` is "train" or "t10k"."""

    def read(kind, offset):
        (path,) = pathlib.Path(folder).rglob(f"{split}-{kind}*.gz")
        return np.frombuffer(gzip.decompress(path.read_bytes()), "uint8", offset=offset)

    return np.float32(read("images", 16).reshape(-1, 28, 28, 1)) / 255, np.int32(read("labels", 8))


def backbone(widths, depth):
    """Stages of convolutions, each of half the size of the one before, and their mean."""
    x = image = keras.Input((28, 28, 1))
    for width in widths:
        for stride in (2, *[1] * (depth - 1)):
            x = layers.Conv2D(width, 3, stride, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization(momentum=0.95)(x))
    return keras.Model(image, layers.GlobalAveragePooling2D(name="embedding")(x))


def fit(model, data, steps, rate):
    """Trains a model, or a distiller, on so many batches."""
    data = tf.data.Dataset.from_tensor_slices(data).shuffle(25_000).repeat()
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=1e-2), loss, steps_per_execution=8)
    model.fit(data.batch(64).prefetch(2), steps_per_epoch=steps, verbose=2)


def classifier(body, data, steps, rate):
    """A backbone with a classifier, trained on images that are mirrored and moved a little."""
    image, views = keras.Input((28, 28, 1)), [layers.RandomFlip("horizontal")]
    views += [layers.RandomTranslation(0.08, 0.08, fill_mode="constant")]
    top = [layers.BatchNormalization(momentum=0.95), layers.Dropout(0.2), layers.Dense(10)]
    model = keras.Sequential([image, body, *top])
    fit(keras.Sequential([image, *views, model]), data, steps, rate)
    return model


def main(folder, teacher, output=None, seed=0, steps=2400):
    """Accuracy with so few labels, the file's bytes, then that of the ten nearest neighbors."""
    keras.utils.set_random_seed(seed)
    x, y = images(folder, "train")
    # Steps, rates and loss are the best of those tried on images from 50,000 on.
    if not pathlib.Path(teacher).is_file():
        body = backbone((32, 64, 128), 2)
        classifier(body, (x[THEIRS], y[THEIRS]), 2336, 3e-3)
        body.save(teacher)
    teacher = keras.models.load_model(teacher)
    x, y = x[OURS], y[OURS]
    some = np.random.default_rng(seed).permutation(len(x))[:FEW]
    few = x[some], y[some]
    alone, student = (backbone((16, 32, 64), depth=1) for _ in range(2))
    student.set_weights(alone.get_weights())

    vectors = keras_distill.teachers.Arrays(teacher.predict(x, verbose=0))
    cosine = keras.losses.CosineSimilarity()
    match = keras_distill.Match(cosine, "embedding", teacher=0, adapter="auto")
    distiller = keras_distill.Distiller(student, vectors, match, alpha=0.0)
    fit(distiller, (vectors.attach(x),), steps, 3e-3)

    teacher.trainable = student.trainable = False  # So few labels would spoil them.
    bodies = {"teacher": teacher, "student on labels": alone, "student distilled": student}
    models = {name: classifier(body, few, 800, 1e-2) for name, body in bodies.items()}
    convert, compare = keras_distill.tflite.convert, keras_distill.evaluation.compare
    artifact = convert(models["student distilled"], "micro", "int8", calibration=x[:500])
    if output is not None:
        artifact.save(output)
    models["distilled, int8"], test = artifact, images(folder, "t10k")
    found = {row["name"]: row["accuracy"] for row in compare(models, test, resamples=0).rows}
    near = compare(bodies, test, task="embedding", labeled=few, resamples=0).rows
    near = {f"{row['name']}: nearest neighbors": row["knn"] for row in near}
    return found | {"bytes": len(artifact.tflite)} | near


if __name__ == "__main__":
    print(main(*sys.argv[1:4]))
