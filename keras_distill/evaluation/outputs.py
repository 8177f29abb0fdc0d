"""What labels and outputs mean: the task, classes, and probabilities; checked before anything is
computed from them."""

import keras
import numpy as np
from scipy import special

TASKS = ("classification", "segmentation", "regression")


def check(outputs, samples, name, like=None):
    """The outputs of a candidate as one array of finite numbers, one row for each sample.

    Args:
        outputs: What the candidate gave.
        samples: Number of samples that it was given.
        name: Name of the candidate, for messages.
        like: `(name, outputs)` of another candidate, to which the shape must be equal.

    Raises:
        ValueError: If they are something else.
    """
    if keras.tree.is_nested(outputs):
        names = list(outputs) if isinstance(outputs, dict) else len(outputs)
        raise ValueError(
            f"{name!r} gives several outputs ({names}); one is compared at a time. Give a model "
            "with that one alone: `keras.Model(model.inputs, model.outputs[0])`."
        )
    outputs = np.asarray(outputs)
    if not np.issubdtype(outputs.dtype, np.number):
        raise ValueError(f"{name!r} gives {outputs.dtype}, not numbers.")
    if np.issubdtype(outputs.dtype, np.integer):
        raise ValueError(
            f"{name!r} gives whole numbers, such as classes that argmax picked. What is compared "
            'are scores or values, floats: convert without `postprocessing="argmax"`.'
        )
    if outputs.ndim == 0 or len(outputs) != samples:
        raise ValueError(f"{name!r} gives shape {outputs.shape} for {samples} samples.")
    if like is not None and outputs.shape != like[1].shape:
        raise ValueError(
            f"{name!r} gives outputs of shape {outputs.shape[1:]} for a sample, but {like[0]!r} "
            f"gives {like[1].shape[1:]}: they can't be compared."
        )
    if not np.isfinite(outputs).all():
        sample = np.argwhere(~np.isfinite(outputs))[0][0]
        raise ValueError(f"{name!r} gives NaN or infinity, first for sample {sample}.")
    return outputs


def task_of(y, outputs) -> str:
    """The task that labels and outputs of these shapes and dtypes belong to."""
    whole = np.issubdtype(y.dtype, np.integer) or y.dtype == bool
    if outputs.ndim == 2:
        one_hot = y.shape == outputs.shape and y.shape[1] > 1 and _is_one_hot(y)
        classes = (
            whole and y.size == len(y) and (outputs.shape[1] > 1 or set(np.unique(y)) <= {0, 1})
        )
        return "classification" if one_hot or classes else "regression"
    if outputs.ndim > 2 and whole and y.size * outputs.shape[-1] == outputs.size:
        return "segmentation"
    return "regression"


def class_labels(y, outputs, missing_label=None):
    """Labels as class indices of shape `outputs.shape[:-1]`; -1 where the label is missing.

    Raises:
        ValueError: If there are labels that the outputs have no class for.
    """
    classes = max(2, outputs.shape[-1])
    if y.shape == outputs.shape and classes == outputs.shape[-1]:
        if not _is_one_hot(y):
            raise ValueError(
                "Labels of the outputs' shape must be one-hot for classification: each row a "
                "single 1. Give class indices, or `task='regression'`."
            )
        return y.argmax(-1)
    if y.size != outputs.size // outputs.shape[-1]:
        raise ValueError(
            f"Labels of shape {y.shape} don't fit outputs of shape {outputs.shape}: one class "
            f"index is needed for each of {outputs.shape[:-1]}."
        )
    y = y.reshape(outputs.shape[:-1])
    if not np.array_equal(y, np.floor(y)):
        raise ValueError(
            "Labels must be class indices. Received the label "
            f"{y[y != np.floor(y)].flat[0]!r}; for values, give `task='regression'`."
        )
    y = y.astype("int64")
    missing = np.zeros(y.shape, bool) if missing_label is None else y == missing_label
    wrong = ~missing & ((y < 0) | (y >= classes))
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"Labels must be from 0 to {classes - 1}, as the outputs have {classes} classes. "
            f'Received the label {y[where]} at sample {where[0]}; if it stands for "not known", '
            f"give `missing_label={y[where]}`."
        )
    if missing.all():
        raise ValueError("All labels are missing.")
    return np.where(missing, -1, y)


def _is_one_hot(y):
    return bool(((y == 0) | (y == 1)).all() and (y.sum(-1) == 1).all())


def are_probabilities(outputs) -> bool:
    """Whether outputs are probabilities: all between 0 and 1, and those of a sample add up to 1.

    Sums may differ from 1 by what 8 bits lose. A single output needs only to lie between.
    """
    if outputs.min() < 0 or outputs.max() > 1:
        return False
    classes = outputs.shape[-1]
    sums = outputs.sum(-1, dtype="float64")
    return classes == 1 or bool(np.all(np.abs(sums - 1) <= 0.02 + classes / 512))


def log_probabilities(outputs, from_logits):
    """Log-probabilities of the classes, float64.

    Probabilities below 1e-7 count as 1e-7, as in Keras' losses: a file of 8 bits gives many 0s.

    Args:
        outputs: Shape `(..., classes)`, or `(..., 1)` for two classes, of which it is the second.
        from_logits: Whether they are logits.

    Returns:
        Array of shape `(..., classes)`.
    """
    outputs = outputs.astype("float64")
    if outputs.shape[-1] == 1:
        first = np.zeros_like(outputs) if from_logits else 1 - outputs
        outputs = np.concatenate([first, outputs], axis=-1)
    if not from_logits:
        outputs = np.log(np.maximum(outputs, 1e-7))
    return special.log_softmax(outputs, axis=-1)
