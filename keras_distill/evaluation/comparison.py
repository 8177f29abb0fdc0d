"""What `compare` returns: candidates in one table, and its report."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NotRequired, TypedDict

import rich.console
import rich.table

from keras_distill.evaluation import disagreements, metrics, tables


class ComparisonDict(TypedDict):
    """What `Comparison.to_dict` returns, all of it plain types for JSON.

    Attributes:
        task: `"classification"`, `"multilabel"`, `"segmentation"`, `"regression"`, `"ranking"`,
            `"detection"`, `"stream"` (events in recordings), `"frames"` (a label for each step of
            a recording) or `"embedding"`.
        samples: Number of samples.
        teacher: Name of the candidate that the others are compared with, or `None`.
        class_names: Names of the classes, or `None`.
        candidates: The rows of the table.
        per_class: Metrics of each class, by candidate.
        confusion: Confusion matrix, by candidate.
        reliability: Confidence, accuracy and share of the samples by bin, by candidate.
        disagreements: The samples on which candidate and teacher disagree most, without their
            inputs, by candidate.
        notes: Sentences that a reader of the numbers must know.
        streams: Only for recordings: counts, confusion of words and the detection error tradeoff,
            or the receiver operating characteristic, by candidate.
    """

    task: str
    samples: int
    teacher: str | None
    class_names: list[str] | None
    candidates: list[tables.Row]
    per_class: dict[str, dict[str, list[float]]]
    confusion: dict[str, list[list[int]]]
    reliability: dict[str, dict[str, list[float]]]
    disagreements: dict[str, list[dict[str, Any]]]
    notes: list[str]
    streams: NotRequired[dict[str, dict[str, Any]]]


@dataclasses.dataclass
class Comparison:
    """Candidates side by side. `compare` makes it; `print` shows it as a table.

    `print` divides tables wider than 80 columns into several, one below the other.

    Attributes:
        rows: One dict for each candidate: `"name"`, `"runs"`, the metrics and the costs by name,
            `"intervals"` (95 %, bootstrap over the test set) and, for several runs,
            `"run_values"` of each metric and `"run_intervals"` (95 %, Student's t).
        notes: Sentences that a reader of the table must know.
        task: `"classification"`, `"multilabel"`, `"segmentation"`, `"regression"`, `"ranking"`,
            `"detection"`, `"stream"` (events in recordings), `"frames"` (a label for each step of
            a recording) or `"embedding"`.
        samples: Number of samples.
        teacher: Name of the candidate that the others are compared with, or `None`.
        class_names: Names of the classes, or `None`.
        scores: `metrics.Scores` of each candidate's first run, by name.
        disagreements: For each candidate other than the teacher, the samples on which it is
            farthest from the teacher: dicts of `"sample"`, `"input"`, `"label"`, `"teacher"`,
            `"candidate"` (class and probability, or values) and `"distance"`.
        streams: For recordings, what was measured of each candidate's first run, as plain types.
    """

    rows: list[tables.Row]
    notes: list[str]
    task: str
    samples: int
    teacher: str | None
    class_names: list[str] | None
    scores: dict[str, metrics.Scores]
    disagreements: dict[str, list[disagreements.Disagreement]]
    streams: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def table(self) -> rich.table.Table:
        """The comparison as a `rich.table.Table`: a line for each metric, a column for each
        candidate."""
        return tables.as_rich(self.rows, self.notes)

    def markdown(self) -> str:
        """The comparison as a table in Markdown."""
        return tables.as_markdown(self.rows, self.notes)

    def to_dict(self) -> ComparisonDict:
        """Everything but the inputs, as plain types for JSON."""
        found: ComparisonDict = {
            "task": self.task,
            "samples": self.samples,
            "teacher": self.teacher,
            "class_names": self.class_names,
            "candidates": tables.plain(self.rows),
            "per_class": {
                n: tables.plain(s.per_class) for n, s in self.scores.items() if s.per_class
            },
            "confusion": {
                n: s.confusion.tolist() for n, s in self.scores.items() if s.confusion is not None
            },
            "reliability": {
                n: tables.plain(s.reliability) for n, s in self.scores.items() if s.reliability
            },
            "disagreements": {
                name: [tables.plain({k: v for k, v in d.items() if k != "input"}) for d in worst]
                for name, worst in self.disagreements.items()
            },
            "notes": self.notes,
        }
        if self.streams:
            found["streams"] = tables.plain(self.streams)
        return found

    def report(
        self,
        folder: str | os.PathLike,
        *,
        title: str = "Distillation report",
        histories: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        show: Callable[[Any], Any] | None = None,
    ) -> pathlib.Path:
        """Writes `report.html`, `report.md` and `report.json` into a folder.

        The HTML file is self-contained. It shows the table; the score against bytes and against
        latency with the Pareto front; training curves; confusion matrices; how well confidence is
        calibrated; the samples on which candidates and teacher disagree most; settings and
        versions.

        Args:
            folder: Folder to write to. It is created if it doesn't exist.
            title: Title of the report.
            histories: Dict from names to what `fit` returned (or its `history` dict), for the
                training curves. A list holds the histories of several runs. A curve with the name
                of a candidate has that candidate's color, others have colors of their own.
            settings: Dict of the settings (temperature, alpha, seed, ...) that the candidates were
                made with, to be shown.
            show: Function from one sample's input to what is shown for it: a string, an image of
                shape `(height, width)` or `(height, width, 3)`, or a signal of shape
                `(steps, channels)`. For example, from token ids back to text. Defaults to `None`:
                the input itself.

        Returns:
            Path of the folder.

        Raises:
            ImportError: If matplotlib or Jinja2 is missing.
            ValueError: If the folder can't be written. Nothing is left half-written.

        Example:

        >>> history = distiller.fit(x_train, y_train, epochs=10)
        >>> result = keras_distill.evaluation.compare(candidates, (x_test, y_test))
        >>> result.report("report", histories={"distilled": history}, settings={"temperature": 4})
        """
        try:
            from keras_distill.evaluation.report import write_report
        except ModuleNotFoundError as error:
            raise ImportError(
                f"Reports need {error.name}: `pip install keras-distill[report]`."
            ) from error
        return write_report(self, folder, title, histories, settings, show)

    def __rich_console__(
        self, console: rich.console.Console, options: rich.console.ConsoleOptions
    ) -> Iterator[rich.table.Table]:
        yield from tables.fitting(self.rows, self.notes, options.max_width)

    def __str__(self) -> str:
        return tables.as_text(*tables.fitting(self.rows, self.notes))
