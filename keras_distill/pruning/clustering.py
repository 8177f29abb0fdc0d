"""Weights that share a few values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill.checks import whole_number
from keras_distill.pruning.held import Form, HoldsForms, kernels_of

#: Rounds of k-means.
_ROUNDS = 30


class Clusters(Form):
    """The values are few: each is the mean of its cluster, or exactly 0."""

    def __init__(self, variable: Any, count: int):
        super().__init__(variable)
        self._count = count
        size = int(np.prod(variable.shape))
        self._members = keras.Variable(np.zeros(size, "int32"), "int32", trainable=False)
        #: Whether there are clusters yet, and whether the first one is that of zeros.
        self._is_active = keras.Variable(False, "bool", trainable=False)
        self._has_zeros = keras.Variable(False, "bool", trainable=False)

    def __call__(self, value: Any) -> Any:
        flat = ops.cast(ops.reshape(value, (-1,)), "float32")
        members = ops.convert_to_tensor(self._members)
        sums = ops.segment_sum(flat, members, self._count)
        sizes = ops.segment_sum(ops.ones_like(flat), members, self._count)
        means = sums / ops.maximum(sizes, 1.0)
        is_zero = ops.logical_and(self._has_zeros, ops.arange(self._count) == 0)
        means = ops.where(is_zero, ops.zeros_like(means), means)
        clustered = ops.cast(ops.reshape(ops.take(means, members), value.shape), value.dtype)
        return ops.where(self._is_active, clustered, value)

    def recognize(self) -> None:
        """Values that are few already are clusters, as they were in a run that goes on."""
        values = ops.convert_to_numpy(self.variable).ravel()
        distinct, members = np.unique(values, return_inverse=True)
        if 1 < len(distinct) <= self._count and len(distinct) < len(values):
            if 0 in distinct:  # That of zeros is the first one.
                zero = int(np.searchsorted(distinct, 0))
                members = np.where(members == zero, 0, members + (members < zero))
            self._set(members, has_zeros=0 in distinct)

    def form(self) -> None:
        """Forms clusters by k-means; zeros are one of their own where they are many."""
        if ops.convert_to_numpy(self._is_active):  # As a run that goes on has them.
            return
        values = ops.convert_to_numpy(self.variable).ravel().astype("float64")
        is_zero = values == 0
        has_zeros = bool(is_zero.mean() > 1 / self._count)
        members = np.zeros(len(values), "int32")
        others = ~is_zero if has_zeros else np.ones_like(is_zero)
        members[others] = has_zeros + k_means(values[others], self._count - has_zeros)
        self._set(members, has_zeros)
        self.apply()

    def _set(self, members: np.ndarray, has_zeros: bool) -> None:
        self._members.assign(members)
        self._has_zeros.assign(has_zeros)
        self._is_active.assign(True)


class WeightClustering(HoldsForms):
    """A callback that lets the weights of each kernel share a few values while a model is trained.

    From `begin_step` on, the weights of each kernel are in clusters, found by k-means, and after
    each step of the optimizer each weight is the mean of its cluster: the values are trained, the
    clusters stay. (In arXiv:1510.00149, section 3, a value learns from the sum of its weights'
    gradients; here from the mean of their updates, so that any optimizer may make them.) Where more
    than a share of `1 / clusters` of the weights are 0, they are a cluster of their own and stay
    exactly 0. In an interrupted run that goes on, the clusters are those that
    it had. In the file of a quantize-aware student, whose channels have scales of their own,
    each channel has as few different integers.

    List it after callbacks that restore weights at the end, such as
    `EarlyStopping(restore_best_weights=True)`: one after it brings back what wasn't clustered yet.

    Args:
        clusters: How many different values each kernel has at most, at least 2.
        begin_step: Step of the optimizer at which clusters are formed. Train the model first.

    Raises:
        ValueError: If an argument is out of range; when training begins, if there is no kernel.

    Example:

    >>> callback = keras_distill.pruning.WeightClustering(16)
    >>> distiller.fit(train, epochs=3, callbacks=[callback])
    """

    def __init__(self, clusters: int = 16, begin_step: int = 0):
        super().__init__(begin_step, begin_step, 1)
        self.clusters = whole_number("clusters", clusters, 2)

    def forms_of(self, student: keras.Model) -> Sequence[Form]:
        return [Clusters(x, self.clusters) for x in kernels_of(student)]

    def advance(self, progress: float) -> None:
        for clusters in self._forms:
            clusters.form()


def k_means(values: np.ndarray, count: int) -> np.ndarray:
    """The cluster of each value, from 0 to `count - 1`, of evenly spaced centers moved to means.

    Args:
        values: float64 array of shape `(values,)`.
        count: Number of clusters.

    Returns:
        Integer array of shape `(values,)`.
    """
    if not len(values):
        return np.zeros(0, int)
    centers = np.linspace(values.min(), values.max(), count)
    members = np.zeros(len(values), int)
    for _ in range(_ROUNDS):
        members[:] = np.searchsorted((centers[1:] + centers[:-1]) / 2, values)
        sizes = np.bincount(members, minlength=count)
        sums = np.bincount(members, values, count)
        moved = np.sort(np.where(sizes > 0, sums / np.maximum(sizes, 1), centers))
        if np.array_equal(moved, centers):
            break
        centers = moved
    return members
