import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_distill import quantization
from keras_distill.evaluation import multiply_accumulates


def functional(shape, *stack, dtype="float32"):
    inputs = x = keras.Input(shape, dtype=dtype)
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    ("model", "by_hand"),
    [
        (lambda: functional((7,), layers.Dense(5)), 7 * 5),
        (lambda: functional((9, 4), layers.Dense(3)), 9 * 4 * 3),
        (lambda: functional((9, 9, 4), layers.Conv2D(6, 3)), 7 * 7 * 6 * 9 * 4),
        (lambda: functional((9, 9, 4), layers.Conv2D(6, 3, strides=2, padding="same")),
         5 * 5 * 6 * 9 * 4),
        (lambda: functional((9, 9, 4), layers.Conv2D(6, 3, groups=2)), 7 * 7 * 6 * 9 * 2),
        (lambda: functional((9, 9, 2), layers.Conv2D(3, 3, dilation_rate=2, padding="same")),
         9 * 9 * 3 * 9 * 2),
        (lambda: functional((9, 9, 4), layers.DepthwiseConv2D(3, depth_multiplier=2)),
         7 * 7 * 8 * 9),
        (lambda: functional((9, 9, 4), layers.DepthwiseConv2D(3, dilation_rate=2, padding="same")),
         9 * 9 * 4 * 9),
        (lambda: functional((9, 9, 4), layers.SeparableConv2D(6, 3)),
         7 * 7 * 4 * 9 + 7 * 7 * 4 * 6),
        (lambda: functional((9, 4), layers.SeparableConv1D(6, 3)), 7 * 4 * 3 + 7 * 4 * 6),
        (lambda: functional((9, 9, 4), layers.Conv2DTranspose(6, 3, strides=2)),
         9 * 9 * 4 * 9 * 6),
        (lambda: functional((9, 4), layers.Conv1DTranspose(6, 3, strides=2)), 9 * 4 * 3 * 6),
        (lambda: functional((9, 4), layers.Conv1D(6, 3)), 7 * 6 * 3 * 4),
        (lambda: functional((9, 4), layers.Conv1D(6, 3, padding="causal", dilation_rate=2)),
         9 * 6 * 3 * 4),
        (lambda: functional((5, 5, 5, 2), layers.Conv3D(3, 2)), 4**3 * 3 * 8 * 2),
        (lambda: functional((5, 3), layers.LSTM(4)), 5 * (3 * 16 + 4 * 16)),
        (lambda: functional((5, 3), layers.Bidirectional(layers.GRU(4))),
         2 * 5 * (3 * 12 + 4 * 12)),
        (lambda: functional((5, 3), layers.SimpleRNN(4, unroll=True)), 5 * (3 * 4 + 4 * 4)),
        (lambda: functional((5,), layers.Embedding(11, 3), layers.GlobalAveragePooling1D(),
                            dtype="int32"), 0),
        (lambda: functional((8,), layers.BatchNormalization(), layers.ReLU()), 0),
        (lambda: functional((6, 4), layers.EinsumDense("abc,cd->abd", (None, 5))), 6 * 4 * 5),
        # A nested model, called twice, runs twice.
        (lambda: functional((4,), *2 * [functional((4,), layers.Dense(4))]), 2 * 16),
    ],
)  # fmt: skip
def test_counts_as_by_hand(model, by_hand):
    assert multiply_accumulates(model()) == by_hand


def test_attention():
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 4)(inputs, inputs))
    projections, products = 4 * 6 * 8 * 8, 2 * 2 * 6 * 6 * 4
    assert multiply_accumulates(model) == projections + products


def test_operations_without_layers():
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, ops.matmul(inputs, ops.transpose(inputs, (0, 2, 1))))
    assert multiply_accumulates(model) == 6 * 6 * 8
    assert multiply_accumulates(
        lambda x: ops.einsum("...ij,...kj->...ik", x, x), np.zeros((1, 3, 5, 2), "float32")
    ) == 3 * 5 * 5 * 2  # fmt: skip


def test_subclassed_model_from_a_sample():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            return self.dense(x["a"]) + ops.matmul(x["b"], ops.ones((2, 3)))

    model = Net()
    batch = {"a": np.zeros((4, 5), "float32"), "b": np.zeros((4, 2), "float32")}
    model(batch)
    assert multiply_accumulates(model, batch) == 5 * 3 + 2 * 3


def test_open_sizes_need_a_sample():
    model = functional((None, 3), layers.LSTM(4))
    with pytest.raises(ValueError, match="Give a sample batch as `inputs`"):
        multiply_accumulates(model)
    assert multiply_accumulates(model, np.zeros((2, 5, 3))) == 5 * (3 * 16 + 4 * 16)


@pytest.mark.parametrize("reverse", [False, True])
def test_loops_of_scan(reverse):
    def scan(x):
        def step(state, row):
            return ops.matmul(state, ops.ones((4, 4))) + row, None

        return ops.scan(step, ops.zeros((1, 4)), ops.transpose(x, (1, 0, 2)), reverse=reverse)[0]

    assert multiply_accumulates(scan, np.zeros((2, 5, 4), "float32")) == 5 * 16


def test_quantize_aware_lstm_counts_as_the_float_one():
    model = functional((5, 3), layers.LSTM(4))
    aware = quantization.quantize_aware(model, calibration=np.ones((8, 5, 3), "float32"))
    assert multiply_accumulates(aware) == multiply_accumulates(model) == 5 * (3 * 16 + 4 * 16)


def test_counting_leaves_the_model_as_it_was():
    model = functional((4,), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(2))
    before = [np.copy(v) for v in model.variables]
    multiply_accumulates(model)
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_loop_that_depends_on_the_data_is_refused():
    def grow(x):
        return ops.while_loop(lambda y: ops.sum(y) < 10, lambda y: (ops.matmul(y, y),), (x,))[0]

    with pytest.raises(ValueError, match="depends on the data"):
        multiply_accumulates(grow, np.ones((1, 1), "float32"))


def test_recurrent_layers_on_gpus():
    def lstm(x):
        zeros = tf.zeros((1, 1, 4))
        weights = tf.zeros(3 * 16 + 4 * 16 + 2 * 16)
        return tf.raw_ops.CudnnRNNV3(
            input=x, input_h=zeros, input_c=zeros, params=weights, sequence_lengths=[5],
            rnn_mode="lstm", is_training=False,
        ).output  # fmt: skip

    batch = np.zeros((1, 5, 3), "float32")
    macs = multiply_accumulates(lambda x: lstm(tf.transpose(x, (1, 0, 2))), batch)
    assert macs == 5 * (3 * 16 + 4 * 16)
