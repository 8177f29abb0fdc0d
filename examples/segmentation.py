"""Segment street scenes: 10 painted frames for the student, and many that only the teacher knows.

CamVid in the usual layout: `train/*.jpg` with `trainannot/*.png`, a class from 0 to 10 for each
pixel and 11 for "not labeled"; likewise `test`. Someone has to paint each mask by hand. The teacher
has learned from all of them. The student gets 10, or the teacher's answers on all frames.

    python examples/segmentation.py camvid teacher.keras app
"""

import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_distill

CLASSES = 11  # Sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, cyclist.
UNLABELED, SIZE = CLASSES, (72, 96)


def frames(folder, split):
    """Images and the classes of their pixels, both uint8, scaled to `SIZE`."""
    images, masks = [], []
    for path in sorted(pathlib.Path(folder, split).glob("*.jpg")):
        mask = pathlib.Path(folder, f"{split}annot", f"{path.stem}.png").read_bytes()
        image = tf.image.resize(tf.io.decode_jpeg(path.read_bytes()), SIZE, antialias=True)
        images.append(np.uint8(np.round(image)))
        masks.append(tf.image.resize(tf.io.decode_png(mask), SIZE, "nearest").numpy()[..., 0])
    return np.stack(images), np.stack(masks)


def segmenter(widths, depth):
    """Stages of half the size each, and a way back up that adds what each stage saw."""

    def block(x, width, stride=1, depth=depth):
        for step in (stride, *[1] * (depth - 1)):
            x = layers.Conv2D(width, 3, step, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization(momentum=0.95)(x))
        return x

    image = keras.Input((*SIZE, 3))
    x, stages = layers.Rescaling(1 / 127.5, offset=-1)(image), []
    for width in widths:
        stages.append(x := block(x, width, stride=2))
    for stage, width in zip(stages[-2::-1], widths[-2::-1], strict=True):
        x = layers.UpSampling2D(interpolation="bilinear")(layers.Conv2D(width, 1)(x))
        x = block(layers.Add()([x, stage]), width, depth=1)
    x = layers.Conv2D(CLASSES, 1)(layers.Dropout(0.1)(x))
    return keras.Model(image, layers.UpSampling2D(interpolation="bilinear", name="scores")(x))


def fit(model, images, masks, steps, seed, size=12):
    """Trains a model, or a distiller, on so many batches, half of the frames mirrored."""

    def views(images, masks):
        both = tf.concat([tf.cast(images, "float32"), tf.cast(masks[..., None], "float32")], -1)
        mirrored = tf.random.uniform((size, 1, 1, 1), seed=seed) < 0.5
        both = tf.where(mirrored, both[:, :, ::-1], both)
        light = tf.random.uniform((size, 1, 1, 1), -20, 20, seed=seed)
        return both[..., :3] + light, tf.cast(both[..., 3], "int32")

    data = tf.data.Dataset.from_tensor_slices((images, masks)).repeat()
    data = data.shuffle(len(images), seed=seed).batch(size, drop_remainder=True).map(views)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=UNLABELED)
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=1e-2), loss)
    model.fit(data.prefetch(2), steps_per_epoch=50, epochs=-(-steps // 50), verbose=2)


def main(folder, teacher, output=None, seed=0, labels=10, steps=600, teacher_steps=1300):
    """Trains the student on few masks, and the same student on the answers to all frames.

    Args: `teacher` is its `.keras` file; where there is none yet, it is trained, and kept there.

    Returns:
        Mean IoU of the test frames by model, and the file's size in bytes.
    """
    keras.utils.set_random_seed(seed)
    images, masks = frames(folder, "train")
    some = np.random.default_rng(seed).permutation(len(images))[:labels]
    if not pathlib.Path(teacher).is_file():
        model = segmenter((24, 48, 72), depth=2)
        fit(model, images, masks, teacher_steps, seed)
        model.save(teacher)
    teacher = keras.models.load_model(teacher)
    # Masks, steps and temperature were chosen on the frames of `val`.
    on_labels, student = (segmenter((24, 48, 72), depth=1) for _ in range(2))
    fit(on_labels, images[some], masks[some], steps, seed)
    losses = keras_distill.losses.SoftTargets(temperature=1.0)
    fit(keras_distill.Distiller(student, teacher, losses, alpha=0.0), images, masks, steps, seed)
    artifact = keras_distill.tflite.convert(
        student, target="android", quantization="int8", calibration=images[:100].astype("float32")
    )
    if output is not None:
        artifact.save(output)
    x, y = frames(folder, "test")
    models = {"teacher": teacher, "student on labels": on_labels, "student distilled": student}
    models["distilled, int8"] = artifact
    data = x.astype("float32"), y.astype("int32")
    result = keras_distill.evaluation.compare(models, data, missing_label=UNLABELED, resamples=0)
    return {row["name"]: row["mean_iou"] for row in result.rows} | {"bytes": len(artifact.tflite)}


if __name__ == "__main__":
    print(main(*sys.argv[1:4]))
