"""Times of operators from logs of TFLite Micro and of LiteRT's benchmark."""

import json
import shutil
import subprocess

import keras
import micro_stubs
import numpy as np
import pytest
from keras_distill.tflite import profiles, targets

from keras_distill import cli, tflite

CSV = """
I (312) main: started
"Event","Tag","Ticks"
0,CONV_2D,1000
1,RESHAPE,4
2,FULLY_CONNECTED,96
0,CONV_2D,1200
1,RESHAPE,6
2,FULLY_CONNECTED,98
arena 3120 of 4000 bytes
"""
TOOK = """
CONV_2D took 1100 ticks (1 ms).
RESHAPE took 5 ticks (0 ms).
FULLY_CONNECTED took 97 ticks (0 ms).
"""
COLUMNS = ("[first]", "[avg ms]", "[%]", "[cdf%]", "[mem KB]", "[times called]", "[Name]")
HEADER = "\t".join(["", "             [node type]", *COLUMNS])


def benchmark(*rows):
    """A log of `benchmark_model`, with the table of the initialization before that of the runs."""
    form = "\t{:>24}\t{:9.3f}\t{:9.3f}\t{:>8}\t{:>8}\t{:10.3f}\t{:9}\t{}"
    shown = [form.format(kind, ms, ms, "50.0%", "50.0%", 0.0, 1, name) for kind, ms, name in rows]
    title = "=" * 30 + " Run Order " + "=" * 30
    first = [
        title,
        HEADER,
        form.format("AllocateTensors", 9, 9, "100%", "100%", 0, 1, "Allocate/0"),
    ]
    return "\n".join(["INFO: Loaded", *first, "", title, HEADER, *shown, "", "Number of nodes: 3"])


PHONE = benchmark(
    ("CONV_2D", 0.25, "[conv]:0"), ("RESHAPE", 0.05, "[flat]:1"), ("FULLY_CONNECTED", 0.2, "[y]:2")
)
DELEGATED = benchmark(
    ("RESHAPE", 0.05, "[flat]:1"),
    ("Convolution (NHWC, QC8) IGEMM", 0.25, "Delegate/Convolution (NHWC, QC8) IGEMM:0"),
)


@pytest.fixture(scope="module")
def student():
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1), name="image"),
            keras.layers.Conv2D(4, 3, name="stem"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="head"),
        ]
    )
    x = np.random.default_rng(0).normal(size=(16, 6, 6, 1)).astype("float32")
    return model, x, tflite.convert(model, "micro", "int8", calibration=x)


@pytest.mark.parametrize(
    ("log", "unit", "times"),
    [
        (CSV, "ticks", [1100, 5, 97]),
        (TOOK, "ticks", [1100, 5, 97]),
        (PHONE, "ms", [0.25, 0.05, 0.2]),
        (DELEGATED, "ms", [None, 0.05, None]),
    ],
)
def test_each_operator_has_its_mean_time(student, log, unit, times):
    profile = profiles.read(log)
    assert profile.unit == unit
    assert profile.of(tflite.inspect(student[2].tflite)) == times


@pytest.mark.parametrize(
    "log", ["0,ethos-u,1200\n1,SOFTMAX,3\n", "ethos-u took 1200 ticks (1 ms)."]
)
def test_the_operator_of_an_ethos_u_is_one(log):
    first = profiles.read(log).events[0]
    assert (first.operator, first.time) == (targets.NPU_OPERATOR, 1200)


def test_layers_gain_a_column(student, tmp_path):
    _, x, artifact = student
    assert "time" not in artifact.layers(x)[0]
    # A board may send what is no text as it starts.
    (tmp_path / "log").write_bytes(b"\xff\xfe" + CSV.encode())
    rows = artifact.layers(x, profile=tmp_path / "log")
    times = {row["operator"]: row["time"] for row in rows}
    assert times["CONV_2D"] == 1100
    assert times["FULLY_CONNECTED"] == 97
    assert artifact.report["layers"] == rows


def test_command_shows_operators_beside_their_layers(student, tmp_path, capsys):
    (tmp_path / "student.tflite").write_bytes(student[2].named)
    (tmp_path / "log").write_text(CSV)
    arguments = ["profile", str(tmp_path / "log")]
    assert cli.main(arguments) == 0
    assert "| CONV_2D | 2 | 2,200 | 91.5% |" in capsys.readouterr().out
    assert cli.main([*arguments, f"--file={tmp_path / 'student.tflite'}", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["operators"][0] == {"operator": "CONV_2D", "time": 1100}
    row = next(line for line in printed.err.splitlines() if line.startswith("| CONV_2D"))
    assert "stem" in row
    assert "| 576 | 1,100 | 91.5% |" in row  # 4 x 4 x 4 outputs of 9 multiply-accumulates.


def test_logs_that_do_not_fit(student, tmp_path, capsys):
    found = tflite.inspect(student[2].tflite)
    with pytest.raises(ValueError, match="The log has no operators"):
        profiles.read("ready\n")
    for log in ("0,CONV_2D,5\n", CSV.replace("RESHAPE", "SOFTMAX"), PHONE.replace(":2", ":7")):
        with pytest.raises(ValueError, match="The log is that of another file"):
            profiles.read(log).of(found)
    for time in ("-", "nan"):
        with pytest.raises(ValueError, match=r"has no time in .\[avg ms\]., but '(-|nan)'"):
            profiles.read(PHONE.replace("0.250", time))
    with pytest.raises(ValueError, match="The log has no operators"):
        profiles.read(PHONE.replace("[Name]", "[Nam"))
    with pytest.raises(ValueError, match="There is no file none"):
        student[2].layers(student[1], profile="none")
    for arguments, says in [([], "name one log"), (["none"], "There is no file none")]:
        assert cli.main(["profile", *arguments]) == 2
        assert says in capsys.readouterr().err


def test_kit_prints_what_is_read(student, tmp_path):
    """Compiled with stand-ins of TFLite Micro, which run an operator called NOTHING."""
    if shutil.which("g++") is None or shutil.which("make") is None:
        pytest.skip("g++ or make is not installed")
    kit = student[2].save(tmp_path / "kit")
    micro_stubs.write(tmp_path / "tree")
    command = ["make", "-s", "-C", str(kit), f"TFLITE_MICRO_ROOT={tmp_path / 'tree'}"]
    command += ["CXXFLAGS=-Werror", "profile"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    profile = profiles.read(printed)
    assert [event.operator for event in profile.events] == ["NOTHING"] * 5
    assert "| NOTHING | 5 |" in str(profile)
