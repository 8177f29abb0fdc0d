"""What a training run on JAX promises beside its values."""

import itertools

import jax
import keras
import numpy as np
import pytest
import tensorflow as tf
from backend_cases import data, network

import keras_distill
from keras_distill.losses import SoftTargets


def compiled(student, teacher, **options):
    distiller = keras_distill.Distiller(student, teacher, SoftTargets(2.0), **options)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return distiller


def fitted(distiller, epochs=2, **options):
    x, y, _ = data()
    distiller.fit(x, y, batch_size=16, epochs=epochs, shuffle=False, verbose=0, **options)
    return distiller


def assert_same(a, b, **tolerances):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), **tolerances or {"rtol": 0})


def test_the_teacher_is_an_argument_of_the_program(monkeypatch):
    """Not a constant in it: a program's size doesn't depend on the size of the teacher."""
    jit, programs = jax.jit, []

    def noting(function, **options):
        made = jit(function, **options)

        def call(*args):
            programs.append(made.lower(*args).as_text())
            return made(*args)

        return call

    monkeypatch.setattr(keras.src.backend.jax.trainer, "jit", noting)
    sizes = []
    for width in (9, 700):
        x, y, _ = data()
        distiller = compiled(network(4, 1), network(width, 2))
        programs.clear()
        distiller.fit(x, y, batch_size=80, verbose=0)
        (program,) = programs
        assert f"tensor<8x{width}xf32>" in program
        sizes.append(len(program))
    assert sizes[1] < sizes[0] + 2000


def test_traced_once(monkeypatch):
    traces = []
    original = keras_distill.Distiller.train_step

    def counted(self, *args):
        traces.append(1)
        return original(self, *args)

    monkeypatch.setattr(keras_distill.Distiller, "train_step", counted)
    x, y, _ = data()
    fitted(compiled(network(4, 1), network(9, 2)), 3, validation_data=(x, y))
    assert len(traces) == 1


def test_the_teacher_is_not_trained_counted_or_saved(tmp_path):
    student, teacher = network(4, 1), network(9, 2)
    before = [np.array(value) for value in teacher.get_weights()]
    distiller = fitted(compiled(student, teacher))
    assert_same(before, teacher.get_weights())
    assert distiller.count_params() == student.count_params()
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert loaded.teacher is None
    assert_same(loaded.get_weights(), student.get_weights())


def test_paths_of_all_variables_are_different():
    """Keras' Orbax callback saves them under their paths, those of metrics included."""
    distiller = fitted(compiled(network(4, 1), network(9, 2)), 1)
    tree = distiller.get_state_tree()
    assert {"accuracy", "teacher", "loss"} <= tree["metrics_variables"].keys()


def test_several_devices_make_the_same_update():
    expected = fitted(compiled(network(4, 1), network(9, 2)))
    devices = keras.distribution.list_devices("cpu")
    assert len(devices) == 4
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    try:
        distiller = fitted(compiled(network(4, 1), network(9, 2)))
        (kernel, *_) = distiller.trainable_variables
        assert len(kernel.value.sharding.device_set) == 4
    finally:
        keras.distribution.set_distribution(None)
    assert_same(expected.get_weights(), distiller.get_weights(), rtol=1e-4, atol=1e-6)


def test_own_batches():
    x, y, _ = data()
    distiller = compiled(network(4, 1), network(9, 2))
    logs = [distiller.train_on_batch(x[i : i + 16], y[i : i + 16]) for i in range(0, 80, 16)]
    assert np.isfinite(logs).all()
    once = fitted(compiled(network(4, 1), network(9, 2)), 1)
    assert_same(distiller.get_weights(), once.get_weights(), rtol=1e-5, atol=1e-6)
    assert distiller.predict(x, verbose=0).shape == (80, 3)
    assert distiller.evaluate(x, y, verbose=0, return_dict=True).keys() == {"loss", "accuracy"}


def test_what_a_function_closes_over_is_no_constant():
    """Its weights are read anew at each step, and are neither trained nor counted."""
    inputs = keras.Input((8,))
    teacher, student = (keras.Model(inputs, keras.layers.Dense(3)(inputs)) for _ in range(2))
    before = [np.asarray(w) for w in teacher.get_weights()]
    teaches = keras_distill.teachers.Teacher(lambda x: teacher(x))
    distiller = keras_distill.Distiller(student, teaches, SoftTargets(2.0), alpha=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    x, _, _ = data()

    def loss():
        return distiller.fit(x, batch_size=len(x), verbose=0).history["loss"][0]

    def expected():
        plain = keras_distill.Distiller(student, teacher, SoftTargets(2.0), alpha=0.0)
        plain.compile(keras.optimizers.SGD(0.0))
        return plain.fit(x, batch_size=len(x), verbose=0).history["loss"][0]

    assert loss() == pytest.approx(expected(), rel=1e-5)
    assert_same(teacher.get_weights(), before)
    teacher.set_weights([3 * w for w in before])
    assert loss() == pytest.approx(expected(), rel=1e-5)
    assert len(distiller.trainable_variables) == len(student.trainable_variables)


def test_a_teachers_views_are_drawn_anew_at_each_step():
    noise = keras.layers.GaussianNoise(1.0)
    teacher = keras_distill.teachers.Teacher(
        network(6, 1), preprocess=lambda x: noise(x, training=True)
    )
    distiller = keras_distill.Distiller(network(4, 2), teacher, SoftTargets(2.0), alpha=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    x, _, _ = data()
    losses = [distiller.fit(x, batch_size=len(x), verbose=0).history["loss"][0] for _ in range(2)]
    losses += distiller.fit(x, batch_size=len(x), epochs=2, verbose=0).history["loss"]
    assert len(set(losses)) == 4


def test_functions_of_tensorflow_are_told_what_to_do():
    says = r"wrap it in `tf\.function`, or give `output_spec`"
    with pytest.raises(ValueError, match=says) as told:
        keras_distill.Distiller(network(4, 2), lambda x: tf.nn.softmax(x[:, :3]))
    assert "\n" not in str(told.value)


def test_a_teacher_follows_the_student_from_step_to_step():
    """Its weights are read anew at each step, and the student's are those after it."""
    x, y, _ = data()
    student, teacher, found = network(4, 1), network(4, 2), []

    class Follow(keras_distill.callbacks.MovingAverage):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            found.append([model.get_weights() for model in (student, teacher)])

    distiller = compiled(student, teacher, alpha=0.0)
    distiller.fit(x, y, batch_size=len(x), epochs=3, verbose=0, callbacks=[Follow(teacher, 0.5)])
    assert len(found) == 3
    assert_same(*found[0])  # After one step the mean of all steps is that step.
    for (_, before), (after, mean) in itertools.pairwise(found):
        assert_same(mean, [(a + b) / 2 for a, b in zip(before, after, strict=True)], atol=1e-6)
