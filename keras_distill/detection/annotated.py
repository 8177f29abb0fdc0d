"""Annotated images as `tf.data`, boxes moving along with what happens to their image."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_distill.checks import size_of_images, whole_number
from keras_distill.detection.annotations import Annotations


def letterbox_scale(size: tuple[int, int], image_size: tuple[int, int]) -> float:
    """The factor that makes an image of `size` just fit into `image_size`."""
    return min(image_size[0] / size[0], image_size[1] / size[1])


def letterbox(image: Any, image_size: tuple[int, int]) -> Any:
    """An image scaled to fit, its proportions kept, black to the right of it or below it.

    What is at `(x, y)` comes to `(scale · x, scale · y)`, scale that of `letterbox_scale`.

    Args:
        image: Pixels, shape `(height, width, channels)`.
        image_size: `(height, width)` of the result.

    Returns:
        Float32 tensor, shape `(*image_size, channels)`.
    """
    height, width = image_size
    size = tf.cast(tf.shape(image)[:2], "float64")
    scale = tf.reduce_min(tf.constant([height, width], "float64") / size)
    scaled = tf.cast(tf.round(size * scale), "int32")
    scaled = tf.clip_by_value(scaled, 1, [height, width])
    resized = tf.image.resize(image, scaled, antialias=True)
    rest = tf.constant([height, width]) - scaled
    padded = tf.pad(resized, [[0, rest[0]], [0, rest[1]], [0, 0]])
    return tf.ensure_shape(padded, (height, width, image.shape[-1]))


def dataset(
    annotations: Annotations, image_size: tuple[int, int], *, most: int | None = None
) -> tf.data.Dataset:
    """Annotated images, one at a time, letterboxed to one size.

    Args:
        annotations: What `read_voc` or `read_coco` returned.
        image_size: `(height, width)` of the images.
        most: Number of boxes to which those of an image are padded. Defaults to `None`: the
            largest number that an image has.

    Returns:
        A `tf.data.Dataset` of `(image, boxes)`: uint8 pixels of shape `(*image_size, 3)`, and a
        dict of `"boxes"`, float32, shape `(most, 4)`, left, top, right and bottom edge in pixels of
        this image, `"labels"`, int32, shape `(most,)`, -1 for padding, and `"ignored"`, bool, shape
        `(most,)`: crowds and difficult boxes. `.cache()` it if it fits into memory.

    Raises:
        ValueError: If an image has more boxes than `most`. The message names it. An image whose
            size isn't the annotated one stops the iteration with its path.

    Example:

    >>> train = keras_distill.detection.read_voc("BCCD", "train")
    >>> data = keras_distill.detection.dataset(train, (192, 256)).cache()
    """
    image_size = size_of_images(image_size)
    counts = [len(image.labels) for image in annotations.images]
    if not counts:
        raise ValueError("`annotations` hold no images.")
    most = max(1, max(counts)) if most is None else whole_number("most", most, 1)
    for image, count in zip(annotations.images, counts, strict=True):
        if count > most:
            raise ValueError(f"{image.path} has {count} boxes. Received: most={most}")
    boxes = np.zeros((len(counts), most, 4), "float32")
    labels = np.full((len(counts), most), -1, "int32")
    ignored = np.zeros((len(counts), most), bool)
    for i, image in enumerate(annotations.images):
        scale = letterbox_scale(image.size, image_size)
        boxes[i, : counts[i]] = image.boxes * scale
        labels[i, : counts[i]] = image.labels
        ignored[i, : counts[i]] = image.ignored
    paths = [str(image.path) for image in annotations.images]
    sizes = np.array([image.size for image in annotations.images], "int32")

    def read(path, size, boxes, labels, ignored):
        image = tf.py_function(_decoded, [path], tf.uint8)
        image = tf.ensure_shape(image, (None, None, 3))
        found = tf.shape(image)[:2]
        as_annotated = tf.reduce_all(found == size)
        with tf.control_dependencies(
            [tf.debugging.Assert(as_annotated, [path, "has the size", found, "not", size])]
        ):
            image = tf.identity(image)
        pixels = tf.cast(tf.round(letterbox(image, image_size)), "uint8")
        return pixels, {"boxes": boxes, "labels": labels, "ignored": ignored}

    data = tf.data.Dataset.from_tensor_slices((paths, sizes, boxes, labels, ignored))
    return data.map(read, tf.data.AUTOTUNE)


def _decoded(path: Any) -> Any:
    """An image, in an error of which its path is named."""
    try:
        return tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
    except tf.errors.OpError as error:
        name = path.numpy().decode(errors="replace")
        reason = error.message.rpartition("}} ")[2].partition(" [Op:")[0]
        raise ValueError(f"{name} can't be read as an image: {reason}") from None


def augmented(
    data: tf.data.Dataset, augment: keras.layers.Layer | Sequence[keras.layers.Layer]
) -> tf.data.Dataset:
    """Views of annotated images by Keras' own layers, which move the boxes along.

    Boxes are cut at the edge of the image; those of which less than a pixel is left become padding.

    Args:
        data: `(image, boxes)`, one at a time, as `dataset` gives them; `"ignored"` may be left out.
        augment: Layers such as `keras.layers.RandomFlip("horizontal", bounding_box_format="xyxy")`,
            each with this format. They draw anew for each image.

    Returns:
        A `tf.data.Dataset` of float32 images and boxes, as of `dataset`.

    Raises:
        ValueError: If a layer has another format, or is a `keras.layers.RandomCrop`, which in Keras
            3.15 moves boxes elsewhere than pixels; zoom and shift instead.

    Example:

    >>> flip = keras.layers.RandomFlip("horizontal", bounding_box_format="xyxy")
    >>> views = keras_distill.detection.augmented(data, flip)
    """
    steps: list[Any] = list(augment) if isinstance(augment, (list, tuple)) else [augment]
    for layer in steps:
        if getattr(layer, "bounding_box_format", None) != "xyxy":
            raise ValueError(
                '`augment` must be Keras layers with `bounding_box_format="xyxy"`, the format of '
                f"these boxes. Received: {layer!r}, which has "
                f"{getattr(layer, 'bounding_box_format', None)!r}"
            )

        if isinstance(layer, keras.layers.RandomCrop):
            raise ValueError(
                "`augment` can't hold `keras.layers.RandomCrop`: in Keras 3.15 it moves boxes "
                "elsewhere than pixels. Use `RandomZoom` and `RandomTranslation`."
            )

    def view(image, given):
        image, labels = tf.cast(image, "float32"), given["labels"]
        moved = {"images": image, "bounding_boxes": {"boxes": given["boxes"], "labels": labels}}
        for layer in steps:
            # Layers write into the dict that they are given.
            moved = layer(keras.tree.map_structure(tf.identity, moved))
        image, boxes = moved["images"], moved["bounding_boxes"]["boxes"]
        size = tf.cast(tf.shape(image)[:2], "float32")
        edge = tf.stack([size[1], size[0], size[1], size[0]])
        boxes = tf.clip_by_value(boxes, 0.0, edge)
        is_left = tf.reduce_all(boxes[:, 2:] - boxes[:, :2] >= 1, axis=-1) & (labels >= 0)
        boxes = tf.where(is_left[:, None], boxes, tf.zeros_like(boxes))
        found = {"boxes": boxes, "labels": tf.where(is_left, labels, -1)}
        if "ignored" in given:
            found["ignored"] = given["ignored"] & is_left
        return image, found

    return data.map(view, tf.data.AUTOTUNE)
