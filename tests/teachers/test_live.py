"""One teacher: logits or probabilities, other inputs, other classes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_distill
from keras_distill.evaluation.candidates import as_candidate
from keras_distill.losses import SoftTargets
from keras_distill.outputs import values_of
from keras_distill.teachers import Keyed, Teacher
from keras_distill.teachers.conversion import as_teacher


@keras.saving.register_keras_serializable("keras_distill_tests")
class HandMade(keras.Model):
    """A model whose softmax or sigmoid isn't one of Keras'."""

    def __init__(self, inner, function):
        super().__init__()
        self.inner = inner
        self.function = function

    def call(self, inputs):
        return self.function(self.inner(inputs))


def ends(kind, inner):
    """`inner`, which gives logits, with a softmax put behind it in one of many ways."""
    if kind == "subclass":
        return HandMade(inner, keras.activations.softmax)
    softmax = {
        "activation": layers.Activation("softmax"),
        "layer": layers.Softmax(),
        "function": keras.activations.softmax,
        "operation": ops.softmax,
    }[kind]
    return keras.Model(inner.inputs[0], softmax(inner.outputs[0]))


@pytest.mark.parametrize("kind", ["activation", "layer", "function", "operation", "subclass"])
def test_softmax_at_the_end_is_found(dense, x, loss_of, kind):
    student = dense(seed=2)
    expected = loss_of(student, dense(), x * 20)
    assert loss_of(student, ends(kind, dense()), x * 20) == pytest.approx(expected, rel=1e-5)


def test_probabilities_are_said(dense, x, loss_of):
    student = dense(seed=2)
    x = x * 5
    expected = loss_of(student, dense(), x)
    probabilities = HandMade(dense(), lambda z: tf.exp(z) / tf.reduce_sum(tf.exp(z), -1)[:, None])
    said = Teacher(probabilities, from_logits=False)
    assert loss_of(student, said, x) == pytest.approx(expected, rel=1e-5)
    assert abs(loss_of(student, probabilities, x) - expected) > 0.1 * expected


@pytest.mark.parametrize("classes", [1, 3])
def test_sigmoid_is_found_or_said(dense, x, loss_of, classes):
    student = dense(classes, seed=2)
    z, student_z = dense(classes)(x).numpy(), student(x).numpy()
    p, q = 1 / (1 + np.exp(-z.astype("float64") / 2)), 1 / (1 + np.exp(-student_z / 2))
    divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    loss = SoftTargets(temperature=2.0, activation="sigmoid")
    expected = loss_of(student, dense(classes), x, loss)
    said = Teacher(
        HandMade(dense(classes), lambda z: 1 / (1 + tf.exp(-z))),
        from_logits=False,
        activation="softmax" if classes == 1 else "sigmoid",
    )
    for teacher in (dense(classes, "sigmoid"), said):
        assert loss_of(student, teacher, x, loss) == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(4 * divergence.mean(), rel=1e-5)


def test_probabilities_of_0_and_1_stay_finite():
    p = np.array([[1.0, 0.0], [0.25, 0.75]], "float32")
    softmax = Teacher(HandMade(layers.Identity(), tf.identity), from_logits=False)
    sigmoid = Teacher(
        HandMade(layers.Identity(), tf.identity), from_logits=False, activation="sigmoid"
    )
    for teacher, inverse in ((softmax, ops.softmax), (sigmoid, ops.sigmoid)):
        logits = teacher.answer(p)[0].logits
        assert np.isfinite(logits).all()
        np.testing.assert_allclose(inverse(logits), p, atol=1e-7)


def test_losses_of_probabilities_still_see_probabilities(dense, x, loss_of, formulas):
    """A Keras loss that compares what models answer isn't given logits instead."""
    student, loss = dense(activation="softmax", seed=2), keras.losses.MeanSquaredError()
    p, q = formulas.softmax(dense()(x)), formulas.softmax(dense(seed=2)(x))
    teacher = Teacher(dense(5, "softmax"), class_map=[0, 1, 2])
    few = formulas.softmax(np.asarray(dense(5)(x))[:, :3])
    assert loss_of(student, dense(activation="softmax"), x, loss) == pytest.approx(
        np.mean((p - q) ** 2), rel=1e-5
    )
    assert loss_of(student, teacher, x, loss) == pytest.approx(np.mean((few - q) ** 2), rel=1e-5)


@pytest.mark.parametrize("activation", [None, "softmax", "said"])
def test_class_map_chooses_reorders_and_renormalizes(dense, x, loss_of, formulas, activation):
    student, classes = dense(3, seed=2), [4, 0, 2]
    logits = dense(5)(x).numpy()
    p = formulas.softmax(logits)[:, classes]
    p /= p.sum(-1, keepdims=True)
    expected = np.mean(formulas.soft_targets(np.log(p), student(x), 4.0))
    if activation == "said":
        teacher = Teacher(
            HandMade(dense(5), tf.nn.softmax), from_logits=False, class_map=np.array(classes)
        )
    else:
        teacher = Teacher(dense(5, activation), class_map=classes)
    assert loss_of(student, teacher, x) == pytest.approx(expected, rel=1e-5)


def test_class_map_of_a_sigmoid_chooses_without_renormalizing(dense, x):
    teacher = Teacher(dense(5, "sigmoid"), class_map=[4, 0])
    expected = dense(5, "sigmoid")(x).numpy()[:, [4, 0]]
    np.testing.assert_allclose(teacher.answer(x)[0].values, expected, rtol=1e-6)
    in_graph = tf.function(lambda x: teacher.answer(x)[0].values)(x)
    np.testing.assert_allclose(in_graph, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("class_map", "error", "says"),
    [
        ([0, 0], ValueError, r"at most once.*\[0, 0\]"),
        ([-1, 0], ValueError, r"counting from 0.*\[-1, 0\]"),
        ([0.5, 1], TypeError, r"integer.*\[0.5, 1\]"),
        (3, TypeError, "class_map=3"),
        ([], TypeError, r"class_map=\[\]"),
    ],
)
def test_bad_class_maps(dense, class_map, error, says):
    with pytest.raises(error, match=says):
        Teacher(dense(), class_map=class_map)


def test_misfits_say_both_shapes_and_the_mend(dense):
    with pytest.raises(ValueError, match=r"\(None, 3\).*\(None, 5\)(.|\n)*class_map"):
        keras_distill.Distiller(dense(3), dense(5))
    with pytest.raises(ValueError, match=r"class 7.*\(None, 5\)"):
        keras_distill.Distiller(dense(3), Teacher(dense(5), class_map=[0, 1, 7]))
    given = keras.Input((6,))
    student = keras.Model(given, layers.Dense(3)(given))
    with pytest.raises(ValueError, match=r"can't read.*\(None, 6\)(.|\n)*preprocess="):
        keras_distill.Distiller(student, dense(3))


def test_other_eyes(rng, loss_of, formulas):
    """Another resolution, dtype and normalization than the student's, from uint8 images."""
    images = rng.integers(0, 256, (6, 8, 8, 3)).astype("uint8")
    student = keras.Sequential(
        [keras.Input((8, 8, 3), dtype="uint8"), layers.Rescaling(1 / 255), layers.Flatten()]
    )
    student.add(layers.Dense(3))
    large = keras.Sequential([keras.Input((16, 16, 3)), layers.Flatten(), layers.Dense(3)])

    def preprocess(images):
        images = ops.image.resize(ops.cast(images, "float32"), (16, 16), interpolation="nearest")
        return keras.applications.mobilenet_v2.preprocess_input(images)

    by_hand = images.repeat(2, 1).repeat(2, 2).astype("float32") / 127.5 - 1
    expected = np.mean(formulas.soft_targets(large(by_hand), student(images), 4.0))
    teacher = Teacher(large, preprocess=preprocess)
    assert loss_of(student, teacher, images) == pytest.approx(expected, rel=1e-4)


def test_texts_with_a_tokenizer_of_its_own(loss_of, formulas):
    texts = tf.constant([["a b"], ["b c"], ["c c a"]])
    vectorize = layers.TextVectorization(output_mode="multi_hot", vocabulary=["a", "b", "c"])
    short = layers.TextVectorization(output_mode="multi_hot", vocabulary=["a", "b"])
    student = keras.Sequential([keras.Input((1,), dtype="string"), short, layers.Dense(2)])
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    expected = np.mean(formulas.soft_targets(inner(vectorize(texts)), student(texts), 4.0))
    teacher = Teacher(inner, preprocess=vectorize)
    assert loss_of(student, teacher, texts) == pytest.approx(expected, rel=1e-5)


def test_outputs_by_name(dense, x, formulas):
    """What is said of one output doesn't touch the others."""
    given = keras.Input((4,))
    raw = HandMade(layers.Dense(5, name="five"), tf.nn.softmax)
    model = keras.Model(given, {"kind": raw(given), "size": layers.Dense(2)(given)})
    teacher = Teacher(model, from_logits={"kind": False}, class_map={"kind": [1, 3]})
    answer, plain = values_of(teacher.answer(x)[0]), model(x)
    p = plain["kind"].numpy()[:, [1, 3]]
    np.testing.assert_allclose(answer["kind"], p / p.sum(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(answer["size"], plain["size"])


def test_keyed_batches_train_evaluate_and_predict(dense, x, formulas):
    """Student and teacher read the inputs alone, and plain inputs go on working."""
    y = np.arange(16) % 3
    student, teacher = dense(seed=2), dense()
    distiller = keras_distill.Distiller(student, teacher, SoftTargets(2.0), alpha=0.5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.0), loss)
    data = keras_distill.teachers.keyed(tf.data.Dataset.from_tensor_slices((x, y))).batch(16)
    batch, _ = next(iter(data))
    assert isinstance(batch, Keyed)
    np.testing.assert_array_equal(batch.keys, np.arange(16))
    from_dataset = distiller.evaluate(data, verbose=0)
    assert distiller.evaluate(x, y, verbose=0) == pytest.approx(from_dataset)
    np.testing.assert_array_equal(distiller.predict(data, verbose=0), distiller.predict(x))
    z = student.predict(x, verbose=0)
    soft = formulas.soft_targets(teacher.predict(x, verbose=0), z, 2.0).mean()
    hard = -formulas.log_softmax(z)[np.arange(16), y].mean()
    assert distiller.evaluate(data, verbose=0) == pytest.approx(hard, rel=1e-5)
    expected = [pytest.approx(0.5 * (hard + soft), rel=1e-5)]
    assert distiller.fit(data, verbose=0).history["loss"] == expected
    # Arrays need no dataset.
    keyed = Keyed(x, np.arange(16))
    assert distiller.fit(keyed, y, verbose=0, batch_size=6).history["loss"] == expected


def test_what_is_no_teacher(dense):
    for teacher in (3, object(), [1, 2]):
        with pytest.raises(TypeError, match=r"keras_distill\.teachers"):
            keras_distill.Distiller(dense(), teacher)
    with pytest.raises(TypeError, match=r"preprocess.*'resize'"):
        Teacher(dense(), preprocess="resize")


def test_numerics_are_checked_without_losing_logits(dense, x):
    """A check for NaN must not hide the logits behind a saturated softmax."""
    values = []
    for check_numerics in (False, True):
        teacher = ends("activation", dense())
        distiller = keras_distill.Distiller(
            dense(seed=2), teacher, alpha=0.0, check_numerics=check_numerics
        )
        distiller.compile("sgd")
        values.append(distiller.train_on_batch(x * 50))
    assert values[0] == pytest.approx(values[1], rel=1e-6)


class TestPathsOfHDF5Files:
    def model(self):
        keras.utils.set_random_seed(0)
        return keras.Sequential([keras.Input((4,)), layers.Dense(3, name="scores")])

    @pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
    def test_are_teachers_and_candidates(self, suffix, tmp_path):
        model, path = self.model(), tmp_path / f"teacher{suffix}"
        model.save(path)
        x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
        expected = model.predict(x, verbose=0)
        got = values_of(as_teacher(path).answer(tf.constant(x))[0])
        np.testing.assert_allclose(got, expected, rtol=1e-6)
        outputs = as_candidate(str(path), "teacher").outputs(x, 8)
        np.testing.assert_allclose(outputs, expected, rtol=1e-6)

    def test_with_weights_alone(self, tmp_path):
        path = tmp_path / "teacher.weights.h5"
        self.model().save_weights(path)
        for load in (as_teacher, lambda path: as_candidate(path, "teacher")):
            with pytest.raises(ValueError, match=r"weights without a model.*load_weights\("):
                load(path)

    @pytest.mark.parametrize("name", ["t.h5", "t.keras"])
    def test_that_hold_something_else(self, name, tmp_path):
        (tmp_path / name).write_text("no model")
        for load in (as_teacher, lambda path: as_candidate(path, "teacher")):
            with pytest.raises(ValueError, match=f"{name} is not a model of Keras"):
                load(tmp_path / name)

    @pytest.mark.parametrize("name", ["t.h5", "t.keras"])
    def test_that_do_not_exist(self, name, tmp_path):
        for load in (as_teacher, lambda path: as_candidate(path, "teacher")):
            with pytest.raises(ValueError, match=f"no file .*{name}"):
                load(tmp_path / name)
