"""What a teacher's outputs mean: logits or probabilities, of which activation, of which classes."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_distill.checks import one_of
from keras_distill.outputs import Output, as_outputs, logits_of_probabilities
from keras_distill.teachers.base import Misfit, check_names, map_outputs, option_for


class Reading(NamedTuple):
    """How the outputs of a teacher are read. See `Teacher` for the options.

    Args:
        from_logits: A bool, or a dict of them by output name.
        activation: `"softmax"` or `"sigmoid"`, or a dict of them by output name.
        class_map: A list of classes or `None`, or a dict of them by output name.
    """

    from_logits: bool | dict = True
    activation: str | dict = "softmax"
    class_map: Any = None

    @classmethod
    def checked(cls, from_logits: Any, activation: Any, class_map: Any) -> "Reading":
        """A reading from what a user wrote.

        Raises:
            TypeError: If `class_map` doesn't hold integers, or `from_logits` no truth values.
            ValueError: If `activation` is neither of the two, or a class is named twice.
        """
        for value in from_logits.values() if isinstance(from_logits, dict) else [from_logits]:
            if not isinstance(value, (bool, np.bool_)):
                raise TypeError(
                    "`from_logits` must be True or False, or a dict of these by the name of the "
                    f"output. Received: from_logits={from_logits!r}"
                )
        for value in activation.values() if isinstance(activation, dict) else [activation]:
            one_of("activation", value, ("softmax", "sigmoid"))
        if isinstance(class_map, dict):
            classes: Any = {name: _classes(value) for name, value in class_map.items()}
        else:
            classes = _classes(class_map)
        return cls(from_logits, activation, classes)

    def of(self, outputs: Any, names: Any, teacher: str) -> Any:
        """Outputs with what they mean, for the student's classes alone.

        Args:
            outputs: What the teacher returned: tensors or `Output`s.
            names: Names of the outputs of a list, in order, or `None`.
            teacher: Name of the teacher, for messages.

        Returns:
            The same structure, of `Output`s.

        Raises:
            ValueError: If an option names an output or a class that doesn't exist.
        """
        found: list = []
        map_outputs(lambda output, name: found.append(name), outputs, names)
        for option in self._fields:
            check_names(option, getattr(self, option), found)
        return map_outputs(
            lambda output, name: self._output(output, name, teacher), as_outputs(outputs), names
        )

    def _output(self, output, name, teacher):
        """One output, in the same way."""
        values, logits, activation = output.values, output.logits, output.activation
        if logits is None:
            values = ops.convert_to_tensor(values)
            activation = option_for(self.activation, name, "softmax")
            if values.shape[-1] == 1:
                activation = "sigmoid"
            if not option_for(self.from_logits, name, True):
                logits = logits_of_probabilities(values, activation)
        classes = option_for(self.class_map, name, None)
        if classes is None:
            return dataclasses.replace(output, values=values, logits=logits, activation=activation)
        if max(classes) >= values.shape[-1]:
            raise Misfit(
                f"`class_map` of the teacher {teacher!r} names class {max(classes)}, but its "
                f"output{'' if name is None else f' {name!r}'} has shape {tuple(values.shape)}."
            )
        if logits is None:
            return Output(ops.take(values, classes, axis=-1), activation=activation)
        # What softmax makes of the chosen logits are the chosen probabilities, renormalized.
        return Output.from_logits(ops.take(logits, classes, axis=-1), activation)


def _classes(class_map):
    """A `class_map` of one output, checked."""
    if class_map is None:
        return None
    try:
        classes = [int(c) for c in class_map]
        if not classes or any(c != given for c, given in zip(classes, class_map, strict=True)):
            raise TypeError
    except (TypeError, ValueError):
        raise TypeError(
            "`class_map` must hold the teacher's class, an integer, for each class of the "
            f"student. Received: class_map={class_map!r}"
        ) from None
    if min(classes) < 0 or len(set(classes)) < len(classes):
        raise ValueError(
            "`class_map` must name each class of the teacher at most once, counting from 0. "
            f"Received: class_map={class_map!r}"
        )
    return classes
