"""What a distiller tells its user: where arguments belong, and what will go wrong in training."""

import inspect
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_distill.inputs import reads_of
from keras_distill.losses.response import ClassLoss
from keras_distill.objective import Objective
from keras_distill.pairs import are_read_as_logits

#: Arguments of other distillers, and what to write here. `{}` stands for the value.
_OF_CONSTRUCTOR = {
    "temperature": "it belongs to the loss: "
    "`Distiller(..., losses=keras_distill.losses.SoftTargets(temperature={}))`",
    "distillation_losses": "they are called `losses` here: "
    "`Distiller(..., losses=keras_distill.losses.SoftTargets())`",
    "distillation_loss_weights": "each loss has its own weight: "
    "`Distiller(..., losses=[keras_distill.Match(loss, weight=...), ...])`",
    "student_loss_weight": "the weight of the labels is called `alpha`: `Distiller(..., alpha={})`",
    "loss": "distillation losses are called `losses`: `Distiller(..., losses=...)`; the loss of "
    "the labels goes to `compile(loss=...)`",
}
_OF_COMPILE = {
    "temperature": "it belongs to the loss, at construction: "
    "`Distiller(..., losses=keras_distill.losses.SoftTargets(temperature={}))`",
    "alpha": "it is given at construction: `Distiller(..., alpha={})`",
    "losses": "they are given at construction: `Distiller(..., losses=...)`",
}
for _name in ("distillation_loss", "distillation_loss_fn"):
    _OF_CONSTRUCTOR[_name] = _OF_CONSTRUCTOR["distillation_losses"]
    _OF_COMPILE[_name] = "it is given at construction, as `losses`: `Distiller(..., losses=...)`"
for _name in ("student_loss", "student_loss_fn"):
    _OF_CONSTRUCTOR[_name] = "the loss of the labels goes to `compile(loss=...)`"
    _OF_COMPILE[_name] = "the loss of the labels is called `loss`: `compile(optimizer, loss=...)`"
for _name in ("distillation_losses", "distillation_loss_weights", "student_loss_weight"):
    _OF_COMPILE[_name] = f"at construction, {_OF_CONSTRUCTOR[_name]}"

#: Losses of labels that are each a decision of its own.
_OF_DECISIONS = ("binarycrossentropy", "binaryfocalcrossentropy")
#: Losses of labels that are values.
_OF_VALUES = (
    "huber",
    "logcosh",
    "meanabsoluteerror",
    "meanabsolutepercentageerror",
    "meansquarederror",
    "meansquaredlogarithmicerror",
)
_WITH_KERNELS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Dense,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)
#: Layers without weights that change how large values are.
_RESCALE = (
    keras.layers.Activation,
    keras.layers.Lambda,
    keras.layers.Rescaling,
    keras.layers.Softmax,
    keras.layers.UnitNormalization,
)
_NORMALIZE = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.UnitNormalization,
)


def refuse_misplaced(where: str, arguments: Mapping[str, Any]) -> None:
    """Raises where an argument of another distiller, or of another place, was given.

    Args:
        where: `"Distiller"` or `"compile"`.
        arguments: The keyword arguments that it got.

    Raises:
        TypeError: If there is one. Says what to write instead.
    """
    known = _OF_CONSTRUCTOR if where == "Distiller" else _OF_COMPILE
    for name, value in arguments.items():
        if name in known:
            raise TypeError(f"`{where}` has no argument `{name}`: {known[name].format(value)}.")


def warn_of_misread_outputs(objective: Objective, loss: Any) -> None:
    """Warns where the loss of the labels takes logits for probabilities, or the reverse.

    Nothing is known of the outputs until the objective's pairs are built.

    Args:
        objective: A distiller's objective.
        loss: The loss given to `compile`: one for all outputs, a list or dict of them, or `None`.
    """
    if loss is None or objective.pairs is None:
        return
    specs, forms = objective.output_specs, objective.output_forms
    names = getattr(objective.student, "output_names", None) or range(len(forms))
    if isinstance(specs, dict):
        names = sorted(specs)
    for i, (name, form, own) in enumerate(zip(names, forms, _of_each(loss, names), strict=True)):
        from_logits = _takes_logits(own)
        output = f"output {name!r}" if len(forms) > 1 else "output"
        if from_logits and form == "logits" and _kind(own) in _OF_DECISIONS:
            meant = "decisions of their own (sigmoid)", '`SoftTargets(activation="sigmoid")`'
            _warn_of_softmax(objective, i, output, own, *meant)
        if form == "logits" and _kind(own) in _OF_VALUES:
            meant = "values", "a loss of values, such as `losses=keras.losses.MeanSquaredError()`"
            _warn_of_softmax(objective, i, output, own, *meant)
        if from_logits and form == "probabilities":
            warnings.warn(
                f"The student's {output} is probabilities, but the loss {_title(own)} takes "
                "logits. Give the loss from_logits=False.",
                stacklevel=3,
            )
        elif from_logits is False and form == "logits":
            warnings.warn(
                f"The student's {output} is read as logits, but the loss {_title(own)} takes "
                "probabilities. Give the loss from_logits=True, such as "
                "`keras.losses.SparseCategoricalCrossentropy(from_logits=True)`. If the output is "
                "probabilities, make them with an activation of Keras, such as "
                "`keras.layers.Softmax()`, which the distiller recognizes.",
                stacklevel=3,
            )


def _warn_of_softmax(objective, index, output, loss, meaning, instead):
    """Warns where what the labels' loss takes for something else is compared by softmax."""
    for pair in objective.pairs:
        chosen = "activation" in vars(pair.loss) and pair.loss.activation is not None
        by_softmax = isinstance(pair.loss, ClassLoss) and not chosen
        if by_softmax and are_read_as_logits([pair], objective.output_specs)[index]:
            warnings.warn(
                f"The student's {output} is read as logits, which the loss {_title(loss)} takes "
                f"for {meaning}, but `{type(pair.loss).__name__}` compares them as classes that "
                f"exclude each other (softmax). Use {instead}; if softmax is meant, "
                '`SoftTargets(activation="softmax")`.',
                stacklevel=4,
            )


def warn_of_nan(name: str, loss: Any) -> bool:
    """Warns if the loss of a distiller is NaN.

    Args:
        name: The distiller's name.
        loss: Its loss so far in an epoch, a scalar.

    Returns:
        Whether it is.
    """
    is_nan = math.isnan(float(loss))
    if is_nan:
        warnings.warn(
            f"The loss of {name!r} is NaN. `check_numerics=True` at construction stops training "
            "at the first NaN and says whether it comes from the teacher, the student or a loss.",
            stacklevel=2,
        )
    return is_nan


def warn_of_missing(outputs: list[str]) -> None:
    """Warns that nothing is reported of outputs whose labels are all missing.

    Args:
        outputs: Their names; empty where it is the only output.
    """
    named = f" of the output {', '.join(map(repr, outputs))}" if outputs else ""
    warnings.warn(
        f"All labels{named} were missing (`missing_label`): neither losses nor metrics of them are "
        "reported.",
        stacklevel=2,
    )


def warn_of_bytes(model: Any, x: Any, role: str) -> None:
    """Warns if a model gets bytes and doesn't rescale them: it would hardly learn.

    Args:
        model: A model of Keras.
        x: Its inputs, or `tf.TensorSpec`s of them.
        role: "student" or "teacher", for the message.
    """
    are_bytes = any(getattr(leaf, "dtype", None) == "uint8" for leaf in keras.tree.flatten(x))
    if are_bytes and _applies_weights_first(model):
        warnings.warn(
            f"The {role} gets bytes from 0 to 255 and doesn't rescale them, so it may hardly "
            "learn. Begin it with `keras.layers.Rescaling(1 / 255)`, or scale the data: "
            "`dataset.map(lambda x, y: (tf.cast(x, tf.float32) / 255, y))`.",
            stacklevel=1,  # The same place, whoever finds out, so that it is said once.
        )


def _applies_weights_first(model: Any) -> bool:
    """Whether a model applies weights to its inputs as they come, without normalizing the result.

    Models that don't tell what they read are taken to rescale.
    """
    if reads_of(model) is None:
        return False
    change = (layer for layer in _layers_in_order(model) if not _keeps_magnitude(layer))
    first, second = next(change, None), next(change, None)
    return isinstance(first, _WITH_KERNELS) and not isinstance(second, _NORMALIZE)


def _keeps_magnitude(layer: Any) -> bool:
    """Whether a layer is one of Keras that passes values on, moves them or averages them."""
    is_keras = getattr(keras.layers, type(layer).__name__, None) is type(layer)
    return is_keras and not layer.weights and not isinstance(layer, _RESCALE)


def _layers_in_order(model: Any) -> Iterator[Any]:
    # Of a Functional model, operations such as `x / 255` too.
    for layer in getattr(model, "operations", model.layers):
        if reads_of(layer) is None:
            yield layer
        else:
            yield from _layers_in_order(layer)


def _of_each(loss, names):
    """The loss of each output, `None` where it can't be told."""
    if isinstance(loss, dict):
        return [loss.get(name) for name in names]
    if isinstance(loss, (list, tuple)):
        return list(loss) if len(loss) == len(names) else [None] * len(names)
    return [loss] * len(names)


def _takes_logits(loss):
    """Whether a loss of Keras or `tf_keras` takes logits; `None` where it doesn't say."""
    if isinstance(loss, str):
        if loss.lower() in ("crossentropy", "ce"):
            return False
        loss = keras.losses.get(loss)
    if hasattr(loss, "get_config"):
        try:
            return loss.get_config().get("from_logits")
        except NotImplementedError:
            return None
    try:
        parameter = inspect.signature(loss).parameters.get("from_logits")
    except (TypeError, ValueError):
        return None
    return None if parameter is None else parameter.default


def _kind(loss):
    """What a loss of Keras is called, without regard to whether it is a class, function or name."""
    loss = keras.losses.get(loss) if isinstance(loss, str) else loss
    return getattr(loss, "__name__", type(loss).__name__).replace("_", "").lower()


def _title(loss):
    return repr(loss if isinstance(loss, str) else getattr(loss, "name", type(loss).__name__))
