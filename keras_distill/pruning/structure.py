"""What a model is made of: which of its weights belong to which units, call by call."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_distill import _keras
from keras_distill.pruning import rules
from keras_distill.pruning.step import Setting, Step, Weight, sizes, width
from keras_distill.pruning.units import Channels, Units


class Structure:
    """The units of a model, and what belongs to them.

    Args:
        model: A Functional or built Sequential model.

    Attributes:
        units: Its `Units`.
        weights: A `Weight` for each variable that has units, in the order of the calls.
        settings: The `Setting`s of each layer, by layer and key.
        made: The units that each layer makes, by the layer's path. One of each stays.
        tensors: The units along the last axis of each tensor, and how many positions it has.
        inputs: The units of each input of the models inside, by model.
        whole: Why layers stay as they are, by layer, where at least one of their calls needs it.
    """

    def __init__(self, model: keras.Model):
        self.units = Units()
        self._weights: dict[int, Weight] = {}
        self.settings: dict[Any, dict[str, Setting]] = {}
        self.made: dict[str, Channels] = {}
        self.tensors: list[tuple[Channels, int]] = []
        self.inputs: dict[Any, list[Channels]] = {}
        self.whole: dict[Any, str] = {}
        graph = _keras.graph_of(model)
        if graph is None:
            raise ValueError(
                f"The model {model.name!r} is neither Functional nor a built Sequential model, so "
                "its graph of layers can't be seen. Build it with the functional API, or call it "
                "once on data if it is Sequential."
            )
        inputs = [self.units.new(width(x), "it is an input of the model") for x in graph.inputs]
        for x in self.run(model, inputs, ""):
            self.units.keep(x, "it is an output of the model")
        self._keep_whole_layers()

    @property
    def weights(self) -> list[Weight]:
        return list(self._weights.values())

    @property
    def removable(self) -> np.ndarray:
        """The units that may leave, ascending."""
        made = [self.units.of(channels) for channels in self.made.values()]
        units = np.unique(np.concatenate([np.empty(0, int), *made]))
        return np.array([unit for unit in units if not self.units.reason(unit)], int)

    def run(self, model: Any, inputs: Sequence[Channels], prefix: str) -> list[Channels]:
        """Follows channels through a model, and returns those of its outputs."""
        graph = _keras.graph_of(model)
        return _keras.walk(graph, inputs, functools.partial(self._visit, prefix))

    def _visit(self, prefix: str, call: _keras.Call, inputs: list[Channels]) -> list[Channels]:
        step = Step(self, call, prefix + call.operation.name, inputs)
        outputs = self._nested(step) if is_graph(call.operation) else rules.follow(step)
        widths = [len(x) for x in outputs]
        if widths != [width(x) for x in call.outputs]:
            raise RuntimeError(
                f"The pruning rule of {type(step.layer).__name__} gives {widths} channels for "
                f"the outputs of {step.path!r}, which have {[width(x) for x in call.outputs]}."
            )
        self.tensors += [
            (x, math.prod(sizes(tensor)[:-1]))
            for x, tensor in zip(outputs, call.outputs, strict=True)
        ]
        return outputs

    def _nested(self, step: Step) -> list[Channels]:
        """A model inside, whose layers are the same in each call of it."""
        known = self.inputs.setdefault(step.layer, step.inputs)
        for old, new in zip(known, step.inputs, strict=True):
            self.units.tie(old, new)
        return self.run(step.layer, step.inputs, f"{step.path}/")

    def _keep_whole_layers(self) -> None:
        """Makes all units of a shared layer stay that one of its calls needs whole."""
        for layer, reason in self.whole.items():
            for variable in getattr(layer, "weights", ()):
                weight = self._weights.get(id(variable))
                for axis in weight.axes if weight else ():
                    if axis is not None:
                        self.units.keep(axis.channels, reason)

    def add_weight(self, weight: Weight) -> None:
        """Notes a weight. What was noted of it in another call of its layer is tied to it."""
        known = self._weights.setdefault(id(weight.variable), weight)
        if known is not weight:
            known.positions += weight.positions
            for old, new in zip(known.axes, weight.axes, strict=True):
                if old is not None and new is not None:
                    self.units.tie(old.channels, new.channels)


def is_graph(operation: Any) -> bool:
    """Whether something in a model is a model of its own whose layers can be seen."""
    return isinstance(operation, keras.Model) and _keras.graph_of(operation) is not None
