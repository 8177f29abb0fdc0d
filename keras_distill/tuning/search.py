"""Search for hyperparameters by Optuna, on validation data."""

import dataclasses
import functools
import operator
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import optuna
import rich.box
import rich.table
from optuna import storages
from optuna.storages import journal as journal_files

from keras_distill.checks import whole_number
from keras_distill.evaluation import tables
from keras_distill.tuning import training


@dataclasses.dataclass
class Search:
    """What `tune` found; `print` shows the best trials.

    Attributes:
        best: The best trial's hyperparameters by name.
        value: Its value of the monitored metric.
        start: The value with the hyperparameters given as `start`, or `None`.
        monitor: The metric.
        study: The `optuna.Study`, with every trial and its values by epoch.
    """

    best: dict[str, Any]
    value: float
    start: float | None
    monitor: str
    study: optuna.Study

    def table(self, most: int = 10) -> rich.table.Table:
        """The best trials, as a `rich.table.Table` with at most `most` rows."""
        states = [trial.state.name for trial in self.study.trials]
        counts = f"{states.count('COMPLETE')} trials completed, {states.count('PRUNED')} pruned"
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD, caption=counts, caption_justify="left")
        for name in ("trial", self.monitor, *self.best):
            table.add_column(name, justify="right")
        done = self.study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
        more_is_better = self.study.direction == optuna.study.StudyDirection.MAXIMIZE
        done.sort(key=operator.attrgetter("value"), reverse=more_is_better)
        for trial in done[:most]:
            values = (_shown(trial.params[name]) for name in self.best)
            table.add_row(str(trial.number), f"{trial.value:.5g}", *values)
        return table

    def __rich__(self):
        return self.table()

    def __str__(self):
        return tables.as_text(self.table())


def tune(
    build: Callable[..., Any],
    train: Any,
    validation: Any,
    space: dict[str, Any],
    *,
    trials: int,
    epochs: int,
    monitor: str = "val_accuracy",
    mode: str | None = None,
    start: dict[str, Any] | None = None,
    prune: bool = True,
    journal: str | pathlib.Path | None = None,
    seed: int = 0,
    **arguments: Any,
) -> Search:
    """Searches for the hyperparameters with the best value on validation data.

    Each trial builds a model, trains it for `epochs` and takes the metric at the end of the last
    epoch. Optuna's sampler (tree-structured Parzen estimator) proposes trials from the results of
    earlier ones; its median pruner stops a trial that is worse, at the same epoch, than half of
    them were. All trials start from the same seed. The best of many trials looks better than it
    is: measure the chosen hyperparameters once on test data, with
    `keras_distill.evaluation.compare`.

    Args:
        build: Function of the hyperparameters, by name, that returns a compiled `Distiller` (or
            any compiled model).
        train: Training data: `(x, y)`, or a dataset that `fit` takes.
        validation: Validation data, likewise: apart from training and test data.
        space: Dict from names to what may be tried: a tuple `(low, high)` of ints or of floats;
            `(low, high, "log")`, drawn evenly on a logarithmic scale; a list of choices; or a
            distribution of `optuna.distributions`.
        trials: Number of trials in all, including those already in `journal`.
        epochs: Epochs of each trial.
        monitor: Metric, as `fit` reports it on validation data.
        mode: `"max"` or `"min"`: which values of the metric are better. Defaults to `None`: the
            metric's name decides.
        start: Hyperparameters of the first trial, such as the defaults. Defaults to `None`:
            Optuna proposes the first trial, too.
        prune: Whether to stop trials that look hopeless.
        journal: Path of a file that keeps every trial. If it exists, the search continues from
            it, also after a crash; interrupted trials are run again. Only one process at a time
            may use it. Defaults to `None`: trials are kept in memory.
        seed: Seed of the search and of each trial.
        **arguments: Other arguments of `fit`, such as `batch_size`.

    Returns:
        A `Search`.

    Raises:
        ValueError: If an argument is wrong, or `journal` belongs to another search.
        RuntimeError: If no trial was completed.

    Example:

    >>> def build(temperature, alpha, learning_rate):
    ...     distiller = keras_distill.Distiller(
    ...         make_student(), teacher,
    ...         losses=keras_distill.losses.SoftTargets(temperature), alpha=alpha,
    ...     )
    ...     distiller.compile(keras.optimizers.Adam(learning_rate), loss, metrics=["accuracy"])
    ...     return distiller
    >>> search = keras_distill.tuning.tune(
    ...     build, (x_train, y_train), (x_val, y_val),
    ...     space={"temperature": (1.0, 16.0, "log"), "alpha": (0.0, 1.0),
    ...            "learning_rate": (1e-4, 1e-2, "log")},
    ...     trials=30, epochs=10, start={"temperature": 4.0, "alpha": 0.1, "learning_rate": 1e-3},
    ...     journal="search.journal",
    ... )
    >>> search.best
    """
    training.check(monitor, epochs, seed)
    whole_number("trials", trials, 1)
    if not space:
        raise ValueError(f"`space` names no hyperparameter. Received: space={space!r}")
    space = {name: _distribution(name, values) for name, values in space.items()}
    if start is not None and set(start) != set(space):
        raise ValueError(
            f"`start` must give each of {sorted(space)} a value. Received: start={start!r}"
        )
    study = _study(space, journal, seed, prune, monitor, training.direction(monitor, mode), epochs)
    if start is not None and not _is_tried(study, start):
        study.enqueue_trial(start)
    run = functools.partial(
        training.run,
        train=train,
        validation=validation,
        seed=seed,
        epochs=epochs,
        monitor=monitor,
        **arguments,
    )
    for _ in range(len(study.get_trials(states=_FINISHED)), trials):
        _run_trial(study, study.ask(space), build, run, monitor)
    done = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if not done:
        raise RuntimeError(f"None of the {trials} trials was completed with a number.")
    return Search(
        best=study.best_params,
        value=study.best_value,
        start=next((trial.value for trial in done if trial.params == start), None),
        monitor=monitor,
        study=study,
    )


_FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


def _run_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    build: Callable[..., Any],
    run: Callable[..., dict[str, float]],
    monitor: str,
) -> None:
    """Runs a trial and tells the study how it ended."""
    try:
        logs = run(functools.partial(build, **trial.params), watch=_Report(trial, monitor))
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except Exception:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        raise
    else:
        study.tell(trial, logs[monitor])


def _is_tried(study: optuna.Study, values: dict[str, Any]) -> bool:
    """Whether a trial with these values is finished, or waits to be run."""
    waiting = study.get_trials(states=(optuna.trial.TrialState.WAITING,))
    tried = [trial.params for trial in study.get_trials(states=_FINISHED)]
    return values in [*tried, *(trial.system_attrs["fixed_params"] for trial in waiting)]


class _Report(keras.callbacks.Callback):
    """Tells Optuna the metric after each epoch, and stops a trial that Optuna prunes."""

    def __init__(self, trial: optuna.Trial, monitor: str):
        super().__init__()
        self.trial = trial
        self.monitor = monitor

    def on_epoch_end(self, epoch, logs=None):
        value = (logs or {}).get(self.monitor)
        if value is None:
            return
        self.trial.report(float(value), epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def _distribution(name: str, values: Any) -> optuna.distributions.BaseDistribution:
    """The values to try for a hyperparameter, as a distribution of Optuna."""
    if isinstance(values, optuna.distributions.BaseDistribution):
        return values
    if isinstance(values, list) and values:
        return optuna.distributions.CategoricalDistribution(values)
    if isinstance(values, tuple) and (len(values) == 2 or values[2:] == ("log",)):
        low, high, log = values[0], values[1], len(values) == 3
        if low >= high or (log and low <= 0):
            raise ValueError(
                f"`space[{name!r}]` must be a range from low to high, above 0 on a logarithmic "
                f"scale. Received: {values!r}"
            )
        whole = isinstance(low, int) and isinstance(high, int)
        kind = "IntDistribution" if whole else "FloatDistribution"
        return getattr(optuna.distributions, kind)(low, high, log=log)
    raise ValueError(
        f'`space[{name!r}]` must be (low, high), (low, high, "log") or a list of choices. '
        f"Received: {values!r}"
    )


def _study(
    space: dict[str, Any],
    journal: str | pathlib.Path | None,
    seed: int,
    prune: bool,
    monitor: str,
    direction: str,
    epochs: int,
) -> optuna.Study:
    """A new study, or the one in the journal."""
    storage = None
    if journal is not None:
        path = pathlib.Path(journal)
        path.parent.mkdir(parents=True, exist_ok=True)
        storage = storages.JournalStorage(journal_files.JournalFileBackend(str(path)))
    study = optuna.create_study(
        storage=storage,
        study_name="search",
        load_if_exists=True,
        direction="maximize" if direction == "max" else "minimize",
        pruner=optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner(),
    )
    _check_settings(study, space, journal, monitor, epochs, seed)
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    # The same proposals again after each resumption would be a waste.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    return study


def _check_settings(
    study: optuna.Study,
    space: dict[str, Any],
    journal: str | pathlib.Path | None,
    monitor: str,
    epochs: int,
    seed: int,
) -> None:
    """Raises where a study was begun with other settings, and notes those of a new one."""
    settings = {
        "space": {n: optuna.distributions.distribution_to_json(d) for n, d in space.items()},
        "monitor": monitor,
        "epochs": epochs,
        "seed": seed,
    }
    stored = study.user_attrs.get("settings", settings)
    if stored != settings:
        changed = [name for name in settings if stored[name] != settings[name]]
        raise ValueError(
            f"The journal {str(journal)!r} belongs to a search with other "
            f"{' and '.join(changed)}: name another file, or use the settings of that search."
        )
    study.set_user_attr("settings", settings)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
