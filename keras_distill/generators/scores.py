"""How far generated samples are from real ones, in the features of some classifier."""

from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from keras_distill.checks import whole_number

#: Rows of a matrix of distances that are held at a time.
_ROWS = 1000


def frechet_distance(real: Any, generated: Any) -> float:
    """Fréchet distance between two sets of features, each taken as a normal distribution.

    `‖μ_r − μ_g‖² + tr(Σ_r + Σ_g − 2 (Σ_r Σ_g)^½)` in float64, from means and unbiased covariances:
    0 for equal sets, less is better. It has the scale of the features squared, and falls as sets
    grow: compare only values of the same classifier and of as many samples.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
    Equilibrium" (arXiv:1706.08500), equation 6, there with the features of Inception.

    Args:
        real: Features of real samples, shape `(samples, features)`.
        generated: Features of generated samples, shape `(samples, features)`.

    Returns:
        The distance.

    Raises:
        ValueError: If the features have another shape or aren't finite numbers, or there are fewer
            than two samples.

    Example:

    >>> round(keras_distill.generators.frechet_distance([[0.0], [2.0]], [[4.0], [6.0]]), 6)
    16.0
    """
    real, generated = _checked(real, generated, least=2)
    roots, covariances = [], []
    for features in (real, generated):
        covariance = np.atleast_2d(np.cov(features, rowvar=False))
        values, vectors = np.linalg.eigh(covariance)
        roots.append(vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T)
        covariances.append(covariance)
    # The trace of (Σ_r Σ_g)^½ is the sum of the singular values of Σ_r^½ Σ_g^½.
    shared = np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum()
    means = np.square(real.mean(0) - generated.mean(0)).sum()
    return float(max(means + np.trace(covariances[0] + covariances[1]) - 2 * shared, 0.0))


def precision_recall(real: Any, generated: Any, neighbors: int = 3) -> tuple[float, float]:
    """Shares of generated samples that look real, and of real ones that could be generated.

    A set's manifold is the union of balls around its samples, each as wide as the distance to the
    sample's k-th nearest neighbor in the set. Precision is the share of the generated samples in
    the real manifold, recall the share of the real samples in the generated one. A generator that
    draws the same good picture again and again has precision without recall.

    Source: Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative
    Models" (arXiv:1904.06991), equations 1 and 2; k is 3 there. Takes time in the square of the
    samples.

    Args:
        real: Features of real samples, shape `(samples, features)`.
        generated: Features of generated samples, shape `(samples, features)`; as many, since both
            shares depend on the number.
        neighbors: k, at least 1 and less than the number of samples.

    Returns:
        Precision and recall, from 0 to 1.

    Raises:
        ValueError: If the features have another shape or aren't finite numbers, or there are too
            few.

    Example:

    >>> real, generated = [[0.0], [1.0], [2.0]], [[0.5], [5.0], [6.0]]
    >>> precision, recall = keras_distill.generators.precision_recall(real, generated, neighbors=1)
    >>> round(precision, 3), round(recall, 3)
    (0.333, 1.0)
    """
    whole_number("neighbors", neighbors, 1)
    real, generated = _checked(real, generated, least=neighbors + 1)
    return _share(generated, real, neighbors), _share(real, generated, neighbors)


def _share(samples, reference, neighbors):
    """The share of samples in the manifold of others."""
    # Its own distance, 0, is the first.
    radii = np.concatenate([
        np.partition(cdist(part, reference), neighbors, axis=1)[:, neighbors]
        for part in _parts(reference)
    ])  # fmt: skip
    within = [(cdist(part, reference) <= radii).any(axis=1) for part in _parts(samples)]
    return float(np.concatenate(within).mean())


def _parts(samples):
    return np.split(samples, range(_ROWS, len(samples), _ROWS))


def _checked(real, generated, least):
    """Both sets of features as float64."""
    sets = []
    for name, features in (("real", real), ("generated", generated)):
        features = _numbers(name, features)
        if features.ndim != 2 or len(features) < least or not features.shape[1]:
            raise ValueError(
                f"`{name}` must have the shape (samples, features), with at least {least} samples. "
                f"Received: an array of shape {features.shape}. Flatten maps, or take their mean "
                "over positions."
            )
        if not np.isfinite(features).all():
            row = int(np.argwhere(~np.isfinite(features))[0][0])
            raise ValueError(f"`{name}` holds NaN or infinity, first in sample {row}.")
        sets.append(features)
    if sets[0].shape[1] != sets[1].shape[1]:
        raise ValueError(
            "`real` and `generated` must be features of the same model. Received: "
            f"{sets[0].shape[1]} and {sets[1].shape[1]} features."
        )
    return sets


def _numbers(name, features):
    """Features as float64."""
    try:
        found = np.asarray(features)
        if np.iscomplexobj(found):
            raise TypeError(f"an array of {found.dtype}")
        return found.astype("float64")
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must hold numbers in rows of one length: {error}") from error
