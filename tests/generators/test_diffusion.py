"""Diffusion in fewer steps, against the paper's equations in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_distill
from keras_distill.generators import ddim_step, noised, sampler, two_steps


def denoiser(width=8, shape=(4, 4, 1)):
    mixed, times = keras.Input(shape), keras.Input((1,))
    x = layers.Conv2D(width, 3, padding="same")(mixed)
    x = layers.Activation("tanh")(x + ops.reshape(layers.Dense(width)(times), (-1, 1, 1, width)))
    return keras.Model([mixed, times], layers.Conv2D(shape[-1], 3, padding="same")(x))


def velocity_of(model, z, t):
    """What a model gives, as float64."""
    inputs = [z.astype("float32"), np.full((len(z), 1), t, "float32")]
    return ops.convert_to_numpy(model(inputs)).astype("float64")


def alpha(t):
    return np.cos(np.pi * t / 2)


def sigma(t):
    return np.sin(np.pi * t / 2)


def papers_ddim(model, z, t, s):
    """Equation 8 of arXiv:2202.00512, with the image that a velocity stands for (appendix D)."""
    image = alpha(t) * z - sigma(t) * velocity_of(model, z, t)
    return alpha(s) * image + sigma(s) / sigma(t) * (z - alpha(t) * image)


def test_noised_is_the_papers_mixture(rng):
    x, noise = rng.normal(size=(2, 3, 4, 4, 1))
    t = np.array([[0.0], [0.3], [1.0]])
    mixed, velocity = (ops.convert_to_numpy(v) for v in noised(x, noise, t))
    a, s = alpha(t)[..., None, None], sigma(t)[..., None, None]
    np.testing.assert_allclose(mixed, a * x + s * noise, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(velocity, a * noise - s * x, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(a * mixed - s * velocity, x, atol=1e-5)


def test_one_step_is_equation_8(rng):
    model = denoiser()
    z = rng.normal(size=(3, 4, 4, 1))
    for t, s in ((1.0, 0.75), (0.5, 0.25), (0.25, 0.0)):
        times = [np.full((3, 1), x, "float32") for x in (t, s)]
        step = ddim_step(z.astype("float32"), velocity_of(model, z, t).astype("float32"), *times)
        np.testing.assert_allclose(step, papers_ddim(model, z, t, s), atol=2e-6)


@pytest.mark.parametrize("steps", [1, 4])
def test_target_is_that_of_algorithm_2(steps, rng):
    model = denoiser()
    teacher = two_steps(model, steps)
    z = rng.normal(size=(3, 4, 4, 1))
    for i in range(1, steps + 1):
        t, middle, end = i / steps, (i - 0.5) / steps, (i - 1) / steps
        reached = papers_ddim(model, papers_ddim(model, z, t, middle), middle, end)
        ratio = sigma(end) / sigma(t)
        image = (reached - ratio * z) / (alpha(end) - ratio * alpha(t))
        velocity = (alpha(t) * z - image) / sigma(t)
        np.testing.assert_allclose(velocity_of(teacher, z, t), velocity, rtol=1e-4, atol=2e-5)
        # A student that gives it is, after one step, where the denoiser is after two.
        np.testing.assert_allclose(papers_ddim(teacher, z, t, end), reached, rtol=1e-4, atol=2e-5)


def test_sampler_takes_all_steps(rng):
    model = denoiser()
    z = rng.normal(size=(2, 4, 4, 1))
    drawn = ops.convert_to_numpy(sampler(model, 4)(z.astype("float32")))
    for t in (1.0, 0.75, 0.5, 0.25):
        z = papers_ddim(model, z, t, t - 0.25)
    np.testing.assert_allclose(drawn, z, rtol=1e-4, atol=2e-5)


def test_sampler_of_a_perfect_denoiser_draws_the_image(rng):
    """Where all images are one, the velocity is known."""
    image = rng.normal(size=(4, 4, 1)).astype("float32")
    mixed, times = keras.Input((4, 4, 1)), keras.Input((1,))
    angles = ops.reshape(times, (-1, 1, 1, 1)) * (np.pi / 2)
    noise = (mixed - ops.cos(angles) * image) / ops.sin(angles)
    perfect = keras.Model([mixed, times], ops.cos(angles) * noise - ops.sin(angles) * image)
    drawn = sampler(perfect, 3)(rng.normal(size=(5, 4, 4, 1)).astype("float32"))
    np.testing.assert_allclose(drawn, np.broadcast_to(image, (5, 4, 4, 1)), atol=1e-5)


def gaussian(mean, deviation):
    """The exact denoiser of images whose pixels are normal, in float64."""
    mixed, times = (keras.Input(shape, dtype="float64") for shape in ((4, 4, 1), (1,)))
    angles = ops.reshape(times, (-1, 1, 1, 1)) * (np.pi / 2)
    a, s = ops.cos(angles), ops.sin(angles)
    shrink = a * deviation**2 / ((a * deviation) ** 2 + s**2)
    image = shrink * (mixed - a * mean) + mean
    return keras.Model([mixed, times], (a * mixed - image) / s)


def test_halvings_of_an_exact_denoiser_lose_nothing(rng):
    """8 steps of the teacher and 1 of its student's student's student draw the same."""
    mean, deviation = rng.normal(size=(4, 4, 1)), rng.uniform(0.2, 0.8, size=(4, 4, 1))
    noise = rng.normal(size=(5, 4, 4, 1))

    def drawn(model, steps):
        return ops.convert_to_numpy(sampler(model, steps)(noise))

    exact = model = gaussian(mean, deviation)
    for steps in (4, 2, 1):
        model = two_steps(model, steps)
        np.testing.assert_allclose(drawn(model, steps), drawn(exact, 8), rtol=1e-10, atol=1e-10)
    # What infinitely many steps draw is known. A teacher of more steps is nearer to it.
    few, many = (np.abs(drawn(exact, n) - mean - deviation * noise).mean() for n in (1, 8))
    assert 0 < many < 0.2 * few


def test_student_learns_two_steps_in_one(rng, tmp_path):
    """Through `Distiller`: trained, saved, loaded, and as a file that draws what Keras draws."""
    model = denoiser()
    student = keras.models.clone_model(model)
    student.set_weights(model.get_weights())
    steps = 2
    distiller = keras_distill.Distiller(
        student, two_steps(model, steps), keras.losses.MeanSquaredError(), alpha=0.0
    )
    distiller.compile(keras.optimizers.Adam(1e-2))
    before = model.get_weights()
    z = rng.normal(size=(256, 4, 4, 1)).astype("float32")
    t = rng.integers(1, steps + 1, (256, 1)).astype("float32") / steps
    history = distiller.fit([z, t], epochs=15, batch_size=32, verbose=0).history
    assert history["mean_squared_error"][-1] < 0.2 * history["mean_squared_error"][0]
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)

    draw = sampler(student, steps)
    noise = rng.normal(size=(64, 4, 4, 1)).astype("float32")
    drawn = draw.predict(noise, verbose=0)
    slow = sampler(model, 2 * steps).predict(noise, verbose=0)
    undistilled = sampler(model, steps).predict(noise, verbose=0)
    assert np.square(drawn - slow).mean() < 0.5 * np.square(undistilled - slow).mean()

    draw.save(tmp_path / "draw.keras")
    loaded = keras.saving.load_model(tmp_path / "draw.keras")
    np.testing.assert_allclose(loaded.predict(noise, verbose=0), drawn, atol=1e-6)
    artifact = keras_distill.tflite.convert(draw)
    np.testing.assert_allclose(artifact.predict(noise), drawn, atol=1e-5)


def test_noise_of_a_data_pipeline_may_have_an_unknown_shape():
    def mixed(x):
        noise = tf.numpy_function(np.zeros_like, [x], tf.float32)
        return noised(x, noise, tf.zeros((2, 1)))[0]

    images = np.ones((2, 4, 4, 1), "float32")
    found = next(iter(tf.data.Dataset.from_tensors(images).map(mixed)))
    np.testing.assert_array_equal(found, images)


@pytest.mark.parametrize("make", [two_steps, sampler])
@pytest.mark.parametrize(
    ("change", "received"),
    [
        ({"channels": 2}, r"outputs of float32 \(None, 4, 4, 2\)$"),
        ({"channels": 3}, r"outputs of float32 \(None, 4, 4, 3\)$"),
        ({"twice": True}, r"outputs of float32 \(None, 4, 4, 1\), float32 \(None, 4, 4, 1\)$"),
        ({"times": (8,)}, r"inputs of float32 \(None, 4, 4, 1\), float32 \(None, 8\)"),
        ({"dtype": "int32"}, r"inputs of float32 \(None, 4, 4, 1\), int32 \(None, 1\)"),
        ({"swapped": True}, r"inputs of float32 \(None, 1\), float32 \(None, 4, 4, 1\)"),
    ],
)
def test_other_denoisers_are_refused(make, change, received):
    """Most of them would draw something."""
    mixed = keras.Input((4, 4, 1))
    times = keras.Input(change.get("times", (1,)), dtype=change.get("dtype"))
    x = layers.Conv2D(change.get("channels", 1), 1)(mixed)
    x = x + layers.Reshape((1, 1, 1))(ops.mean(ops.cast(times, "float32"), axis=1, keepdims=True))
    inputs = [times, mixed] if "swapped" in change else [mixed, times]
    with pytest.raises(ValueError, match="`denoiser` must be a model of two inputs.*" + received):
        make(keras.Model(inputs, [x, x] if "twice" in change else x), 2)


class Subclass(keras.Model):
    def call(self, x):
        return x[0]


def test_other_models_are_refused():
    one = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
    for make in (two_steps, sampler):
        with pytest.raises(ValueError, match=r"Received: inputs of float32 \(None, 4\), outputs"):
            make(one, 2)
        with pytest.raises(ValueError, match="`steps` must be a whole number of at least 1"):
            make(denoiser(), 0)
        with pytest.raises(TypeError, match="`denoiser` must be a Keras model. Received: .*'a'"):
            make("a", 2)
        with pytest.raises(ValueError, match="`denoiser` must be functional"):
            make(Subclass(), 2)


def test_a_velocity_in_a_list_is_taken(rng):
    model = denoiser()
    listed = keras.Model(model.inputs, model.outputs)
    z = rng.normal(size=(2, 4, 4, 1))
    np.testing.assert_array_equal(
        sampler(listed, 2).predict(z, verbose=0), sampler(model, 2).predict(z, verbose=0)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": np.zeros((4, 2, 2, 3))}, r"`noise` must have .* of `images`.* \(4, 2, 2, 3\)"),
        ({"noise": np.zeros((1, 2, 2, 1))}, r"`noise` must have the shape .* \(1, 2, 2, 1\)"),
        ({"noise": np.zeros((2, 2, 1))}, r"`noise` must have the shape .* \(2, 2, 1\)"),
        ({"times": np.full((2, 2), 0.5)}, r"`times` must have the shape \(batch, 1\).* \(2, 2\)"),
        ({"times": np.full((3, 1), 0.5)}, r"`times` must have the shape .*Received: \(3, 1\)"),
        ({"times": np.array([[1], [2], [3], [4]])}, "`times` must be from 0 to 1.*1 to 4.*i / n"),
        ({"times": -0.5}, "`times` must be from 0 to 1.*from -0.5 to -0.5"),
        ({"times": np.full((4, 1), np.nan)}, "`times` must be from 0 to 1.*from nan to nan"),
        ({"images": np.full((4, 2, 2, 1), 200, "uint8")}, "`images` must be .*200.*x / 127.5 - 1"),
    ],
)
def test_other_shapes_and_values_are_refused(change, message):
    """NumPy would spread one over the other."""
    images = np.zeros((4, 2, 2, 1))
    given = {"images": images, "noise": images, "times": np.full((4, 1), 0.5)} | change
    with pytest.raises(ValueError, match=message):
        noised(**given)


def test_steps_between_other_shapes_and_times_are_refused():
    z, t = np.zeros((4, 2, 2, 1)), np.full((4, 1), 0.5)
    with pytest.raises(ValueError, match="`velocity` must have the shape of `mixed`"):
        ddim_step(z, z[:1], t, t)
    with pytest.raises(ValueError, match=r"`end` must have the shape .*Received: \(3, 1\)"):
        ddim_step(z, z, t, t[:3])
    with pytest.raises(ValueError, match="`start` must be from 0 to 1.*from 2 to 2"):
        ddim_step(z, z, t * 4, t)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("times", [np.full((2, 1), 0.5), np.ones((2, 1), int)])
def test_times_of_any_dtype_are_taken(dtype, times, rng):
    """Those of NumPy are float64, and images of a data pipeline are tensors."""
    x, noise = rng.normal(size=(2, 2, 4, 4, 1))
    images = ops.convert_to_tensor(x, dtype)
    mixed, velocity = noised(images, noise, times)
    back = ddim_step(mixed, velocity, times, np.zeros((2, 1)))
    assert keras.backend.standardize_dtype(mixed.dtype) == dtype
    np.testing.assert_allclose(back, x, atol=1e-5 if dtype == "float32" else 1e-2)


def test_sampler_draws_images_of_any_size(rng):
    model = denoiser(shape=(None, None, 1))
    noise = rng.normal(size=(2, 6, 4, 1))
    expected = papers_ddim(model, papers_ddim(model, noise, 1.0, 0.5), 0.5, 0.0)
    np.testing.assert_allclose(sampler(model, 2).predict(noise, verbose=0), expected, atol=1e-5)


def test_lists_are_taken():
    mixed, velocity = noised([[1.0, 0.0]], [[0.0, 2.0]], [[0.5]])
    np.testing.assert_allclose(mixed, [[0.5**0.5, 2 * 0.5**0.5]], rtol=1e-6)
    np.testing.assert_allclose(velocity, [[-(0.5**0.5), 2 * 0.5**0.5]], rtol=1e-6)
    assert keras.backend.standardize_dtype(mixed.dtype) == "float32"
    step = ddim_step(mixed, velocity, [[0.5]], [[0]])
    np.testing.assert_allclose(step, [[1.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize("axes", [(1,), (1, 1, 1)])
def test_times_may_have_an_axis_of_1_for_each_of_the_images(axes, rng):
    """Such times can be multiplied with images."""
    plain = denoiser()
    mixed, times = keras.Input((4, 4, 1)), keras.Input(axes)
    model = keras.Model([mixed, times], plain([mixed, layers.Reshape((1,))(times)]))
    z, noise = rng.normal(size=(2, 2, 4, 4, 1))
    t = np.full((2, *axes), 0.5)
    for found, expected in zip(noised(z, noise, t), noised(z, noise, 0.5), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(
        two_steps(model, 2).predict([z, t], verbose=0),
        two_steps(plain, 2).predict([z, t[:, :1].reshape(2, 1)], verbose=0),
        atol=1e-5,
    )
    drawn = sampler(model, 2).predict(z, verbose=0)
    np.testing.assert_allclose(drawn, sampler(plain, 2).predict(z, verbose=0), atol=1e-5)


def test_sizes_of_a_velocity_may_be_unknown(rng):
    mixed, times = keras.Input((4, 4, 1)), keras.Input((1,))
    model = keras.Model([mixed, times], Unknown()(layers.Conv2D(1, 1)(mixed)))
    assert model.output_shape == (None, None, None, 1)
    assert sampler(model, 1).predict(rng.normal(size=(2, 4, 4, 1)), verbose=0).shape == (2, 4, 4, 1)


class Unknown(layers.Layer):
    """Forgets sizes, as resizing to those of another tensor does."""

    def call(self, x):
        return x

    def compute_output_spec(self, x):
        return keras.KerasTensor((None, None, None, x.shape[-1]))
