"""The report of a comparison: one HTML file that holds everything, Markdown, and JSON."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import numpy as np

from keras_distill import _markdown
from keras_distill._files import check_folder, write_folder
from keras_distill._version import __version__
from keras_distill.evaluation import pictures, tables, tasks

_PACKAGES = (
    "keras", "tensorflow", "numpy", "scikit-learn", "ai-edge-litert", "ai-edge-quantizer",
    "tflite-micro",
)  # fmt: skip
#: Costs against which the score is drawn, with the title of their axis.
_COSTS = {"bytes": "bytes", "latency_ms": "latency on this host, median ms"}
_SIDES = ("label", "teacher", "candidate")


def write_report(
    comparison: Any,
    folder: str | os.PathLike,
    title: str,
    histories: Mapping[str, Any] | None,
    settings: Mapping[str, Any] | None,
    show: Callable[[Any], Any] | None,
) -> pathlib.Path:
    """Writes the files of `Comparison.report`, whose arguments it takes."""
    check_folder(folder)
    curves = _histories(histories or {})
    facts = {
        "title": title,
        "histories": tables.plain(
            {n: runs[0] if len(runs) == 1 else runs for n, runs in curves.items()}
        ),
        "settings": tables.plain(settings or {}),
        "versions": versions(),
        "written": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    html = _environment().get_template("report.html").render(
        comparison=comparison,
        lines=tables.lines(comparison.rows),
        pictures=_pictures(comparison, curves),
        per_class=_per_class(comparison),
        disagreements=_disagreements(comparison, show),
        **facts,
    )  # fmt: skip
    stored = {**facts, **comparison.to_dict()}
    return write_folder(
        folder,
        {
            "report.html": html,
            "report.md": _page(comparison, facts),
            "report.json": json.dumps(stored, indent=1, allow_nan=False, default=str) + "\n",
        },
    )


def _histories(histories: Mapping[str, Any]) -> dict[str, list[dict[str, list[float]]]]:
    """The `history` dicts of each name's runs."""
    found: dict[str, list] = {}
    for name, runs in histories.items():
        runs = runs if isinstance(runs, (list, tuple)) else [runs]
        found[name] = [getattr(run, "history", run) for run in runs]
        for run in found[name]:
            values = run.values() if isinstance(run, Mapping) else [None]
            if not all(isinstance(each, (list, tuple, np.ndarray)) for each in values):
                raise TypeError(
                    "`histories` must be a dict from names to what `fit` returned, its `history`, "
                    f"or lists of these. Received for {name!r}: "
                    f"{run if isinstance(run, Mapping) else type(run).__name__}"
                )
    return found


def versions() -> dict[str, str]:
    """The versions of this package, of the packages it uses, of Python and of the platform."""
    found = {"keras_distill": __version__, "Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**found, "platform": platform.platform()}


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("keras_distill.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _pictures(comparison: Any, histories: Mapping[str, list]) -> dict[str, list[tuple[str, str]]]:
    """The pictures by section: pairs of (alternative text, data URI)."""
    names = [row["name"] for row in comparison.rows]
    palette = pictures.colors([*dict.fromkeys([*names, *histories])], comparison.teacher)
    metric = tasks.MAIN_METRICS[comparison.task]
    found = {"trade_off": [], "curves": [], "confusion": [], "reliability": []}
    for cost, title in _COSTS.items():
        points = {
            row["name"]: (row[cost], row[metric], row["intervals"].get(metric))
            for row in comparison.rows
            if row.get(cost)  # The axis is logarithmic.
        }
        if len(points) > 1:
            drawn = pictures.trade_off(points, palette, title, tables.title(metric))
            found["trade_off"].append((f"{tables.title(metric)} against {title}", drawn))
    runs = (run for each in histories.values() for run in each)
    keys = dict.fromkeys(key.removeprefix("val_") for run in runs for key in run)
    for key in keys:
        found["curves"].append((f"{key} by epoch", pictures.curves(histories, key, palette)))
    for name, scores in comparison.scores.items():
        if scores.confusion is not None:
            drawn = pictures.confusion(scores.confusion, name, comparison.class_names)
            found["confusion"].append((f"confusion matrix of {name}", drawn))
        if scores.reliability is not None:
            drawn = pictures.reliability(scores.reliability, name, palette[name])
            found["reliability"].append((f"reliability diagram of {name}", drawn))
    return found


def _class(comparison: Any, index: int) -> str:
    """A class by its name, or its number where it has none."""
    return comparison.class_names[index] if comparison.class_names else str(index)


def _per_class(comparison: Any) -> list[tuple]:
    """F1, IoU or average precision by class: `(class, labels, a text for each candidate)`."""
    scored = [s.per_class for s in comparison.scores.values() if s.per_class]
    if not scored:
        return []
    measure = next(name for name in ("f1", "iou", "ap") if name in scored[0])
    return [
        (_class(comparison, c), int(count), [f"{100 * s[measure][c]:.1f} %" for s in scored])
        for c, count in enumerate(scored[0]["labels"])
    ]


def _disagreements(comparison: Any, show: Callable | None) -> dict[str, list[dict[str, Any]]]:
    """For each candidate, cards with an input, its label and the two outputs."""
    return {
        name: [
            {
                "sample": d["sample"],
                "distance": f"{d['distance']:.3g}",
                "input": pictures.shown(show(d["input"]) if show else d["input"]),
                "outputs": [(who, _shown_output(comparison, d[who], d["input"])) for who in _SIDES],
            }
            for d in worst
        ]
        for name, worst in comparison.disagreements.items()
    }


def _shown_output(comparison: Any, answer: Any, given: Any = None) -> dict[str, str]:
    """A class and its probability, values, a map of classes, or boxes on the input `given`."""
    if comparison.task == "detection":
        return {"picture": pictures.boxes(given, answer, lambda c: _class(comparison, c))}
    if isinstance(answer, tuple):
        return {
            "text": f"{_class(comparison, answer[0])} ({100 * answer[1]:.0f}\N{NO-BREAK SPACE}%)"
        }
    if comparison.task in ("classification", "embedding"):
        return {"text": _class(comparison, int(answer))}
    if comparison.task == "multilabel":
        names = [_class(comparison, int(i)) for i in np.flatnonzero(answer == 1)]
        return {"text": ", ".join(names) or "none"}
    if comparison.task == "segmentation" and answer.ndim == 2:
        count = len(comparison.scores[comparison.teacher].confusion)
        return {"picture": pictures.class_map(answer, count)}
    return pictures.shown(answer)[0]


def _page(comparison: Any, facts: dict[str, Any]) -> str:
    """The report in Markdown."""
    lines = [f"# {facts['title']}", "", f"{comparison.samples:,} test samples.", ""]
    lines += [comparison.markdown()]
    for name, worst in comparison.disagreements.items():
        if comparison.task not in ("classification", "multilabel", "embedding") or not worst:
            continue
        lines += [f"## Where {name} and the teacher disagree most", ""]
        rows = [
            [
                d["sample"],
                *(_shown_output(comparison, d[who])["text"] for who in _SIDES),
                f"{d['distance']:.3g}",
            ]
            for d in worst
        ]
        header = ["sample", *_SIDES, "KL, nats"]
        lines.append(_markdown.table(header, rows, right=(0, len(header) - 1)))
        lines.append("")
    for heading in ("settings", "versions"):
        if facts[heading]:
            lines += [f"## {heading.capitalize()}", ""]
            lines += [f"- {key}: {value}" for key, value in facts[heading].items()]
            lines.append("")
    return "\n".join([*lines, f"Written {facts['written']}.", ""])
