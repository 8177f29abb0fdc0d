"""What is particular to the losses on outputs: logits, invariances, extremes, labels, masks."""

import golden
import keras
import numpy as np
import pytest
import tensorflow as tf
from loss_cases import RESPONSE, joined, numeric_gradient, value_and_gradient
from sweeps import rest_is_long

import keras_distill
from keras_distill import losses

RNG = np.random.default_rng(1)
TEACHER, STUDENT = 3 * RNG.standard_normal((2, 6, 5))
LABELS = RNG.integers(0, 5, 6)

SOFTMAX_BASED = {
    "soft_targets": losses.SoftTargets,
    "dkd": losses.DKD,
    "dist": losses.DIST,
    "jensen_shannon": losses.JensenShannon,
    "mlkd": losses.MLKD,
    "rld": losses.RLD,
}
softmax_based = pytest.mark.parametrize("make", SOFTMAX_BASED.values(), ids=SOFTMAX_BASED)


def value(loss, teacher=TEACHER, student=STUDENT, labels=LABELS):
    y_true = np.float32(teacher)
    return float(loss((y_true, labels) if loss.needs_labels else y_true, np.float32(student)))


@pytest.mark.parametrize("case", rest_is_long(RESPONSE, RESPONSE[::3]), ids=lambda case: case.name)
def test_logits_of_60_keep_value_and_gradient(case):
    """Confident disagreement, where probabilities round to 0 and clipped ones stop pulling."""
    rng = np.random.default_rng(2)
    shape = case.student
    teacher, student = 60.0 * rng.choice([-1, 1], shape), 60.0 * rng.choice([-1, 1], shape)
    if shape[-1] > 1:
        student[..., 0], student[..., 1] = 60, -60
        teacher[..., 0], teacher[..., 1] = -60, 60
    labels = case.labels(rng) if case.labels else None
    got, gradient = value_and_gradient(case.loss(), teacher, labels, student)
    np.testing.assert_allclose(
        got, case.formula(teacher, student, labels).mean(), rtol=1e-5, atol=1e-5
    )
    want = numeric_gradient(lambda s: case.formula(teacher, s, labels).mean(), student, step=1e-3)
    np.testing.assert_allclose(gradient, want, rtol=1e-3, atol=1e-4)


def test_soft_targets_gradient_at_confident_disagreement():
    """T (q − p): with one-sided logits it is ±T, not 0."""
    loss = losses.SoftTargets(temperature=3.0)
    _, gradient = value_and_gradient(
        loss, np.array([[120.0, -120.0]]), None, np.array([[-120.0, 120.0]])
    )
    np.testing.assert_allclose(gradient, [[-3.0, 3.0]], rtol=1e-6)


def test_soft_targets_of_infinite_temperature_are_half_the_centered_mse():
    def centered(z):
        return z - z.mean(-1, keepdims=True)

    got = value(losses.SoftTargets(temperature=1000.0))
    want = 0.5 * golden.logit_mse(centered(TEACHER), centered(STUDENT)).mean()
    np.testing.assert_allclose(got, want, rtol=1e-2)


def test_sigmoid_at_temperature_1_is_keras_binary_crossentropy_less_the_entropy():
    """So that alpha weighs labels and teacher on one scale."""
    loss = losses.SoftTargets(temperature=1.0, activation="sigmoid")
    probabilities = tf.sigmoid(np.float32(TEACHER))
    student = tf.constant(STUDENT, "float32")
    with tf.GradientTape() as tape:
        tape.watch(student)
        cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)(probabilities, student)
    _, gradient = value_and_gradient(loss, TEACHER, None, STUDENT)
    np.testing.assert_allclose(gradient, tape.gradient(cross_entropy, student), atol=1e-6)


@softmax_based
@pytest.mark.parametrize("standardize", [False, True])
def test_a_constant_added_to_all_logits_changes_nothing(make, standardize):
    loss = make(standardize=standardize)
    shifted = value(loss, TEACHER + RNG.standard_normal((6, 1)), STUDENT - 4)
    np.testing.assert_allclose(shifted, value(loss), rtol=1e-5, atol=1e-6)


@softmax_based
def test_standardized_losses_ignore_the_scale_of_the_logits(make):
    loss = make(standardize=True)
    scaled = value(loss, 5 * TEACHER + 1, STUDENT * RNG.uniform(0.1, 9, (6, 1)))
    np.testing.assert_allclose(scaled, value(loss), rtol=1e-4, atol=1e-5)


@softmax_based
def test_order_of_classes_does_not_matter(make):
    order = np.random.default_rng(3).permutation(5)
    loss = make()
    permuted = value(loss, TEACHER[:, order], STUDENT[:, order], np.argsort(order)[LABELS])
    np.testing.assert_allclose(permuted, value(loss), rtol=1e-5)


def test_dist_ignores_positive_affine_changes_of_the_probabilities():
    p = golden.softmax(TEACHER)
    squashed = 0.3 * p + 0.7 * np.linspace(0, 1, 5) / 2.5
    same_rows = losses.DIST(beta=1.0, gamma=0.0)
    same_columns = losses.DIST(beta=0.0, gamma=1.0)
    uniform = 0.3 * p + 0.7 / 5
    np.testing.assert_allclose(value(same_rows, TEACHER, np.log(uniform)), 0, atol=1e-5)
    np.testing.assert_allclose(value(same_columns, TEACHER, np.log(squashed)), 0, atol=1e-5)
    assert value(same_rows, TEACHER, np.log(1 - uniform)) > 0.1


def test_jensen_shannon_at_its_ends_and_their_limits():
    forward = value(losses.SoftTargets(temperature=1.0))
    reverse = value(losses.SoftTargets(temperature=1.0), STUDENT, TEACHER)
    np.testing.assert_allclose(value(losses.JensenShannon(0.0)), forward, rtol=1e-6)
    np.testing.assert_allclose(value(losses.JensenShannon(1.0)), reverse, rtol=1e-6)
    tiny = 2.0**-23
    for beta, limit in ((tiny, forward), (1 - tiny, reverse)):
        near = value(losses.JensenShannon(beta, dtype="float64")) / tiny
        np.testing.assert_allclose(near, limit, rtol=1e-3)
    half = losses.JensenShannon(0.5)
    np.testing.assert_allclose(value(half), value(half, STUDENT, TEACHER), rtol=1e-5)
    assert value(half) < np.log(2)


def test_dkd_is_soft_targets_with_the_teachers_own_weight():
    """KD = TCKD + (1 − p_y) NCKD."""
    t, s, y = TEACHER[:1], STUDENT[:1], LABELS[:1]
    p = golden.softmax(t / 4)[0, y[0]]
    decoupled = value(losses.DKD(alpha=1.0, beta=1 - p, temperature=4.0), t, s, y)
    np.testing.assert_allclose(decoupled, value(losses.SoftTargets(4.0), t, s), rtol=1e-4)


def test_rld_of_a_right_teacher_is_dkd():
    right = TEACHER.argmax(-1)
    refined = value(losses.RLD(0.7, 3.0, 2.0), labels=right)
    np.testing.assert_allclose(refined, value(losses.DKD(0.7, 3.0, 2.0), labels=right), rtol=1e-5)


def test_rld_pulls_towards_the_label_where_the_teacher_is_wrong():
    """The teacher is sure of class 0, the label is 1: the student gains by going to 1, not 0."""
    teacher, student = np.array([[4.0, 1.0, 0.0]]), np.zeros((1, 3))
    _, gradient = value_and_gradient(losses.RLD(beta=0.0), teacher, np.array([1]), student)
    assert gradient[0, 1] < 0 < gradient[0, 0]
    np.testing.assert_allclose(gradient[0, 0], gradient[0, 2], rtol=1e-6)
    # Class 0 has no part in the second term, wherever the student puts it.
    far = losses.RLD(alpha=0.0)
    moved = (
        value(far, teacher, [[9.0, 0.0, 1.0]], [1]),
        value(far, teacher, [[-9.0, 0.0, 1.0]], [1]),
    )
    np.testing.assert_allclose(moved[0], moved[1], atol=1e-6)


def test_rld_without_classes_below_the_label_or_without_a_label():
    teacher, student = np.array([[4.0, 1.0, 0.0]]), np.array([[0.0, 2.0, 1.0]])
    assert value(losses.RLD(alpha=0.0), teacher, student, [2]) == 0
    assert value(losses.RLD(), teacher, student, [-1]) == 0


def test_mlkd_relates_samples_by_the_published_means():
    """‖·‖² / B of the batch's term and / C of the classes', as means over the batch."""
    p, q = golden.softmax(TEACHER / 3), golden.softmax(STUDENT / 3)
    between = np.square(p @ p.T - q @ q.T).sum() / 6 + np.square(p.T @ p - q.T @ q).sum() / 5
    want = between + value(losses.SoftTargets(3.0))
    np.testing.assert_allclose(value(losses.MLKD([3.0])), want, rtol=1e-5)


def test_mlkd_needs_temperatures():
    for wrong in (4.0, "4", None):
        with pytest.raises(TypeError, match=r"`temperatures` must be a list of.*Received: temp"):
            losses.MLKD(wrong)
    with pytest.raises(ValueError, match="at least one"):
        losses.MLKD([])
    with pytest.raises(ValueError, match="`temperatures`"):
        losses.MLKD([4.0, 0.0])


@pytest.mark.parametrize("reversal", [0.0, 0.3, 1.0])
def test_ctkd_trains_its_temperature_against_the_student(reversal):
    """θ's gradient is −λ times the derivative of the formula; the temperature itself stays."""
    loss = losses.CTKD(reversal)
    loss.build((6, 5), (6, 5))
    with tf.GradientTape() as tape:
        got = loss(np.float32(TEACHER), np.float32(STUDENT))
    gradient = tape.gradient(got, loss.state.trainable_weights)[0]

    def formula(raw):
        return golden.soft_targets(TEACHER, STUDENT, 1 + 20 / (1 + np.exp(-raw))).mean()

    np.testing.assert_allclose(got, formula(1.0), rtol=1e-5)
    slope = (formula(1 + 1e-5) - formula(1 - 1e-5)) / 2e-5
    np.testing.assert_allclose(gradient, -reversal * slope, rtol=1e-3, atol=1e-7)


def test_ctkd_in_a_distiller():
    """The student goes down, the temperature goes where the loss is larger."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5)])
    teacher = keras.models.clone_model(model)
    loss = losses.CTKD()
    distiller = keras_distill.Distiller(model, teacher, loss, alpha=0.0)
    distiller.compile(keras.optimizers.SGD(0.1))
    x = np.float32(TEACHER)
    given = teacher(x), model(x)
    before = float(loss(*given))
    distiller.fit(x, np.zeros(6), verbose=0)
    assert float(loss.state.raw) != 1
    assert float(loss(*given)) > before > float(loss(given[0], model(x)))


@pytest.mark.parametrize(
    "labels",
    [LABELS[:, None], np.eye(5)[LABELS], np.eye(5, dtype="int64")[LABELS], LABELS.astype("float")],
    ids=["column", "one_hot", "one_hot_integers", "floats"],
)
def test_dkd_takes_labels_in_every_form(labels):
    loss = losses.DKD()
    assert value(loss, labels=labels) == value(loss)


def test_dkd_skips_positions_whose_label_names_no_class():
    labels = np.where(np.arange(6) < 3, LABELS, -1)
    got = value(losses.DKD(reduction="sum"), labels=labels)
    want = value(losses.DKD(reduction="sum"), TEACHER[:3], STUDENT[:3], LABELS[:3])
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_dkd_of_two_classes_has_no_other_classes():
    t, s = TEACHER[:, :2], STUDENT[:, :2]
    got = value(losses.DKD(beta=8.0, temperature=1.0), t, s, LABELS % 2)
    np.testing.assert_allclose(got, value(losses.SoftTargets(1.0), t, s), rtol=1e-5)


@pytest.mark.parametrize(
    ("activation", "make"),
    [("softmax", make) for make in SOFTMAX_BASED.values()]
    + [
        ("softmax", losses.LogitMSE),
        ("sigmoid", lambda: losses.SoftTargets(activation="sigmoid")),
        ("sigmoid", losses.LogitMSE),
    ],
)
def test_models_that_end_in_probabilities_give_their_logits(activation, make):
    """Even where the probabilities themselves round to 0 or 1."""
    activate = keras.activations.get(activation)
    loss = make()
    teacher, student = tf.constant(20 * TEACHER, "float32"), tf.constant(20 * STUDENT, "float32")
    of_logits = loss(joined(teacher, LABELS) if loss.needs_labels else teacher, student)
    teacher, student = activate(teacher), activate(student)
    assert np.min(student) == 0
    of_probabilities = loss(joined(teacher, LABELS) if loss.needs_labels else teacher, student)
    assert of_probabilities == of_logits


def test_teacher_bound():
    teacher, labels = [[1.5], [1.5], [1.5]], [1.0, 1.0, 1.0]
    loss = losses.TeacherBoundedRegression(reduction="none")
    np.testing.assert_allclose(loss((teacher, labels), [[1.2], [2.0], [1.5]]), [0, 1, 0], atol=1e-6)
    loss = losses.TeacherBoundedRegression(margin=0.22, reduction="none")
    np.testing.assert_allclose(
        loss((teacher, labels), [[1.2], [1.1], [1.5]]), [0.04, 0, 0.25], atol=1e-6
    )


@pytest.mark.parametrize(
    "case", [c for c in RESPONSE if "tokens" in c.name], ids=lambda case: case.name
)
def test_masked_tokens_have_no_part(case):
    """Padding, by a Keras mask or by weights of 0 for each token, equals leaving tokens out."""
    teacher, student, labels = case.arrays()
    mask = np.array([[True, True, False], [True, False, False]])
    flat = teacher[mask], student[mask], None if labels is None else labels[mask]
    want = case.formula(*flat).sum()
    got, gradient = value_and_gradient(case.loss(), teacher, labels, student, mask=mask)
    np.testing.assert_allclose(got, want / 3, rtol=1e-5)
    np.testing.assert_array_equal(gradient[~mask], 0)
    weighted, _ = value_and_gradient(case.loss(), teacher, labels, student, mask.astype("float32"))
    np.testing.assert_allclose(weighted, want / 6, rtol=1e-5)
    teacher[~mask], student[~mask] = 9, RNG.standard_normal((3, 4))
    changed, changed_gradient = value_and_gradient(case.loss(), teacher, labels, student, mask=mask)
    assert changed == got
    np.testing.assert_array_equal(changed_gradient, gradient)


def test_a_scheduled_or_assigned_hyperparameter_takes_effect():
    loss = losses.SoftTargets(temperature=4.0)
    loss.temperature = 1.0
    assert value(loss) == value(losses.SoftTargets(1.0))


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (losses.SoftTargets, {"temperature": 0}, "`temperature` must be greater than 0"),
        (losses.SoftTargets, {"temperature": "4"}, "`temperature` must be a number"),
        (losses.SoftTargets, {"temperature": float("nan")}, "`temperature` must be finite"),
        (losses.SoftTargets, {"activation": "relu"}, "`activation` must be"),
        (losses.SoftTargets, {"activation": "sigmoid", "standardize": True}, "`standardize=True`"),
        (losses.DKD, {"alpha": -1}, "`alpha` must be at least 0"),
        (losses.DIST, {"gamma": -1}, "`gamma` must be at least 0"),
        (losses.JensenShannon, {"beta": 1.5}, "`beta` must be between 0 and 1"),
        (losses.TeacherBoundedRegression, {"margin": -0.1}, "`margin` must be at least 0"),
    ],
)
def test_bad_settings_are_refused(make, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make(**arguments)


@pytest.mark.parametrize("make", [*SOFTMAX_BASED.values(), losses.LogitMSE])
def test_shapes_that_would_broadcast_are_refused(make):
    loss = make()
    with pytest.raises(ValueError, match=r"teacher .* shape \(6, 5\), student .* \(6, 1\)"):
        value(loss, TEACHER, STUDENT[:, :1])


@softmax_based
def test_one_class_is_refused_with_the_mend(make):
    with pytest.raises(ValueError, match="activation='sigmoid'"):
        value(make(), TEACHER[:, :1], STUDENT[:, :1])


def test_labels_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="Labels must be class numbers"):
        value(losses.DKD(), labels=np.zeros((6, 2, 5)))
    with pytest.raises(ValueError, match="TeacherBoundedRegression"):
        value(losses.TeacherBoundedRegression(), labels=np.zeros((6, 3)))


def test_standardized_logits_of_the_authors_code():
    """Which divides by C - 1 where the paper, and `SoftTargets`, divide by the classes C."""
    t, s = np.random.default_rng(0).normal(size=(2, 6, 5)) * 3

    def theirs(z):
        return (z - z.mean(-1, keepdims=True)) / (z.std(-1, ddof=1, keepdims=True) + 1e-7)

    p, q = (np.exp(theirs(z) / 2) for z in (t, s))
    p, q = (x / x.sum(-1, keepdims=True) for x in (p, q))
    expected = 2**2 * (p * np.log(p / q)).sum(-1)
    loss = losses.SoftTargets(2 * (5 / 4) ** 0.5, standardize=True, dtype="float64", reduction=None)
    np.testing.assert_allclose(loss(t, s).numpy() * 4 / 5, expected, rtol=1e-6)


RULED_OUT = {
    **SOFTMAX_BASED,
    "sigmoid": lambda: losses.SoftTargets(activation="sigmoid"),
    "skewed_kl": losses.SkewedKL,
    "chunked": lambda: losses.Chunked(losses.SoftTargets(0.4)),
}


@pytest.mark.parametrize("make", RULED_OUT.values(), ids=RULED_OUT)
def test_classes_that_are_ruled_out(make):
    """A logit of -inf is that of a class of probability 0, as one of -1000 is."""
    at = np.arange(5) == LABELS[:, None] - 1
    results = []
    for low in (-np.inf, -1000.0):
        teacher, student = np.where(at, low, TEACHER), np.where(at, low, STUDENT)
        labels = LABELS if make().needs_labels else None
        results.append(value_and_gradient(make(), teacher, labels, student))
    (got, gradient), (expected, like) = results
    assert got == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, like, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(gradient[at], 0)
