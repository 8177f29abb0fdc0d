"""What an output means travels as a value: read from Keras once, and lost by no operation."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_distill import losses
from keras_distill.outputs import Mean, Output, as_outputs, logits_of_probabilities, values_of

LOGITS = np.random.default_rng(0).normal(0, 3, (5, 4)).astype("float32")


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_keras_made_is_recognized(graph, activation, dtype):
    found = []

    def look(z):
        found.append(Output.of(getattr(keras.activations, activation)(z)))
        return found[-1].logits

    z = tf.cast(LOGITS, dtype)
    logits = tf.function(look)(z) if graph else look(z)
    np.testing.assert_array_equal(tf.cast(logits, "float32"), tf.cast(z, "float32"))
    assert (found[0].activation, found[0].mask, found[0].mean) == (activation, None, None)
    assert (found[0].shape, found[0].dtype) == ((5, 4), z.dtype)


def test_saturated_probabilities_are_told_apart():
    z = tf.constant([[10.0, -10.0, -10.0], [-12.0, 12.0, -12.0]])
    for activation in ("softmax", "sigmoid"):
        assert Output.of(getattr(keras.activations, activation)(z)).activation == activation
    assert Output.of(keras.activations.sigmoid(tf.zeros((0, 3)))).activation == "softmax"


def test_of_other_tensors_nothing_is_claimed():
    for x in (tf.nn.softmax(LOGITS), LOGITS, 2 * keras.activations.softmax(LOGITS)):
        output = Output.of(x)
        assert (output.logits, output.activation, output.mask) == (None, None, None)
        assert output.logits_at() is output.values is x
    assert Output.of(output) is output


def test_a_captured_eager_tensor_is_read_inside_a_graph():
    probabilities = keras.activations.sigmoid(tf.constant(LOGITS))

    @tf.function
    def logits():
        output = Output.of(probabilities)
        assert output.activation == "sigmoid"
        return output.logits_at()

    np.testing.assert_array_equal(logits(), LOGITS)


def test_masks_are_read():
    embedded = layers.Embedding(5, 2, mask_zero=True)(np.array([[1, 2, 0]]))
    np.testing.assert_array_equal(Output.of(embedded).mask, [[True, True, False]])


def test_structures_are_kept_and_an_output_is_a_leaf():
    structure = {"b": LOGITS, "a": [LOGITS + 1, (LOGITS + 2,)]}
    outputs = as_outputs(structure)
    assert list(outputs) == ["b", "a"]
    assert all(isinstance(leaf, Output) for leaf in keras.tree.flatten(outputs))
    assert as_outputs(outputs)["b"] is outputs["b"]
    assert values_of(outputs)["b"] is LOGITS
    keras.tree.assert_same_structure(values_of(outputs), structure)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_mean_is_taken_of_the_probabilities_at_the_temperature(activation, temperature):
    function = getattr(keras.activations, activation)
    members = tuple(
        tf.constant(LOGITS + shift * np.arange(4, dtype="float32")) for shift in (-1, 0.5, 2)
    )
    weights = (0.5, 0.2, 0.3)
    mean = Output(tf.zeros((5, 4)), activation=activation, mean=Mean(members, weights))
    want = sum(w * function(z / temperature) for w, z in zip(weights, members, strict=True))
    got = function(mean.logits_at(temperature) / temperature)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
    assert mean.logits_at() is mean.values


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_give_their_logits_back(activation):
    function = getattr(keras.activations, activation)
    probabilities = function(tf.constant(LOGITS))
    logits = logits_of_probabilities(probabilities, activation)
    np.testing.assert_allclose(function(logits), probabilities, rtol=1e-5)


def test_losses_take_outputs_and_tensors_alike():
    """Without a Distiller a loss sees tensors; the logits behind a softmax count in both."""
    teacher, student = tf.constant(LOGITS), tf.constant(LOGITS[::-1])
    loss = losses.SoftTargets(2.0)
    want = float(loss(teacher, student))
    p, q = keras.activations.softmax(teacher), keras.activations.softmax(student)
    for y_true, y_pred in (
        (p, q),
        (Output.of(p), Output.of(q)),
        (Output.from_logits(teacher, "softmax"), student),
        # The values themselves say nothing here.
        (Output(tf.zeros((5, 4)), logits=teacher, activation="softmax"), Output(student)),
    ):
        assert float(loss(y_true, y_pred)) == want
    mse = losses.Hint()
    assert float(mse(Output.of(p), Output.of(q))) == float(mse(np.array(p), np.array(q)))


def test_a_loss_leaves_nothing_on_the_tensors():
    probabilities = keras.activations.softmax(tf.constant(LOGITS))
    before = set(vars(probabilities))
    losses.SoftTargets()(probabilities, probabilities)
    assert set(vars(probabilities)) == before
