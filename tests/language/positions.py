"""Positions of tokens, as Keras' own examples add them."""

from keras import layers, ops


class Positions(layers.Layer):
    """Adds an embedding of each token's place."""

    def __init__(self, length, width):
        super().__init__()
        self.table = layers.Embedding(length, width)
        self.supports_masking = True

    def call(self, x):
        return x + self.table(ops.arange(ops.shape(x)[1]))
