"""Small students over time, and what a stream of them is expected to be."""

import keras
import numpy as np

layers = keras.layers


def _model(shape, *parts):
    return keras.Sequential([keras.Input(shape, name="frames"), *parts])


def causal():
    """Causal and dilated convolutions with an output for each frame."""
    return _model(
        (16, 4),
        layers.Conv1D(5, 3, padding="causal", activation="relu", name="first"),
        layers.Conv1D(5, 3, padding="causal", dilation_rate=2, name="second"),
        layers.BatchNormalization(),
        layers.Dense(3),
    )


def valid():
    """Strides, branches of other lengths, and both kinds of pooling over the window."""
    inputs = keras.Input((17, 4), name="frames")
    x = layers.Conv1D(6, 3, activation="relu")(inputs)
    x = layers.Conv1D(6, 3, strides=2)(x)
    a = layers.GlobalAveragePooling1D()(x)
    b = layers.GlobalMaxPooling1D()(layers.SeparableConv1D(6, 3)(x))
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()([a, b])))


def flat():
    """Pooling with and without stride, and a dense layer over the window."""
    return _model(
        (20, 4),
        layers.Conv1D(5, 3, activation="relu"),
        layers.MaxPooling1D(2),
        layers.AveragePooling1D(3, strides=1),
        layers.Flatten(),
        layers.Dense(3),
    )


def same():
    """`"same"` padding, with strides, pooling, and over time and frequency."""
    return _model(
        (16, 6, 1),
        layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.DepthwiseConv2D((5, 3), padding="same"),
        layers.Conv2D(4, (3, 1), strides=(2, 1), padding="same"),
        layers.MaxPooling2D((3, 2), strides=(1, 2), padding="same"),
        layers.Reshape((8, 12)),
        layers.Dense(3, activation="softmax"),
    )


def spectral():
    """Over time and frequency: dilated, separable, pooling with a stride, and two outputs of it."""
    inputs = keras.Input((20, 8, 2), name="frames")
    x = layers.Conv2D(4, 3, dilation_rate=(2, 1), activation="relu")(inputs)
    x = layers.SeparableConv2D(4, 3, activation="relu")(x)
    x = layers.AveragePooling2D((2, 2))(x)
    a = layers.Dense(3, name="flat")(layers.Flatten()(x))
    return keras.Model(inputs, [a, layers.Dense(3, name="largest")(layers.GlobalMaxPooling2D()(x))])


def gated():
    """Groups, a stride in a causal convolution, a gate, normalization of channels, dropout."""
    inputs = keras.Input((16, 4), name="frames")
    x = layers.DepthwiseConv1D(3, padding="same", activation="relu")(inputs)
    x = layers.Conv1D(4, 3, groups=2, strides=2, padding="causal", activation="relu")(x)
    gate = layers.Conv1D(4, 3, padding="causal", activation="sigmoid")(x)
    x = layers.SpatialDropout1D(0.1)(layers.Multiply()([x, gate]))
    return keras.Model(inputs, layers.Dense(3)(x))


def residual():
    """Branches that look ahead differently far."""
    inputs = keras.Input((16, 4), name="frames")
    x = layers.Conv1D(6, 3, padding="causal", activation="relu")(inputs)
    y = layers.Add()([layers.Conv1D(6, 3, padding="same")(x), x])
    y = layers.Concatenate()([y, layers.Conv1D(6, 5, padding="causal")(x)])
    y = layers.Add()([layers.Conv1D(6, 3)(y), layers.Cropping1D((2, 0))(x)])
    return keras.Model(inputs, layers.Dense(3)(y))


def pooled():
    """`"same"` padding below global pooling: windows differ at their edges."""
    return _model(
        (16, 6, 1),
        layers.Conv2D(5, 3, padding="same", activation="relu", name="stem"),
        layers.AveragePooling2D((2, 2)),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3),
    )


def spanning():
    """A kernel over the whole window, and layers after it."""
    return _model(
        (12, 4),
        layers.Conv1D(5, 3, activation="relu"),
        layers.Conv1D(6, 10, activation="relu"),
        layers.Conv1D(5, 1),
        layers.Flatten(),
        layers.Dense(3),
    )


def lstm():
    """A recurrent layer on a convolution."""
    return _model(
        (12, 4),
        layers.Conv1D(5, 3, padding="causal", name="conv1d"),
        layers.LSTM(4, return_sequences=True),
        layers.Dense(2),
    )


def gru():
    """Recurrent layers, one on the other, on convolutions with a stride."""
    return _model(
        (12, 4),
        layers.Conv1D(5, 3, strides=2, padding="causal", activation="relu"),
        layers.GRU(4, return_sequences=True, name="memory"),
        layers.SimpleRNN(3, return_sequences=True, name="plain"),
        layers.Dense(2),
    )


def late():
    """Recurrent layers after convolutions that need several frames first."""
    return _model(
        (14, 4),
        layers.Conv1D(5, 3, activation="relu"),
        layers.LSTM(4, return_sequences=True, name="memory"),
        layers.GRU(3, return_sequences=True, reset_after=False, name="gate"),
        layers.Dense(2),
    )


def last():
    """A recurrent layer whose state is the output."""
    return _model((12, 4), layers.Conv1D(5, 3, activation="relu"), layers.GRU(3, name="memory"))


#: Students whose every output can be compared, and the hops to compare with.
STUDENTS = {
    causal: (1, 3),
    valid: (2, 4),
    flat: (2, 6),
    same: (2, 4),
    spectral: (2, 6),
    gated: (2, 4),
    residual: (1, 5),
    spanning: (1, 4),
}


def windows(student, count=40):
    """Data for a student."""
    shape = (count, *student.input_shape[1:])
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def recordings(student, frames, count=2):
    """Recordings of several windows."""
    shape = (count, frames, *student.input_shape[2:])
    return np.random.default_rng(1).normal(size=shape).astype("float32")
