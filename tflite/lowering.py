"""Layers lowered to operators that the converter and the targets have, while a graph is traced.

Nothing of the model changes: a layer's `call` or activation is replaced on the instance, and put
back. Models of every kind, nested and subclassed ones too, are covered that way.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from keras_distill.tflite import _litert

from keras_distill import _keras, taps


@contextlib.contextmanager
def lowered(
    model: keras.Model,
    *,
    micro: bool = False,
    fuse: bool = True,
    unroll: bool = False,
    integers: bool = False,
) -> Iterator[list[keras.Layer]]:
    """Traces inside this context contain the lowered form of every layer of `model`.

    Args:
        model: Keras model.
        micro: Does without what TFLite Micro lacks: GELU is approximated by tanh, and
            repetitions and copies need no TILE.
        fuse: Gives LSTMs the form of TFLite's fused operator.
        unroll: Makes one copy of the operators of other recurrent layers for each step, instead
            of a loop.
        integers: Computes exponential units without the exponential of large numbers, whose range
            would leave the others one value in integers, and refuses sparsemax.

    Yields:
        A list to which each recurrent layer that became a loop is added.
    """
    looped = []
    with contextlib.ExitStack() as stack:
        if micro:
            stack.enter_context(_keras.computing_with(repeat=_repeat, tile=_tile))
        if integers:
            stack.enter_context(_keras.computing_with(**_UNITS))
        for layer in all_layers(model):
            if integers and getattr(layer, "activation", None) is keras.activations.sparsemax:
                raise ValueError(f"Layer {layer.name!r}: {_NO_SPARSEMAX}")
            if type(layer) is keras.layers.UpSampling2D and micro:
                stack.enter_context(calling(layer, _nearest))
            if type(layer) is keras.layers.LayerNormalization:
                stack.enter_context(calling(layer, _layer_normalization))
            elif type(layer) is keras.layers.Embedding:
                stack.enter_context(calling(layer, _embedding))
            elif isinstance(layer, keras.layers.RNN) and not layer.unroll:
                stack.enter_context(calling(layer, _recurrent(fuse, unroll, looped)))
            if micro and getattr(layer, "activation", None) is keras.activations.gelu:
                stack.enter_context(_having(layer, "activation", _tanh_gelu))
        yield looped


def all_layers(model: keras.Model) -> list[keras.Layer]:
    """Every layer of a model, those inside others too."""
    return _keras.layers_of(model, include_self=False)


@contextlib.contextmanager
def scopes(model: keras.Model) -> Iterator[dict[str, set[str]]]:
    """Finds the name scopes of the layers of `model` in a graph that is traced inside this context.

    Yields:
        A dict to which the name scopes of each layer and of those inside it are added, by name.
    """
    found: dict[str, set[str]] = {}

    def call(layer, original, *args, **kwargs):
        for name in owners[id(layer)]:
            found.setdefault(name, set()).add(tf.get_current_name_scope())
        return original(*args, **kwargs)

    layers = all_layers(model)
    owners: dict[int, set[str]] = {}
    for layer in layers:
        for inner in _keras.layers_of(layer):
            owners.setdefault(id(inner), set()).add(layer.name)
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(calling(layer, call))
        yield found


def _recurrent(fuse, unroll, looped):
    """The `call` of a recurrent layer in its lowered form."""

    def call(layer, original, sequences, initial_state=None, mask=None, training=False):
        plain = mask is None and initial_state is None and sequences.shape[0] is not None
        if fuse and plain and is_fusable(layer):
            return _fused_lstm(layer, sequences)
        if not unroll:
            looped.append(layer)
        with _having(layer, "unroll", unroll):
            return original(sequences, initial_state=initial_state, mask=mask, training=training)

    return call


def is_fusable(layer: keras.Layer) -> bool:
    """Whether a layer is what TFLite's fused LSTM operator computes."""
    return (
        type(layer) is keras.layers.LSTM
        and layer.activation is keras.activations.tanh
        and layer.recurrent_activation is keras.activations.sigmoid
        and layer.use_bias
        and not layer.return_state
        and not layer.stateful
    )


def calling(layer: keras.Layer, call: Callable) -> contextlib.AbstractContextManager:
    """Replaces `layer.call` by `call(layer, original, ...)` inside the context."""
    return taps.calling(layer, functools.partial(call, layer))


@contextlib.contextmanager
def _having(layer: keras.Layer, name: str, value: Any) -> Iterator[None]:
    """Replaces an attribute without telling Keras, which would track or refuse the change."""
    attributes = layer.__dict__
    missing = object()
    before = attributes.get(name, missing)
    attributes[name] = value
    try:
        yield
    finally:
        if before is missing:
            del attributes[name]
        else:
            attributes[name] = before


def _layer_normalization(layer, original, inputs):
    """Layer normalization without the NEG that Keras' own form ends in, which stays float."""
    axes = [a % len(inputs.shape) for a in _as_list(layer.axis)]
    x = ops.cast(inputs, layer.compute_dtype)
    x = x - ops.mean(x, axis=axes, keepdims=True)
    variance = ops.mean(x * x, axis=axes, keepdims=True)
    x = x * ops.rsqrt(variance + layer.epsilon)
    shape = [inputs.shape[a] if a in axes else 1 for a in range(len(inputs.shape))]
    if layer.scale:
        x = x * ops.reshape(ops.cast(layer.gamma, x.dtype), shape)
    if layer.center:
        x = x + ops.reshape(ops.cast(layer.beta, x.dtype), shape)
    return x


def _as_list(axis):
    return list(axis) if isinstance(axis, (list, tuple)) else [axis]


def _tanh_gelu(x):
    """GELU by its tanh approximation (Hendrycks and Gimpel, arXiv:1606.08415, section 2)."""
    return 0.5 * x * (1.0 + ops.tanh(math.sqrt(2.0 / math.pi) * x * (1.0 + 0.044715 * x * x)))


def _selu(original, x):
    """SELU (Klambauer et al., arXiv:1706.02515) without the exponential of positive numbers."""
    x = tf.convert_to_tensor(x)
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    return scale * tf.nn.relu(x) + scale * alpha * tf.nn.elu(tf.minimum(x, 0.0))


def _softplus(original, x):
    x = tf.convert_to_tensor(x)
    return tf.nn.relu(x) - tf.math.log(tf.sigmoid(tf.abs(x)))


def _log_sigmoid(original, x):
    x = tf.convert_to_tensor(x)
    return tf.minimum(x, 0.0) + tf.math.log(tf.sigmoid(tf.abs(x)))


_NO_SPARSEMAX = (
    "`sparsemax` has no form in integers: as Keras 3.15 computes it, from the sums of all partial "
    "sums of its support, it jumps wherever rounding changes the support. Use `softmax`, or "
    'quantization="float32", "float16" or "dynamic".'
)


def _sparsemax(original, x, axis=-1):
    raise ValueError(_NO_SPARSEMAX)


_UNITS = {
    "log_sigmoid": _log_sigmoid,
    "selu": _selu,
    "softplus": _softplus,
    "sparsemax": _sparsemax,
}


def _embedding(layer, original, inputs):
    """A plain lookup. Keras' own also lets negative ids count from the end."""
    if layer.compute_dtype != "float32" or getattr(layer, "quantization_mode", None):
        return original(inputs)
    # With low-rank adaptation (LoRA) they are a tensor, not a variable.
    table = tf.convert_to_tensor(getattr(layer.embeddings, "value", layer.embeddings))
    table = table if table.dtype == tf.float32 else tf.cast(table, "float32")
    return tf.gather(table, ops.cast(inputs, "int32"))


def _nearest(layer, original, inputs):
    """UpSampling2D by one resizing instead of a repetition for each axis."""
    if layer.interpolation != "nearest" or layer.data_format != "channels_last":
        return original(inputs)
    size = [n * k for n, k in zip(inputs.shape[1:3], layer.size, strict=True)]
    return tf.image.resize(inputs, size, method="nearest")


def _repeat(original, x, repeats, axis=None):
    """Each slice of an axis several times: as an image that is made larger, or looked up."""
    x = tf.convert_to_tensor(x)
    counts = None if isinstance(repeats, int) or tf.is_tensor(repeats) else np.asarray(repeats)
    if counts is not None and axis is not None and counts.shape == (x.shape[axis],):
        return tf.gather(x, np.repeat(np.arange(len(counts)), counts).astype("int32"), axis=axis)
    plain = isinstance(repeats, int) and axis is not None and x.dtype == tf.float32
    if not plain or None in x.shape:
        return original(x, repeats, axis)
    shape, axis = list(x.shape), axis % len(x.shape)
    image = (math.prod(shape[:axis]), shape[axis], 1, math.prod(shape[axis + 1 :]))
    shape[axis] *= repeats
    size = (shape[axis], 1)
    return tf.reshape(tf.image.resize(tf.reshape(x, image), size, method="nearest"), shape)


def _tile(original, x, repeats):
    """Copies along each axis, as concatenations."""
    x = tf.convert_to_tensor(x)
    repeats = [repeats] if isinstance(repeats, int) else list(repeats)
    if not all(isinstance(n, int) for n in repeats) or x.dtype != tf.float32 or None in x.shape:
        return original(x, repeats)
    rank = max(len(x.shape), len(repeats))
    x = tf.reshape(x, [1] * (rank - len(x.shape)) + list(x.shape))
    for axis, n in enumerate([1] * (rank - len(repeats)) + repeats):
        if n > 1:
            x = _repeat(original, x, n, axis) if x.shape[axis] == 1 else _copies(x, n, axis)
    return x


#: As many inputs as a CONCATENATION of TFLite Micro may have.
_MOST_INPUTS = 10


def _copies(x, n, axis):
    """`n` copies of a tensor, one after the other."""
    parts = [x] * n
    while len(parts) > 1:
        groups = [parts[i : i + _MOST_INPUTS] for i in range(0, len(parts), _MOST_INPUTS)]
        parts = [tf.concat(group, axis) if len(group) > 1 else group[0] for group in groups]
    return parts[0]


def _fused_lstm(layer, sequences):
    """An LSTM in the form that the converter recognizes and replaces by the fused operator."""
    if layer.go_backwards:
        sequences = ops.flip(sequences, axis=1)
    state = tf.zeros((sequences.shape[0], layer.units))
    outputs = _lstm(
        tf.convert_to_tensor(sequences),
        state,
        state,
        # As tensors: the converter doesn't recognize a function of variables.
        *(
            tf.cast(tf.convert_to_tensor(weight.value), "float32")
            for weight in (layer.cell.kernel, layer.cell.recurrent_kernel, layer.cell.bias)
        ),
    )
    return outputs if layer.return_sequences else outputs[:, -1]


def _lstm(inputs, hidden, carry, kernel, recurrent_kernel, bias):
    """Calls a function that carries the converter's mark of an LSTM.

    Arguments, their order, and five results of which only the second is used are what the
    converter checks for; it replaces the body.
    """

    def lstm(inputs, hidden, carry, kernel, recurrent_kernel, bias):
        time = inputs.shape[1]
        states = tf.TensorArray(tf.float32, time, element_shape=hidden.shape)

        def step(t, h, c, states):
            z = tf.matmul(inputs[:, t], kernel) + tf.matmul(h, recurrent_kernel) + bias
            i, f, g, o = tf.split(z, 4, axis=1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
            return t + 1, h, c, states.write(t, h)

        _, h, c, states = tf.while_loop(lambda t, *_: t < time, step, (0, hidden, carry, states))
        outputs = tf.transpose(states.stack(), (1, 0, 2))
        outputs = tf.ensure_shape(outputs, (inputs.shape[0], time, hidden.shape[1]))
        return h, outputs, h, c, tf.constant(1.0)

    function = _litert.fused_lstm(lstm)
    return function(inputs, hidden, carry, kernel, recurrent_kernel, bias)[1]
