"""Scores of generated samples, against closed forms and by hand."""

import doctest

import numpy as np
import pytest
import scipy.linalg

from keras_distill.generators import scores
from keras_distill.generators.scores import frechet_distance, precision_recall


@pytest.mark.parametrize("name", ["frechet_distance", "precision_recall"])
def test_examples_of_docstrings(name):
    import keras_distill

    (test,) = doctest.DocTestFinder(recurse=False).find(getattr(scores, name), name, globs={})
    test.globs = {"keras_distill": keras_distill}
    assert doctest.DocTestRunner().run(test).failed == 0


def exactly(mean, covariance, rng, samples=200):
    """Samples whose mean and unbiased covariance are these to rounding."""
    x = rng.normal(size=(samples, len(mean)))
    x -= x.mean(0)
    whitened = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return whitened @ np.linalg.cholesky(covariance).T + mean


def test_distance_of_normals_is_the_closed_form(rng):
    means = rng.normal(size=(2, 5))
    parts = rng.normal(size=(2, 5, 7))
    covariances = parts @ parts.transpose(0, 2, 1)
    sets = [exactly(m, c, rng) for m, c in zip(means, covariances, strict=True)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(means[0] - means[1]).sum() + np.trace(covariances.sum(0) - 2 * root)
    assert frechet_distance(*sets) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(*sets[::-1]) == pytest.approx(expected, rel=1e-10)


def test_distance_of_diagonal_covariances_is_one_of_deviations(rng):
    deviations = np.array([[1.0, 2.0, 0.0], [3.0, 0.5, 0.0]])
    x = exactly(np.zeros(3), np.eye(3), rng)
    assert frechet_distance(x * deviations[0], x * deviations[1] + 4) == pytest.approx(
        3 * 4**2 + 2**2 + 1.5**2, rel=1e-9
    )


def test_equal_sets_have_no_distance(rng):
    """Also where features, here two that are always 0, make the covariance singular."""
    x = np.concatenate([rng.normal(size=(50, 3)), np.zeros((50, 2))], axis=1).astype("float32")
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-6)


def test_precision_and_recall_by_hand():
    real = np.array([[0, 0], [1, 0], [0, 1], [10, 10]])
    # Radii with one neighbor: 1, 1, 1, and 13.45 around the sample far off.
    generated = np.array([[0.5, 0.5], [1, 1], [-1.5, 0], [30, 30]])
    # In: by (0, 0); by (1, 0), on the ball's edge; by (10, 10), 15.2 away: out; 28.3 away: out.
    # Radii of the generated ones: 0.71, 0.71, 2.06, 41.0, whose last ball reaches (10, 10), 28.3
    # away, but (0, 0), 42.4 away, isn't in it: that is in those of (0.5, 0.5) and (-1.5, 0).
    precision, recall = precision_recall(real, generated, neighbors=1)
    assert (precision, recall) == (0.5, 1.0)
    # Without the far-off one, no ball reaches (10, 10).
    assert precision_recall(real, generated[:3], neighbors=1) == (pytest.approx(2 / 3), 0.75)


def test_one_picture_again_and_again_has_precision_without_recall(rng):
    real = rng.normal(size=(500, 2))
    same = np.zeros((500, 2)) + 1e-6 * rng.normal(size=(500, 2))
    precision, recall = precision_recall(real, same)
    assert precision == 1.0
    assert recall < 0.02


def test_large_sets_are_taken_in_parts(rng, monkeypatch):
    real, generated = rng.normal(size=(2, 90, 4))
    generated += 0.7
    whole = precision_recall(real, generated)
    assert 0 < whole[0] < 1
    monkeypatch.setattr(scores, "_ROWS", 20)
    assert precision_recall(real, generated) == whole


@pytest.mark.parametrize(
    ("real", "generated", "message"),
    [
        (np.zeros((4, 2, 2)), np.zeros((4, 2)), "`real` must have the shape"),
        (np.zeros((4, 0)), np.zeros((4, 0)), "`real` must have the shape"),
        (np.zeros((4, 2)), np.zeros((1, 2)), "`generated` .* at least"),
        (np.zeros((4, 2)), np.full((4, 2), np.nan), "NaN or infinity, first in sample 0"),
        (np.zeros((4, 2)), np.zeros((4, 3)), "2 and 3 features"),
        ([["a"], ["b"]], np.zeros((4, 1)), "`real` must hold numbers.*'a'"),
        (np.zeros((4, 1)), np.ones((4, 1), complex), "`generated` must hold numbers.*complex"),
        ([[1.0], [1.0, 2.0]], np.zeros((4, 1)), "`real` must hold numbers.*inhomogeneous"),
        (np.zeros((4, 1)), iter([]), "`generated` must hold numbers.*iterator"),
    ],
)
@pytest.mark.parametrize("score", [frechet_distance, precision_recall])
def test_other_features_are_refused(real, generated, message, score):
    with pytest.raises(ValueError, match=message):
        score(real, generated)


def test_neighbors_are_a_whole_number():
    with pytest.raises(ValueError, match="`neighbors` must be a whole number of at least 1"):
        precision_recall(np.zeros((4, 2)), np.zeros((4, 2)), neighbors=0)
