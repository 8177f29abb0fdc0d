"""What a `Distiller` warns of, and what its errors advise."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill
from keras_distill.losses import SoftTargets


def dense(activation=None, units=3, seed=1):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4,)), layers.Dense(units, activation)])


class Subclassed(keras.Model):
    def __init__(self, activation, units):
        super().__init__()
        self.inner = layers.Dense(units, activation)

    def call(self, x):
        return self.inner(x)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(16, 4)).astype("float32"), rng.integers(0, 3, 16)


SPARSE = keras.losses.SparseCategoricalCrossentropy
WRONG = [
    (None, 3, "sparse_categorical_crossentropy"),
    (None, 3, SPARSE()),
    (None, 3, "categorical_crossentropy"),
    (None, 3, keras.losses.CategoricalFocalCrossentropy()),
    (None, 1, "binary_crossentropy"),
    (None, 1, keras.losses.BinaryFocalCrossentropy()),
    ("softmax", 3, SPARSE(from_logits=True)),
    ("softmax", 3, keras.losses.CategoricalCrossentropy(from_logits=True)),
    ("sigmoid", 1, keras.losses.BinaryCrossentropy(from_logits=True)),
]
RIGHT = [
    (None, 3, SPARSE(from_logits=True)),
    (None, 1, keras.losses.BinaryCrossentropy(from_logits=True)),
    ("softmax", 3, "sparse_categorical_crossentropy"),
    ("sigmoid", 1, "binary_crossentropy"),
    (None, 3, "mse"),
    (None, 3, lambda y, z: keras.ops.mean(z, -1)),
]


def losses_of(units):
    return SoftTargets(activation="sigmoid" if units == 1 else "softmax")


def warned(caught):
    """Those of our warnings that say what to give the loss."""
    return [str(w.message) for w in caught if "Give the loss from_logits=" in str(w.message)]


@pytest.mark.parametrize(("activation", "units", "loss"), WRONG)
def test_a_loss_that_takes_the_outputs_for_something_else(activation, units, loss):
    distiller = keras_distill.Distiller(
        dense(activation, units), dense(None, units), losses_of(units), alpha=0.5
    )
    with pytest.warns(UserWarning, match="Give the loss") as caught:
        distiller.compile("sgd", loss)
    (message,) = warned(caught)
    name = loss if isinstance(loss, str) else loss.name
    assert f"{name!r} takes " in message
    assert f"Give the loss from_logits={activation is None}" in message


@pytest.mark.parametrize(("activation", "units", "loss"), RIGHT)
def test_no_warning_of_a_loss_that_fits(activation, units, loss):
    distiller = keras_distill.Distiller(
        dense(activation, units), dense(None, units), losses_of(units), alpha=0.5
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        distiller.compile("sgd", loss)


@pytest.mark.parametrize("from_logits", [False, True])
def test_a_student_that_is_built_later_is_looked_at_then(data, from_logits):
    """Once, before the first step."""
    distiller = keras_distill.Distiller(Subclassed(None, 3), dense(seed=2), alpha=0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        distiller.compile("sgd", SPARSE(from_logits=from_logits))
        assert not warned(caught)
        for rows in (16, 5):
            distiller.train_on_batch(data[0][:rows], data[1][:rows])
    assert len(warned(caught)) == (not from_logits)


@pytest.mark.parametrize(
    "loss", [keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy]
)
def test_logits_of_decisions_that_are_compared_by_softmax(loss):
    """Whether logits exclude each other isn't known, but by the loss of the labels."""
    distiller = keras_distill.Distiller(dense(), dense(seed=2), alpha=0.5)
    message = r'decisions of their own \(sigmoid\).*`SoftTargets\(activation="sigmoid"\)`'
    with pytest.warns(UserWarning, match=message):
        distiller.compile("sgd", loss(from_logits=True))
    student, teacher = two_outputs("dict"), two_outputs("dict")
    losses = {"kind": SoftTargets(), "size": SoftTargets()}
    distiller = keras_distill.Distiller(student, teacher, losses, alpha=0.5)
    with pytest.warns(UserWarning, match=f"student's output 'kind' is read as logits.*{message}"):
        distiller.compile("sgd", {"kind": loss(from_logits=True), "size": "binary_crossentropy"})


@pytest.mark.parametrize(
    "loss",
    ["mse", "huber", "mean_absolute_error", "MeanSquaredError", keras.losses.LogCosh()],
)
def test_values_that_are_compared_by_softmax(loss):
    """The default loss is for classes."""
    distiller = keras_distill.Distiller(dense(), dense(seed=2), alpha=0.5)
    message = r"takes for values, but `SoftTargets` .*\(softmax\).*`losses=keras.losses.MeanSquared"
    with pytest.warns(UserWarning, match=message):
        distiller.compile("sgd", loss)
    values = keras_distill.Distiller(
        dense(), dense(seed=2), keras.losses.MeanSquaredError(), alpha=0.5
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        values.compile("sgd", loss)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_no_warning_of_logits_of_which_is_said_how_they_are_compared(activation):
    losses = [SoftTargets(activation=activation), keras_distill.losses.LogitMSE()]
    distiller = keras_distill.Distiller(dense(), dense(seed=2), losses, alpha=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        distiller.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))


def two_outputs(structure):
    inputs = keras.Input((4,))
    kind = layers.Dense(3, name="kind")(inputs)
    size = layers.Dense(1, "sigmoid", name="size")(inputs)
    return keras.Model(
        inputs, {"dict": {"size": size, "kind": kind}, "list": [kind, size]}[structure]
    )


@pytest.mark.parametrize("structure", ["dict", "list"])
def test_one_output_of_several(structure):
    """Also where a layer alone is compared: a linear layer at the end gives logits."""
    student = two_outputs(structure)
    match = keras_distill.Match(keras.losses.MeanSquaredError(), student="size", teacher="size")
    distiller = keras_distill.Distiller(student, two_outputs(structure), match, alpha=0.5)
    loss = {"kind": "sparse_categorical_crossentropy", "size": "binary_crossentropy"}
    with pytest.warns(UserWarning, match="output 'kind'.*from_logits=True") as caught:
        distiller.compile("sgd", loss if structure == "dict" else list(loss.values()))
    assert len(warned(caught)) == 1


def test_nothing_is_said_of_what_is_not_known():
    """A softmax that isn't one of Keras' activations, which no distillation loss reads."""
    inputs = keras.Input((4,))
    hidden = layers.Dense(5, name="hidden")(inputs)
    student = keras.Model(inputs, keras.ops.softmax(layers.Dense(3)(hidden)))
    match = keras_distill.Match(keras.losses.MeanSquaredError(), student="hidden", teacher="hidden")
    distiller = keras_distill.Distiller(student, keras.models.clone_model(student), match)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        distiller.compile("sgd", "sparse_categorical_crossentropy")


def test_a_teacher_given_later():
    """A loaded distiller is compiled before it has a teacher, and knows the outputs after."""
    distiller = keras_distill.Distiller(dense(), None, alpha=0.5)
    distiller.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.warns(UserWarning, match="from_logits=True"):
        distiller.teacher = dense()


def test_each_of_several_students():
    students = [dense(), dense(seed=2)]
    for student, name in zip(students, "ab", strict=True):
        student.name = name
    mutual = keras_distill.MutualDistiller(students)
    with pytest.warns(UserWarning, match="from_logits=True") as caught:
        mutual.compile("sgd", "sparse_categorical_crossentropy")
    assert [name in message for name, message in zip("ab", warned(caught), strict=True)]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_first_nan_is_told(data, jit_compile):
    x = data[0].copy()
    x[5] = np.nan
    distiller = keras_distill.Distiller(dense(), dense(seed=2), alpha=0)
    distiller.compile("sgd", jit_compile=jit_compile)
    with pytest.warns(UserWarning, match="check_numerics=True") as caught:
        distiller.fit(x, epochs=3, batch_size=4, verbose=0)
    assert sum("check_numerics" in str(w.message) for w in caught) == 1
    x[5] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        other = keras_distill.Distiller(dense(), dense(seed=2), alpha=0)
        other.compile("sgd", jit_compile=jit_compile)
        other.fit(x, epochs=2, verbose=0)


@pytest.mark.parametrize("return_dict", [False, True])
def test_the_first_nan_is_told_in_a_loop_of_batches(data, return_dict):
    x, y = data
    distiller = keras_distill.Distiller(dense(), dense(seed=2), alpha=0.5)
    distiller.compile("sgd", SPARSE(from_logits=True), metrics=["accuracy"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        distiller.train_on_batch(x, y, return_dict=return_dict)
    with pytest.warns(UserWarning, match="check_numerics=True") as caught:
        logs = [distiller.train_on_batch(x * np.nan, y, return_dict=return_dict) for _ in range(3)]
    assert np.isnan(logs[-1]["loss"] if return_dict else logs[-1][0])
    assert sum("check_numerics" in str(w.message) for w in caught) == 1


@pytest.mark.parametrize(
    ("argument", "advice"),
    [
        ({"temperature": 3}, r"losses=.*SoftTargets\(temperature=3"),
        ({"distillation_losses": None}, "`losses`"),
        ({"distillation_loss_weights": [1.0]}, r"Match\(.*weight="),
        ({"student_loss_weight": 0.3}, "alpha=0.3"),
        ({"student_loss": "mse"}, r"`compile\(loss="),
        ({"student_loss_fn": "mse"}, r"`compile\(loss="),
        ({"distillation_loss_fn": None}, "`losses`"),
        ({"loss": "mse"}, r"`losses`.*`compile\(loss="),
    ],
)
def test_arguments_of_other_distillers_are_placed(argument, advice):
    with pytest.raises(TypeError, match=advice):
        keras_distill.Distiller(dense(), dense(), **argument)
    with pytest.raises(TypeError, match=advice):
        keras_distill.MutualDistiller([Subclassed(None, 3), Subclassed(None, 3)], **argument)


@pytest.mark.parametrize(
    ("argument", "advice"),
    [
        ({"temperature": 3}, r"Distiller\(.*SoftTargets\(temperature=3"),
        ({"alpha": 0.3}, r"Distiller\(.*alpha=0.3"),
        ({"student_loss_fn": SPARSE(from_logits=True)}, r"loss="),
        ({"distillation_loss_fn": keras.losses.KLDivergence()}, r"Distiller\(.*losses="),
        ({"distillation_losses": []}, r"Distiller\(.*losses="),
        ({"student_loss_weight": 0.3}, r"Distiller\(.*alpha=0.3"),
    ],
)
def test_arguments_of_compile_elsewhere_are_placed(argument, advice):
    distiller = keras_distill.Distiller(dense(), dense())
    with pytest.raises(TypeError, match=advice):
        distiller.compile("adam", **argument)
