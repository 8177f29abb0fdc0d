"""The graph of a model that is to be rebuilt: its tensors, and the steps that make them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from keras_distill import _keras
from keras_distill.quantization.options import Bits, Options
from keras_distill.quantization.ranges import AnyRange


@dataclasses.dataclass(frozen=True)
class Outside:
    """Stands for the range of an input of a nested model, which the model around it knows.

    Attributes:
        index: Position of the input.
    """

    index: int


class Value:
    """The counterpart of a tensor in the rebuilt model.

    Attributes:
        tensor: A symbolic tensor.
        range: The layer that rounded it, or `None` while it is raw or float.
        is_float: Whether it belongs to a part of the model that stays float.
    """

    def __init__(
        self, tensor: Any, range: AnyRange | Outside | None = None, is_float: bool = False
    ):
        self.tensor = tensor
        self.range = range
        self.is_float = is_float


class Tensor:
    """A tensor of the model that is to be rebuilt.

    Attributes:
        name: Name of the layer that makes it.
        dtype: Its dtype.
        maker: The `Step` that makes it, `None` for inputs of the model.
        uses: How many steps read it, plus how often it is an output of the model.
        is_raw: Planned: whether its maker leaves it to be rounded to a range of its own.
        has_range: Planned: whether its range is settled without it, by the kernel that makes it
            or outside the model.
        is_float: Planned: whether it belongs to a part of the model that stays float.
        fusable: Planned: what the kernel that makes it may still absorb, see `Rule.fuses`.
        shared: Planned: to how many tensors the range of its group is applied.
        range: Built: the range of its group.
        value: Built: its counterpart.
    """

    def __init__(self, symbolic: Any, maker: Step | None = None):
        self.name: str = _keras.producer_of(symbolic).name
        self.dtype: str = symbolic.dtype
        self.maker = maker
        self.uses = 0
        self.is_raw = self.has_range = self.is_float = False
        self.fusable: tuple[str, ...] = ()
        self.shared = 0
        self.range: AnyRange | None = None
        self.value: Value = Value(None)
        self._joined: Tensor | None = None

    @property
    def group(self) -> Tensor:
        """The tensor that stands for all those that share a range with this one."""
        tensor = self
        while tensor._joined is not None:
            tensor = tensor._joined
        return tensor

    def join(self, other: Tensor) -> None:
        """Puts a tensor that stands for its group, and so the group, into another's group."""
        if other is not self:
            self._joined = other

    @property
    def holds_floats(self) -> bool:
        """Whether its dtype is floating point, so that there is something to round."""
        return keras.backend.is_float_dtype(self.dtype)

    @property
    def origin(self) -> str:
        """Name of the layer that makes it, layers passed over that do nothing to it."""
        if self.maker is not None and self.maker.rule.does_nothing:
            return self.maker.inputs[0].origin
        return self.name


class Step:
    """One call of a layer or operation.

    Attributes:
        call: The call in the Keras graph.
        operation: The layer or operation.
        path: Its path in the outermost model, such as `"backbone/stem"`.
        bits: Its `Bits`.
        stays_float: Whether it was asked to stay float.
        inputs: The tensors that it reads, in order.
        outputs: The tensors that it makes.
        rule: Planned: the `Rule` by which it is simulated.
        nested: Planned: the rebuilt model, where it is a call of a model.
        is_fused: Planned: whether the kernel that makes its input does its work, too.
    """

    def __init__(self, call: _keras.Call, path: str, bits: Bits | None, inputs: Sequence[Tensor]):
        self.call = call
        self.operation = call.operation
        self.path = path
        self.stays_float = bits is None
        self.bits = bits or Bits()
        self.inputs = list(inputs)
        self.outputs = [Tensor(x, self) for x in call.outputs]
        self.rule: Any = None
        self.nested: Any = None
        self.is_fused = False


class Graph:
    """The tensors and steps of one Functional model, without those of the models inside it.

    Attributes:
        model: The Functional model.
        prefix: Path of the model, with a slash after it; empty for the outermost one.
        inputs: Its input tensors.
        outputs: Its output tensors.
        steps: Its `Step`s, in the order in which they are computed.
    """

    def __init__(self, model: keras.Model, prefix: str, options: Options):
        self.model = _keras.graph_of(model)
        if self.model is None:
            raise ValueError(
                f"The model {model.name!r} is neither Functional nor a built Sequential model, so "
                "its graph of layers can't be seen. Build it with the functional API, or call it "
                "once on data if it is Sequential."
            )
        self.prefix = prefix
        self.inputs = [Tensor(x) for x in self.model.inputs]
        self.steps: list[Step] = []

        def visit(call: _keras.Call, inputs: list[Tensor]) -> list[Tensor]:
            path = prefix + call.operation.name
            step = Step(call, path, options.of(path), inputs)
            self.steps.append(step)
            return step.outputs

        self.outputs: list[Tensor] = _keras.walk(self.model, self.inputs, visit)
        for step in self.steps:
            for tensor in set(step.inputs):
                tensor.uses += 1
        for tensor in self.outputs:
            tensor.uses += 1

    @property
    def tensors(self) -> list[Tensor]:
        """All its tensors: inputs, then in the order in which they are computed."""
        return [*self.inputs, *(x for step in self.steps for x in step.outputs)]
