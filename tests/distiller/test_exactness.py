"""The loss is the formula, the step is the hand-written loop, and nothing runs twice."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sweeps import rest_is_long

import keras_distill
from keras_distill.losses import SoftTargets


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_loss_is_the_formula(dense, batch, cross_entropy, formulas, alpha):
    x, y, weight = batch
    student = dense(regularizer=keras.regularizers.L2(0.02))
    teacher = dense(9, regularizer=keras.regularizers.L2(7.0))
    hint = keras_distill.Match(
        keras.losses.MeanSquaredError(), student="scores", teacher="scores", weight=2.5
    )
    distiller = keras_distill.Distiller(student, teacher, [SoftTargets(3.0), hint], alpha)
    distiller.compile("sgd", cross_entropy)
    z, t = student.predict(x, verbose=0), teacher.predict(x, verbose=0)
    kernel = np.asarray(student.get_layer("hidden").kernel, "float64")
    logs = distiller.train_on_batch(x, y, sample_weight=weight, return_dict=True)

    labels = np.mean(weight * formulas.labels_loss(y, z))
    soft = np.mean(weight * formulas.soft_targets(t, z, 3.0))
    mse = np.mean(weight * ((t - z) ** 2).mean(-1))
    expected = alpha * labels + (1 - alpha) * (soft + 2.5 * mse) + 0.02 * (kernel**2).sum()
    np.testing.assert_allclose(logs["student_loss"], labels, rtol=1e-5)
    np.testing.assert_allclose(logs["soft_targets"], soft, rtol=1e-5)
    np.testing.assert_allclose(logs["mean_squared_error"], mse, rtol=1e-5)
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)


def convolutional(width):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(width, 3, name="maps", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.4, seed=3),
            layers.Dense(10),
        ]
    )


def test_ten_steps_of_fit_are_ten_steps_of_a_hand_written_loop(digits, cross_entropy):
    images, labels = digits[0][:160], digits[1][:160]
    teacher = convolutional(8)
    by_fit, by_hand = convolutional(4), convolutional(4)
    by_hand.set_weights(by_fit.get_weights())
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(16)

    distiller = keras_distill.Distiller(by_fit, teacher, SoftTargets(2.0), alpha=0.25)
    distiller.compile(keras.optimizers.Adam(0.01), cross_entropy)
    distiller.fit(data, epochs=1, verbose=0)

    optimizer = keras.optimizers.Adam(0.01)

    @tf.function
    def step(x, y):
        said = teacher(x, training=False)
        with tf.GradientTape() as tape:
            z = by_hand(x, training=True)
            p, log_q = tf.nn.softmax(said / 2), tf.nn.log_softmax(z / 2)
            kl = tf.reduce_sum(p * (tf.nn.log_softmax(said / 2) - log_q), -1)
            loss = 0.25 * cross_entropy(y, z) + 0.75 * 4 * tf.reduce_mean(kl)
        weights = by_hand.trainable_variables
        optimizer.apply(tape.gradient(loss, weights), weights)

    for x, y in data:
        step(x, y)
    assert int(optimizer.iterations) == 10
    for ours, theirs in zip(by_fit.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_formula(dense, batch, cross_entropy):
    x, y, _ = batch
    student, teacher = dense(), dense(9)
    distiller = keras_distill.Distiller(student, teacher, SoftTargets(3.0), alpha=0.3)
    distiller.compile("sgd", cross_entropy)
    distiller.build_for(x)
    said = distiller.ask_teacher(x)
    with tf.GradientTape(persistent=True) as tape:
        answer = distiller.run_student(x)
        ours = distiller.compute_losses(x, y, answer, said)["loss"]
        z = student(x, training=True)
        p = tf.nn.softmax(teacher(x, training=False) / 3)
        soft = -9 * tf.reduce_mean(tf.reduce_sum(p * tf.nn.log_softmax(z / 3), -1))
        hand = 0.3 * cross_entropy(y, z) + 0.7 * soft
    weights = student.trainable_variables
    for a, b in zip(tape.gradient(ours, weights), tape.gradient(hand, weights), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("run_eagerly", rest_is_long([False, True], [False]))
def test_each_model_runs_once_a_step_and_the_teacher_never_otherwise(
    digits, cross_entropy, counter, run_eagerly
):
    def counted(width):
        inputs = keras.Input((8, 8, 1))
        x = layers.Conv2D(width, 3, name="first")(counter(name="counter")(inputs))
        x = layers.BatchNormalization(momentum=0.5, name="norm")(x)
        x = layers.Conv2D(width, 3, name="second")(x)
        return keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))

    student, teacher = counted(3), counted(6)
    mse = keras.losses.MeanSquaredError
    losses = [
        SoftTargets(),
        keras_distill.Match(mse(name="a"), student="first", adapter="auto"),
        keras_distill.Match(mse(name="b"), student="second", adapter="auto"),
        keras_distill.Match(mse(name="c"), student="second", adapter="auto"),
    ]
    distiller = keras_distill.Distiller(student, teacher, losses)
    distiller.compile("sgd", cross_entropy, run_eagerly=run_eagerly)
    images, labels = digits[0][:48], digits[1][:48]
    distiller.fit(images, labels, batch_size=16, epochs=1, verbose=0)
    assert int(student.get_layer("counter").count) == 3
    assert int(teacher.get_layer("counter").count) == 3

    # One update of the statistics: moving = 0.5 * moving + 0.5 * batch.
    norm = student.get_layer("norm")
    before = np.asarray(norm.moving_mean)
    maps = np.asarray(student.get_layer("first")(images[:16]))
    distiller.train_on_batch(images[:16], labels[:16])
    expected = 0.5 * before + 0.5 * maps.mean((0, 1, 2))
    np.testing.assert_allclose(norm.moving_mean, expected, rtol=1e-4, atol=1e-6)

    student.get_layer("counter").count.assign(0)
    teacher_state = [np.asarray(v) for v in teacher.variables]
    student_state = student.get_layer("norm").get_weights()
    distiller.evaluate(images, labels, batch_size=16, verbose=0)
    distiller.predict(images, batch_size=16, verbose=0)
    assert int(student.get_layer("counter").count) == 6
    for before, after in zip(teacher_state, teacher.variables, strict=True):
        np.testing.assert_array_equal(before, after)
    for before, after in zip(student_state, norm.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_metrics_wait_for_labels(dense, batch):
    """Trained without labels, validated with them."""
    x, y, _ = batch
    distiller = keras_distill.Distiller(dense(), dense(9), alpha=0)
    distiller.compile("sgd", weighted_metrics=[keras.metrics.SparseCategoricalAccuracy("right")])
    history = distiller.fit(x, validation_data=(x, y), epochs=2, verbose=0).history
    assert set(history) == {"loss", "soft_targets", "val_right"}
    right = np.mean(distiller.predict(x, verbose=0).argmax(-1) == y)
    np.testing.assert_allclose(history["val_right"][-1], right, rtol=1e-6)


def test_dropout_masks_are_drawn_once_a_step(digits, cross_entropy):
    student, teacher = convolutional(3), convolutional(6)
    taps = keras_distill.Match(keras.losses.MeanSquaredError(), student="maps", adapter="auto")
    distiller = keras_distill.Distiller(student, teacher, [SoftTargets(), taps])
    distiller.compile("sgd", cross_entropy)
    dropout = next(x for x in student.layers if isinstance(x, layers.Dropout))
    state = dropout.seed_generator.state
    before = np.asarray(state)
    distiller.fit(digits[0][:16], digits[1][:16], batch_size=16, verbose=0)
    one_step = np.asarray(state) - before
    distiller.fit(digits[0][:64], digits[1][:64], batch_size=16, verbose=0)
    np.testing.assert_array_equal(np.asarray(state) - before, 5 * one_step)
    assert one_step.any()


def test_a_model_that_ends_in_softmax_gives_the_loss_of_its_logits(dense, batch, cross_entropy):
    x, y, _ = batch
    logits, softmax = dense(), dense(activation="softmax")
    teacher, soft_teacher = dense(9), dense(9, activation="softmax")
    # Large weights: probabilities that round to 0 and 1, where logarithms would be lost.
    teacher.set_weights([30 * w for w in teacher.get_weights()])
    soft_teacher.set_weights(teacher.get_weights())
    softmax.set_weights(logits.get_weights())
    values = []
    for s in (logits, softmax):
        for t in (teacher, soft_teacher):
            for run_eagerly in (False, True):
                distiller = keras_distill.Distiller(s, t, alpha=0)
                distiller.compile("sgd", run_eagerly=run_eagerly)
                distiller.optimizer.learning_rate = 0.0
                logs = distiller.train_on_batch(x, y, return_dict=True)
                values.append(float(logs["soft_targets"]))
    np.testing.assert_allclose(values, values[0], rtol=1e-5)
    assert values[0] > 1
