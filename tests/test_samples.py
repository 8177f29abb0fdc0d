"""Data of every form gives the same samples."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_distill import samples

X = np.arange(24, dtype="float32").reshape(6, 4)
Y = np.arange(6)
SHAPES = {"image": (4,)}
TWO = {"a": (4,), "b": (None,)}


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[2 * index : 2 * index + 2], Y[2 * index : 2 * index + 2]


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0])


LABELED = {
    "pair": (X, Y),
    "triple": (X, Y, np.ones(6)),
    "batched dataset": dataset(X, Y).batch(4),
    "dataset of samples": dataset(X, Y),
    "weighted dataset": dataset(X, Y, np.ones(6)).batch(2),
    "PyDataset": Batches(),
    "list of batches": [(X[:3], Y[:3]), (X[3:], Y[3:])],
    "generator of samples": lambda: zip(X, Y, strict=True),
    "pair with a dict": ({"image": X}, Y),
}
UNLABELED = {
    "array": X,
    "dict": {"image": X},
    "list of one array": [X],
    "list of samples": list(X),
    "batched dataset": dataset(X).batch(4),
    "dataset of dicts": dataset({"image": X}).batch(4),
    "list of batches": [X[:3], X[3:]],
    "tuple of batches": (X[:4], X[4:]),
}


@pytest.mark.parametrize("form", LABELED)
def test_labeled_forms(form):
    inputs, labels = samples.read(LABELED[form], SHAPES)
    np.testing.assert_array_equal(inputs["image"], X)
    np.testing.assert_array_equal(labels, Y)


@pytest.mark.parametrize("labels", [X[::-1] * 3, X > 2])
def test_labels_that_look_like_inputs(labels):
    """Those of an autoencoder or a mask are labels, as in `fit`, and no further inputs."""
    inputs, found = samples.read((X, labels), SHAPES)
    np.testing.assert_array_equal(inputs["image"], X)
    np.testing.assert_array_equal(found, labels)
    batches = [batch["image"] for batch in samples.batches((X, labels), SHAPES, batch_size=4)]
    np.testing.assert_array_equal(np.concatenate(batches), X)


@pytest.mark.parametrize("labels", [X * 255, X > 2], ids=["other values", "other dtype"])
def test_lists_of_inputs_and_labels_are_warned_of(labels):
    """A list has batches of inputs: labels in it would be read as inputs, too."""
    with pytest.warns(UserWarning, match=r"`calibration` is a list of two.*tuple, `\(x, y\)`"):
        samples.read([X, labels], SHAPES, argument="calibration")
    with pytest.warns(UserWarning, match=r"`data` is a list of two arrays"):
        list(samples.batches([X, labels], SHAPES, batch_size=4))


@pytest.mark.parametrize(
    "pair",
    [
        np.array([[["a"], ["b"]], [["see"], ["longer"]]], dtype=object),
        [np.array([["a"], ["b"]]), np.array([["see"], ["longer"]])],
        [tf.constant([["a"], ["b"]]), tf.constant([["see"], ["longer"]])],
    ],
    ids=["objects", "strings", "tensors"],
)
@pytest.mark.filterwarnings("error")
def test_lists_of_two_batches_of_text_are_batches(pair):
    batches = list(samples.batches(list(pair), {"x": (1,)}, batch_size=2))
    assert sum(len(batch["x"]) for batch in batches) == sum(map(len, pair))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.filterwarnings("error")
def test_nan_in_one_of_two_batches_is_no_reason_to_take_it_for_labels(value):
    """It is refused as what it is."""
    batches = [X[:3], X[3:].copy()]
    batches[1][0, 0] = value
    with pytest.raises(ValueError, match="NaN or infinity in input 'image'"):
        list(samples.batches(batches, SHAPES, batch_size=2))


def test_a_list_of_text_and_numbers_is_warned_of():
    with pytest.warns(UserWarning, match="two arrays of other dtypes"):
        samples.read([np.array([["a"], ["b"]]), np.float32([[0], [1]])], {"x": (1,)})


@pytest.mark.parametrize("form", UNLABELED)
def test_unlabeled_forms(form):
    inputs, labels = samples.read(UNLABELED[form], SHAPES)
    np.testing.assert_array_equal(inputs["image"], X)
    assert labels is None


@pytest.mark.parametrize("form", [*LABELED.items(), *UNLABELED.items()], ids=lambda form: form[0])
def test_count_and_batches_of_every_form(form):
    data = form[1]
    inputs, labels = samples.read(data, SHAPES, 5)
    np.testing.assert_array_equal(inputs["image"], X[:5])
    assert labels is None or len(labels) == 5
    batches = [batch["image"] for batch in samples.batches(data, SHAPES, batch_size=4)]
    np.testing.assert_array_equal(np.concatenate(batches), X)
    assert max(map(len, batches)) <= 4 or form[0] == "list of one array"


@pytest.mark.parametrize(
    "data",
    [
        (X, X[:, :3]),
        [X, X[:, :3]],
        {"b": X[:, :3], "a": X},
        {"b": X[:, :3], "a": X, "unused": X},
        ({"b": X[:, :3], "a": X}, Y),
        ([X, X[:, :3]], Y),
        dataset({"a": X, "b": X[:, :3]}).batch(4),
        lambda: [((X, X[:, :3]), Y)],
    ],
)
def test_several_inputs(data):
    inputs, _ = samples.read(data, TWO)
    assert list(inputs) == ["a", "b"]
    np.testing.assert_array_equal(inputs["a"], X)
    np.testing.assert_array_equal(inputs["b"], X[:, :3])


def test_labels_of_several_outputs():
    data = dataset(X, {"one": Y, "other": Y[:, None]}).batch(4)
    _, labels = samples.read(data, SHAPES)
    np.testing.assert_array_equal(labels["one"], Y)
    np.testing.assert_array_equal(labels["other"], Y[:, None])


def test_endless_data_is_read_up_to_a_count():
    endless = dataset(X).batch(4).repeat()
    inputs, _ = samples.read(endless, SHAPES, 10)
    assert inputs["image"].shape == (10, 4)
    with pytest.raises(ValueError, match="`data` repeats without end"):
        samples.read(endless, SHAPES)


def test_the_only_input_of_a_file_may_have_any_name():
    inputs, _ = samples.read({"other": X}, SHAPES)
    np.testing.assert_array_equal(inputs["image"], X)
    with pytest.raises(ValueError, match=r"lacks inputs \['image'\]"):
        next(samples.batches({"other": X}, SHAPES, batch_size=2))


@pytest.mark.parametrize(
    ("data", "shapes", "message"),
    [
        (X[:0], SHAPES, "`x` has no samples"),
        ([], SHAPES, "`x` has no samples"),
        (X[:, :3], SHAPES, r"`x` for input 'image' must have shape \(samples, 4\).*\(6, 3\)"),
        ([X[:2], X[:, :3]], SHAPES, r"must have shape \(samples, 4\)"),
        (np.where(X == 5, np.nan, X), SHAPES, "`x` has NaN or infinity in input 'image'"),
        ((X, Y[:3]), SHAPES, r"`x` must have the same number of samples. Received: \[3, 6\]"),
        ([X, X[:4]], TWO, r"`x` must have the same number of samples. Received: \[4, 6\]"),
        ({"a": X}, TWO, r"`x` lacks inputs \['b'\]"),
        (X, TWO, "`x` must have 2 inputs"),
    ],
)
def test_data_that_does_not_fit_is_refused(data, shapes, message):
    with pytest.raises(ValueError, match=message):
        samples.read(data, shapes, argument="x")


@pytest.mark.parametrize("data", [7, "folder"])
def test_data_of_no_known_form_is_refused(data):
    with pytest.raises(TypeError, match="`data` must be an array.*Received: data="):
        samples.read(data, SHAPES)


def test_texts_of_held_out_data_are_str():
    x, y = samples.labeled(dataset(np.array([b"one", b"two"]), Y[:2]).batch(2))
    assert x.tolist() == ["one", "two"]
    assert y.tolist() == [0, 1]
