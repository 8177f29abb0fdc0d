"""Looking into a model: layers found by path, and what they return caught while the model runs."""

import contextlib
import difflib
import threading

import keras

_active = threading.local()
_lock = threading.Lock()
_wrapped: dict[int, int] = {}


def sublayers(layer) -> dict:
    """The operations directly inside `layer`, by name."""
    if isinstance(layer, keras.Model):
        inner = getattr(layer, "operations", layer.layers)
    else:
        inner = layer._flatten_layers(include_self=False, recursive=False)
    return {operation.name: operation for operation in inner}


def find_layer(model, path, role):
    """The layer at `path`, such as `"backbone/block3"`.

    Args:
        model: The Keras model to look into.
        path: Names of layers from the outermost to the innermost, joined by "/".
        role: "student" or "teacher", for messages.

    Raises:
        ValueError: If there is no such layer. Names the nearest ones.
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


def path_of(model, layer, role) -> str:
    """The path of `layer` inside `model`; the inverse of `find_layer`."""
    stack = [("", model)]
    while stack:
        prefix, outer = stack.pop()
        for name, inner in sublayers(outer).items():
            if inner is layer:
                return prefix + name
            stack.append((f"{prefix}{name}/", inner))
    raise ValueError(f"The layer {layer.name!r} is not part of the {role} {model.name!r}.")


@contextlib.contextmanager
def capture(layers):
    """Catches what each of `layers` returns while the block runs.

    It works for every kind of model, nested or subclassed, costs no further forward pass, and
    leaves the layers as they were. Several threads (the replicas of a distribution strategy) may
    capture from the same layers at once.

    Args:
        layers: Keras layers or operations.

    Yields:
        A dict from `id(layer)` to the list of its results, one for each time that it ran.
    """
    caught = {id(layer): [] for layer in layers}
    outer = getattr(_active, "captures", ())
    _active.captures = (*outer, caught)
    for layer in layers:
        _wrap(layer)
    try:
        yield caught
    finally:
        for layer in layers:
            _unwrap(layer)
        _active.captures = outer


def _wrap(layer):
    with _lock:
        _wrapped[id(layer)] = _wrapped.get(id(layer), 0) + 1
        if _wrapped[id(layer)] > 1:
            return
        original = layer.call

        def call(*args, **kwargs):
            outputs = original(*args, **kwargs)
            for caught in getattr(_active, "captures", ()):
                if id(layer) in caught:
                    caught[id(layer)].append(outputs)
            return outputs

        # An attribute of the instance, set past Keras' tracking, hides the method of the class.
        layer.__dict__["call"] = call


def _unwrap(layer):
    with _lock:
        _wrapped[id(layer)] -= 1
        if not _wrapped[id(layer)]:
            del _wrapped[id(layer)]
            del layer.__dict__["call"]


def the_only_result(caught, layer, path, role):
    """What `layer` returned, if it ran exactly once."""
    results = caught[id(layer)]
    if len(results) != 1:
        raise ValueError(
            f"The {role}'s layer {path!r} runs {len(results)} times in one forward pass, so its "
            "output can't be compared. Tap a layer that runs exactly once."
        )
    return results[0]


class _Spec(keras.Operation):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, *args):
        return self.function(*args)


def spec_of(function, *inputs):
    """Shapes and dtypes of what `function` returns, without running it on data.

    Args:
        function: Function of tensors that returns a structure of tensors.
        inputs: Structures of `keras.KerasTensor`.

    Returns:
        The structure that `function` returns, of `keras.KerasTensor`.
    """
    return _Spec(function).compute_output_spec(*inputs)
