"""Batches that are dicts: each model reads its own entries by name, and the rest is the other's."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sweeps import rest_is_long

import keras_distill
from keras_distill import evaluation
from keras_distill.losses import SoftTargets
from keras_distill.teachers import Function, Teacher


def scores(seed, inputs, structure=None):
    """A model of 3 classes that reads `inputs`, in their order or by the names of a dict."""
    keras.utils.set_random_seed(seed)
    h = inputs[0] if len(inputs) == 1 else layers.Concatenate()(inputs)
    outputs = layers.Dense(3, kernel_initializer="he_normal")(h)
    return keras.Model(inputs if structure is None else structure, outputs)


def near():
    return keras.Input((4,), name="near")


def far():
    return keras.Input((4,), name="far")


def reads_dict(seed):
    inputs = near()
    return scores(seed, [inputs], {"near": inputs})


def sequential(seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([near(), layers.Dense(3, kernel_initializer="he_normal")])


def reads_far(model):
    return lambda x: model(x["far"])


STUDENTS = {
    "dict": reads_dict,
    "list": lambda seed: scores(seed, [near()]),
    "single": lambda seed: scores(seed, [inputs := near()], inputs),
    "sequential": sequential,
}
TEACHERS = {
    "preprocess": lambda: Teacher(scores(1, [i := keras.Input((4,))], i), lambda x: x["far"]),
    "function": lambda: Function(reads_far(scores(1, [i := keras.Input((4,))], i))),
    "by name": lambda: scores(1, [i := far()], i),
    "dict": lambda: scores(1, [i := far()], {"far": i}),
    "both": lambda: scores(1, [far(), near()]),
    "both in a dict": lambda: scores(1, [a := near(), b := far()], {"near": a, "far": b}),
}


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(8, 4)).astype("float32") for name in ("far", "near", "aside")}


def outputs_of(teacher, batch):
    if isinstance(teacher, Function):
        return np.asarray(teacher.function(batch))
    model = teacher.teacher.model if isinstance(teacher, Teacher) else teacher
    if isinstance(model.input, dict):
        return np.asarray(model({name: batch[name] for name in model.input}))
    if isinstance(model.input, list):
        return np.asarray(model([batch[x.name] for x in model.input]))
    return np.asarray(model(batch["far"]))


@pytest.mark.parametrize(
    ("reading", "teaching"),
    rest_is_long(
        list(itertools.product(STUDENTS, TEACHERS)),
        [(kind, "by name") for kind in STUDENTS],
    ),
)
def test_each_model_reads_its_own_entries(reading, teaching, batch, formulas):
    student, teacher = STUDENTS[reading](2), TEACHERS[teaching]()
    kernel, bias = (np.asarray(w, "float64") for w in student.get_weights())
    z = batch["near"] @ kernel + bias
    t = outputs_of(teacher, batch)
    distiller = keras_distill.Distiller(student, teacher, SoftTargets(2.0), alpha=0)
    distiller.compile(keras.optimizers.SGD(1.0))
    data = tf.data.Dataset.from_tensor_slices(batch).batch(8)
    history = distiller.fit(data, verbose=0)
    expected = formulas.soft_targets(t, z, 2.0).mean()
    np.testing.assert_allclose(history.history["loss"], [expected], rtol=1e-5)
    # One step of SGD with rate 1 moves the weights by the gradient: T (q - p), times the inputs.
    p, q = (np.exp(formulas.log_softmax(x / 2.0)) for x in (t, z))
    gradient = batch["near"].T @ (2.0 * (q - p)) / 8
    np.testing.assert_allclose(kernel - student.get_weights()[0], gradient, atol=1e-5)
    trained, bias = student.get_weights()
    np.testing.assert_allclose(
        distiller.predict(data, verbose=0), batch["near"] @ trained + bias, rtol=1e-4, atol=1e-5
    )


def test_nested_and_evaluated(batch):
    """`evaluate` sees the student's entries, and `compare` each candidate's own."""
    student, teacher = reads_dict(2), TEACHERS["dict"]()
    y = np.argmax(student({"near": batch["near"]}), -1)
    distiller = keras_distill.Distiller(student, teacher, alpha=0.5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", loss, metrics=["accuracy"])
    assert distiller.evaluate(batch, y, verbose=0, return_dict=True)["accuracy"] == 1
    result = evaluation.compare({"teacher": teacher, "student": student}, (batch, y), resamples=0)
    by_name = {row["name"]: row for row in result.rows}
    assert by_name["student"]["accuracy"] == 1
    right = np.argmax(teacher({"far": batch["far"]}), -1) == y
    assert by_name["teacher"]["accuracy"] == pytest.approx(right.mean())


def test_stored_answers_are_of_the_teachers_entries(batch, tmp_path):
    teacher = TEACHERS["dict"]()
    data = tf.data.Dataset.from_tensor_slices((batch, np.zeros(8, "int32")))
    stored = keras_distill.teachers.store(teacher, data, tmp_path / "answers", verbose=0)
    x = next(iter(stored.attach(data).batch(8)))[0]
    expected = np.asarray(teacher({"far": batch["far"]}))
    np.testing.assert_allclose(stored.answer(x)[0].values, expected, atol=2e-3)


def test_a_tflite_teacher_reads_by_name(batch, tmp_path):
    """The order of a file's inputs isn't that of sorted names."""
    left, right = keras.Input((4,), name="near"), keras.Input((4,), name="far")
    model = keras.Model([left, right], layers.Dense(3)(layers.Subtract()([left, right])))
    artifact = keras_distill.tflite.convert(model, quantization="float32")
    path = tmp_path / "teacher.tflite"
    path.write_bytes(artifact.tflite)
    teacher = keras_distill.teachers.LiteRT(path)
    expected = np.asarray(model([batch["near"], batch["far"]]))
    for names in (batch, ("near", "far")):
        tensors = {name: tf.constant(batch[name]) for name in names}
        np.testing.assert_allclose(teacher.answer(tensors)[0], expected, atol=1e-5)


def test_a_missing_entry_is_named(batch):
    distiller = keras_distill.Distiller(reads_dict(2), TEACHERS["preprocess"](), alpha=0)
    distiller.compile("sgd")
    with pytest.raises(ValueError, match="'near'.*'aside', 'far'"):
        distiller.fit({"far": batch["far"], "aside": batch["aside"]}, verbose=0)
