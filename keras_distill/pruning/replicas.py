"""Forms of weights under a strategy, where Keras' constraints can't be put into a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class HeldApply:
    """An optimizer's `apply`, after which each copy of some variables is brought to its form.

    Args:
        optimizer: The optimizer, whose `apply` it takes the place of.
        run: What identifies the call of `fit`.
    """

    def __init__(self, optimizer: Any, run: Any):
        self.run = run
        self.forms: list[Any] = []
        self._apply = optimizer.apply
        optimizer.apply = self

    def __call__(self, grads: Any, trainable_variables: Any = None) -> None:
        self._apply(grads, trainable_variables)
        tf.distribute.get_replica_context().merge_call(self._hold)

    def _hold(self, strategy: tf.distribute.Strategy) -> None:
        for form in self.forms:
            strategy.extended.update(
                form.variable.value,
                lambda copy, form=form: copy.assign(form(tf.convert_to_tensor(copy))),
                group=False,
            )


def hold(optimizer: Any, forms: Sequence[Any], run: Any) -> None:
    """Brings variables to forms after each step of an optimizer, until `release`.

    Args:
        optimizer: The optimizer.
        forms: Functions of a tensor, with the `variable` that they are for.
        run: What identifies the call of `fit`. Forms of others, which were interrupted, end.
    """
    held = vars(optimizer).get("apply")
    if held is not None and held.run is not run:
        release(optimizer)
        held = None
    held = held or HeldApply(optimizer, run)
    held.forms.extend(forms)


def release(optimizer: Any) -> None:
    """Ends all that `hold` began: the optimizer is as it was."""
    vars(optimizer).pop("apply", None)
