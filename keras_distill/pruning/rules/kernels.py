"""Layers with a kernel, and tables of embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from keras import layers

from keras_distill.pruning.rules.elementwise import activated
from keras_distill.pruning.step import Step, makes, reads
from keras_distill.pruning.units import Channels


def _dense(step: Step) -> list[Channels]:
    layer, (x,) = step.layer, step.inputs
    made = step.make(layer.units)
    positions = math.prod(step.output_sizes[:-1])
    step.weight(layer.kernel, reads(x), makes(made), positions=positions)
    step.weight(layer.bias, makes(made))
    step.setting("units", made)
    return [activated(step, made, layer.activation)]


def _convolution(step: Step) -> list[Channels]:
    layer, (x,) = step.layer, step.inputs
    read = len(x) // layer.groups
    if layer.groups > 1 and read == 1:
        made = x.moved(lambda a: np.repeat(a, layer.filters // layer.groups)).vanishing(True)
        step.setting("groups", x)
        along = None
    else:
        made = step.make(layer.filters)
        # The same places of all groups leave together.
        step.tie(*_parts(x, layer.groups))
        step.tie(*_parts(made, layer.groups))
        along = reads(x[:read])
    positions = math.prod(step.output_sizes[:-1])
    spatial = [None] * layer.rank
    step.weight(layer.kernel, *spatial, along, makes(made), positions=positions)
    step.weight(layer.bias, makes(made))
    step.setting("filters", made)
    return [activated(step, made, layer.activation)]


def _parts(x: Channels, count: int) -> list[Channels]:
    size = len(x) // count
    return [x[start : start + size] for start in range(0, len(x), size)]


def _transposed(step: Step) -> list[Channels]:
    layer, (x,) = step.layer, step.inputs
    made = step.make(layer.filters)
    positions = math.prod(step.input_sizes[:-1])
    spatial = [None] * layer.rank
    step.weight(layer.kernel, *spatial, makes(made), reads(x), positions=positions)
    step.weight(layer.bias, makes(made))
    step.setting("filters", made)
    return [activated(step, made, layer.activation)]


def _depthwise(step: Step) -> list[Channels]:
    layer, (x,) = step.layer, step.inputs
    made = x.moved(lambda a: np.repeat(a, layer.depth_multiplier)).vanishing(True)
    positions = math.prod(step.output_sizes[:-1])
    spatial = [None] * layer.rank
    step.weight(layer.kernel, *spatial, makes(x), None, positions=positions)
    step.weight(layer.bias, makes(made))
    return [activated(step, made, layer.activation)]


def _separable(step: Step) -> list[Channels]:
    layer, (x,) = step.layer, step.inputs
    made = step.make(layer.filters)
    between = x.moved(lambda a: np.repeat(a, layer.depth_multiplier)).vanishing(True)
    positions = math.prod(step.output_sizes[:-1])
    spatial = [None] * layer.rank
    step.weight(layer.depthwise_kernel, *spatial, makes(x), None, positions=positions)
    kernel = layer.pointwise_kernel
    step.weight(kernel, *spatial, reads(between), makes(made), positions=positions)
    step.weight(layer.bias, makes(made))
    step.setting("filters", made)
    return [activated(step, made, layer.activation)]


def _embedding(step: Step) -> list[Channels]:
    made = step.make(step.layer.output_dim)
    step.weight(step.layer.embeddings, None, makes(made))
    step.setting("output_dim", made)
    return [made]


LAYERS: dict[type, Callable[[Step], list[Channels]]] = {
    layers.Conv1D: _convolution,
    layers.Conv1DTranspose: _transposed,
    layers.Conv2D: _convolution,
    layers.Conv2DTranspose: _transposed,
    layers.Conv3D: _convolution,
    layers.Conv3DTranspose: _transposed,
    layers.Dense: _dense,
    layers.DepthwiseConv1D: _depthwise,
    layers.DepthwiseConv2D: _depthwise,
    layers.Embedding: _embedding,
    layers.SeparableConv1D: _separable,
    layers.SeparableConv2D: _separable,
}
