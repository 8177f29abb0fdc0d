"""A file for a window of frames, rewritten to take the next frames and give the next outputs.

The operators and their weights, scales and integers stay as they are: each computes what is new
only. What an operator needs of earlier frames comes in as state, is joined with the new elements,
and the last of both go out as the state of the next step.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from keras_distill.tflite import targets
from keras_distill.tflite.flatbuffer import File, shape_of
from keras_distill.tflite.streaming.timeline import Elements, Timeline, WindowValue
from keras_distill.tflite.student_function import unique_names


@dataclasses.dataclass(frozen=True)
class Streamed:
    """A file that runs frame by frame.

    Attributes:
        tflite: The file, names included.
        hop: How many frames a step takes.
        window: How many frames the student takes at once.
        states: Names of the inputs that are state; their outputs are named `<state>_out`.
        outputs: When the other outputs come, by name.
        probed: The file with further outputs, the features that are pooled over the window, or
            `None` where outputs can be compared without them.
        probes: When these come, by name.
        probed_window: The file of the window with the same outputs.
    """

    tflite: bytes
    hop: int
    window: int
    states: list[str]
    outputs: dict[str, Timeline]
    probed: bytes | None = None
    probes: dict[str, Timeline] = dataclasses.field(default_factory=dict)
    probed_window: bytes | None = None


class Rewriting(File):
    """The file of a window on its way to a stream.

    Args:
        tflite: The file, of batch size 1, names included.
        hop: How many frames a step takes.
        scopes: Name scopes of each layer's operators, by the layer's name.
        states: Names of the inputs that are the states of recurrent layers before each element.
            Those after it are outputs named `<state>_out`.

    Attributes:
        hop: How many frames a step takes.
        carried: These states' inputs and outputs, by name.
        times: What is known of tensors, by index.
        shapes: Shapes of the tensors in the file of the window, by index.
        operators: The operators of the stream so far.
    """

    def __init__(
        self,
        tflite: bytes,
        hop: int,
        scopes: Mapping[str, set[str]],
        states: Sequence[str] = (),
    ):
        super().__init__(tflite)
        self.hop = hop
        self._scopes = [(scope, name) for name, each in scopes.items() for scope in each if scope]
        self.times: dict[int, Timeline] = {}
        self.shapes = {
            i: tuple(int(size) for size in shape_of(t)) for i, t in enumerate(self.graph.tensors)
        }
        self.graph.inputs, self.graph.outputs = list(self.graph.inputs), list(self.graph.outputs)
        self.operators: list[Any] = []
        self._given = tflite
        #: What is pooled over the window: by its tensor in the file of the window, that in the
        #: stream, and the layer that pools it.
        self._pooled: dict[int, tuple[int, str]] = {}
        self._alias: dict[int, int] = {}
        #: Joined tensors by tensor and buffer: several operators may need the same frames.
        self._joined: dict[tuple[int, int], int] = {}
        #: States as (name wanted, index of the input, index of the output).
        self._states: list[tuple[str, int, int]] = []
        self.carried = {name: self._take_port(name) for name in states}
        self.window = self._start()

    def _take_port(self, name: str) -> tuple[int, int]:
        """A state's input and output, which are ports no longer."""
        signature, found = self.model.signatureDefs[0], []
        for side, entries, wanted in (
            ("inputs", signature.inputs, name), ("outputs", signature.outputs, f"{name}_out")
        ):  # fmt: skip
            (entry,) = (e for e in entries if e.name.decode() == wanted)
            entries.remove(entry)
            ports = getattr(self.graph, side)
            ports.remove(entry.tensorIndex)
            found.append(entry.tensorIndex)
        return found[0], found[1]

    def _start(self) -> int:
        """Gives the inputs their place in time, and returns the length of the window."""
        lengths = {(0, 0, *self.shapes[i][1:2])[-1] for i in self.graph.inputs}
        if len(lengths) > 1 or 0 in lengths:
            given = {self.tensor_name(i): self.shapes[i] for i in self.graph.inputs}
            raise ValueError(
                "`stream` needs inputs of one length along time (their second axis). Received "
                f"inputs of the shapes {given}."
            )
        (window,) = lengths
        for index in self.graph.inputs:
            self.place(index, Elements.of_window(1, window))
        return window

    # For the rules of operators.

    def name_of(self, op: Any) -> str:
        """Name of the layer that an operator belongs to."""
        constants = [i for i in op.inputs if i >= 0 and i not in self.times]
        tensors = [targets.layer_of(self.tensor_name(i)) for i in (op.outputs[0], *constants)]
        for tensor in tensors:
            inside = [(len(scope), name) for scope, name in self._scopes
                      if f"{tensor}/".startswith(f"{scope}/")]  # fmt: skip
            if inside:
                return max(inside)[1]
        return tensors[0]

    def refuse(self, op: Any, why: str) -> NoReturn:
        """Raises for an operator that can't run frame by frame."""
        raise ValueError(
            f"Layer {self.name_of(op)!r} ({self.operator_name(op)}) can't run frame by frame: {why}"
        )

    def new(self, elements: Elements) -> int:
        """How many new elements a step has."""
        return self.hop // elements.stride

    def place(self, index: int, time: Timeline) -> None:
        """Notes when a tensor's values come, and gives it the shape of a step."""
        self.times[index] = time
        if isinstance(time, Elements):
            self._resize(index, time.axis, self.new(time))

    def emit(self, op: Any, *times: Timeline) -> None:
        """Takes an operator into the stream, with what is known of its outputs."""
        for index, time in zip(op.outputs, times, strict=True):
            self.place(index, time)
        op.inputs = [self.actual(i) for i in op.inputs]
        self.operators.append(op)

    def drop(self, op: Any, source: int, time: Elements) -> None:
        """Leaves an operator out whose output is, element by element, its input.

        Only the numbers of the elements in a window change.
        """
        source, target = self.actual(source), op.outputs[0]
        if target in self.graph.outputs:
            shape = shape_of(self.graph.tensors[source])
            self.operators.append(self.reshape(source, shape, target))
            self.place(target, time)
        else:
            self._alias[target] = source
            self.times[target] = time

    def actual(self, index: int) -> int:
        """The tensor that stands for one whose operator was left out, else the tensor itself."""
        return self._alias.get(index, index)

    def constant(self, op: Any, place: int, values: Sequence[int]) -> None:
        """Gives an operator other integers (a shape, paddings) in place of constant ones."""
        old = self.graph.tensors[op.inputs[place]]
        name = f"{self.tensor_name(op.inputs[place])}/step"
        op.inputs = list(op.inputs)
        if old.type == schema.TensorType.INT64:
            data = np.asarray(values, "int64").tobytes()
            op.inputs[place] = self.add_tensor(name, [len(values)], old.type, None, data)
        else:
            op.inputs[place] = self.add_integers(name, values)

    def ints(self, index: int) -> list[int]:
        """The integers of a constant tensor."""
        tensor = self.graph.tensors[index]
        wide = tensor.type == schema.TensorType.INT64
        data = self.data(tensor, "int64" if wide else "int32")
        if data is None:
            raise ValueError(f"The tensor {self.tensor_name(index)!r} isn't constant.")
        return [int(x) for x in data]

    # Buffers.

    def preceded(self, op: Any, index: int, elements: Elements, buffer: int) -> int:
        """A tensor with the elements of a step and `buffer` ones before them."""
        if not buffer:
            return index
        source = self.actual(index)
        if (source, buffer) not in self._joined:
            make = self._remember if buffer > 0 else self._leave_out
            self._joined[source, buffer] = make(op, source, elements, buffer)
        return self._joined[source, buffer]

    def window_of(self, op: Any, index: int, elements: Elements) -> int:
        """A tensor with the elements of the window that ends with a step."""
        self._pooled[index] = self.actual(index), self.name_of(op)
        return self.preceded(op, index, elements, elements.length - self.new(elements))

    def align(self, op: Any, places: Sequence[int]) -> list[Timeline]:
        """Delays inputs of an operator so that they are equally late, and returns when they are."""
        times = [self.times[op.inputs[i]] for i in places]
        if all(isinstance(t, Elements) for t in times):
            latest = max(t.delay for t in times if isinstance(t, Elements))
            late = [(t, latest - t.delay) for t in times if isinstance(t, Elements)]
        else:
            latest = max(t.offset for t in times)
            late = [(t, self._steps(op, latest - t.offset)) for t in times]  # type: ignore[misc]
        op.inputs = list(op.inputs)
        for place, (time, delay) in zip(places, late, strict=True):
            if delay:
                op.inputs[place] = self._delayed(op, op.inputs[place], time, delay)
        return [self.times[op.inputs[i]] for i in places]

    def _steps(self, op, frames):
        if frames % self.hop:
            self.refuse(
                op,
                f"its inputs come {frames} frames apart, which is no multiple of the hop of "
                f"{self.hop}. Use a hop that divides {frames}.",
            )
        return frames // self.hop

    def _delayed(self, op, index, time, delay):
        """A tensor of what came `delay` elements (or steps) ago."""
        if isinstance(time, WindowValue):
            source, once = self.actual(index), Elements(0, 1, self.hop)
            joined = self._remember(op, source, once, delay)
            later: Timeline = dataclasses.replace(time, offset=time.offset + delay * self.hop)
            axis, count = 0, 1
        else:
            joined = self.preceded(op, index, time, delay)
            later, axis, count = time.delayed(time.delay + delay), time.axis, self.new(time)
        result = self.slice(f"{self.tensor_name(index)}/delayed", joined, axis, 0, count)
        self.times[result] = later
        return result

    def _remember(self, op, index, elements, buffer):
        """Joins the elements of a step with `buffer` ones before, which become a state."""
        return self._stored(f"{self.name_of(op)}_state", index, elements, buffer)

    def _stored(self, wanted, index, elements, buffer):
        """`_remember` with a name for the state."""
        count, axis = self.new(elements), elements.axis
        state = self._like(index, wanted, axis, buffer)
        joined = self._like(index, f"{self.tensor_name(index)}/joined", axis, buffer + count)
        self.join([state, index], joined, axis)
        after = self.slice(f"{wanted}_out", joined, axis, count, buffer)
        self._states.append((wanted, state, after))
        return joined

    def carry(self, op: Any, places: Sequence[int]) -> None:
        """Makes ports of the variables in which a recurrent operator keeps its state.

        Each is an input and an output at once: the operator needs a variable, and nothing in the
        graph would keep a copy of it from being made before the operator has run.
        """
        layer = self.name_of(op)
        if layer.startswith("tfl."):
            # The converter's own name, where it has forgotten that of the layer.
            layer = "lstm"
        for i, place in enumerate(places):
            self._states.append((f"{layer}_state_{i}", op.inputs[place], op.inputs[place]))

    # For recurrent layers.

    def carry_port(self, name: str, before: int, after: int) -> None:
        """Makes ports of a recurrent layer's state before and after a step."""
        self._states.append((name, before, self.actual(after)))

    def twin(self, index: int) -> int:
        """A new tensor like another, in the file of the window too."""
        tensor = self.graph.tensors[index]
        result = self.add_tensor(
            self.tensor_name(index), shape_of(tensor), tensor.type, tensor.quantization
        )
        self.shapes[result] = self.shapes[index]
        return result

    def join(self, sources: Sequence[int], target: int, axis: int) -> None:
        """Adds a concatenation along an axis."""
        options = schema.ConcatenationOptionsT()
        options.axis = axis
        kind = schema.BuiltinOptions.ConcatenationOptions
        self._add("CONCATENATION", sources, target, kind, options)

    def behind(self, wanted: str, index: int, elements: Elements, delay: int) -> int:
        """A tensor of what another was `delay` elements ago, zero before it has been anything."""
        joined = self._stored(wanted, index, elements, delay)
        return self.slice(f"{wanted}/behind", joined, elements.axis, 0, self.new(elements))

    def product(self, index: int, factor: int) -> int:
        """A tensor times another that is 0 or 1, in its own scale."""
        tensor = self.graph.tensors[index]
        result = self.add_tensor(
            f"{self.tensor_name(index)}/held", shape_of(tensor), tensor.type, tensor.quantization
        )
        self.shapes[result] = self.shapes[index]
        kind, options = schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
        self._add("MUL", [index, factor], result, kind, options)
        return result

    def _leave_out(self, op, index, elements, buffer):
        """The elements of a step without the first ones."""
        name = f"{self.tensor_name(index)}/later"
        return self.slice(name, index, elements.axis, -buffer, self.new(elements) + buffer)

    def slice(self, name: str, source: int, axis: int, begin: int, size: int) -> int:
        """A tensor of the elements of another from `begin` on along an axis."""
        result = self._like(source, name, axis, size)
        shape = shape_of(self.graph.tensors[result])
        begins = [begin if i == axis else 0 for i in range(len(shape))]
        constants = [
            self.add_integers(f"{name}/{part}", values)
            for part, values in (("begin", begins), ("size", shape))
        ]
        self._add(
            "SLICE", [source, *constants], result, schema.BuiltinOptions.SliceOptions,
            schema.SliceOptionsT(),
        )  # fmt: skip
        return result

    def padded(self, op: Any, index: int, axis: int, before: int, after: int) -> int:
        """A tensor with zeros before and after along an axis other than time."""
        index = self.actual(index)
        size = shape_of(self.graph.tensors[index])[axis] + before + after
        result = self._like(index, f"{self.tensor_name(index)}/padded", axis, size)
        rank = len(shape_of(self.graph.tensors[index]))
        pads = np.zeros((rank, 2), "int32")
        pads[axis] = before, after
        constant = self.add_integers("paddings", pads)
        self._add(
            "PAD", [index, constant], result, schema.BuiltinOptions.PadOptions, schema.PadOptionsT()
        )
        return result

    def _add(self, name, inputs, output, kind, options):
        op = schema.OperatorT()
        op.opcodeIndex = self._code(getattr(schema.BuiltinOperator, name))
        op.inputs, op.outputs = list(inputs), [output]
        op.builtinOptionsType, op.builtinOptions = kind, options
        self.operators.append(op)

    def _like(self, index, name, axis, size):
        """A new tensor of the type and the scale of another, of another size along an axis."""
        tensor = self.graph.tensors[index]
        shape = shape_of(tensor)
        shape[axis] = size
        result = self.add_tensor(name, shape, tensor.type, tensor.quantization)
        self.shapes[result] = tuple(shape)
        return result

    def _resize(self, index, axis, size):
        tensor = self.graph.tensors[index]
        tensor.shape = shape_of(tensor)
        tensor.shape[axis] = size
        tensor.shapeSignature = None

    # The whole file.

    def finished(self) -> Streamed:
        """The file of the stream."""
        graph = self.graph
        signature = self.model.signatureDefs[0]
        # Their tensors may have other names.
        outputs = {entry.name.decode(): self.times[entry.tensorIndex]
                   for entry in signature.outputs}  # fmt: skip
        for name, time in outputs.items():
            if isinstance(time, Elements) and time.axis != 1:
                raise ValueError(
                    f"Output {name!r} has time as axis {time.axis}. A stream gives outputs whose "
                    "second axis is time: transpose them in the student."
                )
        graph.operators = self.operators
        names = unique_names([name for name, _, _ in self._states], "state")
        for name, (_, before, after) in zip(names, self._states, strict=True):
            self._port(graph.inputs, signature.inputs, name, before)
            self._port(graph.outputs, signature.outputs, f"{name}_out", after)
        given = self.to_bytes()
        self.drop_unused()
        result = Streamed(self.to_bytes(), self.hop, self.window, names, outputs)
        return self._with_probes(result, given) if self._edges(outputs) else result

    def _edges(self, outputs):
        """Whether outputs depend on what the student pads windows with."""
        return any(isinstance(time, WindowValue) and not time.always for time in outputs.values())

    def _with_probes(self, streamed, given):
        """With what is pooled over the window as outputs, of the window and of the stream."""
        window, stream = File(self._given), File(given)
        names = unique_names([f"{layer}_input" for _, layer in self._pooled.values()], "input")
        probes: dict[str, Timeline] = {}
        for name, (index, (actual, _)) in zip(names, self._pooled.items(), strict=True):
            time = self.times[index]
            if not isinstance(time, Elements) or math.prod(self.shapes[index][: time.axis]) > 1:
                continue
            probes[name] = time.moved(1)
            for file, tensor in ((window, index), (stream, actual)):
                _expose(file, tensor, name, time.axis)
        return dataclasses.replace(
            streamed, probed=stream.to_bytes(), probes=probes, probed_window=window.to_bytes()
        )

    def _port(self, indices, maps, name, index):
        self.graph.tensors[index].name = name.encode()
        indices.append(index)
        maps.append(_entry(name, index))


def _entry(name: str, index: int) -> Any:
    """A signature's entry that gives a tensor a name."""
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


def _expose(file: File, index: int, name: str, axis: int) -> None:
    """Makes a tensor an output, its axis along time the second one."""
    tensor = file.graph.tensors[index]
    shape = [1, *shape_of(tensor)[axis:]]
    output = file.add_tensor(name, shape, tensor.type, tensor.quantization)
    file.graph.operators.append(file.reshape(index, shape, output))
    file.graph.outputs = [*file.graph.outputs, output]
    file.model.signatureDefs[0].outputs.append(_entry(name, output))
