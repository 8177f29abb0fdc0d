"""Stored answers: written once, read in training, refused where they don't belong."""

import json

import keras
import numpy as np
import pytest

from keras_distill import cli

DATA = ["--data=digits.npz", "--verbosity=-1"]
STUDENT = "--student=nets_for_test:small"


@pytest.fixture(scope="module")
def answers(trained):
    teacher = f"--teacher={trained / 'teacher.keras'}"
    assert cli.main(["store", *DATA, teacher, "--output=answers"]) == 0


def test_storing_again_writes_nothing_and_says_the_same(trained, answers, capsys):
    teacher = f"--teacher={trained / 'teacher.keras'}"
    assert cli.main(["store", *DATA, teacher, "--output=answers", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == {"folder": "answers", "examples": 1437, "views": 1}


@pytest.mark.long
def test_training_on_stored_answers_is_training_with_the_teacher(trained, answers):
    teacher = f"--teacher={trained / 'teacher.keras'}"
    common = [*DATA, teacher, STUDENT, "--epochs=2", "--learning_rate=0.01"]
    assert cli.main(["train", *common, "--output=live"]) == 0
    assert cli.main(["train", *common, "--answers=answers", "--output=stored"]) == 0
    live, stored = (
        np.genfromtxt(f"{name}/student.csv", delimiter=",", names=True)
        for name in ("live", "stored")
    )
    # Answers are kept in half precision.
    np.testing.assert_allclose(stored["soft_targets"], live["soft_targets"], rtol=0.01)
    np.testing.assert_allclose(stored["val_accuracy"], live["val_accuracy"], atol=0.02)


@pytest.mark.long
def test_views_are_stored_and_redrawn(trained):
    teacher = f"--teacher={trained / 'teacher.keras'}"
    views = ["--views=2", "--augment=crop,flip", "--answers=views"]
    arguments = [*DATA, teacher, STUDENT, *views, "--epochs=2", "--output=from_views"]
    assert cli.main(["train", *arguments]) == 0
    model = keras.saving.load_model("from_views/student.keras")
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_answers_of_another_teacher_are_refused(trained, answers, capsys):
    arguments = [*DATA, f"--teacher={trained / 'baseline.keras'}", "--output=answers"]
    assert cli.main(["store", *arguments]) == 2
    err = capsys.readouterr().err
    assert "teacher" in err
    assert err.count("\n") == 1
    assert cli.main(["store", *DATA]) == 2
    assert "--teacher=FILE.keras --output=FOLDER" in capsys.readouterr().err


@pytest.mark.long
def test_with_answers_the_others_see_the_same_views_as_without(trained):
    flags = ["--data=digits.npz", "--teacher=nets_for_test:large", "--student=nets_for_test:small"]
    flags += ["--augment=crop", "--epochs=1", "--baseline", "--verbosity=-1"]
    assert cli.main(["train", *flags, "--output=all_live"]) == 0
    flags += ["--answers=views_of_all", "--views=2"]
    assert cli.main(["train", *flags, "--output=all_told"]) == 0
    for name in ("teacher", "baseline"):
        live = keras.saving.load_model(f"all_live/{name}.keras")
        told = keras.saving.load_model(f"all_told/{name}.keras")
        for a, b in zip(live.get_weights(), told.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
