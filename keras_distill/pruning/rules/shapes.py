"""Layers that move, choose, average or join values and leave channels as they are."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from keras import layers

from keras_distill.pruning.step import Step
from keras_distill.pruning.units import Channels


def _as_they_are(step: Step) -> list[Channels]:
    return [step.inputs[0]]


def _flatten(step: Step) -> list[Channels]:
    positions = math.prod(step.input_sizes[:-1])
    return [step.inputs[0].moved(lambda x: np.tile(x, positions))]


def _reshape(step: Step) -> list[Channels]:
    """What comes to the same place of the last axis leaves together, at all positions."""
    (x,), width = step.inputs, step.output_sizes[-1]
    if None in (*step.call.inputs[0].shape[1:], *step.call.outputs[0].shape[1:]):
        return step.whole("makes a shape that isn't known")
    positions = math.prod(step.input_sizes[:-1])
    flat = x.moved(lambda a: np.tile(a, positions))
    rows = [flat[start : start + width] for start in range(0, len(flat), width)]
    step.tie(*rows)
    y = rows[0].vanishing(np.all([row.vanishes for row in rows], axis=0))
    sizes = step.output_sizes[:-1]
    step.setting("target_shape", y, lambda count: (*sizes, count))
    return [y]


def _permute(step: Step) -> list[Channels]:
    if step.layer.dims[-1] != len(step.layer.dims):
        return step.whole("moves the channels to another axis")
    return [step.inputs[0]]


def _concatenate(step: Step) -> list[Channels]:
    inputs, rank = step.inputs, len(step.call.inputs[0].shape)
    if step.layer.axis not in (-1, rank - 1):
        step.tie(*inputs)
        return [inputs[0].vanishing(np.all([x.vanishes for x in inputs], axis=0))]
    joined = [
        np.concatenate([getattr(x, name) for x in inputs]) for name in ("numbers", "vanishes")
    ]
    return [Channels(*joined)]


def _reduced(step: Step) -> list[Channels]:
    """An operation over axes other than the last."""
    axes, rank = step.layer.axis, len(step.call.inputs[0].shape)
    axes = (axes,) if isinstance(axes, int) else axes
    if axes is None or any(axis % rank in (0, rank - 1) for axis in axes):
        return step.whole("reduces all channels to one")
    return [step.inputs[0]]


LAYERS: dict[type, Callable[[Step], list[Channels]]] = {
    layers.Concatenate: _concatenate,
    layers.Flatten: _flatten,
    layers.Permute: _permute,
    layers.Reshape: _reshape,
    **dict.fromkeys(
        (
            layers.ActivityRegularization,
            layers.AlphaDropout,
            layers.AveragePooling1D,
            layers.AveragePooling2D,
            layers.AveragePooling3D,
            layers.Cropping1D,
            layers.Cropping2D,
            layers.Dropout,
            layers.GaussianDropout,
            layers.GaussianNoise,
            layers.GlobalAveragePooling1D,
            layers.GlobalAveragePooling2D,
            layers.GlobalAveragePooling3D,
            layers.GlobalMaxPooling1D,
            layers.GlobalMaxPooling2D,
            layers.GlobalMaxPooling3D,
            layers.Identity,
            layers.MaxPooling1D,
            layers.MaxPooling2D,
            layers.MaxPooling3D,
            layers.RepeatVector,
            layers.SpatialDropout1D,
            layers.SpatialDropout2D,
            layers.UpSampling1D,
            layers.UpSampling2D,
            layers.ZeroPadding1D,
            layers.ZeroPadding2D,
        ),
        _as_they_are,
    ),
}
OPERATIONS: dict[str, Callable[[Step], list[Channels]]] = {
    "Concatenate": _concatenate,
    "Max": _reduced,
    "Mean": _reduced,
    "Sum": _reduced,
}
