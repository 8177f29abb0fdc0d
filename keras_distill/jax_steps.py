"""How a distiller's steps run on the JAX backend: functions of all state, compiled by XLA."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
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


@dataclasses.dataclass(frozen=True)
class _ClosedOver:
    """Variables of no teacher and no student that a teacher's functions read, or change.

    Not a tuple, in which Keras would find variables to train.
    """

    teacher: Any = None
    read: Sequence[keras.Variable] = ()
    changed: Sequence[keras.Variable] = ()


class _Touched(keras.StatelessScope):
    """Notes which variables are read in it and which are changed."""

    def __init__(self) -> None:
        super().__init__()
        self.all: dict[int, keras.Variable] = {}
        self.changed: set[int] = set()

    def get_current_value(self, variable: keras.Variable) -> Any:
        self.all[id(variable)] = variable
        return super().get_current_value(variable)

    def add_update(self, update: tuple) -> None:
        self.all[id(update[0])] = update[0]
        self.changed.add(id(update[0]))
        super().add_update(update)


def _touched_by(function: Callable, x: Any) -> _Touched:
    """What a function touches that is traced for a batch, not run."""
    with _Touched() as touched:
        jax.eval_shape(lambda x: function(x) and None, x)
    return touched


class JaxSteps(BuiltForFirstBatch, keras.Model):
    """The part of a `Distiller` that depends on JAX."""

    train_function: Any
    test_function: Any
    _closed_over = _ClosedOver()

    @property
    def is_built_ahead(self) -> bool:
        return super().is_built_ahead and self._closed_over.teacher is self.teacher

    def build_ahead(self, batch: Any) -> tuple:
        """As on PyTorch; and finds the variables that the teacher's functions close over."""
        built = super().build_ahead(batch)
        if self.teacher is not None:
            self._closed_over = _ClosedOver()
            touched = _touched_by(self.ask_teacher, self._unpack(batch)[0])
            known = [*self.variables, *self.metrics_variables, *self._fixed()]
            unknown = touched.all.keys() - {id(variable) for variable in known}
            self._closed_over = _ClosedOver(
                self.teacher,
                [touched.all[i] for i in unknown - touched.changed],
                [touched.all[i] for i in unknown & touched.changed],
            )
        return built

    @property
    def metrics_variables(self) -> list:
        """The variables that a step of training or evaluation counts in."""
        return [
            *super().metrics_variables,
            *self._means.variables,
            *self._teacher_metrics.variables,
            *self._closed_over.changed,
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
        return [*teacher, *self._closed_over.read, *self.objective.hyperparameters.values()]

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
