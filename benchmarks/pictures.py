"""Draws results of benchmarks and examples: `NAME.json` as `docs/figures/NAME_benchmark.png`.

    python benchmarks/pictures.py

A benchmark draws its own picture when it ends; this draws all of them anew.
"""

import json

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from common import RESULTS, ROOT
from matplotlib import ticker

EXAMPLES = ROOT / "examples" / "results"
BLUE, RED, GREEN, GREY = "#2f6db3", "#c44e3b", "#2e8b57", "0.35"
plt.rcParams.update({
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": "0.9",
    "legend.frameon": False,
})  # fmt: skip


def draw(name, results):
    """Draws one benchmark's results.

    Args:
        name: Name of the benchmark, one of `PICTURES`.
        results: Its results, as its JSON holds them.
    """
    figure = PICTURES[name](results)
    figure.savefig(ROOT / "docs" / "figures" / f"{name}_benchmark.png", dpi=110)
    plt.close(figure)


def strip(axes, rows, title, colors=BLUE):
    """A row of dots for each name, one dot a value, and a bar at their mean."""
    colors = colors if isinstance(colors, list) else [colors] * len(rows)
    for i, (values, color) in enumerate(zip(rows.values(), colors, strict=True)):
        axes.plot(values, [i] * len(values), "o", color=color, alpha=0.45, markeredgewidth=0)
        axes.plot(np.mean(values), i, "|", color=color, markersize=16, markeredgewidth=2.5)
    axes.set_yticks(range(len(rows)), [name.replace("`", "") for name in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.set_xlabel(title)


def percent(values):
    return [100 * value for value in values]


def digits(results):
    rows = {name: percent(run[name]["accuracy"] for run in results["runs"]) for name in
            results["runs"][0]}  # fmt: skip
    figure, axes = plt.subplots(figsize=(7, 2.4))
    colors = [BLUE if name.startswith("distilled") else GREY for name in rows]
    strip(axes, rows, "test accuracy (%): each seed, and the mean", colors)
    return figure


def examples(results):
    """The gain of each seed as a share of the mean gap to the teacher."""
    rows = {}
    for name, result in results.items():
        gain = result["gain"]
        gap = gain["mean"] / gain["share_of_gap"] * (-1 if gain.get("less_is_better") else 1)
        alone = next(key for key in result["mean"] if key.startswith("student "))
        rows[name.replace("_", " ")] = [
            100 * (run[gain["of"]] - run[alone]) / gap for run in result["runs"]
        ]
    figure, axes = plt.subplots(figsize=(7, 0.5 + 0.26 * len(rows)))
    strip(axes, rows, "share of the gap from student alone to teacher (%): each seed, and mean")
    axes.axvline(0, color=GREY, linewidth=1, linestyle="--")
    axes.axvline(100, color=GREY, linewidth=1, linestyle="--")
    axes.set_xlim(min(-5, axes.get_xlim()[0]))
    return figure


def methods(results):
    rows = {name: percent(m["accuracy"]) for name, m in results["methods"].items()}
    base = rows["labels alone"]
    won = [np.all(np.greater(values, base)) for values in rows.values()]
    figure, axes = plt.subplots(figsize=(8, 5.5))
    colors = [GREY, *(BLUE if w else RED for w in won[1:])]
    strip(axes, rows, "test accuracy (%): each seed, and the mean", colors)
    axes.axvline(np.mean(base), color=GREY, linewidth=1, linestyle="--")
    axes.set_title("Blue beats labels alone (dashed) with every seed, red doesn't")
    return figure


def step_time(results):
    pairs = list(results["settings"]["pairs"])
    figure, grid = plt.subplots(1, len(pairs), figsize=(9, 3.4), sharey=True)
    names = list(results["steps"][0]["ways"])
    for axes, pair in zip(grid, pairs, strict=True):
        cases = [case for case in results["steps"] if case["pair"] == pair]
        for shift, case in zip((-0.24, -0.08, 0.08, 0.24), cases, strict=True):
            color = GREEN if case["has_taps"] else BLUE
            label = ("two layers" if case["has_taps"] else "outputs") + ", XLA" * case["jit"]
            ways = [(i, case["ways"][name]) for i, name in enumerate(names) if name in case["ways"]]
            y = [i + shift for i, _ in ways]
            axes.hlines(y, *zip(*(way["quartiles"] for _, way in ways), strict=True), color=color)
            axes.plot([way["over floor"] for _, way in ways], y, "o", color=color, label=label,
                      markersize=5, markerfacecolor="white" if case["jit"] else color)  # fmt: skip
        axes.axvline(1, color=GREY, linewidth=1, linestyle="--")
        axes.set_title(pair)
        axes.grid(axis="x")
        axes.set_xlim(0)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel("seconds of a step over the hand-written floor's: median, quartiles", size=9)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def stored_teacher(results):
    seconds = results["times"]["seconds by round"]
    rows = {
        name: list(np.divide(seconds[name], seconds["plain student"]))
        for name in ("plain student", "stored teacher", "live teacher")
    }
    figure, axes = plt.subplots(figsize=(7, 1.7))
    strip(axes, rows, "seconds of an epoch over the plain student's in the same round",
          [GREY, BLUE, RED])  # fmt: skip
    axes.set_xlim(0)
    return figure


def scale(results):
    figure, grid = plt.subplots(1, 2, figsize=(9, 3.4))
    sizes = {"examples": "examples", "teacher": "width", "workers": "workers"}
    for (name, cases), marker in zip(results["cases"].items(), "osD^v", strict=True):
        size = np.array([case[sizes.get(name, "classes")] for case in cases], float)
        # A teacher's parameters grow with the square of its width.
        grown = (size / size[0]) ** (2 if name == "teacher" else 1)
        for axes, key, unit in zip(grid, ("seconds", "MiB"), (1e6, 1), strict=True):
            runs = unit * np.array([case[key] for case in cases])
            middle = np.median(runs, axis=1)
            spread = [middle - runs.min(axis=1), runs.max(axis=1) - middle]
            axes.errorbar(grown, middle, spread, fmt=f"{marker}-", label=name, alpha=0.8)
            axes.set(xscale="log", yscale="log")
    for axes, title in zip(grid, ("microseconds an example", "peak MiB"), strict=True):
        axes.set(title=title, xlabel="times as many")
        axes.grid()
    grid[1].set_ylim(100, 10_000)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def export(results):
    figure, grid = plt.subplots(1, 2, figsize=(9, 2.4), sharey=True)
    for axes, (model, found) in zip(grid, results["models"].items(), strict=True):
        files = found["files"]
        size = [file["bytes"] / 1024 for file in files.values()]
        bars = axes.barh(list(files), size, color=[GREY, "0.65", "0.65", BLUE, BLUE])
        axes.bar_label(bars, [f"{kilobytes:,.0f}" for kilobytes in size], padding=3)
        axes.set(title=model, xlabel="KiB of the file")
        axes.margins(x=0.15)
    grid[0].invert_yaxis()
    return figure


def mnist(results):
    rows = {"the teacher": [results["teacher"]["all"]]}
    for name, runs in results["students"].items():
        rows[name] = [run["all"] for run in runs]
        if "moved" in runs[0]:
            rows[f"{name}, biases moved"] = [run["moved"]["all"] for run in runs]
    figure, axes = plt.subplots(figsize=(8, 3))
    strip(axes, rows, "errors of 10,000 test images: each seed, and the mean")
    published = [results["published"][name] for name in rows]
    axes.plot(published, range(len(rows)), "D", color=RED, markerfacecolor="none",
              label="Hinton et al.")  # fmt: skip
    axes.set_xscale("log")
    axes.legend()
    return figure


def mlperf_tiny(results):
    runs = {"the larger model": [results["teacher"]]}
    runs |= {name: [row] for name, row in results["references"].items()}
    for group, students in results["students"].items():
        runs |= {f"{group}, {name}": [run[name] for run in students] for name in students[0]}
    rows = {
        f"{name}, {row[0]['bytes'] / 1024:,.0f} KiB": percent(run["accuracy"] for run in row)
        for name, row in runs.items()
    }
    figure, axes = plt.subplots(figsize=(7.5, 4))
    colors = {"distilled": BLUE, "on labels": RED}
    colors = [colors.get(name.split(", ")[0], GREY) for name in rows]
    strip(axes, rows, "test accuracy (%): each student, and the mean", colors)
    return figure


def quantization(results):
    rows, colors = {}, []
    for student, task in results["students"].items():
        for column, color in (("post-training int8", GREY), ("aware int8", BLUE)):
            for objective, runs in task["runs"].items():
                rows[f"{student}, {objective}: {column}"] = [
                    100 * (run[column]["accuracy"] - run["float"]["accuracy"]) for run in runs
                ]
                colors.append(color)
    figure, axes = plt.subplots(figsize=(8, 3))
    strip(axes, rows, "int8 less float, points of test accuracy: each seed, and the mean", colors)
    axes.axvline(0, color=GREY, linewidth=1, linestyle="--")
    return figure


def smaller(results):
    """Accuracy against compressed bytes and multiply-accumulates, and the front."""
    runs = results["runs"]
    figure, grid = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    kinds = {"pruned": (BLUE, "o"), "designed": (RED, "s"), "sparse": (GREEN, "^"),
             "clustered": (GREEN, "v"), "dense": (RED, "s"), "large": (GREY, "D")}  # fmt: skip
    for axes, key in zip(grid, ("compressed", "macs"), strict=True):
        points = []
        for name in runs[0]:
            x, y = (np.mean([run[name][k] for run in runs]) for k in (key, "accuracy"))
            points.append((x, 100 * y))
            color, marker = kinds[name.split()[0]]
            filled = "labels" not in name
            axes.plot(x, 100 * y, marker, color=color, label=name,
                      markerfacecolor=color if filled else "white")  # fmt: skip
        front = sorted(p for p in points if not any(
            q[0] <= p[0] and q[1] >= p[1] and q != p for q in points
        ))  # fmt: skip
        axes.plot(*zip(*front, strict=True), "-", color=GREY, linewidth=1, zorder=0)
        axes.set(xscale="log", xlabel={"compressed": "bytes of the file, compressed"}.get(
            key, "multiply-accumulates"))  # fmt: skip
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:,.0f}" if key == "compressed" else ticker.EngFormatter())
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        axes.grid()
    grid[0].set_ylabel("test accuracy (%)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=7)
    return figure


def smaller_cifar10(results):
    return smaller(results)


def tuning(results):
    figure, axes = plt.subplots(figsize=(6, 3.6))
    # The colours tell those apart that weren't given up.
    complete = percent(t["val_accuracy"] for t in results["trials"] if t["state"] == "COMPLETE")
    for state, marker in (("COMPLETE", "o"), ("PRUNED", "x")):
        trials = [trial for trial in results["trials"] if trial["state"] == state]
        values = [trial["values"] for trial in trials]
        dots = axes.scatter(
            [v["temperature"] for v in values], [v["alpha"] for v in values], marker=marker,
            c=percent(trial["val_accuracy"] for trial in trials), cmap="viridis",
            vmin=min(complete), vmax=max(complete),
            label={"COMPLETE": "complete", "PRUNED": "given up early"}[state],
        )  # fmt: skip
    best = results["best"]
    axes.plot(best["temperature"], best["alpha"], "o", markersize=14, markerfacecolor="none",
              color=RED, label="chosen")  # fmt: skip
    axes.set(xscale="log", xlabel="temperature", ylabel="alpha")
    figure.colorbar(dots, label="validation accuracy (%)", extend="min")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def policy(results):
    """The return of each model, seed by seed: the student follows its own teacher."""
    names = {"student alone": GREY, "teacher": BLUE, "distilled, int8": GREEN}
    figure, axes = plt.subplots(figsize=(7, 2.4))
    for i, (name, color) in enumerate(names.items()):
        places = np.arange(len(results["runs"])) + 0.27 * (i - 1)
        axes.bar(places, [run[name] for run in results["runs"]], 0.25, color=color, label=name)
    axes.set_xticks(results["seeds"], [f"seed {seed}" for seed in results["seeds"]])
    axes.set_ylabel("mean return")
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def representations(results):
    """The accuracy of each seed: a classifier on each backbone, and its nearest neighbors."""
    names = ["student on labels", "student distilled", "distilled, int8", "teacher"]
    near = [f"{name}: nearest neighbors" for name in names if name != "distilled, int8"]
    rows = {name: percent(run[name] for run in results["runs"]) for name in [*names, *near]}
    figure, axes = plt.subplots(figsize=(7, 2.6))
    colors = [GREY if "labels" in name else BLUE if "distilled" in name else RED for name in rows]
    strip(axes, rows, "test accuracy (%): each seed, and the mean", colors)
    return figure


PICTURES = {
    function.__name__: function
    for function in (
        digits, examples, methods, step_time, stored_teacher, scale, export, mnist, mlperf_tiny,
        quantization, smaller, smaller_cifar10, tuning, policy, representations,
    )
}  # fmt: skip


def main():
    for name in PICTURES:
        for folder in (RESULTS, EXAMPLES):
            path = folder / f"{name}.json"
            if path.exists():  # There is none of `examples`: examples.py draws it.
                draw(name, json.loads(path.read_text()))


if __name__ == "__main__":
    main()
