"""Parts of teachers that others are run through."""

import keras


def frozen_copy(model: keras.Model) -> keras.Model:
    """A copy of a model, with weights of its own that aren't trained."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.trainable = False
    return copy
