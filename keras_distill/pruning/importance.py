"""How much each unit matters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_distill import _keras, backends
from keras_distill.distiller import Distiller
from keras_distill.pruning.step import Axis, Role, Weight
from keras_distill.pruning.structure import Structure

IMPORTANCES = ("taylor", "l1", "scale")


def importances(structure: Structure, kind: str, model: keras.Model, data: Any) -> np.ndarray:
    """The importance of each unit.

    Args:
        structure: Structure of the model that is pruned.
        kind: One of `IMPORTANCES`.
        model: For `"taylor"`, the compiled `Distiller` or model whose loss counts.
        data: For `"taylor"`, batches as `fit` takes them.

    Returns:
        float64 array of shape `(len(structure.units),)`; infinity for units that must stay.
    """
    made = {
        "taylor": lambda: _taylor(structure, model, data),
        "l1": lambda: _relative(structure, _is_kernel),
        "scale": lambda: _relative(structure, lambda w: w.is_scale),
    }[kind]()
    stays = np.ones(len(structure.units), bool)
    stays[structure.removable] = False
    made[stays] = np.inf
    if len(structure.removable) and np.all(np.isinf(made[structure.removable])):
        raise ValueError(
            f"`importance={kind!r}` says nothing about this model: no unit that may leave has "
            'a BatchNormalization with a scale. Use "l1" or "taylor".'
        )
    return made


def _is_kernel(weight: Weight) -> bool:
    # Biases of attention and of a GRU have two axes.
    return len(weight.axes) > 1 and "bias" not in weight.variable.name


def _relative(structure: Structure, counts: Callable[[Weight], bool]) -> np.ndarray:
    """Sums of magnitudes, divided by their mean over the units of the same weight."""
    sums, weights = np.zeros((2, len(structure.units)))
    for weight in filter(counts, structure.weights):
        magnitudes = np.abs(as_array(weight.variable))
        for units, values in along(structure, weight, magnitudes, Role.MAKES):
            total = np.bincount(units, values, len(sums))
            present = np.unique(units)
            sums[present] += total[present] / max(total[present].mean(), 1e-30)
            weights[present] += 1
    return np.where(weights > 0, sums / np.maximum(weights, 1), np.inf)


def _taylor(structure: Structure, model: keras.Model, data: Any) -> np.ndarray:
    """The mean of the squared first-order change of the loss where a unit becomes 0.

    Setting all that reads a unit to 0 changes the loss by the sum of `gradient * weight` over the
    weights that read it (arXiv:1906.10771, equation 6 with a gate for each unit).
    """
    weights = [x for x in structure.weights if any(a and a.role is Role.READS for a in x.axes)]
    variables = [x.variable for x in weights]
    total, batches = np.zeros(len(structure.units)), 0
    for gradients in _gradients(model, variables, data):
        change = np.zeros(len(structure.units))
        for weight, gradient in zip(weights, gradients, strict=True):
            product = gradient * as_array(weight.variable)
            for units, values in along(structure, weight, product, Role.READS):
                change += np.bincount(units, values, len(change))
        total += change**2
        batches += 1
    if not batches:
        raise ValueError("`data` has no batch.")
    if not np.all(np.isfinite(total)):
        raise ValueError("The loss on `data` has gradients that are NaN or infinite.")
    return total / batches


def along(
    structure: Structure, weight: Weight, values: np.ndarray, role: Role
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Units along each axis of a role, and the sums of values over the other axes.

    Args:
        structure: Structure of the model.
        weight: One of its weights.
        values: A number for each value of the weight.
        role: Which of the axes count.
    """
    for place, axis in enumerate(weight.axes):
        if isinstance(axis, Axis) and axis.role is role:
            others = tuple(i for i in range(values.ndim) if i != place)
            yield structure.units.of(axis.channels), values.sum(axis=others)


def as_array(variable: Any) -> np.ndarray:
    """A variable in float64."""
    return np.asarray(keras.ops.convert_to_numpy(variable), "float64")


def _gradients(model: Any, variables: list, data: Any) -> Iterator[list[np.ndarray]]:
    """Gradients of the loss of each batch."""
    loss = _loss_of(model)
    for batch in data:
        parts = keras.tree.map_structure(
            lambda a: None if a is None else keras.ops.convert_to_tensor(a),
            keras.utils.unpack_x_y_sample_weight(batch),
        )
        with _keras.computing_in_float32(model):
            gradients = backends.gradients(functools.partial(loss, *parts), variables)
        yield [np.asarray(keras.ops.convert_to_numpy(g), "float64") for g in gradients]


def _loss_of(model: Any) -> Callable[[Any, Any, Any], Any]:
    """A compiled model's loss of a batch, at inference."""
    if isinstance(model, Distiller):

        def of_distiller(x: Any, y: Any, sample_weight: Any) -> Any:
            model.build_for(x)
            teacher_answer = model.ask_teacher(x)
            answer = model.run_student(x, training=False)
            losses = model.compute_losses(x, y, answer, teacher_answer, sample_weight, False)
            return losses["loss"]

        return of_distiller

    def of_model(x: Any, y: Any, sample_weight: Any) -> Any:
        return model.compute_loss(x, y, model(x, training=False), sample_weight, training=False)

    return of_model
