"""Arithmetic that stays finite where the textbook's form doesn't."""

from typing import Any

import keras
import ml_dtypes
from keras import ops

from keras_distill._types import Tensor


def scalar(value: float | Tensor, dtype: Any) -> Tensor:
    """A hyperparameter, a number or a variable, in a dtype: `ops.cast` makes numbers float32."""
    if isinstance(value, (int, float)):
        return ops.convert_to_tensor(value, dtype)
    return ops.cast(value, dtype)


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """`Σ p (log p − log q)` over the last axis."""
    return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


def bernoulli_kl_divergence(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """KL divergence between Bernoulli distributions that are given by their logits."""
    yes = ops.log_sigmoid(logits_p) - ops.log_sigmoid(logits_q)
    no = ops.log_sigmoid(-logits_p) - ops.log_sigmoid(-logits_q)
    return ops.sigmoid(logits_p) * yes + ops.sigmoid(-logits_p) * no


def safe_sqrt(x: Tensor) -> Tensor:
    """Square root of `x >= 0` whose gradient at 0 is 0 rather than infinite."""
    positive = x > 0
    return ops.where(positive, ops.sqrt(ops.where(positive, x, ops.ones_like(x))), 0)


def unit(x: Tensor, axis: int | tuple[int, ...]) -> Tensor:
    """`x` divided by its Euclidean norm over `axis`; zeros stay zeros, with a finite gradient.

    The largest magnitude is divided out first, so that squares neither overflow nor underflow.
    """
    x = unit_peak(x, axis)
    squares = ops.sum(ops.square(x), axis=axis, keepdims=True)
    return x * ops.rsqrt(ops.where(squares > 0, squares, ops.ones_like(squares)))


def unit_peak(x: Tensor, axis: int | tuple[int, ...]) -> Tensor:
    """`x` divided by its largest magnitude over `axis`, a constant for the gradient."""
    peak = ops.stop_gradient(ops.max(ops.abs(x), axis=axis, keepdims=True))
    return x / ops.where(peak > 0, peak, ops.ones_like(peak))


def huber(x: Tensor) -> Tensor:
    """`x²/2` where `|x| < 1`, `|x| − 1/2` elsewhere."""
    size = ops.abs(x)
    return ops.where(size < 1, ops.square(x) / 2, size - 0.5)


def very_negative(dtype: Any) -> float:
    """A finite logit whose softmax is 0 beside any logit that occurs."""
    return -0.5 * float(_finfo(dtype).max)


def finite_logits(x: Tensor) -> Tensor:
    """Logits with -inf, that of a class which is ruled out, as a finite one of probability 0."""
    return ops.maximum(x, -(float(_finfo(x.dtype).max) ** 0.75))


def rounding(dtype: Any) -> float:
    """The relative error of a number of this dtype."""
    return float(_finfo(dtype).eps)


def _finfo(dtype):
    return ml_dtypes.finfo(keras.backend.standardize_dtype(dtype))
