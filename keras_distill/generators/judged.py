"""Generators seen through a judge."""

from collections.abc import Sequence

import keras

from keras_distill.frozen import frozen_copy


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
        ValueError: If the judge has no such layer, one is named `"image"`, or the generator has
            several outputs.

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
    if len(generator.outputs) != 1:
        raise ValueError(
            "`generator` must have one output, the images. "
            f"Received: a model with {len(generator.outputs)} outputs"
        )
    if isinstance(layers, str) or not layers or "image" in layers:
        raise ValueError(
            "`layers` must be a list of names of the judge's layers, other than 'image', which is "
            f"the name of what the generator draws. Received: layers={layers!r}"
        )
    looks = keras.Model(judge.inputs, {name: judge.get_layer(name).output for name in layers})
    seen = frozen_copy(looks)
    (image,) = generator.outputs
    return keras.Model(generator.inputs, {"image": image, **seen(image, training=False)})
