"""The rows of a comparison, as tables for the terminal, Markdown and HTML, and as plain types."""

import io
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np
import rich.box
import rich.console
import rich.markup
import rich.table

from keras_distill import _markdown

#: Columns of a terminal.
WIDTH = 80


class Row(TypedDict, total=False):
    """What is known of one candidate. Metrics of other tasks are missing.

    Attributes:
        name: Name of the candidate.
        runs: Number of its runs. Metrics are means over them.
        accuracy: From 0 to 1, as are the following ten. Of vectors, that of a linear probe.
        top_5_accuracy: Only for more than 5 classes.
        knn: Only for vectors. Accuracy of the nearest labeled samples' vote.
        mean_average_precision: Only for several labels at once, as are the following two. Mean of
            the labels' average precision.
        binary_accuracy: Share of the labels of all samples that are right.
        subset_accuracy: Share of the samples all of whose labels are right.
        mean_iou: Only for segmentation.
        map: Only for detection, as are the following six. Mean average precision over overlaps from
            0.5 to 0.95, and over classes.
        ap50: Average precision at an overlap of 0.5.
        ap75: At 0.75.
        ap_small: Mean average precision of boxes below 32² pixels.
        ap_medium: From 32² to 96².
        ap_large: Above 96².
        average_recall: With at most 100 detections an image.
        precision: Mean over classes, as are the following two.
        recall: Likewise.
        f1: Likewise.
        ece: Expected calibration error.
        mae: Mean absolute error.
        mse: Mean squared error.
        r2: Coefficient of determination, R².
        ndcg_10: Only for rankings, as is the following one. Normalized discounted cumulative gain
            of the first ten candidates.
        recall_10: Share of the relevant candidates that are among the first ten.
        miss_rate: Only for events in streams, as are the following two. Share that is missed.
        false_accepts_per_hour: Detections of what isn't there, an hour.
        mean_delay: Seconds from the end of an event to its detection.
        auc: Only for steps of streams. Area under the receiver operating characteristic.
        agreement: Share of the samples (or labels of samples) that are decided as by the teacher;
            for rankings, of the teacher's first ten that are among the candidate's.
        kl: Kullback-Leibler divergence from the teacher's probabilities, in nats; of several labels
            at once, the mean over the labels.
        difference: Mean absolute difference to the teacher's values.
        gap_recovered: (candidate - baseline) / (teacher - baseline) of the main metric.
        parameters: Number of weights.
        multiply_accumulates: Of one inference.
        bytes: Size of the file, or of the weights.
        zipped: Size of the file in a zip or in an app's download.
        arena: Bytes of working memory on a microcontroller.
        latency_ms: Median latency in milliseconds.
        latency_p95_ms: 95th percentile of the latency in milliseconds.
        latency_ratio: Median ratio of the latency to the teacher's.
        intervals: 95 % bootstrap intervals over the test set, by metric.
        run_values: The values of each run, by metric.
        run_intervals: 95 % intervals of the mean over runs (Student's t), by metric.
    """

    name: str
    runs: int
    accuracy: float
    top_5_accuracy: float
    knn: float
    mean_average_precision: float
    binary_accuracy: float
    subset_accuracy: float
    mean_iou: float
    map: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    average_recall: float
    precision: float
    recall: float
    f1: float
    ece: float
    mae: float
    mse: float
    r2: float
    ndcg_10: float
    recall_10: float
    miss_rate: float
    false_accepts_per_hour: float
    mean_delay: float
    auc: float
    agreement: float
    kl: float
    difference: float
    gap_recovered: float
    parameters: int | None
    multiply_accumulates: int | None
    bytes: int | None
    zipped: int | None
    arena: int | None
    latency_ms: float
    latency_p95_ms: float
    latency_ratio: float
    intervals: dict[str, tuple[float, float]]
    run_values: dict[str, list[float]]
    run_intervals: dict[str, tuple[float, float] | None]


def _count(value: Any) -> str:
    return f"{value:,}"


def _share(value: Any) -> str:
    return f"{100 * value:.2f} %"


def _number(value: Any) -> str:
    return f"{value:.4g}"


def _times(value: Any) -> str:
    return f"{value:.3g}×"


#: Titles and formats of the metrics and costs in a row, in the order of the table.
METRICS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "runs": ("runs", _count),
    "accuracy": ("accuracy", _share),
    "top_5_accuracy": ("top-5 accuracy", _share),
    "knn": ("k-NN accuracy", _share),
    "mean_average_precision": ("mean avg. precision", _share),
    "binary_accuracy": ("accuracy per label", _share),
    "subset_accuracy": ("subset accuracy", _share),
    "mean_iou": ("mean IoU", _share),
    "map": ("mAP, 50 to 95", _share),
    "ap50": ("AP50", _share),
    "ap75": ("AP75", _share),
    "ap_small": ("mAP, small", _share),
    "ap_medium": ("mAP, medium", _share),
    "ap_large": ("mAP, large", _share),
    "average_recall": ("average recall", _share),
    "precision": ("precision, macro", _share),
    "recall": ("recall, macro", _share),
    "f1": ("F1, macro", _share),
    "ece": ("calibration error", _share),
    "mae": ("mean absolute error", _number),
    "mse": ("mean squared error", _number),
    "r2": ("R²", _number),
    "ndcg_10": ("nDCG, first 10", _share),
    "recall_10": ("recall, first 10", _share),
    "miss_rate": ("misses", _share),
    "false_accepts_per_hour": ("false accepts an hour", _number),
    "mean_delay": ("delay, mean s", _number),
    "auc": ("area under ROC", _share),
    "agreement": ("agreement with teacher", _share),
    "kl": ("KL to teacher, nats", _number),
    "difference": ("difference to teacher", _number),
    "gap_recovered": ("gap recovered", _share),
    "parameters": ("parameters", _count),
    "multiply_accumulates": ("multiply-accumulates", _count),
    "bytes": ("bytes", _count),
    "zipped": ("bytes in a zip", _count),
    "arena": ("tensor arena, bytes", _count),
    "latency_ms": ("latency, median ms", _number),
    "latency_p95_ms": ("latency, 95th pct. ms", _number),
    "latency_ratio": ("latency, ratio", _times),
}


def title(metric: str) -> str:
    """A metric's name as the table shows it."""
    return METRICS[metric][0]


def lines(rows: Sequence[Row]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The table's lines: `(title, cells)`, a cell being `(value, interval)`, both text."""
    found = []
    for metric, (name, form) in METRICS.items():
        several = metric != "runs" or any(row["runs"] > 1 for row in rows)
        if several and any(row.get(metric) is not None for row in rows):
            found.append((name, [_cell(row, metric, form) for row in rows]))
    return found


def _cell(row: Any, metric: str, form: Callable[[Any], str]) -> tuple[str, str]:
    value = row.get(metric)
    if value is None:
        return "", ""
    text, interval = form(value), ""
    over_runs = row.get("run_intervals", {}).get(metric)
    if over_runs:
        text += f" ± {form((over_runs[1] - over_runs[0]) / 2)}"
    if metric in row["intervals"]:
        low, high = (form(bound).removesuffix(" %") for bound in row["intervals"][metric])
        interval = f"[{low}, {high}]"
    return text, interval


def as_rich(rows: Sequence[Row], notes: Sequence[str]) -> rich.table.Table:
    """A table with a line for each metric, a column for each candidate, and the notes below."""
    table = rich.table.Table(
        box=rich.box.SIMPLE_HEAD, caption="\n".join(notes), caption_justify="left"
    )
    table.add_column("", no_wrap=True)
    body = [
        [name, *("\n".join(filter(None, cell)) for cell in cells)] for name, cells in lines(rows)
    ]
    for i, row in enumerate(rows, 1):
        widest = max(len(part) for cells in body for part in cells[i].split("\n"))
        title = textwrap.fill(row["name"], max(widest, 10), break_long_words=False)
        table.add_column(rich.markup.escape(title), justify="right", no_wrap=True)
    for cells in body:
        table.add_row(*(cell.replace("[", "\\[") for cell in cells))
    return table


def fitting(
    rows: Sequence[Row], notes: Sequence[str], width: int = WIDTH
) -> list[rich.table.Table]:
    """The table, divided into several with fewer candidates each where it is too wide.

    Args:
        rows: The rows of a comparison.
        notes: Its notes, which are put below the last table.
        width: Number of characters in a line.
    """
    tables = []
    rest = list(rows)
    while rest:
        # At least one, however wide it is.
        fits = (n for n in range(len(rest), 1, -1) if _width(as_rich(rest[:n], ())) <= width)
        count = next(fits, 1)
        shown, rest = rest[:count], rest[count:]
        tables.append(as_rich(shown, () if rest else notes))
    return tables


def _width(table: rich.table.Table) -> int:
    """Columns that a table needs, its caption aside."""
    table.caption, caption = None, table.caption
    console = rich.console.Console(file=io.StringIO(), width=10_000)
    width = console.measure(table).maximum
    table.caption = caption
    return width


def as_text(*tables: rich.table.Table) -> str:
    """Tables as plain text, as wide as they need to be, and at least 80 columns."""
    file = io.StringIO()
    for table in tables:
        rich.console.Console(file=file, width=max(WIDTH, _width(table))).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def as_markdown(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """A table in Markdown with the notes as a list below."""
    header = ["", *(row["name"] for row in rows)]
    body = [
        [name, *(" ".join(filter(None, cell)) for cell in cells)] for name, cells in lines(rows)
    ]
    table = _markdown.table(header, body, right=range(1, len(header)))
    return table + "\n\n" + "\n".join(f"- {note}" for note in notes) + "\n"


def plain(value: Any) -> Any:
    """`value` with arrays and NumPy's numbers as plain types for JSON, and NaN as `None`."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
