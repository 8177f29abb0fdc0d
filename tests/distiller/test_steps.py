"""A step is traced once, and is Keras' own for whatever data `fit` takes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sweeps import rest_is_long

import keras_distill

SIZE = 10  # Of 32 samples: the last batch is shorter.


class Counted(keras_distill.Distiller):
    """Counts how often Python runs its step: once a trace, or once a batch where it is eager."""

    runs = 0

    def train_step(self, data):
        type(self).runs += 1
        return super().train_step(data)


@pytest.fixture
def counted(dense, cross_entropy, monkeypatch):
    monkeypatch.setattr(Counted, "runs", 0)

    def build(**options):
        keras.utils.set_random_seed(0)
        distiller = Counted(dense(), dense(9), alpha=0.5)
        distiller.compile("adam", cross_entropy, **options)
        return distiller

    return build


@pytest.mark.parametrize(
    ("metrics", "jit_compile"),
    [
        pytest.param(["accuracy"], True, marks=pytest.mark.long),
        (["accuracy"], False),
        (None, False),
        pytest.param(None, True, marks=pytest.mark.nightly),
    ],
)
def test_traced_once(counted, batch, metrics, jit_compile):
    """Variables made inside a traced function would have both models traced a second time."""
    x, y, weight = batch
    distiller = counted(metrics=metrics, weighted_metrics=metrics, jit_compile=jit_compile)
    distiller.fit(x, y, sample_weight=weight, batch_size=SIZE, epochs=2, verbose=0)
    distiller.fit(x, y, sample_weight=weight, batch_size=SIZE // 2, verbose=0)
    assert Counted.runs == 1


def parts(*arrays):
    for i in range(0, 32, SIZE):
        yield tuple(None if array is None else array[i : i + SIZE] for array in arrays)


DATA = {
    "arrays": lambda x, y, w: {"x": x, "y": y, "sample_weight": w, "batch_size": SIZE},
    "dataset": lambda *xyw: {"x": tf.data.Dataset.from_tensor_slices(xyw).batch(SIZE)},
    "generator": lambda *xyw: {"x": parts(*xyw)},
    "generator without weights": lambda x, y, w: {"x": parts(x, y, None)},
    "dataset without weights": lambda x, y, w: {
        "x": tf.data.Dataset.from_tensor_slices((x, y)).batch(SIZE).map(lambda x, y: (x, y, None))
    },
}


@pytest.mark.parametrize("kind", rest_is_long(list(DATA), ["arrays"]))
def test_steps_are_those_of_keras(counted, batch, kind):
    ours, keras_own = (counted(metrics=["accuracy"], jit_compile=False) for _ in range(2))
    keras_own.make_train_function()
    keras_own.train_function = keras_own.train_function.function
    logs = [
        model.fit(**DATA[kind](*batch), shuffle=False, verbose=0).history
        for model in (ours, keras_own)
    ]
    assert logs[0] == logs[1]
    for a, b in zip(ours.variables, keras_own.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_data_are_traced_anew(counted, batch):
    x, y, _ = batch
    distiller = counted()
    for number, labels in enumerate((y.astype("uint8"), y.astype("int32")), 1):
        distiller.fit(x, labels, verbose=0)
        assert Counted.runs == number
    assert int(distiller.optimizer.iterations) == 2


@pytest.mark.parametrize("where", ["compile", "everywhere"])
def test_eager(counted, batch, where):
    x, y, _ = batch
    try:
        tf.config.run_functions_eagerly(where == "everywhere")
        distiller = counted(run_eagerly=where == "compile", jit_compile=False)
        distiller.fit(x, y, batch_size=SIZE, verbose=0)
    finally:
        tf.config.run_functions_eagerly(False)
    assert Counted.runs == 4
