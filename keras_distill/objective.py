"""What a student is trained for: the labels, and agreement with a teacher."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_distill import _keras, labels
from keras_distill import taps as tapping
from keras_distill.checks import fraction
from keras_distill.hyperparameters import Bound, Hyperparameter, as_float, bind, hyperparameters
from keras_distill.inputs import entries_for, known_inputs
from keras_distill.losses.response import SoftTargets
from keras_distill.match import RESERVED, Match, as_matches, unique_names
from keras_distill.outputs import Output, as_outputs
from keras_distill.pairs import (
    Answer,
    ModelTaps,
    Pair,
    are_read_as_logits,
    check_states,
    of_each_output,
    paths,
)
from keras_distill.teachers import BaseTeacher, as_teacher
from keras_distill.teachers.base import Misfit


class Objective:
    """Student, teacher, and the losses between them.

    It asks the teacher, runs the student and computes the losses of a batch. Training, reporting
    and saving are left to its owner, such as a `Distiller`. The owner also tracks `layers`, which
    are trained with the student but aren't part of it.

    Args:
        student: A model of Keras or `tf_keras`.
        teacher: Anything that `keras_distill.teachers.as_teacher` takes, or `None`.
        losses: As in `Distiller`.
        alpha: As in `Distiller`.
        missing_label: As in `Distiller`.
        check_numerics: As in `Distiller`.
        dtype: Dtype policy of the adapters that are built from shapes. Defaults to Keras' own.
        name: Name of the owner, for messages.

    Raises:
        TypeError: If a loss isn't a loss, or the teacher isn't a teacher.
        ValueError: If `alpha` isn't between 0 and 1, or there is no loss.
    """

    alpha = Hyperparameter(fraction)

    def __init__(
        self,
        student: Any,
        teacher: Any,
        losses: Any = None,
        alpha: Any = 0.1,
        *,
        missing_label: float | None = None,
        check_numerics: bool = False,
        dtype: Any = None,
        name: str = "distiller",
    ):
        self.student = student
        self.missing_label = labels.checked_missing(missing_label)
        self.check_numerics = check_numerics
        self.dtype = dtype
        self.name = name
        self.alpha = alpha
        self.matches = as_matches(SoftTargets() if losses is None else losses)
        self._names = unique_names(self.matches)
        #: What was built for each match; `None` until both models' shapes are known.
        self.pairs: list[Pair] | None = None
        #: Shapes and dtypes of the student's outputs, likewise.
        self.output_specs: Any = None
        #: For each of them the activation of Keras that makes it probabilities, or `None`.
        self._activations: list[str | None] = []
        #: Whether a batch without labels is an error.
        self.needs_labels = False
        #: What a loaded distiller knows of its teacher's `state`, until the teacher is given.
        self.teacher_state: Any = None
        self._student_paths: list[str] = []
        self._teacher_paths: list[str] = []
        self._bound = self._bind()
        self.teacher = teacher

    # Teacher and layers.

    @property
    def teacher(self) -> BaseTeacher | None:
        """The teacher, or `None`. For another teacher, the pairs are built anew."""
        return self._teacher

    @teacher.setter
    def teacher(self, value: Any) -> None:
        teacher = None if value is None else as_teacher(value)
        if teacher is not None and _alike(teacher.state, self.teacher_state):
            teacher.state = self.teacher_state
        self._teacher = teacher
        self.pairs = None

    @property
    def state(self) -> Any:
        """The layer of the teacher that is trained with the student, or `None`."""
        return self.teacher_state if self.teacher is None else self.teacher.state

    @property
    def supports_jit(self) -> bool:
        """Whether XLA can compile the step. It would drop the checks of `check_numerics`."""
        return not self.check_numerics and (self.teacher is None or self.teacher.supports_jit)

    @property
    def layers(self) -> list:
        """Adapters, and the layers with the weights of losses and teacher.

        Their order, by which optimizers are saved, is that of a loaded distiller.
        """
        layers = []
        for match in self.matches:
            built = [adapter for pair in self._pairs_of(match) for adapter in pair.adapters]
            layers += [x for x in built if isinstance(x, keras.layers.Layer)] + match.layers
        layers.append(self.state)
        return list({id(layer): layer for layer in layers if layer is not None}.values())

    @property
    def reported(self) -> list[str]:
        """Names of the values of a step other than `"loss"`, once the pairs are built."""
        if self.pairs is None or self.teacher is None:
            return []
        return ["student_loss", *(pair.name for pair in self.pairs), *self.teacher.figure_names]

    @property
    def reported_without_labels(self) -> list[str]:
        """Those of `reported`, and of `scheduled`, that don't depend on labels."""
        of_losses = [pair.name for pair in self.pairs or () if not pair.loss.needs_labels]
        figures = () if self.teacher is None else self.teacher.figure_names
        return [*of_losses, *figures, *self.scheduled]

    @property
    def output_forms(self) -> list[str | None]:
        """What each of the student's outputs holds, once the pairs are built.

        It is `"probabilities"` where a softmax or sigmoid of Keras makes it, and `"logits"` where
        none does and a loss reads it as logits, or a linear layer makes it; else `None`.
        """
        forms: list[str | None] = []
        are_read = are_read_as_logits(self.pairs or (), self.output_specs)
        for index, (activation, is_read) in enumerate(
            zip(self._activations, are_read, strict=True)
        ):
            if activation is not None:
                forms.append("probabilities")
            else:
                is_logits = is_read or _keras.is_linear_output(self.student, index)
                forms.append("logits" if is_logits else None)
        return forms

    def match_configs(self) -> list[dict]:
        """The serialized matches, with their adapters as they were built."""
        return [self._match_config(match) for match in self.matches]

    # Hyperparameters.

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The hyperparameters that may change during training: variables by name."""
        return {name: bound.variable for name, bound in self._bound.items()}

    @property
    def scheduled(self) -> dict[str, Any]:
        """Those of `hyperparameters` that follow a schedule."""
        return {n: bound.variable for n, bound in self._bound.items() if bound.schedule is not None}

    def set_hyperparameter(self, name: str, value: float) -> None:
        """Sets one of `hyperparameters`, if the value is in its range.

        Raises:
            ValueError: If there is no such hyperparameter, or the value is out of range.
        """
        if name not in self._bound:
            raise ValueError(f"There is no hyperparameter {name!r}, only {', '.join(self._bound)}.")
        self._bound[name].assign(value)

    def advance_schedules(self, iterations: Any) -> None:
        """Sets the hyperparameters in `scheduled` to their values after so many steps."""
        for bound in self._bound.values():
            if bound.schedule is not None:
                bound.variable.assign(bound.schedule(iterations))

    def require_loss(self, has_loss: bool) -> None:
        """Determines `needs_labels` from alpha.

        Args:
            has_loss: Whether `compile` got a loss for the labels.

        Raises:
            ValueError: If labels are needed, but have no loss.
        """
        alpha = self._bound["alpha"]
        self.needs_labels = alpha.schedule is not None or as_float(alpha.variable) > 0
        if not has_loss and self.needs_labels:
            raise ValueError(
                "`compile` got no `loss` for the labels, but `alpha` is greater than 0. "
                "Pass a `loss`, or construct the distiller with `alpha=0`."
            )

    # Building.

    def build_early(self) -> None:
        """Builds the pairs before there is a batch, if the student has a known input shape.

        Raises:
            ValueError: If the two tensors of a loss can't be compared.
        """
        spec, is_certain = known_inputs(self.student)
        if self.teacher is None or spec is None:
            return
        try:
            self._build(spec)
        except _CannotRead:
            # Student or teacher may use more of a batch than the student's inputs show.
            if is_certain and _as_many(self.teacher.reads, spec):
                raise

    def build_for(self, x: Any) -> None:
        """Builds what depends on the shapes of a batch, if it isn't built yet.

        Args:
            x: The inputs of a batch, tensors.

        Raises:
            ValueError: If there is no teacher, or the two tensors of a loss can't be compared.
        """
        if self.pairs is not None:
            return
        self._required_teacher()
        self._build(keras.tree.map_structure(_spec, x))

    # A step.

    def student_inputs(self, x: Any) -> Any:
        """The part of a batch's inputs that the student reads."""
        x = x if self.teacher is None else self.teacher.student_inputs(x)
        return entries_for(self.student, x, "student")

    def ask_teacher(self, x: Any) -> Answer:
        """The teacher's answer for a batch.

        Raises:
            ValueError: If there is no teacher.
        """
        outputs, features = self._required_teacher().answer(x, self._teacher_paths)
        answer = Answer(outputs, dict(zip(self._teacher_paths, features, strict=True)))
        return self._checked(answer, "the teacher")

    def run_student(self, x: Any, training: bool = True) -> Answer:
        """The student's answer for a batch: its outputs and the tapped features."""
        outputs, features = tapping.run(
            self.student, self._student_paths, self.student_inputs(x), "student", training
        )
        by_path = dict(zip(self._student_paths, features, strict=True))
        return self._checked(Answer(as_outputs(outputs), by_path), "the student")

    def complete(self, teacher_answer: Answer, answer: Answer) -> Answer:
        """The teacher's answer with its outputs in their final form, as the losses read them."""
        outputs = self._required_teacher().complete(teacher_answer.outputs, answer.outputs)
        return teacher_answer._replace(outputs=as_outputs(outputs))

    def known_labels(self, y: Any, outputs: Any, sample_weight: Any) -> tuple[Any, Any]:
        """Labels and weights of a batch, in which `missing_label` has weight 0.

        Args:
            y: Labels in any container that Keras takes, or `None`.
            outputs: The student's outputs, in whose container they are returned.
            sample_weight: Weights, likewise.
        """
        y, sample_weight = self._conformed(y, outputs, sample_weight)
        return labels.without_missing(y, sample_weight, outputs, self.missing_label)

    def compute_losses(
        self,
        x: Any,
        y: Any,
        answer: Answer,
        teacher_answer: Answer,
        sample_weight: Any = None,
        student_loss: Callable | None = None,
        training: bool = True,
    ) -> dict[str, Any]:
        """Computes all losses of a batch.

        Args:
            x: The inputs of the batch.
            y: Its labels, or `None`.
            answer: What `run_student` returned.
            teacher_answer: What `ask_teacher` returned.
            sample_weight: Weights of the samples, or `None`.
            student_loss: Loss of the labels, a function of `(y, outputs, sample_weight)`, or
                `None`.
            training: Whether adapters behave as in training.

        Returns:
            A dict of scalar tensors: `"loss"`, the weighted sum; `"student_loss"` where there are
            labels; and each distillation loss by name, unweighted.
        """
        if self.pairs is None:
            raise ValueError("The distiller isn't built: call `distiller.build_for(x)` first.")
        teacher = self._required_teacher()
        teacher_answer = self.complete(teacher_answer, answer)
        outputs = answer.values
        alpha = ops.convert_to_tensor(self.alpha)
        y, sample_weight = self._conformed(y, outputs, sample_weight)
        y, label_weight = labels.without_missing(y, sample_weight, outputs, self.missing_label)
        values = {}
        if y is not None and student_loss is not None:
            values["student_loss"] = student_loss(y, outputs, label_weight)
        elif self.needs_labels:
            raise ValueError(
                "The batch has no labels, but `alpha` is greater than 0. "
                "Pass labels, or construct the distiller with `alpha=0`."
            )
        keys = teacher.keys(x)
        for pair in self.pairs:
            weight = label_weight if pair.loss.needs_labels else sample_weight
            values[pair.name] = pair(answer, teacher_answer, y, keys, weight, training)
        for name, value in values.items():
            values[name] = self._checked(value, f"the loss {name!r}")
        return {"loss": self._total(alpha, values), **values}

    def _conformed(self, y, outputs, sample_weight):
        """Labels and weights in the container of the outputs."""
        names = getattr(self.student, "output_names", None)
        return labels.conform(y, outputs, names), labels.conform(sample_weight, outputs, names)

    def _total(self, alpha, values):
        """The weighted sum of the losses of a batch."""
        dtype = "float64" if any(x.dtype == "float64" for x in values.values()) else "float32"
        alpha = ops.cast(alpha, dtype)
        total = sum(
            ops.cast(pair.match.weight, dtype) * ops.cast(values[pair.name], dtype)
            for pair in self.pairs or ()
        )
        total = (1 - alpha) * total
        if "student_loss" in values:
            total += alpha * ops.cast(values["student_loss"], dtype)
        return total

    def _checked(self, structure, where):
        """`structure`, with a check for NaN and infinity if one was asked for."""
        if not self.check_numerics:
            return structure
        message = f"NaN or infinity first appeared in {where} of {self.name!r}."
        return keras.tree.map_structure(lambda x: _checked_tensor(x, message), structure)

    def _required_teacher(self) -> BaseTeacher:
        if self.teacher is None:
            raise ValueError(
                "The distiller has no teacher (it isn't saved with the student). "
                "Give it one: `distiller.teacher = model`."
            )
        return self.teacher

    # Parts of building.

    def _bind(self) -> dict[str, Bound]:
        """Gives every hyperparameter a variable, which a traced training step reads."""
        once = functools.cache(bind)  # A loss in two places has one variable under two names.
        dtype = keras.dtype_policies.get(self.dtype or keras.config.floatx()).compute_dtype
        bound = {"alpha": once(self, "alpha", dtype)}
        for match, name in zip(self.matches, self._names, strict=True):
            bound[f"{name}/weight"] = once(match, "weight", match.loss.dtype)
            for attribute in hyperparameters(match.loss):
                bound[f"{name}/{attribute}"] = once(match.loss, attribute, match.loss.dtype)
        return bound

    def _build(self, spec):
        """Resolves the matches against both models and builds adapters.

        Args:
            spec: The inputs of a batch, `keras.KerasTensor`s.
        """
        self._student_paths = self._teacher_paths = []
        student, teacher = self._answer_specs(spec)
        self.output_specs = student.outputs
        pairs = self._resolved(student, teacher)
        check_states(pairs)
        self._student_paths = paths(pair.student for pair in pairs)
        self._teacher_paths = paths(pair.teacher for pair in pairs)
        if self._student_paths or self._teacher_paths:
            student, teacher = self._answer_specs(spec)
        for pair in pairs:
            pair.build(student, teacher, self.dtype)
        self.pairs = pairs

    def _answer_specs(self, spec):
        """Shapes and dtypes of both models' answers."""
        teacher = self._required_teacher()

        def student_values(x):
            answer = self.run_student(x, training=False)
            self._activations = [x.activation for x in keras.tree.flatten(answer.outputs)]
            return answer._replace(outputs=answer.values)

        student = tapping.spec_of(student_values, spec)
        try:
            taps = self._teacher_paths
            outputs, features = teacher.answer_spec(spec, taps)
            return student, Answer(outputs, dict(zip(taps, features, strict=True)))
        except Misfit:
            raise
        except Exception as error:
            shapes = keras.tree.map_structure(lambda x: f"{x.dtype}{x.shape}", spec)
            raise _CannotRead(
                f"The teacher {teacher.name!r} can't read what the student reads ({shapes}). "
                "If it needs other inputs, pass a function that makes them from the student's: "
                "`keras_distill.teachers.Teacher(model, preprocess=...)`. If it needs more of "
                "them, use batches that are dicts by the names of the inputs. "
                f"The error was: {error}"
            ) from error

    def _resolved(self, student: Answer, teacher: Answer) -> list[Pair]:
        """The pairs of places that the matches compare, for the specs of both answers."""
        asked = self._required_teacher()
        ours = ModelTaps(
            lambda place: tapping.resolve(self.student, place, "student"),
            student.outputs,
            getattr(self.student, "output_names", None),
        )
        theirs = ModelTaps(asked.tap_path, teacher.outputs, asked.output_names)
        pairs: list[Pair] = []
        taken = [*RESERVED, *self._names]
        for match, name in zip(self.matches, self._names, strict=True):
            if match.student is None and match.teacher is None:
                pairs += of_each_output(match, name, student.outputs, taken)
            else:
                places = ours.resolve(match.student), theirs.resolve(match.teacher)
                pairs.append(Pair(match, name, *places))
        return pairs

    def _pairs_of(self, match: Match) -> list[Pair]:
        """What was built for a match: several pairs where it compares several outputs."""
        return [pair for pair in self.pairs or () if pair.match is match]

    def _match_config(self, match: Match) -> dict[str, Any]:
        pairs = self._pairs_of(match)
        if len(pairs) == 1:
            return pairs[0].config()
        config = keras.saving.serialize_keras_object(match)
        if pairs and match.adapter == "auto":  # One for each output.
            adapters = tuple(pair.adapters[0] for pair in pairs)
            config["config"]["adapter"] = keras.saving.serialize_keras_object(adapters)
        return config


def _as_many(reads: Any, spec: Any) -> bool:
    """Whether a teacher is known to read no more tensors than the student."""
    return reads is not None and len(keras.tree.flatten(reads)) <= len(keras.tree.flatten(spec))


class _CannotRead(ValueError):
    """A teacher can't be run on the inputs of the student."""

    # Without it, AutoGraph would replace an error raised in a `tf.function` by one of another type.
    __init__ = ValueError.__init__


def _spec(x):
    return keras.KerasTensor(x.shape, keras.backend.standardize_dtype(x.dtype))


def _alike(state: Any, other: Any) -> bool:
    """Whether two layers are of one class and have weights of the same shapes."""
    if state is None or other is None:
        return False
    shapes = [[tuple(weight.shape) for weight in layer.weights] for layer in (state, other)]
    return type(state) is type(other) and shapes[0] == shapes[1]


def _checked_tensor(x, message):
    """A tensor or the values of an `Output`, with a check, and with what Keras left on them."""
    if isinstance(x, Output):
        return dataclasses.replace(x, values=_checked_tensor(x.values, message))
    if x is None or not keras.backend.is_float_dtype(x.dtype):
        return x
    return _keras.carry_over(_keras.check_numerics(x, message), x)
