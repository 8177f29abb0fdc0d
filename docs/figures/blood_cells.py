"""Draws `blood_cells.png`: how sure the models are and how often right, and where they disagree.

    python docs/figures/blood_cells.py BCCD teacher.keras

Trains the example's students, seed 0, and shows cells of the test images.
"""

import pathlib
import sys

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from scipy.special import rel_entr, softmax

from keras_distill.evaluation.metrics import reliability_of

HERE = pathlib.Path(__file__).parent
COLORS = {"teacher": "0.35", "student on labels": "#c44e3b", "distilled, int8": "#2e8b57"}
SHOWN = 9


def reliability(axes, probabilities, y):
    """The share of answers that is right, for answers of about one confidence."""
    axes.plot([0.3, 1], [0.3, 1], ":", color="0.6")
    for name, color in COLORS.items():
        p = probabilities[name]
        bins = reliability_of(p.max(1), p.argmax(1) == y)
        some = bins["share"] > 0.005
        axes.plot(bins["confidence"][some], bins["accuracy"][some], "o-", color=color, label=name)
    axes.set(xlabel="confidence", ylabel="share that is right", ylim=(0.3, 1.02))
    axes.legend(frameon=False, fontsize=8)


def main(folder, teacher):
    sys.path.insert(0, str(HERE.parents[1] / "examples"))
    import blood_cells as example

    models = example.models(folder, teacher)
    x, y, _, names = example.cells(folder, "test")
    models = {name: models[name] for name in COLORS}
    probabilities = {name: softmax(np.asarray(m.predict(x)), -1) for name, m in models.items()}
    figure = plt.figure(figsize=(10, 2.9))
    outer = figure.add_gridspec(1, 2, width_ratios=(1, 2.4), wspace=0.08)
    reliability(figure.add_subplot(outer[0]), probabilities, y)
    inner = outer[1].subgridspec(2, SHOWN, hspace=0.5, wspace=0.08)
    sure = probabilities["teacher"]
    for row, name in enumerate(list(COLORS)[1:]):
        own = probabilities[name]
        apart = rel_entr(sure, np.maximum(own, 1e-9)).sum(1)
        for column, i in enumerate(np.argsort(-apart)[:SHOWN]):
            axes = figure.add_subplot(inner[row, column])
            axes.imshow(np.uint8(x[i]))
            axes.set_axis_off()
            right = own[i].argmax() == y[i]
            axes.set_title(names[own[i].argmax()], fontsize=6.5, color="k" if right else "#c44e3b")
            if column == 0:
                axes.text(0, -16, f"{name}: furthest from the teacher", fontsize=8)
    figure.savefig(HERE / "blood_cells.png", dpi=90, bbox_inches="tight")
    Image.open(HERE / "blood_cells.png").convert("RGB").quantize(128).save(HERE / "blood_cells.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
