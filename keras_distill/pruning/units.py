"""Units: the channels, neurons and heads of a model that leave it only together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Channels:
    """Which unit each entry of an axis belongs to.

    Attributes:
        numbers: Integers of shape `(entries,)`, to be looked up in `Units`.
        vanishes: Booleans of shape `(entries,)`: whether an entry is exactly 0, whatever the
            model's inputs, where all weights of its unit are 0.
    """

    numbers: np.ndarray
    vanishes: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, entries: slice | np.ndarray) -> Channels:
        return Channels(self.numbers[entries], self.vanishes[entries])

    def moved(self, function: Callable[[np.ndarray], np.ndarray]) -> Channels:
        """Channels whose entries a function of arrays has moved or repeated."""
        return Channels(function(self.numbers), function(self.vanishes))

    def vanishing(self, vanishes: np.ndarray | bool) -> Channels:
        """The same units, with other `vanishes`."""
        return Channels(self.numbers, np.broadcast_to(vanishes, len(self)).copy())


class Units:
    """All units of a model, and why some of them have to stay."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._reasons: list[str] = []

    def new(self, count: int, reason: str = "") -> Channels:
        """Channels that are units of their own; with a reason, they stay."""
        start = len(self._parents)
        self._parents += range(start, start + count)
        self._reasons += [reason] * count
        return Channels(np.arange(start, start + count), np.full(count, not reason))

    def tie(self, left: Channels, right: Channels) -> None:
        """Makes entries of the same place leave together."""
        pairs = np.unique(np.stack([left.numbers, right.numbers]), axis=1)
        for one, other in pairs.T:
            first, second = sorted((self._root(one), self._root(other)))
            if first != second:
                self._parents[second] = first
                self._reasons[first] = self._reasons[first] or self._reasons[second]

    def keep(self, channels: Channels, reason: str) -> None:
        """Makes units stay."""
        for number in np.unique(channels.numbers):
            root = self._root(number)
            self._reasons[root] = self._reasons[root] or reason

    def of(self, channels: Channels) -> np.ndarray:
        """The unit of each entry: equal numbers leave together."""
        return np.array([self._root(number) for number in channels.numbers], int)

    def reason(self, unit: int) -> str:
        """Why a unit has to stay; empty if it may leave."""
        return self._reasons[self._root(unit)]

    def __len__(self) -> int:
        return len(self._parents)

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return int(number)
