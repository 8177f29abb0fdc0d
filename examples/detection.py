"""Find blood cells: a student that knows few boxes, or a teacher's answers on all images.

BCCD's folder in Pascal VOC's layout: images of 640 x 480 with boxes of red cells, white cells and
platelets. Someone has to draw a dozen boxes on each. The teacher has learned from all of them. The
student, a detector without anchors, gets those of 8 images, or the teacher's answers on all.

    pip install keras-distill[detection]
    python examples/detection.py BCCD teacher.keras app
"""

import dataclasses
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_distill
from keras_distill import detection

SIZE, STRIDES, BINS = (96, 128), (4, 8), 8


def detector(widths, depth, classes):
    """Three stages of half the size each, and a head on the last two."""

    def block(x, width, stride=1):
        for step in (stride, *[1] * (depth - 1)):
            x = layers.Conv2D(width, 3, step, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization(momentum=0.95)(x))
        return x

    image = keras.Input((*SIZE, 3))
    x = block(layers.Rescaling(1 / 127.5, offset=-1)(image), widths[0], stride=2)
    fine = block(x, widths[1], stride=2)
    coarse = block(block(fine, widths[2], stride=2), widths[2])
    up = layers.UpSampling2D()(layers.Conv2D(widths[1], 1)(coarse))
    maps = block(layers.Add()([up, fine]), widths[1]), coarse
    rare = keras.initializers.Constant(-4.0)
    found = [layers.Conv2D(classes, 1, bias_initializer=rare)(x) for x in maps]
    found = layers.Concatenate(axis=1)([layers.Reshape((-1, classes))(x) for x in found])
    edges = [layers.Reshape((-1, 4, BINS))(layers.Conv2D(4 * BINS, 1)(x)) for x in maps]
    edges = layers.Concatenate(axis=1)(edges)
    return keras.Model(image, {"classes": found, "boxes": edges})


def fit(model, images, head, steps, seed, loss=None, size=8, views=4):
    """Trains a model, or a distiller, on so many batches of mirrored and tinted images."""
    flip = layers.RandomFlip("horizontal_and_vertical", bounding_box_format="xyxy", seed=seed)

    def tinted(images, y):
        light = tf.random.uniform((size, 1, 1, 1), 0.8, 1.2, seed=seed)
        tint = tf.random.uniform((size, 1, 1, 3), -10, 10, seed=seed)
        return tf.clip_by_value(tf.cast(images, "float32") * light + tint, 0, 255), y

    # Cells have no up and down. Views are drawn once and kept, since drawing takes its time.
    data = detection.augmented(images.repeat(views), flip).map(detection.targets(head))
    data = data.map(lambda image, y: (tf.cast(tf.round(image), "uint8"), y)).cache()
    data = data.shuffle(1024, seed=seed).repeat().batch(size, drop_remainder=True).map(tinted)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=1e-2, clipnorm=10.0), loss)
    model.fit(data.prefetch(2), steps_per_epoch=50, epochs=-(-steps // 50), verbose=2)


def main(folder, teacher, output=None, seed=0, labels=8, steps=600, teacher_steps=1500):
    """Trains the student on few images' boxes, and the same student on the answers to all images.

    Args: `teacher` is its `.keras` file; where there is none yet, it is trained, and kept there.

    Returns:
        mAP of the test images by model, the file's size in bytes, then AP50 by model.
    """
    keras.utils.set_random_seed(seed)
    train, test = (detection.read_voc(folder, split) for split in ("train", "test"))
    some = np.random.default_rng(seed).permutation(len(train))[:labels]
    known = dataclasses.replace(train, images=[train.images[i] for i in some])
    known, images, test = (detection.dataset(part, SIZE).cache() for part in (known, train, test))
    names = train.class_names
    head = detection.Head(SIZE, STRIDES, names, boxes_as="edges")
    loss = {"classes": detection.TargetClasses(), "boxes": detection.TargetBoxes()}
    if not pathlib.Path(teacher).is_file():
        model = detector((24, 48, 72), 2, len(names))
        fit(model, images, head, teacher_steps, seed, loss)
        model.save(teacher)
    teacher = keras.models.load_model(teacher)
    # The weight of boxes was chosen on the images of `val`. Both students take the same steps.
    on_labels, student = (detector((20, 40, 64), 1, len(names)) for _ in range(2))
    fit(on_labels, known, head, steps, seed, loss)
    matches = detection.matches(student=head, teacher=head, box_weight=2 / (4 * BINS))
    fit(keras_distill.Distiller(student, teacher, matches, alpha=0.0), images, head, steps, seed)
    shown = np.stack([np.float32(image) for image, _ in images.take(100)])
    artifact = keras_distill.tflite.convert(
        student, target="android", quantization="int8", calibration=shown
    )
    if output is not None:
        artifact.save(output)
    models = {"teacher": teacher, "student on labels": on_labels, "student distilled": student}
    models["distilled, int8"] = artifact
    result = keras_distill.evaluation.compare(
        models, test.batch(24), task="detection", class_names=names, decode=head.detections
    )
    found = {row["name"]: float(row["map"]) for row in result.rows}
    ap50 = {f"{row['name']}: AP50": float(row["ap50"]) for row in result.rows}
    return found | {"bytes": len(artifact.tflite)} | ap50


if __name__ == "__main__":
    print(main(*sys.argv[1:4]))
