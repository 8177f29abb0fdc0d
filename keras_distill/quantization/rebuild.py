"""Rebuilds a graph of layers with rounded kernels, and a range after each tensor of the file."""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_distill import _keras
from keras_distill._types import PACKAGE
from keras_distill.frozen import finalize
from keras_distill.quantization import layers as quantized
from keras_distill.quantization.graph import Graph, Outside, Step, Tensor, Value
from keras_distill.quantization.options import Options
from keras_distill.quantization.plan import plan
from keras_distill.quantization.ranges import AnyRange, FixedRange, LearnedRange, Range
from keras_distill.quantization.rules import rule_of
from keras_distill.quantization.rules.rule import Output


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizeAwareModel(keras.Model):
    """A Functional model that simulates integer arithmetic. Made by `quantize_aware`.

    Its outputs keep the names that they had before ranges were put after them.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any):
        super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)
        producers = [_keras.producer_of(x) for x in self.outputs]
        self.output_names = [getattr(op, "tensor", op.name) for op in producers]


@dataclasses.dataclass(frozen=True)
class Nested:
    """A rebuilt model that is called inside another.

    Attributes:
        model: The model.
        outputs: The tensors that it was rebuilt from, in the order of its outputs.
    """

    model: keras.Model
    outputs: list[Tensor]


class Rebuild:
    """Rebuilds a model and all models inside it, each layer once."""

    def __init__(self, options: Options):
        self.options = options
        #: Counterparts by layer and part of it.
        self.layers: dict[tuple[Any, str], Any] = {}
        self._nested: dict[keras.Model, Nested] = {}

    def outermost(self, model: keras.Model) -> keras.Model:
        """The counterpart of a model, its inputs and outputs rounded."""
        builder = Builder(self, model, "")
        inputs = builder.new_inputs()
        values = builder.run([Value(x) for x in inputs], is_closed=True)
        return _model(QuantizeAwareModel, builder.graph.model, model, inputs, values)

    def nested(self, step: Step) -> Nested:
        """The counterpart of the model that a step calls."""
        model = step.operation
        if model not in self._nested:
            builder = Builder(self, model, f"{step.path}/")
            inputs = builder.new_inputs()
            # What comes in has been rounded outside.
            values = builder.run([Value(x, Outside(i)) for i, x in enumerate(inputs)])
            new = _model(keras.Model, builder.graph.model, model, inputs, values)
            self._nested[model] = Nested(new, builder.graph.outputs)
        return self._nested[model]


def _model(kind: Any, graph: Any, old: keras.Model, inputs: list, values: list[Value]) -> Any:
    return kind(
        keras.tree.pack_sequence_as(graph.input, inputs),
        keras.tree.pack_sequence_as(graph.output, [x.tensor for x in values]),
        name=old.name,
        trainable=old.trainable,
    )


def _merged(config: dict) -> dict:
    """The config of a layer whose low-rank adaptation (LoRA) is merged into its weights."""
    return {key: value for key, value in config.items() if not key.startswith("lora_")}


class Builder:
    """Builds the counterpart of one Functional model; rules build layers by its methods."""

    def __init__(self, rebuild: Rebuild, model: keras.Model, prefix: str):
        self._rebuild = rebuild
        self._options = rebuild.options
        self._names: collections.Counter[str] = collections.Counter()
        self._range_calls: collections.Counter[str] = collections.Counter()
        #: The ranges that are layers of the counterpart.
        self.ranges: list[AnyRange] = []
        self.graph = Graph(model, prefix, rebuild.options)
        plan(self.graph, rebuild.nested)

    def new_inputs(self) -> list:
        """Inputs of the counterpart."""
        given = self.graph.model.inputs
        return [keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name) for x in given]

    def run(self, inputs: Sequence[Value], is_closed: bool = False) -> list[Value]:
        """The values of the model's outputs, from those of its inputs.

        An output that nothing inside the model reads stays raw, for the model around it to fuse
        and round, unless `is_closed`.
        """
        for tensor, value in zip(self.graph.inputs, inputs, strict=True):
            tensor.value = value
        for step in self.graph.steps:
            for tensor, value in zip(step.outputs, self._build(step), strict=True):
                tensor.value = value
        for tensor in self.graph.outputs:
            if (is_closed or tensor.uses > 1) and not tensor.value.is_float:
                self._rounded(tensor)
        return [tensor.value for tensor in self.graph.outputs]

    # What rules build with.

    @property
    def learned_steps(self) -> bool:
        """Whether step sizes are trained by gradient descent."""
        return self._options.learned_steps

    def apply(self, step: Step, tensors: list) -> Any:
        """Calls the counterpart of a layer without a rounded kernel."""
        operation = step.operation
        if not isinstance(operation, keras.layers.Layer):
            return step.call.repeat(operation, tensors)

        def make() -> keras.Layer:
            rule = rule_of(operation)
            kind: Any = (rule and rule.counterpart) or type(operation)
            return kind.from_config(_merged(operation.get_config()))

        def copy(new: keras.Layer) -> None:
            old = operation.get_weights()
            if getattr(operation, "lora_enabled", False):
                old = [keras.ops.convert_to_numpy(operation.embeddings)]
            if old:
                new.set_weights([*old, *new.get_weights()[len(old) :]])
                finalize(new)

        return self.once(operation, make, copy, lambda layer: step.call.repeat(layer, tensors))

    def kernel(
        self,
        step: Step,
        kind: Any,
        config: dict,
        tensors: list,
        kernel: Any,
        bias: Any = None,
        part: str = "",
    ) -> Any:
        """Calls a layer with a rounded kernel, which starts from the given weights.

        Args:
            step: The step that it belongs to.
            kind: Class of the layer.
            config: Its config, less what rounding adds.
            tensors: Its rounded inputs.
            kernel: The kernel, in any shape of as many elements.
            bias: The bias, likewise, or `None`.
            part: Which of the step's kernels it is, where there are several.

        Returns:
            The layer's output.
        """
        rounding = {"bits": step.bits.weights, "learned_steps": self.learned_steps}

        def copy(new: Any) -> None:
            variable = new.float_kernel
            variable.assign(keras.ops.reshape(kernel, variable.shape))
            if bias is not None:
                new.bias.assign(keras.ops.reshape(bias, new.bias.shape))
            new.start()

        return self.once(
            step.operation,
            lambda: kind.from_config({**_merged(config), **rounding}),
            copy,
            lambda layer: layer(*tensors),
            part,
        )

    def once(
        self,
        operation: Any,
        make: Callable[[], Any],
        copy: Callable[[Any], None],
        call: Callable[[Any], Any],
        part: str = "",
    ) -> Any:
        """Calls the counterpart of (a part of) a layer, made and given its weights only once."""
        known = self._rebuild.layers
        if (operation, part) in known:
            return call(known[operation, part])
        new = known[operation, part] = make()
        outputs = call(new)
        copy(new)
        return outputs

    def round(self, x: Any, name: str, step: Step, of_inverses: bool = False) -> Any:
        """`x` rounded to a range of its own."""
        return self._new_range(name, step.bits.activations, of_inverses=of_inverses)(x)

    def joined(self, tensors: list, name: str, step: Step) -> tuple[list, AnyRange]:
        """Tensors rounded to a range that they share, and the range."""
        range = self._new_range(name, step.bits.activations, len(tensors))
        return [self._call_range(range, x) for x in tensors], range

    def fix(self, x: Any, name: str, step: Step, signed: bool = False) -> Value:
        """`x` rounded to the range that its kernel prescribes."""
        bits = step.bits.activations
        range = FixedRange(signed, bits, tensor=name, name=self.unique(f"{name}_range"))
        self.ranges.append(range)
        return Value(range(x), range)

    def unique(self, name: str) -> str:
        """A name for a new layer: `name`, numbered where a layer is called more than once."""
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}_{self._names[name] - 1}"

    # Steps.

    def _build(self, step: Step) -> list[Value]:
        """The values of a step's outputs."""
        rule = step.rule
        if rule.output is Output.FLOAT:
            return self._build_float(step)
        if rule.output is Output.NESTED:
            return self._build_nested(step)
        if step.is_fused:
            value = step.inputs[0].value
            return [Value(self.apply(step, [value.tensor]), is_float=value.is_float)]
        if rule.output is Output.SAME:
            return [self._build_same(step)]
        tensors = [self._rounded(x, step) for x in step.inputs]
        build = rule.build or Builder.apply
        output = build(self, step, tensors)
        if rule.output is Output.FIXED:
            return [self.fix(output, step.operation.name, step, rule.signed)]
        return [output if isinstance(output, Value) else Value(output)]

    def _build_float(self, step: Step) -> list[Value]:
        tensors = []
        for i, x in enumerate(step.inputs):
            if x.value.is_float or not x.holds_floats:
                tensors.append(x.value.tensor)
                continue
            name = f"{step.operation.name}_to_float" + (f"_{i}" if i else "")
            tensors.append(quantized.ToFloat(name=self.unique(name))(self._rounded(x)))
        outputs = keras.tree.flatten(self.apply(step, tensors))
        return [Value(x, is_float=True) for x in outputs]

    def _build_nested(self, step: Step) -> list[Value]:
        tensors = [self._rounded(x) for x in step.inputs]
        outputs = keras.tree.flatten(step.call.repeat(step.nested.model, tensors))
        values = []
        for tensor, inner in zip(outputs, step.nested.outputs, strict=True):
            range = inner.value.range
            if isinstance(range, Outside):
                range = step.inputs[range.index].value.range
            values.append(Value(tensor, range, inner.value.is_float))
        return values

    def _build_same(self, step: Step) -> Value:
        tensors = [self._rounded(x) for x in step.inputs]
        ranges = [x.value.range for x in step.inputs]
        shared = ranges[0]
        if any(range is not shared for range in ranges):
            shared = self._range_of(step.outputs[0], step.operation.name)
            tensors = [
                tensor if range is shared else self._call_range(shared, tensor)
                for tensor, range in zip(tensors, ranges, strict=True)
            ]
        return Value(self.apply(step, tensors), shared)

    # Ranges.

    def _rounded(self, x: Tensor, step: Step | None = None) -> Any:
        """The counterpart of a tensor, rounded (once more where a step takes other bits)."""
        value = x.value
        if not x.holds_floats:
            return value.tensor
        if value.range is None:
            value.range = self._range_of(x, x.origin)
            value.tensor = self._call_range(value.range, value.tensor)
            value.is_float = False
        if step is not None and step.bits.activations != self._bits(value.range):
            name = f"{step.operation.name}_input"
            return self._new_range(name, step.bits.activations)(value.tensor)
        return value.tensor

    def _bits(self, range: AnyRange | Outside) -> int:
        if isinstance(range, Outside):
            return self._options.default.activations
        return range.bits

    def _range_of(self, x: Tensor, name: str) -> AnyRange:
        """The range of the group that a tensor is in, called `name` where it is new."""
        group = x.group
        if group.range is None:
            bits = self._options.activations_of(self.graph.prefix + name)
            group.range = self._new_range(name, bits, group.shared)
        return group.range

    def _new_range(
        self, name: str, bits: int, tensors: int = 1, of_inverses: bool = False
    ) -> AnyRange:
        options: dict[str, Any] = {"tensor": name, "name": self.unique(f"{name}_range")}
        options["of_inverses"] = of_inverses
        if self._options.learned_steps:
            self.ranges.append(LearnedRange(bits, **options))
        else:
            self.ranges.append(Range(bits, tensors=tensors, **options))
        return self.ranges[-1]

    def _call_range(self, range: AnyRange, tensor: Any) -> Any:
        """Rounds one of the tensors that share a range."""
        if not isinstance(range, Range) or range.tensors == 1:
            return range(tensor)
        self._range_calls[range.name] += 1
        return range(tensor, index=self._range_calls[range.name] - 1)
