"""A model of sequences that reads a few tokens at a time, given what it kept of those before.

Nothing of the model changes: while it runs on the new tokens, its attention, recurrent layers and
positions go on from where they were. Keys and values of attention are kept for each token, and a
decoder's look at its encoder is computed once.
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill import _keras, taps
from keras_distill._types import Tensor
from keras_distill.outputs import Output

_RECURRENT = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)
_WRAPPED = (*_RECURRENT, keras.layers.RNN, keras.layers.Bidirectional)
#: Layers inside attention that is handed its cache: what they give is kept.
_ENTRIES = ("key", "value")
#: The score of a token that isn't there.
_MASKED = -1e9


@dataclasses.dataclass(frozen=True)
class Kept:
    """What a layer keeps of the tokens before.

    Attributes:
        name: Its name.
        shape: Its shape, without batch axis.
        grows: Whether each token adds an entry: `<name>_new` holds those of the tokens read, to be
            put at their positions. Else `<name>_out` replaces it, or it stays as it is.
        given: Whether the encoder gives it.
        stays: Whether it stays as the encoder gave it.
    """

    name: str
    shape: tuple
    grows: bool = False
    given: bool = False
    stays: bool = False


@dataclasses.dataclass
class _Call:
    """One call of a layer: what it was given, by the names of its arguments, and what it gave."""

    given: dict[str, Any]
    result: Any


class Steps:
    """A model, read step by step.

    Args:
        model: A Keras model: one that continues prompts, or an encoder and decoder.
        others: The model's inputs other than `target`, arrays by name, of one sample.
        length: Tokens of the longest sequence.
        target: Name of the decoder's input, or `None`.

    Attributes:
        kept: What is kept, by the layer's `id`.
        encodes: Whether there is something to encode.

    Raises:
        ValueError: A layer can't read step by step.
    """

    def __init__(
        self, model: keras.Model, others: Mapping[str, Any], length: int, target: str | None
    ):
        self.model, self.length, self.target = model, length, target
        self.others = {name: np.asarray(x) for name, x in others.items()}
        sizes = {size for x in self.others.values() for size in x.shape[1:]}
        #: So many tokens that positions are told from those of the other inputs.
        self._few = next((n for n in (*range(3, length + 1), 2, 1) if n not in sizes), length)
        self._layers = {id(x): x for x in _keras.layers_of(model, include_self=False)}
        self._caching = {key for key, layer in self._layers.items() if _takes_cache(layer)}
        first, second = (self._recorded(token) for token in (1, 2))
        self._results = {key: calls[0].result for key, calls in first.items()}
        self._reading = [key for key in first if _differ(first[key], second[key], 0)]
        self._crossing = [
            key for key in self._reading
            if self._attends(key) and not _differ(first[key], second[key], 1)
        ]  # fmt: skip
        self._positions = {
            key: [_are_positions(call, self._few) for call in calls]
            for key, calls in first.items()
            if isinstance(self._layers[key], keras.layers.Embedding)
        }
        self._check(first)
        self.kept = self._named(first)
        self.encodes = any(kept.given for kept in self.all_kept)

    @property
    def all_kept(self) -> list[Kept]:
        """All that is kept."""
        return [kept for each in self.kept.values() for kept in each]

    def _attends(self, key: int) -> bool:
        return isinstance(self._layers[key], keras.layers.MultiHeadAttention)

    def _recorded(self, token: int) -> dict[int, list[_Call]]:
        """Calls of the layers that look at other tokens, or at positions, by `id`."""
        calls: dict[int, list[_Call]] = {}
        kinds = (keras.layers.MultiHeadAttention, keras.layers.Embedding, *_WRAPPED)

        def recording(layer: Any) -> Callable:
            def call(original: Any, *args: Any, **kwargs: Any) -> Any:
                result = original(*args, **kwargs)
                given = _named_arguments(layer, args, kwargs)
                calls.setdefault(id(layer), []).append(_Call(given, result))
                return result

            return call

        with contextlib.ExitStack() as stack:
            for key, layer in self._layers.items():
                if isinstance(layer, kinds) or key in self._caching:
                    stack.enter_context(taps.calling(layer, recording(layer)))
            self._run(np.full((1, self._few), token, "int32"), self.others)
        return calls

    def _run(self, tokens: Tensor, others: Mapping[str, Any]) -> Output:
        """What the model outputs for tokens."""
        x = tokens if self.target is None else {**others, self.target: tokens}
        x = keras.tree.map_structure(ops.convert_to_tensor, x)
        return Output.of(taps.run(self.model, (), x, "model")[0])

    def logits(self, tokens: Tensor, others: Mapping[str, Any]) -> Tensor:
        """The logits of the whole model after each token."""
        return self._run(tokens, others).logits_at()

    def _check(self, first: dict[int, list[_Call]]) -> None:
        """Refuses what can't read step by step."""
        for key, layer in self._layers.items():
            if key not in self._reading or isinstance(layer, keras.layers.Embedding):
                continue
            is_plain = type(layer) in _RECURRENT
            if len(first[key]) > 1:
                why = "it is used more than once"
            elif getattr(layer, "go_backwards", False):
                why = "it reads backwards"
            elif not self._attends(key) and not is_plain and key not in self._caching:
                why = "of recurrent layers, `LSTM`, `GRU` and `SimpleRNN` can"
            elif first[key][0].given.get("return_attention_scores"):
                why = "it returns its scores"
            else:
                continue
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) can't read token by token: {why}."
            )

    def _named(self, first: dict[int, list[_Call]]) -> dict[int, list[Kept]]:
        """What each layer of the decoder keeps, under names of its own."""
        from keras_distill.tflite.student_function import unique_names

        found: dict[int, list[Kept]] = {}
        for key in self._reading:
            layer, given = self._layers[key], first[key][0].given
            if isinstance(layer, keras.layers.Embedding):
                continue
            if self._attends(key) or key in self._caching:
                crosses = key in self._crossing
                parts = self._looked_at(layer, given) if crosses else self._entries(layer, given)
                room = () if crosses else (self.length,)
                found[key] = [
                    Kept(f"{layer.name}_{name}", (*room, *x.shape[1 + len(room) :]), not crosses,
                         crosses, crosses)
                    for name, x in parts.items()
                ]  # fmt: skip
            else:
                sizes = keras.tree.flatten(layer.state_size)
                is_given = given.get("initial_state") is not None
                found[key] = [
                    Kept(f"{layer.name}_state_{i}", (int(size),), given=is_given)
                    for i, size in enumerate(sizes)
                ]
        wanted = [kept.name for each in found.values() for kept in each]
        names = iter(unique_names(["tokens", "position", *wanted], "kept")[2:])
        return {
            key: [dataclasses.replace(kept, name=next(names)) for kept in each]
            for key, each in found.items()
        }

    def _entries(self, layer: Any, given: Mapping[str, Any]) -> dict[str, Tensor]:
        """Keys and values of what attention is given."""
        if id(layer) in self._caching:
            parts = {x.name: x for x in _keras.layers_of(layer) if x.name in _ENTRIES}
            x = next(iter(given.values()))
            return {f"{name}s": parts[name](x) for name in _ENTRIES}
        value = _unmasked(given["value"])
        key = value if given.get("key") is None else _unmasked(given["key"])
        return {"keys": layer.key_dense(key), "values": layer.value_dense(value)}

    def _looked_at(self, layer: Any, given: Mapping[str, Any]) -> dict[str, Tensor]:
        """Keys, values and, where there is one, the mask of what a decoder looks at."""
        parts = self._entries(layer, given)
        masks = [given.get(name) for name in ("value_mask", "key_mask")]
        if given.get("attention_mask") is not None:
            mask = given["attention_mask"]
            masks.append(mask[:, -1] if len(mask.shape) == 3 else mask[:, 0, -1])
        masks = [ops.cast(mask, "bool") for mask in masks if mask is not None]
        if masks:
            whole = masks[0]
            for mask in masks[1:]:
                whole = ops.logical_and(whole, mask)
            parts["mask"] = ops.cast(whole, "float32")
        return parts

    # What is run in place of layers.

    def encode(self, others: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the decoder is given, by name."""
        found: dict[str, Tensor] = {}

        def recording(key: int) -> Callable:
            def call(original: Any, *args: Any, **kwargs: Any) -> Any:
                layer = self._layers[key]
                given = _named_arguments(layer, args, kwargs)
                if key in self._crossing:
                    parts = list(self._looked_at(layer, given).values())
                else:
                    parts = keras.tree.flatten(given.get("initial_state"))
                # Keras' attention takes a mask off for those that look there later: none is kept.
                for kept, part in zip(self.kept[key], parts, strict=False):
                    if kept.given:
                        found[kept.name] = part
                return self._nothing(key, batch)

            return call

        batch = ops.shape(next(iter(others.values())))[0]
        with contextlib.ExitStack() as stack:
            for key, each in self.kept.items():
                if any(kept.given for kept in each):
                    stack.enter_context(taps.calling(self._layers[key], recording(key)))
            self._run(ops.ones((batch, self._few), "int32"), others)
        return found

    def _nothing(self, key: int, batch: Any) -> Any:
        """Zeros in place of what a layer gives, where nothing depends on it."""
        return keras.tree.map_structure(
            lambda x: ops.zeros((batch, *x.shape[1:]), x.dtype), self._results[key]
        )

    def read(
        self, tokens: Tensor, position: Tensor, kept: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Reads tokens.

        Args:
            tokens: The next tokens, integers, shape `(batch, tokens)`.
            position: The position of the first, counted from 0, integers, shape `(batch, 1)`.
            kept: What is kept of those before, by name.

        Returns:
            The logits after the last token, under `"logits"`, and what is kept of those read.
        """
        after: dict[str, Tensor] = {}
        batch = ops.shape(tokens)[0]
        others = {
            name: ops.zeros((batch, *x.shape[1:]), x.dtype) for name, x in self.others.items()
        }
        with self._going_on(tokens, position, kept, after):
            logits = self._run(tokens, others).logits_at()[:, -1]
        return {"logits": ops.cast(logits, "float32"), **after}

    @contextlib.contextmanager
    def _going_on(
        self, tokens: Tensor, position: Tensor, kept: Mapping[str, Tensor], after: dict[str, Tensor]
    ) -> Iterator[None]:
        """Has the layers go on from the tokens before."""
        count, batch = tokens.shape[1], ops.shape(tokens)[0]
        places = position + ops.arange(count, dtype="int32")[None]
        with contextlib.ExitStack() as stack:
            for key, layer in self._layers.items():
                if key in self.kept:
                    given = [kept[x.name] for x in self.kept[key]]
                    call = self._continued(key, given, position, after)
                elif key in self._positions:
                    call = _placed(self._positions[key], places)
                elif key in self._results:  # of the encoder
                    call = self._left_out(key, batch)
                elif "positions" in inspect.signature(type(layer).call).parameters:
                    call = _told(places)
                else:
                    continue
                stack.enter_context(taps.calling(layer, call))
            yield

    def _before(self, position: Tensor, count: int) -> Tensor:
        """Which of the tokens kept, and of `count` new ones, each new one looks at, bool."""
        kept = ops.arange(self.length, dtype="int32")[None] < position
        kept = ops.repeat(kept[:, None], count, axis=1)
        own = ops.convert_to_tensor(np.tril(np.ones((1, count, count), "bool")))
        own = ops.logical_or(own, ops.zeros_like(kept[:, :, :1]))
        return ops.concatenate([kept, own], axis=2)

    def _left_out(self, key: int, batch: Any) -> Callable:
        return lambda original, *args, **kwargs: self._nothing(key, batch)

    def _continued(
        self, key: int, given: list[Tensor], position: Tensor, after: dict[str, Tensor]
    ) -> Callable:
        """The call of a layer that goes on from what it kept."""
        layer, kept = self._layers[key], self.kept[key]

        def recurrent(original, sequences, *args, **kwargs):
            states, outputs = given, []
            for i in range(sequences.shape[1]):
                output, states = layer.cell(sequences[:, i], states)
                outputs.append(output)
            states = keras.tree.flatten(states)
            after.update({f"{x.name}_out": s for x, s in zip(kept, states, strict=True)})
            output = ops.stack(outputs, axis=1) if layer.return_sequences else outputs[-1]
            return (output, *states) if layer.return_state else output

        def crossing(original, query, *args, **kwargs):
            keys, values, *mask = given
            return _attended(layer, query, keys, values, mask[0][:, None] > 0 if mask else None)

        def attention(original, query, value, key=None, *args, **kwargs):
            new = self._entries(layer, {"value": value, "key": key})
            after.update({f"{x.name}_new": n for x, n in zip(kept, new.values(), strict=True)})
            joined = [
                ops.concatenate(pair, axis=1) for pair in zip(given, new.values(), strict=True)
            ]
            return _attended(layer, query, *joined, self._before(position, query.shape[1]))

        def caching(original, *args, **kwargs):
            arguments = _named_arguments(layer, args, kwargs)
            count = next(iter(arguments.values())).shape[1]
            # What is new goes behind all that there is room for: there, in each row alike.
            room = [ops.pad(x, ((0, 0), (0, count), (0, 0), (0, 0))) for x in given]
            arguments |= {
                "cache": ops.stack(room, axis=1),
                "cache_update_index": self.length,
                "attention_mask": self._before(position, count),
            }
            result, cache = original(**arguments)
            for i, x in enumerate(kept):
                after[f"{x.name}_new"] = cache[:, i, self.length :]
            return result

        if key in self._caching:
            return caching
        if not self._attends(key):
            return recurrent
        return crossing if key in self._crossing else attention


def _named_arguments(layer: Any, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a layer's call by their names."""
    names = list(inspect.signature(type(layer).call).parameters)[1:]
    return dict(zip(names, args, strict=False)) | kwargs


def _takes_cache(layer: Any) -> bool:
    """Whether a layer is attention that is handed its cache, as that of KerasHub's models is."""
    names = inspect.signature(type(layer).call).parameters
    inside = {x.name for x in _keras.layers_of(layer, recursive=False)}
    return (
        {"cache", "cache_update_index"} <= set(names)
        and set(_ENTRIES) <= inside
        and not (isinstance(layer, keras.layers.MultiHeadAttention))
    )


def _attended(layer: Any, query: Tensor, keys: Tensor, values: Tensor, mask: Any) -> Tensor:
    """Attention to keys and values, shape `(batch, tokens, heads, size)`.

    Args:
        layer: The layer.
        query: What is asked, shape `(batch, queries, width)`.
        keys: Keys.
        values: Values.
        mask: Which tokens there are, bool, shape `(batch, queries or 1, tokens)`, or `None`.
    """
    query = layer.query_dense(_unmasked(query)) * (layer.key_dim**-0.5)
    scores = ops.einsum("bqhd,bkhd->bhqk", query, keys)
    if mask is not None:
        scores = ops.where(mask[:, None], scores, _MASKED)
    weights = ops.softmax(scores, axis=-1)
    return layer.output_dense(ops.einsum("bhqk,bkhd->bqhd", weights, values))


def _unmasked(x: Tensor) -> Tensor:
    """A tensor without its mask, which other layers still read."""
    return _keras.with_mask(ops.copy(x), None)


def _placed(are_positions: list[bool], places: Tensor) -> Callable:
    """The call of an embedding, of positions in some of its calls."""
    left = iter(are_positions)

    def call(original, inputs, *args, **kwargs):
        return original(places if next(left, False) else inputs, *args, **kwargs)

    return call


def _told(places: Tensor) -> Callable:
    """The call of a layer that is told the positions, as those of KerasHub are."""

    def call(original, *args, **kwargs):
        return original(*args, **{**kwargs, "positions": places})

    return call


def _are_positions(call: _Call, count: int) -> bool:
    """Whether an embedding is given the numbers of the tokens' places."""
    given = np.asarray(next(iter(call.given.values())))
    return given.shape[-1:] == (count,) and bool((given == np.arange(count)).all())


def _differ(first: list[_Call], second: list[_Call], place: int) -> bool:
    """Whether what a layer is given in a place depends on the decoder's tokens."""
    pairs = [[list(call.given.values())[place] for call in calls] for calls in (first, second)]
    return not all(np.array_equal(*map(np.asarray, pair)) for pair in zip(*pairs, strict=True))
