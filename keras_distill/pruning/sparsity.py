"""Weights that become 0 and stay it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_distill import _keras
from keras_distill.pruning.held import Form, HoldsForms, Mask, kernels_of

#: Layers that sum over no channels, or whose depthwise kernel doesn't.
_DEPTHWISE = (
    *(layers.DepthwiseConv1D, layers.DepthwiseConv2D),
    *(layers.SeparableConv1D, layers.SeparableConv2D),
)
#: Layers whose kernels end with the input channels.
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)


class Sparsity(HoldsForms):
    """A callback that makes the smallest weights of each kernel 0 while a model is trained.

    It goes with `fit` of a `Distiller`, quantize-aware or not, or of any Keras model. The share of
    zeros rises along a cubic (arXiv:1710.01878, equation 1). A weight that is 0 stays exactly 0 at
    each step, whatever the optimizer's momentum, also if an interrupted run goes on, and the zeros
    of a quantize-aware student are the zeros of its file. Later training keeps them only with
    the callback.

    List it after callbacks that restore weights at the end, such as
    `EarlyStopping(restore_best_weights=True)`: one after it brings back what wasn't 0 yet.

    Args:
        sparsity: Share of each kernel that is 0 at the end, from 0 to 1, both excluded.
        begin_step: Step of the optimizer at which zeros begin.
        end_step: Step from which on there are `sparsity` of them. Leave it some epochs before the
            end of training.
        frequency: Steps after which more weights become 0.
        pattern: `(n, m)`: at most `n` of each `m` successive weights along the kernel's input
            channels are other than 0, instead of `sparsity`. Kernels whose number of input
            channels isn't a multiple of `m` stay as they are.

    Raises:
        ValueError: If an argument is out of range; when training begins, if there is no kernel.

    Example:

    >>> callback = keras_distill.pruning.Sparsity(0.8, end_step=2000)
    >>> distiller.fit(train, epochs=10, callbacks=[callback])
    """

    def __init__(
        self,
        sparsity: float | None = None,
        begin_step: int = 0,
        end_step: int = 1000,
        frequency: int = 100,
        *,
        pattern: tuple[int, int] | None = None,
    ):
        super().__init__(begin_step, end_step, frequency)
        if (sparsity is None) == (pattern is None):
            raise ValueError("Give either `sparsity` or `pattern`.")
        if sparsity is not None and not 0 < sparsity < 1:
            raise ValueError(
                "`sparsity` must be greater than 0 and less than 1. "
                f"Received: sparsity={sparsity!r}"
            )
        if pattern is not None and not (
            all(isinstance(x, (int, np.integer)) for x in pattern) and 0 < pattern[0] < pattern[1]
        ):
            raise ValueError(
                "`pattern` must be a pair (n, m) of integers with 0 < n < m, such as (2, 4). "
                f"Received: pattern={pattern!r}"
            )
        self.sparsity: Any = sparsity
        self.pattern = pattern

    def forms_of(self, student: keras.Model) -> Sequence[Form]:
        kernels = kernels_of(student)
        if self.pattern is not None:
            self._axes = _input_axes(student)
            kernels = [x for x in kernels if self._has_blocks(x, self.pattern[1])]
            if not kernels:
                raise ValueError(
                    f"`Sparsity` finds nothing in the model {student.name!r} that it could make "
                    "0. It must have trainable kernels with a number of input channels that is a "
                    f"multiple of {self.pattern[1]}. Received: pattern={self.pattern!r}"
                )
        return [Mask(x) for x in kernels]

    def advance(self, progress: float) -> None:
        for mask in self._forms:
            size = np.abs(ops.convert_to_numpy(mask.variable))
            if self.pattern is not None:
                axis = self._axes[id(mask.variable)]
                keeps = _largest_of_blocks(size, axis, *self.pattern, progress)
            else:
                share = 1 - progress * self.sparsity
                keeps = _largest(size.ravel(), round(size.size * share)).reshape(size.shape)
            # What is 0 stays it, also where a schedule starts over.
            mask.keeps.assign(keeps & ops.convert_to_numpy(mask.keeps))
            mask.apply()

    def _has_blocks(self, kernel: Any, size: int) -> bool:
        axis = self._axes.get(id(kernel))
        return axis is not None and kernel.shape[axis] % size == 0


def _input_axes(student: keras.Model) -> dict[int, int]:
    """The axis along which a kernel sums, by the kernel's id, if it sums over channels."""
    axes = {id(x): -2 for x in kernels_of(student)}
    for layer in _keras.layers_of(student):
        if isinstance(layer, _DEPTHWISE):
            for x in layer.weights:
                if "pointwise" not in x.name:
                    axes.pop(id(x), None)
        elif isinstance(layer, _TRANSPOSED):
            axes[id(layer.kernel)] = -1
        elif isinstance(layer, layers.EinsumDense):
            operands, output = layer.equation.split("->")
            names = operands.split(",")[1]
            axes.pop(id(layer.kernel), None)
            axes |= {id(layer.kernel): i for i, name in enumerate(names) if name not in output}
    return axes


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Which of the values on the last axis are the largest, the first of equal ones."""
    order = np.argsort(-values, axis=-1, kind="stable")
    keeps = np.zeros(values.shape, bool)
    np.put_along_axis(keeps, order[..., :count], True, axis=-1)
    return keeps


def _largest_of_blocks(size: np.ndarray, axis: int, n: int, m: int, progress: float) -> np.ndarray:
    """Likewise of each block of `m` along an axis."""
    rows = np.moveaxis(size, axis, -1)
    blocks = rows.reshape(*rows.shape[:-1], -1, m)
    keeps = _largest(blocks, math.ceil(m - progress * (m - n) - 1e-9))
    return np.moveaxis(keeps.reshape(rows.shape), -1, axis)


def sparsity_of(model: keras.Model) -> dict[str, Any]:
    """The share of zeros in each kernel of a model, by the variable's path."""
    return {x.path: float(np.mean(ops.convert_to_numpy(x) == 0)) for x in kernels_of(model)}
