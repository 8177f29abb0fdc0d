"""Builds the counterparts of layers that need more than a range: rounded inputs to raw outputs."""

import math

import keras
from keras import ops

from keras_distill.quantization import layers as quantized
from keras_distill.quantization import supported


def call_as(operation, step, tensors):
    """Calls `operation` as the step did, on other tensors."""
    new = {id(old): x for old, x in zip(step.inputs, tensors, strict=True)}
    args, kwargs = step.node.arguments.convert(
        lambda x: new[id(x)] if isinstance(x, keras.KerasTensor) else x
    )
    return operation(*args, **kwargs)


def own(level, step, tensors):
    """Layers and activations whose output has a range of its own."""
    operation = step.operation
    if type(operation) is keras.layers.PReLU:
        return _prelu(level, step, tensors)
    if type(operation) is keras.layers.LayerNormalization:
        return _layer_normalization(level, step, tensors[0])
    if type(operation) is keras.layers.MultiHeadAttention:
        return _attention(level, step, tensors)
    if supported.activation_of(operation) == "silu":
        return _silu(level, step, tensors[0], level.unique(operation.name))
    return level.apply(step, tensors)


def _prelu(level, step, tensors):
    operation = step.operation

    def copy(new):
        new.float_kernel.assign(operation.alpha)
        new.start()

    return level.layer(
        operation,
        lambda: level.kernel_layer(quantized.QuantizedPReLU, operation.get_config(), step),
        copy,
        lambda layer: layer(*tensors),
    )


def _weights(level, step, tensors):
    """A layer with a kernel, with its activation split off unless the kernel fuses it."""
    operation = step.operation
    activation = supported.name_of(getattr(operation, "activation", None))
    config = operation.get_config()
    name = operation.name
    is_split = activation not in ("linear", *supported.RELU)
    if is_split:
        config = {**config, "activation": "linear", "name": f"{name}_linear"}
    if type(operation) in supported.SEPARABLE:
        y = _separable(level, step, tensors[0], config)
    else:
        kind = supported.WEIGHTS.get(type(operation), quantized.QuantizedDense)
        if type(operation) is keras.layers.EinsumDense:
            config = _dense_config(operation, config)

        def copy(new):
            new.float_kernel.assign(operation.kernel)
            if operation.bias is not None:
                new.bias.assign(operation.bias)
            new.start()

        make = lambda: level.kernel_layer(kind, config, step)  # noqa: E731
        y = level.layer(operation, make, copy, lambda layer: layer(tensors[0]))
    if not is_split:
        return y
    x = level.round(y, f"{name}_linear", step)
    name = level.unique(name)
    if activation == "silu":
        return _silu(level, step, x, name)
    y = keras.layers.Activation(operation.activation, name=name, dtype=operation.dtype_policy)(x)
    if activation in supported.FIXED_RANGE:
        return level.fix(y, activation, name, level.options.of(step.path)["activations"])
    return y


def _silu(level, step, x, name):
    bits = level.options.of(step.path)["activations"]
    gate = keras.layers.Activation("sigmoid", name=f"{name}_gate")(x)
    gate = level.fix(gate, "sigmoid", f"{name}_gate", bits).tensor
    return keras.layers.Multiply(name=name)([x, gate])


def _dense_config(operation, config):
    keys = ("name", "trainable", "dtype", "activation", "kernel_regularizer", "bias_regularizer")
    return {
        **{key: config[key] for key in keys},
        "units": operation.kernel.shape[-1],
        "use_bias": operation.bias is not None,
    }


def _separable(level, step, x, config):
    operation = step.operation
    depthwise, pointwise = supported.SEPARABLE[type(operation)]
    shared = ("trainable", "dtype", "padding", "strides", "kernel_size", "dilation_rate")
    first = {
        **{key: config[key] for key in (*shared, "depth_multiplier", "depthwise_regularizer")},
        "name": f"{operation.name}_depthwise",
        "use_bias": False,
    }
    keys = ("name", "trainable", "dtype", "filters", "activation", "use_bias", "bias_regularizer")
    second = {
        **{key: config[key] for key in keys},
        "kernel_size": 1,
        "kernel_regularizer": config["pointwise_regularizer"],
    }

    def copy_depthwise(new):
        new.float_kernel.assign(operation.depthwise_kernel)
        new.start()

    def copy_pointwise(new):
        new.float_kernel.assign(operation.pointwise_kernel)
        if operation.use_bias:
            new.bias.assign(operation.bias)
        new.start()

    x = level.layer(
        (operation.depthwise_kernel),
        lambda: level.kernel_layer(depthwise, first, step),
        copy_depthwise,
        lambda layer: layer(x),
    )
    x = level.round(x, f"{operation.name}_depthwise", step)
    return level.layer(
        operation,
        lambda: level.kernel_layer(pointwise, second, step),
        copy_pointwise,
        lambda layer: layer(x),
    )


def _arithmetic(level, step, tensors):
    """Two tensors at a time, each partial result rounded."""
    operation = step.operation
    if len(tensors) <= 2:
        return level.apply(step, tensors)
    total = tensors[0]
    for i, x in enumerate(tensors[1:-1]):
        name = level.unique(f"{operation.name}_{i}")
        total = level.round(type(operation)(name=name)([total, x]), name, step)
    return type(operation)(name=level.unique(operation.name))([total, tensors[-1]])


def _layer_normalization(level, step, x):
    """`(x - mean) * rsqrt(variance + epsilon)`, then scale and offset."""
    operation = step.operation
    name = level.unique(operation.name)
    rounded = lambda x, part: level.round(x, f"{name}_{part}", step)  # noqa: E731
    mean = rounded(ops.mean(x, axis=-1, keepdims=True), "mean")
    centered = rounded(keras.layers.Subtract(name=f"{name}_centered")([x, mean]), "centered")
    square = keras.layers.Multiply(name=f"{name}_square")([centered, centered])
    variance = rounded(ops.mean(rounded(square, "square"), axis=-1, keepdims=True), "variance")
    offset = keras.layers.Rescaling(1.0, operation.epsilon, name=f"{name}_epsilon")(variance)
    inverse = rounded(ops.rsqrt(rounded(offset, "epsilon")), "inverse")
    normal = keras.layers.Multiply(name=f"{name}_normal")([centered, inverse])
    if not (operation.scale or operation.center):
        return normal
    config = {
        "name": operation.name,
        "dtype": operation.dtype_policy,
        "scale": operation.scale,
        "center": operation.center,
    }

    def copy(new):
        if operation.scale:
            new.gamma.assign(operation.gamma)
        if operation.center:
            new.beta.assign(operation.beta)

    normal = rounded(normal, "normal")
    return level.layer(
        operation, lambda: quantized.ScaleAndOffset(**config), copy, lambda layer: layer(normal)
    )


def _attention(level, step, tensors):
    """Projections, scores, softmax and their mean, each a kernel of its own."""
    operation = step.operation
    name = level.unique(operation.name)
    query, value, key = call_as(lambda q, v, k=None, **_: (q, v, k), step, tensors)
    key = value if key is None else key
    heads, size = operation.num_heads, operation.key_dim
    value_size = operation._value_dim
    rounded = lambda x, part: level.round(x, f"{name}_{part}", step)  # noqa: E731

    def project(x, part, dense, size, factor=1.0):
        units = heads * size

        def copy(new):
            new.float_kernel.assign(ops.reshape(dense.kernel * factor, (-1, units)))
            if dense.bias is not None:
                new.bias.assign(ops.reshape(dense.bias * factor, (units,)))
            new.start()

        config = {
            "units": units,
            "use_bias": dense.bias is not None,
            "name": f"{operation.name}_{part}",
            "dtype": operation.dtype_policy,
        }
        y = level.layer(
            dense,
            lambda: level.kernel_layer(quantized.QuantizedDense, config, step),
            copy,
            lambda layer: layer(x),
        )
        y = keras.layers.Reshape((x.shape[1], heads, size))(rounded(y, part))
        return keras.layers.Permute((2, 1, 3))(y)

    # The scores' factor 1/sqrt(size) is part of the query's kernel.
    q = project(query, "query", operation._query_dense, size, 1 / math.sqrt(size))
    k = project(key, "key", operation._key_dense, size)
    v = project(value, "value", operation._value_dense, value_size)
    scores = rounded(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))), "scores")
    weights = keras.layers.Softmax(name=f"{name}_softmax")(scores)
    bits = level.options.of(step.path)["activations"]
    weights = level.fix(weights, "softmax", f"{name}_softmax", bits).tensor
    if operation.dropout:
        weights = keras.layers.Dropout(operation.dropout, name=f"{name}_dropout")(weights)
    context = rounded(ops.matmul(weights, v), "context")
    context = keras.layers.Permute((2, 1, 3))(context)
    context = keras.layers.Reshape((query.shape[1], heads * value_size))(context)
    dense = operation._output_dense

    def copy(new):
        new.float_kernel.assign(ops.reshape(dense.kernel, new.float_kernel.shape))
        if dense.bias is not None:
            new.bias.assign(dense.bias)
        new.start()

    config = {
        "units": dense.kernel.shape[-1],
        "use_bias": dense.bias is not None,
        "name": operation.name,
        "dtype": operation.dtype_policy,
    }
    return level.layer(
        operation,
        lambda: level.kernel_layer(quantized.QuantizedDense, config, step),
        copy,
        lambda layer: layer(context),
    )


BUILDERS = {"weights": _weights, "arithmetic": _arithmetic}
