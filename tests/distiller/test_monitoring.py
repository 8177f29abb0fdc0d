"""What `fit` and `evaluate` report: nothing that can't be monitored, and all that can."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sweeps import rest_is_long

import keras_distill
from keras_distill.losses import SoftTargets

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def dense(seed, activation=None, **arguments):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, activation, kernel_initializer="he_normal", **arguments),
        ]
    )


def log_softmax(z):
    z = np.asarray(z, "float64")
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 4)).astype("float32"), rng.integers(0, 3, 32)


@pytest.mark.parametrize("labels", rest_is_long([False, True], [True]))
def test_no_validation_loss_where_there_is_none(data, labels, tmp_path):
    """What monitors it says so, as in Keras, and goes on; a regularizer alone is no such loss."""
    x, y = data
    y = y if labels else None
    student = dense(1, kernel_regularizer="l2")
    distiller = keras_distill.Distiller(student, dense(2), alpha=0)
    distiller.compile("sgd", metrics=["accuracy"] if labels else None)
    callbacks = [
        keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True),
        keras.callbacks.ReduceLROnPlateau(patience=1),
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = distiller.fit(
            x, y, validation_data=(x, y), epochs=4, verbose=0, callbacks=callbacks
        ).history
    about = [w for w in caught if "val_loss" in str(w.message) and "vailable" in str(w.message)]
    assert len(about) == 3 * 4
    assert len(history["loss"]) == 4
    assert float(distiller.optimizer.learning_rate) == pytest.approx(0.01)
    expected = {"loss", "soft_targets", "learning_rate"}
    if labels:
        expected |= {"accuracy", "teacher_accuracy", "val_accuracy"}
    assert set(history) == expected


@pytest.mark.parametrize("steps_per_execution", rest_is_long([1, 3], [3]))
def test_evaluation_without_a_loss(data, steps_per_execution):
    """A list of results keeps the place of the loss."""
    x, y = data
    distiller = keras_distill.Distiller(dense(1), dense(2), alpha=0)
    distiller.compile("sgd", metrics=["accuracy"], steps_per_execution=steps_per_execution)
    right = np.mean(distiller.predict(x, verbose=0).argmax(-1) == y)
    loss, accuracy = distiller.evaluate(x, y, batch_size=8, verbose=0)
    assert np.isnan(loss)
    assert accuracy == pytest.approx(right)
    assert distiller.evaluate(x, y, verbose=0, return_dict=True) == {"accuracy": accuracy}
    seen = []
    callback = keras.callbacks.LambdaCallback()
    callback.on_test_batch_end = lambda batch, logs: seen.append(dict(logs))
    for without in (x, tf.data.Dataset.from_tensor_slices(x).batch(8)):
        assert np.isnan(distiller.evaluate(without, verbose=0))
        logs = distiller.evaluate(without, verbose=0, return_dict=True, callbacks=[callback])
        assert logs == {}
    assert not any(seen)
    assert len(seen) > 1
    assert distiller.test_on_batch(x, return_dict=True) == {}


def test_validation_without_labels_beside_training_with_them(data):
    x, y = data
    distiller = keras_distill.Distiller(dense(1), dense(2), alpha=0.5)
    distiller.compile("sgd", CROSS_ENTROPY, metrics=["accuracy"])
    history = distiller.fit(x, y, validation_data=(x, None), verbose=0).history
    assert not [name for name in history if name.startswith("val_")]


@pytest.mark.parametrize("with_teacher", rest_is_long([False, True], [True]))
def test_validation_labels_that_are_all_missing(data, formulas, with_teacher):
    """Of them there is no loss and no accuracy, which would be 0; one that is known has both."""
    x, y = data
    missing, one_known = np.full(32, -1), np.where(np.arange(32) == 20, y, -1)
    student, teacher = dense(1), dense(2)
    distiller = keras_distill.Distiller(
        student,
        teacher,
        SoftTargets(2.0),
        alpha=0.5,
        missing_label=-1,
        validate_with_teacher=with_teacher,
    )
    distiller.compile(keras.optimizers.SGD(0.0), CROSS_ENTROPY, metrics=["accuracy"])
    with pytest.warns(UserWarning, match="All labels were missing"):
        logs = distiller.fit(x, y, validation_data=(x, missing), batch_size=8, verbose=0).history
    z, t = student.predict(x, verbose=0), teacher.predict(x, verbose=0)
    soft = formulas.soft_targets(t, z, 2.0).mean()
    expected = {"val_loss": soft / 2, "val_soft_targets": soft} if with_teacher else {}
    validated = {name: values[0] for name, values in logs.items() if name.startswith("val_")}
    assert validated == pytest.approx(expected, rel=1e-5)
    assert {"loss", "student_loss", "accuracy", "teacher_accuracy"} <= set(logs)
    results = distiller.evaluate(x, one_known, batch_size=8, verbose=0, return_dict=True)
    assert results["accuracy"] == float(z[20].argmax() == y[20])
    loss = results["student_loss" if with_teacher else "loss"]
    assert loss == pytest.approx(-log_softmax(z)[20, y[20]] / 32, rel=1e-5)
    # Epoch by epoch, what is reported follows the labels.
    with pytest.warns(UserWarning, match="All labels were missing"):
        results = distiller.evaluate(x, missing, verbose=0, return_dict=True)
    assert set(results) == {name.removeprefix("val_") for name in expected}


@pytest.mark.parametrize("container", rest_is_long([dict, list], [list]))
def test_labels_of_one_output_that_are_all_missing(data, container):
    """Nothing is reported of that output; the other has the values that it has by itself."""
    x, y = data
    missing = np.full(32, -1)

    def model(seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((4,))
        outputs = {
            "a": layers.Dense(3, name="a")(inputs),
            "a_b": layers.Dense(3, name="a_b")(inputs),
        }
        return keras.Model(inputs, outputs if container is dict else [*outputs.values()])

    def labels(a, a_b):
        return {"a": a, "a_b": a_b} if container is dict else [a, a_b]

    student = model(1)
    distiller = keras_distill.Distiller(
        student, model(2), keras_distill.losses.DKD(), alpha=0.5, missing_label=-1
    )
    losses, metrics = [CROSS_ENTROPY] * 2, [["accuracy"]] * 2
    distiller.compile(keras.optimizers.SGD(0.0), labels(*losses), metrics=labels(*metrics))
    if container is dict:
        with pytest.warns(UserWarning, match="labels of the output 'a' were missing"):
            logs = distiller.fit(x, labels(missing, y), verbose=0).history
        names = {"accuracy", "loss"}
        expected = {"loss", "student_loss", "dkd_a_b", *(f"a_b_{name}" for name in names)}
        assert set(logs) == expected | {"teacher_a_b_accuracy"}
    right = np.mean(keras.tree.flatten(student.predict(x, verbose=0))[1].argmax(-1) == y)
    with pytest.warns(UserWarning, match="labels of the output 'a' were missing"):
        results = distiller.evaluate(x, labels(missing, y), verbose=0, return_dict=True)
    assert results["a_b_accuracy"] == pytest.approx(right)
    assert "a_accuracy" not in results
    # A list keeps the places.
    whole = distiller.evaluate(x, labels(y, y), verbose=0)
    with pytest.warns(UserWarning, match="labels of the output 'a' were missing"):
        values = np.array(distiller.evaluate(x, labels(missing, y), verbose=0))
    assert len(values) == len(whole) == len(results) + np.isnan(values).sum()
    own = np.isfinite(values)[1:]
    np.testing.assert_allclose(values[1:][own], np.array(whole)[1:][own])


@pytest.mark.parametrize("alpha", rest_is_long([0.0, 0.3], [0.3]))
def test_the_teacher_in_validation(data, formulas, alpha):
    """With `validate_with_teacher`, validation reports what training reports."""
    x, y = data
    x_val, y_val = x[::-1][:20] * 2, y[::-1][:20]
    student, teacher = dense(1, kernel_regularizer=keras.regularizers.L2(0.5)), dense(2)
    adapter = keras.Sequential([layers.Dropout(0.5), layers.Dense(3)])
    losses = [
        SoftTargets(2.0),
        keras_distill.Match(keras.losses.MeanSquaredError(), student=0, adapter=adapter),
    ]
    distiller = keras_distill.Distiller(student, teacher, losses, alpha, validate_with_teacher=True)
    distiller.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY if alpha else None)
    history = distiller.fit(
        x, y, validation_data=(x_val, y_val), epochs=2, validation_batch_size=8, verbose=0
    ).history
    z, t = student.predict(x_val, verbose=0), teacher.predict(x_val, verbose=0)
    soft = formulas.soft_targets(t, z, 2.0).mean()
    hard = -np.mean(log_softmax(z)[np.arange(20), y_val])
    kernel, bias = adapter.layers[-1].get_weights()
    squared = np.square(z @ kernel + bias - t).mean()
    penalty = 0.5 * np.square(student.get_weights()[0]).sum()
    expected = {
        "loss": alpha * hard + (1 - alpha) * (soft + squared) + penalty,
        "soft_targets": soft,
        "mean_squared_error": squared,
    }
    if alpha:
        expected["student_loss"] = hard
    last = {name[4:]: values[-1] for name, values in history.items() if name.startswith("val_")}
    assert last == pytest.approx(expected, rel=1e-5)
    evaluated = distiller.evaluate(x_val, y_val, verbose=0, return_dict=True)
    assert evaluated == pytest.approx(expected, rel=1e-5)


def test_what_is_best_for_the_objective_is_restored(data, formulas, tmp_path):
    """`EarlyStopping` and `ModelCheckpoint` by their defaults, without labels."""
    x, _ = data
    student, teacher = dense(1), dense(2)
    distiller = keras_distill.Distiller(
        student, teacher, SoftTargets(2.0), alpha=0, validate_with_teacher=True
    )
    distiller.compile(keras.optimizers.SGD(100.0))
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True),
        keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True),
    ]
    history = distiller.fit(
        x, validation_data=(x, None), epochs=9, verbose=0, callbacks=callbacks
    ).history
    best = min(history["val_loss"])
    assert len(history["val_loss"]) == int(np.argmin(history["val_loss"])) + 3 < 9
    z, t = student.predict(x, verbose=0), teacher.predict(x, verbose=0)
    assert formulas.soft_targets(t, z, 2.0).mean() == pytest.approx(best, rel=1e-5)
    loaded = keras.saving.load_model(tmp_path / "best.keras")
    assert loaded.validate_with_teacher
    loaded.teacher = teacher
    assert loaded.evaluate(x, verbose=0) == pytest.approx([best, best], rel=1e-5)
    loaded.teacher = student
    assert loaded.evaluate(x, verbose=0) == pytest.approx([0, 0], abs=1e-5)


@pytest.mark.parametrize(
    ("endings", "jit_compile"),
    rest_is_long(
        [((None, "softmax"), True), (("softmax", None), False), (("softmax", "softmax"), False)],
        [(("softmax", None), False)],
    ),
)
def test_the_teachers_metrics(data, endings, jit_compile):
    """In the very batches that the student sees, in the form of the student's outputs."""
    x, y = data
    weight = np.linspace(0.1, 2, 32).astype("float32")
    student, teacher = dense(1, endings[0]), dense(2, endings[1])
    from_logits = endings[0] is None
    distiller = keras_distill.Distiller(student, teacher, alpha=0.5)
    crossentropy = keras.metrics.SparseCategoricalCrossentropy(name="ce", from_logits=from_logits)
    distiller.compile(
        keras.optimizers.SGD(0.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits),
        metrics=["accuracy", crossentropy],
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="weighted")],
        jit_compile=jit_compile,
    )
    logs = distiller.fit(x, y, sample_weight=weight, epochs=2, batch_size=8, verbose=0).history
    t = keras.Sequential([teacher]).predict(x, verbose=0)
    log_p = np.log(t) if endings[1] else log_softmax(t)
    right = log_p.argmax(-1) == y
    np.testing.assert_allclose(logs["teacher_accuracy"], right.mean(), rtol=1e-5)
    np.testing.assert_allclose(
        logs["teacher_weighted"], (weight * right).sum() / weight.sum(), rtol=1e-5
    )
    np.testing.assert_allclose(logs["teacher_ce"], -log_p[np.arange(32), y].mean(), rtol=1e-4)
    evaluated = distiller.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    assert set(evaluated) == {"loss", "accuracy", "ce", "weighted"}


def test_missing_labels_weigh_nothing_in_the_teachers_metrics(data):
    x, y = data
    teacher = dense(2)
    distiller = keras_distill.Distiller(dense(1), teacher, alpha=0.5, missing_label=-1)
    distiller.compile("sgd", CROSS_ENTROPY, metrics=["accuracy"])
    known = np.arange(32) % 3 > 0
    logs = distiller.fit(x, np.where(known, y, -1), batch_size=8, verbose=0).history
    right = teacher.predict(x, verbose=0).argmax(-1) == y
    assert logs["teacher_accuracy"] == [pytest.approx(right[known].mean())]


def test_padding_weighs_nothing_in_the_teachers_metrics(rng):
    """Though the teacher has no mask of its own."""

    def tagger(seed, mask_zero):
        keras.utils.set_random_seed(seed)
        words = keras.Input((6,), dtype="int32")
        return keras.Model(
            words, layers.Dense(3)(layers.Embedding(9, 4, "normal", mask_zero=mask_zero)(words))
        )

    words = rng.integers(1, 9, (8, 6)) * (np.arange(6) < rng.integers(1, 6, (8, 1)))
    y = rng.integers(0, 3, (8, 6))
    teacher = tagger(2, mask_zero=False)
    distiller = keras_distill.Distiller(tagger(1, mask_zero=True), teacher, alpha=0.5)
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="right")
    distiller.compile("sgd", CROSS_ENTROPY, weighted_metrics=[accuracy])
    logs = distiller.fit(words, y, sample_weight=np.ones((8, 6)), verbose=0).history
    right = teacher.predict(words, verbose=0).argmax(-1) == y
    assert logs["teacher_right"] == [pytest.approx(right[words > 0].mean())]


def operations(distiller):
    """Number of operations in a traced step, those of the functions that it calls included."""
    definition = distiller.train_function.step.graph.as_graph_def()
    return len(definition.node) + sum(len(f.node_def) for f in definition.library.function)


def test_the_teachers_metrics_cost_what_the_students_do(data):
    """No further pass of the teacher, and no more operations than the student's own metrics."""
    x, y = data
    passes, counts = [], {}
    teacher = dense(2)

    def teach(x):
        passes.append(1)
        return teacher(x)

    for metrics in (None, ["accuracy"]):
        keras.utils.set_random_seed(0)
        distiller = keras_distill.Distiller(dense(1), teach, alpha=0.5)
        distiller.compile("sgd", CROSS_ENTROPY, metrics=metrics, jit_compile=False)
        passes.clear()
        distiller.fit(x, y, batch_size=8, epochs=2, verbose=0)
        assert len(passes) == 1, "one trace"
        plain = dense(1)
        plain.compile("sgd", CROSS_ENTROPY, metrics=metrics, jit_compile=False)
        step = tf.function(plain.train_step).get_concrete_function(
            (tf.TensorSpec((None, 4)), tf.TensorSpec((None,), "int64"))
        )
        counts[bool(metrics)] = operations(distiller), len(step.graph.get_operations())
    ours, of_plain = (b - a for a, b in zip(*counts.values(), strict=True))
    assert ours <= 2 * of_plain


def test_the_teachers_metrics_of_several_outputs(data):
    def model(seed):
        keras.utils.set_random_seed(seed)
        x = keras.Input((4,))
        return keras.Model(
            x, {"kind": layers.Dense(3, name="kind")(x), "size": layers.Dense(1, name="size")(x)}
        )

    x, y = data
    size = np.arange(32, dtype="float32")
    teacher = model(2)
    losses = {"kind": SoftTargets(), "size": keras.losses.MeanSquaredError()}
    distiller = keras_distill.Distiller(model(1), teacher, losses, alpha=0.5)
    distiller.compile(
        keras.optimizers.SGD(0.0),
        {"kind": CROSS_ENTROPY, "size": "mse"},
        metrics={"kind": ["accuracy"], "size": ["mae"]},
    )
    logs = distiller.fit(x, {"kind": y, "size": size}, batch_size=8, verbose=0).history
    t = teacher.predict(x, verbose=0)
    right = (t["kind"].argmax(-1) == y).mean()
    assert logs["teacher_kind_accuracy"] == pytest.approx([right])
    error = np.abs(t["size"][:, 0] - size).mean()
    assert logs["teacher_size_mae"] == pytest.approx([error], rel=1e-5)


def test_the_metrics_of_an_ensemble_are_those_of_its_mean(data):
    x, y = data
    members = [dense(2), dense(3, "softmax"), dense(4)]
    ensemble = keras_distill.teachers.Ensemble(members)
    distiller = keras_distill.Distiller(dense(1), ensemble, alpha=0.5)
    distiller.compile("sgd", CROSS_ENTROPY, metrics=["accuracy"])
    logs = distiller.fit(x, y, batch_size=8, verbose=0).history
    outputs = [member.predict(x, verbose=0) for member in members]
    p = sum(z if i == 1 else np.exp(log_softmax(z)) for i, z in enumerate(outputs))
    assert logs["teacher_accuracy"] == [pytest.approx(np.mean(p.argmax(-1) == y))]


def test_no_metrics_of_a_teacher_whose_outputs_are_others(data):
    """A teacher with more classes, of which a layer alone is compared."""
    x = keras.Input((4,))
    teacher = keras.Model(x, layers.Dense(7)(layers.Dense(3, name="hidden")(x)))
    student = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="hidden")])
    match = keras_distill.Match(keras.losses.MeanSquaredError(), student="hidden", teacher="hidden")
    distiller = keras_distill.Distiller(student, teacher, match, alpha=0.5)
    distiller.compile("sgd", CROSS_ENTROPY, metrics=["accuracy"])
    logs = distiller.fit(*data, verbose=0).history
    assert set(logs) == {"loss", "student_loss", "mean_squared_error", "accuracy"}


def test_students_that_learn_from_each_other_report_alike(data, formulas):
    """They are each other's teachers: their metrics are there already."""
    x, y = data
    students = [dense(1), dense(2)]
    for student, name in zip(students, "ab", strict=True):
        student.name = name
    mutual = keras_distill.MutualDistiller(
        students, SoftTargets(2.0), alpha=0, validate_with_teacher=True
    )
    mutual.compile("sgd", metrics=["accuracy"])
    history = mutual.fit(x, y, validation_data=(x, y), verbose=0).history
    reported = {"loss", "soft_targets_a", "soft_targets_b", "a_accuracy", "b_accuracy"}
    assert set(history) == reported | {f"val_{name}" for name in reported}
    a, b = (student.predict(x, verbose=0) for student in students)
    expected = formulas.soft_targets(b, a, 2.0).mean()
    assert history["val_soft_targets_a"] == [pytest.approx(expected, rel=1e-5)]
    mutual.validate_with_teacher = False
    mutual.compile("sgd", metrics=["accuracy"])
    logs = mutual.evaluate(x, y, verbose=0, return_dict=True)
    assert set(logs) == {"a_accuracy", "b_accuracy"}
