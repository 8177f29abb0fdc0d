"""`keras-distill tune`: temperature, alpha and learning rate, searched on validation data.

  keras-distill tune --data=fashion_mnist --teacher=teacher.keras --student=nets:small \\
      --epochs=5 --trials=30 --output=runs/search
  keras-distill train --flagfile=runs/search/best.flags

Takes the flags of `train`. The first trial has the values of the flags; hopeless trials are stopped
early. The test data are never used. After Ctrl-C, --resume continues with the next trial.
"""

import logging as python_logging
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags
from absl import logging
from rich.console import Console

from keras_distill.cli import command_flags, interrupts, named_losses, runs
from keras_distill.cli.command_flags import SEARCH_SPACE
from keras_distill.cli.plan import Plan


def main(
    flags: absl_flags.FlagValues, arguments: Sequence[str], console: Console
) -> dict[str, Any]:
    """Searches, and returns the best values."""
    run = runs.choose(flags, "tune", arguments)
    unknown = set(flags.search) - set(SEARCH_SPACE)
    if unknown or not flags.search:
        raise ValueError(f"--search must be of {', '.join(SEARCH_SPACE)}, not {sorted(unknown)}.")
    plan = Plan(flags)
    temperature = flags.temperature
    if "temperature" in flags.search:
        temperature = temperature or named_losses.default_temperature(flags, plan.task)
        if temperature is None:
            raise ValueError(
                "--search: the loss between the outputs has no temperature. Say what else: "
                "--search=alpha,learning_rate."
            )
        if flags.answers is not None and flags.top_k is not None:
            raise ValueError("--search: answers of --top_k hold for one temperature alone.")
    start = {"temperature": temperature, "alpha": flags.alpha, "learning_rate": flags.learning_rate}
    with runs.recorded(run, flags, "tune"):
        search = _search(plan, run, flags, start)
    console.print(search)
    console.print(f"The best are in {run.folder / 'best.flags'}")
    return {
        "folder": str(run.folder),
        "best": search.best,
        "value": search.value,
        "start": search.start,
        "monitor": search.monitor,
    }


def _search(plan: Plan, run: runs.Run, flags: absl_flags.FlagValues, start: dict[str, Any]) -> Any:
    from keras_distill import tuning  # Optuna is an extra: wrong flags are told without it.

    python_logging.getLogger("optuna").setLevel(python_logging.WARNING)
    teacher, batches = plan.taught(plan.teacher(run))

    def build(**values: float) -> Any:
        logging.info("trying %s", ", ".join(f"{k} {v:.4g}" for k, v in values.items()))
        values = start | values
        distiller = plan.distiller(teacher, values["temperature"], values["alpha"])
        return plan.compiled(distiller, flags.epochs, values["learning_rate"])

    with interrupts.BetweenBatches() as ctrl_c:
        search = tuning.tune(
            build,
            batches(0),
            plan.validation_batches(),
            space={name: SEARCH_SPACE[name] for name in flags.search},
            trials=flags.trials,
            epochs=flags.epochs,
            # Whatever alpha is.
            monitor="val_mse" if plan.task == "regression" else "val_accuracy",
            start={name: start[name] for name in flags.search},
            journal=run.folder / "search.journal",
            seed=flags.seed,
            shuffle=False,
            callbacks=[ctrl_c],
        )
    for name, value in search.best.items():
        flags[name].value = value
    runs.write_settings(run.folder / "best.flags", flags, command_flags.settings("train"))
    return search
