"""The zoo's table: how far the file of each layer and student is off, or why it was refused.

`python tests/tflite/zoo_table.py` records what `zoo_table.json` lacks and writes the page
`docs/exported_layers.md`; rows named on the command line are recorded anew.
"""

import json
import os
import pathlib
import re
import sys
import warnings
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import zoo
import zoo_layers
import zoo_models
from keras_distill.tflite import closeness

from keras_distill import tflite

FILE = pathlib.Path(__file__).with_name("zoo_table.json")
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "exported_layers.md"
BEGIN, END = "<!-- zoo -->\n", "<!-- /zoo -->\n"
IN_INT8 = [f"{target} int8" for target in ("android", "micro", "ethos-u55-128")]
COLUMNS = [
    *IN_INT8,
    *(f"android {q}" for q in ("float32", "float16", "dynamic", "int16x8", "int4")),
    *(f"micro {q}" for q in ("float32", "int16x8", "int4")),
    "ethos-u55-128 int16x8",
]
#: Layers that take the same, by what they take.
GROUPS = {**{s: list(f) for s, f in zoo_layers.LAYERS.items()}, "ids": list(zoo_layers.OF_IDS)}
#: How much of a refusal is kept.
LETTERS = 110

#: An rms or the beginning of a refusal.
Outcome = float | str


def wanted(column: str) -> tuple[dict, list[str]]:
    """The layers by group and the students of a column: all in int8, else every fourth and sixth,
    others in each column."""
    if column in IN_INT8:
        return GROUPS, list(zoo_models.MODELS)
    at = COLUMNS.index(column)
    layers = {s: [n for i, n in enumerate(g) if (i + at) % 4 == 0] for s, g in GROUPS.items()}
    return layers, [n for i, n in enumerate(zoo_models.MODELS) if (i + at) % 6 == 0]


def outcome(model: keras.Model, column: str, **options: Any) -> list[float] | str:
    """The rms of each output of a model's file in order, or the refusal's first words."""
    target, quantization = column.split()
    x = zoo.data(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            artifact = tflite.convert(model, target, quantization, calibration=x, **options)
            report = artifact.verify(x, count=32)
    except (ValueError, RuntimeError) as error:
        return first_words(str(error))
    own = next(iter(report["runtimes"].values()))
    if "outputs" not in own:
        return f"not run: {first_words(own['reason'])}"
    return [row.get("error", 1.0 - row.get("agreement", 0.0)) for row in own["outputs"]]


def first_words(message: str) -> str:
    """The beginning of a refusal, without the name of the model."""
    text = re.sub(r"\bmodel '[^']*' ?", "", " ".join(message.split()))
    return text[:LETTERS].rsplit(" ", 1)[0] if len(text) > LETTERS else text


def of_layers(shape: tuple | str, names: list[str], column: str) -> dict[str, Outcome]:
    """The outcome of each layer; where a model of many is refused, its halves are tried."""
    if not names:
        return {}
    found = outcome(zoo_layers.together(shape, names), column)
    if isinstance(found, list):
        return dict(zip(sorted(names, key=zoo_layers.output_of), found, strict=True))
    if len(names) == 1:
        return {names[0]: found}
    middle = len(names) // 2
    halves = names[:middle], names[middle:]
    return {n: o for half in halves for n, o in of_layers(shape, half, column).items()}


def of_student(name: str, column: str) -> Outcome:
    """The largest rms of a student's outputs, or the refusal."""
    found = outcome(zoo_models.MODELS[name](), column, **options(name, column.split()[1]))
    return max(found) if isinstance(found, list) else found


def options(name: str, quantization: str) -> dict[str, Any]:
    """What `convert` is told of a student."""
    told: dict[str, Any] = {}
    if name in zoo_models.UNROLLED and quantization.startswith("int"):
        told["recurrent"] = "unroll"
    if name in zoo_models.IN_FLOAT and quantization in ("int8", "int4"):
        told["precision"] = {zoo_models.IN_FLOAT[name]: "float32"}
    return told


def limit(column: str) -> float:
    """The limit by which `verify` judges."""
    return closeness.LIMITS[column.split()[1]]


def agree(found: Outcome, recorded: Outcome) -> bool:
    """Whether an outcome is the recorded one: the same refusal, or an error of its size."""
    if isinstance(found, str) or isinstance(recorded, str):
        words = (re.sub(r"_?\d+", "", str(o))[: LETTERS - 30] for o in (found, recorded))
        return len(set(words)) == 1
    return found <= 2 * recorded + 0.01


def load() -> dict[str, dict[str, Outcome]]:
    """The table: outcomes by row and column."""
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def runs(name: str, column: str) -> bool:
    """Whether a student has a file there, as recorded."""
    return not isinstance(load()[name][column], str)


def _save(table):
    rows = [*(n for names in GROUPS.values() for n in names), *zoo_models.MODELS]
    lines = [
        f"{json.dumps(row)}: {json.dumps({c: table[row][c] for c in COLUMNS if c in table[row]})}"
        for row in rows
        if row in table
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _groups(table, column):
    """Layers to be converted together; those that are refused in some column stand alone."""
    for shape, names in wanted(column)[0].items():
        missing = [n for n in names if column not in table.get(n, {})]
        refused = [n for n in missing if any(isinstance(o, str) for o in table.get(n, {}).values())]
        yield shape, [n for n in missing if n not in refused]
        yield from ((shape, [n]) for n in refused)


def record(anew: list[str]) -> None:
    """Records what the table lacks, and rows that are wanted anew."""
    table = {row: outcomes for row, outcomes in load().items() if row not in anew}

    def note(found, column):
        for row, value in found.items():
            rounded = value if isinstance(value, str) else float(f"{value:.2g}")
            table.setdefault(row, {})[column] = rounded
            print(column, row, rounded, flush=True)
        _save(table)
        keras.backend.clear_session()

    for column in COLUMNS:
        for shape, names in list(_groups(table, column)):
            note(of_layers(shape, names, column), column)
        for name in wanted(column)[1]:
            if column not in table.get(name, {}):
                note({name: of_student(name, column)}, column)


def page() -> str:
    """The tables of the page, in Markdown."""
    table = load()
    return "\n".join(
        [
            "### Layers and operations\n",
            *_rows(table, [n for names in GROUPS.values() for n in names], "layer"),
            "\n### Students\n",
            *_rows(table, list(zoo_models.MODELS), "student"),
            "\n### Refusals\n",
            *_refusals(table),
            "",
        ]
    )


def _rows(table, rows, head):
    others = [c for c in COLUMNS if c not in IN_INT8]
    yield f"| {head} | {' | '.join(IN_INT8)} | others |"
    yield f"| --- |{' ---: |' * len(IN_INT8)} --- |"
    for row in rows:
        found = table.get(row, {})
        rest = ", ".join(f"{c} {_cell(found[c])}" for c in others if c in found)
        cells = " | ".join(_cell(found.get(c, "")) for c in IN_INT8)
        yield f"| `{row}` | {cells} | {rest} |".replace("|  |", "| |")


def _cell(value):
    return (value and "refused") if isinstance(value, str) else f"{value:.1%}"


def _refusals(table):
    said: dict[tuple, list[str]] = {}
    for row, outcomes in table.items():
        for column, value in outcomes.items():
            if isinstance(value, str):
                said.setdefault((row, re.sub(r"_\d+'", "'", value)), []).append(column)
    yield "| what | where | beginning of the message |"
    yield "| --- | --- | --- |"
    for (row, message), columns in said.items():
        yield f"| `{row}` | {', '.join(columns)} | {message.replace('|', ' ')} ... |"


def write() -> None:
    """Puts the tables into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + page() + "\n" + END + rest.partition(END)[2])


if __name__ == "__main__":
    record(sys.argv[1:])
    write()
