"""ai-edge-quantizer on the float32 file, with ranges and precision as they were asked for."""

import numpy as np
from keras_distill.tflite import child, flatbuffer, ranges, trace
from keras_distill.tflite.converters import masks, plain, recipe
from keras_distill.tflite.converters.activation_ranges import activation_ranges
from keras_distill.tflite.converters.converter import Converted, Converter, Samples
from keras_distill.tflite.inspect import Inspection, Operator, inspect
from keras_distill.tflite.request import Request
from keras_distill.tflite.trace import Graph


class Quantizer(Converter):
    """TensorFlow's converter to float32, and ai-edge-quantizer from there."""

    def convert(self, request: Request, graph: Graph, samples: Samples | None) -> Converted:
        assert samples is not None
        scores = masks.clamp(graph, samples, lambda: plain.run(request, graph, "float32"))
        float32 = plain.run(request, graph, "float32")
        found = inspect(float32)
        named = _named(request, graph, found)
        met = _save_ranges(request, graph, found, float32, samples)
        (graph.folder / "float32.tflite").write_bytes(float32)
        micro = request.target.runtime == "micro"
        rules = recipe.build(request.quantization, request.io, request.precision, named, micro)
        try:
            tflite = child.run(graph.folder, "quantize", recipe=rules)
        except child.ConverterError as error:
            raise child.ConverterError(
                f"ai-edge-quantizer refused model {graph.function.model.name!r} as "
                f"{request.quantization}: {error}"
            ) from None
        inputs = [i.name for i in graph.function.inputs]
        floats = [key for key, value in request.precision.items() if value == "float32"]
        return Converted(
            flatbuffer.tidied(tflite, inputs, graph.outputs),
            frozenset(op.layer for key in floats for op in named[key]),
            scores=scores,
        ).within(met)


def _named(request: Request, graph: Graph, found: Inspection) -> dict[str, list[Operator]]:
    """The operators of the float32 file that each key of `precision` names."""
    if not request.precision:
        return {}
    marked = trace.trace(request, graph.function, graph.folder / "marked", marked=True)
    tflite = child.run(
        marked.folder,
        "convert",
        quantization="float32",
        io=request.io,
        batch_size=request.batch_size,
    )
    twins = trace.unmarked(inspect(tflite))
    return recipe.named(request.precision, marked.scopes, found.operators, twins)


def _save_ranges(request, graph, found, float32, samples):
    """Saves the ranges of activations for the child in the quantizer's shapes. Returns them."""
    calibration = request.calibration
    inputs = [samples[i.name] for i in graph.function.inputs]
    limits = activation_ranges(float32, inputs, calibration.ranges, calibration.percentile)
    if calibration.ranges != "minmax":
        limits = ranges.with_kept(found.operators, limits)
    limits = ranges.widened(limits)
    ranks = {t.name: len(t.shape) for op in found.operators for t in (*op.inputs, *op.outputs) if t}
    np.savez(
        graph.folder / "ranges.npz",
        **{
            name: np.array(limit, "float32").reshape(2, *(1,) * ranks.get(name, 1))
            for name, limit in limits.items()
        },
    )
    return limits
