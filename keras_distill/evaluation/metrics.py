"""The metrics of each task, and what each sample adds to them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse
from sklearn import metrics

#: Bins of confidence in the expected calibration error.
BINS = 15


@dataclasses.dataclass(frozen=True)
class Scores:
    """The metrics of one candidate.

    Attributes:
        values: Metrics by name.
        sums: Sparse matrix of shape `(samples, k)`: what each sample adds to `k` sums.
        from_sums: Function from sums, shape `(..., k)`, to the metrics that have intervals.
        disagreement: How far each sample's output is from the teacher's, shape `(samples,)`: the
            Kullback-Leibler divergence, or the absolute difference. `None` without a teacher.
        per_class: Arrays of shape `(classes,)` by name: `"precision"`, `"recall"` and `"f1"`, or
            `"iou"`, and the number of `"labels"`. `None` for regression.
        confusion: Matrix of shape `(classes, classes)` with a row for each label. `None` for
            regression and for several labels at once.
        reliability: Arrays by bin of confidence: `"confidence"`, `"accuracy"` and `"share"`.
            `None` for regression.
        predicted: The class of each sample, 1 for each of its labels, its values, or the numbers
            of its first candidates.
        confidence: Probability of that class, or of each decision. `None` for regression.
    """

    values: dict[str, float]
    sums: scipy.sparse.csr_array
    from_sums: Callable[[np.ndarray], dict[str, np.ndarray]]
    disagreement: np.ndarray | None
    predicted: np.ndarray
    confidence: np.ndarray | None = None
    per_class: dict[str, np.ndarray] | None = None
    confusion: np.ndarray | None = None
    reliability: dict[str, np.ndarray] | None = None


def classification(
    log_p: np.ndarray, y: np.ndarray, teacher: np.ndarray | None = None, *, dense: bool = False
) -> Scores:
    """Scores of class probabilities, one label for each sample or each position.

    Precision, recall and F1 are means over the classes that occur among the labels; a precision
    without predictions counts as 0. Mean IoU is the mean over the classes that occur among labels
    or predictions, as in `keras.metrics.MeanIoU`. The expected calibration error is that of Guo
    et al. (arXiv:1706.04599), equation 3, with 15 bins of equal width. The divergence is
    KL(teacher ‖ candidate) in nats at temperature 1. The calibration error has no interval:
    resampling inflates it.

    Args:
        log_p: Log-probabilities, shape `(samples, ..., classes)`.
        y: Class indices, shape `(samples, ...)`; -1 where the label is missing. Such positions
            are left out.
        teacher: Log-probabilities of the teacher, as `log_p`.
        dense: Whether positions are labeled (segmentation) instead of whole samples.
    """
    classes = log_p.shape[-1]
    known = y >= 0
    log_p, labels = log_p[known], y[known]
    predicted, confidence = log_p.argmax(-1), np.exp(log_p.max(-1))
    per_class = _per_class(labels, predicted, classes, dense)
    reliability = reliability_of(confidence, predicted == labels)
    values = _label_values(log_p, labels, predicted, dense)
    values |= _class_means(per_class, predicted, dense)
    values["ece"] = calibration_error(reliability)
    means = {"accuracy": predicted == labels}
    if "top_5_accuracy" in values:
        means["top_5_accuracy"] = _in_top(log_p, labels, 5)
    sample = np.nonzero(known)[0]
    divergence = None
    if teacher is not None:
        means |= _by_label_to_teacher(log_p, teacher[known], predicted)
        values["agreement"] = metrics.accuracy_score(teacher[known].argmax(-1), predicted)
        values["kl"] = float(means["kl"].mean())
        counts = np.bincount(sample, minlength=len(y))
        divergence = np.bincount(sample, means["kl"], len(y)) / np.maximum(counts, 1)
    names = list(means)
    return Scores(
        values={name: float(value) for name, value in values.items()},
        sums=_class_sums(sample, len(y), labels, predicted, classes, list(means.values())),
        from_sums=lambda totals: _from_sums(totals, names, dense),
        disagreement=divergence,
        predicted=_scattered(predicted, known, -1),
        confidence=_scattered(confidence, known, np.nan),
        per_class=per_class,
        confusion=metrics.confusion_matrix(labels, predicted, labels=np.arange(classes)),
        reliability=reliability,
    )


def regression(values: np.ndarray, y: np.ndarray, teacher: np.ndarray | None = None) -> Scores:
    """Scores of predicted values: errors, R², and the mean absolute difference to the teacher.

    R² of several outputs is the mean of theirs.

    Args:
        values: Shape `(samples, ...)`.
        y: Labels of the same shape.
        teacher: The teacher's values, of the same shape.
    """
    predicted = values.reshape(len(values), -1).astype("float64")
    labels = y.reshape(len(y), -1).astype("float64")
    error = predicted - labels
    scores = {
        "mae": metrics.mean_absolute_error(labels, predicted),
        "mse": metrics.mean_squared_error(labels, predicted),
        "r2": metrics.r2_score(labels, predicted) if len(labels) > 1 else float("nan"),
    }
    difference = None
    columns = [np.ones(len(error)), np.abs(error).mean(1), (error**2).mean(1)]
    if teacher is not None:
        apart = np.abs(predicted - teacher.reshape(predicted.shape))
        scores["difference"] = float(apart.mean())
        difference = apart.mean(1)
        columns.append(difference)
    outputs = labels.shape[1]
    centered = labels - labels.mean(0)
    sums = np.column_stack([*columns, error**2, centered, centered**2])

    def from_sums(totals: np.ndarray) -> dict[str, np.ndarray]:
        n = totals[..., 0]
        means = {"mae": totals[..., 1] / n, "mse": totals[..., 2] / n}
        if teacher is not None:
            means["difference"] = totals[..., 3] / n
        squares, first, second = np.split(totals[..., -3 * outputs :], 3, axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            means["r2"] = np.mean(1 - squares / (second - first**2 / n[..., None]), axis=-1)
        return means

    return Scores(
        values={name: float(value) for name, value in scores.items()},
        sums=scipy.sparse.csr_array(sums),
        from_sums=from_sums,
        disagreement=difference,
        predicted=values,
    )


def _label_values(
    log_p: np.ndarray, labels: np.ndarray, predicted: np.ndarray, dense: bool
) -> dict[str, Any]:
    """Metrics that are means over the labels."""
    values = {"accuracy": metrics.accuracy_score(labels, predicted)}
    classes = log_p.shape[-1]
    if classes > 5 and not dense:
        values["top_5_accuracy"] = metrics.top_k_accuracy_score(
            labels, log_p, k=5, labels=np.arange(classes)
        )
    return values


def _class_means(
    per_class: dict[str, np.ndarray], predicted: np.ndarray, dense: bool
) -> dict[str, Any]:
    """Metrics that are means over the classes."""
    present = per_class["labels"] > 0
    if dense:
        occurs = present | (np.bincount(predicted, minlength=len(present)) > 0)
        return {"mean_iou": per_class["iou"][occurs].mean()}
    return {name: per_class[name][present].mean() for name in ("precision", "recall", "f1")}


def _by_label_to_teacher(
    log_p: np.ndarray, teacher: np.ndarray, predicted: np.ndarray
) -> dict[str, np.ndarray]:
    """For each label, agreement with the teacher and the divergence from it."""
    return {
        "agreement": predicted == teacher.argmax(-1),
        "kl": np.sum(np.exp(teacher) * (teacher - log_p), axis=-1),
    }


def _in_top(log_p: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether the label is among the `k` largest; of equals, later classes win, as in sklearn."""
    order = np.argsort(log_p, axis=1, kind="stable")[:, -k:]
    return (order == labels[:, None]).any(1)


def _per_class(
    labels: np.ndarray, predicted: np.ndarray, classes: int, dense: bool
) -> dict[str, np.ndarray]:
    every = np.arange(classes)
    if dense:
        iou = metrics.jaccard_score(
            labels, predicted, labels=every, average=None, zero_division=0.0
        )
        return {"iou": iou, "labels": np.bincount(labels, minlength=classes)}
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0.0
    )
    return {"precision": precision, "recall": recall, "f1": f1, "labels": support}


def reliability_of(confidence: np.ndarray, right: np.ndarray) -> dict[str, np.ndarray]:
    """How often decisions are right, by bins of confidence; see `Scores.reliability`.

    Args:
        confidence: Probability of each decision, from 0 to 1.
        right: Whether it is right, bool.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    least_one = np.maximum(count, 1)
    return {
        "confidence": np.bincount(bins, confidence, BINS) / least_one,
        "accuracy": np.bincount(bins, right, BINS) / least_one,
        "share": count / len(bins),
    }


def calibration_error(reliability: dict[str, np.ndarray]) -> float:
    """The expected calibration error: how far confidence is from accuracy, the mean over bins."""
    gaps = np.abs(reliability["accuracy"] - reliability["confidence"])
    return float(np.sum(reliability["share"] * gaps))


def _class_sums(
    sample: np.ndarray,
    samples: int,
    labels: np.ndarray,
    predicted: np.ndarray,
    classes: int,
    means: Sequence[np.ndarray],
) -> scipy.sparse.csr_array:
    """What each sample adds to the sums that `_from_sums` reads.

    Args:
        sample: Number of the sample to which each label belongs, shape `(labels,)`.
        samples: Number of samples.
        labels: Class indices, shape `(labels,)`.
        predicted: Class indices, shape `(labels,)`.
        classes: Number of classes.
        means: What each label adds to each metric that is a mean over labels.
    """
    first = np.zeros(len(labels), int)
    # Blocks of columns: (index inside the block, value, width of the block).
    blocks = [
        *((first, value, 1) for value in (np.ones(len(labels)), *means)),
        (labels, 1.0, classes),
        (predicted, 1.0, classes),
        (labels, predicted == labels, classes),
    ]
    indices, data, start = [], [], 0
    for index, value, width in blocks:
        indices.append(index + start)
        data.append(np.broadcast_to(np.asarray(value, "float64"), index.shape))
        start += width
    entries = np.concatenate(data), (np.tile(sample, len(blocks)), np.concatenate(indices))
    return scipy.sparse.coo_array(entries, shape=(samples, start)).tocsr()


def _from_sums(totals: np.ndarray, names: Sequence[str], dense: bool) -> dict[str, np.ndarray]:
    """The metrics of classification from sums of shape `(..., k)`."""
    n, start = totals[..., 0], 1 + len(names)
    means = {name: totals[..., i] / n for i, name in enumerate(names, start=1)}
    labels, predicted, right = np.split(totals[..., start:], 3, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        if dense:
            means["mean_iou"] = np.nanmean(right / (labels + predicted - right), axis=-1)
        else:
            here = np.where(labels > 0, 1.0, np.nan)
            precision = right / np.maximum(predicted, 1)
            means["precision"] = np.nanmean(here * precision, axis=-1)
            means["recall"] = np.nanmean(here * right / labels, axis=-1)
            means["f1"] = np.nanmean(here * 2 * right / (labels + predicted), axis=-1)
    return means


def _scattered(values: np.ndarray, known: np.ndarray, fill: Any) -> np.ndarray:
    out = np.full(known.shape, fill, dtype=values.dtype)
    out[known] = values
    return out
