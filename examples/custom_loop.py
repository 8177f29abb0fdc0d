"""Distil inside a training loop of your own.

The parts of a `Distiller`'s training step are public: ask the teacher outside the gradient tape,
run the student and compute the losses inside it, and do what you like with the gradients. The data
come with scikit-learn.

    python examples/custom_loop.py
"""

import keras
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_distill


def classifier(width):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(width, 3, padding="same", activation="relu", name="maps"),
            layers.MaxPooling2D(),
            layers.Conv2D(2 * width, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def main(seed=0, epochs=40):
    """Trains teacher and students, the distilled one in a loop of its own.

    Returns:
        Accuracy on held-out digits by model.
    """
    keras.utils.set_random_seed(seed)
    digits = load_digits()
    images = (digits.images[..., None] / 16).astype("float32")
    x_train, x_test, y_train, y_test = train_test_split(images, digits.target, random_state=seed)
    data = tf.data.Dataset.from_tensor_slices((x_train, y_train)).shuffle(2000, seed=seed).batch(64)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    teacher, on_labels, student = classifier(width=32), classifier(width=6), classifier(width=6)
    student.set_weights(on_labels.get_weights())
    for model, rate in ((teacher, 0.005), (on_labels, 0.01)):
        model.compile(keras.optimizers.Adam(rate), loss)
        model.fit(data, epochs=epochs, verbose=2)

    distiller = keras_distill.Distiller(
        student,
        teacher,
        losses=[
            keras_distill.losses.SoftTargets(temperature=4.0),
            keras_distill.Match(
                keras_distill.losses.Hint(), student="maps", adapter="auto", weight=0.1
            ),
        ],
        alpha=0.1,
    )
    distiller.compile(loss=loss)  # the loss of the labels; the optimizer is the loop's own
    optimizer = keras.optimizers.Adam(0.01)

    @tf.function
    def step(x, y):
        distiller.build_for(x)  # where the student didn't know its shapes
        distiller.advance_schedules(optimizer.iterations)  # where alpha or others have one
        said = distiller.ask_teacher(x)
        with tf.GradientTape() as tape:
            answer = distiller.run_student(x, training=True)
            values = distiller.compute_losses(x, y, answer, said)
        weights = distiller.trainable_weights  # the student's and the adapter's
        optimizer.apply(tape.gradient(values["loss"], weights), weights)
        return values

    for epoch in range(epochs):
        for x, y in data:
            values = step(x, y)
        print(f"epoch {epoch + 1}:", {name: round(float(v), 4) for name, v in values.items()})
    models = {"teacher": teacher, "student on labels": on_labels, "student distilled": student}
    return {
        name: float((model.predict(x_test, verbose=0).argmax(-1) == y_test).mean())
        for name, model in models.items()
    }


if __name__ == "__main__":
    print(main())
