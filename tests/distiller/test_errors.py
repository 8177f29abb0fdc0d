"""Misuse is named at construction or `compile`, in the user's own terms."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill
from keras_distill import Distiller, Match
from keras_distill.losses import SoftTargets


@pytest.mark.parametrize("wrong", [3, object()])
def test_models_are_models(dense, wrong):
    with pytest.raises(TypeError, match=r"`student` must be a `keras.Model`"):
        Distiller(wrong, dense())
    with pytest.raises(TypeError, match=r"`teacher` must be a `keras.Model`"):
        Distiller(dense(), wrong)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_is_a_fraction(dense, alpha):
    with pytest.raises(ValueError, match=r"`alpha` must be .*Received: alpha="):
        Distiller(dense(), dense(), alpha=alpha)
    with pytest.raises(TypeError, match="`alpha` must be a number"):
        Distiller(dense(), dense(), alpha="0.1")


def test_hyperparameters_are_named(dense):
    with pytest.raises(ValueError, match=r"no hyperparameter 'beta', only alpha, soft_targets/we"):
        Distiller(dense(), dense()).set_hyperparameter("beta", 1.0)


def test_parts_of_a_step_need_shapes(dense, batch, cross_entropy):
    student = keras.Sequential([layers.Dense(3)])
    distiller = Distiller(student, dense())
    distiller.compile(loss=cross_entropy)
    x, y, _ = batch
    said = distiller.ask_teacher(x)
    answer = distiller.run_student(x)
    with pytest.raises(ValueError, match=r"call `distiller.build_for\(x\)` first"):
        distiller.compute_losses(x, y, answer, said)
    distiller.build_for(x)
    assert distiller.compute_losses(x, y, answer, said)["loss"] > 0


@pytest.mark.parametrize("temperature", [0, -4.0, float("inf")])
def test_temperature_is_positive(temperature):
    with pytest.raises(ValueError, match=r"`temperature` must be .*Received: temperature="):
        SoftTargets(temperature)
    with pytest.raises(TypeError, match="`temperature` must be a number"):
        SoftTargets("hot")


def test_losses_are_losses(dense):
    with pytest.raises(TypeError, match=r"SoftTargets\(\).*Received: 'kl_divergence'"):
        Distiller(dense(), dense(), "kl_divergence")
    with pytest.raises(ValueError, match="`losses` holds no loss"):
        Distiller(dense(), dense(), [])
    with pytest.raises(ValueError, match="`weight` must be at least 0"):
        Match(SoftTargets(), weight=-1)
    with pytest.raises(TypeError, match="`adapter` must be"):
        Match(SoftTargets(), adapter="automatic")


def test_outputs_that_differ(dense):
    wide = keras.Sequential([keras.Input((4,)), layers.Dense(7)])
    with pytest.raises(ValueError, match=r"student's output has shape \(None, 3\).*\(None, 7\)"):
        Distiller(dense(), wide)


def test_a_teacher_that_reads_something_else(dense):
    other = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=r"can't read what the student reads.*preprocess="):
        Distiller(dense(), other)


def test_a_tap_that_does_not_exist(dense):
    mse = keras.losses.MeanSquaredError()
    with pytest.raises(ValueError, match=r"student has no layer 'hiden'.*Nearest names: hidden"):
        Distiller(dense(), dense(), Match(mse, student="hiden", teacher="hidden"))
    with pytest.raises(ValueError, match=r"teacher has no layer 'trunk/x'.*scores"):
        Distiller(dense(), dense(), Match(mse, student="hidden", teacher="trunk/x"))
    inputs = keras.Input((4,))
    many = keras.Model(inputs, [layers.Dense(3)(inputs), layers.Dense(3)(inputs)])
    with pytest.raises(ValueError, match="student has no output 3"):
        Distiller(many, keras.models.clone_model(many), Match(mse, student=3))
    foreign = layers.Dense(2, name="foreign")
    with pytest.raises(ValueError, match="'foreign' is not part of the student"):
        Distiller(dense(), dense(), Match(mse, student=foreign, teacher="hidden"))


def test_features_that_need_an_adapter(dense):
    mse = keras.losses.MeanSquaredError()
    with pytest.raises(
        ValueError, match=r"'hidden' has shape \(None, 5\).*\(None, 9\).*adapter=\"auto\""
    ):
        Distiller(dense(5), dense(9), Match(mse, student="hidden", teacher="hidden"))
    wrong = layers.Dense(8)
    with pytest.raises(ValueError, match=r"\(None, 8\).*\(None, 9\)"):
        Distiller(dense(5), dense(9), Match(mse, student="hidden", adapter=wrong))


def image_model(*stack):
    return keras.Sequential([keras.Input((8, 8, 1)), *stack])


@pytest.mark.parametrize(
    ("student", "teacher", "kinds"),
    [
        ([layers.Conv2D(2, 3)], [layers.Conv2D(5, 3)], ["Conv2D"]),
        ([layers.Conv2D(2, 1)], [layers.Conv2D(5, 1, strides=2)], ["AveragePooling2D", "Conv2D"]),
        ([layers.Conv2D(2, 3, strides=2)], [layers.Conv2D(5, 3)], ["Conv2D", "Resizing"]),
        (
            [layers.Conv2D(2, 1)],
            [layers.GlobalAveragePooling2D(), layers.Dense(5)],
            ["GlobalAveragePooling2D", "Dense"],
        ),
        (
            [layers.Reshape((16, 4))],
            [layers.Reshape((8, 8))],
            ["AveragePooling1D", "Dense"],
        ),
        ([layers.Reshape((8, 8))], [layers.Reshape((16, 4))], ["Dense", "UpSampling1D"]),
        ([layers.Reshape((16, 4))], [layers.Flatten(), layers.Dense(5)], ["MeanOfSteps", "Dense"]),
    ],
)
def test_adapters_are_built_from_the_shapes(digits, student, teacher, kinds):
    student = image_model(*student, layers.Identity(name="tap"), layers.Flatten(), layers.Dense(10))
    teacher = image_model(*teacher, layers.Identity(name="tap"), layers.Flatten(), layers.Dense(10))
    mse = keras.losses.MeanSquaredError()
    distiller = Distiller(student, teacher, Match(mse, student="tap", adapter="auto"), alpha=0)
    assert [type(layer).__name__ for layer in distiller.adapters[0].layers] == kinds
    distiller.compile("sgd")
    images = digits[0][:8]
    ours, theirs = (
        keras.Model(model.inputs, model.get_layer("tap").output)(images)
        for model in (student, teacher)
    )
    adapter = distiller.adapters[0]
    expected = np.square(np.asarray(adapter(ours)) - theirs).mean()
    before = adapter.get_weights()
    logs = distiller.train_on_batch(images, return_dict=True)
    assert logs["mean_squared_error"] == pytest.approx(expected, rel=1e-5)
    assert all((a != b).any() for a, b in zip(before, adapter.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ([layers.Flatten()], [layers.Conv2D(4, 3)]),
        ([layers.Reshape((16, 4))], [layers.Conv2D(4, 3)]),
        ([layers.Cropping2D(1), layers.Reshape((12, 3))], [layers.Reshape((16, 4))]),
    ],
)
def test_shapes_that_no_adapter_fits_are_refused(student, teacher):
    def model(stack):
        return image_model(*stack, layers.Identity(name="tap"), layers.Flatten(), layers.Dense(10))

    match = Match(keras.losses.MeanSquaredError(), student="tap", adapter="auto")
    with pytest.raises(ValueError, match="these shapes need an adapter of your own"):
        Distiller(model(student), model(teacher), match)


def test_a_layer_that_runs_twice_is_refused(dense, batch):
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    twice = keras.Model(inputs, layers.Dense(3)(shared(shared(inputs))))
    match = Match(keras.losses.MeanSquaredError(), student="shared", teacher="hidden")
    with pytest.raises(ValueError, match="'shared' runs 2 times"):
        Distiller(twice, dense(4), match)


def test_a_loss_that_needs_labels_without_labels(dense, batch):
    distiller = Distiller(dense(), dense(9), keras_distill.losses.DKD(), alpha=0)
    distiller.compile("sgd")
    with pytest.raises(ValueError, match=r"'dkd' needs the labels"):
        distiller.train_on_batch(batch[0])


def test_a_loss_with_weights_has_one_place(dense):
    loss = keras_distill.losses.VariationalInformation()
    places = [Match(loss, student=layer, adapter="auto") for layer in ("hidden", "scores")]
    with pytest.raises(
        ValueError, match=r"'variational_information_scores'.*Create a separate loss object"
    ):
        Distiller(dense(), dense(9), places)


@pytest.mark.parametrize("losses", [{}, {"a": None}, [None]])
def test_no_loss_at_all(dense, losses):
    with pytest.raises(ValueError, match="`losses` holds no loss"):
        Distiller(dense(), dense(), losses)


def test_classes_in_place_of_objects(dense):
    with pytest.raises(
        TypeError, match=r"not the class SoftTargets: write `SoftTargets\(\.\.\.\)`"
    ):
        Distiller(dense(), dense(), SoftTargets)
    with pytest.raises(TypeError, match="`teacher` must be an object, not the class Sequential"):
        Distiller(dense(), keras.Sequential)


def test_missing_labels_are_numbers(dense):
    with pytest.raises(TypeError, match=r"`missing_label` must be a number.*='\?'"):
        Distiller(dense(), dense(), missing_label="?")
    for known in (-1, np.int64(255), float("nan")):
        Distiller(dense(), dense(), missing_label=known)


def test_errors_inside_a_teacher_are_its_own(dense, batch):
    """Not those of the operation by which shapes are found."""

    def teacher(x):
        raise ZeroDivisionError("of its own")

    with pytest.raises(ValueError, match=r"can't read .*The error was: of its own$"):
        Distiller(dense(), teacher).build_for(batch[0])


def test_from_logits_is_a_truth_value(dense):
    for wrong in ("no", {"scores": "no"}):
        with pytest.raises(TypeError, match="`from_logits` must be True or False"):
            keras_distill.teachers.Teacher(dense(), from_logits=wrong)


def test_a_path_that_is_no_teacher(dense, tmp_path):
    for path in (tmp_path / "teacher", tmp_path):
        with pytest.raises(ValueError, match=r"no SavedModel at .*A teacher's path .*\.tflite"):
            Distiller(dense(), path)
