"""The modules of both packages, which of them import which, and a picture of the rooms.

python docs/figures/architecture.py    # writes architecture.svg
"""

import ast
import pathlib
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
#: The folder of each package, by its import name.
PACKAGES = {"keras_distill": ROOT / "keras_distill", "keras_distill.tflite": ROOT / "tflite"}


def modules() -> dict[str, pathlib.Path]:
    """The file of each module, by its import name."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((package, *parts))] = path
    return found


def imports() -> dict[str, set[str]]:
    """The modules of both packages that each module imports, anywhere in it.

    Imports for type checkers alone don't count. Importing a module of another folder imports that
    folder's `__init__` too; the `__init__` of `keras_distill` itself counts only where a name is
    imported from it.
    """
    known = modules()
    found = {}
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        direct = {
            module
            for node in _running(ast.parse(path.read_text()))
            for module in _imported(node, package, known)
        }
        around = {
            ".".join(parts[:end])
            for parts in (module.split(".") for module in direct)
            for end in range(2, len(parts))
        }
        around = {folder for folder in around if not f"{name}.".startswith(f"{folder}.")}
        found[name] = (direct | around) - {name}
    return found


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below one, without those for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _running(child)


def _imported(node: ast.AST, package: str, known: dict) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parents, base] if base else parents)
        for alias in node.names:
            # A submodule, or a name in the module.
            found = f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base
            if found in known:
                yield found
