import keras
import pytest

from keras_distill import tflite


@pytest.fixture(scope="session")
def student(split):
    """A small convolutional student, trained."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem"),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise"),
            keras.layers.MaxPool2D(),
            keras.layers.Conv2D(24, 3, activation="relu", name="mixer"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10, name="logits"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    model.fit(*split[0], epochs=25, batch_size=64, verbose=0)
    return model


@pytest.fixture(scope="session")
def converted(student, split):
    """Converts the student, each combination once."""
    done = {}

    def convert(target, quantization, **options):
        key = (target, quantization, *sorted(options.items()))
        if key not in done:
            done[key] = tflite.convert(
                student, target, quantization, calibration=split[0][0][:300], **options
            )
        return done[key]

    return convert
