"""The rows of a comparison: metrics and costs of each candidate, and what a reader must know."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_distill.evaluation import intervals, latency, metrics, scoring, stream_scoring
from keras_distill.evaluation.candidates import Candidate, as_candidate


def runs_of(model: Any, name: str) -> list[Candidate]:
    """The candidate for each run, of a model or of a list of them."""
    models = model if isinstance(model, (list, tuple)) else [model]
    if not models:
        raise ValueError(f"The candidate {name!r} is an empty list.")
    return [as_candidate(one, name) for one in models]


def students(runs: scoring.Runs, teacher: str, baseline: str) -> list[str]:
    """Names of the candidates that may have been distilled: neither of these two, nor a file."""
    models = (name for name, candidates in runs.items() if candidates[0].runtime == "keras")
    return [name for name in models if name not in (teacher, baseline)]


def rows_of(runs: scoring.Runs, scores: dict, x: Any) -> tuple[list, list[str]]:
    """A row for each candidate with its metrics and costs, and notes about the costs."""
    rows, notes = [], []
    for name, candidates in runs.items():
        cost = candidates[0].cost(x)
        if cost.note:
            notes.append(f"{name!r}: {cost.note}")
        values = run_values(scores[name])
        means = {metric: float(np.mean(each)) for metric, each in values.items()}
        costs = {k: v for k, v in dataclasses.asdict(cost).items() if k != "note"}
        rows.append({"name": name, "runs": len(candidates), **means, **costs})
    return rows, notes


def run_values(scores: Sequence[metrics.Scores | stream_scoring.Scored]) -> dict[str, list[float]]:
    """The values of each run, by metric."""
    return {m: [s.values[m] for s in scores] for m in scores[0].values}


def draws_of(scores: dict, resamples: int) -> tuple[dict[str, dict], list[str]]:
    """Metrics on resampled test sets, means over runs, by candidate; and why there are none."""
    count = next(iter(scores.values()))[0].sums.shape[0]
    if not resamples:
        return {}, []
    if count < intervals.FEWEST_SAMPLES:
        few = f"{count} test samples are too few for intervals ({intervals.FEWEST_SAMPLES} needed)."
        return {}, [few]
    draws = {}
    for name, runs in scores.items():
        each = [intervals.bootstrap(s.sums, s.from_sums, resamples) for s in runs]
        draws[name] = {m: np.mean([run[m] for run in each], axis=0) for m in each[0]}
    return draws, []


def add_intervals(rows: list, scores: dict, draws: dict[str, dict]) -> None:
    """Adds intervals over the test set and, if there are several runs, over runs."""
    for row in rows:
        of_draws = draws.get(row["name"], {})
        found = {metric: intervals.percentiles(values) for metric, values in of_draws.items()}
        row["intervals"] = {metric: interval for metric, interval in found.items() if interval}
        if row["runs"] > 1:
            row["run_values"] = run_values(scores[row["name"]])
            row["run_intervals"] = {
                metric: intervals.over_runs(values) for metric, values in row["run_values"].items()
            }


def add_latency(
    rows: list, runs: scoring.Runs, x: Any, latency_runs: int, teacher: str | None
) -> None:
    """Adds the latency of the first run of each candidate that can leave this process."""
    timed = {row["name"]: runs[row["name"]][0] for row in rows if row["bytes"] is not None}
    times = latency.latencies(timed, x, latency_runs)
    reference = times.get(teacher or rows[0]["name"])
    for row in rows:
        own = times.get(row["name"])
        if own is None:
            continue
        row["latency_ms"] = float(np.median(own))
        row["latency_p95_ms"] = float(np.quantile(own, 0.95))
        if reference is not None:
            row["latency_ratio"] = float(np.median(own / reference))


def legend(runs: scoring.Runs, latency_runs: int, resampled: int | None) -> list[str]:
    """Notes that explain the numbers in the table."""
    notes = []
    if latency_runs:
        notes.append(
            "Latency was measured on this host with one thread and one sample. It ranks "
            "candidates, and isn't the latency of a phone or microcontroller."
        )
    if any(candidates[0].runtime == "keras" for candidates in runs.values()):
        notes.append("Bytes of Keras models are those of their weights.")
    if resampled is not None:
        notes.append(f"In brackets: 95 % intervals, bootstrap over {resampled:,} test samples.")
    if any(len(candidates) > 1 for candidates in runs.values()):
        notes.append(
            "±: half the 95 % interval of the mean over runs (Student's t). Classes and samples "
            "are shown for the first run of a candidate."
        )
    return notes
