"""Views and mixtures that obey a seed."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_distill import data

CROP = [
    keras.layers.ZeroPadding2D(2),
    keras.layers.RandomCrop(8, 8),
    keras.layers.RandomFlip("horizontal"),
]


@pytest.fixture(scope="module")
def images(digits):
    return digits[0][:64]


def test_a_seed_gives_one_view_in_any_order_on_any_threads(images):
    augment = data.Augmentation(CROP)
    eager = {i: augment(image, seed=i).numpy() for i, image in enumerate(images)}
    dataset = tf.data.Dataset.from_tensor_slices(images).enumerate().shuffle(64, seed=1)
    mapped = dataset.map(lambda i, x: (i, augment(x, i)), num_parallel_calls=2, deterministic=False)
    seen = {int(i): view.numpy() for i, view in mapped}
    assert seen.keys() == eager.keys()
    for i, view in seen.items():
        np.testing.assert_array_equal(view, eager[i])


def test_crop_and_flip_give_exactly_the_windows_of_the_padded_image(images):
    augment = data.Augmentation(CROP)
    padded = np.pad(images[0], [(2, 2), (2, 2), (0, 0)])
    windows = [padded[i : i + 8, j : j + 8] for i in range(5) for j in range(5)]
    windows = {w.tobytes() for w in [*windows, *(w[:, ::-1] for w in windows)]}
    seeds = tf.data.Dataset.range(200)
    views = {view.numpy().tobytes() for view in seeds.map(lambda seed: augment(images[0], seed))}
    assert views <= windows
    # 50 windows, each missed by 200 draws with a probability of 2 %.
    assert len(views) > 0.9 * len(windows)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.RandAugment(value_range=(0, 1)),
        keras.layers.RandomColorJitter(value_range=(0, 1), brightness_factor=0.5),
        keras.layers.RandomRotation(0.5),
        keras.layers.GaussianNoise(0.1),
        keras.layers.Dropout(0.5),
        keras.layers.AlphaDropout(0.5),
        keras.layers.Pipeline(
            [keras.layers.GaussianDropout(0.5), keras.layers.SpatialDropout2D(0.5)]
        ),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_that_draw_inside_layers_obey_too(layer, images):
    image = np.repeat(images[0], 3, axis=-1)
    augment = data.Augmentation(layer)
    views = [augment(image, seed).numpy() for seed in (1, 2, 3, 4, 1, 2, 3, 4)]
    for first, again in zip(views[:4], views[4:], strict=True):
        np.testing.assert_array_equal(first, again)
    assert len({view.tobytes() for view in views}) > 1


def test_the_layer_keeps_its_own_seeds(images):
    one, two = (keras.layers.RandomFlip("horizontal", seed=3) for _ in range(2))
    for seed in range(3):
        data.Augmentation(one)(images[0], seed)
    np.testing.assert_array_equal(one(images, training=True), two(images, training=True))


def test_bytes_and_floats_give_the_same_view(images):
    augment = data.Augmentation(CROP)
    pixels = (images[0] * 255).astype("uint8")
    np.testing.assert_array_equal(augment(pixels, 5), augment(pixels.astype("float32"), 5))


def test_what_cannot_obey_a_seed_is_refused():
    with pytest.raises(ValueError, match="AugMix"):
        data.Augmentation(keras.layers.AugMix())
    with pytest.raises(ValueError, match="AugMix"):
        data.Augmentation(keras.layers.Pipeline([keras.layers.AugMix()]))
    with pytest.raises(TypeError, match="steps"):
        data.Augmentation(["flip"])
    with pytest.raises(TypeError, match="MixUp"):
        data.Mixer(keras.layers.RandomFlip())


@pytest.mark.parametrize("layer", [keras.layers.MixUp(0.8), keras.layers.CutMix()])
def test_only_batches_of_images_are_mixed(layer, images):
    mixer = data.Mixer(layer)
    with pytest.raises(ValueError, match=r"(MixUp|CutMix).*\(64, 8, 8\).*add an axis"):
        mixer(images[..., 0], np.eye(64), seed=4)
    with pytest.raises(ValueError, match=r"\(64, 8\)"):
        mixer({"one": images, "two": images[:, 0, :, 0]}, np.eye(64), seed=4)


def test_mixup_is_a_convex_sum_of_two_and_labels_follow(images):
    labels = np.eye(64)
    mixed, shares = data.Mixer(keras.layers.MixUp(0.8))(images, labels, seed=4)
    shares = shares.numpy()
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    assert (np.count_nonzero(shares, axis=1) <= 2).all()
    assert (np.count_nonzero(shares, axis=1) == 2).sum() > 32
    expected = np.tensordot(shares.astype("float64"), images, 1)
    np.testing.assert_allclose(mixed, expected, atol=1e-6)


def test_cutmix_pastes_a_box_and_labels_are_its_area(rng):
    images = rng.uniform(1, 2, (32, 16, 16, 1)).astype("float32")
    mixed, shares = data.Mixer(keras.layers.CutMix())(images, np.eye(32), seed=4)
    mixed, shares = mixed.numpy(), shares.numpy()
    for i in range(32):
        partner = int(np.argmax(shares[i] * (np.arange(32) != i)))
        pasted = mixed[i] != images[i]
        np.testing.assert_array_equal(mixed[i][pasted], images[partner][pasted])
        # The box' edges lie between pixels: one pixel more or less in height and width.
        assert abs(pasted.mean() - (1 - shares[i, i])) < (2 * 16 + 1) / 256


@pytest.mark.parametrize("layer", [keras.layers.MixUp(0.8), keras.layers.CutMix()])
def test_teacher_and_student_see_the_same_mixture(layer, images):
    views = {"student": images, "teacher": images[:, ::-1]}
    mixed, shares = data.Mixer(layer)(views, np.eye(64), seed=9)
    alone, alone_shares = data.Mixer(layer)(images, np.eye(64), seed=9)
    np.testing.assert_array_equal(mixed["student"], alone)
    np.testing.assert_array_equal(shares, alone_shares)
    if isinstance(layer, keras.layers.MixUp):
        np.testing.assert_allclose(mixed["teacher"], alone[:, ::-1], atol=1e-6)


def test_signal_steps(rng):
    signal = rng.normal(size=(50, 3)).astype("float32")
    shift = data.Augmentation(data.random_shift(4))
    shifted = [shift(signal, s).numpy() for s in range(60)]
    padded = np.pad(signal, [(4, 4), (0, 0)])
    possible = {padded[i : i + 50].tobytes() for i in range(9)}
    assert {x.tobytes() for x in shifted} == possible
    ratio = data.Augmentation(data.random_scale(0.5, 2.0))(signal, 1).numpy() / signal
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[0], ratio.shape), rtol=1e-5)
    assert ((ratio >= 0.5) & (ratio <= 2)).all()
    noise = data.Augmentation(data.random_noise(0.1))(np.zeros(100_000, "float32"), 1).numpy()
    assert abs(noise.std() - 0.1) < 0.001
    tokens = np.where(np.arange(10_000) < 9000, 7, 0)
    dropped = data.Augmentation(data.random_unknown(0.2))(tokens, 1).numpy()
    assert abs((dropped[:9000] == 1).mean() - 0.2) < 0.02
    assert (dropped[9000:] == 0).all()


def test_shifts_are_filled_with_silence():
    """Of a log-mel spectrogram, whose silence is the logarithm of what is added to its energy."""
    silence = data.log_mel(8000, seconds=0.5, bands=4)(np.zeros(4000, "float32")).numpy()
    np.testing.assert_allclose(silence, math.log(1e-6), rtol=1e-6)
    sound = np.zeros((30, 4), "float32")
    shift = data.Augmentation(data.random_shift(4, fill=math.log(1e-6)))
    shifted = np.stack([shift(sound, s).numpy() for s in range(40)])
    filled = (shifted != 0).all(-1)
    assert set(filled.sum(1)) == set(range(5))
    np.testing.assert_array_equal(shifted[filled], np.float32(math.log(1e-6)))
    whole = data.Augmentation(data.random_shift(2, fill=7))(np.zeros(9, "int16"), 1)
    assert whole.dtype == "int16"
    with pytest.raises(ValueError, match=r"`fill` must be an integer.*int16.*fill=0\.5"):
        data.Augmentation(data.random_shift(2, fill=0.5))(np.zeros(9, "int16"), 1)


@pytest.mark.parametrize("step", [data.random_noise(0.1), data.random_scale(0.5, 2.0)])
def test_steps_for_floats_say_so(step):
    name = "random_noise" if "noise" in step.__qualname__ else "random_scale"
    with pytest.raises(ValueError, match=f"`{name}` is for examples of floats.*dtype int16"):
        data.Augmentation(step)(np.zeros(8, "int16"), 1)
