"""Zeros and shared values that stay, step by step, whatever the optimizer does."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras_distill.tflite import flatbuffer

import keras_distill
from keras_distill import pruning, quantization, tflite
from keras_distill.pruning.clustering import k_means
from keras_distill.pruning.held import kernels_of

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(width=8, dtype=None):
    stack = [
        keras.Input((8, 8, 1)),
        layers.Conv2D(width, 3, dtype=dtype, name="first"),
        layers.BatchNormalization(dtype=dtype),
        layers.ReLU(dtype=dtype),
        layers.DepthwiseConv2D(3, dtype=dtype),
        layers.Conv2D(16, 1, activation="relu", dtype=dtype, name="second"),
        layers.GlobalAveragePooling2D(dtype=dtype),
        layers.Dense(10, dtype=dtype, name="scores"),
    ]
    return keras.Sequential(stack)


def distiller_of(student, optimizer=None, **options):
    distiller = keras_distill.Distiller(student, network(12), alpha=0.3)
    optimizer = keras.optimizers.Adam(0.01) if optimizer is None else optimizer
    distiller.compile(optimizer, CROSSENTROPY, **options)
    return distiller


@pytest.fixture
def batches(digits):
    images, labels = digits
    return tf.data.Dataset.from_tensor_slices((images[:128], labels[:128])).batch(16)


def arrays(student):
    return [keras.ops.convert_to_numpy(x) for x in kernels_of(student)]


class Watched(keras.callbacks.Callback):
    """The kernels after each step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(arrays(self.model.student))


def zeros(kernels):
    return [x == 0 for x in kernels]


def test_zeros_stay_at_each_step_of_adam(batches):
    student, watched = network(), Watched()
    callback = pruning.Sparsity(0.75, begin_step=2, end_step=12, frequency=5)
    distiller_of(student).fit(batches, epochs=3, verbose=0, callbacks=[callback, watched])
    sizes = [x.size for x in arrays(student)]
    counts = [[int(x.sum()) for x in zeros(kernels)] for kernels in watched.seen]
    assert counts[0] == counts[3] == [0, 0, 0, 0]
    # At step 5, t = 3/10 of the way; at the end, three quarters exactly.
    share = 1 - (1 - (1 - 0.7**3) * 0.75)
    assert counts[4] == [n - round(n * (1 - share)) for n in sizes]
    assert counts[-1] == [n - round(n / 4) for n in sizes]
    for before, after in zip(watched.seen, watched.seen[1:], strict=False):
        for was, now in zip(zeros(before), zeros(after), strict=True):
            assert now[was].all()
    # No -0, which has other bits.
    assert not any(np.signbit(x[x == 0]).any() for x in arrays(student))
    assert pruning.sparsity_of(student) == {
        x.path: np.mean(y == 0) for x, y in zip(kernels_of(student), arrays(student), strict=True)
    }


@pytest.mark.parametrize(
    ("dtype", "optimizer", "options"),
    [
        pytest.param("mixed_float16", keras.optimizers.Adam, {}, marks=pytest.mark.long),
        (
            None,
            lambda: keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True),
            {"steps_per_execution": 4},
        ),
        pytest.param(
            *(None, keras.optimizers.AdamW, {"jit_compile": True}), marks=pytest.mark.nightly
        ),
    ],
    ids=["mixed precision", "momentum, averages, several steps at once", "XLA"],
)
def test_zeros_stay_however_training_is_set_up(batches, dtype, optimizer, options):
    student = network(dtype=dtype)
    callback = pruning.Sparsity(0.5, end_step=4, frequency=2)
    distiller = distiller_of(student, optimizer(), **options)
    distiller.fit(batches, epochs=1, verbose=0)  # A step that was traced without the callback.
    distiller.fit(batches, epochs=1, verbose=0, callbacks=[callback])
    assert [int(x.sum()) for x in zeros(arrays(student))] == [x.size // 2 for x in arrays(student)]


def test_two_of_four(batches):
    """The two largest of four successive input channels."""
    student = network()
    callback = pruning.Sparsity(pattern=(2, 4), end_step=4, frequency=1)
    distiller_of(student).fit(batches, epochs=1, verbose=0, callbacks=[callback])
    first, _, second, scores = arrays(student)
    assert np.all(first != 0)  # One input channel.
    assert np.all((second.reshape(2, 4, 16) == 0).sum(1) == 2)
    assert np.all((scores.reshape(4, 4, 10) == 0).sum(1) == 2)


def trained_on_noise(model, *callbacks, epochs=1):
    """A model after four steps an epoch."""
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((16, *t.shape[1:])) for t in (model.inputs[0], model.outputs[0]))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(x, y, batch_size=4, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return model


def dense_model(width=8):
    return keras.Sequential([keras.Input((8,)), layers.Dense(width), layers.Dense(4)])


def test_patterns_run_along_the_input_channels():
    """Of transposed convolutions and attention, too; depthwise kernels sum over none."""
    inputs = keras.Input((4, 4, 8))
    depthwise = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)
    transposed = layers.Conv2DTranspose(6, 3, padding="same")
    attention = layers.MultiHeadAttention(2, 4)
    x = layers.Reshape((16, 8))(layers.Dense(8)(transposed(depthwise(inputs))))
    model = keras.Model(inputs, attention(x, x))
    trained_on_noise(model, pruning.Sparsity(pattern=(2, 4), end_step=2, frequency=1))
    depth, up = (keras.ops.convert_to_numpy(layer.kernel) for layer in (depthwise, transposed))
    assert np.all(depth != 0)
    assert np.all((up.reshape(3, 3, 6, 4, 4) == 0).sum(-1) == 2)
    kernels = {x.path.split("/")[-2]: x.numpy() for x in attention.weights if x.name == "kernel"}
    for name in ("query", "key", "value"):
        assert np.all((kernels[name].reshape(2, 4, 2, 4) == 0).sum(1) == 2)
    assert np.all((kernels["attention_output"] == 0).sum(1) == 2)


@pytest.mark.parametrize("begin", [0, 3])
@pytest.mark.parametrize(
    "make",
    [
        lambda **steps: pruning.Sparsity(0.5, **steps),
        lambda **steps: pruning.Sparsity(pattern=(2, 4), **steps),
        lambda **steps: pruning.GradualPruning(macs=0.5, **steps),
    ],
    ids=["share", "pattern", "units"],
)
def test_a_schedule_of_one_step(make, begin):
    model = trained_on_noise(dense_model(), make(begin_step=begin, end_step=begin))
    first = keras.ops.convert_to_numpy(model.layers[0].kernel)
    assert np.mean(first == 0) == 0.5


@pytest.mark.parametrize("setting", [{"sparsity": 0.75}, {"pattern": (1, 4)}], ids=str)
def test_zeros_stay_where_a_schedule_starts_over(setting):
    model = trained_on_noise(dense_model(), pruning.Sparsity(**setting, end_step=2, frequency=1))
    before = zeros(arrays(model))
    # The optimizer is a fresh one, whose steps count from 0.
    trained_on_noise(model, pruning.Sparsity(**setting, end_step=100, frequency=1))
    for was, now in zip(before, zeros(arrays(model)), strict=True):
        assert was.mean() == 0.75
        np.testing.assert_array_equal(was, now)


def test_nothing_that_could_become_sparse():
    with pytest.raises(ValueError, match=r"multiple of 3. Received: pattern=\(1, 3\)"):
        trained_on_noise(dense_model(), pruning.Sparsity(pattern=(1, 3)))


def test_weights_that_are_restored_at_the_end_are_sparse():
    """By a callback that is listed before."""
    stops = keras.callbacks.EarlyStopping("loss", mode="max", patience=2, restore_best_weights=True)
    sparsity = pruning.Sparsity(0.75, begin_step=4, end_step=6, frequency=1)
    model = trained_on_noise(dense_model(), stops, sparsity, epochs=4)
    assert stops.best_epoch == 0  # Before the first zero.
    assert set(pruning.sparsity_of(model).values()) == {0.75}


def test_a_form_ends_with_the_next_run_after_an_interruption():
    model = dense_model()
    model.layers[0].kernel.constraint = constraint = keras.constraints.MaxNorm(1.0)
    with pytest.raises(KeyboardInterrupt):
        trained_on_noise(model, pruning.Sparsity(0.5, end_step=2, frequency=1), Stops(), epochs=4)
    trained_on_noise(model, pruning.Sparsity(0.75, end_step=2, frequency=1))
    assert set(pruning.sparsity_of(model).values()) == {0.75}
    assert model.layers[0].kernel.constraint is constraint
    assert model.layers[1].kernel.constraint is None


def test_another_form_after_an_interruption():
    """What an interrupted run left on the kernels holds them no longer; both in one run do."""
    distiller = distiller_of(network())
    kernel = kernels_of(distiller.student)[0]

    def begun(*callbacks):
        run = keras.callbacks.CallbackList(callbacks, model=distiller, epochs=1)
        run.on_train_begin()
        return run

    begun(pruning.Sparsity(0.5), pruning.WeightClustering(5))
    both = kernel.constraint
    assert [type(x).__name__ for x in (both.first, both.second)] == ["Mask", "Clusters"]
    run = begun(pruning.WeightClustering(5))
    assert type(kernel.constraint).__name__ == "Clusters"
    run.on_train_end()
    assert kernel.constraint is None


@pytest.mark.parametrize("make", [lambda: pruning.Sparsity(0.5), pruning.WeightClustering])
def test_a_model_without_kernels(make):
    model = keras.Sequential([keras.Input((3,)), layers.BatchNormalization()])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="finds nothing to hold in the model 'sequential"):
        model.fit(np.ones((4, 3)), np.ones((4, 3)), verbose=0, callbacks=[make()])


class Stops(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.long
@pytest.mark.parametrize(
    "make",
    [
        lambda: pruning.Sparsity(0.75, end_step=20, frequency=3),
        pytest.param(lambda: pruning.WeightClustering(5, begin_step=10), marks=pytest.mark.nightly),
    ],
    ids=["sparse", "clustered"],
)
def test_an_interrupted_run_ends_in_the_same_weights(batches, tmp_path, make):
    weights = []
    for name in ("whole", "interrupted"):
        keras.utils.set_random_seed(0)
        backup = keras.callbacks.BackupAndRestore(tmp_path / name, delete_checkpoint=False)
        student = network()
        if name == "interrupted":
            with pytest.raises(KeyboardInterrupt):
                distiller_of(student).fit(
                    batches, epochs=4, verbose=0, callbacks=[make(), backup, Stops()]
                )
            keras.utils.set_random_seed(0)
            student = network()
        distiller_of(student).fit(batches, epochs=4, verbose=0, callbacks=[make(), backup])
        weights.append(student.get_weights())
    for whole, resumed in zip(*weights, strict=True):
        np.testing.assert_array_equal(whole, resumed)


def test_weights_share_a_few_values_and_learn_on(batches):
    student, watched = network(), Watched()
    callback = pruning.WeightClustering(4, begin_step=8)
    distiller_of(student).fit(batches, epochs=2, verbose=0, callbacks=[callback, watched])
    members = [np.unique(x, return_inverse=True)[1] for x in watched.seen[7]]
    for kernels in watched.seen[7:]:
        for kernel, expected in zip(kernels, members, strict=True):
            values, found = np.unique(kernel, return_inverse=True)
            assert len(values) <= 4
            # The clusters stay, their order aside.
            assert len(np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1).T) <= 4
    assert not np.array_equal(watched.seen[7][0], watched.seen[-1][0])


def test_k_means_is_that_of_its_definition(rng):
    values = np.concatenate([rng.normal(center, 0.1, 50) for center in (-3, 0, 4)])
    members = k_means(values, 3)
    assert [len(set(members[i : i + 50])) for i in (0, 50, 100)] == [1, 1, 1]
    assert len(set(members)) == 3


def integers(tflite_file):
    """The kernels in a file, in the order of its operators."""
    file = flatbuffer.File(tflite_file)
    names = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    tensors = [
        file.graph.tensors[x.inputs[1]]
        for x in file.graph.operators
        if file.operator_name(x) in names
    ]
    return [file.integers(x).reshape(flatbuffer.shape_of(x)) for x in tensors]


@pytest.mark.long
def test_zeros_and_clusters_are_those_of_the_file(batches, digits):
    """Sparse, then clustered, both while quantization is simulated."""
    student = quantization.quantize_aware(network(), digits[0][:64])
    distiller = distiller_of(student)
    distiller.fit(
        batches, epochs=1, verbose=0, callbacks=[pruning.Sparsity(0.5, end_step=4, frequency=1)]
    )
    was_zero = zeros(arrays(student))
    callback = pruning.WeightClustering(6)
    distiller.fit(batches, epochs=1, verbose=0, callbacks=[callback])
    for was, kernel in zip(was_zero, arrays(student), strict=True):
        np.testing.assert_array_equal(was, kernel == 0)
        assert len(np.unique(kernel)) <= 6
    artifact = tflite.convert(student, "micro")
    artifact.verify(digits[0][:16])
    first, depthwise, second, scores = integers(artifact.tflite)
    for values, kernel in (
        (first, np.moveaxis(arrays(student)[0], -1, 0)),
        (depthwise[0], arrays(student)[1][..., 0]),
        (second, np.moveaxis(arrays(student)[2], -1, 0)),
        (scores, arrays(student)[3].T),
    ):
        assert np.all(values[kernel == 0] == 0)
    for channel in (*first, *second, *scores):
        assert len(np.unique(channel)) <= 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pruning.Sparsity(), "Give either `sparsity` or `pattern`"),
        (lambda: pruning.Sparsity(1.0), "`sparsity` must be greater than 0 and less than 1"),
        (lambda: pruning.Sparsity(pattern=(4, 2)), r"`pattern` must be a pair \(n, m\)"),
        (lambda: pruning.Sparsity(pattern=(1.5, 4)), r"`pattern` must be a pair \(n, m\)"),
        (lambda: pruning.Sparsity(0.5, 5, 2), "at most `end_step`. Received: begin_step=5"),
        (lambda: pruning.Sparsity(0.5, frequency=0), "`frequency` .* at least 1. Received"),
        (lambda: pruning.Sparsity(0.5, frequency=2.5), "`frequency` must be a whole number"),
        (lambda: pruning.Sparsity(0.5, end_step=float("nan")), "`end_step` must be a whole number"),
        (lambda: pruning.WeightClustering(1), "`clusters` .* at least 2. Received: clusters=1"),
        (lambda: pruning.WeightClustering(2.5), "`clusters` must be a whole number"),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_two_replicas_keep_the_forms_after_an_interruption(dtype, tmp_path):
    """In a process of its own, for devices are set up before TensorFlow starts."""
    script = pathlib.Path(__file__).with_name("run_held_replicas.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), dtype],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    steps = np.array(result["seen"])
    assert steps.shape == (3 * 4, 2, 8, 16)
    np.testing.assert_array_equal(steps[:, 0], steps[:, 1])
    zeros = steps[:, 0] == 0
    assert zeros[0].mean() == 0.75
    assert np.all(zeros == zeros[0])  # The same ones at each step.
    assert len(np.unique(steps[0])) > 4
    assert all(len(np.unique(step)) <= 4 for step in steps[1:])
    assert not np.array_equal(steps[-1], steps[-2])
    assert result["is_released"]
