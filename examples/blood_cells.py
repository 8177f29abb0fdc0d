"""Name blood cells: a few images that someone has labeled, and many that only the teacher knows.

BCCD's folder in Pascal VOC's layout; each box is cut out and called a platelet, a red or a white
cell. Most are red: accuracy says little, the share found of each kind counts, and what a confidence
means. No device: nothing here says how it does on other microscopes, stains or diseases.

    python examples/blood_cells.py BCCD teacher.keras report
"""

import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers, optimizers

from keras_distill import Distiller, detection, evaluation, losses, tflite

SIDE, SIZE, BATCH_SIZE = 160, 32, 64


def cells(folder, split):
    """Squares around the boxes, their labels, the images they are from, and the labels' names."""
    pixels, labels, sources = [], [], []
    annotations = detection.read_voc(folder, split)
    for number, image in enumerate(annotations.images):
        whole = tf.io.decode_jpeg(image.path.read_bytes())
        whole = np.pad(whole, [(SIDE // 2, SIDE // 2)] * 2 + [(0, 0)], "reflect")
        for x, y in np.int32((image.boxes[:, :2] + image.boxes[:, 2:]) / 2):
            square = whole[y : y + SIDE, x : x + SIDE]
            pixels.append(tf.image.resize(square, (SIZE, SIZE), antialias=True))
        labels.append(image.labels)
        sources.append(np.full(len(image.labels), number))
    numbers = np.concatenate(labels), np.concatenate(sources)
    return np.stack(pixels), *numbers, annotations.class_names


def network(widths, depth):
    """Stages of convolutions, each of half the size of the one before."""
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    for width in widths:
        for stride in (2, *[1] * (depth - 1)):
            x = layers.Conv2D(width, 3, stride, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization(momentum=0.95)(x))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(3)(x))


def fit(model, x, y, kinds, steps, rate=3e-3):
    """Trains on so many batches of mirrored, tinted cells, weighted alike by class (`kinds`)."""

    def views(x, y, weight):
        x = tf.image.random_flip_up_down(tf.image.random_flip_left_right(x))
        return x + tf.random.uniform((BATCH_SIZE, 1, 1, 3), -25, 25), y, weight

    weights = len(kinds) / 3 / np.maximum(np.bincount(kinds, minlength=3), 1)
    data = tf.data.Dataset.from_tensor_slices((x, y, np.float32(weights[kinds]))).repeat()
    data = data.shuffle(len(x)).batch(BATCH_SIZE, drop_remainder=True).map(views).prefetch(2)
    adam = optimizers.AdamW(optimizers.schedules.CosineDecay(rate, steps), weight_decay=1e-2)
    model.compile(adam, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(data, steps_per_epoch=steps, verbose=2)


def models(folder, teacher, seed=0, labeled=4, steps=600):
    """The teacher, the student on labels and the distilled one, as a model and as a file."""
    keras.utils.set_random_seed(seed)
    x, y, sources, _ = cells(folder, "train")
    order = np.random.default_rng(seed).permutation(sources.max() + 1)
    some = np.isin(sources, order[:labeled])
    if not pathlib.Path(teacher).is_file():
        model = network((32, 64, 96), depth=2)
        fit(model, x, y, y, 600)
        model.save(teacher)
    teacher = keras.models.load_model(teacher)
    # Steps, rate and temperature of each are the best of those tried on the images of `val`.
    on_labels, student = (network((8, 16, 24), depth=1) for _ in range(2))
    fit(on_labels, x[some], y[some], y[some], steps // 2, rate=1e-3)
    distiller = Distiller(student, teacher, losses.SoftTargets(temperature=1.0), alpha=0.0)
    fit(distiller, x, y, teacher.predict(x, verbose=0).argmax(1), steps)
    artifact = tflite.convert(student, "micro", "int8", calibration=x[:500])
    found = {"teacher": teacher, "student on labels": on_labels, "student distilled": student}
    return found | {"distilled, int8": artifact}


def main(folder, teacher, output=None, **options):
    """Mean recall of the three kinds by model, the file's bytes, then calibration errors."""
    candidates = models(folder, teacher, **options)
    x, y, _, names = cells(folder, "test")
    result = evaluation.compare(candidates, (x, y), class_names=names)
    if output is not None:  # The report shows first where student and teacher disagree most.
        result.report(output)
    recall = {row["name"]: float(row["recall"]) for row in result.rows}
    error = {f"{row['name']}: calibration error": float(row["ece"]) for row in result.rows}
    return recall | {"bytes": len(candidates["distilled, int8"].tflite)} | error


if __name__ == "__main__":
    print(main(*sys.argv[1:4]))
