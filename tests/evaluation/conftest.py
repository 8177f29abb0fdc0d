"""A teacher, students and an exported file on the digits, trained once."""

import keras
import pytest
import tensorflow as tf

import keras_distill


def classifier(units, seed, x, y, epochs=3, activation=None, **options):
    """A dense network for the digits, trained for a moment."""
    keras.utils.set_random_seed(seed)
    hidden = (keras.layers.Dense(n, "relu") for n in units)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            *hidden,
            keras.layers.Dense(10, activation),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=activation is None)
    model.compile("adam", loss, metrics=["accuracy"])
    model.history = model.fit(
        x[:1080], y[:1080], epochs=epochs, batch_size=32, verbose=0, **options
    )
    return model


@pytest.fixture(scope="session")
def candidates(digits):
    """A teacher, two runs of a student, and a student that ends in softmax."""
    x, y = digits
    rest = x[1080:1200], y[1080:1200]
    return {
        "teacher": classifier([64], 0, x, y, epochs=6, validation_data=rest),
        "student on labels": [classifier([4], seed, x, y, epochs=2) for seed in (1, 2)],
        "distilled": classifier([8], 3, x, y, activation="softmax"),
    }


@pytest.fixture(scope="session")
def held_out(digits):
    x, y = digits
    return x[1200:], y[1200:]


@pytest.fixture(scope="session")
def micro_file(candidates, held_out, tmp_path_factory):
    """The distilled student as an int8 file for microcontrollers."""
    path = tmp_path_factory.mktemp("export") / "student.tflite"
    candidates["distilled"].export(
        path,
        format="litert",
        verbose=False,
        input_signature=[tf.TensorSpec((1, 8, 8, 1), tf.float32, name="image")],
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ([x[None]] for x in held_out[0][:100]),
        target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
        inference_input_type=tf.int8,
        inference_output_type=tf.int8,
    )
    return keras_distill.tflite.load(path, target="micro")


@pytest.fixture(scope="session")
def comparison(candidates, held_out, micro_file):
    """All of them compared, the file in both runtimes."""
    phone = keras_distill.tflite.load(micro_file.tflite, target="android")
    return keras_distill.evaluation.compare(
        {**candidates, "int8 phone": phone, "int8 micro": micro_file},
        held_out,
        class_names=list("0123456789"),
        latency_runs=3,
    )
