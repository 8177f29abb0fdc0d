"""Digits bent, turned, scaled, slanted and moved, and batches of one such view after another."""

import numpy as np
import tensorflow as tf
from scipy import ndimage

from keras_distill.teachers import Keyed


def view(images, rng, turn, size, slant, move, bend, smooth):
    """One view of each image.

    Args:
        images: uint8, shape `(samples, 28, 28)`.
        rng: The `numpy.random.Generator` of what is drawn.
        turn: Greatest angle, in radians.
        size: Greatest change of width and height, as a part of 1.
        slant: Greatest slant, as a part of 1.
        move: Farthest move, in pixels.
        bend: Standard deviation of how far a pixel is moved beside, in pixels.
        smooth: That of the Gaussian by which neighbors are moved alike, in pixels.

    Returns:
        uint8, of the same shape.
    """
    n, result = len(images), np.empty_like(images)
    if n > 5000:  # In less memory.
        parts = [images[i : i + 5000] for i in range(0, n, 5000)]
        return np.concatenate([view(p, rng, turn, size, slant, move, bend, smooth) for p in parts])
    angle, lean = rng.uniform(-turn, turn, n), rng.uniform(-slant, slant, n)
    scale = 1 + rng.uniform(-size, size, (2, n))
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = scale[:, None] * np.array([[cos, -sin], [sin + lean, cos]])
    place = np.stack(np.meshgrid(np.arange(28.0), np.arange(28.0), indexing="ij")) - 13.5
    moved = 13.5 + rng.uniform(-move, move, (2, n))
    noise = rng.uniform(-1, 1, (2, n, 28, 28)).astype("float32")
    noise = ndimage.gaussian_filter(noise, [0, 0, smooth, smooth], mode="constant")
    noise *= bend / noise.std()
    source = np.einsum("ijn,jrc->inrc", matrix, place) + moved[..., None, None] + noise
    number = np.broadcast_to(np.arange(n)[:, None, None], (n, 28, 28))
    ndimage.map_coordinates(images, [number, *source], result, order=1)
    return result


def batches(views, labels, epochs, batch_size, seed, answers=None):
    """Batches of one view of each image after another, each in a random order.

    Args:
        views: The views of all images, one view after the other, uint8.
        labels: The labels of the images.
        epochs: Number of epochs, each of the next view.
        batch_size: Size of a batch.
        seed: Seed of the orders.
        answers: `Arrays` of a teacher's answers to all views, to be brought along.
    """
    rng, n = np.random.default_rng(seed), len(labels)
    order = [e * n % len(views) + rng.permutation(n) for e in range(epochs)]
    pixels, labels = tf.constant(views), tf.constant(labels)

    def batch(i):
        x = tf.cast(tf.gather(pixels, i), "float32") / 255
        return x if answers is None else Keyed(x, i), tf.gather(labels, i % n)

    data = tf.data.Dataset.from_tensor_slices(np.concatenate(order))
    data = data.batch(batch_size, drop_remainder=True).map(batch)
    return (data if answers is None else answers.attach(data)).prefetch(4)
