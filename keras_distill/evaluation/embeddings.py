"""Vectors of backbones, judged by what simple classifiers make of them and of some labels."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from keras_distill import samples
from keras_distill.evaluation import metrics, scoring, tasks

#: Neighbors that vote on a sample's class, and the temperature of their votes.
NEIGHBORS, TEMPERATURE = 10, 0.07


def score(
    runs: scoring.Runs,
    x: Any,
    y: np.ndarray,
    labeled: Any,
    *,
    teacher: str | None,
    class_names: Sequence | None,
    batch_size: int,
) -> scoring.Scored:
    """Runs the candidates on `x` and on the labeled samples. Arguments are those of `compare`."""
    x_known, y_known = samples.labeled(labeled, argument="labeled")
    y, y_known = _classes(y, "data"), _classes(y_known, "labeled")
    # Classes are numbered by those there are: ids may be large.
    classes, known_at = np.unique(y_known, return_inverse=True)
    unknown = [int(each) for each in np.setdiff1d(y, classes)]
    if unknown or len(classes) < 2:
        raise ValueError(
            "`labeled` must hold samples of two classes or more, and of each class in `data`. "
            + (f"There are none of {unknown}." if unknown else f"Received: class {y[0]} alone")
        )
    names = _names(classes, class_names)
    y, y_known = np.asarray(np.searchsorted(classes, y)), known_at.reshape(-1)
    votes: dict[str, list] = {}
    for name, candidates in runs.items():
        votes[name] = []
        for candidate in candidates:
            known, new = (
                _vectors(candidate, name, each, batch_size, of)
                for each, of in ((x_known, "labeled"), (x, "data"))
            )
            votes[name].append((probe(known, y_known, new), nearest(known, y_known, new)))
    reference = None if teacher is None else votes[teacher][0][0]
    scores = {
        name: [embedding(log_p, found, y, reference) for log_p, found in each]
        for name, each in votes.items()
    }
    return scoring.Scored("embedding", y, scores, [_note(len(y_known))], names)


def probe(known: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Log-probabilities that a linear probe gives new samples, shape `(samples, classes)`.

    The probe is logistic regression on standardized vectors, with the regularization of
    scikit-learn's default.

    Args:
        known: Vectors of labeled samples, shape `(labels, dimensions)`.
        labels: Their classes, from 0.
        new: Vectors of the other samples, shape `(samples, dimensions)`.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(known, labels)
    found = np.zeros((len(new), 1 + labels.max()))
    found[:, model.classes_] = model.predict_proba(new)
    return tasks.log_probabilities(found, from_logits=False)


def nearest(known: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The classes that the nearest labeled samples vote for, shape `(samples,)`.

    The ten of greatest cosine similarity s vote with `exp(s / 0.07)`, as in Wu et al.
    (arXiv:1805.01978).

    Args:
        known: As in `probe`.
        labels: Likewise.
        new: Likewise.
    """
    model = KNeighborsClassifier(
        min(NEIGHBORS, len(known)),
        weights=lambda distance: np.exp((1 - distance) / TEMPERATURE),
        metric="cosine",
        algorithm="brute",
    )
    return model.fit(known, labels).predict(new)


def embedding(
    log_p: np.ndarray, found: np.ndarray, y: np.ndarray, teacher: np.ndarray | None = None
) -> metrics.Scores:
    """Scores of classification by a probe, and `knn`, the accuracy of nearest neighbors.

    Args:
        log_p: What `probe` returned.
        found: What `nearest` returned.
        y: The classes, shape `(samples,)`.
        teacher: What `probe` returned for the teacher's vectors.
    """
    scores = metrics.classification(log_p, y, teacher)
    right = found == y
    base = scores.from_sums
    return dataclasses.replace(
        scores,
        values=scores.values | {"knn": float(right.mean())},
        sums=scipy.sparse.csr_array(scipy.sparse.hstack([scores.sums, right[:, None]])),
        from_sums=lambda sums: base(sums[..., :-1]) | {"knn": sums[..., -1] / sums[..., 0]},
    )


def _vectors(candidate: Any, name: str, x: Any, batch_size: int, argument: str) -> np.ndarray:
    """A candidate's vectors, shape `(samples, dimensions)`."""
    try:
        given = candidate.outputs(x, batch_size)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name!r} can't be run on the inputs of `{argument}`: {error}") from error
    return tasks.check(given, samples.count(x), name).reshape(samples.count(x), -1)


def _classes(y: np.ndarray, argument: str) -> np.ndarray:
    """Class indices of labels that are such, or one-hot."""
    tasks.check_labels(y)
    if y.ndim == 2 and y.shape[1] > 1 and samples.is_one_hot(y):
        return y.argmax(1)
    found = y.reshape(len(y), -1)
    wrong = found[~(np.isfinite(found) & (found % 1 == 0) & (found >= 0))]
    if found.shape[1] != 1 or wrong.size:
        raise ValueError(
            'For task="embedding", labels must be one class for each sample, numbered from 0, or '
            f"one-hot. Received in `{argument}`: "
            + (
                f"the label {wrong[0]}. Leave samples without a label out"
                if wrong.size
                else f"labels of shape {y.shape}"
            )
        )
    return found[:, 0].astype(int)


def _names(classes: np.ndarray, class_names: Sequence | None) -> list[str] | None:
    """Names of the classes that there are; of those that aren't numbered in a row, their ids."""
    last = int(classes[-1])
    if class_names is None:
        return None if last + 1 == len(classes) else [str(each) for each in classes]
    if len(class_names) != last + 1:
        raise ValueError(
            f"`class_names` must name {last + 1} classes, from 0 to {last}. "
            f"Received: {len(class_names)} names"
        )
    return [str(class_names[each]) for each in classes]


def _note(labels: int) -> str:
    return (
        f"Decisions are those of a linear probe, trained on each candidate's vectors of {labels:,} "
        f"labeled samples; k-NN: the vote of the {NEIGHBORS} nearest of these."
    )
