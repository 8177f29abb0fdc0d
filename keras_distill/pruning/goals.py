"""What the smaller model must need at most, met by measuring."""

from __future__ import annotations

import bisect
import dataclasses
import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import keras
import numpy as np

from keras_distill import backends, tflite
from keras_distill.evaluation.candidates import as_candidate
from keras_distill.evaluation.latency import latencies
from keras_distill.evaluation.macs import multiply_accumulates
from keras_distill.pruning.removal import without
from keras_distill.pruning.structure import Structure
from keras_distill.pruning.units import Channels
from keras_distill.tflite import budget

#: A search ends where a goal is met with at most this share of it left over.
CLOSE_ENOUGH = 0.04
#: How many inferences a latency is the median of.
_ROUNDS = 200


@dataclasses.dataclass(frozen=True)
class Goal:
    """One thing that must not be exceeded.

    Attributes:
        name: Name of the argument. What a latency costs is taken for that of multiply-accumulates.
        limit: The greatest number allowed, or the share of what the model needs now.
        export: Arguments of `tflite.convert` for what is measured in a file.
    """

    name: str
    limit: float
    export: Mapping[str, Any] | None = None

    def measured(self, model: keras.Model) -> float:
        """What a model needs."""
        if self.name == "macs":
            return multiply_accumulates(model)
        artifact = tflite.convert(model, **(self.export or {}))
        if self.name == "latency":
            times = latencies({"file": as_candidate(artifact, "file")}, np.zeros(1), _ROUNDS)
            return float(np.median(times["file"]))
        report = artifact.report
        return report["bytes"] if self.name == "flash" else report["arena"]["to_start"]

    def absolute(self, now: float) -> Goal:
        """The goal with its limit as a number, for a model that needs so much now."""
        return dataclasses.replace(self, limit=self.limit * now) if self.is_share else self

    @property
    def is_share(self) -> bool:
        """Whether the limit is a share."""
        return self.name == "macs" and self.limit <= 1

    def costs(self, structure: Structure) -> Iterator[tuple[Channels, float]]:
        """Channels, and what about the model needs for all of them together."""
        if self.name == "arena":
            for channels, positions in structure.tensors:
                yield channels, len(channels) * positions
            return
        for weight in structure.weights:
            factor = 1 if self.name == "flash" else weight.positions
            for axis in weight.axes:
                if axis is not None:
                    yield axis.channels, factor * math.prod(weight.variable.shape)

    def expected(self, structure: Structure, leaving: np.ndarray) -> float:
        """What a model about needs without some units, up to a factor and what stays anyway."""

        def kept(channels: Channels) -> int:
            return int(np.count_nonzero(~leaving[structure.units.of(channels)]))

        if self.name == "arena":
            return float(sum(kept(x) * positions for x, positions in structure.tensors))
        total = 0.0
        for weight in structure.weights:
            axes = zip(weight.variable.shape, weight.axes, strict=True)
            sizes = [size if axis is None else kept(axis.channels) for size, axis in axes]
            total += math.prod(sizes) * (1 if self.name == "flash" else weight.positions)
        return total


def goals(
    macs: float | None,
    flash: int | str | None,
    arena: int | str | None,
    latency: float | None,
    export: Mapping | None,
) -> list[Goal]:
    """The goals that were given, checked."""
    found = []
    if macs is not None:
        if not _is_positive(macs):
            raise ValueError(
                "`macs` must be a share of the model's multiply-accumulates, above 0 and up to 1, "
                f"or a greater number of them. Received: macs={macs!r}"
            )
        found.append(Goal("macs", float(macs)))
    for name, value in (("flash", flash), ("arena", arena), ("latency", latency)):
        if value is None:
            continue
        if export is None:
            raise ValueError(
                f"`{name}` is measured in the exported file: give `export`, the arguments of "
                '`keras_distill.tflite.convert`, such as `export={"target": "micro", '
                '"quantization": "int8", "calibration": x_train[:200]}`.'
            )
        if name == "arena" and export.get("target", "android") == "android":
            raise ValueError(
                "`arena` is known of files for microcontrollers only: give "
                f'`export={{"target": "micro", ...}}`. Received: {sorted(export)} with '
                f"target={export.get('target')!r}"
            )
        found.append(Goal(name, _limit(name, value), export))
    if not found:
        raise ValueError("Give a goal: `macs`, `flash`, `arena` or `latency`.")
    return found


def _limit(name: str, value: Any) -> float:
    """The greatest number of bytes or milliseconds allowed."""
    if name != "latency":
        limit = budget.size(name, value)
        assert limit is not None
        return limit
    if not _is_positive(value):
        raise ValueError(
            "`latency` must be a number of milliseconds of an inference on this host, such as 0.5. "
            f"Received: latency={value!r}"
        )
    backends.require("`latency`", "tensorflow")
    return float(value)


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and 0 < float(value) < math.inf


def shares(structure: Structure, goals: Sequence[Goal]) -> np.ndarray:
    """For each unit, what it about costs of the goals: shares of all, summed over them."""
    total = np.zeros(len(structure.units))
    for goal in goals:
        costs = np.zeros(len(structure.units))
        for channels, cost in goal.costs(structure):
            units = structure.units.of(channels)
            costs += np.bincount(units, minlength=len(costs)) * cost / max(len(units), 1)
        total += costs / max(goal.expected(structure, np.zeros(len(costs), bool)), 1)
    return np.maximum(total, 1e-12)


def are_met(model: keras.Model, smaller: keras.Model, goals: Sequence[Goal]) -> bool:
    """Whether a smaller model meets the goals that were set for a model."""
    return all(
        goal.measured(smaller) <= goal.absolute(goal.measured(model) if goal.is_share else 0).limit
        for goal in goals
    )


def fewest(
    model: keras.Model, structure: Structure, order: Sequence[int], goals: Sequence[Goal]
) -> int:
    """How many units must leave, in an order, until all goals are met.

    Args:
        model: The model.
        structure: Its structure.
        order: The units, the one that leaves first first.
        goals: The goals.

    Returns:
        A number of units.

    Raises:
        BudgetError: If a goal isn't met without any of them. Its message has the breakdown.
    """
    searches = [_Search(model, structure, order, goal) for goal in goals]
    count = max(search.fewest() for search in searches)
    # A goal that fewer units meet may be missed with more of them: files needn't shrink in step.
    while len(goals) > 1 and (missed := [x for x in searches if not x.is_met(count)]):
        if count >= len(order):
            missed[0].fail()
        count += 1
    return count


class _Search:
    """Looks for the number of units by interpolation, measuring few models."""

    def __init__(self, model: Any, structure: Structure, order: Sequence[int], goal: Goal):
        self._model, self._structure, self._order = model, structure, order
        self._now = goal.measured(model)
        self._goal = goal.absolute(self._now)

    def fewest(self) -> int:
        # The most units with which it isn't met, and the fewest with which it is, if known.
        low, needed = 0, self._now
        high, needed_by_high = len(self._order) + 1, None
        if needed <= self._goal.limit:
            return 0
        if not self._order:
            self.fail()
        while high - low > 1:
            count = min(self._guess(low, needed, high, needed_by_high), len(self._order))
            found = self._goal.measured(self._smaller(count))
            if found > self._goal.limit:
                low, needed = count, found
                if count == len(self._order):
                    self.fail()
            else:
                high, needed_by_high = count, found
                if found >= (1 - CLOSE_ENOUGH) * self._goal.limit:
                    break
        return high

    def is_met(self, count: int) -> bool:
        """Whether the goal is met without so many units."""
        return self._goal.measured(self._smaller(count)) <= self._goal.limit

    def fail(self) -> NoReturn:
        """Raises the error that says what is left without all units that may leave."""
        found = self._goal.measured(self._smaller(len(self._order)))
        raise budget.BudgetError(self._breakdown(found))

    def _guess(self, low: int, needed: float, high: int, needed_by_high: float | None) -> int:
        """The count between two at which what is expected meets the goal."""
        at_low = self._expected(low)
        if needed_by_high is None:
            aim = at_low * self._goal.limit / needed
        else:
            slope = (at_low - self._expected(high)) / (needed - needed_by_high)
            aim = at_low - slope * (needed - self._goal.limit)
        counts = range(low + 1, high)
        place = bisect.bisect_left(counts, -aim, key=lambda count: -self._expected(count))
        return counts[min(place, len(counts) - 1)]

    def _expected(self, count: int) -> float:
        leaving = np.zeros(len(self._structure.units), bool)
        leaving[list(self._order[:count])] = True
        return self._goal.expected(self._structure, leaving)

    def _smaller(self, count: int) -> keras.Model:
        return without(self._model, self._structure, self._order[:count])

    def _breakdown(self, found: float) -> str:
        smallest = self._smaller(len(self._order))
        reasons = kept_whole(self._structure).items()
        kept = "; ".join(f"{path}: {reason}" for path, reason in reasons)
        widths = ", ".join(f"{x.name} {x.count_params():,}" for x in smallest.layers if x.weights)
        return (
            f"`{self._goal.name}` can't be met: {self._goal.limit:,g} allowed, {self._now:,g} "
            f"needed now, and {found:,g} without all units that may leave. "
            f"Parameters are left in {widths}. Of these layers all units stay: {kept}."
        )


def kept_whole(structure: Structure) -> dict[str, str]:
    """Why the layers of which nothing can leave stay whole, by path."""
    reasons = {}
    for path, channels in structure.made.items():
        of_layer = [structure.units.reason(unit) for unit in structure.units.of(channels)]
        if all(of_layer):
            reasons[path] = of_layer[0]
    return reasons
