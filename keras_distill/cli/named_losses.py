"""Losses and matches named on the command line."""

from collections.abc import Sequence
from typing import Any

import keras
from absl import flags as absl_flags

from keras_distill import losses as losses_module
from keras_distill.match import Match


def named(
    flags: absl_flags.FlagValues, task: str, temperature: float | None
) -> list[keras.losses.Loss | Match]:
    """The losses between teacher and student.

    Args:
        flags: The flags `loss` and `match`.
        task: `"classification"`, `"multilabel"` or `"regression"`.
        temperature: Temperature of the loss between the outputs. `None`: its own.

    Raises:
        ValueError: If there is no such loss, or it doesn't take a temperature.
    """
    name = _name(flags, task)
    settings: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
    if task == "multilabel" and name == "SoftTargets":
        settings["activation"] = "sigmoid"
    between_outputs = (
        keras.losses.MeanSquaredError(name="teacher_error")
        if name is None
        else _loss("--loss", name, **settings)
    )
    return [between_outputs, *map(_match, flags.match)]


def default_temperature(flags: absl_flags.FlagValues, task: str) -> float | None:
    """The temperature of the loss between the outputs unless a flag says so; `None` without one."""
    name = _name(flags, task)
    settings = {} if name is None else _loss("--loss", name).get_config()
    return settings.get("temperature")


def _name(flags: absl_flags.FlagValues, task: str) -> str | None:
    return flags.loss or (None if task == "regression" else "SoftTargets")


def _loss(flag: str, name: str, **settings: Any) -> keras.losses.Loss:
    names = [n for n in losses_module.__all__ if n[0].isupper() and n != "DistillationLoss"]
    if name not in names:
        raise ValueError(f"{flag}: there is no loss {name!r}, only {', '.join(names)}.")
    cls = getattr(losses_module, name)
    try:
        return cls(**settings)
    except TypeError as error:
        raise ValueError(f"{flag}={name}: {error}") from error


def _match(text: str) -> Match:
    loss, *rest = text.split(",")
    student, teacher, weight = _places(text, rest)
    return Match(
        _loss("--match", loss),
        student=student,
        teacher=teacher,
        adapter="auto",
        weight=weight,
    )


def _places(text: str, parts: Sequence[str]) -> tuple[str, str, float]:
    """Student layer, teacher layer and weight of a `--match`."""
    try:
        student, teacher, weight = (*parts, "1") if len(parts) == 2 else parts
        return student, teacher, float(weight)
    except ValueError:
        raise ValueError(
            f"--match must be LOSS,STUDENT_LAYER,TEACHER_LAYER[,WEIGHT], not {text!r}."
        ) from None
