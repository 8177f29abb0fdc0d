"""Weights, class weights and masks count in both terms; regularizers and `add_loss` count once."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from sweeps import rest_is_long

import keras_distill
from keras_distill.losses import SoftTargets


def logs_of(distiller, *args, **kwargs):
    return distiller.train_on_batch(*args, return_dict=True, **kwargs)


def test_class_weights_weigh_both_terms(dense, batch, cross_entropy, formulas):
    x, y, _ = batch
    student, teacher = dense(), dense(9)
    distiller = keras_distill.Distiller(student, teacher, SoftTargets(2.0), alpha=0.5)
    distiller.compile("sgd", cross_entropy)
    z, t = student.predict(x, verbose=0), teacher.predict(x, verbose=0)
    class_weight = {0: 0.0, 1: 2.0, 2: 0.5}
    w = np.array([class_weight[label] for label in y])
    logs = logs_of(distiller, x, y, class_weight=class_weight)
    np.testing.assert_allclose(
        logs["student_loss"], np.mean(w * formulas.labels_loss(y, z)), rtol=1e-5
    )
    np.testing.assert_allclose(
        logs["soft_targets"], np.mean(w * formulas.soft_targets(t, z, 2.0)), rtol=1e-5
    )


def test_rows_of_weight_zero_have_no_influence(dense, batch, cross_entropy):
    """Also not on relations between samples: the update is that of the other rows alone."""
    x, y, weight = batch
    weight[::4] = 0
    keep = weight > 0
    teacher, students = dense(9), [dense(), dense()]
    students[1].set_weights(students[0].get_weights())
    for student, rows in zip(students, (np.ones(32, bool), keep), strict=True):
        losses = [
            SoftTargets(),
            keras_distill.Match(relational(), student="hidden", teacher="hidden"),
        ]
        distiller = keras_distill.Distiller(student, teacher, losses)
        distiller.compile(keras.optimizers.SGD(0.1 * rows.sum() / 24), cross_entropy)
        spoiled = np.where(keep[:, None], x, 1e3).astype("float32")
        distiller.train_on_batch(spoiled[rows], y[rows], sample_weight=weight[rows])
    # Keras divides by the number of rows, weighted or not: the rates above make up for it.
    for a, b in zip(students[0].get_weights(), students[1].get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def relational():
    return keras_distill.losses.RelationalDistance()


def sequence_model(width, mask=True):
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(
        11,
        width,
        mask_zero=mask,
        name="embedding",
        embeddings_initializer=keras.initializers.RandomNormal(0, 1),
    )(inputs)
    x = layers.Dense(width, activation="tanh", name="hidden")(x)
    return keras.Model(
        inputs,
        layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(0, 3), name="scores")(x),
    )


def test_padded_steps_count_nowhere(rng, cross_entropy, formulas):
    tokens = rng.integers(1, 11, (5, 6))
    lengths = np.array([6, 2, 4, 1, 5])
    valid = np.arange(6) < lengths[:, None]
    tokens = tokens * valid
    labels = rng.integers(0, 3, (5, 6))
    student, teacher = sequence_model(4), sequence_model(8)
    hidden = keras_distill.Match(
        keras.losses.MeanSquaredError(), student="hidden", teacher="hidden", adapter="auto"
    )
    distiller = keras_distill.Distiller(student, teacher, [SoftTargets(2.0), hidden])
    distiller.compile("sgd", cross_entropy)
    z, t = student.predict(tokens, verbose=0), teacher.predict(tokens, verbose=0)
    logs = logs_of(distiller, tokens, labels)
    soft = formulas.soft_targets(t, z, 2.0)[valid].mean()
    np.testing.assert_allclose(logs["soft_targets"], soft, rtol=1e-5)
    hard = formulas.labels_loss(labels.reshape(-1), z.reshape(-1, 3)).reshape(5, 6)
    np.testing.assert_allclose(logs["student_loss"], hard[valid].mean(), rtol=1e-5)


@pytest.mark.parametrize("place", rest_is_long(["outputs", "steps", "vector"], ["vector"]))
def test_a_text_without_words_changes_nothing(rng, place):
    """Nor does it make a weight NaN, as the mean of no words would."""
    tokens = rng.integers(1, 11, (4, 6)) * (np.arange(6) < np.array([6, 2, 4, 5])[:, None])
    inputs = keras.Input((6,), dtype="int32")
    vector = layers.Dense(8, name="vector")(layers.Flatten()(layers.Embedding(11, 2)(inputs)))
    pooled = keras.Model(inputs, layers.Reshape((6, 3))(layers.Dense(18)(vector)))
    mse = keras.losses.MeanSquaredError()
    teacher, losses = {
        "outputs": (sequence_model(8), SoftTargets()),
        "steps": (sequence_model(8), keras_distill.Match(mse, student="hidden", adapter="auto")),
        "vector": (pooled, keras_distill.Match(mse, "hidden", "vector", adapter="auto")),
    }[place]
    student, other = sequence_model(4), sequence_model(4)
    other.set_weights(student.get_weights())
    weights = []
    for model, texts in ((student, tokens), (other, np.insert(tokens, 2, 0, axis=0))):
        keras.utils.set_random_seed(0)  # Of the adapters.
        distiller = keras_distill.Distiller(model, teacher, losses_anew(losses), alpha=0)
        distiller.compile(keras.optimizers.SGD(0.1))
        distiller.train_on_batch(texts)
        weights.append(distiller.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def losses_anew(losses):
    return type(losses).from_config(losses.get_config())


def test_padding_longer_changes_nothing(rng, cross_entropy):
    """The same tokens, padded to a greater length, give the same losses."""
    tokens = rng.integers(1, 11, (5, 4))
    short = np.pad(tokens, ((0, 0), (0, 2)))
    inputs = keras.Input((None,), dtype="int32")

    def model(width):
        x = layers.Embedding(11, width, mask_zero=True)(inputs)
        x = layers.Dense(width, activation="tanh", name="hidden")(x)
        return keras.Model(inputs, layers.Dense(3)(x))

    losses = [
        SoftTargets(),
        keras_distill.Match(
            keras.losses.MeanSquaredError(), student="hidden", teacher="hidden", adapter="auto"
        ),
    ]
    distiller = keras_distill.Distiller(model(4), model(8), losses, alpha=0)
    distiller.compile(keras.optimizers.SGD(0.0))
    a, b = logs_of(distiller, short[:, :5]), logs_of(distiller, short)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-6)


def test_weights_per_step_weigh_both_terms(rng, cross_entropy, formulas):
    tokens, labels = rng.integers(1, 11, (5, 6)), rng.integers(0, 3, (5, 6))
    student, teacher = sequence_model(4, mask=False), sequence_model(8, mask=False)
    weight = rng.uniform(0, 1, (5, 6)).astype("float32")
    distiller = keras_distill.Distiller(student, teacher, SoftTargets(2.0))
    distiller.compile("sgd", cross_entropy)
    z, t = student.predict(tokens, verbose=0), teacher.predict(tokens, verbose=0)
    logs = logs_of(distiller, tokens, labels, sample_weight=weight)
    soft = np.mean(weight * formulas.soft_targets(t, z, 2.0))
    np.testing.assert_allclose(logs["soft_targets"], soft, rtol=1e-5)
    hard = formulas.labels_loss(labels.reshape(-1), z.reshape(-1, 3)).reshape(5, 6)
    np.testing.assert_allclose(logs["student_loss"], np.mean(weight * hard), rtol=1e-5)


def test_a_teacher_that_sees_ahead_answers_later(rng, cross_entropy, formulas):
    """Its answers are shifted by the student's latency; steps without one have weight 0."""
    frames = keras.Input((9, 4))
    both = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(frames)
    ahead = keras.Model(frames, layers.Dense(3)(both))
    latency = 2
    answers = layers.Cropping1D((0, latency))(ahead(frames))
    teacher = keras.Model(frames, layers.ZeroPadding1D((latency, 0))(answers))
    causal = layers.Conv1D(6, 3, padding="causal", activation="relu")(frames)
    student = keras.Model(frames, layers.Dense(3)(causal))
    distiller = keras_distill.Distiller(student, teacher, SoftTargets(2.0), alpha=0.5)
    distiller.compile("sgd", cross_entropy)
    x, y = rng.normal(size=(5, 9, 4)).astype("float32"), rng.integers(0, 3, (5, 9))
    heard = (np.arange(9) >= latency) & (np.arange(9) < np.array([9, 3, 5, 9, 2])[:, None])
    z, t = student.predict(x, verbose=0), ahead.predict(x, verbose=0)
    logs = logs_of(distiller, x, y, sample_weight=heard.astype("float32"))
    each = formulas.soft_targets(np.roll(t, latency, axis=1), z, 2.0)
    np.testing.assert_allclose(logs["soft_targets"], (heard * each).mean(), rtol=1e-5)


def test_weights_per_sample_hold_for_all_steps(rng, formulas):
    """Where batch and steps have the same size, Keras itself would weigh along the steps."""
    tokens = rng.integers(1, 11, (6, 6))
    student, teacher = sequence_model(4, mask=False), sequence_model(8, mask=False)
    weight = rng.uniform(0, 1, 6).astype("float32")
    distiller = keras_distill.Distiller(student, teacher, SoftTargets(2.0), alpha=0)
    distiller.compile("sgd")
    z, t = student.predict(tokens, verbose=0), teacher.predict(tokens, verbose=0)
    logs = logs_of(distiller, tokens, sample_weight=weight)
    soft = np.mean(weight[:, None] * formulas.soft_targets(t, z, 2.0))
    np.testing.assert_allclose(logs["soft_targets"], soft, rtol=1e-5)


@keras.saving.register_keras_serializable("keras_distill_tests")
class Penalty(layers.Layer):
    """Adds the mean square of what it sees to the loss."""

    def call(self, inputs):
        self.add_loss(ops.mean(ops.square(inputs)))
        return inputs


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_regularizers_and_added_losses_count_once(dense, batch, cross_entropy, alpha):
    x, y, _ = batch

    def model(factor):
        inputs = keras.Input((4,))
        h = layers.Dense(5, name="h", kernel_regularizer=keras.regularizers.L2(factor))(inputs)
        return keras.Model(inputs, layers.Dense(3)(Penalty()(h)))

    student, teacher = model(0.5), model(50.0)
    adapter = layers.Dense(5, kernel_regularizer=keras.regularizers.L1(0.25), name="adapter")
    tap = keras_distill.Match(keras.losses.MeanSquaredError(), student="h", adapter=adapter)
    distiller = keras_distill.Distiller(student, teacher, [SoftTargets(), tap], alpha)
    distiller.compile("sgd", cross_entropy)
    h = keras.Model(student.inputs, student.get_layer("h").output).predict(x, verbose=0)
    own = (
        0.5 * np.square(student.get_layer("h").kernel).sum()
        + np.square(h).mean()
        + 0.25 * np.abs(adapter.kernel).sum()
    )
    logs = logs_of(distiller, x, y)
    rest = alpha * logs["student_loss"]
    rest += (1 - alpha) * (logs["soft_targets"] + logs["mean_squared_error"])
    np.testing.assert_allclose(logs["loss"] - rest, own, rtol=1e-4)


def test_weights_without_labels_are_refused(dense, batch, cross_entropy):
    """Keras leaves them out in silence."""
    x, y, weight = batch
    distiller = keras_distill.Distiller(dense(), dense(9), alpha=0.0, missing_label=-1)
    distiller.compile("sgd", cross_entropy)
    with pytest.raises(ValueError, match="`sample_weight` where there is no `y`. Give labels"):
        distiller.fit(x, sample_weight=weight, verbose=0)
    unknown = np.full(len(y), -1)
    with pytest.warns(UserWarning, match="missing"):
        distiller.fit(x, unknown, sample_weight=weight, verbose=0)
