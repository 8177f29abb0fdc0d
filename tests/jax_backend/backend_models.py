"""Models, data and training for what must be the same on each backend of Keras."""

import keras
import numpy as np
from keras import layers


def flat(prefix, structure):
    leaves = keras.tree.flatten(structure)
    return {f"{prefix}{index}": np.asarray(leaf) for index, leaf in enumerate(leaves)}


def given_weights(model, seed):
    """The model with weights that NumPy drew: initializers differ between backends."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "variance" in weight.path:
            weight.assign(rng.uniform(0.5, 2, weight.shape))
        else:
            weight.assign(rng.standard_normal(weight.shape) / 2)
    return model


def network(width, seed, activation=None, name=None):
    inputs = keras.Input((8,), name="x")
    x = layers.Dense(width, activation="relu", kernel_regularizer="l2", name="hidden")(inputs)
    x = layers.BatchNormalization(name="normalized")(x)
    outputs = layers.Dense(3, activation=activation, name="scores")(x)
    return given_weights(keras.Model(inputs, outputs, name=name), seed)


def convolutional(width, seed):
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(width, 3, activation="relu", name="maps")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    return given_weights(keras.Model(inputs, layers.Dense(3)(x)), seed)


def data(shape=(8,), samples=80):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((samples, *shape)).astype("float32")
    return x, rng.integers(0, 3, samples), rng.uniform(0.2, 2, samples).astype("float32")


def trained(distiller, x, y=None, weights=None, from_logits=True, optimizer=None, **options):
    """Ten steps of `fit`: all weights and all that it reported."""
    optimizer = optimizer or keras.optimizers.Adam(0.01)
    has_labels = y is not None or not isinstance(x, np.ndarray)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    metrics = ["accuracy"] if has_labels else None
    distiller.compile(optimizer, loss if has_labels else None, metrics=metrics)
    history = distiller.fit(
        x, y, sample_weight=weights, batch_size=16, epochs=2, shuffle=False, verbose=0, **options
    ).history
    reported = {f"reported {name}": np.array(values) for name, values in history.items()}
    return {**flat("weight", distiller.get_weights()), **reported}


def built(layer, shape):
    layer.build(shape)
    return layer
