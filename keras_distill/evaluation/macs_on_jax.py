"""Multiply-accumulates of a Keras model, counted in what JAX traces of it."""

import math
from collections.abc import Callable
from typing import Any

import keras


class Opaque(ValueError):
    """The model runs Python code, whose cost can't be read from the graph."""


def count(model: Callable[[Any], Any], specs: Any) -> int:
    """Counts the multiply-accumulates of a function.

    Args:
        model: A `keras.Model`, or a function of tensors.
        specs: Its inputs, objects with `shape` and `dtype`.

    Raises:
        ValueError: If the number of iterations of a loop depends on the data, or the model runs
            Python code.
    """
    import jax

    def call(x: Any) -> Any:
        with keras.StatelessScope():
            return model(x, training=False) if isinstance(model, keras.Model) else model(x)

    arrays = keras.tree.map_structure(
        lambda x: jax.ShapeDtypeStruct(tuple(x.shape), x.dtype.as_numpy_dtype), specs
    )
    return _of_program(jax.make_jaxpr(call)(arrays).jaxpr)


def _of_program(program: Any) -> int:
    return sum(_of_equation(equation) for equation in program.eqns)


def _of_equation(equation: Any) -> int:
    name, options = equation.primitive.name, equation.params
    if name in _PRODUCTS:
        return _PRODUCTS[name](equation)
    if "callback" in name:
        raise Opaque("The model runs Python code, whose cost is unknown.")
    parts = [_of_program(getattr(part, "jaxpr", part)) for part in _programs(options)]
    if name == "cond":
        return max(parts)
    if name == "while" and any(parts):
        raise ValueError("The number of iterations of a loop depends on the data.")
    return sum(parts) * options.get("length", 1) if name == "scan" else sum(parts)


def _programs(options):
    """The programs among the options of an equation."""
    for option in options.values():
        for part in option if isinstance(option, (list, tuple)) else (option,):
            if hasattr(part, "eqns") or hasattr(part, "jaxpr"):
                yield part


def _of_dot(equation):
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    summed = math.prod(left[axis] for axis in contracted)
    return math.prod(equation.outvars[0].aval.shape) * summed


def _of_convolution(equation):
    given, kernel = (x.aval.shape for x in equation.invars)
    out_channels, in_channels, *spatial = equation.params["dimension_numbers"].rhs_spec
    size = math.prod(kernel[axis] for axis in spatial)
    if any(step > 1 for step in equation.params["lhs_dilation"]):  # Transposed: by its inputs.
        groups = equation.params["feature_group_count"]
        return math.prod(given) * size * kernel[out_channels] // groups
    return math.prod(equation.outvars[0].aval.shape) * size * kernel[in_channels]


_PRODUCTS = {"dot_general": _of_dot, "conv_general_dilated": _of_convolution}
