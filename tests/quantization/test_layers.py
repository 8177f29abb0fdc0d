"""Each supported layer alone: what is simulated is what the kernels of both runtimes compute."""

import keras
import numpy as np
import pytest
from aware import MICRO, operators, steps_apart
from sweeps import rest_is_long

from keras_distill import quantization, tflite

layers = keras.layers
IMAGE, SEQUENCE, VECTOR = (8, 8, 4), (12, 4), (10,)


def conv(x, **options):
    return layers.Conv2D(4, 1, **options)(x)


def relu_norm(x):
    return layers.ReLU()(layers.BatchNormalization()(x))


# name: (input shape, layers, operators in the file)
CASES = {
    "conv": (IMAGE, lambda x: relu_norm(layers.Conv2D(8, 3, padding="same")(x)), "CONV_2D"),
    "groups": (IMAGE, lambda x: layers.Conv2D(8, 3, groups=2)(x), "CONV_2D"),
    "depthwise": (
        IMAGE,
        lambda x: relu_norm(layers.DepthwiseConv2D(3, depth_multiplier=2)(x)),
        "DEPTHWISE_CONV_2D",
    ),
    "transposed": (
        IMAGE,
        lambda x: relu_norm(layers.Conv2DTranspose(6, 3, strides=2, padding="same")(x)),
        "TRANSPOSE_CONV",
    ),
    "separable": (
        IMAGE,
        lambda x: layers.ReLU(6)(layers.SeparableConv2D(6, 3)(x)),
        "DEPTHWISE_CONV_2D CONV_2D",
    ),
    "conv 1d": (
        SEQUENCE,
        lambda x: relu_norm(layers.Conv1D(6, 3, padding="causal", dilation_rate=2)(x)),
        "PAD RESHAPE CONV_2D RESHAPE",
    ),
    "depthwise 1d": (
        SEQUENCE,
        lambda x: layers.DepthwiseConv1D(3)(x),
        "RESHAPE DEPTHWISE_CONV_2D RESHAPE",
    ),
    "dense": (VECTOR, lambda x: relu_norm(layers.Dense(6)(x)), "FULLY_CONNECTED"),
    "einsum": (
        SEQUENCE,
        lambda x: layers.EinsumDense("abc,cd->abd", (12, 6), bias_axes="d")(x),
        "FULLY_CONNECTED",
    ),
    "norm alone": (IMAGE, relu_norm, "DEPTHWISE_CONV_2D"),
    "rescaling": (IMAGE, lambda x: layers.Rescaling(0.3, 1.0)(x), "DEPTHWISE_CONV_2D"),
    "add": (IMAGE, lambda x: layers.ReLU()(layers.Add()([x, conv(x)])), "CONV_2D ADD"),
    "add three": (IMAGE, lambda x: layers.Add()([x, conv(x), x]), "CONV_2D ADD ADD"),
    "operators": (IMAGE, lambda x: (x - conv(x)) * x, "CONV_2D SUB MUL"),
    "concatenate": (
        IMAGE,
        lambda x: layers.Concatenate()([layers.MaxPooling2D(1)(conv(x)), x, conv(x)]),
        "CONV_2D MAX_POOL_2D CONV_2D CONCATENATION",
    ),
    "maximum": (IMAGE, lambda x: layers.Maximum()([x, conv(x)]), "CONV_2D MAXIMUM"),
    "mean": (IMAGE, lambda x: layers.GlobalAveragePooling2D()(x), "MEAN"),
    "pooling": (
        IMAGE,
        lambda x: layers.AveragePooling2D(2)(layers.ReLU()(layers.MaxPooling2D(2)(x))),
        "MAX_POOL_2D AVERAGE_POOL_2D",
    ),
    "shapes": (
        IMAGE,
        lambda x: layers.Reshape((-1, 4))(
            layers.Permute((2, 1, 3))(layers.Cropping2D(1)(layers.ZeroPadding2D(2)(x)))[:, 1:5]
        ),
        "PAD STRIDED_SLICE TRANSPOSE STRIDED_SLICE RESHAPE",
    ),
    "nearest": (IMAGE, lambda x: layers.UpSampling2D(2)(x), "RESIZE_NEAREST_NEIGHBOR"),
    "bilinear": (IMAGE, lambda x: layers.Resizing(12, 12)(x), "RESIZE_BILINEAR"),
    "softmax": (
        VECTOR,
        lambda x: layers.Dense(6, activation="softmax")(x),
        "FULLY_CONNECTED SOFTMAX",
    ),
    "sigmoid": (IMAGE, lambda x: layers.Activation("sigmoid")(x), "LOGISTIC"),
    "tanh": (IMAGE, lambda x: layers.Activation("tanh")(x), "TANH"),
    "hard sigmoid": (IMAGE, lambda x: layers.Activation("hard_sigmoid")(x), "DEPTHWISE_CONV_2D"),
    "hard swish": (IMAGE, lambda x: layers.Activation("hard_swish")(x), "HARD_SWISH"),
    "swish": (IMAGE, lambda x: layers.Activation("swish")(x), "LOGISTIC MUL"),
    "leaky": (IMAGE, lambda x: layers.LeakyReLU(0.2)(x), "LEAKY_RELU"),
    "prelu": (IMAGE, lambda x: layers.PReLU(shared_axes=[1, 2])(x), "PRELU"),
    "matmul": (
        SEQUENCE,
        lambda x: keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1))),
        "BATCH_MATMUL",
    ),
}
# Several kernels in a row, whose differences of a step add up.
CHAINS = {
    "embedding": (
        (7,),
        lambda x: layers.GlobalAveragePooling1D()(layers.Embedding(20, 6)(x)),
        "GATHER MEAN",
    ),
    "layer norm": (
        (6, 16),
        lambda x: layers.LayerNormalization()(x),
        "MEAN SUB MUL MEAN RESHAPE DEPTHWISE_CONV_2D RESHAPE RSQRT MUL RESHAPE DEPTHWISE_CONV_2D "
        "RESHAPE",
    ),
    "attention": ((6, 16), lambda x: layers.MultiHeadAttention(2, 8)(x, x), None),
}
#: One of each role, which `make test` runs.
SHORT = (
    *("conv", "depthwise", "dense", "add", "concatenate", "mean", "bilinear", "softmax"),
    *("prelu", "layer norm"),
)


def build(shape, function, rng):
    """A model of the layers with weights that leave nothing at its default, and inputs for it."""
    is_index = shape == (7,)
    x = keras.Input(shape, dtype="int32" if is_index else "float32", name="x")
    model = keras.Model(x, function(x))
    for variable in model.weights:
        name = variable.path.split("/")[-1]
        if name == "moving_variance":
            variable.assign(rng.uniform(0.5, 2, variable.shape))
        elif name in ("bias", "beta", "gamma", "moving_mean", "alpha"):
            variable.assign(rng.normal(0, 0.5, variable.shape))
    if is_index:
        return model, rng.integers(0, 20, (96, *shape)).astype("int32")
    return model, rng.normal(0, 1, (96, *shape)).astype("float32")


@pytest.fixture(scope="module")
def files():
    """The quantize-aware model, file and inputs of each case, made once."""
    made = {}

    def make(name, bits=8):
        if (name, bits) not in made:
            rng = np.random.default_rng(0)
            keras.utils.set_random_seed(0)
            shape, function, _ = {**CASES, **CHAINS}[name]
            model, x = build(shape, function, rng)
            aware = quantization.quantize_aware(model, x, activation_bits=bits)
            io = f"int{bits}"
            made[name, bits] = aware, tflite.convert(aware, io=io).tflite, x
        return made[name, bits]

    return make


@pytest.mark.parametrize("name", rest_is_long([*CASES, *CHAINS], SHORT))
def test_the_file_holds_the_integer_operators(name, files):
    _, file, _ = files(name)
    expected = {**CASES, **CHAINS}[name][2]
    if expected is not None:
        assert " ".join(operators(file)) == expected


@pytest.mark.parametrize("runtime", ["litert-reference", MICRO])
@pytest.mark.parametrize("name", rest_is_long(CASES, set(SHORT) & set(CASES)))
def test_kernels_are_within_a_step_of_the_simulation(name, runtime, files):
    aware, file, x = files(name)
    apart = steps_apart(aware, file, [x], runtime)
    is_chain = len({"separable", "add", "add three", "softmax"} & {name}) > 0
    assert apart.max() <= 1 + is_chain
    # One kernel differs where two steps are equally near; means are rounded twice.
    assert (apart > 1).mean() < 1e-2
    assert apart.mean() < (0.3 if name in ("mean", "pooling", "bilinear", "leaky") else 0.02)


@pytest.mark.parametrize("runtime", ["litert-reference", MICRO])
@pytest.mark.parametrize("name", rest_is_long(CHAINS, set(SHORT) & set(CHAINS)))
def test_chains_of_kernels_are_close_to_the_simulation(name, runtime, files):
    aware, file, x = files(name)
    apart = steps_apart(aware, file, [x], runtime)
    assert apart.max() <= 4
    assert apart.mean() < 0.3


@pytest.mark.parametrize(
    "name",
    rest_is_long(["conv", "add", "concatenate", "mean", "softmax", "dense"], ["add", "dense"]),
)
def test_activations_of_16_bits(name, files):
    aware, file, x = files(name, 16)
    assert steps_apart(aware, file, [x]).max() <= 3
