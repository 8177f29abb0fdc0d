"""What Keras, TensorFlow and LiteRT keep private is used in two files alone, and still exists."""

import ast
import functools
import importlib.metadata
import importlib.util
import inspect
import operator
import pathlib
import re

import keras
import pytest

ROOT = pathlib.Path(__file__).parents[1]
WALL = {"keras_distill/_keras.py", "tflite/_litert.py"}
FILES = [
    str(path.relative_to(ROOT))
    for folder in ("keras_distill", "tflite")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
OURS = ("keras_distill",)
#: Functions whose second argument is the name of an attribute.
BY_NAME = {"getattr", "hasattr", "setattr", "delattr", "attrgetter", "methodcaller"}
#: What named tuples document, with the underscore that keeps it apart from their fields.
DOCUMENTED = {"_replace", "_asdict", "_make", "_fields"}
PRIVATE = re.compile(r"_[A-Za-z]\w*(?<!__)")


@functools.cache
def tree_of(file):
    return ast.parse((ROOT / file).read_text())


def is_private(name):
    return bool(PRIVATE.fullmatch(name)) and name not in DOCUMENTED


def is_tentative(name):
    """Whether a name says that what it names may change with any release."""
    return name == "src" or name.startswith("experimental")


def defined_names(tree):
    """Names that a file defines: functions, classes, variables, and attributes of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                yield node.attr
        elif isinstance(node, ast.alias):
            yield node.asname or ""


@functools.cache
def own_names():
    return {name for file in FILES for name in defined_names(tree_of(file)) if is_private(name)}


@functools.cache
def foreign_names():
    """Private names of Keras' classes that ours inherit from: methods and attributes."""
    inputs = keras.Input((1,))
    functional = type(keras.Model(inputs, inputs))
    bases = (
        *(functional, keras.Sequential, keras.losses.Loss, keras.metrics.Metric),
        *(keras.optimizers.Optimizer, keras.callbacks.Callback, keras.layers.RNN),
        *(keras.layers.BatchNormalization, keras.layers.MultiHeadAttention, keras.layers.Dense),
    )
    names = set()
    for cls in {cls for base in bases for cls in base.__mro__ if cls.__module__ != "builtins"}:
        names |= set(vars(cls))
        if cls.__module__.startswith("keras"):
            names |= set(re.findall(r"self\.(_\w+) =", inspect.getsource(cls)))
    return {name for name in names if is_private(name)}


def uses(tree):
    """Uses of what others keep private in a file: pairs (name, line)."""
    ours, foreign = own_names(), foreign_names()
    texts = {id(part) for x in ast.walk(tree) if isinstance(x, ast.JoinedStr) for part in x.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = node.attr
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            known = name in ours and (own or name not in foreign)
            if (is_private(name) and not known) or is_tentative(name):
                yield name, node.lineno
        elif isinstance(node, ast.keyword) and is_tentative(node.arg or ""):
            yield node.arg, node.value.lineno
        elif isinstance(node, ast.ClassDef) and node.bases:
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name in foreign:
                    yield f"def {method.name}", method.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) in texts:
                continue
            if node.value in foreign - ours or node.value.startswith("_keras"):
                yield repr(node.value), node.lineno
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            for argument in node.args if called in BY_NAME else ():
                name = getattr(argument, "value", None)
                if isinstance(name, str) and is_private(name) and name not in ours:
                    yield repr(name), node.lineno
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((name, node.lineno) for name in private_imports(node))


def private_imports(node):
    module = getattr(node, "module", None) or ""
    if getattr(node, "level", 0) or module.split(".")[0] in OURS:
        return
    for alias in node.names:
        name = f"{module}.{alias.name}".strip(".")
        parts = name.split(".")
        if (
            name.startswith(("keras.src", "tensorflow.python"))
            or any(is_tentative(part) for part in parts)
            or any(is_private(part) for part in parts)
        ) and parts[0] != "__future__":
            yield f"import {name}"


@functools.cache
def installed(package, folder="."):
    """The private and experimental names in the source of an installed package."""
    root = pathlib.Path(importlib.util.find_spec(package).origin).parent / folder
    texts = (path.read_text(errors="replace") for path in root.rglob("*.py"))
    return {name for text in texts for name in re.findall(r"\b(?:_|experimental|src)\w*", text)}


def exists(name):
    """Whether a package that may be used behind the wall has a private name."""
    places = (("keras",), ("ai_edge_litert",), ("tensorflow", "lite"), ("tensorflow",))
    return any(name in installed(*place) for place in places)


@pytest.mark.parametrize("file", sorted(WALL & set(FILES)))
def test_what_is_private_still_exists(file):
    versions = {p: importlib.metadata.version(p) for p in ("keras", "tensorflow", "ai-edge-litert")}
    names = {re.sub(r"^(def|import) |'", "", name) for name, _ in uses(tree_of(file))}
    gone = sorted(name for name in names if not exists(name.rpartition(".")[2]))
    assert names
    assert not gone, (
        f"{file} uses private names that are in none of {versions}: {gone}. See what took their "
        "place, and change that file."
    )


def dotted(node):
    """The name of a chain of attributes, such as `keras.src.utils.naming`; `""` of another."""
    if isinstance(node, ast.Name):
        return node.id
    base = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{base}.{node.attr}" if base else ""


@pytest.mark.parametrize("file", sorted(WALL & set(FILES)))
def test_what_is_used_of_keras_src_still_exists(file):
    names = {dotted(node) for node in ast.walk(tree_of(file))}
    for name in sorted(name for name in names if name.startswith("keras.src.")):
        operator.attrgetter(name.removeprefix("keras."))(keras)


@pytest.mark.parametrize("file", [name for name in FILES if name not in WALL])
def test_nothing_private_outside_the_wall(file):
    assert not dict(uses(tree_of(file)))
