"""`SEED`: its queue, and what it teaches a student that has no labels."""

import golden
import keras
import numpy as np
import pytest
from keras import layers

import keras_distill
from keras_distill import losses

RNG = np.random.default_rng(0)


def queue_of(size, dimensions=3, **arguments):
    loss = losses.SEED(size, **arguments)
    loss.build((None, dimensions), (None, dimensions))
    return loss


def test_in_double_precision_at_the_papers_temperatures():
    """Only the queue itself is float32."""
    loss = queue_of(5, dtype="float64", reduction="none")
    t, s = RNG.standard_normal((2, 4, 3))
    loss(t, s)
    t, s = RNG.standard_normal((2, 4, 3))
    want = golden.seed(t, s, loss.state, 0.01, 0.2)
    np.testing.assert_allclose(loss(t, s), want, rtol=1e-12)
    assert (want > 0).all()


def test_queue_holds_the_newest_samples_that_count():
    loss, t = queue_of(4), RNG.standard_normal((3, 2, 3))
    loss(t[0], t[0], np.array([1.0, 0.0]))
    kept = golden.unit(t[0, :1])
    np.testing.assert_allclose(loss.state.rows, [*kept, *np.zeros((3, 3))], rtol=1e-6)
    loss(t[1], t[1])
    loss(t[2], t[2])
    np.testing.assert_allclose(loss.state.rows, golden.unit(t[2:0:-1].reshape(4, 3)), rtol=1e-6)


def test_a_batch_larger_than_the_queue_fills_it():
    loss, t = queue_of(2), RNG.standard_normal((5, 3))
    loss(t, t)
    np.testing.assert_allclose(loss.state.rows, golden.unit(t[:2]), rtol=1e-6)


def backbone(width, seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((6,)), layers.Dense(width, "tanh", name="embedding")])


def distilled(jit_compile=False):
    teacher = backbone(5, 0)
    match = keras_distill.Match(losses.SEED(12), student="embedding", adapter="auto")
    distiller = keras_distill.Distiller(backbone(3, 1), teacher, match, alpha=0.0)
    distiller.compile(keras.optimizers.Adam(0.01), jit_compile=jit_compile)
    return distiller, match.loss.state


def fitted(distiller, batches):
    return [float(distiller.train_on_batch(x, return_dict=True)["seed"]) for x in batches]


def test_training_goes_on_from_a_checkpoint_with_its_queue(tmp_path):
    batches = np.random.default_rng(1).standard_normal((6, 4, 6)).astype("float32")
    distiller, state = distilled()
    fitted(distiller, batches[:3])
    distiller.save_weights(tmp_path / "half.weights.h5")
    rows = state.rows.numpy()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    want = fitted(distiller, batches[3:])
    resumed, state = distilled()
    resumed.load_weights(tmp_path / "half.weights.h5")
    np.testing.assert_array_equal(state.rows, rows)
    resumed.optimizer.build(resumed.trainable_variables)
    resumed.load_weights(tmp_path / "half.weights.h5")
    assert fitted(resumed, batches[3:]) == want


def test_a_compiled_step_gives_what_the_formula_gives():
    batches = np.random.default_rng(1).standard_normal((4, 4, 6)).astype("float32")
    distiller, state = distilled(jit_compile=True)
    plain, same = distilled()
    np.testing.assert_allclose(fitted(distiller, batches), fitted(plain, batches), rtol=1e-4)
    np.testing.assert_allclose(state.rows, same.rows, rtol=1e-5, atol=1e-6)


def test_the_student_comes_to_see_the_teachers_neighbors():
    """Without a label: the nearest sample of each is far more often the teacher's."""
    x = np.random.default_rng(2).standard_normal((256, 6)).astype("float32")
    distiller, _ = distilled()
    distiller.optimizer.learning_rate = 0.03

    def agreement():
        nearest = []
        for model in (backbone(5, 0), distiller.student):
            e = golden.unit(np.asarray(model(x)))
            nearest.append((e @ e.T - 2 * np.eye(len(x))).argmax(1))
        return (nearest[0] == nearest[1]).mean()

    before = agreement()
    distiller.fit(x, batch_size=32, epochs=20, verbose=0)
    assert agreement() > 2 * before


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="`size` must be"):
        losses.SEED(0)
    with pytest.raises(ValueError, match="`teacher_temperature` must be"):
        losses.SEED(teacher_temperature=0.0)
    with pytest.raises(ValueError, match="An adapter makes features comparable"):
        queue_of(4)(np.ones((2, 3)), np.ones((2, 4)))


def test_embeddings_of_unknown_size_are_refused():
    with pytest.raises(ValueError, match="whose size must be known"):
        losses.SEED(size=3).build((None, None, None, 4), (None, None, None, 4))
