"""Losses on the heads of detectors, as functions: they need to know which anchors count."""

from keras import ops

from keras_distill.losses.response import SoftTargets


def localization_distillation(y_true, y_pred, matched, temperature=10.0):
    """Kullback-Leibler divergence between box edges given as distributions (LD).

    For each matched anchor `T² · Σ_e KL(softmax(z_t[e] / T) ‖ softmax(z_s[e] / T))` over the four
    edges e, each a distribution over bins of its distance from the anchor, as heads with a
    distribution focal loss predict it (GFL, YOLOv8). Zero at equality. A teacher's flat or
    two-peaked edge says that it isn't certain of it, which a box of four numbers can't.

    Source: Zheng et al., "Localization Distillation for Dense Object Detection"
    (arXiv:2102.12252), equations 3 to 5, where T is 10 and the weight 0.25; their code takes the
    mean over bins, this the sum, so that their weight becomes 0.25 / bins.
    Costs next to nothing.

    Args:
        y_true: Logits of the teacher, float, shape `(batch, anchors, 4, bins)`.
        y_pred: Logits of the student, same shape.
        matched: Which anchors count, bool, or how much, float of at least 0; shape `(batch,
            anchors)`: those matched to a true box, or those where the teacher sees an object.
        temperature: Softening T > 0.

    Returns:
        One value per image, shape `(batch,)`: the mean over its matched anchors, weighed by
        `matched`; 0 where it has none.

    Raises:
        ValueError: If the shapes don't fit.

    Example:

    >>> teacher, student = np.zeros((1, 2, 4, 8)), np.zeros((1, 2, 4, 8))
    >>> student[0, 1, 0, 3] = 10.0  # One edge of the second anchor.
    >>> losses = keras_distill.losses
    >>> losses.localization_distillation(teacher, student, np.array([[1, 0]])).numpy()
    array([0.], dtype=float32)
    """
    shape = tuple(ops.shape(y_pred))
    if len(shape) != 4 or shape[2] != 4:
        raise ValueError(
            "Boxes must be logits of shape (batch, anchors, 4, bins); reshape a head's "
            f"(batch, anchors, 4 * bins). Received: y_pred of shape {shape}"
        )
    divergence = _soft_targets(y_true, y_pred, temperature, "softmax")
    return _matched_mean(ops.sum(divergence, axis=-1), matched)


def matched_classification(y_true, y_pred, matched, temperature=1.0, activation="sigmoid"):
    """Soft targets on the classes of matched anchors.

    `SoftTargets` at each anchor, and the mean over those that count: without it, the many anchors
    that see background drown the few that tell classes apart.

    Source: the classification part of Zheng et al. (arXiv:2102.12252), section 3.3.
    Costs next to nothing.

    Args:
        y_true: Logits of the teacher, float, shape `(batch, anchors, classes)`.
        y_pred: Logits of the student, same shape.
        matched: Which anchors count, bool, or how much, float of at least 0; shape `(batch,
            anchors)`.
        temperature: Softening T > 0.
        activation: `"sigmoid"` where each class is decided for itself (RetinaNet, YOLO),
            `"softmax"` where one of the classes is background (SSD, DETR).

    Returns:
        One value per image, shape `(batch,)`, as of `localization_distillation`.

    Raises:
        ValueError: If the shapes don't fit.

    Example:

    >>> teacher, student = np.zeros((1, 2, 3)), np.ones((1, 2, 3))
    >>> losses = keras_distill.losses
    >>> losses.matched_classification(teacher, student, np.array([[True, False]])).numpy()
    array([0.1201...], dtype=float32)
    """
    return _matched_mean(_soft_targets(y_true, y_pred, temperature, activation), matched)


def _soft_targets(y_true, y_pred, temperature, activation):
    loss = SoftTargets(temperature, activation=activation, reduction="none")
    return loss(y_true, y_pred)


def _matched_mean(values, matched):
    matched = ops.cast(matched, values.dtype)
    if tuple(matched.shape) != tuple(values.shape):
        raise ValueError(
            f"`matched` must have shape {tuple(values.shape)}, one value for each anchor. "
            f"Received: shape {tuple(matched.shape)}"
        )
    count = ops.sum(matched, axis=1)
    return ops.sum(values * matched, axis=1) / ops.where(count > 0, count, ops.ones_like(count))
