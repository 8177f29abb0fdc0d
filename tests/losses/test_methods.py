"""Presets give a `Distiller` the matches of a published method."""

import keras
import numpy as np
import pytest

import keras_distill
from keras_distill import losses, methods


def convolutional(width, name):
    inputs = keras.Input((8, 8, 1))
    x = inputs
    for stage in (1, 2, 3):
        x = keras.layers.Conv2D(
            stage * width,
            3,
            strides=1 if stage == 1 else 2,
            padding="same",
            activation="relu",
            name=f"stage{stage}",
        )(x)
    x = keras.layers.GlobalAveragePooling2D(name="embedding")(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x), name=name)


def transformer(size, heads, name):
    inputs = keras.Input((None,), dtype="int32")
    spread = keras.initializers.RandomNormal(stddev=2.0)  # So that attention isn't flat.
    x = keras.layers.Embedding(17, size, spread, mask_zero=True)(inputs)
    attention = keras.layers.MultiHeadAttention(heads, size // heads, name="attention")
    x = keras.layers.GlobalAveragePooling1D()(attention(x, x))
    return keras.Model(inputs, keras.layers.Dense(10)(x), name=name)


def losses_of_a_step(student, teacher, matches, x):
    """What a step reports before anything has been learnt."""
    distiller = keras_distill.Distiller(student, teacher, losses=matches, alpha=0.0)
    distiller.compile(optimizer=keras.optimizers.SGD(0.0))
    return distiller.fit(x, batch_size=len(x), verbose=0).history


@pytest.mark.long
def test_presets_on_convolutional_models(digits):
    images = digits[0][:16]
    student, teacher = convolutional(3, "student"), convolutional(5, "teacher")
    matches = [
        *methods.attention_transfer(student, teacher, layers=["stage1", ("stage2", "stage3")]),
        *methods.review(student, teacher, layers=["stage2", "stage3"]),
        *methods.relational(student, teacher, layers=[student.get_layer("embedding").name]),
    ]
    assert [match.weight for match in matches] == [1000, 1000, 1, 25, 50]
    history = losses_of_a_step(student, teacher, matches, images)

    def features(model, name):
        return keras.Model(model.input, model.get_layer(name).output)(images)

    for name, ours, theirs in (("", "stage1", "stage1"), ("_stage2", "stage2", "stage3")):
        want = losses.AttentionTransfer()(features(teacher, theirs), features(student, ours))
        np.testing.assert_allclose(history[f"attention_transfer{name}"], want, rtol=1e-5)
    for name, loss in (
        ("relational_distance", losses.RelationalDistance()),
        ("relational_angle", losses.RelationalAngle()),
    ):
        want = loss(features(teacher, "embedding"), features(student, "embedding"))
        np.testing.assert_allclose(history[name], want, rtol=1e-5)
    assert 0 < history["review"][0] < 10


@pytest.mark.long
def test_minilm_ignores_padding():
    """The attention layer's own output brings the mask: what stands behind it can't matter."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 17, (16, 8))
    tokens[:, 5:] = 0
    student, teacher = transformer(4, 2, "student"), transformer(8, 2, "teacher")
    matches = methods.minilm(student, teacher, layers=["attention"])
    padded = losses_of_a_step(student, teacher, matches, tokens)
    matches = methods.minilm(student, teacher, layers=["attention"])
    cut = losses_of_a_step(student, teacher, matches, tokens[:, :5])
    for name in ("attention_map", "value_relation"):
        assert padded[name][0] > 0.01
        np.testing.assert_allclose(padded[name], cut[name], rtol=1e-5)


def test_contrastive_state_is_saved_with_a_distiller(tmp_path):
    student, teacher = convolutional(3, "student"), convolutional(5, "teacher")
    match = keras_distill.Match(losses.Contrastive(samples=32, dimensions=4), student="embedding")
    distiller = keras_distill.Distiller(student, teacher, losses=[match])
    distiller.compile(optimizer="sgd", loss="mse")
    state = match.loss.state
    state.teacher_memory.assign(np.arange(128).reshape(32, 4))
    distiller.save_weights(tmp_path / "all.weights.h5")
    state.teacher_memory.assign(np.zeros((32, 4)))
    distiller.load_weights(tmp_path / "all.weights.h5")
    np.testing.assert_array_equal(state.teacher_memory, np.arange(128).reshape(32, 4))


def test_a_layer_that_does_not_exist_is_named():
    student, teacher = convolutional(3, "student"), convolutional(5, "teacher")
    with pytest.raises(ValueError, match="The teacher has no layer 'stage9'"):
        methods.attention_transfer(student, teacher, layers=[("stage1", "stage9")])
    with pytest.raises(ValueError, match="not part of the student"):
        methods.review(student, teacher, layers=[teacher.get_layer("stage1")])
    with pytest.raises(ValueError, match="`layers` must be a list"):
        methods.review(student, teacher, layers="stage1")


def test_layer_wise_puts_the_students_blocks_in_one_after_the_other(digits):
    """What each model computes and trains; in the end the student is trainable as before."""
    images = digits[0][:16]
    student, teacher = convolutional(3, "student"), convolutional(5, "teacher")
    student.get_layer("embedding").trainable = False
    first, second = (f"stage{i}" for i in (1, 2))
    before = {w.path: w.numpy() for w in student.weights}
    theirs = teacher.get_weights()
    seen = []
    for mixed in methods.layer_wise(student, teacher, [first, (second, second)]):
        seen.append(mixed.name)
        trained = {w.path for w in mixed.trainable_weights}
        newest = {w.path for w in student.get_layer(mixed.name.removeprefix("student_")).weights}
        assert trained - newest == {w.path for w in mixed.get_layer("project").weights}
        assert newest <= trained
        features = keras.Model(
            student.input, student.get_layer(mixed.name.removeprefix("student_")).output
        )(images)
        x = mixed.get_layer("project")(features)
        for layer in teacher.layers[2 if mixed.name.endswith("1") else 3 :]:
            x = layer(x)
        np.testing.assert_allclose(mixed(images), x, rtol=1e-5, atol=1e-6)
        distiller = keras_distill.Distiller(mixed, teacher, losses.LogitMSE(), alpha=0.0)
        distiller.compile("adam")
        distiller.fit(images, epochs=2, verbose=0)
        moved = {w.path for w in student.weights if (w.numpy() != before[w.path]).any()}
        assert moved == newest
        before = {w.path: w.numpy() for w in student.weights}
    assert seen == ["student_stage1", "student_stage2"]
    for was, now in zip(theirs, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)
    assert all(layer.trainable for layer in teacher.layers)
    trainable = {layer.name: layer.trainable for layer in student.layers}
    assert not trainable.pop("embedding")
    assert all(trainable.values())


def test_layer_wise_takes_sequential_models():
    student, teacher = (
        keras.Sequential(
            [keras.Input((6,)), *(keras.layers.Dense(n, name=f"d{i}") for i, n in enumerate(sizes))]
        )
        for sizes in ((3, 4, 2), (5, 6, 2))
    )
    x = np.random.default_rng(0).standard_normal((4, 6)).astype("float32")
    for place, mixed in zip(
        ("d0", "d1"), methods.layer_wise(student, teacher, ["d0", "d1"]), strict=True
    ):
        want = x
        for model, names in ((student, ("d0", "d1")), (mixed, ("project",)), (teacher, None)):
            cut = int(place[1]) + 1
            inside = names or [f"d{i}" for i in range(cut, 3)]
            for name in inside[:cut] if model is student else inside:
                want = model.get_layer(name)(want)
        np.testing.assert_allclose(mixed(x), want, rtol=1e-5, atol=1e-6)


def test_layer_wise_normalizes_as_the_teacher_has_adapted():
    x = np.random.default_rng(0).normal(5, 3, (20, 4)).astype("float32")
    student, teacher = (
        keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(4, name="d"), keras.layers.Normalization()]
        )
        for _ in range(2)
    )
    teacher.layers[1].adapt(teacher.layers[0](x).numpy())
    student.set_weights(teacher.get_weights())
    mixed = next(methods.layer_wise(student, teacher, ["d"]))
    np.testing.assert_allclose(mixed(x), teacher(x), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("error:.*structure of `inputs`")
def test_layer_wise_reads_what_the_student_reads():
    """One tensor, or a dict."""
    inputs = keras.Input((4,))
    one = keras.Sequential([inputs, *(keras.layers.Dense(3, name=name) for name in ("a", "b"))])
    x = np.ones((2, 4), "float32")
    assert next(methods.layer_wise(one, one, ["a"]))(x).shape == (2, 3)
    named = {"left": keras.Input((4,), name="left"), "right": keras.Input((4,), name="right")}
    sums = keras.layers.Add(name="a")(list(named.values()))
    both = keras.Model(named, keras.layers.Dense(3)(sums))
    assert next(methods.layer_wise(both, both, ["a"]))({"left": x, "right": x}).shape == (2, 3)


class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.stage1 = keras.layers.Dense(3, name="stage1")

    def call(self, x):
        return self.stage1(x)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_layer_wise_cuts_models_that_know_their_inputs_and_outputs(role):
    subclass = Subclass()
    subclass(np.zeros((1, 8, 8, 1)))
    given = {"student": convolutional(3, "s"), "teacher": convolutional(5, "t"), role: subclass}
    with pytest.raises(ValueError, match=f"`{role}` must be functional, or sequential with"):
        next(methods.layer_wise(**given, layers=["stage1"]))


def test_layer_wise_says_where_models_cannot_be_cut():
    student, teacher = convolutional(3, "student"), convolutional(5, "teacher")
    with pytest.raises(ValueError, match="no adapter turns one into the other"):
        next(methods.layer_wise(student, teacher, [("embedding", "stage2")]))
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(5, 3, padding="same", name="stage1")(inputs)
    x = keras.layers.Conv2D(5, 3, padding="same", name="stage2")(x) + inputs
    around = keras.Model(inputs, x)
    with pytest.raises(ValueError, match="can't be cut after 'stage1'"):
        next(methods.layer_wise(student, around, ["stage1"]))
    assert all(layer.trainable for layer in student.layers)


@pytest.mark.parametrize(
    ("places", "role"),
    [
        (["stage2", "stage1"], "student"),
        (["stage1", "stage1"], "student"),
        ([("stage1", "stage2"), ("stage2", "stage1")], "teacher"),
        ([("stage1", "stage1"), ("stage2", "stage1")], "teacher"),
    ],
)
def test_layer_wise_goes_from_shallow_to_deep(places, role):
    student, teacher = convolutional(3, "student"), convolutional(5, "teacher")
    with pytest.raises(ValueError, match=f"`layers` must go from shallow to deep.*the {role}'s"):
        next(methods.layer_wise(student, teacher, places))


@pytest.mark.parametrize(
    "method",
    [
        methods.attention_transfer,
        methods.relational,
        methods.review,
        methods.minilm,
        lambda *given: list(methods.layer_wise(*given)),
    ],
)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"student": 3}, "`student` must be a `keras.Model`. Received: student=3"),
        ({"teacher": "t.keras"}, "`teacher` must be a `keras.Model`. Received: teacher='t.keras'"),
        ({"layers": 3}, "layers=3"),
        ({"layers": "d0"}, "layers='d0'"),
        ({"layers": []}, r"layers=\[\]"),
        ({"layers": [3]}, r"layers=\[3\]"),
        ({"layers": [("d0", "d0", "d0")]}, r"layers=\[\('d0', 'd0', 'd0'\)\]"),
    ],
)
def test_methods_name_what_is_no_model_or_place(method, change, named):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="d0")])
    given = {"student": model, "teacher": model, "layers": ["d0"], **change}
    with pytest.raises((TypeError, ValueError), match=named):
        method(*given.values())


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_layers_of_a_nested_model_are_named(role):
    def flat():
        return [keras.layers.Dense(4, name="a"), keras.layers.Dense(4, name="b")]

    plain = keras.Sequential([keras.Input((4,)), *flat(), keras.layers.Dense(3)])
    inner = keras.Sequential([keras.Input((4,)), *flat()], name="inner")
    nested = keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(3)])
    models = (nested, plain) if role == "student" else (plain, nested)
    places = [("inner/a", "a"), ("inner/b", "b")]
    pairs = places if role == "student" else [pair[::-1] for pair in places]
    with pytest.raises(ValueError, match=f"The {role} can't be cut after 'b'"):
        next(methods.layer_wise(*models, pairs))
