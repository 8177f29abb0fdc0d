"""A distiller for `tf_keras` models, and the TensorFlow Model Optimization Toolkit.

Many pipelines still use Keras 2 (`tf_keras`), and the toolkit works on `tf_keras` models.
Needs `pip install keras-distill[tfmot]`.
"""

from keras_distill import backends

try:
    backends.require("`keras_distill.legacy`", "tensorflow")
    import tf_keras as _  # noqa: F401
except ImportError as error:
    raise ImportError(
        "`keras_distill.legacy` needs tf_keras and the TensorFlow Model Optimization Toolkit: "
        "`pip install keras-distill[tfmot]`."
    ) from error

from keras_distill.legacy.bridge import to_tf_keras
from keras_distill.legacy.distiller import Distiller
from keras_distill.legacy.toolkit import (
    cluster,
    convert,
    prune,
    quantize_aware,
    strip,
    toolkit,
)

__all__ = [
    "Distiller",
    "cluster",
    "convert",
    "prune",
    "quantize_aware",
    "strip",
    "to_tf_keras",
    "toolkit",
]
