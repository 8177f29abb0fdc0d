"""Whether labels are classes or values, and classes as indices."""

import warnings

import numpy as np

from keras_distill.samples import are_decisions, is_one_hot

TASKS = ("classification", "multilabel", "regression")
#: More distinct integers than this are taken for values without a warning.
FEW = 20


def check_task(task: str | None) -> None:
    """Raises `ValueError` if a task is unknown."""
    if task not in (None, *TASKS):
        raise ValueError(f"`task` must be one of {TASKS} or None. Received: task={task!r}")


def warn_of_integers(y: np.ndarray, where: str) -> None:
    """Warns if values look like class indices, which would be regressed.

    Args:
        y: Numbers, of shape `(examples,)`.
        where: What they are, for the message.
    """
    few = np.unique(y)
    if y.ndim == 1 and len(few) <= FEW and len(few) < len(y) / 2 and _are_whole(few):
        shown = ", ".join(f"{value:g}" for value in few[:5]) + (", ..." if len(few) > 5 else "")
        warnings.warn(
            f"{where} holds {len(few)} distinct integers ({shown}), which are regressed. If they "
            'are classes, give task="classification"; if they are values, task="regression" '
            "says so.",
            stacklevel=4,  # Who called `load`.
        )


def encode(y: np.ndarray, known: slice, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as indices of the classes.

    Args:
        y: Texts or whole numbers, of shape `(examples,)`.
        known: The examples whose classes are all that there are.
        where: What they are, for messages.

    Returns:
        int32 indices and the names of the classes, in their order.

    Raises:
        ValueError: If numbers aren't whole, or a class is unknown.
    """
    if y.dtype.kind == "f":
        if not _are_whole(y):
            raise ValueError(
                f"{where} holds {y[y != np.floor(y)][0]:g}, which isn't a class: classes are "
                "texts or integers. For values, give task='regression'."
            )
        y = y.astype("int64")
    classes = np.unique(y[known])
    unknown = np.setdiff1d(y, classes)
    if unknown.size:
        raise ValueError(f"{where} holds the class {unknown[0]!s}, which the training data lack.")
    return np.searchsorted(classes, y).astype("int32"), tuple(map(str, classes.tolist()))


def are_several(y: np.ndarray) -> bool:
    """Whether labels are rows of 0 and 1, several classes at once, and not with a single 1 each."""
    return y.ndim == 2 and y.shape[1] > 1 and are_decisions(y) and not is_one_hot(y)


def _are_whole(y: np.ndarray) -> bool:
    return bool(np.isfinite(y).all() and (y == np.floor(y)).all())
