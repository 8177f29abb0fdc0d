"""Layers that do nothing at inference, and those that move, choose or average values."""

from keras import layers

from keras_distill.quantization.graph import Step
from keras_distill.quantization.rules.rule import Output, Rule

_NOTHING = Rule(Output.SAME, does_nothing=True)
_SAME = Rule(Output.SAME)


def _check_resizing(step: Step) -> str | None:
    """What TFLite can resize by."""
    layer = step.operation
    if layer.interpolation not in ("nearest", "bilinear"):
        return (
            f'TFLite has no kernel for interpolation={layer.interpolation!r}: use "bilinear" or '
            '"nearest".'
        )
    for option in ("antialias", "pad_to_aspect_ratio"):
        if getattr(layer, option, False):
            return f"TFLite has no kernel for `{option}=True`: leave it out."
    return None


_RESIZING = Rule(Output.SAME, check=_check_resizing)
#: Augmentation changes its input in training only. `RandomCrop` isn't among it: it resizes later.
_AUGMENTATION = (
    "AugMix", "CutMix", "MixUp", "RandAugment", "RandomBrightness", "RandomColorDegeneration",
    "RandomColorJitter", "RandomContrast", "RandomElasticTransform", "RandomErasing", "RandomFlip",
    "RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective",
    "RandomPosterization", "RandomRotation", "RandomSaturation", "RandomSharpness", "RandomShear",
    "RandomTranslation", "RandomZoom",
)  # fmt: skip

LAYERS: dict[type, Rule] = {
    # Which of them there are depends on the release of Keras.
    **{getattr(layers, n): _NOTHING for n in _AUGMENTATION if hasattr(layers, n)},
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
    layers.Resizing: _RESIZING,
    layers.UpSampling1D: _SAME,
    layers.UpSampling2D: _RESIZING,
    layers.ZeroPadding1D: _SAME,
    layers.ZeroPadding2D: _SAME,
}
OPERATIONS: dict[str, Rule] = {
    "Concatenate": _SAME,
    "ExpandDims": _SAME,
    "Flip": _SAME,
    "GetItem": _SAME,
    "Maximum": _SAME,
    "Minimum": _SAME,
    "Reshape": _SAME,
    "Squeeze": _SAME,
    "Transpose": _SAME,
}
