"""Several teachers: the mean that each loss reads, the weights, and what is reported."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill
from keras_distill.losses import DKD, JensenShannon, SoftTargets
from keras_distill.teachers import Ensemble, Function, Keyed, Teacher


@pytest.fixture(scope="module")
def members(dense):
    return [dense(seed=3, name="a"), dense(seed=4, name="b"), dense(seed=5, name="c")]


def test_the_mean_is_taken_at_the_temperature_of_each_loss(dense, members, x, loss_of, formulas):
    student = dense(seed=2)
    z = student(x)
    for temperature in (1.0, 4.0):
        p = sum(
            weight * formulas.softmax(np.asarray(member(x), "float64") / temperature)
            for weight, member in zip((0.2, 0.3, 0.5), members, strict=True)
        )
        expected = np.mean(formulas.soft_targets(np.log(p) * temperature, z, temperature))
        ensemble = Ensemble(members, weights=[2, 3, 5])
        loss = loss_of(student, ensemble, x, SoftTargets(temperature))
        assert loss == pytest.approx(expected, rel=1e-5)


def test_the_gradient_is_that_of_all_members_at_once(dense, members, x):
    """Σ w KL(p_k‖q) and KL(Σ w p_k‖q) have the same gradient."""
    student, loss = dense(seed=2), SoftTargets(3.0)

    def gradient(value):
        with tf.GradientTape() as tape:
            total = value(student(x))
        return tape.gradient(total, student.trainable_weights)

    answer, _ = Ensemble(members).answer(x)
    mean = Ensemble(members).combine(answer)
    ours = gradient(lambda z: loss(mean, z))
    theirs = gradient(lambda z: sum(loss(member(x), z) for member in members) / 3)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_logits_are_averaged_if_asked(dense, members, x, loss_of, formulas):
    student = dense(seed=2)
    mean = sum(np.asarray(member(x), "float64") for member in members) / 3
    expected = np.mean(formulas.soft_targets(mean, student(x), 4.0))
    for given in (members, [*members[:2], Teacher(members[2])]):
        loss = loss_of(student, Ensemble(given, combine="logits"), x)
        assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weights", ["entropy", "confidence"])
def test_weights_of_each_sample(dense, members, x, loss_of, formulas, weights):
    student = dense(seed=2)
    scores, softened = [], []
    for member in members:
        p = formulas.softmax(member(x))
        entropy = -(p * np.log(p)).sum(-1, keepdims=True)
        scores.append(np.exp(-entropy) if weights == "entropy" else p.max(-1, keepdims=True))
        softened.append(formulas.softmax(np.asarray(member(x), "float64") / 4))
    shares = np.stack(scores) / sum(scores)
    expected = np.mean(
        formulas.soft_targets(4 * np.log(sum(shares * np.stack(softened))), student(x), 4.0)
    )
    ensemble = Ensemble(members, weights)
    assert loss_of(student, ensemble, x) == pytest.approx(expected, rel=1e-5)
    figures = ensemble.figures(ensemble.answer(x)[0])
    for name, share in zip("abc", shares, strict=True):
        assert float(figures[f"{name}_share"]) == pytest.approx(share.mean(), rel=1e-5)
    assert np.ptp([float(share) for share in figures.values()]) > 0.01


def test_sigmoid_members(dense, x, loss_of):
    """Each label's probability is averaged for itself, found from the models or said."""
    student = dense(seed=2)
    z = [np.asarray(dense(seed=seed)(x), "float64") for seed in (3, 4)]
    p = sum(1 / (1 + np.exp(-logits / 2)) for logits in z) / 2
    q = 1 / (1 + np.exp(-np.asarray(student(x), "float64") / 2))
    expected = 4 * np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    loss = SoftTargets(2.0, activation="sigmoid")
    found = Ensemble([dense(activation="sigmoid", seed=seed) for seed in (3, 4)])
    said = Ensemble([dense(seed=seed) for seed in (3, 4)], activation="sigmoid")
    for ensemble in (found, said):
        assert loss_of(student, ensemble, x, loss) == pytest.approx(expected, rel=1e-5)


def test_members_of_all_kinds(dense, members, x, loss_of):
    """A model, one with softmax, a function and a teacher with other inputs, as four of one."""
    student = dense(seed=2)
    plain = members[0]
    ensemble = Ensemble(
        [
            plain,
            keras.Sequential([plain, layers.Softmax()]),
            Teacher(lambda x: tf.nn.softmax(plain(x)), from_logits=False),
            Teacher(plain, preprocess=lambda x: x * 1.0),
        ]
    )
    expected = loss_of(student, plain, x)
    assert loss_of(student, ensemble, x) == pytest.approx(expected, rel=1e-5)
    keys = np.arange(len(x))
    assert loss_of(student, ensemble, Keyed(x, keys)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [JensenShannon(temperature=3.0), SoftTargets(3.0)])
def test_copies_of_one_teacher_are_that_teacher(dense, x, loss_of, loss):
    student = dense(seed=2)
    one = loss_of(student, dense(), x, loss.from_config(loss.get_config()))
    for weights in (None, "entropy", "confidence", "learned", [0, 1]):
        both = Ensemble([dense(name="one"), dense(name="two")], weights)
        value = loss_of(student, both, x, loss.from_config(loss.get_config()))
        assert value == pytest.approx(one, rel=1e-5)


def test_fit_reports_shares_and_runs_each_member_once(dense, x):
    calls = []
    ensemble = Ensemble(
        [
            Function(lambda x, m=member: (calls.append(1), m(x))[1], name=name)
            for name, member in (("p", dense(seed=3)), ("q", dense(seed=4)))
        ],
        weights=[1, 3],
    )
    distiller = keras_distill.Distiller(dense(seed=2), ensemble, [DKD(), SoftTargets()], alpha=0.1)
    assert len(calls) == 2, "to see the shapes"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("adam", loss)
    x = tf.constant(x)
    distiller.build_for(x)
    calls.clear()
    distiller.compute_losses(
        x, tf.zeros(16, "int32"), distiller.run_student(x), distiller.ask_teacher(x)
    )
    assert len(calls) == 2
    history = distiller.fit(x, np.zeros(16), verbose=0).history
    assert history["p_share"] == [pytest.approx(0.25)]
    assert history["q_share"] == [pytest.approx(0.75)]


@pytest.mark.long
def test_learned_weights_move_to_the_member_the_student_can_follow(dense, x, tmp_path):
    """And nothing of the members moves."""
    student = dense(seed=2)
    near, far = dense(seed=2, name="near"), dense(seed=3, name="far")
    before = [np.array(w) for w in near.weights + far.weights]
    ensemble = Ensemble([near, far], weights="learned")
    distiller = keras_distill.Distiller(student, ensemble, SoftTargets(1.0), alpha=0.0)
    distiller.compile(keras.optimizers.SGD(0.05))
    assert any(ensemble.state.scores is v for v in distiller.trainable_variables)
    history = distiller.fit(x, batch_size=16, epochs=30, verbose=0).history
    assert history["near_share"][0] == pytest.approx(0.5)
    assert history["near_share"][-1] > 0.52
    assert history["near_share"][-1] + history["far_share"][-1] == pytest.approx(1)
    for weight, old in zip(near.weights + far.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    # What was learned is saved with the distiller's weights, and not with the student.
    learned = np.array(ensemble.state.scores)
    distiller.save_weights(tmp_path / "all.weights.h5")
    ensemble.state.scores.assign([0, 0])
    distiller.load_weights(tmp_path / "all.weights.h5")
    np.testing.assert_array_equal(ensemble.state.scores, learned)
    assert len(student.weights) == 4


def test_features_of_members(dense, members, x):
    """A layer of a member is tapped by the member's name and its path."""
    hint = keras_distill.Match(
        keras.losses.MeanSquaredError(), student="hidden", teacher="b/hidden"
    )
    distiller = keras_distill.Distiller(dense(seed=2), Ensemble(members), hint, alpha=0.0)
    answer = distiller.ask_teacher(x)
    expected = np.tanh(x @ members[1].layers[0].kernel + members[1].layers[0].bias)
    np.testing.assert_allclose(answer.features["b/hidden"], expected, rtol=1e-4, atol=1e-6)
    by_layer = Ensemble(members).tap_path(members[2].layers[0])
    assert by_layer == "c/hidden"
    with pytest.raises(ValueError, match=r"no layer 'hidden'|has the layer 'hidden'.*'a/"):
        Ensemble(members).tap_path("hidden")


def test_several_outputs(x):
    given = keras.Input((4,))
    z = layers.Dense(3, name="z")(given)
    model = keras.Model(given, {"z": z, "w": layers.Dense(2, name="w")(z)})
    other = keras.models.clone_model(model)
    mean = Ensemble([model, other], combine="logits")
    answer = mean.combine(mean.answer(x)[0])
    for name in ("z", "w"):
        expected = (model(x)[name] + other(x)[name]) / 2
        np.testing.assert_allclose(answer[name].values, expected, rtol=1e-5, atol=1e-6)


def test_members_with_one_name(dense):
    assert Ensemble([dense(name="m"), dense(seed=2, name="m")]).figure_names == (
        "m_share",
        "m_2_share",
    )


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"weights": [1]}, ValueError, r"each of the 2 teachers.*\[1\]"),
        ({"weights": [1, -1]}, ValueError, r"at least 0.*-1"),
        ({"weights": [0, 0]}, ValueError, "not all 0"),
        ({"weights": [1, float("nan")]}, ValueError, "nan"),
        ({"weights": "votes"}, ValueError, "'votes'"),
        ({"combine": "vote"}, ValueError, "combine='vote'"),
        ({"activation": "tanh"}, ValueError, "activation='tanh'"),
        ({"activation": {"z": "sigmoid"}}, ValueError, "to the members.*'z'"),
    ],
)
def test_bad_arguments(dense, arguments, error, says):
    with pytest.raises(error, match=says):
        Ensemble([dense(), dense()], **arguments)


def test_bad_members(dense):
    with pytest.raises(ValueError, match="two teachers or more"):
        Ensemble([dense()])
    with pytest.raises(TypeError, match="must be a list"):
        Ensemble(dense())
    with pytest.raises(ValueError, match="learned weights can't"):
        Ensemble([Ensemble([dense(), dense()], "learned"), dense()])
    with pytest.raises(ValueError, match=r"'five'.*\(5,\).*\(3,\).*class_map"):
        keras_distill.Distiller(dense(), Ensemble([dense(), dense(5, name="five")]))
