"""Labels and sample weights: in the containers of the outputs, missing ones without weight.

Pure functions of tensors. Keras accepts labels and weights of several outputs in containers other
than those of the outputs, such as a list for a dict of outputs.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


def checked_missing(missing_label: Any) -> float | None:
    """`missing_label`, a number (NaN included) or `None`.

    Raises:
        TypeError: If it is something else.
    """
    if missing_label is None or isinstance(missing_label, numbers.Real):
        return missing_label  # type: ignore[return-value]
    raise TypeError(
        f"`missing_label` must be a number or None. Received: missing_label={missing_label!r}"
    )


def conform(structure: Any, outputs: Any, names: Sequence[str] | None = None) -> Any:
    """Labels or weights in the container of the outputs, where Keras would accept another one.

    Args:
        structure: Labels or weights: a tensor, a container of tensors, or `None`.
        outputs: A model's outputs: a tensor, or a list, tuple or dict of tensors.
        names: Names of the model's outputs, in order, or `None`.
    """
    if isinstance(structure, dict) and isinstance(outputs, (list, tuple)):
        names = names or ()
        if set(structure) == set(names):
            structure = [structure[name] for name in names]
    if isinstance(structure, (list, tuple)) and len(structure) == len(keras.tree.flatten(outputs)):
        return keras.tree.pack_sequence_as(outputs, structure)
    return structure


def without_missing(
    y: Any, sample_weight: Any, outputs: Any, missing_label: float | None
) -> tuple[Any, Any]:
    """Labels and weights in which missing labels are 0 and have weight 0.

    Args:
        y: Labels in the container of the outputs, or `None`.
        sample_weight: Weights, likewise; one tensor counts for all outputs.
        outputs: The outputs that the labels belong to.
        missing_label: The label that stands for "not known", or `None` where all are known.
    """
    if y is None or missing_label is None:
        return y, sample_weight
    known = keras.tree.map_structure(
        lambda labels, output: _is_known(labels, output, missing_label), y, outputs
    )
    y = keras.tree.map_structure(
        lambda k, v: ops.where(ops.reshape(k, _padded(k, v)), v, ops.zeros_like(v)), known, y
    )
    if sample_weight is None:
        return y, keras.tree.map_structure(_masked_weight, known)
    if not keras.tree.is_nested(sample_weight):
        sample_weight = keras.tree.map_structure(lambda _: sample_weight, known)
    return y, keras.tree.map_structure(_masked_weight, known, sample_weight)


def which_count(sample_weight: Any) -> list:
    """Whether any weight of a batch isn't 0, as 0.0 or 1.0, for each output in order.

    Args:
        sample_weight: Weights in the container of the outputs.
    """
    return [
        ops.cast(ops.any(ops.not_equal(weight, 0)), "float32")
        for weight in keras.tree.flatten(sample_weight)
    ]


def labels_at(y: Any, output: int | str | None) -> Any:
    """The labels of one output, or `None` where they can't be told apart.

    Args:
        y: Labels in the container of the outputs.
        output: Index or name of the output, or `None`.
    """
    if not keras.tree.is_nested(y):
        return y
    return None if output is None else y[output]


def weights_at(sample_weight: Any, output: int | str | None) -> Any:
    """The weights of one output; of a place that is no output, the mean weight of each sample.

    Args:
        sample_weight: Weights in the container of the outputs, or `None`.
        output: Index or name of the output, or `None`.
    """
    if not keras.tree.is_nested(sample_weight):
        return sample_weight
    own = None if output is None else sample_weight[output]
    if own is not None:
        return own
    rows = [
        ops.mean(ops.cast(weight, "float32"), axis=tuple(range(1, len(weight.shape))))
        for weight in keras.tree.flatten(sample_weight)
        if weight is not None
    ]
    return sum(rows) / len(rows)


def weighted_metrics_only(arguments: dict) -> dict:
    """Arguments of `compile` with all metrics among the weighted ones.

    Raises:
        ValueError: If there are metrics of both kinds that can't be joined.
    """
    arguments = dict(arguments)
    metrics = arguments.pop("metrics", None)
    weighted_metrics = arguments.get("weighted_metrics")
    if metrics is None:
        return arguments
    if weighted_metrics is None:
        return {**arguments, "weighted_metrics": metrics}
    if isinstance(metrics, list) and isinstance(weighted_metrics, list):
        return {**arguments, "weighted_metrics": metrics + weighted_metrics}
    raise ValueError(
        "With `missing_label` all metrics are weighted: give them as one list or dict. "
        f"Received: metrics={metrics!r}, weighted_metrics={weighted_metrics!r}"
    )


def _is_known(y: Any, output: Any, missing_label: float) -> Any:
    """One boolean for each label: a class, a row of one-hot classes, or a vector of values."""
    is_nan = isinstance(missing_label, float) and math.isnan(missing_label)
    known = ops.logical_not(ops.isnan(y)) if is_nan else ops.not_equal(y, missing_label)
    return ops.any(known, axis=-1) if len(y.shape) == len(output.shape) else known


def _masked_weight(known: Any, weight: Any = None) -> Any:
    known = ops.cast(known, "float32")
    if weight is None:
        return known
    weight = ops.cast(weight, "float32")
    if len(weight.shape) < len(known.shape):
        weight = ops.reshape(weight, _padded(weight, known))
    return known * weight


def _padded(x: Any, like: Any) -> tuple:
    """The shape of `x` with trailing axes of size 1 until it has the rank of `like`."""
    return (*ops.shape(x), *(1,) * (len(like.shape) - len(x.shape)))
