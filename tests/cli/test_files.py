"""Exporting, inspecting and evaluating files."""

import json
import shutil

import numpy as np
import pytest
from keras_distill.tflite.micro import firmware

from keras_distill import cli, tflite


@pytest.fixture(scope="module")
def kit(trained, workplace):
    arguments = ["--target=micro", "--quantization=int8", "--output=kit", "--verbosity=-1"]
    model = str(trained / "student.keras")
    assert cli.main(["export", model, "--data=digits.npz", *arguments]) == 0
    return workplace / "kit"


def test_export_writes_a_verified_file(kit):
    report = json.loads((kit / "report.json").read_text())
    assert report["quantization"] == "int8"
    assert "micro" in json.dumps(report["verification"])
    assert tflite.inspect(kit / "student.tflite").refusals["micro"] == []


def test_export_refuses_what_it_cannot_do(trained, kit, capsys):
    model = str(trained / "student.keras")
    for arguments, says in [
        ([], "name one model"),
        ([model, "--data=digits.npz"], "--output"),
        ([model, "--data=digits.npz", "--output=kit"], "isn't empty"),
        (
            [model, "--data=digits.npz", "--output=k", "--target=micro", "--package=a.b"],
            "--package=a.b names the Kotlin package of an app, which --target=micro",
        ),
        ([model, "--data=digits.npz", "--output=k2", "--target=toaster"], "toaster"),
        (
            [model, "--data=digits.npz", "--output=k2", "--target=micro", "--quantization=dynamic"],
            "dynamic",
        ),
        (["none.keras", "--data=digits.npz", "--output=k2"], "no file none.keras"),
    ]:
        assert cli.main(["export", *arguments, "--verbosity=-1"]) == 2
        err = capsys.readouterr().err
        assert says in err
        assert err.count("\n") == 1
    assert not (kit.parent / "k2").exists()


def test_inspect(kit, capsys):
    assert cli.main(["inspect", str(kit / "student.tflite"), "--target=micro"]) == 0
    assert "FULLY_CONNECTED" in capsys.readouterr().out
    assert cli.main(["inspect", str(kit / "student.tflite"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["macs"] == 64 * 8 + 8 * 10
    assert cli.main(["inspect", "digits.npz"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert cli.main(["inspect", str(kit / "student.tflite"), "--target=toaster"]) == 2
    assert "--target must be one of" in capsys.readouterr().err


def test_evaluate(trained, kit, capsys):
    files = [f"teacher={trained / 'teacher.keras'}", str(trained / "student.keras")]
    files.append(f"micro={kit / 'student.tflite'}")
    assert cli.main(["evaluate", *files, "--data=digits.npz", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["candidates"]
    assert [row["name"] for row in rows] == ["teacher", "student", "micro"]
    stored = json.loads((trained / "comparison.json").read_text())["candidates"]
    assert rows[0]["accuracy"] == stored[0]["accuracy"]
    assert rows[1]["accuracy"] == stored[2]["accuracy"]
    assert abs(rows[2]["accuracy"] - rows[1]["accuracy"]) < 0.03


def test_evaluate_says_what_is_wrong(trained, capsys):
    np.savez("five.npz", x=np.zeros((50, 8, 8, 1)), y=np.arange(50) % 5)
    for arguments, says in [
        (["--data=digits.npz"], "name the candidates"),
        (["a=b.txt", "--data=digits.npz"], "must be NAME=FILE"),
        ([f"a={trained / 'teacher.keras'}"] * 2 + ["--data=digits.npz"], "two candidates are"),
        (["a=none.tflite", "--data=digits.npz"], "none.tflite"),
        ([f"t={trained / 'teacher.keras'}"], "say which data"),
    ]:
        assert cli.main(["evaluate", *arguments]) == 2
        err = capsys.readouterr().err
        assert says in err
        assert err.count("\n") == 1


def test_export_takes_names_and_limits(trained, workplace, capsys):
    model = str(trained / "student.keras")
    (workplace / "words.txt").write_text("\n".join(f"number {i}" for i in range(10)) + "\n")
    arguments = [model, "--data=digits.npz", "--verbosity=-1", "--quantization=float32"]
    kit = ["--labels=words.txt", "--name=digit reader", "--package=org.example.digits"]
    assert cli.main(["export", *arguments, *kit, "--output=app", "--max_flash=1MB"]) == 0
    report = json.loads((workplace / "app" / "report.json").read_text())
    assert report["labels"] == [f"number {i}" for i in range(10)]
    sources = "".join(path.read_text() for path in (workplace / "app").rglob("*.kt"))
    assert "package org.example.digits" in sources
    assert (workplace / "app" / "digit_reader.tflite").is_file() or list(
        (workplace / "app").rglob("digit*.tflite")
    )
    capsys.readouterr()
    for flags, says in [
        (["--max_flash=1KB"], "flash: "),
        (["--max_flash=much"], "`max_flash` must be a number of bytes"),
        (["--max_arena=1KB", "--target=micro", "--quantization=int8"], "arena: "),
        (["--max_arena=1KB"], "`max_arena` is for microcontrollers"),
        (["--labels=a,b"], "`labels` has 2 names for the 10 classes"),
        (["--recurrent=never"], "--recurrent"),
    ]:
        assert cli.main(["export", *arguments, *flags, "--output=k3"]) == 2
        err = capsys.readouterr().err
        assert says in err
        assert err.count("\n") == 1
    assert not (workplace / "k3").exists()


def test_export_counts_the_firmware_before_anything_else(trained, workplace, monkeypatch, capsys):
    """What the flag needs is asked for before a conversion."""
    arguments = [str(trained / "student.keras"), "--data=digits.npz", "--output=k4"]
    arguments += ["--quantization=int8", "--verbosity=-1"]
    monkeypatch.setattr(tflite.artifact, "finished", lambda *_: pytest.fail("it was converted"))

    def refused(*flags):
        assert cli.main(["export", *arguments, *flags]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        return err

    assert "--firmware" in refused("--firmware=esp_nn", "--target=micro")
    for target in ("android", "ethos-u55-128"):
        said = refused("--firmware=reference", f"--target={target}")
        assert (
            f"for target \"micro\", or `None`. Received: firmware='reference', target={target!r}"
            in (said)
        )
    micro = ["--firmware=cmsis_nn", "--target=micro"]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "which", lambda tool: None)
        assert "arm-none-eabi-g++ is not installed" in refused(*micro)
    monkeypatch.setattr(shutil, "which", lambda tool: tool)
    monkeypatch.delenv("TFLITE_MICRO_ROOT", raising=False)
    assert "Name the source tree of TFLite Micro" in refused(*micro)
    monkeypatch.setenv("TFLITE_MICRO_ROOT", str(workplace))
    assert "no library for the Cortex-M4 with the kernels 'cmsis_nn'" in refused(*micro)
    assert not (workplace / "k4").exists()


@pytest.mark.long
@pytest.mark.parametrize("kernels", ["reference", "cmsis_nn"])
def test_export_counts_the_firmware(kernels, trained, workplace, capsys):
    try:
        firmware.find(kernels=kernels)
    except ValueError as error:
        pytest.skip(str(error))
    model, output = str(trained / "student.keras"), workplace / f"counted_{kernels}"
    arguments = [model, "--data=digits.npz", "--target=micro", "--quantization=int8"]
    arguments += [f"--firmware={kernels}", "--verbosity=-1"]
    assert cli.main(["export", *arguments, f"--output={output}"]) == 0
    report = json.loads((output / "report.json").read_text())
    whole = report["firmware"]
    assert whole["flash"] == whole["text"] + whole["rodata"] + whole["data"] > report["bytes"]
    assert ("cmsis_nn" in whole["library"]) == (kernels == "cmsis_nn")
    shown = capsys.readouterr().out
    assert f"{whole['flash']:,}" in shown
    limit = f"--max_flash={whole['flash'] - 1}"
    assert cli.main(["export", *arguments, limit, f"--output={output}_less"]) == 2
    assert f"flash: {whole['flash']:,} bytes needed" in capsys.readouterr().err
    assert not (workplace / f"{output}_less").exists()


@pytest.mark.long
def test_export_unrolls(workplace, capsys):
    import keras

    layers = [keras.layers.Reshape((8, 8)), keras.layers.GRU(4), keras.layers.Dense(10)]
    keras.Sequential([keras.Input((8, 8, 1)), *layers]).save("gru.keras")
    arguments = ["gru.keras", "--data=digits.npz", "--target=micro", "--samples=50"]
    assert cli.main(["export", *arguments, "--recurrent=unroll", "--output=unrolled"]) == 0
    report = json.loads((workplace / "unrolled" / "report.json").read_text())
    assert "WHILE" not in report["operators"]


@pytest.mark.parametrize(
    ("verdict", "says"),
    [
        ("fail", "the file doesn't compute what the student does (verdict: fail)"),
        ("not judged", "couldn't be proven: the runtime on this host has a known fault"),
        ("not run", "couldn't be proven: the runtime on this host lacks an operator"),
    ],
)
def test_a_file_that_is_not_proven_is_exit_code_2(verdict, says, trained, monkeypatch, capsys):
    verify = tflite.Artifact.verify

    def found(artifact, *arguments, **settings):
        report = verify(artifact, *arguments, **settings)
        report["verdict"] = verdict
        return report

    monkeypatch.setattr(tflite.Artifact, "verify", found)
    output = f"not_proven_{verdict}"
    arguments = [str(trained / "student.keras"), "--data=digits.npz", f"--output={output}"]
    assert cli.main(["export", *arguments, "--quantization=float32", "--verbosity=-1"]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert f"{output}/report.md" in err
    assert err.count("\n") == 1
