"""Limits of memory, and a breakdown for files that exceed them."""

import re
from collections.abc import Mapping
from typing import Any

from keras_distill.tflite import arena

_UNITS = {"": 1, "B": 1, "KB": 1024, "KIB": 1024, "MB": 1024**2, "MIB": 1024**2}


class BudgetError(ValueError):
    """A file needs more memory than its budget."""


def size(argument: str, value: int | str | None) -> int | None:
    """Bytes from an integer or a text such as `"64KB"` (1 KB = 1024 bytes)."""
    if value is None:
        return None
    text = str(value).strip().upper()
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Z]*)", text)
    if isinstance(value, bool) or not match or match[2] not in _UNITS:
        raise ValueError(
            f'`{argument}` must be a number of bytes or a text such as "64KB" or "1.5MB". '
            f"Received: {argument}={value!r}"
        )
    bytes_ = int(float(match[1]) * _UNITS[match[2]])
    if bytes_ < 1:
        raise ValueError(f"`{argument}` must be above 0. Received: {argument}={value!r}")
    return bytes_


def check(report: Mapping[str, Any], max_flash: int | None, max_arena: int | None) -> None:
    """Raises a `BudgetError` with the breakdown where a report is over a limit.

    Args:
        report: Report of an artifact.
        max_flash: Bytes of the file at most, or `None`.
        max_arena: Bytes of the tensor arena at most, or `None`.
    """
    excess = []
    flash, parts = report["bytes"], report["bytes_by_part"]
    measured = report.get("arena", {"total": 0, "head": 0, "parts": {}, "to_start": 0})
    needed = arena.needed(report)
    areas = {"activations": measured["head"]}
    if "npu" in report:
        npu = report["npu"]
        parts = {"flash": npu["flash_bytes"], "DRAM": npu["dram_bytes"]}
        areas = {"SRAM": npu["sram_bytes"]}
        flash = sum(parts.values())
    areas |= measured["parts"]
    areas["only while it starts"] = measured["to_start"] - measured["total"]
    if max_flash is not None and flash > max_flash:
        excess.append(line("flash", flash, max_flash, parts))
    if max_arena is not None and needed > max_arena:
        excess.append(line("arena", needed, max_arena, areas))
    if excess:
        raise BudgetError("The file is over its budget. " + " ".join(excess))


def check_stream(report: Mapping[str, Any], max_macs: float | None, max_state: int | None) -> None:
    """Raises a `BudgetError` where a stream is over a limit.

    Args:
        report: Report of a stream.
        max_macs: Multiply-accumulates of a frame at most, or `None`.
        max_state: Bytes of state at most, or `None`.
    """
    excess = []
    macs, state = report["multiply_accumulates_per_frame"], report["state_bytes"]
    if max_macs is not None and macs > max_macs:
        excess.append(f"{macs:,g} multiply-accumulates a frame, {max_macs:,g} allowed.")
    if max_state is not None and state > max_state:
        parts = {each["name"]: each["bytes"] for each in report["states"]}
        excess.append(line("state", state, max_state, parts))
    if excess:
        raise BudgetError("The stream is over its budget. " + " ".join(excess))


def line(name: str, needed: int, limit: int, parts: Mapping[str, int]) -> str:
    """How far something is over its limit, with what it consists of."""
    breakdown = ", ".join(f"{part} {size:,}" for part, size in parts.items() if part != "total")
    return f"{name}: {needed:,} bytes needed, {limit:,} allowed ({breakdown})."
