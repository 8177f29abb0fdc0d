"""The process that `latency` starts: loads the candidates and times them in turns.

Started by path, so that nothing is imported but what the candidates need.
"""

import json
import pathlib
import sys
import time
from collections.abc import Callable

import numpy as np

WARM_UP = 5


def main(folder: pathlib.Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    if all(entry["runtime"] == "keras" for entry in plan["candidates"]):
        # TensorFlow would import them, which takes as long as all else that it imports.
        sys.modules.update({"jax": None, "keras": None, "sklearn": None})  # type: ignore[dict-item]
    with np.load(folder / "inputs.npz") as stored:
        inputs = [stored[name] for name in stored.files]
    runners = {
        entry["name"]: _loaded(entry["path"], inputs)
        if entry["runtime"] == "keras"
        else _interpreter(entry, inputs, plan["names"])
        for entry in plan["candidates"]
    }
    times = {name: [] for name in runners}
    rng = np.random.default_rng(0)
    for turn in range(-WARM_UP, plan["runs"]):
        for name in rng.permutation(list(runners)):
            start = time.perf_counter_ns()
            runners[name]()
            elapsed = (time.perf_counter_ns() - start) / 1e6
            if turn >= 0:
                times[name].append(elapsed)
    (folder / "times.json").write_text(json.dumps(times))


def _loaded(path: str, inputs: list) -> Callable:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    module = tf.saved_model.load(path)
    tensors = [tf.constant(x) for x in inputs]
    # Reading the result waits for it.
    return lambda: tf.nest.map_structure(lambda y: y.numpy(), module.serve(*tensors))


def _interpreter(entry: dict, inputs: list, names: list[str]) -> Callable:
    """A file in its runtime, on the sample if it fits the file's inputs, otherwise on zeros."""
    from keras_distill.tflite import runtimes

    tflite = pathlib.Path(entry["path"]).read_bytes()
    interpreter = runtimes.open_file(tflite, entry["runtime"], threads=1)
    by_name = dict(zip(names, inputs, strict=False))
    arrays = []
    for i, port in enumerate(interpreter.inputs):
        given = by_name.get(port.name, inputs[i] if i < len(inputs) else None)
        shape = tuple(size or 1 for size in port.shape)
        x = given if given is not None and given.shape == shape else np.zeros(shape, "float32")
        arrays.append(port.quantize(x))
    return lambda: interpreter.run(arrays)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
