"""The objective without a `Distiller`: no Keras model, no TensorFlow of its own."""

import ast
import pathlib

import keras
import numpy as np
import pytest

import keras_distill
from keras_distill import labels, objective

FOLDER = pathlib.Path(keras_distill.__file__).parent


@pytest.mark.parametrize(
    "name", ["adapters", "hyperparameters", "labels", "match", "objective", "pairs", "taps"]
)
def test_no_tensorflow(name):
    """So that another backend of Keras can train by it."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not any(part.name.startswith("tensorflow") for part in node.names)
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("tensorflow")


def test_the_losses_are_those_of_the_distiller(dense, batch, cross_entropy):
    x, y, weight = batch
    student, teacher = dense(), dense(9)
    arguments = {"losses": keras_distill.losses.SoftTargets(2.0), "alpha": 0.25}
    alone = objective.Objective(student, teacher, **arguments)
    alone.build_for(x)
    assert not isinstance(alone, keras.Model)
    assert alone.reported == ["student_loss", "soft_targets"]
    answers = alone.run_student(x), alone.ask_teacher(x)
    losses = alone.compute_losses(x, y, *answers, weight, cross_entropy)
    distiller = keras_distill.Distiller(student, teacher, **arguments)
    distiller.compile(loss=cross_entropy)
    expected = distiller.compute_losses(
        x, y, distiller.run_student(x), distiller.ask_teacher(x), weight
    )
    assert list(losses) == list(expected) == ["loss", "student_loss", "soft_targets"]
    for name, value in expected.items():
        np.testing.assert_array_equal(losses[name], value)


def test_without_a_teacher(dense, batch):
    alone = objective.Objective(dense(), None)
    assert alone.layers == alone.reported == []
    for step in (alone.build_for, alone.ask_teacher):
        with pytest.raises(ValueError, match=r"no teacher.*`distiller.teacher = model`"):
            step(batch[0])


@pytest.mark.parametrize("outputs", [[0, 0], (0, 0), {"a": 0, "b": 0}])
@pytest.mark.parametrize("given", [[1, 2], (1, 2), {"a": 1, "b": 2}])
def test_containers(outputs, given):
    conformed = labels.conform(given, outputs, ["a", "b"])
    assert type(conformed) is type(outputs)
    assert keras.tree.flatten(conformed) == [1, 2]
    assert labels.conform(None, outputs, ["a", "b"]) is None


def test_weights_of_a_layer_are_the_mean_over_the_outputs():
    weights = {"a": np.float32([1, 2]), "b": np.float32([[3, 5], [0, 2]])}
    np.testing.assert_array_equal(labels.weights_at(weights, "a"), [1, 2])
    np.testing.assert_array_equal(labels.weights_at(weights, None), [2.5, 1.5])
    assert labels.weights_at(None, "a") is None


def test_another_student_is_the_one_that_trains(batch, cross_entropy):
    """A student that isn't built yet may be replaced."""
    x, y, _ = batch

    def unbuilt():
        return keras.Sequential([keras.layers.Dense(3)])

    teacher = unbuilt()
    teacher.build((None, *x.shape[1:]))
    distiller = keras_distill.Distiller(unbuilt(), teacher)
    first, distiller.student = distiller.student, unbuilt()
    distiller.compile("sgd", cross_entropy)
    distiller.fit(x, y, epochs=1, verbose=0)
    assert distiller.student.built
    assert not first.built
