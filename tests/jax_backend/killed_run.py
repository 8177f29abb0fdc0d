"""A run that is killed in its third epoch, as by a machine that goes away.

python tests/jax_backend/killed_run.py FOLDER
"""

import importlib.util
import os
import pathlib
import signal
import sys

import keras
from backend_cases import data, network

import keras_distill

HAS_ORBAX = importlib.util.find_spec("orbax") is not None


def distiller():
    """A student with a random generator, whose state goes on, too. Names are as at the start."""
    keras.utils.clear_session()
    student = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dropout(0.3, seed=3), network(4, 1)], name="student"
    )
    decay = keras.optimizers.schedules.ExponentialDecay(8.0, 2, 0.9)
    loss = keras_distill.losses.SoftTargets(temperature=decay)
    made = keras_distill.Distiller(student, network(9, 2), loss)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.Adam(0.01), cross_entropy, metrics=["accuracy"])
    return made


def fitted(made, **options):
    """Four epochs of five steps."""
    x, y, _ = data()
    made.fit(x, y, batch_size=16, epochs=4, shuffle=False, verbose=0, **options)
    return made


def backup(folder):
    return keras.callbacks.BackupAndRestore(folder / "backup")


def orbax(folder):
    return keras.callbacks.OrbaxCheckpoint(str(folder / "orbax"), save_on_background=False)


class Kill(keras.callbacks.Callback):
    """Ends the process at once, within the third epoch."""

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == 13:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    saving = [backup(folder), *([orbax(folder)] if HAS_ORBAX else [])]
    fitted(distiller(), callbacks=[*saving, Kill()])
