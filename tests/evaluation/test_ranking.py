"""Rankings: metrics against scikit-learn and counts by hand, models and files alike."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers
from sklearn import metrics as sk

from keras_distill import tflite
from keras_distill.evaluation import compare
from keras_distill.evaluation.ranking import ranking, share_at_top


def test_metrics_are_means_over_all_orders_of_equal_scores(rng):
    """Few different scores, of 12 candidates each; every order of some is counted one by one."""
    relevance = rng.integers(0, 3, (20, 12)) * (rng.random((20, 12)) < 0.4)
    relevance[:, 3] = 1
    scores, teacher = rng.integers(0, 5, (20, 12)) / 4, rng.normal(size=(20, 12))
    found = ranking(scores, relevance, teacher)
    assert found.values["ndcg_10"] == pytest.approx(sk.ndcg_score(relevance, scores, k=10))
    shares = np.stack([_share_one_by_one(row, 10) for row in scores])
    np.testing.assert_allclose(share_at_top(scores, 10), shares, rtol=1e-12)
    relevant = relevance > 0
    recall = (shares * relevant).sum(1) / relevant.sum(1)
    assert found.values["recall_10"] == pytest.approx(recall.mean())
    best = np.argsort(-teacher)[:, :10]
    agreement = np.take_along_axis(shares, best, 1).sum(1) / 10
    assert found.values["agreement"] == pytest.approx(agreement.mean())
    np.testing.assert_allclose(found.disagreement, 1 - agreement)


def _share_one_by_one(scores, top):
    """Random orders of equals, each as likely: here by the value of each group."""
    shares, left = np.zeros(len(scores)), float(top)
    for value in sorted(set(scores), reverse=True):
        group = scores == value
        shares[group] = min(1.0, left / group.sum())
        left = max(0.0, left - group.sum())
    return shares


def test_shares_are_those_of_every_order():
    """Three of five candidates, each of the orders that their scores allow."""
    scores = np.array([2.0, 1.0, 1.0, 1.0, 0.0])
    orders = [o for o in itertools.permutations(range(5)) if np.all(np.diff(scores[list(o)]) <= 0)]
    counts = np.mean([np.isin(np.arange(5), order[:3]) for order in orders], axis=0)
    np.testing.assert_allclose(share_at_top(scores[None], 3)[0], counts)


def test_models_and_files(rng):
    x = rng.normal(size=(60, 4)).astype("float32")
    teacher, student = (
        keras.Sequential([keras.Input((4,)), layers.Dense(30, use_bias=False)]) for _ in range(2)
    )
    relevant = teacher.predict(x, verbose=0).argmax(1)
    candidates = {
        "teacher": teacher,
        "student on labels": student,
        "int8": tflite.convert(teacher, "android", "int8", calibration=x),
    }
    result = compare(candidates, (x, relevant), task="ranking")
    rows = {row["name"]: row for row in result.rows}
    assert (rows["teacher"]["ndcg_10"], rows["teacher"]["recall_10"]) == (1, 1)
    scores = student.predict(x, verbose=0)
    hits = (np.argsort(-scores)[:, :10] == relevant[:, None]).any(1)
    assert rows["student on labels"]["recall_10"] == pytest.approx(hits.mean())
    assert rows["int8"]["agreement"] > 0.9
    assert rows["int8"]["gap_recovered"] > 0.9
    assert set(rows["int8"]["intervals"]) >= {"ndcg_10", "agreement"}
    assert "nDCG, first 10" in str(result)
    assert result.to_dict()["disagreements"]["student on labels"][0]["distance"] > 0
    # The same as relevances.
    again = compare({"student": student}, (x, np.eye(30)[relevant]), task="ranking")
    assert again.rows[0]["ndcg_10"] == rows["student on labels"]["ndcg_10"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1, 5]), "whole number from 0 to 4. Received labels from 0 to 5"),
        (np.array([0, 1, 1.5]), "whole number from 0 to 4"),
        (np.zeros((3, 4)), "labels of shape .3, 4., outputs of shape .3, 5."),
        (np.eye(3, 5) - np.eye(3, 5, 1), "at least 0 and finite"),
        (np.eye(3, 5) * [[1], [0], [1]], "No candidate of query 1 is relevant"),
    ],
)
def test_wrong_labels(labels, message, rng):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(5)])
    with pytest.raises(ValueError, match=message):
        compare({"student": model}, (rng.normal(size=(3, 2)), labels), task="ranking")
