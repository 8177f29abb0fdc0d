"""The comparison as a table: in the terminal, in Markdown, in HTML."""

import io

import rich.box
import rich.console
import rich.table

from keras_distill import _markdown


def _count(value):
    return f"{value:,}"


def _share(value):
    return f"{100 * value:.2f} %"


def _number(value):
    return f"{value:.4g}"


def _times(value):
    return f"{value:.3g}×"


#: Titles and formats of what a row may hold, in the order of the table.
METRICS = {
    "runs": ("runs", _count),
    "accuracy": ("accuracy", _share),
    "top_5_accuracy": ("top-5 accuracy", _share),
    "mean_iou": ("mean IoU", _share),
    "precision": ("precision, macro", _share),
    "recall": ("recall, macro", _share),
    "f1": ("F1, macro", _share),
    "ece": ("calibration error", _share),
    "mae": ("mean absolute error", _number),
    "mse": ("mean squared error", _number),
    "r2": ("R²", _number),
    "agreement": ("agreement with teacher", _share),
    "kl": ("KL to teacher, nats", _number),
    "difference": ("difference to teacher", _number),
    "gap_recovered": ("gap recovered", _share),
    "parameters": ("parameters", _count),
    "multiply_accumulates": ("multiply-accumulates", _count),
    "bytes": ("bytes", _count),
    "arena": ("tensor arena, bytes", _count),
    "latency_ms": ("latency, median ms", _number),
    "latency_p95_ms": ("latency, 95th pct. ms", _number),
    "latency_ratio": ("latency, ratio", _times),
}


def title(metric) -> str:
    """A metric's name as the table shows it."""
    return METRICS[metric][0]


def lines(rows) -> list:
    """The table's lines: `(title, cells)`, a cell being `(value, interval)`, both text."""
    found = []
    for metric, (name, form) in METRICS.items():
        several = metric != "runs" or any(row["runs"] > 1 for row in rows)
        if several and any(row.get(metric) is not None for row in rows):
            found.append((name, [_cell(row, metric, form) for row in rows]))
    return found


def _cell(row, metric, form):
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


def as_rich(rows, notes) -> rich.table.Table:
    """A line for each metric, a column for each candidate, the notes below."""
    table = rich.table.Table(
        box=rich.box.SIMPLE_HEAD, caption="\n".join(notes), caption_justify="left"
    )
    table.add_column("")
    for row in rows:
        table.add_column(rich.markup.escape(row["name"]), justify="right")
    for name, cells in lines(rows):
        table.add_row(name, *("\n".join(filter(None, cell)).replace("[", "\\[") for cell in cells))
    return table


def as_text(table) -> str:
    """A table as plain text, as wide as it needs to be."""
    console = rich.console.Console(file=io.StringIO(), width=10_000)
    width = max(80, console.measure(table).maximum)
    file = io.StringIO()
    rich.console.Console(file=file, width=width).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def as_markdown(rows, notes) -> str:
    """A table in Markdown, the notes as a list below."""
    header = ["", *(row["name"] for row in rows)]
    body = [
        [name, *(" ".join(filter(None, cell)) for cell in cells)] for name, cells in lines(rows)
    ]
    table = _markdown.table(header, body, right=range(1, len(header)))
    return table + "\n\n" + "\n".join(f"- {note}" for note in notes) + "\n"
