"""How a distiller's steps run on the PyTorch backend: at once, with gradients by autograd."""

from typing import Any

import keras
import torch

from keras_distill import backends
from keras_distill.first_batch import BuiltForFirstBatch
from keras_distill.train_function import build_optimizer


class TorchSteps(BuiltForFirstBatch, keras.Model):
    """The part of a `Distiller` that depends on PyTorch."""

    train_function: Any
    test_function: Any

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = self._unpack(data)
        self.build_for(x)
        self.advance_schedules()
        with torch.no_grad():
            teacher_answer = self.ask_teacher(x)
            figures = self.teacher.figures(teacher_answer.outputs)
        answer = self.run_student(x, training=True)
        values = self.compute_losses(x, y, answer, teacher_answer, sample_weight)
        scaled = self.optimizer.scale_loss(values["loss"])
        weights = self.trainable_weights
        gradients = torch.autograd.grad(scaled, [w.value for w in weights], allow_unused=True)
        with torch.no_grad():
            self.optimizer.apply(list(gradients), weights)
            return self._train_logs(values, figures, x, y, answer, teacher_answer, sample_weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = self._unpack(data)
        if self.validate_with_teacher:
            self.build_for(x)
            return self._test_logs(x, y, sample_weight)
        return self._without_empty_loss(super().test_step((x, y, sample_weight)), y)

    def make_train_function(self, force: bool = False) -> None:
        """As in Keras, but builds the optimizer first, as on the other backends."""
        if self.objective.pairs is not None and self.optimizer is not None:
            build_optimizer(self.optimizer, self.trainable_variables)
        if self.jit_compile:
            backends.require("`jit_compile=True`", "tensorflow", "jax")
        super().make_train_function(force)
