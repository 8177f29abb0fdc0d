"""The form of a quantize-aware model that the TFLite converter takes, and what it stands for."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_distill.quantization import layers as quantized
from keras_distill.quantization.ranges import AnyRange
from keras_distill.quantization.rules import activation_of, rule_of
from keras_distill.quantization.rules.rule import Output

#: A marker raises its tensor to the power of its number, counted from here. The converter hands
#: that on as it is, so the number is found again in the file.
FIRST_MARKER = 1000

_DEPTHWISE = (quantized.QuantizedDepthwiseConv1D, quantized.QuantizedDepthwiseConv2D)
_TRANSPOSED = (quantized.QuantizedConv1DTranspose, quantized.QuantizedConv2DTranspose)
_AFFINE = (
    quantized.QuantizedBatchNormalization,
    quantized.ScaleAndOffset,
    keras.layers.Rescaling,
    keras.layers.Normalization,
)


@dataclasses.dataclass(frozen=True)
class Marker:
    """Where a range belongs: behind the tensor called `name`.

    Attributes:
        name: Path of the layer whose output it is.
        bits: 8 or 16; 0 where integers turn into floats.
        scale: Size of a step.
        zero_point: The integer that stands for 0.
        turns_type: Whether the tensor was an integer of another range, or a float, before.
    """

    name: str
    bits: int = 0
    scale: float = 0.0
    zero_point: int = 0
    turns_type: bool = False


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Constant weights of a kernel, BatchNormalization folded into them.

    Attributes:
        name: Path of the layer.
        integers: The integers in TFLite's layout, int8.
        scales: Size of a step for each channel, float32.
        axis: Axis of the channels in TFLite's layout.
        bits: 8 or 4.
        floats: What the integers stand for, in TFLite's layout, float32.
    """

    name: str
    integers: np.ndarray
    scales: np.ndarray
    axis: int
    bits: int
    floats: np.ndarray


def export_form(model: keras.Model) -> keras.Model:
    """The model to be converted to a float TFLite file, which `write_integers` then completes.

    Nested models are dissolved, BatchNormalization is folded, kernels hold the values that their
    integers stand for, and a marker takes the place of each range. It is for the converter alone:
    what it computes means nothing.

    Args:
        model: A model made by `quantize_aware`.

    Returns:
        A Functional model with the same inputs and outputs.

    Raises:
        ValueError: If a range has seen no data yet.
    """
    return Export(model).model


class _Tensor:
    """A tensor of the export form. `integers` is its marker, None for raw and float tensors."""

    def __init__(self, tensor, integers=None, is_float=False, pending=None):
        self.tensor = tensor
        self.integers = integers
        self.is_float = is_float
        #: A layer with a kernel whose BatchNormalization may still come.
        self.pending = pending


class Export:
    """A quantize-aware model, dissolved into markers, kernels and what lies between.

    Attributes:
        model: The export form.
        markers: `Marker`s, in the order of their numbers.
        kernels: `Kernel`s.
    """

    def __init__(self, model):
        self.markers = []
        self.kernels = []
        self.names = {}
        self.tensor_names = {}
        inputs = [
            keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name) for x in model.inputs
        ]
        outputs = self._run(model, [_Tensor(x) for x in inputs], "")
        self.model = keras.Model(
            keras.tree.pack_sequence_as(model._inputs_struct, inputs),
            keras.tree.pack_sequence_as(
                model._outputs_struct, [self._tensor(value) for value in outputs]
            ),
            name=model.name,
        )
        self.model.output_names = model.output_names

    def _run(self, model, inputs, prefix):
        values = {id(x): value for x, value in zip(model.inputs, inputs, strict=True)}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                given = [values[id(x)] for x in node.arguments.keras_tensors]
                results = self._step(node, given, prefix)
                values.update({id(x): y for x, y in zip(node.outputs, results, strict=True)})
        return [values[id(x)] for x in model.outputs]

    def _step(self, node, given, prefix):
        operation, first = node.operation, given[0]
        path = prefix + operation.name
        if hasattr(operation, "_nodes_by_depth") and not first.is_float:
            return self._run(operation, given, f"{path}/")
        if isinstance(operation, AnyRange):
            return [self._mark_range(operation, first, prefix)]
        if isinstance(operation, quantized.ToFloat):
            return [self._mark_float(first, path)]
        rule = rule_of(operation)
        if rule is not None and rule.does_nothing:
            return [first]
        is_float = any(x.is_float for x in given)
        if not is_float:
            if type(operation) is quantized.QuantizedPReLU:
                return [_Tensor(self._prelu(operation, first, path))]
            if isinstance(operation, quantized.QuantizedKernel):
                return [_Tensor(None, pending=(operation, self._tensor(first), path))]
            if isinstance(operation, quantized.QuantizedBatchNormalization) and first.pending:
                return [_Tensor(self._kernel(*first.pending, *operation.scale_and_offset()))]
            if isinstance(operation, _AFFINE):
                return [_Tensor(self._affine(self._tensor(first), path, *_affine_of(operation)))]
            special = self._special(operation, first, path)
            if special is not None:
                return [_Tensor(special, integers=first.integers)]
        tensors = {
            id(x): self._tensor(value)
            for x, value in zip(node.arguments.keras_tensors, given, strict=True)
        }
        args, kwargs = node.arguments.convert(
            lambda x: tensors[id(x)] if isinstance(x, keras.KerasTensor) else x
        )
        outputs = keras.tree.flatten(self._counterpart(operation, path)(*args, **kwargs))
        keeps = rule is not None and rule.output is Output.SAME
        return [
            _Tensor(x, integers=first.integers if keeps else None, is_float=is_float)
            for x in outputs
        ]

    def _tensor(self, value):
        if value.pending is not None:
            value.tensor = self._kernel(*value.pending)
            value.pending = None
        return value.tensor

    # Markers.

    def _mark(self, value, marker):
        number = FIRST_MARKER + len(self.markers)
        self.markers.append(marker)
        return _Mark(number, name=self._unique("marker"))(self._tensor(value))

    def _mark_range(self, layer, value, prefix):
        if not _has_started(layer):
            raise ValueError(
                f"The range of {prefix + layer.tensor!r} has seen no data: train the model, or "
                "give `quantize_aware` some `calibration`."
            )
        scale, zero_point = (np.float32(x) for x in layer.grid())
        same = value.integers is not None and (
            (value.integers.bits, value.integers.scale, value.integers.zero_point)
            == (layer.bits, scale, int(zero_point))
        )
        if same:
            return value
        marker = Marker(
            _numbered(self.tensor_names, prefix + layer.tensor),
            layer.bits,
            scale,
            int(zero_point),
            turns_type=value.integers is not None or value.is_float,
        )
        return _Tensor(self._mark(value, marker), integers=marker)

    def _mark_float(self, value, path):
        if value.integers is None:
            # Made from integers that aren't quantized, such as an embedding.
            marker = Marker(path)
        else:
            marker = Marker(path, turns_type=True)
        return _Tensor(self._mark(value, marker), is_float=True)

    # Counterparts of layers.

    def _kernel(self, layer, x, path, scale=None, offset=None):
        """The plain Keras layer with the kernel that the integers stand for."""
        integers, steps = layer.integers()
        bias = np.float64(layer.bias) if layer.use_bias else None
        if scale is not None:
            folded = scale
            if isinstance(layer, _DEPTHWISE):
                folded = scale.reshape(integers.shape[-2:])
            elif isinstance(layer, _TRANSPOSED):
                folded = scale[:, None]
            integers = integers * np.sign(folded)
            steps = steps * np.abs(folded)
            bias = offset if bias is None else bias * scale + offset
        steps = np.float32(steps)
        kernel = np.float32(integers) * steps
        config = layer.get_config()
        del config["bits"], config["learned_steps"]
        config.update(use_bias=bias is not None, name=self._unique(path.replace("/", ".")))
        self._add_kernel(layer, path, integers, steps, kernel)
        weights = [kernel] if bias is None else [kernel, np.float32(bias)]
        if isinstance(layer, keras.layers.Dense) and layer.bits == 4:
            return _dense_as_convolution(x, config, weights)
        new = _without(_plain_class(layer), config)
        y = new(x)
        new.set_weights(weights)
        return y

    def _add_kernel(self, layer, path, integers, steps, kernel):
        axis, bits = 0, layer.bits
        if isinstance(layer, _DEPTHWISE):
            axis = 3
            shape = (1, *integers.shape[:-2], -1)
            integers, kernel = integers.reshape(shape), kernel.reshape(shape)
            if isinstance(layer, quantized.QuantizedDepthwiseConv1D):
                axis = 2
        elif isinstance(layer, _TRANSPOSED):
            integers, kernel = (np.moveaxis(x, -2, 0) for x in (integers, kernel))
        else:
            integers, kernel = (np.moveaxis(x, -1, 0) for x in (integers, kernel))
        self.kernels.append(
            Kernel(f"{path}/kernel", np.int8(integers), steps.ravel(), axis, bits, kernel)
        )

    def _affine(self, x, path, scale, offset, activation=None):
        """A factor and an offset for each channel: a depthwise convolution of size 1."""
        channels = x.shape[-1]
        scale, offset = (
            np.broadcast_to(np.float64(a).ravel(), (channels,)) for a in (scale, offset)
        )
        integers = 127 * np.sign(scale)
        steps = np.float32(np.maximum(np.abs(scale), 1e-30) / 127)
        kernel = np.float32(integers) * steps
        shape = x.shape[1:]
        if len(shape) != 3:
            x = keras.layers.Reshape((int(np.prod(shape[:-1])), 1, channels))(x)
        layer = keras.layers.DepthwiseConv2D(
            1, activation=activation, name=self._unique(path.replace("/", ".")), dtype="float32"
        )
        x = layer(x)
        layer.set_weights([kernel.reshape(1, 1, channels, 1), np.float32(offset)])
        self.kernels.append(
            Kernel(
                f"{path}/kernel",
                np.int8(integers).reshape(1, 1, 1, channels),
                steps,
                3,
                8,
                kernel.reshape(1, 1, 1, channels),
            )
        )
        return x if len(shape) == 3 else keras.layers.Reshape(shape)(x)

    def _prelu(self, layer, value, path):
        integers, step = layer.integers()
        new = keras.layers.PReLU(
            shared_axes=layer.shared_axes, name=self._unique(path), dtype="float32"
        )
        y = new(self._tensor(value))
        slopes = np.float32(integers) * np.float32(step)
        new.set_weights([slopes])
        self.kernels.append(
            Kernel(f"{path}/alpha", np.int8(integers), np.float32(step).ravel(), 0, 8, slopes)
        )
        return y

    def _special(self, operation, value, path):
        """Layers whose plain Keras form converts to operators that not all targets have."""
        x = self._tensor(value)
        if type(operation) is keras.layers.Embedding:
            table = operation.get_weights()[0]
            return _Lookup(table, name=self._unique(path.replace("/", ".")))(x)
        if type(operation) is keras.layers.UpSampling2D and operation.interpolation == "nearest":
            return _Nearest(operation.size, name=self._unique(path.replace("/", ".")))(x)
        if activation_of(operation) == "hard_sigmoid":
            return self._affine(x, path, 1 / 6, 0.5, activation="relu")
        return None

    def _counterpart(self, operation, path):
        if not isinstance(operation, keras.layers.Layer):
            return operation
        config = operation.get_config()
        name = self._unique(path.replace("/", "."))
        kind = type(operation)
        if kind is quantized.QuantizedBatchNormalization:
            kind = keras.layers.BatchNormalization
        if hasattr(operation, "_nodes_by_depth"):
            new = kind.from_config(config)
        else:
            new = _without(kind, {**config, "name": name})
        weights = operation.get_weights()
        if not weights:
            return new

        def call(*args, **kwargs):
            outputs = new(*args, **kwargs)
            new.set_weights(weights[: len(new.get_weights())])
            return outputs

        return call

    def _unique(self, name):
        return _numbered(self.names, name)


class _Mark(keras.layers.Layer):
    """Leaves a number in the file, see `FIRST_MARKER`."""

    def __init__(self, number, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.number = number

    def call(self, x):
        return tf.pow(x, tf.constant(float(self.number)))

    def compute_output_shape(self, input_shape):
        return input_shape


class _Nearest(keras.layers.Layer):
    """Upsampling by one `RESIZE_NEAREST_NEIGHBOR`; heights and widths may be known only later."""

    def __init__(self, size, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.size = size

    def call(self, x):
        size = [n * k for n, k in zip(x.shape[1:3], self.size, strict=True)]
        return tf.image.resize(x, size, method="nearest")

    def compute_output_spec(self, x):
        sizes = (n and n * k for n, k in zip(x.shape[1:3], self.size, strict=True))
        return keras.KerasTensor((x.shape[0], *sizes, x.shape[3]), "float32")


class _Lookup(keras.layers.Layer):
    """Rows of a constant table: one `GATHER`."""

    def __init__(self, table, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.table = table

    def call(self, ids):
        return tf.gather(tf.constant(self.table), tf.cast(ids, "int32"))

    def compute_output_spec(self, ids):
        return keras.KerasTensor((*ids.shape, self.table.shape[1]), "float32")


def _numbered(seen, name):
    """`name`, with a number behind it from the second time on."""
    seen[name] = seen.get(name, 0) + 1
    return name if seen[name] == 1 else f"{name}_{seen[name] - 1}"


def _dense_as_convolution(x, config, weights):
    """A dense layer with weights of 4 bits, which TFLite Micro runs per channel only so."""
    shape = x.shape[1:-1]
    x = keras.layers.Reshape((int(np.prod(shape)), 1, x.shape[-1]))(x)
    keys = ("name", "activation", "use_bias")
    kept = {key: config[key] for key in keys}
    new = keras.layers.Conv2D(config["units"], 1, dtype="float32", **kept)
    x = new(x)
    new.set_weights([weights[0][None, None], *weights[1:]])
    return keras.layers.Reshape((*shape, config["units"]))(x)


def _affine_of(layer):
    if isinstance(layer, keras.layers.Rescaling):
        return layer.scale, layer.offset
    if isinstance(layer, keras.layers.Normalization):
        deviation = np.maximum(np.sqrt(np.float64(layer.variance)), keras.backend.epsilon())
        scale = 1 / deviation
        return scale, -np.float64(layer.mean) * scale
    return layer.scale_and_offset()


def _has_started(layer):
    started = getattr(layer, "started", None)
    return started is None or float(np.max(started)) > 0


def _plain_class(layer):
    return next(kind for kind in type(layer).__mro__ if kind.__module__.startswith("keras."))


def _without(kind, config):
    """A layer from its config, in float32 and free of what only training needs."""
    keys = [key for key in config if key.endswith(("_regularizer", "_constraint"))]
    return kind.from_config({**config, "dtype": "float32", **dict.fromkeys(keys)})
