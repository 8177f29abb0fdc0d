"""Losses on classes read from the models' outputs whether these are decisions of their own."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy import special

import keras_distill
from keras_distill import losses, quantization
from keras_distill.outputs import Output
from keras_distill.teachers import Ensemble, Teacher

OF_CLASSES = ["SoftTargets", "DIST", "JensenShannon", "DKD"]


def model(seed, activation="sigmoid", labels=3):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(labels, activation, name="scores")(inputs))


def data():
    return np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


def logits(model, x):
    scores = model.get_layer("scores")
    return np.float64(x) @ np.float64(scores.kernel) + np.float64(scores.bias)


def bernoulli(t, s, temperature):
    """T² · KL between Bernoulli distributions, the mean over labels and samples, in float64."""
    p, q = (1 / (1 + np.exp(-np.asarray(z, "float64") / temperature)) for z in (t, s))
    kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return temperature**2 * kl.mean()


def first_loss(distiller, x, **options):
    distiller.compile(keras.optimizers.SGD(0.0), jit_compile=False, **options)
    return distiller.fit(x, batch_size=8, verbose=0).history["loss"][0]


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("labels", [1, 3])
def test_two_sigmoid_models_are_compared_by_sigmoid(labels, eager):
    x, student, teacher = data(), model(1, labels=labels), model(2, labels=labels)
    expected = bernoulli(logits(teacher, x), logits(student, x), 4.0)
    distiller = keras_distill.Distiller(student, teacher, alpha=0)
    assert first_loss(distiller, x, run_eagerly=eager) == pytest.approx(expected, rel=1e-4)


def test_a_teacher_of_logits_and_a_student_of_sigmoids():
    x, student, teacher = data(), model(1), model(2, None)
    expected = bernoulli(logits(teacher, x), logits(student, x), 4.0)
    distiller = keras_distill.Distiller(student, teacher, alpha=0)
    assert first_loss(distiller, x) == pytest.approx(expected, rel=1e-4)


def test_a_quantize_aware_student_of_sigmoids():
    x, teacher = data(), model(2)
    student = quantization.quantize_aware(model(1), x)
    expected = bernoulli(logits(teacher, x), logits(model(1), x), 4.0)
    distiller = keras_distill.Distiller(student, teacher, alpha=0)
    assert first_loss(distiller, x) == pytest.approx(expected, rel=0.1)


def test_students_that_teach_each_other_by_sigmoids():
    x, students = data(), [model(seed) for seed in range(3)]
    distiller = keras_distill.MutualDistiller(students, alpha=0)
    z = [logits(student, x) for student in students]
    p = [1 / (1 + np.exp(-a)) for a in z]
    expected = 0.0
    for i in range(3):
        mean = (sum(p) - p[i]) / 2
        expected += bernoulli(np.log(mean / (1 - mean)), z[i], 1.0)
    assert first_loss(distiller, x) == pytest.approx(expected, rel=1e-4)


def test_what_is_asked_for_holds():
    x, student, teacher = data(), model(1, None), model(2, None)
    loss = losses.SoftTargets(2.0, activation="sigmoid")
    expected = bernoulli(logits(teacher, x), logits(student, x), 2.0)
    distiller = keras_distill.Distiller(student, teacher, loss, alpha=0)
    assert first_loss(distiller, x) == pytest.approx(expected, rel=1e-4)
    t, s = (keras.ops.sigmoid(tf.constant(z, "float32")) for z in np.eye(3)[None] * [[[2]], [[1]]])
    with pytest.warns(UserWarning, match="softmax"):
        asked = float(losses.SoftTargets(activation="softmax")(t, s))
    assert asked == pytest.approx(float(losses.SoftTargets()(2 * np.eye(3), np.eye(3))), rel=1e-5)


def test_the_choice_is_saved():
    for activation in (None, "softmax", "sigmoid"):
        loss = losses.SoftTargets(activation=activation)
        config = keras.saving.serialize_keras_object(loss)
        assert keras.saving.deserialize_keras_object(config).activation == activation


def compared(kind, activation, **options):
    """The value of a loss between what an activation of Keras makes of logits."""
    function = getattr(keras.activations, activation)
    t, s = (function(tf.constant(z)) for z in np.float32([np.eye(3), np.ones((3, 3)) - np.eye(3)]))
    labels = np.arange(3)
    return getattr(losses, kind)(**options)((t, labels) if kind == "DKD" else t, s)


@pytest.mark.parametrize("kind", OF_CLASSES)
def test_softmax_between_sigmoids_is_warned_of(kind):
    options = {"standardize": True} if kind == "SoftTargets" else {}
    with pytest.warns(UserWarning, match=rf'`{kind}`.*sigmoid.*SoftTargets\(activation="sigmoid'):
        compared(kind, "sigmoid", **options)


def test_warnings_are_given_in_fit():
    distiller = keras_distill.Distiller(model(1), model(2), losses.DIST(), alpha=0)
    with pytest.warns(UserWarning, match="`DIST` compares the probabilities of a softmax"):
        first_loss(distiller, data())


def test_models_that_end_in_different_activations():
    distiller = keras_distill.Distiller(model(1), model(2, "softmax"), alpha=0)
    with pytest.warns(UserWarning, match="teacher ends in softmax, the student in sigmoid"):
        first_loss(distiller, data())


@pytest.mark.parametrize("activation", ["linear", "softmax"])
@pytest.mark.parametrize("kind", OF_CLASSES)
def test_classifiers_are_not_warned_of(kind, activation):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compared(kind, activation)


class TestSoftmaxOverAnotherAxis:
    def model(self, axis):
        inputs = keras.Input((5, 3))
        x = layers.Softmax(axis=axis)(layers.Dense(3)(inputs))
        return keras.Model(inputs, x)

    x = np.random.default_rng(0).normal(size=(8, 5, 3)).astype("float32")

    @pytest.mark.parametrize("kind", ["SoftTargets", "DIST", "JensenShannon"])
    def test_is_refused(self, kind):
        y = self.model(1)(self.x)
        with pytest.raises(ValueError, match=r"along the last axis.*Softmax\(axis=-1\)"):
            getattr(losses, kind)()(y, y)

    def test_is_refused_in_fit(self):
        distiller = keras_distill.Distiller(self.model(1), self.model(1), alpha=0)
        with pytest.raises(ValueError, match="along the last axis"):
            first_loss(distiller, self.x)

    def test_of_a_teacher_whose_outputs_are_combined_or_stored(self, tmp_path):
        ensemble = Ensemble([self.model(1), self.model(1)])
        with pytest.raises(ValueError, match="along the last axis"):
            first_loss(keras_distill.Distiller(self.model(-1), ensemble, alpha=0), self.x)
        with pytest.raises(ValueError, match="along the last axis"):
            keras_distill.teachers.store(self.model(1), self.x, tmp_path / "answers")

    def test_the_last_axis_by_its_number(self):
        y = self.model(2)(self.x)
        assert float(losses.SoftTargets()(y, y)) == pytest.approx(0, abs=1e-6)

    def test_other_losses_take_it(self):
        y = self.model(1)(self.x)
        assert float(losses.LogitMSE()(y, y)) == 0


@pytest.mark.parametrize("graph", [False, True])
def test_axes_are_told_apart(graph):
    z = tf.constant(np.random.default_rng(0).normal(0, 3, (2, 5, 4)), "float32")
    found = []

    def look(z):
        for axis in (1, 2, -1):
            found.append(Output.of(keras.activations.softmax(z, axis=axis)).activation)

    (tf.function(look) if graph else look)(z)
    assert found == ["softmax over another axis", "softmax", "softmax"]


def test_probabilities_of_sigmoids_that_a_function_returns():
    x, student, teacher = data(), model(1), model(2)
    expected = bernoulli(logits(teacher, x), logits(student, x), 4.0)
    kernel, bias = teacher.get_weights()
    told = Teacher(
        lambda x: tf.nn.sigmoid(x @ kernel + bias), from_logits=False, activation="sigmoid"
    )
    distiller = keras_distill.Distiller(student, told, alpha=0)
    assert first_loss(distiller, x) == pytest.approx(expected, rel=1e-4)


def test_two_threads_may_call_one_loss():
    """As replicas and servers do: what one thread's models end in is nothing to the other's."""
    together = threading.Barrier(2)

    class Meeting(losses.SoftTargets):
        def call(self, y_true, y_pred):
            together.wait(60)
            return super().call(y_true, y_pred)

    loss, z = Meeting(activation=None), data()
    t, s = tf.constant(z[:4]), tf.constant(z[4:])

    def compare(activation):
        return float(loss(*(Output.from_logits(x, activation) for x in (t, s))))

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(compare, ("sigmoid", "softmax")))
    p, q = (np.exp(special.log_softmax(np.float64(x) / 4, -1)) for x in (t, s))
    softmax = 16 * special.rel_entr(p, q).sum(-1).mean()
    assert found == pytest.approx([bernoulli(t, s, 4.0), softmax], rel=1e-5)


def choosing(seed):
    """A model that may choose among the classes that its second input allows."""
    keras.utils.set_random_seed(seed)
    x, allowed = keras.Input((4,), name="x"), keras.Input((3,), dtype="bool", name="allowed")
    scores = layers.Dense(3, name="scores", kernel_initializer="he_normal")(x)
    chosen = layers.Softmax()(scores, mask=allowed)
    return keras.Model({"x": x, "allowed": allowed}, chosen)


class Choosing(keras.Model):
    def __init__(self, inner):
        super().__init__()
        self.scores, self.softmax = inner.get_layer("scores"), layers.Softmax()

    def call(self, inputs):
        return self.softmax(self.scores(inputs["x"]), mask=inputs["allowed"])


@pytest.mark.parametrize("subclassed", [False, True])
@pytest.mark.parametrize("eager", [False, True])
def test_the_logits_of_a_softmax_with_a_mask_are_recovered(eager, subclassed):
    """Keras keeps none: losses would read its probabilities as logits."""
    student, teacher = choosing(1), choosing(2)
    allowed = np.arange(24).reshape(8, 3) % 5 > 0
    p, q = (
        special.softmax(np.where(allowed, logits(model, data()), -np.inf) / 2, axis=-1)
        for model in (teacher, student)
    )
    expected = 4 * special.rel_entr(p, q).sum(-1).mean()
    inputs = {"x": data(), "allowed": allowed}
    trained = Choosing(student) if subclassed else student
    distiller = keras_distill.Distiller(trained, teacher, losses.SoftTargets(2.0), alpha=0)
    assert first_loss(distiller, inputs, run_eagerly=eager) == pytest.approx(expected, rel=1e-4)
