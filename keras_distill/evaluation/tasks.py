"""The task that labels and outputs belong to, and both in the form in which they are scored."""

from typing import Any

import keras
import numpy as np
from scipy import special

from keras_distill.samples import are_decisions, is_one_hot

TASKS = ("classification", "multilabel", "segmentation", "regression", "ranking")
#: The metric of each task by which the gap between baseline and teacher is measured.
MAIN_METRICS = {
    "classification": "accuracy",
    "multilabel": "mean_average_precision",
    "segmentation": "mean_iou",
    "regression": "r2",
    "ranking": "ndcg_10",
    "detection": "map",
    "stream": "miss_rate",
    "frames": "auc",
    "embedding": "accuracy",
}


def check(
    outputs: Any, samples: int, name: str, like: tuple[str, np.ndarray] | None = None
) -> np.ndarray:
    """The outputs of a candidate as one array of finite numbers, one row for each sample.

    Args:
        outputs: What the candidate returned.
        samples: Number of samples that it was given.
        name: Name of the candidate, for messages.
        like: `(name, outputs)` of another candidate, to which the shape must be equal.

    Raises:
        ValueError: If they are something else.
    """
    if keras.tree.is_nested(outputs):
        names = list(outputs) if isinstance(outputs, dict) else len(outputs)
        raise ValueError(
            f"{name!r} has several outputs ({names}), but one is compared at a time. Give a model "
            "with a single output: `keras.Model(model.inputs, model.outputs[0])`."
        )
    outputs = np.asarray(outputs)
    if not np.issubdtype(outputs.dtype, np.number):
        raise ValueError(f"{name!r} returns {outputs.dtype} instead of numbers.")
    if np.issubdtype(outputs.dtype, np.integer):
        raise ValueError(
            f"{name!r} returns integers, such as the classes that argmax picks. Only floats can be "
            'compared, scores or values: convert it without `postprocessing="argmax"`.'
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


def check_labels(y: np.ndarray) -> None:
    """Raises `ValueError` unless labels are numbers."""
    if not (np.issubdtype(y.dtype, np.number) or y.dtype == bool):
        raise ValueError(
            "Labels must be numbers: the index of a class, in the order of the outputs, or values. "
            f"Received the label {y.flat[0]!r}."
        )


def task_of(y: np.ndarray, outputs: np.ndarray, missing_label: float | None = None) -> str:
    """The task that labels and outputs of these shapes and dtypes belong to."""
    whole = np.issubdtype(y.dtype, np.integer) or y.dtype == bool
    # Decisions are often floats in Keras.
    whole = whole or (outputs.shape[1:] == (1,) and set(np.unique(y)) == {0, 1})
    if outputs.ndim == 2:
        one_hot = y.shape == outputs.shape and y.shape[1] > 1 and is_one_hot(y)
        classes = (
            whole and y.size == len(y) and (outputs.shape[1] > 1 or set(np.unique(y)) <= {0, 1})
        )
        known = y[~_are_missing(y, missing_label)]
        if y.shape == outputs.shape and y.shape[1] > 1 and not one_hot and are_decisions(known):
            return "multilabel"
        return "classification" if one_hot or classes else "regression"
    if outputs.ndim > 2 and whole and y.size * outputs.shape[-1] == outputs.size:
        return "segmentation"
    return "regression"


def labels_of(
    task: str, y: np.ndarray, outputs: np.ndarray, missing_label: float | None = None
) -> np.ndarray:
    """Labels in the form in which they are compared with outputs of this shape.

    Returns:
        For regression, values of the shape of `outputs`. For several labels at once, 0 and 1 of
        this shape; for rankings, relevances of this shape. Otherwise class indices of shape
        `outputs.shape[:-1]`. A label that is missing is -1.

    Raises:
        ValueError: If the labels don't fit the outputs.
    """
    if task == "multilabel":
        return _several_labels(y, outputs, missing_label)
    if task == "ranking":
        return _relevances(y, outputs, missing_label)
    if task != "regression":
        return _class_labels(y, outputs, missing_label)
    if missing_label is not None:
        raise ValueError(
            "`missing_label` is for classes. For regression, leave such samples out of `data`. "
            f"Received: missing_label={missing_label!r}"
        )
    if y.size != outputs.size:
        are_classes = y.size * outputs.shape[-1] == outputs.size
        fix = " If they are classes, give task='classification'." if are_classes else ""
        raise ValueError(
            f"Labels of shape {y.shape} don't fit outputs of shape {outputs.shape}.{fix}"
        )
    if not np.isfinite(y.astype("float64")).all():
        raise ValueError("The labels hold NaN or infinity: leave such samples out of `data`.")
    return y.reshape(outputs.shape)


def _several_labels(y: np.ndarray, outputs: np.ndarray, missing_label: float | None) -> np.ndarray:
    if y.ndim != 2 or y.shape != outputs.shape:
        raise ValueError(
            'For task="multilabel", labels and outputs must both have the shape (samples, labels). '
            f"Received: labels of shape {y.shape}, outputs of shape {outputs.shape}"
        )
    missing = _are_missing(y, missing_label)
    if not are_decisions(y[~missing]):
        wrong = y[~missing & (y != 0) & (y != 1)][0]
        raise ValueError(
            'For task="multilabel", each label must be 1 (the sample has it) or 0. Received the '
            f'label {wrong!r}; if it stands for "not known", give `missing_label={wrong}`.'
        )
    if missing.all():
        raise ValueError("All labels are missing.")
    if not (y[~missing] == 1).any():
        raise ValueError("No sample has any label: all are 0, of which nothing can be measured.")
    return np.where(missing, -1, y == 1)


def _relevances(y: np.ndarray, outputs: np.ndarray, missing_label: float | None) -> np.ndarray:
    if missing_label is not None:
        raise ValueError(
            "`missing_label` is for classes. For rankings, the relevance of a candidate of which "
            f"nothing is known is 0. Received: missing_label={missing_label!r}"
        )
    if outputs.ndim != 2:
        raise ValueError(
            'For task="ranking", outputs must have the shape (queries, candidates). '
            f"Received: outputs of shape {outputs.shape}"
        )
    if y.shape in (outputs.shape[:1], (len(outputs), 1)):  # The relevant candidate's number.
        y = y.reshape(-1)
        if not np.isin(y, np.arange(outputs.shape[1])).all():
            raise ValueError(
                "The number of the relevant candidate must be a whole number from 0 to "
                f"{outputs.shape[1] - 1}. Received labels from {y.min()} to {y.max()}."
            )
        return (np.arange(outputs.shape[1]) == y[:, None]).astype("float64")
    if y.shape != outputs.shape:
        raise ValueError(
            'For task="ranking", labels are the number of the relevant candidate of each query, '
            "or the relevance of each candidate, of the outputs' shape. "
            f"Received: labels of shape {y.shape}, outputs of shape {outputs.shape}"
        )
    y = y.astype("float64")
    if not (y >= 0).all() or not np.isfinite(y).all():
        raise ValueError("Relevances must be at least 0 and finite.")
    if not (y > 0).any(1).all():
        query = int(np.flatnonzero(~(y > 0).any(1))[0])
        raise ValueError(
            f"No candidate of query {query} is relevant, so that its ranking can't be measured: "
            "leave such queries out of `data`."
        )
    return y


def _are_missing(y: np.ndarray, missing_label: float | None) -> np.ndarray:
    if missing_label is None:
        return np.zeros(y.shape, bool)
    return np.isnan(y.astype("float64")) if np.isnan(missing_label) else y == missing_label


def _class_labels(y: np.ndarray, outputs: np.ndarray, missing_label: float | None) -> np.ndarray:
    classes = max(2, outputs.shape[-1])
    if y.shape == outputs.shape and classes == outputs.shape[-1]:
        if not is_one_hot(y):
            raise ValueError(
                "Labels of the outputs' shape must be one-hot for classification: a single 1 "
                "in each row. For several labels at once give task='multilabel', for values "
                "task='regression'."
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
    missing = _are_missing(y, missing_label)
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


def are_probabilities(outputs: np.ndarray) -> bool:
    """Whether outputs look like probabilities: from 0 to 1, and adding up to 1 for each sample.

    Sums may differ from 1 by the rounding error of 8 bits. A single output only has to be between
    0 and 1.
    """
    if outputs.min() < 0 or outputs.max() > 1:
        return False
    classes = outputs.shape[-1]
    sums = outputs.sum(-1, dtype="float64")
    return classes == 1 or bool(np.all(np.abs(sums - 1) <= 0.02 + classes / 512))


def log_probabilities(outputs: np.ndarray, from_logits: bool | None) -> np.ndarray:
    """Log-probabilities of the classes, float64.

    Probabilities below 1e-7 count as 1e-7, as in the losses of Keras, because a file of 8 bits
    returns many zeros.

    Args:
        outputs: Shape `(..., classes)`, or `(..., 1)` for two classes, of which it is the second.
        from_logits: Whether they are logits. `None`: unless they look like probabilities.

    Returns:
        Array of shape `(..., classes)`.
    """
    if from_logits is None:
        from_logits = not are_probabilities(outputs)
    outputs = outputs.astype("float64")
    if outputs.shape[-1] == 1:
        first = np.zeros_like(outputs) if from_logits else 1 - outputs
        outputs = np.concatenate([first, outputs], axis=-1)
    if not from_logits:
        outputs = np.log(np.maximum(outputs, 1e-7))
    return special.log_softmax(outputs, axis=-1)


def label_probabilities(outputs: np.ndarray, from_logits: bool | None) -> np.ndarray:
    """Probabilities of labels that don't exclude each other, float64.

    Args:
        outputs: Shape `(samples, labels)`.
        from_logits: Whether they are logits. `None`: unless all are from 0 to 1.
    """
    if from_logits is None:
        from_logits = bool(outputs.min() < 0 or outputs.max() > 1)
    outputs = outputs.astype("float64")
    return special.expit(outputs) if from_logits else outputs
