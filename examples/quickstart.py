"""Distil a digit classifier, then ship it to a microcontroller as a verified int8 file.

Run it with `python examples/quickstart.py`. The data (1,797 handwritten digits of 8×8 pixels)
come with scikit-learn; nothing is downloaded.
"""

import keras
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_distill


def classifier(width):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(width, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(2 * width, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


digits = load_digits()
images = (digits.images[..., None] / 16).astype("float32")
x_train, x_test, y_train, y_test = train_test_split(images, digits.target, random_state=0)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

teacher = classifier(width=48)
teacher.compile("adam", loss, metrics=["accuracy"])
teacher.fit(x_train, y_train, epochs=30, verbose=2)

student = classifier(width=6)
distiller = keras_distill.Distiller(
    student, teacher, losses=keras_distill.losses.SoftTargets(temperature=4.0), alpha=0.1
)
distiller.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
distiller.fit(x_train, y_train, epochs=30, verbose=2)

artifact = keras_distill.tflite.convert(
    student, target="micro", quantization="int8", calibration=x_train[:200]
)
print(artifact.verify(x_test, y_test))
print("Saved to", artifact.save("runs/quickstart"))
