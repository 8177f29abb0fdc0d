"""Where quantization error comes in, layer by layer."""

import numpy as np
from keras_distill.tflite import targets
from keras_distill.tflite.inspect import inspect


def errors(float32, tflite, inputs) -> list[dict]:
    """Compares the activations of a quantized file with those of its float32 twin.

    Args:
        float32: The float32 file of the same student.
        tflite: The quantized file, names included.
        inputs: Arrays in the order of the files' inputs, each of shape `(samples, ...)`.

    Returns:
        A row per operator in order: `layer`, `operator`, `error` (root mean square of the
        difference over that of the float activations), `added` (how much larger it is than that
        of the operator's inputs) and `clipped` (share of the float values
        that the range can't hold).
    """
    found = inspect(tflite)
    watched = _twins(inspect(float32), found)
    floats, quantized = _Runner(float32, watched.values()), _Runner(tflite, watched)
    sums = {name: np.zeros(4) for name in watched}
    for start in range(0, len(inputs[0]), floats.batch):
        places = range(start, start + floats.batch)
        # The last sample fills the last batch.
        sample = [array.take(places, axis=0, mode="clip") for array in inputs]
        floats.run(sample)
        quantized.run(sample)
        for name, twin in watched.items():
            expected, *_ = floats.value(twin)
            got, low, high = quantized.value(name)
            if expected.shape != got.shape:
                continue
            difference = got - expected
            clipped = (expected < low) | (expected > high)
            sums[name] += (
                np.square(difference).sum(),
                np.square(expected).sum(),
                clipped.sum(),
                expected.size,
            )
    shares = {n: float(np.sqrt(s[0] / s[1])) if s[1] else 0.0 for n, s in sums.items()}
    rows = []
    for op in found.operators:
        name = op.layer
        if name not in watched or not sums[name][3]:
            continue
        before = max((shares[t.name] for t in op.inputs if t and t.name in shares), default=0.0)
        rows.append(
            {
                "layer": targets.layer_of(name),
                "operator": op.name,
                "error": shares[name],
                "added": shares[name] - before,
                "clipped": float(sums[name][2] / sums[name][3]),
            }
        )
    return rows


def _twins(float32, quantized):
    """The tensor of the float32 file for each of the quantized one that has such a twin."""
    known = {t.name for op in float32.operators for t in op.outputs}
    known |= {t.name for t in float32.inputs}
    made = {t.name for op in quantized.operators for t in op.outputs}
    made |= {t.name for t in quantized.inputs}
    twins = {name: name for name in made & known}
    for op in quantized.operators:
        if op.name in ("QUANTIZE", "DEQUANTIZE"):
            # Both sides are the same values, of which the float32 file knows one.
            given, result = op.inputs[0].name, op.outputs[0].name
            if given in twins:
                twins.setdefault(result, twins[given])
            elif result in twins:
                twins[given] = twins[result]
    return twins


class _Runner:
    """A file in the reference kernels, with every tensor kept."""

    def __init__(self, tflite, names):
        from ai_edge_litert import interpreter

        self._interpreter = interpreter.Interpreter(
            model_content=tflite,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_REF,
        )
        self._interpreter.allocate_tensors()
        self._ports = self._interpreter.get_input_details()
        self.batch = self._ports[0]["shape"][0]
        details = self._interpreter.get_tensor_details()
        self._details = {d["name"]: d for d in details if d["name"] in names}

    def run(self, sample):
        self._interpreter.reset_all_variables()
        for port, array in zip(self._ports, sample, strict=True):
            self._interpreter.set_tensor(port["index"], _quantized(array, port))
        self._interpreter.invoke()

    def value(self, name):
        """A tensor as floats, and the range that it can hold (to the half of a step)."""
        details = self._details[name]
        values = self._interpreter.get_tensor(details["index"])
        scale, zero_point = details["quantization"]
        if not scale:
            return values.astype("float64"), -np.inf, np.inf
        limits = np.iinfo(values.dtype)
        low, high = limits.min - zero_point - 0.5, limits.max - zero_point + 0.5
        return (values.astype("float64") - zero_point) * scale, low * scale, high * scale


def _quantized(array, port):
    scale, zero_point = port["quantization"]
    if not scale:
        return array.astype(port["dtype"])
    limits = np.iinfo(port["dtype"])
    steps = np.round(array.astype("float64") / scale) + zero_point
    return np.clip(steps, limits.min, limits.max).astype(port["dtype"])
