"""Which backends of Keras run what. `docs/backends.md` has the table."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def require(feature: str, *supported: str) -> None:
    """Raises unless Keras is on a backend that runs a feature.

    Args:
        feature: What was asked for, as the user wrote it.
        *supported: The backends, as in `KERAS_BACKEND`.

    Raises:
        NotImplementedError: If it isn't. Names the feature, the backend and the setting.
    """
    backend = keras.backend.backend()
    if backend in supported:
        return
    names = " or ".join(NAMES[name] for name in supported)
    settings = " or ".join(f"KERAS_BACKEND={name}" for name in supported)
    raise NotImplementedError(
        f"{feature} needs the {names} backend of Keras, which is on "
        f"{NAMES.get(backend, backend)} now. Set {settings} before Keras is imported."
    )


def compiled_by_jax(function: Callable, variables: Sequence) -> Callable:
    """A function of a batch, compiled. What it changes in variables is dropped.

    Args:
        function: Function of a structure of tensors.
        variables: The Keras variables that it reads: arguments of what is compiled.
    """
    import jax

    @jax.jit
    def pure(values: list, inputs: Any) -> Any:
        with keras.StatelessScope(list(zip(variables, values, strict=True))):
            return function(inputs)

    return lambda inputs: pure([variable.value for variable in variables], inputs)


def compiled(function: Callable, variables: Sequence) -> Callable:
    """A function of a batch as the backend runs it: a graph of TensorFlow, a program of JAX.

    Args:
        function: Function of a structure of tensors, which changes no variables.
        variables: The Keras variables that it reads.
    """
    if keras.backend.backend() == "jax":
        return compiled_by_jax(function, variables)
    if keras.backend.backend() == "torch":
        return without_gradients(function)
    import tensorflow as tf

    return tf.function(function, autograph=False, reduce_retracing=True)


def without_gradients(function: Callable) -> Callable:
    """A function of a batch as PyTorch runs it, at once."""
    import torch

    return torch.no_grad()(function)


def pulled_back(function: Callable, inputs: Sequence, upstream: Any) -> list:
    """The gradient of a function with respect to each of its inputs.

    Args:
        function: Function of tensors that returns a tensor.
        inputs: The tensors.
        upstream: The gradient with respect to what the function returns, a tensor of its shape.

    Returns:
        A tensor like each input.
    """
    if keras.backend.backend() == "jax":
        import jax

        _, pull = jax.vjp(function, *inputs)
        return list(pull(upstream))
    if keras.backend.backend() == "torch":
        import torch

        with torch.enable_grad():
            inputs = [x.detach().requires_grad_() for x in inputs]
            return _of_torch(function(*inputs), inputs, upstream)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(inputs)
        values = function(*inputs)
    zero = tf.UnconnectedGradients.ZERO
    return tape.gradient(values, list(inputs), upstream, unconnected_gradients=zero)


def gradients(loss: Callable[[], Any], variables: Sequence) -> list:
    """The gradients of a scalar.

    Args:
        loss: Function of nothing that computes the scalar.
        variables: The Keras variables that it depends on.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss()
        values = [variable.value for variable in variables]
        return tape.gradient(value, values, unconnected_gradients="zero")
    if keras.backend.backend() == "torch":
        return _of_torch(loss(), [variable.value for variable in variables])
    import jax

    def of_values(values: list) -> Any:
        known = list(zip(variables, values, strict=True))
        with keras.StatelessScope(known, collect_losses=True):
            return loss()

    return jax.grad(of_values)([variable.value for variable in variables])


def _of_torch(value: Any, tensors: list, upstream: Any = None) -> list:
    """The gradients of a tensor of PyTorch, zeros where it doesn't depend on others."""
    import torch

    return list(
        torch.autograd.grad(value, tensors, upstream, allow_unused=True, materialize_grads=True)
    )
