"""A run that was killed and started again ends in the same weights."""

import pathlib
import signal
import subprocess
import sys

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
    for x, y in zip(a.variables, b.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), x.path)
    for x, y in zip(a.optimizer.variables, b.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), x.path)


def test_backup_and_restore(folder, whole):
    resumed = killed_run.distiller()
    assert_same(whole, killed_run.fitted(resumed, callbacks=[killed_run.backup(folder)]))


@pytest.mark.skipif(not killed_run.HAS_ORBAX, reason="orbax-checkpoint isn't installed")
def test_orbax(folder, whole):
    resumed = killed_run.distiller()
    resumed.load_weights(folder / "orbax")
    assert int(resumed.optimizer.iterations) == 10
    assert_same(whole, killed_run.fitted(resumed, initial_epoch=2))
