"""MGD, PKD, CrossKD and CIRKD: what isn't a promise that all losses share."""

import golden
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from loss_cases import as_tensors, cross_head

import keras_distill
from keras_distill import losses

RNG = np.random.default_rng(5)


def masked_positions(loss, teacher, student):
    """The value, and which positions of the student have no part in it."""
    with tf.GradientTape() as tape:
        tape.watch(student)
        values = loss(teacher, student)
    gradient = tape.gradient(values, student).numpy()
    return values.numpy(), (gradient == 0).all(-1)


def test_mgd_sees_nothing_of_masked_positions():
    loss = losses.MGD(masked=0.5, reduction="none")
    loss.build((None, 16, 16, 2), (None, 16, 16, 2))
    arrays = RNG.standard_normal((2, 3, 16, 16, 2))
    teacher, student = as_tensors(arrays)
    first, masked = masked_positions(loss, teacher, student)
    want = golden.mgd(*arrays, loss.state, kept=~masked[..., None])
    np.testing.assert_allclose(first, want, rtol=1e-5)
    assert abs(masked.mean() - 0.5) < 0.06
    second, others = masked_positions(loss, teacher, student)
    np.testing.assert_allclose(
        second, golden.mgd(*arrays, loss.state, kept=~others[..., None]), rtol=1e-5
    )
    assert (masked != others).mean() > 0.4


def test_the_weight_of_mgd_in_the_paper():
    """Which sums over channels and positions: α = 2e-5 is α · height · width · channels here."""
    loss = losses.MGD(masked=0.0)
    loss.build((None, 3, 4, 5), (None, 3, 4, 5))
    t, s = RNG.standard_normal((2, 2, 3, 4, 5))
    hidden = np.maximum(golden.convolve_with_bias(s, loss.state.first), 0)
    generated = golden.convolve_with_bias(hidden, loss.state.second)
    theirs = 2e-5 * ((generated - t) ** 2).sum() / 2
    assert 2e-5 * 3 * 4 * 5 * float(loss(t, s)) == pytest.approx(theirs, rel=1e-5)


def test_pkd_is_one_minus_pearsons_correlation():
    t, s = RNG.standard_normal((2, 4, 3, 3, 5))
    r = [np.corrcoef(t[..., c].ravel(), s[..., c].ravel())[0, 1] for c in range(5)]
    value = float(losses.PKD(dtype="float64")(t, s))
    assert value == pytest.approx(1 - np.mean(r), rel=1e-5)
    scaled = s * np.arange(1, 6) * 100 - 7
    assert float(losses.PKD()(t, scaled)) == pytest.approx(value, rel=1e-4)


def test_masked_positions_have_no_part_in_relations():
    """As if they weren't there: an image of 2 columns, and one of 3 of which the last is masked."""
    t, s = RNG.standard_normal((2, 2, 2, 3, 4))
    weights = np.ones((2, 2, 3))
    weights[..., 2] = 0
    kept = t[:, :, :2], s[:, :, :2]
    for loss in (losses.PKD(reduction="none"), losses.CIRKD(reduction="none")):
        s[:, :, 2] = RNG.standard_normal((2, 2, 4)) * 9
        # A value's weight is the mean over the positions that it sums up.
        np.testing.assert_allclose(loss(t, s, weights), loss(*kept).numpy() * 2 / 3, rtol=2e-5)


def test_cirkd_of_maps_of_two_sizes():
    t, s = RNG.standard_normal((2, 4, 4, 3)), RNG.standard_normal((2, 2, 2, 5))
    want = golden.cirkd(golden.average_pool(t, (2, 2)), s)
    np.testing.assert_allclose(losses.CIRKD(reduction="none")(t, s), want, rtol=1e-4)
    rotation = np.linalg.qr(RNG.standard_normal((5, 5)))[0]
    np.testing.assert_allclose(losses.CIRKD(reduction="none")(t, s @ rotation), want, rtol=1e-4)


def test_cross_kd_of_distances():
    loss = losses.CrossKD(
        cross_head(4, layers.Activation("exponential")), "distances", reduction="none"
    )
    features, student = RNG.standard_normal((2, 3, 2, 2, 3))
    boxes, classes = RNG.uniform(0.1, 3, (3, 2, 2, 4)), RNG.standard_normal((3, 2, 2, 5))
    loss.build((features.shape, boxes.shape, classes.shape), student.shape)
    teacher = features, boxes, classes
    want = golden.cross_kd(teacher, student, loss.state, "distances")
    np.testing.assert_allclose(loss(teacher, student), want, rtol=1e-5)
    same = loss((features, np.exp(golden.convolve_with_bias(
        features, loss.state.head.layers[0])), classes), features * 3 + 1)  # fmt: skip
    np.testing.assert_allclose(same, 0, atol=1e-5)
    # What is below 0 is an edge at the point itself, not a box turned inside out.
    below = loss((features, np.where(boxes < 1, -boxes, boxes), classes), student)
    at = loss((features, np.where(boxes < 1, 0, boxes), classes), student)
    np.testing.assert_array_equal(below, at)


@pytest.mark.parametrize(("compares", "activation"), [("classes", "sigmoid"), ("edges", "softmax")])
def test_cross_kd_compares_logits_where_the_head_ends_in_an_activation(compares, activation):
    """Otherwise the sigmoid, or the softmax, is taken twice."""
    features, student = RNG.standard_normal((2, 2, 2, 2, 3))
    classes = keras.ops.convert_to_tensor(RNG.standard_normal((2, 2, 2, 4)), "float32")
    edges = keras.ops.convert_to_tensor(RNG.standard_normal((2, 2, 2, 4, 3)), "float32")
    parts = 4 if compares == "classes" else 12
    after = [] if compares == "classes" else [layers.Reshape((2, 2, 4, 3))]
    shapes = [features.shape, classes.shape]
    teacher = [features, classes]
    ending = [features, keras.activations.sigmoid(classes)]
    if compares == "edges":
        shapes.insert(1, edges.shape)
        teacher.insert(1, edges)
        ending.insert(1, keras.activations.softmax(edges))
    values = []
    for given, end in ((teacher, []), (ending, [layers.Activation(activation)])):
        loss = losses.CrossKD(cross_head(parts, *after, *end), compares, reduction="none")
        loss.build(tuple(shapes), student.shape)
        values.append(np.asarray(loss(tuple(given), student)))
    np.testing.assert_allclose(values[1], values[0], rtol=1e-5)
    assert (values[0] > 0).all()


def test_a_head_that_hides_its_logits_is_refused():
    head = cross_head(5, layers.Activation("sigmoid"), layers.Reshape((4, 5), name="rows"))
    with pytest.raises(ValueError, match="`head` must give logits.*'rows' follows"):
        losses.CrossKD(head)
    losses.CrossKD(cross_head(4, layers.Activation("sigmoid"), layers.Reshape((4, 4))), "distances")


def test_cross_kd_is_nothing_where_the_teachers_head_agrees():
    head = cross_head(5)
    features = RNG.standard_normal((2, 2, 2, 3))
    classes = np.asarray(head(features))
    loss = losses.CrossKD(head)
    loss.build((features.shape, classes.shape), features.shape)
    assert float(loss((features, classes), features)) == pytest.approx(0, abs=1e-6)
    # The scale of the student's features doesn't matter.
    assert float(loss((features, classes), 9 * features - 4)) == pytest.approx(0, abs=1e-6)


def detector(width, seed):
    keras.utils.set_random_seed(seed)
    image = keras.Input((4, 4, 3))
    x = layers.Conv2D(width, 3, padding="same", activation="relu", name="tower_1")(image)
    x = layers.Conv2D(width, 3, padding="same", activation="relu", name="tower_2")(x)
    return keras.Model(image, layers.Conv2D(2, 1, name="scores")(x))


def test_an_adapter_for_two_taps_against_one_is_refused_with_the_fix():
    teacher, student = detector(6, 0), detector(4, 1)
    head = keras.Model(teacher.get_layer("tower_1").output, teacher.output)
    taps = {"student": "tower_1", "teacher": ("tower_1", "scores")}
    match = keras_distill.Match(losses.CrossKD(head), adapter="auto", **taps)
    with pytest.raises(ValueError, match="compares 1 taps with 2.*Give `adapter` a layer"):
        keras_distill.Distiller(student, teacher, match)


@pytest.mark.long
def test_a_detector_is_distilled_across_heads(tmp_path):
    """The teacher stays what it was; its copy isn't trained, and comes back with the distiller."""
    teacher, student = detector(6, 0), detector(4, 1)
    before = [w.copy() for w in teacher.get_weights()]
    head = keras.Model(teacher.get_layer("tower_1").output, teacher.output)
    match = keras_distill.Match(
        losses.CrossKD(head),
        student="tower_1",
        teacher=("tower_1", "scores"),
        adapter=layers.Conv2D(6, 1),
    )
    distiller = keras_distill.Distiller(student, teacher, match, alpha=0.0)
    distiller.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    x = RNG.standard_normal((8, 4, 4, 3)).astype("float32")
    history = distiller.fit(x, batch_size=8, epochs=12, verbose=0).history["cross_kd"]
    assert history[-1] < 0.9 * history[0]
    assert teacher.trainable
    assert all(layer.trainable for layer in teacher.layers)
    for now, then in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    frozen = match.loss.state
    for now, then in zip(frozen.head.get_weights(), before[2:], strict=True):
        np.testing.assert_array_equal(now, then)
    assert not frozen.trainable_variables
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    loaded.teacher = teacher
    loaded.run_eagerly = True
    one, other = (d.train_on_batch(x, return_dict=True) for d in (distiller, loaded))
    assert one == other


def test_heads_and_features_that_do_not_fit_are_refused():
    teacher, student = detector(6, 0), detector(4, 1)
    head = keras.Model(teacher.get_layer("tower_1").output, teacher.output)

    def distilled(**arguments):
        loss = losses.CrossKD(head, arguments.pop("compares", "classes"))
        match = keras_distill.Match(loss, student="tower_1", **arguments)
        keras_distill.Distiller(student, teacher, match)

    with pytest.raises(ValueError, match=r"features of shape .*6\).*4\).*Conv2D\(6, 1\)"):
        distilled(teacher=("tower_1", "scores"))
    with pytest.raises(ValueError, match=r"takes `teacher=\(features, boxes, classes\)`"):
        distilled(teacher=("tower_1", "scores"), compares="edges", adapter=layers.Conv2D(6, 1))
    with pytest.raises(ValueError, match="takes `teacher=\\(features, classes\\)`"):
        distilled(teacher="tower_1")
    with pytest.raises(TypeError, match="`head` must be a `keras.Model`"):
        losses.CrossKD(layers.Conv2D(2, 1))
    with pytest.raises(ValueError, match="`MGD` compares maps"):
        losses.MGD().build((None, 4), (None, 4))
    with pytest.raises(ValueError, match="`PKD` takes features with positions"):
        losses.PKD()(np.zeros((2, 3)), np.zeros((2, 3)))


def memory_loss(**arguments):
    loss = losses.CIRKDMemory(classes=3, pixels=6, regions=3, drawn=2, **arguments)
    loss.build((None, 4, 4, 5), (None, 4, 4, 5))
    return loss


def test_memory_keeps_the_newest_pixels_and_regions_of_each_class():
    loss, teacher = memory_loss(), RNG.standard_normal((5, 4, 4, 5))
    labels = np.full((5, 4, 4), 255)
    labels[:, :2], labels[3, 3] = 0, 2
    for i in range(5):
        loss((teacher[i : i + 1], labels[i : i + 1]), np.zeros((1, 4, 4, 5)))
    pixels, regions = loss.state.pixel_memory.numpy(), loss.state.region_memory.numpy()
    assert not pixels[1].any()
    assert not regions[1].any()
    np.testing.assert_array_equal(pixels[2].any(-1), [1, 1, 0, 0, 0, 0])
    np.testing.assert_allclose(regions[2, 0], golden.unit(golden.unit(teacher[3, 3]).mean(0)), 1e-5)
    of_images = golden.unit(teacher[:, :2].reshape(5, 8, 5))
    np.testing.assert_allclose(
        regions[0], golden.unit(of_images.mean(1))[:1:-1], rtol=1e-5, atol=1e-6
    )
    for rows, image in zip(pixels[0].reshape(3, 2, 5), of_images[:1:-1], strict=True):
        distance = np.abs(rows[:, None] - image).max(-1)
        assert (distance.min(1) < 1e-6).all()
        assert len(set(distance.argmin(1))) == 2


def test_memory_in_double_precision_with_labels_of_a_larger_map():
    loss = memory_loss(reduction="none", dtype="float64", temperature=0.3)
    t, s = RNG.standard_normal((2, 1, 4, 4, 5))
    labels = RNG.integers(0, 4, (1, 10, 8, 1))
    at = labels[:, [0, 2, 5, 7]][:, :, ::2]
    loss.state.drawn = 16
    loss.state.pixel_memory.assign(golden.unit(RNG.standard_normal((3, 6, 5))))
    value = loss((t, labels), s)
    filled = loss.state  # What was compared holds the batch already, rounded to float32.
    want = golden.cirkd_memory(t, s, at, filled, 0.3, new=False)
    np.testing.assert_allclose(value, want, rtol=1e-12)
    with pytest.raises(ValueError, match="takes the class of each position"):
        loss((t, np.zeros((1,))), s)


def test_memory_is_filled_and_saved_by_a_distiller(tmp_path):
    teacher, student = detector(6, 0), detector(4, 1)
    match = keras_distill.Match(losses.CIRKDMemory(classes=2), student="tower_1", adapter="auto")
    distiller = keras_distill.Distiller(student, teacher, match, missing_label=255)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", loss, run_eagerly=True)
    x, y = RNG.standard_normal((2, 4, 4, 3)), np.zeros((2, 4, 4))
    y[0] = 255
    assert distiller.train_on_batch(x, y, return_dict=True)["cirkd_memory"] > 0
    memory = match.loss.state.region_memory.numpy()
    np.testing.assert_array_equal(memory.any(-1).sum(1), [1, 0])
    distiller.save_weights(tmp_path / "all.weights.h5")
    match.loss.state.region_memory.assign(np.zeros(memory.shape))
    distiller.load_weights(tmp_path / "all.weights.h5")
    np.testing.assert_array_equal(match.loss.state.region_memory, memory)


def test_memory_of_pixels_takes_batches_of_any_size():
    loss = losses.CIRKDMemory(classes=2)
    loss.build((None, 2, 3, 4), (None, 2, 3, 4))
    size = tf.TensorSpec((None, 2, 3, 4))
    step = tf.function(
        lambda t, s, y: loss((t, y), s), [size, size, tf.TensorSpec((None, 2, 3), "int32")]
    )
    x = np.random.default_rng(0).standard_normal((2, 3, 2, 3, 4)).astype("float32")
    for count in (3, 2):
        assert np.isfinite(step(*x[:, :count], np.zeros((count, 2, 3), "int32")))
