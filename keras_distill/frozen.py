"""Parts of teachers that others are run through."""

import keras

from keras_distill import _keras


def frozen_copy(model: keras.Model) -> keras.Model:
    """A copy of a model, with weights of its own that aren't trained."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    finalize(copy)
    copy.trainable = False
    return copy


def finalize(model: keras.Model) -> None:
    """Has layers compute with weights that were just set: `Normalization` keeps copies of them."""
    for layer in _keras.layers_of(model):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
