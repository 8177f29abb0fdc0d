"""Writes the table of supported layers in `quantization.md` from the rules of quantization.

Run `python docs/supported_layers.py` after a rule has changed. A test compares the page with the
rules.
"""

import pathlib
import re
from collections.abc import Iterable

from keras_distill.quantization.rules import (
    ACTIVATIONS,
    arithmetic,
    attention,
    kernels,
    normalization,
    recurrent,
    shapes,
)
from keras_distill.quantization.rules.rule import Rule

PAGE = pathlib.Path(__file__).with_name("quantization.md")
BEGIN, END = "<!-- layers -->\n", "<!-- /layers -->\n"


def table() -> str:
    """The table of supported layers, in Markdown."""
    nothing = {kind: rule for kind, rule in shapes.LAYERS.items() if rule.does_nothing}
    moving = {kind: rule for kind, rule in shapes.LAYERS.items() if not rule.does_nothing}
    operations = {**arithmetic.OPERATIONS, **shapes.OPERATIONS}
    families = (
        *(kernels.LAYERS, normalization.LAYERS, attention.LAYERS, recurrent.LAYERS),
        *(arithmetic.LAYERS, moving, nothing),
    )
    head = ["| layers | 8 bits | 16-bit activations | 4-bit weights |", "| --- | --- | --- | --- |"]
    rows = [row for family in families for row in _rows(_layers(family))]
    functions = [(name, rule) for name, rule in ACTIVATIONS.items() if name != "linear"]
    rows += _rows(functions, "activation functions: ")
    rows += _rows([(_function(name), rule) for name, rule in operations.items()], "`keras.ops`: ")
    return "\n".join([*head, *rows]) + "\n"


def _layers(family: dict[type, Rule]) -> list[tuple[str, Rule]]:
    return [(kind.__name__, rule) for kind, rule in family.items()]


def _function(operation: str) -> str:
    """The name in `keras.ops` of an operation; slices have none."""
    if operation == "GetItem":
        return "slices such as `x[:, 1:5]`"
    return re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()


def _rows(rules: Iterable[tuple[str, Rule]], head: str = "") -> list[str]:
    """A row for all layers that have the same kernels."""
    names: dict[tuple, list[str]] = {}
    for name, rule in rules:
        note = f" ({rule.note})" if rule.note else ""
        names.setdefault(rule.support, []).append(name + note)
    return [
        f"| {head}{', '.join(names)} | {' | '.join(support)} |".replace("|  |", "| |")
        for support, names in names.items()
    ]


def written(page: str) -> str:
    """The text of the page with the table that the rules give."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
