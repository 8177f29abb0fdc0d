"""What a model costs as firmware: linked sections, instructions, stack, on a Cortex-M4."""

import importlib.resources
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any

from keras_distill.tflite import budget, micro
from keras_distill.tflite.micro import sources

if TYPE_CHECKING:
    from keras_distill.tflite.artifact import Artifact

_CPU = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]
_FLAGS = [
    "-std=c++17", *_CPU, "-Os", "-fno-rtti", "-fno-exceptions", "-fno-threadsafe-statics",
    "-ffunction-sections", "-fdata-sections", "-DTF_LITE_STATIC_MEMORY",
]  # fmt: skip
_LINK = ["--specs=rdimon.specs", "-nostartfiles", "-Wl,--gc-sections"]
#: One instruction takes a nanosecond of the board's time.
_MACHINE = [
    "qemu-system-arm", "-M", "mps2-an386", "-icount", "shift=0", "-nographic", "-monitor", "none",
    "-serial", "none", "-semihosting-config", "enable=on,target=native", "-kernel",
]  # fmt: skip


#: Kernels that TFLite Micro's library may hold.
KERNELS = ("reference", "cmsis_nn")


def measure(
    artifact: "Artifact",
    root: str | os.PathLike | None = None,
    *,
    kernels: str | None = None,
    max_flash: int | str | None = None,
) -> dict[str, Any]:
    """Links the least firmware that runs an artifact on a Cortex-M4, and runs it in QEMU.

    It needs `arm-none-eabi-g++`, and TFLite Micro's library, built with
    `TARGET=cortex_m_generic TARGET_ARCH=cortex-m4+fp`, for CMSIS-NN's kernels with
    `OPTIMIZED_KERNEL_DIR=cmsis_nn` too. `convert(..., firmware=...)` does this for a new artifact.

    Args:
        artifact: An `Artifact` for microcontrollers.
        root: Source tree of TFLite Micro. Defaults to the environment's `TFLITE_MICRO_ROOT`.
        kernels: `"reference"` or `"cmsis_nn"`. Defaults to those that the tree has a library of,
            the reference ones where it has both.
        max_flash: Bytes, or a text such as `"128KB"`, that `flash` may be at most.

    Returns:
        Bytes: `text` (code), `rodata` (constants, the file among them), `data`, `bss` (the arena
        among them), `flash` (the first three) and `ram` (the last two); and, where
        `qemu-system-arm` is installed, `instructions` of an inference, to 40, and the bytes of
        `stack` (of the operator that takes most, plus what calls it) and `arena_used` that it
        takes. It is `artifact.report["firmware"]` from now on.

    Raises:
        ValueError: Unknown kernels; compiler, source tree or library are missing, or the firmware
            doesn't build.
        BudgetError: The firmware takes more than `max_flash`.

    Example:

    >>> keras_distill.tflite.micro.firmware.measure(artifact, max_flash="128KB")
    """
    limit = budget.size("max_flash", max_flash)
    if artifact.runtime != "micro" or artifact.compiled is not None:
        raise ValueError(
            f'Only artifacts for "micro" are linked and run. Received one for {artifact.target!r}.'
        )
    tree, library = find(root, kernels)
    with tempfile.TemporaryDirectory() as folder:
        build = _Build(pathlib.Path(folder), artifact, tree, library)
        report: dict[str, Any] = {"library": library.parents[1].name, **build.sections()}
        if shutil.which("qemu-system-arm"):
            report |= build.measured()
    artifact.report["firmware"] = report
    if limit is not None and report["flash"] > limit:
        parts = {part: report[part] for part in ("text", "rodata", "data")}
        raise budget.BudgetError(
            "The firmware is over its budget. "
            + budget.line("flash", report["flash"], limit, parts)
        )
    return report


def find(
    root: str | os.PathLike | None = None, kernels: str | None = None
) -> tuple[pathlib.Path, pathlib.Path]:
    """The source tree of TFLite Micro and its library for a Cortex-M4; both as in `measure`.

    Raises:
        ValueError: Unknown kernels, or the compiler, the tree or its library are missing.
    """
    if kernels is not None and kernels not in KERNELS:
        raise ValueError(f"`kernels` must be one of {list(KERNELS)}. Received: {kernels!r}")
    if shutil.which("arm-none-eabi-g++") is None:
        raise ValueError(
            "arm-none-eabi-g++ is not installed (Debian: gcc-arm-none-eabi and "
            "libstdc++-arm-none-eabi-newlib)."
        )
    tree = root or os.environ.get("TFLITE_MICRO_ROOT")
    if not tree:
        raise ValueError(
            "Name the source tree of TFLite Micro in `root` or the environment's TFLITE_MICRO_ROOT."
        )
    built = sorted(pathlib.Path(tree).glob("gen/*cortex-m4*/lib/libtensorflow-microlite.a"))
    of = {"cmsis_nn" if "cmsis_nn" in path.parents[1].name else "reference": path for path in built}
    for kind in KERNELS if kernels is None else (kernels,):
        if kind in of:
            return pathlib.Path(tree), of[kind]
    option = " OPTIMIZED_KERNEL_DIR=cmsis_nn" if kernels == "cmsis_nn" else ""
    wanted = "" if kernels is None else f" with the kernels {kernels!r}"
    raise ValueError(
        f"{tree} has no library for the Cortex-M4{wanted}: build it there with `make -f "
        "tensorflow/lite/micro/tools/make/Makefile TARGET=cortex_m_generic "
        f"TARGET_ARCH=cortex-m4+fp{option} microlite`."
    )


class _Build:
    """The firmware in a folder of its own."""

    def __init__(self, folder, artifact, tree, library):
        self._folder = folder
        name = "student"
        files = micro.files(artifact, name)
        wanted = [f"{name}.h", f"{name}_model.h", f"{name}_model.cc"]
        files = {path: files[path] for path in wanted}
        files["main.cc"] = sources.filled("firmware_main.cc", {"NAME": name})
        templates = importlib.resources.files(__package__) / "templates"
        for path in ("mps2.ld", "mps2_startup.cc"):
            files[path] = (templates / path).read_text()
        for path, text in files.items():
            (folder / path).write_text(text)
        self._sources = ["main.cc", f"{name}_model.cc", "mps2_startup.cc"]
        downloads = tree.resolve() / "tensorflow/lite/micro/tools/make/downloads"
        headers = [downloads / path for path in ("flatbuffers/include", "gemmlowp", "ruy")]
        self._options = [f"-isystem{path}" for path in (tree.resolve(), *headers)]
        self._library = str(library.resolve())

    def _linked(self, name, *options):
        command = ["arm-none-eabi-g++", *_FLAGS, *self._options, *options, *self._sources]
        _run([*command, self._library, *_LINK, "-Tmps2.ld", "-o", name], self._folder)
        return name

    def sections(self):
        """Bytes of each section."""
        listed = _run(["arm-none-eabi-size", "-A", self._linked("size.elf")], self._folder)
        sizes = {row[1]: int(row[2]) for row in re.finditer(r"^(\.\S+)\s+(\d+)", listed, re.M)}
        # What unwinds the stack is code, too, though nothing unwinds it.
        code = sum(sizes.get(part, 0) for part in (".text", ".ARM.extab", ".ARM.exidx"))
        report = {"text": code + sizes.get(".init_array", 0)}
        report |= {part: sizes.get(f".{part}", 0) for part in ("rodata", "data", "bss")}
        report["flash"] = report["text"] + report["rodata"] + report["data"]
        report["ram"] = report["data"] + report["bss"]
        return report

    def measured(self):
        """What an inference takes in QEMU."""
        printed = _run([*_MACHINE, self._linked("run.elf", "-DMEASURED", "-DPRINTS")], self._folder)
        found = re.search(r"inference (\d+) stack (\d+) arena (\d+)", printed)
        if found is None:
            raise ValueError(f"The firmware did not run in QEMU: {printed.strip()}")
        instructions, stack, arena = map(int, found.groups())
        return {"instructions": instructions, "stack": stack, "arena_used": arena}


def _run(command, folder):
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=600)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise ValueError(f"The firmware wasn't built or did not run: {' | '.join(lines[-3:])}")
    return done.stdout
