"""How a distiller's steps run on the TensorFlow backend: a gradient tape, strategies, one graph."""

from typing import Any

import keras
import tensorflow as tf

from keras_distill import _keras
from keras_distill.train_function import OnBatches, build_optimizer

#: An entry that stands for empty logs, which Keras' functions don't take.
_NOTHING = "nothing"


class TensorFlowSteps(_keras.BuildsAhead, keras.Model):
    """The part of a `Distiller` that depends on TensorFlow."""

    train_function: Any
    test_function: Any

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = self._unpack(data)
        self.build_for(x)
        self.advance_schedules()
        teacher_answer = self.ask_teacher(x)
        figures = self.teacher.figures(teacher_answer.outputs)
        with tf.GradientTape() as tape:
            answer = self.run_student(x, training=True)
            values = self.compute_losses(x, y, answer, teacher_answer, sample_weight)
            scaled = self.optimizer.scale_loss(values["loss"])
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(scaled, weights), weights, strict=True))
        logs = self._train_logs(values, figures, x, y, answer, teacher_answer, sample_weight)
        return _logs(logs, self)

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = self._unpack(data)
        if self.validate_with_teacher:
            self.build_for(x)
            logs = self._test_logs(x, y, sample_weight)
        else:
            logs = self._without_empty_loss(super().test_step((x, y, sample_weight)), y)
        return _logs(logs, self)

    def make_train_function(self, force: bool = False) -> None:
        """As in Keras, but builds the optimizer first, which would make variables in the trace."""
        if self.objective.pairs is not None and self.optimizer is not None:
            build_optimizer(self.optimizer, self.trainable_variables)
        if self.train_function is None or force:
            super().make_train_function(force)
            if self.steps_per_execution == 1 and not self.run_eagerly:
                self.train_function = OnBatches(self.train_function, self.jit_compile)

    def make_test_function(self, force: bool = False) -> None:
        if self.test_function is None or force:
            super().make_test_function(force)
            function = self.test_function
            self.test_function = lambda iterator: _without_nothing(function(iterator))

    def build_ahead(self, iterator: Any, data_batch: Any) -> None:
        """Builds everything with variables before the step is traced.

        Keras would build during the trace, which TensorFlow then repeats. Under a strategy it
        would reduce the batches of all replicas in one call, which fails with several workers; the
        batch of one replica is enough.
        """
        strategy = _keras.strategy_of(self)
        if strategy is None:
            if iterator is not None:
                self._build_metrics(self._unpack(_keras.batch_spec(iterator))[1])
            return
        if iterator is not None:
            data_batch = _keras.first_local_batch(iterator, strategy)
        with strategy.scope():
            data_batch = self._unpack(data_batch)
            if self.teacher is not None:
                self.build_for(data_batch[0])
            _keras.build_on(self, data_batch)
            self._build_metrics(data_batch[1])


def _logs(logs: dict[str, Any], model: keras.Model) -> dict[str, Any]:
    """What a step reports, in a form that Keras takes.

    Empty logs get an entry, which `make_test_function` takes out again. Several workers can
    reduce tensors with an axis alone.
    """
    logs = logs or {_NOTHING: tf.zeros(())}
    if isinstance(model.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return {name: tf.reshape(value, (1,)) for name, value in logs.items()}
    return logs


def _without_nothing(logs):
    return {name: value for name, value in logs.items() if name != _NOTHING}
