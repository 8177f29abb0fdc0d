"""Several labels at once: every metric against scikit-learn and Keras, models and files alike."""

import json

import keras
import numpy as np
import pytest
from scipy import special
from sklearn import metrics as sk

import keras_distill
from keras_distill import tflite
from keras_distill.evaluation import compare, tasks
from keras_distill.evaluation.multilabel import multilabel


@pytest.fixture
def answers(rng):
    """Labels of 5 kinds, the last one rare; a teacher, and a student with many equal outputs."""
    y = (rng.random((300, 5)) < [0.5, 0.3, 0.2, 0.7, 0.02]).astype(int)
    teacher = special.expit(rng.normal(size=y.shape) + 4 * y - 2)
    student = np.round(special.expit(rng.normal(size=y.shape) + 2 * y - 1) * 32) / 32
    return y, teacher, student


def test_metrics(answers):
    y, teacher, student = answers
    decided = student > 0.5
    scores = multilabel(student, y, teacher)
    binary, f1 = keras.metrics.BinaryAccuracy(), keras.metrics.F1Score("macro", threshold=0.5)
    binary.update_state(y, student)
    f1.update_state(y.astype("float32"), student)
    assert scores.values["binary_accuracy"] == pytest.approx(float(binary.result()), rel=1e-6)
    assert scores.values["f1"] == pytest.approx(float(f1.result()), rel=1e-6)
    bounded = np.clip(student, 1e-7, 1 - 1e-7)
    kl = special.rel_entr(teacher, bounded) + special.rel_entr(1 - teacher, 1 - bounded)
    confidence, right = np.maximum(student, 1 - student), decided == y
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [
        np.mean(bins == k) * abs(right[bins == k].mean() - confidence[bins == k].mean())
        for k in np.unique(bins)
    ]
    expected = {
        "mean_average_precision": sk.average_precision_score(y, student, average="macro"),
        "binary_accuracy": 1 - sk.hamming_loss(y, decided),
        "subset_accuracy": sk.accuracy_score(y, decided),
        "precision": sk.precision_score(y, decided, average="macro", zero_division=0),
        "recall": sk.recall_score(y, decided, average="macro"),
        "f1": sk.f1_score(y, decided, average="macro"),
        "agreement": np.mean(decided == (teacher > 0.5)),
        "kl": kl.mean(),
        "ece": sum(gaps),
    }
    assert scores.values == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(
        scores.per_class["average_precision"], sk.average_precision_score(y, student, average=None)
    )
    np.testing.assert_allclose(scores.per_class["f1"], sk.f1_score(y, decided, average=None))
    np.testing.assert_array_equal(scores.per_class["labels"], y.sum(0))
    np.testing.assert_allclose(scores.disagreement, kl.mean(1))


def test_labels_that_are_missing_or_that_no_sample_has(answers, rng):
    y, teacher, student = answers
    y = np.where(rng.random(y.shape) < 0.3, -1, y)
    y[:, 3] = np.minimum(y[:, 3], 0)  # No sample has it,
    y[:, 4] = -1  # and nothing is known of this one.
    values = multilabel(student, y, teacher).values
    columns = [(y[y[:, i] >= 0, i], student[y[:, i] >= 0, i]) for i in range(3)]
    ap, f1 = (
        [sk.average_precision_score(*column) for column in columns],
        [sk.f1_score(a, b > 0.5) for a, b in columns],
    )
    assert values["mean_average_precision"] == pytest.approx(np.mean(ap))
    assert values["f1"] == pytest.approx(np.mean(f1))
    known = y >= 0
    right = (student > 0.5) == y
    assert values["binary_accuracy"] == pytest.approx(right[known].mean())
    whole = [right[i, known[i]].all() for i in range(len(y)) if known[i].any()]
    assert values["subset_accuracy"] == pytest.approx(np.mean(whole))
    same = (student > 0.5) == (teacher > 0.5)
    assert values["agreement"] == pytest.approx(same[known].mean())


def test_intervals_are_of_resampled_test_sets(answers, rng):
    y, teacher, student = answers
    scores = multilabel(student, y, teacher)
    drawn = rng.integers(0, len(y), (3, len(y)))
    times = np.stack([np.bincount(draw, minlength=len(y)) for draw in drawn], axis=1)
    draws = scores.from_sums((scores.sums.T.tocsr() @ times.astype("float64")).T)
    for i, draw in enumerate(drawn):
        again = multilabel(student[draw], y[draw], teacher[draw]).values
        del again["ece"]
        assert {k: v[i] for k, v in draws.items()} == pytest.approx(again)


@pytest.mark.parametrize("dtype", ["int64", "float32", "bool"])
def test_recognized_where_rows_of_0_and_1_are_not_one_hot(dtype):
    y = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0]]).astype(dtype)
    assert tasks.task_of(y, np.zeros((3, 3))) == "multilabel"
    assert tasks.task_of(np.eye(3).astype(dtype), np.zeros((3, 3))) == "classification"
    assert tasks.task_of(y[:, 0].astype("int64"), np.zeros((3, 1))) == "classification"
    assert tasks.task_of(0.5 * y, np.zeros((3, 3))) == "regression"
    if dtype != "bool":
        y[0, 0] = -1
        assert tasks.task_of(y, np.zeros((3, 3)), missing_label=-1) == "multilabel"
        assert tasks.task_of(y, np.zeros((3, 3))) == "regression"


@pytest.fixture(scope="module")
def tagged():
    """Points in the plane with three labels, and models that know them: logits or sigmoid."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2)).astype("float32")
    y = np.stack([x[:, 0] > 0, x[:, 1] > 0.5, x.sum(1) > 0], 1).astype("int32")

    def model(noise, activation=None):
        tagger = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation)])
        kernel = np.array([[1, 0, 1], [0, 1, 1]]) + noise * rng.normal(size=(2, 3))
        tagger.set_weights([4 * kernel, 4 * np.array([0, -0.5, 0])])
        return tagger

    return x, y, model(0), model(0.3, "sigmoid"), model(0.8)


@pytest.fixture(scope="module")
def comparison(tagged):
    x, y, teacher, student, baseline = tagged
    file = tflite.convert(student, quantization="int8", calibration=x)
    distiller = keras_distill.Distiller(
        student, teacher, keras_distill.losses.SoftTargets(activation="sigmoid")
    )
    candidates = {"teacher": teacher, "student on labels": baseline, "distilled": distiller}
    return compare({**candidates, "int8": file}, (x, y), class_names=["right", "up", "far"]), file


def test_models_and_files_are_compared(comparison, tagged):
    result, file = comparison
    x, y, teacher, student, _ = tagged
    assert result.task == "multilabel"
    rows = {row["name"]: row for row in result.rows}
    t = special.expit(teacher.predict(x, verbose=0).astype("float64"))
    outputs = {"distilled": student.predict(x, verbose=0), "int8": file.predict(x)}
    for name, p in outputs.items():
        found = rows[name]
        ap = sk.average_precision_score(y, p, average="macro")
        assert found["mean_average_precision"] == pytest.approx(ap)
        assert found["subset_accuracy"] == sk.accuracy_score(y, p > 0.5)
        assert found["agreement"] == pytest.approx(np.mean((p > 0.5) == (t > 0.5)))
        low, high = found["intervals"]["mean_average_precision"]
        assert low < ap < high
        low = rows["student on labels"]["mean_average_precision"]
        gap = (ap - low) / (rows["teacher"]["mean_average_precision"] - low)
        assert found["gap_recovered"] == pytest.approx(gap)
    assert rows["teacher"]["agreement"] == 1
    assert "mean avg. precision" in str(result)


def test_the_report_names_the_labels(comparison, tmp_path):
    result, _ = comparison
    page = (result.report(tmp_path) / "report.md").read_text()
    worst = result.disagreements["distilled"][0]
    names = np.array(["right", "up", "far"])
    row = [", ".join(names[worst[who] == 1]) or "none" for who in ("label", "teacher", "candidate")]
    assert f"| {worst['sample']} | {' | '.join(row)} |" in page
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["task"] == "multilabel"
    assert len(stored["per_class"]["distilled"]["average_precision"]) == 3
    assert "F1 of each class" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("y", "arguments", "message"),
    [
        ([[1, 2], [0, 1]], {}, "must be 1 .* or 0. Received the label .*2.*`missing_label=2`"),
        ([1, 0], {}, r"\(samples, labels\). Received: labels of shape \(2,\)"),
        ([[0, 0], [0, 0]], {}, "No sample has any label"),
        ([[-1, -1], [-1, -1]], {"missing_label": -1}, "All labels are missing"),
        ([[1, 1], [0, 1]], {"class_names": ["a"]}, "must name 2 classes"),
    ],
)
def test_what_does_not_fit_is_refused(tagged, y, arguments, message):
    tagger = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=message):
        compare({"a": tagger}, (tagged[0][:2], np.array(y)), task="multilabel", **arguments)


def test_unknown_labels_may_be_nan(tagged):
    x, y, teacher, *_ = tagged
    y = np.where(np.arange(600).reshape(y.shape) % 7 == 0, np.nan, y)
    result = compare({"teacher": teacher}, (x, y), missing_label=float("nan"), resamples=0)
    assert result.task == "multilabel"
    decided = teacher.predict(x, verbose=0) > 0
    assert result.rows[0]["binary_accuracy"] == np.mean((decided == y)[~np.isnan(y)])
