"""`keras-distill tune`: temperature, alpha and learning rate, searched on validation data.

  keras-distill tune --data=fashion_mnist --teacher=teacher.keras --student=nets:small \\
      --epochs=5 --trials=30 --output=runs/search
  keras-distill train --flagfile=runs/search/best.flags

Takes the flags of `train`. The first trial has the values of the flags; hopeless trials are stopped
early. The test data are never looked at. After Ctrl-C, --resume goes on with the next trial.
"""

import logging as python_logging

from absl import flags as absl_flags
from absl import logging

from keras_distill.cli import interrupts, runs, train

SPACE = {
    "temperature": (1.0, 16.0, "log"),
    "alpha": (0.0, 1.0),
    "learning_rate": (1e-4, 3e-2, "log"),
}


def define(flags):
    """Declares the command's flags."""
    train.define(flags)
    to = {"flag_values": flags}
    absl_flags.DEFINE_integer("trials", 20, "Trials in all.", lower_bound=1, **to)
    absl_flags.DEFINE_list("search", list(SPACE), f"What to search, of {', '.join(SPACE)}.", **to)


def main(flags, arguments, console):
    """Searches, and returns the best values."""
    run = runs.choose(flags, "tune", arguments)
    unknown = set(flags.search) - set(SPACE)
    if unknown or not flags.search:
        raise ValueError(f"--search must be of {', '.join(SPACE)}, not {sorted(unknown)}.")
    plan = train.Plan(flags)
    temperature = flags.temperature
    if "temperature" in flags.search:
        temperature = temperature or train.default_temperature(flags, plan.classes)
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


def _search(plan, run, flags, start):
    from keras_distill import tuning  # Optuna is an extra; --help does without.

    python_logging.getLogger("optuna").setLevel(python_logging.WARNING)
    teacher, batches = plan.taught(plan.teacher(run))

    def build(**values):
        logging.info("trying %s", ", ".join(f"{k} {v:.4g}" for k, v in values.items()))
        values = start | values
        distiller = plan.distiller(teacher, values["temperature"], values["alpha"])
        return plan.compiled(distiller, flags.epochs, values["learning_rate"])

    with interrupts.BetweenBatches() as ctrl_c:
        search = tuning.tune(
            build,
            batches(0),
            plan.validation_batches(),
            space={name: SPACE[name] for name in flags.search},
            trials=flags.trials,
            epochs=flags.epochs,
            monitor="val_accuracy" if plan.classes else "val_loss",
            start={name: start[name] for name in flags.search},
            journal=run.folder / "search.journal",
            seed=flags.seed,
            shuffle=False,
            callbacks=[ctrl_c],
        )
    for name, value in search.best.items():
        flags[name].value = value
    of_train = absl_flags.FlagValues()
    train.define(of_train)
    runs.write_settings(run.folder / "best.flags", flags, of_train)
    return search
