"""Checks of arguments: each returns the value, or raises an error that names the argument."""

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any


def number(name: str, value: Any) -> float:
    """`value` as a finite float.

    Raises:
        TypeError: If it isn't a number.
        ValueError: If it isn't finite.
    """
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"`{name}` must be a number. Received: {name}={value!r}")
    value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"`{name}` must be finite. Received: {name}={value!r}")
    return value


def positive(name: str, value: Any) -> float:
    """`value` as a float greater than 0."""
    value = number(name, value)
    if value <= 0:
        raise ValueError(f"`{name}` must be greater than 0. Received: {name}={value!r}")
    return value


def not_negative(name: str, value: Any) -> float:
    """`value` as a float of at least 0."""
    value = number(name, value)
    if value < 0:
        raise ValueError(f"`{name}` must be at least 0. Received: {name}={value!r}")
    return value


def fraction(name: str, value: Any) -> float:
    """`value` as a float from 0 to 1."""
    value = number(name, value)
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` must be between 0 and 1. Received: {name}={value!r}")
    return value


def whole_number(name: str, value: Any, least: int) -> int:
    """`value`, an int of at least `least`."""
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or value < least:
        raise ValueError(
            f"`{name}` must be a whole number of at least {least}. Received: {name}={value!r}"
        )
    return int(value)


def size_of_images(value: Any) -> tuple[int, int]:
    """`value`, the height and width of images."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"`image_size` must be (height, width). Received: image_size={value!r}")
    height, width = value
    return whole_number("image_size", height, 1), whole_number("image_size", width, 1)


def integer(name: str, value: Any) -> Any:
    """`value`, an int, or an integer tensor or array such as a seed."""
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole and "int" not in str(getattr(value, "dtype", "")):
        raise TypeError(f"`{name}` must be an integer. Received: {name}={value!r}")
    return value


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """`value`, one of a few words."""
    if value not in choices:
        *others, last = [f'"{choice}"' for choice in choices]
        raise ValueError(
            f"`{name}` must be {', '.join(others)} or {last}. Received: {name}={value!r}"
        )
    return value


def texts(name: str, value: Iterable[str]) -> list[str]:
    """`value` as a list of strings.

    Raises:
        TypeError: If it is a single string, or holds something else.
    """
    found = [] if isinstance(value, str | bytes) else list(value)
    if isinstance(value, str | bytes) or not all(isinstance(text, str) for text in found):
        raise TypeError(f"`{name}` must be a list of strings. Received: {name}={value!r}")
    return found
