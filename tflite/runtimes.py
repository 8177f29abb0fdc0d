"""The runtimes of the targets: LiteRT on phones, TFLite Micro on microcontrollers.

Every file is opened here, and every value quantized and dequantized.
"""

import contextlib
import dataclasses
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from keras_distill.tflite import _litert, flatbuffer


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or output of a file.

    Attributes:
        name: Name in the signature, or `input_0`, `output_0` in files without names.
        shape: Shape, batch axis first; `None` for a dynamic axis.
        dtype: NumPy's name of the type.
        scale: Step of quantization, 0.0 where the port isn't quantized.
        zero_point: The integer that stands for 0.
    """

    name: str
    shape: tuple
    dtype: str
    scale: float = 0.0
    zero_point: int = 0

    def quantize(self, x: Any) -> np.ndarray:
        """Values (never the integers that stand for them) in the type of the port.

        Rounded in float64: in float32, a value close to the middle between two steps can end up
        on the wrong one.
        """
        x = np.asarray(x)
        if not self.scale:
            return x.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        steps = np.round(x.astype("float64") / self.scale) + self.zero_point
        return np.clip(steps, limits.min, limits.max).astype(self.dtype)

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """Values of the port's type as float32, or as they are where the port isn't quantized."""
        if not self.scale:
            return q
        return ((q.astype("float64") - self.zero_point) * self.scale).astype("float32")

    def limits(self) -> tuple[float, float]:
        """The range of the values that the port can hold, to the half of a step."""
        if not self.scale:
            return -np.inf, np.inf
        integers = np.iinfo(self.dtype)
        low, high = integers.min - self.zero_point - 0.5, integers.max - self.zero_point + 0.5
        return low * self.scale, high * self.scale


@dataclasses.dataclass(frozen=True)
class Ports:
    """The inputs and outputs of a file.

    Attributes:
        inputs: `Port`s in the file's order, under the names that users know them by.
        outputs: Likewise.
        states: Pairs (input, output) of indices: the state that one step hands to the next.
        along_time: Indices of the outputs of which each step gives the next elements along time.
        each_step: Indices of the outputs that are kept for each step, along a new axis.
        hop: How many elements along time a step takes, 0 for files that take whole samples.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[tuple[int, int], ...] = ()
    along_time: tuple[int, ...] = ()
    each_step: tuple[int, ...] = ()
    hop: int = 0

    @property
    def results(self) -> list[int]:
        """Indices of the outputs that aren't state."""
        kept = {o for _, o in self.states}
        return [i for i in range(len(self.outputs)) if i not in kept]

    def shapes(self) -> dict:
        """Shapes of samples by input name; those of a step's inputs are whole sequences."""
        fed = {i for i, _ in self.states}
        time = (None,) if self.hop else ()
        return {
            port.name: (*time, *port.shape[1 + len(time) :])
            for i, port in enumerate(self.inputs)
            if i not in fed
        }

    def reported(self, kind: str) -> list[dict]:
        """The `"inputs"` or `"outputs"` as plain types."""
        return [{**vars(port), "shape": list(port.shape)} for port in getattr(self, kind)]


class Refusal(RuntimeError):
    """A runtime refused a file. The message is the runtime's own."""


class LiteRT:
    """LiteRT's interpreter.

    Args:
        tflite: The file.
        kernels: `"litert"` (XNNPACK), `"litert-reference"` (the plain reference kernels) or
            `"litert-builtin"` (without XNNPACK).
        threads: Number of threads, `None` for LiteRT's own choice.
        keep_tensors: Keeps every tensor, to be read by `tensor` after `run`.
        runs: Whether it is to run the file, not only to read what its inputs and outputs are.

    Raises:
        Refusal: LiteRT can't run the file.
    """

    def __init__(
        self,
        tflite: bytes,
        kernels: str = "litert",
        threads: int | None = 1,
        keep_tensors: bool = False,
        runs: bool = True,
    ):
        try:
            with _stderr():
                self._interpreter = _litert.litert_interpreter(
                    tflite, kernels, threads, keep_tensors
                )
                if runs:
                    self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise Refusal(f"LiteRT: {error}") from None
        self._read_ports()

    def _read_ports(self):
        signatures = self._interpreter.get_signature_list()
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        # A tensor can be both an input and an output.
        names: list[dict[int, str]] = [{}, {}]
        if len(signatures) == 1:
            runner = self._interpreter.get_signature_runner()
            for side, details in enumerate(
                (runner.get_input_details(), runner.get_output_details())
            ):
                names[side] = {d["index"]: name for name, d in details.items()}
        self._input_indices = [d["index"] for d in inputs]
        self._shapes = [tuple(int(size) for size in d["shape"]) for d in inputs]
        self._output_indices = [d["index"] for d in outputs]
        self.inputs = [_port(d, names[0], "input", i) for i, d in enumerate(inputs)]
        self.outputs = [_port(d, names[1], "output", i) for i, d in enumerate(outputs)]

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One invocation on arrays of the ports' types. Returns arrays of the ports' types."""
        if any(None in port.shape for port in self.inputs):
            self.resize([array.shape for array in arrays])
        for index, array in zip(self._input_indices, arrays, strict=True):
            self._interpreter.set_tensor(index, array)
        try:
            with _stderr():
                self._interpreter.invoke()
        except RuntimeError as error:
            raise Refusal(f"LiteRT: {error}") from None
        return [self._interpreter.get_tensor(i) for i in self._output_indices]

    def resize(self, shapes: Sequence[Sequence[int]]) -> None:
        """Makes room for inputs of these shapes, where they aren't those of the last run."""
        wanted = [tuple(shape) for shape in shapes]
        if wanted == self._shapes:
            return
        self._shapes = []
        for index, shape in zip(self._input_indices, wanted, strict=True):
            self._interpreter.resize_tensor_input(index, shape)
        self._interpreter.allocate_tensors()
        self._shapes = wanted

    def reset(self) -> None:
        """Forgets the state of recurrent operators."""
        self._interpreter.reset_all_variables()

    def computed(self) -> dict[int, Port]:
        """The inputs and the tensors that operators compute, by index, under the file's names."""
        indices = _litert.computed_tensors(self._interpreter) | set(self._input_indices)
        names = {d["index"]: d["name"] for d in self._interpreter.get_tensor_details()}
        return {
            details["index"]: _port(details, names, "tensor", details["index"])
            for details in self._interpreter.get_tensor_details()
            if details["index"] in indices
        }

    def tensor(self, index: int) -> np.ndarray:
        """A tensor as the last run left it, where `keep_tensors` was asked for."""
        return self._interpreter.get_tensor(index)


def _port(details, names, kind, i):
    shape = [None if s < 0 else int(s) for s in details["shape_signature"]] or [
        int(s) for s in details["shape"]
    ]
    scale, zero_point = details["quantization"]
    return Port(
        names.get(details["index"], f"{kind}_{i}"),
        tuple(shape),
        np.dtype(details["dtype"]).name,
        float(scale),
        int(zero_point),
    )


class TFLiteMicro:
    """TFLite Micro's interpreter on this host.

    Args:
        tflite: The file.

    Attributes:
        arena: Bytes of the arena: `total`, `head` (activations), `tail` (persistent), and `parts`
            by the interpreter's own names.
    """

    def __init__(self, tflite: bytes):
        _micro_runtime()
        with _stderr() as log:
            try:
                self._interpreter = _litert.micro_interpreter(tflite, largest_arena(tflite))
                self._interpreter.print_allocations()
            except RuntimeError as error:
                self._interpreter, failure = None, error
        if self._interpreter is None:
            raise Refusal(f"TFLite Micro: {_errors(log[0]) or failure}")
        self.arena = _arena(log[0])
        inputs, outputs = flatbuffer.port_counts(tflite)
        self.inputs = [
            _micro_port(self._interpreter.get_input_details(i), f"input_{i}") for i in range(inputs)
        ]
        self.outputs = [
            _micro_port(self._interpreter.get_output_details(i), f"output_{i}")
            for i in range(outputs)
        ]

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One invocation on arrays of the ports' types. Returns arrays of the ports' types."""
        for i, array in enumerate(arrays):
            self._interpreter.set_input(array, i)
        failure = None
        with _stderr() as log:
            try:
                self._interpreter.invoke()
            except RuntimeError as error:
                failure = error
        if failure is not None:
            raise Refusal(f"TFLite Micro: {_errors(log[0]) or failure}")
        return [self._interpreter.get_output(i) for i in range(len(self.outputs))]

    def reset(self) -> None:
        """Forgets the state of recurrent operators."""
        self._interpreter.reset()


def largest_arena(tflite):
    """An upper bound of the arena; what a file needs is measured by recording allocations."""
    return (64 << 20) + 10 * len(tflite)


def micro_available() -> bool:
    """Whether TFLite Micro's interpreter is installed."""
    try:
        _micro_runtime()
    except ImportError:
        return False
    return True


def _micro_runtime():
    """Raises where TFLite Micro's interpreter isn't installed."""
    try:
        from tflite_micro.python.tflite_micro import runtime  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "The TFLite Micro interpreter is not installed. `pip install keras-distill[micro]` "
            "installs it on Linux x86-64; there is none for other hosts."
        ) from error


def _micro_port(details, name):
    quantization = details["quantization_parameters"]
    scales, zero_points = quantization["scales"], quantization["zero_points"]
    return Port(
        name,
        tuple(int(size) for size in details["shape"]),
        np.dtype(details["dtype"]).name,
        float(scales[0]) if len(scales) else 0.0,
        int(zero_points[0]) if len(zero_points) else 0,
    )


def _arena(text):
    """The arena's sizes from the interpreter's printed record."""
    sizes = {
        kind: int(size)
        for kind, size in re.findall(r"Arena allocation (total|head|tail) (\d+) bytes", text)
    }
    parts = {name: int(size) for name, size in re.findall(r"'(.+?)' used (\d+) bytes", text)}
    return {**sizes, "parts": parts}


def _errors(text):
    """The errors among what a runtime printed, without its colours and prefixes."""
    lines = [re.sub(r"^ERROR: ", "", line).strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("INFO", "WARNING", "["))]
    return " ".join(dict.fromkeys(lines))


@contextlib.contextmanager
def _stderr() -> Iterator[list[str]]:
    """Captures what the process' C++ code writes to standard error, as a list of one text."""
    captured = [""]
    saved = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield captured
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            log.seek(0)
            captured[0] = log.read().decode(errors="replace")


def of_target(runtime: str) -> list[str]:
    """The runtimes of this host that stand for a target's, which is `"litert"` or `"micro"`."""
    names = ["litert", "litert-reference"]
    return ["micro", *names] if on_host(runtime) == "micro" else names


def on_host(runtime: str) -> str:
    """The runtime of this host that stands for a target's.

    Where TFLite Micro isn't installed, LiteRT's reference kernels do.
    """
    return "litert-reference" if runtime == "micro" and not micro_available() else runtime


def open_file(
    tflite: bytes, runtime: str = "litert", threads: int | None = 1
) -> LiteRT | TFLiteMicro:
    """A file in one of the runtimes: `"litert"`, `"litert-reference"` or `"micro"`."""
    return TFLiteMicro(tflite) if runtime == "micro" else LiteRT(tflite, runtime, threads)


def ports_of(
    tflite: bytes,
    states: Sequence[str] = (),
    along_time: Sequence[str] = (),
    each_step: Sequence[str] = (),
    hop: int = 0,
) -> Ports:
    """The inputs and outputs of a file.

    Args:
        tflite: The file.
        states: Names of the inputs that are state, whose outputs are named `<state>_out`.
        along_time: Names of the outputs of which each step gives the next elements along time.
        each_step: Names of the outputs that are kept for each step, along a new axis.
        hop: How many elements along time a step takes, 0 for files that take whole samples.
    """
    # TFLite Micro has kernels that LiteRT hasn't.
    opened = LiteRT(tflite, runs=False)
    inputs = [port.name for port in opened.inputs]
    outputs = [port.name for port in opened.outputs]
    pairs = tuple((inputs.index(n), outputs.index(f"{n}_out")) for n in states)
    along, each = (tuple(map(outputs.index, names)) for names in (along_time, each_step))
    return Ports(tuple(opened.inputs), tuple(opened.outputs), pairs, along, each, hop)


def predict(
    tflite: bytes, ports: Ports, inputs: Mapping[str, np.ndarray], runtime: str
) -> dict[str, np.ndarray]:
    """Runs samples through a file.

    Args:
        tflite: The file.
        ports: Its inputs and outputs.
        inputs: Values of shape `(samples, ...)` by input name, in the file's order.
        runtime: As in `open_file`.

    Returns:
        Outputs as floats of shape `(samples, ...)` by name, without state.
    """
    interpreter = open_file(tflite, runtime)
    results = run_samples(interpreter, list(inputs.values()), ports)
    return {
        ports.outputs[i].name: interpreter.outputs[i].dequantize(result)
        for i, result in zip(ports.results, results, strict=True)
    }


def run_samples(
    interpreter: LiteRT | TFLiteMicro, inputs: Sequence[np.ndarray], ports: Ports | None = None
) -> list[np.ndarray]:
    """Runs samples through an interpreter, quantizing and dequantizing at its ports.

    Args:
        interpreter: A `LiteRT` or `TFLiteMicro`.
        inputs: Arrays in the order of the interpreter's inputs, each of shape `(samples, ...)`.
        ports: The file's inputs and outputs. Where it takes steps, the inputs that aren't state
            have a time axis after the batch axis, along which the file is run.

    Returns:
        Arrays of the ports' types, each of shape `(samples, ...)`, without state.
    """
    own = interpreter.inputs
    batch = own[0].shape[0]
    samples = len(inputs[0])
    results = []
    for start in range(0, samples, batch or samples):
        block = [a[start : start + (batch or samples)] for a in inputs]
        short = (batch or len(block[0])) - len(block[0])
        if short:
            block = [np.concatenate([a, np.repeat(a[-1:], short, axis=0)]) for a in block]
        interpreter.reset()
        if ports is not None and ports.hop:
            out = _steps(interpreter, block, ports)
        else:
            out = interpreter.run([p.quantize(a) for p, a in zip(own, block, strict=True)])
        keep = len(block[0]) - short
        results.append([np.array(a[:keep]) for a in out])
    return [np.concatenate(parts) for parts in zip(*results, strict=True)]


def _steps(interpreter, block, ports):
    """Runs a file of steps along the time axis of `block`, its state starting at 0."""
    time, hop = block[0].shape[1], ports.hop
    if not time or time % hop:
        raise ValueError(
            f"The file takes {hop} frames at a time: give a multiple of them. "
            f"Received: {time} frames"
        )
    own = interpreter.inputs
    fed = [i for i, _ in ports.states]
    data = [i for i in range(len(own)) if i not in fed]
    samples = len(block[0])
    arrays = [
        port.quantize(np.zeros([size or samples for size in port.shape], "float32")) for port in own
    ]
    met: dict[int, list] = {o: [] for o in (*ports.along_time, *ports.each_step)}
    for t in range(0, time, hop):
        for i, array in zip(data, block, strict=True):
            arrays[i] = own[i].quantize(array[:, t : t + hop])
        results = interpreter.run(arrays)
        for o, parts in met.items():
            parts.append(np.array(results[o]))
        for i, o in ports.states:
            port = interpreter.outputs[o]
            same = (port.scale, port.zero_point) == (own[i].scale, own[i].zero_point)
            arrays[i] = results[o] if same else own[i].quantize(port.dequantize(results[o]))
    for o in ports.along_time:
        results[o] = np.concatenate(met[o], axis=1)
    for o in ports.each_step:
        results[o] = np.stack(met[o], axis=1)
    return [results[o] for o in ports.results]
