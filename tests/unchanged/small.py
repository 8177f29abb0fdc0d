"""Small models and data that are the same on every machine, and what tells machines apart."""

import hashlib
import importlib.metadata
import json
import pathlib
import zlib

import keras
import numpy as np
import tensorflow as tf

HERE = pathlib.Path(__file__).parent
#: Versions that exported bytes and float rounding may depend on.
_PACKAGES = ("keras", "tensorflow", "ai-edge-litert", "ai-edge-quantizer", "numpy")


def sixteenths(shape, seed, low=-16, high=16):
    """Multiples of 1/16, whose sums and products are exact in float32."""
    return (np.random.default_rng(seed).integers(low, high + 1, shape) / 16).astype("float32")


def set_weights(model, seed=0):
    """Gives a model weights that are small multiples of 1/64, and returns it."""
    for number, weight in enumerate(model.weights):
        key = zlib.crc32(f"{seed} {number} {weight.shape}".encode())
        if not weight.dtype.startswith("float"):
            continue
        values = sixteenths(weight.shape, key) / 4
        if weight.name in ("gamma", "moving_variance"):
            values = values + 1
        weight.assign(values)
    return model


def sha(*arrays):
    """SHA-256 of bytes and arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array if isinstance(array, bytes) else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def platform():
    """What results may depend on: the versions of packages, and a digest of float arithmetic."""
    x = tf.constant(np.random.default_rng(0).standard_normal((8, 8, 8, 8)).astype("float32"))
    flat = tf.reshape(x, (64, 64))
    results = [
        tf.matmul(flat, flat),
        tf.nn.conv2d(x, x[:3, :3], 1, "SAME"),
        tf.nn.log_softmax(flat),
        *(f(flat) for f in (tf.exp, tf.tanh, tf.sigmoid, tf.math.softplus, tf.reduce_sum)),
        *(f(flat * flat + 0.1) for f in (tf.math.rsqrt, tf.sqrt, tf.math.log)),
    ]
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {**versions, "arithmetic": sha(*(r.numpy() for r in results))}


def fresh_names():
    """Forgets how many layers of each kind there were, so that names start anew."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)


def golden(name):
    """What was recorded under a name."""
    return json.loads((HERE / f"{name}.json").read_text())
