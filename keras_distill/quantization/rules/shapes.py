"""Layers that do nothing at inference, and those that move, choose or average values."""

from keras import layers

from keras_distill.quantization.rules.rule import Output, Rule

_NOTHING = Rule(Output.SAME, does_nothing=True)
_SAME = Rule(Output.SAME)

LAYERS: dict[type, Rule] = {
    layers.ActivityRegularization: _NOTHING,
    layers.AlphaDropout: _NOTHING,
    layers.Dropout: _NOTHING,
    layers.GaussianDropout: _NOTHING,
    layers.GaussianNoise: _NOTHING,
    layers.Identity: _NOTHING,
    layers.SpatialDropout1D: _NOTHING,
    layers.SpatialDropout2D: _NOTHING,
    layers.AveragePooling1D: _SAME,
    layers.AveragePooling2D: _SAME,
    layers.Concatenate: _SAME,
    layers.Cropping1D: _SAME,
    layers.Cropping2D: _SAME,
    layers.Flatten: _SAME,
    layers.GlobalMaxPooling1D: _SAME,
    layers.GlobalMaxPooling2D: _SAME,
    layers.MaxPooling1D: _SAME,
    layers.MaxPooling2D: _SAME,
    layers.Maximum: _SAME,
    layers.Minimum: _SAME,
    layers.Permute: _SAME,
    layers.RepeatVector: _SAME,
    layers.Reshape: _SAME,
    layers.Resizing: _SAME,
    layers.UpSampling1D: _SAME,
    layers.UpSampling2D: _SAME,
    layers.ZeroPadding1D: _SAME,
    layers.ZeroPadding2D: _SAME,
}
OPERATIONS: dict[str, Rule] = {
    "Concatenate": _SAME,
    "ExpandDims": _SAME,
    "GetItem": _SAME,
    "Maximum": _SAME,
    "Minimum": _SAME,
    "Reshape": _SAME,
    "Squeeze": _SAME,
    "Transpose": _SAME,
}
