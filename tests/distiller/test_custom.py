"""Own losses, own steps, serialization, copies, and NaN."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_distill
from keras_distill.losses import SoftTargets


@keras.saving.register_keras_serializable("keras_distill_tests")
class Absolute(keras.losses.Loss):
    """A user's own loss."""

    def call(self, y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred), axis=-1)


@keras.saving.register_keras_serializable("keras_distill_tests")
def squared(teacher, student):
    return ops.mean(ops.square(teacher - student), axis=-1)


@pytest.mark.parametrize("loss", [Absolute(), squared, keras.losses.Huber()])
def test_a_users_own_loss(dense, batch, loss):
    x, _, weight = batch
    student, teacher = dense(), dense(9)
    z, t = student.predict(x, verbose=0), teacher.predict(x, verbose=0)
    distiller = keras_distill.Distiller(student, teacher, loss, alpha=0)
    distiller.compile("sgd")
    logs = distiller.train_on_batch(x, sample_weight=weight, return_dict=True)
    values = loss.call(t, z) if isinstance(loss, keras.losses.Loss) else loss(t, z)
    np.testing.assert_allclose(logs["loss"], np.mean(weight * np.asarray(values)), rtol=1e-5)


def test_a_users_own_train_step(dense, batch, cross_entropy, formulas):
    """A subclass that steps by the signs of the gradients, from the public parts of a step."""

    class Signed(keras_distill.Distiller):
        def train_step(self, data):
            x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
            said = self.ask_teacher(x)
            with tf.GradientTape() as tape:
                answer = self.run_student(x)
                values = self.compute_losses(x, y, answer, said, weight)
            gradients = tape.gradient(values["loss"], self.trainable_weights)
            self.optimizer.apply([tf.sign(g) for g in gradients], self.trainable_weights)
            return values

    x, y, _ = batch
    student, teacher = dense(), dense(9)
    z, t = (model.predict(x, verbose=0).astype("float64") for model in (student, teacher))
    before = student.get_weights()
    distiller = Signed(student, teacher, alpha=0.5)
    distiller.compile(keras.optimizers.SGD(0.125), cross_entropy)
    history = distiller.fit(x, y, batch_size=32, verbose=0).history
    labels, soft = formulas.labels_loss(y, z).mean(), formulas.soft_targets(t, z, 4.0).mean()
    expected = {"loss": (labels + soft) / 2, "student_loss": labels, "soft_targets": soft}
    assert {name: values[0] for name, values in history.items()} == pytest.approx(
        expected, rel=1e-4
    )
    steps = [new - old for old, new in zip(before, student.get_weights(), strict=True)]
    for step in steps:
        np.testing.assert_allclose(np.abs(step), 0.125, rtol=1e-5)
    hard, p, q = (np.exp(x - np.logaddexp.reduce(x, 1, keepdims=True)) for x in (z, t / 4, z / 4))
    of_bias = (hard - np.eye(3)[y] + 4 * (q - p)).mean(0)
    np.testing.assert_array_equal(np.sign(steps[-1]), -np.sign(of_bias))


PUBLIC = [
    SoftTargets(3.0, name="mine"),
    SoftTargets(keras.optimizers.schedules.ExponentialDecay(4.0, 10, 0.5), name="scheduled"),
    keras_distill.Match(SoftTargets(2.0), student="hidden", teacher=["a", "b/c"], weight=0.5),
    keras_distill.Match(Absolute(), student=0, adapter=keras.layers.Dense(4), name="adapted"),
    keras_distill.Match(squared, adapter="auto", name="own"),
]


@pytest.mark.parametrize("instance", PUBLIC, ids=lambda x: x.name)
def test_round_trips_of_what_is_public(instance):
    config = keras.saving.serialize_keras_object(instance)
    copy = keras.saving.deserialize_keras_object(config, safe_mode=True)
    assert type(copy) is type(instance)
    assert keras.saving.serialize_keras_object(copy) == config
    again = type(instance).from_config(instance.get_config())
    assert keras.saving.serialize_keras_object(again) == config


def test_a_distiller_survives_a_round_trip(dense, batch, cross_entropy, tmp_path):
    x, y, _ = batch
    match = keras_distill.Match(
        squared, student="hidden", teacher="hidden", adapter=keras.layers.Dense(9), weight=3.0
    )
    teacher = dense(9)
    distiller = keras_distill.Distiller(
        dense(), teacher, [SoftTargets(3.0), match], alpha=0.25, missing_label=-1, name="mine"
    )
    distiller.compile("adam", cross_entropy, metrics=["accuracy"])
    distiller.fit(x, y, verbose=0)
    distiller.save(tmp_path / "d.keras")
    loaded = keras.models.load_model(tmp_path / "d.keras", safe_mode=True)
    assert json.dumps(loaded.get_config()) == json.dumps(distiller.get_config())
    loaded.teacher = teacher
    distiller.reset_metrics()
    a = distiller.train_on_batch(x, y, return_dict=True)
    b = loaded.train_on_batch(x, y, return_dict=True)
    assert a == b


def test_the_student_can_be_cloned_and_saved_alone(dense, batch, cross_entropy, tmp_path):
    x, y, _ = batch
    student = dense()
    tap = keras_distill.Match(
        keras.losses.MeanSquaredError(), student="hidden", teacher="hidden", adapter="auto"
    )
    distiller = keras_distill.Distiller(student, dense(9), [SoftTargets(), tap])
    distiller.compile("sgd", cross_entropy)
    distiller.fit(x, y, verbose=0)
    clone = keras.models.clone_model(student)
    clone.set_weights(student.get_weights())
    student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    for copy in (clone, loaded):
        np.testing.assert_array_equal(copy(x), student(x))
        assert copy.count_params() == student.count_params()
    assert "call" not in vars(student.get_layer("hidden"))


@pytest.mark.parametrize("where", ["the teacher", "the student", "the loss 'broken'"])
def test_nan_is_traced_to_its_origin(dense, batch, cross_entropy, where):
    x, y, _ = batch
    student, teacher = dense(), dense(9)

    def broken(teacher, student):
        values = ops.mean(student - teacher, axis=-1)
        return values / 0.0 if where.startswith("the loss") else values

    if where == "the teacher":
        teacher.layers[-1].bias.assign([np.nan, 0, 0])
    if where == "the student":
        student.layers[-1].bias.assign([np.inf, 0, 0])
    distiller = keras_distill.Distiller(
        student, teacher, [SoftTargets(), broken], check_numerics=True
    )
    with pytest.warns(UserWarning, match="Proceeding with `jit_compile=False`"):
        distiller.compile("sgd", cross_entropy, jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"first appeared in {where}"):
        distiller.train_on_batch(x, y)


def test_terminate_on_nan_works(dense, batch, cross_entropy):
    x, y, _ = batch
    teacher = dense()
    teacher.layers[-1].bias.assign([np.nan, 0, 0])
    distiller = keras_distill.Distiller(dense(), teacher)
    distiller.compile("sgd", cross_entropy)
    stop = keras.callbacks.TerminateOnNaN()
    with pytest.warns(UserWarning, match="is NaN"):
        history = distiller.fit(x, y, epochs=5, verbose=0, callbacks=[stop]).history
    assert len(history["loss"]) == 1
