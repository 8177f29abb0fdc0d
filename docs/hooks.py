"""What the site takes from elsewhere: the recorded results of the examples."""

import json
import pathlib

RESULTS = pathlib.Path(__file__).parents[1] / "examples" / "results"


def on_page_markdown(markdown, **_):
    """Puts the results of an example where a page says `{{ results: name }}`."""
    lines = []
    for line in markdown.split("\n"):
        if line.startswith("{{ results: "):
            line = _table(line.removeprefix("{{ results: ").removesuffix(" }}"))
        lines.append(line)
    return "\n".join(lines)


def _table(name):
    results = json.loads((RESULTS / f"{name}.json").read_text())
    seeds = len(results["runs"])
    rows = [
        f"| {key} | {_number(value)} | {_number(results['standard_deviation'][key])} |"
        for key, value in results["mean"].items()
    ]
    table = [f"| {seeds} seeds | mean | standard deviation |", "| --- | ---: | ---: |", *rows]
    note = [results["note"]] if results["note"] else []
    versions = ", ".join(f"{k} {v}" for k, v in results["versions"].items())
    return "\n".join([*table, "", *note, f"Recorded with `{results['command']}` ({versions})."])


def _number(value):
    return f"{value:,.0f}" if value == 0 or value > 100 else f"{value:.4f}"
