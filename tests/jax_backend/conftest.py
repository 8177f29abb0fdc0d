"""Tests of the JAX and PyTorch backends, in a process in which Keras is on one of them.

`make test-jax` runs them; `make test-torch` those that aren't of JAX alone.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

#: Where the files of teachers are.
FOLDER = "KERAS_DISTILL_BACKEND_CASES"
BACKEND = os.environ.get("KERAS_BACKEND")
# Before JAX starts: so many devices for `DataParallel`, and programs that are compiled fast rather
# than run fast.
if BACKEND == "jax":
    flags = [
        "--xla_force_host_platform_device_count=4",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
    os.environ.setdefault("XLA_FLAGS", " ".join(flags))

collect_ignore_glob = {
    "jax": [],
    "torch": ["test_training_on_jax.py"],
}.get(BACKEND or "", ["test_*.py"])


@pytest.fixture(scope="module")
def on_tensorflow(request, tmp_path_factory):
    """What a module's `NAMES` give on the TensorFlow backend: a dict of arrays for each."""
    folder = tmp_path_factory.mktemp("tensorflow")
    os.environ[FOLDER] = str(folder)
    script = pathlib.Path(__file__).with_name("backend_cases.py")
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, script, folder, *request.module.NAMES]
    subprocess.run(command, check=True, env=environment)
    cases: dict = {}
    with np.load(folder / "values.npz") as values:
        for key in values:
            case, name = key.split("|")
            cases.setdefault(case, {})[name] = values[key]
    return cases
