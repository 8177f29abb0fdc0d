"""A run that was killed and started again ends in the same weights; checkpoints."""

import pathlib
import signal
import subprocess
import sys

import keras
import killed_run
import numpy as np
import pytest


@pytest.fixture(scope="module")
def whole():
    return killed_run.fitted(killed_run.distiller())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a killed process left."""
    folder = tmp_path_factory.mktemp("killed")
    script = pathlib.Path(__file__).with_name("killed_run.py")
    ended = subprocess.run([sys.executable, script, folder], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return folder


def assert_same(a, b):
    values = [
        [keras.ops.convert_to_numpy(x) for x in (*model.weights, *model.optimizer.variables)]
        for model in (a, b)
    ]
    for x, y in zip(*values, strict=True):
        np.testing.assert_array_equal(x, y)


def test_backup_and_restore(folder, whole):
    resumed = killed_run.distiller()
    assert_same(whole, killed_run.fitted(resumed, callbacks=[killed_run.backup(folder)]))


@pytest.mark.skipif(not killed_run.HAS_ORBAX, reason="orbax-checkpoint isn't installed")
@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")  # Of Orbax.
def test_orbax(folder, whole):
    resumed = killed_run.distiller()
    # What isn't built yet, Keras would leave out.
    resumed.optimizer.build(resumed.trainable_variables)
    resumed.load_weights(folder / "orbax")
    assert int(resumed.optimizer.iterations) == 10
    assert_same(whole, killed_run.fitted(resumed, initial_epoch=2))


def test_checkpoints_load(tmp_path):
    path = tmp_path / "{epoch}.weights.h5"
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    trained = killed_run.fitted(killed_run.distiller(), callbacks=[checkpoint])
    other = killed_run.distiller()
    other.optimizer.build(other.trainable_variables)
    other.load_weights(tmp_path / "4.weights.h5")
    assert_same(trained, other)
