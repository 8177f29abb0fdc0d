"""Structured pruning: whole channels, neurons and heads leave a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_distill import _keras, backends
from keras_distill.checks import fraction
from keras_distill.distiller import Distiller
from keras_distill.pruning import goals
from keras_distill.pruning.importance import IMPORTANCES, importances
from keras_distill.pruning.removal import without
from keras_distill.pruning.structure import Structure
from keras_distill.quantization import is_quantize_aware


def prune(
    model: keras.Model,
    data: Any = None,
    *,
    macs: float | None = None,
    flash: int | str | None = None,
    arena: int | str | None = None,
    latency: float | None = None,
    export: Mapping[str, Any] | None = None,
    importance: str = "taylor",
    least_share: float = 0.0,
) -> keras.Model:
    """A smaller model, without the channels, neurons and heads that matter least.

    The units leave together with all that belongs to them: the weights that make them and those
    that read them, their normalization, what is added to or multiplied with them, in models
    inside and at each call of a shared layer. Where the weights of a unit are 0, its leaving
    changes no output. `kept_whole` says of which layers nothing can leave. The smaller model is an
    ordinary one with trained weights; it has lost accuracy, which training with the teacher brings
    back.

    Args:
        model: A compiled `Distiller`, whose student is pruned, or a Functional or built Sequential
            model. It isn't changed.
        data: For `importance="taylor"`: batches like those that `fit` takes, as a
            `tf.data.Dataset` or another iterable. Some 20 are enough.
        macs: Multiply-accumulates of an inference at most: a share of what the model has now, from
            0 to 1, or a greater number of them.
        flash: Bytes of the exported file at most, as a number or as `"64KB"`.
        arena: Bytes of tensor arena at most, likewise, for microcontrollers.
        latency: Milliseconds at most that an inference of the exported file takes on this host, one
            thread, the median of 200. Other work on the host disturbs it.
        export: Arguments of `keras_distill.tflite.convert`, which makes the files that `flash`,
            `arena` and `latency` are measured in.
        importance: `"taylor"`, how much the loss that the model was compiled with (of a
            `Distiller`, all of it) changes to first order where a unit becomes 0
            (arXiv:1906.10771), for what it costs; `"l1"`, the magnitude of the weights that
            make it (arXiv:1608.08710); or `"scale"`, that of its scale in BatchNormalization
            (arXiv:1708.06519). The latter two are relative to the mean of their layer.
        least_share: Share of each layer's units that stay at least, from 0 to 1. What no unit alone
            shows is that a layer needs some of them. At least one stays.

    Returns:
        A new `keras.Model` with the inputs, outputs and layer names of the old one, not compiled.

    Raises:
        TypeError: If `model` isn't a Keras model.
        ValueError: If its graph can't be seen, it is quantize-aware, or an argument is wrong.
        BudgetError: If a goal can't be met. Its message has the breakdown.

    Example:

    >>> student = keras_distill.pruning.prune(distiller, train.take(20), macs=0.5)
    >>> distiller = keras_distill.Distiller(student, teacher)
    """
    backends.require("`prune`", "tensorflow", "jax", "torch")
    student = student_of(model)
    wanted = goals.goals(macs, flash, arena, latency, export)
    check_importance(model, importance, data)
    fraction("least_share", least_share)
    structure = Structure(student)
    scores = scores_of(structure, importance, model, data, wanted)
    order = leaving_order(structure, scores, least_share)
    count = goals.fewest(student, structure, order, wanted)
    return without(student, structure, order[:count])


def scores_of(
    structure: Structure,
    importance: str,
    model: keras.Model,
    data: Any,
    wanted: Sequence[goals.Goal],
) -> np.ndarray:
    """How much each unit matters, of the change of a loss for what it costs of the goals."""
    scores = importances(structure, importance, model, data)
    return scores / goals.shares(structure, wanted) if importance == "taylor" else scores


def kept_whole(model: keras.Model) -> dict[str, str]:
    """The layers of which `prune` can remove nothing.

    Args:
        model: As in `prune`.

    Returns:
        The reasons, by the layers' paths.

    Example:

    >>> keras_distill.pruning.kept_whole(student)
    {'scores': 'it is an output of the model'}
    """
    return goals.kept_whole(Structure(student_of(model)))


def leaving_order(
    structure: Structure, scores: np.ndarray, least_share: float = 0.0
) -> Sequence[int]:
    """The units that may leave, the least important first.

    Each layer keeps a share of its units, and at least one.
    """
    made = [np.unique(structure.units.of(x)) for x in structure.made.values()]
    # A product such as 0.55 * 100 is a little above the whole number that it stands for.
    stay = [max(math.ceil(round(least_share * len(units), 6)), 1) for units in made]
    may_leave = [len(units) - count for units, count in zip(made, stay, strict=True)]
    where: dict[int, list[int]] = {}
    for place, units in enumerate(made):
        for unit in units:
            where.setdefault(int(unit), []).append(place)
    order = []
    removable = structure.removable
    for unit in removable[np.argsort(scores[removable], kind="stable")]:
        places = where[int(unit)]
        if np.isfinite(scores[unit]) and all(may_leave[place] for place in places):
            order.append(int(unit))
            for place in places:
                may_leave[place] -= 1
    return order


def student_of(model: Any) -> keras.Model:
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras 3 model. Received: model={model!r}")
    student = model.student if isinstance(model, Distiller) else model
    if is_quantize_aware(student):
        raise ValueError(
            f"The model {student.name!r} is quantize-aware: prune the float model, and make the "
            "smaller one quantize-aware."
        )
    return student


def check_importance(model: keras.Model, importance: str, data: Any) -> None:
    if importance not in IMPORTANCES:
        names = ", ".join(map(repr, IMPORTANCES))
        raise ValueError(f"`importance` must be one of {names}. Received: {importance!r}")
    if importance != "taylor":
        return
    if data is None:
        raise ValueError(
            '`importance="taylor"` needs `data`, batches with the gradient of whose loss units are '
            'judged. Without data, use `importance="l1"`.'
        )
    if _keras.compiled_loss(model) is None and not isinstance(model, Distiller):
        raise ValueError(
            '`importance="taylor"` is that to the loss of a compiled model: give a compiled '
            "`Distiller`, or compile the model."
        )
