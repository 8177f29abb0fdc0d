"""The data, models and losses of a training, as the flags name them."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from absl import flags as absl_flags
from absl import logging
from keras import layers

from keras_distill import advice, data, teachers
from keras_distill.cli import datasets, image_views, models, named_losses, runs
from keras_distill.distiller import Distiller

#: A function from the number of an epoch, which may be a tensor, to its batches.
Batches = Callable[[Any], tf.data.Dataset]


class Plan:
    """The data, models and losses that the flags name.

    Attributes:
        class_names: Names of the classes, or `None` for values.
        classes: Number of classes, or `None` for values or several labels at once.
        task: `"classification"`, `"multilabel"` or `"regression"`.
        test: Batches to compare on.

    Args:
        flags: The flags of `train`.

    Raises:
        ValueError: If a model, a loss or the data don't exist or don't fit together.
    """

    def __init__(self, flags: absl_flags.FlagValues):
        for name in ("teacher", "student"):
            if flags[name].value is None:
                raise ValueError(f"say which {name}: --{name}=FILE.keras, MODULE:FUNCTION or NAME.")
        self.flags = flags
        loaded = datasets.load(flags)
        self.spec, target = loaded.train.element_spec
        self.class_names = loaded.class_names
        self.classes = None if loaded.class_names is None else len(loaded.class_names)
        of_numbers = "multilabel" if loaded.several_labels else "regression"
        self.task = "classification" if self.classes else of_numbers
        self.outputs = self.classes or (target.shape[-1] if target.shape.rank else 1)
        self.examples = loaded.train.cache() if flags.cache else loaded.train
        self.steps = -(-len(loaded.train) // flags.batch_size)
        self.validation = loaded.validation.batch(flags.batch_size)
        self.test = loaded.test.batch(flags.batch_size)
        self.augment = image_views.augmentation(flags.augment, self.spec.shape)
        self.mix = self._mixing()
        # What is wrong with the models and losses is said before anything is trained.
        teacher = self._teacher_model()
        student = self.distiller(teacher, flags.temperature, flags.alpha).student
        advice.warn_of_bytes(student, self.spec, "student")
        if not models.is_file(flags.teacher):
            advice.warn_of_bytes(teacher, self.spec, "teacher")
        logging.info(
            "%s: %d examples to train on, %d to validate, %d to test, of shape %s",
            flags.data,
            len(loaded.train),
            len(loaded.validation),
            len(loaded.test),
            self.spec.shape,
        )

    def _mixing(self) -> keras.layers.Layer | None:
        if self.flags.mix is None:
            return None
        if self.classes is None:
            raise ValueError("--mix is for classes, one for each example; these data have none.")
        if self.flags.answers is not None:
            raise ValueError("--answers are of single images: they don't go with --mix.")
        return {"mixup": layers.MixUp, "cutmix": layers.CutMix}[self.flags.mix]()

    def teacher(self, run: runs.Run) -> keras.Model | teachers.BaseTeacher:
        """The teacher: read, or trained on the labels."""
        flags = self.flags
        if models.is_file(flags.teacher):
            return self._teacher_model()
        epochs = flags.teacher_epochs or flags.epochs
        return self._fit(run, "teacher", self._teacher_model, epochs)

    def student_on_labels(self, run: runs.Run) -> keras.Model:
        """The student trained on the labels alone."""
        return self._fit(run, "baseline", self._student_model, self.flags.epochs)

    def student(self, run: runs.Run, teacher: Any) -> keras.Model:
        """The student distilled."""
        flags = self.flags
        teacher, batches = self.taught(teacher)

        def distiller() -> Distiller:
            return self.distiller(teacher, flags.temperature, flags.alpha)

        return self._fit(run, "student", distiller, flags.epochs, batches)

    def taught(self, teacher: Any) -> tuple[Any, Batches]:
        """The teacher, and a function from an epoch to its batches: live, or stored outputs."""
        flags = self.flags
        if flags.answers is None:
            return teacher, self.batches
        augment = None if self.augment is None else data.Augmentation(self.augment)
        stored = teachers.store(
            teacher, self.examples, flags.answers, **store_settings(flags, augment), verbose=0
        )

        def batches(epoch: Any) -> tf.data.Dataset:
            examples = stored.attach(self.examples, seed=self._seed(epoch))
            return self._batches(examples, None, epoch)

        return stored, batches

    def distiller(self, teacher: Any, temperature: float | None, alpha: float) -> Distiller:
        """The student, with the weights that it starts from, and its teacher."""
        losses = named_losses.named(self.flags, self.task, temperature)
        return Distiller(self._student_model(), teacher, losses, alpha)

    def compiled(self, model: keras.Model, epochs: int, learning_rate: float) -> keras.Model:
        """The model with optimizer, loss and metrics."""
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * self.steps)
        model.compile(
            keras.optimizers.Adam(schedule),
            self._label_loss(),
            metrics=[self._metric()],
        )
        return model

    def batches(self, epoch: Any) -> tf.data.Dataset:
        """The batches of an epoch, whose number may be a tensor."""
        return self._batches(self.examples, self.augment, epoch)

    def _batches(self, examples: tf.data.Dataset, augment: Any, epoch: Any) -> tf.data.Dataset:
        return data.batches(
            examples,
            self.flags.batch_size,
            augment=augment,
            mix=self.mix,
            classes=self.classes,
            seed=self._seed(epoch),
        )

    def _seed(self, epoch: Any) -> Any:
        return 1_000_003 * self.flags.seed + epoch

    def validation_batches(self) -> tf.data.Dataset:
        """Batches to validate on, labels in the form that the loss takes."""
        if self.mix is None:
            return self.validation
        return self.validation.map(lambda x, y: (x, tf.one_hot(y, self.classes)))

    def _teacher_model(self) -> keras.Model | teachers.BaseTeacher:
        """The teacher read from a file, or built."""
        flags = self.flags
        if models.is_file(flags.teacher):
            return models.load_teacher(flags.teacher, self.spec, self.outputs)
        return self._build(flags.teacher, flags.weights)

    def _student_model(self) -> keras.Model:
        return self._build(self.flags.student)

    def _build(self, name: str, weights: str | None = None) -> keras.Model:
        # Not 0: with a global seed of 0, TensorFlow can't shuffle by a seed that is a tensor.
        keras.utils.set_random_seed(1 + self.flags.seed)
        return models.build(name, self.spec, self.outputs, weights)

    def _fit(
        self,
        run: runs.Run,
        name: str,
        build: Callable[[], Any],
        epochs: int,
        batches: Batches | None = None,
    ) -> keras.Model:
        return run.train(
            name,
            lambda: self.compiled(build(), epochs, self.flags.learning_rate),
            epochs,
            batches or self.batches,
            self.steps,
            self.validation_batches(),
        )

    def _metric(self) -> str | keras.metrics.Metric:
        if self.task == "multilabel":  # Of logits.
            return keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
        return "mse" if self.task == "regression" else "accuracy"

    def _label_loss(self) -> keras.losses.Loss:
        if self.task == "multilabel":
            return keras.losses.BinaryCrossentropy(from_logits=True)
        if self.task == "regression":
            return keras.losses.MeanSquaredError()
        if self.mix is not None:
            return keras.losses.CategoricalCrossentropy(from_logits=True)
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def store_settings(
    flags: absl_flags.FlagValues, augment: data.Augmentation | None
) -> dict[str, Any]:
    """What must be the same whenever stored outputs are opened."""
    return {
        "views": flags.views,
        "augment": augment,
        "seed": flags.seed,
        "top_k": flags.top_k,
        # Whole outputs are the same at any temperature.
        "temperature": (flags.temperature or 1.0) if flags.top_k else 1.0,
        "batch_size": flags.batch_size,
    }
