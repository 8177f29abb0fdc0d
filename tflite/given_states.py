"""A student whose recurrent layers are given the state before each element as inputs.

All elements can then be computed at once, each by the same operators with one set of ranges, and a
stream computes them one after the other.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from keras_distill.tflite import lowering
from keras_distill.tflite.student_function import Input, StudentFunction, unique_names

_KINDS = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)
#: How many samples are run at once to find their states.
_BLOCK = 64


def can_be_given(layer: keras.Layer) -> bool:
    """Whether a recurrent layer can be given its states."""
    return type(layer) in _KINDS and not (
        layer.go_backwards or layer.return_state or layer.stateful
    )


class GivenStates:
    """A student to be traced for a stream.

    Args:
        whole: The whole student.
        fused: Whether each `LSTM` that has an operator of its own keeps it.

    Attributes:
        inputs: The student's inputs, then the states before each element, of shape
            `(elements, units)`.
        carried: Names of the states of each layer, by its name. The state after each element is an
            output named `<state>_out`.

    Raises:
        ValueError: A recurrent layer is used more than once, with a mask or an initial state.
    """

    def __init__(self, whole: StudentFunction, fused: bool = True):
        self.whole = whole
        self.model = whole.model
        self._layers = [
            layer
            for layer in lowering.all_layers(whole.model)
            if can_be_given(layer) and not (fused and lowering.is_fusable(layer))
        ]
        sizes = {layer.name: keras.tree.flatten(layer.state_size) for layer in self._layers}
        wanted = [
            f"{layer}_state" + (f"_{i}" if len(each) > 1 else "")
            for layer, each in sizes.items()
            for i in range(len(each))
        ]
        names = iter(unique_names(wanted, "state"))
        self.carried = {layer: [next(names) for _ in each] for layer, each in sizes.items()}
        found = self.rollout(whole.zeros())
        self.inputs = whole.inputs + [
            Input(name, found[name].shape[1:], "float32")
            for each in self.carried.values()
            for name in each
        ]

    @property
    def states(self) -> list[str]:
        """Names of the inputs that go on from run to run: none do before it is a stream."""
        return []

    @property
    def along_time(self) -> list[str]:
        """Names of the outputs that a single step gives: it computes whole windows."""
        return []

    @property
    def variables(self) -> list:
        """TensorFlow variables of the student."""
        return self.whole.variables

    def dtype(self, given: Input) -> str:
        """Dtype in which an input arrives."""
        return self.whole.dtype(given)

    def __call__(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name and the states after each element, from inputs and states by name."""
        after: dict[str, Any] = {}

        def call(layer, original, sequences, initial_state=None, mask=None, training=False):
            _check(layer, initial_state, mask, after, self.carried[layer.name])
            batch, length, depth = sequences.shape
            names = self.carried[layer.name]
            states = [ops.reshape(tensors[name], (batch * length, -1)) for name in names]
            output, states = layer.cell(ops.reshape(sequences, (batch * length, depth)), states)
            for name, state in zip(names, keras.tree.flatten(states), strict=True):
                after[name] = ops.reshape(state, (batch, length, -1))
            output = ops.reshape(output, (batch, length, -1))
            return output if layer.return_sequences else output[:, -1]

        outputs = self._called(call, tensors)
        return {**outputs, **{f"{name}_out": state for name, state in after.items()}}

    def rollout(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Samples with the state before each of their elements.

        Args:
            arrays: Samples at the student's inputs, of shape `(samples, ...)` by name.
        """
        count = len(next(iter(arrays.values())))
        parts: list[dict[str, np.ndarray]] = []
        for start in range(0, count, _BLOCK):
            met: dict[str, np.ndarray] = {}

            def call(
                layer, original, sequences, initial_state=None, mask=None, training=False, met=met
            ):
                names = self.carried[layer.name]
                _check(layer, initial_state, mask, met, names)
                states = keras.tree.flatten(layer.cell.get_initial_state(sequences.shape[0]))
                results, before = [], []
                for t in range(sequences.shape[1]):
                    before.append(states)
                    output, states = layer.cell(sequences[:, t], states)
                    states = keras.tree.flatten(states)
                    results.append(output)
                for name, each in zip(names, zip(*before, strict=True), strict=True):
                    met[name] = np.stack([state.numpy() for state in each], axis=1)
                return ops.stack(results, axis=1) if layer.return_sequences else results[-1]

            block = {name: tf.constant(a[start : start + _BLOCK]) for name, a in arrays.items()}
            self._called(call, block)
            parts.append(met)
        met = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        states = [name for each in self.carried.values() for name in each]
        return {**arrays, **{name: met[name] for name in states}}

    def _called(self, call, tensors):
        """The student's outputs, its recurrent layers computed by `call`."""
        with contextlib.ExitStack() as stack:
            for layer in self._layers:
                stack.enter_context(lowering.calling(layer, call))
            return self.whole(tensors)


def _check(layer, initial_state, mask, met, names):
    """Refuses what a stream can't give a recurrent layer."""
    if mask is not None or initial_state is not None or names[0] in met:
        what = "a mask" if mask is not None else "an initial state"
        raise ValueError(
            f"Layer {layer.name!r} ({type(layer).__name__}) can't run frame by frame: it "
            + ("is used twice." if names[0] in met else f"is given {what}. Train without it.")
        )
