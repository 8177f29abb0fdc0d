"""Hyperparameters that change while training goes on, in one trace, logged and restored."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill
from keras_distill.callbacks import Schedule
from keras_distill.losses import SoftTargets

schedules = keras.optimizers.schedules


class Traces(SoftTargets):
    """Counts how often its formula is traced."""

    traces = 0

    def call(self, y_true, y_pred):
        type(self).traces += 1
        return super().call(y_true, y_pred)


def steps(batch):
    x, y, _ = batch
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(8)


def test_per_step_schedules_follow_the_optimizer(dense, batch, cross_entropy, formulas):
    Traces.traces = 0
    student, teacher = dense(), dense(9)
    x, y, _ = batch
    z, t = student.predict(x[:8], verbose=0), teacher.predict(x[:8], verbose=0)
    loss = Traces(temperature=schedules.ExponentialDecay(8.0, 1, 0.5))
    match = keras_distill.Match(loss, weight=schedules.PolynomialDecay(1.0, 4, 0.0))
    distiller = keras_distill.Distiller(
        student, teacher, match, alpha=schedules.PiecewiseConstantDecay([1], [0.0, 0.5])
    )
    distiller.compile(keras.optimizers.SGD(0.0), cross_entropy)
    built = Traces.traces
    for step, (temperature, weight, alpha) in enumerate(
        [(8.0, 1.0, 0.0), (4.0, 0.75, 0.0), (2.0, 0.5, 0.5), (1.0, 0.25, 0.5)]
    ):
        distiller.reset_metrics()
        logs = distiller.train_on_batch(x[:8], y[:8], return_dict=True)
        soft = formulas.soft_targets(t, z, temperature).mean()
        np.testing.assert_allclose(logs["soft_targets"], soft, rtol=1e-4, err_msg=str(step))
        expected = alpha * logs["student_loss"] + (1 - alpha) * weight * soft
        np.testing.assert_allclose(logs["loss"], expected, rtol=1e-4)
        assert logs["alpha"] == alpha
        assert logs["soft_targets/temperature"] == temperature
        assert logs["soft_targets/weight"] == weight
    assert Traces.traces == built + 1


def test_per_epoch_callback_without_retracing(dense, batch, cross_entropy):
    Traces.traces = 0
    distiller = keras_distill.Distiller(dense(), dense(9), Traces(2.0))
    distiller.compile("sgd", cross_entropy)
    built = Traces.traces
    history = distiller.fit(
        steps(batch),
        epochs=3,
        verbose=0,
        callbacks=[
            Schedule("alpha", lambda epoch: 0.1 * epoch),
            Schedule("soft_targets/temperature", schedules.ExponentialDecay(4.0, 1, 0.5)),
        ],
    ).history
    np.testing.assert_allclose(history["alpha"], [0, 0.1, 0.2], rtol=1e-6)
    np.testing.assert_allclose(history["soft_targets/temperature"], [4, 2, 1], rtol=1e-6)
    assert Traces.traces == built + 1
    # What the loss object says is what the step uses.
    np.testing.assert_allclose(float(distiller.alpha), 0.2, rtol=1e-6)


def test_assignment_to_the_loss_takes_effect(dense, batch, cross_entropy, formulas):
    x, y, _ = batch
    student, teacher = dense(), dense(9)
    z, t = student.predict(x, verbose=0), teacher.predict(x, verbose=0)
    loss = SoftTargets(2.0)
    distiller = keras_distill.Distiller(student, teacher, loss)
    distiller.compile(keras.optimizers.SGD(0.0), cross_entropy)
    distiller.train_on_batch(x, y)
    loss.temperature = 5.0
    distiller.alpha = 0.75
    distiller.reset_metrics()
    logs = distiller.train_on_batch(x, y, return_dict=True)
    soft = formulas.soft_targets(t, z, 5.0).mean()
    np.testing.assert_allclose(logs["soft_targets"], soft, rtol=1e-4)
    np.testing.assert_allclose(logs["loss"], 0.75 * logs["student_loss"] + 0.25 * soft, rtol=1e-4)
    with pytest.raises(ValueError, match="`temperature` must be greater than 0.*-1"):
        loss.temperature = -1
    with pytest.raises(ValueError, match="`alpha` must be between 0 and 1"):
        distiller.alpha = 1.5


def test_values_are_restored_with_the_weights(dense, batch, cross_entropy, tmp_path):
    def build():
        distiller = keras_distill.Distiller(dense(), dense(9), SoftTargets(2.0))
        distiller.compile("sgd", cross_entropy)
        return distiller

    first = build()
    first.fit(steps(batch), epochs=2, verbose=0, callbacks=[Schedule("alpha", lambda e: 0.3 * e)])
    first.hyperparameters["soft_targets/temperature"].assign(7.0)
    first.save_weights(tmp_path / "d.weights.h5")
    second = build()
    second.load_weights(tmp_path / "d.weights.h5")
    values = {name: float(v) for name, v in second.hyperparameters.items()}
    assert values == pytest.approx(
        {"alpha": 0.3, "soft_targets/weight": 1.0, "soft_targets/temperature": 7.0}
    )


def test_an_unknown_hyperparameter_is_named(dense, batch, cross_entropy):
    distiller = keras_distill.Distiller(dense(), dense(9))
    distiller.compile("sgd", cross_entropy)
    with pytest.raises(ValueError, match="no hyperparameter 'tau'.*soft_targets/temperature"):
        distiller.fit(steps(batch), verbose=0, callbacks=[Schedule("tau", float)])


def test_schedules_keep_to_the_range(dense, batch, cross_entropy):
    distiller = keras_distill.Distiller(dense(), dense(9))
    distiller.compile("sgd", cross_entropy)
    callback = Schedule("alpha", lambda epoch: 0.5 * epoch)
    with pytest.raises(ValueError, match=r"`alpha` must be between 0 and 1. Received: alpha=1.5"):
        distiller.fit(steps(batch), epochs=5, verbose=0, callbacks=[callback])
    assert float(distiller.alpha) == 1.0
    # In floats a little below 0.
    to_zero = Schedule("alpha", lambda epoch: 0.3 - 3 * 0.1)
    distiller.fit(steps(batch), verbose=0, callbacks=[to_zero])
    assert float(distiller.alpha) == 0.0
    with pytest.raises(ValueError, match=r"`temperature` must be greater than 0.*temperature=0.0"):
        keras_distill.Distiller(
            dense(), dense(9), SoftTargets(schedules.PolynomialDecay(0.0, 10, 4.0))
        )


def test_one_loss_in_two_places_has_one_temperature(rng, formulas):
    def model(width):
        inputs = keras.Input((4,))
        h = layers.Dense(width, activation="tanh")(inputs)
        return keras.Model(inputs, {"a": layers.Dense(3)(h), "b": layers.Dense(3)(h)})

    x = rng.normal(size=(8, 4)).astype("float32")
    student, teacher, loss = model(5), model(9), SoftTargets(4.0)
    distiller = keras_distill.Distiller(student, teacher, {"a": loss, "b": loss}, alpha=0)
    distiller.compile(keras.optimizers.SGD(0.0))
    z, t = student.predict(x, verbose=0), teacher.predict(x, verbose=0)
    callback = Schedule("soft_targets/temperature", lambda epoch: 2.0)
    history = distiller.fit(x, verbose=0, callbacks=[callback]).history
    expected = [formulas.soft_targets(t[name], z[name], 2.0).mean() for name in "ab"]
    np.testing.assert_allclose(history["soft_targets"], expected[0], rtol=1e-4)
    np.testing.assert_allclose(history["soft_targets_b"], expected[1], rtol=1e-4)
    assert float(distiller.hyperparameters["soft_targets_b/temperature"]) == 2.0
    assert float(loss.temperature) == 2.0
