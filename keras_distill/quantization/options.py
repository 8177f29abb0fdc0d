"""How many bits each layer gets."""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping

import keras

from keras_distill import _keras


@dataclasses.dataclass(frozen=True)
class Bits:
    """Bits of a layer's weights and of the tensors that it makes."""

    weights: int = 8
    activations: int = 8


class Options:
    """What `quantize_aware` was asked for: bits by layer path.

    Attributes:
        default: `Bits` of layers that aren't named.
        learned_steps: Whether step sizes are trained by gradient descent.
    """

    def __init__(
        self,
        model: keras.Model,
        weight_bits: int,
        activation_bits: int,
        layers: Mapping[str, Mapping[str, int] | None],
        learned_steps: bool,
    ):
        self.learned_steps = learned_steps
        self.default = _checked(weight_bits, activation_bits)
        self._by_path: dict[str, Bits | None] = {}
        known = set(_paths(model))
        for path, bits in layers.items():
            if path not in known:
                near = difflib.get_close_matches(path, known, n=3, cutoff=0.4)
                raise ValueError(
                    f"`layers` names {path!r}, but the model has no such layer. "
                    f"Nearest paths: {', '.join(near) or ', '.join(sorted(known)[:8])}."
                )
            if bits is not None and not set(bits) <= {"weights", "activations"}:
                raise ValueError(
                    '`layers` must map each path to a dict with the keys "weights" and '
                    f'"activations", or to None. Received: {path!r}: {bits!r}'
                )
            self._by_path[path] = None if bits is None else self._completed(bits)

    def of(self, path: str) -> Bits | None:
        """Bits of the layer at `path`, `None` where it stays float."""
        return self._by_path.get(path, self.default)

    def activations_of(self, path: str) -> int:
        """Bits of the tensors of the layer at `path`; the default where it stays float."""
        return (self.of(path) or self.default).activations

    def _completed(self, bits: Mapping[str, int]) -> Bits:
        return _checked(
            bits.get("weights", self.default.weights),
            bits.get("activations", self.default.activations),
        )


def _checked(weights: int, activations: int) -> Bits:
    if weights not in (4, 8) or activations not in (8, 16):
        raise ValueError(
            "TFLite has kernels for weights of 8 or 4 bits and activations of 8 or 16. "
            f"Received: weights of {weights} bits and activations of {activations}"
        )
    return Bits(weights, activations)


def _paths(model: keras.Model, prefix: str = "") -> Iterator[str]:
    graph = _keras.graph_of(model)
    for operation in graph.operations if graph is not None else ():
        yield prefix + operation.name
        if isinstance(operation, keras.Model):
            yield from _paths(operation, f"{prefix}{operation.name}/")
