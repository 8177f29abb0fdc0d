"""Layers with a kernel, which is rounded to 8 or 4 bits."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from keras import layers

from keras_distill.quantization import layers as quantized
from keras_distill.quantization.graph import Step
from keras_distill.quantization.rules import activations
from keras_distill.quantization.rules.rule import (
    NO,
    NORMALIZATION,
    RELU,
    YES,
    Output,
    Rule,
    Support,
)

if TYPE_CHECKING:
    from keras_distill.quantization.rebuild import Builder


def _build(build: Any, builder: Builder, step: Step, tensors: list) -> Any:
    """Builds a layer with its activation split off, unless the kernel fuses it."""
    (x,) = tensors
    operation = step.operation
    config = operation.get_config()
    if activations.is_fused(activations.name_of(operation.activation)):
        return build(builder, step, x, config)
    linear = f"{operation.name}_linear"
    y = build(builder, step, x, {**config, "activation": "linear", "name": linear})
    return activations.apply_own(builder, step, builder.round(y, linear, step))


def _plain(kind: type, builder: Builder, step: Step, x: Any, config: dict) -> Any:
    operation = step.operation
    return builder.kernel(step, kind, config, [x], operation.kernel, operation.bias)


def _einsum(builder: Builder, step: Step, x: Any, config: dict) -> Any:
    operation = step.operation
    keys = ("name", "trainable", "dtype", "activation", "kernel_regularizer", "bias_regularizer")
    dense = {
        **{key: config[key] for key in keys},
        "units": operation.kernel.shape[-1],
        "use_bias": operation.bias is not None,
    }
    return _plain(quantized.QuantizedDense, builder, step, x, dense)


def _separable(kinds: tuple[type, type], builder: Builder, step: Step, x: Any, config: dict) -> Any:
    operation = step.operation
    depthwise, pointwise = kinds
    keys = ("trainable", "dtype", "padding", "strides", "kernel_size", "dilation_rate")
    name = f"{operation.name}_depthwise"
    first = {
        **{key: config[key] for key in (*keys, "depth_multiplier", "depthwise_regularizer")},
        "name": name,
        "use_bias": False,
    }
    others = ("name", "trainable", "dtype", "filters", "activation", "use_bias")
    second = {
        **{key: config[key] for key in (*others, "bias_regularizer")},
        "kernel_size": 1,
        "kernel_regularizer": config["pointwise_regularizer"],
    }
    x = builder.kernel(step, depthwise, first, [x], operation.depthwise_kernel, part="depthwise")
    x = builder.round(x, name, step)
    return builder.kernel(step, pointwise, second, [x], operation.pointwise_kernel, operation.bias)


def _prelu(builder: Builder, step: Step, tensors: list) -> Any:
    operation = step.operation
    config = operation.get_config()
    return builder.kernel(step, quantized.QuantizedPReLU, config, tensors, operation.alpha)


def _check_einsum(step: Step) -> str | None:
    operation = step.operation
    left, right = operation.equation.replace(" ", "").replace("...", "").split("->")
    inputs, kernel = left.split(",")
    is_dense = len(kernel) == 2 and inputs[-1] == kernel[0] and inputs[:-1] + kernel[1] == right
    is_dense = is_dense and (operation.bias is None or len(operation.bias.shape) == 1)
    if not is_dense:
        return (
            "Only an EinsumDense that maps the last axis, as Dense does, has an integer kernel: "
            'use an equation such as "abc,cd->abd" and the `bias_axes` of its last axis.'
        )
    return activations.check_own(step)


def _kernel(
    build: Any, int4: str = YES, check: Any = activations.check_own, note: str = ""
) -> Rule:
    return Rule(
        Output.OWN,
        functools.partial(_build, build),
        check,
        fuses=(NORMALIZATION, RELU),
        support=Support(int4=int4),
        note=note,
    )


def _with(kind: type, int4: str = YES) -> Rule:
    """A layer whose counterpart is `kind`, with the same arguments."""
    return _kernel(functools.partial(_plain, kind), int4)


def _two(depthwise: type, pointwise: type) -> Rule:
    """A layer of two kernels."""
    return _kernel(functools.partial(_separable, (depthwise, pointwise)))


LAYERS: dict[type, Rule] = {
    layers.Conv1D: _with(quantized.QuantizedConv1D),
    layers.Conv2D: _with(quantized.QuantizedConv2D),
    layers.DepthwiseConv1D: _with(quantized.QuantizedDepthwiseConv1D),
    layers.DepthwiseConv2D: _with(quantized.QuantizedDepthwiseConv2D),
    layers.SeparableConv1D: _two(quantized.QuantizedDepthwiseConv1D, quantized.QuantizedConv1D),
    layers.SeparableConv2D: _two(quantized.QuantizedDepthwiseConv2D, quantized.QuantizedConv2D),
    layers.Dense: _with(quantized.QuantizedDense),
    layers.EinsumDense: _kernel(_einsum, check=_check_einsum, note="as Dense"),
    layers.Conv1DTranspose: _with(quantized.QuantizedConv1DTranspose, int4=NO),
    layers.Conv2DTranspose: _with(quantized.QuantizedConv2DTranspose, int4=NO),
    layers.PReLU: Rule(Output.OWN, _prelu, support=Support(int4=NO)),
}
