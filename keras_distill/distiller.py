"""The `Distiller`: a Keras model that trains a student on labels and on what a teacher says."""

import functools
import math

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_distill import taps as tapping
from keras_distill._types import PACKAGE
from keras_distill.checks import fraction
from keras_distill.hyperparameters import (
    Bound,
    Hyperparameter,
    hyperparameter_config,
    hyperparameters,
)
from keras_distill.losses.response import SoftTargets
from keras_distill.match import Answer, Match, ModelTaps, Pair, Tap, paths
from keras_distill.steps import OnBatches
from keras_distill.teachers import as_teacher
from keras_distill.teachers.base import Misfit

#: What `fit` reports beside the distillation losses.
_RESERVED = ("loss", "student_loss")


@keras.saving.register_keras_serializable(PACKAGE)
class Distiller(keras.Model):
    """Trains a student on the labels and on what a teacher says.

    `loss = alpha * student_loss + (1 - alpha) * sum(weight_i * distillation_loss_i)`, plus the
    student's own regularizers and `add_loss` terms. `student_loss` is the loss given to
    `compile`. One training step runs the student once, the teacher once outside the gradient
    tape, and one backward pass, however many places are compared. `fit` reports `loss`,
    `student_loss`, each distillation loss by name, and the compiled metrics, which see the
    student's outputs and the labels alone. `evaluate` and `predict` are those of the student;
    they never run the teacher.

    The teacher is run in inference mode. It is not changed, trained or saved.

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network"
    (arXiv:1503.02531), section 2.

    Args:
        student: The `keras.Model` to train.
        teacher: A `keras.Model`, or one of `keras_distill.teachers`. `None` leaves it to be given
            later: `distiller.teacher = model`.
        losses: One distillation loss, a list of losses and `Match`es, or a dict from the name of
            an output to a loss (`None` skips the output). A loss is a `keras.losses.Loss` of
            `(teacher, student)`, or a function of the two. A loss without a `Match` compares the
            outputs, each with its own. Defaults to `SoftTargets(temperature=4.0)`.
        alpha: Weight of the labels, from 0 to 1: a number or a `keras.optimizers.schedules`
            schedule. With `alpha=0` no labels are needed. Defaults to `0.1`.
        missing_label: Label that stands for "not known", for example `-1` (or NaN in regression).
            Such samples have weight 0 in `student_loss`, in losses that need labels and in the
            metrics, all of which are then weighted metrics. Defaults to `None`: all are known.
        check_numerics: Whether to stop with an error that names the teacher, the student or the
            loss in which the first NaN or infinity arises. XLA leaves such checks out, so it
            isn't used then. Defaults to `False`.
        name: Name of the model.
        **kwargs: Other arguments of `keras.Model`.

    Raises:
        TypeError: If `student` or `teacher` isn't a model, or a loss isn't a loss.
        ValueError: If `alpha` isn't between 0 and 1, a tapped layer doesn't exist, the two sides
            of a loss don't fit, or student and teacher share layers that training would change.

    Example:

    ```python
    distiller = keras_distill.Distiller(
        student, teacher, losses=keras_distill.losses.SoftTargets(temperature=4.0), alpha=0.1
    )
    distiller.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    distiller.fit(x_train, y_train, validation_data=(x_val, y_val), epochs=10)
    distiller.student.save("student.keras")
    ```
    """

    alpha = Hyperparameter(fraction)

    def __init__(
        self,
        student,
        teacher,
        losses=None,
        alpha=0.1,
        *,
        missing_label=None,
        check_numerics=False,
        name="distiller",
        **kwargs,
    ):
        if not isinstance(student, keras.Model):
            raise TypeError(
                "`student` must be a `keras.Model`. "
                f"Received: student={student!r} of type {type(student).__name__}"
            )
        kwargs.setdefault("dtype", student.dtype_policy)
        super().__init__(name=name, **kwargs)
        self.student = student
        self.adapters = []
        self.missing_label = missing_label
        self.check_numerics = check_numerics
        self.alpha = alpha
        # Keras tracks what it finds in attributes, lists and dicts, but not inside plain objects.
        self._plan = _Plan(_as_matches(SoftTargets() if losses is None else losses))
        self._bind_hyperparameters()
        self.teacher = teacher
        self._build_from_student()

    def __setattr__(self, name, value):
        if name == "teacher":
            value = None if value is None else as_teacher(value)
            if value is not None and _alike(value.state, self._plan.teacher_state):
                value.state = self._plan.teacher_state
            self.train_function = None
            self._plan.pairs = None
            # XLA leaves out the checks of numbers.
            can_jit = not self.check_numerics and (value is None or value.supports_jit)
            super().__setattr__("supports_jit", can_jit)
            super().__setattr__("teacher", value)
            if self.built:
                self._build_from_student()
        else:
            super().__setattr__(name, value)

    @property
    def output_names(self):
        """Names of the student's outputs, by which `compile` takes losses and metrics."""
        return self.student.output_names

    @property
    def hyperparameters(self) -> dict:
        """The variables that may change while training goes on, by name.

        `"alpha"`, and `"<loss>/weight"`, `"<loss>/temperature"` and the like for each distillation
        loss. Assign to them between steps, or see `keras_distill.callbacks.Schedule`.
        """
        return {name: bound.variable for name, bound in self._plan.hyperparameters.items()}

    def set_hyperparameter(self, name, value):
        """Sets one of `hyperparameters`, if the value is in its range.

        Args:
            name: Its name.
            value: A number.

        Raises:
            ValueError: If there is no such hyperparameter, or the value is out of range.
        """
        known = self._plan.hyperparameters
        if name not in known:
            raise ValueError(f"There is no hyperparameter {name!r}, only {', '.join(known)}.")
        known[name].assign(value)

    # What a training step is made of.

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self.build_for(x)
        self.advance_schedules()
        teacher_answer = self.ask_teacher(x)
        figures = self.teacher.figures(teacher_answer.outputs)
        with tf.GradientTape() as tape:
            answer = self.run_student(x, training=True)
            values = self.compute_losses(x, y, answer, teacher_answer, sample_weight)
            scaled = self.optimizer.scale_loss(values["loss"])
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(scaled, weights), weights, strict=True))
        return self._report(values, figures, x, y, answer.outputs, sample_weight)

    def build_for(self, x):
        """Builds what depends on the shapes of a batch, if it isn't built yet.

        Args:
            x: The inputs of a batch, tensors.

        Raises:
            ValueError: If there is no teacher, or the two sides of a loss don't fit.
        """
        if self._plan.pairs is not None:
            self._check_shared_layers()
            return
        if self.teacher is None:
            raise ValueError(
                "The distiller has no teacher (it isn't saved with the student). "
                "Give it one: `distiller.teacher = model`."
            )
        self._build_pairs(keras.tree.map_structure(_spec, x))

    def advance_schedules(self, iterations=None):
        """Sets the hyperparameters that have a schedule to their values at this step.

        Args:
            iterations: Steps of training so far. Defaults to the optimizer's.
        """
        for bound in self._plan.hyperparameters.values():
            if bound.schedule is not None:
                if iterations is None:
                    iterations = self.optimizer.iterations
                bound.variable.assign(bound.schedule(iterations))

    def ask_teacher(self, x) -> Answer:
        """What the teacher says for a batch. Call it outside the gradient tape."""
        taps = self._plan.teacher_paths
        outputs, features = self.teacher.answer(x, taps)
        answer = Answer(outputs, dict(zip(taps, features, strict=True)))
        return self._checked(answer, "the teacher")

    def run_student(self, x, training=True) -> Answer:
        """What the student says for a batch: its outputs and the tapped features."""
        taps = self._plan.student_paths
        layers = [tapping.find_layer(self.student, path, "student") for path in taps]
        with tapping.capture(layers) as caught:
            outputs = self.student(self._student_inputs(x), training=training)
        features = {
            path: tapping.the_only_result(caught, layer, path, "student")
            for layer, path in zip(layers, taps, strict=True)
        }
        return self._checked(Answer(outputs, features), "the student")

    def compute_losses(self, x, y, answer, teacher_answer, sample_weight=None) -> dict:
        """All losses of a batch. Call it inside the gradient tape.

        Args:
            x: The inputs of the batch.
            y: Its labels, or `None`.
            answer: What `run_student` returned.
            teacher_answer: What `ask_teacher` returned.
            sample_weight: Weights of the samples, or `None`.

        Returns:
            A dict of scalar tensors: `"loss"`, the objective; `"student_loss"` where there are
            labels; and each distillation loss by name, unweighted.
        """
        if self._plan.pairs is None:
            raise ValueError("The distiller isn't built: call `distiller.build_for(x)` before.")
        teacher_answer = teacher_answer._replace(
            outputs=self.teacher.combine(teacher_answer.outputs)
        )
        alpha = ops.convert_to_tensor(self.alpha)
        values = {}
        sample_weight = self._conformed(sample_weight, answer.outputs)
        y, label_weight = self._known_labels(y, answer.outputs, sample_weight)
        if y is not None and self._compile_loss is not None:
            values["student_loss"] = self._compile_loss(y, answer.outputs, label_weight)
        elif self._plan.needs_labels:
            raise ValueError(
                "The batch has no labels, but `alpha` gives them weight. "
                "Give labels to `fit`, or construct the distiller with `alpha=0`."
            )
        keys = self.teacher.keys(x)
        for pair in self._plan.pairs:
            values[pair.name] = pair(
                answer,
                teacher_answer,
                self._labels_for(pair, y),
                self._keys_for(pair, keys),
                _weights_for(pair, label_weight if pair.loss.needs_labels else sample_weight),
            )
        for name, value in values.items():
            values[name] = self._checked(value, f"the loss {name!r}")
        total = sum(
            ops.cast(pair.match.weight, "float32") * ops.cast(values[pair.name], "float32")
            for pair in self._plan.pairs
        )
        total = (1 - alpha) * total
        if "student_loss" in values:
            total += alpha * ops.cast(values["student_loss"], "float32")
        for loss in self.losses:
            total += ops.cast(self._aggregate_additional_loss(loss), "float32")
        return {"loss": total, **values}

    # What Keras asks of a model.

    def call(self, inputs, training=None):
        return self.student(self._student_inputs(inputs), training=training)

    def compile(self, *args, **kwargs):
        """As `keras.Model.compile`. Without a `loss`, only for a distiller with `alpha=0`."""
        has_loss = kwargs.get("loss") is not None or (len(args) > 1 and args[1] is not None)
        self.require_loss(has_loss)
        if self.missing_label is not None:
            kwargs = weighted_metrics_only(kwargs)
        super().compile(*args, **kwargs)

    def require_loss(self, has_loss):
        """Raises where the labels have weight, but `compile` got no loss for them."""
        alpha = self._plan.hyperparameters["alpha"]
        self._plan.needs_labels = alpha.schedule is not None or _float(alpha.variable) > 0
        if not has_loss and self._plan.needs_labels:
            raise ValueError(
                "`compile` got no `loss` for the labels, but `alpha` gives them weight. "
                "Give it one, or construct the distiller with `alpha=0`."
            )

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The student's own loss, as `evaluate` reports it."""
        y, sample_weight = self._known_labels(y, y_pred, sample_weight)
        if y is None or self._compile_loss is None:
            return ops.sum([0.0, *map(self._aggregate_additional_loss, self.losses)])
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        if y is None:  # The compiled metrics need labels.
            return {"loss": self._loss_tracker.result()}
        y, sample_weight = self._known_labels(y, y_pred, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_metrics_result(self):
        # Keras asks at the end of an epoch, whether or not there were labels.
        if self._compile_metrics is not None and not self._compile_metrics.built:
            return {"loss": self._loss_tracker.result()}
        return super().get_metrics_result()

    def test_step(self, data):
        return self._for_workers(super().test_step(data))

    def reset_metrics(self):
        super().reset_metrics()
        for tracker in self._plan.trackers.values():
            tracker.reset_state()

    def get_config(self):
        config = {
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "student": keras.saving.serialize_keras_object(self.student),
            "losses": [self._match_config(match) for match in self._plan.matches],
            "alpha": hyperparameter_config(self, "alpha"),
            "missing_label": self.missing_label,
            "check_numerics": self.check_numerics,
        }
        state = self._teacher_state()
        if state is not None:
            config["teacher_state"] = keras.saving.serialize_keras_object(state)
        return config

    @classmethod
    def from_config(cls, config):
        config = keras.saving.deserialize_keras_object(config)
        state = config.pop("teacher_state", None)
        distiller = cls(teacher=None, **config)
        distiller._plan.teacher_state = state
        distiller._track_adapters()
        return distiller

    def _match_config(self, match):
        """A match, with its adapters as they were built."""
        pairs = self._plan.pairs_of(match)
        if len(pairs) == 1:
            return pairs[0].config()
        config = keras.saving.serialize_keras_object(match)
        if pairs and match.adapter == "auto":  # One for each output.
            adapters = tuple(pair.adapters[0] for pair in pairs)
            config["config"]["adapter"] = keras.saving.serialize_keras_object(adapters)
        return config

    def save_own_variables(self, store):
        super().save_own_variables(store)
        for name, variables in self._run_state().items():
            if variables:
                store[name] = np.stack([ops.convert_to_numpy(value) for value in variables])

    def load_own_variables(self, store):
        state = self._run_state()
        names = [name for name in store.keys() if name not in state]  # noqa: SIM118
        super().load_own_variables({name: store[name] for name in names})
        for name, variables in state.items():
            for variable, value in zip(variables, store[name] if variables else (), strict=True):
                variable.assign(value)

    def _run_state(self) -> dict:
        """What a run goes on with beside the weights: hyperparameters, seeds of dropout.

        Keras itself saves neither.
        """
        seeds = [g.state for layer in self._flatten_layers() for g in layer._seed_generators]
        return {"hyperparameters": list(self.hyperparameters.values()), "seeds": seeds}

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Builds before a step is traced what would make variables in it.

        Keras leaves that to the trace, which TensorFlow then repeats, or under a strategy reduces
        the parts of all replicas in one call, which fails with several workers: one part will do.
        """
        strategy = self._distribute_strategy
        if strategy is None:
            if iterator is not None:
                self._build_metrics(iterator._distributed_dataset.element_spec)
            return
        if iterator is not None:
            for _, _, batches in iterator:
                data_batch = next(batches)
                break
            data_batch = keras.tree.map_structure(
                lambda value: strategy.experimental_local_results(value)[0], data_batch
            )
        with strategy.scope():
            x, _, _ = keras.utils.unpack_x_y_sample_weight(data_batch)
            if self.teacher is not None:
                self.build_for(x)
            self._symbolic_build(data_batch=data_batch)

    def make_train_function(self, force=False):
        """As in Keras, behind the optimizer, which would make variables in the trace."""
        optimizer = self.optimizer
        if self._plan.pairs is not None and optimizer is not None:
            if not optimizer.built:
                optimizer.build(self.trainable_variables)
            self._check_known(optimizer)
        if self.train_function is None or force:
            super().make_train_function(force)
            if self.steps_per_execution == 1 and not self.run_eagerly:
                self.train_function = OnBatches(self.train_function, self.jit_compile)

    # Building.

    def _build_metrics(self, batch_spec):
        """Builds the compiled metrics, where the shapes of labels and outputs are known."""
        _, y, _ = keras.utils.unpack_x_y_sample_weight(batch_spec)
        metrics, outputs = self._compile_metrics, self._plan.outputs
        if metrics is None or metrics.built or outputs is None:
            return
        # A batch without labels holds none, or a `NoneTensorSpec`.
        if y is not None and all(hasattr(spec, "shape") for spec in keras.tree.flatten(y)):
            metrics.build(y, outputs)

    def _bind_hyperparameters(self):
        """Gives every hyperparameter a variable, which a traced training step reads."""
        plan = self._plan
        bind = functools.cache(_bind)  # A loss in two places has one variable under two names.
        plan.hyperparameters["alpha"] = bind(self, "alpha")
        for match, name in zip(plan.matches, plan.names, strict=True):
            plan.hyperparameters[f"{name}/weight"] = bind(match, "weight")
            for attribute in hyperparameters(match.loss):
                plan.hyperparameters[f"{name}/{attribute}"] = bind(match.loss, attribute)

    def _build_from_student(self):
        """Builds at construction, where the student says what it reads."""
        if not self.student.built:
            return
        self.built = True
        self._track_adapters()
        spec, is_certain = _input_spec(self.student)
        if self.teacher is None or spec is None:
            return
        try:
            self._build_pairs(spec)
        except _CannotRead:
            # Teacher or student may read more of the data than the student's inputs tell.
            if is_certain:
                raise

    def _build_pairs(self, spec):
        """Resolves the matches against both models and builds adapters.

        Args:
            spec: The inputs of a batch, `keras.KerasTensor`s.
        """
        plan = self._plan
        self._check_shared_layers()
        plan.student_paths = plan.teacher_paths = []
        student, teacher = self._answer_specs(spec)
        plan.outputs = student.outputs
        student_taps = ModelTaps(
            self._student_path, student.outputs, getattr(self.student, "output_names", None)
        )
        teacher_taps = ModelTaps(self.teacher.tap_path, teacher.outputs, self.teacher.output_names)
        pairs = []
        taken = [*_RESERVED, *plan.names]
        for match, name in zip(plan.matches, plan.names, strict=True):
            if match.student is None and match.teacher is None:
                leaves = _leaves(student.outputs)
                for index, (output, suffix) in enumerate(leaves):
                    tap = Tap(output=output)
                    own = _numbered(name + suffix, taken) if suffix else name
                    taken.append(own)
                    pair = Pair(match, own, tap, tap)
                    if len(pair.adapters) == len(leaves):
                        pair.adapters = pair.adapters[index : index + 1]
                    pairs.append(pair)
            else:
                pairs.append(
                    Pair(
                        match,
                        name,
                        student_taps.resolve(match.student),
                        teacher_taps.resolve(match.teacher),
                    )
                )
        plan.student_paths = paths(pair.student for pair in pairs)
        plan.teacher_paths = paths(pair.teacher for pair in pairs)
        if plan.student_paths or plan.teacher_paths:
            student, teacher = self._answer_specs(spec)
        places = {}
        for pair in pairs:
            if pair.loss.state is not None and places.setdefault(id(pair.loss), pair) is not pair:
                raise ValueError(
                    f"The loss {pair.name!r} has weights of its own, which "
                    f"{places[id(pair.loss)].name!r} trains already. Give each `Match` of one "
                    "output or layer a loss that is an object of its own."
                )
            pair.build(student, teacher, self.student.dtype_policy)
        names = (pair.name for pair in pairs)
        for name in ("student_loss", *names, *self.teacher.figure_names):
            plan.trackers.setdefault(name, keras.metrics.Mean(name=name))
        plan.pairs = pairs
        self._track_adapters()

    def _answer_specs(self, spec):
        """What both models would answer, shapes and dtypes alone."""
        student = tapping.spec_of(lambda x: self.run_student(x, training=False), spec)
        try:
            taps = self._plan.teacher_paths
            outputs, features = self.teacher.answer_spec(spec, taps)
            return student, Answer(outputs, dict(zip(taps, features, strict=True)))
        except Misfit:
            raise
        except Exception as error:
            shapes = keras.tree.map_structure(lambda x: f"{x.dtype}{x.shape}", spec)
            raise _CannotRead(
                f"The teacher {self.teacher.name!r} can't read what the student reads ({shapes}). "
                "Where it wants other inputs, say how to make them: "
                "`keras_distill.teachers.Teacher(model, preprocess=...)`. "
                f"It said: {error}"
            ) from error

    def _student_path(self, place):
        if isinstance(place, str):
            tapping.find_layer(self.student, place, "student")
            return place
        return tapping.path_of(self.student, place, "student")

    def _teacher_state(self):
        """The layer of the teacher that is trained along, or `None`."""
        return self._plan.teacher_state if self.teacher is None else self.teacher.state

    def _track_adapters(self):
        """Makes the layers beside the student part of this model: trained, saved, not exported.

        Their order, by which optimizers are saved, is that of a loaded distiller.
        """
        plan, layers = self._plan, []
        for match in plan.matches:
            built = [adapter for pair in plan.pairs_of(match) for adapter in pair.adapters]
            layers += [x for x in built if isinstance(x, keras.layers.Layer)] + match.layers
        layers = _unique(x for x in (*layers, self._teacher_state()) if x is not None)
        if list(map(id, layers)) == list(map(id, self.adapters)):
            return
        # Keras locks a model once it is built; what depends on the teacher's shapes comes later.
        was_locked = self._tracker.locked
        self._tracker.unlock()
        self.adapters.clear()
        self.adapters.extend(layers)
        if was_locked:
            self._tracker.lock()

    def _check_known(self, optimizer):
        """Raises if there are weights to train that came after the optimizer was built."""
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        known = {id(variable) for variable in optimizer._trainable_variables}
        new = [v.path for v in self.trainable_variables if id(v) not in known]
        if new:
            raise ValueError(
                f"The optimizer doesn't know the weights {', '.join(new)}: they came with another "
                "teacher, or weren't trained before. Call `compile` again, with a new optimizer."
            )

    def _check_shared_layers(self):
        """Raises if training the student would change the teacher."""
        theirs = {id(variable) for variable in self.teacher.variables}
        for layer in self.student._flatten_layers():
            weights = [*layer._trainable_variables, *layer._non_trainable_variables]
            seeds = [generator.state for generator in layer._seed_generators]
            changing = (weights if layer.trainable else []) + seeds
            if any(id(variable) in theirs for variable in changing):
                raise ValueError(
                    f"The student shares the layer {layer.name!r} with the teacher, so training "
                    "would change the teacher. Freeze it (`layer.trainable = False`), or give the "
                    "student a copy: `keras.models.clone_model(model)` and `set_weights`."
                )

    # Parts of a step.

    def _student_inputs(self, x):
        return x if self.teacher is None else self.teacher.student_inputs(x)

    def _conformed(self, x, outputs):
        """Labels or weights in the containers of the outputs, as far as Keras takes others."""
        if isinstance(x, dict) and isinstance(outputs, (list, tuple)):
            names = getattr(self, "output_names", None) or ()
            x = [x[name] for name in names] if set(x) == set(names) else x
        if isinstance(x, (list, tuple)) and len(x) == len(keras.tree.flatten(outputs)):
            return keras.tree.pack_sequence_as(outputs, x)
        return x

    def _known_labels(self, y, outputs, sample_weight):
        """Labels and weights of a batch, in which `missing_label` has weight 0."""
        y, sample_weight = (self._conformed(part, outputs) for part in (y, sample_weight))
        if y is None or self.missing_label is None:
            return y, sample_weight
        known = keras.tree.map_structure(self._is_known, y, outputs)
        y = keras.tree.map_structure(
            lambda k, v: ops.where(ops.reshape(k, _padded(k, v)), v, ops.zeros_like(v)), known, y
        )
        if sample_weight is None or keras.tree.is_nested(sample_weight):
            weights = sample_weight
        else:
            weights = keras.tree.map_structure(lambda _: sample_weight, known)
        return y, keras.tree.map_structure(
            _masked_weight, known, *([] if weights is None else [weights])
        )

    def _is_known(self, y, output):
        """One boolean for each label: a class, a row of one-hot classes, or a vector of values."""
        is_nan = isinstance(self.missing_label, float) and math.isnan(self.missing_label)
        known = ops.logical_not(ops.isnan(y)) if is_nan else ops.not_equal(y, self.missing_label)
        return ops.any(known, axis=-1) if len(y.shape) == len(output.shape) else known

    def _labels_for(self, pair, y):
        """The labels that belong to a pair, if its loss needs any."""
        if not pair.loss.needs_labels:
            return None
        labels = _part(y, pair.student) if keras.tree.is_nested(y) else y
        if labels is None:
            raise ValueError(
                f"The loss {pair.name!r} needs the labels of the student's {pair.student}, "
                f"but the batch has none for it."
            )
        return labels

    def _keys_for(self, pair, keys):
        if pair.loss.needs_keys and keys is None:
            raise ValueError(
                f"The loss {pair.name!r} needs a key for each sample, but the batch has none. "
                "See `keras_distill.teachers.Keyed`."
            )
        return keys

    def _checked(self, value, where):
        """`value`, behind a check for NaN and infinity if one was asked for."""
        if not self.check_numerics:
            return value
        message = f"NaN or infinity first arose in {where} of {self.name!r}."
        return keras.tree.map_structure(lambda x: _checked_tensor(x, message), value)

    def _report(self, values, figures, x, y, outputs, sample_weight):
        """Updates what `fit` reports and returns it."""
        size = ops.shape(keras.tree.flatten(x)[0])[0]
        # Losses are divided by the number of replicas, so that their gradients add up.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        trackers = {"loss": self._loss_tracker, **self._plan.trackers}
        for name, value in values.items():
            trackers[name].update_state(value * replicas, sample_weight=size)
        for name, value in figures.items():
            trackers[name].update_state(value, sample_weight=size)
        logs = self.compute_metrics(x, y, outputs, sample_weight)
        reported = [name for name in (*values, *figures) if name != "loss"]
        logs.update({name: self._plan.trackers[name].result() for name in reported})
        for name, bound in self._plan.hyperparameters.items():
            if bound.schedule is not None:
                logs[name] = ops.convert_to_tensor(bound.variable)
        return self._for_workers(logs)

    def _for_workers(self, logs):
        """Logs in the form that Keras can reduce over several workers: with an axis."""
        if isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return {name: ops.reshape(value, (1,)) for name, value in logs.items()}
        return logs


def _checked_tensor(x, message):
    """`x` behind a check, with what a model left on it: logits, mask."""
    if not x.dtype.is_floating:
        return x
    checked = tf.debugging.check_numerics(x, message)
    for attribute in ("_keras_logits", "_keras_mask", "_is_sigmoid"):
        if hasattr(x, attribute):
            setattr(checked, attribute, getattr(x, attribute))
    return checked


class _CannotRead(ValueError):
    """A model can't be run on what another one reads."""

    # As `Misfit` has it.
    __init__ = ValueError.__init__


class _Plan:
    """What a distiller keeps out of Keras' sight: neither weights nor layers of the model."""

    def __init__(self, matches):
        self.matches = matches
        self.names = _unique_names(matches)
        self.pairs = None
        self.outputs = None
        self.student_paths = []
        self.teacher_paths = []
        self.hyperparameters = {}
        self.trackers = {}
        self.needs_labels = False
        #: What a loaded distiller learned of its teacher's `state`, until the teacher is given.
        self.teacher_state = None

    def pairs_of(self, match) -> list:
        """What was built for a match: several pairs where it compares several outputs."""
        return [pair for pair in self.pairs or () if pair.match is match]


def _as_matches(losses) -> list[Match]:
    """What a user writes for `losses`, as a list of matches."""
    if isinstance(losses, dict):
        matches = [
            Match(loss, student=output, teacher=output)
            for output, loss in losses.items()
            if loss is not None
        ]
    else:
        given = losses if isinstance(losses, (list, tuple)) else [losses]
        matches = [x if isinstance(x, Match) else Match(x) for x in given if x is not None]
    if not matches:
        raise ValueError(f"`losses` holds no loss. Received: losses={losses!r}")
    return matches


def _unique_names(matches) -> list[str]:
    """A name for each match: its own, with the place or a number behind it where it is taken."""
    taken = list(_RESERVED)
    for match in matches:
        name = match.name
        if name in taken and isinstance(match.student, str):
            name = f"{name}_{match.student.replace('/', '_')}"
        taken.append(_numbered(name, taken))
    return taken[len(_RESERVED) :]


def _numbered(name, taken) -> str:
    """`name`, with a number behind it where it is taken."""
    stem, number = name, 2
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    return name


def _bind(instance, attribute) -> Bound:
    """A new variable for a hyperparameter, with its present value and schedule."""
    value = instance.__dict__[attribute]
    schedule = None
    check = getattr(type(instance), attribute).check
    if isinstance(value, Bound):
        value, schedule = value.variable, value.schedule
    elif isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        value, schedule = check(_float(value(0))), value
    variable = keras.Variable(
        _float(value),
        trainable=False,
        dtype="float32",
        name=attribute,
        aggregation="only_first_replica",
    )
    bound = Bound(variable, check, schedule)
    setattr(instance, attribute, bound)
    return bound


def _float(x) -> float:
    return float(ops.convert_to_numpy(x))


def _spec(x):
    return keras.KerasTensor(x.shape, keras.backend.standardize_dtype(x.dtype))


def _input_spec(model):
    """What a built model reads, and whether that is certain (or only all that it tells)."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0], True
    called_with = getattr(model, "input", None)
    if called_with is not None:
        return called_with, hasattr(model, "operations") and not isinstance(called_with, dict)
    shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None or not all(size is None or isinstance(size, int) for size in shape):
        return None, False
    return keras.KerasTensor(shape), False


def _leaves(outputs):
    """Index or name of each output, and what it adds to a loss' name."""
    if isinstance(outputs, dict):
        return [(name, f"_{name}") for name in outputs]
    if isinstance(outputs, (list, tuple)):
        return [(index, f"_{index}") for index in range(len(outputs))]
    return [(None, "")]


def _alike(state, other) -> bool:
    """Whether two layers have weights for the same."""
    if state is None or other is None:
        return False
    shapes = [[tuple(weight.shape) for weight in layer.weights] for layer in (state, other)]
    return type(state) is type(other) and shapes[0] == shapes[1]


def _unique(layers):
    return list({id(layer): layer for layer in layers}.values())


def _part(structure, tap):
    """The part of labels or weights that belongs to an output, or `None`."""
    if isinstance(tap, Tap) and tap.output is not None:
        return structure[tap.output]
    return None


def _weights_for(pair, sample_weight):
    """Weights for one pair: of its output, or the mean over outputs for a layer."""
    if not keras.tree.is_nested(sample_weight):
        return sample_weight
    own = _part(sample_weight, pair.student)
    if own is not None:
        return own
    rows = [
        ops.mean(ops.cast(weight, "float32"), axis=tuple(range(1, len(weight.shape))))
        for weight in keras.tree.flatten(sample_weight)
        if weight is not None
    ]
    return sum(rows) / len(rows)


def _padded(x, like):
    """The shape of `x` with axes of size 1 added behind until it has the rank of `like`."""
    return (*ops.shape(x), *(1,) * (len(like.shape) - len(x.shape)))


def _masked_weight(known, weight=None):
    known = ops.cast(known, "float32")
    if weight is None:
        return known
    weight = ops.cast(weight, "float32")
    if len(weight.shape) < len(known.shape):
        weight = ops.reshape(weight, _padded(weight, known))
    return known * weight


def weighted_metrics_only(arguments) -> dict:
    """Arguments of `compile` with all metrics among the weighted ones."""
    arguments = dict(arguments)
    metrics = arguments.pop("metrics", None)
    weighted_metrics = arguments.get("weighted_metrics")
    if metrics is None:
        return arguments
    if weighted_metrics is None:
        return {**arguments, "weighted_metrics": metrics}
    if isinstance(metrics, list) and isinstance(weighted_metrics, list):
        return {**arguments, "weighted_metrics": metrics + weighted_metrics}
    raise ValueError(
        "With `missing_label` all metrics are weighted: give them as one list or dict. "
        f"Received: metrics={metrics!r}, weighted_metrics={weighted_metrics!r}"
    )
