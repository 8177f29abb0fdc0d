"""What is built for the first batch of `fit`, on the backends that don't trace a dataset's spec."""

from typing import Any

import keras

from keras_distill import _keras


class BuiltForFirstBatch(_keras.BuildsForFirstBatch, keras.Model):
    """The part of a `Distiller` that builds it ahead of its first step on JAX and PyTorch."""

    @property
    def is_built_ahead(self) -> bool:
        """Whether all that depends on the teacher is built, or there is no teacher."""
        return self.teacher is None or self.objective.pairs is not None

    def build_ahead(self, batch: Any) -> tuple:
        """Builds everything with variables: a compiled step can't create any."""
        x, y, sample_weight = self._unpack(keras.tree.map_structure(_symbolic, batch))
        if self.teacher is not None:
            self.build_for(x)
        self._build_metrics(y)
        return x, y, sample_weight


def _symbolic(x: Any) -> Any:
    """A tensor of a batch, as one of any batch size."""
    if x is None:
        return None
    return keras.KerasTensor((None, *x.shape[1:]), keras.backend.standardize_dtype(x.dtype))
