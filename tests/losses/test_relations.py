"""What is particular to the losses between samples: invariances, repeats, memories, absent rows."""

import golden
import keras
import numpy as np
import pytest
import tensorflow as tf
from loss_cases import RELATIONS, as_tensors, numeric_gradient, value_and_gradient

from keras_distill import losses

RNG = np.random.default_rng(1)
TEACHER, STUDENT = RNG.standard_normal((6, 5)), RNG.standard_normal((6, 3))
ROTATION, _ = np.linalg.qr(RNG.standard_normal((5, 5)))
RELATIONAL = {
    "distance": (losses.RelationalDistance, golden.relational_distance),
    "angle": (losses.RelationalAngle, golden.relational_angle),
    "similarity": (losses.SimilarityPreserving, golden.similarity_preserving),
}
relational = pytest.mark.parametrize(
    ("make", "formula"), RELATIONAL.values(), ids=RELATIONAL.keys()
)


def value(loss, teacher, student):
    return float(loss(as_tensors(teacher), as_tensors(student)))


@relational
def test_rotated_and_scaled_features_are_the_same_relations(make, formula):
    np.testing.assert_allclose(value(make(), TEACHER, 3 * TEACHER @ ROTATION), 0, atol=1e-5)
    wider = np.concatenate([TEACHER @ ROTATION, np.zeros((6, 2))], axis=1)
    np.testing.assert_allclose(value(make(), TEACHER, wider), 0, atol=1e-5)


@pytest.mark.parametrize("name", ["distance", "angle"])
def test_shifted_features_are_the_same_relations(name):
    """Even where the shift is a thousand times the distances."""
    make, formula = RELATIONAL[name]
    np.testing.assert_allclose(value(make(), TEACHER, TEACHER + RNG.uniform(size=5)), 0, atol=1e-5)
    far = np.float32(1000 + STUDENT).astype("float64")
    np.testing.assert_allclose(value(make(), TEACHER, far), formula(TEACHER, far).mean(), rtol=1e-4)


@relational
def test_order_of_samples_does_not_matter(make, formula):
    order = np.random.default_rng(2).permutation(6)
    loss = make()
    permuted = value(loss, TEACHER[order], STUDENT[order])
    np.testing.assert_allclose(permuted, value(loss, TEACHER, STUDENT), rtol=1e-5)


@relational
def test_repeated_samples_are_no_distance_apart(make, formula):
    """As where a batch is filled up with repeats; the gradient stays that of the formula."""
    teacher, student = (np.concatenate([x[:4], x[:2]]) for x in (TEACHER, STUDENT))
    got, gradient = value_and_gradient(make(), teacher, None, student)
    np.testing.assert_allclose(got, formula(teacher, student).mean(), rtol=1e-5)
    assert np.isfinite(gradient).all()
    # Moved together, repeats stay equal, where the formula has a derivative.
    want = numeric_gradient(
        lambda x: formula(teacher, np.concatenate([x, x[:2]])).mean(), student[:4].copy()
    )
    got = gradient[:4].copy()
    got[:2] += gradient[4:]
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)


@relational
@pytest.mark.parametrize("scale", [60.0, 1e-6, 1e12])
def test_features_of_any_size(make, formula, scale):
    got, gradient = value_and_gradient(make(), TEACHER, None, scale * STUDENT)
    np.testing.assert_allclose(got, formula(TEACHER, scale * STUDENT).mean(), rtol=1e-4)
    want = numeric_gradient(lambda s: formula(TEACHER, s).mean(), STUDENT.copy())
    np.testing.assert_allclose(gradient * scale, want, rtol=1e-2, atol=1e-5)


@relational
def test_half_precision_at_size_300(make, formula):
    """Whose squares overflow float16."""
    t, s = (np.float16(300 * x) for x in (TEACHER, STUDENT))
    got = make(dtype="float16")(tf.constant(t), tf.constant(s))
    np.testing.assert_allclose(got, formula(np.float64(t), np.float64(s)).mean(), rtol=3e-2)


@relational
def test_masked_steps_have_no_part(make, formula):
    teacher, student = RNG.standard_normal((4, 3, 5)), RNG.standard_normal((4, 3, 2))
    mask = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 0]], bool)
    want = formula(teacher * mask[..., None], student * mask[..., None]).mean()
    got, gradient = value_and_gradient(make(), teacher, None, student, mask=mask)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_array_equal(gradient[~mask], 0)


@relational
def test_a_row_that_is_all_padding_has_no_part(make, formula):
    teacher, student = RNG.standard_normal((4, 3, 5)), RNG.standard_normal((4, 3, 2))
    mask = np.ones((4, 3), bool)
    mask[2] = False
    kept = [0, 1, 3]
    got, gradient = value_and_gradient(make(), teacher, None, student, mask=mask)
    np.testing.assert_allclose(got, formula(teacher[kept], student[kept]).mean(), rtol=1e-5)
    np.testing.assert_array_equal(gradient[2], 0)


@relational
def test_rows_of_weight_0_may_hold_anything(make, formula):
    weights = np.array([1.0, 1, 0, 1, 1, 1])
    teacher, student = TEACHER.copy(), STUDENT.copy()
    teacher[2], student[2] = np.nan, np.inf
    kept = np.flatnonzero(weights)
    got, gradient = value_and_gradient(make(), teacher, None, student, weights)
    np.testing.assert_allclose(got, formula(TEACHER[kept], STUDENT[kept]).sum() / 6, rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_a_mask_that_does_not_fit_the_teacher_is_refused():
    student = as_tensors(np.ones((2, 3, 4)))
    student._keras_mask = tf.ones((2, 3), "bool")
    with pytest.raises(ValueError, match="after the pooling of the steps"):
        losses.SimilarityPreserving()(as_tensors(np.ones((2, 5, 4))), student)


def contrastive(**arguments):
    case = next(c for c in RELATIONS if c.name == "contrastive")
    return case.arrays(), case.loss(**arguments)


def test_contrastive_gradients_reach_both_heads():
    (teacher, student, keys), loss = contrastive()
    weights = loss.state.trainable_variables
    assert [w.path.split("/")[-2] for w in weights] == ["teacher_head"] * 2 + ["student_head"] * 2
    with tf.GradientTape() as tape:
        objective = loss((as_tensors(teacher), keys), as_tensors(student))
    got = tape.gradient(objective, weights)
    for weight, gradient in zip(weights, got, strict=True):
        _, fresh = contrastive()
        moved = next(w for w in fresh.state.weights if w.path == weight.path)

        def formula(x, fresh=fresh, moved=moved):
            moved.assign(x)
            return golden.contrastive(teacher, student, keys, fresh.state, 0.5).mean()

        want = numeric_gradient(formula, np.float64(weight.numpy()), step=1e-2)
        np.testing.assert_allclose(gradient, want, rtol=2e-2, atol=2e-3)


def test_memories_move_towards_the_embeddings_of_their_samples():
    (teacher, student, keys), loss = contrastive()
    state = loss.state
    pairs = (
        (state.student_memory, golden.embedding(student, state.student_head)),
        (state.teacher_memory, golden.embedding(teacher, state.teacher_head)),
    )
    before = [memory.numpy() for memory, _ in pairs]
    loss((as_tensors(teacher), keys), as_tensors(student), np.array([1, 1, 0, 1, 0.5]))
    for (memory, new), old in zip(pairs, before, strict=True):
        want = old.copy()
        for i in (0, 1, 3, 4):  # Not row 2, whose weight is 0.
            row = 0.5 * old[keys[i]] + 0.5 * new[i]
            want[keys[i]] = row / np.linalg.norm(row)
        np.testing.assert_allclose(memory, want, rtol=1e-5, atol=1e-6)


def test_a_sample_twice_in_a_batch_moves_its_memory_by_the_mean():
    (teacher, student, _), loss = contrastive()
    new = golden.embedding(student, loss.state.student_head)[:2]
    old = loss.state.student_memory.numpy()[4]
    loss((as_tensors(teacher[:2]), np.array([4, 4])), as_tensors(student[:2]))
    moved = 0.5 * old + 0.5 * new
    want = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).mean(0)
    np.testing.assert_allclose(loss.state.student_memory.numpy()[4], want, rtol=1e-5, atol=1e-6)


def test_the_first_batch_sets_the_normalizers_for_good():
    (teacher, student, keys), loss = contrastive()
    state = loss.state
    state.is_started.assign(0.0)
    weights = np.array([1, 1, 1, 1, 0.0])
    memories = [np.float64(m.numpy()) for m in (state.teacher_memory, state.student_memory)]
    loss((as_tensors(teacher), keys), as_tensors(student), np.zeros(5))  # Nothing to see yet.
    assert state.is_started.numpy() == 0
    loss((as_tensors(teacher), keys), as_tensors(student), weights)
    first = state.log_z.numpy()
    for got, memory, x, head in (
        (first[0], memories[0], student, state.student_head),
        (first[1], memories[1], teacher, state.teacher_head),
    ):
        similarities = np.exp(golden.embedding(x, head)[:4] @ memory.T / 0.5)
        np.testing.assert_allclose(got, np.log(9 * similarities.mean()), rtol=1e-5)
    loss((as_tensors(teacher), keys), as_tensors(5 - student))
    np.testing.assert_array_equal(state.log_z, first)


def test_drawn_negatives():
    """The same formula over the samples drawn, of which the sample itself is none."""
    (teacher, student, keys), loss = contrastive(negatives=6)
    seeds = keras.random.SeedGenerator()
    seeds.state.assign(loss.state.seed_generator.state)
    drawn = keras.random.randint((6,), 0, 9, dtype="int32", seed=seeds).numpy()
    want = golden.contrastive(teacher, student, keys, loss.state, 0.5, others=drawn)
    got = loss((as_tensors(teacher), keys), as_tensors(student))
    np.testing.assert_allclose(got, want.mean(), rtol=1e-5)
    again = loss.state.draw(6).numpy()
    assert (again != drawn).any()


@pytest.mark.long
def test_contrastive_learns_to_tell_samples_apart():
    """The heads and memories alone, without a student, find each sample in the other side."""
    rng = np.random.default_rng(0)
    teacher = rng.standard_normal((32, 8))
    student = teacher @ rng.standard_normal((8, 6))
    loss = losses.Contrastive(samples=32, dimensions=8, negatives=32)
    loss.build(teacher.shape, student.shape)
    optimizer = keras.optimizers.Adam(0.02)
    weights = loss.state.trainable_variables

    @tf.function(autograph=False)
    def step(keys):
        with tf.GradientTape() as tape:
            y_true = tf.gather(tf.constant(teacher, "float32"), keys), keys
            value = loss(y_true, tf.gather(tf.constant(student, "float32"), keys))
        optimizer.apply(tape.gradient(value, weights), weights)
        return value

    values = [float(step(tf.constant(rng.permutation(32)[:16]))) for _ in range(120)]
    assert np.mean(values[-10:]) < 0.5 * np.mean(values[:10])
    s = golden.embedding(student, loss.state.student_head)
    nearest = (s @ loss.state.teacher_memory.numpy().T).argmax(1)
    assert (nearest == np.arange(32)).mean() > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, "`samples` must be a whole number"),
        ({"samples": 9, "negatives": 2.5}, "`negatives` must be a whole number"),
        ({"samples": 9, "dimensions": 0}, "`dimensions` must be a whole number"),
        ({"samples": 9, "momentum": 2}, "`momentum` must be between 0 and 1"),
        ({"samples": 9, "temperature": 0}, "`temperature` must be greater than 0"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        losses.Contrastive(**arguments)
