"""Rebuilds a graph of layers with rounded kernels, and a range behind each tensor of the file."""

import collections

import keras

from keras_distill._types import PACKAGE
from keras_distill.quantization import layers as quantized
from keras_distill.quantization import supported
from keras_distill.quantization.builders import BUILDERS, call_as, own
from keras_distill.quantization.ranges import FixedRange, LearnedRange, Range


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizeAwareModel(keras.Model):
    """A Functional model that simulates integer arithmetic. Made by `quantize_aware`.

    Its outputs keep the names that they had before ranges were put behind them.
    """

    def __init__(self, inputs, outputs, name=None, **kwargs):
        super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)
        producers = [x._keras_history[0] for x in self.outputs]
        self.output_names = [getattr(op, "tensor", op.name) for op in producers]


class _Value:
    """A tensor of the new model. `range` is None while it is raw; float tensors have none."""

    def __init__(self, tensor, range=None, is_float=False):
        self.tensor = tensor
        self.range = range
        self.is_float = is_float


class Rebuild:
    """Rebuilds models; one instance for a model and all models inside it."""

    def __init__(self, options):
        self.options = options
        self.layers = {}
        self.models = {}

    def top(self, model):
        level = _Level(self, model, "")
        inputs = level.new_inputs()
        values = [_Value(x) for x in inputs]
        outputs = [x.tensor for x in level.run(values, is_closed=True)]
        return QuantizeAwareModel(
            keras.tree.pack_sequence_as(level.graph._inputs_struct, inputs),
            keras.tree.pack_sequence_as(level.graph._outputs_struct, outputs),
            name=model.name,
            trainable=model.trainable,
        )

    def inner(self, model, path):
        """The counterpart of a model inside another, and its level, each built once."""
        if id(model) not in self.models:
            level = _Level(self, model, f"{path}/")
            inputs = level.new_inputs()
            # What comes in has been rounded outside.
            values = [_Value(x, range=_Outside(i)) for i, x in enumerate(inputs)]
            outputs = level.run(values)
            new = keras.Model(
                keras.tree.pack_sequence_as(level.graph._inputs_struct, inputs),
                keras.tree.pack_sequence_as(
                    level.graph._outputs_struct, [x.tensor for x in outputs]
                ),
                name=model.name,
                trainable=model.trainable,
            )
            self.models[id(model)] = new, level, outputs
        return self.models[id(model)]


class _Outside:
    """Stands for the range of an input of an inner model."""

    bits = None

    def __init__(self, index):
        self.index = index


class _Step:
    """One call of a layer or operation in the model to be rebuilt."""

    def __init__(self, node, path):
        self.node = node
        self.operation = node.operation
        self.path = path
        self.inputs = node.arguments.keras_tensors
        self.outputs = node.outputs
        self.role = None
        self.is_fused = False


class _Level:
    """One Functional model: which of its tensors share a range, then its counterpart.

    A tensor is raw between the operation that makes it and the layer that rounds it. Activations
    and BatchNormalization take raw tensors where the TFLite kernel does both in one go.
    """

    def __init__(self, rebuild, model, prefix):
        self.rebuild = rebuild
        self.options = rebuild.options
        self.graph = supported.graph_of(model)
        if self.graph is None:
            raise ValueError(
                f"The model {model.name!r} is neither Functional nor a built Sequential model, so "
                "its graph of layers can't be seen. Build it with the functional API, or call it "
                "once on data if it is Sequential."
            )
        self.prefix = prefix
        self.inputs = self.graph.inputs
        self.steps = [
            _Step(node, prefix + node.operation.name)
            for depth in sorted(self.graph._nodes_by_depth, reverse=True)
            for node in self.graph._nodes_by_depth[depth]
            if not node.is_input
        ]
        self.makers = {id(x): step for step in self.steps for x in step.outputs}
        self.uses = collections.Counter(
            id(x) for step in self.steps for x in {id(x): x for x in step.inputs}.values()
        )
        self.uses.update(id(x) for x in self.graph.outputs)
        self._plan()

    def new_inputs(self):
        """Inputs of the counterpart."""
        return [keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name) for x in self.inputs]

    # Planning: roles, and groups of tensors that share a range.

    def _plan(self):
        self.group = {}
        self.ranges = {}
        self.names = collections.Counter()
        self.handed_over = collections.Counter()
        # For each raw tensor: what may still be fused into the kernel that makes it.
        fusable = {}
        self.is_float = {}
        raw = set() if self.prefix else {id(x) for x in self.inputs}
        given = set() if not self.prefix else {id(x) for x in self.inputs}
        for step in self.steps:
            step.role = self._role(step)
            first = step.inputs[0]
            alone = self.uses[id(first)] == 1
            stays_float = self.is_float.get(id(first), False) and alone
            if step.role in ("norm", "relu", "identity") and stays_float:
                step.is_fused = True
            elif step.role in ("norm", "relu"):
                may = fusable.get(id(first), ())
                step.is_fused = id(first) in raw and alone and step.role in may
            elif step.role == "identity":
                step.is_fused = id(first) in raw and alone
            for i, output in enumerate(step.outputs):
                self.is_float[id(output)] = step.role == "float" or (step.is_fused and stays_float)
                if step.role == "model":
                    self._plan_model_output(step, i, output, raw, given, fusable)
                elif step.is_fused:
                    raw.add(id(output))
                    before = fusable.get(id(first), ())
                    fusable[id(output)] = {
                        "norm": ("relu",),
                        "relu": (),
                        "identity": before,
                    }[step.role]
                elif step.role in ("same", "identity", "relu"):
                    self._share(step.inputs, output, given)
                elif step.role == "fixed":
                    given.add(id(output))
                else:
                    raw.add(id(output))
                    fusable[id(output)] = self._fusable(step)
        self.fusable = fusable
        # How many tensors each shared range is applied to.
        self.sharing = collections.Counter(
            self._root(x) for x in {id(x): x for x in self._tensors() if id(x) in raw}.values()
        )
        for step in self.steps:
            root = self._root(step.outputs[0])
            if step.role == "same" and len({self._root(x) for x in step.inputs}) > 1:
                self.sharing[root] += sum(self._root(x) != root for x in step.inputs)

    def _tensors(self):
        yield from self.inputs
        for step in self.steps:
            yield from step.outputs

    def _plan_model_output(self, step, index, output, raw, given, fusable):
        _, level, outputs = self.rebuild.inner(step.operation, step.path)
        value = outputs[index]
        if isinstance(value.range, _Outside):
            self._share([step.inputs[value.range.index]], output, given)
        elif value.range is None:
            raw.add(id(output))
            fusable[id(output)] = level.fusable.get(id(level.graph.outputs[index]), ())
            self.is_float[id(output)] = value.is_float
        else:
            given.add(id(output))

    def _role(self, step):
        """What part a layer plays; raises where it can't be simulated."""
        operation, path = step.operation, step.path
        if self.options.of(path) is None:
            return "float"
        kind, name = type(operation), supported.operation_name(operation)
        if getattr(operation, "data_format", None) == "channels_first":
            self._refuse(step, 'TFLite wants `data_format="channels_last"`.')
        if isinstance(operation, keras.Model) and supported.is_functional(operation):
            return "model"
        activation = supported.activation_of(operation)
        if activation == "linear" or kind in supported.IDENTITY:
            return "identity"
        if activation in supported.RELU:
            return "relu"
        if activation in supported.FIXED_RANGE:
            if step.node.arguments.kwargs.get("mask") is not None:
                self._refuse(step, "Masks have no integer form: leave `mask` out.")
            return "fixed"
        if activation in supported.OTHER_ACTIVATIONS:
            self._check_int16(step, activation)
            return "own"
        if kind is keras.layers.BatchNormalization:
            if getattr(operation, "renorm", False) or operation.axis not in (-1, _last(step)):
                self._refuse(step, "Use `axis=-1` and `renorm=False`.")
            return "norm"
        if kind in supported.WEIGHTS or kind in supported.SEPARABLE:
            activation = supported.name_of(operation.activation)
            if not supported.is_supported_activation(activation):
                self._refuse(step, supported.no_activation(activation))
            self._check_int16(step, activation)
            return "weights"
        if kind is keras.layers.EinsumDense and _is_dense(operation):
            return "weights"
        if kind in (keras.layers.PReLU, keras.layers.LayerNormalization):
            if kind is keras.layers.LayerNormalization and list(operation.axis) not in (
                [-1],
                [_last(step)],
            ):
                self._refuse(step, "Use `axis=-1`.")
            return "own"
        if kind is keras.layers.MultiHeadAttention:
            self._check_attention(step)
            return "own"
        if kind in supported.ARITHMETIC:
            return "arithmetic"
        if name in supported.ARITHMETIC_OPERATIONS:
            if len(step.inputs) != 2:
                self._refuse(step, "Use `keras.layers.Rescaling` for arithmetic with constants.")
            return "arithmetic"
        if kind in supported.SAME_RANGE or name in supported.SAME_RANGE_OPERATIONS:
            return "same"
        if kind in supported.OWN_RANGE and not getattr(operation, "mask_zero", False):
            return "own"
        if name in supported.OWN_RANGE_OPERATIONS:
            return "own"
        self._refuse(step, supported.why_not(operation))

    def _refuse(self, step, mend):
        kind = type(step.operation).__name__
        raise ValueError(
            f"The layer {step.path!r} ({kind}) can't be simulated. {mend} Or keep it float, for "
            f"LiteRT alone: `layers={{{step.path!r}: None}}`."
        )

    def _check_int16(self, step, activation):
        bits = self.options.of(step.path)["activations"]
        if bits == 16 and activation in supported.WITHOUT_INT16:
            self._refuse(
                step,
                f"Its activation {activation!r} has no kernel of 16 bits: give it 8 with "
                f'`layers={{{step.path!r}: {{"activations": 8}}}}`.',
            )

    def _check_attention(self, step):
        unused = ("attention_mask", "query_mask", "key_mask", "value_mask")
        keywords = step.node.arguments.kwargs
        if any(keywords.get(name) is not None for name in unused) or any(
            keywords.get(name) for name in ("use_causal_mask", "return_attention_scores")
        ):
            self._refuse(
                step, "Masks and returned scores have no integer form here: leave them out."
            )
        if step.operation._use_gate or step.operation._sliding_window:
            self._refuse(
                step, "`use_gate` and `sliding_window` have no integer form here: leave them out."
            )
        shape = step.inputs[0].shape
        if len(shape) != 3 or None in [n for x in step.inputs for n in x.shape[1:]]:
            self._refuse(step, "Its inputs must have the static shape (steps, features).")

    def _fusable(self, step):
        """What the kernel of a step can do to its output before it is rounded."""
        if step.role == "weights":
            activation = supported.name_of(getattr(step.operation, "activation", None))
            return ("norm", "relu") if activation == "linear" else ()
        if step.role in ("norm", "arithmetic"):
            return ("relu",)
        if type(step.operation) in (keras.layers.Rescaling, keras.layers.Normalization):
            return ("relu",)
        return ()

    def _root(self, tensor):
        key = id(tensor)
        while self.group.get(key, key) != key:
            key = self.group[key]
        return key

    def _share(self, inputs, output, given):
        """Puts an output into the range of its inputs, and these into one."""
        roots = list(dict.fromkeys(self._root(x) for x in inputs))
        if len(roots) > 1:
            # A range given from elsewhere can't be shared; its tensor is rounded once more.
            roots = [root for root in roots if root not in given] or [id(output)]
        for root in roots[1:]:
            self.group[root] = roots[0]
        if roots[0] != id(output):
            self.group[id(output)] = roots[0]

    # Building.

    def run(self, inputs, is_closed=False):
        """The values of the model's outputs, from those of its inputs.

        An output that nothing inside the model reads stays raw, for the model around it to fuse
        and round, unless `is_closed`.
        """
        self.values = {id(x): value for x, value in zip(self.inputs, inputs, strict=True)}
        for step in self.steps:
            outputs = self._build(step)
            for old, new in zip(step.outputs, outputs, strict=True):
                self.values[id(old)] = new
        for x in self.graph.outputs:
            if (is_closed or self.uses[id(x)] > 1) and not self.values[id(x)].is_float:
                self._rounded(x)
        return [self.values[id(x)] for x in self.graph.outputs]

    def _build(self, step):
        role = step.role
        if role == "float":
            return self._build_float(step)
        if role == "model":
            return self._build_model(step)
        if step.is_fused:
            value = self.values[id(step.inputs[0])]
            return [_Value(self.apply(step, [value.tensor]), is_float=value.is_float)]
        bits = self.options.of(step.path)["activations"]
        if role in ("same", "identity", "relu"):
            return [self._build_same(step)]
        tensors = [self._rounded(x, bits, step) for x in step.inputs]
        if role == "fixed":
            return [self._fixed(self.apply(step, tensors), step)]
        output = BUILDERS.get(role, own)(self, step, tensors)
        return [output if isinstance(output, _Value) else _Value(output)]

    def _build_float(self, step):
        tensors = []
        for i, x in enumerate(step.inputs):
            value = self.values[id(x)]
            if not value.is_float and _is_float_dtype(x):
                name = f"{step.operation.name}_to_float" + (f"_{i}" if i else "")
                tensors.append(quantized.ToFloat(name=self.unique(name))(self._rounded(x)))
            else:
                tensors.append(value.tensor)
        outputs = keras.tree.flatten(self.apply(step, tensors))
        return [_Value(x, is_float=True) for x in outputs]

    def _build_model(self, step):
        new, _, results = self.rebuild.inner(step.operation, step.path)
        tensors = [self._rounded(x) for x in step.inputs]
        outputs = keras.tree.flatten(call_as(new, step, tensors))
        values = []
        for tensor, result in zip(outputs, results, strict=True):
            range = result.range
            if isinstance(range, _Outside):
                range = self.values[id(step.inputs[range.index])].range
            values.append(_Value(tensor, range, result.is_float))
        return values

    def _build_same(self, step):
        tensors = [self._rounded(x) for x in step.inputs]
        ranges = [self.values[id(x)].range for x in step.inputs]
        shared = ranges[0]
        if any(range is not shared for range in ranges):
            shared = self._range_of(step.outputs[0], step)
            tensors = [
                tensor if range is shared else self._call_range(shared, tensor)
                for tensor, range in zip(tensors, ranges, strict=True)
            ]
        return _Value(self.apply(step, tensors), shared)

    def _rounded(self, x, bits=None, step=None):
        """The counterpart of a tensor, rounded (once more where `bits` asks for others)."""
        value = self.values[id(x)]
        if not _is_float_dtype(x):
            return value.tensor
        if value.range is None:
            value.range = self._range_of(x)
            value.tensor = self._call_range(value.range, value.tensor)
            value.is_float = False
        have = value.range.bits or self.options.default["activations"]
        if bits is not None and bits != have:
            return self.new_range(f"{step.operation.name}_input", step.path, bits)(value.tensor)
        return value.tensor

    def _range_of(self, x, step=None):
        """The range of the group that a tensor is in."""
        root = self._root(x)
        if root not in self.ranges:
            name = self._name_of(x) if step is None else step.operation.name
            self.ranges[root] = self.new_range(name, self.prefix + name, tensors=self.sharing[root])
        return self.ranges[root]

    def _name_of(self, x):
        """Name of the layer that makes a tensor, layers passed over that do nothing to it."""
        step = self.makers.get(id(x))
        while step is not None and step.role == "identity":
            x = step.inputs[0]
            step = self.makers.get(id(x))
        return x._keras_history.operation.name

    def _call_range(self, range, tensor):
        """Rounds one of the tensors that share a range."""
        if not isinstance(range, Range) or range.tensors == 1:
            return range(tensor)
        self.handed_over[range.name] += 1
        return range(tensor, index=self.handed_over[range.name] - 1)

    def new_range(self, name, path, bits=None, tensors=1):
        """A new layer that rounds tensors of `bits` bits."""
        bits = bits or (self.options.of(path) or self.options.default)["activations"]
        names = {"tensor": name, "name": self.unique(f"{name}_range")}
        if self.options.learned_steps:
            return LearnedRange(bits, **names)
        return Range(bits, tensors=tensors, **names)

    def round(self, x, name, step):
        """`x` rounded to a range of its own."""
        return self.new_range(name, step.path)(x)

    def _fixed(self, tensor, step):
        name = step.operation.name
        bits = self.options.of(step.path)["activations"]
        activation = supported.activation_of(step.operation)
        return self.fix(tensor, activation, name, bits)

    def fix(self, tensor, activation, name, bits):
        """A tensor rounded to the range that its activation's kernel prescribes."""
        signed = supported.FIXED_RANGE[activation]
        range = FixedRange(signed, bits, tensor=name, name=self.unique(f"{name}_range"))
        return _Value(range(tensor), range)

    def unique(self, name):
        """A name for a new layer: `name`, numbered where a layer is called more than once."""
        self.names[name] += 1
        return name if self.names[name] == 1 else f"{name}_{self.names[name] - 1}"

    def apply(self, step, tensors):
        """Calls the counterpart of a layer without a rounded kernel."""
        operation = step.operation
        if not isinstance(operation, keras.layers.Layer):
            return call_as(operation, step, tensors)

        def make():
            config = operation.get_config()
            if type(operation) is keras.layers.BatchNormalization:
                return quantized.QuantizedBatchNormalization.from_config(config)
            return type(operation).from_config(config)

        def copy(new):
            old = operation.get_weights()
            if old:
                new.set_weights([*old, *new.get_weights()[len(old) :]])

        return self.layer(operation, make, copy, lambda layer: call_as(layer, step, tensors))

    def layer(self, key, make, copy, call):
        """Calls the counterpart of a layer, which is made and given its weights once."""
        known = self.rebuild.layers
        if id(key) in known:
            return call(known[id(key)])
        new = known[id(key)] = make()
        outputs = call(new)
        copy(new)
        return outputs

    def kernel_layer(self, kind, config, step):
        """A new layer with a rounded kernel."""
        bits = self.options.of(step.path)["weights"]
        if bits == 4 and not issubclass(kind, supported.WITH_INT4):
            self._refuse(
                step,
                "It has no kernel for weights of 4 bits: give it 8 with "
                f'`layers={{{step.path!r}: {{"weights": 8}}}}`.',
            )
        learned = self.options.learned_steps
        return kind.from_config({**config, "bits": bits, "learned_steps": learned})


def _is_float_dtype(x):
    return keras.backend.is_float_dtype(x.dtype)


def _last(step):
    return len(step.inputs[0].shape) - 1


def _is_dense(operation):
    """Whether an EinsumDense maps the last axis alone, as Dense does."""
    left, right = operation.equation.replace(" ", "").replace("...", "").split("->")
    inputs, kernel = left.split(",")
    return len(kernel) == 2 and inputs[-1] == kernel[0] and inputs[:-1] + kernel[1] == right
