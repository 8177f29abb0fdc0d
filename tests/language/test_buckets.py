"""Stored answers stay with their tokens: shuffled, put into buckets, and cut."""

import numpy as np
import pytest
import tensorflow as tf

from keras_distill import losses, teachers
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
    inputs = data.map(lambda x, _: (x,))
    for (batch,) in bucketed(inputs, [4], 5, tokens="source"):
        np.testing.assert_array_equal(batch.inputs["target"], target[batch.keys.numpy()])
    # The labels are the target's, which isn't named.
    with pytest.raises(tf.errors.InvalidArgumentError, match="Name it in `tokens`, too"):
        list(bucketed(data, [4], 5, tokens="source"))
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


@pytest.mark.parametrize("length", [4, 7])
def test_classes_are_no_positions(tokens, length):
    """Where there are as many as tokens: labels of the whole example lose none."""
    classes = np.arange(30) % 8
    rows = np.eye(8, dtype="float32")[classes]
    data = teachers.keyed(tf.data.Dataset.from_tensor_slices((tokens, rows, np.ones(30))))
    lengths = set()
    for x, y, _ in bucketed(data, [length], 5):
        lengths.add(x.inputs.shape[1])
        np.testing.assert_array_equal(y, rows[x.keys.numpy()])
    assert lengths == {length, 8}
    # Integers are taken for the classes of tokens: nothing but padding is cut off.
    data = tf.data.Dataset.from_tensor_slices((tokens, rows.astype("int32")))
    with pytest.raises(tf.errors.InvalidArgumentError, match="Of the whole example. Make them flo"):
        list(bucketed(data, [length], 5))


@pytest.mark.parametrize("padding", [0, -100])
def test_labels_of_tokens_in_every_form(tokens, padding):
    """Integers; truth values; floats with an axis of classes, or of 1, or with weights."""
    is_token = tokens != 0
    y = {
        "tags": np.where(is_token, 9 - tokens, padding),
        "marks": tokens > 3,
        "soft": np.eye(8, dtype="float32")[tokens],
        "level": np.where(is_token, tokens, padding)[..., None].astype("float32"),
        "value": tokens.astype("float32"),
        "kind": np.eye(8, dtype="float32")[np.arange(30) % 8],
    }
    each = {name: np.ones(30, "float32") for name in y} | {"value": is_token.astype("float32")}
    data = teachers.keyed(tf.data.Dataset.from_tensor_slices((tokens, y, each)))
    cut = 0
    for x, labels, weights in bucketed(data, [4], 5):
        rows, length = x.keys.numpy(), x.inputs.shape[1]
        cut += length == 4
        for name, label in labels.items():
            whole = y[name][rows]
            np.testing.assert_array_equal(label, whole if name == "kind" else whole[:, :length])
        np.testing.assert_array_equal(weights["value"], labels["value"] != 0)
        assert weights["kind"].shape == rows.shape
    assert cut


@pytest.mark.parametrize("top_k", [None, 8])
def test_answers_of_classifiers_stay_whole(tokens, tmp_path, top_k):
    """Of as many classes, or of as many of the most likely ones, as there are tokens."""
    table = np.random.default_rng(1).normal(size=(7, 8 if top_k is None else 9)).astype("float32")

    def teacher(x):
        return {"whole": tf.reduce_mean(tf.gather(table, x), 1), "each": tf.gather(table, x)}

    stored = teachers.store(
        teacher, tokens, tmp_path, top_k=top_k and {"whole": 8, "each": 3}, verbose=0
    )
    arrays = teachers.Arrays({n: np.asarray(y) for n, y in teacher(tokens).items()})
    for given in (stored, arrays):
        cut = 0
        for (x,) in bucketed(
            given.attach(teachers.keyed(tf.data.Dataset.from_tensor_slices(tokens))), [4], 5
        ):
            length = x.inputs.shape[1]
            cut += length == 4
            found = given.answer(x)[0]
            values = {n: getattr(y, "values", y) for n, y in found.items()}
            want = teacher(tokens[x.keys.numpy()])
            assert values["each"].shape == (len(x.keys), length, table.shape[1])
            np.testing.assert_allclose(values["whole"], want["whole"], atol=1e-2)
        assert cut


def test_masks_may_be_bools(tokens):
    data = tf.data.Dataset.from_tensor_slices({"text": tokens, "mask": tokens != 0})
    for x in bucketed(data, [4], 5, tokens=["text", "mask"]):
        np.testing.assert_array_equal(x["mask"], x["text"] != 0)


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
    with pytest.raises(ValueError, match=r"of shape \(length,\).* shape \(8, 2\)"):
        bucketed(data.map(lambda x: tf.stack([x, x], 1)), [3], 4)
    named = tf.data.Dataset.from_tensor_slices({"a": tokens, "b": tokens[:, :4]})
    with pytest.raises(ValueError, match=r"tokens='text', inputs \['a', 'b'\]"):
        bucketed(named, [3], 4, tokens="text")
    with pytest.raises(ValueError, match=r"padded to one length .* \(8,\), \(4,\)"):
        bucketed(named, [3], 4, tokens=("a", "b"))


def shared_tail(z, kept):
    """Probabilities of which the `kept` most likely remain, and the tail is shared evenly."""
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    index = np.argsort(-z, -1)[..., :kept]
    head = np.take_along_axis(p, index, -1)
    mass = 1 - head.sum(-1, keepdims=True)
    shared = np.repeat(mass / (z.shape[-1] - kept), z.shape[-1], -1)
    np.put_along_axis(shared, index, head, -1)
    return p, shared, mass[..., 0]


@pytest.mark.parametrize(
    ("dtype", "close"),
    [pytest.param("float16", 1e-2, marks=pytest.mark.long), ("float32", 1e-5)],
)
def test_64_of_32000_words(dtype, close, tokens, tmp_path):
    """Of each token in its bucket, mass and loss are those of float64, near the loss on all."""
    rng = np.random.default_rng(1)
    table = (2.5 * rng.normal(size=(7, 32_000))).astype("float32")
    stored = teachers.store(
        lambda x: tf.gather(table, x), tokens, tmp_path, top_k=64, dtype=dtype, verbose=0
    )
    each = np.dtype(dtype).itemsize
    # 64 logits with their words' numbers, and the tail's; a signature of 8 bytes, 16 of framing.
    assert stored.bytes_per_example == 8 * (64 * (each + 2) + each) + 24

    weights = (tokens != 0).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((tokens, tokens, weights))
    lengths = set()
    for x, y, weight in bucketed(stored.attach(data).shuffle(30, seed=1), [3, 5], 4):
        lengths.add(y.shape[1])
        np.testing.assert_array_equal(x.inputs, y)
        z = table[y.numpy()].astype("float64")
        p, shared, mass = shared_tail(z, 64)
        answer = stored.answer(x)[0]
        values = answer.values.numpy().astype("float64")
        np.testing.assert_allclose(np.exp(values).sum(-1), np.exp(z).sum(-1), rtol=close)
        np.testing.assert_allclose(tf.nn.softmax(values), shared, rtol=2 * close)

        student = rng.normal(size=z.shape).astype("float32")
        log_q = tf.nn.log_softmax(student.astype("float64")).numpy()
        full, want = ((t * (np.log(t) - log_q)).sum(-1) for t in (p, shared))
        # What the tail can hide: how it is spread, and how the student differs within it.
        spread = np.log(32_000) + np.ptp(log_q, -1)
        assert (np.abs(full - want) <= mass * spread).all()
        want = (want * weight.numpy()).mean()
        for loss in (losses.SoftTargets(1.0), losses.Chunked(positions=4)):
            got = loss(answer, student, sample_weight=weight)
            np.testing.assert_allclose(got, want, rtol=close)
    assert lengths == {3, 5, 8}
