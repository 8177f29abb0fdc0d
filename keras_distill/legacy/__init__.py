"""The distiller for `tf_keras` models, and the TensorFlow Model Optimization Toolkit.

Many pipelines still run on Keras 2 (`tf_keras`), and the toolkit's students are `tf_keras` models.
Needs `pip install keras-distill[tfmot]`.
"""

try:
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
    compressed_size,
    convert,
    prune,
    quantize_aware,
    sparsity,
    strip,
    toolkit,
)

__all__ = [
    "Distiller",
    "cluster",
    "compressed_size",
    "convert",
    "prune",
    "quantize_aware",
    "sparsity",
    "strip",
    "to_tf_keras",
    "toolkit",
]
