"""The data that a command works on."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from absl import flags as absl_flags

from keras_distill import data

#: Flags by the argument of `data.load` that they are given as, where the names differ.
_FLAGS = {
    "target": "--label_column",
    "text": "--text_column",
    "task": "--task",
    "image_size": "--image_size",
    "validation": "--validation_data",
    "test": "--test_data",
}


def load(flags: absl_flags.FlagValues) -> data.Data:
    """The data that the flags name.

    Raises:
        ValueError: If there is no such data, or it can't be read.
    """
    if flags.data is None:
        raise ValueError("say which data: --data=NAME, FOLDER or FILE.")
    size = flags.image_size
    if size is not None and not (len(size) == 2 and all(x.strip().isdecimal() for x in size)):
        raise ValueError(f"--image_size must be HEIGHT,WIDTH, not {','.join(size)!r}.")
    try:
        loaded = data.load(
            flags.data,
            holdout=flags.holdout,
            seed=flags.seed,
            data_dir=flags.data_dir,
            download=flags.download,
            image_size=size and tuple(map(int, size)),
            target=flags.label_column,
            text=flags.text_column,
            task=flags.task,
            validation=flags.validation_data,
            test=flags.test_data,
        )
    except ValueError as error:
        raise ValueError(with_flags(str(error))) from error
    if flags.prepare is not None:
        prepare = function(flags.prepare)
        parts = (loaded.train, loaded.validation, loaded.test)
        prepared = (part.map(prepare, tf.data.AUTOTUNE) for part in parts)
        loaded = data.Data(*prepared, loaded.class_names, loaded.several_labels)
    return loaded


def with_flags(message: str) -> str:
    """A message of `data.load` that names flags in place of its arguments."""
    for argument, flag in _FLAGS.items():
        message = message.replace(f"`{argument}`", flag).replace(f" {argument}=", f" {flag}=")
    return message


def function(name: str) -> Callable[..., Any]:
    """The function that `module:function` names, modules of the working directory included.

    Raises:
        ValueError: If there is no such module or function.
    """
    module, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        raise ValueError(f"{name!r}: {error}.") from error
    finally:
        sys.path.remove(os.getcwd())
    if not callable(found):
        raise ValueError(f"The module {module!r} has no function {attribute!r}.")
    return found
