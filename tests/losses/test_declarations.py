"""The table "What a loss declares" agrees with the classes, and the classes with their `call`."""

import inspect
import pathlib
import re

import keras
import pytest

from keras_distill import losses

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "methods.md"
FLAGS = (
    "needs_labels",
    "needs_keys",
    "takes_logits",
    "between_samples",
    "uses_mask",
    "same_shape",
    "state",
)
CLASSES = [
    getattr(losses, name)
    for name in losses.__all__
    if isinstance(getattr(losses, name), type) and name != "DistillationLoss"
]


def table():
    """The rows of the table: attribute, the value that it shows, names of losses."""
    section = PAGE.read_text().split("## What a loss declares")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    for attribute, _, _, names in rows:
        name, value = attribute.strip(" `").split(" = ")
        yield name, value, re.findall(r"`(\w+)`", names)


def made(cls):
    needed = {
        losses.Contrastive: {"samples": 9},
        losses.CIRKDMemory: {"classes": 2},
        losses.CrossKD: {"head": keras.Sequential([keras.Input((2,))])},
    }
    return cls(**needed.get(cls, {}))


def test_table_agrees_with_the_classes():
    rows = list(table())
    assert sorted(name for name, _, _ in rows) == sorted(FLAGS)
    for flag, value, names in rows:
        default = getattr(losses.DistillationLoss, flag)
        setting = [cls for cls in CLASSES if getattr(made(cls), flag) is not default]
        assert names == sorted(cls.__name__ for cls in setting), flag
        if flag == "state":
            assert default is None
        else:
            assert value == str(not default)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_call_takes_what_the_class_declares(cls):
    parameters = inspect.signature(cls.call).parameters
    assert ("present" in parameters) == cls.between_samples
    assert ("mask" in parameters) == cls.uses_mask
