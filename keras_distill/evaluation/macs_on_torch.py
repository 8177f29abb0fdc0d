"""Multiply-accumulates of a Keras model, counted as PyTorch runs it."""

from collections.abc import Callable
from typing import Any

import keras

from keras_distill.evaluation.macs_on_jax import Opaque
from keras_distill.teachers import host_calls


def count(model: Callable[[Any], Any], specs: Any) -> int:
    """Counts the multiply-accumulates of a function.

    Args:
        model: A `keras.Model`, or a function of tensors.
        specs: Its inputs, objects with `shape` and `dtype`.

    Raises:
        ValueError: If the model runs Python code on the host.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    zeros = keras.tree.map_structure(lambda x: keras.ops.zeros(tuple(x.shape), x.dtype.name), specs)
    refusal = Opaque("The model runs Python code, whose cost is unknown.")
    counter = FlopCounterMode(display=False)
    # Attention in its parts: the counter doesn't know the operation of CPUs.
    parts = sdpa_kernel(SDPBackend.MATH)
    with torch.no_grad(), host_calls.refused_with(refusal), parts, counter:
        model(zeros, training=False) if isinstance(model, keras.Model) else model(zeros)
    return counter.get_total_flops() // 2
