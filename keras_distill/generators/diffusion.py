"""Diffusion: a model that takes noise off images, in fewer and fewer steps.

At time t from 0 to 1, an image x is mixed with noise ε: `z = α x + σ ε` with `α = cos(πt/2)` and
`σ = sin(πt/2)`. A denoiser takes `[z, t]`, of shapes `(batch, ..., channels)` and `(batch, 1)`, and
gives the velocity `v = α ε − σ x`, from which both follow.
"""

import math
from typing import Any

import keras
from keras import ops

from keras_distill._types import Tensor
from keras_distill.checks import whole_number


def noised(images: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Mixes images with noise, and says what a denoiser is to answer.

    Source: Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models"
    (arXiv:2202.00512), section 2 and appendix D.

    Args:
        images: Images, about -1 to 1, shape `(batch, ..., channels)`.
        noise: Standard normal noise, same shape.
        times: From 0, no noise, to 1, nothing else; shape `(batch, 1)`.

    Returns:
        The mixture `α x + σ ε` and the velocity `α ε − σ x`.

    Example:

    >>> image, noise = np.ones((1, 2, 2, 1)), np.zeros((1, 2, 2, 1))
    >>> mixed, velocity = keras_distill.generators.noised(image, noise, np.array([[0.5]]))
    >>> round(float(mixed[0, 0, 0, 0]), 4), round(float(velocity[0, 0, 0, 0]), 4)
    (0.7071, -0.7071)
    """
    images, noise, times = _alike(images, noise, times)
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

    Example:

    >>> image, noise = np.ones((1, 2, 2, 1)), np.zeros((1, 2, 2, 1))
    >>> start, end = np.array([[0.5]]), np.array([[0.0]])
    >>> mixed, velocity = keras_distill.generators.noised(image, noise, start)
    >>> step = keras_distill.generators.ddim_step(mixed, velocity, start, end)
    >>> bool(np.allclose(step, image))
    True
    """
    mixed, velocity, start, end = _alike(mixed, velocity, start, end)
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
        ValueError: If `denoiser` doesn't take two inputs, or `steps` isn't a whole number from 1.

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
    halfway = ddim_step(mixed, denoiser([mixed, times]), times, middle)
    reached = ddim_step(halfway, denoiser([halfway, middle]), middle, end)
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
        ValueError: If `denoiser` doesn't take two inputs, or `steps` isn't a whole number from 1.

    Example:

    ```python
    draw = keras_distill.generators.sampler(denoiser, steps=4)
    images = draw.predict(np.random.default_rng(0).normal(size=(16, 28, 28, 1)))
    ```
    """
    whole_number("steps", steps, 1)
    noise, _ = _inputs_like(denoiser)
    first = (slice(None), *[0] * (len(noise.shape) - 2), slice(1))
    zeros = ops.zeros_like(noise[first])
    mixed = noise
    for step in range(steps, 0, -1):
        start, end = zeros + step / steps, zeros + (step - 1) / steps
        mixed = ddim_step(mixed, denoiser([mixed, start]), start, end)
    return keras.Model(noise, mixed, name="sampler")


def _alike(images, *others):
    """Tensors in the dtype of the first, or in `floatx` if that is a list or one of integers."""
    tensors = [x if hasattr(x, "dtype") else ops.convert_to_tensor(x) for x in (images, *others)]
    dtype = keras.backend.result_type(tensors[0].dtype, float)
    return [
        x if keras.backend.standardize_dtype(x.dtype) == dtype else ops.cast(x, dtype)
        for x in tensors
    ]


def _shares(times, images):
    """The shares α and σ of image and noise, to be multiplied with images."""
    angles = ops.reshape(times, (-1, *[1] * (len(images.shape) - 1))) * (math.pi / 2)
    return ops.cos(angles), ops.sin(angles)


def _inputs_like(denoiser: Any) -> list:
    """New inputs of the shapes of a denoiser's."""
    if not isinstance(denoiser, keras.Model) or len(denoiser.inputs) != 2:
        raise ValueError(
            "`denoiser` must be a model of two inputs, `keras.Model([mixed, times], velocity)`. "
            f"Received: denoiser={denoiser!r}"
        )
    return [keras.Input(x.shape[1:], dtype=x.dtype) for x in denoiser.inputs]
