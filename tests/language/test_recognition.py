"""Recognition of sequences: decoding, error rates, and a student that learns by CTC."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy import special

import keras_distill
from keras_distill import language, tflite


def frames_of(rows, classes=4):
    """Logits whose largest class in each frame is given."""
    return 5.0 * np.eye(classes)[np.array(rows)]


def test_repeats_are_merged_and_blanks_left_out():
    outputs = frames_of([[0, 1, 1, 0, 1, 2], [3, 3, 3, 3, 3, 1], [0, 0, 0, 0, 0, 0]])
    decoded = language.decode_ctc(outputs)
    assert [list(x) for x in decoded] == [[1, 1, 2], [3, 1], []]
    assert [list(x) for x in language.decode_ctc(outputs, [3, 5, 0])] == [[1], [3], []]
    of_probabilities = language.decode_ctc(special.softmax(outputs, -1))
    assert [list(x) for x in of_probabilities] == [[1, 1, 2], [3, 1], []]


def test_errors_are_counted_over_all_words():
    references = ["one two three four", "five", ""]
    hypotheses = ["one too three", "five six", ""]
    assert language.word_error_rate(hypotheses, references) == pytest.approx(3 / 5)
    assert language.word_error_rate(references, references) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: language.decode_ctc(np.zeros((2, 3))), "shape .samples, frames, classes."),
        (lambda: language.decode_ctc(np.zeros((2, 3, 4)), [1, 4]), "whole numbers from 0 to 3"),
        (lambda: language.decode_ctc(np.zeros((2, 3, 4)), [1]), "`lengths` must be 2 whole"),
        (lambda: language.word_error_rate(["a"], []), "one reference for each text"),
        (lambda: language.word_error_rate(["a"], [""]), "hold no words"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def recognizer(width):
    inputs = keras.Input((8, 3))
    x = layers.Conv1D(width, 3, padding="causal", activation="relu")(inputs)
    return keras.Model(inputs, layers.Dense(4, name="letters")(x))


@pytest.fixture
def utterances(rng):
    return rng.normal(size=(6, 8, 3)).astype("float32")


def test_labels_by_ctc_and_the_teacher_frame_by_frame(utterances, rng):
    """`fit` reports `0.3 CTC + 0.7 KL`, the frames beyond the end of a recording left out."""
    teacher, student = recognizer(16), recognizer(4)
    labels = np.array([[1, 2], [3, 0], [1, 0], [2, 2], [3, 1], [1, 3]])
    lengths = np.array([8, 6, 8, 7, 8, 8])
    mask = np.arange(8) < lengths[:, None]
    theirs, ours = (np.float64(m.predict(utterances, verbose=0)) for m in (teacher, student))
    log_p, log_q = special.log_softmax(theirs / 2, -1), special.log_softmax(ours / 2, -1)
    kl = 4 * np.sum(np.exp(log_p) * (log_p - log_q), -1)
    ctc = [_ctc(special.log_softmax(z, -1), y[y > 0]) for z, y in zip(ours, labels, strict=True)]

    soft = keras_distill.losses.SoftTargets(2.0)
    distiller = keras_distill.Distiller(student, teacher, soft, alpha=0.3)
    distiller.compile(keras.optimizers.SGD(0.0), keras.losses.CTC())
    history = distiller.fit(utterances, labels, batch_size=6, verbose=0).history
    assert history["student_loss"][0] == pytest.approx(np.mean(ctc), rel=1e-5)
    assert history["soft_targets"][0] == pytest.approx(kl.mean(), rel=1e-5)
    expected = 0.3 * np.mean(ctc) + 0.7 * kl.mean()
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)

    value = soft(tf.constant(theirs, "float32"), tf.constant(ours, "float32"), mask)
    assert float(value) == pytest.approx((kl * mask).sum() / kl.size, rel=1e-5)


def _ctc(log_p, tokens):
    """`-log` of the sum over all alignments, by the forward recursion of Graves et al. (2006)."""
    states = [0]
    for token in tokens:
        states += [int(token), 0]
    alpha = np.full(len(states), -np.inf)
    alpha[:2] = log_p[0, states[:2]]
    for frame in log_p[1:]:
        before = alpha.copy()
        for s, token in enumerate(states):
            ways = [before[s], *before[s - 1 : s]]
            if s > 1 and token not in (0, states[s - 2]):
                ways.append(before[s - 2])
            alpha[s] = special.logsumexp(ways) + frame[token]
    return -special.logsumexp(alpha[-2:])


@pytest.mark.long
def test_what_a_teacher_recognizes_are_labels(utterances):
    """And a stream of the student recognizes what the student does."""
    teacher, student = recognizer(16), recognizer(8)
    tokens = language.decode_ctc(teacher.predict(utterances, verbose=0))
    labels = keras.utils.pad_sequences(tokens, padding="post")
    assert [list(row[row > 0]) for row in labels] == [list(x) for x in tokens]
    student.compile(keras.optimizers.Adam(0.02), keras.losses.CTC())
    losses = student.fit(utterances, labels, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    heard = language.decode_ctc(student.predict(utterances, verbose=0))
    stream = tflite.convert(student, "micro", "float32", calibration=utterances, stream=1)
    streamed = language.decode_ctc(stream.predict(utterances))
    for expected, found in zip(heard, streamed, strict=True):
        np.testing.assert_array_equal(found, expected)
