"""The student writes, the teacher scores: shares, weights, and equality with plain training."""

import keras
import numpy as np
import pytest
from scipy import special

import keras_distill
from keras_distill import losses, teachers
from keras_distill.language import OnPolicyDistiller, generate

END = 2


@pytest.fixture(scope="module")
def tokens():
    tokens = np.random.default_rng(2).integers(3, 7, (8, 6)).astype("int32")
    for row, length in enumerate([6, 6, 4, 5, 3, 6, 4, 5]):
        tokens[row, length - 1] = END
        tokens[row, length:] = 0
    return tokens


def counted(tokens, prompt):
    return ((tokens != 0) & (tokens != END) & (np.arange(6) >= prompt - 1)).astype("float32")


def weighted(tokens, prompt):
    """Weights with which a mean over what isn't masked is one over what counts."""
    counts = counted(tokens, prompt)
    return counts * np.float32((tokens != 0).sum() / counts.sum())


def trained(distiller, x, weights=None, epochs=2):
    distiller.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    # Keras drops weights where there are no labels; these aren't used.
    y = None if weights is None else np.zeros_like(weights)
    history = distiller.fit(
        x, y, sample_weight=weights, batch_size=8, epochs=epochs, verbose=0, shuffle=False
    )
    return history.history["loss"], distiller.student.get_weights()


def assert_same(one, other):
    np.testing.assert_allclose(one[0], other[0], rtol=1e-5)
    for a, b in zip(one[1], other[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_without_a_share_it_is_plain_training(causal, tokens):
    loss = losses.SkewedKL(0.1)
    plain = keras_distill.Distiller(causal(0), causal(1), loss, alpha=0.0)
    own = OnPolicyDistiller(causal(0), causal(1), loss, share=0.0, end=END, prompt=2)
    assert_same(trained(own, tokens), trained(plain, tokens, weighted(tokens, 2)))


@pytest.mark.parametrize("mask_zero", [True, False])
@pytest.mark.parametrize("prompt", [1, 4])
def test_a_loss_is_the_mean_over_what_counts(causal, tokens, mask_zero, prompt):
    """Whatever the length of the prompt, and however much is padding; weights multiply."""
    student, teacher = (causal(seed, mask_zero=mask_zero) for seed in (0, 1))
    log_p, log_q = (special.log_softmax(np.float64(m(tokens)), -1) for m in (teacher, student))
    middle = np.logaddexp(log_p, log_q) - np.log(2)
    values = sum((np.exp(z) * (z - middle)).sum(-1) / 2 for z in (log_p, log_q))
    counts = counted(tokens, prompt)
    own = OnPolicyDistiller(student, teacher, share=0.0, end=END, prompt=prompt)
    own.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    options = {"batch_size": 8, "verbose": 0, "shuffle": False}
    (loss,) = own.fit(tokens, **options).history["loss"]
    assert loss == pytest.approx((values * counts).sum() / counts.sum(), rel=1e-5)
    rows = np.arange(8, dtype="float32")
    (loss,) = own.fit(tokens, rows, sample_weight=rows, **options).history["loss"]
    want = (values * counts * rows[:, None]).sum() / counts.sum()
    assert loss == pytest.approx(want, rel=1e-5)


def test_an_end_that_the_student_cannot_write(causal, tokens):
    says = "`end` must be a token that the model can write, below 7. Received: end=50"
    with pytest.raises(ValueError, match=says):
        OnPolicyDistiller(causal(0), causal(1), end=50)

    class Student(keras.Model):
        def __init__(self):
            super().__init__()
            self.model = causal(0)

        def call(self, x):
            return self.model(x)

    own = OnPolicyDistiller(Student(), causal(1), end=50, share=1.0)
    own.compile("sgd")
    with pytest.raises(ValueError, match=says):
        own.fit(tokens, verbose=0)


def test_it_trains_on_what_the_student_writes(causal, tokens):
    """Cold, the student writes greedily: the step is that on what `generate` gives."""
    student = causal(0)
    written = generate(student, tokens[:, :2], length=6, end=END)
    assert (written != tokens).any()
    plain = keras_distill.Distiller(causal(0), causal(1), losses.JensenShannon(0.5), alpha=0.0)
    want = trained(plain, written, weighted(written, 2), epochs=1)
    own = OnPolicyDistiller(student, causal(1), share=1.0, end=END, prompt=2, temperature=1e-4)
    assert_same(trained(own, tokens, epochs=1), want)


@pytest.mark.long
def test_a_decoder_and_chunks(translating, sources):
    """With an encoder, and a loss that computes logits in chunks of positions."""
    x = {"source": sources[:8], "target": np.full((8, 6), 1, "int32")}
    options = {"target": "target", "start": 1, "end": END, "length": 6}
    written = generate(translating(0), {"source": x["source"]}, **options)
    plain = keras_distill.Distiller(
        translating(0), translating(1), losses.SoftTargets(1.0), alpha=0.0
    )
    want = trained(plain, {**x, "target": written}, weighted(written, 1), epochs=1)
    own = OnPolicyDistiller(
        translating(0),
        translating(1),
        losses.Chunked(positions=16),
        share=1.0,
        end=END,
        target="target",
        temperature=1e-4,
    )
    assert_same(trained(own, x, epochs=1), want)


@pytest.mark.long
def test_the_share_follows_a_schedule(causal, tokens):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.0, 1.0])
    own = OnPolicyDistiller(causal(0), causal(1), share=schedule, end=END, prompt=2)
    own.compile(keras.optimizers.SGD(0.1))
    own.optimizer.build(own.trainable_variables)
    for step, is_own in [(0, False), (3, False), (4, True)]:
        own.optimizer.iterations.assign(step)
        written = np.asarray(own.with_written(tokens))
        assert (written != tokens).any() == is_own
        np.testing.assert_array_equal(written[:, :2], tokens[:, :2])
    half = OnPolicyDistiller(causal(0), causal(1), share=0.5, end=END, prompt=2)
    half.compile("sgd")
    own = [(np.asarray(half.with_written(tokens)) != tokens).any() for _ in range(60)]
    assert 18 <= sum(own) <= 42


@pytest.mark.long
def test_a_loaded_one_goes_on(causal, tokens, tmp_path):
    own = OnPolicyDistiller(causal(0), causal(1), share=0.5, end=END, prompt=2, seed=3)
    trained(own, tokens)
    own.save(tmp_path / "own.keras")
    loaded = keras.models.load_model(tmp_path / "own.keras")
    loaded.teacher = causal(1)
    assert (loaded.share, loaded.end, loaded.prompt, loaded.seed) == (0.5, END, 2, 3)
    one, other = (
        (
            x.fit(tokens, batch_size=8, verbose=0, shuffle=False).history["loss"],
            x.student.get_weights(),
        )
        for x in (own, loaded)
    )
    assert_same(one, other)


def test_what_has_ended_isnt_continued(causal, tokens):
    """Neither a sequence that ends within the prompt nor a row of padding."""
    some = tokens.copy()
    some[0], some[4] = 0, [5, END, 0, 0, 0, 0]
    own = OnPolicyDistiller(causal(0), causal(1), share=1.0, end=END, prompt=3)
    own.compile("sgd")
    written = np.asarray(own.with_written(some))
    assert not written[0].any()
    np.testing.assert_array_equal(written[4], some[4])
    assert (written[[1, 2, 3, 5, 6, 7], 3] != 0).all()
    assert not np.asarray(own.counted(written))[[0, 4]].any()


def test_a_saved_schedule(causal, tmp_path):
    schedule = keras.optimizers.schedules.PolynomialDecay(0.0, 100, 0.5)
    own = OnPolicyDistiller(causal(0), causal(1), share=schedule, end=END)
    own.compile("sgd")
    own.save(tmp_path / "own.keras")
    loaded = keras.models.load_model(tmp_path / "own.keras")
    assert loaded.share.get_config() == schedule.get_config()
    assert float(loaded.share(50)) == 0.25


def test_what_is_refused(causal, translating, tokens, tmp_path):
    options = {"end": END}
    with pytest.raises(ValueError, match="`alpha` must be 0. Received: alpha=0.1"):
        OnPolicyDistiller(causal(0), causal(1), alpha=0.1, **options)
    with pytest.raises(ValueError, match="the loss 'dkd' needs them"):
        OnPolicyDistiller(causal(0), causal(1), losses.DKD(), **options)
    with pytest.raises(ValueError, match="`share` must be between 0 and 1"):
        OnPolicyDistiller(causal(0), causal(1), share=2, **options)
    stored = teachers.store(causal(1), tokens, tmp_path, verbose=0)
    own = OnPolicyDistiller(causal(0), stored, **options)
    own.compile("sgd")
    with pytest.raises(ValueError, match="not to those that the student writes"):
        own.fit(stored.attach(tokens).batch(4), verbose=0)
    named = OnPolicyDistiller(translating(0), translating(1), target="text", **options)
    named.compile("sgd")
    with pytest.raises(ValueError, match="a dict that has this name"):
        named.fit({"source": np.ones((4, 5)), "target": np.ones((4, 6))}, verbose=0)
    long = OnPolicyDistiller(causal(0), causal(1), prompt=6, **options)
    with pytest.raises(ValueError, match="prompt=6, sequences of 6 tokens"):
        long.with_written(tokens)
    with pytest.raises(ValueError, match="target=None, inputs of type dict"):
        long.with_written({"tokens": tokens})
