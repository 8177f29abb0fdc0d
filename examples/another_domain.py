"""Another domain: digits of other pens and paper, which nobody has labeled.

Teacher and student learn MNIST's digits, of 8 by 8 pixels here. The device sees scikit-learn's,
which 43 people wrote on a tablet. The larger network is less misled by what is different; and its
normalization takes the new images' statistics. Its answers on them take the small one along.

    python examples/another_domain.py mnist firmware
"""

import gzip
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits

import keras_distill


def source(folder, count):
    """Images (8, 8, 1) from 0 to 1 and labels of MNIST's original files, the digit filling them."""

    def read(kind, offset, size):
        path = next(pathlib.Path(folder).rglob(f"train-{kind}*.gz"))
        with gzip.open(path) as file:
            return np.frombuffer(file.read(offset + count * size), "uint8", offset=offset)

    digits = read("images", 16, 784).reshape(-1, 28, 28, 1)[:, 4:24, 4:24] / 255
    return tf.image.resize(digits, (8, 8), "area").numpy(), np.int32(read("labels", 8, 1))


def target():
    """Images and labels of scikit-learn's digits: to adapt to, to choose settings, to test."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = np.float32(digits.images[order, :, :, None] / 16), np.int32(digits.target[order])
    return [(x[part], y[part]) for part in (slice(1000), slice(1000, 1400), slice(1400, None))]


def convolution(width):
    norm = layers.BatchNormalization(momentum=0.95)
    return [layers.Conv2D(width, 3, padding="same", use_bias=False), norm, layers.ReLU()]


def on_views(model):
    """The model on images that are moved, turned, scaled and noisy while it is trained."""
    by, fill = (-0.2, 0.2), {"fill_mode": "constant"}
    moves = [layers.RandomTranslation(0.15, 0.15, **fill), layers.RandomRotation(0.04, **fill)]
    views = [*moves, layers.RandomZoom(by, by, **fill), layers.GaussianNoise(0.1)]
    return keras.Sequential([keras.Input((8, 8, 1)), *views, model])


def fit(model, steps, *data):
    """Trains a model, or a distiller, on so many batches."""
    data = tf.data.Dataset.from_tensor_slices(data).shuffle(10_000).repeat()
    adam = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps))
    model.compile(adam, keras.losses.SparseCategoricalCrossentropy(True), steps_per_execution=10)
    model.fit(data.batch(64).prefetch(2), steps_per_epoch=steps, verbose=2)


def models(folder, seed=0, steps=1000, count=10_000):
    """The models by name, the file among them."""
    keras.utils.set_random_seed(seed)
    x = target()[0][0]  # Settings are the best of those tried on the images in between.
    image, pool, top = keras.Input((8, 8, 1)), layers.MaxPooling2D, layers.GlobalAveragePooling2D()
    large = [*convolution(32), *convolution(64), pool(), *convolution(64), top, layers.Dropout(0.3)]
    small = [*convolution(8), pool(), *convolution(16), pool(), layers.Flatten()]
    teacher, alone = (keras.Sequential([image, *s, layers.Dense(10)]) for s in (large, small))
    for model in (teacher, alone):
        fit(on_views(model), steps, *source(folder, count))
    at_home, student = keras.models.clone_model(teacher), keras.models.clone_model(alone)
    at_home.set_weights(teacher.get_weights())
    student.set_weights(alone.get_weights())
    for some in np.random.default_rng(seed).choice(x, (60, 256)):
        teacher(some, training=True)  # Normalization follows the new images.

    soft = keras_distill.losses.SoftTargets(temperature=2.0)
    distiller = keras_distill.Distiller(on_views(student), teacher, soft, alpha=0.0)
    fit(distiller, steps, x)
    artifact = keras_distill.tflite.convert(student, "micro", "int8", calibration=x)
    names = "teacher", "student on labels", "student distilled", "distilled, int8"
    found = dict(zip(names, (teacher, alone, student, artifact), strict=True))
    return found | {"teacher, statistics of MNIST": at_home}


def main(folder, output=None, **settings):
    """Accuracy on test images of the new domain by model, and the file's bytes."""
    found = models(folder, **settings)
    artifact = found["distilled, int8"]
    if output is not None:
        artifact.save(output)
    rows = keras_distill.evaluation.compare(found, target()[2], resamples=0).rows
    return {row["name"]: row["accuracy"] for row in rows} | {"bytes": len(artifact.tflite)}


if __name__ == "__main__":
    print(main(*sys.argv[1:3]))
