"""What a kit has besides its class where the student takes pictures: class maps, a sample."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from keras_distill.tflite.android.kotlin_port import Port


def class_map(
    inputs: Sequence["Port"], outputs: Sequence["Port"], labels: Sequence[str]
) -> dict[str, Any] | None:
    """Values of `ClassMap.kt`, or `None` where the student doesn't give classes of pixels.

    It does where it takes a picture, and its output is a map of as many scores as there are
    labels, or of the classes themselves.
    """
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0].from_bitmap() is None or not labels:
        return None
    result = f"run(input).{outputs[0].identifier}"
    match outputs[0].shape, outputs[0].result:
        case [1, height, width, classes], "FloatArray" if classes == len(labels) > 1:
            result = f"highest({result}, {classes})"
        case [1, height, width], "IntArray":
            pass
        case _:
            return None
    return {
        "WIDTH": inputs[0].shape[2],
        "HEIGHT": inputs[0].shape[1],
        "MAP_WIDTH": width,
        "MAP_HEIGHT": height,
        "CLASSES": result,
    }


def sample_picture(port: "Port", given: Mapping[str, np.ndarray]) -> bytes:
    """The picture of the first test vector, as PNG.

    Args:
        port: The input that takes pictures.
        given: Test vectors by the names of inputs, as the app gives them.
    """
    import tensorflow as tf

    pixels = np.asarray(given[port.name])[:1].reshape(port.shape)[0]
    pixels = np.clip(np.round(pixels.astype("float32")), 0, 255).astype("uint8")
    return tf.io.encode_png(pixels).numpy()
