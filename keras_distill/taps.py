"""Looking into a model: finding layers by path, and catching what they return as it runs."""

import contextlib
import dataclasses
import difflib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_distill import _keras
from keras_distill.inputs import entries_for
from keras_distill.outputs import Factors, Output

_thread = threading.local()
_lock = threading.Lock()
_installed: dict[int, int] = {}


def sublayers(layer: Any) -> dict:
    """The operations directly inside `layer`, by name."""
    if isinstance(layer, keras.Model):
        inner = getattr(layer, "operations", layer.layers)
    elif isinstance(layer, keras.Operation) and not isinstance(layer, keras.layers.Layer):
        inner = []  # Such as a slice of a tensor.
    else:
        inner = _keras.layers_of(layer, include_self=False, recursive=False)
    return {operation.name: operation for operation in inner}


def find_layer(model: Any, path: str, role: str) -> Any:
    """The layer at `path`, such as `"backbone/block3"`.

    Args:
        model: The Keras model to look into.
        path: Names of layers from the outermost to the innermost, joined by "/".
        role: "student" or "teacher", for messages.

    Raises:
        ValueError: If there is no such layer. The message suggests similar names.
    """
    layer, names = model, path.split("/")
    for depth, name in enumerate(names):
        inside = sublayers(layer)
        # Names of layers may contain "/" themselves.
        rest = "/".join(names[depth:])
        if rest in inside:
            return inside[rest]
        if name not in inside:
            near = difflib.get_close_matches(name, inside, n=3, cutoff=0.4) or list(inside)[:8]
            where = "/".join(names[:depth]) or layer.name
            raise ValueError(
                f"The {role} has no layer {path!r}: there is no {name!r} in {where!r}. "
                f"Nearest names: {', '.join(near) if near else 'none, it has no inner layers'}."
            )
        layer = inside[name]
    return layer


def path_of(model: Any, layer: Any, role: str) -> str:
    """The path of `layer` inside `model`; the inverse of `find_layer`."""
    stack = [("", model)]
    while stack:
        prefix, outer = stack.pop()
        for name, inner in sublayers(outer).items():
            if inner is layer:
                return prefix + name
            stack.append((f"{prefix}{name}/", inner))
    raise ValueError(f"The layer {layer.name!r} is not part of the {role} {model.name!r}.")


def resolve(model: Any, place: Any, role: str) -> str:
    """The path of `place`, which is the path of a layer or the layer itself.

    Raises:
        ValueError: If `model` has no such layer.
    """
    if isinstance(place, str):
        find_layer(model, place, role)
        return place
    return path_of(model, place, role)


@contextlib.contextmanager
def calling(layer: Any, call: Callable) -> Iterator[None]:
    """Has a layer run `call(original, ...)` in place of `original = layer.call`.

    The replacement is in effect only in the thread that enters the block, so several threads (the
    replicas of a distribution strategy) may replace the call of one layer at the same time. Where
    blocks are nested, `original` is the replacement of the outer block.

    Args:
        layer: A layer of Keras or `tf_keras`, or an operation of Keras.
        call: Function of the original and of the arguments of `layer.call`.
    """
    replacements = _replacements()
    replacements[id(layer)] = (*replacements.get(id(layer), ()), call)
    _install(layer)
    try:
        yield
    finally:
        _uninstall(layer)
        *outer, _ = replacements.pop(id(layer))
        if outer:
            replacements[id(layer)] = tuple(outer)


@contextlib.contextmanager
def capture(layers: Iterable) -> Iterator[dict[int, list]]:
    """Collects what each of `layers` returns while the block runs.

    It works with every kind of model, nested or subclassed, needs no extra forward pass, and
    leaves the layers unchanged.

    Args:
        layers: Keras layers or operations.

    Yields:
        A dict from `id(layer)` to the list of its results, one for each time that it ran.
    """
    caught: dict[int, list] = {}
    with contextlib.ExitStack() as stack:
        for layer in layers:
            if id(layer) not in caught:
                caught[id(layer)] = []
                stack.enter_context(calling(layer, _recording(caught[id(layer)])))
        yield caught


def run(
    model: Any, paths: Sequence[str], inputs: Any, role: str, training: bool = False
) -> tuple[Any, list]:
    """Runs a model once.

    Args:
        model: A model of Keras or `tf_keras`.
        paths: Paths of the layers to tap.
        inputs: Inputs of a batch, of which the model reads its own.
        role: "student" or "teacher", for messages.
        training: Whether layers behave as in training.

    Returns:
        `(outputs, features)`: what the model returns, of tensors, and of `Output`s where Keras
        would lose the logits behind them; and what the layer at each path returns.

    Raises:
        ValueError: If a layer doesn't exist, or doesn't run exactly once.
    """
    layers = [find_layer(model, path, role) for path in paths]
    with (
        capture(layers) as caught,
        _keras.noting_logits(),
        masked_softmaxes(model) as softmaxes,
        projections(model) as factors,
    ):
        outputs = model(entries_for(model, inputs, role), training=training)

    def noted(x):
        output = softmaxes.get(id(x), x)
        if id(x) not in factors:
            return output
        return dataclasses.replace(Output.of(output), factors=factors[id(x)].factors)

    outputs = keras.tree.map_structure(noted, outputs)
    features = []
    for layer, path in zip(layers, paths, strict=True):
        results = caught[id(layer)]
        if len(results) != 1:
            raise ValueError(
                f"The {role}'s layer {path!r} runs {len(results)} times in one forward pass, so "
                "its output can't be compared. Tap a layer that runs exactly once."
            )
        features += results
    return outputs, features


@contextlib.contextmanager
def masked_softmaxes(model: Any) -> Iterator[dict[int, Output]]:
    """Collects what the `Softmax` layers of a model, called with a mask, return.

    Keras doesn't keep the logits behind it: those of masked classes are very low.

    Args:
        model: A model of Keras.

    Yields:
        A dict from `id(x)` to the `Output` of each result x.
    """
    found: dict[int, Output] = {}

    def recording(layer):
        def call(original, inputs, mask=None):
            values = original(inputs, mask=mask)
            if mask is not None:
                lowest = -3e4 if values.dtype == "float16" else -1e9
                logits = ops.where(ops.cast(mask, "float32") > 0.5, inputs, lowest)
                is_last = layer.axis in (-1, len(values.shape) - 1)
                activation = "softmax" if is_last else _keras.OTHER_AXIS
                found[id(values)] = Output(values, logits, activation, _keras.mask_on(values))
            return values

        return call

    with contextlib.ExitStack() as stack:
        for layer in {id(layer): layer for layer in _softmaxes(model)}.values():
            stack.enter_context(calling(layer, recording(layer)))
        yield found


@contextlib.contextmanager
def projections(model: Any) -> Iterator[dict[int, Output]]:
    """Collects what layers without an activation make sequences from.

    These are `Dense` layers, and `ReversibleEmbedding`s that are called in reverse. Over a large
    vocabulary, their outputs are many times as large as the two factors.

    Args:
        model: A model of Keras.

    Yields:
        A dict from `id(x)` to the `Output`, with factors, of each result x.
    """
    # They hold their results: nothing else may take the place, and the id, of one meanwhile.
    found: dict[int, Output] = {}

    def recording(layer):
        def call(original, inputs, *args, **kwargs):
            values = original(inputs, *args, **kwargs)
            embeds = isinstance(layer, keras.layers.Embedding)
            projects = not embeds or kwargs.get("reverse", args[:1] == (True,))
            if projects and len(values.shape) > 2:
                weights = _output_embedding(layer, inputs.dtype)
                factors = Factors((inputs,), weights, _projected)
                found[id(values)] = dataclasses.replace(Output.of(values), factors=factors)
            return values

        return call

    with contextlib.ExitStack() as stack:
        for layer in _projecting(model):
            stack.enter_context(calling(layer, recording(layer)))
        yield found


def _projecting(model: Any) -> list:
    """The layers of a model whose outputs are the product of their inputs and weights.

    Subclasses compute something else, and so do quantized layers and those with adapters.
    """
    return [
        layer
        for layer in _keras.layers_of(model)
        if (
            (type(layer) is keras.layers.Dense and layer.activation is keras.activations.linear)
            or (
                type(layer) is keras.layers.ReversibleEmbedding
                and layer.logit_soft_cap is None
                and layer.reverse_dtype is None
            )
        )
        and layer.quantization_mode is None
        and not layer.lora_enabled
    ]


def _output_embedding(layer: Any, dtype: Any) -> tuple:
    """Kernel and bias of a layer that projects."""
    if isinstance(layer, keras.layers.Dense):
        weights = [layer.kernel] if layer.bias is None else [layer.kernel, layer.bias]
    elif layer.tie_weights:
        return (ops.transpose(ops.cast(layer.embeddings, dtype)),)
    else:
        weights = [layer.reverse_embeddings]
    return tuple(ops.cast(weight, dtype) for weight in weights)


def _projected(rows: Any, shared: Any) -> Any:
    """Hidden states times the output embedding, plus the bias if there is one."""
    logits = ops.matmul(rows[0], shared[0])
    return ops.add(logits, shared[1]) if len(shared) > 1 else logits


def _softmaxes(model: Any) -> Iterator[Any]:
    """The `Softmax` layers of a model and of the models inside it."""
    for layer in getattr(model, "layers", ()):
        if isinstance(layer, keras.layers.Softmax):
            yield layer
        elif isinstance(layer, keras.Model):
            yield from _softmaxes(layer)


def _recording(results: list) -> Callable:
    def call(original, *args, **kwargs):
        outputs = original(*args, **kwargs)
        results.append(outputs)
        return outputs

    return call


def _replacements() -> dict[int, tuple[Callable, ...]]:
    """What this thread has layers call in place of their own `call`, by `id`, innermost last."""
    return _thread.__dict__.setdefault("replacements", {})


def _install(layer: Any) -> None:
    with _lock:
        _installed[id(layer)] = _installed.get(id(layer), 0) + 1
        if _installed[id(layer)] > 1:
            return
        original = layer.call

        def call(*args, **kwargs):
            function = original
            for replacement in _replacements().get(id(layer), ()):
                function = functools.partial(replacement, function)
            return function(*args, **kwargs)

        # An attribute of the instance, set past Keras' tracking, hides the method of the class.
        layer.__dict__["call"] = call


def _uninstall(layer: Any) -> None:
    with _lock:
        _installed[id(layer)] -= 1
        if not _installed[id(layer)]:
            del _installed[id(layer)]
            del layer.__dict__["call"]


class _Spec(keras.Operation):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.error: Exception | None = None

    def call(self, *args):
        try:
            return self.function(*args)
        except Exception as error:
            self.error = error
            raise


def spec_of(function: Callable, *inputs: Any) -> Any:
    """Shapes and dtypes of what `function` returns, without running it on data.

    Args:
        function: Function of tensors that returns a structure of tensors.
        inputs: Structures of `keras.KerasTensor`.

    Returns:
        The structure that `function` returns, of `keras.KerasTensor`.
    """
    operation = _Spec(function)
    try:
        return operation.compute_output_spec(*inputs)
    except Exception:
        if operation.error is None:
            raise
    raise operation.error  # Without what Keras says about this operation.
