"""What a model's output means: its numbers, the logits behind them, activation, mask, and mean.

A tensor alone doesn't tell whether it holds logits or probabilities, and any operation on it loses
what Keras has noted about it. An `Output` tells, and is carried from the models to the losses.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_distill import _keras
from keras_distill._types import Tensor, Tensors


class Mean(NamedTuple):
    """Of which outputs another one is the mean.

    Args:
        logits: Their logits, float32, each of shape `(batch, ..., classes)`.
        weights: A weight for each, which add up to 1: scalars, or tensors that broadcast.
    """

    logits: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]


class Factors(NamedTuple):
    """What logits are computed from, so that a loss can do so for some positions at a time.

    Args:
        rows: Tensors with an entry for each position, shape `(batch, ..., anything)`, with as many
            leading axes as the logits have before the classes.
        shared: Tensors that all positions share.
        logits: Function of `(rows, shared)`, the rows of any number of positions, that returns
            their logits, shape `(positions, classes)`.
    """

    rows: tuple[Tensor, ...]
    shared: tuple[Tensor, ...]
    logits: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class Output:
    """One output of a model for a batch, and what its numbers mean.

    For `keras.tree` it is a leaf, like a tensor.

    Args:
        values: What the model returns, shape `(batch, ...)`: logits, probabilities, or the values
            of a regression.
        logits: Where `values` are probabilities whose logits are known, these, of the same shape;
            else `None`.
        activation: `"softmax"` or `"sigmoid"`: what turns the logits into probabilities. `None`
            where that isn't known; `_keras.OTHER_AXIS` if it went along another axis.
        mask: Which positions count, bool, shape `(batch, ...)`, or `None` for all.
        mean: Where `values` are the mean of several outputs, these; else `None`.
        factors: What the logits are computed from, if that is known and smaller; else `None`.
    """

    values: Tensor
    logits: Tensor | None = None
    activation: str | None = None
    mask: Tensor | None = None
    mean: Mean | None = None
    factors: Factors | None = None

    @classmethod
    def of(cls, x: Any) -> "Output":
        """A tensor with what Keras has noted about it; an `Output` is returned as it is."""
        if isinstance(x, Output):
            return x
        return cls(x, _keras.logits_behind(x), _keras.activation_behind(x), _keras.mask_on(x))

    @classmethod
    def from_logits(cls, logits: Tensor, activation: str) -> "Output":
        """The probabilities that `activation` makes of logits."""
        require_last_axis(activation)
        return cls(getattr(keras.activations, activation)(logits), logits, activation)

    @property
    def shape(self) -> tuple:
        """The shape of the values."""
        return tuple(self.values.shape)

    @property
    def dtype(self) -> Any:
        """The dtype of the values."""
        return self.values.dtype

    def logits_at(self, temperature: float | Tensor | None = None) -> Tensor:
        """What a loss on logits compares: the logits if they are known, else the values.

        Args:
            temperature: The loss' temperature T, or `None` if it has none. A mean of several
                outputs is taken of their probabilities at T.
        """
        if self.mean is not None and temperature is not None:
            return mean_logits(*self.mean, self.activation, temperature)
        return self.values if self.logits is None else self.logits

    def in_form_of(self, other: "Output") -> Tensor:
        """The values in the form of another output, logits or probabilities, with its mask."""
        if other.logits is None:
            values = self.logits_at()
        elif self.logits is not None and self.activation == other.activation:
            values = self.values
        else:
            values = Output.from_logits(self.logits_at(), other.activation or "softmax").values
        return values if other.mask is None else _keras.with_mask(values, other.mask)

    def factors_at(self, temperature: float | Tensor | None = None) -> Factors:
        """What to compute `logits_at` from, position by position: the logits, if nothing else."""
        if self.factors is not None and self.logits is None and self.mean is None:
            return self.factors
        return Factors((self.logits_at(temperature),), (), lambda rows, shared: rows[0])

    def detached(self) -> "Output":
        """The same values and logits, through which no gradient flows."""
        logits = None if self.logits is None else ops.stop_gradient(self.logits)
        values = ops.stop_gradient(self.values)
        return dataclasses.replace(self, values=values, logits=logits, factors=None)


def require_last_axis(activation: str | None) -> None:
    """Raises a `ValueError` if an output's activation is a softmax over another axis."""
    if activation == _keras.OTHER_AXIS:
        raise ValueError(
            "A model ends in a softmax over another axis than the last, but classes are compared "
            "along the last axis. Move them there: `Permute`, then `Softmax(axis=-1)`."
        )


def as_outputs(structure: Any) -> Any:
    """A structure of tensors, or of `Output`s, as one of `Output`s."""
    return keras.tree.map_structure(Output.of, structure)


def values_of(structure: Any) -> Tensors:
    """A structure of `Output`s, or of tensors, as one of tensors."""
    return keras.tree.map_structure(lambda x: x.values if isinstance(x, Output) else x, structure)


def mask_of(structure: Any) -> Tensor | None:
    """The mask of the first `Output` in a structure that has one, or `None`."""
    masks = (output.mask for output in keras.tree.flatten(structure))
    return next((mask for mask in masks if mask is not None), None)


def logits_of_probabilities(probabilities: Tensor, activation: str) -> Tensor:
    """Logits that give `probabilities`: exact, up to a constant in each row of a softmax.

    Args:
        probabilities: Floats from 0 to 1, shape `(batch, ..., classes)`.
        activation: `"softmax"`, or `"sigmoid"` if each is a probability by itself.

    Returns:
        Logits, float32, of the same shape.
    """
    probabilities = ops.cast(probabilities, "float32")
    # The smallest normal float stands for 0.
    log_p = ops.log(ops.maximum(probabilities, 1.2e-38))
    if activation == "softmax":
        return log_p
    # Below 1, floats are 2⁻²⁴ apart: what rounds to 1 is nearer than half of that.
    return log_p - ops.log(ops.maximum(1 - probabilities, 2.0**-25))


def mean_logits(
    logits: Sequence[Tensor],
    weights: Sequence[Any],
    activation: str | None,
    temperature: float | Tensor = 1.0,
) -> Tensor:
    """Logits z whose softened probabilities are the weighted mean of the members'.

    `softmax(z / T) = sum_k w_k softmax(z_k / T)`, likewise for sigmoid.

    Args:
        logits: The members' logits, float32, each of shape `(batch, ..., classes)`.
        weights: A weight for each member, which add up to 1: scalars or tensors.
        activation: `"sigmoid"` if each unit is a probability by itself, else `"softmax"`.
        temperature: T > 0, a number or a scalar tensor.

    Returns:
        Logits, float32, shape `(batch, ..., classes)`.
    """
    temperature = ops.cast(temperature, "float32")

    def log_mean(log_probabilities):
        return ops.logsumexp(
            ops.stack(
                [
                    ops.log(ops.cast(weight, "float32")) + log_p
                    for weight, log_p in zip(weights, log_probabilities, strict=True)
                ]
            ),
            axis=0,
        )

    softened = [z / temperature for z in logits]
    if activation == "sigmoid":
        yes = log_mean([ops.log_sigmoid(z) for z in softened])
        no = log_mean([ops.log_sigmoid(-z) for z in softened])
        return temperature * (yes - no)
    return temperature * log_mean([ops.log_softmax(z) for z in softened])
