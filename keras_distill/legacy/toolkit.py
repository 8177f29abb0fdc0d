"""The TensorFlow Model Optimization Toolkit: pruning, clustering, quantization-aware training."""

import contextlib
import os
from typing import Any

import tensorflow as tf
import tf_keras

from keras_distill import _keras

_VARIABLE = "TF_USE_LEGACY_KERAS"


def toolkit() -> Any:
    """The module `tensorflow_model_optimization`, imported without side effects on the process.

    On its own, its import sets `TF_USE_LEGACY_KERAS`, which child processes inherit, and turns
    `tf.keras` into `tf_keras` where nothing has used `tf.keras` yet.

    Returns:
        The module.

    Raises:
        ImportError: If the toolkit isn't installed.
    """
    before = os.environ.get(_VARIABLE)
    _ = tf.keras.Model  # the first use decides what `tf.keras` is
    try:
        import tensorflow_model_optimization
    except ImportError as error:
        raise ImportError(
            "The TensorFlow Model Optimization Toolkit is not installed: "
            "`pip install keras-distill[tfmot]`."
        ) from error
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before
    return tensorflow_model_optimization


def prune(
    model: tf_keras.Model, sparsity: float = 0.5, begin_step: int = 0, end_step: int = 1
) -> tf_keras.Model:
    """A copy of a model whose smallest weights become 0 while it is trained.

    Train it with the callback `toolkit().sparsity.keras.UpdatePruningStep()`, then `strip` it.
    The share of zeros rises from 0 to `sparsity` along a cubic (arXiv:1710.01878, equation 1).

    Args:
        model: A `tf_keras` model.
        sparsity: Share of zeros in each kernel at the end, from 0 to 1, both excluded.
        begin_step: Training step at which zeros begin.
        end_step: Training step at which the share is reached.

    Returns:
        A `tf_keras.Model`.

    Raises:
        TypeError: If `model` isn't a `tf_keras` model.
        ValueError: If `sparsity` or the steps are out of range.
    """
    _require(model)
    if not 0 < sparsity < 1:
        raise ValueError(
            f"`sparsity` must be greater than 0 and less than 1. Received: sparsity={sparsity!r}"
        )
    if not 0 <= begin_step < end_step:
        raise ValueError(
            "`begin_step` must be at least 0 and less than `end_step`. "
            f"Received: begin_step={begin_step!r}, end_step={end_step!r}"
        )
    pruning = toolkit().sparsity.keras
    schedule = pruning.PolynomialDecay(
        0.0, sparsity, begin_step, end_step, frequency=max(1, (end_step - begin_step) // 10)
    )
    return pruning.prune_low_magnitude(model, pruning_schedule=schedule)


def cluster(
    model: tf_keras.Model, clusters: int = 16, keep_sparsity: bool = False
) -> tf_keras.Model:
    """A copy of a model whose kernels hold only a few different weights each.

    Train it, then `strip` it.

    Args:
        model: A `tf_keras` model.
        clusters: Number of different weights in each kernel, at least 2.
        keep_sparsity: Whether weights that are 0 stay 0.

    Returns:
        A `tf_keras.Model`.

    Raises:
        TypeError: If `model` isn't a `tf_keras` model.
        ValueError: If `clusters` is less than 2.
    """
    _require(model)
    if clusters < 2:
        raise ValueError(f"`clusters` must be at least 2. Received: clusters={clusters!r}")
    clustering = toolkit().clustering.keras
    result = clustering.cluster_weights(
        model,
        number_of_clusters=clusters,
        cluster_centroids_init=clustering.CentroidInitialization.KMEANS_PLUS_PLUS,
        preserve_sparsity=keep_sparsity,
    )
    if result is None:
        raise TypeError(
            "The toolkit clusters Functional and Sequential models and layers. "
            f"Received: model={model!r}"
        )
    return result


def quantize_aware(model: tf_keras.Model, keep: str | None = None) -> tf_keras.Model:
    """A copy of a model that simulates int8, made by the toolkit.

    The toolkit supports fewer layers than `keras_distill.quantization.quantize_aware`.

    Args:
        model: A `tf_keras` model, stripped after pruning or clustering.
        keep: What training preserves: `"sparsity"` (zeros stay 0; the toolkit calls it PQAT),
            `"clusters"` (equal weights stay equal; CQAT), `"both"` (PCQAT), or `None`.

    Returns:
        A `tf_keras.Model`.

    Raises:
        TypeError: If `model` isn't a `tf_keras` model.
        ValueError: If `keep` isn't one of these, or a layer isn't supported.
    """
    _require(model)
    tfmot = toolkit()
    quantize = tfmot.quantization.keras
    combine = _keras.combinations(tfmot)
    schemes = {
        "sparsity": lambda: combine.Default8BitPrunePreserveQuantizeScheme(),
        "clusters": lambda: combine.Default8BitClusterPreserveQuantizeScheme(
            preserve_sparsity=False
        ),
        "both": lambda: combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=True),
    }
    if keep is not None and keep not in schemes:
        raise ValueError(f"`keep` must be one of {list(schemes)} or None. Received: keep={keep!r}")
    try:
        if keep is None:
            return quantize.quantize_model(model)
        annotated = quantize.quantize_annotate_model(model)
        return quantize.quantize_apply(annotated, schemes[keep]())
    except RuntimeError as error:
        raise ValueError(
            f"The toolkit can't quantize {model.name!r}: {error} "
            "`keras_distill.quantization.quantize_aware` supports more layers."
        ) from error


def strip(model: tf_keras.Model) -> tf_keras.Model:
    """A model without what the toolkit added for training by `prune` or `cluster`.

    Args:
        model: A model made by `prune` or `cluster`, or made quantize-aware with
            `keep="clusters"` or `"both"` from one.

    Returns:
        A `tf_keras.Model` with the weights that were trained.

    Raises:
        TypeError: If `model` isn't a `tf_keras` model.
    """
    _require(model)
    tfmot = toolkit()
    names = {type(layer).__name__ for layer in _keras.layers_of(model)}
    if "PruneLowMagnitude" in names:
        return tfmot.sparsity.keras.strip_pruning(model)
    if any(name.startswith("ClusterWeights") for name in names):
        return tfmot.clustering.keras.strip_clustering(model)
    if "QuantizeWrapperV2" in names:
        return _keras.combinations(tfmot).strip_clustering_cqat(model)
    return model


def convert(model: tf_keras.Model, calibration: Any = None) -> bytes:
    """Converts a `tf_keras` model to a TFLite file with batch size 1.

    Args:
        model: A stripped or quantize-aware `tf_keras` model with one input.
        calibration: Inputs, shape `(samples, ...)`. With them, the file is int8 throughout,
            inputs and outputs included; ranges from quantize-aware training take precedence over
            calibrated ones. Defaults to `None`: the file is float32.

    Returns:
        The content of the file.

    Raises:
        TypeError: If `model` isn't a `tf_keras` model.
    """
    _require(model)
    (given,) = model.inputs
    signature = tf.TensorSpec((1, *given.shape[1:]), given.dtype)
    function = tf.function(lambda x: model(x, training=False), input_signature=[signature])
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [function.get_concrete_function()], model
        )
        if calibration is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([x[None]] for x in calibration)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        return converter.convert()


def _require(model: Any) -> None:
    if not isinstance(model, tf_keras.Model):
        raise TypeError(
            "`model` must be a `tf_keras.Model`. Convert a Keras 3 model with "
            f"`keras_distill.legacy.to_tf_keras`. Received: model={model!r}"
        )
