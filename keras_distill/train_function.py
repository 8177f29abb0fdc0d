"""What `fit` calls for each step: an optimizer that is built, a step without a graph around it."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_distill import _keras


def build_optimizer(optimizer: Any, variables: list) -> None:
    """Builds an optimizer, unless it is built, so that the traced step creates no variables.

    Args:
        optimizer: The optimizer.
        variables: The variables that it is to train.

    Raises:
        ValueError: If it was built for others.
    """
    if not optimizer.built:
        optimizer.build(variables)
    known = {id(variable) for variable in _keras.trained_by(optimizer)}
    new = [variable.path for variable in variables if id(variable) not in known]
    if new:
        raise ValueError(
            f"The optimizer doesn't know the weights {', '.join(new)}: they were added by "
            "another teacher, or weren't trainable before. Call `compile` again, with a new "
            "optimizer."
        )


class OnBatches:
    """What `fit` calls for each step, in place of Keras' own function.

    Keras 3.15 traces a second graph around its step, which holds the iterator and returns the
    logs as an `Optional`; later versions ask the iterator for an `Optional` in three operations
    and look the step up anew for each batch. For small models, both take longer than the step.

    Args:
        function: The function that Keras made for one step an execution.
        jit_compile: Whether XLA compiles the step.
    """

    def __init__(self, function: Callable, jit_compile: bool):
        self.function = function
        self.jit_compile = jit_compile
        self.spec: Any = None
        self.step: Callable | None = None

    def __call__(self, iterator: Any) -> Any:
        # Single batches and the iterators of several replicas are left to Keras.
        if not isinstance(iterator, tf.data.Iterator) or tf.config.functions_run_eagerly():
            return self.function(iterator)
        # The same object for all of an epoch.
        if iterator.element_spec is not self.spec:
            self._trace_for(iterator.element_spec)
        if self.step is None:
            return self.function(iterator)
        return self.step(iterator.get_next())

    def _trace_for(self, spec: Any) -> None:
        """Traces the step once for all batches of a dataset, shorter ones included."""
        if spec != self.spec:
            # XLA takes no `Optional`, in which Keras wraps what a generator doesn't yield.
            optional = any(isinstance(x, tf.OptionalSpec) for x in tf.nest.flatten(spec))
            self.step = None if optional else self._step(spec)
        self.spec = spec

    def _step(self, spec: Any) -> Callable:
        @tf.function(autograph=False, jit_compile=self.jit_compile)
        def step(batch):
            return self.function([batch])

        # A `tf.function` looks at its arguments anew at each call.
        return step.get_concrete_function(spec)
