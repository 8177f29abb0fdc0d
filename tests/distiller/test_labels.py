"""Training without labels, or with some of them missing."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sweeps import rest_is_long

import keras_distill
from keras_distill.losses import SoftTargets


@pytest.mark.parametrize("form", ["array", "dataset"])
def test_without_labels(dense, batch, formulas, form):
    x = batch[0]
    student, teacher = dense(), dense(9)
    z, t = student.predict(x, verbose=0), teacher.predict(x, verbose=0)
    distiller = keras_distill.Distiller(student, teacher, SoftTargets(2.0), alpha=0)
    distiller.compile(keras.optimizers.SGD(0.0))
    data = x if form == "array" else tf.data.Dataset.from_tensor_slices(x).batch(32)
    history = distiller.fit(data, validation_data=(x, None) if form == "array" else data, verbose=0)
    expected = formulas.soft_targets(t, z, 2.0).mean()
    np.testing.assert_allclose(history.history["loss"], expected, rtol=1e-4)
    assert not [name for name in history.history if name.startswith("val_")]
    assert distiller.evaluate(data, verbose=0, return_dict=True) == {}
    assert np.isnan(distiller.evaluate(data, verbose=0))


def test_labels_are_demanded_where_alpha_weighs_them(dense, batch, cross_entropy):
    distiller = keras_distill.Distiller(dense(), dense(9), alpha=0.1)
    with pytest.raises(ValueError, match="`compile` got no `loss`.*alpha=0"):
        distiller.compile("sgd")
    distiller.compile("sgd", cross_entropy)
    with pytest.raises(ValueError, match="no labels.*alpha=0"):
        distiller.fit(batch[0], verbose=0)


@pytest.mark.parametrize("jit_compile", rest_is_long([False, True], [True]))
def test_missing_labels_weigh_nothing(dense, batch, cross_entropy, formulas, jit_compile):
    x, y, _ = batch
    known = np.arange(32) % 3 > 0
    student, teacher = dense(), dense(9)
    z, t = student.predict(x, verbose=0), teacher.predict(x, verbose=0)
    distiller = keras_distill.Distiller(
        student, teacher, SoftTargets(2.0), alpha=0.5, missing_label=-1
    )
    distiller.compile("sgd", cross_entropy, metrics=["accuracy"], jit_compile=jit_compile)
    labels = np.where(known, y, -1)
    evaluated = distiller.evaluate(x, labels, verbose=0, return_dict=True)
    logs = distiller.train_on_batch(x, labels, return_dict=True)
    hard = np.mean(known * formulas.labels_loss(y, z))
    soft = formulas.soft_targets(t, z, 2.0).mean()
    accuracy = (z.argmax(-1) == y)[known].mean()
    np.testing.assert_allclose(logs["student_loss"], hard, rtol=1e-5)
    np.testing.assert_allclose(logs["soft_targets"], soft, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(logs["loss"], 0.5 * (hard + soft), rtol=1e-5)
    np.testing.assert_allclose(logs["accuracy"], accuracy, rtol=1e-5)
    np.testing.assert_allclose(evaluated["loss"], hard, rtol=1e-5)
    np.testing.assert_allclose(evaluated["accuracy"], accuracy, rtol=1e-5)


def test_missing_labels_of_one_hot_rows_steps_and_values(rng):
    """In one-hot rows and vectors of values a whole row is missing; in sequences a step is."""
    from keras import layers

    def model():
        return keras.Sequential([keras.Input((3, 4)), layers.Dense(2)])

    x = rng.normal(size=(4, 3, 4)).astype("float32")
    student = model()
    z = student.predict(x, verbose=0)
    distiller = keras_distill.Distiller(
        student, model(), keras.losses.MeanSquaredError(), missing_label=float("nan"), alpha=1
    )
    distiller.compile("sgd", "mse")
    y = rng.normal(size=z.shape).astype("float32")
    missing = np.zeros((4, 3), bool)
    missing[0] = missing[2, 1] = True
    y[missing] = np.nan
    logs = distiller.train_on_batch(x, y, return_dict=True)
    expected = np.where(missing, 0, np.square(y - z).mean(-1)).mean()
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("form", "structure"),
    [
        ("list", "dict"),
        pytest.param("dict", "list", marks=pytest.mark.long),
        pytest.param("list", "tuple", marks=pytest.mark.long),
        pytest.param("dict", "tuple", marks=pytest.mark.nightly),
        pytest.param("list", "list", marks=pytest.mark.nightly),
        pytest.param("dict", "dict", marks=pytest.mark.nightly),
    ],
)
def test_missing_labels_of_several_outputs(batch, cross_entropy, formulas, structure, form):
    """Labels and weights in the containers that Keras takes, whatever those of the outputs."""
    from keras import layers

    def model(width):
        inputs = keras.Input((4,))
        h = layers.Dense(width, activation="tanh")(inputs)
        a, b = layers.Dense(3, name="a")(h), layers.Dense(3, name="b")(h)
        return keras.Model(
            inputs, {"list": [a, b], "tuple": (a, b), "dict": {"a": a, "b": b}}[structure]
        )

    x, y, weight = batch
    known = [np.arange(32) % 3 > 0, np.arange(32) % 5 > 0]
    student, teacher = model(5), model(9)
    labels = [np.where(k, y, -1) for k in known]
    weights = [weight, 2 * weight]
    expected = sum(
        np.mean(w * k * formulas.labels_loss(y, z))
        for w, k, z in zip(
            weights, known, keras.tree.flatten(student.predict(x, verbose=0)), strict=True
        )
    )
    if form == "dict":
        labels, weights = ({"a": part[0], "b": part[1]} for part in (labels, weights))
    distiller = keras_distill.Distiller(
        student, teacher, keras_distill.losses.DKD(), alpha=0.5, missing_label=-1
    )
    losses = {"a": cross_entropy, "b": cross_entropy}
    distiller.compile(
        keras.optimizers.SGD(0.0), losses if structure == "dict" else list(losses.values())
    )
    results = distiller.evaluate(x, labels, sample_weight=weights, verbose=0, return_dict=True)
    history = distiller.fit(x, labels, sample_weight=weights, verbose=0).history
    assert results["loss"] == pytest.approx(expected, rel=1e-5)
    assert history["student_loss"] == [pytest.approx(expected, rel=1e-5)]
    total = history["dkd_" + ("a" if structure == "dict" else "0")][0]
    total += history["dkd_" + ("b" if structure == "dict" else "1")][0]
    assert history["loss"] == [pytest.approx(0.5 * (expected + total), rel=1e-5)]
