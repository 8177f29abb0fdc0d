"""The form of a quantize-aware student that TensorFlow's converter takes, and what it stands for.

Nested models are dissolved, BatchNormalization is folded, kernels hold the values that their
integers stand for, and a marker takes the place of each range. It is for the converter alone: what
it computes means nothing.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras_distill.tflite.converters.fused_lstm import Lstm, lstm_of
from keras_distill.tflite.converters.markers import (
    FIRST_MARKER,
    Kernel,
    Lookup,
    Mark,
    Marker,
    Nearest,
)

from keras_distill import _keras
from keras_distill.quantization import layers as quantized
from keras_distill.quantization.lstm import QuantizedLSTM
from keras_distill.quantization.ranges import AnyRange
from keras_distill.quantization.rules import activation_of, rule_of
from keras_distill.quantization.rules.rule import Output
from keras_distill.quantization.stepped import QuantizedSteps

_DEPTHWISE = (quantized.QuantizedDepthwiseConv1D, quantized.QuantizedDepthwiseConv2D)
_TRANSPOSED = (quantized.QuantizedConv1DTranspose, quantized.QuantizedConv2DTranspose)
_AFFINE = (
    quantized.QuantizedBatchNormalization,
    quantized.ScaleAndOffset,
    keras.layers.Rescaling,
    keras.layers.Normalization,
)


class _Tensor:
    """A tensor of the export form.

    Attributes:
        tensor: The symbolic tensor.
        integers: Its marker, `None` for raw and float tensors.
        is_float: Whether a layer that stays float made it.
        pending: A layer with a kernel, its input (settled) and its path, where it is still to be
            called, for its BatchNormalization may come next.
    """

    def __init__(
        self,
        tensor: Any,
        integers: Marker | None = None,
        is_float: bool = False,
        pending: tuple[Any, "_Tensor", str] | None = None,
    ):
        self.tensor = tensor
        self.integers = integers
        self.is_float = is_float
        self.pending = pending


class ExportForm:
    """A quantize-aware model, dissolved into markers, kernels and what lies between.

    Args:
        student: A model made by `quantize_aware`.
        for_micro: Whether TFLite Micro is to run it, whose kernels for dense layers aren't those
            for convolutions of size 1 in all that they take.

    Attributes:
        model: The Functional model to be converted, with the inputs and outputs of the student.
        markers: `Marker`s, in the order of their numbers.
        kernels: `Kernel`s.
        lstms: `Lstm`s, whose kernels are among them.

    Raises:
        ValueError: If a range has seen no data yet.
    """

    def __init__(self, student: keras.Model, for_micro: bool = False):
        self.for_micro = for_micro
        self.markers: list[Marker] = []
        self.kernels: list[Kernel] = []
        self.lstms: list[Lstm] = []
        self._names: dict[str, int] = {}
        self._tensor_names: dict[str, int] = {}
        self._taken = {layer.name for layer in _keras.layers_of(student)}
        inputs = [
            keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name) for x in student.inputs
        ]
        outputs = self._run(student, [_Tensor(x) for x in inputs], "")
        self.model = keras.Model(
            keras.tree.pack_sequence_as(student.input, inputs),
            keras.tree.pack_sequence_as(student.output, [self._tensor(x) for x in outputs]),
            name=student.name,
        )
        self.model.output_names = student.output_names

    def _run(self, model: Any, inputs: list, prefix: str) -> list:
        return _keras.walk(model, inputs, lambda call, given: self._step(call, given, prefix))

    def _step(self, call: _keras.Call, given: list[_Tensor], prefix: str) -> list[_Tensor]:
        """The values of what a layer returns, from those of its inputs."""
        operation, first = call.operation, given[0]
        path = prefix + operation.name
        rule = rule_of(operation)
        if _keras.graph_of(operation) is operation and not first.is_float:
            return self._run(operation, given, f"{path}/")
        if call.keywords.get("step_only"):
            return [_Tensor(None)]
        if isinstance(operation, AnyRange):
            return [self._mark_range(operation, first, prefix)]
        if isinstance(operation, quantized.ToFloat):
            return [self._mark_float(first, path)]
        if rule is not None and rule.does_nothing:
            return [first]
        is_float = any(x.is_float for x in given)
        result = None if is_float else self._integer_layer(operation, first, path)
        if result is not None:
            return [result]
        keeps = rule is not None and rule.output is Output.SAME
        integers = first.integers if keeps else None
        tensors = [self._tensor(value) for value in given]
        outputs = keras.tree.flatten(call.repeat(self._counterpart(operation, path), tensors))
        return [_Tensor(x, integers, is_float) for x in outputs]

    def _integer_layer(self, layer: Any, value: _Tensor, path: str) -> _Tensor | None:
        """What a layer whose plain Keras form won't do returns; `None` for all others."""
        if type(layer) is quantized.QuantizedPReLU:
            return _Tensor(self._prelu(layer, value, path))
        if isinstance(layer, QuantizedLSTM):
            return self._lstm(layer, value, path)
        if isinstance(layer, QuantizedSteps):
            return self._steps(layer, value, path)
        if isinstance(layer, quantized.QuantizedKernel):
            self._tensor(value)
            return _Tensor(None, pending=(layer, value, path))
        if isinstance(layer, quantized.QuantizedBatchNormalization) and value.pending:
            return _Tensor(self._kernel(*value.pending, *layer.scale_and_offset()))
        if isinstance(layer, _AFFINE):
            return _Tensor(self._affine(self._tensor(value), path, *_affine_of(layer)))
        other = self._other_form(layer, value, path)
        return None if other is None else _Tensor(other, value.integers)

    def _other_form(self, operation: Any, value: _Tensor, path: str) -> Any:
        """Layers whose plain Keras form becomes operators that not all targets have."""
        x = self._tensor(value)
        if type(operation) is keras.layers.Embedding:
            table = operation.get_weights()[0]
            return Lookup(table, name=self._unique(path.replace("/", ".")))(x)
        if type(operation) is keras.layers.UpSampling2D and operation.interpolation == "nearest":
            if None in x.shape[1:3]:
                return Nearest(operation.size, name=self._unique(path.replace("/", ".")))(x)
            size = [n * k for n, k in zip(x.shape[1:3], operation.size, strict=True)]
            return keras.ops.image.resize(x, size, interpolation="nearest")
        if type(operation) is quantized.InverseRoot:
            return keras.ops.rsqrt(x)
        if activation_of(operation) == "hard_sigmoid":
            return self._affine(x, path, 1 / 6, 0.5, activation="relu")
        return None

    def _tensor(self, value: _Tensor) -> Any:
        """The symbolic tensor of a value; a kernel that waited is called."""
        if value.pending is not None:
            value.tensor = self._kernel(*value.pending)
            value.pending = None
        return value.tensor

    # Markers.

    def _mark(self, value: _Tensor, marker: Marker) -> Any:
        number = FIRST_MARKER + len(self.markers)
        self.markers.append(marker)
        return Mark(number, name=self._unique("marker"))(self._tensor(value))

    def _mark_range(self, layer: AnyRange, value: _Tensor, prefix: str) -> _Tensor:
        if not layer.has_started:
            raise ValueError(
                f"The range of {prefix + layer.tensor!r} has seen no data: train the model, or "
                "give `quantize_aware` some `calibration`."
            )
        scale, zero_point = (np.float32(x) for x in layer.grid())
        known = value.integers
        if known is not None and (known.bits, known.scale, known.zero_point) == (
            layer.bits,
            scale,
            int(zero_point),
        ):
            return value
        marker = Marker(
            _numbered(self._tensor_names, prefix + layer.tensor),
            layer.bits,
            scale,  # type: ignore[arg-type]
            int(zero_point),
            turns_type=known is not None or value.is_float,
        )
        return _Tensor(self._mark(value, marker), marker)

    def _mark_float(self, value: _Tensor, path: str) -> _Tensor:
        # What is made from integers that aren't quantized, such as an embedding, turns no type.
        marker = Marker(path, turns_type=value.integers is not None)
        return _Tensor(self._mark(value, marker), is_float=True)

    # Counterparts of layers.

    def _kernel(
        self,
        layer: Any,
        value: _Tensor,
        path: str,
        scale: np.ndarray | None = None,
        offset: np.ndarray | None = None,
    ) -> Any:
        """The plain Keras layer with the kernel that the integers stand for.

        A BatchNormalization's `scale` and `offset` are folded into it.
        """
        integers, steps = layer.integers()
        bias: Any = np.float64(layer.bias) if layer.use_bias else None
        if scale is not None:
            folded = _as_channels(layer, integers, scale)
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
        if isinstance(layer, keras.layers.Dense) and self._needs_convolution(layer, value):
            return self._dense_as_convolution(value.tensor, config, weights)
        new = _without(_plain_class(layer), config)
        y = new(value.tensor)
        new.set_weights(weights)
        return y

    def _add_kernel(self, layer: Any, path: str, integers: Any, steps: Any, kernel: Any) -> None:
        """Notes a kernel in TFLite's layout."""
        axis = 0
        if isinstance(layer, _DEPTHWISE):
            axis = 2 if isinstance(layer, quantized.QuantizedDepthwiseConv1D) else 3
            shape = (1, *integers.shape[:-2], -1)
            integers, kernel = integers.reshape(shape), kernel.reshape(shape)
        else:
            source = -2 if isinstance(layer, _TRANSPOSED) else -1
            integers, kernel = (np.moveaxis(x, source, 0) for x in (integers, kernel))
        self.kernels.append(
            Kernel(
                f"{path}/kernel", integers.astype("int8"), steps.ravel(), axis, layer.bits, kernel
            )
        )

    def _affine(
        self, x: Any, path: str, scale: Any, offset: Any, activation: str | None = None
    ) -> Any:
        """A factor and an offset for each channel: a depthwise convolution of size 1."""
        channels = x.shape[-1]
        scale, offset = (
            np.broadcast_to(np.float64(a).ravel(), (channels,)) for a in (scale, offset)
        )
        integers = 127 * np.sign(scale)
        steps: Any = np.float32(np.where(scale == 0, 1.0, np.abs(scale)) / 127)
        kernel: Any = np.float32(integers) * steps
        shape = x.shape[1:]
        if len(shape) != 3:
            x = self._reshape((int(np.prod(shape[:-1])), 1, channels))(x)
        layer = keras.layers.DepthwiseConv2D(
            1, activation=activation, name=self._unique(path.replace("/", ".")), dtype="float32"
        )
        x = layer(x)
        layer.set_weights([kernel.reshape(1, 1, channels, 1), np.float32(offset)])
        integers, kernel = (a.reshape(1, 1, 1, channels) for a in (integers, kernel))
        integers = integers.astype("int8")
        self.kernels.append(Kernel(f"{path}/kernel", integers, steps, 3, 8, kernel))
        return x if len(shape) == 3 else self._reshape(shape)(x)

    def _needs_convolution(self, dense: Any, value: _Tensor) -> bool:
        """Whether a dense layer has weights of 4 bits, or CMSIS-NN would want one scale for all.

        Its kernel with 16-bit inputs does, as that for convolutions doesn't.
        """
        is_fine = value.integers is not None and value.integers.bits == 16
        return dense.bits == 4 or (self.for_micro and is_fine)

    def _dense_as_convolution(self, x: Any, config: dict, weights: list) -> Any:
        """A dense layer whose scales for each output TFLite Micro runs only so."""
        shape = x.shape[1:-1]
        x = self._reshape((int(np.prod(shape)), 1, x.shape[-1]))(x)
        kept = {key: config[key] for key in ("name", "activation", "use_bias")}
        new = keras.layers.Conv2D(config["units"], 1, dtype="float32", **kept)
        x = new(x)
        new.set_weights([weights[0][None, None], *weights[1:]])
        return self._reshape((*shape, config["units"]))(x)

    def _prelu(self, layer: Any, value: _Tensor, path: str) -> Any:
        integers, step = layer.integers()
        new = keras.layers.PReLU(
            shared_axes=layer.shared_axes, name=self._unique(path), dtype="float32"
        )
        y = new(self._tensor(value))
        slopes: Any = np.float32(integers) * np.float32(step)
        new.set_weights([slopes])
        steps = np.float32(step).ravel()
        integers = integers.astype("int8")
        self.kernels.append(Kernel(f"{path}/alpha", integers, steps, 0, 8, slopes))
        return y

    def _lstm(self, layer: QuantizedLSTM, value: _Tensor, path: str) -> _Tensor:
        found = lstm_of(layer, path)
        self.lstms.append(found)
        self.kernels += found.kernels
        new = keras.layers.LSTM(
            layer.units,
            return_sequences=layer.return_sequences,
            go_backwards=layer.go_backwards,
            name=self._unique(path.replace("/", ".")),
            dtype="float32",
        )
        y = new(self._tensor(value))
        new.set_weights(found.weights)
        return self._mark_range(layer.hidden_range, _Tensor(y), path.removesuffix(layer.name))

    def _steps(self, layer: QuantizedSteps, value: _Tensor, path: str) -> _Tensor:
        """A recurrent layer's operators, once for each step of time."""
        sequences = keras.ops.unstack(self._tensor(value), axis=1)
        recurrent = self._recurrent(layer, path)
        prefix = path.removesuffix(layer.name)

        def rounded(name: str, x: Any) -> Any:
            return self._mark_range(layer.ranges[name], _Tensor(x), prefix).tensor

        # The first state is 0: a file has no other constants than weights.
        zeros = self._affine(sequences[0][:, : layer.units], f"{path}/start", 0.0, 0.0)
        states = [rounded("hidden", zeros)]
        for x in reversed(sequences) if layer.go_backwards else sequences:
            states.append(layer.advance(x, states[-1], recurrent, rounded))
        y = keras.ops.stack(states[1:], axis=1) if layer.return_sequences else states[-1]
        return self._mark_range(layer.hidden_range, _Tensor(y, self.markers[-1]), prefix)

    def _recurrent(self, layer: QuantizedSteps, path: str) -> Callable:
        """The dense layer that the state goes through at each step."""
        integers, sizes = layer.integers()
        steps: Any = np.float32(sizes)
        kernel: Any = np.float32(integers) * steps
        self._add_kernel(layer, path, integers, steps, kernel)
        weights = [kernel] if layer.bias is None else [kernel, np.float32(layer.bias)]
        name = path.replace("/", ".")
        config = {"units": kernel.shape[-1], "use_bias": len(weights) > 1, "activation": None}
        if self.for_micro and layer.activation_bits == 16:
            return lambda x: self._dense_as_convolution(
                x, {**config, "name": self._unique(name)}, weights
            )
        dense = keras.layers.Dense(**config, name=self._unique(name), dtype="float32")

        def call(x: Any) -> Any:
            y = dense(x)
            dense.set_weights(weights)
            return y

        return call

    def _counterpart(self, operation: Any, path: str) -> Callable:
        """A plain copy of a layer, which gets its weights once it is called."""
        if not isinstance(operation, keras.layers.Layer):
            return operation
        config = operation.get_config()
        name = self._unique(path.replace("/", "."))
        kind: Any = type(operation)
        if kind is quantized.QuantizedBatchNormalization:
            kind = keras.layers.BatchNormalization
        if _keras.graph_of(operation) is operation:
            new = kind.from_config(config)
        else:
            new = _without(kind, {**config, "name": name})
        weights = operation.get_weights()
        if not weights:
            return new

        def call(*args: Any, **kwargs: Any) -> Any:
            outputs = new(*args, **kwargs)
            new.set_weights(weights[: len(new.get_weights())])
            return outputs

        return call

    def _reshape(self, shape: Any) -> keras.Layer:
        """A Reshape under a name of its own; Keras numbers them without a look at the model."""
        layer = keras.layers.Reshape(shape)
        while layer.name in self._taken:
            layer = keras.layers.Reshape(shape)
        return layer

    def _unique(self, name: str) -> str:
        return _numbered(self._names, name)


def _numbered(seen: dict[str, int], name: str) -> str:
    """`name`, with a number appended from the second time on; never one that was seen."""
    seen[name] = seen.get(name, 0) + 1
    return name if seen[name] == 1 else _numbered(seen, f"{name}_{seen[name] - 1}")


def _as_channels(layer: Any, integers: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """A factor for each channel, in a shape that is broadcast against the layer's kernel."""
    if isinstance(layer, _DEPTHWISE):
        return scale.reshape(integers.shape[-2:])
    return scale[:, None] if isinstance(layer, _TRANSPOSED) else scale


def _affine_of(layer: Any) -> tuple[Any, Any]:
    """What a layer multiplies its input by and adds to it."""
    if isinstance(layer, keras.layers.Rescaling):
        return layer.scale, layer.offset
    if isinstance(layer, keras.layers.Normalization):
        deviation = np.maximum(np.sqrt(np.float64(layer.variance)), keras.backend.epsilon())
        scale = 1 / deviation
        return scale, -np.float64(layer.mean) * scale
    return layer.scale_and_offset()


def _plain_class(layer: Any) -> Any:
    return next(kind for kind in type(layer).__mro__ if kind.__module__.startswith("keras."))


def _without(kind: Any, config: dict) -> Any:
    """A layer from its config, in float32 and free of what only training needs."""
    keys = [key for key in config if key.endswith(("_regularizer", "_constraint"))]
    return kind.from_config({**config, "dtype": "float32", **dict.fromkeys(keys)})
