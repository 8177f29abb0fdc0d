"""What is particular to the losses on layers: invariances, masks, weights of their own, sizes."""

import golden
import keras
import numpy as np
import pytest
import tensorflow as tf
from loss_cases import FEATURES, as_tensors, value_and_gradient

from keras_distill import losses

RNG = np.random.default_rng(1)
PIXELS = RNG.standard_normal((2, 3, 4, 4, 5))
STEPS = RNG.standard_normal((2, 3, 4, 5))
HEADS = RNG.standard_normal((4, 3, 4, 2, 6))
MASK = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]], bool)


def value(loss, teacher, student):
    return float(loss(as_tensors(teacher), as_tensors(student)))


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_attention_ignores_scale_and_channel_order(power):
    loss = losses.AttentionTransfer(power=power)
    teacher, student = PIXELS
    changed = value(loss, 100 * teacher[..., ::-1], -0.01 * student[..., [2, 0, 1, 4, 3]])
    np.testing.assert_allclose(changed, value(loss, teacher, student), rtol=1e-5)
    turned = value(loss, np.rot90(teacher, axes=(1, 2)), np.rot90(student, axes=(1, 2)))
    np.testing.assert_allclose(turned, value(loss, teacher, student), rtol=1e-5)


def test_attention_of_large_half_precision_features_does_not_overflow():
    teacher, student = 3e4 * np.tanh(PIXELS)
    loss = losses.AttentionTransfer(dtype="float16")
    got = loss(as_tensors(teacher, "float16"), as_tensors(student, "float16"))
    np.testing.assert_allclose(got, golden.attention_transfer(teacher, student).mean(), rtol=2e-2)


def test_channel_wise_ignores_a_constant_of_a_channel():
    loss = losses.ChannelWise()
    teacher, student = PIXELS
    shifted = value(loss, teacher + RNG.standard_normal(5), student - 9)
    np.testing.assert_allclose(shifted, value(loss, teacher, student), rtol=1e-5)


def test_step_relations_ignore_rotations_of_the_head():
    q, k = HEADS[0], HEADS[1]
    rotation, _ = np.linalg.qr(RNG.standard_normal((6, 6)))
    maps, relation = losses.AttentionMap(), losses.ValueRelation()
    np.testing.assert_allclose(value(maps, (q, k), (q @ rotation, k @ rotation)), 0, atol=1e-5)
    np.testing.assert_allclose(value(relation, q, q @ rotation), 0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_logits_of_60_in_a_map(dtype):
    teacher, student = 60 * RNG.choice([-1, 1], (2, 2, 3, 2, 4))
    got = losses.ChannelWise(dtype=dtype)(as_tensors(teacher, dtype), as_tensors(student, dtype))
    np.testing.assert_allclose(got, golden.channel_wise(teacher, student, 4.0).mean(), rtol=1e-2)


def cut(x, row):
    """One row without its padded steps."""
    return keras.tree.map_structure(lambda a: a[row : row + 1, : MASK[row].sum()], x)


@pytest.mark.parametrize(
    ("make", "formula", "teacher", "student"),
    [
        (losses.Hint, golden.hint, *STEPS),
        (losses.AttentionTransfer, golden.attention_transfer, *STEPS),
        (losses.ChannelWise, lambda t, s: golden.channel_wise(t, s, 4.0), *STEPS),
        (losses.ValueRelation, golden.value_relation, HEADS[0], HEADS[1]),
        (losses.AttentionMap, golden.attention_map, tuple(HEADS[:2]), tuple(HEADS[2:])),
    ],
    ids=["hint", "attention_transfer", "channel_wise", "value_relation", "attention_map"],
)
def test_padded_steps_count_as_if_cut_off(make, formula, teacher, student):
    want = np.mean([formula(cut(teacher, row), cut(student, row)) for row in range(3)])
    got, gradient = value_and_gradient(make(), teacher, None, student, mask=MASK)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for leaf in keras.tree.flatten(gradient):
        np.testing.assert_array_equal(leaf[~MASK], 0)
    filled = keras.tree.map_structure(
        lambda a: np.where(MASK.reshape(3, 4, *[1] * (a.ndim - 2)), a, 1e3), (teacher, student)
    )
    changed, _ = value_and_gradient(make(), filled[0], None, filled[1], mask=MASK)
    np.testing.assert_allclose(changed, got, rtol=1e-6)


def test_variational_information_with_a_mask():
    loss = losses.VariationalInformation(initial_variance=2.0)
    loss.build((None, None, 5), (None, None, 5))
    rows = [(STEPS[:, row : row + 1, : MASK[row].sum()]) for row in range(3)]
    want = np.mean([golden.variational_information(t, s, loss.state) for t, s in rows])
    got, _ = value_and_gradient(loss, *[STEPS[0], None, STEPS[1]], mask=MASK)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_third_tap_brings_the_mask_to_attention_layers():
    """Keras' attention takes the mask off its queries and keys; its own output has it again."""
    embed = keras.layers.Embedding(9, 6, mask_zero=True)
    attention = keras.layers.MultiHeadAttention(2, 3)
    embedding = embed(np.array([[3, 1, 0, 0], [2, 5, 4, 8]]))
    output = attention(embedding, embedding)
    query, key = (layer(embedding) for layer in (attention.query_dense, attention.key_dense))
    teacher = tuple(HEADS[:2, :2, :, :, :3])
    loss = losses.AttentionMap(reduction="none")
    student = (query.numpy(), key.numpy())
    for row, steps in ((0, 2), (1, 4)):
        t, s = ([x[row : row + 1, :steps] for x in side] for side in (teacher, student))
        got = loss(as_tensors(teacher), (query, key, output))[row]
        np.testing.assert_allclose(got, golden.attention_map(t, s)[0], rtol=1e-5)


@pytest.mark.long
def test_the_learnt_variance_approaches_the_squared_error():
    """The likelihood's maximum: σ_c² is the mean squared error of channel c."""
    teacher, student = RNG.standard_normal((2, 64, 3)) * [0.5, 1, 1.5]
    loss = losses.VariationalInformation()
    loss.build((None, 3), (None, 3))
    np.testing.assert_allclose(loss.state.variance(), 5.0, rtol=1e-6)
    optimizer = keras.optimizers.Adam(0.1)
    y_true, y_pred = as_tensors((teacher, student))
    for _ in range(150):
        with tf.GradientTape() as tape:
            objective = loss(y_true, y_pred)
        weights = loss.state.trainable_variables
        optimizer.apply(tape.gradient(objective, weights), weights)
    want = ((teacher - student) ** 2).mean(0)
    np.testing.assert_allclose(loss.state.variance(), want, rtol=2e-2)


@pytest.mark.parametrize("name", ["variational_information", "review"])
def test_every_weight_of_a_loss_is_trained(name):
    case = next(c for c in FEATURES if c.name == name)
    teacher, student, _ = case.arrays()
    loss = case.loss()
    with tf.GradientTape() as tape:
        value = loss(as_tensors(teacher), as_tensors(student))
    weights = loss.state.trainable_variables
    for weight, gradient in zip(weights, tape.gradient(value, weights), strict=True):
        assert np.abs(gradient).max() > 0, weight.path


def test_a_loaded_loss_is_built_as_it_was():
    loss = losses.VariationalInformation()
    loss.build((None, 4, 7), (None, 4, 7))
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert copy.state.raw.shape == (7,)


def test_a_loss_with_weights_says_that_it_must_be_built():
    with pytest.raises(ValueError, match=r"loss.build\(y_true_shape, y_pred_shape\)"):
        losses.VariationalInformation()(STEPS[0], STEPS[1])


@pytest.mark.parametrize(
    ("loss", "teacher", "student", "message"),
    [
        (losses.Hint(), (2, 3), (2, 4), "compares values of one shape"),
        (losses.AttentionTransfer(), (2, 3), (2, 3), "features with positions"),
        (losses.ChannelWise(), (2, 3), (2, 3), "features with positions"),
        (losses.AttentionTransfer(), (2, 5, 3), (2, 2, 2, 3), r"\(5,\) and the student's \(2, 2\)"),
        (losses.AttentionMap(), ((2, 3, 4, 5),) * 2, ((2, 3, 2, 5),) * 2, "`heads=`"),
        (losses.AttentionMap(heads=3), ((2, 3, 4, 5),) * 2, ((2, 3, 3, 5),) * 2, "doesn't divide"),
        (losses.ValueRelation(), (2, 3, 5), (2, 3, 5), r"\(batch, steps, heads, size\)"),
        (losses.ValueRelation(), (2, 3, 2, 5), (2, 4, 2, 5), "compares maps of shape"),
    ],
)
def test_shapes_that_cannot_be_compared_are_refused(loss, teacher, student, message):
    teacher, student = (
        tuple(map(np.zeros, x)) if isinstance(x[0], tuple) else np.zeros(x)
        for x in (teacher, student)
    )
    with pytest.raises(ValueError, match=message):
        value(loss, teacher, student)


@pytest.mark.parametrize(("height", "width"), [(8, 3), (3, 8), (4, 8), (8, 4), (5, 2), (2, 5)])
def test_review_chooses_its_levels_by_height(height, width):
    """As the authors' code does; a narrow map is averaged over columns that share positions."""
    teacher, student = RNG.standard_normal((2, 3, height, width, 2))
    loss = losses.Review(dtype="float64", reduction=None)
    loss.build(((None, height, width, 2),), ((None, height, width, 2),))
    (fused,) = loss.state((tf.constant(student, "float32"),), tf.ones(3, bool))

    def parts(x, size):
        edges = [[(i * n // size, -(-(i + 1) * n // size)) for i in range(size)] for n in x.shape]
        return [x[a:b, c:d].mean() for a, b in edges[0] for c, d in edges[1]]

    difference = np.asarray(fused, "float64") - teacher
    expected, weights = np.square(difference).mean((1, 2, 3)), 1.0
    for size, weight in ((4, 1 / 2), (2, 1 / 4), (1, 1 / 8)):
        weight *= 2 ** sum(size >= height for size in (4, 2) if size > 1)
        if size < height:
            maps = np.moveaxis(difference, -1, 1)
            expected += weight * np.array(
                [np.mean([np.square(parts(m, size)).mean() for m in sample]) for sample in maps]
            )
            weights += weight
    np.testing.assert_allclose(loss((teacher,), (student,)), expected / weights, rtol=1e-5)


def test_review_refuses_what_it_cannot_fuse():
    with pytest.raises(ValueError, match="tuples of as many maps"):
        losses.Review().build(((None, 4, 4, 2),), ((None, 4, 4, 2), (None, 2, 2, 2)))
    with pytest.raises(ValueError, match="tuples of as many maps"):
        losses.Review().build((None, 4, 4, 2), (None, 4, 4, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.AttentionTransfer(power=0.5), "`power` must be at least 1"),
        (lambda: losses.VariationalInformation(initial_variance=0), "`initial_variance` must be"),
        (lambda: losses.AttentionMap(heads=0), "`heads` must be a whole number"),
        (lambda: losses.ChannelWise(temperature=-1), "`temperature` must be greater than 0"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
