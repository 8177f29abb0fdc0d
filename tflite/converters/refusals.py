"""What TensorFlow's converter says, in words that name the operator, the layer and what to do."""

import re
from collections.abc import Collection, Sequence

from keras_distill.tflite import targets

_FLEX = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")
_LOCATION = re.compile(r'fused\["(\w+):", "([^"@]+)@?[^"]*"\]')
_RANGELESS = re.compile(r"Max and min for dynamic tensors .*Failed for tensor (\S+)")
_DYNAMIC = re.compile(r"requires element_shape to be static|TensorList")

#: What to do about operators that TFLite lacks.
_FIXES = {
    "ResizeBicubic": 'use `interpolation="bilinear"`',
    "ScaleAndTranslate": 'use `interpolation="bilinear"` without antialiasing',
    "ResizeArea": 'use `interpolation="bilinear"`',
    "MaxPool3D": "use pooling of two dimensions, or `ops.max` over slices",
    "AvgPool3D": "use pooling of two dimensions, or `ops.mean` over slices",
    "DenseBincount": "count by `ops.one_hot` and a sum",
    "BitwiseAnd": '`ops.argmax` and `ops.argmin` end in it: use `postprocessing="argmax"`',
    "StringToHashBucketFast": "hash in the app, and give the file ids",
    **dict.fromkeys(
        ("AudioSpectrogram", "Mfcc", "FFT", "RFFT", "Complex"),
        "compute features in the app, and give them to the file",
    ),
}


def explained(message: str, layers: Collection[str] = (), loops: Sequence[str] = ()) -> str:
    """A message of the converter, without its intermediate code where it is understood.

    Args:
        message: What the converter raised.
        layers: Names of the model's layers.
        loops: Names of the loops in its graph.
    """
    lacking = dict.fromkeys(_FLEX.findall(message))
    if lacking:
        places = _places(message, layers)
        parts = []
        for name in lacking:
            at = f" ({places[name]})" if name in places else ""
            parts.append(f"{name}{at}" + (f": {_FIXES[name]}" if name in _FIXES else ""))
        return (
            f"TFLite has no operator for {'; '.join(parts)}. Replace the layers by others, or "
            "compute that part outside of the file."
        )
    if _DYNAMIC.search(message):
        found = [_layer_in(name, layers) or f"loop {name!r}" for name in loops]
        of = f" ({', '.join(dict.fromkeys(found))})" if found else ""
        return f"A loop{of} has a tensor of unknown size: give `batch_size=1`."
    rangeless = _RANGELESS.search(message)
    if rangeless:
        return (
            f"an operator reads the integers of {rangeless[1]!r}, which have no range, so that it "
            'has no form in 16 bits: give quantization="int8", or "float32".'
        )
    first = message.strip().splitlines()
    # The rest is intermediate code of many lines.
    kept = [
        line for line in first if not line.startswith(("<unknown>", "\t", " ")) or len(first) < 3
    ]
    return "\n".join(kept)[:1000]


def _places(message, layers):
    """Where each operator that is lacking was found first."""
    places: dict[str, str] = {}
    for line in message.splitlines():
        name, found = _FLEX.search(line), _LOCATION.search(line)
        if name and found:
            scope = targets.without_call(found[2])
            places.setdefault(name[1], _layer_in(scope, layers) or f"at {scope!r}")
    return places


def _layer_in(scope, layers):
    """The innermost layer that a name scope belongs to; Keras may have numbered its name."""
    for part in reversed(scope.split("/")):
        for name in (part, re.sub(r"_\d+$", "", part)):
            if name in layers:
                return f"layer {name!r}"
    return None
