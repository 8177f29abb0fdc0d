"""A student to be quantized, and its file held against the simulation."""

import keras
import numpy as np
import pytest
from ai_edge_litert.tools import flatbuffer_utils
from keras_distill.tflite import runtimes

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
MICRO = pytest.param(
    "micro",
    marks=pytest.mark.skipif(
        not runtimes.micro_available(), reason="the TFLite Micro interpreter is not installed"
    ),
)


def compiled(model, rate=0.01):
    """The model, compiled to learn digits without the time that XLA takes."""
    model.compile(keras.optimizers.Adam(rate), LOSS, metrics=["accuracy"], jit_compile=False)
    return model


def convolutional():
    """A student with every pattern that is fused: BatchNormalization, ReLU6, residuals."""
    layers = keras.layers
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(momentum=0.9, name="stem_norm")(x)
    x = shortcut = layers.ReLU(name="stem_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization(momentum=0.9, name="depthwise_norm")(x)
    x = layers.ReLU(max_value=6, name="depthwise_relu")(x)
    x = layers.Conv2D(16, 1, name="pointwise")(x)
    x = layers.Activation("relu", name="block")(layers.Add(name="add")([x, shortcut]))
    x = layers.MaxPooling2D(name="pool")(x)
    wide = layers.Conv2D(16, 3, padding="same", activation="relu", name="wide")(x)
    x = layers.Concatenate(name="concatenate")([x, wide])
    x = layers.Dropout(0.1, name="dropout")(layers.GlobalAveragePooling2D(name="mean")(x))
    return keras.Model(image, layers.Dense(10, name="logits")(x), name="student")


def steps_apart(model, file, x, runtime="litert-reference"):
    """Differences in steps between a file's first output and what the model simulates.

    Args:
        model: Quantize-aware model.
        file: TFLite bytes with integer outputs.
        x: List of inputs in the model's order.
        runtime: Name of the runtime.

    Returns:
        Absolute differences, an integer array of the output's shape.
    """
    opened = runtimes.open_file(file, runtime)
    (integers, *_) = runtimes.run_samples(opened, x)
    (port, *_) = opened.outputs
    simulated = keras.tree.flatten(model.predict(x if len(x) > 1 else x[0], verbose=0))[0]
    expected = np.round(simulated.astype("float64") / port.scale) + port.zero_point
    return np.abs(expected - integers.astype("int64")).astype("int64")


def graph_of(file):
    """The model object of a file, and its one graph."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(file))
    (graph,) = model.subgraphs
    return model, graph


def operators(file):
    """Names of a file's operators, in order."""
    model, graph = graph_of(file)
    return [flatbuffer_utils.opcode_to_name(model, o.opcodeIndex) for o in graph.operators]
