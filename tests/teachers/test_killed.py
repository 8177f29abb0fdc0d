"""A store whose process was killed goes on where it was, and ends up the same."""

import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from keras_distill.teachers import Function, Stored, store


@pytest.mark.long
@pytest.mark.usefixtures("optimized_graphs")
def test_killed_and_restarted(dense, tmp_path):
    model = dense(name="sage")
    model.save(tmp_path / "model.keras")
    script = pathlib.Path(__file__).with_name("store_until_killed.py")
    # Four shards of three batches and one of a single batch: the eighth batch is in the third.
    died = subprocess.run(
        [sys.executable, script, tmp_path / "model.keras", tmp_path / "killed", "7"], check=False
    )
    assert died.returncode == -signal.SIGKILL
    left = {file.name for file in (tmp_path / "killed").iterdir()}
    assert {"answers-00000.tfrecord", "answers-00001.tfrecord"} <= left
    assert "answers-00002.tfrecord" not in left
    untouched = (tmp_path / "killed" / "answers-00001.tfrecord").stat().st_mtime_ns

    def answer(x):
        return model(x, training=False)

    x = np.random.default_rng(0).normal(size=(200, 4)).astype("float32")
    arguments = {"batch_size": 16, "examples_per_shard": 48, "verbose": 0}
    for folder in ("killed", "whole"):
        store(Function(answer, name="sage"), x, tmp_path / folder, **arguments)
    first, second = (
        {file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()}
        for folder in ("killed", "whole")
    )
    assert first == second
    shard = tmp_path / "killed" / "answers-00001.tfrecord"
    assert shard.stat().st_mtime_ns == untouched, "what was whole isn't written again"
    assert Stored(tmp_path / "killed").examples == 200
