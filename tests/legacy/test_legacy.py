"""The distiller for tf_keras, the bridge, and the toolkit, on digits."""

import importlib.util
import io
import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

if importlib.util.find_spec("tensorflow_model_optimization") is None:
    pytest.skip("the extra `tfmot` isn't installed", allow_module_level=True)

import tensorflow as tf
import tf_keras
from ai_edge_litert.tools import flatbuffer_utils
from keras_distill.tflite import runtimes

import keras_distill
from keras_distill import legacy, quantization, tflite

LOSS = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def student(classes=10):
    layers = keras.layers
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    x = layers.Conv2D(24, 3, activation="relu", name="wide")(x)
    x = layers.Flatten(name="flat")(layers.MaxPooling2D(name="pool")(x))
    return keras.Model(image, layers.Dense(classes, name="logits")(x), name="student")


@pytest.fixture(scope="module")
def trained(split):
    """A Keras 3 student, trained."""
    keras.utils.set_random_seed(0)
    model = student()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"], jit_compile=False)
    model.fit(*split[0], epochs=6, batch_size=64, verbose=0)
    return model


@pytest.fixture(scope="module")
def accuracy(trained, split):
    return trained.evaluate(*split[1], verbose=0)[1]


@pytest.fixture(scope="module")
def dense(trained):
    """Its float32 file, with nothing removed."""
    return legacy.convert(legacy.to_tf_keras(trained))


def distil(model, teacher, split, epochs=2, callbacks=None):
    distiller = legacy.Distiller(model, teacher, alpha=0.2)
    distiller.compile(tf_keras.optimizers.Adam(2e-3), LOSS, metrics=["accuracy"])
    distiller.fit(*split[0], epochs=epochs, batch_size=64, verbose=0, callbacks=callbacks)
    return distiller


def accuracy_of_file(file, split):
    x, y = split[1]
    (outputs,) = runtimes.run_samples(runtimes.open_file(file, "litert-reference"), [x])
    return np.mean(np.argmax(outputs, -1) == y)


def sparsity(model):
    """The share of zeros among the weights of all kernels."""
    kernels = [np.array(w) for w in model.trainable_weights if len(w.shape) > 1]
    return float(sum(np.sum(k == 0) for k in kernels) / sum(k.size for k in kernels))


def compressed_size(file):
    """Bytes of a file after compression with zip, as in an app's package."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as package:
        package.writestr("model.tflite", file)
    return archive.getbuffer().nbytes


def types_of(file):
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(file))
    return {flatbuffer_utils.type_to_name(t.type) for t in model.subgraphs[0].tensors}


@pytest.mark.long
def test_one_step_is_that_of_the_keras_3_distiller(trained, split):
    """Same losses, same weights after a step of plain gradient descent."""
    x, y = (part[:32] for part in split[0])
    results = []
    for module, kind in ((keras, keras_distill.Distiller), (tf_keras, legacy.Distiller)):
        keras.utils.set_random_seed(1)
        model = student()
        if module is tf_keras:
            model = legacy.to_tf_keras(model)
        match = keras_distill.Match(
            keras.losses.MeanSquaredError(), student="wide", teacher="wide", weight=3.0
        )
        losses = [keras_distill.losses.SoftTargets(temperature=3.0), match]
        distiller = kind(model, trained, losses, alpha=0.3)
        distiller.compile(
            module.optimizers.SGD(0.1),
            module.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        logs = distiller.train_on_batch(x, y, return_dict=True)
        results.append((logs, model.get_weights()))
    (one, weights), (two, others) = results
    for name in ("loss", "student_loss", "soft_targets", "mean_squared_error"):
        assert float(one[name]) == pytest.approx(float(two[name]), rel=1e-4), name
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.long
def test_options_of_the_distiller(trained, split):
    x, y = split[0][0][:128], np.where(np.arange(128) < 64, -1, split[0][1][:128])
    model = legacy.to_tf_keras(student())
    teacher = legacy.to_tf_keras(trained)
    temperature = keras.optimizers.schedules.PiecewiseConstantDecay([1], [4.0, 2.0])
    distiller = legacy.Distiller(
        model,
        teacher,
        [
            keras_distill.losses.SoftTargets(temperature),
            keras_distill.Match(
                keras.losses.MeanSquaredError(), student="stem_relu", teacher="wide", adapter="auto"
            ),
        ],
        alpha=0.5,
        missing_label=-1,
    )
    distiller.compile("adam", LOSS)
    before = [np.array(v) for v in distiller.adapter_variables]
    frozen = teacher.get_weights()
    distiller.fit(x, y, batch_size=32, epochs=1, verbose=0)
    assert float(distiller.hyperparameters["soft_targets/temperature"]) == 2.0
    assert any(
        np.any(a != np.array(b)) for a, b in zip(before, distiller.adapter_variables, strict=True)
    )
    for a, b in zip(frozen, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def small(x):
    """A student and a teacher of 10 classes, built."""
    models = [
        tf_keras.Sequential([tf_keras.layers.Flatten(), tf_keras.layers.Dense(n), *more])
        for n, more in ((10, []), (8, [tf_keras.layers.Dense(10)]))
    ]
    for model in models:
        model(x)
    return models


def test_validation_reports_the_students_own_loss(split):
    x, y = (part[:40] for part in split[0])
    model, teacher = small(x)
    distiller = legacy.Distiller(model, teacher, keras_distill.losses.SoftTargets(2.0), alpha=0.3)
    distiller.compile(tf_keras.optimizers.SGD(0.0), LOSS, metrics=["accuracy"])
    logs = distiller.fit(x, y, batch_size=32, validation_data=(x, y), verbose=0).history
    z, t = model.predict(x, verbose=0), teacher.predict(x, verbose=0)
    hard, right = float(LOSS(y, z)), np.mean(z.argmax(-1) == y)
    soft = float(keras_distill.losses.SoftTargets(2.0)(t, z))
    # The last batch of 8 counts for 8 samples.
    expected = {
        "loss": 0.3 * hard + 0.7 * soft,
        "student_loss": hard,
        "soft_targets": soft,
        "accuracy": right,
        "teacher_accuracy": np.mean(t.argmax(-1) == y),
        "val_loss": hard,
        "val_accuracy": right,
    }
    assert {name: values[0] for name, values in logs.items()} == pytest.approx(expected, rel=1e-4)
    results = distiller.evaluate(x, y, verbose=0, return_dict=True)
    assert results == pytest.approx({"loss": hard, "accuracy": right}, rel=1e-4)
    assert len(distiller.weights) == len(model.weights)


def test_no_validation_loss_where_there_is_none(split):
    x, y = (part[:40] for part in split[0])
    model, teacher = small(x)
    distiller = legacy.Distiller(model, teacher, alpha=0)
    distiller.compile(tf_keras.optimizers.SGD(0.0), metrics=["accuracy"])
    logs = distiller.fit(x, y, validation_data=(x, y), verbose=0).history
    reported = {"loss", "soft_targets", "accuracy", "teacher_accuracy", "val_accuracy"}
    assert set(logs) == reported
    loss, accuracy = distiller.evaluate(x, y, verbose=0)
    assert np.isnan(loss)
    assert accuracy == pytest.approx(logs["val_accuracy"][0])
    distiller.compile("sgd")
    assert distiller.evaluate(x, verbose=0, return_dict=True) == {}
    assert np.isnan(distiller.evaluate(x, verbose=0))


def test_the_teacher_in_validation(split):
    x, y = (part[:40] for part in split[0])
    model, teacher = small(x)
    loss = keras_distill.losses.SoftTargets(2.0)
    distiller = legacy.Distiller(model, teacher, loss, alpha=0.3, validate_with_teacher=True)
    distiller.compile(tf_keras.optimizers.SGD(0.1), LOSS, metrics=["accuracy"])
    logs = distiller.fit(x, y, batch_size=32, validation_data=(x, y), verbose=0).history
    z, t = model.predict(x, verbose=0), teacher.predict(x, verbose=0)
    hard, soft = float(LOSS(y, z)), float(loss(t, z))
    expected = {
        "val_loss": 0.3 * hard + 0.7 * soft,
        "val_student_loss": hard,
        "val_soft_targets": soft,
        "val_accuracy": np.mean(z.argmax(-1) == y),
    }
    found = {name: values[0] for name, values in logs.items() if name.startswith("val_")}
    assert found == pytest.approx(expected, rel=1e-4)


def test_what_goes_wrong_is_told_as_in_keras_3(split):
    x, y = (part[:40] for part in split[0])
    model, teacher = small(x)
    with pytest.raises(TypeError, match=r"SoftTargets\(temperature=3\)"):
        legacy.Distiller(model, teacher, temperature=3)
    distiller = legacy.Distiller(model, teacher)
    with pytest.raises(TypeError, match=r"Distiller\(.*alpha=0.3"):
        distiller.compile("sgd", LOSS, alpha=0.3)
    with pytest.warns(UserWarning, match="'sparse_categorical_crossentropy'.*from_logits=True"):
        distiller.compile("sgd", tf_keras.losses.SparseCategoricalCrossentropy())
    x = x.copy()
    x[5] = np.nan
    with pytest.warns(UserWarning, match="check_numerics=True") as caught:
        distiller.fit(x, y, epochs=2, verbose=0)
    assert sum("check_numerics" in str(w.message) for w in caught) == 1


@pytest.mark.long
def test_missing_labels_weigh_nothing(split):
    x, y = (part[:40] for part in split[0])
    known = np.arange(40) % 3 > 0
    model, teacher = small(x)
    distiller = legacy.Distiller(model, teacher, alpha=0.5, missing_label=-1)
    distiller.compile(tf_keras.optimizers.SGD(0.0), LOSS, metrics=["accuracy"])
    labels = np.where(known, y, -1)
    z = model.predict(x, verbose=0)
    hard = float(LOSS(np.where(known, y, 0), z, known))
    right = np.mean(z.argmax(-1)[known] == y[known])
    results = distiller.evaluate(x, labels, verbose=0, return_dict=True)
    assert results == pytest.approx({"loss": hard, "accuracy": right}, rel=1e-4)
    logs = distiller.train_on_batch(x, labels, return_dict=True)
    assert logs["student_loss"] == pytest.approx(hard, rel=1e-4)
    assert logs["accuracy"] == pytest.approx(right, rel=1e-4)
    with pytest.warns(UserWarning, match="All labels were missing"):
        assert distiller.evaluate(x, np.full(40, -1), verbose=0, return_dict=True) == {}
    with pytest.warns(UserWarning, match="check_numerics=True") as caught:
        assert np.isnan([distiller.train_on_batch(x * np.nan, labels)[0] for _ in range(2)]).all()
    assert sum("check_numerics" in str(w.message) for w in caught) == 1


class Subclassed(tf_keras.Model):
    """A student of 10 classes that isn't a graph of layers."""

    def __init__(self):
        super().__init__()
        self.flat, self.head = tf_keras.layers.Flatten(), tf_keras.layers.Dense(10)

    def call(self, inputs):
        return self.head(self.flat(inputs))


def test_subclassed_student(split):
    x, y = (part[:32] for part in split[0])
    model, teacher = Subclassed(), small(x)[1]
    with pytest.raises(ValueError, match="call it once on a batch"):
        legacy.Distiller(model, teacher)
    # Built, but nothing is known of the shape of its inputs.
    model.build((None, 8, 8, 1))
    with pytest.raises(ValueError, match="call it once on a batch"):
        legacy.Distiller(model, teacher)
    model(x)
    distiller = legacy.Distiller(model, teacher, keras_distill.losses.SoftTargets(2.0), alpha=0.3)
    z, t = model.predict(x, verbose=0), teacher.predict(x, verbose=0)
    before = model.get_weights()
    distiller.compile("adam", LOSS)
    losses = distiller.fit(x, y, verbose=0).history["loss"]
    expected = 0.3 * float(LOSS(y, z)) + 0.7 * float(keras_distill.losses.SoftTargets(2.0)(t, z))
    assert losses == [pytest.approx(expected, rel=1e-5)]
    assert all((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    checking = legacy.Distiller(model, teacher, check_numerics=True)
    with pytest.raises(ValueError, match="leave `jit_compile` out"):
        checking.compile("adam", LOSS, jit_compile=True)


@pytest.mark.long
def test_distilled_student_learns(trained, split, accuracy):
    keras.utils.set_random_seed(0)
    model = legacy.to_tf_keras(student())
    distiller = distil(model, trained, split, epochs=5)
    assert distiller.evaluate(*split[1], verbose=0)[1] > 0.85


def every_layer():
    layers = keras.layers
    image = keras.Input((12, 12, 3), name="image")
    inner = keras.Sequential(
        [keras.Input((12, 12, 8)), layers.SeparableConv2D(8, 3, padding="same"), layers.ReLU()],
        name="inner",
    )
    x = layers.Conv2D(8, 3, padding="same", kernel_regularizer="l2")(image)
    x = inner(x) + x
    x = layers.LeakyReLU()(layers.Conv2DTranspose(6, 3)(x))
    x = layers.Reshape((14, -1))(x)
    x = layers.Conv1D(8, 3, padding="causal")(x)
    x = layers.LayerNormalization()(x)
    x = layers.GRU(8, return_sequences=True)(x)
    x = layers.LSTM(6)(x)
    return keras.Model(image, [layers.Dense(3, "softmax")(x), layers.Dense(1, "sigmoid")(x)])


def test_bridge(rng):
    model = every_layer()
    carried = legacy.to_tf_keras(model)
    x = rng.normal(0, 1, (5, 12, 12, 3)).astype("float32")
    for a, b in zip(model(x), carried(x), strict=True):
        assert np.max(np.abs(np.array(a) - np.array(b))) <= 1e-5
    assert len(carried.losses) == len(model.losses) == 1
    assert float(carried.losses[0]) == pytest.approx(float(model.losses[0]), rel=1e-5)


def test_bridge_names_what_it_cannot_carry():
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Activation("silu", name="fine")(keras.ops.sin(x)))
    with pytest.raises(ValueError, match=r"\(Sin\) has no counterpart"):
        legacy.to_tf_keras(model)
    with pytest.raises(TypeError, match="Keras 3 model"):
        legacy.to_tf_keras(tf_keras.Sequential())
    with pytest.raises(TypeError, match="to_tf_keras"):
        legacy.prune(student())
    with pytest.raises(TypeError, match="`keras_distill.Distiller`"):
        legacy.Distiller(student(), student())


@pytest.mark.long
def test_import_leaves_the_process_as_it_was():
    script = (
        "import os, keras_distill.legacy as legacy; legacy.toolkit(); import tensorflow as tf; "
        "assert 'TF_USE_LEGACY_KERAS' not in os.environ; "
        "assert tf.keras.__version__.startswith('3.'), tf.keras.__version__"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


@pytest.mark.long
def test_zeros_and_clusters_are_kept(split):
    """One after the other, in a moment's training, which says nothing of the accuracy."""
    few = [tuple(part[:64] for part in split[0])]
    model, teacher = small(few[0][0])
    model = legacy.prune(model, 0.5, 0, 1)
    callback = legacy.toolkit().sparsity.keras.UpdatePruningStep()
    pruned = legacy.strip(distil(model, teacher, few, 1, [callback]).student)
    assert sparsity(pruned) == pytest.approx(0.5, abs=0.01)
    model = legacy.cluster(pruned, 8, keep_sparsity=True)
    distil(model, teacher, few, epochs=1)
    clustered = legacy.strip(model)
    assert sparsity(clustered) > 0.4
    assert len(np.unique(clustered.layers[-1].kernel)) <= 9
    aware = legacy.quantize_aware(clustered, keep="both")
    distil(aware, teacher, few, epochs=1)
    both = legacy.strip(aware)
    assert sparsity(both) > 0.4
    assert types_of(legacy.convert(both, few[0][0])) == {"INT8", "INT32"}


@pytest.mark.long
def test_pruned_student_is_smaller(trained, dense, split, accuracy):
    steps = 5 * int(np.ceil(1400 / 64))
    model = legacy.prune(legacy.to_tf_keras(trained), 0.75, 0, steps // 2)
    callback = legacy.toolkit().sparsity.keras.UpdatePruningStep()
    distil(model, trained, split, epochs=5, callbacks=[callback])
    pruned = legacy.strip(model)
    assert np.mean(pruned.get_layer("wide").get_weights()[0] == 0) == pytest.approx(0.75, abs=0.01)
    # The toolkit leaves depthwise kernels as they are.
    assert 0.7 < sparsity(pruned) < 0.75
    sparse = legacy.convert(pruned)
    assert compressed_size(sparse) < 0.6 * compressed_size(dense)
    assert accuracy_of_file(sparse, split) > accuracy - 0.05
    # PQAT: quantization that keeps the zeros.
    aware = legacy.quantize_aware(pruned, keep="sparsity")
    distil(aware, trained, split, epochs=1)
    file = legacy.convert(aware, split[0][0][:100])
    assert types_of(file) == {"INT8", "INT32"}
    plain = legacy.convert(legacy.to_tf_keras(trained), split[0][0][:100])
    assert compressed_size(file) < 0.85 * compressed_size(plain)
    assert accuracy_of_file(file, split) > accuracy - 0.05


@pytest.mark.long
@pytest.mark.parametrize("keep", [pytest.param("clusters", marks=pytest.mark.nightly), "both"])
def test_clustered_student_is_smaller(keep, trained, dense, split, accuracy):
    """CQAT and PCQAT."""
    base = legacy.to_tf_keras(trained)
    if keep == "both":
        base = legacy.prune(base, 0.5, 0, 10)
        callback = legacy.toolkit().sparsity.keras.UpdatePruningStep()
        base = legacy.strip(distil(base, trained, split, 1, [callback]).student)
    model = legacy.cluster(base, 16, keep_sparsity=keep == "both")
    distil(model, trained, split, epochs=1)
    clustered = legacy.strip(model)
    for layer in ("stem", "wide", "logits"):
        assert len(np.unique(clustered.get_layer(layer).kernel)) <= 17
    assert compressed_size(legacy.convert(clustered)) < 0.6 * compressed_size(dense)
    aware = legacy.quantize_aware(clustered, keep=keep)
    distil(aware, trained, split, epochs=1)
    if keep == "both":
        assert sparsity(legacy.strip(aware)) > 0.4
    file = legacy.convert(legacy.strip(aware), split[0][0][:100])
    assert types_of(file) == {"INT8", "INT32"}
    assert accuracy_of_file(file, split) > accuracy - 0.08


@pytest.mark.long
def test_file_of_a_quantize_aware_student_has_integers_alone(trained, split):
    model = legacy.quantize_aware(legacy.to_tf_keras(trained))
    assert types_of(legacy.convert(model, split[0][0][:100])) == {"INT8", "INT32"}


@pytest.mark.nightly
def test_native_and_toolkit_agree(trained, split, accuracy):
    """Both ways to quantization-aware distillation, from the same weights."""
    native = quantization.quantize_aware(trained, split[0][0][:256])
    distiller = keras_distill.Distiller(native, trained, alpha=0.2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.Adam(2e-3), loss, jit_compile=False)
    distiller.fit(*split[0], epochs=2, batch_size=64, verbose=0)
    ours = tflite.convert(native, io="int8").tflite
    model = legacy.quantize_aware(legacy.to_tf_keras(trained))
    distil(model, trained, split)
    theirs = legacy.convert(model, split[0][0][:100])
    assert types_of(ours) == types_of(theirs) == {"INT8", "INT32"}
    # Three standard errors of the difference of two shares of 397.
    noise = 3 * np.sqrt(2 * accuracy * (1 - accuracy) / 397)
    assert abs(accuracy_of_file(ours, split) - accuracy_of_file(theirs, split)) <= max(noise, 0.02)


def test_layers_that_the_toolkit_lacks_are_named():
    x = keras.Input((16, 4))
    model = keras.Model(x, keras.layers.Conv1D(3, 3, name="sequence")(x))
    with pytest.raises(ValueError, match=r"sequence.*keras_distill.quantization"):
        legacy.quantize_aware(legacy.to_tf_keras(model))


def test_keras_is_still_keras_3():
    assert tf.keras.__version__.startswith("3.")
