"""Seeded augmentation: the same example and the same seed always give the same view."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from keras_distill import _keras
from keras_distill.checks import fraction, not_negative, number, whole_number

#: A step of an `Augmentation` that isn't a layer: a function `(x, seed) -> x`.
Step: TypeAlias = Callable[[Any, Any], Any]


class Augmentation:
    """Draws views of examples: a chain of Keras preprocessing layers that obeys a seed.

    The random layers of Keras keep their own seeds, which change with every call, so a view can't
    be drawn twice. Here every draw follows from the seed given with the example: in any order, on
    any number of threads, in another process. A teacher's outputs for a view can be stored with
    the seed, and the same view be drawn for the student later.

    Args:
        steps: Layers such as `keras.layers.RandomCrop`, `RandomFlip` and `RandAugment`, or
            functions `(x, seed) -> x`, applied to one example after another.

    Call arguments:
        x: One example: an image of shape `(height, width, channels)`, or any input of `steps`.
        seed: Integer, scalar or of shape `(2,)`.

    Returns:
        The view, a tensor of the floating dtype of the layers.

    Raises:
        TypeError: If a step is neither a layer nor a function.
        ValueError: If a step is or contains `keras.layers.AugMix`, which can't obey a seed.

    Example:

    >>> augment = keras_distill.data.Augmentation([
    ...     keras.layers.ZeroPadding2D(4),
    ...     keras.layers.RandomCrop(32, 32),
    ...     keras.layers.RandomFlip("horizontal"),
    ... ])
    >>> view = augment(image, seed=7)
    """

    def __init__(self, steps: keras.layers.Layer | Step | Sequence[keras.layers.Layer | Step]):
        self.steps: list[Any] = list(steps) if isinstance(steps, (list, tuple)) else [steps]
        for step in self.steps:
            if not callable(step):
                raise TypeError(
                    "`steps` must be Keras layers or functions `(x, seed) -> x`. "
                    f"Received: {step!r} of type {type(step).__name__}"
                )
            if any(isinstance(part, keras.layers.AugMix) for part in _parts(step)):
                raise ValueError(
                    "`keras.layers.AugMix` draws from Python's own `random`, so it can't obey a "
                    "seed. Use `keras.layers.RandAugment`."
                )

    def __call__(self, x: Any, seed: Any) -> Any:
        draws = _Draws(seed)
        for step in self.steps:
            if isinstance(step, keras.layers.Layer):
                x = _run(step, tf.cast(x, step.compute_dtype)[None], draws)[0]
            else:
                x = step(tf.convert_to_tensor(x), draws.next())
        return x


class Mixer:
    """Mixes the examples of a batch: MixUp or CutMix of Keras, obeying a seed.

    Teacher and student get the same mixture, and the labels are mixed likewise. Sources:
    Zhang et al., "mixup" (arXiv:1710.09412); Yun et al., "CutMix" (arXiv:1905.04899); for
    distillation, Beyer et al., "Knowledge distillation: A good teacher is patient and consistent"
    (arXiv:2106.05237).

    Args:
        layer: `keras.layers.MixUp(...)` or `keras.layers.CutMix(...)`.

    Call arguments:
        images: Batch of images, shape `(batch, height, width, channels)`, or a structure of such
            batches, which are all mixed with the same partners and shares.
        labels: One-hot classes, shape `(batch, classes)`.
        seed: Integer, scalar or of shape `(2,)`.

    Returns:
        `(images, labels)`, mixed.

    Raises:
        TypeError: If `layer` is neither of the two.
        ValueError: If `images` isn't a batch of images, of rank 4.

    Example:

    >>> images, labels = keras_distill.data.Mixer(keras.layers.MixUp(0.8))(images, labels, seed=7)
    """

    def __init__(self, layer: keras.layers.Layer):
        if not isinstance(layer, (keras.layers.MixUp, keras.layers.CutMix)):
            raise TypeError(
                "`layer` must be a `keras.layers.MixUp` or `keras.layers.CutMix`. "
                f"Received: {layer!r} of type {type(layer).__name__}"
            )
        self.layer = layer

    def __call__(self, images: Any, labels: Any, seed: Any) -> tuple[Any, Any]:
        labels = tf.cast(labels, "float32")
        shares = []

        def mixed(view: Any) -> Any:
            if len(view.shape) != 4:
                # Keras takes a batch of rank 3 for one image, and leaves it as it is.
                raise ValueError(
                    f"{type(self.layer).__name__} mixes images of shape (batch, height, width, "
                    f"channels). Received: {tuple(view.shape)}. If channels are missing, add an "
                    "axis: `x[..., None]`."
                )
            # Each view starts from the same seed, so that partners and shares are the same.
            both = _run(self.layer, {"images": view, "labels": labels}, _Draws(seed))
            shares.append(both["labels"])
            return both["images"]

        return keras.tree.map_structure(mixed, images), shares[0]


def random_shift(steps: int, fill: float = 0.0) -> Step:
    """A step that shifts a signal in time by up to `steps` either way.

    Args:
        steps: Largest shift along the first axis, in time steps.
        fill: What fills the steps that become free, in the unit of the data. It should be silence:
            0 in a waveform, but `math.log(1e-6)`, about -13.8, in the spectrograms of
            `keras_distill.data.log_mel`, where 0 is loud. Defaults to `0.0`.

    Returns:
        A function `(x, seed) -> x` for `Augmentation`, on examples of shape `(time, ...)`.

    Raises:
        TypeError: If `fill` isn't a number.
        ValueError: If `steps` isn't a whole number of at least 0, or `fill` isn't finite; the
            step does if examples are integers and `fill` isn't.

    Example:

    >>> shift = keras_distill.data.random_shift(8, fill=math.log(1e-6))
    """

    whole_number("steps", steps, 0)
    number("fill", fill)

    def shift(x: Any, seed: Any) -> Any:
        if x.dtype.is_integer and fill != int(fill):
            raise ValueError(
                f"`fill` must be an integer for examples of dtype {x.dtype.name}. "
                f"Received: fill={fill!r}"
            )
        by = tf.random.stateless_uniform([], seed, -steps, steps + 1, dtype=tf.int32)
        rest = [[0, 0]] * (x.shape.rank - 1)
        padded = tf.pad(x, [[steps, steps], *rest], constant_values=tf.cast(fill, x.dtype))
        shifted = padded[steps - by : steps - by + tf.shape(x)[0]]
        return tf.ensure_shape(shifted, x.shape)

    return shift


def random_scale(low: float, high: float) -> Step:
    """A step that multiplies each channel of a signal by a factor between `low` and `high`.

    Args:
        low: Smallest factor.
        high: Largest factor.

    Returns:
        A function `(x, seed) -> x` for `Augmentation`, on examples of shape `(..., channels)`.

    Raises:
        TypeError: If `low` or `high` isn't a number.
        ValueError: If one isn't finite, or `low` is above `high`; the step if examples aren't
            floats.
    """

    if number("low", low) > number("high", high):
        raise ValueError(f"`low` must be at most `high`. Received: low={low!r}, high={high!r}")

    def scale(x: Any, seed: Any) -> Any:
        _check_floats(x, "random_scale")
        return x * tf.random.stateless_uniform([x.shape[-1]], seed, low, high, dtype=x.dtype)

    return scale


def random_noise(stddev: float) -> Step:
    """A step that adds Gaussian noise.

    Args:
        stddev: Standard deviation of the noise, in the units of the data.

    Returns:
        A function `(x, seed) -> x` for `Augmentation`.

    Raises:
        TypeError: If `stddev` isn't a number.
        ValueError: If it is below 0 or not finite; the step if examples aren't floats.
    """

    not_negative("stddev", stddev)

    def noise(x: Any, seed: Any) -> Any:
        _check_floats(x, "random_noise")
        return x + tf.random.stateless_normal(tf.shape(x), seed, 0.0, stddev, dtype=x.dtype)

    return noise


def random_unknown(rate: float, unknown: int = 1) -> Step:
    """A step that replaces tokens of a text, except padding (0), by the unknown token.

    Args:
        rate: Share of the tokens that are replaced, from 0 to 1.
        unknown: Number of the unknown token, 1 in `keras.layers.TextVectorization`.

    Returns:
        A function `(x, seed) -> x` for `Augmentation`, on integer tokens of any shape.

    Raises:
        TypeError: If `rate` isn't a number.
        ValueError: If `rate` isn't from 0 to 1, or `unknown` isn't a whole number of at least 0.
    """

    fraction("rate", rate)
    whole_number("unknown", unknown, 0)

    def replace(x: Any, seed: Any) -> Any:
        hit = tf.random.stateless_uniform(tf.shape(x), seed) < rate
        return tf.where(hit & (x != 0), tf.cast(unknown, x.dtype), x)

    return replace


def _check_floats(x, step):
    if not x.dtype.is_floating:
        raise ValueError(
            f"`{step}` is for examples of floats: cast them first, as in "
            f"`lambda x, seed: tf.cast(x, tf.float32)`. Received: dtype {x.dtype.name}"
        )


class _Draws(keras.random.SeedGenerator):
    """Stands in for a layer's seed generator: the n-th draw follows from the seed and n alone."""

    def __init__(self, seed: Any) -> None:
        seed = tf.cast(seed, tf.int64)
        self._seed = seed if seed.shape.rank else tf.stack([seed, tf.zeros_like(seed)])
        self._count = 0

    def next(self, ordered: bool = True) -> Any:
        self._count += 1
        return tf.random.fold_in(self._seed, self._count)


def _parts(step: Any) -> list:
    """A layer and the layers inside it; nothing for a function."""
    return _keras.layers_of(step) if isinstance(step, keras.layers.Layer) else []


def _run(layer: Any, x: Any, draws: Any) -> Any:
    """Calls a layer in training mode with `draws` in place of its seed generators."""
    own = [
        (part, name, value)
        for part in _parts(layer)
        for name, value in vars(part).items()
        if isinstance(value, keras.random.SeedGenerator)
    ]
    try:
        # Bypasses the attribute tracking of Keras: the state of the layers must not change.
        for part, name, _ in own:
            vars(part)[name] = draws
        return layer(x, training=True)
    finally:
        for part, name, generator in own:
            vars(part)[name] = generator
