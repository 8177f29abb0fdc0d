"""Fashion-MNIST's images, a network that draws some, and how far these are from real ones."""

import gzip
import pathlib

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_distill
from keras_distill.generators import frechet_distance, precision_recall, save_sheet

SHAPE = 28, 28, 1


def images(folder, split="train"):
    """Images from -1 to 1, shape (n, 28, 28, 1), and their labels."""
    name = {"train": "train", "test": "t10k"}[split]
    pixels, labels = (
        np.frombuffer(gzip.decompress(pathlib.Path(folder, f"{name}-{end}").read_bytes()), "uint8")
        for end in ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz")
    )
    return pixels[16:].reshape(-1, *SHAPE).astype("float32") / 127.5 - 1, labels[8:]


def kept(folder, name, make, *arguments):
    """The model of a name in a folder; `make(*arguments)`, stored there, if there is none."""
    path = pathlib.Path(folder, f"{name}.keras")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        make(*arguments).save(path)
    return keras.models.load_model(path)


def classifier(folder, epochs=3):
    """A classifier of the images, in whose last features what is drawn is compared with them."""
    image = x = keras.Input(SHAPE)
    for width in (24, 48, 64):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.95)(x))
        x = layers.MaxPooling2D()(x) if width < 64 else layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, layers.Dense(10)(layers.Dropout(0.2)(x)))
    x, y = (part[: 832 * 64] for part in images(folder))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rates = keras.optimizers.schedules.CosineDecay(3e-3, 832 * epochs)
    model.compile(keras.optimizers.Adam(rates), loss)
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=2)
    return model


def results(folder, models, networks, artifact, vectors, output=None):
    """Fréchet distance to the test images, precision and recall by model, and the file's bytes.

    Args:
        folder: Folder of Fashion-MNIST.
        models: Folder in which the classifier is kept.
        networks: Networks that draw, by name.
        artifact: The converted student.
        vectors: What all draw from.
        output: Path of a picture of what they draw, or `None`.
    """
    judge = kept(models, "classifier", classifier, folder)
    seen = keras.Model(judge.input, judge.layers[-3].output)
    drawn = {"real": images(folder, "test")[0]}
    drawn |= {name: network.predict(vectors, verbose=0) for name, network in networks.items()}
    drawn["distilled, int8"] = artifact.predict(vectors)
    if output is not None:
        save_sheet({name: row[:16] for name, row in drawn.items()}, output)
    features = {name: seen.predict(np.clip(x, -1, 1), verbose=0) for name, x in drawn.items()}
    real = features.pop("real")
    found = {name: frechet_distance(real, x) for name, x in features.items()}
    for name, x in features.items():
        shares = precision_recall(real[:2000], x[:2000])
        found |= zip((f"{name}: precision", f"{name}: recall"), shares, strict=True)
    return found | {"bytes": len(artifact.tflite)}


def drawing_network(latents, *widths):
    """A network that draws an image from a vector: 7×7, 14×14, 28×28."""
    vector = keras.Input((latents,))
    x = layers.Reshape((7, 7, widths[0]))(layers.Dense(49 * widths[0], use_bias=False)(vector))
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    for width in widths[1:]:
        x = layers.Conv2DTranspose(width, 4, 2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(vector, layers.Conv2D(1, 3, padding="same", activation="tanh")(x))


def distill(student, teacher, losses, steps, batch_size=64):
    """Trains a network on what the teacher draws from the same vectors."""
    distiller = keras_distill.Distiller(student, teacher, losses, alpha=0.0)
    distiller.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)))
    shape = batch_size, *teacher.input_shape[1:]
    vectors = tf.data.Dataset.range(steps).map(lambda _: tf.random.normal(shape))
    distiller.fit(vectors, verbose=2)
