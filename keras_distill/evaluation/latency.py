"""Latency of candidates, which take turns in a separate process with one thread."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_distill import samples
from keras_distill.evaluation import candidates as kinds

_WORKER = pathlib.Path(__file__).with_name("latency_worker.py")


def latencies(
    candidates: Mapping[str, kinds.Candidate], x: Any, runs: int
) -> dict[str, np.ndarray]:
    """Times one inference on one sample for each candidate.

    All run in a child process with one thread, on this host's CPU. In each round every candidate
    runs once, in random order, so that other load on the host affects all of them alike.

    Args:
        candidates: Candidates by name.
        x: Inputs, of which the first sample is used.
        runs: Number of rounds.

    Returns:
        A dict from names to arrays of shape `(runs,)`, milliseconds.

    Raises:
        RuntimeError: If the child process fails.
    """
    first = keras.tree.map_structure(np.asarray, samples.take(x, slice(0, 1)))
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        # Flattening sorts the inputs of a dict by name.
        names = sorted(first) if isinstance(first, dict) else []
        plan: dict[str, Any] = {"runs": runs, "names": names, "candidates": []}
        np.savez(folder / "inputs.npz", *keras.tree.flatten(first))
        for index, (name, candidate) in enumerate(candidates.items()):
            entry = {"name": name, "path": str(folder / str(index)), "runtime": candidate.runtime}
            plan["candidates"].append(entry)
            if isinstance(candidate, kinds.File):
                pathlib.Path(entry["path"]).write_bytes(candidate.artifact.tflite)
            else:
                _save(candidate, first, entry["path"])
        (folder / "plan.json").write_text(json.dumps(plan))
        _run(folder)
        return {
            name: np.array(t) for name, t in json.loads((folder / "times.json").read_text()).items()
        }


def _save(candidate: Any, first: Any, path: str) -> None:
    """Writes a candidate as a SavedModel that takes the inputs one by one."""
    module = tf.Module()
    module.variables_of_candidate = [
        v.value if isinstance(v, keras.Variable) else v for v in candidate.variables
    ]
    module.tracked = candidate.tracked
    module.serve = tf.function(
        lambda *flat: candidate.call(keras.tree.pack_sequence_as(first, list(flat))),
        input_signature=[tf.TensorSpec(a.shape, a.dtype) for a in keras.tree.flatten(first)],
        autograph=False,
    )
    tf.saved_model.save(module, path)


def _run(folder: pathlib.Path) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-P", str(_WORKER), str(folder)],
        env=environment, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(
            f"Timing the candidates failed (exit status {done.returncode}): {done.stderr[-2000:]}"
        )
