"""Plans how a graph is simulated: a rule for each step, and which tensors share a range.

A tensor is raw between the kernel that makes it and the layer that rounds it. Normalization and
activations take raw tensors where the TFLite kernel computes both in one go.
"""

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import keras

from keras_distill.quantization.graph import Graph, Outside, Step, Tensor
from keras_distill.quantization.rules import rule_of, why_not
from keras_distill.quantization.rules.activations import name_of
from keras_distill.quantization.rules.rule import FLOAT, NO, Output, Rule, give_8_bits


def plan(graph: Graph, nest: Callable[[Step], Any]) -> None:
    """Fills in what is planned about the steps and tensors of a graph.

    Args:
        graph: The graph.
        nest: Function that rebuilds the model that a step calls.

    Raises:
        ValueError: If a layer can't be simulated; names its path and what to do.
    """
    for tensor in graph.inputs:
        # What comes into a model from the one around it has been rounded there.
        tensor.has_range = bool(graph.prefix)
        tensor.is_raw = not tensor.has_range
    for step in graph.steps:
        if type(step.operation) is keras.layers.Masking:
            _rule_of(step)  # It is refused before the operations of its mask, which say less.
    for step in graph.steps:
        step.rule = _rule_of(step)
        if step.rule.output is Output.NESTED:
            step.nested = nest(step)
        step.is_fused = _is_fused(step)
        for index, output in enumerate(step.outputs):
            _plan_output(step, index, output)
    _count(graph)


def refuse(step: Step, reason: str) -> NoReturn:
    """Raises a `ValueError` that names a layer, why it can't be simulated, and what to do."""
    raise ValueError(
        f"The layer {step.path!r} ({type(step.operation).__name__}) can't be simulated. {reason} "
        f"Or keep it float, for LiteRT only: `layers={{{step.path!r}: None}}`."
    )


def _rule_of(step: Step) -> Rule:
    if step.stays_float:
        return FLOAT
    if getattr(step.operation, "data_format", None) == "channels_first":
        refuse(step, 'TFLite needs `data_format="channels_last"`.')
    if step.call.keywords.get("mask") is not None:
        refuse(step, "Masks have no integer form: leave `mask` out.")
    rule = rule_of(step.operation)
    if rule is None:
        refuse(step, why_not(step.operation))
    reason = rule.check(step) if rule.check is not None else None
    if reason is not None:
        refuse(step, reason)
    if step.bits.activations == 16 and rule.support.int16 == NO:
        refuse(step, "It has no kernel of 16 bits: " + give_8_bits(step, "activations"))
    if step.bits.weights == 4 and rule.support.int4 == NO:
        refuse(step, "It has no kernel for weights of 4 bits: " + give_8_bits(step, "weights"))
    return rule


def _is_fused(step: Step) -> bool:
    """Whether the kernel that makes a step's input does the step's work, too."""
    first, rule = step.inputs[0], step.rule
    if first.uses > 1 or not (rule.does_nothing or rule.fused_as):
        return False
    return first.is_float or (
        first.is_raw and (rule.does_nothing or rule.fused_as in first.fusable)
    )


def _plan_output(step: Step, index: int, output: Tensor) -> None:
    first, rule = step.inputs[0], step.rule
    if rule.output is Output.FLOAT:
        output.is_raw = output.is_float = True
    elif rule.output is Output.NESTED:
        _plan_nested(step, index, output)
    elif step.is_fused:
        output.is_raw = True
        output.is_float = first.is_float
        output.fusable = first.fusable if rule.does_nothing else rule.fuses
    elif rule.output is Output.SAME:
        _share(step.inputs, output)
    elif rule.output in (Output.FIXED, Output.STATE):
        output.has_range = True
    else:
        output.is_raw = True
        output.fusable = _fusable(step)


def _fusable(step: Step) -> tuple[str, ...]:
    """What the kernel of a step can absorb of the layers after it."""
    own = name_of(getattr(step.operation, "activation", None))
    return step.rule.fuses if own == "linear" else ()


def _plan_nested(step: Step, index: int, output: Tensor) -> None:
    inner: Tensor = step.nested.outputs[index]
    if isinstance(inner.value.range, Outside):
        _share([step.inputs[inner.value.range.index]], output)
    elif inner.value.range is None:
        output.is_raw = True
        output.is_float = inner.value.is_float
        output.fusable = inner.fusable
    else:
        output.has_range = True


def _share(inputs: Iterable[Tensor], output: Tensor) -> None:
    """Puts an output into the range of its inputs, and these into one."""
    groups = list(dict.fromkeys(x.group for x in inputs))
    if len(groups) > 1:
        # A range settled elsewhere can't be shared; its tensor is rounded once more.
        groups = [group for group in groups if not group.has_range] or [output]
    for group in groups[1:]:
        group.join(groups[0])
    output.join(groups[0])


def _count(graph: Graph) -> None:
    """Counts the tensors that each shared range is applied to."""
    for tensor in graph.tensors:
        tensor.group.shared += tensor.is_raw
    for step in graph.steps:
        # Tensors with a range of their own are rounded once more where they are joined.
        if step.rule.output is Output.SAME:
            group = step.outputs[0].group
            if len({x.group for x in step.inputs}) > 1:
                group.shared += sum(x.group is not group for x in step.inputs)
