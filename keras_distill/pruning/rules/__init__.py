"""How units pass through each kind of layer: one rule for each, in the file of its family.

A rule is a function of a `Step` that returns the units of its outputs. It says which units each
weight has along its axes, which entries of the config count them, and which units leave only
together. What has no rule keeps all that it reads and makes.
"""

from collections.abc import Callable
from typing import Any

from keras import layers

from keras_distill.pruning.rules import elementwise, kernels, sequences, shapes
from keras_distill.pruning.step import Step
from keras_distill.pruning.units import Channels
from keras_distill.quantization.rules.activations import operation_name

Rule = Callable[[Step], list[Channels]]

LAYERS: dict[type, Rule] = {
    **kernels.LAYERS,
    **elementwise.LAYERS,
    **shapes.LAYERS,
    **sequences.LAYERS,
}
OPERATIONS: dict[str, Rule] = {**elementwise.OPERATIONS, **shapes.OPERATIONS}

_STATISTICS = (
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.RMSNormalization,
    layers.UnitNormalization,
)


def follow(step: Step) -> list[Channels]:
    """The units of a step's outputs."""
    layer = step.layer
    rule = LAYERS.get(type(layer)) or OPERATIONS.get(operation_name(layer) or "")
    if rule is None:
        return step.whole(_why_not(layer))
    if getattr(layer, "data_format", None) == "channels_first":
        return step.whole('has `data_format="channels_first"`')
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return step.whole("holds weights that Keras has rounded or adapts (LoRA)")
    return rule(step)


def _why_not(layer: Any) -> str:
    if isinstance(layer, _STATISTICS):
        return "computes its statistics over all channels"
    return "has no rule, so that it keeps all that it reads and makes"
