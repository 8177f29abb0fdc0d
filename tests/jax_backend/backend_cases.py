"""What must be the same on each backend of Keras: functions without arguments, by name.

    python tests/jax_backend/backend_cases.py FOLDER NAME...

writes what some give on TensorFlow to `FOLDER/values.npz`, and the files of teachers beside it.
"""

import contextlib
import importlib.util
import os
import pathlib
import sys
import tempfile
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "losses"))

import keras
import numpy as np
import tensorflow as tf
from backend_models import built, convolutional, data, flat, given_weights, network, trained
from keras import layers
from loss_cases import CASES as LOSSES
from loss_cases import pulled_back, value_and_gradient

import keras_distill
from keras_distill import losses
from keras_distill.quantization.ranges import fake_quantize


def of_loss(case):
    def run():
        teacher, student, labels = case.arrays()
        value, gradient = value_and_gradient(case.loss(), teacher, labels, student)
        return {"value": value, **flat("gradient", gradient)}

    return run


def soft_targets():
    x, y, _ = data()
    distiller = keras_distill.Distiller(network(4, 1), network(9, 2))
    return trained(distiller, x, y, validation_data=(x, y))


def ends_in_softmax():
    x, y, weights = data()
    models = network(4, 1, "softmax"), network(9, 2, "softmax")
    return trained(keras_distill.Distiller(*models), x, y, weights, from_logits=False)


def ends_in_sigmoid():
    x, _, _ = data()
    models = network(4, 1, "sigmoid"), network(9, 2, "sigmoid")
    loss = losses.SoftTargets(2.0, activation="sigmoid")
    return trained(keras_distill.Distiller(*models, loss, alpha=0), x)


def matches():
    x, y, _ = data((8, 8, 1))
    mse = keras.losses.MeanSquaredError()
    matches = [
        losses.SoftTargets(2.0),
        keras_distill.Match(losses.AttentionTransfer(), student="maps", teacher="maps"),
        keras_distill.Match(
            mse,
            student="maps",
            teacher="maps",
            adapter=given_weights(built(layers.Conv2D(6, 1), (None, 6, 6, 3)), 9),
        ),
    ]
    models = convolutional(3, 1), convolutional(6, 2)
    return trained(keras_distill.Distiller(*models, matches, alpha=0.3), x, y)


def ensemble():
    x, y, _ = data()
    teachers = keras_distill.teachers.Ensemble(
        [network(9, 2, name="wide"), network(7, 5, name="narrow")]
    )
    return trained(keras_distill.Distiller(network(4, 1), teachers), x, y)


def learned_ensemble():
    x, _, _ = data()
    members = [network(9, 2, name="wide"), network(7, 5, name="narrow")]
    teachers = keras_distill.teachers.Ensemble(members, weights="learned")
    return trained(keras_distill.Distiller(network(4, 1), teachers, alpha=0), x)


def schedules():
    x, y, _ = data()
    decay = keras.optimizers.schedules.ExponentialDecay
    loss = losses.SoftTargets(temperature=decay(8.0, 2, 0.5))
    distiller = keras_distill.Distiller(network(4, 1), network(9, 2), loss, decay(0.5, 1, 0.9))
    callback = keras_distill.callbacks.Schedule("soft_targets/weight", lambda epoch: 1 + epoch)
    return trained(distiller, x, y, callbacks=[callback])


def missing_labels():
    x, y, _ = data()
    distiller = keras_distill.Distiller(network(4, 1), network(9, 2), missing_label=-1)
    return trained(distiller, x, np.where(np.arange(len(y)) % 3 == 0, y, -1))


def validated_with_the_teacher():
    x, y, _ = data()
    distiller = keras_distill.Distiller(network(4, 1), network(9, 2), validate_with_teacher=True)
    return trained(distiller, x, y, validation_data=(x, y))


def mutual():
    x, y, _ = data()
    students = [network(4, 1, name="a"), network(5, 2, name="b"), network(6, 3, name="c")]
    return trained(keras_distill.MutualDistiller(students), x, y)


def masked_steps():
    """Sequences with padding: the mask of an embedding reaches losses and weights."""

    def model(width, seed):
        inputs = keras.Input((6,), dtype="int32")
        x = layers.Embedding(10, width, mask_zero=True)(inputs)
        return given_weights(keras.Model(inputs, layers.Dense(3)(x)), seed)

    rng = np.random.default_rng(0)
    ids = rng.integers(1, 10, (80, 6))
    ids[:, 4:] = 0
    labels = rng.integers(0, 3, (80, 6))
    # With TensorFlow, Keras' Adam leaves rows of an embedding alone that a batch doesn't read.
    sgd = keras.optimizers.SGD(0.1)
    distiller = keras_distill.Distiller(model(4, 1), model(8, 2))
    return trained(distiller, ids, labels, optimizer=sgd)


def rounding():
    """What `fake_quantize` makes of tensors, with their gradients, by one scale or by channels."""
    rng = np.random.default_rng(0)
    x = (3 * rng.standard_normal((6, 50, 4))).astype("float32")
    # Halves, which round to even.
    x[0] = np.arange(200).reshape(50, 4) / 64
    upstream = rng.standard_normal(x.shape).astype("float32")
    found = {}
    for name, scale in ("one", np.float32(1 / 32)), ("channels", np.float32([0.1, 0.02, 0.3, 1])):
        values, gradient = pulled_back(
            lambda x, scale=scale: fake_quantize(x, scale, np.float32(3), -128, 127), x, upstream
        )
        found |= {f"{name} values": values, f"{name} gradient": gradient}
    return found


def quantize_aware():
    """An untrained model: what its layers compute and round."""
    x, _, _ = data((8, 8, 1))
    student = keras_distill.quantization.quantize_aware(convolutional(3, 1), calibration=x)
    return {**flat("weight", student.get_weights()), "outputs": student.predict(x, verbose=0)}


def trained_quantize_aware():
    x, y, _ = data((8, 8, 1))
    student = keras_distill.quantization.quantize_aware(convolutional(3, 1), calibration=x)
    results = trained(keras_distill.Distiller(student, convolutional(6, 2)), x, y)
    return {name: x for name, x in results.items() if "loss" in name or "targets" in name}


def trained_quantize_aware_sigmoid():
    x, _, _ = data((8, 8, 1))

    def model(width, seed):
        inputs = keras.Input((8, 8, 1))
        y = layers.GlobalAveragePooling2D()(layers.Conv2D(width, 3, activation="relu")(inputs))
        outputs = layers.Dense(3, activation="sigmoid")(y)
        return given_weights(keras.Model(inputs, outputs), seed)

    student = keras_distill.quantization.quantize_aware(model(3, 1), calibration=x)
    results = trained(keras_distill.Distiller(student, model(6, 2), alpha=0), x)
    return {name: x for name, x in results.items() if "loss" in name or "targets" in name}


class Batches(keras.utils.PyDataset):
    """Batches of 16 rows of arrays."""

    def __init__(self, arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return len(keras.tree.flatten(self.arrays)[0]) // 16

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        return keras.tree.map_structure(lambda array: array[rows], self.arrays)


def answers_in_memory():
    """Arrays as a teacher, by a `PyDataset`."""
    x, y, _ = data()
    teacher = keras_distill.teachers.Arrays(network(9, 2).predict(x, verbose=0))
    distiller = keras_distill.Distiller(network(4, 1), teacher)
    return trained(distiller, Batches((teacher.attach(x), y)))


def stored_answers():
    """Written, read by `tf.data`, and learned from."""
    x, y, _ = data()
    with tempfile.TemporaryDirectory() as folder:
        stored = keras_distill.teachers.store(
            network(9, 2, "softmax"),
            tf.data.Dataset.from_tensor_slices((x, y)),
            folder,
            features=["hidden"],
            top_k=2,
            dtype="float32",
            verbose=0,
        )
        examples = stored.attach(tf.data.Dataset.from_tensor_slices((x, y)))
        batch = next(iter(examples.batch(80)))[0]
        read = {name: field.numpy() for name, field in next(iter(batch.answers.values())).items()}
        tap = keras_distill.Match(losses.RelationalDistance(), student="hidden", teacher="hidden")
        distiller = keras_distill.Distiller(network(4, 1), stored, [losses.SoftTargets(), tap])
        return {**trained(distiller, examples.batch(16)), **read}


@contextlib.contextmanager
def stored(x):
    with tempfile.TemporaryDirectory() as folder:
        yield keras_distill.teachers.store(network(9, 2), x, folder, verbose=0)


class StoredBatches(keras.utils.PyDataset):
    """Batches whose answers are looked up as they are made."""

    def __init__(self, teacher, x, y):
        super().__init__()
        self.teacher, self.x, self.y = teacher, x, y

    def __len__(self):
        return 5

    def __getitem__(self, index):
        keys = np.arange(16 * index, 16 * index + 16)
        return self.teacher.answered(self.x[keys], keys), self.y[keys]


def stored_answers_of_pydataset():
    x, y, _ = data()
    with stored(x) as teacher:
        distiller = keras_distill.Distiller(network(4, 1), teacher)
        return trained(distiller, StoredBatches(teacher, x, y))


def stored_answers_of_grain():
    import grain

    x, y, _ = data()
    with stored(x) as teacher:
        batches = grain.MapDataset.range(len(x)).batch(16)
        batches = batches.map(lambda keys: (teacher.answered(x[keys], keys), y[keys]))
        return trained(keras_distill.Distiller(network(4, 1), teacher), batches)


def of_arrays():
    """A function of arrays as a teacher."""
    x, y, _ = data()
    weights = np.random.default_rng(1).standard_normal((8, 3)).astype("float32")
    spec = tf.TensorSpec((None, 3))
    teacher = keras_distill.teachers.Function(lambda x: np.tanh(x @ weights), spec)
    return trained(keras_distill.Distiller(network(4, 1), teacher), x, y)


def of_tensors():
    """A `tf.function` as a teacher."""
    x, y, _ = data()
    weights = tf.Variable(np.random.default_rng(1).standard_normal((8, 3)).astype("float32"))
    teacher = tf.function(lambda x: tf.tanh(x @ weights))
    return trained(keras_distill.Distiller(network(4, 1), teacher), x, y)


def saved_model():
    x, y, _ = data()
    return trained(keras_distill.Distiller(network(4, 1), folder_of_teachers() / "saved"), x, y)


def tflite_file():
    x, y, _ = data()
    path = folder_of_teachers() / "teacher.tflite"
    return trained(keras_distill.Distiller(network(4, 1), path), x, y)


def pruned():
    """A student pruned by what its units mean to the loss with a teacher."""
    x, y, _ = data()
    distiller = keras_distill.Distiller(network(6, 1), network(9, 2), alpha=0.3)
    distiller.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = [(x[:40], y[:40]), (x[40:], y[40:])]
    smaller = keras_distill.pruning.prune(distiller, batches, macs=0.5)
    return {**flat("weight", smaller.get_weights()), "outputs": smaller.predict(x, verbose=0)}


def multiply_accumulates():
    """Of layers of all kinds that multiply."""
    image, steps = keras.Input((12, 12, 4)), keras.Input((6, 8))
    x = layers.Conv2D(6, 3, strides=2, padding="same")(image)
    x = layers.DepthwiseConv2D(3, dilation_rate=2)(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(x)
    x = layers.Dense(5)(layers.Flatten()(x))
    y = layers.MultiHeadAttention(2, 4)(steps, steps)
    y = layers.LSTM(3)(layers.Conv1D(8, 3, groups=2)(y))
    model = keras.Model([image, steps], layers.Concatenate()([x, y]))
    return {"count": np.array(keras_distill.evaluation.multiply_accumulates(model))}


def compared():
    """What `compare` finds of two models."""
    x, y, _ = data()
    candidates = {"teacher": network(9, 2), "student": network(4, 1)}
    found = keras_distill.evaluation.compare(
        candidates, (x, y), baseline="student", from_logits=True, resamples=10
    )
    return {
        f"{row['name']} {key}": np.array(value)
        for row in found.rows
        for key, value in row.items()
        if isinstance(value, (int, float))
    }


def tuned():
    """The best trial of a search."""
    x, y, _ = data()

    def build(temperature, alpha):
        loss = losses.SoftTargets(temperature)
        distiller = keras_distill.Distiller(network(4, 1), network(9, 2), loss, alpha)
        cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile(keras.optimizers.SGD(0.01), cross_entropy, metrics=["accuracy"])
        return distiller

    search = keras_distill.tuning.tune(
        build,
        (x, y),
        (x, y),
        space={"temperature": (1.0, 8.0, "log"), "alpha": (0.0, 1.0)},
        trials=2,
        epochs=1,
        monitor="val_loss",
        shuffle=False,
    )
    return {name: np.array(value) for name, value in search.best.items()}


def writing():
    tokens = keras.Input((None,), dtype="int32")
    x = layers.SimpleRNN(6, return_sequences=True)(layers.Embedding(7, 6)(tokens))
    model = given_weights(keras.Model(tokens, layers.Dense(7)(x)), 4)
    return model, np.array([[3, 4, 0], [5, 0, 0], [6, 3, 5]], "int32"), {"length": 6, "end": 2}


def generated():
    model, prompts, options = writing()
    return {
        f"{kind}": keras_distill.language.generate(model, prompts, **options, **more)
        for kind, more in {
            "greedy": {},
            "beams": {"beams": 3},
            "drawn": {"temperature": 1.0, "seed": 1},
        }.items()
    }


def written_targets():
    model, prompts, options = writing()
    with tempfile.TemporaryDirectory() as folder:
        targets = keras_distill.language.write_targets(
            model, prompts, folder, beams=3, verbose=0, **options
        )
    return {"targets": targets}


FOLDER = "KERAS_DISTILL_BACKEND_CASES"


def folder_of_teachers():
    return pathlib.Path(os.environ[FOLDER])


def write_teachers():
    """A SavedModel and a TFLite file, which Keras writes on TensorFlow alone."""
    teacher, folder = network(9, 2), folder_of_teachers()
    teacher.export(folder / "saved", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    (folder / "teacher.tflite").write_bytes(converter.convert())


#: Tolerance, where it is another: relative and absolute. Rounding is bit for bit the same; sums of
#: a convolution are not, after which single values are rounded to a neighbor.
TOLERANCES = {
    "rounding": (0, 0),
    "trained_quantize_aware": (0.02, 0),
    "trained_quantize_aware_sigmoid": (0.02, 0),
}


def check(name, expected):
    """Checks that a case gives what it gave on the other backend."""
    got = CASES[name]()
    assert got.keys() == expected.keys()
    rtol, atol = TOLERANCES.get(name, (1e-4, 1e-5))
    for key, values in expected.items():
        np.testing.assert_allclose(got[key], values, rtol=rtol, atol=atol, err_msg=key)


_TRAININGS = [
    soft_targets,
    ends_in_softmax,
    ends_in_sigmoid,
    matches,
    ensemble,
    learned_ensemble,
    schedules,
    missing_labels,
    validated_with_the_teacher,
    mutual,
    masked_steps,
    answers_in_memory,
    stored_answers,
    stored_answers_of_pydataset,
    *([stored_answers_of_grain] if importlib.util.find_spec("grain") else []),
    of_arrays,
    of_tensors,
    saved_model,
    tflite_file,
    trained_quantize_aware,
    trained_quantize_aware_sigmoid,
]
_OTHERS = [
    rounding,
    quantize_aware,
    pruned,
    multiply_accumulates,
    compared,
    tuned,
    generated,
    written_targets,
]
#: Each ten steps of training.
TRAININGS = {function.__name__: function for function in _TRAININGS}
CASES = {
    **{f"loss {case.name}": of_loss(case) for case in LOSSES},
    **{function.__name__: function for function in _OTHERS},
    **TRAININGS,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _, os.environ[FOLDER], *names = sys.argv
    # It takes longer than the models do.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    write_teachers()
    found = {f"{name}|{key}": x for name in names for key, x in CASES[name]().items()}
    np.savez(folder_of_teachers() / "values.npz", **found)
