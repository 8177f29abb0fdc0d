"""What a rule says about a kind of layer."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_distill.quantization.graph import Step

if TYPE_CHECKING:
    from keras_distill.quantization.rebuild import Builder

YES, NO, LITERT = "yes", "no", "LiteRT only"

#: What a kernel can absorb: a factor and an offset for each channel, and a bound from below (and
#: above).
NORMALIZATION, RELU = "normalization", "relu"


class Output(enum.Enum):
    """Where the range of a layer's output comes from."""

    OWN = "it has a range of its own"
    SAME = "it has the range of the inputs, which share one"
    FIXED = "the kernel prescribes it"
    STATE = "it is that of the layer's state, which the layer rounds"
    FLOAT = "it stays float"
    NESTED = "the model that is called knows it"


class Support(NamedTuple):
    """Which kernels there are: `YES`, `NO`, `LITERT`, or a note; `""` where it doesn't apply.

    Attributes:
        int8: Kernels for activations of 8 bits.
        int16: Kernels for activations of 16 bits.
        int4: Kernels for weights of 4 bits.
    """

    int8: str = YES
    int16: str = YES
    int4: str = ""


_IN_FULL = Support()


@dataclasses.dataclass(frozen=True)
class Rule:
    """How one kind of layer is simulated.

    Attributes:
        output: Where the range of its output comes from.
        build: Function of `(builder, step, tensors)` that makes the layer's counterpart, calls it
            on the rounded `tensors`, and returns its output, still to be rounded (a `Value` where
            it has a range already). `None` where a copy of the layer is called.
        check: Function of a step that returns why it can't be simulated and what to do, or `None`.
        counterpart: Class of that copy where it isn't the layer's own.
        fuses: What the layer's kernel can absorb of the layers after it: `NORMALIZATION`, `RELU`.
            A layer with an activation of its own fuses nothing more.
        fused_as: As what a kernel before it can absorb the layer.
        does_nothing: Whether the layer does nothing to its input at inference.
        signed: For `Output.FIXED`: whether the range holds negative values.
        support: Which kernels there are for it.
        note: What the page of supported layers says about it, in a few words.
    """

    output: Output
    build: Callable[[Builder, Step, list], Any] | None = None
    check: Callable[[Step], str | None] | None = None
    counterpart: type | None = None
    fuses: tuple[str, ...] = ()
    fused_as: str | None = None
    does_nothing: bool = False
    signed: bool = False
    support: Support = _IN_FULL
    note: str = ""


FLOAT = Rule(Output.FLOAT)
NESTED = Rule(Output.NESTED)


def last_axis(step: Step) -> int:
    """Index of the last axis of a step's first input."""
    return len(step.call.inputs[0].shape) - 1


def give_8_bits(step: Step, what: str) -> str:
    """What to do where a kernel takes only 8 bits for its `"weights"` or `"activations"`."""
    return f'give it 8 with `layers={{{step.path!r}: {{"{what}": 8}}}}`.'
