"""The modules of both packages, which of them import which, and a picture of the rooms.

python docs/figures/architecture.py    # writes architecture.svg
"""

import ast
import functools
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


@functools.cache
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


#: For each room: the column it stands in, what it is for, and the modules in it.
ROOMS: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "cli": (1, "The command keras-distill", ("cli",)),
    "tuning": (1, "Search, ablation, folds", ("tuning",)),
    "evaluation": (1, "Compares candidates on data", ("evaluation",)),
    "language": (0, "Text that models write", ("language",)),
    "generators": (2, "Images that models draw", ("generators",)),
    "legacy": (3, "Keras 2 and its toolkit", ("legacy",)),
    "distiller": (
        1,
        "The keras.Model around it",
        (
            *("distiller", "mutual", "callbacks", "tensorflow_steps", "jax_steps"),
            *("torch_steps", "first_batch", "train_function", "epoch_means"),
            *("advice", "owner", "penalties", "resuming", "teacher_metrics"),
        ),
    ),
    "objective": (
        1,
        "All that a step computes",
        ("objective", "pairs", "adapters", "labels"),
    ),
    "data": (0, "Datasets as batches", ("data",)),
    "detection": (2, "Boxes on images", ("detection",)),
    "teachers": (0, "Anything that can be asked", ("teachers",)),
    "methods": (2, "Ready-made lists of matches", ("methods",)),
    "match": (1, "Where to look, how to compare", ("match", "taps")),
    "losses": (1, "Pure functions, thin classes", ("losses",)),
    "pruning": (2, "Units that leave, zeros that stay", ("pruning",)),
    "quantization": (3, "Integer arithmetic in training", ("quantization",)),
    "tflite": (3, "Converts, proves, packages", ("tflite",)),
    "basis": (
        1,
        "What every room may use",
        (
            *("_files", "_keras", "_markdown", "_types", "_version"),
            *("backends", "checks", "frozen", "hyperparameters", "inputs", "outputs", "samples"),
        ),
    ),
}
_WIDTH, _HEIGHT, _GAP, _RISE, _MARGIN = 226, 54, 26, 44, 32
_FILLS = ("#fdf3e4", "#e8f0fb", "#e8f0fb", "#e9f5ec")
_STROKES = ("#c98a2b", "#3f6fb5", "#3f6fb5", "#3d8f57")


def room_of(module: str) -> str | None:
    """The room that a module is in; `None` for `keras_distill` itself, which only gathers names."""
    parts = module.split(".")
    if len(parts) == 1:
        return None
    for room, (_, _, inside) in ROOMS.items():
        if parts[1] in inside:
            return room
    raise ValueError(f"No room in docs/figures/architecture.py has the module {module}.")


def edges() -> set[tuple[str, str]]:
    """Which room imports which, `basis` aside."""
    found = {
        (room_of(module), room_of(other))
        for module, others in imports().items()
        for other in others
        if room_of(module) and room_of(other)
    }
    return {(a, b) for a, b in found if a and b and a != b and b != "basis"}


def drawn(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The edges that don't follow from others."""

    def reached(room: str) -> set[str]:
        below = {b for a, b in arrows if a == room}
        return below.union(*(reached(b) for b in below))

    return {
        (a, b)
        for a, b in arrows
        if not any(b in reached(c) for x, c in arrows if x == a and c != b)
    }


def levels(arrows: set[tuple[str, str]]) -> dict[str, int]:
    """How many rooms stand below each one."""

    def level(room: str) -> int:
        return 1 + max((level(b) for a, b in arrows if a == room), default=0)

    return {room: 0 if room == "basis" else level(room) for room in ROOMS}


def picture() -> str:
    """The rooms as an SVG file: what a room imports stands below it."""
    arrows = edges()
    height = levels(arrows)
    top = max(height.values())
    width = 4 * (_WIDTH + _GAP) - _GAP + 2 * _MARGIN
    place = {
        room: (
            _MARGIN + column * (_WIDTH + _GAP),
            _MARGIN + (top - height[room]) * (_HEIGHT + _RISE),
        )
        for room, (column, _, _) in ROOMS.items()
    }
    total = 2 * _MARGIN + (top + 1) * (_HEIGHT + _RISE) - _RISE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" '
        f'width="{width}" height="{total}" font-family="Helvetica, Arial, sans-serif">',
        "<title>The rooms of keras_distill, and which imports which</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#8a8f98"/></marker>'
        "</defs>",
        f'<rect width="{width}" height="{total}" rx="8" fill="#ffffff"/>',
    ]
    parts += [_arrow(a, b, place) for a, b in sorted(drawn(arrows))]
    parts += [_box(room, place, width) for room in ROOMS]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _arrow(a: str, b: str, place: dict) -> str:
    """A line from one room to another below it, around what stands between."""
    (x, y), (u, v) = place[a], place[b]
    between = [r for r in place.values() if r[0] == x == u and y < r[1] < v]
    if between:
        x, y, v = x + _WIDTH, y + _HEIGHT // 2, v + _HEIGHT // 2
        path = f"M{x} {y} C{x + 30} {y + 30} {x + 30} {v - 30} {x + 2} {v}"
    elif x != u and v - y > 2 * (_HEIGHT + _RISE):
        side = x + _WIDTH if u > x else x
        u, y = _port(u, x), y + _HEIGHT // 2
        path = f"M{side} {y} C{(side + u) // 2} {y} {u} {(y + v) // 2} {u} {v - 2}"
    else:
        x, u, y = _port(x, u), _port(u, x), y + _HEIGHT
        path = f"M{x} {y} C{x} {(y + v) // 2} {u} {(y + v) // 2} {u} {v - 2}"
    return (
        f'<path data-from="{a}" data-to="{b}" d="{path}" fill="none" stroke="#8a8f98" '
        'stroke-width="1.4" marker-end="url(#tip)"/>'
    )


def _port(x: int, other: int) -> int:
    """Where on a room's edge a line to another room starts: towards it."""
    return x + _WIDTH // 2 + (other > x) * _WIDTH // 4 - (other < x) * _WIDTH // 4


def _box(room: str, place: dict, width: int) -> str:
    column, text, inside = ROOMS[room]
    x, y = place[room]
    fill, stroke, wide = _FILLS[column], _STROKES[column], _WIDTH
    if room == "basis":
        x, wide, fill, stroke = _MARGIN, width - 2 * _MARGIN, "#f1f2f4", "#8a8f98"
        text = f"{text}: {', '.join(sorted(inside))}"
    middle = x + wide / 2
    return (
        f'<g><rect x="{x}" y="{y}" width="{wide}" height="{_HEIGHT}" rx="8" fill="{fill}" '
        f'stroke="{stroke}" stroke-width="1.4"/>'
        f'<text x="{middle}" y="{y + 23}" text-anchor="middle" font-size="15" '
        f'font-weight="bold" fill="#1d2430">{room}</text>'
        f'<text x="{middle}" y="{y + 41}" text-anchor="middle" font-size="12" '
        f'fill="#4a5261">{text}</text></g>'
    )


if __name__ == "__main__":
    (ROOT / "docs" / "figures" / "architecture.svg").write_text(picture())
