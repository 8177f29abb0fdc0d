"""Files compiled for Arm's Ethos-U NPUs by Vela."""

import csv
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from keras_distill.tflite import failing
from keras_distill.tflite.inspect import inspect
from keras_distill.tflite.targets import NPU_OPERATOR, Target

#: System configuration and memory mode that Vela documents for each family.
_SETTINGS = {
    "ethos-u55": ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "ethos-u65": ("Ethos_U65_High_End", "Dedicated_Sram"),
    "ethos-u85": ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram"),
}


def available() -> bool:
    """Whether Vela is installed."""
    return importlib.util.find_spec("ethosu") is not None


def compile(
    tflite: bytes, target: Target, named: bytes | None = None
) -> tuple[bytes, dict[str, Any]]:
    """Compiles a file for an NPU.

    Args:
        tflite: The int8 or int16x8 file.
        target: A `targets.Target` with an accelerator.
        named: The same file with its names, by which errors name layers.

    Returns:
        The compiled file, and Vela's estimate: bytes of SRAM and flash, cycles and seconds for
        one inference, and the operators that are left to the CPU.

    Raises:
        ImportError: Vela isn't installed.
        ValueError: Vela refused the file or crashed.
    """
    if not available():
        raise ImportError(f"Target {target.name!r} needs Vela: `pip install keras-distill[ethos]`.")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        done = _run(tflite, target, folder)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise ValueError(
                f"Vela failed for target {target.name!r} (exit status {done.returncode}): "
                f"{said[-1].rstrip('.')}. {_at_fault(named or tflite, target, folder)}Replace the "
                'layer, or give target="micro" for a file that the CPU runs.'
            )
        compiled = (folder / "student_vela.tflite").read_bytes()
        with open(next(folder.glob("*_summary_*.csv")), newline="") as file:
            row = next(csv.DictReader(file))
    system, memory = _settings(target)
    left = [op.name for op in inspect(compiled).operators if op.name != NPU_OPERATOR]
    return compiled, {
        "system_config": system,
        "memory_mode": memory,
        "sram_bytes": round(float(row["sram_memory_used"]) * 1024),
        "flash_bytes": sum(
            round(float(row[f"{place}_chip_flash_memory_used"]) * 1024) for place in ("on", "off")
        ),
        "dram_bytes": round(float(row["dram_memory_used"]) * 1024),
        "cycles": round(float(row["cycles_total"])),
        "seconds": float(row["inference_time"]),
        "operators_left_to_the_cpu": left,
    }


def _settings(target: Target) -> tuple[str, str]:
    """System configuration and memory mode."""
    assert target.accelerator is not None
    system, memory = _SETTINGS[target.name.rsplit("-", 1)[0]]
    return target.accelerator.system_config or system, target.accelerator.memory_mode or memory


def _run(tflite: bytes, target: Target, folder: pathlib.Path) -> subprocess.CompletedProcess:
    """Runs Vela on a file, which it leaves in a folder."""
    assert target.accelerator is not None
    system, memory = _settings(target)
    (folder / "student.tflite").write_bytes(tflite)
    command = [
        sys.executable, "-P", "-m", "ethosu.vela", "student.tflite", "--output-dir", ".",
        "--accelerator-config", target.name,
        "--system-config", system, "--memory-mode", memory,
    ]  # fmt: skip
    if target.accelerator.config is not None:
        command += ["--config", os.path.abspath(target.accelerator.config)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def _at_fault(tflite: bytes, target: Target, folder: pathlib.Path) -> str:
    """Which operator Vela fails at."""

    def fails(file):
        return _run(file, target, folder).returncode != 0

    return f"It fails at {failing.operator_at_fault(tflite, fails)}. "
