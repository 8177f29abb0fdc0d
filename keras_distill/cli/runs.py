"""The folder of a run: settings, logs, checkpoints, events, models; and resumed trainings."""

import contextlib
import importlib.util
import json
import logging as python_logging
import math
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import flags as absl_flags
from absl import logging

from keras_distill._files import write_text
from keras_distill.cli import command_flags, interrupts, messages

SETTINGS = "settings.flags"
# Flags of the moment, which aren't settings of the run.
MOMENTARY = ("flagfile", "help", "h", "json", "output", "resume", "undefok", "verbosity")


class Run:
    """A run in a folder of its own, new or resumed.

    Attributes:
        folder: Its `pathlib.Path`.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def train(
        self,
        name: str,
        build: Callable[[], keras.Model],
        epochs: int,
        dataset: Callable[[Any], tf.data.Dataset],
        steps: int,
        validation: tf.data.Dataset,
    ) -> keras.Model:
        """Trains one model of the run, from where an interrupted run left it.

        Args:
            name: Name of the training: of its checkpoints, events and history.
            build: Function that returns the compiled model to fit.
            epochs: Number of epochs.
            dataset: Function from the number of an epoch, an integer tensor, to its batches. The
                same number gives the same batches, so that an interrupted run continues as if it
                hadn't been interrupted.
            steps: Batches in an epoch.
            validation: Batches to validate on after each epoch.

        Returns:
            The trained `keras.Model` (of a `Distiller`, its student), also kept as `<name>.keras`.
        """
        path = self.folder / f"{name}.keras"
        if path.is_file():
            logging.info("%s: trained before, read from %s", name, path)
            return keras.saving.load_model(path)
        model = build()
        checkpoint = self.folder / "checkpoints" / name
        first = _epochs_done(checkpoint)
        if first:
            logging.info("%s: going on after epoch %d", name, first)
        batches = tf.data.Dataset.range(first, epochs).flat_map(dataset)
        # Keras counts the batches of an epoch itself: all epochs are one dataset here.
        with interrupts.BetweenBatches() as ctrl_c:
            model.fit(
                batches,
                epochs=epochs,
                steps_per_epoch=steps,
                validation_data=validation,
                verbose=0,
                shuffle=False,
                callbacks=[
                    keras.callbacks.BackupAndRestore(checkpoint, double_checkpoint=True),
                    keras.callbacks.CSVLogger(self.folder / f"{name}.csv", append=first > 0),
                    *_events(self.folder / "events" / name),
                    _Log(name, epochs),
                    ctrl_c,
                ],
            )
        model = getattr(model, "student", model)
        save_model(model, path)
        return model

    def resumable(self) -> bool:
        """Whether there is an epoch, a model or a trial to resume from."""
        kept = [*self.folder.glob("*.keras"), *self.folder.glob("*.journal")]
        return bool(kept) or any(map(_epochs_done, self.folder.glob("checkpoints/*")))

    def write(self, name: str, result: Any) -> None:
        """Writes a dict as JSON, completely or not at all."""
        write_text(self.folder / name, json.dumps(result, indent=2) + "\n")


def choose(flags: absl_flags.FlagValues, command: str, arguments: Sequence[str] = ()) -> Run:
    """The run that `--output` or `--resume` names. Nothing is written yet.

    Args:
        flags: The parsed flags, with `output` and `resume`. With `--resume` they are set to those
            that the run was started with.
        command: Name of the command.
        arguments: The arguments that aren't flags: none are allowed.

    Raises:
        ValueError: If the folder of a new run isn't empty, or there is no run to resume.
    """
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; flags begin with --.")
    if flags.resume is None:
        folder = pathlib.Path(flags.output or time.strftime(f"runs/{command}-%Y%m%d-%H%M%S"))
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"--output={folder} isn't empty: name a new folder, or --resume it.")
    else:
        folder = pathlib.Path(flags.resume)
        changed = [name for name in flags if flags[name].present and name not in MOMENTARY]
        if not (folder / SETTINGS).is_file():
            raise ValueError(f"there is no run in {folder} to resume: no {SETTINGS}.")
        if changed:
            raise ValueError(
                f"--{changed[0]} can't be changed: a resumed run keeps its {SETTINGS}."
            )
        flags([command, f"--flagfile={folder / SETTINGS}"])
    return Run(folder)


@contextlib.contextmanager
def recorded(run: Run, flags: absl_flags.FlagValues, command: str) -> Iterator[None]:
    """Keeps settings and log in the folder, and says how to resume after Ctrl-C.

    A new run that fails before the end of its first epoch leaves no folder.
    """
    failed = False
    if flags.resume is None:
        run.folder.mkdir(parents=True, exist_ok=True)
        write_settings(run.folder / SETTINGS, flags, flags)
    handler = python_logging.FileHandler(run.folder / "log.txt")
    messages.add_handler(handler)
    try:
        yield
    except KeyboardInterrupt:
        logging.warning("interrupted")
        raise KeyboardInterrupt(
            f"Go on with: keras-distill {command} --resume={run.folder}"
        ) from None
    except Exception:
        failed = True
        raise
    finally:
        python_logging.getLogger().removeHandler(handler)
        handler.close()
        if failed and flags.resume is None and not run.resumable():
            shutil.rmtree(run.folder)


def settings(folder: pathlib.Path, command: str) -> absl_flags.FlagValues:
    """The flags that a run was started with.

    Args:
        folder: Folder of the run.
        command: Name of its command.

    Raises:
        ValueError: If the folder holds no run.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise ValueError(f"there is no run in {folder}: {path} is missing.")
    flags = command_flags.settings(command)
    flags(["settings", f"--flagfile={path}"])
    return flags


def write_settings(path: pathlib.Path, flags: absl_flags.FlagValues, names: Iterable[str]) -> None:
    """Writes those of the flags that are settings as a file for `--flagfile`."""
    lines = [flags[name].serialize() for name in sorted(names) if _is_setting(flags, name)]
    write_text(path, "\n".join(line for line in lines if line) + "\n")


def save_model(model: keras.Model, path: pathlib.Path) -> None:
    """Saves a model, completely or not at all."""
    partial = path.with_name(f"partial-{path.name}")
    model.save(partial)
    os.replace(partial, path)


def _is_setting(flags: absl_flags.FlagValues, name: str) -> bool:
    flag = flags[name]
    is_left_alone = flag.value is None or (flag.boolean and flag.value == flag.default)
    return name == flag.name and name not in MOMENTARY and not is_left_alone


def _epochs_done(checkpoint: pathlib.Path) -> int:
    path = checkpoint / "training_metadata.json"
    return json.loads(path.read_text())["epoch"] if path.is_file() else 0


def _events(folder: pathlib.Path) -> list[keras.callbacks.Callback]:
    """The callback that writes TensorBoard events, where TensorBoard is installed."""
    if importlib.util.find_spec("tensorboard") is None:
        logging.warning("no TensorBoard events: pip install keras-distill[tensorboard]")
        return []
    return [keras.callbacks.TensorBoard(folder)]


class _Log(keras.callbacks.Callback):
    """One line in the log after each epoch."""

    def __init__(self, name: str, epochs: int):
        super().__init__()
        self.name = name
        self.epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.start = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        values = ", ".join(f"{key} {value:.4g}" for key, value in (logs or {}).items())
        seconds = math.ceil(time.monotonic() - self.start)
        logging.info(
            "%s: epoch %d of %d, %d s: %s", self.name, epoch + 1, self.epochs, seconds, values
        )
