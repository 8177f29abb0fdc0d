"""What three students cost as firmware on a Cortex-M4: flash, memory, instructions, stack.

It needs `arm-none-eabi-g++`, `qemu-system-arm`, and in TFLITE_MICRO_ROOT a source tree of TFLite
Micro with its library for the Cortex-M4: of the reference kernels, of CMSIS-NN's or of both.
Nothing is trained: sizes and instructions don't depend on the weights.
"""

import contextlib

import keras
import numpy as np
from keras_distill.tflite.micro import firmware

import keras_distill
from keras_distill._markdown import table

LAYERS = keras.layers


def keywords():
    """A depthwise separable network over a second of sound, 49 frames of 10 coefficients."""
    x = inputs = keras.Input((49, 10, 1))
    x = LAYERS.Conv2D(32, (10, 4), 2, padding="same", activation="relu")(x)
    for _ in range(2):
        x = LAYERS.DepthwiseConv2D(3, padding="same", activation="relu")(x)
        x = LAYERS.Conv2D(32, 1, activation="relu")(x)
    x = LAYERS.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, LAYERS.Dense(12)(x))


def digits():
    """Two convolutions over pictures of 28 x 28 pixels."""
    x = inputs = keras.Input((28, 28, 1))
    for width in (8, 16):
        x = LAYERS.Conv2D(width, 3, strides=2, activation="relu")(x)
    x = LAYERS.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, LAYERS.Dense(10)(x))


def motion():
    """A recurrent layer over 32 measurements of three axes."""
    inputs = keras.Input((32, 3))
    return keras.Model(inputs, LAYERS.Dense(4)(LAYERS.LSTM(16)(inputs)))


def built():
    """Kernels that the source tree has a library of."""
    found = []
    for kernels in firmware.KERNELS:
        with contextlib.suppress(ValueError):
            firmware.find(kernels=kernels)
            found.append(kernels)
    if not found:
        firmware.find()  # It says what is missing.
    return found


def main():
    rows = []
    parts = ("text", "rodata", "flash", "ram", "arena_used", "stack", "instructions")
    for student in (keywords, digits, motion):
        keras.utils.set_random_seed(0)
        model = student()
        x = np.random.default_rng(0).normal(size=(32, *model.inputs[0].shape[1:]))
        artifact = keras_distill.tflite.convert(
            model, "micro", "int8", calibration=x.astype("float32")
        )
        known = [student.__name__, artifact.report["multiply_accumulates"], len(artifact.tflite)]
        for kernels in built():
            report = firmware.measure(artifact, kernels=kernels)
            row = [*known, kernels, *(report.get(part) for part in parts)]
            rows.append([f"{cell:,}" if isinstance(cell, int) else cell for cell in row])
    titles = ("student", "MACs", "file", "kernels", "code", "constants", "flash", "RAM", "arena")
    print(table((*titles, "stack", "instructions"), rows))


if __name__ == "__main__":
    main()
