"""Diffusion: a model that takes noise off images, in fewer and fewer steps.

At time t from 0 to 1, an image x is mixed with noise ε: `z = α x + σ ε` with `α = cos(πt/2)` and
`σ = sin(πt/2)`. A denoiser takes `[z, t]`, of shapes `(batch, ..., channels)` and `(batch, 1)`, and
gives the velocity `v = α ε − σ x`, from which both follow.
"""

import math
import numbers
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill._types import Tensor
from keras_distill.checks import whole_number
from keras_distill.inputs import check_known


def noised(images: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Mixes images with noise, and says what a denoiser is to answer.

    Source: Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models"
    (arXiv:2202.00512), section 2 and appendix D.

    Args:
        images: Images, about -1 to 1, shape `(batch, ..., channels)`.
        noise: Standard normal noise, same shape.
        times: From 0, no noise, to 1, nothing else; shape `(batch, 1)`, or with more axes of 1.

    Returns:
        The mixture `α x + σ ε` and the velocity `α ε − σ x`.

    Raises:
        ValueError: If the shapes differ; of NumPy arrays, if times aren't from 0 to 1, or values of
            images are beyond ±10: not those of images from -1 to 1.

    Example:

    >>> image, noise = np.ones((1, 2, 2, 1)), np.zeros((1, 2, 2, 1))
    >>> mixed, velocity = keras_distill.generators.noised(image, noise, np.array([[0.5]]))
    >>> round(float(mixed[0, 0, 0, 0]), 4), round(float(velocity[0, 0, 0, 0]), 4)
    (0.7071, -0.7071)
    """
    _check_range("images", images, -10, 10, "If they are from 0 to 255, pass `x / 127.5 - 1`.")
    images, noise, times = _alike(images=images, noise=noise, times=times)
    signal, sigma = _shares(times, images)
    return signal * images + sigma * noise, signal * noise - sigma * images


def ddim_step(mixed: Tensor, velocity: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """One step of DDIM: what is left of the noise at an earlier time.

    Source: Salimans and Ho (arXiv:2202.00512), equation 8.

    Args:
        mixed: Images with the noise of time `start`, shape `(batch, ..., channels)`.
        velocity: What the denoiser gave for them, same shape.
        start: Times, shape `(batch, 1)`.
        end: Earlier times, same shape.

    Returns:
        Images with the noise of time `end`, of the shape of `mixed`.

    Raises:
        ValueError: If the shapes differ, or times in a NumPy array aren't from 0 to 1.

    Example:

    >>> image, noise = np.ones((1, 2, 2, 1)), np.zeros((1, 2, 2, 1))
    >>> start, end = np.array([[0.5]]), np.array([[0.0]])
    >>> mixed, velocity = keras_distill.generators.noised(image, noise, start)
    >>> step = keras_distill.generators.ddim_step(mixed, velocity, start, end)
    >>> bool(np.allclose(step, image))
    True
    """
    mixed, velocity, start, end = _alike(mixed=mixed, velocity=velocity, start=start, end=end)
    signal, sigma = _shares(start, mixed)
    next_signal, next_sigma = _shares(end, mixed)
    image, noise = signal * mixed - sigma * velocity, sigma * mixed + signal * velocity
    return next_signal * image + next_sigma * noise


def two_steps(denoiser: keras.Model, steps: int) -> keras.Model:
    """A teacher that answers, for one long step, what takes a denoiser two steps.

    A student of it draws in half as many steps. It begins as a copy of the denoiser, and learns
    by the mean squared error at the times `i / steps`, i from 1 to `steps`, of velocities: that
    weights the error of the image by `1 + α²/σ²`, as the paper's "SNR+1" does.

    Source: Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models"
    (arXiv:2202.00512), algorithm 2.

    Args:
        denoiser: Model of `[mixed, times]` that gives velocities.
        steps: Number of steps in which the student is to draw, half those of the denoiser.

    Returns:
        Model of `[mixed, times]` that gives the velocity which takes a student from `times` to
        `times - 1 / steps` in a step of DDIM.

    Raises:
        TypeError: If `denoiser` isn't a Keras model.
        ValueError: If `denoiser` isn't functional, takes or gives other tensors, or `steps` isn't a
            whole number from 1.

    Example:

    ```python
    student = keras.models.clone_model(denoiser)
    student.set_weights(denoiser.get_weights())
    teacher = keras_distill.generators.two_steps(denoiser, steps=8)
    distiller = keras_distill.Distiller(
        student, teacher, keras.losses.MeanSquaredError(), alpha=0.0
    )
    ```
    """
    whole_number("steps", steps, 1)
    mixed, times = _inputs_like(denoiser)
    middle, end = times - 0.5 / steps, times - 1.0 / steps
    halfway = ddim_step(mixed, _velocity(denoiser, mixed, times), times, middle)
    reached = ddim_step(halfway, _velocity(denoiser, halfway, middle), middle, end)
    signal, sigma = _shares(times, mixed)
    end_signal, end_sigma = _shares(end, mixed)
    ratio = end_sigma / sigma
    image = (reached - ratio * mixed) / (end_signal - ratio * signal)
    return keras.Model([mixed, times], (signal * mixed - image) / sigma, name="two_steps")


def sampler(denoiser: keras.Model, steps: int) -> keras.Model:
    """A model that draws images from noise in steps of DDIM.

    All steps are part of it, so that `keras_distill.tflite.convert` makes one file of them.

    Source: Salimans and Ho (arXiv:2202.00512), equation 8, at times spread evenly.

    Args:
        denoiser: Model of `[mixed, times]` that gives velocities.
        steps: Number of steps.

    Returns:
        Model from standard normal noise, of the shape of `mixed`, to images.

    Raises:
        TypeError: If `denoiser` isn't a Keras model.
        ValueError: If `denoiser` isn't functional, takes or gives other tensors, or `steps` isn't a
            whole number from 1.

    Example:

    ```python
    draw = keras_distill.generators.sampler(denoiser, steps=4)
    images = draw.predict(np.random.default_rng(0).normal(size=(16, 28, 28, 1)))
    ```
    """
    whole_number("steps", steps, 1)
    noise, times = _inputs_like(denoiser)
    first = (slice(None), *[0] * (len(noise.shape) - 2), slice(1))
    zeros = ops.reshape(ops.zeros_like(noise[first]), (-1, *times.shape[1:]))
    mixed = noise
    for step in range(steps, 0, -1):
        start, end = zeros + step / steps, zeros + (step - 1) / steps
        mixed = ddim_step(mixed, _velocity(denoiser, mixed, start), start, end)
    return keras.Model(noise, mixed, name="sampler")


def _alike(**given):
    """Tensors of images, others like them, and times, in the dtype of the first.

    That is `floatx` if it is a list or one of integers.
    """
    for name in list(given)[2:]:
        _check_range(name, given[name], 0, 1, "Of the i-th of n steps it is i / n.")
    tensors = {
        name: x if hasattr(x, "dtype") else ops.convert_to_tensor(x) for name, x in given.items()
    }
    if all(getattr(x.shape, "rank", 0) is not None for x in tensors.values()):
        _check_shapes({name: tuple(x.shape) for name, x in tensors.items()})
    images, *others = tensors.values()
    dtype = keras.backend.result_type(images.dtype, float)
    return [
        x if keras.backend.standardize_dtype(x.dtype) == dtype else ops.cast(x, dtype)
        for x in (images, *others)
    ]


def _check_shapes(shapes):
    """Raises where one tensor would be spread over another: images, others like them, and times."""
    first, second, *times = shapes
    if not _equal(shapes[first], shapes[second]):
        raise ValueError(
            f"`{second}` must have the shape of `{first}`. "
            f"Received: {shapes[second]} and {shapes[first]}"
        )
    batch = shapes[first][0]
    for name in times:
        count, *rest = shapes[name] or (1,)
        if set(rest) - {1} or (None not in (count, batch) and count not in (1, batch)):
            raise ValueError(
                f"`{name}` must have the shape (batch, 1), a time for each of `{first}`. "
                f"Received: {shapes[name]}, with `{first}` of shape {shapes[first]}"
            )


def _equal(shape, other):
    """Whether shapes are the same, as far as their sizes are known."""
    return len(shape) == len(other) and all(
        a == b or None in (a, b) for a, b in zip(shape, other, strict=True)
    )


def _check_range(name, value, low, high, fix):
    """Raises where values that can be seen, those of NumPy and of Python, are out of a range."""
    if not isinstance(value, (np.ndarray, list, tuple, numbers.Number)) or not np.size(value):
        return
    least, most = np.min(value), np.max(value)
    if not (low - 1e-6 <= least and most <= high + 1e-6):
        raise ValueError(
            f"`{name}` must be from {low} to {high}. Received: values from {least:.4g} to "
            f"{most:.4g}. {fix}"
        )


def _shares(times, images):
    """The shares α and σ of image and noise, to be multiplied with images."""
    angles = ops.reshape(times, (-1, *[1] * (len(images.shape) - 1))) * (math.pi / 2)
    return ops.cos(angles), ops.sin(angles)


def _velocity(denoiser, mixed, times):
    (velocity,) = keras.tree.flatten(denoiser([mixed, times]))  # It may be in a list.
    return velocity


def _inputs_like(denoiser: Any) -> list:
    """New inputs of the shapes of a denoiser's."""
    check_known("denoiser", denoiser)
    reads, gives = denoiser.inputs, denoiser.outputs
    if (
        len(reads) != 2
        or set(reads[1].shape[1:]) - {1}
        or not all(keras.backend.is_float_dtype(x.dtype) for x in reads)
        or len(gives) != 1
        or not _equal(gives[0].shape, reads[0].shape)
    ):
        inputs, outputs = (
            ", ".join(f"{x.dtype} {x.shape}" for x in each) for each in (reads, gives)
        )
        raise ValueError(
            "`denoiser` must be a model of two inputs of floats, in this order, mixed images and "
            "times of shape (batch, 1), whose one output, the velocity, has the shape of the "
            f"images: `keras.Model([mixed, times], velocity)`. Received: inputs of {inputs}, "
            f"outputs of {outputs}"
        )
    return [keras.Input(x.shape[1:], dtype=x.dtype) for x in reads]
