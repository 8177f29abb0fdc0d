"""Image classification: clothes of Fashion-MNIST, by way of TensorFlow Datasets.

Teacher and student see the same shifted and flipped view of each image. Any image dataset of
TensorFlow Datasets will do in place of this one.

    python examples/image_classification.py
"""

import keras
from keras import layers

import keras_distill

AUGMENT = [
    layers.ZeroPadding2D(2),
    layers.RandomCrop(28, 28),
    layers.RandomFlip("horizontal"),
]


def convolutional(widths, classes, name):
    """Blocks of two convolutions, each block at half the resolution of the one before."""
    stack = [keras.Input((28, 28, 1)), layers.Rescaling(1 / 255)]
    for width in widths:
        for strides in (2, 1):
            stack += [
                layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(),
            ]
    stack += [layers.GlobalAveragePooling2D(), layers.Dense(classes)]
    return keras.Sequential(stack, name=name)


def main(seed=0, epochs=8, examples=None, data_dir=None):
    """Trains a teacher, a student on labels, and the same student distilled.

    Returns:
        Accuracy on the test images by model.
    """
    keras.utils.set_random_seed(seed)
    data = keras_distill.data.load("fashion_mnist", data_dir=data_dir)
    train = data.train.take(examples or len(data.train)).cache()
    train = keras_distill.data.batches(train, 128, augment=AUGMENT, seed=seed)
    test = data.test.take(examples or len(data.test)).batch(500).cache()
    classes = len(data.class_names)
    accuracy = {}

    def fit(title, model, learning_rate):
        model.compile(
            keras.optimizers.Adam(
                keras.optimizers.schedules.CosineDecay(learning_rate, epochs * len(train))
            ),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.fit(train, epochs=epochs, verbose=2)
        accuracy[title] = model.evaluate(test, verbose=0, return_dict=True)["accuracy"]

    teacher = convolutional((16, 32, 48), classes, "teacher")
    fit("teacher", teacher, 3e-3)
    student = convolutional((6, 12, 24), classes, "student")
    initial = student.get_weights()
    fit("student on labels", student, 1e-2)
    student.set_weights(initial)
    # A student as small as this can't follow a teacher all the way: half of the weight to labels.
    losses = keras_distill.losses.SoftTargets(temperature=2.0)
    distiller = keras_distill.Distiller(student, teacher, losses, alpha=0.5)
    fit("student distilled", distiller, 1e-2)
    return accuracy


if __name__ == "__main__":
    print(main())
