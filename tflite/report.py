"""Reports as Markdown."""

from collections.abc import Mapping
from typing import Any

from keras_distill._markdown import table


class Report(dict):
    """A dict of plain types (JSON) that prints as Markdown."""

    def __str__(self) -> str:
        return markdown(self)


def markdown(report: Mapping[str, Any], level: int = 1) -> str:
    """A report as Markdown: a section for each nested dict, a table for each list of dicts."""
    lines, sections = [], []
    for key, value in report.items():
        title = str(key).replace("_", " ")
        if isinstance(value, dict) and value:
            sections.append(f"{'#' * (level + 1)} {title}\n\n{markdown(value, level + 1)}")
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
            header = list(value[0])
            rows = [[_cell(row.get(column)) for column in header] for row in value]
            sections.append(f"{'#' * (level + 1)} {title}\n\n{table(header, rows)}")
        elif value not in (None, {}, [], ()):
            lines.append(f"- {title}: {_cell(value)}")
    return "\n\n".join(["\n".join(lines), *sections] if lines else sections)


def _cell(value):
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return "; ".join(_cell(v) for v in value)
    return str(value)
