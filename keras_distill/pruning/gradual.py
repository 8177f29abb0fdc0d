"""Structured pruning in steps: units become 0 in training, and leave after it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_distill.checks import fraction
from keras_distill.pruning import goals
from keras_distill.pruning.held import Form, HoldsForms, Mask
from keras_distill.pruning.importance import along, as_array
from keras_distill.pruning.removal import without
from keras_distill.pruning.step import Role, Weight
from keras_distill.pruning.structure import Structure
from keras_distill.pruning.structured import (
    check_importance,
    leaving_order,
    scores_of,
    student_of,
)


class GradualPruning(HoldsForms):
    """A callback that makes more and more channels, neurons and heads 0 while a model is trained.

    It goes with `fit` of a `Distiller` or of any Keras model. The units are judged anew each time,
    after the others have learned to do without those before. The model keeps its size, so that
    training is saved and resumed as ever; `remove_zeros` then makes the smaller one, whose outputs
    are the same.

    List it after callbacks that restore weights at the end, such as
    `EarlyStopping(restore_best_weights=True)`: one after it brings back what wasn't pruned yet.

    Args:
        macs: As in `prune`.
        flash: As in `prune`.
        arena: As in `prune`.
        latency: As in `prune`.
        export: As in `prune`.
        importance: As in `prune`, but `"l1"` by default.
        data: As in `prune`.
        least_share: As in `prune`.
        begin_step: Step of the optimizer at which units begin to become 0.
        end_step: Step from which on the goals are met. Leave it some epochs before the end of
            training.
        frequency: Steps after which more units become 0.

    Raises:
        ValueError: As `prune`, when training begins.
        BudgetError: As `prune`, while training: at the steps where units become 0.

    Example:

    >>> callback = keras_distill.pruning.GradualPruning(macs=0.5, end_step=2000, frequency=200)
    >>> distiller.fit(train, epochs=10, callbacks=[callback])
    >>> smaller = keras_distill.pruning.remove_zeros(distiller.student)
    """

    def __init__(
        self,
        *,
        macs: float | None = None,
        flash: int | str | None = None,
        arena: int | str | None = None,
        latency: float | None = None,
        export: Mapping[str, Any] | None = None,
        importance: str = "l1",
        data: Any = None,
        least_share: float = 0.0,
        begin_step: int = 0,
        end_step: int = 1000,
        frequency: int = 100,
    ):
        super().__init__(begin_step, end_step, frequency)
        self._goals = goals.goals(macs, flash, arena, latency, export)
        self.importance = importance
        self.data = data
        self.least_share = fraction("least_share", least_share)

    def forms_of(self, student: keras.Model) -> Sequence[Form]:
        check_importance(self.model, self.importance, self.data)
        self._student = student_of(student)
        self._structure = Structure(student)
        #: How many units leave in all, as far as is known before the last step.
        self._count: int | None = None
        return [
            _UnitMask(x, self._structure)
            for x in self._structure.weights
            if any(axis is not None and axis.role is Role.MAKES for axis in x.axes)
        ]

    def advance(self, progress: float) -> None:
        structure, zeros = self._structure, zero_units(self._structure)
        if progress == 1 and len(zeros):
            smaller = without(self._student, structure, zeros)
            if goals.are_met(self._student, smaller, self._goals):
                return
        scores = scores_of(structure, self.importance, self.model, self.data, self._goals)
        # What is 0 already is the first that leaves.
        scores[zeros] = -1
        order = leaving_order(structure, scores, self.least_share)
        if self._count is None or progress == 1:
            self._count = goals.fewest(self._student, structure, order, self._goals)
        leaving = np.zeros(len(structure.units), bool)
        leaving[list(order[: max(math.ceil(progress * self._count), len(zeros))])] = True
        for mask in self._forms:
            mask.remove(leaving)
            mask.apply()


class _UnitMask(Mask):
    """A weight of which all that makes some units is 0."""

    def __init__(self, weight: Weight, structure: Structure):
        super().__init__(weight.variable)
        self._weight, self._structure = weight, structure

    def recognize(self) -> None:
        leaving = np.zeros(len(self._structure.units), bool)
        leaving[zero_units(self._structure)] = True
        self.remove(leaving)

    def remove(self, leaving: np.ndarray) -> None:
        """Makes units 0, and no others."""
        keeps = np.ones(self.variable.shape, bool)
        for place, axis in enumerate(self._weight.axes):
            if axis is not None and axis.role is Role.MAKES:
                stays = ~leaving[self._structure.units.of(axis.channels)]
                keeps &= stays.reshape([-1 if i == place else 1 for i in range(keeps.ndim)])
        self.keeps.assign(keeps)


def zero_units(structure: Structure) -> np.ndarray:
    """The units that may leave and whose weights, all that make them, are 0."""
    sums = np.zeros(len(structure.units))
    for weight in structure.weights:
        for units, sizes in along(structure, weight, np.abs(as_array(weight.variable)), Role.MAKES):
            sums += np.bincount(units, sizes, len(sums))
    scores = np.where(sums == 0, 0.0, np.inf)
    # One unit of each layer stays, even if all are 0.
    return np.array(leaving_order(structure, scores), int)


def remove_zeros(model: keras.Model) -> keras.Model:
    """A smaller model, without the units whose weights are 0.

    Args:
        model: As in `prune`, trained with `GradualPruning`.

    Returns:
        A new `keras.Model` whose outputs are those of `model`, not compiled.

    Raises:
        TypeError: If `model` isn't a Keras model.
        ValueError: If its graph can't be seen, or it is quantize-aware.

    Example:

    >>> smaller = keras_distill.pruning.remove_zeros(distiller.student)
    """
    student = student_of(model)
    structure = Structure(student)
    return without(student, structure, zero_units(structure))
