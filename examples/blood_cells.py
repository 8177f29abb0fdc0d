"""Name blood cells: a few images that someone has labeled, and many that only the teacher knows.

BCCD's folder in Pascal VOC's layout. Each box is cut out of its image and called a platelet, a red
or a white cell. Eleven in thirteen are red, so that accuracy says little: what counts is the share
of each kind that is found, and whether a confidence of 90 % is right nine times in ten. Data to
learn from, not a device: nothing here says how it does on other microscopes, stains or diseases.

    python examples/blood_cells.py BCCD teacher.keras report
"""

import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_distill
from keras_distill import detection

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
    names = annotations.class_names
    return np.stack(pixels), np.concatenate(labels), np.concatenate(sources), names


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
    """Trains a model, or a distiller, on so many batches of mirrored and tinted cells.

    Args: `kinds` are the classes by which cells are weighted, so that each has the same share.
    """

    def views(x, y, weight):
        x = tf.image.random_flip_up_down(tf.image.random_flip_left_right(x))
        return x + tf.random.uniform((BATCH_SIZE, 1, 1, 3), -25, 25), y, weight

    weights = len(kinds) / 3 / np.maximum(np.bincount(kinds, minlength=3), 1)
    data = tf.data.Dataset.from_tensor_slices((x, y, np.float32(weights[kinds]))).repeat()
    data = data.shuffle(len(x)).batch(BATCH_SIZE, drop_remainder=True).map(views).prefetch(2)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=1e-2), loss)
    model.fit(data, steps_per_epoch=steps, verbose=2)


def models(folder, teacher, seed=0, labeled=4, steps=600):
    """The teacher, the student on labels and the distilled one, as a model and as a file."""
    keras.utils.set_random_seed(seed)
    x, y, sources, _ = cells(folder, "train")
    some = np.random.default_rng(seed).permutation(sources.max() + 1)[:labeled]
    some = np.isin(sources, some)
    if not pathlib.Path(teacher).is_file():
        model = network((32, 64, 96), depth=2)
        fit(model, x, y, y, 600)
        model.save(teacher)
    teacher = keras.models.load_model(teacher)
    # Steps, rate and temperature of each are the best of those tried on the images of `val`.
    on_labels, student = (network((8, 16, 24), depth=1) for _ in range(2))
    fit(on_labels, x[some], y[some], y[some], steps // 2, rate=1e-3)
    losses = keras_distill.losses.SoftTargets(temperature=1.0)
    distiller = keras_distill.Distiller(student, teacher, losses, alpha=0.0)
    fit(distiller, x, y, teacher.predict(x, verbose=0).argmax(1), steps)
    artifact = keras_distill.tflite.convert(student, "micro", "int8", calibration=x[:500])
    names = "teacher", "student on labels", "student distilled", "distilled, int8"
    return dict(zip(names, (teacher, on_labels, student, artifact), strict=True))


def main(folder, teacher, output=None, **options):
    """Mean recall of the three kinds by model, the file's bytes, then calibration errors."""
    candidates = models(folder, teacher, **options)
    x, y, _, names = cells(folder, "test")
    result = keras_distill.evaluation.compare(candidates, (x, y), class_names=names)
    if output is not None:  # The report shows first where student and teacher disagree most.
        result.report(output)
    recall = {row["name"]: float(row["recall"]) for row in result.rows}
    error = {f"{row['name']}: calibration error": float(row["ece"]) for row in result.rows}
    return recall | {"bytes": len(candidates["distilled, int8"].tflite)} | error


if __name__ == "__main__":
    print(main(*sys.argv[1:4]))
