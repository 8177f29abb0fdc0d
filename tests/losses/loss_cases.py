"""One case for each loss and setting, on which every promise that all losses share is tested."""

import dataclasses
import functools
from collections.abc import Callable
from functools import partial

import golden
import keras
import numpy as np
import tensorflow as tf

from keras_distill import losses


@dataclasses.dataclass
class Case:
    """A loss, its formula `golden(teacher, student[, labels])` in NumPy, and shapes to try it on.

    Shapes are those of a batch; a tuple of shapes stands for a tuple of tensors. The formula of a
    loss with weights takes them as `state`, the layer that holds them.
    """

    name: str
    make: Callable
    golden: Callable
    student: tuple
    teacher: tuple | None = None
    #: Labels, or keys, drawn with a random generator.
    labels: Callable | None = None
    #: Sets those weights of `state` that aren't trained.
    prepare: Callable | None = None
    #: How near to 0 equal teacher and student come, or `None` where the paper has no zero there.
    zero_at_equality: float | None = 2e-6
    seed: int = 0

    def arrays(self):
        """Teacher, student and labels (or `None`), float64 and integers."""
        rng = np.random.default_rng(self.seed)
        teacher = draw(rng, self.teacher or self.student)
        student = draw(rng, self.student)
        return teacher, student, self.labels(rng) if self.labels else None

    def loss(self, **arguments):
        """The loss, built, its trainable weights always the same random ones."""
        loss = self.make(**arguments)
        loss.build(self.teacher or self.student, self.student)
        if loss.state is not None:
            rng = np.random.default_rng(7)
            for weight in loss.state.trainable_weights:
                weight.assign(0.5 * rng.standard_normal(weight.shape))
            if self.prepare:
                self.prepare(loss.state, rng)
        return loss

    @functools.cached_property
    def state(self):
        return self.loss().state

    def formula(self, teacher, student, labels):
        given = [] if labels is None else [labels]
        state = {} if self.state is None else {"state": self.state}
        return self.golden(teacher, student, *given, **state)


def draw(rng, shape):
    if isinstance(shape[0], tuple):
        return tuple(draw(rng, s) for s in shape)
    return 2 * rng.standard_normal(shape)


def joined(teacher, labels):
    return teacher if labels is None else (teacher, labels)


def as_tensors(x, dtype="float32"):
    return keras.tree.map_structure(lambda a: tf.constant(a, dtype), x)


def value_and_gradient(loss, teacher, labels, student, sample_weight=None, mask=None):
    """The reduced loss, and its gradient to each tensor of the student."""
    if keras.backend.backend() == "jax":
        return _on_jax(loss, teacher, labels, student)
    if keras.backend.backend() == "torch":
        return _on_torch(loss, teacher, labels, student)
    student = as_tensors(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        if mask is not None:
            keras.tree.flatten(student)[0]._keras_mask = tf.constant(mask)
        value = loss(joined(as_tensors(teacher), labels), student, sample_weight)
    gradient = tape.gradient(value, student)
    return value.numpy(), keras.tree.map_structure(lambda g: g.numpy(), gradient)


def _on_jax(loss, teacher, labels, student):
    """Likewise, as a compiled function. What the loss learns on the way is dropped."""
    import jax

    def value_of(student, teacher):
        with keras.StatelessScope():
            return loss(joined(teacher, labels), student)

    def as_floats(x):
        return keras.tree.map_structure(lambda a: np.asarray(a, "float32"), x)

    function = jax.jit(jax.value_and_grad(value_of))
    value, gradient = function(as_floats(student), as_floats(teacher))
    return np.asarray(value), keras.tree.map_structure(np.asarray, gradient)


def _on_torch(loss, teacher, labels, student):
    """Likewise, at once."""
    import torch

    def as_floats(x):
        return keras.tree.map_structure(lambda a: torch.tensor(a, dtype=torch.float32), x)

    labels = None if labels is None else torch.tensor(labels)
    leaves = [x.requires_grad_() for x in keras.tree.flatten(as_floats(student))]
    student = keras.tree.pack_sequence_as(student, leaves)
    value = loss(joined(as_floats(teacher), labels), student)
    gradient = torch.autograd.grad(value, leaves)
    return value.detach().numpy(), [x.numpy() for x in gradient]


def pulled_back(function, x, upstream):
    """What a function makes of an array, and the gradient to it of `upstream` times that."""
    if keras.backend.backend() == "torch":
        import torch

        x = torch.tensor(x, requires_grad=True)
        values = function(x)
        (gradient,) = torch.autograd.grad(values, x, torch.tensor(upstream))
        return values.detach().numpy(), gradient.numpy()
    if keras.backend.backend() == "jax":
        import jax

        values, pull = jax.vjp(function, x)
        return np.asarray(values), np.asarray(pull(upstream)[0])
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = function(x)
    return values.numpy(), tape.gradient(values, x, upstream).numpy()


def rows(x, index):
    return keras.tree.map_structure(lambda a: a[index], x)


def numeric_gradient(function, x, step=1e-5):
    """Central differences of a scalar function of an array, or of a tuple of arrays."""
    leaves = keras.tree.flatten(x)
    gradients = []
    for leaf in leaves:
        gradient = np.zeros_like(leaf)
        for i in np.ndindex(leaf.shape):
            kept = leaf[i]
            leaf[i] = kept + step
            above = function(x)
            leaf[i] = kept - step
            below = function(x)
            leaf[i] = kept
            gradient[i] = (above - below) / (2 * step)
        gradients.append(gradient)
    return keras.tree.pack_sequence_as(x, gradients)


def classes(*shape, of):
    return lambda rng: rng.integers(0, of, shape)


def values(*shape):
    return lambda rng: rng.standard_normal(shape)


def softmax_cases():
    """Every softmax-based loss: plain and standardized, for classes, tokens and pixels."""
    made = {
        "soft_targets": (losses.SoftTargets, golden.soft_targets, {"temperature": 4.0}),
        "dkd": (losses.DKD, golden.dkd, {"alpha": 1.0, "beta": 8.0, "temperature": 4.0}),
        "dist": (losses.DIST, golden.dist, {"beta": 2.0, "gamma": 0.5, "temperature": 4.0}),
        "rld": (losses.RLD, golden.rld, {"alpha": 1.0, "beta": 8.0, "temperature": 4.0}),
        "mlkd": (losses.MLKD, golden.mlkd, {"temperatures": (1.0, 2.5, 4.0)}),
        "jensen_shannon": (
            losses.JensenShannon,
            golden.jensen_shannon,
            {"beta": 0.3, "temperature": 2.0},
        ),
    }
    shapes = {"classes": (5, 7), "tokens": (2, 3, 4), "pixels": (2, 2, 2, 3)}
    for name, (loss, formula, settings) in made.items():
        for what, shape in shapes.items():
            for standardize in (False, True) if what == "classes" else (False,):
                yield Case(
                    f"{name}-{what}{'-standardized' * standardize}",
                    partial(loss, standardize=standardize, **settings),
                    partial(formula, standardized=standardize, **settings),
                    student=shape,
                    labels=classes(*shape[:-1], of=shape[-1]) if name in ("dkd", "rld") else None,
                    # The student of a wrong teacher isn't to repeat its mistake.
                    zero_at_equality={"dist": 1e-4, "rld": None}.get(name, 2e-6),
                )


RESPONSE = [
    *softmax_cases(),
    Case(
        "confident",
        partial(losses.Confident, threshold=0.7),
        partial(golden.confident, threshold=0.7),
        student=(5, 4),
    ),
    Case(
        "soft_targets-multi_label",
        partial(losses.SoftTargets, temperature=3.0, activation="sigmoid"),
        partial(golden.soft_targets_sigmoid, temperature=3.0),
        student=(5, 4),
    ),
    Case(
        "soft_targets-one_logit",
        partial(losses.SoftTargets, temperature=1.0, activation="sigmoid"),
        partial(golden.soft_targets_sigmoid, temperature=1.0),
        student=(5, 1),
    ),
    Case(
        "jensen_shannon-forward",
        partial(losses.JensenShannon, beta=0.0),
        partial(golden.jensen_shannon, beta=0),
        student=(5, 4),
    ),
    Case(
        "jensen_shannon-reverse",
        partial(losses.JensenShannon, beta=1.0),
        partial(golden.jensen_shannon, beta=1),
        student=(5, 4),
    ),
    *(
        Case(
            f"skewed_kl-{'reverse' if reverse else 'forward'}-{alpha}",
            partial(losses.SkewedKL, alpha=alpha, reverse=reverse, temperature=2.0),
            partial(golden.skewed_kl, alpha=alpha, reverse=reverse, temperature=2.0),
            student=(2, 3, 4),
        )
        for alpha, reverse in [(0.1, False), (0.1, True), (0.0, False)]
    ),
    Case(
        "chunked-tokens",
        partial(losses.Chunked, losses.SoftTargets(2.0), positions=4),
        partial(golden.soft_targets, temperature=2.0),
        student=(2, 3, 4),
    ),
    Case(
        "chunked-labels",
        partial(losses.Chunked, losses.SoftTargets(2.0), positions=2, label_weight=0.3),
        partial(golden.with_labels, temperature=2.0, label_weight=0.3),
        student=(5, 7),
        labels=classes(5, of=7),
        zero_at_equality=None,
    ),
    Case("ctkd", losses.CTKD, golden.ctkd, student=(5, 4)),
    Case(
        "ctkd-range",
        partial(losses.CTKD, start=0.5, span=2.0),
        partial(golden.ctkd, start=0.5, span=2.0),
        student=(2, 3, 4),
    ),
    Case("margin_mse", losses.MarginMSE, golden.margin_mse, student=(5, 4)),
    Case("logit_mse", losses.LogitMSE, golden.logit_mse, student=(5, 4)),
    Case(
        "teacher_bounded_regression",
        partial(losses.TeacherBoundedRegression, margin=0.5),
        partial(golden.teacher_bounded_regression, margin=0.5),
        student=(6, 2),
        labels=values(6, 2),
        zero_at_equality=None,
    ),
]

FEATURES = [
    Case("hint-vectors", losses.Hint, golden.hint, student=(4, 3)),
    Case("hint-pixels", losses.Hint, golden.hint, student=(3, 2, 2, 3)),
    Case(
        "attention_transfer-pixels",
        losses.AttentionTransfer,
        golden.attention_transfer,
        student=(3, 3, 2, 4),
        teacher=(3, 3, 2, 5),
    ),
    Case(
        "attention_transfer-larger_student",
        partial(losses.AttentionTransfer, power=3.0),
        partial(golden.attention_transfer, power=3),
        student=(2, 5, 4, 2),
        teacher=(2, 3, 2, 3),
        zero_at_equality=None,
    ),
    Case(
        "attention_transfer-larger_teacher",
        partial(losses.AttentionTransfer, power=1.0),
        partial(golden.attention_transfer, power=1),
        student=(2, 2, 2, 2),
        teacher=(2, 4, 4, 3),
        zero_at_equality=None,
    ),
    Case(
        "attention_transfer-patches",
        losses.AttentionTransfer,
        golden.attention_transfer,
        student=(3, 2, 2, 4),
        teacher=(3, 4, 6),
        zero_at_equality=None,
    ),
    Case(
        "channel_wise-pixels",
        partial(losses.ChannelWise, temperature=4.0),
        partial(golden.channel_wise, temperature=4.0),
        student=(3, 2, 3, 4),
    ),
    Case(
        "channel_wise-steps",
        partial(losses.ChannelWise, temperature=1.0),
        partial(golden.channel_wise, temperature=1.0),
        student=(3, 5, 2),
    ),
    Case(
        "variational_information",
        losses.VariationalInformation,
        golden.variational_information,
        student=(3, 2, 2, 4),
        zero_at_equality=None,
    ),
    Case(
        "attention_map",
        losses.AttentionMap,
        golden.attention_map,
        student=((3, 4, 2, 3),) * 2,
        teacher=((3, 4, 2, 6),) * 2,
    ),
    Case(
        "attention_map-causal_regrouped",
        partial(losses.AttentionMap, heads=3, use_causal_mask=True),
        partial(golden.attention_map, heads=3, causal=True),
        student=((2, 4, 2, 3),) * 2,
        teacher=((2, 4, 3, 3),) * 2,
    ),
    Case(
        "value_relation",
        losses.ValueRelation,
        golden.value_relation,
        student=(3, 4, 2, 3),
        teacher=(3, 4, 2, 5),
    ),
    Case(
        "review",
        losses.Review,
        golden.review,
        student=((3, 5, 5, 1), (3, 1, 1, 2)),
        teacher=((3, 5, 5, 2), (3, 2, 2, 3)),
        zero_at_equality=None,
    ),
]


def cross_head(outputs, *after):
    """A head of one convolution."""
    head = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Conv2D(outputs, 1), *after])
    rng = np.random.default_rng(3)
    head.set_weights([0.5 * rng.standard_normal(w.shape) for w in head.get_weights()])
    return head


def cross_kd(compares, outputs):
    boxes = [] if compares == "classes" else [(2, 2, 2, outputs)]
    return Case(
        f"cross_kd-{compares}",
        lambda **arguments: losses.CrossKD(cross_head(outputs), compares, **arguments),
        partial(golden.cross_kd, compares=compares),
        student=(2, 2, 2, 3),
        teacher=((2, 2, 2, 3), *boxes, (2, 2, 2, 5)),
        zero_at_equality=None,
    )


def some_pixels(state, rng):
    """Memories as after a batch: of two classes two rows, of the last none."""
    for memory in (state.pixel_memory, state.region_memory):
        rows = np.zeros(memory.shape)
        rows[:2, :2] = golden.unit(rng.standard_normal((2, 2, memory.shape[-1])))
        memory.assign(rows)


DENSE = [
    Case(
        "mgd",
        partial(losses.MGD, masked=0.0),
        golden.mgd,
        student=(2, 3, 2, 2),
        zero_at_equality=None,
    ),
    Case("pkd-pixels", losses.PKD, golden.pkd, student=(3, 2, 3, 2)),
    Case("pkd-steps", losses.PKD, golden.pkd, student=(3, 4, 2)),
    Case("cirkd-pixels", losses.CIRKD, golden.cirkd, student=(3, 2, 2, 3), teacher=(3, 2, 2, 4)),
    Case(
        "cirkd-steps",
        partial(losses.CIRKD, temperature=1.0),
        partial(golden.cirkd, temperature=1.0),
        student=(2, 3, 2),
    ),
    Case(
        "cirkd_memory",
        partial(losses.CIRKDMemory, classes=3, pixels=20, regions=6),
        golden.cirkd_memory,
        student=(3, 2, 2, 4),
        labels=lambda rng: np.array([0, 2, 3, 0, 2, 2, 0, 9, -1, 0, 0, 2]).reshape(3, 2, 2),
        prepare=some_pixels,
    ),
    cross_kd("classes", 5),
    cross_kd("edges", 12),
]


def remembered(state, rng):
    """Memories as after an epoch, and normalizers as after a batch."""
    for memory in (state.teacher_memory, state.student_memory):
        rows = rng.standard_normal(memory.shape)
        memory.assign(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    state.log_z.assign([2.0, 3.0])
    state.is_started.assign(1.0)


def queued(state, rng):
    """A queue that is filled in part."""
    rows = rng.standard_normal(state.rows.shape)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    state.rows.assign(rows * (np.arange(len(rows)) < 4)[:, None])


RELATIONS = [
    *(
        Case(
            f"{name}-{what}",
            loss,
            formula,
            student=student,
            teacher=teacher,
            zero_at_equality=2e-6 if teacher is None else None,
        )
        for name, loss, formula in (
            ("relational_distance", losses.RelationalDistance, golden.relational_distance),
            ("relational_angle", losses.RelationalAngle, golden.relational_angle),
            ("similarity_preserving", losses.SimilarityPreserving, golden.similarity_preserving),
        )
        for what, student, teacher in (
            ("vectors", (5, 4), None),
            ("pixels", (4, 2, 2, 2), (4, 3, 3, 3)),
        )
    ),
    Case(
        "contrastive",
        partial(losses.Contrastive, samples=9, dimensions=3, temperature=0.5, negatives=9),
        partial(golden.contrastive, temperature=0.5),
        student=(5, 4),
        teacher=(5, 2, 3),
        labels=lambda rng: rng.permutation(9)[:5],
        prepare=remembered,
        zero_at_equality=None,
    ),
    *(
        Case(
            f"seed-{what}",
            partial(losses.SEED, size=6, teacher_temperature=0.3),
            partial(golden.seed, teacher_temperature=0.3),
            student=student,
            prepare=queued,
            zero_at_equality=None,
        )
        for what, student in (("vectors", (5, 4)), ("pixels", (3, 2, 2, 2)))
    ),
]

CASES = [*RESPONSE, *FEATURES, *DENSE, *RELATIONS]
