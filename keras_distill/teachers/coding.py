"""How an answer becomes a record, and a record an answer."""

import functools
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_distill._types import Tensor
from keras_distill.outputs import Factors, Output, require_last_axis
from keras_distill.teachers.base import check_names, map_outputs, option_for

SIGNATURE = "signature"
#: How the name of a field ends that has one number where others have one for each class.
REST = "/rest"


class Field(NamedTuple):
    """One output of a teacher, as it is stored.

    Args:
        name: Name or index of the output; `None` for the only one.
        shape: Its shape after the batch axis.
        activation: `"softmax"` or `"sigmoid"` if the teacher answers with probabilities (their
            logits are stored), else `None`.
        top_k: How many of the largest logits are stored, or `None` for all.
    """

    name: str | int | None
    shape: tuple
    activation: str | None
    top_k: int | None

    @property
    def field(self) -> str:
        return "output" if self.name is None else f"output:{self.name}"


class Layout:
    """What the records of a teacher hold.

    Args:
        kind: `"tensor"`, `"list"` or `"dict"`: the structure of the teacher's outputs.
        outputs: `Field`s, in order.
        features: Dict from the path of a tapped layer to its shape after the batch axis.
        dtype: `"float16"` or `"float32"`.
        temperature: Temperature at which the mean of several teachers and the tail of top-k
            answers are exact.
    """

    def __init__(self, kind: str, outputs: list, features: dict, dtype: str, temperature: float):
        self.kind = kind
        self.outputs = [Field(name, tuple(shape), *rest) for name, shape, *rest in outputs]
        self.features = {path: tuple(shape) for path, shape in features.items()}
        self.dtype = dtype
        self.temperature = temperature

    @classmethod
    def of(
        cls,
        outputs: Any,
        features: dict,
        names: Any,
        top_k: Any,
        dtype: str,
        temperature: float,
    ) -> "Layout":
        """The layout of an answer.

        Args:
            outputs: The teacher's outputs, `Output`s of symbolic tensors, in their final form.
            features: Dict from layer path to tensor.
            names: Names of the outputs of a list, or `None`.
            top_k: As in `store`.
            dtype: As in `store`.
            temperature: As in `store`.

        Raises:
            ValueError: If a size isn't known, or `top_k` doesn't fit.
        """
        found = []

        def note(output, name):
            shape = _known_shape(output, "output" if name is None else f"output {name!r}")
            activation = None if output.logits is None else output.activation
            require_last_axis(activation)
            count = _checked_top_k(option_for(top_k, name, None), shape, name)
            found.append((name, shape, activation, count))

        map_outputs(note, outputs, names)
        check_names("top_k", top_k, [name for name, *_ in found])
        kind = (
            "dict"
            if isinstance(outputs, dict)
            else "list"
            if isinstance(outputs, (list, tuple))
            else "tensor"
        )
        shapes = {path: _known_shape(x, f"layer {path!r}") for path, x in features.items()}
        return cls(kind, found, shapes, dtype, temperature)

    @classmethod
    def from_json(cls, config: dict) -> "Layout":
        return cls(**config)

    def to_json(self) -> dict:
        return {
            "kind": self.kind,
            "outputs": [list(output) for output in self.outputs],
            "features": self.features,
            "dtype": self.dtype,
            "temperature": self.temperature,
        }

    @property
    def record(self) -> np.dtype:
        """The dtype of a record."""
        number = "<f2" if self.dtype == "float16" else "<f4"
        fields: list = [(SIGNATURE, "<f4", (2,))]
        for output in self.outputs:
            if output.top_k is None:
                fields.append((output.field, number, output.shape))
                continue
            shape = (*output.shape[:-1], output.top_k)
            fields.append((f"{output.field}/values", number, shape))
            fields.append((f"{output.field}/classes", _index_type(output.shape[-1]), shape))
            fields.append((f"{output.field}{REST}", number, output.shape[:-1]))
        fields.extend((f"layer:{path}", number, shape) for path, shape in self.features.items())
        return np.dtype(fields)

    def encode(self, outputs: Any, features: dict) -> dict[str, Tensor]:
        """The fields of the records of a batch, tensors by name."""
        fields = {}
        for output, answer in zip(self.outputs, _leaves(outputs), strict=True):
            logits = ops.cast(answer.logits_at(self.temperature), "float32")
            if output.top_k is None:
                fields[output.field] = logits
                continue
            values, classes = ops.top_k(logits, output.top_k)
            fields[f"{output.field}/values"] = values
            fields[f"{output.field}/classes"] = classes
            is_sigmoid = answer.activation == "sigmoid"
            fields[f"{output.field}{REST}"] = _rest(logits, classes, self.temperature, is_sigmoid)
        for path in self.features:
            fields[f"layer:{path}"] = features[path]
        return {name: ops.cast(x, self.record[name].base.name) for name, x in fields.items()}

    def decode(self, fields: dict) -> tuple:
        """`(outputs, features)` from the fields of a batch of records."""
        leaves = []
        for output in self.outputs:
            factors = None
            if output.top_k is None:
                logits = ops.cast(fields[output.field], "float32")
            else:
                rows = (
                    ops.cast(fields[f"{output.field}/values"], "float32"),
                    ops.cast(fields[f"{output.field}/classes"], "int32"),
                    ops.cast(fields[f"{output.field}{REST}"], "float32"),
                )
                logits = _dense(*rows, output.shape[-1])
                factors = Factors(rows, (), functools.partial(_dense_rows, output.shape[-1]))
            if output.activation is None:
                leaves.append(Output(logits, factors=factors))
            else:
                leaves.append(Output.from_logits(logits, output.activation))
        features = {path: ops.cast(fields[f"layer:{path}"], "float32") for path in self.features}
        return self.pack(leaves), features

    def pack(self, leaves: list) -> Any:
        """`leaves`, one for each output, in the teacher's structure."""
        if self.kind == "tensor":
            return leaves[0]
        if self.kind == "list":
            return leaves
        return {output.name: leaf for output, leaf in zip(self.outputs, leaves, strict=True)}


def _leaves(outputs):
    """Outputs in the order of `map_outputs`."""
    if isinstance(outputs, dict):
        return list(outputs.values())
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def _rest(logits, classes, temperature, sigmoid):
    """One logit for all classes outside of the top k.

    At `temperature`, the probabilities of these classes then add up to what they were.
    """
    width = logits.shape[-1]
    flat = ops.reshape(logits, (-1, width)) / temperature
    rows = ops.repeat(ops.arange(ops.shape(flat)[0])[:, None], classes.shape[-1], axis=1)
    index = ops.stack([ops.reshape(rows, (-1,)), ops.reshape(classes, (-1,))], axis=-1)

    def log_sum(log_p):
        none = ops.full((ops.shape(index)[0],), -np.inf, log_p.dtype)
        return ops.logsumexp(ops.scatter_update(log_p, index, none), axis=-1)

    if sigmoid:
        rest = log_sum(ops.log_sigmoid(flat)) - log_sum(ops.log_sigmoid(-flat))
    else:
        rest = log_sum(flat) - np.log(width - classes.shape[-1])
    return ops.reshape(temperature * rest, ops.shape(logits)[:-1])


def _dense(values, classes, rest, width):
    """Logits of all classes from those of the top k and the one of the rest."""
    flat = ops.repeat(ops.reshape(rest, (-1, 1)), width, axis=1)
    k = values.shape[-1]
    rows = ops.repeat(ops.expand_dims(ops.arange(ops.shape(flat)[0]), 1), k, axis=1)
    index = ops.stack([ops.reshape(rows, (-1,)), ops.reshape(classes, (-1,))], axis=-1)
    flat = ops.scatter_update(flat, index, ops.reshape(values, (-1,)))
    return ops.reshape(flat, (*ops.shape(values)[:-1], width))


def _dense_rows(width, rows, shared):
    return _dense(*rows, width)


def _index_type(classes):
    return "<u1" if classes <= 2**8 else "<u2" if classes <= 2**16 else "<i4"


def _known_shape(x, what):
    shape = tuple(x.shape[1:])
    if None in shape:
        raise ValueError(
            f"Only answers of a known size can be stored, but the teacher's {what} has shape "
            f"{tuple(x.shape)}. Pad the inputs to one length."
        )
    return shape


def _checked_top_k(top_k, shape, name):
    if top_k is None:
        return None
    where = "output" if name is None else f"output {name!r}"
    if isinstance(top_k, bool) or not isinstance(top_k, int):
        raise TypeError(f"`top_k` must be an integer. Received: top_k={top_k!r}")
    if not shape or not 1 <= top_k <= shape[-1]:
        raise ValueError(
            f"`top_k` must be between 1 and the number of classes. Received: top_k={top_k} for "
            f"the teacher's {where} of shape {(None, *shape)}"
        )
    # All of them need no indices.
    return None if top_k == shape[-1] else top_k
