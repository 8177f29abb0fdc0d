"""Recurrent layers: LSTMs as TFLite's fused operator, others step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
from keras import layers, ops

from keras_distill import _keras
from keras_distill.quantization import stepped
from keras_distill.quantization.graph import Step, Value
from keras_distill.quantization.lstm import QuantizedLSTM
from keras_distill.quantization.rules.rule import NO, Output, Rule, Support

if TYPE_CHECKING:
    from keras_distill.quantization.rebuild import Builder

_KEPT = (
    *("units", "return_sequences", "go_backwards", "dropout", "recurrent_dropout"),
    *("kernel_regularizer", "recurrent_regularizer", "bias_regularizer", "activity_regularizer"),
)


def _recurrent(builder: Builder, step: Step, tensors: list) -> Value:
    return _called(builder, step, step.operation, tensors[0], "")


def _called(builder: Builder, step: Step, layer: Any, x: Any, part: str) -> Value:
    """The output of a layer's counterpart, which has the range of its state."""
    build = _lstm if type(layer) is layers.LSTM else _steps
    y = build(builder, step, layer, x, part)
    return Value(y, _keras.producer_of(y).hidden_range)


def _lstm(builder: Builder, step: Step, lstm: Any, x: Any, part: str) -> Any:
    config = lstm.get_config()

    def make() -> keras.Layer:
        kept = {key: config[key] for key in ("name", "trainable", *_KEPT)}
        bits = step.bits.activations
        return QuantizedLSTM(**kept, learned_steps=builder.learned_steps, activation_bits=bits)

    def copy(new: Any) -> None:
        for name in ("kernel", "recurrent_kernel", "bias"):
            getattr(new, name).assign(getattr(lstm.cell, name))

    return builder.once(step.operation, make, copy, lambda layer: layer(x), part)


def _steps(builder: Builder, step: Step, layer: Any, x: Any, part: str) -> Any:
    """Its input's kernel as a dense layer for all steps at once, and the steps."""
    config, cell = layer.get_config(), layer.cell
    name = f"{layer.name}_input"
    if layer.dropout:
        x = layers.SpatialDropout1D(layer.dropout, name=builder.unique(f"{name}_dropout"))(x)
    bias, recurrent_bias = _biases(layer)
    dense = {
        "units": cell.kernel.shape[-1],
        "use_bias": bias is not None,
        "name": name,
        "trainable": config["trainable"],
        "kernel_regularizer": config["kernel_regularizer"],
        "bias_regularizer": config["bias_regularizer"],
    }
    kind: Any = stepped.QuantizedProjection
    inputs = [x, *_input_steps(builder, step)]
    x = builder.kernel(step, kind, dense, inputs, cell.kernel, bias, f"{part} input")
    x = builder.round(x, name, step)
    kind = stepped.QuantizedGRU if type(layer) is layers.GRU else stepped.QuantizedSimpleRNN
    kept = ("name", "trainable", "units", "return_sequences", "go_backwards", "recurrent_dropout")
    config = {
        **{key: config[key] for key in (*kept, "recurrent_regularizer", "activity_regularizer")},
        "use_bias": recurrent_bias is not None,
        "activation_bits": step.bits.activations,
    }
    return builder.kernel(step, kind, config, [x], cell.recurrent_kernel, recurrent_bias, part)


def _input_steps(builder: Builder, step: Step) -> list:
    """The size of the input's steps, where it is that of a layer of the model.

    A range inside another layer or model can't be asked here: what is loaded would have two of it.
    """
    value = step.inputs[0].value
    if value.range not in builder.ranges or value.range.bits == 16:
        return []
    return [value.range(value.tensor, step_only=True)]


def _biases(layer: Any) -> tuple[Any, Any]:
    """The bias of the input's kernel, and that of the state's."""
    bias = layer.cell.bias
    if bias is None or type(layer) is not layers.GRU:
        return bias, None
    return bias[0], bias[1]


def _bidirectional(builder: Builder, step: Step, tensors: list) -> Value:
    """One LSTM in each direction; their outputs are joined in a range of both."""
    operation, (x,) = step.operation, tensors
    forward = _called(builder, step, operation.forward_layer, x, "forward").tensor
    backward = _called(builder, step, operation.backward_layer, x, "backward").tensor
    if operation.return_sequences:
        backward = ops.flip(backward, axis=1)
    both, range = builder.joined([forward, backward], operation.name, step)
    return Value(layers.Concatenate(name=builder.unique(operation.name))(both), range)


def _check(step: Step) -> str | None:
    return _why_not(step, step.operation)


def _check_bidirectional(step: Step) -> str | None:
    operation = step.operation
    both = (operation.forward_layer, operation.backward_layer)
    if any(type(x) not in _KINDS for x in both):
        return "Of recurrent layers, `LSTM`, `GRU` and `SimpleRNN` are simulated: put one inside."
    if operation.merge_mode != "concat":
        return 'Its outputs can only be joined: use `merge_mode="concat"`.'
    return next(filter(None, (_why_not(step, x) for x in both)), None)


def _why_not(step: Step, layer: Any) -> str | None:
    """Why no operators compute a layer, or `None`."""
    if len(step.inputs) > 1:
        return "It starts from a state of zeros: leave `initial_state` out."
    if layer.return_state or layer.stateful:
        return "It hands out no state: leave `return_state` and `stateful` out."
    if step.call.inputs[0].shape[1] is None:
        return "Its input must have a known number of steps."
    if step.call.inputs[0].shape[1] == 1 and type(layer) is not layers.LSTM:
        return "Its input has a single step of time: use Dense."
    if layer.activation is not keras.activations.tanh:
        return "It has tanh: leave `activation` as it is."
    if type(layer) is layers.SimpleRNN:
        return None
    if layer.recurrent_activation is not keras.activations.sigmoid:
        return "It has sigmoid: leave `recurrent_activation` as it is."
    if type(layer) is layers.LSTM and not layer.use_bias:
        return "TFLite's operator has biases: leave `use_bias` as it is."
    if type(layer) is layers.GRU and not layer.reset_after:
        return "Its kernel reads the state before the reset: leave `reset_after=True`."
    return None


#: Those with counterparts.
_KINDS = (layers.LSTM, layers.GRU, layers.SimpleRNN)
_STEPS = Rule(
    Output.STATE,
    _recurrent,
    _check,
    support=Support(int4=NO),
    note="default activations, without masks, unrolled",
)

LAYERS: dict[type, Rule] = {
    layers.LSTM: Rule(
        Output.STATE,
        _recurrent,
        _check,
        support=Support(int16="TFLite Micro only", int4=NO),
        note="default activations, without masks",
    ),
    layers.GRU: _STEPS,
    layers.SimpleRNN: _STEPS,
    layers.Bidirectional: Rule(
        Output.STATE,
        _bidirectional,
        _check_bidirectional,
        support=Support(int16=NO, int4=NO),
        note="of these",
    ),
}
