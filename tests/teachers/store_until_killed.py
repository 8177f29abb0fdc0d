"""Run by `test_killed.py`: stores a teacher's answers and is killed in the midst of it.

Arguments: the teacher's `.keras` file, the folder to write, and after how many batches to die.
"""

import os
import signal
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_distill.teachers import Function, store

model_file, folder, batches = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = keras.models.load_model(model_file)
seen = 0


def die_after(x):
    global seen
    seen += 1
    if seen > batches:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def answer(x):
    x = tf.ensure_shape(tf.numpy_function(die_after, [x], tf.float32), x.shape)
    return model(x, training=False)


x = np.random.default_rng(0).normal(size=(200, 4)).astype("float32")
store(
    Function(answer, name=model.name),
    x,
    folder,
    batch_size=16,
    examples_per_shard=48,
    verbose=0,
)
