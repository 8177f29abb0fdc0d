"""A teacher that follows the student."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill
from keras_distill.callbacks import MovingAverage


class Record(keras.callbacks.Callback):
    """The student's weights after each step, in float64."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_batch_end(self, batch, logs=None):
        found = self.model.student.get_weights()
        self.weights.append([weight.astype("float64") for weight in found])


def model():
    return keras.Sequential([keras.Input((4,)), layers.BatchNormalization(), layers.Dense(3)])


def compiled(distiller, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.3), loss, **options)
    return distiller


def averages(steps, decay):
    """The series of the formula in float64: of each step, the means of all weights."""
    means, series = None, []
    for t, weights in enumerate(steps, 1):
        a = min(1 - 1 / t, decay)
        means = [a * m + (1 - a) * w for m, w in zip(means or weights, weights, strict=True)]
        series.append(means)
    return series


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.fixture
def followed(rng):
    """A student, the teacher that follows it, and what was recorded in eight steps."""
    student, teacher = model(), model()
    distiller = keras_distill.Distiller(student, teacher, alpha=0.5, missing_label=-1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.3), loss)
    x, y = rng.normal(size=(16, 4)).astype("float32"), rng.integers(-1, 3, 16)
    record = Record()
    for _ in range(2):  # It goes on from one `fit` to the next.
        distiller.fit(x, y, 4, verbose=0, callbacks=[record, MovingAverage(teacher, decay=0.6)])
    return student, teacher, record.weights


def test_weights_are_those_of_the_formula(followed):
    _, teacher, steps = followed
    assert len(steps) == 8
    assert_close(teacher.get_weights(), averages(steps, 0.6)[-1])


class Means(MovingAverage):
    """Notes the averages after each batch."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.series = []

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        self.series.append(self.teacher.get_weights())


class Stop(keras.callbacks.Callback):
    """Interrupts a run."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["fit", "compile", "own file", "saved", "weights", "restored"])
def test_it_goes_on_where_it_was(rng, tmp_path, how):
    student, teacher = model(), model()
    distiller = compiled(keras_distill.Distiller(student, teacher, alpha=0.5))
    x, y = rng.normal(size=(16, 4)).astype("float32"), rng.integers(0, 3, 16)
    record, follow = Record(), Means(teacher, decay=0.75)

    def fit(distiller, *callbacks, epochs=1):
        distiller.fit(x, y, 4, epochs=epochs, verbose=0, callbacks=[*callbacks, record, follow])

    if how == "restored":
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        with pytest.raises(KeyboardInterrupt):
            fit(distiller, backup, Stop(), epochs=2)
    else:
        fit(distiller)
    series, steps = follow.series, 0
    if how == "compile":
        compiled(distiller)
    elif how == "own file":
        teacher.save(tmp_path / "teacher.keras")
        teacher, steps = keras.models.load_model(tmp_path / "teacher.keras"), len(series)
        distiller = compiled(keras_distill.Distiller(student, teacher, alpha=0.5))
    elif how == "saved":
        distiller.save(tmp_path / "distiller.keras")
        # One that is saved before it has a teacher loses nothing.
        keras.models.load_model(tmp_path / "distiller.keras").save(tmp_path / "distiller.keras")
        distiller = compiled(keras.models.load_model(tmp_path / "distiller.keras"))
        distiller.teacher = teacher = model()
    elif how in ("weights", "restored"):
        teacher = model()
        saved = distiller
        distiller = compiled(keras_distill.Distiller(model(), teacher, alpha=0.5))
        if how == "weights":
            saved.save_weights(tmp_path / "distiller.weights.h5")
            distiller.load_weights(tmp_path / "distiller.weights.h5")
    follow = Means(teacher, decay=0.75, steps=steps)
    if how == "restored":
        fit(distiller, keras.callbacks.BackupAndRestore(tmp_path / "backup"), epochs=2)
    else:
        fit(distiller)
    series += follow.series
    assert len(series) == 8
    for found, expected in zip(series, averages(record.weights, 0.75), strict=True):
        assert_close(found, expected)


def test_it_starts_with_the_first_step_that_it_sees(rng):
    """After training without it; and where a batch's end comes after several steps."""
    student, teacher = model(), model()
    distiller = compiled(keras_distill.Distiller(student, teacher), steps_per_execution=2)
    x, y = rng.normal(size=(16, 4)).astype("float32"), rng.integers(0, 3, 16)
    distiller.fit(x, y, 4, verbose=0)
    record = Record()
    distiller.fit(x, y, 4, verbose=0, callbacks=[record, MovingAverage(teacher)])
    assert len(record.weights) == 2
    assert_close(teacher.get_weights(), averages(record.weights, 0.999)[-1])


def test_two_teachers_follow_at_their_own_pace(rng, tmp_path):
    """As members of an ensemble; another teacher takes no other's average."""

    def both():
        return keras_distill.teachers.Ensemble([model(), model()])

    def follow(ensemble):
        one, other = ensemble.teachers
        return [MovingAverage(one.model, decay=0.0), MovingAverage(other.model, decay=1.0)]

    distiller = compiled(keras_distill.Distiller(model(), model(), alpha=0.5))
    x, y = rng.normal(size=(16, 4)).astype("float32"), rng.integers(0, 3, 16)
    distiller.fit(x, y, verbose=0, callbacks=[MovingAverage(distiller.teacher.model)])
    distiller.teacher = both()
    record, data = Record(), (x, y, 4)
    distiller.fit(*data, verbose=0, callbacks=[record, *follow(distiller.teacher)])
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    loaded.teacher = both()
    loaded.fit(*data, verbose=0, callbacks=[record, *follow(loaded.teacher)])
    for member, decay in zip(loaded.teacher.teachers, (0.0, 1.0), strict=True):
        assert_close(member.model.get_weights(), averages(record.weights, decay)[-1])


def test_the_student_moves_and_the_teacher_lags(followed):
    student, teacher, steps = followed
    for after, mean, first in zip(
        student.get_weights(), teacher.get_weights(), steps[0], strict=True
    ):
        assert 0 < np.abs(after - mean).max() < np.abs(after - first).max()


def test_it_follows_steps_not_batches(rng):
    """Of accumulated gradients; and with the statistics of an adapted layer."""
    x, y = rng.normal(3, 2, (32, 4)).astype("float32"), rng.integers(0, 3, 32)
    student = keras.Sequential([keras.Input((4,)), layers.Normalization(), layers.Dense(3)])
    student.layers[0].adapt(x)
    teacher = keras.models.clone_model(student)
    distiller = keras_distill.Distiller(student, teacher, alpha=0.5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sgd = keras.optimizers.SGD(0.3, gradient_accumulation_steps=2)
    distiller.compile(sgd, loss, jit_compile=False)
    record = Record()
    distiller.fit(x, y, 8, verbose=0, callbacks=[record, MovingAverage(teacher)])
    mean = [(a + b) / 2 for a, b in zip(record.weights[1], record.weights[3], strict=True)]
    for found, expected in zip(teacher.get_weights(), mean, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(teacher.layers[0](x), student.layers[0](x), atol=1e-5)


class Counter(layers.Layer):
    """Counts calls, and knows of an end."""

    def build(self, shape):
        zero = {"shape": (), "initializer": "zeros", "trainable": False}
        self.calls = self.add_weight(dtype="int32", **zero)
        self.is_done = self.add_weight(dtype="bool", **zero)

    def call(self, x, training=False):
        if training:
            self.calls.assign_add(1)
            self.is_done.assign(self.calls > 6)
        return x


def test_integers_and_truth_values_are_the_students(rng):
    """A mean of counts would be rounded down at each step."""
    student, teacher = (
        keras.Sequential([keras.Input((4,)), Counter(), layers.Dense(3)]) for _ in range(2)
    )
    distiller = compiled(keras_distill.Distiller(student, teacher, alpha=0.5))
    x, y = rng.normal(size=(32, 4)).astype("float32"), rng.integers(0, 3, 32)
    distiller.fit(x, y, 4, verbose=0, callbacks=[MovingAverage(teacher, decay=0.75)])
    counters = student.layers[0], teacher.layers[0]
    assert [int(counter.calls) for counter in counters] == [8, 8]
    assert [counter.is_done.numpy() for counter in counters] == [True, True]


def test_what_cannot_follow_is_named():
    student, other = model(), keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller = keras_distill.Distiller(student, other)
    distiller.compile("sgd", loss)
    x, y = np.zeros((4, 4)), np.zeros(4)
    with pytest.raises(ValueError, match="weights of the same shapes as the student"):
        distiller.fit(x, y, verbose=0, callbacks=[MovingAverage(other)])
    student.compile("sgd", loss)
    with pytest.raises(ValueError, match="is not a `Distiller`"):
        student.fit(x, y, verbose=0, callbacks=[MovingAverage(other)])
    with pytest.raises(TypeError, match="`teacher` must be a Keras model.*Received: 'teacher'"):
        MovingAverage("teacher")
    with pytest.raises(ValueError, match="`decay` must be between 0 and 1"):
        MovingAverage(other, decay=2)
    with pytest.raises(ValueError, match="`steps` must be a whole number of at least 0.*-1"):
        MovingAverage(other, steps=-1)


@pytest.mark.parametrize("kind", ["student", "another model"])
def test_only_the_teacher_follows(kind):
    student, teacher = model(), model()
    distiller = compiled(keras_distill.Distiller(student, teacher))
    x, y = np.zeros((4, 4)), np.zeros(4)
    before = student.get_weights()
    wrong = student if kind == "student" else model()
    says = f"`teacher` must be the distiller's teacher.*Received: '{wrong.name}'.*{teacher.name}"
    with pytest.raises(ValueError, match=says):
        distiller.fit(x, y, verbose=0, callbacks=[MovingAverage(wrong)])
    assert_close(student.get_weights(), before)
    # A function doesn't tell what it calls.
    distiller.teacher = lambda x: teacher(x)
    distiller.fit(x, y, verbose=0, callbacks=[MovingAverage(teacher)])
    with pytest.raises(ValueError, match="and not the student"):
        distiller.fit(x, y, verbose=0, callbacks=[MovingAverage(student)])


def test_it_follows_batches_of_a_loop_without_epochs(rng):
    student, teacher = model(), model()
    distiller = compiled(keras_distill.Distiller(student, teacher, alpha=0.5))
    x, y = rng.normal(size=(4, 4)).astype("float32"), rng.integers(0, 3, 4)
    record, follows = Record(), MovingAverage(teacher, decay=0.6)
    callbacks = keras.callbacks.CallbackList([record, follows], model=distiller)
    callbacks.on_train_begin()
    for batch in range(3):
        distiller.train_on_batch(x, y)
        callbacks.on_train_batch_end(batch)
    assert_close(teacher.get_weights(), averages(record.weights, 0.6)[-1])


def test_it_may_be_in_a_function_of_an_ensemble(rng):
    student, teacher = model(), model()
    function = keras_distill.teachers.Function(teacher.call, tf.TensorSpec((None, 3)))
    ensemble = keras_distill.teachers.Ensemble([function, model()])
    distiller = compiled(keras_distill.Distiller(student, ensemble, alpha=0.5))
    x, y = rng.normal(size=(4, 4)).astype("float32"), rng.integers(0, 3, 4)
    distiller.fit(x, y, 4, verbose=0, callbacks=[MovingAverage(teacher)])
    assert_close(teacher.get_weights(), student.get_weights())
