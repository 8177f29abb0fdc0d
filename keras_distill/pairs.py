"""Matches tied to their two models: places resolved, adapters built, tensors compared."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import keras

from keras_distill import labels
from keras_distill import taps as tapping
from keras_distill.adapters import adapting_layers, fit
from keras_distill.match import Match, as_tuple, numbered
from keras_distill.outputs import values_of


class Tap(NamedTuple):
    """One place in a model: the layer at `path`, or the output at `output` (`None`: the only)."""

    path: str | None = None
    output: int | str | None = None

    def __str__(self):
        if self.path is not None:
            return f"layer {self.path!r}"
        return "output" if self.output is None else f"output {self.output!r}"


class Answer(NamedTuple):
    """A model's answer for a batch.

    Args:
        outputs: The structure of the model's outputs, of `Output`s.
        features: What the tapped layers returned, tensors by the layers' paths.
    """

    outputs: Any
    features: dict[str, Any]

    @property
    def values(self) -> Any:
        """The outputs as plain tensors."""
        return values_of(self.outputs)

    def at(self, tap: Any) -> Any:
        """What is at a `Tap`, or a tuple at a tuple of taps."""
        if not isinstance(tap, Tap):
            return tuple(self.at(part) for part in tap)
        if tap.path is not None:
            return self.features[tap.path]
        return self.outputs if tap.output is None else self.outputs[tap.output]


class ModelTaps:
    """Resolves the places in a model that users name into `Tap`s.

    Args:
        path_of: Function from the path of a layer, or a layer, to the path of a layer that exists.
        outputs: The structure of the model's outputs.
        output_names: Names of the model's outputs, in order, or `None`.
    """

    def __init__(self, path_of: Callable[[Any], str], outputs: Any, output_names: list[str] | None):
        self.path_of = path_of
        self.outputs = outputs
        self.output_names = output_names

    def resolve(self, place: Any) -> Any:
        """The `Tap` of a place, or a tuple of them."""
        if isinstance(place, (tuple, list)):
            return tuple(self.resolve(part) for part in place)
        if place is None:
            return Tap()
        if isinstance(place, int):
            return Tap(output=place if keras.tree.is_nested(self.outputs) else None)
        if isinstance(place, str):
            if isinstance(self.outputs, dict) and place in self.outputs:
                return Tap(output=place)
            names = self.output_names or []
            if isinstance(self.outputs, (list, tuple)) and place in names:
                return Tap(output=names.index(place))
        return Tap(path=self.path_of(place))


def paths(taps: Iterable) -> list[str]:
    """The layer paths among taps, each once."""
    flat = [part for tap in taps for part in _flat(tap)]
    return list(dict.fromkeys(tap.path for tap in flat if tap.path is not None))


def _flat(taps: Any) -> list[Tap]:
    """A `Tap`, or a tuple of them, as a list."""
    return [taps] if isinstance(taps, Tap) else list(taps)


class Pair:
    """A `Match` tied to its two models: taps resolved, adapters built.

    Args:
        match: The `Match`.
        name: Name that no other pair of the distiller has.
        student: `Tap`, or tuple of taps, in the student.
        teacher: `Tap`, or tuple of taps, in the teacher.
    """

    def __init__(self, match: Match, name: str, student: Any, teacher: Any):
        self.match = match
        self.loss = match.loss
        self.name = name
        self.student = student
        self.teacher = teacher
        self.adapters = as_tuple(match.adapter)

    def build(self, student: Answer, teacher: Answer, dtype: Any) -> None:
        """Builds adapters and the loss' state, and checks that the two sides fit.

        Args:
            student: `Answer` of `keras.KerasTensor`s.
            teacher: Likewise.
            dtype: Dtype policy of adapters.

        Raises:
            ValueError: If the two sides can't be compared. The message names both shapes.
        """
        ours = as_tuple(_specs_at(student, self.student, "student"))
        theirs = as_tuple(_specs_at(teacher, self.teacher, "teacher"))
        if self.match.adapter == "auto":
            if self.adapters == ("auto",):
                if len(ours) != len(theirs):
                    raise ValueError(
                        f'{self.match!r} compares {len(ours)} taps with {len(theirs)}, but "auto" '
                        "builds an adapter for each two. Give `adapter` a layer, or `None`."
                    )
                self.adapters = tuple(
                    self._auto_adapter(s, t, dtype) for s, t in zip(ours, theirs, strict=True)
                )
        elif len(self.adapters) not in (1, len(ours)):
            raise ValueError(
                f"{self.match!r} taps {len(ours)} places but has {len(self.adapters)} adapters."
            )
        ours = tuple(
            spec if adapter is None else tapping.spec_of(adapter, spec)
            for spec, adapter in zip(ours, self._adapters_for(ours), strict=True)
        )
        if self.loss.same_shape:
            for s, t in zip(ours, theirs, strict=True):
                if not fit(s.shape, t.shape):
                    raise ValueError(self._mismatch(s.shape, t.shape))
        if not self.loss.built:
            shapes: list[Any] = [[x.shape for x in side] for side in (theirs, ours)]
            self.loss.build(*(shape[0] if len(shape) == 1 else shape for shape in shapes))

    @property
    def output(self) -> int | str | None:
        """Index or name of the student's output that is compared, among several."""
        return self.student.output if isinstance(self.student, Tap) else None

    def __call__(
        self,
        student: Answer,
        teacher: Answer,
        y: Any,
        keys: Any,
        sample_weight: Any,
        training: bool = True,
    ) -> Any:
        """The reduced loss of a batch, unweighted.

        Args:
            student: The student's answer.
            teacher: The teacher's answer.
            y: Labels in the container of the student's outputs, or `None`.
            keys: One integer for each sample, or `None`.
            sample_weight: Weights in the container of the student's outputs, or `None`.
            training: Whether adapters behave as in training.

        Raises:
            ValueError: If the loss needs labels or keys that the batch doesn't have.
        """
        y_pred = student.at(self.student)
        parts = as_tuple(y_pred)
        parts = tuple(
            x if adapter is None else adapter(values_of(x), training=training)
            for x, adapter in zip(parts, self._adapters_for(parts), strict=True)
        )
        y_pred = parts if isinstance(y_pred, tuple) else parts[0]
        y_true = teacher.at(self.teacher)
        if self.loss.needs_labels:
            y_true = (y_true, self._labels(y))
        elif self.loss.needs_keys:
            y_true = (y_true, self._keys(keys))
        return self.loss(y_true, y_pred, labels.weights_at(sample_weight, self.output))

    def config(self) -> dict:
        """The serialized `Match`, with the adapters as they were built."""
        match = self.match.get_config()
        adapters = self.adapters if len(self.adapters) > 1 else self.adapters[0]
        match["adapter"] = keras.saving.serialize_keras_object(adapters)
        for role, taps in (("student", self.student), ("teacher", self.teacher)):
            match[role] = _place(taps)
        config = keras.saving.serialize_keras_object(self.match)
        return {**config, "config": match}

    def _labels(self, y):
        own = labels.labels_at(y, self.output)
        if own is None:
            raise ValueError(
                f"The loss {self.name!r} needs the labels of the student's {self.student}, "
                f"but the batch has none for it."
            )
        return own

    def _keys(self, keys):
        if keys is None:
            raise ValueError(
                f"The loss {self.name!r} needs a key for each sample, but the batch has none. "
                "See `keras_distill.teachers.Keyed`."
            )
        return keys

    def _adapters_for(self, parts):
        return self.adapters * len(parts) if len(self.adapters) == 1 else self.adapters

    def _auto_adapter(self, student, teacher, dtype):
        if not self.loss.same_shape or fit(student.shape, teacher.shape):
            return None
        layers = adapting_layers(student.shape, teacher.shape, dtype)
        if layers is None:
            raise ValueError(
                self._mismatch(student.shape, teacher.shape)
                + ' `adapter="auto"` can change channels (1×1 convolution, dense), pool or resize '
                "maps, and pool maps or sequences into vectors; these shapes need an adapter of "
                "your own."
            )
        adapter = keras.Sequential(layers, name=f"{self.name}_adapter".replace("/", "_"))
        # The mask stays valid, unless positions are merged or repeated.
        adapter.supports_masking = not (
            len(student.shape) == len(teacher.shape) == 3 and student.shape[1] != teacher.shape[1]
        )
        return adapter

    def _mismatch(self, student, teacher):
        is_output = isinstance(self.student, Tap) and self.student.path is None
        fix = (
            "Outputs must have equal shapes apart from the batch. If the teacher has more classes, "
            "select some: `keras_distill.teachers.Teacher(model, class_map=[...])`"
            if is_output
            else 'Give the `Match` adapter="auto", or a layer that turns the student\'s shape into '
            "the teacher's"
        )
        return (
            f"{self.name}: the student's {self.student} has shape {student} but the teacher's "
            f"{self.teacher} has shape {teacher}. {fix}."
        )


def are_read_as_logits(pairs: Iterable[Pair], outputs: Any) -> list[bool]:
    """For each of the student's outputs whether a loss on logits reads it.

    Args:
        pairs: The pairs that were built.
        outputs: The structure of the outputs, of `keras.KerasTensor`s.
    """
    answer = Answer(outputs, {})
    taps = [tap for pair in pairs if pair.loss.takes_logits for tap in _flat(pair.student)]
    read = [x for tap in taps if tap.path is None for x in keras.tree.flatten(answer.at(tap))]
    return [any(x is y for y in read) for x in keras.tree.flatten(outputs)]


def of_each_output(match: Match, name: str, outputs: Any, taken: list[str]) -> list[Pair]:
    """One pair for each of the student's outputs, for a match that names no place.

    Args:
        match: The match.
        name: Its name.
        outputs: The student's outputs.
        taken: Names of other pairs; those of the new ones are added.
    """
    pairs = []
    leaves = _leaves(outputs)
    for index, (output, suffix) in enumerate(leaves):
        own = numbered(name + suffix, taken) if suffix else name
        taken.append(own)
        pair = Pair(match, own, Tap(output=output), Tap(output=output))
        if len(pair.adapters) == len(leaves):
            pair.adapters = pair.adapters[index : index + 1]
        pairs.append(pair)
    return pairs


def check_states(pairs: Iterable[Pair]) -> None:
    """Raises where a loss with weights of its own is used in two places."""
    places: dict[int, Pair] = {}
    for pair in pairs:
        if pair.loss.state is not None and places.setdefault(id(pair.loss), pair) is not pair:
            raise ValueError(
                f"The loss {pair.name!r} has weights of its own, which "
                f"{places[id(pair.loss)].name!r} already trains. Create a separate loss object for "
                "each `Match`, and one `Match` for each output."
            )


def _leaves(outputs):
    """Index or name of each output, and what it adds to a loss' name."""
    if isinstance(outputs, dict):
        return [(name, f"_{name}") for name in outputs]
    if isinstance(outputs, (list, tuple)):
        return [(index, f"_{index}") for index in range(len(outputs))]
    return [(None, "")]


def _place(taps):
    """Taps as users write them. The only output is 0: `None` stands for all outputs."""
    if not isinstance(taps, Tap):
        return [_place(tap) for tap in taps]
    if taps.path is not None:
        return taps.path
    return 0 if taps.output is None else taps.output


def _specs_at(answer, taps, role):
    try:
        specs = answer.at(taps)
    except (KeyError, IndexError, TypeError) as error:
        outputs = keras.tree.map_structure(lambda x: x.shape, answer.outputs)
        raise ValueError(f"The {role} has no {taps}. Its outputs have shape {outputs}.") from error
    for spec in keras.tree.flatten(specs):
        if not isinstance(spec, keras.KerasTensor):
            raise ValueError(f"The {role}'s {taps} is not a tensor but {type(spec).__name__}.")
    if isinstance(taps, Tap) and keras.tree.is_nested(specs):
        raise ValueError(f"The {role}'s {taps} holds several tensors: name one of them.")
    return specs
