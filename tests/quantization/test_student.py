"""A quantize-aware model is a Keras model and a student like any other."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from aware import compiled, convolutional

import keras_distill
from keras_distill import quantization
from keras_distill.quantization.layers import QuantizedBatchNormalization
from keras_distill.quantization.ranges import Range


def test_calibrated_copy_answers_like_the_original(float_student, split):
    x = split[1][0]
    before = float_student.get_weights()
    model = quantization.quantize_aware(float_student, split[0][0][:256])
    difference = model.predict(x, verbose=0) - float_student.predict(x, verbose=0)
    spread = np.std(float_student.predict(x, verbose=0))
    assert np.sqrt(np.mean(difference**2)) < 0.05 * spread
    for old, new in zip(before, float_student.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_calibration_finds_the_extremes(float_student, split):
    x = split[0][0][:100]
    model = quantization.quantize_aware(float_student, x)
    inside = keras.Model(float_student.inputs, float_student.get_layer("block").output)
    values = inside.predict(x, verbose=0)
    # The block's output, its pooled form and the concatenated branch share one range.
    wide = keras.Model(float_student.inputs, float_student.get_layer("wide").output)
    highest = max(values.max(), wide.predict(x, verbose=0).max())
    layer = model.get_layer("block_range")
    assert layer.tensors == 2
    assert float(np.max(layer.maximum)) == pytest.approx(highest, rel=0.02)


@pytest.fixture(scope="module")
def calibrated(float_student, split):
    """The student, calibrated on an array."""
    return quantization.quantize_aware(float_student, split[0][0][:128])


@pytest.mark.parametrize("form", ["list", "dict", "dataset", "labelled dataset", "batches"])
def test_forms_of_calibration(form, float_student, calibrated, split):
    x, y = split[0][0][:128], split[0][1][:128]
    data = {
        "list": [x],
        "dict": {"image": x},
        "dataset": tf.data.Dataset.from_tensor_slices(x).batch(32),
        "labelled dataset": tf.data.Dataset.from_tensor_slices((x, y)).batch(32),
        "batches": (x[i : i + 16] for i in range(0, 128, 16)),
    }[form]
    reference = calibrated.get_layer("logits_range")
    layer = quantization.quantize_aware(float_student, data).get_layer("logits_range")
    assert float(layer.grid()[0]) == pytest.approx(float(reference.grid()[0]), rel=1e-5)


def test_names_and_outputs_are_kept(float_student):
    model = quantization.quantize_aware(float_student)
    names = {layer.name for layer in model.layers}
    assert names >= {layer.name for layer in float_student.layers}
    assert model.output_names == float_student.output_names == ["logits"]
    assert model.name == "student"


@pytest.mark.long
def test_distilled_like_any_student(float_student, split, tmp_path):
    """By the `Distiller`, its float self as teacher, with a tap by the original layer name."""
    (x, y), _ = split
    student = quantization.quantize_aware(float_student, x[:256], weight_bits=4)
    hint = keras_distill.Match(keras.losses.MeanSquaredError(), student="block", teacher="block")
    distiller = keras_distill.Distiller(
        student,
        float_student,
        losses=[keras_distill.losses.SoftTargets(temperature=2.0), hint],
        alpha=0.1,
    )
    features = keras.Model(float_student.inputs, float_student.get_layer("block").output)
    compiled(distiller, 1e-3)
    history = distiller.fit(x, y, epochs=2, batch_size=64, verbose=0).history
    assert history["soft_targets"][1] < history["soft_targets"][0]
    assert history["mean_squared_error"][1] < 0.1 * np.var(features.predict(x, verbose=0))
    assert distiller.evaluate(*split[1], verbose=0, return_dict=True)["accuracy"] > 0.9
    student.save(tmp_path / "student.keras")
    again = keras.saving.load_model(tmp_path / "student.keras", safe_mode=True)
    np.testing.assert_array_equal(
        again.predict(split[1][0], verbose=0), student.predict(split[1][0], verbose=0)
    )
    assert quantization.is_quantize_aware(again)
    assert again.output_names == ["logits"]


def test_logits_behind_a_rounded_softmax_are_found(digits):
    x, _ = digits
    image = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(image)
    model = keras.Model(image, keras.layers.Dense(10, activation="softmax", name="p")(flat))
    model = quantization.quantize_aware(model, x[:64])
    logits = keras.Model(model.inputs, model.get_layer("p_linear_range").output)
    teacher = np.random.default_rng(0).normal(0, 2, (64, 10)).astype("float32")
    loss = keras_distill.losses.SoftTargets(temperature=3.0)
    got = loss(teacher, model(x[:64]))
    assert float(got) == pytest.approx(float(loss(teacher, logits(x[:64]))), rel=1e-5)


@pytest.mark.long
def test_training_stops_and_goes_on(split, tmp_path):
    """Two epochs in a row and two with a save in between end in the same weights."""
    (x, y), _ = split
    x, y = x[:256], y[:256]
    runs = []
    image = keras.Input((8, 8, 1))
    maps = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(image)
    maps = keras.layers.ReLU()(keras.layers.BatchNormalization()(maps))
    maps = keras.layers.Add()([maps, keras.layers.DepthwiseConv2D(3, padding="same")(maps)])
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    student = keras.Model(image, keras.layers.Dense(10)(pooled))
    for stops in (False, True):
        keras.utils.set_random_seed(3)
        model = compiled(quantization.quantize_aware(student, x, learned_steps=True), 1e-3)
        model.fit(x, y, epochs=1, shuffle=False, verbose=0)
        if stops:
            model.save(tmp_path / "half.keras")
            model = keras.saving.load_model(tmp_path / "half.keras", safe_mode=True)
        model.fit(x, y, epochs=1, shuffle=False, verbose=0)
        runs.append(model.get_weights())
    for one, two in zip(*runs, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_freezing_in_the_middle_of_fit(float_student, split):
    (x, y), _ = split
    x, y = x[:128], y[:128]
    model = compiled(quantization.quantize_aware(float_student, x[:64]), 1e-2)
    seen = []

    def at_epoch(epoch, logs):
        if epoch == 1:
            quantization.freeze(model)
        seen.append(
            [
                np.concatenate([np.ravel(v) for v in layer.non_trainable_variables[:2]])
                for layer in model.layers
                if isinstance(layer, (Range, QuantizedBatchNormalization))
            ]
        )

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=at_epoch)
    kernel = np.array(model.get_layer("wide").float_kernel)
    model.fit(x, y, epochs=3, verbose=0, callbacks=[callback])
    moved = [np.any(a != b) for a, b in zip(seen[0], seen[1], strict=True)]
    assert np.mean(moved) > 0.7
    for one, two in zip(seen[1], seen[2], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)
    assert np.any(kernel != np.array(model.get_layer("wide").float_kernel))


@pytest.mark.long
def test_fresh_student_learns_from_the_first_step(split):
    """Without calibration ranges start from the first batch."""
    keras.utils.set_random_seed(0)
    model = compiled(quantization.quantize_aware(convolutional()))
    model.fit(*split[0], epochs=6, batch_size=64, verbose=0)
    assert model.evaluate(*split[1], verbose=0)[1] > 0.8


@pytest.mark.long
def test_mixed_precision_keeps_rounding_in_float32(split):
    (x, y), _ = split
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = convolutional()
        aware = compiled(quantization.quantize_aware(model, x[:128]))
    finally:
        keras.config.set_dtype_policy("float32")
    aware.fit(x[:128], y[:128], epochs=1, verbose=0)
    assert aware.get_layer("wide").compute_dtype == "float16"
    assert aware.get_layer("block_range").dtype == "float32"
    layer = aware.get_layer("wide")
    integers, scale = layer.integers()
    np.testing.assert_array_equal(
        integers, np.round(np.float32(layer.float_kernel) / np.float32(scale))
    )


@pytest.mark.long
def test_two_replicas_keep_one_range():
    """In a process of its own, for devices are set up before TensorFlow starts."""
    script = pathlib.Path(__file__).with_name("run_two_replicas.py")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result["copies"]) == 7
    for low, other_low, high, other_high in result["copies"].values():
        assert low == other_low
        assert high == other_high
    assert result["before"] != result["after"]


def test_calibration_on_elements_of_fit_reads_no_labels(rng):
    """The labels of an autoencoder have the shape of its inputs, and another range."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6)])
    x = rng.uniform(-1, 1, (32, 6)).astype("float32")
    plain = quantization.quantize_aware(model, x).get_weights()
    paired = quantization.quantize_aware(model, (x, 255 * np.abs(x))).get_weights()
    for ours, theirs in zip(paired, plain, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_student_normalizes_as_it_has_adapted():
    """Keras computes with a copy of the statistics, which `set_weights` leaves as it was."""
    x = np.random.default_rng(0).normal(5, 3, (64, 4)).astype("float32")
    normalization = keras.layers.Normalization()
    normalization.adapt(x)
    model = keras.Sequential([keras.Input((4,)), normalization, keras.layers.Dense(3)])
    aware = quantization.quantize_aware(model)
    quantization.calibrate(aware, x)
    np.testing.assert_allclose(aware(x), model(x), atol=0.1)
