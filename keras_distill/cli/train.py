"""`keras-distill train`: a student on labels and on what a teacher says.

  keras-distill train --data=fashion_mnist --teacher=teacher.keras --student=nets:small
  keras-distill train --data=photos/ --image_size=96,96 --teacher=EfficientNetB0 \\
      --weights=imagenet --student=MobileNetV2 --augment=crop,flip --epochs=30
  keras-distill train --resume=runs/train-20260101-120000

A teacher that isn't a .keras file is trained first. Teacher and student are named by the path of a
.keras file, a model of keras.applications, or MODULE:FUNCTION: the function is called with the
shape of an input and the number of outputs, and returns a model that answers with logits.

The run's folder holds settings.flags (to be used again with --flagfile), log.txt, student.keras
(and teacher.keras if it was trained), the history of each training as .csv, TensorBoard events
where TensorBoard is installed, and comparison.json: all models on the test data. After Ctrl-C,
--resume goes on from the end of the last whole epoch.
"""

from typing import Any

import keras
import tensorflow as tf
from absl import flags as absl_flags
from absl import logging
from keras import layers

from keras_distill import data, evaluation, teachers
from keras_distill import losses as losses_module
from keras_distill.cli import datasets, models, runs
from keras_distill.distiller import Distiller
from keras_distill.match import Match

AUGMENTATIONS = ("crop", "flip", "randaugment")


def define(flags):
    """Declares the command's flags."""
    datasets.define(flags)
    runs.define(flags)
    to = {"flag_values": flags}
    absl_flags.DEFINE_string("teacher", None, "The teacher, see above.", **to)
    absl_flags.DEFINE_string("student", None, "The student, see above.", **to)
    absl_flags.DEFINE_string(
        "weights",
        None,
        "Weights of a teacher of keras.applications: imagenet, or a file. Default: random.",
        **to,
    )
    absl_flags.DEFINE_string(
        "loss",
        None,
        "A loss of keras_distill.losses between the outputs. Default: SoftTargets for classes, "
        "the mean squared error for values.",
        **to,
    )
    absl_flags.DEFINE_float("temperature", None, "Temperature of the loss, if it has one.", **to)
    absl_flags.DEFINE_multi_string(
        "match",
        [],
        "LOSS,STUDENT_LAYER,TEACHER_LAYER[,WEIGHT]: a loss between layers, an adapter fitted in "
        "between. May be repeated.",
        **to,
    )
    absl_flags.DEFINE_float("alpha", 0.1, "Weight of the labels, from 0 to 1.", **to)
    absl_flags.DEFINE_integer("epochs", 20, "Epochs of the student.", lower_bound=1, **to)
    absl_flags.DEFINE_integer(
        "teacher_epochs", None, "Epochs of a teacher to be trained. Default: --epochs.", **to
    )
    absl_flags.DEFINE_integer("batch_size", 128, "Examples in a batch.", lower_bound=1, **to)
    absl_flags.DEFINE_float("learning_rate", 1e-3, "Highest learning rate of Adam.", **to)
    absl_flags.DEFINE_list(
        "augment", [], f"Random changes of images, of {', '.join(AUGMENTATIONS)}.", **to
    )
    absl_flags.DEFINE_enum("mix", None, ["mixup", "cutmix"], "Mix images of a batch.", **to)
    absl_flags.DEFINE_string(
        "answers",
        None,
        "Folder of the teacher's stored answers; written where it is missing. Training then costs "
        "what the student alone costs.",
        **to,
    )
    define_answers(flags)
    absl_flags.DEFINE_bool("cache", False, "Keep the examples in memory.", **to)
    absl_flags.DEFINE_bool(
        "baseline", False, "Also train the student on labels alone, to compare with.", **to
    )


def define_answers(flags):
    """Declares the flags of stored answers."""
    to = {"flag_values": flags}
    absl_flags.DEFINE_integer("views", 1, "Augmented views stored of each example.", **to)
    absl_flags.DEFINE_integer("top_k", None, "How many logits to store. Default: all.", **to)


def main(flags, arguments, console):
    """Trains, compares on the test data, and returns the comparison."""
    run = runs.choose(flags, "train", arguments)
    plan = Plan(flags)
    with runs.recorded(run, flags, "train"):
        candidates = {"teacher": plan.teacher(run)}
        if flags.baseline:
            candidates["student on labels"] = plan.student_on_labels(run)
        candidates["student distilled"] = plan.student(run, candidates["teacher"])
        comparison = evaluation.compare(
            candidates, plan.test, class_names=plan.class_names, batch_size=flags.batch_size
        )
        run.write("comparison.json", comparison.to_dict())
    console.print(comparison)
    console.print(f"The run is in {run.folder}")
    return {"folder": str(run.folder), **comparison.to_dict()}


class Plan:
    """The data, models and losses that the flags name.

    Attributes:
        class_names: Names of the classes, or `None` for values.
        test: Batches to compare on.
    """

    def __init__(self, flags):
        for name in ("teacher", "student"):
            if flags[name].value is None:
                raise ValueError(f"say which {name}: --{name}=FILE.keras, MODULE:FUNCTION or NAME.")
        self.flags = flags
        loaded = datasets.load(flags)
        self.spec, target = loaded.train.element_spec
        self.class_names = loaded.class_names
        self.classes = None if loaded.class_names is None else len(loaded.class_names)
        self.outputs = self.classes or (target.shape[-1] if target.shape.rank else 1)
        self.examples = loaded.train.cache() if flags.cache else loaded.train
        self.steps = -(-len(loaded.train) // flags.batch_size)
        self.validation = loaded.validation.batch(flags.batch_size)
        self.test = loaded.test.batch(flags.batch_size)
        self.augment = augmentation(flags.augment, self.spec.shape)
        self.mix = flags.mix and {"mixup": layers.MixUp, "cutmix": layers.CutMix}[flags.mix]()
        if self.mix is not None and self.classes is None:
            raise ValueError("--mix is for classes; these data have values.")
        if self.mix is not None and flags.answers is not None:
            raise ValueError("--answers are of single images: they don't go with --mix.")
        # What is wrong with the models and losses is said before anything is trained.
        self.distiller(self._model("teacher"), flags.temperature, flags.alpha)
        logging.info(
            "%s: %d examples to train on, %d to validate, %d to test, of shape %s",
            flags.data,
            len(loaded.train),
            len(loaded.validation),
            len(loaded.test),
            self.spec.shape,
        )

    def teacher(self, run):
        """The teacher: read, or trained on the labels."""
        flags = self.flags
        if flags.teacher.endswith(".keras"):
            return self._model("teacher")
        epochs = flags.teacher_epochs or flags.epochs
        return self._fit(run, "teacher", lambda: self._model("teacher"), epochs)

    def student_on_labels(self, run):
        """The student trained on the labels alone."""
        return self._fit(run, "baseline", lambda: self._model("student"), self.flags.epochs)

    def student(self, run, teacher):
        """The student distilled."""
        flags = self.flags
        teacher, batches = self.taught(teacher)

        def distiller():
            return self.distiller(teacher, flags.temperature, flags.alpha)

        return self._fit(run, "student", distiller, flags.epochs, batches)

    def taught(self, teacher):
        """The teacher, and a function from an epoch to its batches: live, or stored answers."""
        flags = self.flags
        if flags.answers is None:
            return teacher, self.batches
        augment = None if self.augment is None else data.Augmentation(self.augment)
        stored = teachers.store(
            teacher, self.examples, flags.answers, **store_settings(flags, augment), verbose=0
        )

        def batches(epoch):
            examples = stored.attach(self.examples, seed=self._seed(epoch))
            return self._batches(examples, None, epoch)

        return stored, batches

    def distiller(self, teacher, temperature, alpha):
        """The student, with the weights that it starts from, and its teacher."""
        losses = _losses(self.flags, self.classes, temperature)
        return Distiller(self._model("student"), teacher, losses, alpha)

    def compiled(self, model, epochs, learning_rate):
        """The model with optimizer, loss and metrics."""
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * self.steps)
        model.compile(
            keras.optimizers.Adam(schedule),
            self._label_loss(),
            metrics=[] if self.classes is None else ["accuracy"],
        )
        return model

    def batches(self, epoch):
        """The batches of an epoch, whose number may be a tensor."""
        return self._batches(self.examples, self.augment, epoch)

    def _batches(self, examples, augment, epoch):
        return data.batches(
            examples,
            self.flags.batch_size,
            augment=augment,
            mix=self.mix,
            classes=self.classes,
            seed=self._seed(epoch),
        )

    def _seed(self, epoch):
        return 1_000_003 * self.flags.seed + epoch

    def validation_batches(self):
        """Batches to validate on, labels in the form that the loss takes."""
        if self.mix is None:
            return self.validation
        return self.validation.map(lambda x, y: (x, tf.one_hot(y, self.classes)))

    def _model(self, role):
        # Not 0: with a global seed of 0, TensorFlow can't shuffle by a seed that is a tensor.
        keras.utils.set_random_seed(1 + self.flags.seed)
        weights = self.flags.weights if role == "teacher" else None
        return models.build(self.flags[role].value, self.spec, self.outputs, weights)

    def _fit(self, run, name, build, epochs, batches=None):
        return run.train(
            name,
            lambda: self.compiled(build(), epochs, self.flags.learning_rate),
            epochs,
            batches or self.batches,
            self.steps,
            self.validation_batches(),
        )

    def _label_loss(self):
        if self.classes is None:
            return keras.losses.MeanSquaredError()
        if self.mix is not None:
            return keras.losses.CategoricalCrossentropy(from_logits=True)
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def store_settings(flags: Any, augment: Any) -> dict:
    """What must be the same whenever stored answers are opened."""
    return {
        "views": flags.views,
        "augment": augment,
        "seed": flags.seed,
        "top_k": flags.top_k,
        # Whole answers are the same at any temperature.
        "temperature": (flags.temperature or 1.0) if flags.top_k else 1.0,
        "batch_size": flags.batch_size,
    }


def default_temperature(flags, classes):
    """The temperature of the loss between the outputs unless a flag says so; `None` without one."""
    name = _loss_name(flags, classes)
    settings = {} if name is None else _loss("--loss", name).get_config()
    return settings.get("temperature")


def _loss_name(flags, classes):
    return flags.loss or ("SoftTargets" if classes else None)


def _losses(flags, classes, temperature):
    """The losses between teacher and student."""
    name = _loss_name(flags, classes)
    settings = {} if temperature is None else {"temperature": temperature}
    between_outputs = (
        keras.losses.MeanSquaredError(name="teacher_error")
        if name is None
        else _loss("--loss", name, **settings)
    )
    return [between_outputs, *map(_match, flags.match)]


def _loss(flag, name, **settings):
    names = [n for n in losses_module.__all__ if n[0].isupper() and n != "DistillationLoss"]
    if name not in names:
        raise ValueError(f"{flag}: there is no loss {name!r}, only {', '.join(names)}.")
    cls = getattr(losses_module, name)
    try:
        return cls(**settings)
    except TypeError as error:
        raise ValueError(f"{flag}={name}: {error}") from error


def _match(text):
    loss, *rest = text.split(",")
    try:
        student, teacher, weight = (*rest, "1") if len(rest) == 2 else rest
        weight = float(weight)
    except ValueError:
        raise ValueError(
            f"--match must be LOSS,STUDENT_LAYER,TEACHER_LAYER[,WEIGHT], not {text!r}."
        ) from None
    return Match(
        _loss("--match", loss),
        student=student,
        teacher=teacher,
        adapter="auto",
        weight=weight,
    )


def augmentation(names, shape):
    """The layers that draw views of images."""
    unknown = set(names) - set(AUGMENTATIONS)
    if unknown:
        raise ValueError(
            f"--augment must be of {', '.join(AUGMENTATIONS)}, not {sorted(unknown)[0]!r}."
        )
    if not names:
        return None
    if len(shape) != 3:
        raise ValueError(f"--augment is for images; these data have shape {shape}.")
    height, width = shape[:2]
    chain = []
    if "crop" in names:
        border = -(-height // 8), -(-width // 8)
        chain += [layers.ZeroPadding2D(border), layers.RandomCrop(height, width)]
    if "flip" in names:
        chain.append(layers.RandomFlip("horizontal"))
    if "randaugment" in names:
        chain.append(layers.RandAugment(value_range=(0, 255)))
    return chain
