"""TensorFlow's converter, with its own post-training quantization."""

import pathlib
import tempfile

from keras_distill.tflite import child, flatbuffer, lowering, ranges, trace
from keras_distill.tflite.converters import masks, refusals
from keras_distill.tflite.converters.converter import Converted, Converter, Samples, Scores
from keras_distill.tflite.request import Request
from keras_distill.tflite.trace import Function, Graph


class Plain(Converter):
    """TensorFlow's converter alone."""

    def convert(self, request: Request, graph: Graph, samples: Samples | None) -> Converted:
        if request.is_float or samples is None:
            return Converted(run(request, graph, request.quantization))
        scores = masks.clamp(graph, samples, lambda: run(request, graph, "float32"))
        tflite = run(request, graph, request.quantization, samples)
        met = ranges.calibrated((graph.folder / "calibrated.tflite").read_bytes())
        return Converted(tflite, scores=scores).within(met)


def run(request: Request, graph: Graph, quantization: str, samples: Samples | None = None) -> bytes:
    """Runs TensorFlow's converter in the child process.

    Args:
        request: What was asked for.
        graph: The traced graph.
        quantization: What to convert to, which may be less than what was asked for.
        samples: Calibration data, for quantizations that need them.

    Returns:
        The file, its inputs and outputs in order and named.

    Raises:
        ConverterError: The converter refused the graph, or crashed.
    """
    name = graph.function.model.name
    try:
        tflite = child.run(
            graph.folder,
            "convert",
            samples,
            quantization=quantization,
            io=request.io,
            batch_size=request.batch_size,
            # CMSIS-NN's kernel with 16-bit inputs has one scale for all weights.
            dense_per_tensor=quantization == "int16x8" and request.target.runtime == "micro",
        )
    except child.ConverterCrash as error:
        raise child.ConverterCrash(
            f"TensorFlow's converter crashed on model {name!r} as {quantization} ({error}). "
            + _advice(graph)
        ) from None
    except child.ConverterError as error:
        raise child.ConverterError(
            f"TensorFlow's converter refused model {name!r} as {quantization}: "
            f"{refusals.explained(str(error), _layers(graph), graph.loops)}"
        ) from None
    return flatbuffer.tidied(tflite, [i.name for i in graph.function.inputs], graph.outputs)


def float32_file(request: Request, function: Function, scores: Scores) -> bytes:
    """The float32 file of the graph that a quantized file was made from.

    Args:
        request: What was asked for.
        function: The function that was traced.
        scores: Scores whose masks were brought near to them.
    """
    with tempfile.TemporaryDirectory() as folder:
        graph = trace.trace(request, function, pathlib.Path(folder))
        masks.replace(graph, scores)
        return run(request, graph, "float32")


def _layers(graph):
    return {layer.name for layer in lowering.all_layers(graph.function.model)}


def _advice(graph):
    if graph.loops:
        return (
            f"It can't quantize loops; the model's are {graph.loops}, named after their layers. "
            'Use quantization="float32" or "float16", or write the layer without a loop.'
        )
    return 'Convert parts of the model to find the layer, or use quantization="float32".'
