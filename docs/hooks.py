"""What the site takes from elsewhere: the package as it is imported, results of the examples."""

import json
import pathlib
import tempfile

from mkdocs.plugins import event_priority

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "examples" / "results"


@event_priority(100)  # Before mkdocstrings reads its settings.
def on_config(config):
    """Shows mkdocstrings the package as Python imports it, `tflite` inside."""
    package = pathlib.Path(tempfile.mkdtemp(), "keras_distill")
    package.mkdir()
    for path in (ROOT / "keras_distill").iterdir():
        (package / path.name).symlink_to(path)
    (package / "tflite").symlink_to(ROOT / "tflite")
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(package.parent)]


def on_page_markdown(markdown, **_):
    """Puts the results of an example where a page says `{{ results: name }}`."""
    lines = []
    for line in markdown.split("\n"):
        if line.startswith("{{ results: "):
            line = _table(line.removeprefix("{{ results: ").removesuffix(" }}"))
        lines.append(line)
    return "\n".join(lines)


def _table(name):
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return "No results have been recorded yet."
    results = json.loads(path.read_text())
    seeds = len(results["runs"])
    rows = [
        f"| {key} | {_number(value)} | {_number(results['standard_deviation'][key])} |"
        for key, value in results["mean"].items()
    ]
    table = [f"| {seeds} seeds | mean | standard deviation |", "| --- | ---: | ---: |", *rows]
    note = [results["note"]] if results["note"] else []
    versions = ", ".join(f"{k} {v}" for k, v in results["versions"].items())
    command = results["command"].split(" --note ")[0]
    return "\n".join([*table, "", *note, f"Recorded with `{command}` ({versions})."])


def _number(value):
    return f"{value:,.0f}" if value == round(value) or value > 100 else f"{value:.4f}"
