"""Distils a quantize-aware student on two CPUs; prints both copies of each range as JSON."""

import json

import keras
import numpy as np
import tensorflow as tf

if __name__ == "__main__":
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    from aware import compiled, convolutional

    import keras_distill
    from keras_distill import quantization
    from keras_distill.quantization.ranges import Range

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (64, 8, 8, 1)).astype("float32")
    y = rng.integers(0, 10, 64)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        teacher = convolutional()
        student = quantization.quantize_aware(convolutional(), x)
        distiller = compiled(keras_distill.Distiller(student, teacher, alpha=0.1))
    before = float(student.get_layer("logits_range").grid()[0])
    distiller.fit(x, y, batch_size=32, epochs=1, verbose=0)
    copies = {
        layer.name: [
            np.array(copy).tolist()
            for variable in (layer.minimum, layer.maximum)
            for copy in strategy.experimental_local_results(variable.value)
        ]
        for layer in student.layers
        if isinstance(layer, Range)
    }
    after = float(student.get_layer("logits_range").grid()[0])
    print(json.dumps({"copies": copies, "before": before, "after": after}))
