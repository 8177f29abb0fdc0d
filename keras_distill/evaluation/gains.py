"""What distillation gained: the recovered gap, and what to try where there is none."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_distill.evaluation import intervals, tables

_WHAT_TO_TRY = (
    "What to try where distillation doesn't help: check that the teacher is right on the very "
    "inputs that the student trains on, augmentation included; search temperature, alpha and "
    "learning rate on validation data (`keras_distill.tuning.tune`, `keras-distill tune`); train "
    "longer, and on more inputs, which need no labels with alpha=0; compare layers, too "
    "(`keras_distill.methods`)."
)


def add_recovered_gap(
    rows: list, draws: dict[str, dict], metric: str, teacher: str, baseline: str
) -> list[str]:
    """Adds the share of the gap between baseline and teacher that each candidate recovers.

    Args:
        rows: The rows of a comparison, to which `"gap_recovered"` is added.
        draws: Metrics on resampled test sets by candidate, or nothing; it is added here, too.
        metric: The metric that decides, of which more is better.
        teacher: Name of the teacher.
        baseline: Name of the candidate trained on labels alone.

    Returns:
        Notes that say why there is no share, or no interval of it.
    """
    by_name = {row["name"]: row for row in rows}
    low, high = by_name[baseline][metric], by_name[teacher][metric]
    title = tables.title(metric)
    if high <= low:
        return [f"{teacher!r} has no better {title} than {baseline!r}: no gap to recover."]
    uncertain = False
    for name, row in by_name.items():
        if name in (teacher, baseline):
            continue
        row["gap_recovered"] = (row[metric] - low) / (high - low)
        if draws:
            gap = _apart(draws, metric, teacher, baseline)
            # The interval of a ratio is useless if its denominator may be 0.
            uncertain = np.quantile(gap, 0.025) <= 0
            if not uncertain:
                above = _apart(draws, metric, name, baseline)
                nothing = np.full_like(gap, np.nan)  # Where a draw has no gap.
                draws[name]["gap_recovered"] = np.divide(above, gap, out=nothing, where=gap != 0)
    if not uncertain:
        return []
    return [
        f"The gap in {title} between {baseline!r} and {teacher!r} may be 0 on so few samples: the "
        "recovered share has no interval."
    ]


def notes_on_students(
    rows: Sequence[Any],
    draws: Mapping[str, Mapping[str, np.ndarray]],
    metric: str,
    baseline: str,
    names: Sequence[str],
) -> list[str]:
    """Notes on students that aren't shown to be better than the one trained on labels alone.

    Args:
        rows: The rows of a comparison.
        draws: Metrics on resampled test sets by candidate, or nothing. The same draws for all.
        metric: The metric that decides, of which more is better.
        baseline: Name of the candidate trained on labels alone.
        names: Names of the distilled students.
    """
    values = {row["name"]: row[metric] for row in rows}
    notes = []
    for name in names:
        gain = values[name] - values[baseline]
        found = None
        if draws:
            found = intervals.percentiles(_apart(draws, metric, name, baseline))
        if gain > 0 and (found is None or found[0] > 0):
            continue
        between = "" if found is None else f", 95 % interval {_range(metric, found)}"
        verb = "isn't" if gain <= 0 else "isn't shown to be"
        gained = f"{tables.title(metric)} {_points(metric, gain)}{between}"
        notes.append(f"{name!r} {verb} better than {baseline!r}: {gained}.")
    return [*notes, _WHAT_TO_TRY] if notes else []


def _apart(draws: Mapping[str, Mapping], metric: str, name: str, other: str) -> np.ndarray:
    """By how much one candidate is above another in each draw; NaN where both are infinite."""
    with np.errstate(invalid="ignore"):
        return draws[name][metric] - draws[other][metric]


def _points(metric: str, gain: float) -> str:
    return f"{gain:+.4g}" if metric == "r2" else f"{100 * gain:+.2f} points"


def _range(metric: str, bounds: tuple[float, float]) -> str:
    scale = 1 if metric == "r2" else 100
    return f"{scale * bounds[0]:+.2f} to {scale * bounds[1]:+.2f}"
