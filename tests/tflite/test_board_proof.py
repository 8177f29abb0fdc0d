"""A kit's vectors on what stands for a board: over a pseudo-terminal, and over QEMU's UART."""

import json
import os
import shutil
import subprocess
import termios
import time
import zlib

import cortex_m
import micro_stubs
import numpy as np
import pytest
from keras_distill.tflite.micro import board, serial_port

from keras_distill import cli

#: What the stand-in of the interpreter computes: the stored output for a stored input, and `OFF`
#: more in the first element.
COMPUTED = """
#include <cstring>
#include "student_test_vectors.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
using namespace student;
static void Compute(const char* in, char* out) {
  for (int i = 0; i < kVectorCount; ++i) {
    const auto* given = kImageInputVectors + i * ImageInput::kSize;
    const auto* result = kLogitsOutputVectors + i * LogitsOutput::kSize;
    if (std::memcmp(in, given, ImageInput::kSize)) continue;
    std::memcpy(out, result, LogitsOutput::kSize);
    out[0] = static_cast<char>(out[0] + OFF);
  }
}
static const bool set = (tflite::computed = Compute);
"""


@pytest.fixture(scope="module")
def kit(converted, tmp_path_factory):
    return converted("micro", "int8").save(tmp_path_factory.mktemp("kit") / "kit")


@pytest.fixture(scope="module")
def programs(kit, tmp_path_factory):
    """The program that serves the kit, by how far its first output is from the stored one."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    folder, made = tmp_path_factory.mktemp("programs"), {}
    options = [*micro_stubs.write(folder / "tree"), f"-I{kit}", "-std=c++17", "-Werror"]
    (folder / "computed.cc").write_text(COMPUTED)
    parts = [kit / f"student_{end}.cc" for end in ("model", "test_vectors")]
    sources = [*map(str, parts), str(kit / "serve_main.cc"), str(folder / "computed.cc")]

    def program(off):
        if off not in made:
            made[off] = str(folder / f"serve{off}")
            subprocess.run(["g++", *options, f"-DOFF={off}", *sources, "-o", made[off]], check=True)
        return made[off]

    return program


@pytest.fixture
def serve():
    """Starts a program that talks over a pseudo-terminal; returns the terminal's path."""
    running, files = [], []

    def start(program):
        board_side, host_side = os.openpty()
        files.extend((board_side, host_side))
        running.append(subprocess.Popen([program], stdin=board_side, stdout=board_side))
        return os.ttyname(host_side)

    yield start
    for process in running:
        process.kill()
        process.wait()
    for file in files:
        os.close(file)


def test_board_that_answers_as_stored_is_proven(kit, programs, serve, capsys):
    path = serve(programs(0))
    assert cli.main(["prove", str(kit), f"--serial={path}"]) == 0
    assert "verdict: pass" in capsys.readouterr().out
    report = json.loads((kit / "report.json").read_text())
    found = report["board"]
    assert (found["vectors"], found["same"], found["source"]) == (5, 5, "calibration data")
    [output] = found["outputs"]
    assert (output["name"], output["largest_difference"]) == ("logits", 0)
    times = found["microseconds"]
    assert 0 <= times["min"] <= times["median"] <= times["max"]
    assert 0 < found["arena_used"] <= found["arena_size"]
    assert report["quantization"] == "int8"  # What was there stays.
    assert "arena used" in (kit / "report.md").read_text()


@pytest.mark.parametrize(("off", "verdict"), [(1, "pass"), (3, "fail")])
def test_difference_is_told_in_steps(off, verdict, kit, programs, serve, capsys):
    code = cli.main(["prove", str(kit), f"--serial={serve(programs(off))}"])
    found = json.loads((kit / "report.json").read_text())["board"]
    assert (found["verdict"], found["same"]) == (verdict, 0)
    # One that overflows wraps around.
    assert found["outputs"][0]["largest_difference"] >= off
    assert code == (0 if verdict == "pass" else 2)
    assert ("aren't those stored" in capsys.readouterr().err) == (verdict == "fail")


class Scripted:
    """A board that answers with given lines, whatever it is asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def write(self, data):
        self.asked.append(data)

    def read(self, size):
        return self.answers.pop(0) if self.answers else b""


def test_what_a_board_prints_besides_is_kept_apart():
    one = board.Board(Scripted(b"boot\r\nkd! hel", b"lo 0000abcd 7 9\r\n"), timeout=0.2)
    assert one.hello() == (0xABCD, 7, 9)
    assert one.log == ["boot"]


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([], "gave no answer to 'hello' in time"),
        ([b"Guru Meditation\n"], "It said: Guru Meditation"),
        ([b"kd! error: no such command\n"], "refused 'hello': no such command"),
    ],
)
def test_board_that_does_not_answer(answers, says):
    with pytest.raises(board.BoardError, match=says):
        board.Board(Scripted(*answers), timeout=0.1).hello()


def test_answers_with_errors_are_not_taken():
    one = board.Board(
        Scripted(b"kd! ok\n", b"kd! ok\n", b"kd! ran 12\n", b"kd! bytes 01 00000000\n"), 0.2
    )
    with pytest.raises(board.BoardError, match="arrived with errors"):
        one.run([np.zeros(1, "int8")], [np.zeros(1, "int8")])


class Slow:
    """A board that answers line by line, but starts when it has been asked `hellos` times."""

    def __init__(self, hellos, stored=5):
        self.hellos, self.stored, self.lines, self.inputs = hellos, stored, [], []

    def write(self, data):
        self.lines += data.decode().splitlines()

    def read(self, size):
        self.hellos -= self.hellos > 0 and bool(self.lines)
        if self.hellos or not self.lines:
            time.sleep(0.05)
            return b""
        word = self.lines.pop(0).split()[1]
        part = bytes([self.stored])
        return {
            "hello": b"kd! hello 0000abcd 7 9\n",
            "reset": b"kd! ok\n",
            "input": b"kd! ok\n",
            "run": b"kd! ran 12\n",
            "output": f"kd! bytes {part.hex()} {zlib.crc32(part):08x}\n".encode(),
        }[word]


def test_board_that_answers_each_of_many_hellos(monkeypatch):
    monkeypatch.setattr(board, "_AGAIN", 0.1)
    stream = Slow(hellos=8)
    one = board.Board(stream, timeout=5)
    assert one.hello() == (0xABCD, 7, 9)
    assert stream.lines  # More were asked, and will be answered.
    outputs, microseconds = one.run([np.zeros(1, "int8")], [np.zeros(1, "int8")])
    assert (outputs, microseconds) == ([np.array([5], "int8")], 12)


def test_board_that_refuses_is_not_asked_without_a_break(monkeypatch):
    monkeypatch.setattr(board, "_AGAIN", 0.1)
    stream = Scripted(*[b"kd! error: no such command\n"] * 50, b"kd! hello 0000abcd 7 9\n")
    assert board.Board(stream, timeout=5).hello() == (0xABCD, 7, 9)
    assert len(stream.asked) < 5


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([b"kd! hello zz 7 9\n"], "answered 'hello' with 'hello zz 7 9'"),
        ([b"kd! hello 0000abcd 7\n"], "answered 'hello' with 'hello 0000abcd 7'"),
    ],
)
def test_greeting_that_is_none(answers, says):
    with pytest.raises(board.BoardError, match=says):
        board.Board(Scripted(*answers), timeout=0.1).hello()


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([b"ran 3"], "answered 'reset' with 'ran 3'"),
        ([b"ok", b"okay"], "answered 'input' with 'okay'"),
        ([b"ok", b"ok", b"ok"], "answered 'run' with 'ok'"),
        ([b"ok", b"ok", b"ran soon"], "answered 'run' with 'ran soon'"),
        ([b"ok", b"ok", b"ran 3", b"bytes"], "answered 'output' with 'bytes'"),
        ([b"ok", b"ok", b"ran 3", b"bytes 0g 00000000"], "answered 'output' with 'bytes 0g"),
        # Nothing, and more than was asked for.
        ([b"ok", b"ok", b"ran 3", b"bytes  00000000"], "answered 'output' with 'bytes  0"),
        ([b"ok", b"ok", b"ran 3", b"bytes 0000 41d912ff"], "answered 'output' with 'bytes 0000"),
    ],
)
def test_answers_that_are_not_to_the_question(answers, says):
    stream = Scripted(*(b"kd! " + answer + b"\n" for answer in answers))
    with pytest.raises(board.BoardError, match=says + ".*Build and flash"):
        board.Board(stream, timeout=0.2).run([np.zeros(1, "int8")], [np.zeros(1, "int8")])


def test_port_without_carrier_is_opened(monkeypatch):
    """An adapter without a modem's lines: neither the opening nor a write waits for them."""
    board_side, host_side = os.openpty()
    settings = termios.tcgetattr(host_side)
    settings[2] = settings[2] & ~termios.CLOCAL | termios.CRTSCTS
    termios.tcsetattr(host_side, termios.TCSANOW, settings)
    opened, really_open = [], os.open

    def record(path, options):
        opened.append((options, really_open(path, options)))
        return opened[-1][1]

    monkeypatch.setattr(os, "open", record)
    with serial_port.SerialPort(os.ttyname(host_side)) as port:
        [(options, file)] = opened
        assert options & os.O_NONBLOCK
        assert os.get_blocking(file)
        lines = termios.tcgetattr(file)[2]
        assert lines & termios.CLOCAL
        assert not lines & termios.CRTSCTS
        port.write(b"kd? hello\n")
        assert os.read(board_side, 100) == b"kd? hello\n"
    for side in (board_side, host_side):
        os.close(side)


def test_board_that_runs_another_file(kit):
    with pytest.raises(board.BoardError, match="runs another file"):
        board.prove(kit, Scripted(b"kd! hello 00000001 7 9\n"), timeout=0.2)


def test_wrong_input(kit, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments, says in [
        ([], "name one folder"),
        ([str(kit)], "--serial=PORT"),
        ([str(kit), "--serial=/dev/none"], "/dev/none"),
        ([str(tmp_path), "--serial=/dev/none"], "isn't a kit for microcontrollers"),
        ([str(kit), f"--serial={tmp_path / 'file'}"], "no serial port"),
    ]:
        assert cli.main(["prove", *arguments]) == 2
        err = capsys.readouterr().err
        assert says in err
        assert err.count("\n") == 1
    with pytest.raises(ValueError, match="isn't a kit for microcontrollers"):
        board.prove(tmp_path, Scripted())
    with pytest.raises(ValueError, match="`baud` must be"):
        serial_port.SerialPort("/dev/none", 12345)


def test_files_of_the_kit_that_are_cut_off_are_named_before_a_port_is_opened(kit, tmp_path, capsys):
    for name, text in [
        ("test_vectors.json", "{"),
        ("test_vectors.json", "[]"),
        ("test_vectors.json", '{"inputs": [], "outputs": []}'),
        ("report.json", "{"),
        ("report.json", "[1]"),
    ]:
        folder = shutil.copytree(kit, tmp_path / "broken", dirs_exist_ok=True)
        (folder / name).write_text(text)
        assert cli.main(["prove", str(folder), "--serial=/dev/none"]) == 2
        err = capsys.readouterr().err
        assert f"{folder / name} isn't" in err
        assert err.count("\n") == 1
    assert cli.main(["prove", str(kit), "--serial=/dev/none", "--timeout=nan"]) == 2
    assert "--timeout" in capsys.readouterr().err


def test_a_board_that_computes_nan_is_not_proven():
    port = {"name": "logits", "dtype": "float32", "scale": 0.0}
    got = np.float32([[0, 0], [0, np.nan]])
    row = board._difference(port, got, np.zeros((2, 2), "float32"))
    assert not row["largest_difference"] <= row["allowed"]


def test_board_in_an_emulator_is_proven(kit, tmp_path):
    """TFLite Micro's own kernels on a Cortex-M4, asked over its UART."""
    root = cortex_m.root()
    sources = [kit / "student_model.cc", cortex_m.HERE / "serve.cc"]
    program = tmp_path / "program.elf"
    cortex_m.build(root, sources, program, [f"-I{kit}", *cortex_m.includes(root)])
    with cortex_m.running(program) as path, serial_port.SerialPort(path) as port:
        found = board.prove(kit, port)
    assert (found["verdict"], found["same"]) == ("pass", 5)
    assert found["microseconds"]["min"] > 100
    assert found["arena_used"] > 1000
