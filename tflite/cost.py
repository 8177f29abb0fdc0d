"""What one inference costs on this host."""

import os
import platform
import time

import numpy as np
from keras_distill.tflite import runtimes


def latencies(artifact, runs=50, threads=(1, 2)) -> dict:
    """Times single inferences of an artefact in each runtime of its target.

    Args:
        artifact: An `Artifact`.
        runs: How many inferences are timed, after a few that aren't.
        threads: Numbers of threads to time LiteRT with.

    Returns:
        The host, and a row per runtime and number of threads: median and 95th percentile in
        milliseconds.
    """
    rows = []
    for runtime, count in _cases(artifact, threads):
        interpreter = runtimes.open_file(artifact.tflite, runtime, count)
        arrays = [
            np.zeros([size or 1 for size in port.shape], port.dtype) for port in interpreter.inputs
        ]
        for _ in range(3):
            interpreter.run(arrays)
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            interpreter.run(arrays)
            times.append(1000 * (time.perf_counter() - start))
        rows.append(
            {
                "runtime": runtime,
                "threads": count,
                "median_ms": float(np.median(times)),
                "percentile_95_ms": float(np.percentile(times, 95)),
            }
        )
    host = f"{platform.machine()}, {os.cpu_count()} CPUs"
    return {"host": host, "runs": runs, "rows": rows}


def _cases(artifact, threads):
    cases = [("litert", count) for count in threads]
    if runtimes.on_host(artifact.runtime) == "micro":
        cases.append(("micro", 1))
    return cases
