"""Small language models with weights that NumPy drew."""

import keras
import numpy as np
import pytest
from keras import layers

WORDS, START, END = 7, 1, 2


def given_weights(model, seed, scale=1.5):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(scale * rng.normal(size=weight.shape))
    return model


@pytest.fixture(scope="session")
def causal():
    """Makes a model of the tokens so far, with logits for the one after each."""

    def make(seed=0, width=6, activation=None, words=WORDS, mask_zero=True):
        tokens = keras.Input((None,), dtype="int32", name="tokens")
        x = layers.Embedding(words, width, mask_zero=mask_zero)(tokens)
        x = layers.SimpleRNN(width, return_sequences=True)(x)
        return given_weights(keras.Model(tokens, layers.Dense(words, activation)(x)), seed)

    return make


@pytest.fixture(scope="session")
def translating():
    """Makes an encoder and decoder."""

    def make(seed=0, width=6):
        source = keras.Input((5,), dtype="int32", name="source")
        target = keras.Input((None,), dtype="int32", name="target")
        state = layers.SimpleRNN(width)(layers.Embedding(WORDS, width, mask_zero=True)(source))
        x = layers.Embedding(WORDS, width, mask_zero=True)(target)
        x = layers.SimpleRNN(width, return_sequences=True)(x, initial_state=state)
        inputs = {"source": source, "target": target}
        return given_weights(keras.Model(inputs, layers.Dense(WORDS)(x)), seed)

    return make


@pytest.fixture(scope="session")
def prompts():
    """Six prompts of 1 to 3 tokens."""
    tokens = np.random.default_rng(0).integers(3, WORDS, (6, 3)).astype("int32")
    for row, length in enumerate([1, 2, 3, 3, 2, 1]):
        tokens[row, length:] = 0
    return tokens


@pytest.fixture(scope="session")
def sources():
    return np.random.default_rng(1).integers(1, WORDS, (10, 5)).astype("int32")
