"""Stored answers stay with their tokens: shuffled, put into buckets, and cut."""

import numpy as np
import pytest
import tensorflow as tf

from keras_distill import teachers
from keras_distill.language import bucketed


@pytest.fixture(scope="module")
def tokens():
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 7, (30, 8)).astype("int32")
    for row, length in enumerate(rng.integers(1, 9, 30)):
        tokens[row, length:] = 0
    return tokens


@pytest.mark.long
def test_top_k_answers_stay_aligned(causal, tokens, tmp_path):
    """Each position of each batch has the teacher's own answer to it, with the tail's mass."""
    teacher = causal(mask_zero=False)
    stored = teachers.store(teacher, tokens, tmp_path, top_k=3, dtype="float32", verbose=0)
    data = tf.data.Dataset.zip(
        tf.data.Dataset.from_tensor_slices(tokens), tf.data.Dataset.range(30)
    )
    data = data.map(lambda x, number: (x, number))
    batches = list(bucketed(stored.attach(data).shuffle(30, seed=1), [3, 5], 4))
    assert {x.inputs.shape[1] for x, _ in batches} == {3, 5, 8}
    numbers = np.concatenate([number for _, number in batches])
    assert sorted(numbers) == list(range(30))
    assert list(numbers) != list(range(30))
    for x, number in batches:
        length = x.inputs.shape[1]
        rows = tokens[number.numpy()]
        np.testing.assert_array_equal(x.inputs, rows[:, :length])
        assert not rows[:, length:].any(), "nothing but padding is cut"
        p = tf.nn.softmax(teacher(rows)).numpy()[:, :length]
        got = tf.nn.softmax(stored.answer(x)[0].values).numpy()
        kept = np.argsort(-p, -1)[..., :3]
        np.testing.assert_allclose(
            np.take_along_axis(got, kept, -1), np.take_along_axis(p, kept, -1), rtol=1e-5
        )
        np.testing.assert_allclose(got.sum(-1), 1, rtol=1e-5)


def test_labels_and_weights_are_cut_alike(tokens):
    weights = (tokens != 0).astype("float32")
    data = tf.data.Dataset.from_tensor_slices(({"text": tokens}, tokens, weights))
    for x, y, weight in bucketed(data, [4], 5, tokens="text"):
        np.testing.assert_array_equal(x["text"], y)
        np.testing.assert_array_equal(weight, y != 0)


def test_no_other_input_loses_words(tokens):
    """Beside a short source, a long target stays whole; of both, the longer one decides."""
    source, target = tokens, tokens[::-1]
    x = {"source": source, "target": target, "speaker": np.ones((30, 8), "float32")}
    data = teachers.keyed(tf.data.Dataset.from_tensor_slices((x, target)))
    for batch, _ in bucketed(data, [4], 5, tokens="source"):
        np.testing.assert_array_equal(batch.inputs["target"], target[batch.keys.numpy()])
    cut = 0
    for batch, y in bucketed(data, [4], 5, tokens=["source", "target"]):
        rows, length = batch.keys.numpy(), y.shape[1]
        cut += length == 4
        assert batch.inputs["speaker"].shape[1] == 8
        for name, whole in (("source", source), ("target", target)):
            np.testing.assert_array_equal(batch.inputs[name], whole[rows, :length])
            assert not whole[rows, length:].any()
        np.testing.assert_array_equal(y, target[rows, :length])
    assert cut


def test_elements_keep_their_form(tokens):
    """A tuple of one is one: Keras would take a `Keyed` for inputs, labels and weights."""
    data = tf.data.Dataset.from_tensor_slices(tokens)
    (x,) = next(iter(bucketed(teachers.keyed(data), [4], 5)))
    assert isinstance(x, teachers.Keyed)
    np.testing.assert_array_equal(x.inputs, tokens[x.keys.numpy(), : x.inputs.shape[1]])
    assert tf.is_tensor(next(iter(bucketed(data, [4], 5))))


def test_what_is_refused(tokens):
    data = tf.data.Dataset.from_tensor_slices(tokens)
    with pytest.raises(ValueError, match=r"`lengths` must ascend. Received: lengths=\[5, 3\]"):
        bucketed(data, [5, 3], 4)
    with pytest.raises(ValueError, match=r"Name the input .* \['a', 'b'\]"):
        bucketed(tf.data.Dataset.from_tensor_slices({"a": tokens, "b": tokens}), [3], 4)
    with pytest.raises(ValueError, match="padded to one length"):
        bucketed(data.batch(2).map(lambda x: x[0][: tf.shape(x)[0]]), [3], 4)
    named = tf.data.Dataset.from_tensor_slices({"a": tokens, "b": tokens[:, :4]})
    with pytest.raises(ValueError, match=r"tokens='text', inputs \['a', 'b'\]"):
        bucketed(named, [3], 4, tokens="text")
    with pytest.raises(ValueError, match=r"padded to one length .* \(8,\), \(4,\)"):
        bucketed(named, [3], 4, tokens=("a", "b"))
