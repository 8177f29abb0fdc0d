"""Models of every kind and structure; the teacher stays as it was."""

import functools
import itertools

import keras
import numpy as np
import pytest
from keras import layers
from sweeps import rest_is_long

import keras_distill
from keras_distill.losses import SoftTargets


def two_heads(width, structure, nested=False):
    """A model of two inputs and two outputs, in the given structure."""
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    h = layers.Dense(width, activation="tanh", name="trunk")(layers.Concatenate()([a, b]))
    x, y = layers.Dense(3, name="x")(h), layers.Dense(2, name="y")(h)
    outputs = {"dict": {"x": x, "y": y}, "list": [x, y], "tuple": (x, y)}[structure]
    return keras.Model([a, b], outputs)


@pytest.fixture
def inputs(rng):
    return [rng.normal(size=(16, n)).astype("float32") for n in (4, 2)]


@pytest.fixture
def labels(rng):
    return [rng.integers(0, 3, 16), rng.normal(size=(16, 2)).astype("float32")]


@pytest.mark.parametrize("structure", rest_is_long(["dict", "list", "tuple"], ["dict"]))
def test_outputs_in_any_structure(structure, inputs, labels, cross_entropy, formulas):
    student, teacher = two_heads(5, structure), two_heads(9, structure)
    distiller = keras_distill.Distiller(
        student,
        teacher,
        losses={"x": SoftTargets(2.0), "y": keras.losses.MeanSquaredError()},
        alpha=0.25,
    )
    losses = {"x": cross_entropy, "y": keras.losses.MeanAbsoluteError()}
    weights = {"x": 1.0, "y": 3.0}
    metrics = {"x": ["accuracy"], "y": ["mse"]}
    y = {"x": labels[0], "y": labels[1]}
    if structure != "dict":
        y, losses, weights, metrics = (
            list(part.values()) for part in (y, losses, weights, metrics)
        )
        y = type(student.output)(y) if structure == "tuple" else y
    distiller.compile("sgd", losses, loss_weights=weights, metrics=metrics)
    plain = keras.models.clone_model(student)
    plain.set_weights(student.get_weights())
    plain.compile("sgd", losses, loss_weights=weights, metrics=metrics)

    flat = keras.tree.flatten(student.predict(inputs, verbose=0))
    said = keras.tree.flatten(teacher.predict(inputs, verbose=0))
    logs = distiller.train_on_batch(inputs, y, return_dict=True)
    expected = plain.train_on_batch(inputs, y, return_dict=True)
    np.testing.assert_allclose(logs["student_loss"], expected.pop("loss"), rtol=1e-5)
    assert expected
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-5, err_msg=name)
    soft = formulas.soft_targets(said[0], flat[0], 2.0).mean()
    mse = np.square(said[1] - flat[1]).mean()
    np.testing.assert_allclose(logs["soft_targets"], soft, rtol=1e-5)
    np.testing.assert_allclose(logs["mean_squared_error"], mse, rtol=1e-5)
    np.testing.assert_allclose(
        logs["loss"], 0.25 * logs["student_loss"] + 0.75 * (soft + mse), rtol=1e-5
    )


def test_none_skips_an_output_and_one_loss_compares_each(inputs, labels, cross_entropy):
    student, teacher = two_heads(5, "dict"), two_heads(9, "dict")
    skip = keras_distill.Distiller(student, teacher, {"x": SoftTargets(), "y": None}, alpha=0)
    skip.compile("sgd")
    assert set(skip.train_on_batch(inputs, return_dict=True)) == {"loss", "soft_targets"}
    each = keras_distill.Distiller(student, teacher, SoftTargets(), alpha=0)
    each.compile("sgd")
    logs = each.train_on_batch(inputs, return_dict=True)
    assert set(logs) == {"loss", "soft_targets_x", "soft_targets_y"}


def test_losses_with_one_name_count_once_each(inputs, formulas):
    """A loss of both outputs beside one of an output by name."""
    student, teacher = two_heads(5, "dict"), two_heads(9, "dict")
    more = keras_distill.Match(SoftTargets(1.0), student="y")
    distiller = keras_distill.Distiller(student, teacher, [SoftTargets(4.0), more], alpha=0)
    distiller.compile("sgd")
    z, t = student.predict(inputs, verbose=0), teacher.predict(inputs, verbose=0)
    logs = distiller.train_on_batch(inputs, return_dict=True)
    expected = {
        "soft_targets_x": formulas.soft_targets(t["x"], z["x"], 4.0).mean(),
        "soft_targets_y_2": formulas.soft_targets(t["y"], z["y"], 4.0).mean(),
        "soft_targets_y": formulas.soft_targets(t["y"], z["y"], 1.0).mean(),
    }
    expected["loss"] = sum(expected.values())
    assert logs == pytest.approx(expected, rel=1e-4)
    assert float(distiller.hyperparameters["soft_targets_y/temperature"]) == 1.0


def test_names_of_the_objective_are_not_given_to_losses(dense, batch, cross_entropy):
    x, y, _ = batch

    def loss(teacher, student):
        return keras.ops.mean(keras.ops.square(teacher - student), axis=-1)

    class Difference:
        def __call__(self, teacher, student):
            return loss(teacher, student)

    mse = keras.losses.MeanSquaredError()
    losses = [
        loss,
        keras_distill.Match(mse, name="student_loss"),
        functools.partial(loss),
        Difference(),
    ]
    student, teacher = dense(), dense(9)
    difference = np.square(teacher.predict(x, verbose=0) - student.predict(x, verbose=0)).mean()
    hard = float(cross_entropy(y, student.predict(x, verbose=0)))
    distiller = keras_distill.Distiller(student, teacher, losses, alpha=0.5)
    distiller.compile("sgd", cross_entropy)
    expected = dict.fromkeys(["loss_2", "student_loss_2", "partial", "Difference"], difference)
    expected |= {"student_loss": hard, "loss": 0.5 * hard + 2 * difference}
    logs = distiller.train_on_batch(x, y, return_dict=True)
    assert logs == pytest.approx(expected, rel=1e-4)


def test_weights_per_output(inputs, labels, cross_entropy, formulas):
    student, teacher = two_heads(5, "dict"), two_heads(9, "dict")
    distiller = keras_distill.Distiller(student, teacher, {"x": SoftTargets(2.0)}, alpha=0.5)
    distiller.compile("sgd", {"x": cross_entropy, "y": "mse"})
    z = student.predict(inputs, verbose=0)["x"]
    t = teacher.predict(inputs, verbose=0)["x"]
    w = {"x": np.linspace(0, 1, 16, dtype="float32"), "y": np.ones(16, "float32")}
    y = {"x": labels[0], "y": labels[1]}
    logs = distiller.train_on_batch(inputs, y, sample_weight=w, return_dict=True)
    expected = np.mean(w["x"] * formulas.soft_targets(t, z, 2.0))
    np.testing.assert_allclose(logs["soft_targets"], expected, rtol=1e-5)


def backbone(width):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(width, 3, name="block1"),
            layers.Conv2D(width, 3, strides=2, name="block2"),
        ],
        name="backbone",
    )


@keras.saving.register_keras_serializable("keras_distill_tests")
class Subclassed(keras.Model):
    """A subclassed model around a nested one."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.backbone = backbone(width)
        self.pool = layers.GlobalAveragePooling2D(name="pool")
        self.head = layers.Dense(10, name="head")

    def call(self, inputs, training=None):
        return self.head(self.pool(self.backbone(inputs, training=training)))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


def nested(width):
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, layers.Dense(10)(layers.Flatten()(backbone(width)(inputs))))


def sequential(width):
    return keras.Sequential([backbone(width), layers.Flatten(), layers.Dense(10)])


@pytest.mark.parametrize("student", rest_is_long([nested, sequential, Subclassed], [sequential]))
@pytest.mark.parametrize(
    ("teacher", "built"),
    rest_is_long(
        list(itertools.product([nested, Subclassed], [True, False])),
        [(Subclassed, True)],
    ),
)
def test_taps_into_nested_models_of_every_kind(digits, cross_entropy, student, teacher, built):
    student, teacher = student(3), teacher(6)
    images, labels = digits[0][:16], digits[1][:16]
    if built:
        student(images), teacher(images)
    mse = keras.losses.MeanSquaredError()
    tap = keras_distill.Match(mse, student="backbone/block2", adapter="auto")
    distiller = keras_distill.Distiller(student, teacher, [SoftTargets(), tap])
    distiller.compile("sgd", cross_entropy)
    student(images)
    inner = student.get_layer("backbone"), teacher.get_layer("backbone")
    logs = distiller.train_on_batch(images[:1], labels[:1], return_dict=True)
    maps = [np.asarray(model(images[:1])) for model in inner]
    assert maps[0].shape == (1, 2, 2, 3)
    assert len(distiller.adapters) == 1
    weights = [np.asarray(w) for w in distiller.adapters[0].get_weights()]
    assert weights[0].shape == (1, 1, 3, 6)
    assert np.isfinite(logs["loss"])
    # With the update undone by a zero rate, the value is that of the tapped maps.
    distiller.optimizer.learning_rate = 0.0
    logs = distiller.train_on_batch(images[:1], labels[:1], return_dict=True)
    distiller.reset_metrics()
    logs = distiller.train_on_batch(images[:1], labels[:1], return_dict=True)
    projected = np.asarray(inner[0](images[:1])) @ weights_of(distiller)[0][0, 0]
    projected += weights_of(distiller)[1]
    expected = np.square(projected - maps[1]).mean()
    np.testing.assert_allclose(logs["mean_squared_error"], expected, rtol=1e-4)


def weights_of(distiller):
    return distiller.adapters[0].get_weights()


def test_taps_by_layer_object_and_by_tuple(digits):
    student, teacher = nested(3), nested(6)
    seen = {}

    def compare(y_true, y_pred):
        seen["shapes"] = [[tuple(x.shape[1:]) for x in side] for side in (y_true, y_pred)]
        return sum(keras.ops.mean(x, axis=(1, 2, 3)) for x in y_pred)

    blocks = [student.get_layer("backbone").get_layer(f"block{i}") for i in (1, 2)]
    match = keras_distill.Match(compare, student=blocks, teacher=["backbone/block1", "backbone"])
    distiller = keras_distill.Distiller(student, teacher, match, alpha=0)
    distiller.compile("sgd")
    distiller.train_on_batch(digits[0][:4])
    assert seen["shapes"] == [[(6, 6, 6), (2, 2, 6)], [(6, 6, 3), (2, 2, 3)]]


def test_the_teacher_is_left_alone(digits, cross_entropy, tmp_path):
    student, teacher = nested(3), nested(6)
    teacher.get_layer("backbone").get_layer("block1").trainable = False
    flags = [layer.trainable for layer in teacher._flatten_layers()]
    before = [np.array(v) for v in teacher.variables]
    distiller = keras_distill.Distiller(student, teacher)
    distiller.compile("adam", cross_entropy)
    distiller.fit(digits[0][:64], digits[1][:64], epochs=2, verbose=0)
    assert [layer.trainable for layer in teacher._flatten_layers()] == flags
    for old, new in zip(before, teacher.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    assert distiller.count_params() == student.count_params()
    assert len(distiller.variables) == len(student.variables)
    theirs = {id(v) for v in teacher.variables}
    assert not theirs & {id(v) for v in distiller.trainable_variables}
    assert len(distiller.optimizer.variables) == 2 + 2 * len(student.trainable_variables)
    distiller.save(tmp_path / "distiller.keras")
    distiller.save_weights(tmp_path / "distiller.weights.h5")
    assert (tmp_path / "distiller.weights.h5").stat().st_size < 60_000
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert loaded.teacher is None
    assert loaded.count_params() == student.count_params()


def shared_backbone(trainable):
    trunk = backbone(4)
    trunk.trainable = trainable

    def head(width):
        inputs = keras.Input((8, 8, 1))
        x = layers.Dense(width, activation="relu")(layers.Flatten()(trunk(inputs)))
        return keras.Model(inputs, layers.Dense(10)(x))

    return head(3), head(9)


def test_shared_layers_that_would_change_are_refused(digits, cross_entropy):
    student, teacher = shared_backbone(trainable=True)
    with pytest.raises(ValueError, match="shares the layer 'block[12]'.*trainable = False"):
        keras_distill.Distiller(student, teacher)


def test_shared_frozen_layers_work_and_stay(digits, cross_entropy):
    student, teacher = shared_backbone(trainable=False)
    before = teacher.get_weights()
    distiller = keras_distill.Distiller(student, teacher)
    distiller.compile("adam", cross_entropy)
    distiller.fit(digits[0][:64], digits[1][:64], verbose=0)
    for old, new in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    # Thawed after construction, it is refused before the first step.
    student.layers[1].trainable = True
    distiller.compile("adam", cross_entropy)
    with pytest.raises(ValueError, match="shares the layer"):
        distiller.fit(digits[0][:64], digits[1][:64], verbose=0)
