"""A loss computed in chunks equals the plain one in training, and never holds all logits."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sweeps import rest_is_long

import keras_distill
from keras_distill import losses, teachers
from keras_distill.losses import Chunked, SoftTargets
from keras_distill.outputs import Output
from keras_distill.taps import run

WORDS = 23


def language_model(width, seed, tied=False, mask=True, activation=None):
    tokens = keras.Input((None,), dtype="int32")
    embedding = layers.ReversibleEmbedding(WORDS, width, tie_weights=tied, mask_zero=mask)
    x = layers.Dense(width, activation="tanh")(embedding(tokens))
    if tied:
        model = keras.Model(tokens, embedding(x, reverse=True))
    else:
        model = keras.Model(tokens, layers.Dense(WORDS, activation, name="logits")(x))
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


@pytest.fixture(scope="module")
def sentences():
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, WORDS, (12, 9))
    for row, length in enumerate(rng.integers(3, 9, 12)):
        tokens[row, length:] = 0
    return tokens.astype("int32")


def trained(loss, student, teacher, x, y=None, weights=None, compile_loss=None, alpha=0.0):
    distiller = keras_distill.Distiller(student, teacher, loss, alpha=alpha)
    distiller.compile(keras.optimizers.SGD(0.5), loss=compile_loss, jit_compile=False)
    if weights is not None and y is None:
        y = np.zeros_like(weights)  # Keras drops weights where there are no labels.
    history = distiller.fit(x, y, sample_weight=weights, batch_size=6, epochs=2, verbose=0)
    return history.history["loss"], student.get_weights()


def assert_same_training(one, other):
    np.testing.assert_allclose(one[0], other[0], rtol=1e-5)
    for a, b in zip(one[1], other[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", rest_is_long([False, True], [True]))
def test_training_is_that_of_the_plain_loss(sentences, tied):
    """With padding, weights per position, and a teacher of another width."""
    teacher = language_model(16, 1)
    weights = np.random.default_rng(1).uniform(0, 2, sentences.shape).astype("float32")
    results = [
        trained(loss, language_model(8, 0, tied), teacher, sentences, weights=weights)
        for loss in (SoftTargets(2.0), Chunked(SoftTargets(2.0), positions=10))
    ]
    assert_same_training(*results)


def test_padding_counts_for_nothing(sentences):
    student, teacher = language_model(8, 0), language_model(16, 1)
    ours, theirs = (run(model, (), sentences, "student")[0] for model in (student, teacher))
    p, q = (tf.nn.log_softmax(x.values).numpy() for x in (theirs, ours))
    divergence = (np.exp(p) * (p - q)).sum(-1)[sentences != 0].mean()
    for loss in (SoftTargets(1.0), Chunked(positions=10)):
        np.testing.assert_allclose(loss(theirs, ours), divergence, rtol=1e-5)


@pytest.mark.long
def test_labels_in_the_same_chunks(sentences):
    """`label_weight` is `alpha` with the cross-entropy of `compile`."""
    teacher, labels = language_model(16, 1), np.roll(sentences, -1, axis=1)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    plain = trained(
        SoftTargets(2.0), language_model(8, 0), teacher, sentences, labels, None, cross_entropy, 0.3
    )
    chunked = trained(
        Chunked(SoftTargets(2.0), positions=7, label_weight=0.3),
        *(language_model(8, 0), teacher, sentences, labels),
    )
    assert_same_training(plain, chunked)


def test_labels_that_name_no_class_teach_nothing():
    """Language models mark what isn't to be learned by -100, which would count from the end."""
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 2, 3, WORDS)).astype("float32")
    loss = Chunked(SoftTargets(1.0), positions=2, label_weight=1.0, reduction=None)
    labels = np.array([[3, -100, WORDS], [0, -1, WORDS - 1]])
    log_p = student - np.log(np.exp(student).sum(-1, keepdims=True))
    known = (labels >= 0) & (labels < WORDS)
    each = -np.take_along_axis(log_p, np.where(known, labels, 0)[..., None], -1)[..., 0]
    for given in (labels, labels[..., None]):
        got = loss((teacher, given), student)
        np.testing.assert_allclose(got, np.where(known, each, 0), rtol=1e-5)
    with pytest.raises(ValueError, match="class numbers, one for each position"):
        loss((teacher, student), student)


class Hidden(keras.Model):
    """A projection inside, whose result is gone once the output is computed."""

    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(WORDS)

    def call(self, x):
        return keras.ops.tanh(self.inner(x)) + 1


def test_only_what_a_projection_returned_is_taken_apart():
    model, x = Hidden(), np.ones((2, 3, 4), "float32")
    for _ in range(20):
        outputs, _ = run(model, [], x, "student")
        assert getattr(outputs, "factors", None) is None


def test_a_model_that_ends_in_softmax(sentences):
    results = [
        trained(
            loss,
            language_model(8, 0, activation="softmax"),
            language_model(16, 1, activation="softmax"),
            sentences,
        )
        for loss in (SoftTargets(1.0), Chunked(positions=10))
    ]
    assert_same_training(*results)


def test_float16_hidden_states():
    """Logits are computed in the layer's dtype, compared in the loss'."""
    keras.utils.set_random_seed(0)
    head = layers.Dense(WORDS, dtype="mixed_float16")
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float16")
    model = keras.Sequential([keras.Input((5, 4), dtype="float16"), head])
    outputs, _ = run(model, (), x, "student")
    want = SoftTargets(1.0)(tf.zeros((2, 5, WORDS)), outputs.values)
    np.testing.assert_allclose(Chunked()(tf.zeros((2, 5, WORDS)), outputs), want, rtol=1e-3)


def largest_tensor(loss, positions, words=32000, width=4):
    """Elements of the largest tensor in the compiled program of a step, by its shape."""
    rng = np.random.default_rng(0)
    head, other = (layers.Dense(words) for _ in range(2))
    student, teacher = (keras.Sequential([keras.Input((8, width)), x]) for x in (head, other))

    @tf.function(jit_compile=True)
    def step(hidden):
        theirs, _ = run(teacher, (), hidden, "teacher")
        with tf.GradientTape() as tape:
            ours, _ = run(student, (), hidden, "student")
            value = loss(theirs, ours)
        return tape.gradient(value, head.trainable_variables)

    hidden = tf.constant(rng.normal(size=(positions // 8, 8, width)), "float32")
    program = step.experimental_get_compiler_ir(hidden)(stage="optimized_hlo")
    shapes = re.findall(r"\b(?:f32|s32|pred)\[([\d,]+)\]", program)
    return max(np.prod([int(size) for size in shape.split(",")]) for shape in set(shapes))


@pytest.mark.long
def test_no_tensor_grows_with_positions_times_vocabulary():
    """At 32,000 words, the largest tensors are a chunk's logits and the embedding."""
    assert largest_tensor(SoftTargets(1.0), 128) == 128 * 32000
    assert largest_tensor(Chunked(positions=8), 128) == 8 * 32000


@pytest.mark.long
def test_stored_answers_of_the_most_likely_words(tmp_path, sentences):
    """The rest of the vocabulary is filled in chunk by chunk, with the tail's mass."""
    teacher = language_model(16, 1, mask=False)
    stored = teachers.store(teacher, sentences, tmp_path, top_k=5, dtype="float32", verbose=0)
    assert stored.layout.record["output/values"].shape == (9, 5)
    data = stored.attach(sentences).batch(6)
    answers = next(iter(data))[0]
    output = stored.answer(answers)[0]
    p = tf.nn.softmax(teacher(sentences[:6]))
    kept = tf.sort(p, direction="DESCENDING")[..., :5]
    got = tf.nn.softmax(output.factors.logits(output.factors.rows, ()))
    np.testing.assert_allclose(tf.sort(got, direction="DESCENDING")[..., :5], kept, rtol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(got, -1), 1, rtol=1e-5)
    results = [
        trained(loss, language_model(8, 0), stored, data)
        for loss in (SoftTargets(1.0), Chunked(positions=10))
    ]
    assert_same_training(*results)


def test_a_saved_one_is_the_same():
    loss = Chunked(losses.DKD(beta=4.0), positions=7, label_weight=0.25, reduction="sum")
    loaded = Chunked.from_config(loss.get_config())
    assert (loaded.positions, loaded.label_weight, loaded.reduction) == (7, 0.25, "sum")
    assert loaded.name == "dkd"
    assert float(loaded.loss.beta) == 4.0


def test_what_it_refuses():
    with pytest.raises(ValueError, match="compares the logits of each position by itself"):
        Chunked(losses.DIST())
    with pytest.raises(TypeError, match="`Chunked` takes a loss on logits"):
        Chunked(keras.losses.MeanSquaredError())
    schedule = keras.optimizers.schedules.ExponentialDecay(4.0, 10, 0.5)
    with pytest.raises(ValueError, match="give `temperature` a number"):
        Chunked(SoftTargets(schedule))
    with pytest.raises(ValueError, match="whole number of at least 1. Received: positions=0"):
        Chunked(positions=0)
    logits = tf.zeros((2, 3, 4))
    with pytest.raises(ValueError, match="a model ends in a sigmoid"):
        Chunked(losses.DKD(), label_weight=0)(
            (logits, tf.zeros((2, 3))), Output(logits, activation="sigmoid")
        )
    with pytest.raises(ValueError, match="compares values of one shape"):
        Chunked()(tf.zeros((2, 3, 5)), logits)
