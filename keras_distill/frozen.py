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


def finalize(layer: keras.layers.Layer) -> None:
    """Has a layer compute with weights that were just set: `Normalization` keeps copies of them."""
    for inner in _keras.layers_of(layer):
        if isinstance(inner, keras.layers.Normalization):
            inner.finalize_state()
