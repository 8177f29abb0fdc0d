"""k-fold cross-validation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import rich.box
import rich.table
from sklearn import model_selection

from keras_distill import samples
from keras_distill.checks import whole_number
from keras_distill.evaluation import tables
from keras_distill.tuning import training


@dataclasses.dataclass
class CrossValidation:
    """What `cross_validate` measured; `print` shows it as a table.

    Attributes:
        folds: One dict for each fold: every metric on the fold's validation data.
        monitor: The metric asked for.
    """

    folds: list[dict[str, float]]
    monitor: str

    @property
    def mean(self) -> float:
        """Mean of the monitored metric over the folds."""
        return training.summary([fold[self.monitor] for fold in self.folds])[0]

    def table(self) -> rich.table.Table:
        """The folds and their mean, as a `rich.table.Table`."""
        table = rich.table.Table(
            box=rich.box.SIMPLE_HEAD,
            caption="±: half the 95 % interval of the mean over folds (Student's t); folds share "
            "training data, so it is too narrow.",
            caption_justify="left",
        )
        names = list(self.folds[0])
        for name in ("fold", *names):
            table.add_column(name, justify="right")
        for number, fold in enumerate(self.folds, start=1):
            table.add_row(str(number), *(f"{fold[name]:.4g}" for name in names))
        table.add_section()
        table.add_row("mean", *(training.text([f[name] for f in self.folds]) for name in names))
        return table

    def __rich__(self):
        return self.table()

    def __str__(self):
        return tables.as_text(self.table())


def cross_validate(
    build: Callable[[], Any],
    data: Any,
    *,
    folds: int = 5,
    epochs: int,
    monitor: str = "val_accuracy",
    groups: Any = None,
    seed: int = 0,
    **arguments: Any,
) -> CrossValidation:
    """Trains once for each fold, on the others, and measures on the fold left out.

    Folds keep the shares of the classes where labels are class indices, and never separate samples
    of one group. A teacher that was trained on the same data has seen the folds left out, so the
    student looks better than it is: train the teacher on other data, or inside `build`.

    Args:
        build: Function without arguments that returns a new compiled model for each fold.
        data: `(x, y)` or a dataset, without the test data.
        folds: Number of folds.
        epochs: Epochs of each run.
        monitor: Metric, as `fit` reports it on validation data.
        groups: Shape `(samples,)`: the group of each sample, such as a person or a recording.
            Defaults to `None`: every sample stands alone.
        seed: Seed of the folds and of each run.
        **arguments: Other arguments of `fit`, such as `batch_size`.

    Returns:
        A `CrossValidation`.

    Raises:
        ValueError: If there are fewer samples or groups than folds.

    Example:

    >>> result = keras_distill.tuning.cross_validate(build, (x_train, y_train), epochs=10)
    >>> print(result)
    """
    training.check(monitor, epochs, seed)
    whole_number("folds", folds, 2)
    x, y = samples.labeled(data)
    splitter = _splitter(y, groups, folds, seed)
    results = []
    for inside, outside in splitter.split(y, y, groups):
        train = samples.take(x, inside), y[inside]
        validation = samples.take(x, outside), y[outside]
        logs = training.run(
            build, train, validation, seed, epochs=epochs, monitor=monitor, **arguments
        )
        results.append({n: v for n, v in logs.items() if n.startswith("val_")})
    return CrossValidation(results, monitor)


def _splitter(y: Any, groups: Any, folds: int, seed: int) -> Any:
    """Scikit-learn's splitter for these labels and groups."""
    is_stratified = y.ndim == 1 and y.dtype.kind in "iu"
    kinds = {
        (False, False): model_selection.KFold,
        (False, True): model_selection.GroupKFold,
        (True, False): model_selection.StratifiedKFold,
        (True, True): model_selection.StratifiedGroupKFold,
    }
    return kinds[is_stratified, groups is not None](folds, shuffle=True, random_state=seed)
