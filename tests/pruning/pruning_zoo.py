"""Small models of every shape that units are followed through."""

import keras
import numpy as np
from keras import layers


def _conv(x, filters, size=3, name=None, **options):
    x = layers.Conv2D(filters, size, padding="same", use_bias=False, name=name, **options)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def residual():
    inputs = keras.Input((8, 8, 3))
    x = _conv(inputs, 8, name="stem")
    for i in range(2):
        y = layers.Conv2D(8, 3, padding="same", name=f"second_{i}")(_conv(x, 12, name=f"first_{i}"))
        x = layers.ReLU()(layers.Add()([x, layers.BatchNormalization()(y)]))
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


def gated_depthwise():
    """Inverted bottlenecks with squeeze and excitation, as in MobileNetV3."""
    inputs = keras.Input((8, 8, 3))
    x = _conv(inputs, 8)
    y = _conv(x, 16, 1, name="expand")
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    y = layers.Activation("hard_silu")(layers.BatchNormalization()(y))
    gate = layers.GlobalAveragePooling2D()(y)
    gate = layers.Dense(4, activation="relu", name="squeeze")(gate)
    gate = layers.Dense(16, activation="sigmoid", name="excite")(gate)
    y = layers.Multiply()([y, layers.Reshape((1, 1, 16))(gate)])
    x = layers.Add()([x, layers.BatchNormalization()(layers.Conv2D(8, 1, name="project")(y))])
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, activation="relu", name="separable")(x)
    return keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))


def concatenated():
    """Dense blocks, a branch with operators, and PReLU."""
    inputs = keras.Input((8, 8, 3))
    x = _conv(inputs, 6)
    x = layers.Concatenate()([x, _conv(x, 4)])
    x = layers.Concatenate()([x, layers.PReLU(shared_axes=(1, 2))(layers.Conv2D(4, 1)(x))])
    x = layers.MaxPooling2D()(x) + 2.0 * layers.AveragePooling2D(2)(x)
    x = keras.ops.relu(layers.Conv2D(8, 3, padding="same")(x))
    return keras.Model(inputs, layers.Dense(5)(keras.ops.mean(x, axis=(1, 2))))


def grouped():
    inputs = keras.Input((8, 8, 4))
    x = _conv(inputs, 16, name="stem")
    x = _conv(x, 16, groups=4, name="groups")
    x = _conv(x, 32, groups=16, name="one_each")
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalMaxPooling2D()(x)))


def autoencoder():
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="tanh")(x)
    x = layers.Dense(12, activation="gelu")(layers.Flatten()(x))
    x = layers.Reshape((2, 2, 8))(layers.Dense(32, activation="relu")(x))
    x = layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.UpSampling2D()(layers.ZeroPadding2D(1)(layers.Cropping2D(1)(x)))
    return keras.Model(inputs, layers.Conv2DTranspose(1, 3, padding="same")(x))


def recurrent():
    inputs = keras.Input((6, 4))
    x = layers.Conv1D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.LSTM(6, return_sequences=True, name="lstm")(x)
    x = layers.GRU(6, return_sequences=True, name="gru")(x)
    x = layers.SimpleRNN(6, name="rnn")(layers.Dropout(0.1)(x))
    return keras.Model(inputs, layers.Dense(3)(x))


def transformer():
    """Heads and the width between the two dense layers may leave, not what is normalized."""
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, name="words")(inputs)
    y = layers.MultiHeadAttention(4, 3, name="attention")(x, x)
    x = layers.LayerNormalization(name="norm")(x + y)
    y = layers.Dense(8)(layers.Dense(16, activation="gelu", name="wide")(x))
    x = layers.LayerNormalization()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def attention_on_maps():
    """Attention without normalization: the width may leave, too."""
    inputs = keras.Input((6, 4))
    x = layers.Conv1D(8, 3, padding="same", activation="relu")(inputs)
    y = layers.MultiHeadAttention(2, 3, value_dim=2)(x, x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Add()([x, y]))))


def siamese():
    """A model inside that is called twice, and layers that are shared."""
    tower = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(12, activation="relu"),
            layers.Dense(8, activation="relu", name="code"),
        ],
        name="tower",
    )
    left, right = keras.Input((8,), name="left"), keras.Input((8,), name="right")
    shared = layers.Dense(10, activation="relu", name="shared")
    a, b = shared(tower(left)), shared(tower(right))
    inner_inputs = keras.Input((10,)), keras.Input((10,))
    inner = keras.Model(inner_inputs, layers.Dense(6)(layers.Subtract()(inner_inputs)), name="join")
    outputs = {"near": layers.Dense(1, name="near")(inner([a, b])), "kind": layers.Dense(3)(a)}
    return keras.Model({"left": left, "right": right}, outputs)


def broadcast():
    """One channel that is spread over several."""
    inputs = keras.Input((8,))
    x = layers.Dense(8, activation="relu")(inputs)
    total = layers.Add()([layers.Dense(8)(x), layers.Dense(1)(x)])
    product = layers.Multiply()([layers.Dense(8, activation="sigmoid")(x), layers.Dense(1)(x)])
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()([total, product])))


def stack():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 2),
            layers.Conv2D(8, 3, activation="relu", name="first"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Conv2D(12, 3, activation="relu", name="second"),
            layers.Flatten(),
            layers.Dense(16, activation="relu", name="hidden"),
            layers.Dense(10, name="scores"),
        ],
        name="stack",
    )


MODELS = {
    function.__name__: function
    for function in (
        *(residual, gated_depthwise, concatenated, grouped, autoencoder, recurrent, transformer),
        *(attention_on_maps, siamese, broadcast, stack),
    )
}


def inputs(model, samples=3):
    rng = np.random.default_rng(0)

    def draw(x):
        shape = (samples, *x.shape[1:])
        if x.dtype == "int32":
            return rng.integers(0, 20, shape).astype("int32")
        return rng.standard_normal(shape).astype("float32")

    given = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(draw, given)


def with_random_weights(model):
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if "seed" in weight.path:
            continue
        is_variance = "variance" in weight.path
        draw = (
            rng.uniform(0.2, 1, weight.shape) if is_variance else rng.normal(0, 0.4, weight.shape)
        )
        weight.assign(draw)
    return model
