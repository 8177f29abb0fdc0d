"""What the benchmarks of quantized students share."""

import keras
import numpy as np
from keras_distill.tflite import runtimes

from keras_distill import quantization


def freeze_last(student, epochs):
    """A callback that fixes a quantize-aware student's ranges for the last of its epochs."""

    def at_epoch(epoch, logs):
        if epoch == epochs - 1:
            quantization.freeze(student)

    return keras.callbacks.LambdaCallback(on_epoch_begin=at_epoch)


def accuracy(content, test):
    """Share of the test samples that a file classifies rightly in LiteRT.

    Args:
        content: Bytes of the file.
        test: `(x, y)`, as the file reads them, and labels.
    """
    (outputs,) = runtimes.run_samples(runtimes.open_file(content), [test[0]])
    return float(np.mean(np.argmax(outputs, axis=-1) == test[1]))
