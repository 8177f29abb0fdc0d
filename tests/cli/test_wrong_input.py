"""Wrong files and data, command by command: one line, exit code 2, nothing written."""

import zipfile

import numpy as np
import pytest

from keras_distill import cli, data

NETS = ["--teacher=nets_for_test:large", "--student=nets_for_test:small", "--epochs=1"]


@pytest.fixture(scope="module")
def files(workplace, trained, digits):
    """Files that are wrong in one way each, in the working directory."""
    x, y = digits
    (workplace / "text.keras").write_text("no model")
    (workplace / "text.h5").write_text("no model")
    (workplace / "text.tflite").write_text("no model")
    (workplace / "text.npz").write_text("no arrays")
    with zipfile.ZipFile(workplace / "zip.keras", "w") as file:
        file.writestr("a.txt", "no model")
    whole = (trained / "student.keras").read_bytes()
    (workplace / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (workplace / "file").write_text("")
    np.savez(workplace / "wide.npz", x=np.zeros((100, 9, 9, 1), "float32"), y=np.arange(100) % 10)
    np.savez(workplace / "twelve.npz", x=x[:600], y=np.arange(600) % 12)
    labels = {"y_train": y[:900], "y_test": np.where(np.arange(300) == 7, 10, y[900:1200])}
    np.savez(workplace / "range.npz", x_train=x[:900], x_test=x[900:1200], **labels)
    return workplace


@pytest.fixture(scope="module")
def images(workplace, digits):
    """A folder of images, one of which ends too early."""
    image = pytest.importorskip("PIL.Image")
    for i, (pixels, label) in enumerate(zip(*digits, strict=True)):
        if i == 200:
            break
        path = workplace / "images" / str(label) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray((pixels[..., 0] * 255).astype("uint8")).save(path)
    # Whichever part it falls into, training or comparison reads it.
    path = workplace / "images" / "3" / "3.png"
    path.write_bytes(path.read_bytes()[:60])
    return workplace


def refused(capsys, *arguments):
    """The one line that a command says of what is wrong."""
    assert cli.main([*arguments, "--verbosity=-1"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"keras-distill {arguments[0]}: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demo", "now"], "unexpected argument 'now'"),
        (["demo", "--output=file"], "--output=file is a file"),
        (["inspect"], "name one file"),
        (["inspect", "none.tflite"], "none.tflite"),
        (["inspect", "text.tflite"], "text.tflite"),
        (["inspect", "run"], "run"),
        (["evaluate", "a=text.keras", "--data=digits.npz"], "text.keras is not a model of Keras"),
        (["evaluate", "a=zip.keras", "--data=digits.npz"], "zip.keras"),
        (["evaluate", "a=cut.keras", "--data=digits.npz"], "cut.keras is not a model of Keras"),
        (["evaluate", "a=text.h5", "--data=digits.npz"], "text.h5 is not a model of Keras"),
        (["evaluate", "a=text.tflite", "--data=digits.npz"], "text.tflite"),
        (
            ["evaluate", "a=run/student.keras", "--data=wide.npz"],
            "a reads inputs of shape (8, 8, 1)",
        ),
        (["evaluate", "a=run/student.keras", "--data=twelve.npz"], "Received the label 10"),
        (["evaluate", "a=run/student.keras", "--data=range.npz"], "test label in row 7 is 10"),
        (["report", "run", "a=none.tflite", "--output=out"], "none.tflite"),
        (["report", "images", "--output=out"], "no run in images"),
        (["export", "run/student.keras", "--data=text.npz", "--output=out"], "text.npz"),
        (["export", "run/student.keras", "--data=wide.npz", "--output=out"], "8, 8, 1)"),
        (["export", "text.keras", "--data=digits.npz", "--output=out"], "text.keras"),
        (["export", "run/student.keras", "--data=digits.npz", "--output=file"], "isn't empty"),
        (["store", "--teacher=none.keras", "--data=digits.npz", "--output=out"], "none.keras"),
        (["store", "--teacher=run/teacher.keras", "--data=none.npz", "--output=out"], "none.npz"),
        (["store", "--teacher=run/teacher.keras", "--data=wide.npz", "--output=out"], "(8, 8, 1)"),
        (["tune", "--data=none.npz", *NETS, "--output=out"], "none.npz"),
        (["tune", "--data=digits.npz", *NETS, "--trials=0", "--output=out"], "--trials"),
        (["train", "--data=text.npz", *NETS, "--output=out"], "text.npz can't be read as NPZ"),
        (["train", "--data=range.npz", *NETS, "--output=out"], "test label in row 7 is 10"),
        (
            ["train", "--data=run/student.csv", *NETS, "--output=out"],
            "--label_column must name a column",
        ),
        (
            ["train", "--data=run/student.csv", *NETS, "--label_column=loss", "--text_column=no"],
            "--text_column must name a column",
        ),
        (
            ["train", "--data=images", *NETS, "--image_size=8,x", "--output=out"],
            "--image_size must be HEIGHT,WIDTH, not '8,x'",
        ),
        (["train", "--data=digits.npz", *NETS, "--output=file/out"], "file/out"),
        (
            [
                "train",
                "--data=digits.npz",
                *NETS,
                "--prepare=nets_for_test:shifted",
                "--output=out",
            ],
            "Received a label value of",
        ),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_wrong_files_and_data(arguments, says, files, capsys):
    before = sorted(files.iterdir())
    assert says in refused(capsys, *arguments)
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize("command", ["train", "store", "tune"])
def test_an_unreadable_image_is_named(command, images, trained, capsys):
    arguments = ["--data=images", "--output=out", "--holdout=0.01"]
    arguments += ["--prepare=nets_for_test:scaled"]
    if command == "store":
        arguments += ["--teacher=run/teacher.keras"]
    else:
        arguments += NETS
    with pytest.raises(Exception, match=r"3\.png"):
        list(data.load("images", holdout=0.01).train)
    assert "3.png is not a readable image" in refused(capsys, command, *arguments)
    if command != "store":
        assert not (images / "out").exists()


def test_a_dataset_that_is_missing(workplace, tmp_path, capsys):
    pytest.importorskip("tensorflow_datasets")
    train = ["train", *NETS, "--output=out", f"--data_dir={tmp_path}"]
    assert "neither a file nor a folder" in refused(capsys, *train, "--data=fashion_mist")
    assert "download it first" in refused(capsys, *train, "--data=mnist", "--nodownload")
    assert not (workplace / "out").exists()
