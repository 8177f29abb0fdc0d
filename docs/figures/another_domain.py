"""Draws `another_domain.png`: digits of both domains, and those that each model gets wrong.

    python docs/figures/another_domain.py mnist

Trains the example's models, seed 0, and shows test images of the new domain.
"""

import pathlib
import sys

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np

HERE = pathlib.Path(__file__).parent
SHOWN, RED = 12, "#c44e3b"


def row(figure, grid, number, title, images, names, color="k"):
    """Images in a row, their names above, and a title at its left."""
    for column in range(SHOWN + 1):
        axes = figure.add_subplot(grid[number, column])
        axes.set_axis_off()
        if column == 0:
            axes.text(1, 0.5, title, ha="right", va="center", fontsize=8, color=color)
        elif column <= len(images):
            axes.imshow(images[column - 1, :, :, 0], cmap="gray_r", vmin=0, vmax=1)
            axes.set_title(names[column - 1], fontsize=7, color=color, pad=2)


def main(folder):
    sys.path.insert(0, str(HERE.parents[1] / "examples"))
    import another_domain as example

    models = example.models(folder)
    home, (x, y) = example.source(folder, SHOWN), example.target()[2]
    figure = plt.figure(figsize=(9, 4))
    widths = [4, *[1] * SHOWN]
    grid = figure.add_gridspec(5, SHOWN + 1, width_ratios=widths, hspace=0.5, wspace=0.1)
    row(figure, grid, 0, "MNIST, with labels", *home)
    row(figure, grid, 1, "the new domain, without", x, y)
    for number, name in enumerate(("student on labels", "distilled, int8", "teacher"), 2):
        found = np.asarray(models[name].predict(x)).argmax(1)
        wrong = np.flatnonzero(found != y)
        title = f"{name}:\n{len(wrong)} of {len(y)} wrong"
        names = [f"{found[i]} for {y[i]}" for i in wrong[:SHOWN]]
        row(figure, grid, number, title, x[wrong[:SHOWN]], names, RED)
    figure.savefig(HERE / "another_domain.png", dpi=100, bbox_inches="tight")


if __name__ == "__main__":
    main(*sys.argv[1:])
