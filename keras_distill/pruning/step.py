"""One call of a layer, as rules see it, and what they say about the layer's weights."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_distill import _keras
from keras_distill.pruning.units import Channels

if TYPE_CHECKING:
    from keras_distill.pruning.structure import Structure


class Role(enum.Enum):
    """What an axis of a weight has to do with the units along it."""

    MAKES = "makes"  # Units whose weights along it are 0 are 0 themselves.
    READS = "reads"  # Its sums run over them.
    HOLDS = "holds"  # It only has a value for each, such as a moving average.


@dataclasses.dataclass(frozen=True)
class Axis:
    """The units along an axis of a weight."""

    role: Role
    channels: Channels


makes = functools.partial(Axis, Role.MAKES)
reads = functools.partial(Axis, Role.READS)
holds = functools.partial(Axis, Role.HOLDS)


@dataclasses.dataclass
class Weight:
    """A variable of the model.

    Attributes:
        variable: The Keras variable.
        axes: For each axis its `Axis`, or `None` where all of it stays.
        positions: How often an inference multiplies by each of its values.
        is_scale: Whether it is the scale of a BatchNormalization.
    """

    variable: Any
    axes: tuple[Axis | None, ...]
    positions: int
    is_scale: bool


@dataclasses.dataclass
class Setting:
    """An entry of a layer's config that counts channels.

    Attributes:
        channels: What is counted.
        value: Function of the count that returns the entry.
    """

    channels: Channels
    value: Callable[[int], Any]


class Step:
    """One call of a layer or operation, as rules see it.

    Attributes:
        call: The call in the Keras graph.
        layer: The layer or operation.
        path: Its path in the outermost model, such as `"backbone/stem"`.
        inputs: The units along the last axis of each of its inputs.
    """

    def __init__(self, structure: Structure, call: _keras.Call, path: str, inputs: list[Channels]):
        self._structure = structure
        self.call = call
        self.layer = call.operation
        self.path = path
        self.inputs = inputs

    @property
    def input_sizes(self) -> tuple[int, ...]:
        """Shape of the first input without the batch; 1 where it is unknown."""
        return sizes(self.call.inputs[0])

    @property
    def output_sizes(self) -> tuple[int, ...]:
        """Shape of the first output without the batch; 1 where it is unknown."""
        return sizes(self.call.outputs[0])

    def make(self, count: int, part: str = "") -> Channels:
        """New units that the layer (or a named part of it) makes, of which one stays."""
        made = self._structure.units.new(count)
        path = f"{self.path} ({part})" if part else self.path
        known = self._structure.made.setdefault(path, made)
        if known is not made:
            self._structure.units.tie(known, made)
        return made

    def tie(self, *channels: Channels) -> None:
        """Makes entries of the same place leave together."""
        for other in channels[1:]:
            self._structure.units.tie(channels[0], other)

    def keep(self, reason: str, *channels: Channels) -> None:
        """Makes units stay; the reason continues "it is read by the layer 'x', which ..."."""
        for each in channels:
            self._structure.units.keep(each, f"{self._named} {reason}")

    def whole(self, reason: str) -> list[Channels]:
        """The outputs of a layer of which nothing can leave, nor of its inputs."""
        self.keep(reason, *self.inputs)
        self._structure.whole.setdefault(self.layer, f"{self._named} {reason}")
        new = self._structure.units.new
        return [new(width(x), f"{self._named} {reason}") for x in self.call.outputs]

    def weight(
        self, variable: Any, *axes: Axis | None, positions: int = 0, is_scale: bool = False
    ) -> None:
        """Says what units a weight has along its axes, `None` where it stays whole."""
        if variable is None:
            return
        for axis in axes:
            if axis is not None and axis.role is Role.READS:
                left = axis.channels[~axis.channels.vanishes]
                self.keep("reads values that aren't 0 where their weights are", left)
        self._structure.add_weight(Weight(variable, axes, positions, is_scale))

    def setting(
        self, key: str, channels: Channels, value: Callable[[int], Any] = lambda count: count
    ) -> None:
        """Says that an entry of the layer's config counts channels."""
        settings = self._structure.settings.setdefault(self.layer, {})
        known = settings.setdefault(key, Setting(channels, value))
        self.tie(known.channels, channels)

    @property
    def _named(self) -> str:
        return f"{self.path!r} ({type(self.layer).__name__})"


def sizes(tensor: Any) -> tuple[int, ...]:
    return tuple(size or 1 for size in tensor.shape[1:]) or (1,)


def width(tensor: Any) -> int:
    return sizes(tensor)[-1]
