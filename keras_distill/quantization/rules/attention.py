"""Attention: projections, scores, softmax and their mean, each a kernel of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from keras import layers, ops

from keras_distill.quantization import layers as quantized
from keras_distill.quantization.graph import Step
from keras_distill.quantization.rules.rule import YES, Output, Rule, Support

if TYPE_CHECKING:
    from keras_distill.quantization.rebuild import Builder


def _attention(builder: Builder, step: Step, tensors: list) -> Any:
    attention = step.operation
    name = builder.unique(attention.name)
    query, value, key = step.call.repeat(_operands, tensors)
    size = attention.key_dim

    def rounded(x: Any, part: str) -> Any:
        return builder.round(x, f"{name}_{part}", step)

    def project(x: Any, part: str, dense: Any, size: int, factor: float = 1.0) -> Any:
        units = attention.num_heads * size
        y = _dense(builder, step, x, dense, units, f"{attention.name}_{part}", part, factor)
        y = layers.Reshape((x.shape[1], attention.num_heads, size))(rounded(y, part))
        return layers.Permute((2, 1, 3))(y)

    # The scores' factor 1/sqrt(size) is part of the query's kernel.
    q = project(query, "query", attention.query_dense, size, 1 / math.sqrt(size))
    k = project(key, "key", attention.key_dense, size)
    v = project(value, "value", attention.value_dense, attention.value_dim)
    scores = rounded(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))), "scores")
    weights = layers.Softmax(name=f"{name}_softmax")(scores)
    weights = builder.fix(weights, f"{name}_softmax", step).tensor
    if attention.dropout:
        weights = layers.Dropout(attention.dropout, name=f"{name}_dropout")(weights)
    context = rounded(ops.matmul(weights, v), "context")
    context = layers.Permute((2, 1, 3))(context)
    width = attention.num_heads * attention.value_dim
    context = layers.Reshape((query.shape[1], width))(context)
    dense = attention.output_dense
    return _dense(builder, step, context, dense, dense.kernel.shape[-1], attention.name)


def _operands(query: Any, value: Any, key: Any = None, **_: Any) -> tuple[Any, Any, Any]:
    return query, value, value if key is None else key


def _dense(
    builder: Builder,
    step: Step,
    x: Any,
    dense: Any,
    units: int,
    name: str,
    part: str = "",
    factor: float = 1.0,
) -> Any:
    """One of the layer's projections, as a dense layer with `factor` in its kernel."""
    bias = None if dense.bias is None else dense.bias * factor
    config = {
        "units": units,
        "use_bias": bias is not None,
        "name": name,
        "dtype": step.operation.dtype_policy,
    }
    kind = quantized.QuantizedDense
    return builder.kernel(step, kind, config, [x], dense.kernel * factor, bias, part)


def _check(step: Step) -> str | None:
    keywords = step.call.keywords
    masks = ("attention_mask", "query_mask", "key_mask", "value_mask")
    flags = ("use_causal_mask", "return_attention_scores")
    if any(keywords.get(name) is not None for name in masks) or any(
        keywords.get(name) for name in flags
    ):
        return "Masks and returned scores have no integer form here: leave them out."
    config = step.operation.get_config()
    if config.get("use_gate") or config.get("sliding_window"):
        return "`use_gate` and `sliding_window` have no integer form here: leave them out."
    shapes = [x.shape for x in step.call.inputs]
    if len(shapes[0]) != 3 or any(None in shape[1:] for shape in shapes):
        return "Its inputs must have the static shape (steps, features)."
    return None


LAYERS: dict[type, Rule] = {
    layers.MultiHeadAttention: Rule(
        Output.OWN,
        _attention,
        _check,
        support=Support(int4=YES),
        note="without masks and gates",
    )
}
