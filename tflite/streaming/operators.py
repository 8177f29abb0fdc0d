"""Rules by which the operators of a window run frame by frame, one for each kind of operator."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ai_edge_litert import schema_py_generated as schema
from keras_distill.tflite.flatbuffer import shape_of
from keras_distill.tflite.streaming import recurrence, sections
from keras_distill.tflite.streaming.rewriting import Rewriting, Streamed
from keras_distill.tflite.streaming.timeline import Elements, WindowValue

#: A rule takes an operator into the stream; some of its inputs are along time.
Rule = Callable[[Rewriting, Any], None]

_POINTWISE = (
    "ABS", "ADD", "CAST", "CEIL", "COS", "DEQUANTIZE", "DIV", "ELU", "EQUAL", "EXP", "FLOOR",
    "FLOOR_DIV", "FLOOR_MOD", "GELU", "GREATER", "GREATER_EQUAL", "HARD_SWISH", "LEAKY_RELU",
    "LESS", "LESS_EQUAL", "LOG", "LOGICAL_AND", "LOGICAL_NOT", "LOGICAL_OR", "LOGISTIC", "MAXIMUM",
    "MINIMUM", "MUL", "NEG", "NOT_EQUAL", "POW", "PRELU", "QUANTIZE", "RELU", "RELU6",
    "RELU_0_TO_1", "RELU_N1_TO_1", "ROUND", "RSQRT", "SELECT", "SELECT_V2", "SIGN", "SIN", "SQRT",
    "SQUARE", "SQUARED_DIFFERENCE", "SUB", "TANH", "ZEROS_LIKE",
)  # fmt: skip
#: Places of an LSTM's hidden state and its cell among its inputs.
_LSTM_STATES = (18, 19)
#: Of these, what leaves zeros zeros, so that padding before them is exact.
_KEEPS_ZERO = {"DEQUANTIZE", "QUANTIZE", "RELU", "RELU6", "TANH"}


class LateError(ValueError):
    """An LSTM's operator would start before its first element comes: it must be held."""


def streamed(
    tflite: bytes,
    hop: int,
    scopes: Mapping[str, set[str]],
    carried: Mapping[str, Sequence[str]] | None = None,
) -> Streamed:
    """Rewrites the file of a window into one that takes the next frames.

    Args:
        tflite: The file, of batch size 1, names included.
        hop: How many frames a step takes.
        scopes: Name scopes of each layer's operators, by the layer's name.
        carried: Names of the inputs that are states of recurrent layers before each element, by
            the layer's name.

    Raises:
        ValueError: A layer can't run frame by frame, or the strides of the student don't divide
            the hop.
    """
    carried = carried or {}
    states = [name for names in carried.values() for name in names]
    file = Rewriting(tflite, hop, scopes, states)
    recurrences = recurrence.found(file, carried)
    first = {id(each.operators[0]): each for each in recurrences}
    for group in recurrence.in_order(file.graph.operators, recurrences):
        if id(group[0]) in first:
            recurrence.Unrolled(file, first[id(group[0])], _rule).emit()
        else:
            _rule(file, group[0])
    return file.finished()


def _rule(file, op):
    """Takes an operator into the stream by the rule of its kind."""
    along = [file.times[i] for i in op.inputs if i in file.times]
    if not along:
        file.operators.append(op)
    elif all(isinstance(time, WindowValue) for time in along):
        _once_a_window(file, op)
    else:
        RULES.get(file.operator_name(op), _unknown)(file, op)


def _unknown(file: Rewriting, op: Any) -> None:
    loop = file.operator_name(op) in ("WHILE", "UNPACK")
    file.refuse(
        op,
        "this recurrent layer needs its whole sequence. Use an `LSTM`, a `GRU` or a `SimpleRNN`, "
        "forwards, without masks, and without a state that is given or returned."
        if loop
        else "it is none of the operators that are known to do so. Leave it to the app, or compute "
        "it after the pooling over the window.",
    )


def _timed(file, op):
    """Places of the inputs that are along time."""
    return [place for place, index in enumerate(op.inputs) if index in file.times]


def _once_a_window(file, op):
    """What follows on pooling over the window is computed at each step."""
    times = file.align(op, _timed(file, op))
    time = functools.reduce(WindowValue.joined, times)
    file.emit(op, *[time] * len(op.outputs))


def _elements(file, op, place=0):
    """When an input comes, which is along time."""
    time = file.times.get(op.inputs[place])
    if not isinstance(time, Elements):
        _mixed(file, op)
    return time


def _mixed(file, op):
    file.refuse(
        op,
        "it computes with the frames of the whole window at every frame (attention, squeeze and "
        "excitation, or normalization over time). Use layers that look at frames near by, such as "
        "convolutions, and normalize over channels.",
    )


def _joined(file, op):
    """When the inputs of an operator come, once they are equally late and along one axis."""
    places = _timed(file, op)
    if not all(isinstance(file.times[op.inputs[i]], Elements) for i in places):
        _mixed(file, op)
    times = file.align(op, places)
    if len({(t.length, t.stride) for t in times}) > 1:
        file.refuse(
            op,
            f"its inputs have {[t.length for t in times]} elements along time. Give its branches "
            "the same strides, and crop or pad them alike.",
        )
    return functools.reduce(Elements.joined, times)


def _pointwise(file, op):
    rank = max(len(file.shapes[i]) for i in op.inputs if i >= 0)
    for place in _timed(file, op):
        if isinstance(file.times[op.inputs[place]], Elements):
            index = op.inputs[place]
            from_end = file.times[index].axis - len(file.shapes[index])
    time = _joined(file, op)
    for index in op.inputs:
        shape = file.shapes[index] if index >= 0 else ()
        own = file.times.get(index)
        if own is None and len(shape) >= -from_end and shape[from_end] > 1:
            file.refuse(
                op,
                "it computes with other constants at each place of the window, such as a position "
                "embedding. A stream has no first frame: leave the positions out, and give `PReLU` "
                "`shared_axes=[1]`.",
            )
        if own is not None and own.axis - len(shape) != from_end:
            _mixed(file, op)
    time = time.moved(rank + from_end)
    keeps = file.operator_name(op) in _KEEPS_ZERO
    file.emit(op, time if keeps else time.computed())


def _kernel(file, op, size, weights=None):
    """Convolution and pooling, whose kernel is `size` high and wide."""
    time = _elements(file, op)
    options = op.builtinOptions
    if time.axis not in (1, 2):
        file.refuse(op, "time is neither the height nor the width of what it sweeps over.")
    dilations = (1, 1)
    if weights is not None:
        dilations = options.dilationHFactor, options.dilationWFactor
    strides = options.strideH, options.strideW
    along, across = time.axis - 1, 2 - time.axis
    extent = [(size[i] - 1) * dilations[i] + 1 for i in (0, 1)]
    shape = file.shapes[op.inputs[0]]
    same = options.padding == schema.Padding.SAME
    pads = [_same(shape[i + 1], extent[i], strides[i]) if same else (0, 0) for i in (0, 1)]
    after = time.swept(
        extent[along], strides[along], pads[along][0], file.shapes[op.outputs[0]][time.axis],
        zeros=weights is not None,
    )  # fmt: skip
    _check_hop(file, op, after)
    buffer = time.buffer(extent[along], strides[along], pads[along][0])
    op.inputs = list(op.inputs)
    op.inputs[0] = file.preceded(op, op.inputs[0], time, buffer)
    if any(pads[across]):
        if weights is None:
            file.refuse(
                op,
                f"it pools beyond the edge of its {shape[across + 1]} rows or columns. Use "
                '`padding="valid"`.',
            )
        op.inputs[0] = file.padded(op, op.inputs[0], across + 1, *pads[across])
    options.padding = schema.Padding.VALID
    file.emit(op, after)


def _check_hop(file, op, after):
    if file.hop % after.stride:
        raise ValueError(
            f"`stream` must be a multiple of {after.stride} frames, the strides along time up to "
            f"layer {file.name_of(op)!r}. Received: a hop of {file.hop}"
        )


def _same(size, extent, stride):
    """The padding `"SAME"`, before and after."""
    total = max((-(-size // stride) - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2


def _convolution(file, op):
    weights = file.shapes[op.inputs[1]]
    _kernel(file, op, weights[1:3], weights)


def _pooling(file, op):
    _kernel(file, op, (op.builtinOptions.filterHeight, op.builtinOptions.filterWidth))


def _lstm(file, op):
    time = _elements(file, op)
    if op.builtinOptions.timeMajor or time.axis != 1:
        file.refuse(op, "its sequence isn't along the second axis.")
    if time.delay or time.start:
        raise LateError(
            f"Layer {file.name_of(op)!r} ({file.operator_name(op)}) can't run frame by frame: it "
            'would get what is computed before the recording starts. Use `padding="causal"` in '
            "the layers before it."
        )
    file.emit(op, time.remembered())
    file.carry(op, _LSTM_STATES)


def _dense(file, op):
    time, shape = _elements(file, op), file.shapes[op.inputs[0]]
    depth = file.shapes[op.inputs[1]][-1]
    out = file.shapes[op.outputs[0]]
    axis = sections.kept(shape, time.axis, out)
    if time.axis < len(shape) - 1 and depth == shape[-1] and axis is not None:
        file.emit(op, time.moved(axis).computed())
        return
    op.inputs = list(op.inputs)
    op.inputs[0] = file.window_of(op, op.inputs[0], time)
    file.emit(op, time.whole())


def _product(file, op):
    time = _elements(file, op)
    if op.inputs[1] in file.times or op.builtinOptions.adjX:
        _mixed(file, op)
    if time.axis == len(file.shapes[op.inputs[0]]) - 1:
        file.refuse(op, "it sums over time, each frame with a weight of its own.")
    file.emit(op, time.computed())


def _over_channels(file, op):
    """Softmax and the like, over the last axis."""
    time = _elements(file, op)
    if time.axis == len(file.shapes[op.inputs[0]]) - 1:
        _mixed(file, op)
    file.emit(op, time.computed())


def _reduction(file, op):
    time, rank = _elements(file, op), len(file.shapes[op.inputs[0]])
    axes = {axis % rank for axis in file.ints(op.inputs[1])}
    keep = getattr(op.builtinOptions, "keepDims", False)
    if time.axis in axes:
        op.inputs = list(op.inputs)
        op.inputs[0] = file.window_of(op, op.inputs[0], time)
        file.emit(op, time.whole())
        return
    gone = 0 if keep else sum(axis < time.axis for axis in axes)
    file.emit(op, time.moved(time.axis - gone).computed())


def _lookup(file, op):
    """Rows of a table, one for each element."""
    axis, rank = op.builtinOptions.axis, len(file.shapes[op.inputs[1]])
    if op.inputs[0] in file.times or op.builtinOptions.batchDims:
        time = _elements(file, op)
        axis %= len(file.shapes[op.inputs[0]])
        if op.inputs[1] in file.times or axis == time.axis or op.builtinOptions.batchDims:
            _mixed(file, op)
        file.emit(op, time.moved(time.axis + (rank - 1 if axis < time.axis else 0)))
        return
    time = _elements(file, op, 1)
    file.emit(op, time.moved(time.axis + axis).computed())


def _concatenation(file, op):
    time = _joined(file, op)
    rank = len(file.shapes[op.outputs[0]])
    constant = any(i not in file.times for i in op.inputs)
    if op.builtinOptions.axis % rank == time.axis or constant:
        file.refuse(
            op,
            "it joins frames along time, or with constants. Join along channels.",
        )
    file.emit(op, time)


def _split(file, op):
    place = 1 if file.operator_name(op) == "SPLIT" else 0
    time, shape = _elements(file, op, place), file.shapes[op.inputs[place]]
    (axis,) = file.ints(op.inputs[2 * (1 - place)])
    if axis % len(shape) == time.axis:
        file.refuse(op, "it splits the window along time. Split along channels.")
    file.emit(op, *[time] * len(op.outputs))


def _arg(file, op):
    time, rank = _elements(file, op), len(file.shapes[op.inputs[0]])
    (axis,) = (a % rank for a in file.ints(op.inputs[1]))
    if axis == time.axis:
        file.refuse(op, "it looks for the largest of all frames. Leave that to the app.")
    file.emit(op, time.moved(time.axis - (axis < time.axis)).computed())


def _transpose(file, op):
    time = _elements(file, op)
    file.emit(op, time.moved(file.ints(op.inputs[1]).index(time.axis)))


def _reshape(file, op):
    time = _elements(file, op)
    before, after = file.shapes[op.inputs[0]], file.shapes[op.outputs[0]]
    axis = sections.kept(before, time.axis, after)
    if axis is None and not sections.merged(before, time.axis, after):
        file.refuse(
            op,
            f"it reshapes {list(before)} to {list(after)} across time. Reshape the axes after time "
            "only, or use strides.",
        )
    op.inputs = list(op.inputs)
    if axis is None:
        op.inputs[0] = file.window_of(op, op.inputs[0], time)
        file.emit(op, time.whole())
        return
    file.emit(op, time.moved(axis))
    shape = [int(size) for size in shape_of(file.graph.tensors[op.outputs[0]])]
    if file.operator_name(op) == "RESHAPE":
        if len(op.inputs) > 1:
            file.constant(op, 1, shape)
        if op.builtinOptions is not None:
            op.builtinOptions.newShape = shape


def _pad(file, op):
    time = _elements(file, op)
    flat = file.ints(op.inputs[1])
    pads = [flat[i : i + 2] for i in range(0, len(flat), 2)]
    before, after = pads[time.axis]
    if file.operator_name(op) != "PAD" and (before or after):
        file.refuse(op, "it pads along time with other values than zeros.")
    later = time.padded(before, after)
    pads[time.axis] = [0, 0]
    if not any(map(any, pads)):
        file.drop(op, op.inputs[0], later)
        return
    file.emit(op, later)
    index = op.inputs[1]
    file.constant(op, 1, [size for pair in pads for size in pair])
    file.graph.tensors[op.inputs[1]].shape = list(file.shapes[index])


def _slice(file, op):
    time = _elements(file, op)
    begins, sizes = (file.ints(op.inputs[i]) for i in (1, 2))
    length = file.shapes[op.outputs[0]][time.axis]
    later = time.cropped(begins[time.axis], length)
    begins[time.axis] = 0
    whole = zip(begins, sizes, file.shapes[op.inputs[0]], strict=True)
    if all(not b and n in (-1, size) for i, (b, n, size) in enumerate(whole) if i != time.axis):
        file.drop(op, op.inputs[0], later)
        return
    sizes[time.axis] = file.new(time)
    file.constant(op, 1, begins)
    file.constant(op, 2, sizes)
    file.emit(op, later)


def _strided_slice(file, op):
    time, shape = _elements(file, op), file.shapes[op.inputs[0]]
    options = op.builtinOptions
    if options.ellipsisMask or options.newAxisMask:
        file.refuse(op, "it slices with an ellipsis or new axes, which this form can't follow.")
    cuts = sections.cuts(*(file.ints(i) for i in op.inputs[1:4]), shape, options)
    here = cuts[time.axis]
    if here.gone:
        _last_element(file, op, time, cuts[: len(file.ints(op.inputs[1]))])
        return
    axis = time.axis - sum(cut.gone for cut in cuts[: time.axis])
    length = math.ceil((here.end - here.begin) / here.step)
    if here.step < 1:
        file.refuse(op, "it turns time around.")
    later = time.swept(1, here.step, -here.begin, length)
    _check_hop(file, op, later)
    source = file.preceded(op, op.inputs[0], time, time.buffer(1, here.step, -here.begin))
    others = [cut.whole for cut in cuts if cut is not here]
    if here.step == 1 and all(others):
        file.drop(op, source, time.cropped(here.begin, length))
        return
    op.inputs = list(op.inputs)
    op.inputs[0] = source
    sections.keep_all(options, time.axis)
    file.emit(op, later.moved(axis))


def _last_element(file, op, time, cuts):
    """The last element of the window; those before it aren't kept."""
    if cuts[time.axis].begin != time.length - 1 or any(cut.step < 1 for cut in cuts):
        file.refuse(
            op,
            "it takes a single frame out of the window, as `TimeDistributed` does with each. Give "
            "the whole sequence to the layer (`Dense` takes it), use `Reshape`, or take the last.",
        )
    file.constant(op, 1, [0 if i == time.axis else cut.begin for i, cut in enumerate(cuts)])
    file.constant(op, 2, [1 if i == time.axis else cut.end for i, cut in enumerate(cuts)])
    options = op.builtinOptions
    options.beginMask = options.endMask = 0
    last = time.cropped(time.length - 1, 1)
    op.inputs[0] = file.window_of(op, op.inputs[0], last)
    file.emit(op, last.whole())


#: By the operator's name.
RULES: dict[str, Rule] = {
    **dict.fromkeys(_POINTWISE, _pointwise),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), _convolution),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _pooling),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"), _reduction),
    **dict.fromkeys(("SOFTMAX", "LOG_SOFTMAX", "L2_NORMALIZATION"), _over_channels),
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS"), _reshape),
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), _pad),
    **dict.fromkeys(("SPLIT", "SPLIT_V"), _split),
    **dict.fromkeys(("ARG_MAX", "ARG_MIN"), _arg),
    "BATCH_MATMUL": _product,
    "CONCATENATION": _concatenation,
    "FULLY_CONNECTED": _dense,
    "GATHER": _lookup,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "TRANSPOSE": _transpose,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
}
