"""Programs for a Cortex-M4, built with Arm's compiler and run by QEMU."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess

import pytest
from keras_distill.tflite.micro import firmware

ROOT = "TFLITE_MICRO_ROOT"

HERE = pathlib.Path(__file__).parent / "board"
TEMPLATES = pathlib.Path(firmware.__file__).parent / "templates"
CPU = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]
FLAGS = [*CPU, "-Os", "-fno-rtti", "-fno-exceptions", "-ffunction-sections", "-fdata-sections",
         "-DTF_LITE_STATIC_MEMORY", "-DPRINTS"]  # fmt: skip
LINK = ["--specs=rdimon.specs", "-nostartfiles", "-Wl,--gc-sections", f"-T{TEMPLATES / 'mps2.ld'}"]
#: One instruction takes a nanosecond of the board's time.
MACHINE = ["-M", "mps2-an386", "-icount", "shift=0", "-nographic", "-monitor", "none",
           "-serial", "none", "-semihosting-config", "enable=on,target=native"]  # fmt: skip


def root():
    """A source tree of TFLite Micro, with what it downloads; skips the test without one."""
    folder = os.environ.get(ROOT)
    if not folder:
        pytest.skip(f"name a TFLite Micro source tree, its library built, in {ROOT}")
    return pathlib.Path(folder)


def includes(root):
    """The compiler's options for the headers of a source tree."""
    downloads = root / "tensorflow/lite/micro/tools/make/downloads"
    folders = [root, *(downloads / d for d in ("flatbuffers/include", "gemmlowp", "ruy"))]
    return [option for folder in folders for option in ("-isystem", str(folder))]


def needed(root):
    """The library of reference kernels; skips the test where something is missing."""
    for tool in ("arm-none-eabi-g++", "qemu-system-arm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    libraries = sorted(root.glob("gen/*cortex-m4*_default_gcc/lib/libtensorflow-microlite.a"))
    if not libraries:
        pytest.skip(f"{root} has no library for cortex-m4: build its target `microlite`")
    return str(libraries[0])


def build(root, sources, program, options=(), c_sources=()):
    """Builds a program, or skips the test where compiler, emulator or library are missing.

    Args:
        root: TFLite Micro's source tree.
        sources: Sources in C++.
        program: Path of the program to write.
        options: Further options of the compiler.
        c_sources: Sources of others, whose warnings don't count.
    """
    library = needed(root)
    objects = []
    for source in map(pathlib.Path, c_sources):
        objects.append(str(program.parent / f"{source.name}.o"))
        compiler = "arm-none-eabi-gcc" if source.suffix == ".c" else "arm-none-eabi-g++"
        _run([compiler, "-w", *FLAGS, *options, "-c", str(source), "-o", objects[-1]])
    strict = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fno-threadsafe-statics"]
    files = [*map(str, sources), str(TEMPLATES / "mps2_startup.cc"), *objects, library]
    _run(["arm-none-eabi-g++", *strict, *FLAGS, *options, *files, *LINK, "-o", str(program)])


def run(program):
    """What a program prints, and how many instructions it took, to 40."""
    printed = _run(["qemu-system-arm", *MACHINE, "-kernel", str(program)], timeout=120)
    count = re.search(r"^instructions: (\d+)\n", printed, re.M)
    return printed.replace(count[0], ""), int(count[1])


@contextlib.contextmanager
def running(program):
    """Runs a program that doesn't end; gives the path of its serial port."""
    machine = [word if word != "none" or MACHINE[i - 1] != "-serial" else "pty"
               for i, word in enumerate(MACHINE)]  # fmt: skip
    command = ["qemu-system-arm", *machine, "-kernel", str(program)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for line in process.stdout:
            found = re.search(r"redirected to (\S+)", line)
            if found:
                yield found[1]
                return
        raise AssertionError("QEMU names no serial port")
    finally:
        process.kill()
        process.communicate()


def _run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
