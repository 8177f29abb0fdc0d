"""Generators distilled by pixels and by the features of a judge, from vectors without labels."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill
from keras_distill.generators import judged


def generator(width):
    return keras.Sequential([
        keras.Input((3,)),
        layers.Dense(4 * width, activation="relu"),
        layers.Reshape((2, 2, width)),
        layers.Conv2DTranspose(width, 4, 2, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(1, 3, padding="same", activation="tanh"),
    ])  # fmt: skip


@pytest.fixture
def judge():
    """Its dropout and its batch statistics would tell training from inference."""
    model = keras.Sequential([
        keras.Input((4, 4, 1)),
        layers.Conv2D(4, 3, activation="relu", name="near"),
        layers.BatchNormalization(name="normal"),
        layers.Dropout(0.5, name="drop"),
        layers.Flatten(),
        layers.Dense(2, name="far"),
    ])  # fmt: skip
    model.get_layer("normal").set_weights(np.float32([[2.0] * 4, [0.5] * 4, [0.3] * 4, [1.7] * 4]))
    return model


def test_outputs_are_the_image_and_what_the_judge_sees(judge, rng):
    model, z = generator(4), rng.normal(size=(5, 3)).astype("float32")
    image = model(z)
    found = judged(model, judge, ["drop", "far"])(z)
    assert list(found) == ["image", "drop", "far"]
    np.testing.assert_allclose(found["image"], image)
    np.testing.assert_allclose(found["far"], judge(image), rtol=1e-5)
    np.testing.assert_allclose(
        found["drop"], judge.get_layer("normal")(judge.get_layer("near")(image)), rtol=1e-5
    )


def test_student_learns_to_draw_what_the_teacher_draws(judge, rng, tmp_path):
    """From vectors of the data pipeline; saved and loaded; and as an int8 file."""
    keras.utils.set_random_seed(0)
    teacher, student = generator(8), generator(4)
    frozen = [*teacher.get_weights(), *judge.get_weights()]
    losses = [
        keras_distill.Match(keras.losses.MeanAbsoluteError(), "image", name="pixels"),
        keras_distill.Match(keras_distill.losses.Hint(), "near", weight=2.0),
    ]
    both = (judged(model, judge, ["near", "far"]) for model in (student, teacher))
    distiller = keras_distill.Distiller(*both, losses, alpha=0.0)
    distiller.compile(keras.optimizers.Adam(1e-2))
    data = tf.data.Dataset.range(150).map(lambda _: tf.random.normal((64, 3))).repeat()
    history = distiller.fit(data, steps_per_epoch=50, epochs=3, verbose=0).history
    for name in ("pixels", "hint"):
        assert history[name][-1] < 0.7 * history[name][0]
    for old, new in zip(frozen, [*teacher.get_weights(), *judge.get_weights()], strict=True):
        np.testing.assert_array_equal(old, new)

    z = rng.normal(size=(256, 3)).astype("float32")
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    drawn = student.predict(z, verbose=0)
    np.testing.assert_allclose(loaded.predict(z, verbose=0)["image"], drawn, atol=1e-6)
    loaded.teacher = judged(teacher, judge, ["near", "far"])
    again = loaded.fit(data, steps_per_epoch=20, verbose=0).history
    assert again["hint"][0] < 0.8 * history["hint"][0]

    artifact = keras_distill.tflite.convert(student, "android", "int8", calibration=z)
    assert artifact.verify(z)["verdict"] == "pass"
    # tanh of 8 bits has steps of 1/128.
    assert np.abs(artifact.predict(z) - drawn).mean() < 0.02


def test_a_judge_normalizes_as_it_has_adapted(rng):
    """Keras computes with a copy of the statistics, which `set_weights` leaves as it was."""
    normalization = layers.Normalization(axis=None)
    normalization.adapt(rng.normal(5, 3, (50, 4, 4, 1)))
    judge = keras.Sequential([keras.Input((4, 4, 1)), normalization, layers.Flatten(name="far")])
    model, z = generator(4), rng.normal(size=(5, 3)).astype("float32")
    found = judged(model, judge, ["far"])(z)
    np.testing.assert_allclose(found["far"], judge(found["image"]), rtol=1e-5)


@pytest.mark.filterwarnings("error:.*structure of `inputs`")
def test_it_reads_what_the_generator_reads(judge):
    """One tensor, or a dict."""
    assert judged(generator(4), judge, ["far"])(np.ones((2, 3)))["far"].shape == (2, 2)
    noise = {"z": keras.Input((3,), name="z")}
    named = keras.Model(noise, generator(4)(noise["z"]))
    assert judged(named, judge, ["far"])({"z": np.ones((2, 3))})["far"].shape == (2, 2)


def test_mistakes(judge):
    with pytest.raises(ValueError, match="No such layer: fur"):
        judged(generator(4), judge, ["fur"])
    for wrong in ("near", [], ["near", "image"], None, 3, [0], [judge.layers[0]]):
        with pytest.raises(ValueError, match="`layers` must be a list of names"):
            judged(generator(4), judge, wrong)
    z = keras.Input((3,))
    twice = keras.Model(z, [layers.Dense(2)(z), layers.Dense(2)(z)])
    with pytest.raises(ValueError, match="`generator` must have one output"):
        judged(twice, judge, ["near"])


class Subclass(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize("role", ["generator", "judge"])
def test_models_must_know_their_inputs_and_outputs(judge, role):
    given = {"generator": generator(4), "judge": judge, "layers": ["near"]}
    with pytest.raises(TypeError, match=f"`{role}` must be a Keras model. Received: {role}='a"):
        judged(**given | {role: "a.keras"})
    for unknown in (Subclass(), keras.Sequential([layers.Dense(3)])):
        says = f"`{role}` must be functional, or sequential with .* Received: {role}=<"
        with pytest.raises(ValueError, match=says):
            judged(**given | {role: unknown})


def test_the_judge_must_read_what_is_drawn(judge):
    """Keras would take three channels for one, until the model is run."""
    for shape in ((4, 4, 3), (2, 2, 1), (16,)):
        z = keras.Input((3,))
        x = layers.Reshape(shape)(layers.Dense(int(np.prod(shape)))(z))
        says = rf"images of shape {re.escape(str((None, *shape)))}.* reads \(None, 4, 4, 1\)$"
        with pytest.raises(ValueError, match=says):
            judged(keras.Model(z, x), judge, ["near"])
    flat = keras.Sequential([keras.Input((4, 4)), layers.Flatten(name="far")])
    assert judged(generator(4), flat, ["far"])(np.zeros((2, 3)))["far"].shape == (2, 16)
    images, sizes = keras.Input((4, 4, 1)), keras.Input((2,))
    pair = layers.Concatenate(name="near")([layers.Flatten()(images), sizes])
    with pytest.raises(ValueError, match=r"reads \(None, 4, 4, 1\), \(None, 2\)$"):
        judged(generator(4), keras.Model([images, sizes], pair), ["near"])
