"""Replicas and workers make the update of one device on the same global batch."""

import functools
import json
import pathlib
import runpy
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

WORKER = pathlib.Path(__file__).with_name("run_distributed.py")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def start(mode, folder, workers=1):
    """Starts the script in as many processes as it has workers."""
    ports = free_ports(workers)
    processes = []
    for index in range(workers):
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        config = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        processes.append(
            subprocess.Popen(
                [sys.executable, WORKER, mode, folder / f"{mode}-{index}.npz", json.dumps(config)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return processes


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Weights and logs of the same training on one device, two replicas, or two workers."""
    folder = tmp_path_factory.mktemp("distributed")

    @functools.cache
    def run(mode, workers=1):
        if mode == "one":
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", [str(WORKER), mode, folder / "one-0.npz", ""])
                runpy.run_path(str(WORKER))
            return [np.load(folder / "one-0.npz")]
        processes = start(mode, folder, workers)
        try:
            outputs = [process.communicate(timeout=400)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert all(process.returncode == 0 for process in processes), outputs
        return [np.load(folder / f"{mode}-{index}.npz") for index in range(workers)]

    return run


@pytest.mark.parametrize(
    ("mode", "workers"),
    [
        pytest.param("mirrored", 1, marks=pytest.mark.long),
        pytest.param("workers", 2, marks=pytest.mark.nightly),
    ],
)
def test_the_update_is_that_of_one_device(run, mode, workers):
    (one,) = run("one")
    for other in run(mode, workers):
        assert set(one.files) == set(other.files)
        assert sum(name.startswith("log/") for name in one.files) >= 8
        for name in one.files:
            np.testing.assert_allclose(other[name], one[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.long
def test_the_training_moved_the_weights(run):
    (one,) = run("one")
    assert not np.allclose(one["log/loss"][0], one["log/loss"][-1], rtol=1e-3)
    keras.tree.map_structure(np.testing.assert_array_less, -np.inf, one["log/loss"].min())
