"""What TensorFlow's converter says, in words that name the operator, the layer and what to do."""

import re

from keras_distill.tflite import targets

_FLEX = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")
_LOCATION = re.compile(r'fused\["(\w+):", "([^"@]+)@?[^"]*"\]')
_DYNAMIC = re.compile(r"requires element_shape to be static|TensorList")

#: What to do about operators that TFLite lacks.
_FIXES = {
    "ResizeBicubic": 'use `interpolation="bilinear"`',
    "ScaleAndTranslate": 'use `interpolation="bilinear"` without antialiasing',
    "ResizeArea": 'use `interpolation="bilinear"`',
    "MaxPool3D": "use pooling of two dimensions, or `ops.max` over slices",
    "AvgPool3D": "use pooling of two dimensions, or `ops.mean` over slices",
    "DenseBincount": "count by `ops.one_hot` and a sum",
    "BitwiseAnd": '`ops.argmax` ends in it: use `postprocessing="argmax"`',
    "StringToHashBucketFast": "hash in the app, and give the file ids",
    "Mfcc": "compute features in the app, and give them to the file",
}


def explained(message: str) -> str:
    """A message of the converter, without its intermediate code where it is understood.

    Args:
        message: What the converter raised.
    """
    lacking = dict.fromkeys(_FLEX.findall(message))
    if lacking:
        layers = {}
        for line in message.splitlines():
            name, found = _FLEX.search(line), _LOCATION.search(line)
            if name and found:
                layers.setdefault(name[1], targets.without_call(found[2]))
        parts = []
        for name in lacking:
            at = f" (at {layers[name]!r})" if name in layers else ""
            parts.append(f"{name}{at}" + (f": {_FIXES[name]}" if name in _FIXES else ""))
        return (
            f"TFLite has no operator for {'; '.join(parts)}. Replace the layers by others, or "
            "compute that part outside of the file."
        )
    if _DYNAMIC.search(message):
        return "A loop has a tensor of unknown size: give `batch_size=1`."
    first = message.strip().splitlines()
    # The rest is intermediate code of many lines.
    kept = [
        line for line in first if not line.startswith(("<unknown>", "\t", " ")) or len(first) < 3
    ]
    return "\n".join(kept)[:1000]
