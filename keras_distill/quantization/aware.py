"""Rebuilds a Keras model so that it computes what its integer TFLite file will compute."""

import collections
import difflib
import math
from collections.abc import Iterable, Mapping

import keras
import numpy as np
from keras import ops

from keras_distill.losses.base import PACKAGE
from keras_distill.quantization import layers as quantized
from keras_distill.quantization import supported
from keras_distill.quantization.ranges import FixedRange, LearnedRange, Range, _Range

_CALIBRATION_BATCH = 64


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizeAwareModel(keras.Model):
    """A Functional model that simulates integer arithmetic. Made by `quantize_aware`.

    Its outputs keep the names that they had before ranges were put behind them.
    """

    def __init__(self, inputs, outputs, name=None, **kwargs):
        super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)
        producers = [x._keras_history[0] for x in self.outputs]
        self.output_names = [getattr(op, "tensor", op.name) for op in producers]


def quantize_aware(
    model: keras.Model,
    calibration=None,
    *,
    weight_bits: int = 8,
    activation_bits: int = 8,
    layers: Mapping[str, Mapping[str, int] | None] | None = None,
    learned_steps: bool = False,
) -> keras.Model:
    """A copy of a model that simulates the integer arithmetic of its TFLite file.

    The copy has the inputs, outputs, layer names and weights of `model`, and is an ordinary Keras
    model: train it with `fit`, as the student of a `Distiller`, save it, load it. Kernels are
    rounded symmetrically with one scale per channel; behind each tensor of the file stands a
    layer that rounds it to a range. `keras_distill.tflite.convert` then writes these very scales
    and integers. BatchNormalization trains with the batch's statistics and is folded into the
    kernel at export, which changes no integer.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference" (arXiv:1712.05877), section 3; learned steps: Esser et al.
    (arXiv:1902.08153).

    Args:
        model: Functional or Sequential model, trained or fresh; models inside it likewise. It is
            left as it is.
        calibration: Inputs from which ranges start: an array, a list or dict of arrays as the
            model takes them, a `tf.data.Dataset`, or an iterable of batches. A few hundred
            samples of the training set will do. Without, ranges start from the first training
            batch.
        weight_bits: 8, or 4 (convolutions, depthwise convolutions and dense layers).
        activation_bits: 8, or 16 (the "16x8" kernels).
        layers: What differs by layer: from a path such as `"backbone/stem"` to a dict with
            `"weights"` and `"activations"`, or to `None` for a layer that stays float (for
            LiteRT; TFLite Micro wants none).
        learned_steps: Whether the sizes of steps are trained by gradient descent instead of
            following the data. Needs `calibration`.

    Returns:
        A `keras.Model` with the same inputs and outputs.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it isn't a graph of layers, or holds a layer that can't be simulated, whose
            path and mend the message names; if `calibration` doesn't fit the inputs.

    Example:

    >>> student = keras_distill.quantization.quantize_aware(student, calibration=x_train[:256])
    >>> distiller = keras_distill.Distiller(student, teacher, losses=SoftTargets(), alpha=0.1)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras 3 model. Received: model={model!r}")
    if is_quantize_aware(model):
        raise ValueError(f"The model {model.name!r} is quantize-aware already.")
    if learned_steps and calibration is None:
        raise ValueError(
            "`learned_steps=True` needs `calibration`: gradient descent moves the steps slowly, "
            "so they must start near their place."
        )
    options = _Options(model, weight_bits, activation_bits, layers or {}, learned_steps)
    rebuilt = _Rebuild(options).top(model)
    if calibration is not None:
        calibrate(rebuilt, calibration)
    return rebuilt


def is_quantize_aware(model: keras.Model) -> bool:
    """Whether a model was made by `quantize_aware`."""
    return isinstance(model, keras.Model) and any(
        isinstance(layer, _Range) for layer in model._flatten_layers()
    )


def precision(model: keras.Model) -> str:
    """What a quantize-aware model becomes: `"int8"`, `"int16x8"` or `"int4"`.

    Args:
        model: A model made by `quantize_aware`.

    Returns:
        `"int4"` if any kernel has 4 bits, `"int16x8"` if most tensors have 16 bits.

    Raises:
        ValueError: If the model isn't quantize-aware.
    """
    _require_quantize_aware(model)
    layers = model._flatten_layers()
    if any(isinstance(x, quantized._QuantizedKernel) and x.bits == 4 for x in layers):
        return "int4"
    bits = [x.bits for x in layers if isinstance(x, _Range)]
    return "int16x8" if sum(bits) > 12 * len(bits) else "int8"


def freeze(model: keras.Model) -> None:
    """Fixes the ranges and the BatchNormalization statistics of a quantize-aware model.

    Weights go on being trained. It takes effect at once, also in the middle of `fit`, so a
    callback can call it for the last epochs, in which the weights then settle on a fixed grid.

    Args:
        model: A model made by `quantize_aware`, or one that holds it (a `Distiller`).

    Raises:
        ValueError: If the model isn't quantize-aware.

    Example:

    >>> keras.callbacks.LambdaCallback(
    ...     on_epoch_begin=lambda epoch, logs: epoch == 8 and quantization.freeze(student)
    ... )
    """
    _require_quantize_aware(model)
    for layer in model._flatten_layers():
        if isinstance(layer, (Range, LearnedRange, quantized.QuantizedBatchNormalization)):
            layer.frozen.assign(1.0)


def calibrate(model: keras.Model, data) -> None:
    """Sets the ranges of a quantize-aware model to the extremes that its tensors take.

    Args:
        model: A model made by `quantize_aware`.
        data: As `calibration` in `quantize_aware`.

    Raises:
        ValueError: If the model isn't quantize-aware, or the data doesn't fit its inputs.
    """
    _require_quantize_aware(model)
    ranges = [x for x in model._flatten_layers() if isinstance(x, (Range, LearnedRange))]
    seen = collections.defaultdict(lambda: (0.0, 0.0))

    def observe(layer):
        def observer(x):
            extremes = float(ops.min(x)), float(ops.max(x))
            if not np.all(np.isfinite(x)):
                raise ValueError(
                    f"Calibration met NaN or infinity in the output of {layer.tensor!r}: look at "
                    "the samples and at the model's weights."
                )
            low, high = seen[layer]
            seen[layer] = min(low, extremes[0]), max(high, extremes[1])

        return observer

    everything = [x for x in model._flatten_layers() if isinstance(x, _Range)]
    for layer in everything:
        layer.observer = observe(layer)
    try:
        for batch in _batches(model, data):
            model(batch, training=False)
    finally:
        for layer in everything:
            layer.observer = None
    if not seen:
        raise ValueError("`calibration` holds no samples.")
    for layer in ranges:
        layer.start(*seen[layer])


def _require_quantize_aware(model):
    if not is_quantize_aware(model):
        raise ValueError(
            f"The model {model.name!r} isn't quantize-aware; "
            "make it so with `keras_distill.quantization.quantize_aware`."
        )


def _batches(model, data) -> Iterable:
    """`data` as batches that the model takes, each checked against its inputs."""
    specs = model.inputs
    is_structure = isinstance(data, dict) or (
        isinstance(data, (list, tuple))
        and len(data) == len(specs)
        and all(len(np.shape(x)) == len(s.shape) for x, s in zip(data, specs, strict=True))
    )
    if is_structure or hasattr(data, "shape"):
        flat = keras.tree.flatten(data)
        size = len(flat[0])
        if any(len(x) != size for x in flat):
            raise ValueError(
                "`calibration` holds inputs of different numbers of samples: "
                f"{[len(x) for x in flat]}."
            )
        batches = (
            keras.tree.map_structure(lambda x, i=i: x[i : i + _CALIBRATION_BATCH], data)
            for i in range(0, size, _CALIBRATION_BATCH)
        )
    elif isinstance(data, Iterable):
        # Data sets yield `(x, y)` or `(x, y, weight)` too.
        batches = (x[0] if isinstance(x, tuple) else x for x in data)
    else:
        raise ValueError(
            "`calibration` must be an array, a list or dict of arrays, or an iterable of batches. "
            f"Received: {type(data).__name__}"
        )
    for batch in batches:
        _check_batch(model, batch)
        yield batch


def _check_batch(model, batch):
    by_name = {x.name: x for x in model.inputs}
    if isinstance(batch, dict):
        pairs = [(batch.get(name), spec) for name, spec in by_name.items()]
    else:
        flat = keras.tree.flatten(batch)
        pairs = list(zip(flat, model.inputs, strict=False))
        if len(flat) != len(model.inputs):
            pairs = [(None, model.inputs[0])]
    for x, spec in pairs:
        fits = x is not None and len(np.shape(x)) == len(spec.shape)
        fits = fits and all(
            want in (None, have) for have, want in zip(np.shape(x)[1:], spec.shape[1:], strict=True)
        )
        if not fits:
            given = keras.tree.map_structure(lambda x: tuple(np.shape(x)), batch)
            wanted = {name: x.shape for name, x in by_name.items()}
            raise ValueError(
                f"`calibration` doesn't match the model's inputs: it has shapes {given} where the "
                f"inputs are {wanted}. Give batches of samples, as `model.predict` takes them."
            )


class _Options:
    """Bits by layer path."""

    def __init__(self, model, weight_bits, activation_bits, layers, learned_steps):
        self.learned_steps = learned_steps
        self.default = {"weights": weight_bits, "activations": activation_bits}
        known = set(_paths(model))
        self.by_path = {}
        for path, bits in layers.items():
            if path not in known:
                near = difflib.get_close_matches(path, known, n=3, cutoff=0.4)
                raise ValueError(
                    f"`layers` names {path!r}, which the model doesn't have. "
                    f"Nearest paths: {', '.join(near) or ', '.join(sorted(known)[:8])}."
                )
            if bits is not None and not set(bits) <= set(self.default):
                raise ValueError(
                    '`layers` maps paths to dicts of "weights" and "activations", or to None. '
                    f"Received: {path!r}: {bits!r}"
                )
            self.by_path[path] = None if bits is None else {**self.default, **bits}
        for bits in (self.default, *self.by_path.values()):
            if bits is not None and (
                bits["weights"] not in (4, 8) or bits["activations"] not in (8, 16)
            ):
                raise ValueError(
                    "TFLite has kernels for weights of 8 or 4 bits and activations of 8 or 16. "
                    f"Received: {bits}"
                )

    def of(self, path):
        """Bits of the layer at `path`, `None` where it stays float."""
        return self.by_path.get(path, self.default)


def _paths(model, prefix=""):
    graph = supported.graph_of(model)
    for operation in graph.operations if graph is not None else ():
        yield prefix + operation.name
        if isinstance(operation, keras.Model):
            yield from _paths(operation, f"{prefix}{operation.name}/")


class _Value:
    """A tensor of the new model. `range` is None while it is raw; float tensors have none."""

    def __init__(self, tensor, range=None, is_float=False):
        self.tensor = tensor
        self.range = range
        self.is_float = is_float


class _Rebuild:
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
                self._refuse(step, "Masks have no integer form.")
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
                self._refuse(step, f"There is no integer form of its activation {activation!r}.")
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
        raise ValueError(f"The layer {step.path!r} ({kind}) can't be simulated. {mend}")

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
            self._refuse(step, "Masks and returned scores have no integer form here.")
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
            return [_Value(self._apply(step, [value.tensor]), is_float=value.is_float)]
        bits = self.options.of(step.path)["activations"]
        if role in ("same", "identity", "relu"):
            return [self._build_same(step)]
        tensors = [self._rounded(x, bits, step) for x in step.inputs]
        if role == "fixed":
            return [self._fixed(self._apply(step, tensors), step)]
        output = _BUILDERS.get(role, _own)(self, step, tensors)
        return [output if isinstance(output, _Value) else _Value(output)]

    def _build_float(self, step):
        tensors = []
        for i, x in enumerate(step.inputs):
            value = self.values[id(x)]
            if not value.is_float and _is_float_dtype(x):
                name = f"{step.operation.name}_to_float" + (f"_{i}" if i else "")
                tensors.append(quantized.ToFloat(name=self._unique(name))(self._rounded(x)))
            else:
                tensors.append(value.tensor)
        outputs = keras.tree.flatten(self._apply(step, tensors))
        return [_Value(x, is_float=True) for x in outputs]

    def _build_model(self, step):
        new, _, results = self.rebuild.inner(step.operation, step.path)
        tensors = [self._rounded(x) for x in step.inputs]
        outputs = keras.tree.flatten(_call(new, step, tensors))
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
        return _Value(self._apply(step, tensors), shared)

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
        names = {"tensor": name, "name": self._unique(f"{name}_range")}
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
        range = FixedRange(signed, bits, tensor=name, name=self._unique(f"{name}_range"))
        return _Value(range(tensor), range)

    def _unique(self, name):
        """A name for a new layer: `name`, numbered where a layer is called more than once."""
        self.names[name] += 1
        return name if self.names[name] == 1 else f"{name}_{self.names[name] - 1}"

    def _apply(self, step, tensors):
        """Calls the counterpart of a layer without a rounded kernel."""
        operation = step.operation
        if not isinstance(operation, keras.layers.Layer):
            return _call(operation, step, tensors)

        def make():
            config = operation.get_config()
            if type(operation) is keras.layers.BatchNormalization:
                return quantized.QuantizedBatchNormalization.from_config(config)
            return type(operation).from_config(config)

        def copy(new):
            old = operation.get_weights()
            if old:
                new.set_weights([*old, *new.get_weights()[len(old) :]])

        return self.layer(operation, make, copy, lambda layer: _call(layer, step, tensors))

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


def _call(operation, step, tensors):
    """Calls `operation` as the step did, on other tensors."""
    new = {id(old): x for old, x in zip(step.inputs, tensors, strict=True)}
    args, kwargs = step.node.arguments.convert(
        lambda x: new[id(x)] if isinstance(x, keras.KerasTensor) else x
    )
    return operation(*args, **kwargs)


def _is_dense(operation):
    """Whether an EinsumDense maps the last axis alone, as Dense does."""
    left, right = operation.equation.replace(" ", "").replace("...", "").split("->")
    inputs, kernel = left.split(",")
    return len(kernel) == 2 and inputs[-1] == kernel[0] and inputs[:-1] + kernel[1] == right


# Builders: from rounded inputs to a raw output.


def _own(level, step, tensors):
    """Layers and activations whose output has a range of its own."""
    operation = step.operation
    if type(operation) is keras.layers.PReLU:
        return _prelu(level, step, tensors)
    if type(operation) is keras.layers.LayerNormalization:
        return _layer_normalization(level, step, tensors[0])
    if type(operation) is keras.layers.MultiHeadAttention:
        return _attention(level, step, tensors)
    if supported.activation_of(operation) == "silu":
        return _silu(level, step, tensors[0], level._unique(operation.name))
    return level._apply(step, tensors)


def _prelu(level, step, tensors):
    operation = step.operation

    def copy(new):
        new.float_kernel.assign(operation.alpha)
        new.start()

    return level.layer(
        operation,
        lambda: level.kernel_layer(quantized.QuantizedPReLU, operation.get_config(), step),
        copy,
        lambda layer: layer(*tensors),
    )


def _weights(level, step, tensors):
    """A layer with a kernel, with its activation split off unless the kernel fuses it."""
    operation = step.operation
    activation = supported.name_of(getattr(operation, "activation", None))
    config = operation.get_config()
    name = operation.name
    is_split = activation not in ("linear", *supported.RELU)
    if is_split:
        config = {**config, "activation": "linear", "name": f"{name}_linear"}
    if type(operation) in supported.SEPARABLE:
        y = _separable(level, step, tensors[0], config)
    else:
        kind = supported.WEIGHTS.get(type(operation), quantized.QuantizedDense)
        if type(operation) is keras.layers.EinsumDense:
            config = _dense_config(operation, config)

        def copy(new):
            new.float_kernel.assign(operation.kernel)
            if operation.bias is not None:
                new.bias.assign(operation.bias)
            new.start()

        make = lambda: level.kernel_layer(kind, config, step)  # noqa: E731
        y = level.layer(operation, make, copy, lambda layer: layer(tensors[0]))
    if not is_split:
        return y
    x = level.round(y, f"{name}_linear", step)
    name = level._unique(name)
    if activation == "silu":
        return _silu(level, step, x, name)
    y = keras.layers.Activation(operation.activation, name=name, dtype=operation.dtype_policy)(x)
    if activation in supported.FIXED_RANGE:
        return level.fix(y, activation, name, level.options.of(step.path)["activations"])
    return y


def _silu(level, step, x, name):
    bits = level.options.of(step.path)["activations"]
    gate = keras.layers.Activation("sigmoid", name=f"{name}_gate")(x)
    gate = level.fix(gate, "sigmoid", f"{name}_gate", bits).tensor
    return keras.layers.Multiply(name=name)([x, gate])


def _dense_config(operation, config):
    keys = ("name", "trainable", "dtype", "activation", "kernel_regularizer", "bias_regularizer")
    return {
        **{key: config[key] for key in keys},
        "units": operation.kernel.shape[-1],
        "use_bias": operation.bias is not None,
    }


def _separable(level, step, x, config):
    operation = step.operation
    depthwise, pointwise = supported.SEPARABLE[type(operation)]
    shared = ("trainable", "dtype", "padding", "strides", "kernel_size", "dilation_rate")
    first = {
        **{key: config[key] for key in (*shared, "depth_multiplier", "depthwise_regularizer")},
        "name": f"{operation.name}_depthwise",
        "use_bias": False,
    }
    keys = ("name", "trainable", "dtype", "filters", "activation", "use_bias", "bias_regularizer")
    second = {
        **{key: config[key] for key in keys},
        "kernel_size": 1,
        "kernel_regularizer": config["pointwise_regularizer"],
    }

    def copy_depthwise(new):
        new.float_kernel.assign(operation.depthwise_kernel)
        new.start()

    def copy_pointwise(new):
        new.float_kernel.assign(operation.pointwise_kernel)
        if operation.use_bias:
            new.bias.assign(operation.bias)
        new.start()

    x = level.layer(
        (operation.depthwise_kernel),
        lambda: level.kernel_layer(depthwise, first, step),
        copy_depthwise,
        lambda layer: layer(x),
    )
    x = level.round(x, f"{operation.name}_depthwise", step)
    return level.layer(
        operation,
        lambda: level.kernel_layer(pointwise, second, step),
        copy_pointwise,
        lambda layer: layer(x),
    )


def _arithmetic(level, step, tensors):
    """Two tensors at a time, each partial result rounded."""
    operation = step.operation
    if len(tensors) <= 2:
        return level._apply(step, tensors)
    total = tensors[0]
    for i, x in enumerate(tensors[1:-1]):
        name = level._unique(f"{operation.name}_{i}")
        total = level.round(type(operation)(name=name)([total, x]), name, step)
    return type(operation)(name=level._unique(operation.name))([total, tensors[-1]])


def _layer_normalization(level, step, x):
    """`(x - mean) * rsqrt(variance + epsilon)`, then scale and offset."""
    operation = step.operation
    name = level._unique(operation.name)
    rounded = lambda x, part: level.round(x, f"{name}_{part}", step)  # noqa: E731
    mean = rounded(ops.mean(x, axis=-1, keepdims=True), "mean")
    centered = rounded(keras.layers.Subtract(name=f"{name}_centered")([x, mean]), "centered")
    square = keras.layers.Multiply(name=f"{name}_square")([centered, centered])
    variance = rounded(ops.mean(rounded(square, "square"), axis=-1, keepdims=True), "variance")
    offset = keras.layers.Rescaling(1.0, operation.epsilon, name=f"{name}_epsilon")(variance)
    inverse = rounded(ops.rsqrt(rounded(offset, "epsilon")), "inverse")
    normal = keras.layers.Multiply(name=f"{name}_normal")([centered, inverse])
    if not (operation.scale or operation.center):
        return normal
    config = {
        "name": operation.name,
        "dtype": operation.dtype_policy,
        "scale": operation.scale,
        "center": operation.center,
    }

    def copy(new):
        if operation.scale:
            new.gamma.assign(operation.gamma)
        if operation.center:
            new.beta.assign(operation.beta)

    normal = rounded(normal, "normal")
    return level.layer(
        operation, lambda: quantized.ScaleAndOffset(**config), copy, lambda layer: layer(normal)
    )


def _attention(level, step, tensors):
    """Projections, scores, softmax and their mean, each a kernel of its own."""
    operation = step.operation
    name = level._unique(operation.name)
    query, value, key = _call(lambda q, v, k=None, **_: (q, v, k), step, tensors)
    key = value if key is None else key
    heads, size = operation.num_heads, operation.key_dim
    value_size = operation._value_dim
    rounded = lambda x, part: level.round(x, f"{name}_{part}", step)  # noqa: E731

    def project(x, part, dense, size, factor=1.0):
        units = heads * size

        def copy(new):
            new.float_kernel.assign(ops.reshape(dense.kernel * factor, (-1, units)))
            if dense.bias is not None:
                new.bias.assign(ops.reshape(dense.bias * factor, (units,)))
            new.start()

        config = {
            "units": units,
            "use_bias": dense.bias is not None,
            "name": f"{operation.name}_{part}",
            "dtype": operation.dtype_policy,
        }
        y = level.layer(
            dense,
            lambda: level.kernel_layer(quantized.QuantizedDense, config, step),
            copy,
            lambda layer: layer(x),
        )
        y = keras.layers.Reshape((x.shape[1], heads, size))(rounded(y, part))
        return keras.layers.Permute((2, 1, 3))(y)

    # The scores' factor 1/sqrt(size) is part of the query's kernel.
    q = project(query, "query", operation._query_dense, size, 1 / math.sqrt(size))
    k = project(key, "key", operation._key_dense, size)
    v = project(value, "value", operation._value_dense, value_size)
    scores = rounded(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))), "scores")
    weights = keras.layers.Softmax(name=f"{name}_softmax")(scores)
    bits = level.options.of(step.path)["activations"]
    weights = level.fix(weights, "softmax", f"{name}_softmax", bits).tensor
    if operation.dropout:
        weights = keras.layers.Dropout(operation.dropout, name=f"{name}_dropout")(weights)
    context = rounded(ops.matmul(weights, v), "context")
    context = keras.layers.Permute((2, 1, 3))(context)
    context = keras.layers.Reshape((query.shape[1], heads * value_size))(context)
    dense = operation._output_dense

    def copy(new):
        new.float_kernel.assign(ops.reshape(dense.kernel, new.float_kernel.shape))
        if dense.bias is not None:
            new.bias.assign(dense.bias)
        new.start()

    config = {
        "units": dense.kernel.shape[-1],
        "use_bias": dense.bias is not None,
        "name": operation.name,
        "dtype": operation.dtype_policy,
    }
    return level.layer(
        operation,
        lambda: level.kernel_layer(quantized.QuantizedDense, config, step),
        copy,
        lambda layer: layer(context),
    )


_BUILDERS = {"weights": _weights, "arithmetic": _arithmetic}
