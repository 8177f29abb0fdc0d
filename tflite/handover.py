"""What a conversion and its child process hand each other: JSON, arrays and files, never code."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras_distill.tflite import runtimes
from keras_distill.tflite.artifact import Examples
from keras_distill.tflite.budget import BudgetError
from keras_distill.tflite.calibration import Calibration
from keras_distill.tflite.child import ConverterCrash, ConverterError
from keras_distill.tflite.targets import EthosU

#: The layers around a student that are saved beside it.
AROUND = ("preprocessing", "postprocessing")

#: Errors that arrive as what they are; of others the nearest base among these.
_ERRORS = (
    BudgetError, ConverterCrash, ConverterError, runtimes.Refusal, NotImplementedError, TypeError,
    ValueError, RuntimeError,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the child hands back.

    Attributes:
        tflite: The file as it is delivered.
        named: The file with its names.
        compiled: The file compiled for an NPU, or `None`.
        report: What is known of it.
        ports: Its inputs and outputs.
        examples: Inputs of its test vectors.
        warnings: Messages of which the child warned.
    """

    tflite: bytes
    named: bytes
    compiled: bytes | None
    report: dict[str, Any]
    ports: runtimes.Ports
    examples: Examples
    warnings: tuple[str, ...]


def write_arguments(
    folder: pathlib.Path,
    target: str | EthosU,
    quantization: str,
    arguments: Mapping[str, Any],
) -> None:
    """Writes the arguments of a conversion, where layers around the student count as `None`.

    Args:
        folder: Folder that both processes see.
        target: As in `keras_distill.tflite.convert`.
        quantization: Likewise.
        arguments: The other arguments; `calibration` is a `Calibration` on a dict of arrays.
    """
    given = dict(arguments)
    for name in AROUND:
        given[name] = given[name] if isinstance(given[name], str) else None
    given["target"] = dataclasses.asdict(target) if isinstance(target, EthosU) else target
    given["quantization"] = quantization
    given["input_signature"] = _signature_to_json(given["input_signature"])
    calibration = given["calibration"]
    if calibration is not None:
        options = dict(vars(calibration))
        _write_arrays(folder, "calibration", options.pop("data"))
        given["calibration"] = options
    _write_json(folder, "arguments", given)


def read_arguments(folder: pathlib.Path) -> dict[str, Any]:
    """The arguments that `write_arguments` wrote, `target` and `quantization` among them."""
    given = _read_json(folder, "arguments")
    if isinstance(given["target"], Mapping):
        given["target"] = EthosU(**given["target"])
    given["input_signature"] = _signature_of_json(given["input_signature"])
    options = given["calibration"]
    if options is not None:
        if options["training_range"] is not None:
            options["training_range"] = tuple(options["training_range"])
        given["calibration"] = Calibration(_read_arrays(folder, "calibration"), **options)
    return given


def write_modules(folder: pathlib.Path, modules: list[str]) -> None:
    """Writes the names of the modules that a student's layers and functions are registered in."""
    _write_json(folder, "modules", modules)


def read_modules(folder: pathlib.Path) -> list[str]:
    """The names that `write_modules` wrote."""
    return _read_json(folder, "modules")


def write_outcome(folder: pathlib.Path, outcome: Outcome) -> None:
    """Writes what came of a conversion."""
    for name in ("tflite", "named", "compiled"):
        content = getattr(outcome, name)
        if content is not None:
            (folder / f"outcome.{name}").write_bytes(content)
    examples = outcome.examples
    if examples.arrays is not None:
        _write_arrays(folder, "examples", examples.arrays)
    known = {
        "report": outcome.report,
        "ports": dataclasses.asdict(outcome.ports),
        "examples": {"source": examples.source, "prove": examples.prove},
        "warnings": outcome.warnings,
    }
    _write_json(folder, "outcome", known)


def read_outcome(folder: pathlib.Path) -> Outcome:
    """What `write_outcome` wrote."""
    known = _read_json(folder, "outcome")
    compiled = folder / "outcome.compiled"
    has_examples = (folder / "examples.npz").is_file()
    arrays = _read_arrays(folder, "examples") if has_examples else None
    return Outcome(
        (folder / "outcome.tflite").read_bytes(),
        (folder / "outcome.named").read_bytes(),
        compiled.read_bytes() if compiled.is_file() else None,
        known["report"],
        _ports(known["ports"]),
        Examples(arrays, **known["examples"]),
        tuple(known["warnings"]),
    )


def write_error(folder: pathlib.Path, error: Exception) -> bool:
    """Writes an error that the parent is to raise; says whether it is of a kind that it knows."""
    kind = next((kind for kind in _ERRORS if isinstance(error, kind)), None)
    if kind is not None:
        _write_json(folder, "error", {"kind": kind.__name__, "message": str(error)})
    return kind is not None


def read_error(folder: pathlib.Path) -> Exception | None:
    """The error that `write_error` wrote, or `None`."""
    if not (folder / "error.json").is_file():
        return None
    error = _read_json(folder, "error")
    kind = next(kind for kind in _ERRORS if kind.__name__ == error["kind"])
    return kind(error["message"])


def _ports(known):
    def port(fields):
        return runtimes.Port(**{**fields, "shape": tuple(fields["shape"])})

    pairs = tuple(tuple(pair) for pair in known["states"])
    return runtimes.Ports(
        tuple(map(port, known["inputs"])), tuple(map(port, known["outputs"])), pairs,
        tuple(known["along_time"]), tuple(known["each_step"]), known["hop"],
    )  # fmt: skip


def _signature_to_json(signature):
    """A structure of specs with each of them as a dict `{"spec": [shape, dtype, name]}`."""
    if signature is None:
        return None
    if isinstance(signature, Mapping):
        return {"dict": {key: _signature_to_json(spec) for key, spec in signature.items()}}
    if isinstance(signature, (list, tuple)):
        return {"list": [_signature_to_json(spec) for spec in signature]}
    dtype = keras.backend.standardize_dtype(signature.dtype or "float32")
    return {"spec": [list(signature.shape), dtype, getattr(signature, "name", None)]}


def _signature_of_json(known):
    if known is None:
        return None
    if "dict" in known:
        return {key: _signature_of_json(spec) for key, spec in known["dict"].items()}
    if "list" in known:
        return [_signature_of_json(spec) for spec in known["list"]]
    shape, dtype, name = known["spec"]
    return keras.InputSpec(dtype=dtype, shape=tuple(shape), name=name)


def _write_json(folder, name, content):
    text = json.dumps(content, default=lambda number: number.item())  # NumPy's numbers
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def _read_json(folder, name):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def _write_arrays(folder, name, arrays):
    """Arrays by name in an `.npz` under numbers, since a name can be any text."""
    _write_json(folder, f"{name}-names", list(arrays))
    np.savez(folder / f"{name}.npz", *map(np.asarray, arrays.values()))


def _read_arrays(folder, name):
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[f"arr_{i}"] for i, key in enumerate(_read_json(folder, f"{name}-names"))}
