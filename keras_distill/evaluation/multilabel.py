"""The metrics of several labels at once, each of which is a decision of its own."""

import numpy as np
import scipy.sparse

from keras_distill.evaluation.metrics import Scores, calibration_error, reliability_of

#: The smallest probability, and the smallest distance from 1, in divergences.
_SMALLEST = 1e-7


def multilabel(p: np.ndarray, y: np.ndarray, teacher: np.ndarray | None = None) -> Scores:
    """Scores of the probabilities of labels that don't exclude each other.

    The average precision of a label is `Σ (R_n - R_(n-1)) P_n` over all thresholds, as in
    `sklearn.metrics.average_precision_score`. The other metrics are those of decisions at 0.5:
    `binary_accuracy` over samples and labels, as in Keras; `subset_accuracy`, the share of the
    samples all of whose labels are right, as in `sklearn.metrics.accuracy_score`; agreement with
    the teacher over samples and labels. Means over labels leave out those that no sample has. The
    divergence is KL(teacher ‖ candidate) of each decision in nats, the mean over the labels. The
    calibration error is that of `metrics.classification`, of the decisions.

    Args:
        p: Probabilities, float64, shape `(samples, labels)`.
        y: 1 where a sample has the label, 0 where not, -1 where that isn't known, same shape.
        teacher: The teacher's probabilities, same shape.
    """
    known, decided = y >= 0, p > 0.5
    right = known & (decided == (y == 1))
    per_label = {
        "known": known,
        "labels": y == 1,
        "decided": known & decided,
        "hits": right & decided,
        "right": right,
    }
    per_sample = {"any": known.any(1), "all right": known.any(1) & (right == known).all(1)}
    divergence = None
    if teacher is not None:
        per_label["same"] = known & (decided == (teacher > 0.5))
        kl = np.where(known, _divergence(teacher, p), 0)
        per_sample["kl"] = kl.sum(1)
        divergence = per_sample["kl"] / np.maximum(known.sum(1), 1)

    def from_counts(counts: np.ndarray) -> dict[str, np.ndarray]:
        return _means(counts, p, y, per_label, per_sample)[0]

    values, per_class = _means(np.ones((1, len(y))), p, y, per_label, per_sample)
    confidence = np.maximum(p, 1 - p)
    reliability = reliability_of(confidence[known], right[known])
    found = {name: float(value[0]) for name, value in values.items()}
    return Scores(
        values={**found, "ece": calibration_error(reliability)},
        # How often each sample was drawn is all that the metrics need.
        sums=scipy.sparse.eye_array(len(y), format="csr"),
        from_sums=from_counts,
        disagreement=divergence,
        predicted=decided.astype(int),
        confidence=confidence,
        per_class={name: value[0] for name, value in per_class.items()},
        reliability=reliability,
    )


def _means(
    counts: np.ndarray,
    p: np.ndarray,
    y: np.ndarray,
    per_label: dict[str, np.ndarray],
    per_sample: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The metrics, shape `(draws,)`, and those of each label, shape `(draws, labels)`.

    Args:
        counts: How often each sample was drawn, shape `(draws, samples)`.
        p: As in `multilabel`.
        y: Likewise.
        per_label: What each sample adds to the sums of each label, shape `(samples, labels)`.
        per_sample: What it adds to sums over all labels, shape `(samples,)`.
    """
    sums = {name: counts @ value.astype("float64") for name, value in per_label.items()}
    totals = {name: counts @ value.astype("float64") for name, value in per_sample.items()}
    labels, decided, hits = sums["labels"], sums["decided"], sums["hits"]
    decisions = sums["known"].sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_class = {
            "average_precision": _average_precisions(counts, p, y),
            "precision": hits / np.maximum(decided, 1),
            "recall": hits / labels,
            "f1": 2 * hits / (labels + decided),
        }
        means = {
            name: np.where(labels > 0, value, 0).sum(1) / (labels > 0).sum(1)
            for name, value in per_class.items()
        }
        means["mean_average_precision"] = means.pop("average_precision")
        means["binary_accuracy"] = sums["right"].sum(1) / decisions
        means["subset_accuracy"] = totals["all right"] / totals["any"]
        if "same" in sums:
            means["agreement"] = sums["same"].sum(1) / decisions
            means["kl"] = totals["kl"] / decisions
    absent = np.where(labels > 0, 1.0, 0.0)  # Of a label that no sample has, 0.
    per_class = {name: np.nan_to_num(value) * absent for name, value in per_class.items()}
    return means, {**per_class, "labels": labels}


def _average_precisions(counts: np.ndarray, p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The average precision of each label, shape `(draws, labels)`; NaN where no sample has it."""
    return np.stack(
        [_average_precision(counts, p[:, i], y[:, i]) for i in range(p.shape[1])], axis=1
    )


def _average_precision(counts: np.ndarray, p: np.ndarray, y: np.ndarray) -> np.ndarray:
    if not (y == 1).any():
        return np.full(len(counts), np.nan)
    order = np.argsort(-p, kind="stable")
    order = order[y[order] >= 0]
    # Of equal probabilities, all or none are above a threshold.
    is_last = np.append(np.diff(p[order]) != 0, True)
    taken = counts[:, order]
    hits = np.cumsum(taken * (y[order] == 1), axis=1)[:, is_last]
    precision = hits / np.maximum(np.cumsum(taken, axis=1)[:, is_last], 1)
    return (np.diff(hits, axis=1, prepend=0) * precision).sum(1) / hits[:, -1]


def _divergence(teacher: np.ndarray, p: np.ndarray) -> np.ndarray:
    """KL(teacher ‖ candidate) of each decision, in nats."""
    t, q = (np.clip(x, _SMALLEST, 1 - _SMALLEST) for x in (teacher, p))
    return t * np.log(t / q) + (1 - t) * np.log((1 - t) / (1 - q))
