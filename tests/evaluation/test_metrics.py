"""Every metric against scikit-learn, Keras or its formula; the sums against the metrics."""

import keras
import numpy as np
import pytest
from scipy import special
from sklearn import metrics as sk

from keras_distill.evaluation import intervals, metrics, tasks


@pytest.fixture
def answers(rng):
    """Labels, a teacher that is mostly right, and a student that is less so; 7 classes."""
    y = rng.integers(0, 7, 400)
    teacher = special.log_softmax(rng.normal(size=(400, 7)) + 3 * np.eye(7)[y], axis=-1)
    student = special.log_softmax(rng.normal(size=(400, 7)) + 2 * np.eye(7)[y], axis=-1)
    return y, teacher, student


def test_classification(answers):
    y, teacher, student = answers
    predicted = student.argmax(-1)
    scores = metrics.classification(student, y, teacher)
    expected = {
        "accuracy": np.mean(predicted == y),
        "top_5_accuracy": sk.top_k_accuracy_score(y, student, k=5),
        "precision": sk.precision_score(y, predicted, average="macro"),
        "recall": sk.recall_score(y, predicted, average="macro"),
        "f1": sk.f1_score(y, predicted, average="macro"),
        "agreement": np.mean(predicted == teacher.argmax(-1)),
        "kl": np.mean(special.rel_entr(np.exp(teacher), np.exp(student)).sum(-1)),
        "ece": _ece(student, y),
    }
    assert scores.values == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(scores.confusion, sk.confusion_matrix(y, predicted))
    np.testing.assert_array_equal(scores.per_class["f1"], sk.f1_score(y, predicted, average=None))


def _ece(log_p, y):
    """Expected calibration error by its definition, bin by bin."""
    p, predicted = np.exp(log_p.max(-1)), log_p.argmax(-1)
    error = 0.0
    for k in range(15):
        inside = (p >= k / 15) & ((p < (k + 1) / 15) | (k == 14))
        if inside.any():
            error += inside.mean() * abs(np.mean(predicted[inside] == y[inside]) - p[inside].mean())
    return error


def test_perfect_calibration_has_no_error():
    p = np.log(np.tile([0.75, 0.25], (400, 1)))
    y = np.repeat([0, 0, 0, 1], 100)
    assert metrics.classification(p, y).values["ece"] == pytest.approx(0, abs=1e-12)


def test_calibration_error_by_hand():
    # Four samples in one bin, confidence 0.9, half of them right: |0.5 - 0.9|.
    p = np.log(np.tile([0.9, 0.1], (4, 1)))
    assert metrics.classification(p, np.array([0, 0, 1, 1])).values["ece"] == pytest.approx(0.4)


def test_missing_classes_are_left_out_of_the_means(answers):
    y, _, student = answers
    keep = y < 5
    y, student = y[keep], student[keep]
    values = metrics.classification(student, y).values
    predicted = student.argmax(-1)
    for name, score in (("precision", sk.precision_score), ("f1", sk.f1_score)):
        by_sklearn = score(y, predicted, labels=range(5), average="macro", zero_division=0)
        assert values[name] == pytest.approx(by_sklearn)


def test_missing_labels_count_for_nothing(answers):
    y, teacher, student = answers
    half = metrics.classification(student[:200], y[:200], teacher[:200])
    y = np.where(np.arange(400) < 200, y, -1)
    assert metrics.classification(student, y, teacher).values == pytest.approx(half.values)


def test_regression(rng):
    y = rng.normal(size=(300, 2)) * [1, 5]
    student = (y + rng.normal(size=y.shape)).astype("float32")
    teacher = (y + 0.5 * rng.normal(size=y.shape)).astype("float32")
    scores = metrics.regression(student, y, teacher)
    assert scores.values == pytest.approx(
        {
            "mae": sk.mean_absolute_error(y, student),
            "mse": sk.mean_squared_error(y, student),
            "r2": sk.r2_score(y, student),
            "difference": np.mean(np.abs(student.astype("float64") - teacher)),
        }
    )


def test_segmentation(rng):
    y = rng.integers(0, 4, (20, 6, 5))
    student = special.log_softmax(rng.normal(size=(*y.shape, 4)) + 2 * np.eye(4)[y], axis=-1)
    y[0, :3] = -1
    values = metrics.classification(student, y, student, dense=True).values
    known, predicted = y >= 0, student.argmax(-1)
    iou = keras.metrics.MeanIoU(4)
    iou.update_state(y[known], predicted[known])
    assert values["mean_iou"] == pytest.approx(float(iou.result()), rel=1e-6)
    assert values["accuracy"] == np.mean(predicted[known] == y[known])
    assert values["agreement"] == 1
    assert values["kl"] == 0


def test_mean_iou_leaves_out_what_occurs_nowhere(rng):
    y = rng.integers(0, 2, (5, 4, 4))
    log_p = np.log(np.eye(4)[1 - y] * 0.9 + 0.025)
    iou = keras.metrics.MeanIoU(4)
    iou.update_state(y, 1 - y)
    values = metrics.classification(log_p, y, dense=True).values
    assert values["mean_iou"] == pytest.approx(float(iou.result()))


@pytest.mark.parametrize("task", ["classification", "segmentation", "regression"])
def test_sums_give_the_metrics_of_a_resampled_test_set(task, rng, answers):
    y, teacher, student = answers
    if task == "regression":
        score, y = metrics.regression, rng.normal(size=(400, 7))
    elif task == "classification":
        score = metrics.classification
    else:
        y, teacher, student = (a.reshape(100, 4, *a.shape[1:]) for a in (y, teacher, student))

        def score(*args):
            return metrics.classification(*args, dense=True)

    scores = score(student, y, teacher)
    drawn = rng.integers(0, len(y), len(y))
    times = np.bincount(drawn, minlength=len(y)).astype("float64")
    from_sums = scores.from_sums((scores.sums.T @ times)[None])
    again = score(student[drawn], y[drawn], teacher[drawn]).values
    again.pop("ece", None)
    assert {k: v[0] for k, v in from_sums.items()} == pytest.approx(again)


def test_bootstrap_interval_of_a_mean_is_the_normal_one(answers):
    y, _, student = answers
    scores = metrics.classification(student, y)
    draws = intervals.bootstrap(scores.sums, scores.from_sums, 2000)
    low, high = intervals.percentiles(draws["accuracy"])
    accuracy = scores.values["accuracy"]
    half = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 400)
    assert low == pytest.approx(accuracy - half, abs=0.006)
    assert high == pytest.approx(accuracy + half, abs=0.006)


def test_interval_over_runs():
    # Mean 2, standard deviation 1, and Student's t of 2 degrees of freedom: 4.302653.
    low, high = intervals.over_runs([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert intervals.over_runs([1.0]) is None


def test_no_interval_where_nothing_varies():
    assert intervals.percentiles(np.ones(100)) is None


def test_log_probabilities(rng):
    logits = rng.normal(size=(5, 3))
    expected = special.log_softmax(logits, axis=-1)
    np.testing.assert_allclose(tasks.log_probabilities(logits, True), expected)
    p = special.softmax(logits, axis=-1)
    np.testing.assert_allclose(tasks.log_probabilities(p, False), expected)
    one = tasks.log_probabilities(logits[:, :1], True)
    np.testing.assert_allclose(np.exp(one[:, 1]), special.expit(logits[:, 0]))
    np.testing.assert_allclose(tasks.log_probabilities(special.expit(logits[:, :1]), False), one)


def test_probabilities_are_told_from_logits(rng):
    logits = rng.normal(size=(50, 10))
    p = special.softmax(logits, axis=-1)
    assert not tasks.are_probabilities(logits)
    assert tasks.are_probabilities(p)
    assert tasks.are_probabilities(np.round(p * 256) / 256)
    assert not tasks.are_probabilities(rng.uniform(size=(50, 10)))


@pytest.mark.parametrize(
    ("y", "shape", "task"),
    [
        (np.array([0, 2, 1]), (3, 3), "classification"),
        (np.eye(3), (3, 3), "classification"),
        (np.array([[0], [1]]), (2, 1), "classification"),
        (np.array([0.5, 2.0]), (2, 1), "regression"),
        (np.array([3, 7]), (2, 1), "regression"),
        (np.float32([[0], [1]]), (2, 1), "classification"),
        (np.zeros((2, 4, 4), int), (2, 4, 4, 5), "segmentation"),
        (np.zeros((2, 4, 4)), (2, 4, 4), "regression"),
    ],
)
def test_the_task_is_told_from_labels_and_outputs(y, shape, task):
    assert tasks.task_of(y, np.zeros(shape)) == task
