"""The runtimes of the targets: LiteRT on phones, TFLite Micro on microcontrollers."""

import contextlib
import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
from keras_distill.tflite import worker


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

    def quantize(self, x):
        """Values (never the integers that stand for them) to what the port takes."""
        x = np.asarray(x)
        if not self.scale:
            return x.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        steps = np.round(x.astype("float64") / self.scale) + self.zero_point
        return np.clip(steps, limits.min, limits.max).astype(self.dtype)

    def dequantize(self, q):
        """What the port gives as floats, or as it is where the port isn't quantized."""
        if not self.scale:
            return q
        return ((q.astype("float32") - self.zero_point) * np.float32(self.scale)).astype("float32")


class Refusal(RuntimeError):
    """A runtime refused a file. The message is the runtime's own."""


class LiteRT:
    """LiteRT's interpreter.

    Args:
        tflite: The file.
        reference: Runs the plain reference kernels instead of XNNPACK.
        threads: Number of threads.
    """

    def __init__(self, tflite, reference=False, threads=1):
        from ai_edge_litert import interpreter

        resolver = interpreter.OpResolverType
        try:
            with _stderr():
                self._interpreter = interpreter.Interpreter(
                    model_content=bytes(tflite),
                    num_threads=threads,
                    experimental_op_resolver_type=resolver.BUILTIN_REF
                    if reference
                    else resolver.AUTO,
                )
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise Refusal(f"LiteRT: {error}") from None
        self._read_ports()

    def _read_ports(self):
        signatures = self._interpreter.get_signature_list()
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        names = {}
        if len(signatures) == 1:
            runner = self._interpreter.get_signature_runner()
            for details in (runner.get_input_details(), runner.get_output_details()):
                names.update({d["index"]: name for name, d in details.items()})
        self._input_indices = [d["index"] for d in inputs]
        self._output_indices = [d["index"] for d in outputs]
        self.inputs = [_port(d, names, "input", i) for i, d in enumerate(inputs)]
        self.outputs = [_port(d, names, "output", i) for i, d in enumerate(outputs)]

    def run(self, arrays):
        """One invocation on arrays of the ports' types. Returns arrays of the ports' types."""
        resized = False
        for index, port, array in zip(self._input_indices, self.inputs, arrays, strict=True):
            if None in port.shape:
                self._interpreter.resize_tensor_input(index, array.shape)
                resized = True
        if resized:
            self._interpreter.allocate_tensors()
        for index, array in zip(self._input_indices, arrays, strict=True):
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(i) for i in self._output_indices]

    def reset(self):
        """Forgets the state of recurrent operators."""
        self._interpreter.reset_all_variables()


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

    def __init__(self, tflite):
        runtime = _micro_runtime()
        tflite = bytes(tflite)
        with _stderr() as log:
            try:
                self._interpreter = runtime.Interpreter.from_bytes(
                    tflite, arena_size=_largest_arena(tflite)
                )
                self._interpreter.print_allocations()
            except RuntimeError as error:
                self._interpreter, failure = None, error
        if self._interpreter is None:
            raise Refusal(f"TFLite Micro: {_errors(log[0]) or failure}")
        self.arena = _arena(log[0])
        from ai_edge_litert.tools import flatbuffer_utils

        graph = flatbuffer_utils.read_model_from_bytearray(bytearray(tflite)).subgraphs[0]
        self.inputs = [
            _micro_port(self._interpreter.get_input_details(i), f"input_{i}")
            for i in range(len(graph.inputs))
        ]
        self.outputs = [
            _micro_port(self._interpreter.get_output_details(i), f"output_{i}")
            for i in range(len(graph.outputs))
        ]

    def run(self, arrays):
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

    def reset(self):
        """Forgets the state of recurrent operators."""
        self._interpreter.reset()


def _largest_arena(tflite):
    """A roof for the arena; what a file needs of it is measured by recording allocations."""
    return (64 << 20) + 10 * len(tflite)


_START = """
import sys
from tflite_micro.python.tflite_micro import runtime
runtime.Interpreter.from_bytes(sys.stdin.buffer.read(), arena_size=int(sys.argv[1]))
"""


def safe_arena(tflite, total) -> int:
    """An arena in which TFLite Micro starts, with a margin of a tenth or more.

    While it starts, the interpreter needs more than it keeps. Each size is tried in a process of
    its own: too small an arena can crash it.

    Args:
        tflite: The file.
        total: Bytes that the interpreter keeps.
    """
    size = _rounded(1.1 * total + 64)
    command = [sys.executable, "-P", "-c", _START]
    while subprocess.run([*command, str(size)], input=tflite, capture_output=True).returncode:
        size = _rounded(1.25 * size)
    return size


def _rounded(size):
    """The next multiple of 16."""
    return -(-int(size) // 16) * 16


def micro_available() -> bool:
    """Whether TFLite Micro's interpreter is installed."""
    try:
        _micro_runtime()
    except ImportError:
        return False
    return True


def _micro_runtime():
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ImportError as error:
        raise ImportError(
            "The TFLite Micro interpreter is not installed. `pip install keras-distill[micro]` "
            "installs it on Linux x86-64; there is none for other hosts."
        ) from error
    return runtime


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
def _stderr():
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


def of_target(runtime) -> list[str]:
    """The runtimes of this host that stand for a target's, which is `"litert"` or `"micro"`."""
    names = ["litert", "litert-reference"]
    return ["micro", *names] if on_host(runtime) == "micro" else names


def on_host(runtime) -> str:
    """The runtime of this host that stands for a target's: where TFLite Micro isn't installed,
    LiteRT's reference kernels do."""
    return "litert-reference" if runtime == "micro" and not micro_available() else runtime


def survive(tflite, runtime):
    """Runs a file once in a child process, for some files bring their interpreter down.

    Args:
        tflite: The file.
        runtime: `"litert"` or `"micro"`.

    Raises:
        Refusal: A runtime crashed. What it merely refuses comes up when the file is opened.
    """
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "file.tflite").write_bytes(tflite)
        for name in of_target(runtime):
            try:
                worker.run(folder, "run", runtime=name, arena=_largest_arena(tflite))
            except worker.ConverterCrash as crash:
                raise Refusal(f"Runtime {name!r} crashes on the file ({crash}).") from None
            except worker.ConverterError:
                continue


def open_file(tflite, runtime="litert", threads=1):
    """A file in one of the runtimes: `"litert"`, `"litert-reference"` or `"micro"`."""
    if runtime == "micro":
        return TFLiteMicro(tflite)
    return LiteRT(tflite, reference=runtime == "litert-reference", threads=threads)


def run_samples(interpreter, inputs, states=()):
    """Runs samples through an interpreter, quantizing and dequantizing at its ports.

    Args:
        interpreter: A `LiteRT` or `TFLiteMicro`.
        inputs: Arrays in the order of the interpreter's inputs, each of shape `(samples, ...)`.
        states: Pairs (input, output) of indices: state that a step hands to the next. The other
            inputs then have a time axis behind the batch axis, along which the file is run.

    Returns:
        Arrays as the ports give them, each of shape `(samples, ...)`.
    """
    ports = interpreter.inputs
    batch = ports[0].shape[0]
    samples = len(inputs[0])
    results = []
    for start in range(0, samples, batch or samples):
        block = [a[start : start + (batch or samples)] for a in inputs]
        short = (batch or len(block[0])) - len(block[0])
        if short:
            block = [np.concatenate([a, np.repeat(a[-1:], short, axis=0)]) for a in block]
        interpreter.reset()
        if states:
            out = _steps(interpreter, block, states)
        else:
            out = interpreter.run([p.quantize(a) for p, a in zip(ports, block, strict=True)])
        keep = len(block[0]) - short
        results.append([np.array(a[:keep]) for a in out])
    return [np.concatenate(parts) for parts in zip(*results, strict=True)]


def _steps(interpreter, block, states):
    """Runs a step model along the time axis of `block`, its state starting at 0."""
    ports = interpreter.inputs
    fed = [i for i, _ in states]
    data = [i for i in range(len(ports)) if i not in fed]
    samples = len(block[0])
    arrays = [
        port.quantize(np.zeros([size or samples for size in port.shape], "float32"))
        for port in ports
    ]
    for t in range(block[0].shape[1]):
        for i, array in zip(data, block, strict=True):
            arrays[i] = ports[i].quantize(array[:, t : t + 1])
        results = interpreter.run(arrays)
        for i, o in states:
            port = interpreter.outputs[o]
            same = (port.scale, port.zero_point) == (ports[i].scale, ports[i].zero_point)
            arrays[i] = results[o] if same else ports[i].quantize(port.dequantize(results[o]))
    kept = [o for _, o in states]
    return [result for o, result in enumerate(results) if o not in kept]
