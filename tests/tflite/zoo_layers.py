"""Keras' layers, one by one, by the shape of what they take. They're exported together.

Each stands behind a small dense layer (token ids: behind nothing), so that what it takes is
computed, and is an output by its name.
"""

import keras
import numpy as np

layers, ops = keras.layers, keras.ops


def _activation(name):
    return lambda x: layers.Activation(name)(x)


def _with_its_double(layer, **options):
    return lambda x: layer(**options)([x, layers.Dense(x.shape[-1])(x)])


def _recurrent(layer, **options):
    return lambda x: layer(**options)(x)


ACTIVATIONS = (
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "tanh", "sigmoid",
    "hard_sigmoid", "hard_silu", "hard_tanh", "softplus", "softsign", "softmax", "log_softmax",
    "log_sigmoid", "exponential", "squareplus", "sparse_plus", "sparsemax", "soft_shrink",
    "hard_shrink", "tanh_shrink", "glu",
)  # fmt: skip
OPERATIONS = {
    "abs": ops.abs,
    "square": ops.square,
    "sqrt": lambda x: ops.sqrt(ops.abs(x) + 0.1),
    "rsqrt": lambda x: ops.rsqrt(ops.abs(x) + 0.5),
    "exp": ops.exp,
    "log": lambda x: ops.log(ops.abs(x) + 0.5),
    "sin": ops.sin,
    "cos": ops.cos,
    "floor": ops.floor,
    "round": ops.round,
    "clip": lambda x: ops.clip(x, -0.5, 0.8),
    "divide": lambda x: x / (1.0 + ops.abs(x[:, ::-1])),
    "mean": lambda x: ops.mean(x, axis=-1),
    "sum": lambda x: ops.sum(x, axis=1),
    "max": lambda x: ops.max(x, axis=1),
    "min": lambda x: ops.min(x, axis=1),
    "prod": lambda x: ops.prod(1.0 + 0.1 * x, axis=-1),
    "std": lambda x: ops.std(x, axis=1),
    "var": lambda x: ops.var(x, axis=1),
    "cumsum": lambda x: ops.cumsum(x, axis=1),
    "transpose": lambda x: ops.transpose(x, (0, 2, 1)),
    "stack": lambda x: ops.stack([x, 2 * x], axis=1),
    "split": lambda x: ops.split(x, 2, axis=-1)[1],
    "slice": lambda x: x[:, 1:7:2],
    "pad": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 0))),
    "threshold": lambda x: ops.threshold(x, 0.3, 0.1),
    "where": lambda x: ops.where(x > 0, x, 0.1 * x),
    "matmul": lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))),
    "einsum": lambda x: ops.einsum("btc,bsc->bts", x, x),
    "flip": lambda x: ops.flip(x, axis=1),
    "roll": lambda x: ops.roll(x, 2, axis=1),
    "take": lambda x: ops.take(x, [3, 0, 5], axis=1),
    "argmax": lambda x: ops.argmax(x, axis=-1),
    "top_k": lambda x: ops.top_k(x, 2)[0],
    "sort": lambda x: ops.sort(x, axis=-1),
    "normalize": lambda x: ops.normalize(x, axis=-1),
}

#: By the shape of what they take.
LAYERS = {
    (8, 8, 4): {
        "Conv2D": lambda x: layers.Conv2D(6, 3, padding="same")(x),
        "Conv2D strided": lambda x: layers.Conv2D(6, 3, strides=2, activation="relu")(x),
        "Conv2D dilated": lambda x: layers.Conv2D(6, 3, dilation_rate=2)(x),
        "Conv2D grouped": lambda x: layers.Conv2D(6, 3, groups=2)(x),
        "DepthwiseConv2D": lambda x: layers.DepthwiseConv2D(3, padding="same")(x),
        "DepthwiseConv2D multiplied": lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2)(x),
        "SeparableConv2D": lambda x: layers.SeparableConv2D(6, 3)(x),
        "Conv2DTranspose": lambda x: layers.Conv2DTranspose(6, 3, strides=2, padding="same")(x),
        "MaxPooling2D": lambda x: layers.MaxPooling2D(2)(x),
        "MaxPooling2D overlapping": lambda x: layers.MaxPooling2D(3, 2, padding="same")(x),
        "AveragePooling2D": lambda x: layers.AveragePooling2D(2)(x),
        "AveragePooling2D overlapping": lambda x: layers.AveragePooling2D(3, 2, padding="same")(x),
        "AdaptiveAveragePooling2D": lambda x: layers.AdaptiveAveragePooling2D(3)(x),
        "AdaptiveMaxPooling2D": lambda x: layers.AdaptiveMaxPooling2D(4)(x),
        "GlobalAveragePooling2D": lambda x: layers.GlobalAveragePooling2D()(x),
        "GlobalMaxPooling2D": lambda x: layers.GlobalMaxPooling2D(keepdims=True)(x),
        "BatchNormalization": lambda x: layers.BatchNormalization()(x),
        "GroupNormalization": lambda x: layers.GroupNormalization(2)(x),
        "SpectralNormalization": lambda x: layers.SpectralNormalization(layers.Conv2D(4, 3))(x),
        "ZeroPadding2D": lambda x: layers.ZeroPadding2D((1, 2))(x),
        "Cropping2D": lambda x: layers.Cropping2D((1, 2))(x),
        "CenterCrop": lambda x: layers.CenterCrop(5, 6)(x),
        "UpSampling2D": lambda x: layers.UpSampling2D(2)(x),
        "UpSampling2D bilinear": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x),
        "UpSampling2D bicubic": lambda x: layers.UpSampling2D(2, interpolation="bicubic")(x),
        "Resizing": lambda x: layers.Resizing(5, 7)(x),
        "Rescaling": lambda x: layers.Rescaling([0.5, 1, 2, 1], offset=[0, 1, 0, -1])(x),
        "Normalization": lambda x: layers.Normalization(mean=[0.1] * 4, variance=[2.0] * 4)(x),
        "Permute": lambda x: layers.Permute((3, 1, 2))(x),
        "Flatten": lambda x: layers.Flatten()(x),
        "Reshape": lambda x: layers.Reshape((16, 16))(x),
        "SpatialDropout2D": lambda x: layers.SpatialDropout2D(0.3)(x),
        "RandomFlip": lambda x: layers.RandomFlip()(x),
        "TimeDistributed": lambda x: layers.TimeDistributed(layers.Conv1D(4, 3))(x),
        "ConvLSTM1D": lambda x: layers.ConvLSTM1D(3, 3)(x),
    },
    (8, 6): {
        "Conv1D": lambda x: layers.Conv1D(6, 3, activation="relu")(x),
        "Conv1D causal": lambda x: layers.Conv1D(6, 3, padding="causal", dilation_rate=2)(x),
        "Conv1D strided": lambda x: layers.Conv1D(6, 3, strides=2, padding="same")(x),
        "DepthwiseConv1D": lambda x: layers.DepthwiseConv1D(3)(x),
        "SeparableConv1D": lambda x: layers.SeparableConv1D(6, 3)(x),
        "Conv1DTranspose": lambda x: layers.Conv1DTranspose(6, 3, strides=2)(x),
        "MaxPooling1D": lambda x: layers.MaxPooling1D(2)(x),
        "AveragePooling1D": lambda x: layers.AveragePooling1D(2)(x),
        "AdaptiveAveragePooling1D": lambda x: layers.AdaptiveAveragePooling1D(3)(x),
        "GlobalAveragePooling1D": lambda x: layers.GlobalAveragePooling1D()(x),
        "GlobalMaxPooling1D": lambda x: layers.GlobalMaxPooling1D()(x),
        "UpSampling1D": lambda x: layers.UpSampling1D(2)(x),
        "ZeroPadding1D": lambda x: layers.ZeroPadding1D(2)(x),
        "Cropping1D": lambda x: layers.Cropping1D((1, 2))(x),
        "Dense": lambda x: layers.Dense(5)(x),
        "EinsumDense": lambda x: layers.EinsumDense("btc,cd->btd", (None, 5), bias_axes="d")(x),
        "LayerNormalization": lambda x: layers.LayerNormalization()(x),
        "RMSNormalization": lambda x: layers.RMSNormalization()(x),
        "UnitNormalization": lambda x: layers.UnitNormalization()(x),
        "MultiHeadAttention": lambda x: layers.MultiHeadAttention(2, 3)(x, x),
        "MultiHeadAttention causal": lambda x: layers.MultiHeadAttention(2, 3)(
            x, x, use_causal_mask=True
        ),
        "GroupQueryAttention": lambda x: layers.GroupQueryAttention(3, 4, 2)(x, x),
        "Attention": lambda x: layers.Attention()([x, layers.Dense(6)(x)]),
        "AdditiveAttention": lambda x: layers.AdditiveAttention()([x, layers.Dense(6)(x)]),
        "PReLU": lambda x: layers.PReLU()(x),
        "Softmax": lambda x: layers.Softmax(axis=1)(x),
        "Add": _with_its_double(layers.Add),
        "Subtract": _with_its_double(layers.Subtract),
        "Multiply": _with_its_double(layers.Multiply),
        "Average": _with_its_double(layers.Average),
        "Maximum": _with_its_double(layers.Maximum),
        "Minimum": _with_its_double(layers.Minimum),
        "Concatenate": _with_its_double(layers.Concatenate, axis=1),
        "Dot": _with_its_double(layers.Dot, axes=2),
        "Dropout": lambda x: layers.Dropout(0.3)(x),
        "GaussianNoise": lambda x: layers.GaussianNoise(0.3)(x),
        "AlphaDropout": lambda x: layers.AlphaDropout(0.3)(x),
        "ActivityRegularization": lambda x: layers.ActivityRegularization(0.1)(x),
        "Lambda": lambda x: layers.Lambda(lambda y: 2 * y, output_shape=lambda s: s)(x),
        **{f"Activation {name}": _activation(name) for name in ACTIVATIONS},
        **{f"ops.{name}": function for name, function in OPERATIONS.items()},
    },
    # A loop or an operator of its own each, apart from the others for what they take to convert.
    (5, 6): {
        "LSTM": lambda x: layers.LSTM(4)(x),
        "LSTM sequences": lambda x: layers.LSTM(4, return_sequences=True)(x),
        "Bidirectional": lambda x: layers.Bidirectional(layers.LSTM(3))(x),
    },
    (4, 6): {
        "GRU": lambda x: layers.GRU(4)(x),
        "SimpleRNN": lambda x: layers.SimpleRNN(4)(x),
        "LSTM masked": lambda x: layers.LSTM(4)(layers.Masking()(x)),
        "RNN": lambda x: layers.RNN(layers.GRUCell(4))(x),
        "ConvLSTM of pairs": lambda x: layers.ConvLSTM1D(2, 2)(layers.Reshape((4, 3, 2))(x)),
    },
    (10,): {
        "RepeatVector": lambda x: layers.RepeatVector(3)(x),
        "Discretization": lambda x: layers.Discretization([-0.5, 0.5])(x),
        "Dense wide": lambda x: layers.Dense(40, activation="tanh")(x),
        "Identity": lambda x: layers.Identity()(x),
    },
    (4, 4, 4, 2): {
        "Conv3D": lambda x: layers.Conv3D(3, 2)(x),
        "Conv3DTranspose": lambda x: layers.Conv3DTranspose(3, 2, strides=2)(x),
        "MaxPooling3D": lambda x: layers.MaxPooling3D(2)(x),
        "AveragePooling3D": lambda x: layers.AveragePooling3D(2)(x),
        "GlobalAveragePooling3D": lambda x: layers.GlobalAveragePooling3D()(x),
        "UpSampling3D": lambda x: layers.UpSampling3D(2)(x),
        "ZeroPadding3D": lambda x: layers.ZeroPadding3D(1)(x),
        "Cropping3D": lambda x: layers.Cropping3D(1)(x),
    },
}
#: Those that take token ids.
OF_IDS = {
    "Embedding": lambda x: layers.Embedding(20, 4)(x),
    "Embedding masked": lambda x: layers.GlobalAveragePooling1D()(
        layers.Embedding(20, 4, mask_zero=True)(x)
    ),
    "CategoryEncoding": lambda x: layers.CategoryEncoding(20, output_mode="one_hot")(x),
    "CategoryEncoding of several": lambda x: layers.CategoryEncoding(20)(x),
    "ops.one_hot": lambda x: ops.one_hot(x, 20),
}


def unsettled(model):
    """The model with weights, statistics and biases that differ from each other."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if variable.dtype == "float32":
            noise = rng.normal(size=variable.shape)
            spread = np.abs(noise) if "variance" in variable.path else noise
            variable.assign_add(0.1 * spread.astype("float32"))
    return model


def together(shape, names):
    """A model of several layers that take the same, each an output of its name."""
    keras.utils.set_random_seed(3)
    if shape == "ids":
        x = stem = keras.Input((7,), dtype="int32", name="x")
        functions = OF_IDS
    else:
        x = keras.Input(shape, name="x")
        stem = layers.Dense(shape[-1], name="stem")(x)
        functions = LAYERS[shape]
    outputs = {output_of(name): functions[name](stem) for name in names}
    return unsettled(keras.Model(x, outputs))


def output_of(name):
    """The output that a layer is in a model of several."""
    return name.replace(" ", "_").replace(".", "_")
