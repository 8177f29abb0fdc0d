"""What a `Distiller` asks of a teacher."""


class BaseTeacher:
    """Anything that answers with outputs for a batch.

    A teacher is a plain object, so that Keras neither tracks nor trains nor saves what it holds.
    Subclasses implement `answer`; the rest has defaults that fit most.
    """

    #: Name for messages and reports.
    name = "teacher"
    #: A `keras.layers.Layer` with weights that are trained along (and saved), or `None`.
    state = None
    #: Names of the outputs, in order, or `None`.
    output_names = None
    #: Whether `answer` can be compiled by XLA.
    supports_jit = True

    def answer(self, inputs, taps=()):
        """Runs the teacher on a batch, in inference mode.

        Args:
            inputs: The batch's `x`, as the dataset gives it.
            taps: Layer paths (strings) whose outputs are wanted.

        Returns:
            `(outputs, features)`: what the teacher answers, in the structure of the student's
            outputs, and one tensor for each of `taps`.
        """
        raise NotImplementedError

    def combine(self, answer):
        """Turns an answer into its final form inside the gradient tape, where `state` learns."""
        return answer

    def student_inputs(self, inputs):
        """The part of a batch's `x` that the student reads."""
        return inputs

    def keys(self, inputs):
        """One integer for each sample that names it in the whole data set, or `None`."""
        return None

    def tap_path(self, tap) -> str:
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
