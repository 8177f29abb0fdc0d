"""Integer files hold the values that calibration met: no tensor clips, no mask takes the range."""

import copy
import warnings

import keras
import numpy as np
import pytest
from keras_distill.tflite import child, flatbuffer, ranges
from keras_distill.tflite.converters.activation_ranges import activation_ranges
from sweeps import rest_is_long

from keras_distill import quantization, tflite

layers = keras.layers


def data(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal((64, *shape)).astype("float32")


def converted(student, x, target="android", quantization="int8", **options):
    """The artifact, made without a warning of the converter's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="As ")
        return tflite.convert(student, target, quantization, calibration=x, **options)


def error(artifact, student, x, runtime=None):
    """Root mean square error over the spread of Keras' outputs."""
    expected, got = student.predict(x, verbose=0), artifact.predict(x, runtime)
    return float(np.sqrt(np.mean((expected - got) ** 2)) / expected.std())


def two_averages(x):
    x = layers.Conv2D(8, 3, padding="same")(x)
    parts = [layers.Flatten()(layers.AveragePooling2D(n)(x)) for n in (8, 4)]
    return layers.Dense(4)(layers.Concatenate()(parts))


def pyramid(x):
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    parts = [layers.Flatten()(layers.AveragePooling2D(n)(x)) for n in (16, 8, 4)]
    return layers.Dense(4)(layers.Concatenate()(parts))


def average_beside_maximum(x):
    x = layers.Conv2D(8, 3, padding="same")(x)
    x = layers.Concatenate()([layers.AveragePooling2D(8)(x), layers.MaxPooling2D(8)(x)])
    return layers.Dense(4)(layers.Flatten()(x))


def average_of_what_a_convolution_reads(x):
    x = layers.Conv2D(8, 3, padding="same")(x)
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3)(x))
    parts = [layers.Flatten()(layers.AveragePooling2D(n)(x)) for n in (8, 4)]
    return layers.Dense(4)(layers.Concatenate()([layers.Dense(8)(y), *parts]))


POOLS = [two_averages, pyramid, average_beside_maximum, average_of_what_a_convolution_reads]


@pytest.mark.parametrize("function", rest_is_long(POOLS, [two_averages]))
@pytest.mark.parametrize("quantization", ["int8", "int16x8"])
def test_averages_that_are_concatenated(function, quantization):
    """The converter hands the concatenation's small range back to the convolution."""
    keras.utils.set_random_seed(0)
    inputs, x = keras.Input((16, 16, 3)), data(16, 16, 3)
    student = keras.Model(inputs, function(inputs))
    artifact = converted(student, x, "micro", quantization)
    limit = 0.07 if quantization == "int8" else 0.01
    assert error(artifact, student, x) < limit
    assert error(artifact, student, x, "litert") < limit
    rows = artifact.layers(x)
    assert max(row["clipped"] for row in rows) < 0.01


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"quantization": "int4"}, 0.08),
        ({"precision": {"CONV_2D": "int4"}}, 0.05),
        ({"ranges": "percentile"}, 0.02),
        ({"ranges": "mse"}, 0.02),
    ],
)
def test_ranges_of_the_other_quantizer(options, limit):
    """Percentiles clipped a maximum by the range of what it was taken of."""
    keras.utils.set_random_seed(0)
    inputs, x = keras.Input((16, 16, 3)), data(16, 16, 3)
    student = keras.Model(inputs, average_beside_maximum(inputs))
    method = options.pop("ranges", "minmax")
    artifact = converted(student, tflite.Calibration(x, ranges=method), **options)
    assert error(artifact, student, x) < limit


@pytest.mark.filterwarnings("ignore:Not everything is int8:UserWarning")
@pytest.mark.parametrize("io", ["int8", "float32"])
def test_what_is_read_by_many_has_its_own_range(io):
    """The converter quantizes it anew for one of them, in the range of a concatenation."""
    keras.utils.set_random_seed(0)
    inputs, x = keras.Input((8, 8, 4)), data(8, 8, 4)
    stem = layers.Dense(4)(inputs)
    outputs = {
        "adaptive": layers.AdaptiveAveragePooling2D(3)(stem),
        "average": layers.AveragePooling2D(3, 2, padding="same")(stem),
        "largest": layers.MaxPooling2D(2)(stem),
        "same": layers.Dropout(0.3)(stem),
        "stem": layers.SpatialDropout2D(0.3)(stem),
    }
    student = keras.Model(inputs, outputs)
    artifact = converted(student, x, "micro", io=io)
    expected, got = student.predict(x, verbose=0), artifact.predict(x)
    for name, wanted in expected.items():
        assert np.sqrt(np.mean((wanted - got[name]) ** 2)) / wanted.std() < 0.05, name


@pytest.mark.filterwarnings("ignore:Not everything is int8:UserWarning")
@pytest.mark.parametrize("name", ["log_sigmoid", "mish", "selu", "softplus"])
def test_exponential_units_in_integers(name):
    """The exponential of large numbers left the small ones a few steps: 7 to 47 % off."""
    keras.utils.set_random_seed(0)
    inputs, x = keras.Input((8, 6)), data(8, 6)
    student = keras.Model(inputs, layers.Activation(name)(layers.Dense(6)(inputs)))
    assert error(converted(student, 2 * x), student, 2 * x) < 0.03


@pytest.mark.filterwarnings("ignore:Not everything is int8:UserWarning")
def test_ranges_that_are_known_from_what_comes_later():
    """What `Dropout` tells of the stem came after the pooling's copy of it: 9 to 13 % off."""
    keras.utils.set_random_seed(3)
    inputs, x = keras.Input((8, 6)), data(8, 6)
    stem = layers.Dense(6)(inputs)
    outputs = [
        layers.AdaptiveAveragePooling1D(3)(stem),
        layers.AveragePooling1D(2)(stem),
        layers.MaxPooling1D(2)(stem),
        layers.Dropout(0.3)(stem),
        layers.Concatenate(axis=1)([stem, layers.Dense(6)(stem)]),
        stem[:, 1:7:2],
        keras.ops.stack([stem, 2 * stem], axis=1),
    ]
    student = keras.Model(inputs, outputs)
    for weight in student.weights:
        weight.assign_add(0.1 * np.random.default_rng(0).normal(size=weight.shape))
    artifact = converted(student, x)
    for row in artifact.verify(x, count=32)["runtimes"]["litert"]["outputs"]:
        assert row["error"] < 0.04, row


def test_sparsemax_is_refused_in_integers():
    """It was 20 % off: Keras sums all partial sums, so that it jumps where the support changes."""
    inputs, x = keras.Input((6,)), data(6)
    student = keras.Model(inputs, layers.Activation("sparsemax", name="sparse")(inputs))
    with pytest.raises(ValueError, match="^Layer 'sparse': `sparsemax` has no form in integers"):
        converted(student, x)
    by_itself = keras.Model(inputs, keras.ops.sparsemax(inputs))
    with pytest.raises(ValueError, match="`sparsemax` has no form in integers"):
        converted(by_itself, x)
    assert error(converted(student, x, quantization="float32"), student, x) < 1e-5
    z = np.sort(x, axis=1)[:, ::-1]
    sums = np.cumsum(z, axis=1)
    support = z - (sums - 1) / np.arange(1, 7) > 0
    tau = ((sums * support).sum(1) - 1) / support.sum(1)
    np.testing.assert_allclose(
        student.predict(x, verbose=0), np.maximum(x - tau[:, None], 0), atol=1e-5
    )


def test_maps_made_larger_have_the_range_of_the_small_ones():
    """The calibrator takes for theirs that of the sum, which is written over them."""
    inputs = keras.Input((8, 8, 4))
    wide = keras.initializers.RandomNormal(stddev=4, seed=1)
    fine = layers.Conv2D(6, 1, activation="relu", kernel_initializer=wide)(inputs)
    coarse = layers.Conv2D(6, 1)(layers.AveragePooling2D(2)(inputs))
    x = layers.Add()([layers.UpSampling2D(interpolation="bilinear")(coarse), fine])
    student = keras.Model(inputs, layers.Conv2D(3, 1)(x))
    x = data(8, 8, 4)
    assert error(converted(student, x), student, x) < 0.03


def test_pools_have_the_range_of_what_they_read():
    """The calibrator takes for a maximum's that of the sum, which is written over it."""
    keras.utils.set_random_seed(0)
    inputs, x = keras.Input((8, 8, 4)), data(8, 8, 4)
    y = layers.Conv2D(4, 1)(inputs)
    y = layers.MaxPooling2D()(y) + 2.0 * layers.AveragePooling2D(2)(y)
    student = keras.Model(inputs, layers.Conv2D(3, 1)(y))
    assert error(converted(student, x), student, x) < 0.03


def test_bounded_units_are_between_tensors_of_one_scale():
    """TFLite Micro's RELU6 compares and copies integers, whatever the scales say: 311 % off."""
    inputs, x = keras.Input((5, 4)), 6 * data(5, 4)
    student = keras.Model(inputs, keras.ops.relu6(inputs))
    file = flatbuffer.File(converted(student, x).tflite)
    (unit,) = (o for o in file.graph.operators if file.operator_name(o) == "RELU6")
    narrow = file.graph.tensors[unit.outputs[0]].quantization = copy.deepcopy(
        file.graph.tensors[unit.outputs[0]].quantization
    )
    narrow.scale = [narrow.scale[0] / 2]
    wrong, right = file.to_bytes(), flatbuffer.with_equal_relu6(file.to_bytes())
    assert np.abs(tflite.load(wrong, "micro").predict(x) - np.clip(x, 0, 3)).max() > 1
    # What the output can't hold is its largest value.
    np.testing.assert_allclose(tflite.load(right, "micro").predict(x), np.clip(x, 0, 3), atol=0.1)


def test_averages_have_the_step_of_what_they_average():
    """The bound on the page of exported layers: within half a step of the input's error."""
    inputs, x = keras.Input((8, 8, 2)), data(8, 8, 2)
    student = keras.Model(inputs, layers.AveragePooling2D(8)(inputs))
    artifact = converted(student, x, "micro")
    step = artifact.ports.inputs[0].scale
    assert artifact.ports.outputs[0].scale == pytest.approx(step)
    wrong = artifact.predict(x) - student.predict(x, verbose=0)
    assert 0.5 * step / 12**0.5 < np.sqrt(np.mean(wrong**2)) < 1.1 * step / 12**0.5
    assert np.abs(wrong).max() <= step
    error = artifact.verify(x)["runtimes"]["micro"]["outputs"][0]["error"]
    assert error < 1.1 * step * 8 / 12**0.5 / x.std()


def test_scales_of_the_specification():
    """TFLite Micro's TANH takes its scale for granted; the converter gave it that of a sum."""
    keras.utils.set_random_seed(3)
    inputs, x = keras.Input((8, 6)), 1.5 * data(8, 6)
    y = layers.Dense(6)(inputs)
    student = keras.Model(inputs, y * (1.0 + keras.ops.tanh(y)))
    artifact = converted(student, x, "micro")
    for runtime in ("micro", "litert"):
        assert error(artifact, student, x, runtime) < 0.03


def test_ranges_are_those_that_the_converter_calibrated(monkeypatch):
    """One run of the converter gives the file and the ranges that it is held against."""
    keras.utils.set_random_seed(0)
    inputs, x = keras.Input((16, 16, 3)), data(16, 16, 3)
    student = keras.Model(inputs, two_averages(inputs))
    runs, met = [], []
    run, calibrated = child.run, ranges.calibrated
    monkeypatch.setattr(child, "run", lambda *a, **k: (runs.append(a[1]), run(*a, **k))[1])
    monkeypatch.setattr(ranges, "calibrated", lambda f: (met.append(calibrated(f)), met[0])[1])
    artifact = converted(student, x)
    assert runs.count("convert") == 1
    wanted = activation_ranges(artifact.float32(), [x], "minmax")
    assert wanted.keys() <= met[0].keys()
    for name, (low, high) in wanted.items():
        assert met[0][name] == pytest.approx((low, high), rel=1e-5)


def with_dead_layer(x):
    """A layer of a single unit that is never active, as may be left of a pruned one."""
    x = layers.Conv2D(4, 3, activation="relu")(x)
    never = keras.initializers.Constant(-9.0)
    x = layers.Conv2D(1, 3, activation="relu", bias_initializer=never, name="dead")(x)
    x = layers.Conv2D(4, 3, bias_initializer="random_normal", name="reads")(x)
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(x))


@pytest.fixture(scope="module")
def dead():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    skipped = layers.Dense(3)(layers.Flatten()(inputs))
    return keras.Model(inputs, layers.Add()([with_dead_layer(inputs), skipped]))


@pytest.mark.parametrize(
    ("target", "quantization", "precision"),
    [
        ("android", "int8", {}),
        ("android", "int16x8", {}),
        ("micro", "int8", {"reads": "int16"}),
        pytest.param("micro", "int16x8", {}, marks=pytest.mark.long),
    ],
)
def test_units_that_are_never_active_have_a_step(dead, target, quantization, precision):
    x = data(8, 8, 3)
    artifact = converted(dead, x, target, quantization, precision=precision)
    assert error(artifact, dead, x) < 0.03
    operators = tflite.inspect(artifact.tflite).operators
    steps = [step for op in operators for t in op.outputs for step in t.scales or ()]
    assert min(steps) > 1e-7


@pytest.mark.parametrize("learned_steps", rest_is_long([False, True], [False]))
def test_units_that_are_never_active_in_training(dead, learned_steps):
    x = data(8, 8, 3)
    aware = quantization.quantize_aware(dead, calibration=x, learned_steps=learned_steps)
    assert error(tflite.convert(aware), aware, x) < 0.03


def test_steps_that_kernels_refuse_are_named(dead):
    aware = quantization.quantize_aware(dead, calibration=data(8, 8, 3))
    (dying,) = (layer for layer in aware.layers if getattr(layer, "tensor", "") == "dead")
    dying.maximum.assign([1e-7])
    with pytest.raises(ValueError, match=r"refuses CONV_2D \(layer 'dead"):
        tflite.convert(aware)


def test_selections_are_between_tensors_of_one_scale():
    """SELECT copies integers."""
    keras.utils.set_random_seed(0)
    inputs, x = keras.Input((6, 4)), data(6, 4)
    narrow, wide = layers.Dense(4)(inputs), 40 * layers.Dense(4)(inputs)
    mask = np.arange(6)[:, None] % 2 == 0
    student = keras.Model(inputs, keras.ops.where(mask, narrow, wide))
    assert error(converted(student, x), student, x) < 0.02


@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_selections_in_tflite_micro(quantization):
    """It has SELECT_V2 alone, which is the same for conditions of the shape of what they choose."""
    keras.utils.set_random_seed(0)
    inputs, x = keras.Input((6, 4)), data(6, 4)
    y, z = layers.Dense(4)(inputs), layers.Dense(4)(inputs)
    student = keras.Model(inputs, [keras.ops.where(y > z, y, z), keras.ops.soft_shrink(y, 0.1)])
    files = {t: converted(student, x, t, quantization) for t in ("android", "micro")}
    assert "SELECT" in files["android"].report["operators"]
    assert "SELECT" not in files["micro"].report["operators"]
    report = files["micro"].verify(x, count=32)
    assert report["runtimes"]["micro"]["verdict"] == "pass"
    most = np.maximum(*keras.Model(inputs, [y, z]).predict(x, verbose=0))
    steps = 2e-6 if quantization == "float32" else 0.05
    np.testing.assert_allclose(next(iter(files["micro"].predict(x).values())), most, atol=steps)


@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_hard_tanh_in_tflite_micro(quantization):
    """It has MAXIMUM and MINIMUM alone; a phone's file keeps RELU_N1_TO_1."""
    inputs, x = keras.Input((6,)), 2 * data(6)
    y = layers.Activation("hard_tanh")(inputs)
    student = keras.Model(inputs, [y, layers.Concatenate()([y, 3 * inputs])])
    files = {t: converted(student, x, t, quantization) for t in ("android", "micro")}
    assert "RELU_N1_TO_1" in files["android"].report["operators"]
    assert {"MAXIMUM", "MINIMUM"} <= set(files["micro"].report["operators"])
    assert files["micro"].verify(x, count=32)["runtimes"]["micro"]["verdict"] == "pass"
    # In int8, it has the wide steps of what it is joined with, as on a phone.
    atol = 1e-6 if quantization == "float32" else 3 * np.ptp(x) / 255
    got, on_phone = (files[t].predict(x) for t in ("micro", "android"))
    for name in got:
        np.testing.assert_allclose(got[name], on_phone[name], atol=1e-6)
        np.testing.assert_allclose(got[name][:, :6], np.clip(x, -1, 1), atol=atol)


def test_one_hot_in_integers():
    """Its "off" was the integer 0, which stands for a half."""
    keras.utils.set_random_seed(0)
    ids = np.random.default_rng(0).integers(0, 10, (64, 5)).astype("int32")
    inputs = keras.Input((5,), dtype="int32")
    y = layers.Dense(3)(layers.Flatten()(keras.ops.one_hot(inputs, 10)))
    student = keras.Model(inputs, y)
    assert error(converted(student, ids), student, ids) < 0.02


def causal(x):
    return layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)


def scores_minus_mask(x):
    return layers.Attention()([layers.Dense(4)(x), x], use_causal_mask=True)


def additive(x):
    return layers.AdditiveAttention()([layers.Dense(4)(x), x], use_causal_mask=True)


def selected(x):
    mask = np.arange(4) != 2
    return keras.ops.softmax(keras.ops.where(mask, 3 * layers.Dense(4)(x), -1e9))


def added(x):
    """A window, as Swin transformers mask it."""
    mask = np.where(np.arange(4) == 1, -100.0, 0.0).astype("float32")
    return keras.ops.softmax(3 * layers.Dense(4)(x) + mask)


def given_to_the_layer(x):
    return layers.Softmax()(3 * layers.Dense(4)(x), mask=keras.ops.ones((6, 4), "bool"))


MASKED = [causal, scores_minus_mask, additive, selected, added, given_to_the_layer]


@pytest.mark.parametrize("function", rest_is_long(MASKED, [added]))
def test_masks_leave_scores_their_precision(function):
    """In integers, the -1e9 of a mask was the range of the scores: all rounded to one value."""
    keras.utils.set_random_seed(0)
    inputs, x = keras.Input((6, 4)), data(6, 4)
    student = keras.Model(inputs, layers.Dense(3)(function(inputs)))
    artifact = converted(student, x)
    assert error(artifact, student, x) < 0.06
    assert max(row["error"] for row in artifact.layers(x)) < 0.1
    calibration = tflite.Calibration(x, ranges="percentile")
    assert error(converted(student, calibration), student, x) < 0.1
    if function in (scores_minus_mask, additive):
        assert error(converted(student, x, quantization="int16x8"), student, x) < 0.01


def largest(x):
    return keras.ops.max(keras.ops.where(x > 0, x, -1e9), axis=1)


def smallest(x):
    """Beside an attention, whose masks are other constants."""
    y = keras.ops.min(keras.ops.where(x < -1, 1e8, 3 * layers.Dense(4)(x)), axis=1)
    return keras.ops.concatenate([y, keras.ops.mean(causal(x), axis=1)], axis=-1)


@pytest.mark.parametrize("function", [largest, smallest])
def test_masks_leave_extremes_their_precision(function):
    keras.utils.set_random_seed(0)
    inputs, x = keras.Input((6, 4)), data(6, 4)
    x[:, 0] = np.abs(x[:, 0])
    student = keras.Model(inputs, function(inputs))
    assert error(converted(student, x), student, x) < 0.06


def test_padded_texts():
    """The mask is computed from the ids."""
    keras.utils.set_random_seed(0)
    ids = np.random.default_rng(0).integers(1, 9, (64, 6)).astype("int32")
    ids[:32, 4:] = 0
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 8, mask_zero=True, embeddings_initializer="normal")(inputs)
    x = layers.MultiHeadAttention(2, 4)(4 * x, 4 * x)
    student = keras.Model(inputs, layers.Dense(3)(keras.ops.reshape(x, (-1, 48))))
    assert error(converted(student, ids), student, ids) < 0.05


def test_large_constants_that_are_no_masks():
    """A low temperature: brought near, it would compute something else."""
    keras.utils.set_random_seed(0)
    inputs, x = keras.Input((6,)), 0.01 * data(6)
    student = keras.Model(inputs, keras.ops.softmax(200.0 * layers.Dense(4)(inputs)))
    assert error(converted(student, x), student, x) < 0.05
