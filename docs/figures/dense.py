"""Draws test frames with masks, and cells with boxes: truth, teacher, students, errors.

    python docs/figures/dense.py segmentation camvid teacher.keras on_labels.keras student.tflite
    python docs/figures/dense.py detection BCCD teacher.keras on_labels.keras student.tflite

Images are taken at equal distances from the test split, whatever was found on them.
"""

import pathlib
import sys

import keras
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import keras_distill

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "examples"))
GREEN, RED, GREY = "#2e8b57", "#c44e3b", "0.6"


def outputs(path, x):
    """What a Keras model or a file gives for images."""
    if str(path).endswith(".tflite"):
        return keras_distill.tflite.load(path).predict(x)
    return keras.models.load_model(path).predict(x, verbose=0)


def segmentation(folder, paths):
    """A row for each frame: pixels, painted mask, then mask and errors of each model."""
    import segmentation as example

    x, y = example.frames(folder, "test")
    some = np.linspace(0, len(x) - 1, 6).astype(int)[1:-1]
    x, y = x[some], y[some]
    found = {n: outputs(p, x.astype("float32")).argmax(-1) for n, p in paths.items()}
    colors = np.vstack([plt.get_cmap("tab20")(np.arange(example.CLASSES) * 2 % 20), [0, 0, 0, 1]])
    colors[example.CLASSES - 1] = plt.get_cmap("tab20")(1)
    names = ["frame", "painted", *(n for name in paths for n in (name, "errors"))]
    figure, grid = plt.subplots(len(x), len(names), figsize=(1.55 * len(names), 1.25 * len(x)))
    for row, image, mask, i in zip(grid, x, y, range(len(x)), strict=True):
        shown = [image, colors[mask]]
        for name in paths:
            own = found[name][i]
            wrong = (own != mask) & (mask != example.UNLABELED)
            grey = np.repeat(image.mean(-1, keepdims=True) / 255, 3, -1)
            shown += [colors[own], np.where(wrong[..., None], [0.77, 0.2, 0.16], grey)]
        for axes, picture in zip(row, shown, strict=True):
            axes.imshow(picture)
    return figure, grid, names


def detection(folder, paths):
    """A row for each image: true boxes, then those of each model, red where they are wrong."""
    import detection as example

    test = keras_distill.detection.read_voc(folder, "test")
    head = keras_distill.detection.Head(example.SIZE, example.STRIDES, test.class_names, "edges")
    data = list(keras_distill.detection.dataset(test, example.SIZE))
    some = [data[i] for i in np.linspace(0, len(data) - 1, 5).astype(int)[1:-1]]
    x = np.stack([image.numpy() for image, _ in some])
    found = {n: head.detections(outputs(p, x.astype("float32"))) for n, p in paths.items()}
    names = ["drawn by people", *paths]
    figure, grid = plt.subplots(len(x), len(names), figsize=(2.6 * len(names), 1.95 * len(x)))
    for i, (row, (image, given)) in enumerate(zip(grid, some, strict=True)):
        kept = given["labels"].numpy() >= 0
        boxes, labels = given["boxes"].numpy()[kept], given["labels"].numpy()[kept]
        for axes in row:
            axes.imshow(image)
        outline(row[0], boxes, labels, [GREEN] * len(boxes))
        for axes, name in zip(row[1:], paths, strict=True):
            own = found[name]
            sure = own.scores[i] >= 0.35
            outline(axes, *judged(own.boxes[i][sure], own.labels[i][sure], boxes, labels))
    return figure, grid, names


def judged(own, classes, boxes, labels):
    """Boxes found, green with a true one that overlaps by half, else red; then the missed, grey."""
    alike = keras_distill.detection.overlaps(own, boxes) * (classes[:, None] == labels[None])
    taken, colors = set(), []
    for overlap in alike:
        free = [j for j in np.flatnonzero(overlap >= 0.5) if j not in taken]
        taken |= set(free[:1])
        colors.append(GREEN if free else RED)
    missed = [j for j in range(len(boxes)) if j not in taken]
    every = np.concatenate([own, boxes[missed]])
    return every, np.concatenate([classes, labels[missed]]), colors + [GREY] * len(missed)


def outline(axes, boxes, labels, colors):
    """Draws boxes: platelets dotted, white cells bold."""
    for (left, top, right, bottom), label, color in zip(boxes, labels, colors, strict=True):
        style = {"edgecolor": color, "fill": False, "linewidth": (1.4, 1.0, 2.4)[label]}
        style["linestyle"] = ":" if label == 0 or color == GREY else "-"
        axes.add_patch(plt.Rectangle((left, top), right - left, bottom - top, **style))


def main(name, folder, *paths):
    names = ["teacher", "student on labels", "distilled, int8"]
    figure, grid, titles = globals()[name](folder, dict(zip(names, paths, strict=True)))
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    for axes in grid.flat:
        axes.set_axis_off()
    figure.subplots_adjust(0.005, 0.01, 0.995, 0.94, 0.03, 0.03)
    figure.savefig(HERE / f"{name}.png", dpi=80)
    Image.open(HERE / f"{name}.png").convert("RGB").quantize(128).save(HERE / f"{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
