"""Examples by name, from every kind of source, and what is wrong with them said in one line."""

import csv
import gzip
import warnings

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_distill import data
from keras_distill.data import image_folders


def rows(dataset):
    x, y = zip(*((x.numpy(), y.numpy()) for x, y in dataset), strict=True)
    return np.array(x), np.array(y)


def read_all(loaded):
    return [rows(part) for part in (loaded.train, loaded.validation, loaded.test)]


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


# TensorFlow Datasets.


def test_tfds_by_name(tfds_dir, digits):
    loaded = data.load("mnist", data_dir=tfds_dir, download=False)
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (1350, 150, 297)
    assert loaded.class_names == tuple("0123456789")
    x, y = rows(loaded.test)
    pixels = (digits[0][1500:] * 255).astype("uint8")
    expected = {(p.tobytes(), t) for p, t in zip(pixels, digits[1][1500:], strict=True)}
    assert {(p[2:-2:3, 2:-2:3].tobytes(), t) for p, t in zip(x, y, strict=True)} == expected
    train, validation = (
        {x.tobytes() for x in rows(d)[0]} for d in (loaded.train, loaded.validation)
    )
    assert not train & validation


def test_tfds_resizes(tfds_dir):
    loaded = data.load("mnist", data_dir=tfds_dir, download=False, image_size=(14, 14))
    assert loaded.train.element_spec[0] == tf.TensorSpec((14, 14, 1), tf.uint8)


def test_tfds_reads_fashion_mnist_and_cifar10(data_dir, tmp_path):
    from staging import idx_images, stage

    fashion = idx_images(data_dir / "fashion_mnist", "train", 300)
    test = idx_images(data_dir / "fashion_mnist", "t10k", 100)
    stage("fashion_mnist", str(tmp_path), fashion, test)
    x, y = rows(data.load("fashion_mnist", data_dir=str(tmp_path), download=False).test)
    assert sorted(y.tolist()) == sorted(test[1].tolist())
    assert {i.tobytes() for i in x} == {i.tobytes() for i in test[0]}
    with np.load(data_dir / "cifar10" / "cifar10.npz") as file:
        tile = file["webp_test"][: file["webp_test_off"][1]].tobytes()
        labels = file["y_test"][:100]
    (tmp_path / "tile.webp").write_bytes(tile)
    tile = np.asarray(Image.open(tmp_path / "tile.webp").convert("RGB"))
    images = tile.reshape(10, 32, 10, 32, 3).swapaxes(1, 2).reshape(100, 32, 32, 3)
    stage("cifar10", str(tmp_path), (images, labels), (images, labels))
    x, y = rows(data.load("cifar10", data_dir=str(tmp_path), download=False).test)
    assert {i.tobytes() for i in x} == {i.tobytes() for i in images}


def test_tfds_says_what_is_missing(tfds_dir, tmp_path):
    with pytest.raises(ValueError, match="Did you mean fashion_mnist") as error:
        data.load("fashion_minst")
    one_line(error)
    with pytest.raises(ValueError, match="neither a file nor a folder") as error:
        data.load("no/such/folder")
    one_line(error)
    with pytest.raises(ValueError, match="download it first") as error:
        data.load("cifar10", data_dir=str(tmp_path), download=False)
    assert str(tmp_path) in one_line(error)


# Folders of images.


@pytest.fixture
def folder(tmp_path, digits):
    for label in (3, 5, 8):
        (tmp_path / str(label)).mkdir()
        for i in np.flatnonzero(digits[1] == label)[:40]:
            pixels = (digits[0][i, ..., 0] * 255).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / str(label) / f"{i}.png")
    return tmp_path


def test_folder(folder, digits):
    loaded = data.load(folder)
    assert loaded.class_names == ("3", "5", "8")
    parts = read_all(loaded)
    assert [len(y) for _, y in parts] == [96, 12, 12]
    seen = {(x.tobytes(), (3, 5, 8)[y]) for xs, ys in parts for x, y in zip(xs, ys, strict=True)}
    chosen = np.concatenate([np.flatnonzero(digits[1] == label)[:40] for label in (3, 5, 8)])
    pixels = (digits[0] * 255).astype("uint8")
    assert seen == {(pixels[i].tobytes(), digits[1][i]) for i in chosen}
    again = rows(data.load(folder).train)
    np.testing.assert_array_equal(again[0], parts[0][0])


def test_folder_with_splits_resizes(folder):
    train = folder / "split" / "train"
    train.mkdir(parents=True)
    for label in ("3", "5", "8"):
        (folder / label).rename(train / label)
    test = folder / "split" / "test" / "5"
    test.mkdir(parents=True)
    Image.new("L", (20, 30), 77).save(test / "a.jpg")
    loaded = data.load(folder / "split", image_size=(16, 12))
    x, y = rows(loaded.test)
    assert x.shape == (1, 16, 12, 1)
    assert y.tolist() == [1]
    assert np.abs(x.astype(int) - 77).max() <= 1


def test_folder_names_the_image_that_cannot_be_read(folder):
    image = next((folder / "5").iterdir())
    whole = image.read_bytes()
    for content in (b"", b"not an image", whole[: len(whole) // 2]):
        image.write_bytes(content)
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=image.name):
            read_all(data.load(folder))


def test_folder_says_what_is_wrong(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(ValueError, match="no folders of images"):
        data.load(empty)
    (empty / "cat").mkdir()
    with pytest.raises(ValueError, match="hold no images"):
        data.load(empty)


def test_images_of_several_sizes(folder, monkeypatch):
    Image.fromarray(np.full((30, 20), 77, "uint8")).save(folder / "5" / "large.png")
    message = r"(large.png is 30 pixels high and 20 wide, but .*\d+.png is 8 and 8|"
    message += r"png is 8 pixels high and 8 wide, but .*large.png is 30 and 20)\. Give `image_size`"
    with pytest.raises(ValueError, match=message):
        data.load(folder)
    x = read_all(data.load(folder, image_size=(6, 4)))[0][0]
    assert x.shape[1:] == (6, 4, 1)
    # Of many images, not all are looked at before.
    monkeypatch.setattr(image_folders, "_COMPARED", 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        read_all(data.load(folder))
    for wrong in (32, (32,), (0, 8), (8.0, 8), "8,8"):
        with pytest.raises(ValueError, match=r"`image_size` must be \(height, width\)"):
            data.load(folder, image_size=wrong)


def test_arguments_of_other_sources_are_refused(folder, tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((40, 2)), y=np.arange(40) % 2)
    (tmp_path / "a.csv").write_text("x,y\n" + "1,2\n" * 40)
    for source, argument, value in [
        ("a.npz", "image_size", (8, 8)),
        ("a.csv", "image_size", (8, 8)),
        ("a.npz", "target", "y"),
        ("a.npz", "text", "x"),
        ("", "target", "y"),
    ]:
        with pytest.raises(ValueError, match=f"`{argument}` is for .*Received: {argument}="):
            data.load(tmp_path / source, **{argument: value})


# NPZ.


def test_npz(tmp_path, digits):
    path = tmp_path / "digits.npz"
    x, y = digits
    np.savez(path, x=x, y=y)
    loaded = data.load(path, holdout=0.2)
    parts = read_all(loaded)
    assert [len(y) for _, y in parts] == [1079, 359, 359]
    assert loaded.class_names == tuple("0123456789")
    seen = sorted((x.tobytes(), int(y)) for xs, ys in parts for x, y in zip(xs, ys, strict=True))
    assert seen == sorted((a.tobytes(), int(b)) for a, b in zip(x, y, strict=True))
    np.savez(path, x_train=x[:1000], y_train=y[:1000, None], x_test=x[1000:], y_test=y[1000:, None])
    loaded = data.load(path)
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (900, 100, 797)
    np.testing.assert_array_equal(rows(loaded.test)[1], y[1000:])


def test_npz_of_real_values_is_regression(tmp_path, digits):
    np.savez(tmp_path / "r.npz", x=digits[0], y=digits[1].astype("float32") + 0.5)
    assert data.load(tmp_path / "r.npz").class_names is None


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"a": np.zeros(3)}, "no array 'x'"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(4, int)}, "x has 3 rows, y has 4"),
        ({"x": np.array([[0, 1], [np.nan, 0]]), "y": np.arange(2)}, r"x\[1\] holds NaN"),
        ({"x": np.zeros((30, 2)), "y": np.arange(30) - 1}, "row 0 is -1, out of the range 0 to 28"),
        (
            {
                "x_train": np.zeros((30, 2)),
                "y_train": np.arange(30) % 3,
                "x_test": np.zeros((2, 2)),
                "y_test": np.array([1, 3]),
            },
            "test label in row 1 is 3, out of the range 0 to 2",
        ),
        ({"x": np.array([{}, 1], object), "y": np.arange(2)}, "can't be read"),
    ],
)
def test_npz_says_what_is_wrong(tmp_path, arrays, says):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=says) as error:
        data.load(tmp_path / "bad.npz")
    assert "bad.npz" in one_line(error)


def test_npz_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="no file"):
        data.load(tmp_path / "none.npz")
    np.savez_compressed(tmp_path / "whole.npz", x=np.arange(9999), y=np.arange(9999))
    altered = bytearray((tmp_path / "whole.npz").read_bytes())
    altered[200:2000] = bytes(1800)
    for content in (b"hello", b"", bytes(altered)):
        (tmp_path / "text.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"text\.npz can't be read"):
            data.load(tmp_path / "text.npz")
    with pytest.raises(ValueError, match="holdout"):
        data.load(tmp_path / "text.npz", holdout=0.7)


# Tables.


def write_table(path, header, lines):
    with open(path, "w", newline="") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(
            [header, *lines]
        )
    return path


def test_table_of_numbers_blanks_and_categories(tmp_path, rng):
    size = 200
    a = rng.normal(5, 3, size)
    blank = rng.random(size) < 0.2
    color = rng.choice(["red", "green"], size)
    price = 2 * a + (color == "red")
    lines = [
        ("" if b else f"{v:.6f}", c, f"{p:.6f}")
        for v, b, c, p in zip(a, blank, color, price, strict=True)
    ]
    path = write_table(tmp_path / "t.csv", ("a", "color", "price"), lines)
    loaded = data.load(path, target="price")
    assert loaded.class_names is None
    (x, y), (x_test, _) = rows(loaded.train), rows(loaded.test)
    assert x.shape == (160, 4)
    assert x_test.shape == (20, 4)
    known = x[:, 1] == x[:, 1].min()
    # Standardized by the training part: the filled-in median is one value among them.
    np.testing.assert_allclose(x[:, 0].mean(), 0, atol=1e-5)
    np.testing.assert_allclose(x[:, 0].std(), 1, atol=1e-5)
    assert len(np.unique(x[~known, 0])) == 1
    np.testing.assert_array_equal(x[:, 2] + x[:, 3], 1)
    # Columns and target belong together: `a` is a line in price and color.
    design = np.stack([x[known, 0], x[known, 3], np.ones(known.sum())], 1)
    residual = np.linalg.lstsq(design.astype("float64"), y[known], rcond=None)[1]
    assert residual < 1e-6


def test_table_of_texts(tmp_path):
    lines = [(f"word {i}", "ab"[i % 2]) for i in range(150)]
    path = write_table(tmp_path / "t.tsv", ("text", "class"), lines)
    loaded = data.load(path, target="class", text="text")
    assert loaded.class_names == ("a", "b")
    x, y = rows(loaded.train)
    assert [int(text.split()[1]) % 2 for text in x] == y.tolist()
    with pytest.raises(ValueError, match="text='text'"):
        data.load(path, target="class")
    with pytest.raises(ValueError, match="two columns. Received: text='class', target='class'"):
        data.load(path, target="class", text="class")


def test_texts_that_are_all_numbers(tmp_path):
    """They were numbers, which no lookup takes."""
    lines = [(f"0{i}", "ab"[i % 2]) for i in range(60)]
    path = write_table(tmp_path / "t.csv", ("code", "class"), lines)
    x, _ = rows(data.load(path, target="class", text="code").train)
    assert {text.decode() if isinstance(text, bytes) else str(text) for text in x} < {
        code for code, _ in lines
    }


def test_whole_numbers_stay_what_they_are(tmp_path):
    """In float32, times in seconds since 1970 are multiples of 64 or 128 seconds."""
    path = tmp_path / "ratings.csv"
    path.write_text("time,film,rating,y\n964982703,1,0.1,1\n964982704,3,,16777217\n")
    columns = data.read_table(path)
    assert columns["time"].tolist() == [964982703, 964982704]
    assert columns["y"].tolist() == [1, 16777217]
    dtypes = {name: column.dtype.name for name, column in columns.items()}
    assert dtypes == {"time": "float64", "film": "float32", "rating": "float32", "y": "float64"}


def test_california_housing(data_dir, tmp_path):
    from staging import complete_lines

    text = complete_lines(data_dir / "california_housing" / "housing.csv.gz")
    path = tmp_path / "housing.csv"
    path.write_text(text)
    lines = text.splitlines()
    columns = data.read_table(path)
    assert np.isnan(columns["total_bedrooms"]).sum() == sum(",," in line for line in lines) > 100
    loaded = data.load(path, target="median_house_value")
    x, y = rows(loaded.test)
    assert len(y) == len(loaded.validation) == round(0.1 * (len(lines) - 1))
    # Nine columns, one of them text with five values, and a mark for one that has blanks.
    categories = {line.split(",")[-1] for line in lines[1:]}
    assert x.shape[1] == 8 + 1 + len(categories)
    assert np.isfinite(x).all()
    prices = [float(line.split(",")[8]) for line in lines[1:]]
    assert set(y.tolist()) <= set(prices)


def test_table_may_end_in_blank_lines(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3,4\n\n\n")
    np.testing.assert_array_equal(data.read_table(path)["b"], [2, 4])
    path.write_text("a,b\n1,2\n\n3,4\n")
    with pytest.raises(ValueError, match="line 3: 0 values where the first line names 2"):
        data.read_table(path)


@pytest.mark.parametrize(
    ("lines", "target", "says"),
    [
        ([(1, 2)], "c", "must name a column of .*: a, b. Received: target='c'"),
        ([(1, 2)], None, "must name a column"),
        ([(1, 2), (1,)], "b", "line 3: 1 values where the first line names 2"),
        ([(1, 2), (1, "")], "b", "line 3: the column 'b' is blank"),
        ([(1, "yes"), (1, "no"), (1, " ")], "b", "line 4: the column 'b' is blank"),
        ([], "b", "holds no examples"),
        ([(1, 2)], "b", "too few examples"),
    ],
)
def test_table_says_what_is_wrong(tmp_path, lines, target, says):
    path = write_table(tmp_path / "t.csv", ("a", "b"), lines)
    with pytest.raises(ValueError, match=says) as error:
        data.load(path, target=target)
    assert "t.csv" in one_line(error)


@pytest.fixture
def iris(tmp_path):
    """Classes 0, 1 and 2 that two numbers tell apart."""
    lines = [(i % 3 + 0.1 * (i % 7), -(i % 3), i % 3) for i in range(150)]
    return write_table(tmp_path / "iris.csv", ("a", "b", "kind"), lines)


def test_integers_of_a_table_are_regressed_with_a_warning(iris):
    with pytest.warns(UserWarning, match=r"'kind' of .*iris.csv holds 3 distinct integers") as said:
        loaded = data.load(iris, target="kind")
    assert loaded.class_names is None
    assert 'task="classification"' in str(said[0].message)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data.load(iris, target="kind", task="regression").class_names is None
        assert data.load(iris, target="a").class_names is None


def test_the_task_makes_classes_of_integers(tmp_path, iris):
    loaded = data.load(iris, target="kind", task="classification")
    assert loaded.class_names == ("0", "1", "2")
    for x, y in read_all(loaded):
        assert y.dtype == "int32"
        np.testing.assert_array_equal(np.unique(x[:, 1])[2 - y], x[:, 1])
    path = write_table(tmp_path / "t.csv", ("a", "y"), [(i, 5 + 2 * (i % 2)) for i in range(40)])
    loaded = data.load(path, target="y", task="classification")
    assert loaded.class_names == ("5", "7")
    assert set(rows(loaded.train)[1]) == {0, 1}


def test_the_task_of_arrays(tmp_path):
    x, y = np.arange(60.0), np.arange(60) % 3
    np.savez(tmp_path / "f.npz", x=x, y=y.astype("float64"))
    with pytest.warns(UserWarning, match="f.npz: y holds 3 distinct integers"):
        assert data.load(tmp_path / "f.npz").class_names is None
    loaded = data.load(tmp_path / "f.npz", task="classification")
    assert loaded.class_names == ("0", "1", "2")
    np.savez(tmp_path / "i.npz", x=x, y=y)
    loaded = data.load(tmp_path / "i.npz", task="regression")
    assert loaded.class_names is None
    assert rows(loaded.test)[1].dtype == "float32"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"target": "a", "task": "classification"}, "holds 0.1, which isn't a class"),
        ({"target": "kind", "task": "ranking"}, "`task` must be one of"),
        ({"target": "name", "task": "regression"}, "holds texts, which are classes"),
        ({"target": "kind", "test": "none.csv"}, "no file none.csv"),
    ],
)
def test_the_task_says_what_is_wrong(tmp_path, arguments, says):
    lines = [(i + 0.1, i % 3, "xy"[i % 2]) for i in range(30)]
    path = write_table(tmp_path / "t.csv", ("a", "kind", "name"), lines)
    with pytest.raises(ValueError, match=says) as error:
        data.load(path, **arguments)
    one_line(error)


def test_tasks_and_files_are_for_tables(folder, tmp_path):
    for arguments in ({"task": "regression"}, {"test": tmp_path / "t.csv"}):
        with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` is for tables"):
            data.load(folder, **arguments)
    np.savez(tmp_path / "a.npz", x=np.zeros(9), y=np.zeros(9))
    with pytest.raises(ValueError, match="`test` is for tables; an NPZ file has arrays"):
        data.load(tmp_path / "a.npz", test=tmp_path / "t.csv")


def test_a_table_in_three_files(tmp_path):
    parts = {"train": range(40), "validation": range(40, 50), "test": range(50, 70)}
    paths = {}
    for name, numbers in parts.items():
        # The columns may stand in another order; "00" is a text among texts.
        lines = [(i, "xy"[i % 2], "00" if name == "test" else "red") for i in numbers]
        header = ("number", "y", "color")
        if name == "test":
            header, lines = header[::-1], [line[::-1] for line in lines]
        paths[name] = write_table(tmp_path / f"{name}.tsv", header, lines)
    loaded = data.load(
        paths["train"], target="y", validation=paths["validation"], test=paths["test"]
    )
    assert loaded.class_names == ("x", "y")
    found = dict(zip(parts, read_all(loaded), strict=True))
    mean, std = np.arange(40).mean(), np.arange(40).std()
    for name, (x, y) in found.items():
        numbers = np.sort(np.array(parts[name]))
        order = np.argsort(x[:, 0])
        np.testing.assert_allclose(x[order, 0], (numbers - mean) / std, rtol=1e-5)
        np.testing.assert_array_equal(y[order], numbers % 2)
        # What training doesn't show is no category of its own.
        np.testing.assert_array_equal(x[:, 1:].sum(1), name != "test")
    only_test = data.load(paths["train"], target="y", test=paths["test"], holdout=0.2)
    assert [len(y) for _, y in read_all(only_test)] == [32, 8, 20]


def test_columns_of_one_name_or_with_infinity_are_refused(tmp_path):
    path = write_table(tmp_path / "t.csv", ("a", "a", "b"), [(1, 2, 3)] * 20)
    with pytest.raises(ValueError, match="two columns of the name 'a'"):
        data.load(path, target="b")
    path = write_table(tmp_path / "t.csv", ("a", "c", "b"), [(1, 2, 3)] * 20 + [(1, "inf", 3)])
    with pytest.raises(ValueError, match="column 'c' holds infinity"):
        data.load(path, target="b", task="regression")


def test_a_table_in_several_files_says_what_is_wrong(tmp_path):
    train = write_table(tmp_path / "t.csv", ("a", "y"), [(i, "xy"[i % 2]) for i in range(20)])
    for header, line, says in [
        (("a", "z"), (1, "x"), r"o.csv has the columns a, z, but .*t.csv has a, y"),
        (("a", "y"), (1, "q"), "holds the class q, which the training data lack"),
        (("a", "y"), (1, " "), r"o.csv, line 2: the column 'y' is blank"),
        (("a", "y"), (1,), r"o.csv, line 2: 1 values"),
    ]:
        other = write_table(tmp_path / "o.csv", header, [line])
        with pytest.raises(ValueError, match=says) as error:
            data.load(train, target="y", test=other)
        one_line(error)


def test_compressed_tables_are_those_that_they_hold(tmp_path, data_dir):
    from staging import complete_lines

    text = complete_lines(data_dir / "california_housing" / "housing.csv.gz")
    (tmp_path / "housing.csv").write_text(text)
    (tmp_path / "housing.csv.gz").write_bytes(gzip.compress(text.encode()))
    whole, packed = (data.load(tmp_path / f"housing.csv{end}", target="median_income").test
                     for end in ("", ".gz"))  # fmt: skip
    for a, b in zip(rows(whole), rows(packed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_tables_that_cannot_be_read_are_named(tmp_path):
    path = write_table(tmp_path / "t.csv", ("a", "y"), [(i, "x") for i in range(99)])
    content = path.read_bytes()
    (tmp_path / "latin.csv").write_bytes(content + "1,größe\n".encode("latin-1"))
    (tmp_path / "text.csv.gz").write_bytes(content)
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(content)[:40])
    for name, says in [
        ("latin.csv", "latin.csv isn't text in UTF-8"),
        ("text.csv.gz", "text.csv.gz can't be read as a table"),
        ("cut.csv.gz", "cut.csv.gz can't be read as a table"),
    ]:
        with pytest.raises(ValueError, match=says) as error:
            data.load(tmp_path / name, target="y")
        one_line(error)
    path.write_bytes(b"\xef\xbb\xbf" + content)  # As Excel begins a file.
    assert list(data.read_table(path)) == ["a", "y"]
