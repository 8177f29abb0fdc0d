"""Normalization and rescaling: a factor and an offset for each channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras import layers, ops

from keras_distill.quantization import layers as quantized
from keras_distill.quantization.graph import Step
from keras_distill.quantization.rules.rule import (
    NORMALIZATION,
    RELU,
    YES,
    Output,
    Rule,
    Support,
    last_axis,
)

if TYPE_CHECKING:
    from keras_distill.quantization.rebuild import Builder

_FACTORS = Support(int4="8-bit factors")


def _check_batch_normalization(step: Step) -> str | None:
    layer = step.operation
    if getattr(layer, "renorm", False) or layer.axis not in (-1, last_axis(step)):
        return "Use `axis=-1` and `renorm=False`."
    return None


def _layer_normalization(builder: Builder, step: Step, tensors: list) -> Any:
    """`(x - mean) * rsqrt(variance + epsilon)`, then scale and offset."""
    (x,) = tensors
    operation = step.operation
    name = builder.unique(operation.name)

    def rounded(x: Any, part: str, of_inverses: bool = False) -> Any:
        return builder.round(x, f"{name}_{part}", step, of_inverses)

    mean = rounded(ops.mean(x, axis=-1, keepdims=True), "mean")
    centered = rounded(layers.Subtract(name=f"{name}_centered")([x, mean]), "centered")
    square = layers.Multiply(name=f"{name}_square")([centered, centered])
    variance = rounded(ops.mean(rounded(square, "square"), axis=-1, keepdims=True), "variance")
    offset = layers.Rescaling(1.0, operation.epsilon, name=f"{name}_epsilon")(variance)
    root = quantized.InverseRoot(name=f"{name}_root")(rounded(offset, "epsilon"))
    inverse = rounded(root, "inverse", of_inverses=True)
    normal = layers.Multiply(name=f"{name}_normal")([centered, inverse])
    if not (operation.scale or operation.center):
        return normal
    return _scale_and_offset(builder, operation, rounded(normal, "normal"))


def _scale_and_offset(builder: Builder, operation: Any, normal: Any) -> Any:
    config = {
        "name": operation.name,
        "dtype": operation.dtype_policy,
        "scale": operation.scale,
        "center": operation.center,
    }

    def copy(new: quantized.ScaleAndOffset) -> None:
        if operation.scale:
            new.gamma.assign(operation.gamma)
        if operation.center:
            new.beta.assign(operation.beta)

    return builder.once(
        operation, lambda: quantized.ScaleAndOffset(**config), copy, lambda layer: layer(normal)
    )


def _check_layer_normalization(step: Step) -> str | None:
    if list(step.operation.axis) not in ([-1], [last_axis(step)]):
        return "Use `axis=-1`."
    if getattr(step.operation, "rms_scaling", False):
        return "`rms_scaling=True` has no integer form here: leave it out."
    return None


LAYERS: dict[type, Rule] = {
    layers.BatchNormalization: Rule(
        Output.OWN,
        check=_check_batch_normalization,
        counterpart=quantized.QuantizedBatchNormalization,
        fuses=(RELU,),
        fused_as=NORMALIZATION,
        support=_FACTORS,
    ),
    layers.Rescaling: Rule(Output.OWN, fuses=(RELU,), support=_FACTORS),
    layers.Normalization: Rule(Output.OWN, fuses=(RELU,), support=_FACTORS),
    layers.LayerNormalization: Rule(
        Output.OWN, _layer_normalization, _check_layer_normalization, support=Support(int4=YES)
    ),
}
