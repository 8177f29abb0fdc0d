"""Replacing `layer.call` for a while: nested, in several threads, and undone."""

import threading

import keras
import numpy as np
import pytest
from keras import ops

from keras_distill import taps


@pytest.fixture
def layer():
    return keras.layers.Rescaling(2.0)


def times(factor):
    return lambda original, *args, **kwargs: factor * original(*args, **kwargs)


def test_blocks_nest(layer):
    x = ops.ones((1, 1))
    with taps.calling(layer, times(3)):
        with taps.calling(layer, lambda original, x: original(x) + 1), taps.capture([layer]) as got:
            assert float(layer(x)[0, 0]) == 7
        assert float(layer(x)[0, 0]) == 6
    assert float(layer(x)[0, 0]) == 2
    assert "call" not in vars(layer)
    assert [float(y[0, 0]) for y in got[id(layer)]] == [7]


def test_an_error_inside_leaves_the_layer_as_it_was(layer):
    def fail(original, x):
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"), taps.calling(layer, fail):
        layer(ops.ones((1, 1)))
    assert "call" not in vars(layer)
    assert float(layer(ops.ones((1, 1)))[0, 0]) == 2


def test_each_thread_has_its_own(layer):
    """Two threads replace the call of one layer at once; a third runs it as it is."""
    x = ops.ones((1, 1))
    together = threading.Barrier(3, timeout=60)
    results = {}

    def run(name, factor):
        def run_layer():
            together.wait()
            results[name] = [float(layer(x)[0, 0]) for _ in range(20)]
            together.wait()

        if factor is None:
            run_layer()
        else:
            with taps.calling(layer, times(factor)):
                run_layer()

    threads = [
        threading.Thread(target=run, args=(name, factor))
        for name, factor in (("three", 3), ("five", 5), ("plain", None))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {"three": [6.0] * 20, "five": [10.0] * 20, "plain": [2.0] * 20}
    assert "call" not in vars(layer)


def test_run_gives_outputs_and_features():
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.ReLU(name="b")]
    )
    x = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    outputs, (a, b) = taps.run(model, ["a", "b"], x, "student")
    np.testing.assert_array_equal(outputs, model(x))
    np.testing.assert_array_equal(b, outputs)
    np.testing.assert_array_equal(np.maximum(a, 0), outputs)


def test_a_layer_is_found_beside_operations_that_are_none():
    """A slice of a tensor is an operation without layers inside."""
    inner_input = keras.Input((3, 4))
    hidden = keras.layers.Dense(5, name="hidden")(inner_input)
    inner = keras.Model(inner_input, hidden[:, 0], name="inner")
    outer_input = keras.Input((3, 4))
    outer = keras.Model(outer_input, inner(outer_input)[:, :2])
    assert taps.resolve(outer, inner.get_layer("hidden"), "student") == "inner/hidden"
    with pytest.raises(ValueError, match="not part of the student"):
        taps.resolve(outer, keras.layers.Dense(1), "student")
