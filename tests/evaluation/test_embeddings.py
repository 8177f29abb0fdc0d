"""Vectors of backbones: a probe and neighbors against scikit-learn's and counts by hand."""

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import keras_distill
from keras_distill import tflite
from keras_distill.evaluation import compare, embeddings


def backbone(model):
    """The hidden layer of a classifier."""
    return keras.Model(model.inputs, model.layers[-2].output)


def test_nearest_neighbors_vote_by_cosine_similarity(rng):
    known, new = rng.normal(size=(40, 5)), rng.normal(size=(30, 5))
    labels = rng.integers(0, 3, 40)
    want = []
    for vector in new:
        cosine = known @ vector / np.linalg.norm(known, axis=1) / np.linalg.norm(vector)
        votes = np.zeros(3)
        for i in np.argsort(-cosine)[:10]:
            votes[labels[i]] += np.exp(cosine[i] / 0.07)
        want.append(votes.argmax())
    np.testing.assert_array_equal(embeddings.nearest(known, labels, new), want)


def test_probe_is_logistic_regression_whatever_the_scale(rng):
    known, new = rng.normal(size=(60, 4)), rng.normal(size=(20, 4))
    labels = (known[:, 0] > 0) + 2 * (known[:, 1] > 0.5)
    found = embeddings.probe(1000 * known + 7, labels, 1000 * new + 7)
    mean, deviation = known.mean(0), known.std(0)
    model = LogisticRegression(max_iter=1000).fit((known - mean) / deviation, labels)
    want = model.predict_log_proba((new - mean) / deviation)
    np.testing.assert_allclose(found, want, atol=1e-3)


def test_backbones_of_different_widths_and_a_file(candidates, digits, tmp_path):
    x, y = digits
    teacher, student = backbone(candidates["teacher"]), backbone(candidates["distilled"])
    file = tflite.convert(student, "micro", "int8", calibration=x[:200])
    compared = {
        "teacher": teacher,
        "student on labels": [backbone(each) for each in candidates["student on labels"]],
        "distilled": student,
        "int8": file,
    }
    labeled, held_out = (x[:100], y[:100]), (x[1200:], y[1200:])
    result = compare(compared, held_out, task="embedding", labeled=labeled, resamples=200)
    rows = {row["name"]: row for row in result.rows}
    vectors = [file.predict(part) for part in (labeled[0], held_out[0])]
    right = embeddings.nearest(vectors[0], labeled[1], vectors[1]) == held_out[1]
    assert rows["int8"]["knn"] == pytest.approx(right.mean())
    low, high = rows["int8"]["intervals"]["knn"]
    assert low < right.mean() < high
    log_p = embeddings.probe(vectors[0], labeled[1], vectors[1])
    assert rows["int8"]["accuracy"] == pytest.approx((log_p.argmax(1) == held_out[1]).mean())
    assert rows["teacher"]["accuracy"] > 0.8
    assert rows["teacher"]["agreement"] == 1
    assert rows["student on labels"]["runs"] == 2
    assert rows["student on labels"]["accuracy"] < rows["distilled"]["accuracy"]
    assert 0.9 < rows["int8"]["gap_recovered"] / rows["distilled"]["gap_recovered"] < 1.1
    assert "k-NN accuracy" in str(result)
    assert "100 labeled samples" in result.notes[0]
    folder = result.report(tmp_path / "report")
    assert "## Where int8 and the teacher disagree most" in (folder / "report.md").read_text()
    # One-hot labels are the same.
    once = compare(
        {"file": file},
        (held_out[0], np.eye(10)[held_out[1]]),
        task="embedding",
        labeled=(labeled[0], np.eye(10)[labeled[1]]),
    )
    assert once.rows[0]["knn"] == rows["int8"]["knn"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "embedding"}, "needs `labeled`"),
        ({"task": "embedding", "labeled": (np.ones((0, 3)), [])}, "`labeled` has no samples"),
        ({"labeled": (np.ones((2, 3)), [0, 1])}, "no other task does"),
        ({"task": "embedding", "labeled": (np.ones((2, 3)), [0, 1])}, "There are none of .2."),
        (
            {"task": "embedding", "labeled": (np.ones((2, 3)), [2, 2])},
            "two classes or more",
        ),
        (
            {"task": "embedding", "labeled": (np.ones((3, 3)), [0.5, 1, 2])},
            "one class for each sample",
        ),
        (
            {"task": "embedding", "labeled": (np.ones((3, 3)), [0, 1, 2]), "from_logits": True},
            "not for task=.embedding.. Outputs are vectors",
        ),
        (
            {"task": "embedding", "labeled": (np.ones((3, 3)), [0, 1, 2]), "class_names": "ab"},
            "must name 3 classes, from 0 to 2. Received: 2",
        ),
        (
            {"task": "embedding", "labeled": (np.ones((3, 4)), [0, 1, 2])},
            r"inputs of `labeled`: .* the shape \(samples, 3\). Received: shape \(3, 4\)$",
        ),
        (
            {"task": "embedding", "labeled": (np.ones((3, 3)), [0, np.nan, 2])},
            "Received in `labeled`: the label nan. Leave samples without a label out",
        ),
        (
            {"task": "embedding", "labeled": (np.ones((3, 3)), [0, 2, -1])},
            "Received in `labeled`: the label -1. Leave",
        ),
        (
            {"task": "embedding", "labeled": (np.ones((3, 3)), np.zeros((3, 2)))},
            r"Received in `labeled`: labels of shape \(3, 2\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=message):
        compare({"model": model}, (np.ones((3, 3)), np.array([2, 2, 2])), **arguments)


def test_ids_may_be_large_and_far_apart(digits, tmp_path):
    """They are scored as their places among the classes that there are, and named as they are."""
    x, y = digits
    ids = np.arange(10) * 100_000 + 7
    model = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Flatten()])
    other = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.GlobalMaxPooling2D()])

    def compared(y, **options):
        return compare(
            {"teacher": model, "other": other},
            (x[1200:1300], y[1200:1300]),
            task="embedding",
            labeled=(x[:100], y[:100]),
            **options,
        )

    plain, far = compared(y), compared(ids[y])
    assert far.rows == plain.rows
    assert far.class_names == [str(each) for each in ids]
    assert plain.class_names is None
    worst, same = far.disagreements["other"][0], plain.disagreements["other"][0]
    assert worst["label"] == same["label"] == y[1200 + worst["sample"]]
    page = (far.report(tmp_path / "report") / "report.md").read_text()
    assert f"| {ids[worst['label']]} |" in page
    # Names are those of all numbers up to the last.
    gaps = compared(2 * y, class_names=[f"c{i}" for i in range(19)])
    assert gaps.class_names == [f"c{i}" for i in range(0, 19, 2)]


@pytest.mark.parametrize("kind", ["model", "teacher", "distiller"])
def test_inputs_of_another_width_are_named(kind):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    given = {
        "model": model,
        "teacher": keras_distill.teachers.Teacher(model),
        "distiller": keras_distill.Distiller(model, keras.models.clone_model(model)),
    }[kind]
    says = r"'m' can't be run on .*\(samples, 3\). Received: shape \(4, 5\)$"
    with pytest.raises(ValueError, match=says):
        compare({"m": given}, (np.ones((4, 5)), np.array([0, 1, 1, 0])))


def test_what_is_no_candidate_is_named():
    generator = keras_distill.language.exporting.Generator(b"", {}, {})
    with pytest.raises(TypeError, match="an artifact of .*Received: <Generator, 0 bytes>"):
        compare({"generator": generator}, (np.ones((4, 5)), np.array([0, 1, 1, 0])))
