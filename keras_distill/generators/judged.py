"""Generators seen through a judge."""

from collections.abc import Sequence

import keras

from keras_distill.frozen import frozen_copy
from keras_distill.inputs import check_known, fits, reads_of


def judged(generator: keras.Model, judge: keras.Model, layers: Sequence[str]) -> keras.Model:
    """A generator with further outputs: what layers of a judge see in the images it draws.

    Two generators that draw from the same vectors are thereby compared in the pixels and in the
    features of a judge: the teacher's discriminator, the encoder of its autoencoder, a classifier.
    Differences of pixels alone are least where the student blurs what it isn't sure of.

    Source: Aguinaldo et al., "Compressing GANs using Knowledge Distillation" (arXiv:1902.00159),
    for pixels on shared vectors; Johnson et al., "Perceptual Losses for Real-Time Style Transfer
    and Super-Resolution" (arXiv:1603.08155), section 3.2, for features of what was drawn. Middle
    layers of both generators, as in "GAN Compression" (Li et al., arXiv:2003.08936), are one more
    `Match`, with `adapter="auto"`.

    Args:
        generator: Model of one output, images.
        judge: Model of such images. It is copied, and runs in inference mode: training changes
            neither it nor the copy.
        layers: Names of its layers.

    Returns:
        Model of the generator's inputs. Its outputs are a dict: `"image"`, and one for each layer.
        It shares the generator's weights, so that the generator is trained with it.

    Raises:
        TypeError: If `generator` or `judge` isn't a Keras model.
        ValueError: If one of them doesn't know its inputs and outputs, as models do that are
            neither functional nor sequential; the judge has no such layer, one is named `"image"`,
            the generator has several outputs, or the judge doesn't read such images.

    Example:

    ```python
    losses = [
        keras_distill.Match(keras.losses.MeanAbsoluteError(), "image"),
        keras_distill.Match(keras_distill.losses.Hint(), "block2", weight=10.0),
    ]
    teacher, student = (
        keras_distill.generators.judged(generator, discriminator, ["block2"])
        for generator in (large, small)
    )
    distiller = keras_distill.Distiller(student, teacher, losses, alpha=0.0)
    ```
    """
    check_known("generator", generator)
    check_known("judge", judge)
    if len(generator.outputs) != 1:
        raise ValueError(
            "`generator` must have one output, the images. "
            f"Received: a model with {len(generator.outputs)} outputs"
        )
    (image,) = generator.outputs
    if len(judge.inputs) != 1 or not fits(judge.inputs[0].shape, image.shape):
        raise ValueError(
            f"`judge` must read what the generator draws, images of shape {image.shape}. "
            f"Received: a model that reads {', '.join(str(x.shape) for x in judge.inputs)}"
        )
    are_names = isinstance(layers, (list, tuple)) and all(isinstance(x, str) for x in layers)
    if not are_names or not layers or "image" in layers:
        raise ValueError(
            "`layers` must be a list of names of the judge's layers, other than 'image', which is "
            f"the name of what the generator draws. Received: layers={layers!r}"
        )
    looks = keras.Model(judge.inputs, {name: judge.get_layer(name).output for name in layers})
    seen = frozen_copy(looks)
    return keras.Model(reads_of(generator), {"image": image, **seen(image, training=False)})
