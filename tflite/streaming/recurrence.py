"""Recurrent layers in a stream: their step, once for each new element, its state in ports."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from keras_distill.tflite import flatbuffer
from keras_distill.tflite.flatbuffer import File
from keras_distill.tflite.streaming.rewriting import Rewriting
from keras_distill.tflite.streaming.timeline import Elements

_TYPES = {
    schema.TensorType.FLOAT32: "float32",
    schema.TensorType.INT8: "int8",
    schema.TensorType.INT16: "int16",
}


@dataclasses.dataclass(frozen=True)
class Recurrence:
    """What computes the next states of a recurrent layer from those before.

    Attributes:
        layer: Name of the layer.
        states: Names of the states, each with the tensor before an element and that after it.
        operators: The operators in between, in order.
    """

    layer: str
    states: dict[str, tuple[int, int]]
    operators: list[Any]


def closed(tflite: bytes, states: Sequence[str]) -> bytes:
    """A file whose states come out in the scale in which they go in.

    Args:
        tflite: The file, names included.
        states: Names of the states; their outputs are named `<state>_out`.
    """
    file = File(tflite)
    signature = file.model.signatureDefs[0]
    before = {entry.name.decode(): entry.tensorIndex for entry in signature.inputs}
    for entry in signature.outputs:
        state = entry.name.decode().removesuffix("_out")
        if state not in states:
            continue
        wanted, given = (file.graph.tensors[i] for i in (before[state], entry.tensorIndex))
        if given.type == schema.TensorType.FLOAT32 or flatbuffer.same_steps(wanted, given):
            continue
        index = file.add_tensor(f"{state}_closed", given.shape, given.type, wanted.quantization)
        file.graph.operators.append(file.conversion("QUANTIZE", entry.tensorIndex, index))
        file.graph.outputs = [index if i == entry.tensorIndex else i for i in file.graph.outputs]
        entry.tensorIndex = index
    return file.to_bytes()


def found(file: Rewriting, carried: Mapping[str, Sequence[str]]) -> list[Recurrence]:
    """The recurrences of a file.

    Args:
        file: The file of a window.
        carried: Names of the states of each recurrent layer, by its name.
    """
    result = []
    for layer, names in carried.items():
        states = {name: file.carried[name] for name in names}
        later, earlier = {i for i, _ in states.values()}, {o for _, o in states.values()}
        for op in file.graph.operators:
            if later.intersection(op.inputs):
                later.update(op.outputs)
        for op in reversed(file.graph.operators):
            if earlier.intersection(op.outputs):
                earlier.update(op.inputs)
        both = later & earlier
        between = [op for op in file.graph.operators if both.intersection(op.outputs)]
        result.append(Recurrence(layer, states, between))
    return result


def in_order(operators: Sequence[Any], recurrences: Sequence[Recurrence]) -> list[list[Any]]:
    """Operators such that each recurrence is computed at once, in groups."""
    owners = {id(op): r.operators for r in recurrences for op in r.operators}
    left = [owners.get(id(op), [op]) for op in operators]
    left = [group for i, group in enumerate(left) if operators[i] is group[0]]
    waited_for = {i for op in operators for i in op.outputs}
    result = []
    while left:
        for group in left:
            own = {i for op in group for i in op.outputs}
            if all(i in own or i not in waited_for for op in group for i in op.inputs):
                break
        left.remove(group)
        waited_for -= own
        result.append(group)
    return result


class Unrolled:
    """A recurrence in a stream, once for each of the new elements of a step.

    Args:
        file: The file on its way to a stream.
        recurrence: The recurrence.
        rule: Takes an operator into the stream.
    """

    def __init__(self, file: Rewriting, recurrence: Recurrence, rule: Callable):
        self.file = file
        self.recurrence = recurrence
        self.rule = rule
        own = {i for op in recurrence.operators for i in op.outputs}
        before = {i for i, _ in recurrence.states.values()}
        used = {i for op in recurrence.operators for i in op.inputs}
        self._own = own
        self._given = sorted(i for i in used - own - before if i in file.times)
        inside = {id(op) for op in recurrence.operators}
        outside = {i for op in file.graph.operators if id(op) not in inside for i in op.inputs}
        self._results = sorted(own & (outside | set(file.graph.outputs)))
        self.time = self._time()

    def _time(self) -> Elements:
        """When the elements come that the layer is given."""
        times = [self.file.times[i] for i in self._given]
        first = times[0]
        if not isinstance(first, Elements) or any(
            not isinstance(time, Elements) or (time.delay, time.start) != (first.delay, 0)
            for time in times
        ):
            raise ValueError(
                f"Layer {self.recurrence.layer!r} can't run frame by frame: before its first frame "
                "it would get what is computed before the recording starts. Use "
                '`padding="causal"` or `padding="valid"` in the layers before it.'
            )
        return first

    def emit(self) -> None:
        """Takes the recurrence into the stream."""
        file, count = self.file, self.file.new(self.time)
        holds = self._holds(count) if self.time.delay > 0 else [None] * count
        state = {i: i for i, _ in self.recurrence.states.values()}
        steps = []
        for k, hold in enumerate(holds):
            tensors = {**{i: self._element(i, k, count) for i in self._given}, **state}
            for i in state.values():
                file.place(file.actual(i), dataclasses.replace(self.time, axis=1, stride=file.hop))
            for op in self.recurrence.operators:
                self._copy(op, tensors, count)
            steps.append(tensors)
            after = [(i, file.actual(tensors[o])) for i, o in self.recurrence.states.values()]
            state = {i: o if hold is None else file.product(o, hold) for i, o in after}
        for name, (i, _) in self.recurrence.states.items():
            file.carry_port(name, i, state[i])
        for index in self._results:
            self._result(index, [tensors[index] for tensors in steps])

    def _element(self, index: int, k: int, count: int) -> int:
        """The new element number `k` of a tensor."""
        time = self.file.times[index]
        assert isinstance(time, Elements)
        source = self.file.actual(index)
        if count == 1:
            return source
        result = self.file.slice(f"{self.file.tensor_name(source)}/{k}", source, time.axis, k, 1)
        self.file.shapes[result] = self.file.shapes[index]
        self.file.times[result] = dataclasses.replace(time, stride=self.file.hop)
        return result

    def _copy(self, op: Any, tensors: dict[int, int], count: int) -> None:
        """Takes a copy of an operator into the stream, with tensors of its own."""
        file, op = self.file, copy.deepcopy(op)
        for index in op.outputs:
            tensors[index] = index if count == 1 else file.twin(index)
        op.inputs = [tensors.get(i, i) for i in op.inputs]
        op.outputs = [tensors[i] for i in op.outputs]
        self.rule(file, op)

    def _result(self, index: int, elements: list[int]) -> None:
        """Joins a result of each element."""
        time = self.file.times[elements[0]]
        assert isinstance(time, Elements)
        time = dataclasses.replace(time, stride=self.time.stride).remembered()
        if len(elements) > 1:
            self.file.join([self.file.actual(i) for i in elements], index, time.axis)
        self.file.place(index, time)

    def _holds(self, count: int) -> list[int | None]:
        """For each new element 0 where it comes before the first of the recording, else 1.

        A state times it stays zero until then.
        """
        file, (first, *_) = self.file, self.recurrence.states.values()
        tensor = file.graph.tensors[first[0]]
        ones = np.ones((1, count, 1), _TYPES[tensor.type])
        quantization = None
        if tensor.type != schema.TensorType.FLOAT32:
            quantization = flatbuffer.quantization_of([1.0], [0])
        name = f"{next(iter(self.recurrence.states))}_holds"
        index = file.add_tensor(name, ones.shape, tensor.type, quantization, ones.tobytes())
        file.shapes[index] = ones.shape
        time = dataclasses.replace(self.time, axis=1)
        held = file.behind(name, index, time, self.time.delay)
        if count == 1:
            return [held]
        return [file.slice(f"{name}/{k}", held, 1, k, 1) for k in range(count)]
