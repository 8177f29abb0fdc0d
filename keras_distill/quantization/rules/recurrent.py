"""Recurrent layers that TFLite has an integer kernel for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
from keras import layers, ops

from keras_distill import _keras
from keras_distill.quantization.graph import Step, Value
from keras_distill.quantization.lstm import QuantizedLSTM
from keras_distill.quantization.rules.rule import NO, Output, Rule, Support

if TYPE_CHECKING:
    from keras_distill.quantization.rebuild import Builder

_KEPT = (
    *("units", "return_sequences", "go_backwards", "dropout", "recurrent_dropout"),
    *("kernel_regularizer", "recurrent_regularizer", "bias_regularizer"),
)


def _lstm(builder: Builder, step: Step, tensors: list) -> Value:
    return _called(builder, step, step.operation, tensors[0], "")


def _called(builder: Builder, step: Step, lstm: Any, x: Any, part: str) -> Value:
    """The output of a layer's counterpart, which has the range of its state."""
    config = lstm.get_config()

    def make() -> keras.Layer:
        kept = {key: config[key] for key in ("name", "trainable", *_KEPT)}
        return QuantizedLSTM(**kept, learned_steps=builder.learned_steps)

    def copy(new: Any) -> None:
        for name in ("kernel", "recurrent_kernel", "bias"):
            getattr(new, name).assign(getattr(lstm.cell, name))

    y = builder.once(step.operation, make, copy, lambda layer: layer(x), part)
    return Value(y, _keras.producer_of(y).hidden_range)


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
    if any(type(x) is not layers.LSTM for x in both):
        return "Of recurrent layers, only `LSTM` is simulated: put it inside."
    if operation.merge_mode != "concat":
        return 'Its outputs can only be joined: use `merge_mode="concat"`.'
    return next(filter(None, (_why_not(step, x) for x in both)), None)


def _why_not(step: Step, lstm: Any) -> str | None:
    """Why TFLite's operator doesn't compute an LSTM, or `None`."""
    if len(step.inputs) > 1:
        return "TFLite's operator starts from a state of zeros: leave `initial_state` out."
    if lstm.return_state or lstm.stateful:
        return "TFLite's operator hands out no state: leave `return_state` and `stateful` out."
    functions = (lstm.activation, lstm.recurrent_activation)
    if functions != (keras.activations.tanh, keras.activations.sigmoid) or not lstm.use_bias:
        return (
            "TFLite's operator has tanh, sigmoid and biases: leave `activation`, "
            "`recurrent_activation` and `use_bias` as they are."
        )
    if step.call.inputs[0].shape[1] is None:
        return "Its input must have a known number of steps."
    return None


_SUPPORT = Support(int16=NO, int4=NO)

LAYERS: dict[type, Rule] = {
    layers.LSTM: Rule(
        Output.STATE, _lstm, _check, support=_SUPPORT, note="default activations, without masks"
    ),
    layers.Bidirectional: Rule(
        Output.STATE, _bidirectional, _check_bidirectional, support=_SUPPORT, note="of `LSTM`"
    ),
}
