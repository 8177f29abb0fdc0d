"""Numbers and seeds of the wrong type or size: the error names argument and value."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_distill import data, evaluation, teachers, tuning

EXAMPLES = tf.data.Dataset.from_tensor_slices((np.zeros((8, 3), "float32"), np.arange(8) % 2))
X = np.zeros((8, 3), "float32")


def named(value):
    """A parameter's name in the test's: the same in every process, as xdist wants."""
    return getattr(value, "__name__", str(value))


def model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return teachers.store(model(), X, tmp_path_factory.mktemp("stored"), verbose=0)


@pytest.mark.parametrize(
    "options",
    [{"seed": "text"}, {"seed": 1.5}, {"seed": None}, {"shuffle": "all"}, {"shuffle": -1},
     {"classes": "two"}, {"classes": 0}, {"batch_size": 2.5}],
    ids=named,
)  # fmt: skip
def test_batches(options):
    check(options, lambda: data.batches(EXAMPLES, **{"batch_size": 4, **options}))


def test_seeds_may_be_tensors(stored):
    for seed in (3, np.int64(3), tf.constant(3, "int64")):
        assert len(list(data.batches(EXAMPLES, 4, seed=seed))) == 2
        assert len(list(stored.attach(X, seed=seed))) == 8


@pytest.mark.parametrize(
    "options", [{"seed": "text"}, {"seed": -1}, {"holdout": "half"}, {"holdout": 0.7}], ids=named
)
def test_load(options, tmp_path):
    np.savez(tmp_path / "data.npz", x=X, y=np.arange(8) % 2)
    check(options, lambda: data.load(tmp_path / "data.npz", task="classification", **options))


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (data.random_shift, {"steps": 1.5}),
        (data.random_shift, {"steps": 2, "fill": "silence"}),
        (lambda **o: data.random_scale(high=1.0, **o), {"low": "a"}),
        (lambda **o: data.random_scale(high=1.0, **o), {"low": 2.0}),
        (data.random_noise, {"stddev": -0.1}),
        (data.random_unknown, {"rate": 1.5}),
        (lambda **o: data.random_unknown(0.1, **o), {"unknown": "x"}),
        (lambda **o: data.log_mel(8000, **o), {"seconds": "one"}),
        (lambda **o: data.log_mel(8000, 1.0, **o), {"bands": 0}),
        (lambda **o: data.log_mel(8000, 1.0, **o), {"max_hz": -1}),
        (lambda **o: data.log_mel(8000, 1.0, **o), {"max_hz": 0}),
    ],
    ids=named,
)
def test_steps_and_features(function, options):
    check(dict([list(options.items())[-1]]), lambda: function(**options))


@pytest.mark.parametrize(
    "options",
    [{"seed": "text"}, {"seed": 0.5}, {"examples_per_shard": "many"}, {"views": 1.5},
     {"temperature": "hot"}],
    ids=named,
)  # fmt: skip
def test_store(options, tmp_path):
    check(options, lambda: teachers.store(model(), X, tmp_path, verbose=0, **options))


@pytest.mark.parametrize("top_k", [9, 0, {"other": 2}], ids=named)
def test_top_k_is_refused_without_what_tensorflow_adds(top_k, tmp_path):
    with pytest.raises(ValueError, match="top_k") as raised:
        teachers.store(model(), X, tmp_path, top_k=top_k, verbose=0)
    assert str(raised.value).startswith("`top_k`")
    assert "in user code" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("options", [{"seed": "text"}, {"view": "first"}, {"view": 7}], ids=named)
def test_attach(options, stored):
    check(options, lambda: stored.attach(X, **options))


@pytest.mark.parametrize("weights", [["much", 1.0], 3], ids=named)
def test_ensemble(weights):
    with pytest.raises(TypeError, match="`weights` must"):
        teachers.Ensemble([model(), model()], weights=weights)


@pytest.mark.parametrize(
    ("function", "options"),
    [(f, o) for f in (tuning.ablate, tuning.cross_validate, tuning.tune)
     for o in ({"seed": "text"}, {"seed": -1}, {"epochs": 0}, {"epochs": 1.5})]
    + [(tuning.ablate, {"runs": 0}), (tuning.cross_validate, {"folds": 1}),
       (tuning.tune, {"trials": "ten"})],
    ids=named,
)  # fmt: skip
def test_tuning(function, options):
    def build(**_):
        raise AssertionError("Nothing is built before the arguments are checked.")

    given = {"epochs": 1, **options}
    given |= {"space": {"a": (0.0, 1.0)}, "trials": 1} | options if function is tuning.tune else {}
    several = ((X, X[:, 0]),) * (1 if function is tuning.cross_validate else 2)
    check(options, lambda: function(build, *several, **given))


@pytest.mark.parametrize(
    "options", [{"step": "short"}, {"step": 0}, {"tolerance": -1}, {"tolerance": None}], ids=named
)
def test_streams(options):
    scores, events = np.zeros((1, 5, 2)), [[(0.0, 1.0, 1)]]
    check(options, lambda: evaluation.StreamData(scores, events, **{"step": 1.0, **options}))


@pytest.mark.parametrize(
    "options",
    [{"missing_label": "none"}, {"resamples": "many"}, {"latency_runs": -1}, {"batch_size": 0}],
    ids=named,
)
def test_compare(options):
    check(options, lambda: evaluation.compare({"a": model()}, (X, X[:, 0]), **options))


def check(options, call):
    (name, value), *_ = options.items()
    with pytest.raises((TypeError, ValueError), match=f"`{name}` must") as raised:
        call()
    assert f"{name}={value!r}" in str(raised.value)
