"""Small students of the kinds that users train, by name: see `zoo.STUDENTS` for seven more."""

import keras
import zoo
from zoo_layers import unsettled

from keras_distill import detection

layers, ops = keras.layers, keras.ops


def _dense_block(x, units):
    return layers.Concatenate()([x, layers.Conv2D(units, 3, padding="same", activation="relu")(x)])


def _inverted_residual(x, units):
    y = layers.Conv2D(4 * units, 1, use_bias=False)(x)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    return x + layers.BatchNormalization()(layers.Conv2D(units, 1, use_bias=False)(y))


def _transformer(x, units, causal=False):
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, units // 2)(y, y, use_causal_mask=causal)
    y = layers.LayerNormalization()(x)
    return x + layers.Dense(units)(layers.Dense(2 * units, activation="gelu")(y))


def perceptron(x):
    return layers.Dense(4)(layers.Dense(16, activation="relu")(layers.Dense(16, "relu")(x)))


def autoencoder(x):
    y = layers.Dense(12, activation="relu")(layers.Dense(4, activation="relu")(x))
    return layers.Dense(10)(y)


def highway(x):
    gate = layers.Dense(10, activation="sigmoid")(x)
    return gate * layers.Dense(10, activation="tanh")(x) + (1.0 - gate) * x


def experts(x):
    gates = layers.Dense(3, activation="softmax")(x)
    each = ops.stack([layers.Dense(4)(x) for _ in range(3)], axis=1)
    return ops.sum(each * ops.expand_dims(gates, -1), axis=1)


def residual(x):
    y = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(x))
    y = layers.ReLU()(x + layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(y)))
    return layers.Dense(4)(layers.GlobalAveragePooling2D()(y))


def mobilenet(x):
    x = _inverted_residual(layers.Conv2D(6, 3, strides=2, padding="same")(x), 6)
    return layers.Dense(4)(layers.GlobalAveragePooling2D()(x))


def squeeze_and_excite(x):
    y = layers.Conv2D(8, 3, padding="same", activation="silu")(x)
    scale = layers.GlobalAveragePooling2D(keepdims=True)(y)
    scale = layers.Conv2D(8, 1, activation="sigmoid")(layers.Conv2D(2, 1, activation="relu")(scale))
    return layers.Dense(4)(layers.Flatten()(layers.MaxPooling2D(4)(y * scale)))


def inception(x):
    parts = [
        layers.Conv2D(3, 1, activation="relu")(x),
        layers.Conv2D(3, 3, padding="same", activation="relu")(x),
        layers.Conv2D(3, 1)(layers.MaxPooling2D(3, 1, padding="same")(x)),
        layers.AveragePooling2D(3, 1, padding="same")(x),
    ]
    return layers.Dense(4)(layers.GlobalMaxPooling2D()(layers.Concatenate()(parts)))


def densenet(x):
    x = _dense_block(_dense_block(x, 4), 4)
    return layers.Dense(4)(layers.GlobalAveragePooling2D()(layers.AveragePooling2D(2)(x)))


def unet(x):
    down = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    low = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.MaxPooling2D(2)(down))
    up = layers.Conv2DTranspose(6, 2, strides=2)(low)
    return layers.Conv2D(2, 1, activation="sigmoid")(layers.Concatenate()([down, up]))


def segmentation(x):
    """Pyramid pooling."""
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    pooled = [layers.AveragePooling2D(k)(x) for k in (2, 4, 8)]
    sizes = (2, 4, 8)
    parts = [
        layers.UpSampling2D(k, interpolation="bilinear")(layers.Conv2D(2, 1)(y))
        for k, y in zip(sizes, pooled, strict=True)
    ]
    return layers.Conv2D(3, 1)(layers.Concatenate()([x, *parts]))


def super_resolution(x):
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.Reshape((8, 8, 2, 2, 2))(x)
    return layers.Reshape((16, 16, 2))(ops.transpose(x, (0, 1, 3, 2, 4, 5)))


def convnext(x):
    y = layers.LayerNormalization()(layers.DepthwiseConv2D(5, padding="same")(x))
    x = x + layers.Dense(4)(layers.Dense(12, activation="gelu")(y))
    return layers.Dense(4)(layers.GlobalAveragePooling2D()(x))


def shufflenet(x):
    left, right = ops.split(x, 2, axis=-1)
    y = layers.Concatenate()([left, layers.DepthwiseConv2D(3, padding="same")(right)])
    y = layers.Reshape((8, 8, 4))(layers.Permute((1, 2, 4, 3))(layers.Reshape((8, 8, 2, 2))(y)))
    return layers.Dense(4)(layers.GlobalMaxPooling2D()(layers.Conv2D(6, 1)(y)))


def detector(x):
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    classes = layers.Conv2D(3, 1)(x)
    return {
        "boxes": layers.Reshape((16, 4))(layers.Conv2D(4, 1)(x)),
        "classes": layers.Activation("sigmoid")(layers.Reshape((16, 3))(classes)),
    }


def vision_transformer(x):
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 2, strides=2)(x))
    return layers.Dense(4)(layers.GlobalAveragePooling1D()(_transformer(x, 8)))


def mixer(x):
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 2, strides=2)(x))
    y = layers.Dense(16)(layers.Dense(8, activation="relu")(layers.Permute((2, 1))(x)))
    x = x + layers.Permute((2, 1))(y)
    return layers.Dense(4)(layers.Flatten()(x + layers.Dense(8, activation="relu")(x)))


def temporal_convolution(x):
    for rate in (1, 2):
        y = layers.Conv1D(6, 3, padding="causal", dilation_rate=rate, activation="relu")(x)
        x = x + layers.Conv1D(6, 1)(y)
    return layers.Dense(3)(x[:, -1])


def wavenet(x):
    y = layers.Conv1D(6, 2, padding="causal", activation="tanh")(x)
    x = x + y * layers.Conv1D(6, 2, padding="causal", activation="sigmoid")(x)
    return layers.Dense(3)(layers.GlobalMaxPooling1D()(x))


def keywords(x):
    """A separable network for sounds."""
    x = layers.Reshape((8, 6, 1))(x)
    x = layers.Conv2D(6, (4, 3), strides=2, padding="same", activation="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = layers.Conv2D(6, 1, activation="relu")(x)
    return layers.Dense(4, activation="softmax")(
        layers.Flatten()(layers.AveragePooling2D((4, 3))(x))
    )


def gestures(x):
    x = layers.Conv1D(8, 3, activation="relu")(layers.BatchNormalization()(x))
    x = layers.Conv1D(8, 3, activation="relu")(layers.MaxPooling1D(2)(x))
    return layers.Dense(4)(layers.GlobalAveragePooling1D()(x))


def encoder(x):
    return layers.Dense(4)(layers.Flatten()(_transformer(layers.Dense(8)(x), 8)))


def decoder(x):
    return layers.Dense(5)(_transformer(layers.Dense(8)(x), 8, causal=True))


def recurrent_stack(x):
    x = layers.LSTM(6, return_sequences=True)(layers.Dense(6, activation="relu")(x))
    return layers.Dense(3)(layers.LSTM(4)(x))


def convolution_and_memory(x):
    x = layers.MaxPooling1D(2)(layers.Conv1D(6, 3, padding="same", activation="relu")(x))
    return layers.Dense(3)(layers.Bidirectional(layers.LSTM(4))(x))


def pooled_attention(x):
    weights = layers.Softmax(axis=1)(layers.Dense(1)(layers.Dense(6, activation="tanh")(x)))
    return layers.Dense(3)(ops.sum(x * weights, axis=1))


def statistics(x):
    return layers.Dense(3)(layers.Concatenate()([ops.mean(x, axis=1), ops.std(x, axis=1)]))


def text_convolution(x):
    x = layers.Embedding(20, 6)(x)
    parts = [layers.GlobalMaxPooling1D()(layers.Conv1D(4, k, activation="relu")(x)) for k in (2, 3)]
    return layers.Dense(3)(layers.Concatenate()(parts))


def text_transformer(x):
    x = layers.Embedding(20, 8)(x) + layers.Embedding(7, 8)(ops.arange(7))
    return layers.Dense(3)(layers.GlobalAveragePooling1D()(_transformer(x, 8)))


def text_memory(x):
    return layers.Dense(3)(layers.LSTM(5)(layers.Embedding(20, 6)(x)))


#: Two levels, edges as distributions.
HEAD = detection.Head((8, 8), (2, 4), ["red", "green", "blue"], "edges")


def detector_of_levels(x):
    fine = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    coarse = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(fine)
    fine = layers.Add()([fine, layers.UpSampling2D()(layers.Conv2D(8, 1)(coarse))])
    return {
        name: layers.Concatenate(axis=1)(
            [layers.Reshape((-1, *shape))(layers.Conv2D(n, 1)(y)) for y in (fine, coarse)]
        )
        for name, n, shape in (("classes", 3, (3,)), ("boxes", 24, (4, 6)))
    }


def detector_that_decodes(x):
    return detection.Decoded(HEAD, name="decoded")(detector_of_levels(x))


def detector_that_suppresses(x):
    return detection.Found(HEAD, score=0.3, most=10, name="found")(detector_of_levels(x))


def segmenter(x):
    """Down by strides, up by interpolation, to the scores of each pixel."""
    stages = [x]
    for units in (8, 12):
        y = layers.Conv2D(units, 3, strides=2, padding="same", use_bias=False)(stages[-1])
        stages.append(layers.ReLU()(layers.BatchNormalization()(y)))
    y = layers.UpSampling2D(interpolation="bilinear")(layers.Conv2D(8, 1)(stages[2]))
    y = layers.Conv2D(5, 1)(layers.Add()([y, stages[1]]))
    return layers.UpSampling2D(interpolation="bilinear", name="scores")(y)


#: What they take, and further arguments of `convert`.
_IMAGES, _SERIES, _IDS = (8, 8, 4), (8, 6), "ids"
_TAKES = {
    (10,): (perceptron, autoencoder, highway, experts),
    _IMAGES: (
        residual, mobilenet, squeeze_and_excite, inception, densenet, unet, segmentation,
        super_resolution, convnext, shufflenet, detector, vision_transformer, mixer,
    ),
    _SERIES: (
        temporal_convolution, wavenet, keywords, gestures, encoder, decoder, recurrent_stack,
        convolution_and_memory, pooled_attention, statistics,
    ),
    _IDS: (text_convolution, text_transformer, text_memory),
}  # fmt: skip


def _built(shape, function):
    keras.utils.set_random_seed(3)
    x = (
        keras.Input((7,), dtype="int32", name="x")
        if shape == "ids"
        else keras.Input(shape, name="x")
    )
    return unsettled(keras.Model(x, function(x)))


_DENSE = {_IMAGES: (detector_of_levels, detector_that_decodes, detector_that_suppresses, segmenter)}


def _of(takes):
    return {
        f.__name__: lambda shape=shape, f=f: _built(shape, f)
        for shape, functions in takes.items()
        for f in functions
    }


MODELS = {**_of(_TAKES), **zoo.STUDENTS, **_of(_DENSE)}
#: Layers that compute in float beside integers.
IN_FLOAT = {"detector_that_decodes": "decoded", "detector_that_suppresses": "found"}
#: Loops are for float files.
UNROLLED = {"gru"}
