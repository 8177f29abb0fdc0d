import io
import json
import zipfile

import keras
import numpy as np
import pytest
import rich.console
import tensorflow as tf
from scipy import special
from sklearn import metrics as sk

import keras_distill
from keras_distill.evaluation import compare
from keras_distill.evaluation.candidates import as_candidate


def row(comparison, name):
    return next(row for row in comparison.rows if row["name"] == name)


def test_every_candidate_is_scored_on_its_own_outputs(comparison, candidates, held_out):
    x, y = held_out
    teacher = special.softmax(candidates["teacher"].predict(x, verbose=0).astype("float64"), -1)
    student = candidates["distilled"].predict(x, verbose=0).astype("float64")
    predicted = student.argmax(-1)
    found = row(comparison, "distilled")
    assert found["accuracy"] == sk.accuracy_score(y, predicted)
    assert found["top_5_accuracy"] == sk.top_k_accuracy_score(y, student, k=5)
    assert found["f1"] == pytest.approx(sk.f1_score(y, predicted, average="macro"))
    assert found["agreement"] == np.mean(predicted == teacher.argmax(-1))
    kl = special.rel_entr(teacher, np.maximum(student, 1e-7)).sum(-1).mean()
    assert found["kl"] == pytest.approx(kl, rel=1e-4)
    assert row(comparison, "teacher")["agreement"] == 1
    assert row(comparison, "teacher")["kl"] == 0


def test_files_run_in_their_own_runtimes(comparison, micro_file, held_out):
    x, y = held_out
    for name, runtime in (("int8 phone", "litert"), ("int8 micro", "micro")):
        predicted = micro_file.predict(x, runtime=runtime).argmax(-1)
        assert row(comparison, name)["accuracy"] == sk.accuracy_score(y, predicted)
    arena = keras_distill.tflite.runtimes.TFLiteMicro(micro_file.tflite).arena["total"]
    assert row(comparison, "int8 micro")["arena"] == arena


def test_micro_files_where_micro_is_not_installed(micro_file, held_out, monkeypatch):
    x, y = held_out
    expected = micro_file.predict(x, runtime="litert-reference").argmax(-1)

    def missing():
        raise ImportError

    monkeypatch.setattr(keras_distill.tflite.runtimes, "_micro_runtime", missing)
    assert as_candidate(micro_file, "micro").runtime == "litert-reference"
    found = row(compare({"micro": micro_file}, held_out), "micro")
    assert found["accuracy"] == sk.accuracy_score(y, expected)
    assert found.get("arena") is None


def test_costs(comparison, micro_file):
    weights, macs = 65 * 8 + 9 * 10, 64 * 8 + 8 * 10
    for name, size in (("distilled", 4 * weights), ("int8 micro", len(micro_file.tflite))):
        found = row(comparison, name)
        assert found["parameters"] == weights
        assert found["multiply_accumulates"] == macs
        assert found["bytes"] == size


def test_files_are_measured_as_they_are_and_in_a_zip(comparison, micro_file, tmp_path):
    with zipfile.ZipFile(tmp_path / "app.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as app:
        app.writestr("student.tflite", micro_file.tflite)
    found = row(comparison, "int8 micro")
    assert found["zipped"] == app.getinfo("student.tflite").compress_size < found["bytes"]
    assert row(comparison, "distilled")["zipped"] is None
    assert "bytes in a zip" in str(comparison)


def test_several_runs_give_their_mean_and_its_interval(comparison, candidates, held_out):
    x, y = held_out
    each = [np.mean(m.predict(x, verbose=0).argmax(-1) == y)
            for m in candidates["student on labels"]]  # fmt: skip
    found = row(comparison, "student on labels")
    assert found["runs"] == 2
    assert found["accuracy"] == pytest.approx(np.mean(each))
    low, high = found["run_intervals"]["accuracy"]
    # Student's t of one degree of freedom, and the standard error of two values.
    assert (high - low) / 2 == pytest.approx(12.7062 * abs(each[0] - each[1]) / 2, rel=1e-4)


def test_recovered_gap(comparison):
    accuracy = {row["name"]: row["accuracy"] for row in comparison.rows}
    low, high = accuracy["student on labels"], accuracy["teacher"]
    found = row(comparison, "distilled")
    assert found["gap_recovered"] == pytest.approx((accuracy["distilled"] - low) / (high - low))
    bounds = found["intervals"]["gap_recovered"]
    assert bounds[0] < found["gap_recovered"] < bounds[1]
    assert "gap_recovered" not in row(comparison, "teacher")


def test_intervals_hold_the_values(comparison):
    for found in comparison.rows:
        low, high = found["intervals"]["accuracy"]
        assert low < found["accuracy"] < high
        assert high - low < 0.12


def test_latency_is_measured_for_all(comparison):
    assert row(comparison, "teacher")["latency_ratio"] == 1
    for found in comparison.rows:
        assert 0 < found["latency_ms"] <= found["latency_p95_ms"]


def test_disagreements_are_the_samples_of_largest_divergence(comparison, candidates, held_out):
    x, y = held_out
    worst = comparison.disagreements["distilled"]
    distances = [d["distance"] for d in worst]
    assert distances == sorted(distances, reverse=True)
    assert len(worst) == 12
    first = worst[0]
    np.testing.assert_array_equal(first["input"], x[first["sample"]])
    assert first["label"] == y[first["sample"]]
    p = candidates["distilled"].predict(x, verbose=0)[first["sample"]]
    assert first["candidate"] == (p.argmax(), pytest.approx(p.max(), rel=1e-5))


def test_prints_as_a_table(comparison):
    text = str(comparison)
    assert "teacher" in text.splitlines()[1]
    accuracy = row(comparison, "distilled")["accuracy"]
    assert f"{100 * accuracy:.2f} %" in text
    assert "95 % intervals" in text
    assert f"| {100 * accuracy:.2f} % [" in comparison.markdown()


def test_goes_into_json(comparison):
    stored = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert stored["candidates"][0]["accuracy"] == comparison.rows[0]["accuracy"]
    assert np.sum(stored["confusion"]["distilled"]) == stored["samples"] == 597


def test_data_in_any_form_gives_the_same(candidates, held_out):
    x, y = held_out
    model = {"distilled": candidates["distilled"]}
    expected = compare(model, held_out, resamples=0).rows
    dataset = tf.data.Dataset.from_tensor_slices((x, np.eye(10)[y])).batch(100)
    assert compare(model, dataset, resamples=0).rows == expected
    assert compare(model, [(x[:300], y[:300]), (x[300:], y[300:])], resamples=0).rows == expected


def test_paths_distillers_and_teachers_are_candidates(candidates, held_out, micro_file, tmp_path):
    candidates["distilled"].save(tmp_path / "student.keras")
    (tmp_path / "student.tflite").write_bytes(micro_file.tflite)
    distiller = keras_distill.Distiller(candidates["distilled"], candidates["teacher"])
    doubled = keras_distill.teachers.Teacher(candidates["teacher"], preprocess=lambda x: x * 1.0)
    rows = compare(
        {
            "model": candidates["distilled"],
            "path": str(tmp_path / "student.keras"),
            "distiller": distiller,
            "file": tmp_path / "student.tflite",
            "teacher": doubled,
        },
        held_out,
        resamples=0,
    ).rows
    for found in rows[1:3]:
        assert {**found, "name": "model"} == rows[0]
    assert rows[3]["bytes"] == len(micro_file.tflite)
    assert rows[4]["agreement"] == 1
    assert rows[4]["parameters"] == candidates["teacher"].count_params()
    assert rows[4]["multiply_accumulates"] == 64 * 64 + 64 * 10


def test_regression_on_a_real_table():
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1)])
    weights = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y)[0]
    model.set_weights([weights[:10, None], weights[10:]])
    result = compare({"teacher": model, "model": model}, (x, y))
    assert result.task == "regression"
    predicted = model.predict(x, verbose=0)[:, 0]
    assert result.rows[1]["r2"] == pytest.approx(sk.r2_score(y, predicted))
    assert result.rows[1]["mae"] == pytest.approx(sk.mean_absolute_error(y, predicted))
    assert result.rows[1]["difference"] == 0
    low, high = result.rows[1]["intervals"]["r2"]
    assert low < result.rows[1]["r2"] < high


def test_segmentation(rng):
    x = rng.normal(size=(40, 6, 6, 1)).astype("float32")
    y = (x[..., 0] > 0).astype("int32")
    y[0, 0] = 255
    model = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Conv2D(2, 1)])
    model.layers[0].set_weights([np.array([[[[-1.0, 1.0]]]]), np.array([0.0, 0.5])])
    result = compare({"teacher": model}, (x, y), missing_label=255)
    predicted, known = (x[..., 0] > -0.25).astype(int), y != 255
    iou = keras.metrics.MeanIoU(2)
    iou.update_state(y[known], predicted[known])
    assert result.task == "segmentation"
    assert result.rows[0]["mean_iou"] == pytest.approx(float(iou.result()), rel=1e-6)


class Constant(keras_distill.teachers.BaseTeacher):
    """Answers with given outputs, for the errors below."""

    def __init__(self, outputs):
        self.outputs = np.asarray(outputs, "float32")

    def answer(self, inputs, taps=()):
        return keras.ops.convert_to_tensor(self.outputs), []


def constant(*shape):
    return Constant(np.random.default_rng(0).normal(size=shape))


@pytest.mark.parametrize(
    ("candidates", "y", "arguments", "message"),
    [
        ({"a": constant(4, 3)}, [0, 1, 2, 3], {}, "from 0 to 2.*label 3 at sample 3"),
        ({"a": constant(4, 3)}, [0, 1, 2, -1], {}, "missing_label=-1"),
        ({"a": constant(4, 3)}, [-1] * 4, {"missing_label": -1}, "All labels are missing"),
        ({"a": constant(4, 3), "b": constant(4, 2)}, [0] * 4, {}, "'b' gives outputs of shape"),
        ({"a": constant(3, 3)}, [0] * 4, {}, r"'a' gives shape \(3, 3\) for 4 samples"),
        ({"a": Constant([[0, np.nan]] * 4)}, [0] * 4, {}, "NaN or infinity, first for sample 0"),
        ({"a": constant(4, 3)}, [[0, 1]] * 4, {"task": "classification"}, "don't fit outputs"),
        ({"a": constant(4, 3)}, [0.5, 1, 1, 0], {"task": "classification"}, "class indices"),
        ({"a": constant(4, 3)}, [0.0, 1, 1, 0], {}, "If they are classes, give task='class"),
        ({"a": constant(4, 1)}, [0.5, np.nan, 1, 0], {}, "labels hold NaN"),
        ({"a": constant(4, 3)}, [0, 1, 2], {}, "same number of samples"),
        ({"a": constant(4, 3)}, [0] * 4, {"task": "sorting"}, "`task` must be one of"),
        ({"a": constant(4, 3)}, [0] * 4, {"class_names": ["x"]}, "must name 3 classes"),
        ({"a": []}, [0] * 4, {}, "empty list"),
        ({"a": constant(4, 3)}, ["x"] * 4, {}, "Labels must be numbers.*Received the label .*x"),
        ({"a": constant(4, 3)}, [0] * 4, {"resamples": -1}, "`resamples` must be a whole number"),
        ({"a": constant(4, 3)}, [0] * 4, {"latency_runs": 0.5}, "`latency_runs` must be a whole"),
        ({"a": constant(4, 3)}, [0] * 4, {"batch_size": 0}, "`batch_size` must be a whole number"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(candidates, y, arguments, message):
    with pytest.raises(ValueError, match=message):
        compare(candidates, (np.zeros((4, 2), "float32"), np.array(y)), **arguments)


def test_labels_of_several_outputs_are_refused():
    labels = {"kind": np.zeros(4, int), "size": np.zeros(4)}
    with pytest.raises(ValueError, match=r"labels in `data` .*single output.*\['kind', 'size'\]"):
        compare({"a": constant(4, 3)}, (np.zeros((4, 2), "float32"), labels))


def test_a_file_that_is_not_tflite_is_refused(tmp_path, held_out):
    (tmp_path / "model.tflite").write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(ValueError, match="Not a TFLite file"):
        compare({"file": tmp_path / "model.tflite"}, held_out)


def test_other_kinds_of_candidate_are_refused(held_out):
    with pytest.raises(TypeError, match="The candidate 'x' must be a Keras model"):
        compare({"x": 3}, held_out)
    with pytest.raises(TypeError, match="must be a dict"):
        compare([], held_out)
    with pytest.raises(TypeError, match="`teacher` must be the name of a candidate"):
        compare({"x": constant(597, 10)}, held_out, teacher=constant(597, 10))
    narrow = keras.Sequential([keras.Input((3,)), keras.layers.Dense(10)])
    with pytest.raises(ValueError, match="'x' can't be run on these inputs: "):
        compare({"x": narrow}, held_out)


def test_what_the_table_cannot_know_is_noted():
    y = np.array([0, 1] * 10)
    good = Constant(np.eye(3)[y] * 5)
    x = np.zeros((20, 1), "float32")
    result = compare(
        {"teacher": good, "student on labels": good, "other": good}, (x, y), class_names="abc"
    )
    notes = " ".join(result.notes)
    assert "No test sample has the class c" in notes
    assert "20 test samples are too few for intervals (30 needed)" in notes
    assert "no gap to recover" in notes
    assert "gap_recovered" not in result.rows[2]
    assert result.rows[0]["intervals"] == {}
    assert result.rows[0]["recall"] == 1


def test_endless_data_is_refused():
    endless = tf.data.Dataset.from_tensors((np.zeros((2, 1)), [0, 1])).repeat()
    with pytest.raises(ValueError, match="repeats without end"):
        compare({"a": constant(2, 2)}, endless)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tf.data.Dataset.from_tensor_slices((np.zeros((2, 1)), [0, 1])), "batch it"),
        ((np.zeros((2, 1)), [0, 1], [1, 1]), "takes no sample weights"),
        ((np.zeros((0, 1)), []), "has no samples"),
        ([], "has no samples"),
        (tf.data.Dataset.from_tensors(np.zeros((2, 1))), "Received 1 parts"),
    ],
)
def test_data_of_another_form_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        compare({"a": constant(2, 2)}, data)


@pytest.mark.long
def test_labels_are_reported_as_classes(tmp_path):
    y = np.array([2, 0, 1, 2])
    models = {"teacher": Constant(np.eye(3)[y] * 5), "a": Constant(np.eye(3)[[1, 0, 1, 2]] * 5)}
    x = np.zeros((4, 2), "float32")
    for labels in (y, y[:, None], np.eye(3)[y]):
        result = compare(models, (x, labels))
        assert [d["label"] for d in result.disagreements["a"]] == [2]
        assert "| 0 | 2 | 2 (99 %) | 1 (99 %) |" in (
            (result.report(tmp_path) / "report.md").read_text().replace("\N{NO-BREAK SPACE}", " ")
        )


def test_missing_positions_are_shown_as_missing():
    outputs = np.random.default_rng(0).normal(size=(2, 4, 4, 3))
    models = {"teacher": Constant(outputs), "a": Constant(-outputs)}
    y = np.zeros((2, 4, 4), "int32")
    y[0, 0, 0] = y[1, 0, 0] = 255
    result = compare(models, (np.zeros((2, 1)), y), missing_label=255)
    for worst in result.disagreements["a"]:
        assert worst["label"][0, 0] == -1
        assert (worst["label"].ravel()[1:] == 0).all()


@pytest.mark.long
def test_the_cost_of_python_code_is_not_told(held_out, candidates):
    weights = np.random.default_rng(0).normal(size=(64, 10)).astype("float32")

    def predict(x):
        return x.reshape(-1, 64) @ weights

    function = keras_distill.teachers.Function(predict, output_spec=tf.TensorSpec((None, 10)))
    ensemble = keras_distill.teachers.Ensemble([function, candidates["teacher"]])
    result = compare(
        {"teacher": function, "both": ensemble, "distilled": candidates["distilled"]},
        held_out,
        latency_runs=2,
    )
    both = keras.ops.softmax(predict(held_out[0])) + keras.ops.softmax(
        candidates["teacher"].predict(held_out[0], verbose=0)
    )
    accuracy = np.mean(keras.ops.argmax(both, -1) == held_out[1])
    assert result.rows[1]["accuracy"] == pytest.approx(accuracy)
    costs = ("parameters", "multiply_accumulates", "bytes")
    for row in result.rows[:2]:
        assert [row[cost] for cost in costs] == [None] * 3
        assert "latency_ms" not in row
    assert result.rows[2]["bytes"] == 4 * result.rows[2]["parameters"] > 0
    assert result.rows[2]["latency_ms"] > 0
    assert "latency_ratio" not in result.rows[2]
    assert "'both': The model runs Python code, whose cost is unknown." in result.notes


@pytest.mark.long
def test_saved_models_are_timed(held_out, candidates, tmp_path):
    candidates["teacher"].export(tmp_path / "saved", verbose=False)
    with pytest.raises(ValueError, match=r"is a SavedModel: give `.*teachers.SavedModel\(path\)`"):
        compare({"saved": tmp_path / "saved"}, held_out, teacher=None)
    saved = keras_distill.teachers.SavedModel(tmp_path / "saved")
    result = compare({"teacher": candidates["teacher"], "saved": saved}, held_out, latency_runs=2)
    assert result.rows[1]["agreement"] == 1
    assert result.rows[1]["bytes"] == result.rows[0]["bytes"]
    assert result.rows[1]["latency_ratio"] > 0


def test_models_that_read_text():
    texts = np.array(["good", "bad", "good good", "bad bad"])
    lookup = keras.layers.TextVectorization(output_mode="count", vocabulary=["good", "bad"])
    score = keras.layers.Dense(2, use_bias=False)
    model = keras.Sequential([keras.Input((), dtype="string"), lookup, score])
    score.set_weights([np.array([[0.0, 0.0], [0.0, 4.0], [4.0, 0.0]])])
    y = np.array([1, 0, 1, 0])
    in_batches = tf.data.Dataset.from_tensor_slices((texts, y)).batch(3)
    for data in (in_batches, (texts, y), (texts.astype(object), y), (texts.astype("S"), y)):
        result = compare({"teacher": keras_distill.teachers.Teacher(model), "model": model}, data)
        assert [row["accuracy"] for row in result.rows] == [1, 1]
        # Traced on text: how many words there are isn't known before.
        assert "(None, 2) inside the model" in result.notes[0]


def test_classes_instead_of_scores_are_refused(held_out):
    picked = keras_distill.teachers.Function(lambda x: tf.argmax(tf.reshape(x, (-1, 64)), -1))
    with pytest.raises(ValueError, match="returns integers, such as the classes that argmax picks"):
        compare({"a": picked}, held_out)


def test_the_distilled_student_is_measured_by_the_one_on_labels(comparison, candidates, held_out):
    better = "'distilled' isn't"
    assert not [note for note in comparison.notes if note.startswith(better)]
    models = {
        "teacher": candidates["teacher"],
        "student on labels": candidates["distilled"],
        "distilled": candidates["student on labels"][0],
        "copy": candidates["distilled"],
    }
    result = compare(models, held_out)
    accuracy = {row["name"]: row["accuracy"] for row in result.rows}
    gain = 100 * (accuracy["distilled"] - accuracy["student on labels"])
    said = [note for note in result.notes if "better than 'student on labels'" in note]
    assert [note.split(" better")[0] for note in said] == ["'distilled' isn't", "'copy' isn't"]
    assert f"accuracy {gain:+.2f} points, 95 % interval -" in said[0]
    assert said[1].endswith("accuracy +0.00 points.")
    advice = result.notes[result.notes.index(said[1]) + 1]
    assert advice.startswith("What to try where distillation doesn't help: check that the teacher")
    # The other way round it is better, and nothing is said.
    models["distilled"], models["student on labels"] = models["copy"], models["distilled"]
    assert not [n for n in compare(models, held_out).notes if "better than" in n]


def test_tables_fit_into_80_columns(comparison):
    for text in (str(comparison), printed(comparison)):
        assert max(map(len, text.splitlines())) <= 80
        for found in comparison.rows:
            assert f"{100 * found['accuracy']:.2f} %" in text
            assert f"{found['parameters']:,}" in text
        assert all(name in text for name in ("teacher", "distilled", "int8 micro"))


def printed(comparison):
    file = io.StringIO()
    rich.console.Console(file=file, width=80).print(comparison)
    return file.getvalue()


@pytest.fixture
def distilled(candidates):
    def made(losses=None):
        keras.utils.set_random_seed(1)
        student = keras.models.clone_model(candidates["distilled"])
        distiller = keras_distill.Distiller(student, candidates["teacher"], losses)
        distiller.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return distiller

    return made


@pytest.mark.long
def test_whatever_was_saved_is_compared(candidates, held_out, distilled, tmp_path):
    x, y = held_out
    aware = keras_distill.quantization.quantize_aware(candidates["distilled"], x[:50])
    hint = keras_distill.Match(keras_distill.losses.Hint(), 2, 2, adapter="auto")
    with_adapter = distilled([keras_distill.losses.SoftTargets(), hint])
    with_adapter.fit(x[:64], y[:64], verbose=0)
    models = {"aware": aware, "compiled": distilled(), "adapter": with_adapter}
    for name, model in models.items():
        model.save(tmp_path / f"{name}.keras")
    paths = {name: tmp_path / f"{name}.keras" for name in models}
    result = compare({"teacher": candidates["teacher"], **paths}, held_out)
    for found, model in zip(result.rows[1:], models.values(), strict=True):
        scores = getattr(model, "student", model).predict(x, verbose=0)
        assert found["accuracy"] == sk.accuracy_score(y, scores.argmax(-1))


def test_several_students_in_one_file_are_named(candidates, held_out, tmp_path):
    one, other = (keras.models.clone_model(candidates["distilled"]) for _ in range(2))
    one.name, other.name = "one", "other"
    keras_distill.MutualDistiller([one, other]).save(tmp_path / "both.keras")
    with pytest.raises(ValueError, match=r"several students \(one, other\): compare its"):
        compare({"both": tmp_path / "both.keras"}, held_out)
