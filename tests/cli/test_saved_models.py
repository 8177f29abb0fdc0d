"""Whatever the project saved, the command reads: quantize-aware students, distillers, files."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_distill
from keras_distill import cli, tflite
from keras_distill.cli import models
from keras_distill.outputs import values_of

DATA = ["--data=digits.npz", "--verbosity=-1"]


@pytest.fixture(scope="module")
def saved(workplace, trained, digits):
    """Files of all kinds made of the trained student and teacher, in the folder `saved`."""
    folder = workplace / "saved"
    folder.mkdir()
    student = keras.saving.load_model(trained / "student.keras")
    teacher = keras.saving.load_model(trained / "teacher.keras")
    aware = keras_distill.quantization.quantize_aware(student, digits[0][:100])
    aware.save(folder / "aware.keras")
    hint = keras_distill.Match(
        keras_distill.losses.Hint(), "hidden", "hidden", adapter="auto", weight=0.1
    )
    distiller = keras_distill.Distiller(
        student, teacher, [keras_distill.losses.SoftTargets(2.0), hint]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.0), loss, metrics=["accuracy"])
    distiller.fit(digits[0][:64], digits[1][:64], verbose=0)
    distiller.save(folder / "distiller.keras")
    other = keras.models.clone_model(student)
    other.name = "other"
    keras_distill.MutualDistiller([student, other]).save(folder / "mutual.keras")
    teacher.save(folder / "teacher.h5")
    soft = keras.Sequential([teacher, keras.layers.Softmax()])
    soft.export(folder / "soft", verbose=False)
    (folder / "soft.tflite").write_bytes(tflite.convert(soft).tflite)
    return folder


def candidates(capsys, *arguments):
    assert cli.main([*arguments, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)["candidates"]


@pytest.mark.long
def test_evaluate_reads_all_of_them(saved, trained, capsys):
    files = [f"teacher={trained / 'teacher.keras'}", f"student={trained / 'student.keras'}"]
    names = ("aware.keras", "distiller.keras", "teacher.h5", "soft", "soft.tflite")
    files += [f"{name}={saved / name}" for name in names]
    rows = {row["name"]: row for row in candidates(capsys, "evaluate", *files, *DATA)}
    assert rows["distiller.keras"]["accuracy"] == rows["student"]["accuracy"]
    assert abs(rows["aware.keras"]["accuracy"] - rows["student"]["accuracy"]) < 0.05
    for name in ("teacher.h5", "soft", "soft.tflite"):
        assert rows[name]["agreement"] == 1
        assert rows[name]["kl"] < 1e-6


@pytest.mark.parametrize(
    ("name", "quantization"), [("aware.keras", "int8"), ("distiller.keras", "float32")]
)
def test_export_reads_them(name, quantization, saved, workplace, capsys):
    output = workplace / f"kit_{name}"
    arguments = [str(saved / name), *DATA, f"--output={output}", "--samples=50"]
    if name != "aware.keras":  # It has its own.
        arguments.append(f"--quantization={quantization}")
    assert cli.main(["export", *arguments]) == 0, capsys.readouterr().err
    report = json.loads((output / "report.json").read_text())
    assert report["quantization"] == quantization
    assert report["verification"]["verdict"] == "pass"


@pytest.mark.long
def test_a_fresh_process_reads_a_quantize_aware_student(saved, workplace):
    """Nothing but the command itself has been imported, by which Keras could know its classes."""
    program = "import keras_distill_command as c; c.run()"
    arguments = ["evaluate", str(saved / "aware.keras"), *DATA]
    process = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=workplace,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert "aware" in process.stdout
    program = "import sys, keras_distill, keras; keras.saving.load_model(sys.argv[1])"
    subprocess.run([sys.executable, "-c", program, str(saved / "aware.keras")], check=True)


def test_files_of_earlier_versions_teach_and_learn(saved, digits):
    """HDF5, which Keras wrote before `.keras`."""
    spec, path = tf.TensorSpec((8, 8, 1)), str(saved / "teacher.h5")
    expected = keras.saving.load_model(path, compile=False).predict(digits[0][:4], verbose=0)
    for model in (models.load_teacher(path, spec, 10), models.build(path, spec, 10)):
        np.testing.assert_array_equal(model.predict(digits[0][:4], verbose=0), expected)
    assert models.is_file(path)


def test_several_students_are_named(saved, capsys):
    for command in (["export", "--output=none"], ["evaluate"]):
        name = str(saved / "mutual.keras")
        assert cli.main([command[0], name, *command[1:], *DATA]) == 2
        err = capsys.readouterr().err
        assert "holds several students (" in err
        assert "`mutual.students[0].save(...)`" in err


@pytest.fixture(scope="module")
def taught(saved, workplace):
    """Trains the student by a teacher, and returns the rows of the comparison by name."""

    def train(teacher, output):
        flags = [*DATA, f"--teacher={teacher}", "--student=nets_for_test:small", "--epochs=2"]
        flags += ["--learning_rate=0.02", "--alpha=0", f"--output={output}"]
        assert cli.main(["train", *flags]) == 0
        rows = json.loads((workplace / output / "comparison.json").read_text())["candidates"]
        assert not (workplace / output / "teacher.keras").exists()
        return {row["name"]: row for row in rows}

    return train


@pytest.mark.long
def test_files_teach_as_the_model_does_that_they_were_made_of(taught, saved, trained):
    live = taught(trained / "teacher.keras", "by_model")
    for name in ("soft", "soft.tflite"):
        rows = taught(saved / name, f"by_{name}")
        for row in ("teacher", "student distilled"):
            assert rows[row]["accuracy"] == pytest.approx(live[row]["accuracy"], abs=0.02)
        assert cli.main(["report", f"by_{name}", f"--output=page_{name}"]) == 0


@pytest.mark.long
def test_what_was_distilled_teaches(taught, saved, trained):
    live = taught(trained / "student.keras", "by_student")
    for name, tolerance in (("aware.keras", 0.1), ("distiller.keras", 0.02)):
        rows = taught(saved / name, f"by_{name}")
        for row in ("teacher", "student distilled"):
            expected = pytest.approx(live[row]["accuracy"], abs=tolerance)
            assert rows[row]["accuracy"] == expected


@pytest.mark.parametrize("name", ["aware.keras", "distiller.keras", "soft.tflite", "soft"])
def test_paths_are_teachers(name, saved, digits):
    teacher = keras_distill.teachers.as_teacher(
        saved / name, from_logits=not name.startswith("soft")
    )
    outputs = teacher.combine(teacher.answer(digits[0][:4])[0])
    assert tuple(keras.tree.flatten(values_of(outputs))[0].shape) == (4, 10)


def test_a_file_that_does_not_fit_the_data(saved, capsys):
    np.savez("wide.npz", x=np.zeros((100, 9, 9, 1), "float32"), y=np.arange(100) % 10)
    np.savez("few.npz", x=np.zeros((100, 8, 8, 1), "float32"), y=np.arange(100) % 3)
    arguments = ["--student=nets_for_test:small", "--output=out"]
    for name in ("soft.tflite", "soft"):
        for data, says in [
            ("wide.npz", "doesn't read inputs of shape (9, 9, 1) and type float32"),
            ("few.npz", "gives 10 outputs; the data need 3"),
        ]:
            teacher = f"--teacher={saved / name}"
            assert cli.main(["train", teacher, f"--data={data}", *arguments]) == 2
            err = capsys.readouterr().err
            assert says in err
            assert err.count("\n") == 1
    assert cli.main(["evaluate", str(saved / "soft"), "--data=wide.npz"]) == 2
    assert "doesn't read inputs of shape (9, 9, 1)" in capsys.readouterr().err


@pytest.mark.long
def test_store_reads_a_file(saved, capsys):
    arguments = [*DATA, f"--teacher={saved / 'soft.tflite'}", "--output=answers_of_a_file"]
    assert cli.main(["store", *arguments, "--json"]) == 0, capsys.readouterr().err
    assert cli.main(["store", *DATA, "--teacher=nets_for_test:large", "--output=x"]) == 2
    assert "must be a .keras, .h5 or .tflite file" in capsys.readouterr().err
