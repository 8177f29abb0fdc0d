"""Batches: order, views and mixtures, all repeatable."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_distill import Distiller, data
from keras_distill.teachers import Teacher

FLIP = keras.layers.RandomFlip("horizontal")


@pytest.fixture(scope="module")
def examples(digits):
    images, labels = digits
    return tf.data.Dataset.from_tensor_slices((images[:256], labels[:256]))


def epoch(dataset):
    return [keras.tree.map_structure(np.asarray, batch) for batch in dataset]


def assert_same(a, b):
    for x, y in zip(keras.tree.flatten(a), keras.tree.flatten(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_seed_gives_order_views_and_mixtures(examples):
    def build(seed):
        return data.batches(
            examples, 32, augment=FLIP, mix=keras.layers.MixUp(0.5), classes=10, seed=seed
        )

    one, two, other = build(1), build(1), build(2)
    first, second = epoch(one), epoch(one)
    assert_same(first, epoch(two))
    assert_same(second, epoch(two))
    assert not np.array_equal(first[0][0], second[0][0])
    assert not np.array_equal(first[0][0], epoch(other)[0][0])


def test_without_augmentation_each_example_comes_once_unchanged(examples):
    plain = epoch(examples.batch(256))[0]
    shuffled = epoch(data.batches(examples, 100))
    assert [len(y) for _, y in shuffled] == [100, 100, 56]
    rows = {(x.tobytes(), int(y)) for xs, ys in shuffled for x, y in zip(xs, ys, strict=True)}
    assert rows == {(x.tobytes(), int(y)) for x, y in zip(*plain, strict=True)}
    assert_same(epoch(data.batches(examples, 256, shuffle=0))[0], plain)


def test_each_model_gets_a_view_of_its_own_when_asked(examples):
    dataset = data.batches(examples, 256, augment=FLIP, teacher_augment=FLIP, shuffle=0)
    (views, _), (plain, _) = epoch(dataset)[0], epoch(examples.batch(256))[0]
    flips = []
    for view in (views.inputs, views.teacher):
        flipped = (view == plain[:, :, ::-1]).all(axis=(1, 2, 3))
        kept = (view == plain).all(axis=(1, 2, 3))
        assert (flipped | kept).all()
        flips.append(flipped)
        assert 90 < flipped.sum() < 166
    # Independent draws agree for about half of the examples.
    assert 90 < (flips[0] == flips[1]).sum() < 166


def test_own_views_of_a_mixture_share_partners(examples):
    dataset = data.batches(
        examples, 64, augment=FLIP, teacher_augment=FLIP, mix=keras.layers.MixUp(1.0), classes=10
    )
    views, shares = epoch(dataset)[0]
    assert shares.shape == (64, 10)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    # Flips keep the sum of each row of pixels, so both mixtures must have the same.
    np.testing.assert_allclose(views.inputs.sum(2), views.teacher.sum(2), atol=1e-4)


def test_a_distiller_shows_each_model_its_own_view(examples):
    def bias_free(name):
        layers = [keras.layers.Flatten(), keras.layers.Dense(10, use_bias=False)]
        return keras.Sequential([keras.Input((8, 8, 1)), *layers], name=name)

    student, teacher = bias_free("student"), bias_free("teacher")
    distiller = Distiller(student, teacher, keras.losses.MeanSquaredError(), alpha=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    dataset = data.batches(
        examples, 256, augment=FLIP, teacher_augment=lambda x, seed: 2 * x, shuffle=0
    )
    views, _ = epoch(dataset)[0]
    logs = distiller.train_on_batch(views, return_dict=True)
    weights = [m.get_weights()[0].astype("float64") for m in (student, teacher)]
    answers = [
        x.reshape(256, 64).astype("float64") @ w
        for x, w in zip((views.inputs, 2 * epoch(examples.batch(256))[0][0]), weights, strict=True)
    ]
    expected = np.mean((answers[0] - answers[1]) ** 2)
    np.testing.assert_allclose(logs["mean_squared_error"], expected, rtol=1e-5)
    assert distiller.fit(dataset, verbose=0).history["loss"]
    assert distiller.predict(views.inputs, verbose=0).shape == (256, 10)


def test_mixing_integer_labels_needs_the_number_of_classes(examples):
    with pytest.raises(ValueError, match="classes"):
        data.batches(examples, 32, mix=keras.layers.CutMix())


def test_arrays_are_no_data_set():
    with pytest.raises(TypeError, match="from_tensor_slices.*Received: .*tuple"):
        data.batches((np.zeros((4, 8)), np.zeros(4)), 2)
    with pytest.raises(TypeError, match="`source` must be the path"):
        data.load([np.zeros((4, 8)), np.zeros(4)])


def test_batches_hold_at_least_one_example(examples):
    with pytest.raises(ValueError, match="`batch_size` must be a whole number of at least 1"):
        data.batches(examples, 0)


@pytest.mark.long
def test_function_matching_trains_a_distiller_on_views_and_mixtures(examples):
    def net(width, name):
        layers = [keras.layers.Flatten(), keras.layers.Dense(width, "relu"), keras.layers.Dense(10)]
        return keras.Sequential([keras.Input((8, 8, 1)), *layers], name=name)

    teacher = net(64, "teacher")
    x, y = epoch(examples.batch(256))[0]
    teacher.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    teacher.fit(x, y, epochs=20, verbose=0)
    distiller = Distiller(net(16, "student"), Teacher(teacher), alpha=0.0)
    distiller.compile(keras.optimizers.Adam(1e-2))
    train = data.batches(
        examples, 64, augment=data.random_noise(0.1), mix=keras.layers.MixUp(0.8), classes=10
    )
    history = distiller.fit(train, epochs=15, verbose=0).history["soft_targets"]
    assert history[-1] < history[0] / 3
    chosen = (m.predict(x, verbose=0).argmax(1) for m in (distiller.student, teacher))
    assert np.mean(np.equal(*chosen)) > 0.9
