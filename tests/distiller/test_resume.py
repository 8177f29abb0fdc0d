"""Interrupted, saved, loaded: training goes on as if nothing had happened."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sweeps import rest_is_long

import keras_distill
from keras_distill.losses import SoftTargets


def distiller_of(cross_entropy, dropout=0.3):
    def model(width):
        return keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(width, 3, name="maps"),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.GlobalAveragePooling2D(),
                layers.Dropout(dropout, seed=5),
                layers.Dense(10),
            ]
        )

    tap = keras_distill.Match(
        keras.losses.MeanSquaredError(), student="maps", teacher="maps", adapter="auto"
    )
    teacher = model(8)
    distiller = keras_distill.Distiller(model(4), teacher, [SoftTargets(2.0), tap], alpha=0.3)
    distiller.compile(keras.optimizers.Adam(0.01), cross_entropy, metrics=["accuracy"])
    return distiller, teacher


def steps(digits, count=6):
    images, labels = digits
    rows = slice(16 * count)
    return tf.data.Dataset.from_tensor_slices((images[rows], labels[rows])).batch(16)


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_a_loaded_distiller_goes_on_bit_for_bit(digits, cross_entropy, tmp_path):
    distiller, teacher = distiller_of(cross_entropy)
    distiller.fit(steps(digits), epochs=2, verbose=0)
    path = tmp_path / "distiller.keras"
    distiller.save(path)
    loaded = keras.models.load_model(path)
    assert loaded.teacher is None
    assert_same(distiller.variables, loaded.variables)
    assert_same(distiller.optimizer.variables, loaded.optimizer.variables)
    with pytest.raises(ValueError, match=r"distiller.teacher = model"):
        loaded.fit(steps(digits), verbose=0)
    loaded.teacher = teacher
    one = distiller.fit(steps(digits), epochs=1, verbose=0).history
    other = loaded.fit(steps(digits), epochs=1, verbose=0).history
    assert one == other
    assert_same(distiller.variables, loaded.variables)
    assert loaded.evaluate(steps(digits), verbose=0) == distiller.evaluate(steps(digits), verbose=0)


@pytest.mark.long
def test_checkpoints_and_early_stopping_on_a_fresh_distiller(digits, cross_entropy, tmp_path):
    distiller, _ = distiller_of(cross_entropy)
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True),
        keras.callbacks.BackupAndRestore(tmp_path / "backup"),
        keras.callbacks.EarlyStopping(
            "val_loss", mode="max", patience=1, restore_best_weights=True
        ),
    ]
    data = steps(digits)
    history = distiller.fit(
        data, validation_data=data, epochs=4, verbose=0, callbacks=callbacks
    ).history
    best = int(np.argmax(history["val_loss"])) + 1
    whole = keras.models.load_model(tmp_path / f"{best}.keras")
    assert_same(whole.get_weights(), distiller.get_weights())
    weights, _ = distiller_of(cross_entropy)
    weights.load_weights(tmp_path / f"{best}.weights.h5")
    assert_same(weights.get_weights(), distiller.get_weights())
    student = keras.models.clone_model(distiller.student)
    student.set_weights(distiller.student.get_weights())
    np.testing.assert_array_equal(
        student.predict(data, verbose=0), distiller.predict(data, verbose=0)
    )


SCRIPT = """
import json, os, signal, sys
import keras, numpy as np, tensorflow as tf
sys.path[:0] = {tests!r}
import test_resume
from sklearn.datasets import load_digits

def train(kill_at):
    keras.utils.set_random_seed(0)
    data = load_digits()
    digits = (data.images[..., None] / 16).astype("float32"), data.target
    distiller, _ = test_resume.distiller_of(keras.losses.SparseCategoricalCrossentropy(True))

    class Kill(keras.callbacks.Callback):
        batches = 0
        def on_train_batch_end(self, batch, logs=None):
            self.batches += 1
            if self.batches == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    distiller.fit(
        test_resume.steps(digits), epochs=4, verbose=0,
        callbacks=[keras.callbacks.BackupAndRestore(sys.argv[1]), Kill()],
    )
    np.savez(sys.argv[1] + ".npz", *distiller.get_weights())

def in_new_process(kill_at):
    # Of a process in which TensorFlow is imported, which takes seconds, but has not started.
    process = os.fork()
    if not process:
        train(kill_at)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

assert in_new_process(15) == -signal.SIGKILL
with open(sys.argv[1] + "/training_metadata.json") as file:
    assert json.load(file)["epoch"] == 2
assert not os.path.exists(sys.argv[1] + ".npz")
assert in_new_process(0) == 0
"""


@pytest.mark.usefixtures("optimized_graphs")
@pytest.mark.long
def test_a_killed_run_ends_with_the_same_weights(digits, cross_entropy, tmp_path):
    """Killed in the middle of the third epoch, and restarted."""
    script = tmp_path / "train.py"
    here = os.path.dirname(__file__)
    script.write_text(textwrap.dedent(SCRIPT.format(tests=[here, os.path.dirname(here)])))

    command = [sys.executable, script, tmp_path / "interrupted"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    keras.utils.set_random_seed(0)
    alone, _ = distiller_of(cross_entropy)
    alone.fit(steps(digits), epochs=4, verbose=0)
    interrupted = np.load(tmp_path / "interrupted.npz")
    assert_same([interrupted[name] for name in interrupted.files], alone.get_weights())


def test_a_layer_compared_with_the_only_output(dense, batch, tmp_path):
    """The teacher's `0` isn't loaded as the default, the student's place."""
    teacher = dense(9)
    match = keras_distill.Match(
        keras.losses.MeanSquaredError(), student="hidden", teacher=0, adapter="auto"
    )
    distiller = keras_distill.Distiller(dense(), teacher, match, alpha=0)
    distiller.compile(keras.optimizers.SGD(0.0))
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    loaded.teacher = teacher
    logs = [model.train_on_batch(batch[0], return_dict=True) for model in (distiller, loaded)]
    assert logs[0] == logs[1]
    assert logs[0]["loss"] > 0


def two_outputs(width):
    inputs = keras.Input((4,))
    h = layers.Dense(5, activation="tanh")(inputs)
    return keras.Model(
        inputs, {"a": layers.Dense(width, name="a")(h), "b": layers.Dense(width, name="b")(h)}
    )


@pytest.mark.long
@pytest.mark.parametrize(
    "kind", rest_is_long(["learned weights", "several outputs"], ["several outputs"])
)
def test_what_depends_on_the_teacher_goes_on(dense, batch, tmp_path, kind):
    x = batch[0]
    if kind == "learned weights":
        members = [dense(9), dense(7)]

        def teacher():
            return keras_distill.teachers.Ensemble(members, weights="learned")

        distiller = keras_distill.Distiller(dense(), teacher(), alpha=0)
    else:
        model = two_outputs(6)

        def teacher():
            return model

        match = keras_distill.Match(keras.losses.MeanSquaredError(), adapter="auto")
        distiller = keras_distill.Distiller(two_outputs(3), model, match, alpha=0)
    distiller.compile(keras.optimizers.Adam(0.1))
    distiller.fit(x, epochs=3, verbose=0, shuffle=False)
    path = tmp_path / "distiller.keras"
    distiller.save(path)
    # A loaded one is saved with all it has, too, before it has a teacher.
    keras.models.load_model(path).save(path)
    loaded = keras.models.load_model(path)
    loaded.teacher = teacher()
    one, other = (
        model.fit(x, epochs=2, verbose=0, shuffle=False).history for model in (distiller, loaded)
    )
    assert one == other
    assert_same(distiller.variables, loaded.variables)
    assert_same(distiller.optimizer.variables, loaded.optimizer.variables)


def test_adapters_to_another_teacher_need_compile(dense, batch, tmp_path):
    x = batch[0]
    tap = keras_distill.Match(keras.losses.MeanSquaredError(), student="hidden", adapter="auto")
    distiller = keras_distill.Distiller(dense(), dense(9), tap, alpha=0)
    distiller.compile("adam")
    distiller.fit(x, verbose=0)
    distiller.teacher = teacher = dense(11)
    with pytest.raises(ValueError, match=r"doesn't know .*mean_squared_error_adapter.*`compile`"):
        distiller.fit(x, verbose=0)
    distiller.compile("adam")
    ours, theirs = (
        keras.Model(model.inputs, model.get_layer("hidden").output)(x)
        for model in (distiller.student, teacher)
    )
    expected = np.square(np.asarray(distiller.adapters[0](ours)) - theirs).mean()
    losses = distiller.fit(x, batch_size=32, verbose=0).history["loss"]
    assert losses == [pytest.approx(expected, rel=1e-5)]
    assert [adapter.output_shape for adapter in distiller.adapters] == [(None, 11)]
    assert len(distiller.trainable_variables) == 4 + 2
