"""Published methods that look at several places, for a `Distiller`."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import keras

from keras_distill import _keras, adapters, taps
from keras_distill.frozen import frozen_copy
from keras_distill.inputs import check_known, reads_of
from keras_distill.losses.attention import AttentionMap, AttentionTransfer, ValueRelation
from keras_distill.losses.relations import RelationalAngle, RelationalDistance
from keras_distill.losses.review import Review
from keras_distill.match import Match

__all__ = ["attention_transfer", "layer_wise", "minilm", "relational", "review"]

#: The path of a layer, or the layer itself.
Place: TypeAlias = str | keras.layers.Layer


def attention_transfer(
    student: keras.Model,
    teacher: keras.Model,
    layers: Sequence[Place | tuple[Place, Place]],
    power: float = 2.0,
    weight: Any = 1000.0,
) -> list[Match]:
    """`AttentionTransfer` at several layers, usually the ends of two to four stages.

    Source: Zagoruyko and Komodakis (arXiv:1612.03928); the weight, for each layer, is that of the
    authors' code.

    Args:
        student: The student, a `keras.Model`.
        teacher: The teacher, a `keras.Model`.
        layers: List of layers to compare: a path that both models have, or a pair `(student's,
            teacher's)`; paths or layers. They return maps of any width and size.
        power: As in `AttentionTransfer`.
        weight: Weight of each layer.

    Returns:
        A list of `Match`es.

    Raises:
        ValueError: If a layer doesn't exist.

    Example:

    ```python
    matches = keras_distill.methods.attention_transfer(
        student, teacher, layers=["stage1", ("stage2", "stage3")]
    )
    distiller = keras_distill.Distiller(
        student, teacher, losses=[keras_distill.losses.SoftTargets(), *matches]
    )
    ```
    """
    return [
        Match(AttentionTransfer(power=power), student=ours, teacher=theirs, weight=weight)
        for ours, theirs in _pairs(student, teacher, layers)
    ]


def review(
    student: keras.Model,
    teacher: keras.Model,
    layers: Sequence[Place | tuple[Place, Place]],
    channels: int | None = None,
    weight: Any = 1.0,
) -> list[Match]:
    """`Review` of several layers, from shallow to deep.

    Source: Chen et al. (arXiv:2104.09044).

    Args:
        student: The student, a `keras.Model`.
        teacher: The teacher, a `keras.Model`.
        layers: List of layers to compare, from shallow to deep, as in `attention_transfer`.
        channels: As in `Review`.
        weight: Weight of the loss.

    Returns:
        A list of one `Match`.

    Raises:
        ValueError: If a layer doesn't exist.

    Example:

    ```python
    matches = keras_distill.methods.review(student, teacher, layers=["stage1", "stage2", "stage3"])
    ```
    """
    ours, theirs = zip(*_pairs(student, teacher, layers), strict=True)
    return [Match(Review(channels=channels), student=ours, teacher=theirs, weight=weight)]


def relational(
    student: keras.Model,
    teacher: keras.Model,
    layers: Sequence[Place | tuple[Place, Place]],
    distance_weight: Any = 25.0,
    angle_weight: Any = 50.0,
) -> list[Match]:
    """`RelationalDistance` and `RelationalAngle` (RKD) at one or more layers.

    Source: Park et al. (arXiv:1904.05068); the weights are theirs for classification.

    Args:
        student: The student, a `keras.Model`.
        teacher: The teacher, a `keras.Model`.
        layers: List of layers to compare, as in `attention_transfer`; usually one, the embedding.
        distance_weight: Weight of the distances.
        angle_weight: Weight of the angles, which cost batch³ memory.

    Returns:
        A list of `Match`es, two for each layer.

    Raises:
        ValueError: If a layer doesn't exist.

    Example:

    ```python
    matches = keras_distill.methods.relational(student, teacher, layers=["embedding"])
    ```
    """
    return [
        Match(loss, student=ours, teacher=theirs, weight=weight)
        for ours, theirs in _pairs(student, teacher, layers)
        for loss, weight in (
            (RelationalDistance(), distance_weight),
            (RelationalAngle(), angle_weight),
        )
    ]


def minilm(
    student: keras.Model,
    teacher: keras.Model,
    layers: Sequence[Place | tuple[Place, Place]],
    heads: int | None = None,
    use_causal_mask: bool = False,
) -> list[Match]:
    """`AttentionMap` and `ValueRelation` of attention layers.

    Source: Wang et al., "MiniLM" (arXiv:2002.10957), which compares the last attention layer of
    both models, both terms with a weight of 1.

    Args:
        student: The student, a `keras.Model`.
        teacher: The teacher, a `keras.Model`.
        layers: List of `keras.layers.MultiHeadAttention` layers to compare, as in
            `attention_transfer`; usually one, the last.
        heads: As in `AttentionMap`.
        use_causal_mask: As in `AttentionMap`.

    Returns:
        A list of `Match`es, two for each layer.

    Raises:
        ValueError: If a layer doesn't exist.

    Example:

    ```python
    matches = keras_distill.methods.minilm(
        student, teacher, layers=[("block_2/attention", "block_12/attention")]
    )
    ```
    """
    matches = []
    for ours, theirs in _pairs(student, teacher, layers):
        ours = taps.path_of(student, _layer(student, ours, "student"), "student")
        theirs = taps.path_of(teacher, _layer(teacher, theirs, "teacher"), "teacher")
        # The layer's own output has the mask of padded steps.
        matches += [
            Match(
                AttentionMap(heads, use_causal_mask),
                student=(f"{ours}/query", f"{ours}/key", ours),
                teacher=(f"{theirs}/query", f"{theirs}/key"),
            ),
            Match(
                ValueRelation(heads, use_causal_mask),
                student=(f"{ours}/value", ours),
                teacher=f"{theirs}/value",
            ),
        ]
    return matches


def layer_wise(
    student: keras.Model,
    teacher: keras.Model,
    layers: Sequence[Place | tuple[Place, Place]],
) -> Iterator[keras.Model]:
    """Models in which one block after the other of the teacher gives way to one of the student.

    The first is the student up to its first place, then the teacher from its own on; each next one
    has one more block of the student. Between the two stands an adapter, built from the shapes. Of
    each model only the newest block of the student and the adapter are trained: earlier blocks
    stay as they have become, later ones are a copy of the teacher's. After the last, all of the
    student may be trained as it was before, and begins where its blocks already work in the
    teacher's company.

    Source: Wang et al., "Progressive Blockwise Knowledge Distillation for Neural Network
    Acceleration" (IJCAI 2018), whose blocks keep the teacher's shapes.

    Args:
        student: The student, a functional `keras.Model`, on the teacher's inputs.
        teacher: The teacher, likewise. It isn't changed.
        layers: List of places where the models may be cut, from shallow to deep, as in
            `attention_transfer`: nothing else may connect what comes before and after.

    Yields:
        A `keras.Model` for each place, to be trained before the next is taken.

    Raises:
        ValueError: If a layer doesn't exist, a model doesn't know its inputs and outputs or can't
            be cut there, or a later place isn't deeper, in the student or in the teacher.

    Example:

    ```python
    for mixed in keras_distill.methods.layer_wise(student, teacher, ["stage1", "stage2"]):
        distiller = keras_distill.Distiller(mixed, teacher, alpha=0.0)
        distiller.compile("adam")
        distiller.fit(x, epochs=5)
    ```
    """
    pairs = [
        (_layer(student, ours, "student"), _layer(teacher, theirs, "teacher"))
        for ours, theirs in _pairs(student, teacher, layers)
    ]
    for role, model, places in zip(
        ("student", "teacher"), (student, teacher), zip(*pairs, strict=True), strict=True
    ):
        check_known(role, model)
        _check_order(role, model, places)
    # Setting an outer layer's sets all inner ones', which therefore come later.
    were_trainable = [(layer, layer.trainable) for layer in _keras.layers_of(student)]
    try:
        done: list[keras.layers.Layer] = []
        for ours, theirs in pairs:
            for layer in done:
                layer.trainable = False
            block = keras.Model(student.inputs, ours.output)
            rest = _copy_after(teacher, theirs)
            x = ours.output
            for layer in _adapting(ours, theirs):
                x = layer(x)
            yield keras.Model(reads_of(student), rest(x), name=f"{student.name}_{ours.name}")
            done = block.layers
    finally:
        for layer, trainable in were_trainable:
            layer.trainable = trainable


def _check_order(role, model, places):
    """Refuses places of which a later one doesn't come after the one before it."""
    for before, after in itertools.pairwise(places):
        try:
            cut = keras.Model(model.inputs, after.output)
        except ValueError as error:
            raise ValueError(f"The {role} can't be cut after {after.name!r}: {error}") from error
        if before is after or before not in cut.layers:
            raise ValueError(
                f"`layers` must go from shallow to deep. Received: the {role}'s "
                f"{after.name!r} after {before.name!r}"
            )


def _copy_after(teacher, place):
    """A frozen copy of what a teacher computes from the output of one of its layers."""
    # A `Sequential` model has a list of its output alone.
    outputs = teacher.outputs[0] if len(teacher.outputs) == 1 else teacher.output
    try:
        rest = keras.Model(place.output, outputs)
    except ValueError as error:
        raise ValueError(f"The teacher can't be cut after {place.name!r}: {error}") from error
    return frozen_copy(rest)


def _adapting(ours, theirs):
    """Layers that turn what a place of the student returns into the shape of the teacher's."""
    shapes = ours.output.shape, theirs.output.shape
    if shapes[0][1:] == shapes[1][1:]:
        return []
    layers = adapters.adapting_layers(*shapes, dtype=None)
    if layers is None:
        raise ValueError(
            f"The student's {ours.name!r} gives shape {shapes[0]}, the teacher's {theirs.name!r} "
            f"shape {shapes[1]}: no adapter turns one into the other. Name other places."
        )
    return layers


def _pairs(student, teacher, layers):
    """Pairs of places that exist."""
    for role, model in (("student", student), ("teacher", teacher)):
        if not isinstance(model, keras.Model):
            raise TypeError(f"`{role}` must be a `keras.Model`. Received: {role}={model!r}")
    listed = layers if isinstance(layers, (list, tuple)) else ()
    pairs = [pair if isinstance(pair, (tuple, list)) else (pair, pair) for pair in listed]
    places = [place for pair in pairs for place in pair]
    are_pairs = places and all(len(pair) == 2 for pair in pairs)
    if not are_pairs or not all(isinstance(each, (str, keras.layers.Layer)) for each in places):
        raise ValueError(
            "`layers` must be a list of layers or their paths, or of pairs (student's, teacher's). "
            f"Received: layers={layers!r}"
        )
    for ours, theirs in pairs:
        _layer(student, ours, "student")
        _layer(teacher, theirs, "teacher")
    return pairs


def _layer(model, place, role):
    """The layer at a place, which must be part of the model."""
    if isinstance(place, str):
        return taps.find_layer(model, place, role)
    taps.path_of(model, place, role)
    return place
