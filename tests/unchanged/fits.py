"""Ten steps of `fit` with each loss, and with what a `Distiller` does beside: what comes of it."""

import keras
import numpy as np
import small
from keras import layers

import keras_distill
from keras_distill import losses, teachers

BATCH, STEPS = 8, 10
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
schedules = keras.optimizers.schedules


def dense(seed=0, activation=None, outputs=4):
    x = image = keras.Input((6,), name="values")
    x = layers.Dense(8, activation="relu", name="hidden")(x)
    outputs = layers.Dense(outputs, activation=activation, name="scores")(x)
    return small.set_weights(keras.Model(image, outputs, name=f"dense{seed}"), seed)


def convolutional(width, seed=0):
    x = image = keras.Input((6, 6, 2), name="image")
    for stage in (1, 2):
        x = layers.Conv2D(stage * width, 3, strides=stage, padding="same", name=f"stage{stage}")(x)
        x = layers.ReLU(name=f"relu{stage}")(layers.BatchNormalization(name=f"norm{stage}")(x))
    x = layers.GlobalAveragePooling2D(name="embedding")(x)
    model = keras.Model(image, layers.Dense(4, name="scores")(x), name=f"convolutional{seed}")
    return small.set_weights(model, seed)


def transformer(size, heads, seed=0):
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(17, size, mask_zero=True, name="embedding")(tokens)
    x = layers.MultiHeadAttention(heads, size // heads, name="attention")(x, x)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    model = keras.Model(tokens, layers.Dense(4, name="scores")(x), name=f"transformer{seed}")
    return small.set_weights(model, seed)


def detector(seed=0):
    x = image = keras.Input((6,), name="values")
    boxes = layers.Reshape((3, 4, 5), name="boxes")(layers.Dense(60, name="edges")(x))
    classes = layers.Reshape((3, 2), name="classes")(layers.Dense(6, name="seen")(x))
    outputs = {"boxes": boxes, "classes": classes}
    return small.set_weights(keras.Model(image, outputs, name=f"detector{seed}"), seed)


def inputs_of(model, count=BATCH * STEPS):
    [x] = model.inputs
    if x.dtype == "int32":
        return np.random.default_rng(2).integers(0, 17, (count, *x.shape[1:])).astype("int32")
    return small.sixteenths((count, *x.shape[1:]), seed=2)


def labels(count=BATCH * STEPS, classes=4):
    return np.random.default_rng(3).integers(0, classes, count).astype("int32")


def fitted(distiller, x=None, y=None, sample_weight=None, loss=CROSS_ENTROPY, **arguments):
    """Ten steps: what `fit` reports after them, and all weights."""
    if x is None:
        x = inputs_of(getattr(distiller, "students", [distiller.student])[0])
    # Without the time that XLA takes.
    arguments = {"jit_compile": False, **arguments}
    distiller.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, **arguments)
    if y is None and loss is not None:
        y = labels()
    history = distiller.fit(
        x, y, sample_weight=sample_weight, batch_size=BATCH, shuffle=False, verbose=0
    ).history
    return {name: values[-1] for name, values in history.items()}, distiller.variables


def made(build):
    """A case from a function that makes a distiller, or what `fitted` takes."""

    def case():
        result = build()
        return fitted(**result) if isinstance(result, dict) else fitted(result)

    return case


def outputs(loss, activation=None, **arguments):
    """A loss between outputs."""
    return made(
        lambda: keras_distill.Distiller(
            dense(0, activation), dense(1, activation), loss(), **arguments
        )
    )


def maps(loss, student="stage2", teacher="stage2", **arguments):
    """A loss between maps of convolutional models."""
    return made(
        lambda: keras_distill.Distiller(
            convolutional(3),
            convolutional(4, seed=1),
            keras_distill.Match(loss(), student, teacher, **arguments),
            alpha=0.5,
        )
    )


def preset(name, models, places, **arguments):
    def build():
        student, teacher = models()
        matches = getattr(keras_distill.methods, name)(student, teacher, places, **arguments)
        return keras_distill.Distiller(student, teacher, matches, alpha=0.5)

    return made(build)


def both_convolutional():
    return convolutional(3), convolutional(4, seed=1)


def both_transformers():
    return transformer(8, 2), transformer(12, 3, seed=1)


def contrastive(negatives):
    def build():
        loss = losses.Contrastive(samples=40, dimensions=5, negatives=negatives)
        student, teacher = convolutional(3), convolutional(4, seed=1)
        match = keras_distill.Match(loss, student="embedding")
        x = teachers.Keyed(inputs_of(student), np.arange(BATCH * STEPS) % 40)
        return {"distiller": keras_distill.Distiller(student, teacher, match, 0.5), "x": x}

    return made(build)


def across_heads():
    def detector(width, seed=0):
        x = image = keras.Input((6, 6, 2), name="image")
        x = layers.Conv2D(width, 3, activation="relu", name="tower")(x)
        x = layers.Reshape((16, 4), name="scores")(layers.Conv2D(4, 1, name="seen")(x))
        return small.set_weights(keras.Model(image, x, name=f"detector{seed}"), seed)

    student, teacher = detector(3), detector(4, seed=1)
    head = keras.Model(teacher.get_layer("tower").output, teacher.output)
    match = keras_distill.Match(
        losses.CrossKD(head),
        student="tower",
        teacher=("tower", "scores"),
        adapter=layers.Conv2D(4, 1),
    )
    distiller = keras_distill.Distiller(student, teacher, match, alpha=0.0)
    return {"distiller": distiller, "loss": None}


def regression():
    student, teacher = dense(0, outputs=2), dense(1, outputs=2)
    loss = losses.TeacherBoundedRegression(margin=0.25)
    return {
        "distiller": keras_distill.Distiller(student, teacher, loss, alpha=0.5),
        "y": small.sixteenths((BATCH * STEPS, 2), seed=5),
        "loss": "mse",
    }


def detection():
    def boxes(y_true, y_pred):
        matched = np.ones((BATCH, 3), "float32")
        return losses.localization_distillation(y_true, y_pred, matched)

    def classes(y_true, y_pred):
        matched = np.ones((BATCH, 3), "float32")
        return losses.matched_classification(y_true, y_pred, matched)

    distiller = keras_distill.Distiller(
        detector(0), detector(1), {"boxes": boxes, "classes": classes}, alpha=0.0
    )
    return {"distiller": distiller, "loss": None}


def scheduled():
    loss = losses.SoftTargets(temperature=schedules.ExponentialDecay(8.0, 5, 0.5))
    match = keras_distill.Match(loss, weight=schedules.PolynomialDecay(1.0, 8, 0.5))
    alpha = schedules.PiecewiseConstantDecay([4], [0.25, 0.75])
    return keras_distill.Distiller(dense(0), dense(1), match, alpha)


def weighted():
    return {
        "distiller": keras_distill.Distiller(dense(0), dense(1), losses.SoftTargets(), alpha=0.5),
        "weighted_metrics": ["accuracy"],
        "sample_weight": (np.arange(BATCH * STEPS) % 5 / 4).astype("float32"),
    }


def partly_labeled():
    y = labels()
    y[::3] = -1
    distiller = keras_distill.Distiller(
        dense(0), dense(1), losses.DKD(), alpha=0.5, missing_label=-1
    )
    return {"distiller": distiller, "y": y, "metrics": ["accuracy"]}


def ensemble():
    teacher = teachers.Ensemble([dense(1, "softmax"), dense(2, "softmax")])
    return keras_distill.Distiller(dense(0, "softmax"), teacher, losses.SoftTargets(2.0))


def chosen_classes():
    teacher = teachers.Teacher(
        dense(1, outputs=6), preprocess=lambda x: x * 0.5, class_map=[5, 3, 1, 0]
    )
    return keras_distill.Distiller(dense(0), teacher, losses.SoftTargets(2.0))


CASES = {
    "soft_targets": outputs(losses.SoftTargets),
    "soft_targets-probabilities": outputs(losses.SoftTargets, "softmax"),
    "soft_targets-sigmoid": outputs(
        lambda: losses.SoftTargets(2.0, activation="sigmoid"), "sigmoid"
    ),
    "soft_targets-xla": made(
        lambda: {
            "distiller": keras_distill.Distiller(dense(0), dense(1), losses.SoftTargets()),
            "jit_compile": True,
        }
    ),
    "soft_targets-several_steps": made(
        lambda: {
            "distiller": keras_distill.Distiller(dense(0), dense(1), losses.SoftTargets()),
            "steps_per_execution": 5,
        }
    ),
    "dkd": outputs(losses.DKD),
    "dist": outputs(losses.DIST),
    "jensen_shannon": outputs(losses.JensenShannon),
    "logit_mse": outputs(losses.LogitMSE),
    "confident": outputs(lambda: losses.Confident(threshold=0.3)),
    "teacher_bounded_regression": made(regression),
    "keras_loss": outputs(keras.losses.MeanSquaredError, alpha=0.5),
    "function": outputs(lambda: lambda t, s: keras.ops.mean(keras.ops.abs(t - s), axis=-1)),
    "hint": maps(losses.Hint, adapter="auto"),
    "channel_wise": maps(losses.ChannelWise, adapter="auto"),
    "mgd": maps(losses.MGD, adapter="auto"),
    "pkd": maps(losses.PKD, adapter="auto"),
    "cross_kd": made(across_heads),
    "cirkd": maps(losses.CIRKD),
    "variational_information": maps(losses.VariationalInformation, adapter="auto"),
    "similarity_preserving": maps(losses.SimilarityPreserving),
    "contrastive-all": contrastive(40),
    "contrastive-drawn": contrastive(7),
    "seed": maps(lambda: losses.SEED(40), "embedding", "embedding", adapter="auto"),
    "preset-attention_transfer": preset(
        "attention_transfer", both_convolutional, ["stage1", ("stage1", "stage2")]
    ),
    "preset-review": preset("review", both_convolutional, ["stage1", "stage2"]),
    "preset-relational": preset("relational", both_convolutional, ["embedding"]),
    "preset-minilm": preset("minilm", both_transformers, ["attention"], heads=2),
    "detection": made(detection),
    "schedules": made(scheduled),
    "sample_weight": made(weighted),
    "missing_label": made(partly_labeled),
    "ensemble": made(ensemble),
    "class_map": made(chosen_classes),
    "mutual": made(lambda: keras_distill.MutualDistiller([dense(0), dense(1)])),
}


def compute(cases=CASES):
    """What `fit` reports in the end, and of each weight its sum in float64 and a digest."""
    found = {}
    for name in cases:
        small.fresh_names()
        logs, variables = CASES[name]()
        arrays = [np.asarray(v) for v in variables]
        found[name] = {
            "logs": {key: float(value) for key, value in logs.items()},
            "sums": [float(np.sum(np.float64(array))) for array in arrays],
            "norms": [float(np.linalg.norm(np.float64(array))) for array in arrays],
            "sha256": small.sha(*arrays),
        }
    return found
