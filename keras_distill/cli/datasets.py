"""The flags that say which data a command works on."""

import importlib
import os
import sys
from typing import Any

import tensorflow as tf
from absl import flags as absl_flags

from keras_distill import data


def define(flags):
    """Declares the flags that `load` reads."""
    to = {"flag_values": flags}
    absl_flags.DEFINE_string(
        "data",
        None,
        "Labelled examples: a folder with one folder of images per class, an .npz file with arrays "
        "x and y (or x_train, y_train, x_test, ...), a .csv or .tsv file, or the name of a dataset "
        "of TensorFlow Datasets.",
        **to,
    )
    absl_flags.DEFINE_string("data_dir", None, "Where TensorFlow Datasets keeps its data.", **to)
    absl_flags.DEFINE_bool("download", True, "Whether it may download what isn't there.", **to)
    absl_flags.DEFINE_float(
        "holdout", 0.1, "Share held out for validation, and for test, where there is none.", **to
    )
    absl_flags.DEFINE_list("image_size", None, "HEIGHT,WIDTH to which images are resized.", **to)
    absl_flags.DEFINE_string("label_column", None, "Column of a table to predict.", **to)
    absl_flags.DEFINE_string(
        "text_column", None, "Column of a table that is the input, a text. Default: all are.", **to
    )
    absl_flags.DEFINE_string(
        "prepare",
        None,
        "MODULE:FUNCTION applied to each example, (x, y) -> (x, y), in the data pipeline.",
        **to,
    )
    absl_flags.DEFINE_integer("seed", 0, "Seed of splits, order, views and weights.", **to)


def load(flags: Any) -> data.Data:
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
        )
    except ValueError as error:
        raise ValueError(_with_flags(str(error))) from error
    if flags.prepare is not None:
        prepare = function(flags.prepare)
        parts = (loaded.train, loaded.validation, loaded.test)
        prepared = (part.map(prepare, tf.data.AUTOTUNE) for part in parts)
        loaded = data.Data(*prepared, loaded.class_names)
    return loaded


def _with_flags(message):
    """A message of `data.load` that names flags in place of its arguments."""
    for argument, flag in (("target", "--label_column"), ("text", "--text_column")):
        message = message.replace(f"`{argument}`", flag).replace(f" {argument}=", f" {flag}=")
    return message


def function(name):
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
