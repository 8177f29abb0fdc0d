"""Holds a student to forms on two CPUs, through an interruption; prints its kernels as JSON."""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

if __name__ == "__main__":
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    import keras_distill
    from keras_distill import pruning

    folder, dtype = sys.argv[1:]
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(dtype)
    x = np.random.default_rng(0).normal(size=(128, 8)).astype("float32")
    y = np.int32(x.sum(1) > 0)
    layers = keras.layers

    def model():
        hidden = layers.Dense(16, "relu", name="hidden")
        return keras.Sequential([keras.Input((8,)), hidden, layers.Dense(2, dtype="float32")])

    def fit(strategy, epochs, callbacks):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            student = model()
            distiller = keras_distill.Distiller(student, model(), alpha=0.5)
            distiller.compile(
                keras.optimizers.Adam(0.02),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            )
            backup = keras.callbacks.BackupAndRestore(folder, delete_checkpoint=False)
            distiller.fit(x, y, batch_size=32, epochs=epochs, callbacks=[*callbacks, backup],
                          verbose=0)  # fmt: skip
        return distiller

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    fit(strategy, 3, [pruning.Sparsity(0.75, end_step=4, frequency=1)])

    seen = []

    # A new process would do the same: model, optimizer and epoch come from the backup.
    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            kernel = self.model.student.get_layer("hidden").kernel
            copies = strategy.experimental_local_results(kernel.value)
            seen.append([np.array(copy, "float32").tolist() for copy in copies])

    callbacks = [
        pruning.Sparsity(0.75, end_step=4, frequency=1),
        pruning.WeightClustering(4, begin_step=14),
        Watch(),
    ]
    distiller = fit(strategy, 6, callbacks)
    print(json.dumps({"seen": seen, "type": type(distiller.optimizer).__name__,
                      "is_released": "apply" not in vars(distiller.optimizer)}))  # fmt: skip
