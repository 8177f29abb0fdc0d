"""Small students of many kinds, with data for them."""

import keras
import numpy as np

layers = keras.layers


def conv():
    """Convolution, depthwise convolution and a residual connection, with normalization."""
    inputs = keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    y = layers.Conv2D(8, 1)(y)
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Concatenate()([layers.AveragePooling2D(2)(x), layers.MaxPooling2D(2)(x)])
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def conv1d():
    """1-D convolutions, dilated and separable."""
    inputs = keras.Input((12, 3), name="window")
    x = layers.Conv1D(6, 3, activation="relu")(inputs)
    x = layers.Conv1D(6, 3, dilation_rate=2, activation="relu")(x)
    x = layers.SeparableConv1D(6, 3, padding="same")(x)
    return keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x)))


def lstm():
    """A bidirectional LSTM below another."""
    inputs = keras.Input((6, 3), name="window")
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(inputs)
    return keras.Model(inputs, layers.Dense(4)(layers.LSTM(5, name="memory")(x)))


def gru():
    """A GRU."""
    inputs = keras.Input((4, 3), name="window")
    return keras.Model(inputs, layers.Dense(4)(layers.GRU(4, name="memory")(inputs)))


def attention():
    """A transformer block with layer normalization and GELU."""
    inputs = keras.Input((6, 4), name="window")
    x = layers.Dense(8)(inputs)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x))
    x = layers.LayerNormalization()(x + layers.Dense(8)(layers.Dense(12, activation="gelu")(x)))
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))


def embedding():
    """Token ids."""
    inputs = keras.Input((7,), dtype="int32", name="tokens")
    x = layers.Embedding(20, 6)(inputs)
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))


def several():
    """Two inputs and two outputs, by name."""
    inputs = {"left": keras.Input((6,), name="left"), "right": keras.Input((5,), name="right")}
    x = layers.Concatenate()([layers.Dense(4)(inputs["left"]), layers.Dense(4)(inputs["right"])])
    outputs = {"scores": layers.Dense(3, name="scores")(x), "angle": layers.Dense(1)(x)}
    return keras.Model(inputs, outputs)


STUDENTS = {f.__name__: f for f in (conv, conv1d, lstm, gru, attention, embedding, several)}


def data(model, count=64):
    """Random inputs by name: normal floats, ids below 20."""
    generator = np.random.default_rng(0)
    return {
        x.name: generator.integers(0, 20, (count, *x.shape[1:])).astype("int32")
        if x.dtype == "int32"
        else generator.standard_normal((count, *x.shape[1:])).astype("float32")
        for x in model.inputs
    }
