"""The Keras student and its file on the same samples."""

import numpy as np
from keras_distill.tflite import runtimes


def compare(artifact, inputs, y=None) -> dict:
    """Differences between the student and the file in every runtime of the target.

    Args:
        artifact: An `Artifact` with a student.
        inputs: Arrays by input name.
        y: Labels, or `None`.

    Returns:
        A report of plain types.
    """
    expected = artifact.student.predict(inputs)
    report: dict = {"samples": len(next(iter(inputs.values())))}
    if y is not None:
        report["student"] = _score(expected, y)
    report["runtimes"] = {}
    for runtime in runtimes.of_target(artifact.runtime):
        ports, got = artifact._run(inputs, runtime)
        report["runtimes"][runtime] = {
            "outputs": [
                {"name": name, **_differences(port, expected[name], got[name])}
                for name, port in ports.items()
            ],
            **(_score(got, y) if y is not None else {}),
        }
    return report


def _differences(port, expected, got):
    if expected.shape != got.shape:
        raise ValueError(
            f"Output {port.name!r} has shape {got.shape} in the file and {expected.shape} in the "
            "student: the file belongs to another student."
        )
    difference = np.abs(got.astype("float64") - expected.astype("float64"))
    if not np.isfinite(difference).all():
        raise ValueError(f"Output {port.name!r} holds NaN or infinity.")
    report = {"largest": float(difference.max()), "mean": float(difference.mean())}
    if port.scale:
        report["largest_steps"] = float(difference.max() / port.scale)
        report["mean_steps"] = float(difference.mean() / port.scale)
    if expected.dtype.kind in "iu":
        report["agreement"] = float(np.mean(expected == got))
    elif expected.ndim > 1 and expected.shape[-1] > 1:
        report["agreement"] = float(np.mean(expected.argmax(-1) == got.argmax(-1)))
    return report


def _score(outputs, y):
    """Accuracy of the first output against integer labels, mean absolute error against floats."""
    output = next(iter(outputs.values()))
    y = np.asarray(y)
    if y.dtype.kind == "f" and y.shape == output.shape and output.ndim > 1 and _is_one_hot(y):
        y = y.argmax(-1)
    if y.dtype.kind in "iub":
        y = y.reshape(output.shape[:-1]) if y.size == output[..., 0].size else y
        if output.dtype.kind in "iu":
            return {"accuracy": float(np.mean(output.reshape(y.shape) == y))}
        if output.ndim > 1 and output.shape[-1] > 1:
            return {"accuracy": float(np.mean(output.argmax(-1) == y))}
    error = np.abs(output.astype("float64").reshape(y.shape) - y)
    return {"mean_absolute_error": float(error.mean())}


def _is_one_hot(y):
    return y.shape[-1] > 1 and bool(np.all((y == 0) | (y == 1)) and np.all(y.sum(-1) == 1))
