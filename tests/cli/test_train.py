"""Runs: what they leave, Ctrl-C and going on, and what is wrong with the settings."""

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics as sk

from keras_distill import cli, data
from keras_distill.cli import interrupts, models, runs

SMALL = ["--data=digits.npz", "--teacher=nets_for_test:large", "--student=nets_for_test:small"]
SMALL += ["--verbosity=-1"]


def test_a_run_leaves_models_history_events_settings_and_the_comparison(trained):
    names = {path.name for path in trained.iterdir()}
    assert names == {
        *("settings.flags", "log.txt", "comparison.json", "events", "checkpoints"),
        *(f"{n}.{e}" for n in ("teacher", "baseline", "student") for e in ("keras", "csv")),
    }
    assert not any((trained / "checkpoints").iterdir())
    rows = json.loads((trained / "comparison.json").read_text())["candidates"]
    accuracy = {row["name"]: row["accuracy"] for row in rows}
    assert accuracy.keys() == {"teacher", "student on labels", "student distilled"}
    assert min(accuracy.values()) > 0.8
    history = (trained / "student.csv").read_text().splitlines()
    assert len(history) == 9
    assert {"soft_targets", "student_loss", "val_accuracy"} <= set(history[0].split(","))
    for name in ("teacher", "baseline", "student"):
        assert list((trained / "events" / name / "train").glob("events.*"))
    assert "student: epoch 8 of 8" in (trained / "log.txt").read_text()


def test_the_numbers_of_the_comparison_are_those_of_the_models(trained, digits):
    from keras_distill import data

    x, y = next(iter(data.load("digits.npz").test.batch(1000)))
    rows = json.loads((trained / "comparison.json").read_text())["candidates"]
    for row, name in zip(rows, ("teacher", "baseline", "student"), strict=True):
        model = keras.saving.load_model(trained / f"{name}.keras")
        right = model.predict(x, verbose=0).argmax(1) == y
        assert row["accuracy"] == pytest.approx(right.numpy().mean())


@pytest.mark.long
def test_settings_give_the_same_run_again(trained, capsys):
    arguments = ["train", f"--flagfile={trained / 'settings.flags'}", "--output=again", "--json"]
    assert cli.main([*arguments, "--nobaseline", "--verbosity=-1"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["folder"] == "again"
    first, again = (keras.saving.load_model(f"{f}/student.keras") for f in ("run", "again"))
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "answers",
    [
        [],
        pytest.param(["--answers=told_to_the_end", "--views=3"], marks=pytest.mark.nightly),
    ],
)
@pytest.mark.long
@pytest.mark.usefixtures("optimized_graphs")
def test_ctrl_c_leaves_a_run_that_goes_on_as_if_nothing_had_been(workplace, answers):
    flags = [*SMALL, "--epochs=4", "--batch_size=16", "--augment=crop", "--verbosity=0", *answers]
    shutil.rmtree(workplace / "stopped", ignore_errors=True)
    shutil.rmtree(workplace / "straight", ignore_errors=True)
    program = "import sys; from keras_distill import cli; sys.exit(cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "train", *flags]
    process = subprocess.Popen(
        [*command, "--output=stopped"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=workplace,
        # Where the tests run in the background of a shell, they ignore Ctrl-C, as would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    log = workplace / "stopped" / "log.txt"
    deadline = time.monotonic() + 300
    while not (log.is_file() and "student: epoch 2 of 4" in log.read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.splitlines()[-1].endswith("keras-distill train --resume=stopped")
    assert not (workplace / "stopped" / "student.keras").exists()

    assert cli.main(["train", "--resume=stopped", "--verbosity=-1"]) == 0
    text = log.read_text()
    assert "student: going on after epoch" in text
    assert text.count("teacher: epoch 1 of 4") == 1
    assert cli.main(["train", *flags, "--output=straight", "--verbosity=-1"]) == 0
    stopped, straight = (
        keras.saving.load_model(workplace / name / "student.keras")
        for name in ("stopped", "straight")
    )
    for a, b in zip(stopped.get_weights(), straight.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    histories = [(workplace / n / "student.csv").read_text() for n in ("stopped", "straight")]
    assert histories[0] == histories[1]


class Swallowing(keras.Sequential):
    """Hears Ctrl-C at the start of an epoch where it is swallowed, as in TensorFlow it may be."""

    def reset_metrics(self):
        super().reset_metrics()
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_ctrl_c_is_not_swallowed_and_stays_ignored_where_it_was(handler, tmp_path):
    def build():
        model = Swallowing([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    batches = tf.data.Dataset.from_tensor_slices((np.ones((4, 2)), np.ones((4, 1)))).batch(2)
    ignored = handler is signal.SIG_IGN
    before = signal.signal(signal.SIGINT, handler)
    try:
        with contextlib.nullcontext() if ignored else pytest.raises(KeyboardInterrupt):
            runs.Run(tmp_path).train("net", build, 2, lambda epoch: batches, 2, batches)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "net.keras").exists() == ignored


def test_a_second_ctrl_c_is_heard_at_once():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt), interrupts.BetweenBatches():
            signal.raise_signal(signal.SIGINT)
            times = 1
            signal.raise_signal(signal.SIGINT)
            times = 2
        assert times == 1
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_in_a_thread_is_left_alone():
    def enter():
        with interrupts.BetweenBatches() as ctrl_c:
            return ctrl_c.listens

    with ThreadPoolExecutor() as threads:
        assert threads.submit(enter).result() is False


def test_resuming_a_finished_run_trains_nothing(trained, capsys):
    before = (trained / "student.keras").read_bytes()
    assert cli.main(["train", f"--resume={trained}", "--verbosity=-1"]) == 0
    assert (trained / "student.keras").read_bytes() == before


@pytest.mark.long
@pytest.mark.parametrize(
    "teacher", ["nets_for_test:large", pytest.param("MobileNet", marks=pytest.mark.nightly)]
)
def test_images_of_tensorflow_datasets_are_resized_and_mixed(teacher, tfds_dir, tmp_path, capsys):
    arguments = ["--data=mnist", f"--data_dir={tfds_dir}", "--nodownload", "--image_size=32,32"]
    arguments += [f"--teacher={teacher}", "--student=nets_for_test:small", "--epochs=1"]
    arguments += ["--mix=cutmix", "--augment=flip", f"--output={tmp_path / 'r'}", "--verbosity=-1"]
    assert cli.main(["train", *arguments, "--batch_size=500", "--json"]) == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)["candidates"]]
    assert names == ["teacher", "student distilled"]


def test_a_network_of_keras_applications_reads_bytes_in_gray(rng):
    spec = tf.TensorSpec((32, 32, 1), tf.uint8)
    model = models.build("MobileNet", spec, 10)
    x = rng.integers(0, 256, (2, 32, 32, 1)).astype("uint8")
    backbone, head = model.get_layer("mobilenet_1.00_32"), model.layers[-1]
    read = backbone(x.repeat(3, -1) / np.float32(127.5) - 1)
    np.testing.assert_allclose(model(x), head(read), rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_a_table_is_regressed_and_layers_are_matched(tmp_path, rng):
    x = rng.normal(size=(300, 3))
    lines = [f"{a},{b},{c},{a + 2 * b - c}" for a, b, c in x]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,y", *lines]))
    arguments = [
        f"--data={tmp_path / 't.csv'}",
        "--label_column=y",
        "--match=Hint,hidden,hidden,0.1",
    ]
    arguments += [*SMALL[1:], "--epochs=8", "--batch_size=16", "--learning_rate=0.03"]
    assert cli.main(["train", *arguments, f"--output={tmp_path / 'r'}"]) == 0
    rows = json.loads((tmp_path / "r" / "comparison.json").read_text())["candidates"]
    assert all(row["r2"] > 0.9 for row in rows)
    header = (tmp_path / "r" / "student.csv").read_text().split("\n")[0]
    assert {"teacher_error", "hint"} <= set(header.split(","))


@pytest.mark.long
def test_models_that_read_text(tmp_path):
    texts = [f"{word} {i % 7}\t{word}" for i in range(60) for word in ("red", "green")]
    (tmp_path / "t.tsv").write_text("\n".join(["words\tcolour", *texts]))
    arguments = [f"--data={tmp_path / 't.tsv'}", "--label_column=colour", "--text_column=words"]
    arguments += ["--teacher=nets_for_test:reader", "--student=nets_for_test:reader", "--epochs=8"]
    arguments += ["--learning_rate=0.1", "--batch_size=16", "--verbosity=-1"]
    assert cli.main(["train", *arguments, f"--output={tmp_path / 'r'}"]) == 0
    rows = json.loads((tmp_path / "r" / "comparison.json").read_text())["candidates"]
    assert [row["accuracy"] for row in rows] == [1, 1]


def test_a_log_says_when_and_what(trained):
    for line in (trained / "log.txt").read_text().splitlines():
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (warning: )?[^\d\s].*", line)


@pytest.fixture
def kinds(workplace):
    """Integer classes in a table of three files, the first one compressed."""
    parts = {"kinds.csv.gz": range(200), "kinds_validation.csv": range(30), "test.csv": range(60)}
    for name, numbers in parts.items():
        lines = ["a,b,kind", *(f"{i % 3 + 0.1 * (i % 7)},{-(i % 3)},{i % 3}" for i in numbers)]
        text = "\n".join(lines).encode()
        (workplace / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    arguments = ["--data=kinds.csv.gz", "--label_column=kind", "--test_data=test.csv"]
    arguments += ["--validation_data=kinds_validation.csv", *SMALL[1:3], "--learning_rate=0.05"]
    return [*arguments, "--batch_size=20", "--epochs=8", "--json"]


@pytest.mark.long
def test_several_labels_at_once(digits, workplace, capsys):
    x, y = digits
    tags = np.stack([y % 2 == 0, y > 4, np.isin(y, [0, 6, 8, 9])], axis=1).astype("uint8")
    np.savez("tags.npz", x=x, y=tags)
    arguments = ["--data=tags.npz", "--teacher=nets_for_test:large", "--verbosity=-1"]
    arguments += ["--student=nets_for_test:small", "--epochs=3", "--learning_rate=0.01"]
    arguments += ["--batch_size=32", "--output=tags"]
    assert cli.main(["train", *arguments]) == 0, capsys.readouterr().err
    stored = json.loads((workplace / "tags" / "comparison.json").read_text())
    assert stored["task"] == "multilabel"
    loaded = data.load("tags.npz")
    x_test, y_test = (np.array(part) for part in zip(*loaded.test, strict=True))
    assert loaded.several_labels
    for row, name in zip(stored["candidates"], ("teacher", "student"), strict=True):
        z = keras.saving.load_model(f"tags/{name}.keras").predict(x_test, verbose=0)
        ap = sk.average_precision_score(y_test, z, average="macro")
        assert row["mean_average_precision"] == pytest.approx(ap)
        assert ap > 0.8
    capsys.readouterr()
    file = "a=tags/student.keras"
    for task in ([], ["--task=multilabel"]):
        assert cli.main(["evaluate", file, "--data=tags.npz", "--json", *task]) == 0
        again = json.loads(capsys.readouterr().out)["candidates"][0]
        assert again["mean_average_precision"] == pytest.approx(ap)
    assert cli.main(["evaluate", file, "--data=tags.npz", "--json", "--task=regression"]) == 0
    assert "r2" in json.loads(capsys.readouterr().out)["candidates"][0]
    assert cli.main(["evaluate", file, "--data=digits.npz", "--task=multilabel"]) == 2
    assert "must hold rows of 0 and 1 for --task='multilabel'" in capsys.readouterr().err


@pytest.mark.long
def test_the_task_of_integers_in_a_table(kinds, capsys):
    assert cli.main(["train", *kinds, "--task=classification", "--output=kinds"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert (result["task"], result["samples"]) == ("classification", 60)
    assert [row["accuracy"] for row in result["candidates"]] == [1, 1]
    assert "200 examples to train on, 30 to validate, 60 to test" in err
    assert "distinct integers" not in err
    assert "--task=classification" in (Path("kinds") / "settings.flags").read_text()
    assert cli.main(["report", "kinds", "--output=kinds_page", "--verbosity=-1"]) == 0


def test_integers_that_are_regressed_are_told(kinds, capsys):
    assert cli.main(["train", *kinds, "--epochs=1", "--output=values"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["task"] == "regression"
    assert "'kind' of kinds.csv.gz holds 3 distinct integers (0, 1, 2), which are regressed" in err
    assert err.count("distinct integers") == 1


@pytest.mark.long
def test_bytes_that_are_not_rescaled_are_told(tfds_dir, tmp_path, capsys):
    arguments = ["--data=mnist", f"--data_dir={tfds_dir}", "--nodownload", *SMALL[1:3]]
    arguments += ["--epochs=1", "--batch_size=500"]
    assert cli.main(["train", *arguments, f"--output={tmp_path / 'r'}"]) == 0
    err = capsys.readouterr().err
    for role in ("student", "teacher"):
        assert err.count(f"The {role} gets bytes from 0 to 255 and doesn't rescale them") == 1
    arguments += ["--prepare=nets_for_test:scaled", "--verbosity=-1"]
    assert cli.main(["train", *arguments, f"--output={tmp_path / 'scaled'}"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--teacher=nets_for_test:large"], "say which student: --student="),
        (["--data=none.npz"], "no file none.npz"),
        (["--student=nets_for_test:tiny"], "no function 'tiny'"),
        (["--student=no_nets:tiny"], "No module named 'no_nets'"),
        (["--student=nets_for_test:nothing"], "gave NoneType, not a Keras model"),
        (["--student=none.keras"], "no file none.keras"),
        (["--student=digits.npz.keras"], "is not a model of Keras"),
        (["--teacher=MobilNetV2"], "Did you mean MobileNetV2"),
        (["--loss=SoftTarget"], "there is no loss 'SoftTarget', only"),
        (["--loss=LogitMSE", "--temperature=2"], "--loss=LogitMSE"),
        (["--temperature=-1"], "temperature"),
        (["--alpha=2"], "alpha"),
        (["--match=Hint,hidden"], "--match must be"),
        (["--match=Hint,hidden,hidden,x"], "--match must be"),
        (
            ["--loss=DistillationLoss"],
            "there is no loss 'DistillationLoss', only CIRKD, CTKD, DIST",
        ),
        (["--match=Hint,hiden,hidden"], "hiden"),
        (["--augment=spin"], "--augment must be of crop, flip, randaugment, not 'spin'"),
        (["--mix=mixup", "--answers=none"], "--answers are of single images"),
        (["--image_size=32"], "--image_size must be HEIGHT,WIDTH"),
        (["--test_data=t.csv"], "--test_data is for tables; an NPZ file has arrays"),
        (["--task=ranking"], "--task"),
        (["--prepare=nets_for_test:no"], "no function 'no'"),
    ],
)
def test_wrong_settings_are_one_line_and_exit_code_2(arguments, says, tmp_path, capsys, workplace):
    (workplace / "digits.npz.keras").write_text("no model")
    defaults = [] if arguments[0].startswith("--teacher=nets") else SMALL
    output = tmp_path / "r"
    arguments = ["train", *defaults[:3], *arguments, f"--output={output}", "--verbosity=-2"]
    assert cli.main([*arguments, "--epochs=1", *SMALL[:1] * (not defaults)]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not output.exists()


def test_a_folder_in_use_and_a_run_that_is_none_are_refused(trained, capsys):
    assert cli.main(["train", *SMALL, f"--output={trained}"]) == 2
    assert "isn't empty" in capsys.readouterr().err
    assert cli.main(["train", "--resume=nowhere"]) == 2
    assert "no run in nowhere to resume" in capsys.readouterr().err
    assert cli.main(["train", f"--resume={trained}", "--epochs=9"]) == 2
    assert "--epochs can't be changed" in capsys.readouterr().err
