"""Teachers that are Keras models, run as the student trains."""

import keras
from keras import ops

from keras_distill import taps as tapping
from keras_distill.teachers.base import BaseTeacher


class Teacher(BaseTeacher):
    """A frozen Keras model that answers for each batch.

    The model is run with `training=False`. Its variables and its `trainable` flags stay as they
    are; it isn't saved with the student.

    Args:
        model: A built or unbuilt `keras.Model`.
        preprocess: Function from the batch's `x` to the model's inputs. Defaults to `None`: the
            model reads what the student reads.
        from_logits: `False` if the model answers with probabilities that no softmax or sigmoid
            of Keras makes; those of Keras are recognized without being told.

    Raises:
        TypeError: If `model` isn't a Keras model.

    Example:

    >>> teacher = keras_distill.teachers.Teacher(
    ...     model, preprocess=lambda x: keras.ops.image.resize(x, (64, 64))
    ... )
    """

    def __init__(self, model, preprocess=None, from_logits=True):
        if not isinstance(model, keras.Model):
            raise TypeError(
                "`teacher` must be a `keras.Model` or one of `keras_distill.teachers`. "
                f"Received: teacher={model!r} of type {type(model).__name__}"
            )
        self.model = model
        self.preprocess = preprocess
        self.from_logits = from_logits
        self.name = model.name
        self.output_names = getattr(model, "output_names", None)
        self.supports_jit = all(layer.supports_jit for layer in model._flatten_layers())
        self._layers = {}

    def answer(self, inputs, taps=()):
        if self.preprocess is not None:
            inputs = self.preprocess(inputs)
        layers = [self._layers[path] for path in taps]
        with tapping.capture(layers) as caught:
            outputs = self.model(inputs, training=False)
        features = [
            tapping.the_only_result(caught, layer, path, "teacher")
            for layer, path in zip(layers, taps, strict=True)
        ]
        if not self.from_logits:
            outputs = keras.tree.map_structure(_log, outputs)
        return outputs, features

    def tap_path(self, tap) -> str:
        if isinstance(tap, str):
            path, layer = tap, tapping.find_layer(self.model, tap, "teacher")
        else:
            path, layer = tapping.path_of(self.model, tap, "teacher"), tap
        self._layers[path] = layer
        return path

    @property
    def variables(self):
        return self.model.variables


def _log(probabilities):
    """Logits, up to a constant, of probabilities; the smallest normal float stands for 0."""
    probabilities = ops.convert_to_tensor(probabilities)
    return ops.log(ops.maximum(probabilities, 1.2e-38))
