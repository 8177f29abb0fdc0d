"""A recurrent student as one step of its sequence, with the state as inputs and outputs."""

import contextlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras_distill.tflite import lowering
from keras_distill.tflite.student_function import Input, StudentFunction, unique_names

_KINDS = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN, keras.layers.RNN)


class SingleStep:
    """One step of a recurrent student, traced in place of the whole student.

    Args:
        whole: The whole student.

    Attributes:
        inputs: The student's inputs, one time step long, then one input per state.
        states: Names of the states, in order. Their outputs are named `<state>_out`.
        along_time: Names of the outputs that the whole student gives for each step, known after
            `rollout`.

    Raises:
        ValueError: The student has no recurrent layer, or one that can't be stepped through.
    """

    def __init__(self, whole: StudentFunction):
        self.whole = whole
        self.model = whole.model
        self.along_time: list[str] = []
        self._layers = [
            layer
            for layer in lowering.all_layers(whole.model)
            if isinstance(layer, keras.layers.RNN)
        ]
        if not self._layers:
            raise ValueError('`recurrent="step"` needs a recurrent layer. The student has none.')
        for layer in lowering.all_layers(whole.model):
            if isinstance(layer, keras.layers.Bidirectional):
                raise ValueError(
                    f"Layer {layer.name!r} reads the sequence backwards too: it can't be run step "
                    'by step. Use `recurrent="unroll"`.'
                )
        for layer in self._layers:
            if type(layer) not in _KINDS or layer.go_backwards or layer.return_state:
                raise ValueError(
                    f"Layer {layer.name!r} ({type(layer).__name__}) can't be run step by step. "
                    'Use `recurrent="unroll"`.'
                )
        data = [Input(i.name, (1, *i.shape[1:]), i.dtype) for i in whole.inputs]
        self._sizes = {layer.name: keras.tree.flatten(layer.state_size) for layer in self._layers}
        states = [
            f"{layer}_state" + (f"_{i}" if len(sizes) > 1 else "")
            for layer, sizes in self._sizes.items()
            for i in range(len(sizes))
        ]
        self.states = unique_names(states, "state")
        shapes = [size for sizes in self._sizes.values() for size in sizes]
        self.inputs = data + [
            Input(name, (int(size),), "float32")
            for name, size in zip(self.states, shapes, strict=True)
        ]

    def dtype(self, given: Input) -> str:
        """Dtype in which an input arrives."""
        return self.whole.dtype(given)

    @property
    def variables(self) -> list:
        """TensorFlow variables of the student."""
        return self.whole.variables

    def __call__(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name and the next states, from inputs and states by name."""
        left = list(self.states)
        after: dict[str, Any] = {}

        def call(layer, original, sequences, initial_state=None, mask=None, training=False):
            if mask is not None:
                raise ValueError(
                    f"Layer {layer.name!r} ({type(layer).__name__}) is given a mask, by which it "
                    "leaves time steps out: it can't be run step by step. Use "
                    '`recurrent="unroll"`, or train the student without masks.'
                )
            names = [left.pop(0) for _ in self._sizes[layer.name]]
            states = [tensors[name] for name in names]
            output, states = layer.cell(sequences[:, 0], states)
            for name, state in zip(names, keras.tree.flatten(states), strict=True):
                after[f"{name}_out"] = state
            return output[:, None] if layer.return_sequences else output

        with contextlib.ExitStack() as stack:
            for layer in self._layers:
                stack.enter_context(lowering.calling(layer, call))
            outputs = self.whole(tensors, check=False)
        return {**outputs, **after}

    def rollout(self, sequences: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
        """Runs the student step by step along sequences.

        Args:
            sequences: Arrays by name, each of shape `(samples, time, ...)`.
            count: How many steps to keep at most.

        Returns:
            Inputs and states by name, as each step received them, of shape `(steps, ...)`.

        Raises:
            ValueError: The steps don't lead to the student's outputs for the whole sequence.
        """
        step = tf.function(self.__call__, autograph=False)
        samples, time = next(iter(sequences.values())).shape[:2]
        state = {
            i.name: np.zeros((samples, *i.shape), "float32") for i in self.inputs
            if i.name in self.states
        }  # fmt: skip
        met: dict[str, list] = {i.name: [] for i in self.inputs}
        given_out: list[dict] = []
        for t in range(time):
            given = {name: a[:, t : t + 1] for name, a in sequences.items()} | state
            for name, array in given.items():
                met[name].append(array)
            outputs = step({name: tf.constant(array) for name, array in given.items()})
            outputs = {name: x.numpy() for name, x in outputs.items()}
            state = {name: outputs.pop(f"{name}_out") for name in self.states}
            given_out.append(outputs)
        self._check(given_out, self.whole.predict(sequences))
        kept = {name: np.concatenate(parts) for name, parts in met.items()}
        chosen = np.linspace(0, samples * time - 1, min(count, samples * time)).astype(int)
        return {name: array[chosen] for name, array in kept.items()}

    def _check(self, steps, expected):
        """Compares the steps' outputs, those of the last or of all, with the whole student's."""
        self.along_time = []
        for name, got in steps[-1].items():
            wanted = expected[name]
            if got.ndim == wanted.ndim > 2 and got.shape[1] == 1 and wanted.shape[1] == len(steps):
                self.along_time.append(name)
                got = np.concatenate([outputs[name] for outputs in steps], axis=1)
            if got.shape != wanted.shape or not np.allclose(got, wanted, rtol=1e-3, atol=1e-4):
                raise ValueError(
                    f"Output {name!r} of the student, run step by step, differs from that for the "
                    "whole sequence: a layer other than the recurrent ones looks at several time "
                    'steps at once (a convolution, attention or pooling). Use `recurrent="unroll"`.'
                )
