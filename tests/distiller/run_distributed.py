"""Trains one small distiller under a strategy and stores weights and logs.

usage: run_distributed.py one|mirrored|workers RESULT.npz TF_CONFIG
"""

import contextlib
import os
import sys

mode, path, config = sys.argv[1:]
if mode == "workers":
    # Read when TensorFlow starts.
    os.environ["TF_CONFIG"] = config

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

import keras_distill  # noqa: E402

if mode == "mirrored":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
elif mode == "workers":
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
else:
    strategy = None


def model(width):
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(
                width, "tanh", name="hidden", kernel_regularizer=keras.regularizers.L2(0.01)
            ),
            layers.Dense(3, name="scores"),
        ]
    )


keras.utils.set_random_seed(3)
rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, 4)).astype("float32"), rng.integers(0, 3, 64)
weight = rng.uniform(0.5, 1.5, 64).astype("float32")
data = tf.data.Dataset.from_tensor_slices((x, y, weight)).batch(16)
options = tf.data.Options()
options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
data = data.with_options(options)


def difference(teacher, student):
    """A plain function, which Keras alone would count once for each replica."""
    return keras.ops.mean(keras.ops.abs(teacher - student), axis=-1)


def scalar_difference(teacher, student):
    """A function that returns one value for the whole batch."""
    return keras.ops.mean(keras.ops.square(teacher - student))


with strategy.scope() if strategy else contextlib.nullcontext():
    student, teacher = model(5), model(9)
    losses = [
        keras_distill.losses.SoftTargets(keras.optimizers.schedules.ExponentialDecay(4.0, 1, 0.9)),
        keras_distill.losses.DKD(name="decoupled"),
        keras_distill.losses.LogitMSE(),
        keras_distill.losses.JensenShannon(0.3),
        keras_distill.Match(difference, weight=0.5),
        keras_distill.Match(
            keras_distill.losses.Hint(), student="hidden", teacher="hidden", adapter="auto"
        ),
    ]
    distiller = keras_distill.Distiller(student, teacher, losses, alpha=0.3)
    distiller.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    unweighted = keras_distill.Distiller(
        model(5), teacher, scalar_difference, alpha=0, validate_with_teacher=True
    )
    unweighted.compile(keras.optimizers.SGD(0.1))
history = distiller.fit(data, validation_data=data, epochs=3, verbose=0).history
unlabeled = data.map(lambda x, y, weight: x)
other = unweighted.fit(unlabeled, validation_data=unlabeled, verbose=0).history
history |= {f"unweighted_{name}": values for name, values in other.items()}
assert distiller.evaluate(unlabeled, verbose=0, return_dict=True) == {}
weights = distiller.get_weights() + unweighted.get_weights()
weights = {f"weight/{i}": w for i, w in enumerate(weights)}
np.savez(path, **weights, **{f"log/{name}": np.ravel(v) for name, v in history.items()})
