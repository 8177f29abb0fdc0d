"""What the site takes from elsewhere: the package as it is imported, results of the examples."""

import json
import pathlib
import tempfile

from mkdocs.plugins import event_priority

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "examples" / "results", ROOT / "docs" / "without_gain"


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
    path = next(path for folder in RESULTS if (path := folder / f"{name}.json").is_file())
    results = json.loads(path.read_text())
    seeds = len(results["runs"])
    rows = [
        f"| {key} | {_number(value)} | {_number(results['standard_deviation'][key])} |"
        for key, value in results["mean"].items()
    ]
    table = [f"| {seeds} seeds | mean | standard deviation |", "| --- | ---: | ---: |", *rows]
    note = [results["note"]] if results["note"] else []
    versions = ", ".join(f"{k} {results['versions'][k]}" for k in ("keras", "tensorflow"))
    command = results["command"].split(" --note ")[0]
    student = next(key for key in results["mean"] if key.startswith("student "))
    ends = [_gain(results["gain"], student), f"Recorded with `{command}` ({versions})."]
    return "\n".join([*table, "", *note, *ends])


def _gain(gain, student):
    """What was gained over the student without a teacher, in words."""
    share = gain["share_of_gap"]
    pair = f"{gain['of'].capitalize()}, less the {student} of the same seed"
    if gain.get("less_is_better"):
        pair = f"Less is better. {student.capitalize()}, less the {gain['of']} of the same seed"
    return (
        f"{pair}: "
        f"{gain['mean']:+.4f} ± {gain['half_interval']:.4f} (mean and half its 95 % interval)"
        + (f", {share:.0%} of the gap between that student and the teacher." if share else ".")
    )


def _number(value):
    return f"{value:,.0f}" if value == round(value) or value > 100 else f"{value:.4f}"
