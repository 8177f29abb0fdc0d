"""The pictures of a report, drawn by matplotlib, as data URIs."""

import base64
import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imsave

#: Colors of candidates in their order, and of the teacher.
_COLORS = ("#0b62a4", "#d9541e", "#2a9d5c", "#8e4ec6", "#c79a00", "#c2185b", "#00838f", "#6d4c41")
_TEACHER = "#3c4650"
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#8a949e",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "font.size": 10,
    "grid.color": "#e3e7eb",
    "svg.hashsalt": "keras_distill",
}


def colors(names: Sequence[str], teacher: str | None) -> dict[str, str]:
    """A color for each candidate, the same in all pictures."""
    others = [name for name in names if name != teacher]
    found = {name: _COLORS[i % len(_COLORS)] for i, name in enumerate(others)}
    return {name: found.get(name, _TEACHER) for name in names}


def pareto_front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other point beats, by a higher score at no higher cost or the reverse.

    Args:
        points: Pairs (cost, score).

    Returns:
        The pairs on the front, the cheapest first.
    """
    front: list[tuple[float, float]] = []
    for cost, score in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def trade_off(
    points: Mapping[str, tuple], palette: Mapping[str, str], cost_title: str, score_title: str
) -> str:
    """Score against cost, with the Pareto front.

    Args:
        points: Dict from names to (cost, score, interval of the score or `None`).
        palette: Dict from names to colors.
        cost_title: Title of the horizontal axis.
        score_title: Title of the vertical axis.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        front = pareto_front([(cost, score) for cost, score, _ in points.values()])
        axes.step(
            *zip(*front, strict=True), where="post", color="#aab3bb", linestyle="--", zorder=1
        )
        markers = itertools.cycle("osD^vPX")
        for name, (cost, score, interval) in points.items():
            color = palette[name]
            if interval:
                axes.vlines(cost, *interval, color=color, linewidth=1.2, alpha=0.5)
            # Hollow, so that candidates at the same place can all be seen.
            axes.plot(
                cost, score, next(markers), color=color, markersize=9, markerfacecolor="none",
                markeredgewidth=2, label=name,
            )  # fmt: skip
        axes.set(xscale="log", xlabel=cost_title, ylabel=score_title)
        axes.margins(x=0.12, y=0.12)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, frameon=False)

    return _picture(draw, (5.4, 4.6))


def curves(
    histories: Mapping[str, Sequence[Mapping]], metric: str, palette: Mapping[str, str]
) -> str:
    """A metric by epoch for each run: on the training data dashed, on validation data solid.

    Args:
        histories: Dict from names to a history for each run.
        metric: Name of the metric on the training data.
        palette: Dict from names to colors.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for name, runs in histories.items():
            for run, history in enumerate(runs):
                for key, line in ((metric, "--"), (f"val_{metric}", "-")):
                    if key in history:
                        _curve(axes, history[key], line, palette[name])
                        if not run:
                            kind = "validation" if key != metric else "training"
                            axes.lines[-1].set_label(f"{name}, {kind}")
        axes.set(xlabel="epoch", ylabel=metric.replace("_", " "))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, frameon=False)

    return _picture(draw, (5.4, 4.6))


def _curve(axes: Any, values: Sequence[float], line: str, color: str) -> None:
    marker = "o" if len(values) == 1 else None
    axes.plot(range(1, len(values) + 1), values, line, color=color, marker=marker)


def confusion(matrix: np.ndarray, title: str, class_names: Sequence[str] | None) -> str:
    """A confusion matrix: colors are shares of each label, numbers are counts."""
    classes = len(matrix)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axes.grid(False)
        axes.set(title=title, xlabel="predicted", ylabel="label")
        if classes <= 30:
            names = [_short(name) for name in class_names or range(classes)]
            turn = 90 if max(len(name) for name in names) > 2 else 0
            axes.set_xticks(range(classes), names, rotation=turn)
            axes.set_yticks(range(classes), names)
        if classes <= 12:
            for (row, column), count in np.ndenumerate(matrix):
                if count:
                    color = "white" if share[row, column] > 0.5 else "#222"
                    axes.text(column, row, count, ha="center", va="center", color=color, fontsize=8)

    return _picture(draw, (4.6, 4.6))


def reliability(bins: Mapping[str, np.ndarray], title: str, color: str) -> str:
    """Accuracy by confidence against perfect calibration, with the share of samples below."""

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, sharex=True, height_ratios=(4, 1))
        width = 1 / len(bins["share"])
        left = np.arange(len(bins["share"])) * width
        filled = bins["share"] > 0
        above.bar(left[filled], bins["accuracy"][filled], 0.9 * width, align="edge", color=color)
        above.plot([0, 1], [0, 1], "--", color="#8a949e", label="perfect")
        above.set(title=title, ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
        below.bar(left, bins["share"], 0.9 * width, align="edge", color="#aab3bb")
        below.set(xlabel="confidence", ylabel="share")

    return _picture(draw, (4.2, 4.2))


def shown(x: Any) -> list[dict[str, str]]:
    """An input as `{"text": ...}` or `{"picture": ...}` for each of its arrays.

    Text is shown as it is. Arrays of shape `(height, width)` or `(height, width, 1 | 3 | 4)` are
    images; `(steps, channels)` with at most 16 channels, and long vectors of floats, are signals;
    other vectors are written out.
    """
    if isinstance(x, (dict, list, tuple)):
        return [part for value in keras.tree.flatten(x) for part in shown(value)]
    x = np.asarray(x)
    if x.dtype.kind in "OSU":
        return [{"text": " ".join(map(_text, x.ravel()))}]
    x = np.squeeze(x, -1) if x.ndim > 2 and x.shape[-1] == 1 else x
    if (x.ndim == 3 and x.shape[-1] in (3, 4)) or (x.ndim == 2 and (x.shape[1] > 16 or _square(x))):
        return [{"picture": image(x)}]
    if x.ndim == 2 or (x.ndim == 1 and x.dtype.kind == "f" and len(x) > 32):
        return [{"picture": signal(x)}]
    if x.ndim <= 1 and x.size <= 512:
        return [{"text": ", ".join(f"{value:.4g}" for value in x.ravel())}]
    return [{"text": f"array of shape {x.shape}"}]


def image(x: np.ndarray) -> str:
    """An image of any range of values, as a PNG."""
    x = np.asarray(x, "float64")
    if x.min() >= 0 and x.max() <= 255:
        scaled = x if x.max() <= 1 else x / 255
    else:
        scaled = (x - x.min()) / max(np.ptp(x), 1e-12)
    return _png(scaled, cmap="gray", vmin=0, vmax=1)


def class_map(classes: np.ndarray, count: int) -> str:
    """A map of class indices as a PNG, missing ones in white."""
    cmap = matplotlib.colormaps["tab20"].resampled(max(count, 2)).with_extremes(bad="white")
    return _png(np.ma.masked_less(classes, 0), cmap=cmap, vmin=0, vmax=max(count - 1, 1))


def boxes(x: np.ndarray, found: Mapping[str, np.ndarray], name: Callable[[int], str]) -> str:
    """An image with boxes on it, each with its class and, where it has one, its score."""
    x = np.asarray(x, "float64")
    x = np.clip(x if x.max() <= 1 else x / 255, 0, 1)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.imshow(x, cmap="gray")
        axes.axis("off")
        scores = found.get("scores", [None] * len(found["labels"]))
        for (left, top, right, bottom), label, score in zip(
            found["boxes"], found["labels"], scores, strict=True
        ):
            color = _COLORS[int(label) % len(_COLORS)]
            outline = ([left, right, right, left, left], [top, top, bottom, bottom, top])
            axes.plot(*outline, color=color, linewidth=1)
            text = name(int(label)) if score is None else f"{name(int(label))} {score:.2f}"
            axes.text(left, top, text, fontsize=5, color=color, va="bottom")

    return _picture(draw, (2.4, 2.4 * x.shape[0] / x.shape[1]))


def signal(x: np.ndarray) -> str:
    """A signal by time step, with a line for each channel."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(x, linewidth=1)
        axes.tick_params(labelsize=8)

    return _picture(draw, (2.4, 1.6))


def _square(x: np.ndarray) -> bool:
    return x.shape[0] == x.shape[1]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _short(name: Any) -> str:
    name = str(name)
    return name if len(name) <= 14 else name[:13] + "…"


def _png(x: np.ndarray, **arguments: Any) -> str:
    file = io.BytesIO()
    imsave(file, x, format="png", **arguments)
    return _uri("image/png", file.getvalue())


def _picture(draw: Callable[[Figure], None], size: tuple[float, float]) -> str:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    return _uri("image/svg+xml", file.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
