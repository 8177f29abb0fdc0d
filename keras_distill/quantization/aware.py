"""Makes students that compute what their integer TFLite file will compute."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_distill import _keras, backends
from keras_distill.quantization import layers as quantized
from keras_distill.quantization.calibration import calibrate
from keras_distill.quantization.options import Options
from keras_distill.quantization.ranges import (
    AnyRange,
    LearnedRange,
    Range,
    is_quantize_aware,
    require_quantize_aware,
)
from keras_distill.quantization.rebuild import Rebuild


def quantize_aware(
    model: keras.Model,
    calibration: Any = None,
    *,
    weight_bits: int = 8,
    activation_bits: int = 8,
    layers: Mapping[str, Mapping[str, int] | None] | None = None,
    learned_steps: bool = False,
) -> keras.Model:
    """A copy of a model that simulates the integer arithmetic of its TFLite file.

    The copy has the inputs, outputs, layer names and weights of `model`, and is an ordinary Keras
    model: train it with `fit`, as the student of a `Distiller`, save it, load it. Kernels are
    rounded symmetrically with one scale per channel, and each tensor of the file is rounded to a
    range by a layer after it. `keras_distill.tflite.convert` then writes exactly these scales and
    integers. BatchNormalization trains with the batch's statistics and is folded into the kernel
    at export, which changes no integer.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference" (arXiv:1712.05877), section 3; learned steps: Esser et al.
    (arXiv:1902.08153).

    Args:
        model: Functional or Sequential model, trained or not, as are models inside it. It isn't
            changed.
        calibration: Inputs from which ranges start: an array, a list or dict of arrays as the
            model takes them, a `tf.data.Dataset`, or an iterable of batches. A few hundred
            samples of the training set are enough. If `None`, ranges start from the first
            training batch.
        weight_bits: 8, or 4 (convolutions, depthwise convolutions and dense layers).
        activation_bits: 8, or 16 (the "16x8" kernels).
        layers: Layers with other bits, by path: a dict with `"weights"`, `"activations"` or both
            for a path such as `"backbone/stem"`, or `None` for a layer that stays float (which
            LiteRT runs, but TFLite Micro does not).
        learned_steps: Whether the sizes of steps are trained by gradient descent instead of
            following the data. Needs `calibration`.

    Returns:
        A `keras.Model` with the same inputs and outputs.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it isn't a graph of layers, or has a layer that can't be simulated (the
            message names its path and what to do); if `calibration` doesn't fit the inputs.

    Example:

    >>> student = keras_distill.quantization.quantize_aware(student, calibration=x_train[:256])
    >>> distiller = keras_distill.Distiller(student, teacher, losses=SoftTargets(), alpha=0.1)
    """
    backends.require("`quantize_aware`", "tensorflow", "jax", "torch")
    _check(model, calibration, learned_steps)
    options = Options(model, weight_bits, activation_bits, layers or {}, learned_steps)
    rebuilt = Rebuild(options).outermost(model)
    if calibration is not None:
        calibrate(rebuilt, calibration)
    return rebuilt


def _check(model: Any, calibration: Any, learned_steps: bool) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras 3 model. Received: model={model!r}")
    if is_quantize_aware(model):
        raise ValueError(f"The model {model.name!r} is quantize-aware already: train it as it is.")
    for layer in quantized_by_keras(model):
        raise ValueError(
            f"The layer {layer.path!r} ({type(layer).__name__}) was quantized to "
            f"{layer.quantization_mode} by Keras (`quantize`), and its integers can't be trained. "
            "Give the float model, as it was before `model.quantize(...)`."
        )
    if learned_steps and calibration is None:
        raise ValueError(
            "`learned_steps=True` needs `calibration`: gradient descent changes the steps slowly, "
            "so they must start near their final sizes."
        )


def quantized_by_keras(model: keras.Model) -> list[keras.Layer]:
    """The layers of a model whose weights Keras' own `quantize` has rounded."""
    return [x for x in _keras.layers_of(model) if getattr(x, "quantization_mode", None)]


def precision(model: keras.Model) -> str:
    """The precision of a quantize-aware model's file: `"int8"`, `"int16x8"` or `"int4"`.

    Args:
        model: A model made by `quantize_aware`.

    Returns:
        `"int4"` if any kernel has 4 bits, `"int16x8"` if most tensors have 16 bits.

    Raises:
        ValueError: If the model isn't quantize-aware.
    """
    require_quantize_aware(model)
    layers = _keras.layers_of(model)
    if any(isinstance(x, quantized.QuantizedKernel) and x.bits == 4 for x in layers):
        return "int4"
    bits = [x.bits for x in layers if isinstance(x, AnyRange)]
    return "int16x8" if sum(bits) > 12 * len(bits) else "int8"


def freeze(model: keras.Model) -> None:
    """Fixes the ranges and the BatchNormalization statistics of a quantize-aware model.

    Weights are still trained. It takes effect at once, even in the middle of `fit`, so a callback
    can call it before the last epochs, in which the weights then settle on a fixed grid.

    Args:
        model: A model made by `quantize_aware`, or one that holds it (a `Distiller`).

    Raises:
        ValueError: If the model isn't quantize-aware.

    Example:

    >>> keras.callbacks.LambdaCallback(
    ...     on_epoch_begin=lambda epoch, logs: epoch == 8 and quantization.freeze(student)
    ... )
    """
    require_quantize_aware(model)
    for layer in _keras.layers_of(model):
        if isinstance(layer, (Range, LearnedRange, quantized.QuantizedBatchNormalization)):
            layer.frozen.assign(1.0)
