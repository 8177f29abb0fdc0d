"""A backbone for `examples/transfer_learning.py` where ImageNet's weights are not at hand.

    python benchmarks/pretrain.py
    python examples/record.py transfer_learning runs/pretrain/cats_dogs.npz \
        runs/pretrain/backbone.weights.h5 size=64

Trains MobileNetV2 on eight of CIFAR-10's classes and writes its weights; and the images of the
other two, cats and dogs, as a dataset of their own. A run that is stopped goes on where it was.
"""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app, flags
from common import DATA, ROOT, cifar10
from keras import layers

FLAGS = flags.FLAGS
flags.DEFINE_string("data", DATA, "Folder that holds cifar10/; where there is none: downloaded.")
flags.DEFINE_string("output", str(ROOT / "runs" / "pretrain"), "Folder for the two files.")
flags.DEFINE_integer("images", 40_000, "Number of images to train on.")

CAT, DOG = 3, 5
SIZE, EPOCHS, BATCH_SIZE = 64, 12, 128


def split(images, labels):
    """The images of cats and dogs, and all others, each with labels from 0."""
    pets = np.isin(labels, (CAT, DOG))
    others = np.unique(labels[~pets], return_inverse=True)[1]
    return (images[pets], (labels[pets] == DOG).astype("int32")), (images[~pets], others)


def pretrain(images, labels, folder):
    """A MobileNetV2 without its top, trained with a head for eight classes."""
    keras.utils.set_random_seed(0)
    backbone = keras.applications.MobileNetV2(
        (SIZE, SIZE, 3), alpha=0.35, include_top=False, weights=None, pooling="avg"
    )
    for layer in backbone.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.95  # 0.999 takes longer than this training
    pixels = keras.Input(images.shape[1:])
    x = layers.Resizing(SIZE, SIZE)(layers.RandomFlip("horizontal")(pixels))
    x = layers.Rescaling(1 / 127.5, offset=-1)(x)
    model = keras.Model(pixels, layers.Dense(8)(backbone(x)))
    steps = EPOCHS * len(images) // BATCH_SIZE
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        images,
        labels,
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
        verbose=2,
        callbacks=[keras.callbacks.BackupAndRestore(str(folder / "backup"))],
    )
    return backbone


def main(_):
    folder = pathlib.Path(FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    train, test = (split(*part) for part in cifar10(FLAGS.data))
    arrays = {
        f"{name}_{part}": array
        for part, (pets, _) in (("train", train), ("test", test))
        for name, array in zip("xy", pets, strict=True)
    }
    np.savez(folder / "cats_dogs.npz", **arrays)
    images, labels = (array[: FLAGS.images] for array in train[1])
    pretrain(images, labels, folder).save_weights(folder / "backbone.weights.h5")
    print(f"written: {folder / 'cats_dogs.npz'} and {folder / 'backbone.weights.h5'}")


if __name__ == "__main__":
    app.run(main)
