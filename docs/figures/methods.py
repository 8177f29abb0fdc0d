"""Draws `docs/figures/methods.png`: where each distillation loss looks.

    python docs/figures/methods.py

Above, the places in the two models. Below, what is compared there, computed from scikit-learn's
digits with a few edge filters in place of a trained layer.
"""

import pathlib

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyBboxPatch
from scipy.ndimage import convolve
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

RESPONSE, FEATURES, RELATIONS = "#2f6db3", "#2e8b57", "#b5532f"

# Height in the models, losses, color.
PLACES = (
    (
        5,
        "SoftTargets   CTKD   DKD   RLD   MLKD   LogitMSE   JensenShannon   SkewedKL\n"
        "TeacherBoundedRegression (values)   MarginMSE (scores)   DIST (also across the batch)",
        RESPONSE,
    ),
    (
        4,
        "RelationalDistance   RelationalAngle\n"
        "Contrastive (across the whole dataset)   SEED (across batches)",
        RELATIONS,
    ),
    (
        3,
        "SimilarityPreserving   CIRKD (across the batch)   CIRKDMemory (across batches)",
        RELATIONS,
    ),
    (
        2.35,
        "ChannelWise   PKD   MGD   AttentionMap, ValueRelation (transformers)\n"
        "CrossKD (the teacher's head on the student's features)",
        FEATURES,
    ),
    (1.5, "Hint   VariationalInformation", FEATURES),
    (0.6, "AttentionTransfer   Review (several stages at once)", FEATURES),
)


def box(axes, x, y, width, height, text, color, size=9, weight="normal"):
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0.02,rounding_size=0.08",
            facecolor=color + "22",
            edgecolor=color,
            linewidth=1.2,
        )
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=size, color="0.1", weight=weight)


def models(axes):
    """Teacher and student side by side, with the losses between them."""
    layers = (
        (-0.35, "image"),
        (0.6, "stage 1"),
        (1.5, "stage 2"),
        (2.65, "stage 3"),
        (4, "embedding"),
        (5, "logits"),
    )
    for x, width, name in ((1.3, 2.0, "teacher"), (10.7, 1.3, "student")):
        for (y, layer), (above, _) in zip(layers, (*layers[1:], (None, None)), strict=True):
            height = 0.95 if layer == "stage 3" else 0.5
            box(axes, x, y, width, height, layer, "#555555")
            if above is not None:
                upper = 0.475 if above == 2.65 else 0.25
                axes.annotate(
                    "",
                    (x, above - upper - 0.04),
                    (x, y + height / 2 + 0.04),
                    arrowprops={"arrowstyle": "->", "color": "0.5"},
                )
        axes.text(x, 5.65, name, ha="center", fontsize=12, weight="bold")
    for y, text, color in PLACES:
        height = 0.66 if "\n" in text else 0.42
        box(axes, 6, y, 5.7, height, text, color)
        for start, end in ((2.35, 3.1), (8.9, 10.0)):
            axes.plot([start, end], [y, y], color=color, linewidth=1.3)
    for x, text, color in (
        (4.2, "answers", RESPONSE),
        (6.0, "layers", FEATURES),
        (7.8, "between samples", RELATIONS),
    ):
        axes.text(x, 5.65, text, ha="center", color=color, fontsize=11, weight="bold")
    axes.set_xlim(0.2, 11.5)
    axes.set_ylim(-0.75, 5.95)
    axes.axis("off")


def filters(images):
    """Four edge filters as channels, (batch, height, width, 4), without negative values."""
    sobel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]]) / 4
    kernels = sobel, sobel.T, -sobel, -sobel.T
    return np.stack([np.stack([convolve(x, k) for k in kernels], -1) for x in images]).clip(0)


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def panels(axes):
    """What is compared, on real digits."""
    digits = load_digits()
    images = digits.images / 16
    batch = np.concatenate([images[digits.target == digit][:4] for digit in (0, 1, 4, 7)])
    features = filters(batch)
    eight = filters(images[8:9])[0]
    flat_images = images.reshape(len(images), -1)
    classifier = LogisticRegression(max_iter=1000).fit(flat_images, digits.target)
    logits = classifier.decision_function(flat_images[8:9])[0]

    axes[0].bar(np.arange(10) - 0.2, softmax(logits), 0.4, color="0.7", label="T = 1")
    axes[0].bar(np.arange(10) + 0.2, softmax(logits / 4), 0.4, color=RESPONSE, label="T = 4")
    axes[0].legend(fontsize=7, frameon=False)
    axes[0].set_xticks(range(0, 10, 2))
    axes[0].set_yticks([])
    axes[0].set_title("SoftTargets, DKD, …\nprobabilities of an 8", fontsize=9, color=RESPONSE)

    maps = (
        (
            np.block([[eight[..., 0], eight[..., 1]], [eight[..., 2], eight[..., 3]]]),
            "Hint\nevery value",
        ),
        ((eight**2).sum(-1), "AttentionTransfer\nactivity at each position"),
        (
            softmax(4 * eight[..., 0]),
            "ChannelWise\nwhere one channel is active",
        ),
    )
    for ax, (values, title) in zip(axes[1:4], maps, strict=True):
        ax.imshow(values, cmap="Greens")
        ax.set_title(title, fontsize=9, color=FEATURES)

    flat = features.reshape(16, -1)
    gram = flat @ flat.T
    gram /= np.linalg.norm(gram, axis=1, keepdims=True)
    distances = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    for ax, values, title in (
        (axes[4], gram, "SimilarityPreserving\n16 digits: four 0s, 1s, 4s, 7s"),
        (axes[5], distances, "RelationalDistance\nthe same 16 digits"),
    ):
        ax.imshow(values, cmap="Oranges")
        ax.set_title(title, fontsize=9, color=RELATIONS)
    for ax in axes[1:]:
        ax.set_xticks([])
        ax.set_yticks([])


def main():
    figure = plt.figure(figsize=(11.5, 8.2), layout="constrained")
    grid = figure.add_gridspec(2, 6, height_ratios=(3.1, 1))
    models(figure.add_subplot(grid[0, :]))
    panels([figure.add_subplot(grid[1, i]) for i in range(6)])
    figure.savefig(pathlib.Path(__file__).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
