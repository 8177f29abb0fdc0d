"""How a distiller's steps run on the JAX backend: functions of all state, compiled by XLA."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import keras

from keras_distill.first_batch import BuiltForFirstBatch
from keras_distill.train_function import build_optimizer


class _Given(NamedTuple):
    """A batch, with the values of the variables that a step reads and leaves as they are.

    They are arguments of the compiled step: what it closes over would be constants in it.
    """

    fixed: list
    batch: Any


class JaxSteps(BuiltForFirstBatch, keras.Model):
    """The part of a `Distiller` that depends on JAX."""

    train_function: Any
    test_function: Any

    @property
    def metrics_variables(self) -> list:
        """The variables that a step of training or evaluation counts in."""
        return [
            *super().metrics_variables,
            *self._means.variables,
            *self._teacher_metrics.variables,
        ]

    def train_step(self, state: tuple, data: Any) -> tuple[dict[str, Any], tuple]:
        trainable, non_trainable, of_optimizer, of_metrics = state
        fixed, batch = self._given(data)
        x, y, sample_weight = self._unpack(batch)

        def loss_of(trainable):
            known = [
                *zip(self.trainable_variables, trainable, strict=True),
                *zip(self.non_trainable_variables, non_trainable, strict=True),
                *zip(self.optimizer.variables, of_optimizer, strict=True),
                *zip(self.metrics_variables, of_metrics, strict=True),
                *zip(self._fixed(), fixed, strict=True),
            ]
            with keras.StatelessScope(known, collect_losses=True) as scope:
                self.advance_schedules()
                teacher_answer = self.ask_teacher(x)
                figures = self.teacher.figures(teacher_answer.outputs)
                answer = self.run_student(x, training=True)
                values = self.compute_losses(x, y, answer, teacher_answer, sample_weight)
                scaled = self.optimizer.scale_loss(values["loss"])
                answers = answer, teacher_answer
                logs = self._train_logs(values, figures, x, y, *answers, sample_weight)
            after = _values_in(scope, self.non_trainable_variables)
            return scaled, (logs, after, _values_in(scope, self.metrics_variables))

        gradient = jax.grad(loss_of, has_aux=True)
        gradients, (logs, non_trainable, of_metrics) = gradient(trainable)
        trainable, of_optimizer = self.optimizer.stateless_apply(of_optimizer, gradients, trainable)
        return logs, (trainable, non_trainable, of_optimizer, of_metrics)

    def test_step(self, state: tuple, data: Any) -> tuple[dict[str, Any], tuple]:
        fixed, batch = self._given(data)
        x, y, sample_weight = self._unpack(batch)
        if not self.validate_with_teacher:
            logs, state = super().test_step(state, (x, y, sample_weight))
            return self._without_empty_loss(logs, y), state
        trainable, non_trainable, of_metrics = state
        known = [
            *zip(self.trainable_variables, trainable, strict=True),
            *zip(self.non_trainable_variables, non_trainable, strict=True),
            *zip(self.metrics_variables, of_metrics, strict=True),
            *zip(self._fixed(), fixed, strict=True),
        ]
        with keras.StatelessScope(known, collect_losses=True) as scope:
            logs = self._test_logs(x, y, sample_weight)
        non_trainable = _values_in(scope, self.non_trainable_variables)
        return logs, (trainable, non_trainable, _values_in(scope, self.metrics_variables))

    def make_train_function(self, force: bool = False) -> None:
        """As in Keras, but the step is given the teacher's variables as well."""
        if self.objective.pairs is not None and self.optimizer is not None:
            build_optimizer(self.optimizer, self.trainable_variables)
        if self.train_function is None or force:
            super().make_train_function(force=True)
            self.train_function = self._giving(self.train_function)

    def make_test_function(self, force: bool = False) -> None:
        """Likewise."""
        if self.test_function is None or force:
            super().make_test_function(force=True)
            self.test_function = self._giving(self.test_function)

    def _fixed(self) -> list:
        """The variables that a step reads and leaves as they are."""
        known = [] if self.teacher is None else self.teacher.variables
        # Those of a SavedModel stay on the host.
        teacher = [variable for variable in known if isinstance(variable, keras.Variable)]
        return [*teacher, *self.objective.hyperparameters.values()]

    def _given(self, data: Any) -> _Given:
        """The data of a step, or of one that is called without the functions that `fit` uses."""
        if isinstance(data, _Given):
            return data
        return _Given([variable.value for variable in self._fixed()], data)

    def _giving(self, function: Callable) -> Callable:
        """A function of state and batches as one that adds to them what is fixed."""

        def run(state: tuple, batches: Iterable) -> tuple:
            logs, state = function(state, self._with_fixed(batches))
            for name, variable in self.objective.scheduled.items():
                if name in logs:
                    variable.assign(logs[name])
            return logs, state

        return run

    def _with_fixed(self, batches: Iterable) -> Iterator[_Given]:
        for batch in batches:
            yield self._given(batch)


def _values_in(scope: Any, variables: Iterable) -> list:
    """The values of variables at the end of a scope."""
    return [scope.get_current_value(variable) for variable in variables]
