"""Trains one student with each method on Fashion-MNIST, against labels alone.

    python benchmarks/methods.py

Every method gets the same student, the same labeled images in the same order, the same number of
steps and, for each seed, the same first weights. Its settings are those that its paper gives. The
weights of losses on layers and between samples depend on the layers' sizes: for them, images held
out choose between the published weight and a tenth of it. The teacher has seen 20 times as many
images; two of the methods show the student these too, without their labels. One of these two is
carried on to a file for a microcontroller, with five seeds. The test set is looked at once for each
run, at its end.

Writes `benchmarks/results/methods.json`, and from it the table and picture in `docs/methods.md`.
A run that is stopped goes on where it was; what is done is in `--runs`.
"""

import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from common import DATA, RESULTS, ROOT, insert, machine, mnist, once, runs_of, write
from pictures import draw

import keras_distill
from keras_distill import Match, _markdown, losses, methods

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "data",
    DATA,
    "Folder that holds fashion_mnist/, the four original files. Where there is none, they are "
    "downloaded.",
)
flags.DEFINE_string("runs", str(ROOT / "runs" / "methods"), "Folder for the teacher and runs done.")
flags.DEFINE_integer("seeds", 3, "Number of runs for each method.")

SETTINGS = {
    "labeled_images": 1000,
    "epochs": 40,
    "batch_size": 64,
    "optimizer": "Adam, 0.01, cosine decay to 0",
    "teacher_images": 20_000,
    "teacher_epochs": 6,
}
EACH_STAGE = 4  # Of the epochs, those that each stage spends in the teacher's place first.
STAGES = ["stage1", "stage2", "stage3"]
STEPS = SETTINGS["epochs"] * -(-SETTINGS["labeled_images"] // SETTINGS["batch_size"])


# The methods. Each gives the weights of labels and losses as published; what counts is their ratio.


def soft_targets(student, teacher):
    """T = 4; 0.1 : 0.9"""
    return [Match(losses.SoftTargets(4.0), weight=9)]


def curriculum(student, teacher):
    """T = 4, sure ones first: threshold from 0.9 to 0 in half the steps; 0.1 : 0.9"""
    falling = keras.optimizers.schedules.PolynomialDecay(0.9, STEPS // 2, 0.0)
    return [Match(losses.Confident(losses.SoftTargets(4.0), falling), weight=9)]


def layer_wise(student, teacher):
    """T = 4; 0.1 : 0.9, after 4 of the 40 epochs for each of stages 1 to 3 in the teacher"""
    return soft_targets(student, teacher)


def soft_targets_standardized(student, teacher):
    """T = 2; 0.1 : 9"""
    return [Match(losses.SoftTargets(2.0, standardize=True), weight=90)]


def dkd(student, teacher):
    """α = 1, β = 8, T = 4; 1 : 1, warmed up"""
    return [Match(losses.DKD(1.0, 8.0, 4.0), weight=warm_up(1.0))]


def dist(student, teacher):
    """β = γ = 2, T = 4; 1 : 1"""
    return [Match(losses.DIST(2.0, 2.0, 4.0))]


def rld(student, teacher):
    """α = 1, β = 8, T = 4; 1 : 1, warmed up"""
    return [Match(losses.RLD(1.0, 8.0, 4.0), weight=warm_up(1.0))]


def mlkd(student, teacher):
    """T = 2 to 6; 1 : 1"""
    return [Match(losses.MLKD())]


def ctkd(student, teacher):
    """T = 1 to 21, λ from 0 to 1; 0.1 : 0.9"""
    return [Match(losses.CTKD(warm_up(1.0)), weight=9)]


def soft_targets_unlabeled(student, teacher):
    """as above, and the teacher's other images without their labels"""
    return soft_targets(student, teacher)


def dist_unlabeled(student, teacher):
    """as above, and the teacher's other images without their labels"""
    return dist(student, teacher)


def logit_mse(student, teacher):
    """0.1 : 0.9"""
    return [Match(losses.LogitMSE(), weight=9)]


def jensen_shannon(student, teacher):
    """β = 0.5, T = 4; 0.1 : 0.9"""
    return [Match(losses.JensenShannon(0.5, temperature=4.0), weight=9)]


def hint(student, teacher, scale):
    """stage2; 1 : 100"""
    return [Match(losses.Hint(), student="stage2", adapter="auto", weight=100 * scale)]


def attention_transfer(student, teacher, scale):
    """stages 1 to 3; 1 : 1000"""
    return methods.attention_transfer(student, teacher, STAGES, weight=1000 * scale)


def channel_wise(student, teacher, scale):
    """stage3, T = 4; 1 : 50"""
    return [Match(losses.ChannelWise(4.0), student="stage3", adapter="auto", weight=50 * scale)]


def variational_information(student, teacher, scale):
    """stages 1 to 3; 1 : 1"""
    loss = losses.VariationalInformation
    return [Match(loss(), student=stage, adapter="auto", weight=scale) for stage in STAGES]


def review(student, teacher, scale):
    """stages 1 to 3; 1 : 1, warmed up"""
    return methods.review(student, teacher, STAGES, weight=warm_up(scale))


def relational(student, teacher, scale):
    """embedding; 1 : 25 (distances) : 50 (angles)"""
    return methods.relational(student, teacher, ["embedding"], 25 * scale, 50 * scale)


def similarity_preserving(student, teacher, scale):
    """stage3; 1 : 3000"""
    return [Match(losses.SimilarityPreserving(), student="stage3", weight=3000 * scale)]


def contrastive(student, teacher, scale):
    """embedding, all other samples; 1 : 0.8"""
    loss = losses.Contrastive(samples=SETTINGS["labeled_images"])
    return [Match(loss, student="embedding", weight=0.8 * scale)]


def soft_targets_and_attention(student, teacher, scale):
    """as each alone, 0.1 : 0.9 : 1000"""
    return [
        *soft_targets(student, teacher),
        *methods.attention_transfer(student, teacher, STAGES, weight=10_000 * scale),
    ]


METHODS = {
    "labels alone": None,
    "`SoftTargets`": soft_targets,
    "`SoftTargets`, more images": soft_targets_unlabeled,
    "`SoftTargets`, standardized": soft_targets_standardized,
    "`SoftTargets` in `Confident`": curriculum,
    "`SoftTargets` after `layer_wise`": layer_wise,
    "`DKD`": dkd,
    "`RLD`": rld,
    "`MLKD`": mlkd,
    "`CTKD`": ctkd,
    "`DIST`": dist,
    "`DIST`, more images": dist_unlabeled,
    "`LogitMSE`": logit_mse,
    "`JensenShannon`": jensen_shannon,
    "`Hint`": hint,
    "`AttentionTransfer`": attention_transfer,
    "`ChannelWise`": channel_wise,
    "`VariationalInformation`": variational_information,
    "`Review`": review,
    "`RelationalDistance` + `RelationalAngle`": relational,
    "`SimilarityPreserving`": similarity_preserving,
    "`Contrastive`": contrastive,
    "`SoftTargets` + `AttentionTransfer`": soft_targets_and_attention,
}

#: Seeds whose student of `DIST` with more images becomes a file, beside one on labels alone.
FILES = 5

#: Methods that see all of the teacher's images.
UNLABELED = (soft_targets_unlabeled, dist_unlabeled)

#: Methods whose weight suits the sizes of the layers compared.
TUNED = (
    hint,
    attention_transfer,
    channel_wise,
    variational_information,
    review,
    relational,
    similarity_preserving,
    contrastive,
    soft_targets_and_attention,
)


def warm_up(weight):
    """From 0 to `weight` in a twelfth of the training, as 20 of 240 epochs in the papers."""
    return keras.optimizers.schedules.PolynomialDecay(0.0, STEPS // 12, weight)


# Models.


def network(widths, depth, name):
    """Stages of `depth` convolutions that halve the image, average pooling, a classifier."""
    inputs = keras.Input((28, 28, 1))
    x = inputs
    for stage, width in enumerate(widths, start=1):
        for i in range(depth):
            x = keras.layers.Conv2D(
                width, 3, strides=1 if i else 2, padding="same", use_bias=False
            )(x)
            x = keras.layers.BatchNormalization()(x)
            last = i == depth - 1
            x = keras.layers.ReLU(name=f"stage{stage}" if last else None)(x)
    x = keras.layers.GlobalAveragePooling2D(name="embedding")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(x), name=name)


def a_teacher():
    return network((24, 48, 96), 2, "teacher")


def a_student():
    return network((8, 16, 32), 1, "student")


class Answers(keras_distill.teachers.BaseTeacher):
    """What a teacher says of each training image, which nothing changes, computed once."""

    def __init__(self, model, images):
        names = [layer.name for layer in model.layers if layer.name.startswith("stage")]
        names += ["embedding", "logits"]
        outputs = [model.get_layer(name).output for name in names]
        values = keras.Model(model.input, outputs).predict(images, batch_size=500, verbose=0)
        self.answers = {
            name: tf.Variable(value, trainable=False)
            for name, value in zip(names, values, strict=True)
        }

    def answer(self, inputs, taps=()):
        outputs, *features = (
            tf.gather(self.answers[name], inputs.keys) for name in ("logits", *taps)
        )
        return outputs, features

    def answer_spec(self, inputs, taps=()):
        outputs, *features = (
            keras.KerasTensor((None, *self.answers[name].shape[1:])) for name in ("logits", *taps)
        )
        return outputs, features

    def tap_path(self, tap):
        return tap


def trained_teacher(train, folder):
    """The teacher, trained once and kept in `folder`."""
    path = folder / "teacher.keras"
    if path.exists():
        return keras.saving.load_model(path)
    keras.utils.set_random_seed(0)
    teacher = a_teacher()
    x, y = (part[: SETTINGS["teacher_images"]] for part in train)
    epochs = SETTINGS["teacher_epochs"]
    schedule = keras.optimizers.schedules.CosineDecay(0.003, epochs * -(-len(x) // 64))
    teacher.compile(keras.optimizers.Adam(schedule), cross_entropy(), metrics=["accuracy"])
    teacher.fit(x, y, batch_size=64, epochs=epochs, verbose=2)
    teacher.save(path)
    return teacher


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


# Runs.

#: The model that was traced last, by method and scale.
TRACED = {}


def compiled(method, scale, seed, teacher, answers, train):
    """The model to fit and the student in it, with the first weights of a seed."""
    keras.utils.set_random_seed(seed % 1000)
    model = student = a_student()
    if method is layer_wise:
        for mixed in methods.layer_wise(student, teacher, STAGES):
            start = keras_distill.Distiller(mixed, teacher, soft_targets(mixed, teacher), alpha=0.5)
            compile_for(start, EACH_STAGE)
            start.fit(examples(None, train, seed), epochs=EACH_STAGE, verbose=0)
    if method is not None:
        matches = method(student, teacher, *([scale] if method in TUNED else []))
        source, missing = (teacher, -1) if method in UNLABELED else (answers, None)
        model = keras_distill.Distiller(student, source, matches, alpha=0.5, missing_label=missing)
    compile_for(model, epochs_of(method))
    model.optimizer.build(model.trainable_variables)
    return model, student


def compile_for(model, epochs):
    """Compiles a model for so many epochs."""
    schedule = keras.optimizers.schedules.CosineDecay(0.01, epochs * STEPS // SETTINGS["epochs"])
    model.compile(keras.optimizers.Adam(schedule), cross_entropy(), steps_per_execution=16)


def epochs_of(method):
    """Epochs of the student as a whole."""
    return SETTINGS["epochs"] - (len(STAGES) * EACH_STAGE if method is layer_wise else 0)


def trained(method, scale, seed, teacher, answers, train):
    """The student of a method and a seed."""
    model, student = compiled(method, scale, seed, teacher, answers, train)
    if (method, scale) in TRACED:
        # Tracing takes longer than training: the seeds share it.
        fresh, (model, student) = model, TRACED[method, scale]
        for old, new in (
            (model.variables, fresh.variables),
            (model.optimizer.variables, fresh.optimizer.variables),
        ):
            for variable, value in zip(old, new, strict=True):
                variable.assign(value)
    TRACED.clear()
    TRACED[method, scale] = model, student
    model.fit(examples(method, train, seed), epochs=epochs_of(method), verbose=0)
    return student


def file_of(seed, teacher, answers, train, test):
    """What a seed gains that is taught on more images, and its int8 file in TFLite Micro."""
    on_labels = trained(None, 1.0, seed, teacher, answers, train)
    student = trained(dist_unlabeled, 1.0, seed, teacher, answers, train)
    artifact = keras_distill.tflite.convert(
        student, target="micro", quantization="int8", calibration=train[0][:500]
    )
    models = {"teacher": teacher, "student on labels": on_labels, "student distilled": student}
    run = {name: accuracy(model, test) for name, model in models.items()}
    right = artifact.predict(test[0]).argmax(-1) == test[1]
    return run | {"distilled, int8": float(right.mean()), "bytes": len(artifact.tflite)}


def examples(method, train, seed):
    """What a method trains on in an epoch, as many batches whatever it is."""
    x, y = (part[: SETTINGS["labeled_images"]] for part in train)
    batches = -(-len(x) // SETTINGS["batch_size"])
    if method in UNLABELED:
        x, _ = (part[: SETTINGS["teacher_images"]] for part in train)
        y = np.concatenate([y, np.full(len(x) - len(y), -1, y.dtype)])
    data = tf.data.Dataset.from_tensor_slices((x, y))
    if method is not None and method not in UNLABELED:
        data = keras_distill.teachers.keyed(data)
    return data.shuffle(len(x), seed=seed).batch(SETTINGS["batch_size"]).take(batches)


def accuracy(model, test):
    x, y = test
    return float((model.predict(x, batch_size=500, verbose=0).argmax(-1) == y).mean())


def run_all(folder):
    """All runs that aren't done yet; returns the results."""
    train, test = mnist("fashion_mnist", FLAGS.data)
    teacher = trained_teacher(train, folder)
    answers = Answers(teacher, train[0][: SETTINGS["labeled_images"]])
    validation = tuple(part[-5000:] for part in train)
    path = folder / "runs.json"

    def run(name, scale, seed, data):
        return once(
            path,
            f"{name}, {scale} of the weight, seed {seed}",
            lambda: accuracy(trained(METHODS[name], scale, seed, teacher, answers, train), data),
        )

    methods = {}
    for name, method in METHODS.items():
        scales = (0.1, 1.0) if method in TUNED else (1.0,)
        scale = max(scales, key=lambda s: run(name, s, -1, validation)) if scales[1:] else 1.0
        methods[name] = {
            "setting": method.__doc__ if method else "",
            "scale": scale,
            "accuracy": [run(name, scale, seed, test) for seed in range(FLAGS.seeds)],
        }
    return {
        "settings": SETTINGS,
        "machine": machine(),
        "teacher": {"parameters": teacher.count_params(), "accuracy": accuracy(teacher, test)},
        "student": {"parameters": a_student().count_params()},
        "methods": methods,
        "files": [
            once(
                path,
                f"file, seed {seed}",
                lambda seed=seed: file_of(seed, teacher, answers, train, test),
            )
            for seed in range(FILES)
        ],
    }


# What is reported.


def rows(results):
    """Name, setting, mean and standard deviation, and seeds in which labels alone were beaten."""
    base = np.array(results["methods"]["labels alone"]["accuracy"])
    for name, method in results["methods"].items():
        accuracies = np.array(method["accuracy"])
        wins = None if name == "labels alone" else int((accuracies > base).sum())
        setting = method["setting"]
        if method["scale"] != 1:
            setting += f", × {method['scale']}"
        yield name, setting, accuracies.mean(), accuracies.std(ddof=1), wins


def table(results):
    """The results as Markdown."""
    settings, seeds = results["settings"], len(results["methods"]["labels alone"]["accuracy"])
    base = np.mean(results["methods"]["labels alone"]["accuracy"])
    teacher, student = results["teacher"], results["student"]
    lines = [
        f"Fashion-MNIST: {settings['labeled_images']:,} labeled images, {settings['epochs']} "
        f"epochs, batches of {settings['batch_size']}, {settings['optimizer']}. The teacher has "
        f"{teacher['parameters']:,} parameters, saw {settings['teacher_images']:,} images and "
        f"reaches {teacher['accuracy']:.2%}; the student has {student['parameters']:,}. Test "
        f"accuracy, mean ± standard deviation of {seeds} seeds. Settings as published (weight of "
        "the labels : of the loss); for losses on layers and between samples the weight or, where "
        "it did better on 5,000 other images with another seed, a tenth of it (× 0.1).",
        "",
    ]
    cells = []
    for name, setting, mean, deviation, wins in rows(results):
        gain, share, verdict = "", "", ""
        if wins is not None:
            gain = f"{100 * (mean - base):+.2f}"
            share = f"{(mean - base) / (teacher['accuracy'] - base):.0%}"
            verdict = "yes" if wins == seeds else f"**no** ({wins} of {seeds} seeds)"
        accuracy = f"{100 * mean:.2f} ± {100 * deviation:.2f}"
        cells.append((name, setting, accuracy, gain, share, verdict))
    header = ["method", "setting", "accuracy", "gain", "of the gap", "beats labels alone"]
    lines += [
        _markdown.table(header, cells),
        "",
        "The gap is the teacher's accuracy less that of the student on labels alone. A method "
        "beats labels alone where it does so with every seed, against the same first weights and, "
        "where the images are the same, their order. All take the same number of steps; with more "
        f"images, the {settings['teacher_images'] - settings['labeled_images']:,} others that the "
        "teacher saw come without their labels.",
        "",
        "```bash",
        "make bench-methods",
        "```",
    ]
    return "\n".join(lines)


def publish(results):
    """Writes the picture and the table made of the results."""
    draw("methods", results)
    insert(table(results), "docs/methods.md", "methods")
    print(table(results))


def main(_):
    # These networks are too small to gain from more threads.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    results = run_all(runs_of(FLAGS.runs, SETTINGS))
    RESULTS.mkdir(exist_ok=True)
    write(RESULTS / "methods.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    publish(results)


if __name__ == "__main__":
    app.run(main)
