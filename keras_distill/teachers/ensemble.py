"""Several teachers that answer as one."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_distill import taps as tapping
from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import number, one_of
from keras_distill.outputs import (
    Mean,
    Output,
    as_outputs,
    mean_logits,
    require_last_axis,
    values_of,
)
from keras_distill.teachers.base import BaseTeacher, Misfit, contents_of
from keras_distill.teachers.conversion import as_teacher


class Ensemble(BaseTeacher):
    """Several teachers whose answers are averaged. Each is run once a batch.

    With `combine="probabilities"` the members' softened probabilities are averaged at the
    temperature of each loss that reads them: as `sum_k w_k KL(p_k ‖ q)` and
    `KL(sum_k w_k p_k ‖ q)` differ by a constant, the student's gradient is that of learning from
    all members at once. With `combine="logits"` the logits (or values, in regression) are
    averaged, which is sharper, and members with larger logits count for more.

    `fit` reports the mean weight of each member as `<member>_share`.

    Args:
        teachers: Two or more teachers of any kind, or Keras models.
        weights: What each member counts for:

            - a list of numbers of at least 0, scaled to add up to 1;
            - `"entropy"`: in each sample `w_k ∝ exp(-H(p_k))`, H the entropy of the member's
              answer in nats, so that surer members count for more (the idea of Kwon et al.,
              "Adaptive Knowledge Distillation Based on Entropy", ICASSP 2020);
            - `"confidence"`: in each sample `w_k ∝ max_c p_k(c)`;
            - `"learned"`: weights trained along with the student (the idea of Liu, Zhang and
              Wang, "Adaptive Multi-Teacher Multi-level Knowledge Distillation",
              arXiv:2103.04062, with one weight for each member). They drift towards members that
              the student can follow.

            Defaults to `None`: all the same.
        combine: `"probabilities"` or `"logits"`. Defaults to `"probabilities"`.
        activation: As in `Teacher`; it holds for all members and outputs. Where outputs differ,
            give it to the members: `Teacher(member, activation={...})`.
        name: Name for messages and reports.

    Raises:
        TypeError: If `teachers` isn't a list of teachers.
        ValueError: If there are fewer than two, or `weights` or `combine` isn't one of the above.

    Example:

    >>> teacher = keras_distill.teachers.Ensemble([small, large], weights=[1, 3])
    """

    def __init__(
        self,
        teachers: list,
        weights: Any = None,
        combine: str = "probabilities",
        activation: str = "softmax",
        name: str = "ensemble",
    ):
        if not isinstance(teachers, (list, tuple)):
            raise TypeError(f"`teachers` must be a list of teachers. Received: {teachers!r}")
        if len(teachers) < 2:
            raise ValueError(f"`teachers` must hold two teachers or more. Received: {teachers!r}")
        if isinstance(activation, dict):
            raise ValueError(
                "`activation` must be one for all outputs. Where outputs differ, give it to the "
                "members: `keras_distill.teachers.Teacher(member, activation={...})`. "
                f"Received: activation={activation!r}"
            )
        self.teachers = [as_teacher(teacher) for teacher in teachers]
        if any(teacher.state is not None for teacher in self.teachers):
            raise ValueError(
                "An ensemble with learned weights can't be a member of another. Give its members "
                'to this one, with `weights="learned"`.'
            )
        self.weights = _checked(weights, len(teachers))
        self.averages = one_of("combine", combine, ("probabilities", "logits"))
        self.activation = one_of("activation", activation, ("softmax", "sigmoid"))
        self.name = name
        self.output_names = self.teachers[0].output_names
        self.supports_jit = all(teacher.supports_jit for teacher in self.teachers)
        self._names = _unique([teacher.name for teacher in self.teachers])
        self.figure_names = tuple(f"{name}_share" for name in self._names)
        if weights == "learned":
            self.state = LearnedWeights(len(teachers))
            self.state.build()

    def answer(self, inputs: Any, taps: Any = ()) -> tuple:
        return self._ask(lambda teacher, taps: teacher.answer(inputs, taps), taps)

    def answer_spec(self, inputs: Any, taps: Any = ()) -> tuple:
        outputs, features = self._ask(lambda teacher, taps: teacher.answer_spec(inputs, taps), taps)
        self._check_shapes(outputs)
        return tapping.spec_of(lambda *parts: values_of(self._mean_of(parts)), *outputs), features

    def combine(self, outputs: Any) -> Any:
        return self._mean_of(self._combined(outputs))

    def figures(self, outputs: Any) -> dict:
        outputs = self._combined(outputs)
        shares = []
        for parts in zip(*map(keras.tree.flatten, outputs), strict=True):
            weights = self._weights([_logits(part) for part in parts], self._activation(parts))
            shares.append([ops.mean(weight) for weight in weights])
        return {
            name: sum(share) / len(share)
            for name, share in zip(self.figure_names, zip(*shares, strict=True), strict=True)
        }

    def tap_path(self, tap: Any) -> str:
        for name, teacher in zip(self._names, self.teachers, strict=True):
            if isinstance(tap, str):
                if tap.startswith(f"{name}/"):
                    return f"{name}/{teacher.tap_path(tap.removeprefix(f'{name}/'))}"
            else:
                try:
                    return f"{name}/{teacher.tap_path(tap)}"
                except ValueError:
                    continue
        raise ValueError(
            f"No teacher of {self.name!r} has the layer {tap!r}. Put the teacher's name first: "
            + ", ".join(f"'{name}/...'" for name in self._names)
        )

    @property
    def variables(self) -> list:
        return [variable for teacher in self.teachers for variable in teacher.variables]

    def contents(self) -> Iterator:
        yield from (*super().contents(), self.weights, self.averages, self.activation)
        yield from (teacher.fingerprint() for teacher in self.teachers)
        yield from contents_of(self.state.weights if self.state is not None else [])

    def _ask(self, ask, taps):
        """The outputs of all members, and the features tapped, in order."""
        outputs, features = [], {}
        for name, teacher in zip(self._names, self.teachers, strict=True):
            own = [tap for tap in taps if tap.startswith(f"{name}/")]
            output, found = ask(teacher, [tap.removeprefix(f"{name}/") for tap in own])
            outputs.append(output)
            features.update(zip(own, found, strict=True))
        return outputs, [features[tap] for tap in taps]

    def _combined(self, outputs):
        return [
            as_outputs(teacher.combine(output))
            for teacher, output in zip(self.teachers, outputs, strict=True)
        ]

    def _mean_of(self, outputs):
        return keras.tree.map_structure(
            lambda *parts: self._mean([Output.of(part) for part in parts]), *outputs
        )

    def _activation(self, parts: Sequence[Output]) -> str:
        """What turns the logits of one output of all members into probabilities."""
        for part in parts:
            require_last_axis(part.activation)
        found = any(part.activation == "sigmoid" for part in parts)
        is_sigmoid = found or self.activation == "sigmoid" or parts[0].shape[-1] == 1
        return "sigmoid" if is_sigmoid else "softmax"

    def _mean(self, parts: Sequence[Output]) -> Output:
        """The mean of one output, which losses may ask for at their own temperature."""
        activation = self._activation(parts)
        logits = [_logits(part) for part in parts]
        weights = self._weights(logits, activation)
        if self.averages == "logits":
            mean = sum(weight * z for weight, z in zip(weights, logits, strict=True))
            softened = None
        else:
            mean = mean_logits(logits, weights, activation)
            softened = Mean(tuple(logits), tuple(weights))
        if all(part.logits is not None for part in parts):
            return dataclasses.replace(Output.from_logits(mean, activation), mean=softened)
        return Output(mean, activation=activation, mean=softened)

    def _weights(self, logits, activation):
        """A weight for each member: scalars, or one for each sample, shape `(batch, ..., 1)`."""
        if self.weights == "learned":
            return ops.unstack(self.state.shares(), len(logits))
        if not isinstance(self.weights, str):
            return [ops.convert_to_tensor(weight, "float32") for weight in self.weights]
        scores = [_SCORES[self.weights](z, activation) for z in logits]
        total = sum(scores)
        return [score / total for score in scores]

    def _check_shapes(self, outputs):
        shapes = [
            keras.tree.map_structure(lambda x: tuple(x.shape[1:]), output) for output in outputs
        ]
        for name, shape in zip(self._names, shapes, strict=True):
            if shape != shapes[0]:
                raise Misfit(
                    f"The teacher {name!r} answers with shape {shape} after the batch axis, but "
                    f"{self._names[0]!r} with {shapes[0]}. Where one knows more classes, choose "
                    "among them: `keras_distill.teachers.Teacher(model, class_map=[...])`."
                )


@keras.saving.register_keras_serializable(PACKAGE)
class LearnedWeights(keras.layers.Layer):
    """Weights that add up to 1 and are all the same at first: the softmax of a vector.

    Args:
        units: How many weights.
        **kwargs: Other arguments of `keras.layers.Layer`.
    """

    def __init__(self, units: int, name: str = "ensemble_weights", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.units = units

    def build(self) -> None:
        self.scores = self.add_weight(name="scores", shape=(self.units,), initializer="zeros")

    def shares(self) -> Tensor:
        """The weights, float32, shape `(units,)`."""
        return ops.softmax(ops.cast(self.scores, "float32"))

    def get_config(self) -> dict:
        return {**super().get_config(), "units": self.units}


def _logits(output):
    return ops.cast(output.logits_at(), "float32")


def _certainty(logits, activation):
    """exp(-H) of each row: 1 for a sure answer, 1/classes for none at all."""
    if activation == "sigmoid":
        p = ops.sigmoid(logits)
        entropy = -p * ops.log_sigmoid(logits) - (1 - p) * ops.log_sigmoid(-logits)
        return ops.exp(-entropy)
    log_p = ops.log_softmax(logits)
    return ops.exp(ops.sum(ops.exp(log_p) * log_p, axis=-1, keepdims=True))


def _confidence(logits, activation):
    if activation == "sigmoid":
        return ops.sigmoid(ops.abs(logits))
    return ops.max(ops.softmax(logits), axis=-1, keepdims=True)


_SCORES: dict[str, Callable] = {"entropy": _certainty, "confidence": _confidence}


def _checked(weights, count):
    """`weights` as a word or a list of floats that add up to 1."""
    if weights is None:
        return [1 / count] * count
    if isinstance(weights, str):
        if weights not in (*_SCORES, "learned"):
            raise ValueError(
                '`weights` must be a list of numbers, "entropy", "confidence" or "learned". '
                f"Received: weights={weights!r}"
            )
        return weights
    if not isinstance(weights, Iterable):
        raise TypeError(f"`weights` must be a list of numbers. Received: weights={weights!r}")
    values = [number("weights", weight) for weight in weights]
    # Negated, so that NaN is refused too.
    if len(values) != count or not (min(values) >= 0 and 0 < sum(values) < float("inf")):
        raise ValueError(
            f"`weights` must hold a number of at least 0 for each of the {count} teachers, not "
            f"all 0. Received: weights={weights!r}"
        )
    return [value / sum(values) for value in values]


def _unique(names):
    """`names` with a number added to those that are repeated."""
    unique = []
    for name in names:
        number, stem = 2, name
        while name in unique:
            name, number = f"{stem}_{number}", number + 1
        unique.append(name)
    return unique
