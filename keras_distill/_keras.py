"""The only file that uses what Keras keeps private, behind names of our own.

A new release of Keras that changes one of these names breaks this file and no other.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_distill import backends

# Layers and models.


def layers_of(layer: Any, recursive: bool = True, include_self: bool = True) -> list:
    """A layer of Keras or `tf_keras` with the layers inside it, each once, outermost first."""
    return list(layer._flatten_layers(recursive=recursive, include_self=include_self))


def automatic_name(class_name: str) -> str:
    """The name that Keras makes up for a layer of a class, without its number."""
    return keras.src.utils.naming.to_snake_case(class_name)


def seed_states(layer: Any) -> list:
    """The states of the random generators in a layer and the layers inside it."""
    return [g.state for inner in layers_of(layer) for g in inner._seed_generators]


def changing_variables(layer: Any) -> list:
    """The variables of this layer alone that training a model around it would change."""
    weights = [*layer._trainable_variables, *layer._non_trainable_variables]
    seeds = [generator.state for generator in layer._seed_generators]
    return (weights if layer.trainable else []) + seeds


@contextlib.contextmanager
def unlocked(layer: Any) -> Iterator[None]:
    """Lets layers be added to one that is built, which Keras locks."""
    was_locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        yield
    finally:
        if was_locked:
            layer._tracker.lock()


@contextlib.contextmanager
def computing_in_float32(model: Any) -> Iterator[None]:
    """Inside this context, layers that compute in half or double precision use float32."""
    float32 = keras.dtype_policies.get("float32")
    others = ("float16", "bfloat16", "float64")
    layers = [x for x in layers_of(model) if x.compute_dtype in others]
    policies = [layer.__dict__["_dtype_policy"] for layer in layers]
    # Functional models cast what they are given to the dtype of their inputs.
    inputs = [x for layer in layers_of(model) for x in getattr(layer, "inputs", None) or ()]
    dtypes = {id(x): (x, x.dtype) for x in inputs if x.dtype in others}.values()
    try:
        for x, _ in dtypes:
            x._dtype = "float32"
        for layer in layers:
            layer.__dict__["_dtype_policy"] = float32
        # Weights that are in that precision themselves are cast, too.
        with keras.src.backend.AutocastScope("float32") if layers else contextlib.nullcontext():
            yield
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            layer.__dict__["_dtype_policy"] = policy
        for x, dtype in dtypes:
            x._dtype = dtype


@contextlib.contextmanager
def starting_from_zero(model: Any) -> Iterator[None]:
    """Inside this context, stateful recurrent layers start each sequence from zero."""
    layers = [x for x in layers_of(model) if getattr(x, "stateful", False)]
    try:
        for layer in layers:
            layer.__dict__["stateful"] = False
        yield
    finally:
        for layer in layers:
            layer.__dict__["stateful"] = True


@contextlib.contextmanager
def computing_with(**functions: Callable) -> Iterator[None]:
    """Inside this context, operations of `keras.ops` compute by other functions.

    Args:
        **functions: By the operation's name; each is called with the backend's function first.
    """
    modules = keras.src.backend.numpy, keras.src.backend.nn
    places = {name: next(m for m in modules if hasattr(m, name)) for name in functions}
    before = {name: getattr(module, name) for name, module in places.items()}
    try:
        for name, function in functions.items():
            setattr(places[name], name, functools.partial(function, before[name]))
        yield
    finally:
        for name, function in before.items():
            setattr(places[name], name, function)


def check_numerics(x: Any, message: str) -> Any:
    """`x`, with an error that says `message` where it holds NaN or infinity."""
    backends.require("`check_numerics=True`", "tensorflow")
    import tensorflow as tf

    return tf.debugging.check_numerics(x, message)


# What `compile` made.


def compiled_loss(model: Any) -> Callable | None:
    """The loss given to `compile`, a function of `(y, outputs, sample_weight)`, or `None`."""
    return model._compile_loss


def given_loss(model: Any) -> Any:
    """The loss given to `compile` as it was given: one, or a list or dict of them; or `None`."""
    return None if model._compile_loss is None else model._compile_loss._user_loss


def compiled_metrics(model: Any) -> Any:
    """The metrics given to `compile`, as one metric, or `None`."""
    return model._compile_metrics


def twin_metrics(compiled: Any) -> Any:
    """Metrics of the kinds of those that `compile` of Keras or `tf_keras` made, with new values.

    `None` where there are none, or one of them can't be made anew from its config.
    """
    given = compiled._user_metrics, compiled._user_weighted_metrics
    if not any(given):
        return None
    try:
        copies = [keras.tree.map_structure(copy_of_metric, part) for part in given]
    except Exception:  # Whatever a user's class raises.
        return None
    names = compiled._output_names if hasattr(compiled, "_output_names") else compiled.output_names
    return type(compiled)(*copies, output_names=names)


def copy_of_metric(metric: Any) -> Any:
    """A metric of the same kind and name with values of its own; anything else as it is."""
    if isinstance(metric, type) or not hasattr(metric, "get_config"):
        return metric
    return type(metric).from_config(metric.get_config())


def results_of(compiled: Any) -> dict[str, Any]:
    """The values of what `compile` of Keras or `tf_keras` made of the metrics, by name."""
    if isinstance(compiled, keras.metrics.Metric):
        return compiled.result()
    return {metric.name: metric.result() for metric in compiled.metrics}


def loss_tracker(model: Any) -> Any:
    """The metric that reports a compiled model's loss."""
    return model._loss_tracker


def trained_by(optimizer: Any) -> list:
    """The variables that an optimizer was built for."""
    return getattr(optimizer, "inner_optimizer", optimizer)._trainable_variables


# What `fit` does before its first step.


class BuildsAhead:
    """Has Keras call `build_ahead(iterator, data_batch)` before it traces the first step."""

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        self.build_ahead(iterator, data_batch)  # type: ignore[attr-defined]


class BuildsForFirstBatch:
    """Likewise on JAX and PyTorch, on which `fit` calls another method.

    There, `build_ahead` returns the batch, `(x, y, sample_weight)`, for Keras to build the rest on.
    """

    def _symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        made = (self._compile_metrics, self._compile_loss)  # type: ignore[attr-defined]
        layers = layers_of(self)
        if not all(x.built for x in (*layers, *made) if x is not None) or not self.is_built_ahead:  # type: ignore[attr-defined]
            data_batch = first_batch(iterator) if data_batch is None else data_batch
            data_batch = self.build_ahead(data_batch)  # type: ignore[attr-defined]
        super()._symbolic_build(iterator, data_batch)  # type: ignore[misc]


class EvaluatesWithoutLoss:
    """Lets `evaluate` report no loss, or nothing at all; lists begin with NaN then.

    What `_logs_of_epoch(logs)` returns is reported of an epoch.
    """

    _logs_of_epoch: Callable
    _unreported: tuple[str, ...]

    def _get_metrics_result_or_logs(self, logs: dict) -> dict:
        return self._logs_of_epoch(super()._get_metrics_result_or_logs(logs))  # type: ignore[misc]

    def _flatten_metrics_in_order(self, logs: dict) -> Any:
        absent = dict.fromkeys(("loss", *self._unreported), math.nan)
        return super()._flatten_metrics_in_order({**absent, **logs})  # type: ignore[misc]


def is_eager() -> bool:
    """Whether code runs at once, rather than being traced for a function of the backend."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.executing_eagerly()
    return not keras.src.backend.common.stateless_scope.in_stateless_scope()


def build_on(model: Any, data_batch: Any) -> None:
    """Builds what is left of a model, its compiled metrics and its optimizer, for a batch."""
    model._symbolic_build(data_batch=data_batch)


def strategy_of(model: Any) -> Any:
    """The `tf.distribute` strategy under which a model was constructed, or `None`."""
    return model._distribute_strategy


def first_batch(epoch_iterator: Any) -> Any:
    """The first batch of `fit`'s data."""
    for _, _, batches in epoch_iterator:
        return next(iter(batches))


def first_local_batch(epoch_iterator: Any, strategy: Any) -> Any:
    """The first batch of `fit`'s data, as one replica gets it."""
    return keras.tree.map_structure(
        lambda value: strategy.experimental_local_results(value)[0], first_batch(epoch_iterator)
    )


def batch_spec(epoch_iterator: Any) -> Any:
    """Shapes and dtypes of the batches of `fit`'s data."""
    return epoch_iterator._distributed_dataset.element_spec


# Graphs of layers: Functional models, and Sequential ones once they are built.


def graph_of(model: Any) -> Any:
    """The graph of layers that a Functional or a built Sequential model is, or `None`."""
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if hasattr(model, "_nodes_by_depth") else None


class Call:
    """One call of a layer or operation in a graph of layers.

    Attributes:
        operation: The layer or operation.
        inputs: The symbolic tensors among its arguments, in order.
        outputs: The symbolic tensors that it returned.
        positional: Its positional arguments.
        keywords: Its keyword arguments.
    """

    def __init__(self, node: Any):
        self.operation = node.operation
        self.inputs: list = node.arguments.keras_tensors
        self.outputs: list = node.outputs
        self.positional: tuple = tuple(node.arguments.args)
        self.keywords: dict = node.arguments.kwargs
        self._arguments = node.arguments

    def repeat(self, function: Callable, tensors: Iterable) -> Any:
        """Calls a function with the arguments of this call, `tensors` in place of its inputs."""
        given = {id(old): new for old, new in zip(self.inputs, tensors, strict=True)}
        args, kwargs = self._arguments.convert(
            lambda x: given[id(x)] if isinstance(x, keras.KerasTensor) else x
        )
        return function(*args, **kwargs)


def walk(graph: Any, inputs: Iterable, visit: Callable[[Call, list], Iterable]) -> list:
    """Goes through the calls of a graph in the order in which they are computed.

    Args:
        graph: What `graph_of` returned.
        inputs: A value for each input of the graph.
        visit: Function of a `Call` and the values of its inputs that returns the values of its
            outputs.

    Returns:
        The values of the graph's outputs.
    """
    values = {id(x): value for x, value in zip(graph.inputs, inputs, strict=True)}
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.is_input:
                continue
            call = Call(node)
            outputs = visit(call, [values[id(x)] for x in call.inputs])
            values.update({id(x): y for x, y in zip(call.outputs, outputs, strict=True)})
    return [values[id(x)] for x in graph.outputs]


def producer_of(tensor: Any) -> Any:
    """The layer or operation that returned a symbolic tensor."""
    return tensor._keras_history.operation


def is_linear_output(model: Any, index: int) -> bool:
    """Whether an output of a graph of layers comes from a layer with weights and no activation."""
    while isinstance(model, keras.Model) and graph_of(model) is not None:
        history = graph_of(model).outputs[index]._keras_history
        model, index = history.operation, history.tensor_index
    is_linear = getattr(model, "activation", None) is keras.activations.linear
    return is_linear and bool(model.weights)


def is_optional(tensor: Any) -> bool:
    """Whether a symbolic tensor is a `keras.Input(optional=True)`."""
    return bool(getattr(producer_of(tensor), "optional", False))


# What layers with other weights, or other statistics, override.


def read(x: Any) -> Any:
    """A tensor; of a variable, its present value."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.convert_to_tensor(x)
    return keras.ops.convert_to_tensor(x)


def kernel_variable(layer: Any) -> Any:
    """The variable that a layer's attribute `kernel` reads."""
    return layer._kernel


def set_kernel_variable(layer: Any, variable: Any) -> None:
    """Sets the variable that a layer's attribute `kernel` reads."""
    layer._kernel = variable


class BatchNormalization(keras.layers.BatchNormalization):
    """A `keras.layers.BatchNormalization` whose subclasses choose what it trains with."""

    def statistics(self, mean: Any, variance: Any) -> tuple[Any, Any]:
        """Mean and variance to normalize a training batch with, from the batch's own."""
        return mean, variance

    def _moments(self, inputs: Any, mask: Any) -> tuple[Any, Any]:
        return self.statistics(*super()._moments(inputs, mask))


# Graphs of TensorFlow.


def function_graph(graph: Any, name: str) -> Any:
    """The graph of a function that the operations of a traced graph call."""
    return graph._get_function(name).graph


# Datasets of TensorFlow.


def of_known_size(dataset: Any, count: int) -> Any:
    """A `tf.data.Dataset` that tells its number of elements, `count`, which is checked."""
    import tensorflow as tf

    return dataset.apply(tf.data.experimental.assert_cardinality(count))


# What Keras leaves on the tensors that its layers return.


def logits_behind(x: Any) -> Any:
    """The logits that a softmax or sigmoid of Keras turned into `x`, or `None`."""
    return _noted_on(x, "_keras_logits")


#: What `activation_behind` returns of a softmax over an axis that isn't the last.
OTHER_AXIS = "softmax over another axis"


def activation_behind(x: Any) -> str | None:
    """The activation of Keras that gave `x`: `"softmax"`, `"sigmoid"`, `OTHER_AXIS` or `None`."""
    logits = logits_behind(x)
    if logits is None:
        return None
    noted = _noted_on(x, _ACTIVATION)
    if noted is not None:
        return noted
    if hasattr(x, "numpy"):
        return _nearest_activation(np.asarray(x, "float64"), np.asarray(logits, "float64"))
    # What has read the logits; `x` may have been rounded since.
    readers = [op.type for op in logits.consumers()] if hasattr(logits, "consumers") else []
    if "Softmax" in readers:
        return "softmax"
    if "Sigmoid" in readers:
        return "sigmoid"
    # TensorFlow has a kernel for the last axis only, and moves others there.
    return OTHER_AXIS if "Transpose" in readers else "softmax"


_ACTIVATION = "keras_distill_activation"


def _noted_on(x, name):
    """What was noted on a tensor under a name, or `None`."""
    if keras.backend.backend() == "tensorflow":
        return getattr(x, name, None)
    return keras.src.backend.common.tensor_attributes.get_tensor_attr(x, name)


@contextlib.contextmanager
def noting_logits() -> Iterator[None]:
    """Inside this context, Keras' softmax and sigmoid note the logits of what they return.

    With TensorFlow they always do; tensors of other backends take no attributes.
    """
    nn = keras.src.backend.nn
    if keras.backend.backend() == "tensorflow":
        yield
        return
    before = nn.softmax, nn.sigmoid

    def softmax(x, axis=-1):
        is_last = axis in (-1, len(x.shape) - 1)
        return _noted(before[0](x, axis=axis), x, "softmax" if is_last else OTHER_AXIS)

    def sigmoid(x):
        return _noted(before[1](x), x, "sigmoid")

    try:
        nn.softmax, nn.sigmoid = softmax, sigmoid
        yield
    finally:
        nn.softmax, nn.sigmoid = before


def _noted(x, logits, activation):
    attributes = keras.src.backend.common.tensor_attributes
    attributes.set_tensor_attr(x, "_keras_logits", logits)
    attributes.set_tensor_attr(x, _ACTIVATION, activation)
    return x


def _nearest_activation(values: np.ndarray, logits: np.ndarray) -> str:
    """What made `values`, up to rounding, from `logits`."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    softmax = np.abs(values - powers / powers.sum(axis=-1, keepdims=True)).max(initial=0)
    sigmoid = np.abs(values - (np.tanh(logits / 2) + 1) / 2).max(initial=0)
    if sigmoid < min(0.01, softmax):
        return "sigmoid"
    return OTHER_AXIS if softmax > 0.02 and values.ndim > 2 else "softmax"


def mask_on(x: Any) -> Any:
    """The mask of a tensor, or `None`."""
    return keras.src.backend.common.masking.get_keras_mask(x)


def with_mask(x: Any, mask: Any) -> Any:
    """`x`, with a mask for the losses and layers of Keras that read it; `None` takes it off."""
    keras.src.backend.common.masking.set_keras_mask(x, mask)
    return x


def with_logits(x: Any, source: Any) -> Any:
    """`x`, with what Keras' softmax or sigmoid left on `source`: its logits, its name."""
    for name in ("_keras_logits", _ACTIVATION):
        noted = _noted_on(source, name)
        if noted is not None:
            keras.src.backend.common.tensor_attributes.set_tensor_attr(x, name, noted)
    return x


def carry_over(x: Any, source: Any) -> Any:
    """`x`, with the logits and the mask that Keras left on `source`, the same numbers."""
    return with_mask(with_logits(x, source), mask_on(source))


def combinations(toolkit: Any) -> Any:
    """What the Model Optimization Toolkit has to combine its techniques."""
    return toolkit.experimental.combine
