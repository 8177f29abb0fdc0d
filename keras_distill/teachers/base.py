"""What a `Distiller` asks of a teacher."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from keras_distill import _keras
from keras_distill import taps as tapping
from keras_distill._types import Tensors
from keras_distill.outputs import values_of
from keras_distill.teachers.batches import Answered, Keyed, Views


class Misfit(ValueError):
    """A teacher's outputs don't fit the options given for them."""

    # Without it, AutoGraph makes an error of another kind of one that arises in a `tf.function`.
    __init__ = Exception.__init__


class BaseTeacher:
    """Anything that answers with outputs for a batch.

    A teacher is a plain object, so that Keras neither tracks nor trains nor saves what it holds.
    Subclasses implement `answer`; the rest has defaults that fit most.
    """

    #: Name for messages and reports.
    name: str = "teacher"
    #: A built `keras.layers.Layer` with weights that are trained along, or `None`.
    state: Any = None
    #: Names of the outputs, in order, or `None`.
    output_names: list | None = None
    #: Whether `answer` can be compiled by XLA.
    supports_jit: bool = True
    #: Names of the figures that `figures` gives.
    figure_names: tuple = ()

    @property
    def reads(self) -> Any:
        """Its inputs, `keras.KerasTensor`s, or `None` where they aren't known beforehand."""
        return None

    def answer(self, inputs: Any, taps: Any = ()) -> tuple:
        """Runs the teacher on a batch, in inference mode.

        Args:
            inputs: The batch's `x`, as the dataset gives it.
            taps: Layer paths (strings) whose outputs are wanted.

        Returns:
            `(outputs, features)`: what the teacher answers, in the structure of the student's
            outputs (after `combine`), and one tensor for each of `taps`. Outputs are tensors, or
            `keras_distill.outputs.Output`s, which hold their logits and activation as well.
        """
        raise NotImplementedError

    def combine(self, outputs: Any) -> Any:
        """Turns the outputs of `answer` into their final form, inside the gradient tape.

        Here what `state` learns is applied.
        """
        return outputs

    def complete(self, outputs: Any, student_outputs: Any) -> Any:
        """As `combine`, with the student's outputs of the same step, `Output`s.

        Overridden by teachers that learn from what the student answers.
        """
        return self.combine(outputs)

    def figures(self, outputs: Any) -> dict:
        """Scalars that `fit` reports, by name, from the outputs that `answer` gave."""
        return {}

    def answer_spec(self, inputs: Any, taps: Any = ()) -> tuple:
        """Shapes and dtypes of an answer in its final form.

        Args:
            inputs: The batch's `x`, of `keras.KerasTensor`s.
            taps: As in `answer`.

        Returns:
            `(outputs, features)`, of `keras.KerasTensor`s.
        """

        def final_answer(x):
            outputs, features = self.answer(x, taps)
            return values_of(self.combine(outputs)), features

        return tapping.spec_of(final_answer, inputs)

    def student_inputs(self, inputs: Any) -> Tensors:
        """The part of a batch's `x` that the student reads."""
        return inputs.inputs if isinstance(inputs, (Keyed, Answered, Views)) else inputs

    def keys(self, inputs: Any) -> Any:
        """One integer for each sample that names it in the whole dataset, or `None`."""
        return inputs.keys if isinstance(inputs, (Keyed, Answered)) else None

    def tap_path(self, tap: Any) -> str:
        """The path under which `answer` knows `tap`, a path or a layer of this teacher.

        Raises:
            ValueError: If there is no such layer.
        """
        raise ValueError(
            f"The teacher {self.name!r} has no layers to look into. Received: teacher={tap!r}"
        )

    @property
    def variables(self) -> list:
        """The variables of live models inside, none of which training may change."""
        return []

    def refuse_shared_layers(self, student: Any) -> None:
        """Raises if training a Keras model would change this teacher.

        Raises:
            ValueError: If they share a layer that training changes.
        """
        theirs = {id(variable) for variable in self.variables}
        for layer in _keras.layers_of(student):
            if any(id(variable) in theirs for variable in _keras.changing_variables(layer)):
                raise ValueError(
                    f"The student shares the layer {layer.name!r} with the teacher, so training "
                    "would change the teacher. Freeze it (`layer.trainable = False`), or give the "
                    "student a copy: `keras.models.clone_model(model)` and `set_weights`."
                )

    def fingerprint(self) -> str:
        """A digest by which stored answers recognize this teacher."""
        digest = hashlib.sha256()
        for part in self.contents():
            digest.update(part if isinstance(part, bytes) else repr(part).encode())
        return digest.hexdigest()

    def contents(self) -> Iterable:
        """What makes this teacher what it is: bytes, or values with a complete `repr`."""
        return [type(self).__name__]

    def contents_read_as(self, reading: tuple) -> Iterable:
        """`contents` of a `Teacher` that reads this one's outputs in another way.

        Args:
            reading: The `Reading`.
        """
        return ["Teacher", *reading, self.fingerprint()]

    def require_logits(self, from_logits: bool | dict) -> None:
        """Raises if outputs are known to be probabilities although `from_logits` is true of them.

        Args:
            from_logits: As in `Teacher`.
        """

    def __repr__(self):
        return f"<{type(self).__name__} {self.name}>"


def map_outputs(function: Callable, outputs: Any, names: Any = None) -> Any:
    """Applies `function(output, name)` to each of a model's outputs.

    Args:
        function: Function of a tensor and the output's name (index, where `names` is `None`;
            `None` for the only output).
        outputs: A tensor, a list or tuple of tensors, or a dict.
        names: Names of the outputs of a list, in order, or `None`.
    """
    if isinstance(outputs, dict):
        return {name: function(output, name) for name, output in outputs.items()}
    if isinstance(outputs, (list, tuple)):
        names = range(len(outputs)) if names is None else names
        return [function(output, name) for output, name in zip(outputs, names, strict=True)]
    return function(outputs, None)


def option_for(option: Any, name: Any, default: Any) -> Any:
    """The value of an option, given once for all outputs or in a dict, for the output `name`."""
    return option.get(name, default) if isinstance(option, dict) else option


def check_names(argument: str, option: Any, names: list) -> None:
    """Raises if an option, one for all outputs or a dict by name, names one that isn't there.

    Args:
        argument: Name of the option.
        option: The option.
        names: Names of the teacher's outputs, as `map_outputs` gives them.

    Raises:
        ValueError: If it does. Names the outputs that there are.
    """
    for name in option if isinstance(option, dict) else ():
        if name not in names:
            there = "a single output: give the value without a name"
            if names != [None]:
                there = f"the outputs {', '.join(map(repr, names))}"
            raise Misfit(f"`{argument}` names the output {name!r}, but the teacher has {there}.")


def contents_of(variables: Iterable) -> Iterator:
    """Shape, type and value of each variable, for `BaseTeacher.contents`."""
    for variable in variables:
        value = np.asarray(variable)
        yield from ((value.shape, value.dtype.name), np.ascontiguousarray(value).tobytes())
