"""Distillation on what the student writes itself."""

from typing import Any

import keras
from keras import ops

from keras_distill import _keras, backends
from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import fraction, positive, whole_number
from keras_distill.distiller import Distiller
from keras_distill.language.search import check_end, reader, written
from keras_distill.losses.response import JensenShannon
from keras_distill.outputs import mask_of
from keras_distill.pairs import Answer
from keras_distill.teachers import Answered


@keras.saving.register_keras_serializable(PACKAGE)
class OnPolicyDistiller(Distiller):
    """A `Distiller` of language models on sequences that the student writes and the teacher scores.

    In training, a share of the batches keep their first `prompt` tokens only; the student
    continues them by drawing from its own distribution, and teacher and student are compared on
    the result. The other batches are used as they come. So the student learns what to do after its
    own mistakes, which it never meets in the data. No gradient flows through the drawing.

    A position counts if its token is neither padding nor `end`, from the last token of the prompt
    on. In training, a loss is the mean over these. Sequences that end within the prompt, and rows
    of padding, aren't continued. Labels, if there are any, aren't used in training.

    Source: Agarwal et al., "On-Policy Distillation of Language Models" (GKD, arXiv:2306.13649),
    algorithm 1, whose λ is `share`; Ko et al. (DistiLLM, arXiv:2402.03898) raise it in training
    and compare by `SkewedKL`.

    Args:
        student: A causal Keras model, whose output at a position is for the token after it. Token
            0 is padding.
        teacher: As in `Distiller`, but not stored answers: no one knows beforehand what it is
            asked.
        losses: As in `Distiller`. Defaults to `JensenShannon(0.5)`.
        share: Probability that a batch is the student's, 0 to 1: a number, or a
            `keras.optimizers.schedules` schedule.
        end: The token that ends a sequence.
        prompt: How many tokens of each sequence the student is given, at least 1.
        target: Name of the input whose tokens are written, of an encoder and decoder. Defaults to
            `None`: the model's only input.
        temperature: Temperature of the student's distribution when it writes.
        seed: Seed of the draws.
        **kwargs: As in `Distiller`; `alpha` is 0.

    Raises:
        ValueError: If a number is out of range, `end` is no token of the student's, or a loss needs
            labels.

    Example:

    >>> distiller = keras_distill.language.OnPolicyDistiller(
    ...     student, teacher, keras_distill.losses.SkewedKL(0.1), share=0.5, end=2, prompt=8
    ... )
    >>> distiller.compile("adam")
    >>> distiller.fit(tokens)
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: Any = None,
        losses: Any = None,
        share: Any = 0.5,
        *,
        end: int,
        prompt: int = 1,
        target: str | None = None,
        temperature: float = 1.0,
        seed: int = 0,
        **kwargs: Any,
    ):
        backends.require("`keras_distill.language.OnPolicyDistiller`", "tensorflow")
        if kwargs.setdefault("alpha", 0.0) != 0:
            raise ValueError(
                "There are no labels for what the student writes: `alpha` must be 0. "
                f"Received: alpha={kwargs['alpha']!r}"
            )
        losses = JensenShannon(0.5) if losses is None else losses
        super().__init__(student, teacher, losses, **kwargs)
        for match in self.objective.matches:
            if match.loss.needs_labels:
                raise ValueError(
                    "There are no labels for what the student writes, but the loss "
                    f"{match.name!r} needs them. Use `SkewedKL`, `JensenShannon` or `SoftTargets`."
                )
        is_schedule = isinstance(share, keras.optimizers.schedules.LearningRateSchedule)
        self.share = share if is_schedule else fraction("share", share)
        self.end = whole_number("end", end, 1)
        for output in getattr(student, "outputs", None) or ():  # A subclass doesn't tell.
            check_end(end, output.shape[-1] or end + 1)
        self.prompt = whole_number("prompt", prompt, 1)
        self.target = target
        self.temperature = positive("temperature", temperature)
        self.seed = seed
        with _keras.unlocked(self):
            self.draws = keras.random.SeedGenerator(seed)

    def train_step(self, data: Any) -> Any:  # type: ignore[override]
        x, _, sample_weight = self._unpack(data)
        if isinstance(x, Answered):
            raise ValueError(
                "Stored answers are to the sequences of the data, not to those that the student "
                "writes. Give the distiller a teacher that is run: a model, a file or a function."
            )
        x = self.with_written(x)
        counted = self.counted(self._tokens(x))
        if sample_weight is not None:
            weight = ops.cast(sample_weight, counted.dtype)
            counted = counted * (weight if len(weight.shape) > 1 else weight[:, None])
        return super().train_step((x, None, counted))

    def compute_losses(
        self,
        x: Any,
        y: Any,
        answer: Answer,
        teacher_answer: Answer,
        sample_weight: Any = None,
        training: bool = True,
    ) -> dict[str, Any]:
        if training and sample_weight is not None:
            # A loss divides by the number of positions that aren't masked.
            tokens = self._tokens(x)
            mask = mask_of(answer.outputs)
            whole = ops.size(tokens) if mask is None else ops.sum(ops.cast(mask, "int32"))
            counted = ops.maximum(ops.sum(self.counted(tokens)), 1.0)
            sample_weight = sample_weight * (ops.cast(whole, counted.dtype) / counted)
        return super().compute_losses(x, y, answer, teacher_answer, sample_weight, training)

    def with_written(self, x: Any) -> Any:
        """The inputs of a batch, with the student's own tokens if it is drawn to write them."""
        tokens = ops.cast(self._tokens(x), "int32")
        length = tokens.shape[1]
        if length is not None and self.prompt >= length:
            raise ValueError(
                "`prompt` must leave room for tokens that the student writes. Received: "
                f"prompt={self.prompt}, sequences of {length} tokens"
            )
        share = self.share(self.optimizer.iterations) if callable(self.share) else self.share
        is_own = keras.random.uniform((), seed=self.draws) < share
        draws = keras.random.uniform(ops.shape(tokens), seed=self.draws)

        def write():
            others = None if self.target is None else x
            prompts = tokens[:, : self.prompt]
            given = ops.sum(ops.cast(prompts != 0, "int32"), axis=-1)
            has_end = ops.any(ops.equal(prompts, self.end), axis=-1)
            return written(
                reader(self.student, others, self.target),
                tokens,
                ops.maximum(given, 1),
                self.end,
                draws,
                self.temperature,
                ended=ops.logical_or(has_end, ops.equal(given, 0)),
            )

        tokens = ops.stop_gradient(ops.cond(is_own, write, lambda: tokens))
        return tokens if self.target is None else {**x, self.target: tokens}

    def counted(self, tokens: Tensor) -> Tensor:
        """The weight of each position, 0 or 1, float32, shape `(batch, length)`."""
        is_text = ops.logical_and(ops.not_equal(tokens, 0), ops.not_equal(tokens, self.end))
        is_after = ops.arange(ops.shape(tokens)[1]) >= self.prompt - 1
        return ops.cast(ops.logical_and(is_text, is_after[None]), "float32")

    def get_config(self) -> dict:
        config = super().get_config()
        share = keras.saving.serialize_keras_object(self.share)
        return {
            **config,
            "share": share,
            "end": self.end,
            "prompt": self.prompt,
            "target": self.target,
            "temperature": self.temperature,
            "seed": self.seed,
        }

    def _tokens(self, x):
        if self.target is None:
            if not hasattr(x, "shape"):
                raise ValueError(
                    "Name the input whose tokens are written: `target=...`, and give inputs as a "
                    f"dict. Received: target=None, inputs of type {type(x).__name__}"
                )
            return x
        if not isinstance(x, dict) or self.target not in x:
            raise ValueError(
                f"With target={self.target!r}, inputs are a dict that has this name. "
                f"Received: {list(x) if isinstance(x, dict) else type(x).__name__}"
            )
        return x[self.target]
