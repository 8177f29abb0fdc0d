"""How many bits each layer gets."""

import difflib

import keras

from keras_distill.quantization import supported


class Options:
    """Bits by layer path."""

    def __init__(self, model, weight_bits, activation_bits, layers, learned_steps):
        self.learned_steps = learned_steps
        self.default = {"weights": weight_bits, "activations": activation_bits}
        known = set(_paths(model))
        self.by_path = {}
        for path, bits in layers.items():
            if path not in known:
                near = difflib.get_close_matches(path, known, n=3, cutoff=0.4)
                raise ValueError(
                    f"`layers` names {path!r}, which the model doesn't have. "
                    f"Nearest paths: {', '.join(near) or ', '.join(sorted(known)[:8])}."
                )
            if bits is not None and not set(bits) <= set(self.default):
                raise ValueError(
                    '`layers` maps paths to dicts of "weights" and "activations", or to None. '
                    f"Received: {path!r}: {bits!r}"
                )
            self.by_path[path] = None if bits is None else {**self.default, **bits}
        for bits in (self.default, *self.by_path.values()):
            if bits is not None and (
                bits["weights"] not in (4, 8) or bits["activations"] not in (8, 16)
            ):
                raise ValueError(
                    "TFLite has kernels for weights of 8 or 4 bits and activations of 8 or 16. "
                    f"Received: {bits}"
                )

    def of(self, path):
        """Bits of the layer at `path`, `None` where it stays float."""
        return self.by_path.get(path, self.default)


def _paths(model, prefix=""):
    graph = supported.graph_of(model)
    for operation in graph.operations if graph is not None else ():
        yield prefix + operation.name
        if isinstance(operation, keras.Model):
            yield from _paths(operation, f"{prefix}{operation.name}/")
