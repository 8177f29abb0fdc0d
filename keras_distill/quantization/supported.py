"""What the integer kernels of TFLite can do with each Keras layer."""

import keras
from keras import layers

from keras_distill.quantization import layers as quantized

# Nothing happens to the tensor at inference.
IDENTITY = {
    layers.ActivityRegularization,
    layers.AlphaDropout,
    layers.Dropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
}

# The kernel wants one scale for all inputs and the output, or only moves values about.
SAME_RANGE = {
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.Concatenate,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Flatten,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.Maximum,
    layers.Minimum,
    layers.Permute,
    layers.RepeatVector,
    layers.Reshape,
    layers.Resizing,
    layers.UpSampling1D,
    layers.UpSampling2D,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
}
SAME_RANGE_OPERATIONS = {
    "Concatenate",
    "ExpandDims",
    "GetItem",
    "Maximum",
    "Minimum",
    "Reshape",
    "Squeeze",
    "Transpose",
}

# The output has a range of its own.
OWN_RANGE = {
    layers.Embedding,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.Normalization,
    layers.Rescaling,
}
OWN_RANGE_OPERATIONS = {"Matmul", "Mean"}

# Layers that sum, subtract or multiply two tensors at a time.
ARITHMETIC = {
    layers.Add: layers.Add,
    layers.Multiply: layers.Multiply,
    layers.Subtract: layers.Subtract,
}
ARITHMETIC_OPERATIONS = {"Add", "Multiply", "Subtract"}

# Layers with a kernel, and their counterparts with a rounded one.
WEIGHTS = {
    layers.Conv1D: quantized.QuantizedConv1D,
    layers.Conv1DTranspose: quantized.QuantizedConv1DTranspose,
    layers.Conv2D: quantized.QuantizedConv2D,
    layers.Conv2DTranspose: quantized.QuantizedConv2DTranspose,
    layers.Dense: quantized.QuantizedDense,
    layers.DepthwiseConv1D: quantized.QuantizedDepthwiseConv1D,
    layers.DepthwiseConv2D: quantized.QuantizedDepthwiseConv2D,
}
SEPARABLE = {
    layers.SeparableConv1D: (quantized.QuantizedDepthwiseConv1D, quantized.QuantizedConv1D),
    layers.SeparableConv2D: (quantized.QuantizedDepthwiseConv2D, quantized.QuantizedConv2D),
}
# Kernels that read weights of 4 bits in LiteRT and in TFLite Micro.
WITH_INT4 = (
    quantized.QuantizedConv1D,
    quantized.QuantizedConv2D,
    quantized.QuantizedDense,
    quantized.QuantizedDepthwiseConv1D,
    quantized.QuantizedDepthwiseConv2D,
)

RELU = {"relu", "relu6"}
# Activations whose kernel prescribes the range of the output, and whether it holds negatives.
FIXED_RANGE = {"hard_sigmoid": False, "sigmoid": False, "softmax": False, "tanh": True}
OTHER_ACTIVATIONS = {"elu", "gelu", "hard_silu", "leaky_relu", "silu"}
WITHOUT_INT16 = {"elu", "hard_silu"}
_ACTIVATION_OPERATIONS = {
    "Elu": "elu",
    "Gelu": "gelu",
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
    "LeakyRelu": "leaky_relu",
    "Relu": "relu",
    "Relu6": "relu6",
    "Sigmoid": "sigmoid",
    "Silu": "silu",
    "Softmax": "softmax",
    "Tanh": "tanh",
}


def is_functional(model) -> bool:
    """Whether a model is a graph of layers: Functional, or a built Sequential."""
    return graph_of(model) is not None


def graph_of(model):
    """The Functional model behind a Functional or Sequential one, or `None`."""
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if hasattr(model, "_nodes_by_depth") else None


def operation_name(operation) -> str | None:
    """The class name of an operation of `keras.ops`, `None` for layers."""
    if isinstance(operation, keras.layers.Layer):
        return None
    is_of_keras = type(operation).__module__.startswith("keras.")
    return type(operation).__name__ if is_of_keras else None


def activation_of(operation) -> str | None:
    """Name of the activation function that a layer or operation is, or `None`."""
    kind = type(operation)
    if kind is layers.Activation:
        return name_of(operation.activation)
    if kind is layers.ReLU:
        if operation.threshold or operation.max_value not in (None, 6):
            return f"ReLU(max_value={operation.max_value}, threshold={operation.threshold})"
        if operation.negative_slope:
            return "leaky_relu" if operation.max_value is None else "ReLU with slope and maximum"
        return "relu" if operation.max_value is None else "relu6"
    if kind is layers.LeakyReLU:
        return "leaky_relu"
    if kind is layers.ELU:
        return "elu"
    if kind is layers.Softmax:
        return "softmax"
    return _ACTIVATION_OPERATIONS.get(operation_name(operation) or "")


def name_of(function) -> str:
    """Name of an activation function; `"linear"` for none."""
    if function is None:
        return "linear"
    return getattr(function, "__name__", type(function).__name__)


def is_supported_activation(name) -> bool:
    """Whether an activation function can be simulated."""
    return name == "linear" or name in RELU | OTHER_ACTIVATIONS or name in FIXED_RANGE


def why_not(operation) -> str:
    """What keeps a layer from being simulated, and the mend."""
    kind = type(operation)
    if kind is layers.Masking or getattr(operation, "mask_zero", False):
        return "Masks have no integer form: pad without a mask (`mask_zero=False`)."
    if kind in (layers.LSTM, layers.GRU, layers.SimpleRNN, layers.Bidirectional, layers.RNN):
        return (
            "Recurrent layers aren't simulated: use Conv1D, or quantize the float model after "
            "training."
        )
    if kind is layers.Average:
        return "Use Add, followed by Rescaling."
    name = activation_of(operation)
    if name is not None:
        return no_activation(name)
    if isinstance(operation, keras.Model):
        return (
            "It is a subclassed model, whose graph can't be seen: build it with the functional API."
        )
    return "Replace it by layers that TFLite has integer kernels for."


def no_activation(name) -> str:
    """That an activation has no integer kernel, and which ones have."""
    return (
        f"The activation is {name}; the integer kernels have relu, relu6, leaky_relu, elu, gelu, "
        "silu, hard_silu, sigmoid, hard_sigmoid, tanh and softmax."
    )
